package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/terselink/terse/internal/analytics"
)

// Rollups of a closed day, which outlive its clicks. They hold integers that add up over days, because visitors are
// counted per UTC day.
//
//	rday   one row for each scope
//	r15    one row for each scope and quarter of an hour with clicks
//	rdim   one row for each scope, dimension and value
//	rlink  one row for each link: what LinkTotals needs
//
// Scopes are the workspace, each domain, and those campaigns and links that had at least Options.scopeRows
// clicks that day: the others are read from clicks, which is as quick, since they lie sorted by link.
//
// A day is computed under a new generation, in the column gen, and then named in rolled: nobody sees half of it, and
// doing it twice changes nothing.
const (
	scopeWorkspace = iota
	scopeCampaign
	scopeDomain
	scopeLink
)

type measure struct{ name, expr string }

// measures are the numbers of rday and rdim: of people (_p) and of bots (_b). Those before the outcomes count the
// clicks that red chooses: redirects, or everything where the dimension is the outcome.
func measures(red string) (all []measure) {
	add := func(name, expr string) { all = append(all, measure{name, "toInt64(" + expr + ")"}) }
	who := []struct{ suffix, cond string }{{"_p", "bot = 0"}, {"_b", "bot != 0"}}
	for _, w := range who {
		cond := red + " AND " + w.cond
		add("clicks"+w.suffix, sum("weight", cond))
		add("deduped"+w.suffix, sum("weight", cond+" AND repeat = 0"))
		add("qr"+w.suffix, sum("weight", cond+" AND trigger = 'qr'"))
	}
	visit := red + " AND bot = 0 AND visitor != 0"
	add("visitors", "uniqExactIf(visitor, "+visit+")")
	add("uniques", "uniqExactIf(visitor, link_id, "+visit+")")
	// Bots have no visitor. Should some have one, queries that count bots read clicks.
	add("bot_visits", "countIf(bot != 0 AND visitor != 0)")
	for i := range outcomes {
		for _, w := range who {
			add("o"+strconv.Itoa(i)+w.suffix, sum("weight", outcomeIs(i)+" AND "+w.cond))
		}
	}
	return all
}

func createRollups(d *dialect) []string {
	const scope = "day Date, gen UInt64, workspace_id UInt32, scope UInt8, id UInt64, domain String"
	numbers := list(measures("1"), func(m measure) string { return m.name + " Int64" })
	table := func(name, cols, order string) string {
		return "CREATE TABLE IF NOT EXISTS " + name + " (" + cols + ") ENGINE = MergeTree PARTITION BY toYYYYMM(day) ORDER BY (" + order + ")" + d.tableSettings()
	}
	return []string{
		table("rday", scope+", "+numbers, "workspace_id, scope, id, domain, day"),
		table("r15", scope+", slot Int64, clicks_p Int64, clicks_b Int64, qr_p Int64, qr_b Int64, v15 Int64, v60 Int64, firsts Int64, lasts Int64", "workspace_id, scope, id, domain, day, slot"),
		table("rdim", scope+", dim String, num UInt64, txt String, other UInt8, label String, "+numbers, "workspace_id, scope, id, domain, dim, day"),
		table("rlink", "day Date, gen UInt64, workspace_id UInt32, link_id UInt64, clicks Int64, last Int64", "workspace_id, link_id, day"),
		"CREATE TABLE IF NOT EXISTS rolled (day Date, ver UInt64, gen UInt64, clicks UInt64, raw UInt8, pruned String) ENGINE = MergeTree PARTITION BY tuple() ORDER BY (day, ver)" + d.tableSettings(),
	}
}

// rollupColumns are those of a table after day and gen, in their order.
func rollupColumns(table string) string {
	const scope = "workspace_id, scope, id, domain, "
	switch table {
	case "rday":
		return scope + measureNames(func(n string) string { return n })
	case "r15":
		return scope + "slot, clicks_p, clicks_b, qr_p, qr_b, v15, v60, firsts, lasts"
	case "rdim":
		return scope + "dim, num, txt, other, label, " + measureNames(func(n string) string { return n })
	}
	return "workspace_id, link_id, clicks, last"
}

var rollupTables = []string{"rday", "r15", "rdim", "rlink"}

// scopePart is one kind of scope: the clicks of a day that count in it, and the key of each.
type scopePart struct {
	scope      int
	id, domain string
	from       string // FROM and WHERE
}

