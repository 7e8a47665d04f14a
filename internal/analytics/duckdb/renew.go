package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
)

// renew makes the rollups of one day again whose rollups are of an earlier version: the last of those whose clicks are there. A
// day that cannot be is tried once in the life of the process: it answers as before, and neither older days nor the next steps
// of Maintain wait for it.
func (d *DB) renew(ctx context.Context) error {
	days, _ := d.view()
	for _, v := range slices.Backward(days) {
		if !v.outdated || !v.raw() || d.unrenewed[v.day] {
			continue
		}
		err := d.renewDay(ctx, v)
		if err == nil {
			d.mirror.changed()
			return nil
		}
		if ctx.Err() != nil || errors.Is(err, errWriter) {
			return err
		}
		d.o.Log.Error("the rollups of a day stay those of an earlier version", "day", date(v.day), "error", err)
		d.recordErrors.Add(1)
		d.unrenewed[v.day] = true
	}
	return nil
}

// renewDay makes the rollups of a closed day again, of the same clicks: its file stays.
func (d *DB) renewDay(ctx context.Context, v dayView) (err error) {
	if len(v.cold) != 1 || v.cold[0].hour != wholeDay || v.swept { // the clicks are not those that were counted
		return d.replaceDays(ctx, d.rewriting(v.day, ""))
	}
	p := prepared{change: change{day: v.day}, file: v.cold[0], any: true}
	if p.file.origin, err = d.originOf(ctx, v.cold); err != nil {
		return err
	}
	if p.carried, err = d.carriedOver(ctx, p.change); err != nil {
		return err
	}
	counted, err := d.countedWorkspaces(ctx, v.day)
	if err != nil {
		return err
	}
	// If all are carried over there is nothing to compute.
	list := []string{fmt.Sprintf("UPDATE rolled SET version = %d WHERE day = %d", rollupVersion, v.day)}
	if len(p.carried) < counted {
		if err := d.rollUp(ctx, []prepared{p}); err != nil {
			return err
		}
		list = append(forgetRollups(v.day), d.loadRollups(v.day, rollupVersion)...)
		if v.day <= d.merged { // link_totals has them
			list = append(list, fmt.Sprintf("DELETE FROM rlink WHERE day = %d", v.day))
		}
	}
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.writeLocked(ctx, func(ctx context.Context) error {
		for _, q := range list {
			if err := d.exec(ctx, q); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.outdated, v.day)
	d.generation++
	return nil
}

// countedWorkspaces returns how many workspaces have rollups of a day.
func (d *DB) countedWorkspaces(ctx context.Context, day int64) (n int, err error) {
	err = d.scan(ctx, fmt.Sprintf("SELECT count(*) FROM rday WHERE day = %d AND scope = %d", day, scopeWorkspace), func(r *sql.Rows) error { return r.Scan(&n) })
	return n, err
}
