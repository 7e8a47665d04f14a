package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sliceSource is a Source over events in memory; its position is an index. Like the spool it
// hands out whole groups.
type sliceSource struct {
	events []clicks.Event
	at     int
	group  int    // the start of the group that is being handed out, while Next runs
	failAt int    // Next fails after it has handed out the event before this one
	done   func() // called by Wait
}

const groupSize = 100

func (s *sliceSource) Next(_ context.Context, most int, fn func(*clicks.Event) error) (int, error) {
	at := s.at
	for at < len(s.events) && (at-s.at < most || at%groupSize != 0) {
		if s.failAt > 0 && at == s.failAt {
			return 0, errors.New("the spool cannot be read")
		}
		s.group = at - at%groupSize
		if err := fn(&s.events[at]); err != nil {
			return 0, err
		}
		at++
	}
	n := at - s.at
	s.at, s.group = at, at
	return n, nil
}

func (s *sliceSource) Position() clicks.Position {
	return position(max(s.at, s.group))
}

func position(i int) clicks.Position {
	return clicks.Position{Boot: "000001793000000-0123456789ab", Segment: 7, Offset: int64(i)}
}

func (s *sliceSource) Wait(ctx context.Context) error {
	if s.done != nil {
		s.done()
	}
	return ctx.Err()
}

// leaps returns a clock that moves a second with every look, so that batches are always due.
func leaps() func() time.Time { return leapsFrom(time.Date(2026, 11, 3, 0, 0, 0, 0, time.UTC)) }

func leapsFrom(start time.Time) func() time.Time {
	var n atomic.Int64
	return func() time.Time { return start.Add(time.Duration(n.Add(1)) * time.Second) }
}

func open(t testing.TB, o Options) *DB {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Clock == nil {
		o.Clock = leaps()
	}
	if o.QueryTimeout == 0 { // a machine that is busy with other tests is no failure
		o.QueryTimeout = 5 * time.Minute
	}
	o.MemoryLimit = 512 << 20
	d, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// ingest reads src to its end.
func ingest(t testing.TB, d *DB, src *sliceSource) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	src.done = func() {
		if src.at == len(src.events) && d.Position().Offset == src.Position().Offset {
			cancel()
		}
	}
	if err := d.Ingest(ctx, src); err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	enginetest.Run(t, enginetest.Options{New: func(t *testing.T, events []clicks.Event) analytics.Engine {
		d := open(t, Options{})
		ingest(t, d, &sliceSource{events: events})
		return d
	}})
}

// TestRoundTrip writes extreme values into every column and reads them back as the type
// that the format promises.
func TestRoundTrip(t *testing.T) {
	events := []clicks.Event{
		{At: 946_684_800_000, Weight: 1},
		{
			ID: [16]byte{0x01, 0x93, 1, 2, 0x70, 3, 4, 5, 0xbf, 6, 7, 8, 9, 10, 11, 255}, At: 4_102_444_799_999, Workspace: 1<<31 - 1, Link: 1<<63 - 1,
			Campaign: 1<<63 - 1, Domain: "go.example.com:8080", Code: "héllo\x00wörld", Destination: strings.Repeat("https://example.com/", 400),
			Rule: 255, Outcome: clicks.OutcomePreview, Trigger: "deeplink", Visitor: math.MaxUint64, Repeat: true, Bot: clicks.BotSelf,
			BotName: "Slackbot", Country: "DE", Region: "DE-BY", City: "München", ASN: math.MaxUint32, Device: "tv", OS: "iOS", OSVersion: "18",
			Browser: "Chrome", BrowserVer: "141", Language: "de", RefHost: "news.ycombinator.com", RefPath: "/item", Source: "Hacker News",
			UTMSource: "a", UTMMedium: "b", UTMCampaign: "c", UTMTerm: "'; DROP TABLE meta; --", UTMContent: "🎉", Weight: math.MaxUint16, Node: "n1",
			UserAgent: strings.Repeat("Mozilla/5.0 ü ", 30), IP: "2001:db8:1::/48",
		},
	}
	d := open(t, Options{})
	ingest(t, d, &sliceSource{events: events})
	for i := range events {
		ev := &events[i]
		table := tableName(dayOf(ev.At))
		for _, c := range columns {
			var typ string
			var got any
			if err := d.scan(t.Context(), fmt.Sprintf("SELECT typeof(%q), %q FROM %s", c.name, c.name, table), func(r *sql.Rows) error {
				return r.Scan(&typ, &got)
			}); err != nil {
				t.Fatal(err)
			}
			want := valueOf(c, ev)
			if typ != c.typ {
				t.Errorf("%s is a %s, want %s", c.name, typ, c.typ)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.name, diff)
			}
		}
	}
}

