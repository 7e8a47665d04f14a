package links

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/terselink/terse"
)

// A request may spread its batches over other processes that use the store: each is sent as a chunk, run there with its
// entry of the ledger in the same atomic insert, and its outcome comes back and takes its place among the results. The
// batches that no other process has room for run here, as all do without a Spread. Whatever becomes of a chunk, this
// process may run it itself: of two runs of the same rows the ledger lets one insert, and the other learns what that made.
//
// Two things could still go wrong, because a process that holds a chunk may be paused for as long as one likes: its rows are cut
// otherwise by a later run, or rolled back. So it notes in the ledger that it begins, which keeps the cut, and then looks
// whether the round of the ledger is still the one that the chunk is of. Later runs and rollbacks raise the round before
// they read what was begun; see bulk_round.go.

// Spread has other processes run chunks of one request. Its methods may be called from many goroutines.
type Spread interface {
	// Window returns how many chunks are under way at most, whoever comes.
	Window() int
	// Now returns how many may be under way now. It asks nobody.
	Now() int
	// Room waits until chunk i of 0 to Window-1 may be under way; false: ctx has ended.
	Room(ctx context.Context, i int) bool
	// Do has another process run a chunk, which is borrowed, and returns the outcome that it made, and who that was. After
	// any error the chunk may still be run, now or later.
	Do(ctx context.Context, chunk []byte) (outcome []byte, node string, err error)
}

// maxDeclined is how many chunks the other processes may decline before the rest of the request stays here.
const maxDeclined = 3

// errDeclined: the rows are to be run by the process that has the request.
var errDeclined = errors.New("the chunk was declined")

// openSpread prepares a request for other processes, if it may use them: what is not repeatable stays here.
func (p *pipeline) openSpread() error {
	if p.o.Spread == nil || p.o.Atomic || p.ledger == nil && !p.o.DryRun {
		return nil
	}
	if p.ledger != nil {
		var err error
		if p.ledger.round, err = p.ledger.raise(p.ctx, p.s.o.Clock()); err != nil {
			return err
		}
	}
	p.spread, p.runID = p.o.Spread, newRun()
	return nil
}

// startSenders lets other processes take batches until ctx ends.
func (p *pipeline) startSenders(ctx context.Context, workers *sync.WaitGroup) {
	if p.spread == nil {
		return
	}
	for i := range p.spread.Window() {
		workers.Go(func() {
			for p.declined.Load() < maxDeclined && p.spread.Room(ctx, i) {
				b, ok := <-p.work
				if !ok {
					return
				}
				p.send(b)
				p.ended(b, workers)
			}
		})
	}
}

// send has another process run a batch, or runs it here.
func (p *pipeline) send(b *batch) {
	if b.entry != nil && !b.entry.Begun { // it was done before
		p.s.background.Do(func() { b.run(p) })
		return
	}
	outcome, node, err := p.spread.Do(p.ctx, p.appendChunk(nil, b))
	if err == nil {
		p.s.background.Do(func() { err = b.takeOutcome(p, outcome) })
	}
	if err == nil {
		b.by = node
		return
	}
	if errors.Is(err, errDeclined) {
		p.declined.Add(1)
	}
	if p.ctx.Err() == nil {
		p.s.o.Log.Debug("a chunk is run here", "offset", b.offset, "rows", len(b.spans), "why", err)
	}
	b.restart()
	p.again(b)
}

// waitForRoom waits until another batch may be under way. Those that are done and wait for an earlier one count too: their
// results are in memory.
func (p *pipeline) waitForRoom() error {
	if p.spread == nil {
		return nil // the channel of the order is as long as it may be
	}
	for p.flying.Load() >= int64(p.s.inFlight()+min(p.spread.Now(), p.spread.Window())) {
		select {
		case <-p.written:
		case <-p.ctx.Done():
			return p.ctx.Err()
		}
	}
	return nil
}

// again runs a batch which another run may have done, or begun.
func (p *pipeline) again(b *batch) {
	b.entry, b.err = nil, nil
	if p.ledger != nil {
		entry, err := p.ledger.find(p.ctx, b.offset)
		switch {
		case err == nil:
			b.entry = entry
		case !errors.Is(err, terse.ErrNotFound):
			b.err = fmt.Errorf("take over batch: %w", err)
			return
		}
	}
	p.s.background.Do(func() { b.run(p) })
}
