package duckdb

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// statement builds the SQL of one query. Texts become parameters, used by number so that
// the same one serves every day table.
type statement struct {
	args []any
	text bool // of the source that conditions are written for: outcomes are names
}

func (s *statement) param(v string) string {
	if i := slices.Index(s.args, any(v)); i >= 0 {
		return "$" + strconv.Itoa(i+1)
	}
	s.args = append(s.args, v)
	return "$" + strconv.Itoa(len(s.args))
}

// where returns the conditions of scope and filters, the same for every day.
func (s *statement) where(q analytics.Query) string {
	cond := []string{"workspace_id = " + number(q.Workspace)}
	switch {
	case q.Scope.Link != 0:
		cond = append(cond, "link_id = "+number(q.Scope.Link))
	case q.Scope.Campaign != 0:
		cond = append(cond, "campaign_id = "+number(q.Scope.Campaign))
	case q.Scope.Domain != "":
		cond = append(cond, "domain = "+s.param(q.Scope.Domain))
	case q.Scope.Tag != "":
		cond = append(cond, s.tagged(q.Workspace, []string{q.Scope.Tag}))
	}
	for _, f := range q.Filters {
		switch {
		case f.Dim != analytics.Tag:
			cond = append(cond, s.filter(f))
		case f.Not:
			cond = append(cond, "NOT "+s.tagged(q.Workspace, f.Values))
		default:
			cond = append(cond, s.tagged(q.Workspace, f.Values))
		}
	}
	return strings.Join(cond, " AND ")
}

func (s *statement) filter(f analytics.Filter) string {
	col := dimensionColumns[f.Dim]
	if f.Dim != analytics.Outcome || !s.text {
		return col + s.oneOf(f)
	}
	// By name. The names are known: the filter passed Normalize.
	names := make([]string, len(f.Values))
	for i, v := range f.Values {
		names[i] = s.param(v)
	}
	if f.Not {
		return col + " NOT IN (" + strings.Join(names, ", ") + ")"
	}
	return col + " IN (" + strings.Join(names, ", ") + ")"
}

// oneOf returns the condition that follows a column: one of the filter's values, or none of them.
func (s *statement) oneOf(f analytics.Filter) string {
	values := make([]string, len(f.Values))
	for i, v := range f.Values {
		if f.Dim.Numeric() {
			n, err := f.Dim.Number(v)
			if err != nil {
				panic(fmt.Errorf("duckdb: a query that did not pass Normalize: %w", err)) // a defect of this package
			}
			values[i] = number(n)
		} else {
			values[i] = s.param(v)
		}
	}
	if f.Not {
		return " NOT IN (" + strings.Join(values, ", ") + ")"
	}
	return " IN (" + strings.Join(values, ", ") + ")"
}

// chosen returns the condition of the clicks that q.Bots counts.
func chosen(b analytics.Bots) string {
	switch b {
	case analytics.BotsInclude:
		return "true"
	case analytics.BotsOnly:
		return "bot <> 0"
	}
	return "bot = 0"
}

// redirected returns the condition of the outcomes that count.
func (s *statement) redirected(q analytics.Query) string {
	if q.RedirectsOnly() {
		return s.outcomeIs(int(clicks.OutcomeRedirect))
	}
	return "true"
}

// outcomeIs returns the condition of one outcome.
func (s *statement) outcomeIs(i int) string {
	if s.text {
		return "outcome = '" + outcomeNames[i] + "'"
	}
	return "outcome = " + strconv.Itoa(i)
}

// columnOf returns the expression of a dimension, of numbers as BIGINT.
func columnOf(d analytics.Dimension, text bool) string {
	switch {
	case d == analytics.Outcome && text:
		return outcomeNumber + "::BIGINT"
	case d.Numeric():
		return dimensionColumns[d] + "::BIGINT"
	}
	return dimensionColumns[d]
}

// inDay returns the condition of the part of the range within a day; "" if the range covers the day.
func inDay(q analytics.Query, day int64) string {
	cond := ""
	if start := terse.Millis(day * dayMillis); q.From > start {
		cond += " AND ts >= " + timestamp(q.From)
	}
	if end := terse.Millis((day + 1) * dayMillis); q.To < end {
		cond += " AND ts < " + timestamp(q.To)
	}
	return cond
}

