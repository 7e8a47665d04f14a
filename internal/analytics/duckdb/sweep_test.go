package duckdb

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
)

func sweepAll(t testing.TB, d *DB) {
	t.Helper()
	if err := d.sweepNow(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestSweepsAgree: in whatever portions and order clicks are read, and however often they are looked at, the numbers are
// those of the definition; while days are open, when they are closed, and after the database was lost.
func TestSweepsAgree(t *testing.T) {
	n, questions, seeds := 30_000, 20, uint64(2)
	if testing.Short() {
		n, questions, seeds = 15_000, 6, 1
	}
	for seed := range seeds {
		today := dayOf(terse.MillisOf(inSpan))
		events := slices.DeleteFunc(enginetest.Sweeping(seed, n), func(ev clicks.Event) bool { return dayOf(ev.At) < today-3 || dayOf(ev.At) > today })
		want, swept := enginetest.Reclassed(events)
		if swept < len(events)/20 || swept > len(events)/2 {
			t.Fatalf("%d of %d clicks are swept: the test proves little", swept, len(events))
		}
		r := rand.New(rand.NewPCG(seed, 6))
		spool := slices.Clone(events) // nearly in order
		for i := range spool {
			j := min(len(spool)-1, i+r.IntN(60))
			spool[i], spool[j] = spool[j], spool[i]
		}
		o := Options{Dir: t.TempDir(), Record: t.TempDir(), Clock: leapsFrom(inSpan), MemoryLimit: 512 << 20, scopeRows: 20}
		d, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(spool); {
			at = min(len(spool), at+100*(1+r.IntN(6)))
			ingest(t, d, &sliceSource{events: spool[:at], at: int(d.Position().Offset)})
			sweepAll(t, d)
			if r.IntN(3) == 0 { // as after a restart
				d.swept = map[int64]int64{}
				sweepAll(t, d)
			}
		}
		enginetest.Compare(t, d, want, seed, questions) // open days
		maintain(t, d)
		if len(d.rolled) != 3 {
			t.Errorf("%d days are closed", len(d.rolled))
		}
		enginetest.Compare(t, d, want, seed+10, questions) // in rollups and files
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if err := SetAside(o.Dir, inSpan); err != nil {
			t.Fatal(err)
		}
		d = open(t, o)
		ingest(t, d, &sliceSource{events: spool})
		maintain(t, d)
		enginetest.Compare(t, d, want, seed+20, questions)
		gone := want[20].Link
		if _, err := d.Erase(t.Context(), Erasure{Workspace: enginetest.Workspace, Link: gone}); err != nil {
			t.Fatal(err)
		}
		sweepAll(t, d)
		want = slices.DeleteFunc(want, func(ev clicks.Event) bool { return ev.Workspace == enginetest.Workspace && ev.Link == gone })
		enginetest.Compare(t, d, want, seed+30, questions/2)
	}
}

// TestSweepsOfExportedHours: files of hours that were written before their sweeps were found (a late click completed them)
// count right when the database is made again from them, and when the day is closed.
func TestSweepsOfExportedHours(t *testing.T) {
	day := dayOf(terse.MillisOf(inSpan))
	events := slices.DeleteFunc(enginetest.Sweeping(3, 60_000), func(ev clicks.Event) bool { return dayOf(ev.At) != day })
	want, swept := enginetest.Reclassed(events)
	if swept < 50 {
		t.Fatalf("only %d clicks are swept", swept)
	}
	o := Options{Dir: t.TempDir(), Record: t.TempDir(), Clock: leapsFrom(inSpan), MemoryLimit: 512 << 20, SweepLinks: -1}
	d, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ingest(t, d, &sliceSource{events: events})
	maintain(t, d)
	enginetest.Compare(t, d, events, 1, 5) // nobody looks for them
	d.o.SweepLinks = analytics.SweepLinks
	sweepAll(t, d)
	enginetest.Compare(t, d, want, 2, 10)
	notes, err := os.ReadFile(d.sweepNote(day).path(o.Record))
	if err != nil || len(notes) == 0 {
		t.Fatalf("no notes of sweeps: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := SetAside(o.Dir, inSpan); err != nil {
		t.Fatal(err)
	}
	o.SweepLinks = 0
	d = open(t, o)
	ingest(t, d, &sliceSource{events: events})
	if len(d.cold[day]) == 0 {
		t.Error("the hours were not taken over")
	}
	sweepAll(t, d)
	enginetest.Compare(t, d, want, 3, 10)
	d.o.Clock = leapsFrom(inSpan.Add(24 * time.Hour))
	d.seen(terse.MillisOf(inSpan.Add(24 * time.Hour)))
	maintain(t, d)
	if !d.rolled[day] {
		t.Error("the day is not closed")
	}
	enginetest.Compare(t, d, want, 4, 10)
	if left, _ := filepath.Glob(filepath.Join(o.Record, sweepFolder, "*")); len(left) != 0 {
		t.Errorf("%v is left of a closed day", left)
	}
}

// TestSweepsOfConversions: a conversion says of its click what the click says.
func TestSweepsOfConversions(t *testing.T) {
	day := terse.MillisOf(inSpan)
	var events []clicks.Event
	for i := range 6 {
		ev := clicks.Event{At: day + terse.Millis(i), Workspace: enginetest.Workspace, Link: terse.LinkNumber(i + 1), Visitor: 5, Domain: "d", Code: "c", Trigger: "link", Weight: 1}
		ev.ID = clicks.NewClickID(ev.At, uint64(i), 9)
		events = append(events, ev)
	}
	d := open(t, Options{Clock: leapsFrom(inSpan)})
	ingest(t, d, &sliceSource{events: events})
	if err := d.PutFacts(t.Context(), analytics.FactBatch{Reset: true, At: 1, Conversions: []analytics.Conversion{
		{ID: "a", Workspace: enginetest.Workspace, Kind: analytics.Lead, Click: events[0].ID, At: day},
	}}); err != nil {
		t.Fatal(err)
	}
	q := analytics.Query{Workspace: enginetest.Workspace, From: day - 1000, To: day + 1000}
	if f, err := d.Funnel(t.Context(), q); err != nil || f.Leads != 1 {
		t.Fatalf("%+v, %v", f, err)
	}
	sweepAll(t, d)
	if f, err := d.Funnel(t.Context(), q); err != nil || f.Leads != 0 {
		t.Errorf("%+v, %v; its click is one of a sweep", f, err)
	}
	q.Bots = analytics.BotsInclude
	if f, err := d.Funnel(t.Context(), q); err != nil || f.Leads != 1 {
		t.Errorf("%+v, %v", f, err)
	}
	if s, err := d.Summary(t.Context(), q); err != nil || s.Bots != 6 || s.Humans != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}
