package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
)

// renew makes the rollups of days of an earlier version again: of the last of those whose clicks are there, as many as closePast closes
// together, since a statement costs hardly more for several small days than for one. A day that cannot be is tried once in the life of
// the process: it answers as before, and neither older days nor the next steps of Maintain wait for it.
func (d *DB) renew(ctx context.Context) error {
	days, _ := d.view()
	var batch []dayView
	var clicks int64
	for _, v := range slices.Backward(days) {
		if !v.outdated || !v.raw() || d.unrenewed[v.day] {
			continue
		}
		n := d.clicksOn(v.day)
		if len(batch) > 0 && clicks+n > d.o.renewClicks {
			break
		}
		batch, clicks = append(batch, v), clicks+n
	}
	if len(batch) == 0 {
		return nil
	}
	err := d.renewDays(ctx, batch)
	if err == nil {
		d.mirror.changed()
		return nil
	}
	if len(batch) == 1 {
		return d.notRenewed(ctx, batch[0], err)
	}
	for _, v := range batch { // one at a time says which it is
		if err := d.notRenewed(ctx, v, d.renewDays(ctx, []dayView{v})); err != nil {
			return err
		}
	}
	d.mirror.changed()
	return nil
}

// notRenewed notes that a day could not be renewed. It returns errors that are not the day's.
func (d *DB) notRenewed(ctx context.Context, v dayView, err error) error {
	if err == nil || ctx.Err() != nil || errors.Is(err, errWriter) {
		return err
	}
	d.o.Log.Error("the rollups of a day stay those of an earlier version", "day", date(v.day), "error", err)
	d.recordErrors.Add(1)
	d.unrenewed[v.day] = true
	return nil
}

// renewDays makes the rollups of closed days again, of the same clicks: their files stay. A day that is done already is left out.
func (d *DB) renewDays(ctx context.Context, days []dayView) error {
	var list, compute []prepared
	for _, v := range days {
		if !d.isOutdated(v.day) {
			continue
		}
		if len(v.cold) != 1 || v.cold[0].hour != wholeDay || v.swept { // the clicks are not those that were counted
			if err := d.replaceDays(ctx, d.rewriting(v.day, "")); err != nil {
				return err
			}
			continue
		}
		p, counted, err := d.renewal(ctx, v)
		if err != nil {
			return err
		}
		list = append(list, p)
		if p.counts() && len(p.carried) < counted {
			compute = append(compute, p)
		}
	}
	if err := d.rollUp(ctx, compute); err != nil {
		return err
	}
	for _, p := range list {
		if err := d.replaceRollups(ctx, p, slices.ContainsFunc(compute, func(c prepared) bool { return c.day == p.day })); err != nil {
			return err
		}
	}
	return nil
}

func (d *DB) isOutdated(day int64) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.outdated[day]
}

// renewal prepares a day for rollUp and says how many workspaces have rollups of it. If all are carried over there is nothing to compute.
func (d *DB) renewal(ctx context.Context, v dayView) (p prepared, counted int, err error) {
	p = prepared{change: change{day: v.day}, file: v.cold[0], any: true}
	if p.file.origin, err = d.originOf(ctx, v.cold); err != nil {
		return p, 0, err
	}
	if p.carried, err = d.carriedOver(ctx, p.change); err != nil {
		return p, 0, err
	}
	counted, err = d.countedWorkspaces(ctx, v.day)
	return p, counted, err
}

// replaceRollups loads the rollups of a day in place of those before, or, if none were computed, notes that they are of this version.
func (d *DB) replaceRollups(ctx context.Context, p prepared, computed bool) error {
	list := []string{fmt.Sprintf("UPDATE rolled SET version = %d WHERE day = %d", rollupVersion, p.day)}
	if computed {
		list = append(forgetRollups(p.day), d.loadRollups(p.day, rollupVersion)...)
		if p.day <= d.merged { // link_totals has them
			list = append(list, fmt.Sprintf("DELETE FROM rlink WHERE day = %d", p.day))
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
	delete(d.outdated, p.day)
	delete(d.tagFailed, p.day)
	delete(d.tagPruned, p.day)
	d.generation++
	return nil
}

// countedWorkspaces returns how many workspaces have rollups of a day.
func (d *DB) countedWorkspaces(ctx context.Context, day int64) (n int, err error) {
	err = d.scan(ctx, fmt.Sprintf("SELECT count(*) FROM rday WHERE day = %d AND scope = %d", day, scopeWorkspace), func(r *sql.Rows) error { return r.Scan(&n) })
	return n, err
}
