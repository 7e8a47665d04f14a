package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/terselink/terse/internal/sleep"
)

// scrubTable fills the free space of the file. It is there only while that is done, or after a crash in the middle of it.
const scrubTable = "scrubbed"

// dropScrubbed is the statement that removes it.
const dropScrubbed = "DROP TABLE IF EXISTS " + scrubTable

// readerLook is how often scrub looks whether older answers have ended, and whether a checkpoint is possible.
const readerLook = 200 * time.Millisecond

// scrubbing lets erasures that wait for each other share one scrub, which writes as much as is free in the file.
type scrubbing struct {
	turn chan struct{} // of capacity 1: held by the erasure that scrubs

	mu     sync.Mutex
	erased int64 // erasures that are committed
	done   int64 // how many of those, from the first on, were scrubbed
	passes int64 // scrubs that were begun
}

// committed returns the number of an erasure, whose rows are in no table any more.
func (s *scrubbing) committed() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erased++
	return s.erased
}

// scrubFor returns once a scrub that began after an erasure was committed has ended: its own, or that of another.
func (d *DB) scrubFor(ctx context.Context, n int64) error {
	s := &d.scrubbing
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return fmt.Errorf("scrub: %w", ctx.Err())
	}
	s.mu.Lock()
	through, done := s.erased, s.done
	if n > done {
		s.passes++
	}
	s.mu.Unlock()
	if n <= done {
		return nil
	}
	if err := d.scrub(ctx); err != nil {
		return fmt.Errorf("scrub: %w", err)
	}
	s.mu.Lock()
	s.done = through
	s.mu.Unlock()
	return nil
}

// scrub takes what was deleted out of the write-ahead log and overwrites the space that is free in the file of the database: a
// deleted row is in both as it was, until something else needs the room. A table that was dropped is free only when the answers
// that began before have ended, so it waits for them. If ctx ends, the space is free, and not or not wholly overwritten.
func (d *DB) scrub(ctx context.Context) (err error) {
	if err := d.answers.older(ctx); err != nil {
		return err
	}
	if err := d.settle(ctx); err != nil { // frees the blocks
		return err
	}
	defer func() { // also if the caller went away: else all that was free stays taken
		err = errors.Join(err, d.unfill(ctx))
	}()
	if err := d.fillFree(ctx); err != nil {
		return err
	}
	return d.settle(ctx) // writes what is not written yet
}

// fillFree takes all free blocks of the file, and one more, with numbers of 8 bytes that no method of compression makes fewer.
func (d *DB) fillFree(ctx context.Context) error {
	return d.write(ctx, func(ctx context.Context) error {
		var numbers int64
		q := "SELECT (free_blocks + 1) * block_size // 8 FROM pragma_database_size() WHERE database_name = current_database()"
		if err := d.scan(ctx, q, func(r *sql.Rows) error { return r.Scan(&numbers) }); err != nil {
			return err
		}
		if err := d.exec(ctx, dropScrubbed); err != nil {
			return err
		}
		return d.exec(ctx, fmt.Sprintf("CREATE TABLE %s AS SELECT hash(range) AS n FROM range(%d)", scrubTable, numbers))
	})
}

// unfill gives the blocks back, whether or not ctx has ended.
func (d *DB) unfill(ctx context.Context) error {
	if err := d.write(ctx, func(ctx context.Context) error { return d.exec(ctx, dropScrubbed) }); err != nil {
		return err
	}
	if ctx.Err() == nil {
		return d.settle(ctx)
	}
	_, err := d.checkpointNow(context.WithoutCancel(ctx)) // if it cannot be now, the next one does it
	return err
}

// settle writes a checkpoint; it waits while a long answer prevents one.
func (d *DB) settle(ctx context.Context) error {
	for {
		if done, err := d.checkpointNow(ctx); err != nil || done {
			return err
		}
		if err := sleep.For(ctx, readerLook); err != nil {
			return err
		}
	}
}

// answers knows which reading transactions are open: each is of the epoch in which it began.
type answers struct {
	mu    sync.Mutex
	epoch int64
	open  map[int64]int // how many, by epoch
}

// begin counts a transaction that is about to begin; end is called after it has ended.
func (a *answers) begin() (end func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open == nil {
		a.open = map[int64]int{}
	}
	epoch := a.epoch
	a.open[epoch]++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.open[epoch]--; a.open[epoch] == 0 {
			delete(a.open, epoch)
		}
	}
}

// older waits until all that began before the call have ended. Later ones begin as always.
func (a *answers) older(ctx context.Context) error {
	a.mu.Lock()
	last := a.epoch
	a.epoch++
	a.mu.Unlock()
	for {
		waiting := false
		a.mu.Lock()
		for epoch := range a.open {
			waiting = waiting || epoch <= last
		}
		a.mu.Unlock()
		if !waiting {
			return nil
		}
		if err := sleep.For(ctx, readerLook); err != nil {
			return err
		}
	}
}

// forgetAside removes the files that were set aside for examination, a database that could not be used and files of the record that
// nothing refers to, of all workspaces. What is erased may be in them though it was found nowhere else: clicks that retention has
// taken since, or a visitor whose clicks have become those of a sweep.
func (d *DB) forgetAside() error {
	var errs []error
	for _, in := range []struct{ dir, prefix string }{{filepath.Dir(d.path), filepath.Base(d.path) + ".bad-"}, {filepath.Join(d.o.Record, asideFolder), ""}} {
		entries, err := os.ReadDir(in.dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), in.prefix) {
				continue
			}
			path := filepath.Join(in.dir, e.Name())
			if err := os.RemoveAll(path); err != nil {
				errs = append(errs, err)
				continue
			}
			d.o.Log.Info("removed what was set aside: erased clicks may have been in it", "path", path)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove what was set aside: %w", err)
	}
	return nil
}
