package duckdb

import (
	"database/sql"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
)

func without(events []clicks.Event, drop func(*clicks.Event) bool) []clicks.Event {
	return slices.DeleteFunc(slices.Clone(events), func(ev clicks.Event) bool { return drop(&ev) })
}

// TestErase: the clicks of a link and of a visitor are gone from every number, from the files, and from a
// database made again from the record and the spool.
func TestErase(t *testing.T) {
	t.Parallel()
	o := Options{Dir: t.TempDir(), Record: t.TempDir(), Clock: leapsFrom(inSpan), MemoryLimit: 512 << 20, SweepLinks: -1, scopeRows: 20, cubeShare: -1}
	events := enginetest.Events(42, 20_000)
	now := terse.MillisOf(inSpan)
	events = without(events, func(ev *clicks.Event) bool { return ev.At >= now })
	some := events[slices.IndexFunc(events, func(ev clicks.Event) bool {
		return ev.Workspace == enginetest.Workspace && ev.Link != 0 && ev.Visitor != 0
	})]
	link, visitor := some.Link, some.Visitor
	byLink := func(ev *clicks.Event) bool { return ev.Workspace == enginetest.Workspace && ev.Link == link }
	byVisitor := func(ev *clicks.Event) bool { return ev.Workspace == enginetest.Workspace && ev.Visitor == visitor }
	// On two days whose totals are merged, and on the last two that are closed: each of them is rolled up again, twice.
	events = without(events, func(ev *clicks.Event) bool {
		day := dayOf(ev.At)
		return (byLink(ev) || byVisitor(ev)) && day > dayOf(enginetest.SpanFrom)+1 && day < dayOf(now)-2
	})
	d, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ingest(t, d, &sliceSource{events: events})
	maintain(t, d)
	if d.merged < dayOf(enginetest.SpanFrom)+1 {
		t.Errorf("totals are merged up to %d", d.merged)
	}
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

// TestEraseAfterPruning: what is erased in one workspace, and comes late for it, changes no number of another whose clicks
// are pruned, also when no click of the day is left and in a database that is made again.
func TestEraseAfterPruning(t *testing.T) {
	t.Parallel()
	o := Options{Dir: t.TempDir(), Record: t.TempDir(), Clock: leapsFrom(inSpan), MemoryLimit: 512 << 20, SweepLinks: -1, scopeRows: 20, cubeShare: -1}
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