// scopeParts returns the kinds of scopes of the clicks that a condition chooses.
func (e *Engine) scopeParts(which string) []scopePart {
	from := "clicks WHERE " + which
	hot := func(column string) string {
		return fmt.Sprintf("%s AND %s != 0 AND (day, workspace_id, %s) IN (SELECT day, workspace_id, %s FROM %s AND %s != 0 GROUP BY day, workspace_id, %s HAVING count() >= %d)",
			from, column, column, column, from, column, column, e.o.scopeRows)
	}
	return []scopePart{
		{scopeWorkspace, "toUInt64(0)", "''", from},
		{scopeDomain, "toUInt64(0)", "toString(domain)", from},
		{scopeCampaign, "campaign_id", "''", hot("campaign_id")},
		{scopeLink, "link_id", "''", hot("link_id")},
	}
}

// groupKey is what every row of a rollup is grouped by, as the aliases of rollUp.
const groupKey = "g_day, g_w, g_id, g_domain"

// dimsOfInsert is how many dimensions one insert computes: each insert makes a part, each dimension takes memory.
const dimsOfInsert = 14

// rollUp computes the rollups of days under a generation. Several small days cost hardly more than one: the time of a
// statement is mostly its planning. also is a further condition of the clicks.
func (e *Engine) rollUp(ctx context.Context, days []int64, gen uint64, also string) error {
	which := dayIn(days) + " AND " + also
	for _, p := range e.scopeParts(which) {
		group := "day AS g_day, workspace_id AS g_w, " + p.id + " AS g_id, " + p.domain + " AS g_domain"
		head := fmt.Sprintf("g_day, toUInt64(%d), g_w, toUInt8(%d), g_id, g_domain", gen, p.scope)
		text := "INSERT INTO rday SELECT " + head + ", " + measureNames(func(n string) string { return n }) + " FROM (SELECT " + group + ", " +
			list(measures("outcome = 0"), func(m measure) string { return m.expr + " AS " + m.name }) + " FROM " + p.from + " GROUP BY " + groupKey + ")"
		if err := e.exec(ctx, text); err != nil {
			return fmt.Errorf("roll up days: %w", err)
		}
		if err := e.exec(ctx, "INSERT INTO r15 "+slotsOf(p, head, group)); err != nil {
			return fmt.Errorf("roll up slots: %w", err)
		}
		for dims := range slices.Chunk(rolledDimensions, dimsOfInsert) {
			parts := make([]string, len(dims))
			for i, dim := range dims {
				parts[i] = e.topOf(p, head, group, dim)
			}
			if err := e.exec(ctx, "INSERT INTO rdim "+strings.Join(parts, " UNION ALL ")); err != nil {
				return fmt.Errorf("roll up values: %w", err)
			}
		}
		if err := e.foldOthers(ctx, p, head, group, days, gen); err != nil {
			return fmt.Errorf("roll up other values: %w", err)
		}
	}
	return e.exec(ctx, fmt.Sprintf("INSERT INTO rlink SELECT day, toUInt64(%d), workspace_id, link_id, toInt64(sum(weight)), max(ts_ms) FROM clicks WHERE %s AND outcome = 0 AND bot = 0 AND link_id != 0 GROUP BY day, workspace_id, link_id", gen, which))
}

// rolledDimensions are those of rdim. Tags are of links, not of clicks.
var rolledDimensions = slices.DeleteFunc(analytics.Dimensions(), func(d analytics.Dimension) bool { return d == analytics.Tag })

// valuesOf returns the SELECT of all values of a dimension, with the columns of groupKey, g_num, g_txt, g_label and the measures.
func valuesOf(p scopePart, group string, dim analytics.Dimension) string {
	num, txt, label, red := "toUInt64(0)", "toString("+dimensionColumns[dim]+")", "''", "outcome = 0"
	if dim.Numeric() {
		num, txt = "toUInt64("+dimensionColumns[dim]+")", "''"
	}
	switch dim {
	case analytics.Outcome:
		red = "1"
	case analytics.Link:
		label = "max(concat(domain, '/', code))"
	}
	return "SELECT " + group + ", " + num + " AS g_num, " + txt + " AS g_txt, " + label + " AS g_label, " +
		list(measures(red), func(m measure) string { return m.expr + " AS " + m.name }) + " FROM " + p.from + " GROUP BY " + groupKey + ", g_num, g_txt"
}

func measureNames(f func(name string) string) string {
	return list(measures("1"), func(m measure) string { return f(m.name) })
}

