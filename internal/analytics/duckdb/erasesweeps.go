package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json"
)

// A click of a sweep has no visitor any more. While its day is open three places still know whose it was: swept_clicks has
// the click as it was, sweeps and its note in the record say whose clicks of which time are meant, and files of hours
// that were written before the sweep was found have the visitor. An erasure by visitor goes through all of them.

// hotErasureCond returns the condition of the clicks of a hot table that are to be erased, those of sweeps included.
func hotErasureCond(day int64, e Erasure) string {
	cond := erasureCond(e)
	if e.Visitor == 0 {
		return cond
	}
	return fmt.Sprintf("(%s OR event_id IN (SELECT event_id FROM swept_clicks WHERE day = %d AND %s))", cond, day, cond)
}

// erasable counts the clicks of a day that are to be erased. Those of files count by what the files say.
func (d *DB) erasable(ctx context.Context, v dayView, e Erasure) (n int64, err error) {
	var from []string
	if v.hot {
		from = append(from, "SELECT count(*) AS n FROM "+tableName(v.day)+" WHERE "+hotErasureCond(v.day, e))
	}
	if len(v.cold) > 0 {
		from = append(from, "SELECT count(*) AS n FROM "+readParquet(v.root, v.cold)+" WHERE "+erasureCond(e))
	}
	err = d.scan(ctx, "SELECT sum(n)::BIGINT FROM ("+strings.Join(from, " UNION ALL ")+")", func(r *sql.Rows) error { return r.Scan(&n) })
	return n, err
}

// forgetSweeper forgets that a visitor was a sweep, in the tables and in the record. Of a visitor of whom only the clicks
// on one link are erased, the others go on being one.
func (d *DB) forgetSweeper(ctx context.Context, e Erasure) error {
	if e.Visitor == 0 || e.Link != 0 {
		return nil
	}
	q := fmt.Sprintf("DELETE FROM sweeps WHERE workspace_id = %s AND visitor = %d", number(e.Workspace), int64(e.Visitor))
	if err := d.write(ctx, func(ctx context.Context) error { return d.exec(ctx, q) }); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(d.o.Record, sweepFolder))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read sweeps: %w", err)
	}
	for _, entry := range entries {
		if day, ok := parseDate(strings.TrimSuffix(entry.Name(), ".jsonl")); ok {
			if err := d.rewriteSweepNote(day, func(s sweep) bool { return s.Workspace != e.Workspace || s.Visitor != int64(e.Visitor) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// remakeSweeps makes the tables about sweeps again of what is left in them. A row that was deleted one by one stays in the bytes of
// its block as long as the block has others; those of a table that was dropped are free, and scrub overwrites them. Also what
// the closing of a day has deleted goes in this way.
func (d *DB) remakeSweeps(ctx context.Context) error {
	return d.write(ctx, func(ctx context.Context) error {
		for i, table := range []string{"sweeps", "swept_clicks"} {
			for _, q := range []string{"ALTER TABLE " + table + " RENAME TO erasing", createSweeps[i], "INSERT INTO " + table + " SELECT * FROM erasing", "DROP TABLE erasing"} {
				if err := d.exec(ctx, q); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// rewriteSweepNote leaves the sweeps of a day in the record that keep wants, whole or not at all. The caller holds maintaining.
func (d *DB) rewriteSweepNote(day int64, keep func(sweep) bool) error {
	path := d.sweepNote(day).path(d.o.Record)
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read sweeps: %w", err)
	}
	var left []byte
	for line := range strings.Lines(string(data)) {
		var s sweep
		if json.Unmarshal([]byte(line), &s) == nil && keep(s) {
			left = append(left, line...)
		}
	}
	if len(left) == len(data) {
		return nil
	}
	if len(left) == 0 {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("note sweeps: %w", err)
		}
		return syncDir(filepath.Dir(path))
	}
	tmp := path + tmpSuffix
	if err := os.WriteFile(tmp, left, 0o600); err != nil {
		return fmt.Errorf("note sweeps: %w", err)
	}
	if err := syncFile(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("note sweeps: %w", err)
	}
	return syncDir(filepath.Dir(path))
}
