package clickhouse

import (
	"context"

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

// feedIntake is a feed.
type feedIntake struct {
	e *Engine
	Feed
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
