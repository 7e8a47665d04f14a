package clickhouse

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// Statements carry their values as literals: 18.16 has no parameters. Texts go through literal, numbers
// through number, identifiers come from dimensionColumns.

func number[T ~uint64 | ~uint32 | ~uint8 | ~uint16](n T) string {
	return strconv.FormatUint(uint64(n), 10)
}

// keys returns the keys of a set, ascending.
func keys[K interface {
	~int64 | ~uint32 | ~uint64
}](m map[K]bool) []K {
	return slices.Sorted(maps.Keys(m))
}

// dayIn returns the condition of some days. The list is of bare numbers: 18.16 analyses calls one by one, for
// milliseconds each. The range is for the index.
func dayIn(days []int64) string {
	return fmt.Sprintf("(day >= %s AND day <= %s AND toUInt16(day) IN (%s))", date(slices.Min(days)), date(slices.Max(days)),
		list(days, func(day int64) string { return strconv.FormatInt(day, 10) }))
}

// date returns a day as the server's Date, or the nearest that it has: toDate reads larger numbers as seconds.
func date(day int64) string {
	return "toDate(" + strconv.FormatInt(min(max(day, 0), math.MaxUint16), 10) + ")"
}

// epoch is the epoch of the facts that questions see.
const epoch = "(SELECT argMax(shown, ver) FROM facts_state)"

// builder writes the conditions of one query.
type builder struct{ d *dialect }

// where returns the conditions of scope and filters.
func (b builder) where(q analytics.Query) string {
	cond := []string{"workspace_id = " + number(q.Workspace)}
	switch {
	case q.Scope.Link != 0:
		cond = append(cond, "link_id = "+number(q.Scope.Link))
	case q.Scope.Campaign != 0:
		cond = append(cond, "campaign_id = "+number(q.Scope.Campaign))
	case q.Scope.Domain != "":
		cond = append(cond, "domain = "+literal(q.Scope.Domain))
	case q.Scope.Tag != "":
		cond = append(cond, b.tagged(q.Workspace, []string{q.Scope.Tag}))
	}
	for _, f := range q.Filters {
		switch {
		case f.Dim != analytics.Tag:
			cond = append(cond, dimensionColumns[f.Dim]+oneOf(f))
		case f.Not:
			cond = append(cond, "NOT "+b.tagged(q.Workspace, f.Values))
		default:
			cond = append(cond, b.tagged(q.Workspace, f.Values))
		}
	}
	return strings.Join(cond, " AND ")
}

// oneOf returns the condition that follows a column: one of the filter's values, or none of them.
func oneOf(f analytics.Filter) string {
	in := " IN ("
	if f.Not {
		in = " NOT IN ("
	}
	return in + list(f.Values, func(v string) string {
		if !f.Dim.Numeric() {
			return literal(v)
		}
		n, err := f.Dim.Number(v)
		if err != nil {
			panic(fmt.Errorf("clickhouse: a query that did not pass Normalize: %w", err)) // a defect of this package
		}
		return number(n)
	}) + ")"
}

// linkTags and campaignTags are the tags of a workspace as they are now: one row each.
func linkTags(w terse.WorkspaceID) string {
	return "(SELECT link_id, argMax(tags, ver) AS lt FROM link_tags WHERE epoch = " + epoch + " AND workspace_id = " + number(w) + " GROUP BY link_id)"
}

func campaignTags(w terse.WorkspaceID) string {
	return "(SELECT campaign_id, argMax(tags, ver) AS ct FROM campaign_tags WHERE epoch = " + epoch + " AND workspace_id = " + number(w) + " GROUP BY campaign_id)"
}

