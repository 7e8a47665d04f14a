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

// plan says which days of a query are read from the rollups, which from cubes and which are read raw. Where a day has raw
// clicks all give the same numbers (TestConformance), so the choice is one of speed alone. Of days without them there are
// only rollups, of which one that the range cuts off counts whole, and cubes.
type plan struct {
	rolled   []int64
	cubeDays []cubeDays
	parts    []int64 // from rdim15
	tags     []int64 // of a breakdown by tag, from the scopes of tags
	quiet    []int64 // of a link, from rlink
	raw      []dayView
}

// scopeOf returns the condition of the rows of a query's scope in rday, r15 and rdim. every: each scope of this
// kind has rows on every day with clicks.
func (s *statement) scopeOf(q analytics.Query) (cond string, every bool) {
	scope, id, domain := scopeWorkspace, "0", "''"
	switch {
	case q.Scope.Link != 0:
		scope, id = scopeLink, number(q.Scope.Link)
	case q.Scope.Campaign != 0:
		scope, id = scopeCampaign, number(q.Scope.Campaign)
	case q.Scope.Domain != "":
		scope, domain = scopeDomain, s.param(q.Scope.Domain)
	case q.Scope.Tag != "": // on days in tagged
		scope, domain = scopeTag, s.param(q.Scope.Tag)
	}
	cond = "workspace_id = " + number(q.Workspace) + " AND scope = " + strconv.Itoa(scope) + " AND id = " + id + " AND domain = " + domain
	return cond, scope != scopeCampaign && scope != scopeLink
}

// dayList returns a condition on the column day.
func dayList(days []int64) string {
	list := make([]string, len(days))
	for i, day := range days {
		list[i] = strconv.FormatInt(day, 10)
	}
	return "day IN (" + strings.Join(list, ", ") + ")"
}

// split makes the plan of a query. able says whether a closed day can be answered from the
// rollups; dim is the dimension that is read from rdim, "" for none.
func (at *snapshot) split(ctx context.Context, q analytics.Query, dim analytics.Dimension, filtered bool, able func(v dayView) bool) (plan, error) {
	var p plan
	var candidates []dayView
	views := within(at.days, q)
	var tagged map[int64]bool
	if q.Scope.Tag != "" {
		var err error
		if tagged, err = at.taggedDays(ctx, q.Workspace, views); err != nil {
			return p, err
		}
	}
	for _, v := range views {
		switch {
		case q.Scope.Tag != "" && !tagged[v.day]: // tags are looked up
			if v.raw() {
				p.raw = append(p.raw, v)
			}
		// Where raw clicks have been removed there is nothing else.
		case v.rolled && (able(v) || !v.raw()):
			candidates = append(candidates, v)
		case v.raw():
			p.raw = append(p.raw, v)
		}
	}
	if len(candidates) == 0 {
		return p, nil
	}
	list := make([]int64, len(candidates))
	for i, v := range candidates {
		list[i] = v.day
	}
	var s statement
	scope, every := s.scopeOf(q)
	botVisits := map[int64]int64{}
	if err := at.scan(ctx, "SELECT day, bot_visits FROM rday WHERE "+dayList(list)+" AND "+scope, func(r *sql.Rows) error {
		var day, n int64
		err := r.Scan(&day, &n)
		botVisits[day] = n
		return err
	}, s.args...); err != nil {
		return p, err
	}
	cut := map[int64]bool{}
	if filtered { // the value may be among the others
		err := at.scan(ctx, "SELECT DISTINCT day FROM rdim WHERE other AND dim = '"+string(dim)+"' AND "+dayList(list)+" AND "+scope, func(r *sql.Rows) error {
			var day int64
			err := r.Scan(&day)
			cut[day] = true
			return err
		}, s.args...)
		if err != nil {
			return p, err
		}
	}
	for _, v := range candidates {
		n, found := botVisits[v.day]
		switch {
		case !v.raw() && (found || every), (found || every) && (n == 0 || q.Bots == analytics.BotsExclude) && !cut[v.day]:
			p.rolled = append(p.rolled, v.day)
		case v.raw():
			p.raw = append(p.raw, v)
		}
	}
	return p, nil
}

// onlyRaw is the plan of a query that the rollups know nothing of.
func (at *snapshot) onlyRaw(q analytics.Query) plan { return plan{raw: rawDays(within(at.days, q))} }