// valueOf returns what a query of a column must give for an event, in the Go type of the column.
func valueOf(c column, ev *clicks.Event) any {
	switch c.typ {
	case "UUID":
		return ev.ID[:]
	case "VARCHAR":
		return c.text(ev)
	case "TIMESTAMP_MS":
		return ev.At.Time()
	case "BIGINT":
		return int64(c.number(ev))
	case "INTEGER":
		return int32(c.number(ev))
	case "USMALLINT":
		return uint16(c.number(ev))
	}
	return uint8(c.number(ev))
}

// TestAppendAllocs holds the hot path of ingestion to its promise.
func TestAppendAllocs(t *testing.T) {
	d := open(t, Options{})
	if err := d.exec(t.Context(), createDay(1)); err != nil {
		t.Fatal(err)
	}
	a, err := newAppender(d.writer, tableName(1))
	if err != nil {
		t.Fatal(err)
	}
	defer a.discard()
	events := enginetest.Events(3, 100)
	i := 0
	if n := testing.AllocsPerRun(10_000, func() {
		if err := a.add(&events[i%100]); err != nil {
			t.Fatal(err)
		}
		i++
	}); n > 0.5 { // DuckDB is given a chunk now and then
		t.Errorf("%v allocations an event", n)
	}
}

// TestNotUTF8: a text that is not UTF-8 is repaired, not lost and not NULL.
func TestNotUTF8(t *testing.T) {
	d := open(t, Options{})
	ingest(t, d, &sliceSource{events: []clicks.Event{{At: enginetest.SpanFrom, Workspace: 3, Code: "a\xff\xfeb", Weight: 1}}})
	b, err := d.Breakdown(t.Context(), analytics.Query{Workspace: 3, From: enginetest.SpanFrom, To: enginetest.SpanTo, By: analytics.Code})
	if err != nil || len(b.Data) != 1 || b.Data[0].Value != "a\uFFFDb" {
		t.Errorf("got %+v, %v", b, err)
	}
}

// TestReopen: what was committed is there after closing, and reading goes on after it.
func TestReopen(t *testing.T) {
	dir := t.TempDir()
	events := enginetest.Events(1, 3000)
	d, err := Open(t.Context(), Options{Dir: dir, Clock: leaps()})
	if err != nil {
		t.Fatal(err)
	}
	if st := d.Status(t.Context()); st.State != analytics.StateRebuilding || st.Position != (clicks.Position{}) {
		t.Errorf("a new file: %+v", st)
	}
	src := &sliceSource{events: events[:1000]}
	ingest(t, d, src)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, Options{Dir: dir})
	if st := d.Status(t.Context()); st.State != analytics.StateReady || st.Rows != 1000 || st.Position != src.Position() || st.LagMs == 0 {
		t.Errorf("after reopening: %+v", st)
	}
	ingest(t, d, &sliceSource{events: events, at: int(d.Position().Offset)})
	want, _ := enginetest.NewReference(events).Summary(t.Context(), everything())
	got, err := d.Summary(t.Context(), everything())
	if got.LagMs = 0; err != nil || !cmp.Equal(want, got) {
		t.Errorf("%v %s", err, cmp.Diff(want, got))
	}
}

func everything() analytics.Query {
	return analytics.Query{Workspace: enginetest.Workspace, From: enginetest.SpanFrom, To: enginetest.SpanTo, By: analytics.Country}
}

// TestRollback: a source that fails in the middle of a batch leaves no trace of it.
func TestRollback(t *testing.T) {
	events := enginetest.Events(2, 5000)
	d := open(t, Options{})
	src := &sliceSource{events: events, failAt: 3000}
	if err := d.Ingest(t.Context(), src); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Fatalf("got %v", err)
	}
	var left int
	if err := d.scan(t.Context(), "SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE 'clicks%'", func(r *sql.Rows) error { return r.Scan(&left) }); err != nil {
		t.Fatal(err)
	}
	if st := d.Status(t.Context()); left != 0 || st.Rows != 0 || st.Position != (clicks.Position{}) {
		t.Fatalf("%d tables and %+v after a rollback", left, st)
	}
	src.failAt = 0
	ingest(t, d, src)
	if st := d.Status(t.Context()); st.Rows != 5000 {
		t.Errorf("%d rows, want 5000", st.Rows)
	}
}

