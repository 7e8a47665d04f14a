package duckdb

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/terselink/terse/internal/analytics"
)

// Rollups of a closed day. They are computed from its file, written beside it into the record
// (where they outlive the raw clicks), and loaded into tables of the same names. They hold
// integers that add up over days, because visitors are counted per UTC day.
//
//	rday   one row for each scope
//	r15    one row for each scope and quarter of an hour with clicks
//	rdim   one row for each scope, dimension and value
//	rlink  one row for each link: what LinkTotals needs
//
// the cubes of filters that cross (cube.go), and rdim15 for charts with a filter (parts.go).
//
// Scopes are the workspace, each domain, and those campaigns and links that had at least
// scopeRows clicks that day: the others are read raw, which is as quick, since clicks lie
// sorted by link.
const (
	scopeWorkspace = iota
	scopeCampaign
	scopeDomain
	scopeLink
	scopeTag      // its domain is the tag (tagscope.go)
	scopeUntagged // in rday alone
)

// Options.scopeRows and Options.topValues default to these.
const (
	defaultScopeRows = 500
	// The smallest values of a dimension beyond so many are one row, marked other.
	defaultTopValues = 10_000
)

// slotMillis is the base of all time zones: a quarter of an hour.
const (
	slotMillis = 900_000
)

// measures are the numbers of rday and rdim: of people (_p) and of bots (_b). Those before
// the outcomes count redirects, or everything where the dimension is the outcome.
var measures = func() (list []measure) {
	add := func(name, sql string) { list = append(list, measure{name, "coalesce(" + sql + ", 0)::BIGINT"}) }
	for _, who := range []struct{ suffix, cond string }{{"_p", "NOT b"}, {"_b", "b"}} {
		add("clicks"+who.suffix, sum("w", "red AND "+who.cond))
		add("deduped"+who.suffix, sum("d", "red AND "+who.cond))
		add("qr"+who.suffix, sum("q", "red AND "+who.cond))
	}
	// People of a value: those that came once that day, and those that were told apart.
	for _, of := range []string{"visitors", "uniques"} {
		add(of, "coalesce(max("+of+"), 0) + coalesce("+sum("lone", "red")+", 0)")
	}
	// Bots have no visitor. Should some have one, queries that count bots read raw clicks.
	add("bot_visits", sum("n", "b"))
	for i, name := range outcomeNames {
		add("o"+strconv.Itoa(i)+"_p", sum("w", "outcome = '"+name+"' AND NOT b"))
		add("o"+strconv.Itoa(i)+"_b", sum("w", "outcome = '"+name+"' AND b"))
	}
	return list
}()

type measure struct{ name, sql string }

// measureList returns the measures as a list of columns, by f.
func measureList(f func(m measure) string) string {
	list := make([]string, len(measures))
	for i, m := range measures {
		list[i] = f(m)
	}
	return strings.Join(list, ", ")
}

// scopeKey are the first columns of rday, r15 and rdim.
const scopeKey = "workspace_id INTEGER NOT NULL, scope UTINYINT NOT NULL, id BIGINT NOT NULL, domain VARCHAR NOT NULL"

// createRollups makes the tables.
func createRollups() []string {
	numbers := measureList(func(m measure) string { return m.name + " BIGINT NOT NULL" })
	return append(createCubes(), createParts(),
		"CREATE TABLE rday (day BIGINT NOT NULL, "+scopeKey+", "+numbers+", cubes BIGINT NOT NULL DEFAULT 0)",
		"CREATE TABLE r15 (day BIGINT NOT NULL, "+scopeKey+", slot UTINYINT NOT NULL, clicks_p BIGINT NOT NULL, clicks_b BIGINT NOT NULL, "+
			"qr_p BIGINT NOT NULL, qr_b BIGINT NOT NULL, v15 BIGINT NOT NULL, v60 BIGINT NOT NULL, firsts BIGINT NOT NULL, lasts BIGINT NOT NULL)",
		"CREATE TABLE rdim (day BIGINT NOT NULL, "+scopeKey+", dim VARCHAR NOT NULL, num BIGINT NOT NULL, txt VARCHAR NOT NULL, other BOOLEAN NOT NULL, label VARCHAR NOT NULL, "+numbers+")",
		"CREATE TABLE rlink (day BIGINT NOT NULL, workspace_id INTEGER NOT NULL, link_id BIGINT NOT NULL, clicks BIGINT NOT NULL, last BIGINT NOT NULL)",
		"CREATE TABLE link_totals (workspace_id INTEGER NOT NULL, link_id BIGINT NOT NULL, clicks BIGINT NOT NULL, last BIGINT NOT NULL)",
		"CREATE TABLE rolled (day BIGINT NOT NULL, version BIGINT NOT NULL)")
}

