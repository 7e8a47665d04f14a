package clickhouse

import (
	"strings"
)

// dialect is all that differs between versions of ClickHouse. legacy is proven on 18.16, the oldest that
// works; modern is for 22.8 and later.
type dialect struct {
	name string
	// settings of every statement. Servers before 20 know numbers only, and refuse names that they do not know.
	settings map[string]any
	modern   bool
	// mutations is where changes of rows are listed, with the columns database, table, is_done and latest_fail_reason.
	mutations string
}

var (
	legacy = &dialect{name: "legacy", mutations: "(SELECT database, table, is_done, '' AS latest_fail_reason FROM system.mutations)", settings: map[string]any{
		"max_query_size": maxQuery, "max_ast_elements": maxElements, "enable_optimize_predicate_expression": 0, "optimize_move_to_prewhere": 1,
		"max_bytes_before_external_group_by": maxGroupBytes,
	}}
	modern = &dialect{name: "modern", modern: true, mutations: "system.mutations", settings: map[string]any{
		"max_query_size": maxQuery, "max_ast_elements": maxElements, "max_expanded_ast_elements": 10 * maxElements,
		// Zero means the same in joins as in 18.16, and results come in the types that statements name.
		"join_use_nulls": 0, "transform_null_in": 0, "prefer_column_name_to_alias": 1, "async_insert": 0,
		// Inserts are made once by event ids. Two blocks that look alike are two blocks.
		"insert_deduplicate": 0, "max_bytes_before_external_group_by": maxGroupBytes,
	}}
)

const (
	maxQuery    = 16 << 20 // bytes of a statement: 20 filters of 100 values of 2 KiB
	maxElements = 1 << 20
	// maxGroupBytes is the memory of a GROUP BY beyond which the server uses its disk.
	maxGroupBytes = 512 << 20
)

// dialectOf chooses by the version that the server gives: 22.8 is the first that is spoken to as modern.
func dialectOf(major, minor uint64) *dialect {
	if major > 22 || major == 22 && minor >= 8 {
		return modern
	}
	return legacy
}

// column returns the type of a column in CREATE TABLE. kind is one of those of columns.
func (d *dialect) column(kind string) string {
	if d.modern {
		switch kind {
		case kindName:
			return "LowCardinality(String)"
		case kindText:
			return "String CODEC(ZSTD(3))"
		case kindMillis:
			return "Int64 CODEC(DoubleDelta, ZSTD(1))"
		case kindID:
			return "UInt64 CODEC(ZSTD(1))"
		}
	}
	switch kind {
	case kindName, kindText:
		return "String"
	case kindMillis:
		return "Int64"
	case kindID:
		return "UInt64"
	}
	return kind
}

// timestamp returns the expression of the column ts, for people: in whole seconds where there is nothing finer.
func (d *dialect) timestamp() string {
	if d.modern {
		return "fromUnixTimestamp64Milli(ts_ms, 'UTC')"
	}
	return "toDateTime(intDiv(ts_ms, 1000), 'UTC')"
}

// tableSettings ends CREATE TABLE.
func (d *dialect) tableSettings() string {
	if d.modern {
		// An insert that was answered is on the disk: the place in the spool moves on after it.
		return " SETTINGS index_granularity = 8192, min_bytes_for_wide_part = 10485760, fsync_after_insert = 1, fsync_part_directory = 1"
	}
	return " SETTINGS index_granularity = 8192"
}

// mutation returns an ALTER that changes rows, which runs in the background (waitMutations).
func (d *dialect) mutation(table, action string) string { return "ALTER TABLE " + table + " " + action }

// mutationsLeft returns a query for how many changes of a table are not done, and why one of them last failed: "" if none
// did. 18.16 does not tell; there one that fails is waited for until the deadline.
func (d *dialect) mutationsLeft(table string) string {
	return "SELECT count(), max(latest_fail_reason) FROM " + d.mutations + " WHERE database = currentDatabase() AND table = " + literal(table) + " AND is_done = 0"
}

// lower returns the expression of a text in lower case.
func (d *dialect) lower(expr string) string { return "lowerUTF8(" + expr + ")" }

// literal returns a text as a literal. The server reads it byte by byte: it need not be UTF-8.
func literal(s string) string {
	var b strings.Builder
	b.Grow(len(s) + 2)
	b.WriteByte('\'')
	for i := range len(s) {
		switch c := s[i]; c {
		case '\'', '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case 0:
			b.WriteString(`\0`)
		case '\n':
			b.WriteString(`\n`)
		case '\r':
			b.WriteString(`\r`)
		case '\t':
			b.WriteString(`\t`)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('\'')
	return b.String()
}
