package duckdb

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/terselink/terse/internal/analytics"
)

// Cubes answer filters that cross. A cube of a closed day has one row for each combination of the values of
// a few dimensions (a cell), class of bots and outcome. Clicks of any filter on them are sums.
//
// So are visitors, though they are distinct: one whose clicks of the day all lie in one cell is a number of that cell. The
// others are in rset by the set of cells that they came in: how many they are, once for each of the cells. The visitors of a
// filter are the sum over its cells, and over the sets that have one of them. A visitor is a hash of
// address and agent, so place and client hardly vary within it, and sets are few. The same holds for unique clicks, which
// are pairs of visitor and link.
//
//	rcube  a row for each cube, cell, class of bots and outcome
//	rset   a row for each cell of a set
//
// A query takes the first cube that has all of its dimensions. rday says which cubes there are.
//
// The cube of links and campaigns answers for tags, which are theirs: whoever has which tag is looked up when a question
// is asked, and the cells that have it are any cells.
type cube struct {
	dims []analytics.Dimension
	// worth is how many rows of the cube are as good as one of another (defaultCubeShare).
	worth int
}

var cubes = []cube{
	{[]analytics.Dimension{analytics.Country, analytics.Language, analytics.Device, analytics.OS, analytics.Browser}, 1},
	{[]analytics.Dimension{analytics.Country, analytics.Language, analytics.Device, analytics.OS, analytics.Browser, analytics.Region, analytics.City}, 1},
	{[]analytics.Dimension{analytics.Country, analytics.Device, analytics.OS, analytics.Browser, analytics.Domain, analytics.Campaign, analytics.Trigger}, 1},
	{[]analytics.Dimension{analytics.Country, analytics.Device, analytics.OS, analytics.Browser, analytics.Domain, analytics.Trigger, analytics.Referrer, analytics.Source,
		analytics.UTMSource, analytics.UTMMedium, analytics.UTMCampaign}, 1},
	// Clicks of a tag are all over the file of a day, and most of its columns: a row for each of them would still be quicker.
	{[]analytics.Dimension{analytics.Link, analytics.Campaign}, 3},
}

// defaultCubeShare: a workspace has a cube on days with at least so many clicks for each of the cube's rows, divided by the
// cube's worth. Clicks of other days are as quick to read.
const defaultCubeShare = 3

// defaultLinkCubeRows bounds the rows that cubes of links have on a day, all workspaces together, the small ones first. With a link for
// each recipient such a cube has about a row for each click, as wide as those of all cubes, and some copies of it go through
// memory and the folder of temporary files while the day is rolled up, a few hundred bytes for each row: two million rows are about
// a gigabyte, far more are several, and they stay for ever. No day has more rows than that which has as few clicks as are closed
// together, so days up to that size have their cubes whatever the links are. Beyond, questions read clicks.
const defaultLinkCubeRows = batchClicks

// linkRowsSample is how many rows of cubes of links are counted one by one before they are made, at least and about, to know whether
// they are too many. It bounds the memory of the count, which is right within one or two per cent.
const linkRowsSample = 1 << 15

// What rset counts.
const (
	setVisitors = iota
	setUniques
)

// has reports whether the cube can be asked by a dimension. The class of bots is in all of them.
func (c cube) has(d analytics.Dimension) bool {
	if d == analytics.Tag { // of links and campaigns
		return c.has(analytics.Link) && c.has(analytics.Campaign)
	}
	return d == analytics.Bot || slices.Contains(c.dims, d)
}

// cubeDimensions are the dimensions of all cubes, the columns of rcube.
var cubeDimensions = func() (list []analytics.Dimension) {
	for _, c := range cubes {
		for _, d := range c.dims {
			if !slices.Contains(list, d) {
				list = append(list, d)
			}
		}
	}
	return list
}()

// ofLinks reports whether the cube may have a row for each click: those of workspaces in the table crowded are not made.
func (c cube) ofLinks() bool { return c.has(analytics.Link) }

// emptyOf is the value of a dimension's column where a cube does not have it.
func emptyOf(d analytics.Dimension) string {
	if d.Numeric() {
		return "0::BIGINT"
	}
	return "''"
}

