package clickhouse

import (
	"context"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
)

// A link with few clicks on a day has no rows of its own in rday and r15: its clicks are read. When those are gone its number in
// rlink is left, which is of people alone and knows neither visitors nor hours.

// eachQuiet calls fn with the clicks of the days of a plan that are left to rlink.
func (e *Engine) eachQuiet(ctx context.Context, p plan, q analytics.Query, fn func(day, clicks int64)) error {
	if len(p.quiet) == 0 || !q.ByDays() {
		return nil
	}
	text := "SELECT toUInt16(day), clicks FROM rlink WHERE " + dayIn(p.quiet) + " AND (day, gen) IN " + generations(p.ver) +
		" AND workspace_id = " + number(q.Workspace) + " AND link_id = " + number(q.Scope.Link)
	return e.scan(ctx, text, func(r row) error {
		var day uint16
		var n int64
		if err := r.Scan(&day, &n); err != nil {
			return err
		}
		fn(int64(day), n)
		return nil
	})
}

// quietSummary adds them to a summary.
func (e *Engine) quietSummary(ctx context.Context, p plan, q analytics.Query, r *analytics.Summary) error {
	return e.eachQuiet(ctx, p, q, func(_, n int64) { r.AddDay(n) })
}

// quietTimeseries adds them to the points of days or longer.
func (e *Engine) quietTimeseries(ctx context.Context, p plan, q analytics.Query, starts []terse.Millis, points []analytics.Point) error {
	return e.eachQuiet(ctx, p, q, func(day, n int64) { q.AddDay(points, starts, day, n) })
}
