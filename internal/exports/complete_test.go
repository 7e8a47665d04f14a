package exports_test

import (
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/export"
	"github.com/terselink/terse/internal/exports"
)

const day = 24 * hour

// TestIncomplete: an export that reaches beyond what is kept says so.
func TestIncomplete(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if e := w.until(w.create(export.CSV).ID, ended); e.State != exports.Done || e.CompleteFrom != 0 {
		t.Errorf("all is kept: %+v", e)
	}
	w.stop()
	w.now.Store(int64(enginetest.SpanTo))
	w.rawDays = 30
	w.start()
	want := enginetest.SpanTo - 30*day
	if e := w.until(w.create(export.CSV).ID, ended); e.State != exports.Done || e.CompleteFrom != want {
		t.Errorf("30 days are kept: complete from %s, want %s", e.CompleteFrom.Time(), want.Time())
	}
	w.stop()
	w.noTerms = true
	w.start()
	if e := w.until(w.create(export.CSV).ID, ended); e.State != exports.Done || e.CompleteFrom != 0 || e.Rows == 0 || e.Attempts != 0 {
		t.Errorf("it is not known how long: %+v", e)
	}
}

// TestTerms: what is missing from a range depends on whose clicks are asked for.
func TestTerms(t *testing.T) {
	t.Parallel()
	now := enginetest.SpanTo + 5*hour
	for _, c := range []struct {
		terms analytics.Terms
		bots  analytics.Bots
		days  terse.Millis // before today; 0: nothing is missing
	}{
		{analytics.Terms{}, analytics.BotsInclude, 0},
		{analytics.Terms{Raw: 20}, analytics.BotsExclude, 20},
		{analytics.Terms{Raw: 20, Bots: 7}, analytics.BotsExclude, 20},
		{analytics.Terms{Raw: 20, Bots: 7}, analytics.BotsInclude, 7},
		{analytics.Terms{Bots: 7}, analytics.BotsOnly, 7},
		{analytics.Terms{Raw: 7, Bots: 20}, analytics.BotsOnly, 7},
		{analytics.Terms{Raw: 40}, analytics.BotsInclude, 0},
	} {
		want := terse.Millis(0)
		if c.days > 0 {
			want = enginetest.SpanTo - c.days*day
		}
		if got := c.terms.CompleteFrom(analytics.Query{From: enginetest.SpanTo - 30*day, Bots: c.bots}, now); got != want {
			t.Errorf("%+v, %s: %s, want %s", c.terms, c.bots, got.Time(), want.Time())
		}
	}
}

// TestScheduleIncomplete: objects of a time that is not kept whole any more are made, and counted.
func TestScheduleIncomplete(t *testing.T) {
	t.Parallel()
	s := newSchedules(t)
	s.terms = analytics.Terms{Raw: 2}
	e := s.create(exports.NewSchedule{Every: exports.Daily, From: s.now - 4*day})
	s.round()
	if got := s.get(e.ID); got.Objects != 4 || got.Incomplete != 2 {
		t.Errorf("%d objects, %d incomplete, want 4 and 2", got.Objects, got.Incomplete)
	}
}