// createCubes makes the tables.
func createCubes() []string {
	var cols strings.Builder
	for _, d := range cubeDimensions {
		typ := "VARCHAR NOT NULL"
		if d.Numeric() { // version 2 had no link_id
			typ = "BIGINT NOT NULL DEFAULT 0"
		}
		fmt.Fprintf(&cols, "%s %s, ", dimensionColumns[d], typ)
	}
	return []string{
		"CREATE TABLE rcube (day BIGINT NOT NULL, workspace_id INTEGER NOT NULL, cube INTEGER NOT NULL, cell INTEGER NOT NULL, " + cols.String() +
			"bot INTEGER NOT NULL, outcome VARCHAR NOT NULL, clicks BIGINT NOT NULL, deduped BIGINT NOT NULL, qr BIGINT NOT NULL, visitors BIGINT NOT NULL, uniques BIGINT NOT NULL)",
		"CREATE TABLE rset (day BIGINT NOT NULL, workspace_id INTEGER NOT NULL, cube INTEGER NOT NULL, kind INTEGER NOT NULL, set_no INTEGER NOT NULL, cell INTEGER NOT NULL, n BIGINT NOT NULL)",
	}
}

var cubeTables = []string{"rcube", "rset"}

// cubeTemps are the temporary tables of cubing.
var cubeTemps = []string{"new_rcube", "new_rset", "new_cubes", "crowded", "visits", "cells", "alone", "sets", "numbered", "togethers"}

// cubing returns the statements that make new_rcube, new_rset and new_cubes, which says what a workspace has.
func (r *rollup) cubing() []string {
	var list []string
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	hashes := make([]string, len(cubes))
	for i, c := range cubes {
		hashes[i] = c.hash() + " AS " + hashName(i)
	}
	list = append(list, r.crowded())
	without := func(c cube, from, day string) string { // the rows of workspaces that have the cube
		if !c.ofLinks() {
			return from
		}
		return fmt.Sprintf("(SELECT * FROM %s c ANTI JOIN crowded x ON %s = x.day AND c.workspace_id = x.workspace_id)", from, day)
	}
	// A hash of 64 bits stands for the cell until all are known, as it does for the pair of visitor and link.
	add("CREATE TEMP TABLE visits AS SELECT DISTINCT %s AS day, workspace_id, visitor, link_id, %s FROM %s WHERE outcome = 'redirect' AND bot = 0 AND visitor <> 0 AND NOT lone", dayColumn, strings.Join(hashes, ", "), r.src)
	add("CREATE TEMP TABLE cells (day BIGINT, workspace_id INTEGER, cube INTEGER, h UBIGINT, %s, bot INTEGER, outcome VARCHAR, clicks BIGINT, deduped BIGINT, qr BIGINT, n BIGINT)", columnTypes(cubeDimensions))
	add("CREATE TEMP TABLE alone (day BIGINT, workspace_id INTEGER, cube INTEGER, h UBIGINT, visitors BIGINT, uniques BIGINT)")
	add("CREATE TEMP TABLE sets (day BIGINT, workspace_id INTEGER, cube INTEGER, kind INTEGER, cells UBIGINT[], n BIGINT)")
	for i, c := range cubes {
		cols := make([]string, len(cubeDimensions))
		for j, d := range cubeDimensions {
			if cols[j] = emptyOf(d); slices.Contains(c.dims, d) {
				cols[j] = dimensionColumns[d]
			}
		}
		add(`INSERT INTO cells SELECT %s AS day, workspace_id, %d, %s, %s, bot, outcome, sum(weight), coalesce(sum(weight) FILTER ("repeat" = 0), 0), coalesce(sum(weight) FILTER ("trigger" = 'qr'), 0), count(*) FROM %s GROUP BY ALL`,
			dayColumn, i, c.hash(), strings.Join(cols, ", "), without(c, r.src, dayColumn))
		add("INSERT INTO alone SELECT %s AS day, workspace_id, %d, %s, count(*), count(*) FROM %s WHERE outcome = 'redirect' AND lone GROUP BY ALL", dayColumn, i, c.hash(), without(c, r.src, dayColumn))
	}
	for kind, who := range []string{"visitor", "visitor, link_id"} {
		ends := make([]string, len(cubes))
		for i := range cubes {
			ends[i] = fmt.Sprintf("min(%[1]s) AS %[1]s, max(%[1]s) AS %[1]s_last", hashName(i))
		}
		add("CREATE OR REPLACE TEMP TABLE togethers AS SELECT day, workspace_id, %s, %s FROM visits GROUP BY day, workspace_id, %s", who, strings.Join(ends, ", "), who)
		counts := [2]string{"0", "0"}
		counts[kind] = "count(*)"
		for i, c := range cubes {
			h, from := hashName(i), without(c, "togethers", "c.day")
			add("INSERT INTO alone SELECT day, workspace_id, %d, %s, %s FROM %s WHERE %s = %s_last GROUP BY day, workspace_id, %s", i, h, strings.Join(counts[:], ", "), from, h, h, h)
			add("INSERT INTO sets SELECT day, workspace_id, %d, %d, cells, count(*) FROM (SELECT day, workspace_id, list_sort(list_distinct(list(%s))) AS cells FROM visits SEMI JOIN (SELECT * FROM %s WHERE %s <> %s_last) USING (day, workspace_id, %s) GROUP BY day, workspace_id, %s) GROUP BY ALL",
				i, kind, h, from, h, h, who, who)
		}
	}
	const key = "day, workspace_id, cube"
	// Rows are stored in the order of their cells: those of a link lie together.
	add("CREATE TEMP TABLE numbered AS SELECT %s, h, row_number() OVER (PARTITION BY %s ORDER BY link_id, h)::INTEGER AS cell FROM (SELECT DISTINCT %s, link_id, h FROM cells)", key, key, key)
	var worth strings.Builder
	for i, c := range cubes {
		fmt.Fprintf(&worth, " WHEN %d THEN %d", i, c.worth)
	}
	add("CREATE TEMP TABLE new_cubes AS WITH sizes AS (SELECT %s, count(*) AS rows, sum(n) AS clicks FROM cells GROUP BY ALL), shared AS (SELECT %s, sum(len(cells)) AS rows FROM sets GROUP BY ALL) "+
		"SELECT %s FROM sizes LEFT JOIN shared USING (%s) WHERE (sizes.rows + coalesce(shared.rows, 0)) * %d <= clicks * CASE cube%s END", key, key, key, key, r.cubeShare, worth.String())
	names := columnNames(cubeDimensions)
	add("CREATE TEMP TABLE new_rcube AS WITH a AS (SELECT %s, h, sum(visitors)::BIGINT AS visitors, sum(uniques)::BIGINT AS uniques FROM alone GROUP BY ALL) "+
		"SELECT %s, cell, %s, bot, outcome, clicks, deduped, qr, CASE WHEN bot = 0 AND outcome = 'redirect' THEN coalesce(visitors, 0) ELSE 0 END AS visitors, CASE WHEN bot = 0 AND outcome = 'redirect' THEN coalesce(uniques, 0) ELSE 0 END AS uniques "+
		"FROM cells SEMI JOIN new_cubes USING (%s) JOIN numbered USING (%s, h) LEFT JOIN a USING (%s, h)", key, key, names, key, key, key)
	add("CREATE TEMP TABLE new_rset AS SELECT %s, kind, set_no, cell, n FROM (SELECT %s, kind, row_number() OVER (PARTITION BY %s ORDER BY kind, cells)::INTEGER AS set_no, unnest(cells) AS h, n FROM sets SEMI JOIN new_cubes USING (%s)) JOIN numbered USING (%s, h)",
		key, key, key, key, key)
	return list
}

