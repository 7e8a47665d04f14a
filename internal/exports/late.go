package exports

import (
	"context"
	"slices"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
)

const (
	// lateFor is how long after the end of its period an object is made again for clicks that were counted later: an edge
	// that was cut off over a weekend has come back by then.
	lateFor = 72 * time.Hour
	// lookEvery is how often the objects of a schedule are compared with the engine's counts, by one query.
	lookEvery = 10 * time.Minute
	// maxAgainWait bounds how long an object rests that was made again, so that clicks that trickle in do not make a whole
	// day be exported every ten minutes.
	maxAgainWait = 6 * time.Hour
)

// rest sets the time before which an object is not made again, after n attempts in a row: lookEvery, doubled up to a
// bound, but so that there is a last look before its 72 hours are over.
func (w *Watched) rest(now terse.Millis, every Every, n int, most time.Duration) {
	wait := min(lookEvery<<min(n-1, 10), most)
	last := w.From + every.millis() + terse.Millis((lateFor - 2*lookEvery).Milliseconds())
	w.NotBefore = max(min(now+terse.Millis(wait.Milliseconds()), last), now+terse.Millis(lookEvery.Milliseconds()))
}

// failedAgain notes that an object could not be made again. Only that object waits for it.
func (e *Schedule) failedAgain(from, now terse.Millis, fault string) (attempts int) {
	for i := range e.Watched {
		if w := &e.Watched[i]; w.From == from {
			w.Attempts++
			w.Fault = fault
			w.rest(now, e.Every, w.Attempts, maxRetryWait)
			return w.Attempts
		}
	}
	return 0
}

// Failing returns how often what fails has failed in a row, why, and when it is tried again: the object that is due, or
// else the one of Watched that failed most often. attempts 0: nothing fails.
func (e *Schedule) Failing() (attempts int, fault string, retry terse.Millis) {
	attempts, fault, retry = e.Attempts, e.Fault, e.NotBefore
	if attempts > 0 {
		return attempts, fault, retry
	}
	for i := range e.Watched {
		if w := &e.Watched[i]; w.Attempts > attempts {
			attempts, fault, retry = w.Attempts, w.Fault, w.NotBefore
		}
	}
	return attempts, fault, retry
}

// selects returns the query of the clicks of a range.
func (e *Schedule) selects(from, to terse.Millis) analytics.Query {
	return analytics.Query{Workspace: e.Workspace, Scope: e.Query.Scope, From: from, To: to, Bots: e.Query.Bots, Filters: e.Query.Filters, Every: e.Query.Every}
}

// watch notes what an object was made of, and forgets those whose time is over.
func (e *Schedule) watch(w Watched, now terse.Millis) {
	i, found := slices.BinarySearchFunc(e.Watched, w.From, func(w Watched, from terse.Millis) int { return int(w.From - from) })
	if found {
		e.Watched[i] = w
	} else {
		e.Watched = slices.Insert(e.Watched, i, w)
	}
	e.forget(now)
}

// forget drops the objects that are not made again any more.
func (e *Schedule) forget(now terse.Millis) {
	e.Watched = slices.DeleteFunc(e.Watched, func(w Watched) bool {
		return w.From+e.Every.millis()+terse.Millis(lateFor.Milliseconds()) <= now
	})
}

// count returns what the engine counts in each period of a range, by its beginning.
func (s *Scheduler) count(ctx context.Context, e *Schedule, from, to terse.Millis) (map[terse.Millis]int64, error) {
	q := e.selects(from, to)
	if q.Interval = analytics.Hour; e.Every == Daily {
		q.Interval = analytics.Day
	}
	r, err := s.o.Source.Timeseries(ctx, q)
	if err != nil {
		return nil, err
	}
	counts := make(map[terse.Millis]int64, len(r.Points))
	for _, p := range r.Points {
		counts[p.T] = p.Clicks
	}
	return counts, nil
}

// grown returns the first watched object of whose time more is counted than is in it, with the new count; nil: none, or it
// is not time to look. The count of the making is a floor that never falls: what the engine has lost, by an erasure, a
// sweep or a fault, must not be lost in the bucket too, not even when late clicks come after the loss. Nor is an object
// made again of clicks that are no longer kept whole. changed: e has learned a count that was not known; its object stays
// as it is, for what is in it is not known either.
func (s *Scheduler) grown(ctx context.Context, e *Schedule, now terse.Millis) (w *Watched, changed bool, err error) {
	e.forget(now)
	if len(e.Watched) == 0 || now < s.looked[e.ID]+terse.Millis(lookEvery.Milliseconds()) {
		return nil, false, nil
	}
	from, to := e.Watched[0].From, e.Watched[len(e.Watched)-1].From+e.Every.millis()
	if !s.counted(ctx, to) {
		return nil, false, nil
	}
	counts, err := s.count(ctx, e, from, to)
	if err != nil {
		s.looked[e.ID] = now
		return nil, false, err
	}
	var more []Watched
	for i := range e.Watched {
		known, count := &e.Watched[i], counts[e.Watched[i].From]
		switch {
		case known.Count < 0:
			known.Count, changed = count, true
		case count > known.Count && known.NotBefore <= now:
			again := *known
			again.Count = count
			more = append(more, again)
		case count <= known.Count && known.Attempts > 0: // there is nothing to make it again of any more
			known.Attempts, known.Fault, changed = 0, "", true
		}
	}
	if len(more) > 0 {
		terms, err := s.o.Terms(ctx, e.Workspace)
		if err != nil {
			s.looked[e.ID] = now
			return nil, false, err
		}
		since := terms.Since(now, e.Query.Bots)
		for i := range more {
			if more[i].From >= since {
				return &more[i], changed, nil
			}
		}
	}
	s.looked[e.ID] = now
	return nil, changed, nil
}
