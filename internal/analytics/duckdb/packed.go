package duckdb

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// The files of the record, version 2 (docs/format/record.md), hold clicks in fewer bytes than a table of a day: what follows
// from other columns is not stored, and texts that go together are one column, since a codec that sees a column at a time
// pays for each of them what they say together. Files of version 1 have the columns of a table, and are read as they are.
//
// recordVersion is in the footer, and packedSuffix at the end of the name, so that nothing need be opened to know.
const (
	recordVersion = "2"
	packedSuffix  = ".v2.parquet"
)

func (f file) packed() bool { return strings.HasSuffix(f.name, packedSuffix) }

// joined is a column of the record that holds several of a table, divided by the character 31, which no
// text of a click has (clicks.Enricher).
type joined struct {
	name string
	of   []string
	also string // one more behind them where it is not empty: files of those who keep none, and of earlier builds, do without
}

// Which belong together is what the files of believable clicks say: a city implies its country, a browser its
// system, and utm_ parameters the source. A User-Agent implies the browser, and a network its place.
var joinedColumns = []joined{
	{"place", []string{"country", "region", "city", "lang"}, "ip"},
	{"client", []string{"bot_name", "device", "os", "os_ver", "browser", "browser_ver"}, "user_agent"},
	{"origin", []string{"ref_host", "ref_path", "source", "utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content"}, ""},
}

func joinedWith(column string) (joined, int) {
	for _, j := range joinedColumns {
		if i := slices.Index(j.of, column); i >= 0 {
			return j, i
		}
		if j.also == column {
			return j, len(j.of)
		}
	}
	return joined{}, -1
}

// packing and unpacking are the SELECT lists that lead from rows in the form of a table of a day, with their ids as the
// text id, to those of the record, and back. packedNames are the columns of the record in order.
//
// An event id is the time, 12 bits and 62 bits (docs/format/spool.md). The time is in ts, and the two numbers are mostly 0 and
// the same for millions of clicks. An id that is not of this form is stored whole.
var packing, unpackings, packedNames = func() (pack string, out, names []string) {
	var in []string
	add := func(name, expr string) {
		in, names = append(in, fmt.Sprintf("%s AS %q", expr, name)), append(names, name)
	}
	for _, c := range columns {
		quoted := fmt.Sprintf("%q", c.name)
		j, i := joinedWith(c.name)
		switch {
		case c.name == "event_id":
			add("event_id", "CASE WHEN follows THEN NULL ELSE id END")
			out = append(out, "coalesce(event_id, printf('%08x-%04x-7%03x-%04x-%012x', epoch_ms(ts) >> 16, epoch_ms(ts) & 65535, id_seq, (id_run >> 48) | 32768, id_run & 281474976710655)) AS event_id")
			continue
		case c.name == "ts": // of a file it has become microseconds
			add("ts", "ts::TIMESTAMP_MS")
			add("id_seq", "CASE WHEN follows THEN ('0x' || substr(id, 16, 3))::INTEGER ELSE 0 END")
			add("id_run", "CASE WHEN follows THEN (('0x' || substr(id, 20, 4) || right(id, 12))::UBIGINT & 4611686018427387903)::BIGINT ELSE 0 END")
		case c.name == "visitor": // programs have none: nothing is stored
			add("visitor", "nullif(visitor, 0)")
			quoted = "coalesce(visitor, 0) AS visitor"
		case c.name == "outcome":
			add("outcome", outcomeName)
		case c.typ == "UTINYINT" || c.typ == "USMALLINT": // Athena knows no unsigned types
			add(c.name, quoted+"::INTEGER")
		case i == 0:
			expr := strings.Join(quotedNames(j.of), " || chr(31) || ")
			if j.also != "" {
				expr += fmt.Sprintf(" || CASE WHEN %[1]q = '' THEN '' ELSE chr(31) || %[1]q END", j.also)
			}
			add(j.name, expr)
			fallthrough
		case i > 0:
			quoted = fmt.Sprintf("split_part(%s, chr(31), %d) AS %q", j.name, i+1, c.name)
		default:
			add(c.name, quoted)
		}
		out = append(out, quoted)
	}
	return strings.Join(in, ", "), out, names
}()

// unpacking makes all columns of a table of a day; unpackings has one for each of them.
var unpacking = strings.Join(unpackings, ", ")

// narrowed returns a query that makes of files only the columns that it names: 30 days of 36 expressions each take DuckDB longer
// to plan than a link of a month to read. A name that means something else costs only time. The query must not
// hand out all columns.
func narrowed(query string) string {
	rest := strings.ReplaceAll(query, unpacking, "")
	if len(rest) == len(query) {
		return query
	}
	named := map[string]bool{"ts": true}
	for word := range strings.FieldsFuncSeq(rest, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		named[word] = true
	}
	var list []string
	for i, c := range columns {
		if named[c.name] {
			list = append(list, unpackings[i])
		}
	}
	return strings.ReplaceAll(query, unpacking, strings.Join(list, ", "))
}

func quotedNames(names []string) []string {
	list := make([]string, len(names))
	for i, n := range names {
		list[i] = fmt.Sprintf("%q", n)
	}
	return list
}

// packedFrom returns the query of clicks, in the form of a table of a day, as the record has them. Those of a link lie together.
func packedFrom(from, cond string) string {
	if cond != "" {
		from += " WHERE " + cond
	}
	const follows = "left(id, 15) = printf('%08x-%04x-7', epoch_ms(ts) >> 16, epoch_ms(ts) & 65535) AND substr(id, 20, 1) IN ('8', '9', 'a', 'b') AS follows"
	return "SELECT " + packing + " FROM (SELECT *, " + follows + " FROM (SELECT *, event_id::VARCHAR AS id FROM " + from + ")) ORDER BY workspace_id, link_id, ts, id_seq, id_run"
}

// readParquet returns the clicks of files of the record with the columns of a table of a day; outcomes are names, event ids texts.
func readParquet(root string, files []file) string {
	var packed, plain []string // quoted
	for _, f := range files {
		if p := quote(f.path(root)); f.packed() {
			packed = append(packed, p)
		} else {
			plain = append(plain, p)
		}
	}
	unpacked := unpackedFrom(packed)
	if len(plain) == 0 {
		return unpacked
	}
	whole := "SELECT *, '' AS user_agent, '' AS ip FROM " + parquet(plain...)
	if len(packed) == 0 {
		return "(" + whole + ")"
	}
	return "(" + whole + " UNION ALL BY NAME SELECT * FROM " + unpacked + ")"
}

// readPacked is readParquet of one file of the present version, whatever its name.
func readPacked(path string) string { return unpackedFrom([]string{quote(path)}) }

func unpackedFrom(quoted []string) string {
	return "(SELECT " + unpacking + " FROM " + parquet(quoted...) + ")"
}
