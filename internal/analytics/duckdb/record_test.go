package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	ddb "github.com/duckdb/duckdb-go/v2"
	"github.com/google/go-cmp/cmp"
	pq "github.com/parquet-go/parquet-go"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
)

// inSpan is a moment in the span of the generated events: the days before are closed, the others are not.
var inSpan = time.Date(2026, 10, 8, 10, 30, 0, 0, time.UTC)

func maintain(t testing.TB, d *DB) {
	t.Helper()
	if err := d.maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// closed returns an engine whose past days are in the record.
func closed(t *testing.T, o Options, events []clicks.Event) *DB {
	t.Helper()
	o.Clock = leapsFrom(inSpan)
	if o.scopeRows == 0 {
		o.scopeRows = 20
	}
	o.SweepLinks = -1 // the reference knows none; TestSweepsAgree
	d := open(t, o)
	ingest(t, d, &sliceSource{events: events})
	maintain(t, d)
	return d
}

// TestConformanceRecord holds every way in which clicks can be stored to the same reference: closed days in
// rollups and files beside open ones, late clicks, closed again, a database that was
// lost and made again, and one whose totals are merged.
func TestConformanceRecord(t *testing.T) {
	ways := map[string]func(t *testing.T, events []clicks.Event) *DB{
		"closed": func(t *testing.T, events []clicks.Event) *DB {
			d := closed(t, Options{}, events)
			if len(events) > 1000 && (len(d.rolled) != 18 || len(d.days) == 0) {
				t.Errorf("%d days are closed, %d hot", len(d.rolled), len(d.days))
			}
			if len(events) > 1000 && d.merged < 0 {
				t.Error("no totals were merged")
			}
			return d
		},
		"late": func(t *testing.T, events []clicks.Event) *DB {
			d := closed(t, Options{}, events[:len(events)/2])
			late(t, d, events)
			return d
		},
		"closed again": func(t *testing.T, events []clicks.Event) *DB {
			shuffled := slices.Clone(events)
			for i := range shuffled { // some of every day come late
				j := (i * 7919) % len(shuffled)
				shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
			}
			d := closed(t, Options{}, shuffled[:len(events)/3*2])
			late(t, d, shuffled)
			maintain(t, d)
			return d
		},
		"rebuilt": func(t *testing.T, events []clicks.Event) *DB {
			o := Options{Dir: t.TempDir(), Record: t.TempDir(), Clock: leapsFrom(inSpan), MemoryLimit: 512 << 20, SweepLinks: -1, scopeRows: 20}
			first, err := Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			ingest(t, first, &sliceSource{events: events})
			maintain(t, first)
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			if err := SetAside(o.Dir, inSpan); err != nil {
				t.Fatal(err)
			}
			d := open(t, o)
			if len(events) > 1000 && d.Status(t.Context()).Rows < int64(len(events)/4) {
				t.Errorf("the record gave %d of %d clicks", d.Status(t.Context()).Rows, len(events))
			}
			ingest(t, d, &sliceSource{events: events}) // the whole spool again
			maintain(t, d)
			return d
		},
	}
	events := 10_000
	if testing.Short() {
		events = 4000
	}
	for name, way := range ways {
		if testing.Short() && name != "closed again" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			enginetest.Run(t, enginetest.Options{Events: events, Queries: 40, New: func(t *testing.T, events []clicks.Event) analytics.Engine { return way(t, events) }})
		})
	}
}

// late reads the events that d has not read.
func late(t *testing.T, d *DB, events []clicks.Event) {
	t.Helper()
	ingest(t, d, &sliceSource{events: events, at: int(d.Position().Offset)})
}

