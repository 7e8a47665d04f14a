package duckdb

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// tailRows is how many of the last rows of a table are compared before and
// after a checkpoint.
const tailRows = 2000

// tail is what is known of the end of a table.
type tail struct {
	count int64
	hash  string // of all columns of the last rows
}

// maybeCheckpoint moves the write-ahead log into the file when it is large or old.
func (d *DB) maybeCheckpoint(ctx context.Context) error {
	now, size := d.o.Clock(), d.walSize()
	if size < d.o.WALBytes && (size == 0 || now.Sub(d.lastCheckpoint) < checkpointEvery) {
		return nil
	}
	_, err := d.checkpoint(ctx)
	return err
}

// checkpoint writes a checkpoint and compares the ends of the tables it wrote with
// what they were: on 1.5.2 column data became unreadable (duckdb/duckdb#22823).
// Returns ErrDamaged if they differ. A checkpoint that a long query prevents is
// tried again after the next transaction: false. ErrDamaged stays: nothing is written any more, and Ingest and
// Maintain end with it, whoever asked for the checkpoint. The caller holds d.writing.
func (d *DB) checkpoint(ctx context.Context) (bool, error) {
	if err := d.damaged(); err != nil {
		return false, err
	}
	before, err := d.tails(ctx)
	if err != nil {
		return false, err
	}
	if err := d.exec(context.WithoutCancel(ctx), "CHECKPOINT"); err != nil {
		if strings.Contains(err.Error(), "Cannot CHECKPOINT") {
			return false, nil
		}
		return false, err
	}
	after, err := d.tails(context.WithoutCancel(ctx)) // the next checkpoint would take a damaged state as the one before
	if err != nil {
		return false, d.damage(fmt.Errorf("%w: %w", ErrDamaged, err))
	}
	if !maps.Equal(before, after) {
		return false, d.damage(ErrDamaged)
	}
	clear(d.dirty)
	d.lastCheckpoint = d.o.Clock()
	return true, nil
}

// damage keeps the error of a checkpoint that damaged the file, and returns it.
func (d *DB) damage(err error) error {
	d.damagedBy.Store(&err)
	return err
}

// damaged returns that error, nil if there was none.
func (d *DB) damaged() error {
	if err := d.damagedBy.Load(); err != nil {
		return *err
	}
	return nil
}

// checkpointNow is checkpoint for who does not hold d.writing. A failure is that of the writer; that ctx has ended is not.
func (d *DB) checkpointNow(ctx context.Context) (bool, error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	done, err := d.checkpoint(ctx)
	switch {
	case err == nil:
		return done, nil
	case ctx.Err() != nil && !errors.Is(err, ErrDamaged):
		return false, ctx.Err()
	}
	return false, fmt.Errorf("%w: %w", errWriter, err)
}

// tails reads the ends of the tables written since the last checkpoint.
func (d *DB) tails(ctx context.Context) (map[int64]tail, error) {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = `"` + c.name + `"`
	}
	result := map[int64]tail{}
	for _, day := range slices.Sorted(maps.Keys(d.dirty)) {
		d.mu.RLock()
		rows := d.rows[day]
		d.mu.RUnlock()
		t := tail{}
		table := tableName(day)
		// Rows are never deleted one by one, so rowid is the number of a row.
		err := d.readers.QueryRowContext(ctx, fmt.Sprintf(
			"SELECT (SELECT count(*) FROM %s), (SELECT coalesce(bit_xor(hash(%s)), 0)::VARCHAR FROM %s WHERE rowid >= %d)",
			table, strings.Join(names, ", "), table, max(0, rows-tailRows))).Scan(&t.count, &t.hash)
		if err != nil {
			return nil, err
		}
		if t.count != rows {
			return nil, fmt.Errorf("%s holds %d rows, %d were committed", table, t.count, rows)
		}
		result[day] = t
	}
	return result, nil
}
