package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/sleep"
	"github.com/terselink/terse/internal/testengine"
)

// plain is an address whose packets are not compressed, so that a proxy sees what is in them.
func plain(address string) string { return address + "?compress=none" }

// ingestUntilWritten is what Run does: after an error a source begins again at the position.
func ingestUntilWritten(t *testing.T, e *Engine, events []clicks.Event) (failures int) {
	t.Helper()
	for {
		ctx, cancel := context.WithCancel(t.Context())
		src := &sliceSource{events: events, at: int(e.Position().Offset)}
		src.done = func() {
			if e.Position().Offset == int64(len(events)) {
				cancel()
			}
		}
		err := e.Ingest(ctx, src)
		cancel()
		if err == nil {
			return failures
		}
		if failures++; failures > 20 {
			t.Fatal(err)
		}
	}
}

// TestUnknownOutcome cuts the connection of an insert, before the server has the rows and after it has written them. In
// both cases every click is there once, and what the engine says adds up.
func TestUnknownOutcome(t *testing.T) {
	for name, answer := range map[string]bool{"not applied": false, "applied, answer lost": true} {
		t.Run(name, func(t *testing.T) {
			direct := ownDatabase(t)
			proxy, through := testengine.NewProxy(t, direct)
			e := open(t, Options{URL: plain(through), MaxRows: 500})
			events := enginetest.Events(9, 2000)
			events[700].UTMTerm = "cut-me-here"
			proxy.Cut("cut-me-here", answer)
			if failures := ingestUntilWritten(t, e, events); failures == 0 {
				t.Error("nothing was cut: the test proves nothing")
			}
			if n, distinct := clicksIn(t, e); n != 2000 || distinct != 2000 {
				t.Errorf("%d rows, %d distinct; want 2000", n, distinct)
			}
			found := metricValue(t, e, "terse_clickhouse_clicks_found_total")
			if answer && found != 500 || !answer && found != 0 {
				t.Errorf("%v clicks were found written", found)
			}
		})
	}
}

// TestOffsetLost: the rows are there, the position after them is not, and the process dies. The next one writes none of
// them again, also when its batches are of another size.
func TestOffsetLost(t *testing.T) {
	direct := ownDatabase(t)
	proxy, through := testengine.NewProxy(t, direct)
	e := open(t, Options{URL: plain(through), MaxRows: 1000})
	events := enginetest.Events(10, 3000)
	// The place after the second batch, as the statement has it.
	proxy.Cut(position(2000).String(), false)
	src := &sliceSource{events: events}
	if err := e.Ingest(t.Context(), src); err == nil {
		t.Fatal("nothing was cut: the test proves nothing")
	}
	next := open(t, Options{URL: direct, MaxRows: 1700})
	if at := next.Position(); at != position(1000) {
		t.Fatalf("the position is %v", at)
	}
	ingestUntilWritten(t, next, events)
	if n, distinct := clicksIn(t, next); n != 3000 || distinct != 3000 {
		t.Errorf("%d rows, %d distinct; want 3000", n, distinct)
	}
	if found := metricValue(t, next, "terse_clickhouse_clicks_found_total"); found != 1000 {
		t.Errorf("%v clicks were found written, want 1000", found)
	}
}

// TestSmallerBatches: a batch whose answer was lost is larger than those of the next process.
func TestSmallerBatches(t *testing.T) {
	direct := ownDatabase(t)
	proxy, through := testengine.NewProxy(t, direct)
	const n = clicks.MaxGroup + 2000
	e := open(t, Options{URL: plain(through), MaxRows: n})
	events := enginetest.Events(21, n)
	proxy.Cut(position(n).String(), false) // where its place in the spool is written
	if err := e.Ingest(t.Context(), &sliceSource{events: events}); err == nil {
		t.Fatal("nothing was cut: the test proves nothing")
	}
	next := open(t, Options{URL: direct, MaxRows: 1000})
	ingestUntilWritten(t, next, events)
	if rows, distinct := clicksIn(t, next); rows != n || distinct != n {
		t.Errorf("%d rows, %d distinct; want %d", rows, distinct, n)
	}
}