// crowded returns the statement that makes the table of workspaces whose cubes of links would have too many rows. They are counted
// by a sample of their hashes, which is the same whenever it is taken.
func (r *rollup) crowded() string {
	var rows []string
	for _, c := range cubes {
		if c.ofLinks() {
			sample := max(1, r.linkCubeRows/linkRowsSample)
			rows = append(rows, fmt.Sprintf("SELECT %s AS day, workspace_id, count(DISTINCT hash(%[2]s, bot, outcome)) * %[3]d AS n FROM %[4]s WHERE hash(%[2]s, bot, outcome) %% %[3]d = 0 GROUP BY ALL",
				dayColumn, columnNames(c.dims), sample, r.src))
		}
	}
	return fmt.Sprintf("CREATE TEMP TABLE crowded AS SELECT day, workspace_id FROM (SELECT day, workspace_id, sum(n) OVER (PARTITION BY day ORDER BY n, workspace_id) AS upto FROM "+
		"(SELECT day, workspace_id, sum(n) AS n FROM (%s) GROUP BY ALL)) WHERE upto > %d", strings.Join(rows, " UNION ALL "), r.linkCubeRows)
}

// hash is the expression of a click's cell.
func (c cube) hash() string { return "hash(" + columnNames(c.dims) + ")" }

func hashName(i int) string { return "h" + strconv.Itoa(i) }

func columnNames(dims []analytics.Dimension) string {
	list := make([]string, len(dims))
	for i, d := range dims {
		list[i] = dimensionColumns[d]
	}
	return strings.Join(list, ", ")
}

// columnTypes are the columns with their types.
func columnTypes(dims []analytics.Dimension) string {
	list := make([]string, len(dims))
	for i, d := range dims {
		list[i] = dimensionColumns[d] + " VARCHAR"
		if d.Numeric() {
			list[i] = dimensionColumns[d] + " BIGINT"
		}
	}
	return strings.Join(list, ", ")
}
