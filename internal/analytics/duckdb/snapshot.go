package duckdb

import (
	"context"
	"database/sql"
	"errors"
)

// snapshot is one state of the tables: every statement of an answer reads it, in one transaction, so that what the plan found
// (which days are in rollups, which in cubes) is what the answer reads, whatever is closed, renewed or erased meanwhile.
//
// What is known of the days is noted before the transaction begins, and the tables may be a step further. If that is known as soon as the
// transaction has read something, which is when its state is taken, it begins again: the day of a table that was closed may have
// a table of late clicks already. If it is known later, it does no harm: clicks that moved are in no table and no file where they
// were, since late ones wait until it is known; that is an error, and the question is asked again; and rollups say of a
// day the same whenever they were loaded.
type snapshot struct {
	tx     *sql.Tx
	days   []dayView
	merged int64 // the last day in link_totals
	// rollupFile names the file of a table of rollups of a day.
	rollupFile func(day int64, table string) string
}

// errMoved: clicks moved before the transaction of an answer had read anything.
var errMoved = errors.New("the clicks of a day moved")

// look calls fn with the present state. It returns the generation of what was known before.
func (d *DB) look(ctx context.Context, fn func(ctx context.Context, at *snapshot) error) (generation int64, err error) {
	at := &snapshot{rollupFile: d.rollupFile}
	at.days, generation = d.view()
	d.mu.RLock()
	at.merged = d.merged // if it changed since, so did the generation
	d.mu.RUnlock()
	d.o.noted()
	defer d.answers.begin()()
	if at.tx, err = d.readers.BeginTx(ctx, nil); err != nil {
		return generation, err
	}
	var any int64
	if err = at.tx.QueryRowContext(ctx, "SELECT count(*) FROM meta").Scan(&any); err == nil {
		if _, now := d.view(); now != generation {
			err = errMoved
		} else {
			err = fn(ctx, at)
		}
	}
	// Nothing was written. A transaction whose context has ended is rolled back already.
	if e := at.tx.Rollback(); err == nil && !errors.Is(e, sql.ErrTxDone) {
		err = e
	}
	return generation, err
}

// scan runs a query and calls fn for every row.
func (at *snapshot) scan(ctx context.Context, query string, fn func(*sql.Rows) error, args ...any) error {
	return scanOn(ctx, at.tx, query, fn, args)
}

// queryer is a pool of connections, or a transaction.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func scanOn(ctx context.Context, on queryer, query string, fn func(*sql.Rows) error, args []any) (err error) {
	rows, err := on.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := fn(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