// rollupTables begin with the one whose file is written last.
var rollupTables = []string{"rday", "r15", "rdim", "rlink", "rcube", "rset", partsTable}

// rollupVersion is what rollups are made as now; days of an earlier version are rolled up again (outdated). Version 1 had no cubes,
// version 2 none of links and campaigns, version 3 no rdim15.
const rollupVersion = 4

// inVersion reports whether rollups of a version have a table.
func inVersion(table string, version int64) bool {
	switch {
	case slices.Contains(cubeTables, table):
		return version > 1
	case table == partsTable:
		return version > 3
	}
	return true
}

// rollupVersionKey is the note of the version in the footer of a file; version 1 had none.
const rollupVersionKey = "terse_version"

// forgetRollups returns the statements that take a day out of the tables.
func forgetRollups(day int64) []string {
	var list []string
	for _, t := range append([]string{"rolled", "tagged"}, rollupTables...) {
		list = append(list, fmt.Sprintf("DELETE FROM %s WHERE day = %d", t, day))
	}
	return list
}

// loadRollups returns the statements that load a day from its files, which are of a version.
func (d *DB) loadRollups(day, version int64) []string {
	var list []string
	for _, t := range rollupTables {
		if inVersion(t, version) {
			list = append(list, d.loadRollup(day, t))
		}
	}
	if !inVersion(cubeTables[0], version) { // what rday says of cubes may be of files that are not loaded (rollupsMatch)
		list = append(list, fmt.Sprintf("UPDATE rday SET cubes = 0 WHERE day = %d AND cubes <> 0", day))
	}
	return append(list, fmt.Sprintf("INSERT INTO rolled VALUES (%d, %d)", day, version))
}

func (d *DB) loadRollup(day int64, table string) string {
	return "INSERT INTO " + table + " BY NAME SELECT * FROM " + parquet(quote(d.rollupFile(day, table)))
}

func (d *DB) rollupDir(day int64) string {
	return filepath.Join(d.o.Record, rollupsFolder, "dt="+date(day))
}

func (d *DB) rollupFile(day int64, table string) string {
	return filepath.Join(d.rollupDir(day), table+".parquet")
}

// defaultBatchRollups bounds the clicks of days whose rollups are computed together, from a copy in a temporary table of a few hundred bytes
// a click. A day with more is computed alone, from a copy in a file, some 20 bytes a click: in a table it could be larger than the memory.
const defaultBatchRollups = 300_000

// rollUp computes the rollups of the days of changes, of which each has its clicks in one file, and writes them into the
// record. Several small days cost hardly more than one: the time of a statement is mostly its planning.
func (d *DB) rollUp(ctx context.Context, changes []prepared) (err error) {
	var days []prepared
	for _, p := range changes {
		if p.counts() {
			days = append(days, p)
		}
	}
	if len(days) == 0 {
		return nil
	}
	conn, err := d.readers.Conn(ctx) // temporary tables belong to a connection
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	for len(days) > 0 {
		n, clicks := 0, int64(0)
		for ; n < len(days) && (n == 0 || clicks+days[n].file.rows <= d.o.batchRollups); n++ {
			clicks += days[n].file.rows
		}
		if err := d.rollUpOn(ctx, conn, days[:n], clicks); err != nil {
			return err
		}
		days = days[n:]
	}
	return nil
}

// rollUpOn is rollUp of days that have so many clicks together.
func (d *DB) rollUpOn(ctx context.Context, conn *sql.Conn, days []prepared, clicks int64) error {
	var files []file
	for _, p := range days {
		if p.any {
			files = append(files, p.file)
		}
	}
	for _, p := range days {
		if err := os.MkdirAll(d.rollupDir(p.day), 0o700); err != nil {
			return fmt.Errorf("record: %w", err)
		}
	}
	r := rollup{ctx: ctx, conn: conn, log: d.o.Log, src: readParquet(d.o.Record, files), scopeRows: d.o.scopeRows, topValues: d.o.topValues, cubeShare: d.o.cubeShare, linkCubeRows: d.o.linkCubeRows}
	if clicks > d.o.batchRollups {
		r.copied = filepath.Join(d.rollupDir(days[0].day), "counted"+tmpSuffix)
	}
	r.drop()
	defer r.drop()
	if len(files) > 0 {
		if err := r.compute(); err != nil {
			return fmt.Errorf("roll up: %w", err)
		}
	}
	for _, p := range days {
		// rday is the last: what it says of the others is there, and of its version or a later one, after a crash in the middle too.
		for _, t := range slices.Backward(rollupTables) {
			// Which clicks they are of: after a crash in the middle they are not those of the file.
			if err := d.copyTo(ctx, conn, d.rollupOf(p, t), d.rollupFile(p.day, t), map[string]string{"terse_of": cmp.Or(p.file.origin, p.file.name), rollupVersionKey: strconv.Itoa(rollupVersion)}); err != nil {
				return fmt.Errorf("roll up: %w", err)
			}
		}
	}
	return nil
}

