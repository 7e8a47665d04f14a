package duckdb

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
)

// cubeDays are days of a query that are read from one cube.
type cubeDays struct {
	cube int
	days []int64
}

// cubesOf returns the cubes that have all dimensions of a query that groups by one, "" for none, by number.
func cubesOf(q analytics.Query, by analytics.Dimension) (list []int) {
	if by == analytics.Link || !q.RedirectsOnly() { // what links are called is not in them
		return nil
	}
	var need []analytics.Dimension
	for _, f := range q.Filters {
		need = append(need, f.Dim)
	}
	if by != "" {
		need = append(need, by)
	}
	if q.Scope.Link != 0 {
		need = append(need, analytics.Link)
	}
	if q.Scope.Tag != "" {
		need = append(need, analytics.Tag)
	}
	if q.Scope.Campaign != 0 {
		need = append(need, analytics.Campaign)
	}
	if q.Scope.Domain != "" {
		need = append(need, analytics.Domain)
	}
	for i, c := range cubes {
		if !slices.ContainsFunc(need, func(d analytics.Dimension) bool { return !c.has(d) }) {
			list = append(list, i)
		}
	}
	return list
}

// fromCubes takes out of the raw days of a plan those that a cube has. able says whether a closed day can be answered
// from one. Days without raw clicks, which the plan may have left out, come in if each of them with clicks of the
// workspace has a cube: numbers of some of them would look like those of all. Of a link the others are in rlink.
func (at *snapshot) fromCubes(ctx context.Context, p plan, q analytics.Query, by analytics.Dimension, able func(v dayView) bool) (plan, error) {
	fit := cubesOf(q, by)
	candidates := map[int64]dayView{}
	var list []int64
	for _, v := range within(at.days, q) {
		if v.rolled && (able(v) || !v.raw()) && !slices.Contains(p.rolled, v.day) && !slices.Contains(p.tags, v.day) {
			candidates[v.day] = v
			list = append(list, v.day)
		}
	}
	if len(fit) == 0 || len(list) == 0 {
		return p, nil
	}
	byCube := make([][]int64, len(cubes))
	gap := false // a day without raw clicks has no cube
	err := at.scan(ctx, fmt.Sprintf("SELECT day, cubes, bot_visits FROM rday WHERE %s AND workspace_id = %s AND scope = %d", dayList(list), number(q.Workspace), scopeWorkspace), func(r *sql.Rows) error {
		var day, has, botVisits int64
		if err := r.Scan(&day, &has, &botVisits); err != nil {
			return err
		}
		v := candidates[day]
		i := slices.IndexFunc(fit, func(i int) bool { return has>>i&1 != 0 })
		switch {
		case i >= 0 && able(v) && (!v.raw() || botVisits == 0 || q.Bots == analytics.BotsExclude):
			byCube[fit[i]] = append(byCube[fit[i]], day)
		case v.raw():
			delete(candidates, day)
		default:
			gap = true
		}
		return nil
	})
	if err != nil {
		return p, err
	}
	// What is left of the candidates is in a cube, or has no click of the workspace.
	p.raw = slices.DeleteFunc(slices.Clone(p.raw), func(v dayView) bool { _, in := candidates[v.day]; return in })
	for i, days := range byCube {
		if gap && !(by == "" && q.ByDays()) {
			days = slices.DeleteFunc(days, func(day int64) bool { v := candidates[day]; return !v.raw() })
		}
		if len(days) > 0 {
			p.cubeDays = append(p.cubeDays, cubeDays{i, days})
		}
	}
	return p, nil
}

// cells returns the condition of the rows of rcube that a query asks for, a search aside.
func (s *statement) cells(c cubeDays, q analytics.Query) string {
	s.text = true
	return dayList(c.days) + " AND cube = " + strconv.Itoa(c.cube) + " AND " + s.where(q)
}

// together returns the FROM of the sets that have one of the cells: day, kind, n and k, once for each set and key.
func together(c cubeDays, q analytics.Query, cells, key, kinds string) string {
	return fmt.Sprintf("(SELECT DISTINCT r.day, kind, set_no, n, k FROM rset r JOIN (SELECT DISTINCT day, cell, %s AS k FROM rcube WHERE %s AND bot = 0 AND outcome = 'redirect') c ON r.day = c.day AND r.cell = c.cell "+
		"WHERE r.%s AND r.workspace_id = %s AND r.cube = %d AND kind IN (%s))", key, cells, dayList(c.days), number(q.Workspace), c.cube, kinds)
}