// TestRollupsAreUsed: the conformance of rollups would prove nothing if no query read them.
func TestRollupsAreUsed(t *testing.T) {
	d := closed(t, Options{}, enginetest.Events(42, 20_000))
	q, err := analytics.Query{Workspace: enginetest.Workspace, From: enginetest.SpanFrom, To: enginetest.SpanTo, Interval: analytics.Day, By: analytics.Country}.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	days, _ := d.view()
	s, err := d.planSummary(t.Context(), days, q)
	if err != nil || len(s.rolled) < 15 {
		t.Errorf("summary: %d days from rollups, %v", len(s.rolled), err)
	}
	b, err := d.planBreakdown(t.Context(), days, q)
	if err != nil || len(b.rolled) < 15 {
		t.Errorf("breakdown: %d days from rollups, %v", len(b.rolled), err)
	}
	for _, zone := range []string{"UTC", "Europe/Berlin", "Asia/Kathmandu"} {
		z := q
		if z.Zone, err = time.LoadLocation(zone); err != nil {
			t.Fatal(err)
		}
		p, err := d.planTimeseries(t.Context(), days, z, z.Buckets())
		if err != nil || len(p.rolled) < 15 {
			t.Errorf("days in %s: %d days from rollups, %v", zone, len(p.rolled), err)
		}
	}
	q.Filters = []analytics.Filter{{Dim: analytics.Device, Values: []string{"mobile"}}}
	if p, err := d.planSummary(t.Context(), days, q); err != nil || len(p.rolled) < 15 {
		t.Errorf("one filter: %d days from rollups, %v", len(p.rolled), err)
	}
	q.Filters = append(q.Filters, analytics.Filter{Dim: analytics.Country, Values: []string{"DE"}})
	if p, err := d.planSummary(t.Context(), days, q); err != nil || len(p.rolled) != 0 {
		t.Errorf("crossed filters: %d days from rollups, %v", len(p.rolled), err)
	}
}

// TestManyValues: what is beyond the largest values of a dimension is in other and total.
func TestManyValues(t *testing.T) {
	events := enginetest.Events(42, 8000)
	d := closed(t, Options{topValues: 3}, events)
	ref := enginetest.NewReference(events)
	q := everything()
	q.By, q.Limit = analytics.Link, 2
	want, _ := ref.Breakdown(t.Context(), q)
	got, err := d.Breakdown(t.Context(), q)
	if err != nil || got.Total != want.Total || got.Other != got.Total-got.Data[0].Clicks-got.Data[1].Clicks || got.Values > want.Values {
		t.Errorf("got %+v, want the total of %+v; %v", got, want, err)
	}
	q.Filters = []analytics.Filter{{Dim: analytics.Link, Values: []string{want.Data[1].Value}}}
	want, _ = ref.Breakdown(t.Context(), q)
	if got, err := d.Breakdown(t.Context(), q); err != nil || !cmp.Equal(want, got) {
		t.Errorf("one value (-want +got):\n%s%v", cmp.Diff(want, got), err)
	}
}