// rollup is one computation, in temporary tables named new_ and the like.
type rollup struct {
	ctx                                           context.Context
	conn                                          *sql.Conn
	log                                           *slog.Logger
	src                                           string // the clicks
	copied                                        string // the file of the copy that is counted; "": it is a temporary table
	ofTags                                        bool   // a click counts in the scope s of its row, and in no other
	scopeRows, topValues, cubeShare, linkCubeRows int
}

var rollupTemps = []string{"new_rday", "new_r15", "new_rdim", "new_rlink", "counted", "often", "scopes", "domains", "counts", "people", "low", "folded", "seen", "new_" + partsTable}

// drop removes what was made. At worst a table lives as long as the connection, and the file until the next start or the next time that
// the day is rolled up.
func (r *rollup) drop() {
	for _, t := range slices.Concat(rollupTemps, cubeTemps, tagTemps) {
		_, _ = r.conn.ExecContext(context.WithoutCancel(r.ctx), "DROP TABLE IF EXISTS temp."+t)
	}
	if r.copied == "" {
		return
	}
	if err := os.Remove(r.copied); err != nil && !errors.Is(err, os.ErrNotExist) {
		r.log.Warn("a copy of the clicks of a day cannot be removed", "error", err)
	}
}

// dayColumn is the UTC day of a click.
const dayColumn = "(epoch_ms(ts) // 86400000)"

// findOften returns the statement that makes the table of visitors with more than one click on a day. All others are told apart
// already: who came once is one person of each value that the click has.
func (r *rollup) findOften() string {
	return fmt.Sprintf("CREATE TEMP TABLE often AS SELECT %s AS day, workspace_id, visitor FROM %s WHERE bot = 0 AND visitor <> 0 GROUP BY ALL HAVING count(*) > 1", dayColumn, r.src)
}

// lone is the column of clicks c that says whether the click is its visitor's only one of the day, which is so if there is no row
// of oftenJoin.
const (
	lone      = "(c.bot = 0 AND c.visitor <> 0 AND o.visitor IS NULL) AS lone"
	oftenJoin = "LEFT JOIN often o ON " + dayColumn + " = o.day AND c.workspace_id = o.workspace_id AND c.visitor = o.visitor"
)

// count returns the statement that makes the copy of the clicks of a query. From then on they are read from it.
func (r *rollup) count(query string) string {
	if r.src = "counted"; r.copied == "" {
		return "CREATE TEMP TABLE counted AS " + query
	}
	r.src = parquet(quote(r.copied))
	return "COPY (" + query + ") TO " + quote(r.copied) + " (FORMAT parquet, ROW_GROUP_SIZE " + strconv.Itoa(rowGroup) + ")"
}

// scoping returns the statements that number the scopes of days, in the table scopes. A workspace with one domain has none of that
// domain: its rows are copied later.
func (r *rollup) scoping() []string {
	hot := func(scope int, column string) string {
		return fmt.Sprintf(" UNION ALL SELECT %s, workspace_id, %d, %s, '' FROM %s WHERE %s <> 0 GROUP BY ALL HAVING count(*) >= %d", dayColumn, scope, column, r.src, column, r.scopeRows)
	}
	return []string{
		fmt.Sprintf("CREATE TEMP TABLE domains AS SELECT %s AS day, workspace_id AS w, min(domain) AS single, count(DISTINCT domain) AS n FROM %s GROUP BY ALL", dayColumn, r.src),
		fmt.Sprintf("CREATE TEMP TABLE scopes AS SELECT (row_number() OVER ())::INTEGER AS s, * FROM (SELECT day, w AS workspace_id, %d::UTINYINT AS scope, 0::BIGINT AS id, '' AS domain FROM domains"+
			" UNION ALL SELECT DISTINCT %s, workspace_id, %d, 0, domain FROM %s c SEMI JOIN (SELECT * FROM domains WHERE n > 1) o ON c.workspace_id = o.w AND %s = o.day", scopeWorkspace, dayColumn, scopeDomain, r.src, dayColumn) +
			hot(scopeCampaign, "campaign_id") + hot(scopeLink, "link_id") + ")",
	}
}

