package duckdb

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ddb "github.com/duckdb/duckdb-go/v2"
	"github.com/google/go-cmp/cmp"
	pq "github.com/parquet-go/parquet-go"

	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
)

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
	o := Options{Dir: t.TempDir(), Record: t.TempDir(), Clock: leapsFrom(inSpan), MemoryLimit: 512 << 20, SweepLinks: -1, scopeRows: 20, cubeShare: -1}
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
