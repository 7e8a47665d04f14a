// Package enginetest is the conformance suite of analytics engines. An engine
// passes if, given the same events, it answers every query exactly as Reference
// does, keeps the identities between the numbers, and refuses what it must.
//
// It proves numbers, not durability: crash tests belong to the engine.
package enginetest

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// Options describe the engine under test.
type Options struct {
	// New returns an engine that holds exactly the events and knows no facts. It must be a FactSink and an Eraser, too. The
	// suite calls it a few times; the engine ends with the test.
	New func(t *testing.T, events []clicks.Event) analytics.Engine
	// Events is how many events the random test loads; 0: 20,000.
	Events int
	// Queries is how many random queries are compared; 0: 240, a quarter in short mode.
	Queries int
}

// Run runs the suite.
func Run(t *testing.T, o Options) {
	if o.Events == 0 {
		o.Events = 20_000
	}
	if o.Queries == 0 {
		o.Queries = 240
	}
	if testing.Short() {
		o.Queries /= 4
	}
	t.Run("empty", func(t *testing.T) { testEmpty(t, o) })
	t.Run("example", func(t *testing.T) { testExample(t, o) })
	t.Run("random", func(t *testing.T) { testRandom(t, o) })
	t.Run("facts", func(t *testing.T) { testFacts(t, o) })
	t.Run("erase", func(t *testing.T) { testErase(t, o) })
}

