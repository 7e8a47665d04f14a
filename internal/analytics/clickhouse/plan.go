package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
)

// plan says which days of a query are read from the rollups and which from clicks. Both give the same
// numbers, so the choice is one of speed, and of what is left once clicks have been removed.
type plan struct {
	rolled []int64 // ascending
	quiet  []int64 // whose clicks are gone, and of which the scope has no rows
	ver    uint64  // of the table rolled that the plan was made by
	raw    raw
	scope  string
}

// scopeOf returns the condition of the rows of a query's scope in rday, r15 and rdim. every: each scope of this
// kind has rows on every day with clicks.
func scopeOf(q analytics.Query) (cond string, every bool) {
	scope, id, domain := scopeWorkspace, "0", ""
	switch {
	case q.Scope.Link != 0:
		scope, id = scopeLink, number(q.Scope.Link)
	case q.Scope.Campaign != 0:
		scope, id = scopeCampaign, number(q.Scope.Campaign)
	case q.Scope.Domain != "":
		scope, domain = scopeDomain, q.Scope.Domain
	}
	cond = "workspace_id = " + number(q.Workspace) + " AND scope = " + strconv.Itoa(scope) + " AND id = " + id + " AND domain = " + literal(domain)
	return cond, scope == scopeWorkspace || scope == scopeDomain
}

// rows returns the condition of the rows of the plan's days.
func (p *plan) rows() string {
	return dayIn(p.rolled) + " AND (day, gen) IN " + generations(p.ver) + " AND " + p.scope
}

// onlyRaw is the plan of a query that the rollups know nothing of.
func onlyRaw(q analytics.Query) plan { return plan{raw: raw{from: q.From, to: q.To}} }

// split makes the plan of a query. able says whether a closed day can be answered from the rollups; dim is the
// dimension that is read from rdim, "" for none.
func (e *Engine) split(ctx context.Context, q analytics.Query, dim analytics.Dimension, filtered bool, able func(day int64) bool) (plan, error) {
	p := onlyRaw(q)
	if q.Scope.Tag != "" { // tags are looked up; a click may have several
		return p, nil
	}
	days, ver, err := e.closedDays(ctx)
	if err != nil {
		return p, err
	}
	candidates := plan{ver: ver}
	for day := dayOf(q.From); day <= dayOf(q.To-1); day++ {
		// Where clicks have been removed there is nothing else.
		if c, ok := days[day]; ok && c.gen != 0 && (able(day) || !c.raw) {
			candidates.rolled = append(candidates.rolled, day)
		}
	}
	if len(candidates.rolled) == 0 {
		return p, nil
	}
	var every bool
	candidates.scope, every = scopeOf(q)
	botVisits, cut := map[int64]int64{}, map[int64]bool{}
	if err := e.scan(ctx, "SELECT toUInt16(day), bot_visits FROM rday WHERE "+candidates.rows(), func(r row) error {
		var day uint16
		var n int64
		err := r.Scan(&day, &n)
		botVisits[int64(day)] = n
		return err
	}); err != nil {
		return p, err
	}
	if filtered { // the value may be among the others
		text := "SELECT DISTINCT toUInt16(day) FROM rdim WHERE other = 1 AND dim = '" + string(dim) + "' AND " + candidates.rows()
		if err := e.scan(ctx, text, func(r row) error {
			var day uint16
			err := r.Scan(&day)
			cut[int64(day)] = true
			return err
		}); err != nil {
			return p, err
		}
	}
	var answered []int64 // by either
	for _, day := range candidates.rolled {
		n, found := botVisits[day]
		if !days[day].raw && !found && !every && days[day].pruned != rollupsGone {
			p.quiet, answered = append(p.quiet, day), append(answered, day)
			continue
		}
		if !days[day].raw || (found || every) && (n == 0 || q.Bots == analytics.BotsExclude) && !cut[day] {
			p.rolled, answered = append(p.rolled, day), append(answered, day)
		}
	}
	p.ver, p.scope, p.raw.not = candidates.ver, candidates.scope, answered
	return p, nil
}

// wholeDay reports whether the range covers a day.
func wholeDay(q analytics.Query) func(day int64) bool {
	return func(day int64) bool {
		return q.From <= terse.Millis(day*dayMillis) && q.To >= terse.Millis((day+1)*dayMillis)
	}
}

// planSummary: whole days, with no filter or one value of one dimension.
func (e *Engine) planSummary(ctx context.Context, q analytics.Query) (plan, error) {
	switch {
	case len(q.Filters) == 0 && q.RedirectsOnly():
		return e.split(ctx, q, "", false, wholeDay(q))
	case len(q.Filters) == 1 && !q.Filters[0].Not && len(q.Filters[0].Values) == 1 && q.Filters[0].Dim != analytics.Tag && (q.RedirectsOnly() || q.Filters[0].Dim == analytics.Outcome):
		return e.split(ctx, q, q.Filters[0].Dim, true, wholeDay(q))
	}
	return onlyRaw(q), nil
}

