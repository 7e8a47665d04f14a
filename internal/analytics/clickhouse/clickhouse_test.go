package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/testengine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sliceSource is a Source over events in memory; its position is an index.
type sliceSource struct {
	events []clicks.Event
	at     int
	done   func() // called by Wait
}

func (s *sliceSource) Next(_ context.Context, most int, fn func(*clicks.Event) error) (n int, err error) {
	for ; n < most && s.at+n < len(s.events); n++ {
		if err := fn(&s.events[s.at+n]); err != nil {
			return 0, err
		}
	}
	s.at += n
	return n, nil
}

func (s *sliceSource) Position() clicks.Position { return position(s.at) }

func position(i int) clicks.Position {
	return clicks.Position{Boot: "000001793000000-0123456789ab", Segment: 7, Offset: int64(i)}
}

func (s *sliceSource) Wait(ctx context.Context) error {
	if s.done != nil {
		s.done()
	}
	return ctx.Err()
}

// ownDatabase returns an address of a database that does not exist yet, and removes it in the end.
func ownDatabase(t testing.TB) string {
	t.Helper()
	u, err := url.Parse(testengine.Address(t, testengine.ClickHouse))
	if err != nil {
		t.Fatal(err)
	}
	u.Path = fmt.Sprintf("/terse_test_%d_%d", time.Now().UnixNano(), rand.Uint32())
	t.Cleanup(func() {
		conn, name, err := dial(&Options{URL: u.String(), InsertTimeout: time.Minute}, false, 1)
		if err != nil {
			t.Error(err)
			return
		}
		if err := errors.Join(conn.Exec(context.Background(), "DROP DATABASE IF EXISTS "+name), conn.Close()); err != nil {
			t.Error(err)
		}
	})
	return u.String()
}

// open returns an engine that has reached its server. It ingests only when told.
func open(t testing.TB, o Options) *Engine {
	t.Helper()
	if o.URL == "" {
		o.URL = ownDatabase(t)
	}
	if o.Source == "" {
		o.Source = "test"
	}
	e, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := e.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.detail = ""
	return e
}

// ingest reads src to its end.
func ingest(t testing.TB, e *Engine, src *sliceSource) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	src.done = func() {
		if src.at == len(src.events) && e.Position() == src.Position() {
			cancel()
		}
	}
	if err := e.Ingest(ctx, src); err != nil {
		t.Fatal(err)
	}
}

// TestConformance asks fewer questions than the suite does by default: 18.16 takes some 15 ms for the smallest.
func TestConformance(t *testing.T) {
	enginetest.Run(t, enginetest.Options{Queries: 72, New: func(t *testing.T, events []clicks.Event) analytics.Engine {
		e := open(t, Options{})
		if len(events) > 0 {
			ingest(t, e, &sliceSource{events: events})
		}
		return e
	}})
}

// TestConformanceClosed: days that are over are answered from their rollups, with the same numbers. A small limit lets
// some campaigns and links be rolled up and others not.
func TestConformanceClosed(t *testing.T) {
	enginetest.Run(t, enginetest.Options{Events: 8000, Queries: 36, New: func(t *testing.T, events []clicks.Event) analytics.Engine {
		e := open(t, Options{scopeRows: 20, Clock: func() time.Time { return enginetest.SpanTo.Time().Add(-5 * 24 * time.Hour) }})
		if len(events) > 0 {
			ingest(t, e, &sliceSource{events: events})
		}
		if err := e.Tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
		days, _, err := e.closedDays(t.Context())
		if err != nil || len(events) > 1000 && len(days) < 40 {
			t.Fatalf("%d days are closed, %v", len(days), err)
		}
		return e
	}})
}

// clicksIn counts the clicks of the table and the distinct ones.
func clicksIn(t *testing.T, e *Engine) (n, distinct uint64) {
	t.Helper()
	if err := e.scan(t.Context(), "SELECT count(), uniqExact(event_id) FROM clicks", func(r row) error { return r.Scan(&n, &distinct) }); err != nil {
		t.Fatal(err)
	}
	return n, distinct
}

// TestAddColumns: a table of a build that did not know User-Agents and addresses gets their columns, its rows have none, and
// rows of now have theirs. Processes that begin together do not mind.
func TestAddColumns(t *testing.T) {
	events := enginetest.Events(5, 400)
	e := open(t, Options{})
	for _, c := range addedColumns {
		if err := e.exec(t.Context(), "ALTER TABLE clicks DROP COLUMN "+c); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.exec(t.Context(), "INSERT INTO clicks (event_id, day, ts_ms, workspace_id) SELECT toUUID('00000000-0000-7000-8000-000000000001'), toDate('2026-10-01'), toInt64(1790812800000), toUInt32(3)"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := e.addColumns(t.Context(), e.dialect.Load()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	ingest(t, e, &sliceSource{events: events})
	want := map[[2]string]int{{}: 1}
	for i := range events {
		if events[i].Workspace == enginetest.Workspace {
			want[[2]string{events[i].UserAgent, events[i].IP}]++
		}
	}
	q := analytics.Query{Workspace: enginetest.Workspace, From: enginetest.SpanFrom, To: enginetest.SpanTo, Bots: analytics.BotsInclude, Every: true}
	rows, err := e.Clicks(t.Context(), q, analytics.Page{Limit: 500})
	if err != nil {
		t.Fatal(err)
	}
	got := map[[2]string]int{}
	for i := range rows {
		got[[2]string{rows[i].UserAgent, rows[i].IP}]++
	}
	if d := cmp.Diff(want, got); d != "" || len(want) < 5 {
		t.Error(d)
	}
}

// TestRoundTrip: rows come back as they went in.
func TestRoundTrip(t *testing.T) {
	e := open(t, Options{})
	events := enginetest.Events(3, 3000)
	ingest(t, e, &sliceSource{events: events})
	q := analytics.Query{Workspace: enginetest.Workspace, From: enginetest.SpanFrom, To: enginetest.SpanTo, Bots: analytics.BotsInclude, Every: true}
	got := map[[16]byte]clicks.Event{}
	p := analytics.Page{Limit: 500}
	for {
		rows, err := e.Clicks(t.Context(), q, p)
		if err != nil {
			t.Fatal(err)
		}
		for i := range rows {
			got[rows[i].ID] = rows[i]
		}
		if len(rows) < p.Limit {
			break
		}
		p.After = terse.ClickID(rows[len(rows)-1].ID)
	}
	for i := range events {
		if ev := events[i]; ev.Workspace == enginetest.Workspace {
			if d := cmp.Diff(ev, got[ev.ID]); d != "" {
				t.Fatalf("event %d (-want +got):\n%s", i, d)
			}
			delete(got, ev.ID)
		}
	}
	if len(got) > 0 {
		t.Errorf("%d clicks of other workspaces", len(got))
	}
}
