package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/terselink/terse/internal/sleep"
)

// scrubTable fills the free space of the file. It is there only while that is done, or after a crash in the middle of it.
const scrubTable = "scrubbed"

// dropScrubbed is the statement that removes it.
const dropScrubbed = "DROP TABLE IF EXISTS " + scrubTable

// scrub takes what was deleted out of the write-ahead log and overwrites the space that is free in the file of the database: a
// deleted row is in both as it was, until something else needs the room. It waits while a long answer prevents a checkpoint.
func (d *DB) scrub(ctx context.Context) error {
	for step := range 3 {
		d.writing.Lock()
		err := d.scrubStep(ctx, step)
		d.writing.Unlock()
		if err != nil {
			return fmt.Errorf("scrub: %w", err)
		}
		for {
			d.writing.Lock()
			done, err := d.checkpoint(ctx)
			d.writing.Unlock()
			if err != nil {
				return fmt.Errorf("%w: %w", errWriter, err)
			}
			if done {
				break
			}
			if err := sleep.For(ctx, time.Second); err != nil {
				return fmt.Errorf("scrub: %w", err)
			}
		}
	}
	return nil
}

// scrubStep does what comes before a checkpoint: nothing before the first, which frees the blocks, the filling of them before the
// second, which writes them, and the end of that before the third.
func (d *DB) scrubStep(ctx context.Context, step int) error {
	var list []string
	switch step {
	case 1:
		var numbers int64 // of 8 bytes that no method of compression makes fewer, a block more than is free
		q := "SELECT (free_blocks + 1) * block_size // 8 FROM pragma_database_size() WHERE database_name = current_database()"
		if err := d.scan(ctx, q, func(r *sql.Rows) error { return r.Scan(&numbers) }); err != nil {
			return err
		}
		list = []string{dropScrubbed, fmt.Sprintf("CREATE TABLE %s AS SELECT hash(range) AS n FROM range(%d)", scrubTable, numbers)}
	case 2:
		list = []string{dropScrubbed}
	}
	return d.writeLocked(ctx, func(ctx context.Context) error {
		for _, q := range list {
			if err := d.exec(ctx, q); err != nil {
				return err
			}
		}
		return nil
	})
}

// forgetAside removes the files that were set aside for examination, a database that could not be used and files of the record that
// nothing refers to: what is erased may be in them, and nobody looks.
func (d *DB) forgetAside() error {
	var errs []error
	for _, pattern := range []string{d.path + ".bad-*", filepath.Join(d.o.Record, asideFolder, "*")} {
		list, err := filepath.Glob(pattern)
		errs = append(errs, err)
		for _, path := range list {
			errs = append(errs, os.RemoveAll(path))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("erase: remove what was set aside: %w", err)
	}
	return nil
}