// cubedSummary returns the statement of the days of a Summary that are in a cube, with the same row as summary.
func (s *statement) cubedSummary(c cubeDays, q analytics.Query) string {
	cells := s.cells(c, q)
	sel, red := chosen(q.Bots), s.redirected(q)
	counted := red + " AND " + sel
	cols := []string{
		sum("clicks", counted), sum("visitors", counted), sum("uniques", counted), sum("deduped", counted), sum("qr", counted),
		sum("clicks", red+" AND bot = 0"), sum("clicks", red+" AND bot <> 0"),
	}
	for i := range outcomes {
		cols = append(cols, sum("clicks", sel+" AND "+s.outcomeIs(i)))
	}
	for i := range cols {
		cols[i] = "coalesce(" + cols[i] + ", 0)::BIGINT"
	}
	if q.Bots != analytics.BotsOnly {
		for kind, col := range []int{1, 2} {
			cols[col] += fmt.Sprintf(" + coalesce((SELECT sum(n) FROM t WHERE kind = %d), 0)::BIGINT", kind)
		}
	}
	return "WITH t AS MATERIALIZED (SELECT kind, sum(n) AS n FROM " + together(c, q, cells, "0", fmt.Sprintf("%d, %d", setVisitors, setUniques)) + " GROUP BY kind) SELECT " + strings.Join(cols, ", ") + " FROM rcube WHERE " + cells
}

// cubedBreakdown returns the SELECT of the days of a Breakdown that are in a cube: k, c, v, l, other.
func (s *statement) cubedBreakdown(c cubeDays, q analytics.Query) string {
	if q.By == analytics.Tag {
		return s.cubedTags(c, q)
	}
	key, cells := columnOf(q.By, true), s.cells(c, q)+s.search(q)
	text := fmt.Sprintf("SELECT %s AS k, sum(clicks) AS c, sum(visitors) AS v, false AS other FROM rcube WHERE %s AND %s AND %s GROUP BY k", key, cells, s.redirected(q), chosen(q.Bots))
	if q.Bots == analytics.BotsOnly {
		return text
	}
	return text + fmt.Sprintf("\nUNION ALL SELECT k, 0, sum(n), false FROM %s GROUP BY k", together(c, q, cells, key, strconv.Itoa(setVisitors)))
}

// cubedTags is cubedBreakdown by tag: the tags of each cell are looked up once.
func (s *statement) cubedTags(c cubeDays, q analytics.Query) string {
	cells := fmt.Sprintf("(SELECT day, cell, link_id, campaign_id, bot = 0 AND outcome = 'redirect' AS people, clicks, visitors FROM rcube WHERE %s AND %s AND %s)", s.cells(c, q), s.redirected(q), chosen(q.Bots))
	text := "SELECT k, sum(clicks) AS c, sum(visitors) AS v, false AS other FROM t GROUP BY k"
	if q.Bots != analytics.BotsOnly {
		text += fmt.Sprintf("\nUNION ALL SELECT k, 0, sum(n), false FROM (SELECT DISTINCT r.day, set_no, n, k FROM rset r JOIN t ON r.day = t.day AND r.cell = t.cell AND t.people "+
			"WHERE r.%s AND r.workspace_id = %s AND r.cube = %d AND kind = %d) GROUP BY k", dayList(c.days), number(q.Workspace), c.cube, setVisitors)
	}
	return "SELECT * FROM (WITH t AS MATERIALIZED (SELECT * FROM " + s.byTag(q.Workspace, cells) + " WHERE true" + s.search(q) + ") " + text + ")"
}

// cubedTimeseries returns the SELECT of the days of a Timeseries that are in a cube, each of them within one point: day,
// clicks, visitors, bots, qr.
func (s *statement) cubedTimeseries(c cubeDays, q analytics.Query) string {
	sel, cells := chosen(q.Bots), s.cells(c, q)
	text := fmt.Sprintf("SELECT day, %s AS c, %s AS v, %s AS b, %s AS r FROM rcube WHERE %s AND %s GROUP BY day",
		sum("clicks", sel), sum("visitors", sel), sum("clicks", "bot <> 0"), sum("qr", sel), cells, s.redirected(q))
	if q.Bots != analytics.BotsOnly {
		text += "\nUNION ALL SELECT day, 0, sum(n), 0, 0 FROM " + together(c, q, cells, "0", strconv.Itoa(setVisitors)) + " GROUP BY day"
	}
	return "SELECT day, coalesce(sum(c), 0)::BIGINT, coalesce(sum(v), 0)::BIGINT, coalesce(sum(b), 0)::BIGINT, coalesce(sum(r), 0)::BIGINT FROM (" + text + ") GROUP BY day"
}

// addCubedTimeseries adds them to the points.
func (at *snapshot) addCubedTimeseries(ctx context.Context, c cubeDays, q analytics.Query, starts []terse.Millis, points []analytics.Point) error {
	var st statement
	text := st.cubedTimeseries(c, q)
	return at.scan(ctx, text, func(rows *sql.Rows) error {
		var day int64
		var p analytics.Point
		if err := rows.Scan(&day, &p.Clicks, &p.Visitors, &p.Bots, &p.QR); err != nil {
			return err
		}
		addPoint(&points[max(analytics.BucketOf(starts, terse.Millis(day*dayMillis)), 0)], p)
		return nil
	}, st.args...)
}

// addPoint adds the numbers of a part of a point.
func addPoint(to *analytics.Point, p analytics.Point) {
	to.Clicks, to.Visitors, to.Bots, to.QR = to.Clicks+p.Clicks, to.Visitors+p.Visitors, to.Bots+p.Bots, to.QR+p.QR
}