// TestRejected: events no table can hold are counted and do not stop the others.
func TestRejected(t *testing.T) {
	good := clicks.Event{At: enginetest.SpanFrom, Workspace: 3, Weight: 1}
	bad := []clicks.Event{good, good, good, good, good}
	bad[0].At, bad[1].At, bad[2].Workspace, bad[3].Link, bad[4].Campaign = 0, math.MaxInt64, 1<<31, 1<<63, math.MaxUint64
	for name, events := range map[string][]clicks.Event{"among others": append(bad, good), "alone": bad} {
		t.Run(name, func(t *testing.T) {
			d := open(t, Options{})
			ingest(t, d, &sliceSource{events: events})
			if st := d.Status(t.Context()); st.Rows != int64(len(events)-5) || d.Rejected() != 5 || st.Position.Offset != int64(len(events)) {
				t.Errorf("%d rejected, %+v", d.Rejected(), st)
			}
		})
	}
}

// TestDiskFull: below the floor nothing is written, and it goes on by itself.
func TestDiskFull(t *testing.T) {
	var looks atomic.Int64
	d := open(t, Options{FreeFloor: 1000, free: func(string) (int64, error) {
		if looks.Add(1) < 2 {
			return 999, nil
		}
		return 1000, nil
	}})
	if enough, err := d.enoughSpace(); enough || err != nil {
		t.Fatal("999 bytes are not enough", err)
	}
	if st := d.Status(t.Context()); !strings.Contains(st.Detail, "free") {
		t.Errorf("the status does not say why: %+v", st)
	}
	ingest(t, d, &sliceSource{events: enginetest.Events(3, 10)})
	if st := d.Status(t.Context()); st.Rows != 10 || st.Detail != "" {
		t.Errorf("%+v", st)
	}
}

func TestCheckpoint(t *testing.T) {
	d := open(t, Options{WALBytes: 1})
	ingest(t, d, &sliceSource{events: enginetest.Events(4, 5000)})
	if size := d.walSize(); size != 0 {
		t.Errorf("the log has %d bytes after a checkpoint", size)
	}
	if len(d.dirty) != 0 {
		t.Errorf("%d days are still marked", len(d.dirty))
	}
	// Rows that vanish are noticed.
	day := d.days[0]
	d.dirty[day] = true
	d.rows[day]++
	if _, err := d.checkpoint(t.Context()); err == nil {
		t.Error("a row is missing, and nobody noticed")
	}
}