// TestQuestionsStarveNobody: clicks are written while questions hold all of their connections.
func TestQuestionsStarveNobody(t *testing.T) {
	e := open(t, Options{MaxConns: 1})
	ctx, cancel := context.WithCancel(t.Context())
	rows, err := e.asking.Query(ctx, "SELECT number FROM system.numbers LIMIT 100000000")
	if err != nil {
		t.Fatal(err)
	}
	events := enginetest.Events(22, 100)
	ingest(t, e, &sliceSource{events: events})
	if err := e.Tidy(t.Context()); err != nil {
		t.Error(err)
	}
	if st := e.Status(t.Context()); st.Rows != int64(len(events)) {
		t.Errorf("%+v", st)
	}
	cancel()
	_ = rows.Close() // its context has ended
}

// TestDown: while the server is gone questions fail at once with a reason, and clicks wait in the spool; when it comes
// back each of them is counted once.
func TestDown(t *testing.T) {
	proxy, through := testengine.NewProxy(t, ownDatabase(t))
	proxy.Refuse()
	spool := t.TempDir()
	rec, err := clicks.Open(clicks.Options{Dir: spool})
	if err != nil {
		t.Fatal(err)
	}
	e, err := Start(t.Context(), Options{URL: through, Spool: spool, Source: "node", InsertTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(e.Stop(context.Background()), rec.Close()); err != nil {
			t.Error(err)
		}
	})
	q := analytics.Query{Workspace: 1, From: terse.MillisOf(time.Now().Add(-time.Hour)), To: terse.MillisOf(time.Now().Add(time.Hour))}
	if _, err := e.Summary(t.Context(), q); terse.ErrorCode(err) != terse.CodeUnavailable {
		t.Errorf("without a server: %v, want unavailable", err)
	}
	if st := e.Status(t.Context()); st.State != analytics.StateDown || st.Detail == "" {
		t.Errorf("status %+v", st)
	}
	const each = 300
	record := func() {
		for i := range each {
			c := clicks.Click{At: terse.MillisOf(time.Now()), Workspace: 1, Link: terse.LinkNumber(i + 1), Language: []byte("de"),
				UserAgent: []byte("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36")}
			if !rec.Capture(0, &c) {
				t.Fatal("the buffer is full")
			}
		}
		if err := rec.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	counted := func(want int64) {
		t.Helper()
		deadline := time.Now().Add(3 * time.Minute)
		for {
			s, err := e.Summary(t.Context(), q)
			if err == nil && s.Total == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%+v, %v; want %d clicks", s, err, want)
			}
			if err := sleep.For(t.Context(), 20*time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
	}
	record()
	proxy.Pass()
	counted(each)
	proxy.Refuse()
	record()
	if e.Recorded().Compare(rec.Position()) >= 0 {
		t.Error("the spool may be trimmed before its clicks are stored")
	}
	proxy.Pass()
	counted(2 * each)
	if n, distinct := clicksIn(t, e); n != 2*each || distinct != 2*each {
		t.Errorf("%d rows, %d distinct", n, distinct)
	}
}

// TestSettle: nothing is written for a spool while the server still works on an insert of it.
func TestSettle(t *testing.T) {
	e := open(t, Options{})
	other := open(t, Options{URL: e.o.URL, Source: e.o.Source})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	insert := func() {
		// Stands for an insert that takes long: three seconds at 18.16's most of one a row.
		done <- other.conn.Exec(other.with(ctx, other.insertID(), nil), "SELECT sleep(1) FROM system.numbers LIMIT 3 SETTINGS max_block_size = 1")
	}
	go insert()
	began := time.Now()
	for {
		n, err := e.number(t.Context(), "SELECT count() FROM system.processes WHERE startsWith(query_id, "+literal(e.inserting)+")")
		if err != nil {
			t.Fatal(err)
		}
		if n == 1 {
			break
		}
		if time.Since(began) > 3*time.Minute {
			t.Fatal("the server does not show the id of a query")
		}
		select {
		case err := <-done: // over before we looked, on a busy machine
			if err != nil {
				t.Fatal(err)
			}
			go insert()
		default:
		}
	}
	if err := e.settle(t.Context(), e.inserting); err != nil {
		t.Fatal(err)
	}
	n, err := e.number(t.Context(), "SELECT count() FROM system.processes WHERE startsWith(query_id, "+literal(e.inserting)+")")
	if err != nil || n != 0 {
		t.Errorf("%d inserts are at work after settle, %v", n, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestAudit: clicks that are there twice, as after an insert of a dead process that came late, are found and taken out.
func TestAudit(t *testing.T) {
	e := open(t, Options{})
	events := enginetest.Events(11, 1000)
	ingest(t, e, &sliceSource{events: events})
	if err := e.insert(t.Context(), "", events[100:150]); err != nil {
		t.Fatal(err)
	}
	if n, _ := clicksIn(t, e); n != 1050 {
		t.Fatalf("%d rows", n)
	}
	twice, err := e.auditDays(t.Context(), "1")
	var sum uint64
	for _, n := range twice {
		sum += n
	}
	if err != nil || sum != 50 {
		t.Errorf("%d clicks twice, %v; want 50", sum, err)
	}
	if n, distinct := clicksIn(t, e); n != 1000 || distinct != 1000 {
		t.Errorf("%d rows, %d distinct after the audit", n, distinct)
	}
	if twice, err := e.auditDays(t.Context(), "1"); err != nil || len(twice) != 0 {
		t.Errorf("%v, %v", twice, err)
	}
}

// TestReadOnly: a user that may not write keeps the clicks in the spool and is told of.
func TestReadOnly(t *testing.T) {
	e := open(t, Options{})
	if err := e.exec(t.Context(), "DROP TABLE clicks"); err != nil { // inserts are refused
		t.Fatal(err)
	}
	err := e.Ingest(t.Context(), &sliceSource{events: enginetest.Events(1, 10)})
	if err == nil || e.Position() != (clicks.Position{}) {
		t.Errorf("%v at %v", err, e.Position())
	}
	e.down(err)
	if st := e.Status(t.Context()); st.State != analytics.StateDown || !strings.Contains(st.Detail, "clicks") {
		t.Errorf("%+v", st)
	}
}

// TestTwoMigrations: processes that start at once make the tables once, and a lock that was left behind is broken.
func TestTwoMigrations(t *testing.T) {
	address := ownDatabase(t)
	const n = 4
	errs := make(chan error, n)
	for range n {
		e, err := Open(Options{URL: address, Source: "x"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = e.Close() })
		go func() { errs <- e.connect(t.Context()) }()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	e := open(t, Options{URL: address})
	if n, err := e.number(t.Context(), "SELECT count() FROM schema_versions"); err != nil || n != 1 {
		t.Errorf("%d versions, %v", n, err)
	}
	if err := e.exec(t.Context(), fmt.Sprintf("INSERT INTO schema_versions (version) SELECT toUInt32(%d)", schemaVersion+1)); err != nil {
		t.Fatal(err)
	}
	newer, err := Open(Options{URL: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = newer.Close() })
	if err := newer.connect(t.Context()); terse.ErrorCode(err) != terse.CodePrecondition {
		t.Errorf("tables of a newer program: %v, want precondition", err)
	}
}

// TestCheck says what is there and changes nothing.
func TestCheck(t *testing.T) {
	address := ownDatabase(t)
	for range 2 {
		found, err := Check(t.Context(), Options{URL: address})
		if err != nil || !strings.Contains(found, "will be made") || !strings.Contains(found, "version") {
			t.Errorf("before the first start: %q, %v", found, err)
		}
	}
	e := open(t, Options{URL: address})
	ingest(t, e, &sliceSource{events: enginetest.Events(1, 25)})
	if found, err := Check(t.Context(), Options{URL: address}); err != nil || !strings.Contains(found, "is there") || !strings.Contains(found, "25 clicks") {
		t.Errorf("%q, %v", found, err)
	}
	proxy, through := testengine.NewProxy(t, address)
	proxy.Refuse()
	if _, err := Check(t.Context(), Options{URL: through}); err == nil || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("a server that is away: %v", err)
	}
}