// tagged returns the condition of the clicks that have one of the tags, which may be "" for none.
func (b builder) tagged(w terse.WorkspaceID, tags []string) string {
	var texts, any []string
	untagged := false
	for _, tag := range tags {
		if tag == "" {
			untagged = true
		} else {
			texts = append(texts, literal(tag))
		}
	}
	if len(texts) > 0 {
		set := "[" + strings.Join(texts, ", ") + "]"
		any = append(any, "link_id IN (SELECT link_id FROM "+linkTags(w)+" WHERE hasAny(lt, "+set+"))", "campaign_id IN (SELECT campaign_id FROM "+campaignTags(w)+" WHERE hasAny(ct, "+set+"))")
	}
	if untagged {
		any = append(any, "(link_id NOT IN (SELECT link_id FROM "+linkTags(w)+" WHERE notEmpty(lt)) AND campaign_id NOT IN (SELECT campaign_id FROM "+campaignTags(w)+" WHERE notEmpty(ct)))")
	}
	return "(" + strings.Join(any, " OR ") + ")"
}

// byTag returns a table expression of the rows of source, once for each of their tags, in the column k (” for
// none). cols are the columns of source that are wanted, beside link_id and campaign_id.
func (b builder) byTag(w terse.WorkspaceID, source, cols string) string {
	return "(SELECT arrayJoin(if(empty(all_tags), [''], all_tags)) AS k, " + cols + " FROM (SELECT arrayDistinct(arrayConcat(lt, ct)) AS all_tags, " + cols +
		" FROM (SELECT lt, campaign_id, " + cols + " FROM " + source + " ANY LEFT JOIN " + linkTags(w) + " USING link_id) ANY LEFT JOIN " + campaignTags(w) + " USING campaign_id))"
}

// chosen returns the condition of the clicks that q.Bots counts.
func chosen(b analytics.Bots) string {
	switch b {
	case analytics.BotsInclude:
		return "1"
	case analytics.BotsOnly:
		return "bot != 0"
	}
	return "bot = 0"
}

// redirected returns the condition of the outcomes that count.
func redirected(q analytics.Query) string {
	if q.RedirectsOnly() {
		return outcomeIs(int(clicks.OutcomeRedirect))
	}
	return "1"
}

func outcomeIs(i int) string { return "outcome = " + strconv.Itoa(i) }

// search returns the condition of q.Search with the word AND before it, "" for none.
func (b builder) search(q analytics.Query) string {
	if q.Search == "" {
		return ""
	}
	if found, ok := q.SearchNumbers(); ok {
		if len(found) == 0 {
			return " AND 0"
		}
		return " AND " + dimensionColumns[q.By] + " IN (" + list(found, number[uint64]) + ")"
	}
	text := b.d.lower(dimensionColumns[q.By])
	switch q.By {
	case analytics.Tag:
		text = b.d.lower("k") // of byTag
	case analytics.Link:
		text = b.d.lower("concat(domain, '/', code)")
	case analytics.ASN:
		text = "if(asn = 0, '', toString(asn))"
	}
	return " AND position(" + text + ", " + literal(q.Search) + ") > 0"
}

// raw is the range of a query without the days that are read from the rollups.
type raw struct {
	from, to terse.Millis
	not      []int64 // ascending
}

// empty reports whether no day is left.
func (r raw) empty() bool {
	first, last := dayOf(r.from), dayOf(r.to-1)
	return int64(len(r.not)) == last-first+1
}

// cond returns the condition of the clicks in it.
func (r raw) cond() string {
	c := fmt.Sprintf("day >= %s AND day <= %s AND ts_ms >= %d AND ts_ms < %d", date(dayOf(r.from)), date(dayOf(r.to-1)), r.from, r.to)
	if len(r.not) > 0 {
		c += " AND NOT " + dayIn(r.not)
	}
	return c
}

// summary returns the statement of a Summary: one row of clicks, visitors, unique clicks, deduped, qr, humans, bots and the
// outcomes by number. Visitors are distinct within a day and add up over days.
func (b builder) summary(r raw, q analytics.Query) string {
	sel, red := chosen(q.Bots), redirected(q)
	both := sel + " AND " + red
	cols := []string{
		sum("weight", both), "uniqExactIf(visitor, " + both + " AND visitor != 0)", "uniqExactIf(visitor, link_id, " + both + " AND visitor != 0)",
		sum("weight", both+" AND repeat = 0"), sum("weight", both+" AND trigger = 'qr'"), sum("weight", red+" AND bot = 0"), sum("weight", red+" AND bot != 0"),
	}
	for i := range outcomes {
		cols = append(cols, sum("weight", sel+" AND "+outcomeIs(i)))
	}
	sums := make([]string, len(cols))
	for i := range cols {
		cols[i] += " AS c" + strconv.Itoa(i)
		sums[i] = "toInt64(sum(c" + strconv.Itoa(i) + "))"
	}
	return "SELECT " + strings.Join(sums, ", ") + " FROM (SELECT " + strings.Join(cols, ", ") + " FROM clicks WHERE " + b.where(q) + " AND " + r.cond() + " GROUP BY day)"
}

