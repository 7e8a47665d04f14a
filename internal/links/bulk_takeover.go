package links

import (
	"bytes"
	"sync"
	"time"

	"github.com/terselink/terse"
)

// A worker that fails fails its batch alone: with a ledger, which knows what the batch has
// done, another goroutine takes the batch over while the rest of the request goes on. The
// batches before and behind it keep their places.

const (
	// maxTakeOvers bounds how often a batch is taken over before the request ends.
	maxTakeOvers = 3
	// firstTakeOver is the pause before the first one; it doubles.
	firstTakeOver = 100 * time.Millisecond
)

// repeatable reports whether another run of a batch that failed may help, and does no harm.
func (p *pipeline) repeatable(b *batch) bool {
	if b.err == nil || p.ledger == nil || p.ctx.Err() != nil || b.tries >= maxTakeOvers {
		return false
	}
	switch terse.ErrorCode(b.err) {
	case terse.CodeUnavailable, terse.CodeUnknownOutcome:
		return true
	}
	return b.panicked
}

// ended hands a batch that was run to who writes the results, or has it taken over.
func (p *pipeline) ended(b *batch, workers *sync.WaitGroup) {
	if p.repeatable(b) {
		workers.Go(func() { p.takeOver(b) })
		return
	}
	close(b.done)
}

// takeOver runs a batch again until it succeeds or nothing more is to be hoped for.
func (p *pipeline) takeOver(b *batch) {
	defer close(b.done)
	for p.repeatable(b) {
		p.s.o.Log.Warn("a batch is taken over", "offset", b.offset, "rows", len(b.spans), "try", b.tries+1, "error", b.err)
		wait := time.NewTimer(firstTakeOver << b.tries)
		select {
		case <-wait.C:
		case <-p.ctx.Done():
			wait.Stop()
			return
		}
		// Whoever failed may have left anything behind: only the rows are taken.
		b.restart()
		b.tries++
		p.again(b)
	}
}

// restart makes a batch anew of its rows, without a buffer of the run before. The fields
// that the writer of the results looks at meanwhile stay as they are.
func (b *batch) restart() {
	b.buf = bytes.Clone(b.buf)
	b.rows, b.links, b.doms, b.found, b.fdoms, b.errs, b.reuse = nil, nil, nil, nil, nil, nil, nil
	b.issued, b.indexes, b.issuers, b.places, b.order, b.ends = nil, nil, nil, nil, nil, nil
	b.values, b.out = valueParser{}, nil
	b.created, b.reused, b.failed, b.panicked, b.lost = 0, 0, 0, false, false
}
