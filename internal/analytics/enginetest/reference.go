package enginetest

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// Reference is an engine that keeps events in a slice and counts them one by
// one: slow, and short enough to be believed. It is the oracle of the suite.
type Reference struct {
	events []clicks.Event

	mu          sync.Mutex // facts may be put while questions are asked
	at          uint64
	known       bool
	links       map[terse.LinkNumber][]string
	campaigns   map[terse.CampaignID][]string
	conversions map[string]analytics.Conversion
}

var (
	_ analytics.Engine   = (*Reference)(nil)
	_ analytics.FactSink = (*Reference)(nil)
)

// NewReference returns an engine that holds the events.
func NewReference(events []clicks.Event) *Reference { return &Reference{events: events} }

// visit is what is counted once: a visitor on a UTC day, of a link if link is set.
type visit struct {
	visitor uint64
	day     int64
	link    terse.LinkNumber
}

// counter counts the clicks that it is given.
type counter struct {
	clicks, deduped, qr int64
	visitors, unique    map[visit]bool
}

func (c *counter) add(ev *clicks.Event) {
	if c.visitors == nil {
		c.visitors, c.unique = map[visit]bool{}, map[visit]bool{}
	}
	w := int64(ev.Weight)
	c.clicks += w
	if !ev.Repeat {
		c.deduped += w
	}
	if ev.Trigger == "qr" {
		c.qr += w
	}
	if ev.Visitor != 0 {
		day := int64(ev.At) / 86_400_000
		c.visitors[visit{ev.Visitor, day, 0}] = true
		c.unique[visit{ev.Visitor, day, ev.Link}] = true
	}
}

// selects reports whether an event is in the range and scope and passes the filters.
func (r *Reference) selects(q analytics.Query, ev *clicks.Event) bool {
	if ev.Workspace != q.Workspace || ev.At < q.From || ev.At >= q.To ||
		q.Scope.Link != 0 && ev.Link != q.Scope.Link ||
		q.Scope.Campaign != 0 && ev.Campaign != q.Scope.Campaign ||
		q.Scope.Domain != "" && ev.Domain != q.Scope.Domain ||
		q.Scope.Tag != "" && !slices.Contains(r.values(analytics.Tag, ev), q.Scope.Tag) {
		return false
	}
	for _, f := range q.Filters {
		matches := slices.ContainsFunc(r.values(f.Dim, ev), func(v string) bool { return slices.Contains(f.Values, v) })
		if matches == f.Not {
			return false
		}
	}
	return true
}

// chosen reports whether q.Bots counts the event as a click.
func chosen(q analytics.Query, ev *clicks.Event) bool {
	switch q.Bots {
	case analytics.BotsInclude:
		return true
	case analytics.BotsOnly:
		return ev.Bot != clicks.Human
	}
	return ev.Bot == clicks.Human
}

// Summary implements analytics.Engine.
func (r *Reference) Summary(_ context.Context, q analytics.Query) (analytics.Summary, error) {
	q, err := q.Normalize()
	if err != nil {
		return analytics.Summary{}, err
	}
	s := analytics.Summary{Outcomes: map[string]int64{}}
	var c counter
	for i := range r.events {
		ev := &r.events[i]
		if !r.selects(q, ev) {
			continue
		}
		if chosen(q, ev) {
			s.Outcomes[analytics.Outcome.Of(ev)] += int64(ev.Weight)
		}
		if q.RedirectsOnly() && ev.Outcome != clicks.OutcomeRedirect {
			continue
		}
		if ev.Bot == clicks.Human {
			s.Humans += int64(ev.Weight)
		} else {
			s.Bots += int64(ev.Weight)
		}
		if chosen(q, ev) {
			c.add(ev)
		}
	}
	s.Total = s.Humans + s.Bots
	s.Clicks, s.Deduped, s.QR = c.clicks, c.deduped, c.qr
	s.Visitors, s.UniqueClicks = int64(len(c.visitors)), int64(len(c.unique))
	return s, nil
}

// Timeseries implements analytics.Engine.
func (r *Reference) Timeseries(_ context.Context, q analytics.Query) (analytics.Timeseries, error) {
	q, err := q.Normalize()
	if err != nil {
		return analytics.Timeseries{}, err
	}
	starts := q.Buckets()
	ts := analytics.Timeseries{Interval: q.Interval, Points: make([]analytics.Point, len(starts))}
	counters := make([]counter, len(starts))
	for i, t := range starts {
		ts.Points[i].T = t
	}
	for i := range r.events {
		ev := &r.events[i]
		if !r.selects(q, ev) || q.RedirectsOnly() && ev.Outcome != clicks.OutcomeRedirect {
			continue
		}
		b := analytics.BucketOf(starts, ev.At)
		if ev.Bot != clicks.Human {
			ts.Points[b].Bots += int64(ev.Weight)
		}
		if chosen(q, ev) {
			counters[b].add(ev)
		}
	}
	for i := range counters {
		p, c := &ts.Points[i], &counters[i]
		p.Clicks, p.QR, p.Visitors = c.clicks, c.qr, int64(len(c.visitors))
	}
	return ts, nil
}

