package links

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/terselink/terse"
)

// The round of a ledger counts the runs and rollbacks of a request that is spread over processes. It is the version of a
// document beside the entries.
//
// A process that is to run a chunk first puts the entry of the chunk, marked as begun, and then reads the round. If that is still
// the round of the chunk, every later round sees the entry, because it is raised before entries are read. A later run
// then cuts the same rows, and whichever of the two inserts first has the entry, whose version both name. A rollback
// gives the entry another version, so that nothing is inserted any more.

// roundName sorts after every offset, and after endName.
const roundName = "round"

// newRun names one run of a request.
func newRun() string { return rand.Text() }

// readRound returns the round of the ledger; 0 if no chunk of it was ever sent.
func (l *ledger) readRound(ctx context.Context) (uint64, error) {
	doc, err := l.store.GetDocument(ctx, l.workspace, terse.KindLedger, l.name(roundName))
	if errors.Is(err, terse.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read round of ledger: %w", err)
	}
	return doc.Version, nil
}

// raise begins the next round and returns it. There is one caller at a time.
func (l *ledger) raise(ctx context.Context, at terse.Millis) (uint64, error) {
	const tries = 4 // a write of unknown outcome makes the next one fail
	for try := 1; ; try++ {
		round, err := l.readRound(ctx)
		if err != nil {
			return 0, err
		}
		doc, err := l.document(roundName, ledgerEntry{At: at})
		if err != nil {
			return 0, err
		}
		doc.Version = round + 1
		err = l.store.PutDocument(ctx, doc)
		if err == nil {
			return doc.Version, nil
		}
		again := errors.Is(err, terse.ErrVersion) || errors.Is(err, terse.ErrExists) || errors.Is(err, terse.ErrUnknownOutcome)
		if !again || try == tries {
			return 0, fmt.Errorf("raise round of ledger: %w", err)
		}
	}
}

// begin notes that a batch of a chunk is about to be inserted, or finds what was done with it. Returns errDeclined if the
// chunk is not of this round.
func (l *ledger) begin(ctx context.Context, b *batch, at terse.Millis) (*ledgerEntry, error) {
	e := &ledgerEntry{Offset: b.offset, Bytes: int64(len(b.buf)), Hash: l.hash(b.buf), Begun: true, At: at, version: 1}
	doc, err := l.document(entryName(b.offset), *e)
	if err != nil {
		return nil, err
	}
	if err := l.store.PutDocument(ctx, doc); err != nil {
		there, ferr := l.find(ctx, b.offset)
		if ferr != nil {
			return nil, fmt.Errorf("begin batch: %w", errors.Join(err, ferr))
		}
		if there.Bytes != e.Bytes || there.Hash != e.Hash {
			return nil, fmt.Errorf("%w: its rows were cut otherwise", errDeclined)
		}
		e = there
	}
	round, err := l.readRound(ctx)
	if err == nil && round != l.round {
		err = fmt.Errorf("%w: it is of round %d, and this is %d", errDeclined, l.round, round)
	}
	return e, err
}

// revoke ends what was begun and not done, and returns what was done meanwhile; nil: nothing was, and nothing will be.
func (l *ledger) revoke(ctx context.Context, e *ledgerEntry) (*ledgerEntry, error) {
	for e.Begun {
		doc, err := l.document(entryName(e.Offset), *e)
		if err != nil {
			return nil, err
		}
		doc.Version = e.version + 1
		err = l.store.PutDocument(ctx, doc)
		if err == nil {
			return nil, nil
		}
		if !errors.Is(err, terse.ErrVersion) && !errors.Is(err, terse.ErrUnknownOutcome) {
			return nil, fmt.Errorf("revoke batch: %w", err)
		}
		if e, err = l.find(ctx, e.Offset); err != nil {
			return nil, fmt.Errorf("revoke batch: %w", err)
		}
	}
	return e, nil
}
