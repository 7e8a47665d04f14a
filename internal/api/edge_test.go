package api_test

import (
	"encoding/json"
	"testing"

	"github.com/terselink/terse/internal/edge/wire"
)

// TestEdgeScope: edge:use is for the whole instance, so a key of a workspace does not have it, whatever else it may do,
// and cannot give it. What it opens holds no keys of the API.
func TestEdgeScope(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	w, everything := b.workspace("all", "*")
	b.wantProblem(403, "forbidden", request{method: "GET", path: wire.PathSalts, key: everything})
	b.wantProblem(403, "scope_exceeded", request{method: "POST", path: "/api/v1/keys", key: everything, body: `{"name":"e","scopes":["edge:use"]}`})
	edge := b.key(w, "edge:use")
	b.want(200, request{method: "GET", path: wire.PathDocument + "?kind=meta&id=default_domain", key: edge})
	for _, q := range []string{"kind=key&id=00000000", "kind=meta&id=owner", "kind=workspace&workspace=1&id=x", "kind=process&id=a"} {
		b.wantProblem(403, "forbidden", request{method: "GET", path: wire.PathDocument + "?" + q, key: edge})
	}
	b.wantProblem(503, "clicks_disabled", request{method: "GET", path: wire.PathClicks + "?edge=0123456789abcdef", key: edge})
}

// TestEdgeEpoch: every page of changes names its feed, also one without changes.
func TestEdgeEpoch(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	w, _ := b.workspace("all", "*")
	edge := b.key(w, "edge:use")
	for _, q := range []string{"", "?after=0", "?after=1000000"} {
		var page wire.EdgeChanges
		a := b.want(200, request{method: "GET", path: wire.PathChanges + q, key: edge})
		if err := json.Unmarshal([]byte(a.body), &page); err != nil {
			t.Fatal(err)
		}
		if page.Epoch != "e1" {
			t.Errorf("%q: epoch %q", q, page.Epoch)
		}
	}
}