func sum(col, cond string) string { return "sumIf(" + col + ", " + cond + ")" }

// timeseries returns the statement of a Timeseries: rows of bucket index, clicks, visitors, bots, qr.
func (b builder) timeseries(r raw, q analytics.Query, starts []terse.Millis) string {
	sel := chosen(q.Bots)
	return fmt.Sprintf("SELECT toInt64(k), toInt64(sum(c)), toInt64(sum(v)), toInt64(sum(b)), toInt64(sum(q)) FROM ("+
		"SELECT %s AS k, %s AS c, uniqExactIf(visitor, %s AND visitor != 0) AS v, %s AS b, %s AS q FROM clicks WHERE %s AND %s AND %s GROUP BY day, k) GROUP BY k",
		bucket(starts, q), sum("weight", sel), sel, sum("weight", "bot != 0"), sum("weight", sel+" AND trigger = 'qr'"), b.where(q), redirected(q), r.cond())
}

// breakdown returns the statement of a Breakdown: rows of value, clicks, visitors, label, other, and the same three
// totals in each: clicks, visitors, values.
func (b builder) breakdown(r raw, rolled string, q analytics.Query) string {
	label := "''"
	if q.By == analytics.Link {
		label = "max(concat(domain, '/', code))"
	}
	var parts []string
	switch {
	case r.empty():
	case q.By == analytics.Tag:
		source := "(SELECT day, link_id, campaign_id, weight, visitor FROM clicks WHERE " + b.where(q) + " AND " + redirected(q) + " AND " + chosen(q.Bots) + " AND " + r.cond() + ")"
		parts = append(parts, "SELECT k, toInt64(sum(weight)) AS c, toInt64(uniqExactIf(visitor, visitor != 0)) AS v, '' AS l, toUInt8(0) AS other FROM "+
			b.byTag(q.Workspace, source, "day, weight, visitor")+" WHERE 1"+b.search(q)+" GROUP BY day, k")
	default:
		parts = append(parts, fmt.Sprintf("SELECT %s AS k, toInt64(sum(weight)) AS c, toInt64(uniqExactIf(visitor, visitor != 0)) AS v, %s AS l, toUInt8(0) AS other FROM clicks WHERE %s AND %s AND %s AND %s GROUP BY day, k",
			keyOf(q.By), label, b.where(q)+b.search(q), redirected(q), chosen(q.Bots), r.cond()))
	}
	if rolled != "" {
		parts = append(parts, rolled)
	}
	if len(parts) == 0 {
		return ""
	}
	groups := "(SELECT k, other, sum(c) AS cc, sum(v) AS vv, max(l) AS ll FROM (" + strings.Join(parts, " UNION ALL ") + ") GROUP BY k, other)"
	order := "cc DESC, vv DESC"
	if q.Metric == analytics.Visitors {
		order = "vv DESC, cc DESC"
	}
	totals := "SELECT sum(cc), sum(vv), toInt64(countIf(other = 0)) FROM " + groups
	return "SELECT k, cc, vv, ll, other FROM " + groups + " WHERE other = 0 ORDER BY " + order + ", k ASC LIMIT " + strconv.Itoa(q.Limit) + totalsMark + totals
}

// totalsMark stands between the two statements of a breakdown.
const totalsMark = "\x00"

// keyOf returns the expression of a dimension, of numbers as UInt64.
func keyOf(d analytics.Dimension) string {
	if d.Numeric() {
		return "toUInt64(" + dimensionColumns[d] + ")"
	}
	return "toString(" + dimensionColumns[d] + ")"
}
