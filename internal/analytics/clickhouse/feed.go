package clickhouse

import (
	"context"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
)

// Feed hands out the clicks of many spools, each spool in order.
type Feed interface {
	// Next calls fn with clicks that were not handed out before, about max of them, and returns how many. Fewer than
	// max: there are no more at the moment. An event is borrowed until fn returns.
	Next(ctx context.Context, max int, fn func(*clicks.Event) error) (int, error)
	// Places calls fn for each spool whose clicks were handed out since Written: up to where, and how many.
	Places(fn func(spool string, at clicks.Position, n int))
	// Written says that these clicks and places are durable.
	Written(ctx context.Context)
	// Wait returns when there may be more clicks, or with the error of ctx.
	Wait(ctx context.Context) error
	// Current reports whether fewer clicks than were asked for means that there are no more: not while something was lost or failed.
	Current() bool
}

// feedName stands for the spool in the ids of inserts of a feed.
const feedName = "click-streams"

// fed is what is known of a spool of a feed.
type fed struct {
	events    int64
	offsetVer uint64
	doubt     int // as Engine.doubt
}

// Place returns the place of a spool before which every click is in the table. It is called before clicks of the spool are handed out, and
// waits until nothing that the node itself may have begun to insert is under way.
func (e *Engine) Place(ctx context.Context, spool string) (clicks.Position, error) {
	if err := e.settle(ctx, insertPrefix(spool)); err != nil {
		return clicks.Position{}, err
	}
	pos, events, ver, err := e.readOffset(ctx, spool)
	if err != nil {
		return clicks.Position{}, err
	}
	e.fed[spool] = &fed{events: events, offsetVer: ver, doubt: e.mostInDoubt()}
	return pos, nil
}

// IngestFeed is Ingest for a feed. One process at a time may do it.
func (e *Engine) IngestFeed(ctx context.Context, feed Feed) error {
	e.fed = map[string]*fed{}
	return e.ingest(ctx, feedName, &feedIntake{e: e, Feed: feed})
}

// intake is where clicks come from, and what is to be written after them.
type intake interface {
	Next(ctx context.Context, max int, fn func(*clicks.Event) error) (int, error)
	Wait(ctx context.Context) error
	// doubtful reports whether clicks that were handed out may be in the table.
	doubtful() bool
	// moveOn makes the places after what was handed out durable. n of them were written.
	moveOn(ctx context.Context, n int) error
	// seen notes that what was handed out is in the table: up to an event of time last, or everything before now.
	seen(ctx context.Context, last, now terse.Millis, all bool) error
}

// spoolIntake is the spool of this node.
type spoolIntake struct {
	e *Engine
	Source
}

func (s *spoolIntake) doubtful() bool { return s.e.doubt > 0 }

func (s *spoolIntake) moveOn(ctx context.Context, n int) error {
	s.e.doubt -= n
	return s.e.moveOn(ctx, s.Position(), n)
}

func (s *spoolIntake) seen(_ context.Context, last, now terse.Millis, all bool) error {
	if all {
		last = now
	}
	s.e.seen(last)
	return nil
}

// feedIntake is a feed.
type feedIntake struct {
	e *Engine
	Feed
	kept    time.Time // when the watermark was written
	keptVer uint64
}

const (
	// watermarkName stands for a spool in the table of places: its events are the time before which every click is counted, for processes
	// that answer questions and do not count.
	watermarkName = "click-streams watermark"
	// keepWatermark is how often it is written.
	keepWatermark = 10 * time.Second
)

// seen knows nothing from the time of an event: another spool may be far behind.
func (f *feedIntake) seen(ctx context.Context, _, now terse.Millis, all bool) error {
	if !all || !f.Current() {
		return nil
	}
	f.e.seen(now)
	if !f.kept.IsZero() && time.Since(f.kept) < keepWatermark {
		return nil
	}
	f.kept, f.keptVer = time.Now(), f.e.nextVer(f.keptVer)
	return f.e.rows(ctx, offsetRows, [][]any{{watermarkName, f.keptVer, "", uint64(now)}})
}

// learnWatermark reads what another process that counts has seen. An error is left for the next time.
func (e *Engine) learnWatermark(ctx context.Context) {
	if _, t, _, err := e.readOffset(ctx, watermarkName); err == nil {
		e.seen(terse.Millis(t))
	}
}

func (f *feedIntake) doubtful() (yes bool) {
	f.Places(func(spool string, _ clicks.Position, _ int) { yes = yes || f.e.fed[spool].doubt > 0 })
	return yes
}

func (f *feedIntake) moveOn(ctx context.Context, _ int) error {
	var rows [][]any
	f.Places(func(spool string, at clicks.Position, n int) {
		s := f.e.fed[spool]
		s.doubt -= n
		s.events += int64(n)
		s.offsetVer = f.e.nextVer(s.offsetVer)
		rows = append(rows, []any{spool, s.offsetVer, at.String(), uint64(s.events)})
	})
	if err := f.e.rows(ctx, offsetRows, rows); err != nil {
		return err
	}
	f.Written(ctx)
	return nil
}
