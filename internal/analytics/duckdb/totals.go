package duckdb

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// Totals of links over all time are in link_totals up to the day totals_through of the table
// meta, after it in rlink, and for days that are not closed in the clicks themselves.
// When rlink holds more than mergeAfter days, the older half goes into link_totals.
const mergeAfter = 16

// LinkTotals implements analytics.Engine.
func (d *DB) LinkTotals(ctx context.Context, w terse.WorkspaceID, links []terse.LinkNumber) (map[terse.LinkNumber]analytics.LinkTotal, error) {
	if len(links) > analytics.MaxLinks {
		return nil, terse.Invalid("links", "more than %d links", analytics.MaxLinks)
	}
	var totals map[terse.LinkNumber]analytics.LinkTotal
	err := d.ask(ctx, "link totals", func(ctx context.Context, at *snapshot) error {
		totals = make(map[terse.LinkNumber]analytics.LinkTotal, len(links))
		if len(links) == 0 || len(at.days) == 0 {
			return nil
		}
		return at.scan(ctx, linkTotals(at.days, at.merged, w, links), func(rows *sql.Rows) error {
			var n uint64
			var t analytics.LinkTotal
			if err := rows.Scan(&n, &t.Clicks, &t.Last); err != nil {
				return err
			}
			totals[terse.LinkNumber(n)] = t
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return totals, nil
}

// linkTotals returns the statement of LinkTotals: rows of link, clicks, last in Unix ms.
func linkTotals(days []dayView, merged int64, w terse.WorkspaceID, links []terse.LinkNumber) string {
	ids := make([]string, len(links))
	for i, n := range links {
		ids[i] = "(" + number(n) + "::BIGINT)"
	}
	cond := fmt.Sprintf("workspace_id = %d AND link_id IN (SELECT n FROM wanted)", w)
	parts := []string{
		"SELECT link_id, clicks, last FROM link_totals WHERE " + cond,
	}
	var open []string
	for _, v := range days {
		if v.raw() && !v.rolled {
			open = append(open, number(uint64(v.day)))
			src := v.source()
			if v.day <= merged { // its file is in link_totals
				src = dayView{day: v.day, hot: true}.source()
			}
			redirect := fmt.Sprintf("outcome = %d", clicks.OutcomeRedirect)
			if src.text {
				redirect = "outcome = 'redirect'"
			}
			parts = append(parts, narrowed(fmt.Sprintf("SELECT link_id, weight, epoch_ms(ts) FROM %s WHERE %s AND %s AND bot = 0", src.from, cond, redirect)))
		}
	}
	closed := "SELECT link_id, clicks, last FROM rlink WHERE " + cond
	if len(open) > 0 { // a closed day with late clicks is read whole from them and its file
		closed += " AND day NOT IN (" + strings.Join(open, ", ") + ")"
	}
	parts = append(parts, closed)
	return "WITH wanted AS (SELECT n FROM (VALUES " + strings.Join(ids, ", ") + ") AS v(n)) SELECT link_id, sum(clicks)::BIGINT, max(last) FROM (" +
		strings.Join(parts, "\nUNION ALL ") + ") GROUP BY link_id"
}

// totalsThrough is the last day that link_totals holds, -1 for none.
const totalsThrough = "totals_through"

// mergeTotals moves old days from rlink into link_totals.
func (d *DB) mergeTotals(ctx context.Context) error {
	days, _ := d.view()
	var closed []int64
	for _, v := range days {
		if v.day > d.merged && (v.rolled || len(v.cold) > 0) {
			closed = append(closed, v.day)
		}
	}
	if len(closed) <= mergeAfter {
		return nil
	}
	through := closed[len(closed)/2-1]
	if slices.ContainsFunc(days, func(v dayView) bool { return v.day <= through && v.hot }) {
		return nil // late clicks: that day is closed again first
	}
	err := d.write(ctx, func(ctx context.Context) error {
		for _, q := range []string{
			"CREATE TABLE new_totals AS SELECT workspace_id, link_id, sum(clicks)::BIGINT AS clicks, max(last) AS last FROM (SELECT * FROM link_totals UNION ALL " +
				fmt.Sprintf("SELECT workspace_id, link_id, clicks, last FROM rlink WHERE day <= %d) GROUP BY workspace_id, link_id ORDER BY workspace_id, link_id", through),
			"DROP TABLE link_totals", "ALTER TABLE new_totals RENAME TO link_totals", fmt.Sprintf("DELETE FROM rlink WHERE day <= %d", through),
		} {
			if err := d.exec(ctx, q); err != nil {
				return err
			}
		}
		return d.setMeta(ctx, totalsThrough, fmt.Sprint(through))
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.merged = through
	d.generation++
	d.mu.Unlock()
	return nil
}

// rebuildTotalsLocked makes link_totals again from the rollups in the record, after a day that is in
// it was closed again or rewritten. The caller holds d.writing.
func (d *DB) rebuildTotalsLocked(ctx context.Context) error {
	entries, err := os.ReadDir(filepath.Join(d.o.Record, rollupsFolder))
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("record: %w", err)
	}
	var files []string
	for _, e := range entries {
		if day, ok := parseDate(strings.TrimPrefix(e.Name(), "dt=")); ok && day <= d.merged {
			if path := d.rollupFile(day, "rlink"); fileSize(path) > 0 {
				files = append(files, quote(path))
			}
		}
	}
	list := []string{"DELETE FROM link_totals", fmt.Sprintf("DELETE FROM rlink WHERE day <= %d", d.merged)}
	if len(files) > 0 {
		list = append(list, "INSERT INTO link_totals SELECT workspace_id, link_id, sum(clicks)::BIGINT, max(last) FROM "+parquet(files...)+
			" GROUP BY workspace_id, link_id ORDER BY workspace_id, link_id")
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

func (d *DB) setMeta(ctx context.Context, key, value string) error {
	if err := d.exec(ctx, `DELETE FROM meta WHERE "key" = $1`, key); err != nil {
		return err
	}
	return d.exec(ctx, "INSERT INTO meta VALUES ($1, $2)", key, value)
}