// planSummary: whole days, with no filter or one value of one dimension, or with filters that a cube has.
func (at *snapshot) planSummary(ctx context.Context, q analytics.Query) (p plan, err error) {
	whole := func(v dayView) bool { return inDay(q, v.day) == "" || !v.raw() }
	switch {
	case len(q.Filters) == 0 && q.RedirectsOnly():
		p, err = at.split(ctx, q, "", false, whole)
	case len(q.Filters) == 1 && !q.Filters[0].Not && len(q.Filters[0].Values) == 1 && q.Filters[0].Dim != analytics.Tag && (q.RedirectsOnly() || q.Filters[0].Dim == analytics.Outcome):
		p, err = at.split(ctx, q, q.Filters[0].Dim, true, whole)
	default:
		p = at.onlyRaw(q)
	}
	if err != nil {
		return p, err
	}
	p, err = at.fromCubes(ctx, p, q, "", whole)
	return at.withQuiet(p, q), err
}

// planBreakdown: whole days, with filters on nothing but the dimension itself, or with filters and a search that a cube has.
func (at *snapshot) planBreakdown(ctx context.Context, q analytics.Query) (p plan, err error) {
	whole := func(v dayView) bool { return inDay(q, v.day) == "" || !v.raw() }
	crossed := slices.ContainsFunc(q.Filters, func(f analytics.Filter) bool { return f.Dim != q.By })
	if crossed || q.By == analytics.Tag || q.Search != "" || !q.RedirectsOnly() && q.By != analytics.Outcome {
		p = at.onlyRaw(q)
	} else if p, err = at.split(ctx, q, q.By, len(q.Filters) > 0, whole); err != nil {
		return p, err
	}
	if p, err = at.planTags(ctx, p, q, whole); err != nil {
		return p, err
	}
	return at.fromCubes(ctx, p, q, q.By, whole)
}

// planTimeseries: no filter, and points whose bounds lie on quarters of an hour and whose
// visitors the rollup has (analytics.Segment); or filters that a cube has and whole days within one point.
func (at *snapshot) planTimeseries(ctx context.Context, q analytics.Query, starts []terse.Millis) (p plan, err error) {
	if len(q.Filters) > 0 || !q.RedirectsOnly() || q.Interval == analytics.Minute {
		p = at.onlyRaw(q)
	} else if p, err = at.split(ctx, q, "", false, func(v dayView) bool {
		return !slices.ContainsFunc(q.DaySegments(starts, v.day), func(g analytics.Segment) bool { return !g.Known() })
	}); err != nil {
		return p, err
	}
	if p, err = at.fromCubes(ctx, p, q, "", func(v dayView) bool {
		return (inDay(q, v.day) == "" || !v.raw()) && len(q.DaySegments(starts, v.day)) == 1
	}); err != nil {
		return p, err
	}
	p, err = at.fromParts(ctx, p, q, func(v dayView) bool {
		return !slices.ContainsFunc(q.DaySegments(starts, v.day), func(g analytics.Segment) bool { return !g.AtEnd() })
	})
	return at.withQuiet(p, q), err
}

// planSlots: no filter or one that rdim15 has, and a range whose ends lie on quarters of an hour.
func (at *snapshot) planSlots(ctx context.Context, q analytics.Query) (plan, error) {
	quarters := q.From%slotMillis == 0 && q.To%slotMillis == 0
	if len(q.Filters) > 0 || !q.RedirectsOnly() || !quarters {
		return at.fromParts(ctx, at.onlyRaw(q), q, func(dayView) bool { return quarters })
	}
	return at.split(ctx, q, "", false, func(dayView) bool { return true })
}

// rolledSlots returns the SELECT of the closed days of Slots: k, c.
func (s *statement) rolledSlots(rolled []int64, q analytics.Query) string {
	scope, _ := s.scopeOf(q)
	return s.slotRows(q, "r15 WHERE "+dayList(rolled)+" AND "+scope)
}

func (s *statement) slotRows(q analytics.Query, from string) string {
	c := byBots(q.Bots, "clicks")
	return fmt.Sprintf("SELECT day * 96 + slot AS k, %s AS c FROM %s AND %s > 0 AND k >= %d AND k < %d", c, from, c, q.From/slotMillis, q.To/slotMillis)
}

