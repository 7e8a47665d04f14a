package api_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/terselink/terse/internal/analytics"
)

// TestErase: an erasure reaches the engine with the workspace of the key, and what names nothing is refused.
func TestErase(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	w, key := b.workspace("w", "analytics:write")
	_, reader := b.workspace("r", "analytics:read", "links:write")
	post := func(key, body string) request {
		return request{method: "POST", path: "/api/v1/analytics/erase", key: key, body: body}
	}
	for body, field := range map[string]string{
		`{}`: "link_id", `{"link_id":"camp_0000000000001"}`: "link_id", `{"visitor":"12"}`: "visitor", `{"visitor":"00000000000000FF"}`: "visitor",
	} {
		a := b.do(post(key, body))
		if a.status != 422 && a.status != 400 || b.engine.erased != (analytics.Erasure{}) {
			t.Errorf("%s: %d %s, want a refusal of %s", body, a.status, a.body, field)
		}
	}
	b.want(403, post(reader, `{"visitor":"00000000000000ff"}`))
	b.want(200, post(key, `{"link_id":"link_0000000000001","visitor":"00000000000000ff"}`))
	if e := b.engine.erased; e.Workspace.String() != w || e.Link != 1 || e.Visitor != 255 {
		t.Errorf("the engine was asked to erase %+v", e)
	}
	for body, last := range map[string]string{`{"link_id":"link_0000000000001"}`: "pruned_days", `{"visitor":"00000000000000ff"}`: "anonymous_clicks"} {
		var out struct {
			Clicks  int64
			Remains []struct{ What, Text string }
		}
		a := b.want(200, post(key, body))
		if err := json.Unmarshal(a.body, &out); err != nil || len(out.Remains) < 4 || out.Remains[len(out.Remains)-1].What != last || out.Remains[0].Text == "" {
			t.Errorf("%s: %s %v", body, a.body, err)
		}
	}
	if left := time.Until(b.engine.eraseBy); left < 20*time.Minute {
		t.Errorf("the engine may take %v", left)
	}
}
