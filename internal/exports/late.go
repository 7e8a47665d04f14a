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
)

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

// grown returns the first watched object of whose time more is counted than when it was made, with the new count; nil:
// none, or it is not time to look. changed: e was brought up to date with counts that have become smaller, by an erasure or
// a sweep, or that grew where clicks are no longer kept whole: such objects stay as they are, for what the engine has
// lost must not be lost in the bucket too.
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
	var since terse.Millis
	asked := false
	for i := range e.Watched {
		known, count := &e.Watched[i], counts[e.Watched[i].From]
		if count == known.Count {
			continue
		}
		if count > known.Count && !asked {
			terms, err := s.o.Terms(ctx, e.Workspace)
			if err != nil {
				return nil, false, err
			}
			since, asked = terms.Since(now, e.Query.Bots), true
		}
		if count > known.Count && known.From >= since {
			return &Watched{From: known.From, Count: count}, false, nil
		}
		known.Count, changed = count, true
	}
	s.looked[e.ID] = now
	return nil, changed, nil
}
