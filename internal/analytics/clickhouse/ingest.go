package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
)

// Source hands out the events of one spool in order; see duckdb.Source.
type Source interface {
	// Next calls fn for events that follow Position, in order, about max of them, and returns how many. Fewer than
	// max: everything recorded so far was handed out. An event is borrowed until fn returns.
	Next(ctx context.Context, max int, fn func(*clicks.Event) error) (int, error)
	// Position is the place after the last event that Next counted.
	Position() clicks.Position
	// Wait returns when there may be more events, or with the error of ctx.
	Wait(ctx context.Context) error
}

// When a batch is written. Each insert makes a part that the server merges later, so there is about one a second, but
// the first click after a pause is written soon: a person who tries a link sees it counted.
const (
	maxDelay     = time.Second
	trickleDelay = 150 * time.Millisecond
	pollDelay    = 50 * time.Millisecond
)

// Ingest copies events from src, which begins at Position, into the table until ctx ends (then it returns nil) or
// something fails. After an error it may be called again with a source that begins at Position.
func (e *Engine) Ingest(ctx context.Context, src Source) error {
	e.doubt = e.mostInDoubt()
	return e.ingest(ctx, e.o.Source, &spoolIntake{e: e, Source: src})
}

// mostInDoubt is how many clicks after a place may be in the table. What was on its way when the last one ended was one batch, perhaps of
// another process with another limit; a group of the spool may have gone beyond it.
func (e *Engine) mostInDoubt() int { return max(MostRows, e.o.MaxRows) + clicks.MaxGroup }

func (e *Engine) ingest(ctx context.Context, name string, in intake) error {
	e.inserting = insertPrefix(name)
	err := e.settle(ctx, e.inserting)
	for err == nil {
		err = e.ingestOnce(ctx, in)
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return fmt.Errorf("ingest clicks: %w", err)
}

// ingestOnce writes one batch, or waits for something to write.
func (e *Engine) ingestOnce(ctx context.Context, in intake) error {
	b := &e.batch
	b.reset()
	var began time.Time
	for {
		want := e.o.MaxRows - len(b.events)
		read, err := in.Next(ctx, want, func(ev *clicks.Event) error { return e.take(b, ev) })
		if err != nil {
			return err
		}
		now := e.o.Clock()
		readAll := read < want
		switch {
		case len(b.events) == 0 && read > 0: // all of them were left out
			return in.moveOn(ctx, 0)
		case len(b.events) == 0:
			if err := in.seen(ctx, 0, terse.MillisOf(now), true); err != nil {
				return err
			}
			if err := e.joinSoon(ctx); err != nil {
				return err
			}
			return in.Wait(ctx)
		case began.IsZero():
			began = time.Now()
		}
		age, pause := time.Since(began), time.Since(e.wrote)
		if len(b.events) >= e.o.MaxRows || age >= maxDelay || readAll && age >= trickleDelay && pause >= maxDelay {
			last, n := b.events[len(b.events)-1].At, len(b.events)
			if err := e.write(ctx, b.events, in.doubtful()); err != nil {
				return err
			}
			e.wrote = time.Now()
			if err := in.moveOn(ctx, n); err != nil {
				return err
			}
			if err := in.seen(ctx, last, terse.MillisOf(now), readAll); err != nil {
				return err
			}
			return e.joinSoon(ctx)
		}
		if readAll {
			if err := waitAtMost(ctx, in, pollDelay); err != nil {
				return err
			}
		}
	}
}

// take adds an event to the batch unless it is not to be counted.
func (e *Engine) take(b *batch, ev *clicks.Event) error {
	switch {
	case e.erased.covers(ev):
	case !storable(ev), e.reduced(dayOf(ev.At)):
		if e.rejected.Add(1) == 1 {
			e.o.Log.Warn("a click is skipped: its time or its numbers fit into no table, or only the numbers of its day are left; more are only counted", "event", fmt.Sprintf("%x", ev.ID), "time", int64(ev.At))
		}
	default:
		b.add(ev)
	}
	return nil
}

// write puts events into the table, each once. doubtful: some of them may be there.
func (e *Engine) write(ctx context.Context, events []clicks.Event, doubtful bool) error {
	e.writing.Lock()
	defer e.writing.Unlock()
	// Erased since they were taken.
	events = slices.DeleteFunc(events, func(ev clicks.Event) bool { return e.erased.covers(&ev) })
	if len(events) == 0 {
		return nil
	}
	days := map[int64]bool{}
	for i := range events {
		days[dayOf(events[i].At)] = true
	}
	if err := e.markDirty(ctx, days); err != nil {
		return err
	}
	if doubtful {
		var err error
		if events, err = e.missing(ctx, events); err != nil {
			return err
		}
	}
	if len(events) == 0 {
		return nil
	}
	began := time.Now()
	for _, group := range (&batch{events: events}).groups() {
		if err := e.insert(ctx, e.insertID(), group); err != nil {
			return err
		}
	}
	e.metrics.inserted(len(events), time.Since(began))
	return nil
}

// moveOn makes the position durable.
func (e *Engine) moveOn(ctx context.Context, pos clicks.Position, n int) error {
	e.mu.RLock()
	events := e.events + int64(n)
	e.mu.RUnlock()
	if err := e.writeOffset(ctx, pos, events); err != nil {
		return err
	}
	e.mu.Lock()
	e.position, e.events = pos, events
	e.mu.Unlock()
	return nil
}

// seen notes that every click recorded before t is in the table.
func (e *Engine) seen(t terse.Millis) {
	for old := e.watermark.Load(); int64(t) > old && !e.watermark.CompareAndSwap(old, int64(t)); {
		old = e.watermark.Load()
	}
}

// waitAtMost waits for events, but not longer than limit.
func waitAtMost(ctx context.Context, src interface{ Wait(context.Context) error }, limit time.Duration) error {
	short, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := src.Wait(short); err != nil && short.Err() == nil {
		return err
	}
	return ctx.Err()
}
