package duckdb

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
	if o.cubeShare == 0 {
		o.cubeShare = -1
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
	t.Parallel()
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
			o := Options{Dir: t.TempDir(), Record: t.TempDir(), Clock: leapsFrom(inSpan), MemoryLimit: 512 << 20, SweepLinks: -1, scopeRows: 20, cubeShare: -1}
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
			t.Parallel()
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
	summary := func(q analytics.Query) plan {
		return planned(t, d, func(ctx context.Context, at *snapshot) (plan, error) { return at.planSummary(ctx, q) })
	}
	breakdown := func(q analytics.Query) plan {
		return planned(t, d, func(ctx context.Context, at *snapshot) (plan, error) { return at.planBreakdown(ctx, q) })
	}
	if p := summary(q); len(p.rolled) < 15 {
		t.Errorf("summary: %d days from rollups", len(p.rolled))
	}
	if p := breakdown(q); len(p.rolled) < 15 {
		t.Errorf("breakdown: %d days from rollups", len(p.rolled))
	}
	for _, zone := range []string{"UTC", "Europe/Berlin", "Asia/Kathmandu"} {
		z := q
		if z.Zone, err = time.LoadLocation(zone); err != nil {
			t.Fatal(err)
		}
		p := planned(t, d, func(ctx context.Context, at *snapshot) (plan, error) { return at.planTimeseries(ctx, z, z.Buckets()) })
		if len(p.rolled) < 15 {
			t.Errorf("days in %s: %d days from rollups", zone, len(p.rolled))
		}
	}
	q.Filters = []analytics.Filter{{Dim: analytics.Device, Values: []string{"mobile"}}}
	if p := summary(q); len(p.rolled) < 15 {
		t.Errorf("one filter: %d days from rollups", len(p.rolled))
	}
	q.Filters = append(q.Filters, analytics.Filter{Dim: analytics.Country, Values: []string{"DE"}})
	if p := summary(q); len(p.rolled) != 0 || len(p.cubeDays) != 1 || len(p.cubeDays[0].days) < 15 {
		t.Errorf("crossed filters: %+v", p.cubeDays)
	}
	for _, by := range []analytics.Dimension{analytics.City, analytics.Campaign, analytics.UTMCampaign, analytics.Bot} {
		q.By = by
		if p := breakdown(q); len(p.rolled) != 0 || len(p.cubeDays) != 1 || len(p.cubeDays[0].days) < 15 {
			t.Errorf("crossed filters by %s: %+v", by, p.cubeDays)
		}
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
		for _, name := range []string{"user_agent", "ip"} {
			list = append(list, fmt.Sprintf("ALTER TABLE %s DROP COLUMN %s", tableName(day), name))
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
// TestRetention: raw clicks go when their time is over, by workspace and for bots earlier; the numbers stay, also
// in a database that is made again; then the rollups go.
func TestRetention(t *testing.T) {
	o := Options{Dir: t.TempDir(), Record: t.TempDir(), Clock: leapsFrom(inSpan), MemoryLimit: 512 << 20, SweepLinks: -1, scopeRows: 20, cubeShare: -1}
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

func daysOf(days []dayView, _ int64) []dayView { return days }

// TestFileReadsBack: a file in which any column differs from what was written does not replace the clicks. A text with the
// character that divides those of a joined column reads back as another.
func TestFileReadsBack(t *testing.T) {
	for _, column := range []string{"country", "os", "utm_campaign"} {
		d := open(t, Options{Clock: leapsFrom(inSpan)})
		events := enginetest.Events(5, 2000)
		ingest(t, d, &sliceSource{events: events})
		day := d.days[0]
		table := tableName(day)
		if err := d.exec(t.Context(), fmt.Sprintf("UPDATE %s SET %s = 'a' || chr(31) || 'b' WHERE rowid = 0", table, column)); err != nil {
			t.Fatal(err)
		}
		f, any, err := d.writeFile(t.Context(), writing{day: day, hour: wholeDay, from: table})
		if err == nil || any {
			t.Errorf("%s: %s passed for what was written, %v", column, f.name, err)
		}
		if left, _ := filepath.Glob(filepath.Join(d.o.Record, clicksFolder, "*", "*", "*")); len(left) != 0 {
			t.Errorf("%s: %v is left", column, left)
		}
		// What has the name of the file already is not touched.
		c, err := d.contentOf(t.Context(), table, "", "outcome")
		must(t, err)
		there := filepath.Join(d.o.Record, partition(day, wholeDay), fmt.Sprintf("%s-%s-%s%s", nodeName(c.node), c.first, c.last, packedSuffix))
		must(t, os.WriteFile(there, []byte("there"), 0o600))
		if _, _, err := d.writeFile(t.Context(), writing{day: day, hour: wholeDay, from: table}); err == nil {
			t.Errorf("%s: a file passed the second time", column)
		}
		if data, err := os.ReadFile(there); err != nil || string(data) != "there" {
			t.Errorf("%s: the file of that name is %q, %v", column, data, err)
		}
		must(t, os.Remove(there))
		if _, any, err := d.writeFile(t.Context(), writing{day: day, hour: wholeDay, from: table, cond: "rowid > 0"}); err != nil || !any {
			t.Errorf("%s: the others are not written: %v", column, err)
		}
	}
}