// scopeColumns are the columns of a click in which the numbers of its scopes stand; NULL: it has none of the kind.
var scopeColumns = []string{scopeWorkspace: "s_workspace", scopeCampaign: "s_campaign", scopeDomain: "s_domain", scopeLink: "s_link"}

// inScopes returns the clicks with the columns that are counted, lone and the numbers of their scopes.
func (r *rollup) inScopes() string {
	var numbers, joins strings.Builder
	for scope, same := range []string{scopeWorkspace: "", scopeCampaign: " AND c.campaign_id = %[1]s.id", scopeDomain: " AND c.domain = %[1]s.domain", scopeLink: " AND c.link_id = %[1]s.id"} {
		of := "of_" + scopeColumns[scope]
		fmt.Fprintf(&numbers, ", %s.s AS %s", of, scopeColumns[scope])
		fmt.Fprintf(&joins, " LEFT JOIN (SELECT * FROM scopes WHERE scope = %[2]d) %[1]s ON c.workspace_id = %[1]s.workspace_id AND %[3]s = %[1]s.day"+same, of, scope, dayColumn)
	}
	return fmt.Sprintf("SELECT c.%s, %s%s FROM %s c %s%s", strings.Join(countedColumns(), ", c."), lone, numbers.String(), r.src, oftenJoin, joins.String())
}

// scopedColumns are the columns of a click in a scope, beside the number of the scope and v.
const scopedColumns = `visitor, link_id, outcome, bot <> 0 AS b, lone, "repeat", "trigger", weight, domain || '/' || code AS label`

// scoped returns the clicks, each once for every scope that it counts in, of some kinds of scopes or all, with the number of the scope,
// the columns needed and v.
func (r *rollup) scoped(v string, only ...int) string {
	if r.ofTags {
		return "(SELECT s, " + v + " AS v, " + scopedColumns + " FROM " + r.src + ")"
	}
	var parts []string
	for scope, column := range scopeColumns {
		if len(only) == 0 || slices.Contains(only, scope) {
			parts = append(parts, fmt.Sprintf("SELECT %s AS s, %s AS v, %s FROM %s WHERE %[1]s IS NOT NULL", column, v, scopedColumns, r.src))
		}
	}
	return "(" + strings.Join(parts, " UNION ALL ") + ")"
}

const (
	rollupKey = "day, workspace_id, scope, id, domain"
	// aVisit is a click of somebody who may have others; who has none is lone.
	aVisit = "NOT b AND visitor <> 0 AND NOT lone"
)

// compute fills the tables new_….
func (r *rollup) compute() error {
	list := append(r.scoping(), r.findOften())
	list = append(list, r.count(r.inScopes()))
	list = append(list, createCounts...)
	for _, dim := range rolledDimensions() {
		list = append(list, counting(dim, func(v string) string { return r.scoped(v) })...)
	}
	list = append(list, r.cubing()...)
	list = append(list, r.pivot()...)
	list = append(list, r.slots()...)
	list = append(list, r.parts()...)
	list = append(list, fmt.Sprintf("CREATE TEMP TABLE new_rlink AS SELECT %s AS day, workspace_id, link_id, sum(weight)::BIGINT AS clicks, epoch_ms(max(ts)) AS last FROM %s WHERE outcome = 'redirect' AND bot = 0 AND link_id <> 0 GROUP BY ALL",
		dayColumn, r.src))
	return execAll(r.ctx, r.conn, list)
}

// createCounts makes the tables that counting fills. A hash of 64 bits stands for a value until its clicks and its visitors come together.
var createCounts = []string{
	"CREATE TEMP TABLE counts (s INTEGER, dim VARCHAR, h UBIGINT, num BIGINT, txt VARCHAR, outcome VARCHAR, b BOOLEAN, red BOOLEAN, w BIGINT, d BIGINT, q BIGINT, n BIGINT, lone BIGINT, label VARCHAR)",
	"CREATE TEMP TABLE people (s INTEGER, dim VARCHAR, h UBIGINT, visitors BIGINT, uniques BIGINT)",
}

