package exports_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/exports"
)

const hour = terse.Millis(3600_000)

// hold keeps back the clicks of a range that belong to the workspace, as an edge that is cut off does, and returns all.
func (s *schedules) hold(from, to terse.Millis) (all []clicks.Event) {
	all = enginetest.Events(4, 12_000)
	s.src = enginetest.NewReference(slices.DeleteFunc(slices.Clone(all), func(ev clicks.Event) bool {
		return ev.Workspace == enginetest.Workspace && ev.At >= from && ev.At < to
	}))
	return all
}

// TestScheduleLate: the objects of clicks that come after them are made again under their names, until 72 hours after
// their time, and no others.
func TestScheduleLate(t *testing.T) {
	t.Parallel()
	s := newSchedules(t)
	from := s.now - s.now%hour - 3*hour
	all := s.hold(from, from+hour)
	e := s.create(exports.NewSchedule{Every: exports.Hourly, From: from, Query: analytics.Query{Every: true, Bots: analytics.BotsInclude}})
	s.round()
	if got := s.get(e.ID); s.bucket.puts != 3 || len(got.Watched) != 3 || got.Watched[0] != (exports.Watched{From: from}) || got.Watched[1].Count == 0 {
		t.Fatalf("%d puts, %+v", s.bucket.puts, got)
	}
	s.src = enginetest.NewReference(all)
	s.round() // it looked a moment ago
	if s.bucket.puts != 3 {
		t.Errorf("%d puts before it is time to look", s.bucket.puts)
	}
	s.now += 10 * 60_000
	s.bucket.fail = errAway
	s.round()
	if got := s.get(e.ID); got.Attempts != 1 || got.Again != 0 || got.Next != from+3*hour {
		t.Errorf("after a failure: %+v", got)
	}
	s.now = s.get(e.ID).NotBefore
	s.open(s.bucket) // a restart
	s.round()
	s.check(e, from, from+3*hour)
	got := s.get(e.ID)
	if s.bucket.puts != 5 || got.Again != 1 || got.AgainObject != e.ObjectName(from) || got.AgainAt != s.now || got.Fault != "" || got.Objects != 3 || got.Object != e.ObjectName(from+2*hour) || s.MadeAgain() != 1 {
		t.Errorf("%d puts, %+v", s.bucket.puts, got)
	}
	// An engine that has less does not make the bucket have less.
	s.hold(from, from+2*hour)
	s.now += 10 * 60_000
	s.round()
	if got := s.get(e.ID); s.bucket.puts != 5 || got.Again != 1 || got.Watched[0].Count != 0 || got.Watched[1].Count != 0 {
		t.Errorf("after a loss: %d puts, %+v", s.bucket.puts, got)
	}
	s.src = enginetest.NewReference(all)
	s.check(e, from, from+3*hour)
}

// TestScheduleTooLate: what comes after 72 hours is in no object, nor is what the workspace does not keep whole any more.
func TestScheduleTooLate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		terms analytics.Terms
		wait  terse.Millis
		again int64
	}{
		"just in time":     {wait: 71*hour + 30*60_000, again: 1},
		"too late":         {wait: 71*hour + 55*60_000},
		"kept for a week":  {terms: analytics.Terms{Raw: 7, Bots: 5}, wait: 60 * hour, again: 1},
		"kept for a day":   {terms: analytics.Terms{Raw: 1}, wait: 60 * hour},
		"bots for one day": {terms: analytics.Terms{Raw: 7, Bots: 1}, wait: 60 * hour},
	} {
		s := newSchedules(t)
		s.terms = c.terms
		from := s.now - s.now%hour - hour
		all := s.hold(from, from+hour)
		e := s.create(exports.NewSchedule{Every: exports.Hourly, From: from, Query: analytics.Query{Every: true, Bots: analytics.BotsInclude}})
		s.round()
		if s.bucket.puts != 1 {
			t.Fatalf("%s: %d puts", name, s.bucket.puts)
		}
		s.now = from + hour + c.wait
		s.round() // the hours since, whose clicks are the same in both engines
		s.src = enginetest.NewReference(all)
		s.now += 10 * 60_000
		s.round()
		got := s.get(e.ID)
		if again := s.bucket.objects[e.ObjectName(from)]; got.Again != c.again || (strings.Count(again, "\n") > 1) != (c.again > 0) {
			t.Errorf("%s: made again %d times, want %d: %q", name, got.Again, c.again, again)
		}
	}
}