// TestCheckpointBesideReader: a long read may delay a checkpoint, but neither fails, and
// the reader goes on seeing what it saw.
func TestCheckpointBesideReader(t *testing.T) {
	d := open(t, Options{WALBytes: 1})
	events := enginetest.Events(9, 3000)
	ingest(t, d, &sliceSource{events: events[:1000]})
	conn, err := d.readers.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // closed below unless the test fails
	table := tableName(d.tables()[0])
	count := func() (n int) {
		t.Helper()
		if err := conn.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if _, err := conn.ExecContext(t.Context(), "BEGIN"); err != nil {
		t.Fatal(err)
	}
	before := count()
	ingest(t, d, &sliceSource{events: append(events[:1000:1000], events[:2000]...), at: 1000})
	if during := count(); during != before {
		t.Errorf("a transaction saw %d rows, then %d", before, during)
	}
	if _, err := conn.ExecContext(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if after := count(); after <= before {
		t.Errorf("%d rows after, %d before", after, before)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.checkpoint(t.Context()); err != nil {
		t.Error(err)
	}
	if st := d.Status(t.Context()); st.Rows != 3000 || d.walSize() != 0 {
		t.Errorf("%+v, a log of %d bytes", st, d.walSize())
	}
}

// TestUnusableFile: garbage is an error, not a crash; set aside, a new file takes its place.
func TestUnusableFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	for i := range 4 {
		if err := os.WriteFile(path, []byte(strings.Repeat("this is no database ", 1000)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), Options{Dir: dir}); !errors.Is(err, ErrUnusable) {
			t.Fatalf("opened garbage: %v", err)
		}
		if err := SetAside(dir, time.UnixMilli(int64(i)*60_000)); err != nil {
			t.Fatal(err)
		}
	}
	bad, _ := filepath.Glob(path + ".bad-*")
	if len(bad) != keepAside || !strings.HasSuffix(bad[1], "19700101T000300.000") {
		t.Errorf("kept %v", bad)
	}
	if st := open(t, Options{Dir: dir}).Status(t.Context()); st.State != analytics.StateRebuilding {
		t.Errorf("%+v", st)
	}
	if err := SetAside(t.TempDir(), time.Now()); err != nil {
		t.Errorf("nothing to set aside: %v", err)
	}
}

// TestForeignSchema: a file of a newer program is refused and left alone.
func TestForeignSchema(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.exec(t.Context(), `UPDATE meta SET "value" = '999' WHERE "key" = 'schema'`), d.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Options{Dir: dir}); errors.Is(err, ErrUnusable) || terse.ErrorCode(err) != terse.CodePrecondition {
		t.Errorf("got %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, name := range []string{"what?", "a#b"} {
		if _, err := Open(t.Context(), Options{Dir: filepath.Join(t.TempDir(), name)}); terse.ErrorCode(err) != terse.CodeInvalid {
			t.Errorf("a folder with the name %s: %v", name, err)
		}
	}
}

func TestDeadline(t *testing.T) {
	d := open(t, Options{QueryTimeout: time.Nanosecond})
	ingest(t, d, &sliceSource{events: enginetest.Events(5, 100)})
	_, err := d.Summary(t.Context(), everything())
	if e, ok := errors.AsType[*terse.Error](err); !ok || e.Code != terse.CodeUnavailable || e.Reason != "query_timeout" {
		t.Errorf("got %v", err)
	}
	// All slots taken: a query waits no longer than its deadline.
	d.slots <- struct{}{}
	d.slots <- struct{}{}
	if _, err := d.Breakdown(t.Context(), everything()); !errors.Is(err, error(errTimeout)) {
		t.Errorf("got %v", err)
	}
}

// TestNoOtherFiles: DuckDB cannot be made to read or write anything else.
func TestNoOtherFiles(t *testing.T) {
	d := open(t, Options{})
	for _, q := range []string{
		"ATTACH '/tmp/x.duckdb'", "COPY meta TO '/tmp/x.csv'", "SELECT * FROM read_csv('/etc/passwd')", "INSTALL httpfs", "LOAD httpfs",
		"SET enable_external_access = true",
	} {
		if err := d.exec(t.Context(), q); err == nil {
			t.Errorf("allowed: %s", q)
		}
	}
}

func TestTableNames(t *testing.T) {
	for _, day := range []int64{dayOf(946_684_800_000), 20_000, dayOf(4_102_444_799_999)} {
		if got, ok := tableDay(tableName(day)); !ok || got != day {
			t.Errorf("%d became %s became %d", day, tableName(day), got)
		}
	}
	for _, s := range []string{"meta", "clicks_", "clicks_2026110", "clicks_20261399", "clicks_20261103x"} {
		if _, ok := tableDay(s); ok {
			t.Errorf("%s is no table of a day", s)
		}
	}
	if len(dimensionColumns)+1 != len(analytics.Dimensions()) { // tags are looked up
		t.Error("a dimension has no column")
	}
}

// TestFormatDocument: docs/format/duckdb.md names every column with its type.
func TestFormatDocument(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/format/duckdb.md")
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]string{}
	for line := range strings.Lines(string(doc)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		for name := range strings.SplitSeq(cells[1], ",") {
			types[strings.TrimSpace(name)] = strings.TrimSpace(cells[2])
		}
	}
	for _, c := range columns {
		if types[c.name] != c.typ {
			t.Errorf("%s is a %s here, %q in the document", c.name, c.typ, types[c.name])
		}
	}
}

// TestPatience: a stream that fills a row group within three seconds may wait for it, others may not.
func TestPatience(t *testing.T) {
	for _, tt := range []struct {
		n    int
		age  time.Duration
		want time.Duration
	}{
		{50_000, time.Second, fillDelay}, {41_000, time.Second, fillDelay}, {40_000, time.Second, maxDelay}, {10_000, time.Second, maxDelay},
		{82_000, 2 * time.Second, fillDelay}, {60_000, 2 * time.Second, maxDelay}, {1, time.Second, maxDelay},
	} {
		if got := patience(tt.n, tt.age); got != tt.want {
			t.Errorf("%d rows after %v: %v, want %v", tt.n, tt.age, got, tt.want)
		}
	}
}