// counting returns the statements that count the clicks of a dimension, and its people, of whom those with one click are among the
// counts. scoped is what rollup.scoped returns.
func counting(dim analytics.Dimension, scoped func(v string) string) []string {
	v, num, txt, label, red := "''", "0::BIGINT", "v", "''", "outcome = 'redirect'"
	if dim != "" {
		v = columnOf(dim, true)
	}
	if dim.Numeric() {
		num, txt = "v", "''"
	}
	switch dim {
	case analytics.Outcome:
		red = "true"
	case analytics.Link:
		label = "max(label)"
	}
	return []string{
		fmt.Sprintf(`INSERT INTO counts SELECT s, '%s', hash(v), %s, %s, outcome, b, %s, sum(weight), coalesce(sum(weight) FILTER ("repeat" = 0), 0), coalesce(sum(weight) FILTER ("trigger" = 'qr'), 0), count(*) FILTER (visitor <> 0), count(*) FILTER (lone), %s FROM %s GROUP BY s, v, outcome, b`,
			dim, num, txt, red, label, scoped(v)),
		fmt.Sprintf("INSERT INTO people SELECT s, '%s', v, count(DISTINCT visitor), count(DISTINCT hash(visitor, link_id)) FROM %s WHERE %s AND %s GROUP BY s, v",
			dim, scoped("hash("+v+")"), red, aVisit),
	}
}

// countedColumns are the columns of a click, quoted, that say something to rollups.
func countedColumns() (list []string) {
	for _, c := range columns {
		switch c.name {
		case "event_id", "ref_path", "user_agent", "ip", "v":
		default:
			list = append(list, fmt.Sprintf("%q", c.name))
		}
	}
	return list
}

// rolledDimensions are those of rdim and "", which makes rday. Tags are of links, not of clicks.
func rolledDimensions() []analytics.Dimension {
	list := []analytics.Dimension{""}
	for _, dim := range analytics.Dimensions() {
		if dim != analytics.Tag {
			list = append(list, dim)
		}
	}
	return list
}

// pivot returns the statements that make rday and rdim of the counts.
func (r *rollup) pivot() []string {
	const value = rollupKey + ", dim, num, txt"
	numbers := measureList(func(m measure) string { return m.sql + " AS " + m.name })
	names := measureList(func(m measure) string { return m.name })
	top := strconv.Itoa(r.topValues)
	list := []string{
		// A day may have a million codes in a scope: which of them are beyond the largest is found by few columns.
		"CREATE TEMP TABLE low AS SELECT s, dim, h FROM (SELECT s, dim, h, row_number() OVER (PARTITION BY s, dim ORDER BY clicks DESC, visitors DESC, num, txt) AS rank FROM (" +
			"SELECT s, dim, h, any_value(num) AS num, any_value(txt) AS txt, coalesce(" + sum("w", "red") + ", 0) AS clicks, coalesce(max(visitors), 0) + coalesce(" + sum("lone", "red") + ", 0) AS visitors " +
			"FROM counts SEMI JOIN (SELECT s, dim FROM counts WHERE dim <> '' GROUP BY ALL HAVING count(*) > " + top + ") USING (s, dim) LEFT JOIN people USING (s, dim, h) GROUP BY s, dim, h)) WHERE rank > " + top,
		"CREATE TEMP TABLE folded AS SELECT " + value + ", label, " + names + " FROM (SELECT s, dim, num, txt, coalesce(max(label), '') AS label, " + numbers +
			" FROM counts ANTI JOIN low USING (s, dim, h) LEFT JOIN people USING (s, dim, h) GROUP BY s, dim, num, txt) JOIN scopes USING (s)",
		"CREATE TEMP TABLE new_rday AS SELECT " + rollupKey + ", " + names + ", coalesce(cubes, 0)::BIGINT AS cubes FROM folded LEFT JOIN " +
			"(SELECT day, workspace_id, bit_or(1::BIGINT << cube) AS cubes FROM new_cubes GROUP BY ALL) USING (day, workspace_id) WHERE dim = ''",
		"CREATE TEMP TABLE new_rdim AS SELECT " + value + ", false AS other, label, " + names + " FROM folded WHERE dim <> ''" +
			" UNION ALL SELECT " + rollupKey + ", dim, 0, '', true, '', " + names + " FROM (SELECT s, dim, " + numbers + " FROM counts SEMI JOIN low USING (s, dim, h) LEFT JOIN " +
			"(SELECT s, dim, sum(visitors) AS visitors, sum(uniques) AS uniques FROM people SEMI JOIN low USING (s, dim, h) GROUP BY s, dim) USING (s, dim) GROUP BY s, dim) JOIN scopes USING (s)",
	}
	return append(list, onlyDomain("new_rday"), onlyDomain("new_rdim"))
}

