package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
)

// Terms is analytics.Terms.
type Terms = analytics.Terms

// Retention is analytics.Retention. Days go whole: files of the record are deleted, or written again without the
// clicks whose time is over.
type Retention = analytics.Retention

// SetRetention replaces the rules; they are applied by Maintain. Without a call everything is kept.
func (d *DB) SetRetention(r Retention) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.retention = r
}

// retain applies the rules to the closed days.
func (d *DB) retain(ctx context.Context) error {
	d.mu.RLock()
	rules := d.retention
	d.mu.RUnlock()
	today := dayOf(terse.MillisOf(d.o.Clock()))
	days, _ := d.view()
	for _, v := range days {
		if err := ctx.Err(); err != nil {
			return err
		}
		age := today - v.day
		if v.hot || !v.rolled {
			continue
		}
		if cond := rules.Over(age); len(v.cold) > 0 && cond != "" && d.pruned[v.day] != v.cold[0].name+cond {
			if err := d.prune(ctx, v, cond); err != nil {
				return err
			}
			continue
		}
		if len(v.cold) == 0 && rules.Rollups > 0 && age > int64(rules.Rollups) && v.day <= d.merged {
			if err := d.dropRollups(ctx, v.day); err != nil {
				return err
			}
		}
	}
	return nil
}

// prune takes the clicks that satisfy cond out of the file of a closed day. The rollups stay.
func (d *DB) prune(ctx context.Context, v dayView, cond string) error {
	_, through := d.snapshot(v.day)
	c := change{day: v.day, through: through, keepRollups: true}
	if cond != "true" {
		var n int64
		if err := d.scan(ctx, "SELECT count(*) FROM "+readParquet(d.o.Record, v.cold)+" WHERE "+cond, func(r *sql.Rows) error { return r.Scan(&n) }); err != nil {
			return err
		}
		if n == 0 {
			d.pruned[v.day] = v.cold[0].name + cond
			return nil
		}
		c.from, c.cond = d.coldView(v.day, false).filesAsHot(), "NOT ("+cond+")"
	}
	return d.replaceDays(ctx, c)
}

// dropRollups forgets a day whose clicks are gone already. Of its files the one with the totals
// of links stays: they are over all time.
func (d *DB) dropRollups(ctx context.Context, day int64) error {
	err := d.write(ctx, func(ctx context.Context) error {
		for _, q := range forgetRollups(day) {
			if err := d.exec(ctx, q); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.rolled, day)
	delete(d.outdated, day)
	d.generation++
	d.mu.Unlock()
	for _, t := range rollupTables {
		if t == "rlink" {
			continue
		}
		if err := os.Remove(d.rollupFile(day, t)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("record: %w", err)
		}
	}
	return nil
}
