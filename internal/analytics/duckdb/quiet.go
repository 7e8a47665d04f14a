package duckdb

import (
	"context"
	"database/sql"
	"slices"
	"strings"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
)

// A link with few clicks on a day has no rows of its own in rday, r15 and rdim: its clicks are read. When those are gone, a cube of
// links may have it. Else its number in rlink is left, which is of people alone and knows neither visitors nor hours: in the table
// or, when that has given it to link_totals, in the file of the day.

// withQuiet adds to a plan the days that nothing else of it answers.
func (at *snapshot) withQuiet(p plan, q analytics.Query) plan {
	if !q.ByDays() {
		return p
	}
	for _, v := range within(at.days, q) {
		cubed := slices.ContainsFunc(p.cubeDays, func(c cubeDays) bool { return slices.Contains(c.days, v.day) })
		if v.rolled && !v.raw() && !cubed && !slices.Contains(p.rolled, v.day) {
			p.quiet = append(p.quiet, v.day)
		}
	}
	return p
}

// eachQuiet calls fn with the clicks of the days of a plan that are left to rlink.
func (at *snapshot) eachQuiet(ctx context.Context, p plan, q analytics.Query, fn func(day, clicks int64)) error {
	if len(p.quiet) == 0 {
		return nil
	}
	cond := dayList(p.quiet) + " AND workspace_id = " + number(q.Workspace) + " AND link_id = " + number(q.Scope.Link)
	parts := []string{"SELECT day, clicks FROM rlink WHERE " + cond}
	var files []string
	for _, day := range p.quiet {
		if path := at.rollupFile(day, "rlink"); day <= at.merged && fileSize(path) > 0 {
			files = append(files, quote(path))
		}
	}
	if len(files) > 0 {
		parts = append(parts, "SELECT day, clicks FROM "+parquet(files...)+" WHERE "+cond)
	}
	return at.scan(ctx, strings.Join(parts, " UNION ALL "), func(r *sql.Rows) error {
		var day, n int64
		if err := r.Scan(&day, &n); err != nil {
			return err
		}
		fn(day, n)
		return nil
	})
}

// quietSummary adds them to a summary.
func (at *snapshot) quietSummary(ctx context.Context, p plan, q analytics.Query, r *analytics.Summary) error {
	return at.eachQuiet(ctx, p, q, func(_, n int64) { r.AddDay(n) })
}

// quietTimeseries adds them to the points of days or longer.
func (at *snapshot) quietTimeseries(ctx context.Context, p plan, q analytics.Query, starts []terse.Millis, points []analytics.Point) error {
	return at.eachQuiet(ctx, p, q, func(day, n int64) { q.AddDay(points, starts, day, n) })
}
