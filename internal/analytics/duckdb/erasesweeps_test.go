package duckdb

import (
	"bytes"
	"database/sql"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
)

// sweeper is the visitor that sweeping makes sweep.
const sweeper = 1<<63 + 77

// forgotten fails if anything that the database or its record keeps still knows the sweeper.
func forgotten(t *testing.T, d *DB) {
	t.Helper()
	e := Erasure{Workspace: enginetest.Workspace, Visitor: sweeper}
	for _, from := range []string{"swept_clicks", "sweeps", parquet(quote(filepath.Join(d.o.Record, "clicks/*/*/*.parquet")))} {
		cond := erasureCond(e)
		if err := d.scan(t.Context(), "SELECT count(*) FROM "+from+" WHERE "+cond, func(r *sql.Rows) error {
			var n int64
			err := r.Scan(&n)
			if n != 0 {
				t.Errorf("%s knows %d clicks or sweeps of the visitor", from, n)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	}
	notes, _ := filepath.Glob(filepath.Join(d.o.Record, sweepFolder, "*"))
	for _, name := range notes {
		data, err := os.ReadFile(name)
		if err != nil || len(data) == 0 || bytes.Contains(data, []byte("-9223372036854775731")) {
			t.Errorf("%s knows the visitor, or is empty: %v", name, err)
		}
	}
}

// TestEraseSweeper: an erasure by visitor takes the clicks that were classed as a sweep, as long as anybody can tell whose
// they were, and what is noted of the sweep.
func TestEraseSweeper(t *testing.T) {
	now := inSpan.UnixMilli()
	today := now / dayMillis
	events := slices.DeleteFunc(enginetest.Sweeping(1, 40_000), func(ev clicks.Event) bool { return dayOf(ev.At) < today-2 || int64(ev.At) >= now })
	o := Options{Dir: t.TempDir(), Record: t.TempDir(), Clock: leapsFrom(inSpan), MemoryLimit: 512 << 20, scopeRows: 20}
	d, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ingest(t, d, &sliceSource{events: events})
	sweepAll(t, d)
	maintain(t, d)
	classed, _ := enginetest.Reclassed(events)
	var want []clicks.Event
	open1, closed1 := int64(0), int64(0)
	for i := range events {
		raw, now := &events[i], &classed[i]
		switch {
		case raw.Workspace == enginetest.Workspace && raw.Visitor == sweeper && dayOf(raw.At) == today:
			open1++
		case now.Workspace == enginetest.Workspace && now.Visitor == sweeper: // not swept, or nobody could tell
			closed1++
		default:
			want = append(want, *now)
		}
	}
	if open1 < 20 {
		t.Fatalf("%d clicks of the visitor today: the test proves little", open1)
	}
	e := Erasure{Workspace: enginetest.Workspace, Visitor: sweeper}
	if n, err := d.Erase(t.Context(), e); err != nil || n != open1+closed1 {
		t.Errorf("%d erased, want %d and %d; %v", n, open1, closed1, err)
	}
	sweepAll(t, d)
	enginetest.Compare(t, d, want, 1, 10)
	forgotten(t, d)
	if n, err := d.Erase(t.Context(), e); err != nil || n != 0 {
		t.Errorf("the second time %d erased, %v", n, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := SetAside(o.Dir, inSpan); err != nil {
		t.Fatal(err)
	}
	again := open(t, o)
	ingest(t, again, &sliceSource{events: events})
	sweepAll(t, again)
	enginetest.Compare(t, again, want, 2, 10)
	maintain(t, again)
	forgotten(t, again)
}

// TestEraseSweeperOfExportedHours: files of hours that were written before their sweeps were found say whose the clicks
// were, in a database that was made again from them, too.
func TestEraseSweeperOfExportedHours(t *testing.T) {
	now := inSpan.UnixMilli()
	day := now / dayMillis
	events := slices.DeleteFunc(enginetest.Sweeping(3, 60_000), func(ev clicks.Event) bool { return dayOf(ev.At) != day || int64(ev.At) >= now })
	o := Options{Dir: t.TempDir(), Record: t.TempDir(), Clock: leapsFrom(inSpan), MemoryLimit: 512 << 20, SweepLinks: -1}
	d, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ingest(t, d, &sliceSource{events: events})
	maintain(t, d)
	d.o.SweepLinks = 5
	sweepAll(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := SetAside(o.Dir, inSpan); err != nil {
		t.Fatal(err)
	}
	o.SweepLinks = 0
	again := open(t, o)
	ingest(t, again, &sliceSource{events: events})
	if len(again.cold[day]) == 0 {
		t.Fatal("the hours were not taken over")
	}
	sweepAll(t, again)
	classed, _ := enginetest.Reclassed(events)
	var want []clicks.Event
	for i := range events {
		if events[i].Workspace != enginetest.Workspace || events[i].Visitor != sweeper {
			want = append(want, classed[i])
		}
	}
	if n, err := again.Erase(t.Context(), Erasure{Workspace: enginetest.Workspace, Visitor: sweeper}); err != nil || n != int64(len(events)-len(want)) || n < 20 {
		t.Errorf("%d erased, want %d; %v", n, len(events)-len(want), err)
	}
	sweepAll(t, again)
	enginetest.Compare(t, again, want, 1, 10)
	forgotten(t, again)
}