// onlyDomain returns the statement that copies the rows of workspaces with one domain to that domain.
func onlyDomain(table string) string {
	return fmt.Sprintf("INSERT INTO %[1]s SELECT t.* REPLACE (%[2]d AS scope, single AS domain) FROM %[1]s t JOIN domains o ON t.day = o.day AND t.workspace_id = o.w WHERE o.n = 1 AND t.scope = %[3]d",
		table, scopeDomain, scopeWorkspace)
}

// slotOfDay is the quarter of an hour of a click, and slotCounts its clicks.
var (
	slotOfDay  = fmt.Sprintf("((epoch_ms(ts) %% %d) // %d)::INTEGER", dayMillis, slotMillis)
	slotCounts = func() string {
		var list []string
		for _, c := range [][2]string{{"clicks_p", "NOT b"}, {"clicks_b", "b"}, {"qr_p", `NOT b AND "trigger" = 'qr'`}, {"qr_b", `b AND "trigger" = 'qr'`}} {
			list = append(list, "coalesce("+sum("weight", c[1])+", 0)::BIGINT AS "+c[0])
		}
		return strings.Join(list, ", ")
	}()
)

// hoursOf are the slots h with which the hours begin that a slot is in.
func hoursOf(slot string) string {
	return fmt.Sprintf("unnest([%[1]s - 3, %[1]s - 2, %[1]s - 1, %[1]s]) AS h", slot)
}

// slots returns the statements that make r15. Visitors of any part of the day that begins or ends with it
// are sums too: firsts counts the visitors whose first click of the day is in the slot, lasts those
// whose last one is. v15 are the visitors of the slot, v60 those of the hour that begins with
// it. So points of hours, days and anything longer are exact in every zone.
func (r *rollup) slots() []string {
	clicks := r.scoped(slotOfDay)
	part := func(cols, from string) string {
		return "SELECT s, " + cols + " FROM " + from
	}
	parts := strings.Join([]string{
		part("v AS slot, "+slotCounts+", count(*) FILTER (lone) AS v15, 0 AS v60, count(*) FILTER (lone) AS firsts, count(*) FILTER (lone) AS lasts", clicks+" WHERE outcome = 'redirect' GROUP BY s, v"),
		part("slot, 0, 0, 0, 0, count(*), 0, 0, 0", "seen GROUP BY s, slot"),
		part("f, 0, 0, 0, 0, 0, 0, count(*), 0", "ends GROUP BY s, f"),
		part("l, 0, 0, 0, 0, 0, 0, 0, count(*)", "ends GROUP BY s, l"),
		part("h, 0, 0, 0, 0, 0, count(DISTINCT visitor), 0, 0", "(SELECT *, "+hoursOf("slot")+" FROM seen) WHERE h >= 0 GROUP BY s, h"),
		part("h, 0, 0, 0, 0, 0, sum(n), 0, 0", "(SELECT s, n, "+hoursOf("v")+" FROM (SELECT s, v, count(*) AS n FROM "+clicks+" WHERE outcome = 'redirect' AND lone GROUP BY s, v)) WHERE h >= 0 GROUP BY s, h"),
	}, " UNION ALL ")
	var sums []string
	names := []string{"clicks_p", "clicks_b", "qr_p", "qr_b", "v15", "v60", "firsts", "lasts"}
	for _, n := range names {
		sums = append(sums, "sum("+n+")::BIGINT AS "+n)
	}
	return []string{
		"CREATE TEMP TABLE seen AS SELECT DISTINCT s, visitor, v AS slot FROM " + clicks + " WHERE outcome = 'redirect' AND " + aVisit,
		"CREATE TEMP TABLE new_r15 AS WITH ends AS MATERIALIZED (SELECT s, min(slot) AS f, max(slot) AS l FROM seen GROUP BY s, visitor) " +
			"SELECT " + rollupKey + ", slot, " + strings.Join(names, ", ") + " FROM (SELECT s, slot::UTINYINT AS slot, " + strings.Join(sums, ", ") + " FROM (" + parts + ") GROUP BY s, slot) JOIN scopes USING (s)",
		onlyDomain("new_r15"),
	}
}
