package duckdb

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
)

// partedQuery returns a random chart with one filter that rdim15 has, by days or more of a zone.
func partedQuery(r *rand.Rand, events []clicks.Event) analytics.Query {
	for {
		zone, err := time.LoadLocation(enginetest.Zones[r.IntN(len(enginetest.Zones))])
		if err != nil {
			panic(err) // the zones are embedded
		}
		sample := &events[r.IntN(len(events))]
		dim := partDimensions[r.IntN(len(partDimensions))]
		q := analytics.Query{Workspace: enginetest.Workspace, Zone: zone, Filters: []analytics.Filter{{Dim: dim, Values: []string{dim.Of(sample)}}},
			Bots: []analytics.Bots{analytics.BotsExclude, analytics.BotsInclude, analytics.BotsOnly}[r.IntN(3)], Interval: []analytics.Interval{analytics.Day, analytics.Week, analytics.Month}[r.IntN(3)]}
		q.From = enginetest.SpanFrom + terse.Millis(r.IntN(20*96))*slotMillis
		q.To = q.From + terse.Millis(1+r.IntN(20*96))*slotMillis
		if r.IntN(3) == 0 {
			q.Scope.Domain = sample.Domain
		}
		if n, err := q.Normalize(); err == nil {
			return n
		}
	}
}

// sameParts asks both engines for a chart and for a heat map, and returns how many days of the chart are read from rdim15.
func sameParts(t *testing.T, d *DB, ref analytics.Engine, q analytics.Query) int {
	t.Helper()
	want, _ := ref.Timeseries(t.Context(), q)
	got, err := d.Timeseries(t.Context(), q)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Fatalf("%+v in %s: %v %s", q, q.Zone, err, diff)
	}
	slots, _ := ref.Slots(t.Context(), q)
	gotSlots, err := d.Slots(t.Context(), q)
	if diff := cmp.Diff(slots, gotSlots, cmpopts.EquateEmpty()); err != nil || diff != "" {
		t.Fatalf("quarters of %+v: %v %s", q, err, diff)
	}
	return len(planned(t, d, func(ctx context.Context, at *snapshot) (plan, error) { return at.planTimeseries(ctx, q, q.Buckets()) }).parts)
}

// TestParts: charts with a filter have the same points from rdim15 as from clicks, in every zone, and that is where they are read from.
func TestParts(t *testing.T) {
	events := enginetest.Events(42, 6000)
	d, ref := closed(t, Options{}, events), enginetest.NewReference(events)
	r := rand.New(rand.NewPCG(42, 6))
	parts := 0
	for range 30 {
		parts += sameParts(t, d, ref, partedQuery(r, events))
	}
	if parts < 60 {
		t.Errorf("only %d days were read from %s", parts, partsTable)
	}
}
