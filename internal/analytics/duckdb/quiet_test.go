package duckdb

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
)

// TestQuietLinks: links with too few clicks for rows of their own keep their numbers when retention takes the clicks: with a cube
// all that it has, without one their clicks by day, of days before and after the totals of links were merged.
func TestQuietLinks(t *testing.T) {
	t.Parallel()
	now := terse.MillisOf(inSpan)
	events := without(enginetest.Events(42, 6000), func(ev *clicks.Event) bool { return ev.At >= now })
	ref := enginetest.NewReference(events)
	for name, share := range map[string]int{"cubes": -1, "no cubes": 1 << 20} {
		d := closed(t, Options{scopeRows: 1000, cubeShare: share}, events)
		d.SetRetention(Retention{Default: Terms{Raw: 1}})
		maintain(t, d)
		if d.merged < dayOf(enginetest.SpanFrom) || d.merged >= dayOf(now)-2 {
			t.Fatalf("%s: totals are merged up to %d: not days of both kinds", name, d.merged)
		}
		links := map[terse.LinkNumber]bool{}
		for i := range events {
			if ev := &events[i]; ev.Workspace == enginetest.Workspace && ev.Link != 0 && len(links) < 30 {
				links[ev.Link] = true
			}
		}
		var all int64
		for link := range links {
			q := everything()
			q.Scope.Link, q.To, q.Interval = link, terse.Millis((dayOf(now)-2)*dayMillis), analytics.Week // all of it is pruned
			want, _ := ref.Summary(t.Context(), q)
			got, err := d.Summary(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			series, err := d.Timeseries(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			wantSeries, _ := ref.Timeseries(t.Context(), q)
			if name == "no cubes" { // nothing else is known
				want = analytics.Summary{Clicks: want.Clicks, Humans: want.Humans, Total: want.Humans, Outcomes: map[string]int64{}}
				if want.Clicks > 0 {
					want.Outcomes["redirect"] = want.Clicks
				}
				for i, p := range wantSeries.Points {
					wantSeries.Points[i] = analytics.Point{T: p.T, Clicks: p.Clicks}
				}
			}
			if got.LagMs = 0; !cmp.Equal(want, got) {
				t.Errorf("%s: link %d: %s", name, link, cmp.Diff(want, got))
			}
			if !cmp.Equal(wantSeries, series) {
				t.Errorf("%s: link %d: %s", name, link, cmp.Diff(wantSeries, series))
			}
			q.Interval = analytics.Hour
			if series, err := d.Timeseries(t.Context(), q); err != nil {
				t.Error(err)
			} else if name == "no cubes" {
				for _, p := range series.Points {
					if p.Clicks != 0 {
						t.Errorf("%s: link %d: %d clicks of a day in the hour of %v", name, link, p.Clicks, p.T)
					}
				}
			}
			q.Bots = analytics.BotsOnly
			if got, err := d.Summary(t.Context(), q); err != nil || name == "no cubes" && got.Clicks != 0 {
				t.Errorf("%s: link %d: %d clicks of bots, %v", name, link, got.Clicks, err)
			}
			all += want.Clicks
		}
		if all == 0 {
			t.Fatal("nothing was asked for")
		}
	}
}
