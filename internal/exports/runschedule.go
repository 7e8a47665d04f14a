package exports

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
)

// Run carries out schedules until ctx ends, and returns nil then.
func (s *Scheduler) Run(ctx context.Context) error {
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	for {
		if s.o.Bucket != nil {
			if err := s.round(ctx); err != nil && ctx.Err() == nil {
				s.o.Log.Error("export schedules", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-tick.C:
		}
	}
}

// round takes every schedule as far as it can go. One that fails does not keep others waiting.
func (s *Scheduler) round(ctx context.Context) error {
	var errs []error
	for after := terse.WorkspaceID(0); ; {
		ids, err := s.o.Workspaces(ctx, after, 500)
		if err != nil || len(ids) == 0 {
			return errors.Join(append(errs, err)...)
		}
		for _, w := range ids {
			after = w
			list, err := s.List(ctx, w)
			errs = append(errs, err)
			for i := range list {
				for ctx.Err() == nil {
					more, err := s.step(ctx, w, list[i].ID)
					errs = append(errs, err)
					if !more {
						break
					}
				}
			}
			if ctx.Err() != nil {
				return errors.Join(errs...)
			}
		}
	}
}

// step exports one period of a schedule if it is due, else one of which clicks were counted later. more: another may be.
func (s *Scheduler) step(ctx context.Context, w terse.WorkspaceID, id string) (more bool, err error) {
	e, version, err := s.get(ctx, w, id)
	if errors.Is(err, terse.ErrNotFound) {
		delete(s.looked, id)
		return false, nil // deleted meanwhile
	}
	if err != nil {
		return false, err
	}
	now, end := s.o.Clock(), e.Next+e.Every.millis()
	if e.Paused || e.NotBefore > now {
		return false, nil
	}
	due, known := Watched{From: e.Next}, false
	again := now < end+terse.Millis(settleWait.Milliseconds()) || !s.counted(ctx, end)
	if again {
		grown, changed, err := s.grown(ctx, &e, now)
		if err != nil {
			return false, fmt.Errorf("schedule %s, look for late clicks: %w", id, err)
		}
		if grown == nil {
			if changed {
				err = s.put(ctx, &e, version+1)
			}
			if errors.Is(err, terse.ErrNotFound) || errors.Is(err, terse.ErrVersion) {
				err = nil // the next look finds the same
			}
			return false, err
		}
		due = *grown
	} else if counts, err := s.count(ctx, &e, due.From, end); err == nil {
		due.Count, known = counts[due.From], true
	}
	terms, err := s.o.Terms(ctx, w)
	if err != nil { // it is a remark, for which no object waits
		s.o.Log.Debug("not known how long clicks are kept, so an object is not said to be incomplete", "schedule", id, "error", err)
	}
	incomplete := err == nil && terms.CompleteFrom(e.selects(due.From, due.From+e.Every.millis()), s.o.Clock()) != 0
	name := e.ObjectName(due.From)
	rows, err := s.export(ctx, &e, due.From, name)
	if ctx.Err() != nil {
		return false, nil // made again after the restart
	}
	switch {
	case err == nil && again:
		due.Again, due.Attempts, due.Fault = due.Again+1, 0, ""
		due.rest(s.o.Clock(), e.Every, due.Again, maxAgainWait)
		e.watch(due, s.o.Clock())
		e.Again, e.AgainObject, e.AgainAt = e.Again+1, name, s.o.Clock()
		if name == e.Object {
			e.Rows = rows
		}
		s.again.Add(1)
	case err == nil:
		e.Next, e.Attempts, e.NotBefore, e.Fault = end, 0, 0, ""
		if !known {
			due.Count = rows // which are the clicks that the engine would have counted
		}
		e.watch(due, s.o.Clock())
		e.Objects, e.Object, e.Rows, e.DoneAt = e.Objects+1, name, rows, s.o.Clock()
		if incomplete {
			e.Incomplete++
		}
		s.done.Add(1)
	case again:
		attempts := e.failedAgain(due.From, s.o.Clock(), name+": "+faultOf(err))
		s.failed.Add(1)
		s.o.Log.Error("an object of a scheduled export could not be made again and is tried again", "schedule", id, "object", name, "attempt", attempts, "error", err)
	default:
		wait := min(minRetryWait<<min(e.Attempts, 10), maxRetryWait)
		e.Attempts++
		e.NotBefore = s.o.Clock() + terse.Millis(wait.Milliseconds())
		e.Fault = name + ": " + faultOf(err)
		s.failed.Add(1)
		s.o.Log.Error("a scheduled export failed and is tried again", "schedule", id, "object", name, "attempt", e.Attempts, "wait", wait, "error", err)
	}
	// Whoever changed the schedule meanwhile is right: then this period is made again, under the same name.
	perr := s.put(ctx, &e, version+1)
	switch {
	case errors.Is(perr, terse.ErrNotFound):
		return false, nil
	case errors.Is(perr, terse.ErrVersion):
		return true, nil
	case perr != nil:
		return false, perr
	}
	return err == nil, nil
}

// counted reports whether the engine has all clicks before a time that this process knows of. Those of an edge that was
// cut off, of totals that waited in memory, or of another node may still come: see grown.
func (s *Scheduler) counted(ctx context.Context, end terse.Millis) bool {
	st := s.o.Status(ctx)
	return st.State == analytics.StateReady && st.LagKnown && s.o.Clock()-terse.Millis(st.LagMs) >= end
}

// putError is an error of the bucket.
type putError struct{ error }

func (e putError) Unwrap() error { return e.error }

// faultOf says why an attempt failed, for the people of the workspace: not where the bucket is, nor anything else of the
// machine, which is in the log.
func faultOf(err error) string {
	if _, ok := errors.AsType[putError](err); !ok {
		return "the clicks cannot be written to a file"
	}
	switch terse.ErrorCode(err) {
	case terse.CodeUnavailable:
		return "the bucket does not answer"
	case terse.CodeForbidden:
		return "the bucket refuses the server"
	default:
		return "the bucket does not take the object"
	}
}

// export writes the clicks of the period that begins with from into a file and sends it.
func (s *Scheduler) export(ctx context.Context, e *Schedule, from terse.Millis, name string) (rows int64, err error) {
	path := filepath.Join(s.o.Dir, e.ID+"."+string(e.Format))
	defer func() {
		if rerr := os.Remove(path); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("export: %w", rerr))
		}
	}()
	rows, _, err = writeFile(ctx, s.o.Source, e.selects(from, from+e.Every.millis()), fileOptions{path: path, format: e.Format, rawCSV: e.RawCSV})
	if err != nil {
		return 0, err
	}
	if err := s.o.Bucket.Put(ctx, name, path); err != nil {
		return 0, putError{err}
	}
	return rows, nil
}
