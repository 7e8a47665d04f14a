package duckdb

import (
	"slices"
	"strings"

	"github.com/terselink/terse/internal/analytics"
)

// dayView says where the clicks of one UTC day are: in a hot table, in files of the
// record, or in both (late clicks of a day that was closed, or a file that was
// rebuilt); each click is in one of them. A day that is closed and has no late
// clicks is also in the rollups.
type dayView struct {
	day    int64
	hot    bool
	cold   []file
	rolled bool // the rollups hold all of it
	// outdated: they are of an earlier version.
	outdated bool
	swept    bool // some clicks of the files may have another class by now (sweep.go)
	// without is a condition of clicks of the files that are left out, on what the files say; "": none are.
	without string
	root    string
}

// source is what stands behind FROM for the clicks of a day.
type source struct {
	from string
	// text: outcomes are names, as in the record; otherwise numbers.
	text bool
}

// source returns the clicks of the day. A day in files alone is read as it is there, so
// that DuckDB can skip row groups by their statistics.
func (v dayView) source() source {
	switch {
	case len(v.cold) == 0:
		return source{from: tableName(v.day)}
	case !v.hot:
		return source{from: v.files(), text: true}
	}
	return source{from: "(SELECT * REPLACE (event_id::VARCHAR AS event_id) FROM " + tableName(v.day) +
		" UNION ALL BY NAME SELECT * REPLACE (" + outcomeNumber + " AS outcome) FROM " + v.files() + ")"}
}

// files returns the clicks of the day that are in files.
func (v dayView) files() string {
	from := readParquet(v.root, v.cold)
	if v.without != "" {
		from = "(SELECT * FROM " + from + " WHERE NOT (" + v.without + "))"
	}
	if v.swept {
		return sweptFrom(from, v.day)
	}
	return from
}

// filesAsHot returns the clicks of the files in the form of a hot table, which writeFile expects.
func (v dayView) filesAsHot() string {
	return "(SELECT * REPLACE (" + outcomeNumber + " AS outcome) FROM " + v.files() + ")"
}

// raw reports whether there are clicks to read; a day can be in the rollups alone.
func (v dayView) raw() bool { return v.hot || len(v.cold) > 0 }

// parquet reads files whose names are quoted. The folders dt= and hour= are not columns.
func parquet(quoted ...string) string {
	return "read_parquet([" + strings.Join(quoted, ", ") + "], hive_partitioning = false)"
}

// quote returns a text as a literal. It is for names of files and of nodes, not for what users send.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// outcomeNames are the outcomes in the order of their numbers, as the record spells them.
var outcomeNames = func() (names []string) {
	for i := range outcomes {
		names = append(names, analytics.Outcome.Text(uint64(i)))
	}
	return names
}()

var (
	outcomeList = "['" + strings.Join(outcomeNames, "', '") + "']"
	// outcomeNumber is the number of an outcome that the record names.
	outcomeNumber = "(list_position(" + outcomeList + ", outcome) - 1)::UTINYINT"
	// outcomeName is the inverse.
	outcomeName = outcomeList + "[outcome + 1]"
)

// view returns the days that have clicks or rollups, ascending, and the generation of that
// state: it grows whenever clicks move from one place to another.
func (d *DB) view() ([]dayView, int64) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	days := slices.Clone(d.days)
	for day := range d.cold {
		days = append(days, day)
	}
	for day := range d.rolled {
		days = append(days, day)
	}
	slices.Sort(days)
	days = slices.Compact(days)
	views := make([]dayView, len(days))
	for i, day := range days {
		_, hot := slices.BinarySearch(d.days, day)
		views[i] = dayView{day: day, hot: hot, cold: d.cold[day], rolled: d.rolled[day] && !hot, outdated: d.outdated[day] && !hot, swept: d.sweepDays[day], root: d.o.Record}
	}
	return views, d.generation
}

// within returns the days that a range touches.
func within(days []dayView, q analytics.Query) []dayView {
	from, to := dayOf(q.From), dayOf(q.To-1)
	i, _ := slices.BinarySearchFunc(days, from, func(v dayView, day int64) int { return int(v.day - day) })
	j, _ := slices.BinarySearchFunc(days, to+1, func(v dayView, day int64) int { return int(v.day - day) })
	return days[i:j]
}

// rawDays returns those with clicks to read.
func rawDays(days []dayView) []dayView {
	var raw []dayView
	for _, v := range days {
		if v.raw() {
			raw = append(raw, v)
		}
	}
	return raw
}
