package duckdb

import (
	"context"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
)

// planned returns what a question would be read from now.
func planned(t *testing.T, d *DB, make func(ctx context.Context, at *snapshot) (plan, error)) (p plan) {
	t.Helper()
	must(t, d.ask(t.Context(), "plan", func(ctx context.Context, at *snapshot) (err error) {
		p, err = make(ctx, at)
		return err
	}))
	return p
}

// TestSnapshot: a day that is closed, or closed again, between the plan of an answer and the answer counts as it was.
func TestSnapshot(t *testing.T) {
	events := enginetest.Events(42, 4000)
	today := dayOf(terse.MillisOf(inSpan))
	q, err := analytics.Query{Workspace: enginetest.Workspace, From: enginetest.SpanFrom, To: terse.Millis((today + 1) * dayMillis),
		Filters: []analytics.Filter{{Dim: analytics.Device, Values: []string{"mobile"}}, {Dim: analytics.OS, Values: []string{"iOS", "Android"}}}}.Normalize()
	must(t, err)
	d := closed(t, Options{}, events)
	for name, change := range map[string]func() error{
		// The day of the plan's cube has none then.
		"closed again without cubes": func() error {
			d.o.cubeShare = 1_000_000
			return d.replaceDays(t.Context(), d.rewriting(today-1, ""))
		},
		"closed": func() error { return d.replaceDays(t.Context(), d.closing(today, "")) },
	} {
		t.Run(name, func(t *testing.T) {
			want, err := enginetest.NewReference(events).Summary(t.Context(), q)
			must(t, err)
			tries := 0
			var got analytics.Summary
			must(t, d.ask(t.Context(), "summary", func(ctx context.Context, at *snapshot) error {
				tries++
				p, err := at.planSummary(ctx, q)
				must(t, err)
				if tries == 1 {
					must(t, change())
				}
				got, err = at.summary(ctx, p, q)
				return err
			}))
			if want.LagMs = 0; !cmp.Equal(want, got) || tries != 1 {
				t.Errorf("in %d tries: %s", tries, cmp.Diff(want, got))
			}
			got, err = d.Summary(t.Context(), q)
			if got.LagMs = 0; err != nil || !cmp.Equal(want, got) {
				t.Errorf("afterwards: %v %s", err, cmp.Diff(want, got))
			}
		})
	}
}

// TestSnapshotOfLateClicks: a day is closed between what an answer knows of it and what it reads, and a late click makes its table again:
// the answer has all of the day, not the late click alone.
func TestSnapshotOfLateClicks(t *testing.T) {
	t.Parallel()
	today := dayOf(terse.MillisOf(inSpan))
	events := threeDays()
	i := slices.IndexFunc(events, func(ev clicks.Event) bool {
		return dayOf(ev.At) == today && ev.Workspace == enginetest.Workspace && ev.Outcome == clicks.OutcomeRedirect
	})
	events = append(events, events[i])
	events = slices.Delete(events, i, i+1) // it comes last
	q, err := analytics.Query{Workspace: enginetest.Workspace, From: terse.Millis(today * dayMillis), To: terse.Millis((today + 1) * dayMillis), Bots: analytics.BotsInclude}.Normalize()
	must(t, err)
	d := closed(t, Options{}, events[:len(events)-1])
	if _, hot := slices.BinarySearch(d.tables(), today); !hot {
		t.Fatal("the day has no table")
	}
	tries := 0
	d.o.noted = func() {
		if tries++; tries == 1 {
			must(t, d.replaceDays(t.Context(), d.closing(today, "")))
			late(t, d, events)
			if _, hot := slices.BinarySearch(d.tables(), today); !hot {
				t.Error("the late click has no table")
			}
		}
	}
	got, err := d.Summary(t.Context(), q)
	must(t, err)
	want, err := enginetest.NewReference(events).Summary(t.Context(), q)
	must(t, err)
	if want.LagMs, got.LagMs = 0, 0; !cmp.Equal(want, got) || tries != 2 || want.Clicks < 2 {
		t.Errorf("in %d tries: %s", tries, cmp.Diff(want, got))
	}
}
