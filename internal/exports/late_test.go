package exports_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
	s.src = enginetest.NewReference(s.without(all, from, to))
	return all
}

// without returns events but for those of the workspace in a range.
func (s *schedules) without(all []clicks.Event, from, to terse.Millis) []clicks.Event {
	return slices.DeleteFunc(slices.Clone(all), func(ev clicks.Event) bool {
		return ev.Workspace == enginetest.Workspace && ev.At >= from && ev.At < to
	})
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
	if got := s.get(e.ID); got.Attempts != 0 || got.Watched[0].Attempts != 1 || got.Again != 0 || got.Next != from+3*hour {
		t.Errorf("after a failure: %+v", got)
	} else if n, fault, retry := got.Failing(); n != 1 || !strings.Contains(fault, "the bucket does not answer") || retry != s.now+10*60_000 {
		t.Errorf("failing: %d, %q, %s", n, fault, retry.Time())
	}
	s.now = s.get(e.ID).Watched[0].NotBefore
	s.open(s.bucket) // a restart
	s.round()
	s.check(e, from, from+3*hour)
	got := s.get(e.ID)
	if n, fault, _ := got.Failing(); n != 0 || fault != "" || s.bucket.puts != 5 || got.Again != 1 || got.AgainObject != e.ObjectName(from) || got.AgainAt != s.now || got.Objects != 3 || got.Object != e.ObjectName(from+2*hour) || s.MadeAgain() != 1 {
		t.Errorf("%d puts, %+v", s.bucket.puts, got)
	}
	// An engine that has less does not make the bucket have less, nor do late clicks that come after the loss.
	before := got.Watched
	s.now += 10 * 60_000
	lost := s.hold(from, from+2*hour)
	late := slices.IndexFunc(lost, func(ev clicks.Event) bool {
		return ev.Workspace == enginetest.Workspace && ev.At >= from && ev.At < from+hour
	})
	for _, src := range []analytics.Engine{s.src, enginetest.NewReference(append(s.without(lost, from, from+2*hour), lost[late]))} {
		s.src = src
		s.open(s.bucket) // looks at once
		s.round()
		if got := s.get(e.ID); s.bucket.puts != 5 || got.Again != 1 || !slices.Equal(got.Watched[:2], before[:2]) {
			t.Errorf("after a loss: %d puts, %+v, want %+v", s.bucket.puts, got, before)
		}
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

// counting is an engine whose counts fail or are more by some, of which no time is over.
type counting struct {
	analytics.Engine
	err  error
	more int64 // in every period
}

func (c *counting) Timeseries(ctx context.Context, q analytics.Query) (analytics.Timeseries, error) {
	if c.err != nil {
		return analytics.Timeseries{}, c.err
	}
	r, err := c.Engine.Timeseries(ctx, q)
	for i := range r.Points {
		r.Points[i].Clicks += c.more
	}
	return r, err
}

// TestScheduleUncounted: an object whose clicks could not be counted when it was made is not made again after a loss, and
// is when there are more.
func TestScheduleUncounted(t *testing.T) {
	t.Parallel()
	s := newSchedules(t)
	from := s.now - s.now%hour - hour
	whole := &counting{Engine: s.src, err: terse.ErrUnavailable}
	s.src = whole
	e := s.create(exports.NewSchedule{Every: exports.Hourly, From: from, Query: analytics.Query{Every: true, Bots: analytics.BotsInclude}})
	if err := s.Round(t.Context()); !errors.Is(err, terse.ErrUnavailable) { // it is made, and cannot be compared
		t.Errorf("error %v", err)
	}
	whole.err = nil
	made := s.get(e.ID)
	if s.bucket.puts != 1 || made.Watched[0].Count != made.Rows || made.Rows == 0 {
		t.Fatalf("%d puts, %+v", s.bucket.puts, made)
	}
	s.hold(from, from+hour)
	s.now += 10 * 60_000
	s.round()
	s.src = whole
	s.now += 10 * 60_000
	s.round()
	if got := s.get(e.ID); s.bucket.puts != 1 || got.Again != 0 {
		t.Errorf("after a loss: %d puts, %+v", s.bucket.puts, got)
	}
	s.check(e, from, from+hour)
	whole.more = 1
	s.now += 10 * 60_000
	s.round()
	if got := s.get(e.ID); s.bucket.puts != 2 || got.Again != 1 || got.Watched[0].Count != made.Rows+1 {
		t.Errorf("after growth: %d puts, %+v", s.bucket.puts, got)
	}
}

// TestScheduleUnknownCount: of an object that an older version made without a count, the count is learnt.
func TestScheduleUnknownCount(t *testing.T) {
	t.Parallel()
	s := newSchedules(t)
	from := s.now - s.now%hour - hour
	e := s.create(exports.NewSchedule{Every: exports.Hourly, From: from, Query: analytics.Query{Every: true, Bots: analytics.BotsInclude}})
	s.round()
	doc, err := s.store.GetDocument(t.Context(), e.Workspace, terse.KindExportSchedule, e.ID)
	if err != nil {
		t.Fatal(err)
	}
	want := s.get(e.ID).Watched[0].Count
	doc.Data = bytes.Replace(doc.Data, fmt.Appendf(nil, `"count":%d`, want), []byte(`"count":-1`), 1)
	doc.Version++
	if err := s.store.PutDocument(t.Context(), doc); err != nil {
		t.Fatal(err)
	}
	if got := s.get(e.ID).Watched[0].Count; got != -1 {
		t.Fatalf("count %d", got)
	}
	s.now += 10 * 60_000
	s.round()
	if got := s.get(e.ID); s.bucket.puts != 1 || got.Again != 0 || got.Watched[0].Count != want {
		t.Errorf("%d puts, %+v", s.bucket.puts, got)
	}
}

// TestScheduleTrickle: an object of which clicks come all the time is made again ever more seldom, and once more before
// its 72 hours are over.
func TestScheduleTrickle(t *testing.T) {
	t.Parallel()
	s := newSchedules(t)
	from := s.now - s.now%day - day
	src := &counting{Engine: s.src}
	s.src = src
	e := s.create(exports.NewSchedule{Every: exports.Daily, From: from, Query: analytics.Query{Every: true, Bots: analytics.BotsInclude}})
	s.round()
	var at []terse.Millis
	for seen, end := int64(0), from+day+3*day; s.now < end; s.now += 10 * 60_000 {
		src.more++
		s.round()
		got := s.get(e.ID)
		if len(got.Watched) > 0 && got.Watched[0].From == from && got.Again > seen && got.AgainObject == e.ObjectName(from) {
			at = append(at, s.now)
		}
		seen = got.Again
	}
	const minute = terse.Millis(60_000)
	for i, want := range []terse.Millis{10, 20, 40, 80, 160, 320, 360, 360} {
		if got := (at[i+1] - at[i]) / minute; got != want {
			t.Errorf("wait %d is %d minutes, want %d", i, got, want)
		}
	}
	if left := (from + 4*day - at[len(at)-1]) / minute; left > 20 || len(at) > 20 {
		t.Errorf("made again %d times, the last one %d minutes before the end", len(at), left)
	}
}

// TestScheduleAgainFails: an object that cannot be made again holds up neither others nor what is due.
func TestScheduleAgainFails(t *testing.T) {
	t.Parallel()
	s := newSchedules(t)
	from := s.now - s.now%hour - 3*hour
	src := &counting{Engine: s.src}
	s.src = src
	e := s.create(exports.NewSchedule{Every: exports.Hourly, From: from, Query: analytics.Query{Every: true, Bots: analytics.BotsInclude}})
	s.round()
	src.more = 1
	s.now += 10 * 60_000
	s.bucket.refuse = e.ObjectName(from)
	s.round() // the first fails
	s.now += 30_000
	s.round()
	if got := s.get(e.ID); got.Again != 2 || got.Watched[0].Attempts != 1 || got.Watched[1].Again != 1 || got.Watched[2].Again != 1 || got.NotBefore != 0 {
		t.Errorf("the others: %+v", got)
	}
	for range 12 * 6 {
		s.now += 10 * 60_000
		s.round()
	}
	got := s.get(e.ID)
	if next := s.now - s.now%hour; got.Next != next || got.Attempts != 0 || got.Again != 2 {
		t.Errorf("what is due: %+v", got)
	}
	if n, fault, retry := got.Failing(); n < 12 || n > 16 || !strings.HasPrefix(fault, e.ObjectName(from)) || retry > s.now+hour {
		t.Errorf("failing: %d, %q, %s", n, fault, retry.Time())
	}
	src.more = 0 // what it was to be made again of is gone
	s.now += 10 * 60_000
	s.round()
	got = s.get(e.ID)
	if n, fault, _ := got.Failing(); n != 0 || fault != "" {
		t.Errorf("still failing: %d, %q", n, fault)
	}
}

// TestScheduleTermsAway: while it is not known how long clicks are kept, the engine is asked every ten minutes alone, and
// objects that are due are made.
func TestScheduleTermsAway(t *testing.T) {
	t.Parallel()
	s := newSchedules(t)
	from := s.now - s.now%hour - hour
	s.termsErr = terse.ErrUnavailable
	src := &counting{Engine: s.src}
	s.src = src
	e := s.create(exports.NewSchedule{Every: exports.Hourly, From: from, Query: analytics.Query{Every: true, Bots: analytics.BotsInclude}})
	s.round()
	if s.bucket.puts != 1 {
		t.Fatalf("%d puts", s.bucket.puts)
	}
	src.more = 1
	s.now += 10 * 60_000
	if err := s.Round(t.Context()); !errors.Is(err, terse.ErrUnavailable) {
		t.Errorf("error %v", err)
	}
	s.now += 30_000
	s.round() // does not look
	s.termsErr = nil
	s.now += 10 * 60_000
	s.round()
	if got := s.get(e.ID); got.Again != 1 {
		t.Errorf("%+v", got)
	}
}