// union joins the SELECT of every day. Visitors are distinct within a day and add up over
// days, so each day is aggregated by itself.
func (s *statement) union(days []dayView, selectDay func(from string, day int64) string) string {
	parts := make([]string, len(days))
	for i, v := range days {
		src := v.source()
		s.text = src.text
		parts[i] = narrowed(selectDay(src.from, v.day))
	}
	return strings.Join(parts, "\nUNION ALL ")
}

// summary returns the statement of a Summary: one row of sums; "" if there is no day.
// The outcomes follow the seven numbers in their own order.
func (s *statement) summary(days []dayView, q analytics.Query) string {
	n := 7 + outcomes
	inner := s.union(days, func(from string, day int64) string {
		sel, red := chosen(q.Bots), s.redirected(q)
		counted := red + " AND " + sel
		cols := []string{
			sum("weight", counted),
			"count(DISTINCT visitor) FILTER (" + counted + " AND visitor <> 0)",
			// A hash of 64 bits of the pair is finer than the bits of a visitor that are
			// kept. A number of 128 bits made the whole summary 15 % slower.
			"count(DISTINCT hash(visitor, link_id)) FILTER (" + counted + " AND visitor <> 0)",
			sum("weight", counted+" AND repeat = 0"),
			sum("weight", counted+` AND "trigger" = 'qr'`),
			sum("weight", red+" AND bot = 0"),
			sum("weight", red+" AND bot <> 0"),
		}
		for i := range outcomes {
			cols = append(cols, sum("weight", sel+" AND "+s.outcomeIs(i)))
		}
		for i := range cols {
			cols[i] += " AS c" + strconv.Itoa(i)
		}
		return fmt.Sprintf("SELECT %s FROM %s WHERE %s%s", strings.Join(cols, ", "), from, s.where(q), inDay(q, day))
	})
	if inner == "" {
		return ""
	}
	sums := make([]string, n)
	for i := range sums {
		sums[i] = fmt.Sprintf("coalesce(sum(c%d), 0)::BIGINT", i)
	}
	return "SELECT " + strings.Join(sums, ", ") + " FROM (" + inner + ")"
}

// outcomes is how many outcomes have a name.
const outcomes = int(clicks.OutcomePreview) + 1

// timeseries returns the statement of a Timeseries: rows of bucket index, clicks,
// visitors, bots, qr.
func (s *statement) timeseries(days []dayView, q analytics.Query, starts []terse.Millis) string {
	sel := chosen(q.Bots)
	inner := s.union(days, func(from string, day int64) string {
		return fmt.Sprintf("SELECT %s AS k, %s AS c, count(DISTINCT visitor) FILTER (%s AND visitor <> 0) AS v, %s AS b, %s AS r FROM %s WHERE %s AND %s%s GROUP BY k",
			bucket(q.Interval, starts, day), sum("weight", sel), sel, sum("weight", "bot <> 0"), sum("weight", sel+` AND "trigger" = 'qr'`),
			from, s.where(q), s.redirected(q), inDay(q, day))
	})
	if inner == "" {
		return ""
	}
	return "SELECT k, coalesce(sum(c), 0)::BIGINT, sum(v)::BIGINT, coalesce(sum(b), 0)::BIGINT, coalesce(sum(r), 0)::BIGINT FROM (" + inner + ") GROUP BY k"
}

// bucket returns the expression for the index in starts of the bucket that a row of a day
// falls into. The zone is nowhere in it: the instants are.
func bucket(interval analytics.Interval, starts []terse.Millis, day int64) string {
	from, to := terse.Millis(day*dayMillis), terse.Millis((day+1)*dayMillis)
	if interval == analytics.Minute { // the same in every zone
		return fmt.Sprintf("((epoch_ms(ts) - %d) // 60000)", starts[0])
	}
	first := max(analytics.BucketOf(starts, from), 0)
	within := starts[first+1:]
	within = within[:max(analytics.BucketOf(within, to-1)+1, 0)]
	if len(within) == 0 {
		return strconv.FormatInt(int64(first), 10) + "::BIGINT"
	}
	const slot = 900_000
	const fewBounds = 4
	quarterHours := !slices.ContainsFunc(within, func(t terse.Millis) bool { return t%slot != 0 })
	if len(within) <= fewBounds || !quarterHours {
		var b strings.Builder
		b.WriteString("CASE")
		for i, t := range within {
			fmt.Fprintf(&b, " WHEN ts < %s THEN %d::BIGINT", timestamp(t), first+i)
		}
		fmt.Fprintf(&b, " ELSE %d::BIGINT END", first+len(within))
		return b.String()
	}
	// Many bounds, as with hours: a look-up by quarter of an hour.
	index := make([]string, 0, dayMillis/slot)
	for t := from; t < to; t += slot {
		index = append(index, strconv.Itoa(first+analytics.BucketOf(within, t)+1))
	}
	return fmt.Sprintf("([%s]::BIGINT[])[(epoch_ms(ts) - %d) // %d + 1]", strings.Join(index, ","), from, slot)
}