// rolledTimeseries adds closed days without a filter to the points.
func (at *snapshot) rolledTimeseries(ctx context.Context, rolled []int64, q analytics.Query, starts []terse.Millis, points []analytics.Point) error {
	var s statement
	scope, _ := s.scopeOf(q)
	return at.slotTimeseries(ctx, rolled, q, starts, points, "v15, v60, firsts, lasts FROM r15 WHERE "+dayList(rolled)+" AND "+scope, s.args)
}

// partTimeseries adds closed days with a filter to the points.
func (at *snapshot) partTimeseries(ctx context.Context, days []int64, q analytics.Query, starts []terse.Millis, points []analytics.Point) error {
	var s statement
	rows := s.partRows(days, q)
	return at.slotTimeseries(ctx, days, q, starts, points, "0, 0, firsts, lasts FROM "+partsTable+" WHERE "+rows, s.args)
}

// slotTimeseries adds rows of quarters of an hour to the points; from is what follows the clicks in their query.
func (at *snapshot) slotTimeseries(ctx context.Context, days []int64, q analytics.Query, starts []terse.Millis, points []analytics.Point, from string, args []any) error {
	byDay := make(map[int64][]analytics.Segment, len(days))
	for _, day := range days {
		byDay[day] = q.DaySegments(starts, day)
	}
	return at.scan(ctx, "SELECT day, slot, clicks_p, clicks_b, qr_p, qr_b, "+from, func(rows *sql.Rows) error {
		var r analytics.SlotRow
		var day int64
		if err := rows.Scan(&day, &r.Slot, &r.Clicks, &r.Bots, &r.QR, &r.BotsQR, &r.V15, &r.V60, &r.Firsts, &r.Lasts); err != nil {
			return err
		}
		t := terse.Millis(r.Slot * slotMillis)
		for _, g := range byDay[day] {
			if t >= g.From && t < g.To {
				g.Add(&points[g.Bucket], &r, q.Bots)
			}
		}
		return nil
	}, args...)
}

// byBots returns the sum of a pair of measures that q.Bots chooses.
func byBots(b analytics.Bots, name string) string {
	switch b {
	case analytics.BotsInclude:
		return "(" + name + "_p + " + name + "_b)"
	case analytics.BotsOnly:
		return name + "_b"
	}
	return name + "_p"
}

// ofPeople returns a distinct count: only people have visitors.
func ofPeople(b analytics.Bots, name string) string {
	if b == analytics.BotsOnly {
		return "0"
	}
	return name
}

// rolledSummary returns the statement of the closed days of a Summary, with the same row as summary.
func (s *statement) rolledSummary(rolled []int64, q analytics.Query) string {
	scope, _ := s.scopeOf(q)
	table := "rday"
	if len(q.Filters) > 0 {
		table = "rdim"
		scope += " AND " + s.rolledFilter(q.Filters[0])
	}
	cols := []string{byBots(q.Bots, "clicks"), ofPeople(q.Bots, "visitors"), ofPeople(q.Bots, "uniques"), byBots(q.Bots, "deduped"), byBots(q.Bots, "qr"), "clicks_p", "clicks_b"}
	for i := range outcomes {
		cols = append(cols, byBots(q.Bots, "o"+strconv.Itoa(i)))
	}
	for i := range cols {
		cols[i] = "coalesce(sum(" + cols[i] + "), 0)::BIGINT"
	}
	return "SELECT " + strings.Join(cols, ", ") + " FROM " + table + " WHERE " + dayList(rolled) + " AND " + scope
}

// rolledBreakdown returns the SELECT of the closed days of a Breakdown: k, c, v, l, other.
func (s *statement) rolledBreakdown(rolled []int64, q analytics.Query) string {
	scope, _ := s.scopeOf(q)
	for _, f := range q.Filters {
		scope += " AND " + s.rolledFilter(f)
	}
	key := "txt"
	if q.By.Numeric() {
		key = "num"
	}
	clicks := byBots(q.Bots, "clicks")
	return "SELECT " + key + " AS k, " + clicks + " AS c, " + ofPeople(q.Bots, "visitors") + " AS v, other FROM rdim WHERE dim = '" + string(q.By) + "' AND " + dayList(rolled) + " AND " + scope +
		" AND " + clicks + " > 0"
}

// rolledFilter returns the condition of a filter on the rows of its dimension in rdim.
func (s *statement) rolledFilter(f analytics.Filter) string {
	key := "txt"
	if f.Dim.Numeric() {
		key = "num"
	}
	return "dim = '" + string(f.Dim) + "' AND " + key + s.oneOf(f)
}