// Breakdown implements analytics.Engine.
func (r *Reference) Breakdown(_ context.Context, q analytics.Query) (analytics.Breakdown, error) {
	q, err := q.Normalize()
	if err != nil {
		return analytics.Breakdown{}, err
	}
	if err := q.CheckBreakdown(); err != nil {
		return analytics.Breakdown{}, err
	}
	counters, labels := map[string]*counter{}, map[string]string{}
	for i := range r.events {
		ev := &r.events[i]
		if !r.counts(q, ev) {
			continue
		}
		for _, v := range r.values(q.By, ev) {
			if q.By == analytics.Tag && !strings.Contains(strings.ToLower(v), q.Search) || q.By != analytics.Tag && !q.Found(ev) {
				continue
			}
			if counters[v] == nil {
				counters[v] = &counter{}
			}
			counters[v].add(ev)
			if q.By == analytics.Link && v != "" {
				labels[v] = max(labels[v], ev.Domain+"/"+ev.Code)
			}
		}
	}
	metric := func(v analytics.Value) int64 { return v.Clicks }
	second := func(v analytics.Value) int64 { return v.Visitors }
	if q.Metric == analytics.Visitors {
		metric, second = second, metric
	}
	b := analytics.Breakdown{Data: []analytics.Value{}, Values: int64(len(counters))}
	for v, c := range counters {
		value := analytics.Value{Value: v, Label: labels[v], Clicks: c.clicks, Visitors: int64(len(c.visitors))}
		b.Data = append(b.Data, value)
		b.Total += metric(value)
	}
	slices.SortFunc(b.Data, func(x, y analytics.Value) int {
		return cmp.Or(cmp.Compare(metric(y), metric(x)), cmp.Compare(second(y), second(x)), q.By.Compare(x.Value, y.Value))
	})
	b.Data = b.Data[:min(len(b.Data), q.Limit)]
	b.Other = b.Total
	for _, v := range b.Data {
		b.Other -= metric(v)
	}
	return b, nil
}

// counts reports whether the event is one of the clicks that Summary counts.
func (r *Reference) counts(q analytics.Query, ev *clicks.Event) bool {
	return r.selects(q, ev) && chosen(q, ev) && (!q.RedirectsOnly() || ev.Outcome == clicks.OutcomeRedirect)
}

// Slots implements analytics.Engine.
func (r *Reference) Slots(_ context.Context, q analytics.Query) ([]analytics.Slot, error) {
	q, err := q.Normalize()
	if err != nil {
		return nil, err
	}
	if err := q.CheckSlots(); err != nil {
		return nil, err
	}
	sums := map[terse.Millis]int64{}
	for i := range r.events {
		if ev := &r.events[i]; r.counts(q, ev) {
			sums[analytics.SlotOf(ev.At)] += int64(ev.Weight)
		}
	}
	slots := make([]analytics.Slot, 0, len(sums))
	for _, t := range slices.Sorted(maps.Keys(sums)) {
		slots = append(slots, analytics.Slot{T: t, Clicks: sums[t]})
	}
	return slots, nil
}

// Clicks implements analytics.Engine.
func (r *Reference) Clicks(_ context.Context, q analytics.Query, p analytics.Page) ([]clicks.Event, error) {
	q, err := q.Normalize()
	if err != nil {
		return nil, err
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	rows := []clicks.Event{}
	for i := range r.events {
		ev := &r.events[i]
		if r.counts(q, ev) && (p.After == terse.ClickID{} || bytes.Compare(ev.ID[:], p.After[:]) < 0) {
			rows = append(rows, *ev)
		}
	}
	slices.SortFunc(rows, func(a, b clicks.Event) int { return bytes.Compare(b.ID[:], a.ID[:]) })
	return rows[:min(len(rows), p.Limit)], nil
}

// LinkTotals implements analytics.Engine.
func (r *Reference) LinkTotals(_ context.Context, w terse.WorkspaceID, links []terse.LinkNumber) (map[terse.LinkNumber]analytics.LinkTotal, error) {
	totals := map[terse.LinkNumber]analytics.LinkTotal{}
	for i := range r.events {
		ev := &r.events[i]
		if ev.Workspace != w || ev.Bot != clicks.Human || ev.Outcome != clicks.OutcomeRedirect || !slices.Contains(links, ev.Link) {
			continue
		}
		t := totals[ev.Link]
		t.Clicks += int64(ev.Weight)
		t.Last = max(t.Last, ev.At)
		totals[ev.Link] = t
	}
	return totals, nil
}

// Erase implements analytics.Eraser.
func (r *Reference) Erase(_ context.Context, e analytics.Erasure) (int64, error) {
	if err := e.Check(); err != nil {
		return 0, err
	}
	before := len(r.events)
	r.events = slices.DeleteFunc(slices.Clone(r.events), func(ev clicks.Event) bool {
		return ev.Workspace == e.Workspace && (e.Link == 0 || ev.Link == e.Link) && (e.Visitor == 0 || ev.Visitor == e.Visitor)
	})
	return int64(before - len(r.events)), nil
}

// Status implements analytics.Engine.
func (r *Reference) Status(context.Context) analytics.Status {
	return analytics.Status{State: analytics.StateReady, Rows: int64(len(r.events))}
}