// planBreakdown: whole days, with filters on nothing but the dimension itself.
func (e *Engine) planBreakdown(ctx context.Context, q analytics.Query) (plan, error) {
	if q.By == analytics.Tag || q.Search != "" || !q.RedirectsOnly() && q.By != analytics.Outcome ||
		slices.ContainsFunc(q.Filters, func(f analytics.Filter) bool { return f.Dim != q.By }) {
		return onlyRaw(q), nil
	}
	return e.split(ctx, q, q.By, len(q.Filters) > 0, wholeDay(q))
}

// planTimeseries: no filter, and points whose bounds lie on quarters of an hour and whose visitors the rollup has.
func (e *Engine) planTimeseries(ctx context.Context, q analytics.Query, starts []terse.Millis) (plan, error) {
	if len(q.Filters) > 0 || !q.RedirectsOnly() || q.Interval == analytics.Minute {
		return onlyRaw(q), nil
	}
	return e.split(ctx, q, "", false, func(day int64) bool {
		return !slices.ContainsFunc(q.DaySegments(starts, day), func(g analytics.Segment) bool { return !g.Known() })
	})
}

// planSlots: no filter, and a range whose ends lie on quarters of an hour.
func (e *Engine) planSlots(ctx context.Context, q analytics.Query) (plan, error) {
	if len(q.Filters) > 0 || !q.RedirectsOnly() || q.From%slotMillis != 0 || q.To%slotMillis != 0 {
		return onlyRaw(q), nil
	}
	return e.split(ctx, q, "", false, func(int64) bool { return true })
}

// rolledSlots returns the SELECT of the closed days of Slots: k, c.
func (p *plan) rolledSlots(q analytics.Query) string {
	c := byBots(q.Bots, "clicks")
	k := "toInt64(toUInt16(day)) * 96 + slot"
	return fmt.Sprintf("SELECT %s AS k, %s AS c FROM r15 WHERE %s AND %s > 0 AND %s >= %d AND %s < %d", k, c, p.rows(), c, k, q.From/slotMillis, k, q.To/slotMillis)
}

// rolledTimeseries adds closed days to the points.
func (e *Engine) rolledTimeseries(ctx context.Context, p plan, q analytics.Query, starts []terse.Millis, points []analytics.Point) error {
	byDay := make(map[int64][]analytics.Segment, len(p.rolled))
	for _, day := range p.rolled {
		byDay[day] = q.DaySegments(starts, day)
	}
	text := "SELECT toUInt16(day), slot, clicks_p, clicks_b, qr_p, qr_b, v15, v60, firsts, lasts FROM r15 WHERE " + p.rows()
	return e.scan(ctx, text, func(rows row) error {
		var r analytics.SlotRow
		var day uint16
		if err := rows.Scan(&day, &r.Slot, &r.Clicks, &r.Bots, &r.QR, &r.BotsQR, &r.V15, &r.V60, &r.Firsts, &r.Lasts); err != nil {
			return err
		}
		at := terse.Millis(r.Slot * slotMillis)
		for _, g := range byDay[int64(day)] {
			if at >= g.From && at < g.To {
				g.Add(&points[g.Bucket], &r, q.Bots)
			}
		}
		return nil
	})
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
		return "toInt64(0)"
	}
	return name
}

// rolledSummary returns the statement of the closed days of a Summary, with the same row as summary.
func (p *plan) rolledSummary(q analytics.Query) string {
	table, cond := "rday", p.rows()
	if len(q.Filters) > 0 {
		table = "rdim"
		cond += " AND " + rolledFilter(q.Filters[0])
	}
	cols := []string{byBots(q.Bots, "clicks"), ofPeople(q.Bots, "visitors"), ofPeople(q.Bots, "uniques"), byBots(q.Bots, "deduped"), byBots(q.Bots, "qr"), "clicks_p", "clicks_b"}
	for i := range outcomes {
		cols = append(cols, byBots(q.Bots, "o"+strconv.Itoa(i)))
	}
	return "SELECT " + list(cols, func(c string) string { return "toInt64(sum(" + c + "))" }) + " FROM " + table + " WHERE " + cond
}

// rolledBreakdown returns the SELECT of the closed days of a Breakdown: k, c, v, l, other.
func (p *plan) rolledBreakdown(q analytics.Query) string {
	cond := p.rows()
	for _, f := range q.Filters {
		cond += " AND " + rolledFilter(f)
	}
	clicks := byBots(q.Bots, "clicks")
	return "SELECT " + rolledKey(q.By) + " AS k, " + clicks + " AS c, " + ofPeople(q.Bots, "visitors") + " AS v, label AS l, other FROM rdim WHERE dim = '" + string(q.By) + "' AND " + cond + " AND " + clicks + " > 0"
}

// rolledKey is the column of rdim that holds the values of a dimension.
func rolledKey(d analytics.Dimension) string {
	if d.Numeric() {
		return "num"
	}
	return "txt"
}

// rolledFilter returns the condition of a filter on the rows of its dimension in rdim.
func rolledFilter(f analytics.Filter) string {
	return "dim = '" + string(f.Dim) + "' AND " + rolledKey(f.Dim) + oneOf(f)
}