// recordFiles lists a record, without the folders of rollups.
func recordFiles(t *testing.T, root string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && !strings.Contains(p, "/"+rollupsFolder+"/") {
			rel, _ := filepath.Rel(root, p)
			names = append(names, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestHours: closed hours of the current day are exported once, late clicks in a file of their own,
// and the names are the same wherever the same clicks are exported.
func TestHours(t *testing.T) {
	events := enginetest.Events(7, 30_000)
	events = slices.DeleteFunc(events, func(ev clicks.Event) bool { return dayOf(ev.At) != dayOf(terse.MillisOf(inSpan)) })
	record := t.TempDir()
	d := closed(t, Options{Record: record}, events)
	names := recordFiles(t, record)
	if len(names) != 10 || !strings.HasPrefix(names[9], "clicks/dt=2026-10-08/hour=09/n1-01") || !strings.HasSuffix(names[9], ".parquet") {
		t.Fatalf("exported %q, want the hours 0 to 9", names)
	}
	if got := d.Recorded(); got.Offset >= int64(len(events)) || got.Offset == 0 {
		t.Errorf("recorded up to %d of %d: the last hour is not over", got.Offset, len(events))
	}
	maintain(t, d)
	if again := recordFiles(t, record); !slices.Equal(names, again) {
		t.Errorf("exported again: %q", again)
	}
	other := t.TempDir()
	closed(t, Options{Record: other}, events)
	if diff := cmp.Diff(names, recordFiles(t, other)); diff != "" {
		t.Errorf("other names for the same clicks:\n%s", diff)
	}
	lateOne := events[0]
	lateOne.ID[15]++
	d.lookedAt = map[dayHour]time.Time{} // time has passed
	ingest(t, d, &sliceSource{events: append(slices.Clone(events), lateOne), at: len(events)})
	maintain(t, d)
	if n := len(recordFiles(t, record)); n != 11 {
		t.Errorf("%d files with a late click, want 11", n)
	}
	// On the next day all of it is one file.
	d.o.Clock = leapsFrom(inSpan.Add(24 * time.Hour))
	d.seen(terse.MillisOf(inSpan.Add(24 * time.Hour)))
	maintain(t, d)
	names = recordFiles(t, record)
	if len(names) != 1 || !strings.HasPrefix(names[0], "clicks/dt=2026-10-08/hour=24/") {
		t.Errorf("after the day: %q", names)
	}
	if d.Recorded() != d.Position() {
		t.Errorf("recorded up to %v of %v", d.Recorded(), d.Position())
	}
	if st := d.Status(t.Context()); st.Rows != int64(len(events)+1) || len(d.tables()) != 0 {
		t.Errorf("%+v", st)
	}
}

// TestPlainDuckDB: the files open in a DuckDB that knows nothing of us, with types that Athena has, and the view that
// docs/athena.md shows says what was clicked.
func TestPlainDuckDB(t *testing.T) {
	record := t.TempDir()
	events := enginetest.Events(42, 5000)
	for i := range events {
		if i%7 == 0 { // an id that its time does not tell
			events[i].ID[0]++
		}
	}
	d := closed(t, Options{Record: record}, events)
	db, err := sql.Open("duckdb", "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	doc, err := os.ReadFile("../../../docs/athena.md")
	if err != nil {
		t.Fatal(err)
	}
	_, view, _ := strings.Cut(string(doc), "```sql\nCREATE VIEW")
	view, _, _ = strings.Cut(view, "```")
	if _, err := db.ExecContext(t.Context(), "CREATE VIEW"+strings.Replace(view, "data/record", record, 1)); err != nil {
		t.Fatal(err)
	}
	each := func(q string, fn func(r *sql.Rows) error) {
		t.Helper()
		rows, err := db.QueryContext(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			if err := fn(rows); err != nil {
				t.Fatal(err)
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	types := map[string]string{}
	each("SELECT column_name, column_type FROM (DESCRIBE clicks)", func(r *sql.Rows) error {
		var name, typ string
		err := r.Scan(&name, &typ)
		types[name] = typ
		return err
	})
	var list []string
	for _, c := range columns {
		if got := types[c.name]; got == "" || strings.HasPrefix(got, "U") {
			t.Errorf("%s has the type %q", c.name, got)
		}
		list = append(list, fmt.Sprintf("%q::VARCHAR", c.name))
	}
	if types["dt"] != "DATE" || types["hour"] == "" {
		t.Errorf("partitions: dt is %s, hour is %s", types["dt"], types["hour"])
	}
	// The same as the table of a day would say of the event.
	want := map[string]*clicks.Event{}
	for i := range events {
		id := ddb.UUID(events[i].ID)
		want[id.String()] = &events[i]
	}
	n := 0
	row, ptrs := make([]string, len(columns)), make([]any, len(columns))
	for i := range row {
		ptrs[i] = &row[i]
	}
	each("SELECT "+strings.Join(list, ", ")+" FROM clicks WHERE ts::DATE = dt", func(r *sql.Rows) error {
		if err := r.Scan(ptrs...); err != nil {
			return err
		}
		ev := want[row[0]]
		if ev == nil {
			return fmt.Errorf("no event %s", row[0])
		}
		n++
		for i, c := range columns[1:] {
			var text string
			switch {
			case c.name == "ts":
				text = strings.TrimSuffix(strings.TrimRight(ev.At.Time().Format("2006-01-02 15:04:05.000"), "0"), ".")
			case c.name == "outcome":
				text = outcomeNames[ev.Outcome]
			case c.text != nil:
				text = c.text(ev)
			default:
				text = fmt.Sprint(int64(c.number(ev)))
			}
			if row[i+1] != text {
				t.Fatalf("%s of %s is %q, want %q", c.name, row[0], row[i+1], text)
			}
		}
		return nil
	})
	if cold := d.coldRows.Load(); int64(n) < cold || n < 1000 {
		t.Errorf("%d rows, %d are in closed days", n, cold)
	}
}

// TestNarrowed: a query makes the columns that it names, whatever stands around them.
func TestNarrowed(t *testing.T) {
	v := dayView{day: 1, cold: []file{{name: "a" + packedSuffix}}}
	q := narrowed("SELECT sum(weight) FROM " + v.source().from + ` WHERE "trigger" = 'qr' AND os IN ('iOS')`)
	for name, want := range map[string]bool{"weight": true, `"trigger"`: true, `AS "os"`: true, `AS "os_ver"`: false, "event_id": false, `AS "country"`: false, "visitor": false} {
		if strings.Contains(q, name) != want {
			t.Errorf("%s: %v in %s", name, !want, q)
		}
	}
	if q := "SELECT a FROM clicks_20261008"; narrowed(q) != q {
		t.Error("a query of a table has changed")
	}
}

// TestVersion1: files of the first version are read beside those of this one, and a day is written anew in this one.
func TestVersion1(t *testing.T) {
	o := Options{Dir: t.TempDir(), Record: t.TempDir(), Clock: leapsFrom(inSpan), MemoryLimit: 512 << 20, SweepLinks: -1, scopeRows: 20}
	events := enginetest.Events(42, 4000)
	d, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ingest(t, d, &sliceSource{events: events})
	maintain(t, d)
	old := 0
	for _, name := range recordFiles(t, o.Record) {
		f := file{name: name}
		keys, err := d.parquetKeys(t.Context(), f.path(o.Record))
		if err != nil {
			t.Fatal(err)
		}
		keys["terse_schema"] = "1"
		to := strings.TrimSuffix(f.path(o.Record), packedSuffix) + ".parquet"
		if err := d.copyTo(t.Context(), d.readers, "SELECT * FROM "+readParquet(o.Record, []file{f}), to, keys); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(f.path(o.Record)); err != nil {
			t.Fatal(err)
		}
		old++
	}
	if err := errors.Join(d.Close(), SetAside(o.Dir, inSpan)); err != nil || old < 15 {
		t.Fatal(old, err)
	}
	d = open(t, o)
	ingest(t, d, &sliceSource{events: events})
	check := func(step string) {
		t.Helper()
		want, _ := enginetest.NewReference(events).Summary(t.Context(), everything())
		got, err := d.Summary(t.Context(), everything())
		if got.LagMs = 0; err != nil || !cmp.Equal(want, got) {
			t.Errorf("%s: %v %s", step, err, cmp.Diff(want, got))
		}
	}
	check("adopted")
	late := events[0]
	late.ID[15] ^= 0x55
	events = append(events, late)
	ingest(t, d, &sliceSource{events: events, at: len(events) - 1})
	check("late")
	maintain(t, d)
	check("closed")
	if cold := d.cold[dayOf(late.At)]; len(cold) != 1 || !cold[0].packed() {
		t.Errorf("the day is in %+v", cold)
	}
}

// TestOtherReader: the files open in a reader of Parquet that has nothing to do with DuckDB.
func TestOtherReader(t *testing.T) {
	record := t.TempDir()
	d := closed(t, Options{Record: record}, enginetest.Events(42, 3000))
	var rows int64
	for _, name := range recordFiles(t, record) {
		f, err := os.Open(filepath.Join(record, name))
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		p, err := pq.OpenFile(f, info.Size())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i, c := range p.Schema().Columns() {
			if c[0] != packedNames[i] {
				t.Fatalf("column %d of %s is %s, want %s", i, name, c[0], packedNames[i])
			}
		}
		r := pq.NewReader(p)
		for read := int64(0); read < p.NumRows(); read++ {
			if err := r.Read(&struct {
				TS int64 `parquet:"ts"`
			}{}); err != nil {
				t.Fatalf("%s: row %d: %v", name, read, err)
			}
			rows++
		}
		if err := errors.Join(r.Close(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if want := d.coldRows.Load(); rows < want || want == 0 {
		t.Errorf("%d rows, want %d", rows, want)
	}
}

// TestMigrate: a file of the first version is brought to the present schema, with every click.
func TestMigrate(t *testing.T) {
	dir := t.TempDir()
	events := enginetest.Events(42, 4000)
	d, err := Open(t.Context(), Options{Dir: dir, Clock: leapsFrom(inSpan)})
	if err != nil {
		t.Fatal(err)
	}
	ingest(t, d, &sliceSource{events: events})
	// What version 1 had: other types, fewer tables.
	list := []string{"BEGIN"}
	for _, day := range d.tables() {
		for name, typ := range map[string]string{"workspace_id": "UINTEGER", "link_id": "UBIGINT", "campaign_id": "UBIGINT", "asn": "UINTEGER"} {
			list = append(list, fmt.Sprintf("ALTER TABLE %s ALTER %s TYPE %s", tableName(day), name, typ))
		}
		list = append(list, fmt.Sprintf("ALTER TABLE %s ALTER visitor TYPE UBIGINT USING (CASE WHEN visitor < 0 THEN (visitor::HUGEINT + 18446744073709551616)::UBIGINT ELSE visitor::UBIGINT END)", tableName(day)))
	}
	for _, table := range append([]string{"files", "exported", "rolled", "link_totals"}, rollupTables...) {
		list = append(list, "DROP TABLE "+table)
	}
	for _, q := range append(list, `UPDATE meta SET "value" = '1' WHERE "key" = 'schema'`, "COMMIT") {
		if err := d.exec(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, Options{Dir: dir, Clock: leapsFrom(inSpan), scopeRows: 20})
	for _, step := range []string{"migrated", "closed"} {
		want, _ := enginetest.NewReference(events).Summary(t.Context(), everything())
		got, err := d.Summary(t.Context(), everything())
		if got.LagMs = 0; err != nil || !cmp.Equal(want, got) {
			t.Errorf("%s: %v %s", step, err, cmp.Diff(want, got))
		}
		d.seen(terse.MillisOf(inSpan))
		maintain(t, d)
	}
	if len(d.rolled) < 15 {
		t.Errorf("only %d days were closed", len(d.rolled))
	}
}

// TestReconcile: files that nothing refers to go aside, half-written ones are removed, and an export
// whose file is gone is made again.
func TestReconcile(t *testing.T) {
	o := Options{Dir: t.TempDir(), Record: t.TempDir(), Clock: leapsFrom(inSpan), MemoryLimit: 512 << 20}
	events := enginetest.Events(42, 20_000)
	d, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ingest(t, d, &sliceSource{events: events})
	maintain(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	names := recordFiles(t, o.Record)
	last := names[len(names)-1] // an hour of the current day
	if !strings.Contains(last, "dt=2026-10-08") {
		t.Fatalf("exported %q", names)
	}
	stray := filepath.Join(o.Record, filepath.Dir(last), "stray.parquet")
	for from, to := range map[string]string{filepath.Join(o.Record, last): stray} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(stray+tmpSuffix, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	d = open(t, o)
	d.seen(terse.MillisOf(inSpan))
	maintain(t, d)
	got := recordFiles(t, o.Record)
	if aside, _ := filepath.Glob(filepath.Join(o.Record, asideFolder, "*stray.parquet")); len(aside) != 1 {
		t.Errorf("%q went aside", aside)
	}
	got = slices.DeleteFunc(got, func(s string) bool { return strings.HasPrefix(s, asideFolder) })
	if diff := cmp.Diff(names, got); diff != "" {
		t.Errorf("the record (-before +after):\n%s", diff)
	}
	if st := d.Status(t.Context()); st.Rows != int64(len(events)) {
		t.Errorf("%+v", st)
	}
}

// without returns the events that keep is true for.
func without(events []clicks.Event, drop func(*clicks.Event) bool) []clicks.Event {
	return slices.DeleteFunc(slices.Clone(events), func(ev clicks.Event) bool { return drop(&ev) })
}

// TestErase: the clicks of a link and of a visitor are gone from every number, from the files, and from a
// database made again from the record and the spool.
func TestErase(t *testing.T) {
	o := Options{Dir: t.TempDir(), Record: t.TempDir(), Clock: leapsFrom(inSpan), MemoryLimit: 512 << 20, SweepLinks: -1, scopeRows: 20}
	events := enginetest.Events(42, 20_000)
	now := terse.MillisOf(inSpan)
	events = without(events, func(ev *clicks.Event) bool { return ev.At >= now })
	d, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ingest(t, d, &sliceSource{events: events})
	maintain(t, d)
	some := events[slices.IndexFunc(events, func(ev clicks.Event) bool {
		return ev.Workspace == enginetest.Workspace && ev.Link != 0 && ev.Visitor != 0
	})]
	link, visitor := some.Link, some.Visitor
	byLink := func(ev *clicks.Event) bool { return ev.Workspace == enginetest.Workspace && ev.Link == link }
	byVisitor := func(ev *clicks.Event) bool { return ev.Workspace == enginetest.Workspace && ev.Visitor == visitor }
	left := without(events, byLink)
	n, err := d.Erase(t.Context(), Erasure{Workspace: enginetest.Workspace, Link: link})
	if err != nil || n != int64(len(events)-len(left)) {
		t.Fatalf("%d erased, want %d; %v", n, len(events)-len(left), err)
	}
	left = without(left, byVisitor)
	if _, err := d.Erase(t.Context(), Erasure{Workspace: enginetest.Workspace, Visitor: visitor}); err != nil {
		t.Fatal(err)
	}
	check := func(step string, d *DB) {
		t.Helper()
		ref := enginetest.NewReference(left)
		want, _ := ref.Summary(t.Context(), everything())
		got, err := d.Summary(t.Context(), everything())
		if got.LagMs = 0; err != nil || !cmp.Equal(want, got) {
			t.Errorf("%s: %v %s", step, err, cmp.Diff(want, got))
		}
		totals, err := d.LinkTotals(t.Context(), enginetest.Workspace, []terse.LinkNumber{link, events[5].Link})
		wantTotals, _ := ref.LinkTotals(t.Context(), enginetest.Workspace, []terse.LinkNumber{link, events[5].Link})
		if err != nil || !cmp.Equal(wantTotals, totals) {
			t.Errorf("%s: totals %v, want %v; %v", step, totals, wantTotals, err)
		}
		if st := d.Status(t.Context()); st.Rows != int64(len(left)) {
			t.Errorf("%s: %d rows, want %d", step, st.Rows, len(left))
		}
	}
	check("erased", d)
	var inFiles int64
	if err := d.scan(t.Context(), "SELECT count(*) FROM "+parquet(quote(filepath.Join(o.Record, "clicks/*/*/*.parquet")))+" WHERE "+erasureCond(Erasure{Workspace: enginetest.Workspace, Link: link}),
		func(r *sql.Rows) error { return r.Scan(&inFiles) }); err != nil || inFiles != 0 {
		t.Errorf("%d clicks are still in the record; %v", inFiles, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := SetAside(o.Dir, inSpan); err != nil {
		t.Fatal(err)
	}
	d = open(t, o)
	ingest(t, d, &sliceSource{events: events})
	check("made again", d)
	if _, err := d.Erase(t.Context(), Erasure{Workspace: enginetest.Workspace}); terse.ErrorCode(err) != terse.CodeInvalid {
		t.Errorf("an erasure of everything: %v", err)
	}
}

// TestEraseInSteps: an erasure that fails at one day has done those before, and goes on; that of today lets the spool be
// trimmed again as soon as the hours that are over are exported again.
func TestEraseInSteps(t *testing.T) {
	events := enginetest.Events(42, 5000)
	now := terse.MillisOf(inSpan)
	events = without(events, func(ev *clicks.Event) bool { return ev.At >= now })
	d := closed(t, Options{}, events)
	today := dayOf(now)
	e := Erasure{Workspace: enginetest.Workspace}
	byDay := map[int64]int64{}
	for i := range events {
		ev := &events[i]
		if e.Link == 0 && ev.Workspace == e.Workspace && dayOf(ev.At) == today {
			e.Link = ev.Link
		}
	}
	var all int64
	for i := range events {
		if ev := &events[i]; ev.Workspace == e.Workspace && ev.Link == e.Link {
			byDay[dayOf(ev.At)]++
			all++
		}
	}
	days := slices.Sorted(maps.Keys(byDay))
	if len(days) < 3 || days[len(days)-1] != today {
		t.Fatalf("clicks on %v", days)
	}
	name := d.coldFiles(days[1])[0].path(d.o.Record)
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data[:10], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Erase(t.Context(), e); err == nil {
		t.Fatal("a day that cannot be read was erased")
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	recorded := d.Recorded()
	if n, err := d.Erase(t.Context(), e); err != nil || n != all-byDay[days[0]] {
		t.Errorf("the second time %d clicks went, of %d by days %v; %v", n, all, byDay, err)
	}
	if p := d.Recorded(); p != (clicks.Position{}) {
		t.Errorf("recorded up to %v while hours are to be exported again", p)
	}
	maintain(t, d)
	if p := d.Recorded(); p != recorded {
		t.Errorf("recorded up to %v, before the erasure %v", p, recorded)
	}
}

// TestAbandon: changes that cannot be made leave no file behind.
func TestAbandon(t *testing.T) {
	events := enginetest.Events(42, 2000)
	d := open(t, Options{Clock: leapsFrom(inSpan)})
	ingest(t, d, &sliceSource{events: events})
	day := dayOf(events[0].At)
	before := recordFiles(t, d.o.Record)
	if err := d.replaceDays(t.Context(), d.closing(day, ""), change{day: day + 1, from: "nothing"}); err == nil {
		t.Fatal("clicks came from nothing")
	}
	if after := recordFiles(t, d.o.Record); !cmp.Equal(before, after) {
		t.Error(cmp.Diff(before, after))
	}
}

// TestRetention: raw clicks go when their time is over, by workspace and for bots earlier; the numbers stay, also
// in a database that is made again; then the rollups go.
func TestRetention(t *testing.T) {
	o := Options{Dir: t.TempDir(), Record: t.TempDir(), Clock: leapsFrom(inSpan), MemoryLimit: 512 << 20, SweepLinks: -1, scopeRows: 20}
	events := enginetest.Events(42, 20_000)
	d, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ingest(t, d, &sliceSource{events: events})
	maintain(t, d)
	want, err := d.Summary(t.Context(), everything())
	if err != nil {
		t.Fatal(err)
	}
	today := dayOf(terse.MillisOf(inSpan))
	const other = enginetest.Workspace + 1
	d.SetRetention(Retention{Default: Terms{Raw: 10, Bots: 5}, Workspaces: map[terse.WorkspaceID]Terms{other: {Raw: 14}}})
	left := without(events, func(ev *clicks.Event) bool {
		age := today - dayOf(ev.At)
		if ev.Workspace == other {
			return age > 14
		}
		return age > 10 || age > 5 && ev.Bot != clicks.Human
	})
	check := func(step string, d *DB) {
		t.Helper()
		maintain(t, d)
		if st := d.Status(t.Context()); st.Rows != int64(len(left)) {
			t.Errorf("%s: %d clicks are kept, want %d", step, st.Rows, len(left))
		}
		got, err := d.Summary(t.Context(), everything())
		if want.LagMs, got.LagMs = 0, 0; err != nil || !cmp.Equal(want, got) {
			t.Errorf("%s: the numbers changed: %v %s", step, err, cmp.Diff(want, got))
		}
	}
	check("pruned", d)
	check("again", d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := SetAside(o.Dir, inSpan); err != nil {
		t.Fatal(err)
	}
	d = open(t, o)
	ingest(t, d, &sliceSource{events: events})
	check("made again", d)
	refused := d.Rejected() // clicks of days whose numbers alone are left
	before, err := d.LinkTotals(t.Context(), enginetest.Workspace, []terse.LinkNumber{events[0].Link})
	if err != nil || len(before) == 0 {
		t.Fatal(before, err)
	}

	lateOne := events[0] // of a day that has rollups alone
	ingest(t, d, &sliceSource{events: append(slices.Clone(events), lateOne), at: len(events)})
	if d.Rejected() != refused+1 {
		t.Errorf("%d rejected, then %d", refused, d.Rejected())
	}
	d.SetRetention(Retention{Default: Terms{Raw: 10, Bots: 5}, Rollups: 16})
	maintain(t, d)
	if d.rolled[today-17] || !d.rolled[today-16] {
		t.Error("rollups of 16 days ago are kept, older ones are not")
	}
	after, err := d.LinkTotals(t.Context(), enginetest.Workspace, []terse.LinkNumber{events[0].Link})
	if err != nil || !cmp.Equal(before, after) {
		t.Errorf("totals over all time: %v, then %v; %v", before, after, err)
	}
}

// TestMoveUnderQueries: queries beside clicks that move into the record see each of them once.
func TestMoveUnderQueries(t *testing.T) {
	events := enginetest.Events(42, 6000)
	o := Options{Clock: leapsFrom(inSpan), scopeRows: 20}
	d := open(t, o)
	ingest(t, d, &sliceSource{events: events})
	want, _ := enginetest.NewReference(events).Summary(t.Context(), everything())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		defer cancel()
		done <- d.maintain(t.Context())
	}()
	asked := 0
	for ; ctx.Err() == nil || asked < 3; asked++ {
		got, err := d.Summary(t.Context(), everything())
		if got.LagMs = 0; err != nil || !cmp.Equal(want, got) {
			t.Fatalf("query %d: %v %s", asked, err, cmp.Diff(want, got))
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestEraseAfterPruning: what is erased in one workspace, and comes late for it, changes no number of another whose clicks
// are pruned, also when no click of the day is left and in a database that is made again.
func TestEraseAfterPruning(t *testing.T) {
	o := Options{Dir: t.TempDir(), Record: t.TempDir(), Clock: leapsFrom(inSpan), MemoryLimit: 512 << 20, SweepLinks: -1, scopeRows: 20}
	now := terse.MillisOf(inSpan)
	all := without(enginetest.Events(42, 20_000), func(ev *clicks.Event) bool { return ev.At >= now }) // an erasure is of the past
	const pruned, other = enginetest.Workspace, enginetest.Workspace + 1
	today := dayOf(now)
	isOld := func(ev *clicks.Event) bool { return today-dayOf(ev.At) > 10 }
	i := slices.IndexFunc(all, func(ev clicks.Event) bool { return ev.Workspace == other && ev.Link != 0 && isOld(&ev) })
	j := slices.IndexFunc(all, func(ev clicks.Event) bool {
		return ev.Workspace == other && ev.Link != 0 && ev.Link != all[i].Link && isOld(&ev)
	})
	if i < 0 || j < 0 {
		t.Fatal("no clicks to erase or to come late")
	}
	link, lateOne := all[i].Link, all[j]
	events := append(slices.Delete(slices.Clone(all), j, j+1), lateOne)
	d, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ingest(t, d, &sliceSource{events: events[:len(events)-1]})
	maintain(t, d)

	numbers := func(e analytics.Engine, w terse.WorkspaceID) (list []any) {
		t.Helper()
		q := everything()
		q.Workspace = w
		s, err := e.Summary(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		b, err := e.Breakdown(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		var links []terse.LinkNumber
		for k := range 200 {
			links = append(links, all[k].Link)
		}
		slices.Sort(links)
		totals, err := e.LinkTotals(t.Context(), w, slices.Compact(links))
		if err != nil {
			t.Fatal(err)
		}
		s.LagMs = 0
		return append(list, s, b, totals)
	}
	want := numbers(d, pruned)
	check := func(step string, events []clicks.Event) {
		t.Helper()
		if diff := cmp.Diff(want, numbers(d, pruned)); diff != "" {
			t.Errorf("%s: the numbers of the other workspace changed: %s", step, diff)
		}
		if diff := cmp.Diff(numbers(enginetest.NewReference(events), other), numbers(d, other)); diff != "" {
			t.Errorf("%s: the numbers of the workspace itself: %s", step, diff)
		}
	}
	d.SetRetention(Retention{Default: Terms{Raw: 10, Bots: 5}, Workspaces: map[terse.WorkspaceID]Terms{other: {}}})
	maintain(t, d)
	kept := d.Status(t.Context()).Rows
	check("pruned", events[:len(events)-1])

	left := without(events, func(ev *clicks.Event) bool { return ev.Workspace == other && ev.Link == link })
	if n, err := d.Erase(t.Context(), Erasure{Workspace: other, Link: link}); err != nil || n == 0 || kept == int64(len(events)-1) {
		t.Fatalf("%d erased, %d were kept; %v", n, kept, err)
	}
	check("erased", left[:len(left)-1])
	late(t, d, events)
	maintain(t, d)
	check("late", left)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := SetAside(o.Dir, inSpan); err != nil {
		t.Fatal(err)
	}
	d = open(t, o)
	ingest(t, d, &sliceSource{events: events})
	check("made again", left)

	for _, v := range rawDays(daysOf(d.view())) { // all clicks of the other workspace, on days that have no others
		if v.hot || today-v.day <= 10 {
			continue
		}
		c := d.rewriting(v.day, "workspace_id <> "+number(other))
		c.erased = other
		if err := d.replaceDays(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	check("all erased", without(left, func(ev *clicks.Event) bool { return ev.Workspace == other && isOld(ev) }))
}

func daysOf(days []dayView, _ int64) []dayView { return days }