// testEmpty: an engine without clicks answers with zeros, and buckets are there.
func testEmpty(t *testing.T, o Options) {
	e, ctx := o.New(t, nil), t.Context()
	q := analytics.Query{Workspace: Workspace, From: SpanFrom, To: SpanFrom + 86_400_000, Interval: analytics.Hour, By: analytics.Country}
	compare(t, e, NewReference(nil), q)
	ts, err := e.Timeseries(ctx, q)
	if err != nil || len(ts.Points) != 24 {
		t.Errorf("%d points, %v; want 24", len(ts.Points), err)
	}
	totals, err := e.LinkTotals(ctx, Workspace, []terse.LinkNumber{1})
	if err != nil || len(totals) != 0 {
		t.Errorf("link totals of nothing: %v, %v", totals, err)
	}
	if st := e.Status(ctx); st.State != analytics.StateReady || st.Rows != 0 {
		t.Errorf("status %+v", st)
	}
	q.To = q.From
	if _, err := e.Summary(ctx, q); terse.ErrorCode(err) != terse.CodeInvalid {
		t.Errorf("a range that is empty: %v, want invalid", err)
	}
	q.To, q.By = q.From+1, ""
	if _, err := e.Breakdown(ctx, q); terse.ErrorCode(err) != terse.CodeInvalid {
		t.Errorf("a breakdown by nothing: %v, want invalid", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	q.By = analytics.Country
	if _, isReference := e.(*Reference); !isReference {
		if _, err := e.Breakdown(cancelled, q); !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled context: %v", err)
		}
	}
}

// testExample counts six clicks by hand, so that the reference itself is held to something.
func testExample(t *testing.T, o Options) {
	day := terse.MillisOf(time.Date(2026, 10, 25, 0, 0, 0, 0, time.UTC))
	ev := func(i byte, at terse.Millis, visitor uint64, change func(*clicks.Event)) clicks.Event {
		e := clicks.Event{ID: idOf(at, uint64(i)), At: at, Workspace: Workspace, Link: 5, Domain: "d", Code: "c", Trigger: "link", Visitor: visitor, Country: "DE", Weight: 1}
		if change != nil {
			change(&e)
		}
		return e
	}
	e := o.New(t, []clicks.Event{
		ev(1, day-1, 1, nil), // 24 October in UTC, 25 October in Berlin
		ev(2, day, 1, nil),   // the same person on the next UTC day
		ev(3, day+3_600_000, 1, func(e *clicks.Event) { e.Link, e.Code, e.Repeat = 6, "e", true }), // another link
		ev(4, day+3_600_000, 2, func(e *clicks.Event) { e.Weight, e.Trigger, e.Country = 10, "qr", "AT" }),
		ev(5, day+3_600_000, 0, func(e *clicks.Event) { e.Bot = clicks.BotPreview }),
		ev(6, day+3_600_000, 3, func(e *clicks.Event) { e.Outcome = clicks.OutcomeExpired }),
		ev(7, day+3_600_000, 4, func(e *clicks.Event) { e.Workspace++ }),
	})
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	q := analytics.Query{Workspace: Workspace, Zone: berlin, From: day - 2*3_600_000, To: day + 23*3_600_000, Interval: analytics.Day, By: analytics.Link}
	s, err := e.Summary(ctx, q)
	want := analytics.Summary{Clicks: 13, Visitors: 3, UniqueClicks: 4, Deduped: 12, QR: 10, Humans: 13, Bots: 1, Total: 14,
		Outcomes: map[string]int64{"redirect": 13, "expired": 1}}
	check(t, "summary", err, want, s)

	q.Interval = analytics.Hour
	ts, err := e.Timeseries(ctx, q)
	if err != nil || len(ts.Points) != 25 { // the day of 25 hours
		t.Fatalf("%d points, %v", len(ts.Points), err)
	}
	check(t, "point 1", err, analytics.Point{T: day - 3_600_000, Clicks: 1, Visitors: 1}, ts.Points[1])
	check(t, "point 2", err, analytics.Point{T: day, Clicks: 1, Visitors: 1}, ts.Points[2])
	check(t, "point 3", err, analytics.Point{T: day + 3_600_000, Clicks: 11, Visitors: 2, Bots: 1, QR: 10}, ts.Points[3])

	q.Limit = 1
	b, err := e.Breakdown(ctx, q)
	check(t, "by link", err, analytics.Breakdown{Data: []analytics.Value{{Value: terse.LinkNumber(5).String(), Label: "d/c", Clicks: 12, Visitors: 3}},
		Other: 1, Total: 13, Values: 2}, b)
	q.By, q.Metric, q.Limit = analytics.Country, analytics.Visitors, 10
	b, err = e.Breakdown(ctx, q)
	check(t, "by country", err, analytics.Breakdown{Data: []analytics.Value{{Value: "DE", Clicks: 3, Visitors: 2}, {Value: "AT", Clicks: 10, Visitors: 1}},
		Total: 3, Values: 2}, b)
	q.By, q.Metric = "", ""
	slots, err := e.Slots(ctx, q)
	check(t, "slots", err, []analytics.Slot{{T: day - 900_000, Clicks: 1}, {T: day, Clicks: 1}, {T: day + 3_600_000, Clicks: 11}}, slots)
	h := q.HeatmapOf(slots)
	if h.Clicks[6][1] != 1 || h.Clicks[6][2] != 12 || h.Total != 13 { // in Berlin: Sunday at 1, and at 2 by both clocks
		t.Errorf("heat map %v", h)
	}
	rows, err := e.Clicks(ctx, q, analytics.Page{Limit: 3})
	if err != nil || len(rows) != 3 || rows[0].ID != idOf(day+3_600_000, 4) || rows[1].ID != idOf(day+3_600_000, 3) || rows[2].ID != idOf(day, 2) {
		t.Errorf("the newest clicks are %v, %v", rows, err)
	}
	rows, err = e.Clicks(ctx, q, analytics.Page{Limit: 3, After: terse.ClickID(rows[2].ID)})
	if err != nil || len(rows) != 1 || rows[0].At != day-1 {
		t.Errorf("the last page is %v, %v", rows, err)
	}
	totals, err := e.LinkTotals(ctx, Workspace, []terse.LinkNumber{5, 6, 7})
	check(t, "totals", err, map[terse.LinkNumber]analytics.LinkTotal{5: {Clicks: 12, Last: day + 3_600_000}, 6: {Clicks: 1, Last: day + 3_600_000}}, totals)
}

// testRandom compares the engine with the reference and checks the identities.
func testRandom(t *testing.T, o Options) {
	const seed = 42
	events := Events(seed, o.Events)
	e, ref := o.New(t, events), NewReference(events)
	know(t, e, ref, Facts(seed, events))
	r := rand.New(rand.NewPCG(seed, 1))
	busy := 0
	for i := range o.Queries {
		q := Query(r, events)
		if compare(t, e, ref, q) > 0 {
			busy++
		}
		if t.Failed() {
			t.Fatalf("query: %+v in %s", q, q.Zone)
		}
		identities(t, e, q)
		if i%8 == 0 {
			everyRow(t, e, q)
		}
		if i%2 == 0 {
			compareConversions(t, e, ref, r, q)
		}
	}
	if busy < o.Queries/3 {
		t.Errorf("only %d of %d queries saw clicks: the test proves little", busy, o.Queries)
	}
	links := []terse.LinkNumber{0, 1}
	for range 200 {
		links = append(links, events[r.IntN(len(events))].Link)
	}
	slices.Sort(links)
	links = slices.Compact(links)[1:]
	want, _ := ref.LinkTotals(t.Context(), Workspace, links)
	got, err := e.LinkTotals(t.Context(), Workspace, links)
	check(t, "link totals", err, want, got)
	if st := e.Status(t.Context()); st.Rows != int64(len(events)) {
		t.Errorf("%d rows, want %d", st.Rows, len(events))
	}
}

// Compare asks an engine that should hold exactly the events n random questions, and checks the answers, the identities between
// them and the totals of all links.
func Compare(t *testing.T, e analytics.Engine, events []clicks.Event, seed uint64, n int) {
	t.Helper()
	ref, r := NewReference(events), rand.New(rand.NewPCG(seed, 2))
	for i := range n {
		q := Query(r, events)
		compare(t, e, ref, q)
		identities(t, e, q)
		if i%8 == 0 {
			everyRow(t, e, q)
		}
		if t.Failed() {
			t.Fatalf("query: %+v in %s", q, q.Zone)
		}
	}
	var links []terse.LinkNumber
	for i := range events {
		if events[i].Link != 0 {
			links = append(links, events[i].Link)
		}
	}
	slices.Sort(links)
	links = slices.Compact(links)
	for list := range slices.Chunk(links, analytics.MaxLinks) {
		want, _ := ref.LinkTotals(t.Context(), Workspace, list)
		got, err := e.LinkTotals(t.Context(), Workspace, list)
		check(t, "link totals", err, want, got)
	}
}

// compare asks both engines the same and returns the clicks of the summary.
func compare(t *testing.T, e, ref analytics.Engine, q analytics.Query) int64 {
	t.Helper()
	ctx := t.Context()
	wantS, _ := ref.Summary(ctx, q)
	gotS, err := e.Summary(ctx, q)
	check(t, "summary", err, wantS, gotS)
	wantT, _ := ref.Timeseries(ctx, q)
	gotT, err := e.Timeseries(ctx, q)
	check(t, "timeseries", err, wantT, gotT)
	wantB, _ := ref.Breakdown(ctx, q)
	gotB, err := e.Breakdown(ctx, q)
	check(t, "breakdown", err, wantB, gotB)
	wantH, _ := ref.Slots(ctx, q)
	gotH, err := e.Slots(ctx, q)
	check(t, "slots", err, wantH, gotH)
	p := analytics.Page{Limit: 9}
	for range 3 {
		wantC, _ := ref.Clicks(ctx, q, p)
		gotC, err := e.Clicks(ctx, q, p)
		check(t, "clicks", err, wantC, gotC)
		if len(wantC) < p.Limit {
			break
		}
		p.After = terse.ClickID(wantC[len(wantC)-1].ID)
	}
	return wantS.Total
}

// identities checks what must hold between answers, whatever the reference says.
func identities(t *testing.T, e analytics.Engine, q analytics.Query) {
	t.Helper()
	ctx := t.Context()
	by, search := q.By, q.Search
	q.By, q.Search = "", "" // so that all three count the same outcomes
	s, err := e.Summary(ctx, q)
	if err != nil {
		t.Fatal(err)
	}
	var clicks, bots, qr int64
	ts, err := e.Timeseries(ctx, q)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ts.Points {
		clicks, bots, qr = clicks+p.Clicks, bots+p.Bots, qr+p.QR
	}
	if s.Total != s.Humans+s.Bots || clicks != s.Clicks || bots != s.Bots || qr != s.QR || s.Visitors > s.UniqueClicks {
		t.Errorf("buckets add up to %d clicks, %d bots, %d qr; the summary says %+v", clicks, bots, qr, s)
	}
	// Whatever is served is of people or of bots, and of one outcome.
	want := map[analytics.Bots]int64{analytics.BotsExclude: s.Humans, analytics.BotsInclude: s.Total, analytics.BotsOnly: s.Bots}[q.Bots]
	var outcomes int64
	for _, n := range s.Outcomes {
		outcomes += n
	}
	if s.Clicks != want || outcomes < s.Clicks || q.Every && outcomes != s.Clicks {
		t.Errorf("%d clicks and %d of all outcomes, bots %v: the summary says %+v", s.Clicks, outcomes, q.Bots, s)
	}
	if by == analytics.Outcome || by == analytics.Tag && s.Clicks > 0 && search != "" {
		return
	}
	q.By, q.Search = by, search
	b, err := e.Breakdown(ctx, q)
	if err != nil {
		t.Fatal(err)
	}
	sum := b.Other
	for _, v := range b.Data {
		if q.Metric == analytics.Visitors {
			sum += v.Visitors
		} else {
			sum += v.Clicks
		}
	}
	if sum != b.Total || b.Other < 0 || search != "" && b.Total > s.Clicks && q.Metric == analytics.Clicks ||
		search == "" && (q.Metric == analytics.Clicks && (b.Total < s.Clicks || b.Total > s.Clicks && by != analytics.Tag) || q.Metric == analytics.Visitors && b.Total < s.Visitors) {
		t.Errorf("values and other add up to %d, total is %d, the summary says %+v", sum, b.Total, s)
	}
}

// everyRow reads all clicks of a query by pages: their weights add up to the summary's clicks,
// as the heat map does, and their order is strict.
func everyRow(t *testing.T, e analytics.Engine, q analytics.Query) {
	t.Helper()
	ctx := t.Context()
	q.By, q.Search = "", ""
	s, err := e.Summary(ctx, q)
	if err != nil {
		t.Fatal(err)
	}
	slots, err := e.Slots(ctx, q)
	if total := q.HeatmapOf(slots).Total; err != nil || total != s.Clicks {
		t.Errorf("the heat map has %d clicks, the summary %d; %v", total, s.Clicks, err)
	}
	var sum int64
	p := analytics.Page{Limit: 997}
	for {
		rows, err := e.Clicks(ctx, q, p)
		if err != nil {
			t.Fatal(err)
		}
		for i := range rows {
			id := terse.ClickID(rows[i].ID)
			if p.After != (terse.ClickID{}) && bytes.Compare(id[:], p.After[:]) >= 0 {
				t.Fatalf("row %s comes after %s", id, p.After)
			}
			p.After = id
			sum += int64(rows[i].Weight)
		}
		if len(rows) < p.Limit {
			break
		}
	}
	if sum != s.Clicks {
		t.Errorf("the rows have %d clicks, the summary %d", sum, s.Clicks)
	}
}

func check(t *testing.T, what string, err error, want, got any) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	ignoreLag := cmpopts.IgnoreFields(analytics.Summary{}, "LagMs")
	if d := cmp.Diff(want, got, ignoreLag, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}