// breakdown returns the statement of a Breakdown: rows of value, clicks, visitors,
// label, and the same three totals in each: clicks, visitors, values. The values of closed
// days come from the rollups.
func (s *statement) breakdown(p plan, q analytics.Query) string {
	var inner string
	if q.By == analytics.Tag {
		inner = s.tagDays(p.raw, q)
	} else {
		inner = s.union(p.raw, func(from string, day int64) string {
			return fmt.Sprintf("SELECT %s AS k, sum(weight) AS c, count(DISTINCT visitor) FILTER (visitor <> 0) AS v, false AS other FROM %s WHERE %s AND %s AND %s%s GROUP BY k",
				columnOf(q.By, s.text), from, s.where(q)+s.search(q), s.redirected(q), chosen(q.Bots), inDay(q, day))
		})
	}
	var parts []string
	if inner != "" {
		parts = append(parts, inner)
	}
	if len(p.rolled) > 0 {
		parts = append(parts, s.rolledBreakdown(p.rolled, q))
	}
	if len(p.tags) > 0 {
		parts = append(parts, s.rolledTags(p.tags, q))
	}
	for _, c := range p.cubeDays {
		parts = append(parts, s.cubedBreakdown(c, q))
	}
	inner = strings.Join(parts, "\nUNION ALL ")
	if inner == "" {
		return ""
	}
	order := "c DESC, v DESC"
	if q.Metric == analytics.Visitors {
		order = "v DESC, c DESC"
	}
	order += ", k ASC"
	text := "WITH g AS (SELECT k, other, sum(c)::BIGINT AS c, sum(v)::BIGINT AS v FROM (" + inner + ") GROUP BY k, other), " +
		"top AS MATERIALIZED (SELECT k, c, v FROM g WHERE NOT other ORDER BY " + order + " LIMIT " + strconv.Itoa(q.Limit) + ")"
	label, of := "''", "top"
	if names := s.linkNames(p, q); names != "" {
		// Of those that are shown only: a day may have a million.
		text += ", names AS (SELECT k, max(l) AS l FROM (" + names + ") GROUP BY k)"
		label, of = "coalesce(l, '')", "top LEFT JOIN names USING (k)"
	}
	return text + " SELECT k, c, v, " + label + ", (SELECT sum(c)::BIGINT FROM g), (SELECT sum(v)::BIGINT FROM g), (SELECT count(*) FROM g WHERE NOT other) FROM " + of + " ORDER BY " + order
}

// linkNames returns the SELECT of the names of the links k that are in top, from the days that have them; "" if none has, or it is no
// breakdown by link.
func (s *statement) linkNames(p plan, q analytics.Query) string {
	if q.By != analytics.Link {
		return ""
	}
	const shown = " IN (SELECT k FROM top)"
	var parts []string
	if len(p.raw) > 0 {
		parts = append(parts, s.union(p.raw, func(from string, day int64) string {
			k := columnOf(q.By, s.text)
			return fmt.Sprintf("SELECT %s AS k, max(domain || '/' || code) AS l FROM %s WHERE %s AND %s AND %s%s AND %s%s GROUP BY k", k, from, s.where(q), s.redirected(q), chosen(q.Bots), inDay(q, day), k, shown)
		}))
	}
	if len(p.rolled) > 0 {
		scope, _ := s.scopeOf(q)
		parts = append(parts, "SELECT num AS k, label AS l FROM rdim WHERE dim = '"+string(q.By)+"' AND "+dayList(p.rolled)+" AND "+scope+" AND num"+shown)
	}
	return strings.Join(parts, "\nUNION ALL ")
}

func sum(col, cond string) string { return "sum(" + col + ") FILTER (" + cond + ")" }
