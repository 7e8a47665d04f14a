package links

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/failpoint"
)

// rollbackAtOnce is how many deletions are under way at a time: the store commits those
// that wait for its disk together.
const rollbackAtOnce = 64

// Rollback deletes the links that a bulk request with a ledger created, also those that
// were changed since; links that it reused stay. Progress is told how many links of the
// ledger are gone so far, after each batch; it may be nil. A rollback that was cut may be
// repeated. It undoes what the ledger still knows: entries are kept for LedgerKeep.
//
// Returns an error of code conflict if the request is running.
func (s *Service) Rollback(ctx context.Context, a Actor, ledgerID string, progress func(deleted uint64)) (uint64, error) {
	release, ok := s.ledgers.acquire(fmt.Sprintf("%d/%s", a.Workspace, ledgerID))
	if !ok {
		return 0, errInProgress()
	}
	defer release()
	l := &ledger{store: s.o.Store, workspace: a.Workspace, id: ledgerID, after: ledgerID + "/"}
	if round, err := l.readRound(ctx); err != nil {
		return 0, err
	} else if round > 0 { // other processes may still hold chunks
		if _, err := l.raise(ctx, s.o.Clock()); err != nil {
			return 0, err
		}
	}
	var deleted uint64
	for offset := int64(0); ; {
		e, err := l.next(ctx, offset)
		if err != nil || e == nil {
			return deleted, err
		}
		offset = e.Offset + 1
		if e, err = l.revoke(ctx, e); err != nil {
			return deleted, err
		}
		if e == nil {
			continue
		}
		numbers, err := e.created()
		if err != nil {
			return deleted, err
		}
		if err := s.deleteAll(ctx, a, numbers); err != nil {
			return deleted, err
		}
		deleted += uint64(len(numbers))
		failpoint.Hit(failpoint.RollbackBatch)
		if progress != nil {
			progress(deleted)
		}
	}
}

// created returns the numbers of the links that the batch made.
func (e *ledgerEntry) created() ([]terse.LinkNumber, error) {
	states, err := base64.RawStdEncoding.DecodeString(e.States)
	if err != nil {
		return nil, fmt.Errorf("read ledger entry at %d: %w", e.Offset, err)
	}
	var numbers []terse.LinkNumber
	var last uint64
	for range e.Rows {
		v, size := binary.Uvarint(states)
		if size <= 0 {
			return nil, &terse.Error{Code: terse.CodeInternal, Op: "read ledger", Err: fmt.Errorf("entry at %d is too short", e.Offset)}
		}
		states = states[size:]
		last += uint64(unzigzag(v >> 2))
		if rowKind(v&3) == rowCreated {
			numbers = append(numbers, terse.LinkNumber(last))
		}
	}
	return numbers, nil
}

// deleteAll deletes links of the workspace; those that are gone already are fine.
func (s *Service) deleteAll(ctx context.Context, a Actor, numbers []terse.LinkNumber) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next := make(chan terse.LinkNumber)
	var mu sync.Mutex
	var first error
	var wg sync.WaitGroup
	for range min(rollbackAtOnce, len(numbers)) {
		wg.Go(func() {
			for n := range next {
				if err := s.Delete(ctx, a, n, 0); err != nil && !errors.Is(err, terse.ErrNotFound) {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
					cancel()
				}
			}
		})
	}
	for _, n := range numbers {
		if ctx.Err() != nil {
			break
		}
		next <- n
	}
	close(next)
	wg.Wait()
	if first == nil {
		first = ctx.Err()
	}
	return first
}