// topOf returns the SELECT of the largest values of a dimension.
func (e *Engine) topOf(p scopePart, head, group string, dim analytics.Dimension) string {
	return "SELECT " + head + ", '" + string(dim) + "', g_num, g_txt, toUInt8(0), g_label, " + measureNames(func(n string) string { return n }) +
		" FROM (SELECT * FROM (" + valuesOf(p, group, dim) + ") ORDER BY clicks_p + clicks_b DESC, visitors DESC, g_num, g_txt LIMIT " + strconv.Itoa(e.o.topValues) + " BY " + groupKey + ")"
}

// foldOthers adds a row, marked other, where a dimension has more values than are kept.
func (e *Engine) foldOthers(ctx context.Context, p scopePart, head, group string, days []int64, gen uint64) error {
	written := fmt.Sprintf("rdim WHERE %s AND gen = %d AND scope = %d", dayIn(days), gen, p.scope)
	var full []analytics.Dimension
	text := fmt.Sprintf("SELECT DISTINCT dim FROM (SELECT dim, count() AS n FROM %s GROUP BY day, workspace_id, id, domain, dim HAVING n >= %d)", written, e.o.topValues)
	if err := e.scan(ctx, text, func(r row) error {
		var dim string
		err := r.Scan(&dim)
		full = append(full, analytics.Dimension(dim))
		return err
	}); err != nil {
		return err
	}
	for _, dim := range full {
		text := "INSERT INTO rdim SELECT " + head + ", '" + string(dim) + "', toUInt64(0), '', toUInt8(1), '', " + measureNames(func(n string) string { return "sum(" + n + ")" }) +
			" FROM (" + valuesOf(p, group, dim) + ") WHERE (" + groupKey + ", g_num, g_txt) NOT IN (SELECT day, workspace_id, id, domain, num, txt FROM " + written + " AND dim = '" + string(dim) + "') GROUP BY " + groupKey
		if err := e.exec(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

// slotsOf returns the SELECT of r15. Visitors of any part of the day that begins or ends with it are sums too:
// firsts counts the visitors whose first click of the day is in the slot, lasts those whose last one is. v15 are the
// visitors of the slot, v60 those of the hour that begins with it. So points of hours, days and anything
// longer are exact in every zone.
func slotsOf(p scopePart, head, group string) string {
	const slot = "toInt64(intDiv(ts_ms % 86400000, 900000))"
	sumOf := func(cond string) string { return "toInt64(" + sum("weight", cond) + ")" }
	zeros := func(before, after int, expr string) string {
		return strings.Repeat("toInt64(0), ", before) + expr + strings.Repeat(", toInt64(0)", after)
	}
	seen := "(SELECT DISTINCT " + group + ", visitor, " + slot + " AS s FROM " + p.from + " AND outcome = 0 AND bot = 0 AND visitor != 0)"
	ends := "(SELECT " + groupKey + ", visitor, min(s) AS f, max(s) AS l FROM " + seen + " GROUP BY " + groupKey + ", visitor)"
	part := func(slot, numbers, from, by string) string {
		return "SELECT " + groupKey + ", " + slot + " AS sl, " + numbers + " FROM " + from + " GROUP BY " + groupKey + ", " + by
	}
	counts := []string{"clicks_p", "clicks_b", "qr_p", "qr_b", "v15", "v60", "firsts", "lasts"}
	first := "SELECT " + group + ", " + slot + " AS sl, " + sumOf("bot = 0") + " AS clicks_p, " + sumOf("bot != 0") + " AS clicks_b, " + sumOf("bot = 0 AND trigger = 'qr'") + " AS qr_p, " +
		sumOf("bot != 0 AND trigger = 'qr'") + " AS qr_b, toInt64(0) AS v15, toInt64(0) AS v60, toInt64(0) AS firsts, toInt64(0) AS lasts FROM " + p.from + " AND outcome = 0 GROUP BY " + groupKey + ", sl"
	parts := []string{
		first,
		part("s", zeros(4, 3, "toInt64(count())"), seen, "s"),
		part("h", zeros(5, 2, "toInt64(uniqExact(visitor))"), "(SELECT "+groupKey+", visitor, arrayJoin([s - 3, s - 2, s - 1, s]) AS h FROM "+seen+")", "h"),
		part("f", zeros(6, 1, "toInt64(count())"), ends, "f"),
		part("l", zeros(7, 0, "toInt64(count())"), ends, "l"),
	}
	return "SELECT " + head + ", sl, " + list(counts, func(n string) string { return "sum(" + n + ")" }) + " FROM (" + strings.Join(parts, " UNION ALL ") + ") WHERE sl >= 0 GROUP BY " + groupKey + ", sl"
}
