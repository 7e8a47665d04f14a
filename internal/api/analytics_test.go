package api_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/api"
	"github.com/terselink/terse/internal/clicks"
)

// TestCompareTags: a row of a breakdown by tag has what its tag was before, however many other tags its clicks had.
func TestCompareTags(t *testing.T) {
	t.Parallel()
	for _, more := range []int{3, analytics.MaxLimit + 100} {
		b := setup(t, options{})
		b.want(200, request{method: "GET", path: "/api/v1/analytics/summary"})
		w := b.engine.query.Load().Workspace
		link := func(n uint64) terse.LinkNumber { return terse.NewLinkNumber(1, 1, n) }
		facts := analytics.FactBatch{At: 1, Reset: true}
		var others []string
		for i := range more {
			others = append(others, fmt.Sprintf("a%04d", i))
		}
		facts.Links = []analytics.LinkTags{
			{Workspace: w, Link: link(1), Tags: append([]string{"x"}, others...)}, {Workspace: w, Link: link(2), Tags: append([]string{"y"}, others...)},
			{Workspace: w, Link: link(3), Tags: []string{"x"}}, {Workspace: w, Link: link(4), Tags: []string{"y"}}, {Workspace: w, Link: link(5), Tags: []string{"new"}},
		}
		var events []clicks.Event
		click := func(n uint64, day string, times int) {
			when, err := time.Parse(time.RFC3339, day)
			if err != nil {
				t.Fatal(err)
			}
			at := terse.MillisOf(when)
			for range times {
				i := len(events)
				events = append(events, clicks.Event{ID: [16]byte{0: 1, 14: byte(i >> 8), 15: byte(i)}, At: at, Workspace: w, Link: link(n), Visitor: uint64(i + 1), Weight: 1})
			}
		}
		click(1, "2026-11-10T10:00:00Z", 3)
		click(2, "2026-11-10T10:00:00Z", 2)
		click(3, "2026-11-20T10:00:00Z", 4)
		click(4, "2026-11-20T10:00:00Z", 3)
		click(5, "2026-11-20T10:00:00Z", 2)
		ref := enginetest.NewReference(events)
		if err := ref.PutFacts(t.Context(), facts); err != nil {
			t.Fatal(err)
		}
		b.engine.real = ref
		var got api.Breakdown
		a := b.want(200, request{method: "GET", path: "/api/v1/analytics/breakdown?by=tag&limit=3&from=2026-11-20&to=2026-11-20&compare=custom&compare_from=2026-11-10&compare_to=2026-11-10"})
		if err := json.Unmarshal(a.body, &got); err != nil {
			t.Fatal(err)
		}
		want := map[string]api.PreviousRow{"x": {Clicks: 3, Visitors: 3}, "y": {Clicks: 2, Visitors: 2}, "new": {}}
		for _, row := range got.Data {
			if row.Previous == nil || *row.Previous != want[row.Value] {
				t.Errorf("with %d other tags, %s was %+v, want %+v", more, row.Value, row.Previous, want[row.Value])
			}
		}
		if len(got.Data) != 3 {
			t.Errorf("%+v", got.Data)
		}
	}
}
