package duckdb

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
)

// crossedQuery returns a random query of whole UTC days that a cube has.
func crossedQuery(r *rand.Rand, c cube, events []clicks.Event) analytics.Query {
	for {
		dims := c.dims
		if c.has(analytics.Tag) {
			dims = append(slices.Clone(dims), analytics.Tag)
		}
		dim := func() analytics.Dimension { return dims[r.IntN(len(dims))] }
		by := dim()
		for by == analytics.Link { // no cube knows what links are called
			by = dim()
		}
		q := analytics.Query{Workspace: enginetest.Workspace, From: enginetest.SpanFrom + terse.Millis(r.IntN(20))*dayMillis, Interval: analytics.Day, By: by, Limit: 1000,
			Metric: []analytics.Metric{analytics.Clicks, analytics.Visitors}[r.IntN(2)],
			Bots:   []analytics.Bots{analytics.BotsExclude, analytics.BotsInclude, analytics.BotsOnly}[r.IntN(3)]}
		q.To = q.From + terse.Millis(1+r.IntN(30))*dayMillis
		sample := &events[r.IntN(len(events))]
		tag := func() string { return []string{"sms", "vip", "a,b", "spring", "", "no such tag"}[r.IntN(6)] }
		if c.has(analytics.Tag) && r.IntN(2) == 0 {
			q.Scope.Tag = tag()
		} else if c.has(analytics.Link) && r.IntN(4) == 0 {
			q.Scope.Link = sample.Link
		} else if c.has(analytics.Campaign) && r.IntN(3) == 0 {
			q.Scope.Campaign = sample.Campaign
		} else if c.has(analytics.Domain) && r.IntN(3) == 0 {
			q.Scope.Domain = sample.Domain
		}
		for range 1 + r.IntN(3) {
			f := analytics.Filter{Dim: dim(), Not: r.IntN(3) == 0}
			for range 1 + r.IntN(3) {
				if f.Dim == analytics.Tag {
					f.Values = append(f.Values, tag())
				} else {
					f.Values = append(f.Values, f.Dim.Of(&events[r.IntN(len(events))]))
				}
			}
			q.Filters = append(q.Filters, f)
		}
		if r.IntN(4) == 0 {
			q.Filters = append(q.Filters, analytics.Filter{Dim: analytics.Bot, Values: []string{analytics.Bot.Of(sample)}})
		}
		if n, err := q.Normalize(); err == nil {
			return n
		}
	}
}

// sameCrossed asks both engines the same.
func sameCrossed(t *testing.T, d *DB, ref analytics.Engine, q analytics.Query) {
	t.Helper()
	ctx := t.Context()
	equal := func(what string, want, got any, err error) {
		t.Helper()
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(analytics.Summary{}, "LagMs"), cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Fatalf("%s of %+v (-want +got):\n%s%v", what, q, diff, err)
		}
	}
	wantS, _ := ref.Summary(ctx, q)
	gotS, err := d.Summary(ctx, q)
	equal("summary", wantS, gotS, err)
	wantB, _ := ref.Breakdown(ctx, q)
	gotB, err := d.Breakdown(ctx, q)
	equal("breakdown", wantB, gotB, err)
	wantT, _ := ref.Timeseries(ctx, q)
	gotT, err := d.Timeseries(ctx, q)
	equal("timeseries", wantT, gotT, err)
}

// TestCubes: random filters that cross give the same numbers from cubes as from the clicks one at a time, and cubes are what they
// are read from.
func TestCubes(t *testing.T) {
	events := enginetest.Events(42, 6000)
	d, ref := closed(t, Options{}, events), enginetest.NewReference(events)
	tellTags(t, events, d, ref)
	r := rand.New(rand.NewPCG(42, 3))
	fromCubes := 0
	for range 12 {
		for _, c := range cubes {
			q := crossedQuery(r, c, events)
			sameCrossed(t, d, ref, q)
			p := planned(t, d, func(ctx context.Context, at *snapshot) (plan, error) { return at.planSummary(ctx, q) })
			for _, c := range p.cubeDays {
				fromCubes += len(c.days)
			}
			for _, v := range p.raw { // bots with a visitor, of the first days, are read one by one
				if v.rolled && (q.Bots == analytics.BotsExclude || v.day >= dayOf(enginetest.SpanFrom)+8) {
					t.Errorf("%s is read from clicks for %+v", date(v.day), q)
				}
			}
		}
	}
	if fromCubes < 100 {
		t.Errorf("only %d days were read from cubes", fromCubes)
	}
}

// TestSets: visitors that came in the same two cells are one set, each of them counts once however many of the
// cells a filter has.
func TestSets(t *testing.T) {
	events := enginetest.Events(42, 4000)
	noon := enginetest.SpanFrom + dayMillis/2
	events = slices.DeleteFunc(events, func(ev clicks.Event) bool { return dayOf(ev.At) == dayOf(noon) })
	add := func(visitor uint64, country, browser string) {
		ev := clicks.Event{At: noon + terse.Millis(len(events)), Workspace: enginetest.Workspace, Link: 5, Visitor: visitor, Country: country, Device: "mobile", Browser: browser, Weight: 1}
		binary.BigEndian.PutUint64(ev.ID[:8], uint64(ev.At)<<16|7<<12)
		ev.ID[8] = 1 << 7
		events = append(events, ev)
	}
	for visitor := range uint64(3) {
		add(visitor+1, "DE", "Chrome")
		add(visitor+1, "AT", "Chrome")
	}
	add(4, "DE", "Chrome")
	d := closed(t, Options{}, events)
	var n, rows int64
	if err := d.readers.QueryRowContext(t.Context(), fmt.Sprintf("SELECT sum(n), count(*) FROM rset WHERE day = %d AND cube = 0 AND kind = %d", dayOf(noon), setVisitors)).Scan(&n, &rows); err != nil || n != 6 || rows != 2 {
		t.Errorf("%d in %d rows, %v; want 3 in each of two", n, rows, err)
	}
	q := analytics.Query{Workspace: enginetest.Workspace, From: enginetest.SpanFrom, To: enginetest.SpanFrom + dayMillis, By: analytics.Country}
	for _, test := range []struct {
		countries        []string
		clicks, visitors int64
	}{{[]string{"DE"}, 4, 4}, {[]string{"AT"}, 3, 3}, {[]string{"AT", "DE"}, 7, 4}} {
		q.Filters = []analytics.Filter{{Dim: analytics.Device, Values: []string{"mobile"}}, {Dim: analytics.Country, Values: test.countries}}
		s, err := d.Summary(t.Context(), q)
		if err != nil || s.Clicks != test.clicks || s.Visitors != test.visitors || s.UniqueClicks != test.visitors {
			t.Errorf("%v: %+v, %v", test.countries, s, err)
		}
	}
	b, err := d.Breakdown(t.Context(), q)
	want := []analytics.Value{{Value: "DE", Clicks: 4, Visitors: 4}, {Value: "AT", Clicks: 3, Visitors: 3}}
	if err != nil || !cmp.Equal(want, b.Data) || b.Total != 7 {
		t.Errorf("by country: %+v, %v", b, err)
	}
}

// TestSmallDays: cubes that would have about as many rows as there are clicks are left out.
func TestSmallDays(t *testing.T) {
	events := enginetest.Events(42, 4000)
	d, ref := closed(t, Options{cubeShare: 1000}, events), enginetest.NewReference(events)
	var n int64
	if err := d.readers.QueryRowContext(t.Context(), "SELECT (SELECT count(*) FROM rcube) + (SELECT count(*) FROM rset) + (SELECT sum(cubes) FROM rday)").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d, %v", n, err)
	}
	r := rand.New(rand.NewPCG(42, 4))
	for range 4 {
		sameCrossed(t, d, ref, crossedQuery(r, cubes[0], events))
	}
}

// downgrade makes of a database, and of the rollups in its record, what an earlier version had: 1 no cubes, 2 none of links, 3 no rdim15.
func downgrade(t *testing.T, d *DB, version int) {
	t.Helper()
	before := map[string]string{"rday": "* EXCLUDE (cubes)", "r15": "*", "rdim": "*", "rlink": "*"}
	was := []string{"DROP TABLE rdim15", "DROP TABLE rcube", "DROP TABLE rset", "ALTER TABLE rday DROP COLUMN cubes", "ALTER TABLE rolled DROP COLUMN version", `UPDATE meta SET "value" = '2' WHERE "key" = 'schema'`}
	switch version {
	case 2:
		before = map[string]string{"rday": "* REPLACE (cubes & 15 AS cubes)", "r15": "*", "rdim": "*", "rlink": "*", "rcube": "* EXCLUDE (link_id)", "rset": "*"}
		was = []string{"DROP TABLE rdim15", "DELETE FROM rcube WHERE cube = 4", "DELETE FROM rset WHERE cube = 4", "UPDATE rday SET cubes = cubes & 15", "COMMIT", "BEGIN", "ALTER TABLE rcube DROP COLUMN link_id", "UPDATE rolled SET version = 2",
			`UPDATE meta SET "value" = '3' WHERE "key" = 'schema'`}
	case 3:
		before = map[string]string{"rday": "*", "r15": "*", "rdim": "*", "rlink": "*", "rcube": "*", "rset": "*"}
		was = []string{"DROP TABLE rdim15", "UPDATE rolled SET version = 3", `UPDATE meta SET "value" = '4' WHERE "key" = 'schema'`}
	}
	for day := range d.rolled {
		for _, table := range rollupTables {
			path := d.rollupFile(day, table)
			if before[table] == "" {
				must(t, os.Remove(path))
				continue
			}
			keys, err := d.parquetKeys(t.Context(), path)
			must(t, err)
			if delete(keys, rollupVersionKey); version > 1 {
				keys[rollupVersionKey] = fmt.Sprint(version)
			}
			rows := "SELECT " + before[table] + " FROM " + parquet(quote(path))
			if version == 2 && slices.Contains(cubeTables, table) {
				rows += " WHERE cube < 4"
			}
			must(t, d.copyTo(t.Context(), d.readers, rows, path, keys))
		}
	}
	for _, day := range d.days {
		was = append(was, "ALTER TABLE "+tableName(day)+" DROP COLUMN user_agent", "ALTER TABLE "+tableName(day)+" DROP COLUMN ip")
	}
	for _, q := range slices.Concat([]string{"BEGIN"}, was, []string{"COMMIT"}) {
		must(t, d.exec(t.Context(), q))
	}
}

// tellTags tells engines the tags of links and campaigns.
func tellTags(t *testing.T, events []clicks.Event, engines ...analytics.Engine) {
	t.Helper()
	b := enginetest.Facts(42, events)
	b.Reset, b.At, b.Conversions = true, 1, nil
	for _, e := range engines {
		must(t, e.(analytics.FactSink).PutFacts(t.Context(), b))
	}
}

// TestUpgrade: a database without some cubes, or a record without them and no database, answers as before, and has them after a while.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	all := enginetest.Events(42, 4000)
	for i := range all { // versions as old as that kept neither
		all[i].UserAgent, all[i].IP = "", ""
	}
	few := without(all, func(ev *clicks.Event) bool {
		return dayOf(ev.At) < dayOf(terse.MillisOf(inSpan))-3 || dayOf(ev.At) > dayOf(terse.MillisOf(inSpan))
	})
	for _, test := range []struct {
		version int
		lost    bool
		events  []clicks.Event
		closed  int
	}{{1, false, all, 18}, {1, true, few, 3}, {2, false, few, 3}, {2, true, few, 3}, {3, true, few, 3}} { // all: so many that totals are merged
		lost, events := test.lost, test.events
		t.Run(fmt.Sprintf("version=%d,lost=%v", test.version, lost), func(t *testing.T) {
			t.Parallel()
			ref := enginetest.NewReference(events)
			o := Options{Dir: t.TempDir(), Record: t.TempDir(), Clock: leapsFrom(inSpan), MemoryLimit: 512 << 20, SweepLinks: -1, scopeRows: 20, cubeShare: -1}
			old, err := Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			ingest(t, old, &sliceSource{events: events})
			maintain(t, old)
			downgrade(t, old, test.version)
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
			if lost {
				if err := SetAside(o.Dir, inSpan); err != nil {
					t.Fatal(err)
				}
			}
			d := open(t, o)
			if lost {
				ingest(t, d, &sliceSource{events: events})
			}
			if len(d.rolled) != test.closed || len(d.outdated) != test.closed || (d.merged >= 0) != (test.closed > mergeAfter) {
				t.Fatalf("%d days in rollups, %d of an earlier version", len(d.rolled), len(d.outdated))
			}
			merged := d.merged
			r := rand.New(rand.NewPCG(42, 5))
			sameCrossed(t, d, ref, crossedQuery(r, cubes[0], events))
			enginetest.Compare(t, d, events, 5, 4)
			tellTags(t, events, d, ref)
			d.o.renewClicks = d.clicksOn(dayOf(terse.MillisOf(inSpan)) - 1) // that day alone, the last that is closed
			maintain(t, d)
			if len(d.outdated) != test.closed-1 {
				t.Fatalf("%d days of an earlier version after one was renewed", len(d.outdated))
			}
			sameCrossed(t, d, ref, crossedQuery(r, cubes[0], events)) // of both versions
			sameParts(t, d, ref, partedQuery(r, events))
			d.o.renewClicks = batchClicks
			maintain(t, d)
			if len(d.outdated) != 0 {
				t.Fatalf("%d days of an earlier version after all were renewed", len(d.outdated))
			}
			if len(d.rolled) != test.closed || !lost && d.merged != merged {
				t.Errorf("%d days in rollups, totals up to %d", len(d.rolled), d.merged)
			}
			if test.version == 1 && lost { // all of the rollups that were made again, not those of crossed filters alone
				enginetest.Compare(t, d, events, 7, 6)
			}
			for _, c := range cubes {
				sameCrossed(t, d, ref, crossedQuery(r, c, events))
			}
			var n int
			must(t, d.readers.QueryRowContext(t.Context(), fmt.Sprintf("SELECT count(DISTINCT day) FROM rday WHERE cubes = %d AND scope = %d", 1<<len(cubes)-1, scopeWorkspace)).Scan(&n))
			if n != test.closed {
				t.Errorf("%d days have all cubes", n)
			}
			kathmandu, err := time.LoadLocation("Asia/Kathmandu")
			must(t, err)
			q, err := analytics.Query{Workspace: enginetest.Workspace, From: enginetest.SpanFrom, To: terse.MillisOf(inSpan), Zone: kathmandu, Interval: analytics.Day,
				Filters: []analytics.Filter{{Dim: analytics.Country, Values: []string{"DE"}}}}.Normalize()
			must(t, err)
			if n := sameParts(t, d, ref, q); n != test.closed {
				t.Errorf("a chart with a filter reads %d days from %s", n, partsTable)
			}
		})
	}
}

// TestRenew: the rollups of a day of an earlier version are made again of its file, which stays; workspaces whose clicks are pruned
// keep their numbers and have no cubes; a process that dies right after the upgrade loses nothing; and a day that cannot be read
// keeps neither older days nor Maintain from going on.
func TestRenew(t *testing.T) {
	events := threeDays()
	o := Options{Dir: t.TempDir(), Record: t.TempDir(), Clock: leapsFrom(inSpan), MemoryLimit: 512 << 20, SweepLinks: -1, scopeRows: 20, cubeShare: -1, renewClicks: 1}
	d, err := Open(t.Context(), o)
	must(t, err)
	ingest(t, d, &sliceSource{events: events})
	maintain(t, d)
	d.SetRetention(Retention{Workspaces: map[terse.WorkspaceID]Terms{enginetest.Workspace: {Bots: 1}}})
	maintain(t, d)
	want, err := d.Summary(t.Context(), everything())
	must(t, err)
	downgrade(t, d, 1)
	must(t, d.Close())
	check := func(step string, d *DB, outdated int) {
		t.Helper()
		got, err := d.Summary(t.Context(), everything())
		want.LagMs, got.LagMs = 0, 0
		if err != nil || !cmp.Equal(want, got) || len(d.rolled) != 2 || len(d.outdated) != outdated {
			t.Errorf("%s: %d of %d days are of an earlier version, %v %s", step, len(d.outdated), len(d.rolled), err, cmp.Diff(want, got))
		}
	}

	d = open(t, o)
	killed := copyOf(t, o) // before the first checkpoint
	check("upgraded", d, 2)
	files := recordFiles(t, o.Record)
	maintain(t, d)
	check("one day", d, 1)
	maintain(t, d)
	check("both days", d, 0)
	if now := recordFiles(t, o.Record); !slices.Equal(files, now) {
		t.Errorf("the files of clicks changed: %s", cmp.Diff(files, now))
	}
	var withCubes int
	old := dayOf(terse.MillisOf(inSpan)) - 2
	must(t, d.readers.QueryRowContext(t.Context(), fmt.Sprintf("SELECT count(*) FROM rday WHERE cubes <> 0 AND scope = %d AND (day > %d OR workspace_id <> %d)", scopeWorkspace, old, enginetest.Workspace)).Scan(&withCubes))
	if withCubes != 3 {
		t.Errorf("%d days of workspaces have cubes, want 3", withCubes)
	}

	killed.renewClicks = 0 // both days at once, of which one fails
	d = open(t, killed)
	check("killed", d, 2)
	must(t, os.WriteFile(d.coldFiles(old + 1)[0].path(killed.Record), []byte("damaged"), 0o600))
	for range 2 { // the second time it is not tried
		maintain(t, d)
		if !d.outdated[old+1] || d.outdated[old] || d.RecordErrors() != 1 {
			t.Errorf("days %v are of an earlier version, %d errors", d.outdated, d.RecordErrors())
		}
	}
}

// TestCubesAlone: where raw clicks are gone, filters that cross count all days or none of them.
func TestCubesAlone(t *testing.T) {
	today := dayOf(terse.MillisOf(inSpan))
	events := without(enginetest.Events(42, 8000), func(ev *clicks.Event) bool { return dayOf(ev.At) < today-3 || dayOf(ev.At) >= today })
	d := closed(t, Options{}, events)
	d.SetRetention(Retention{Default: Terms{Raw: 1}})
	maintain(t, d)
	q, err := analytics.Query{Workspace: enginetest.Workspace, From: terse.Millis((today - 3) * dayMillis), To: terse.Millis(today * dayMillis), Interval: analytics.Day, By: analytics.Country,
		Filters: []analytics.Filter{{Dim: analytics.Device, Values: []string{"mobile"}}, {Dim: analytics.OS, Values: []string{"iOS", "Android"}}}}.Normalize()
	must(t, err)
	sameCrossed(t, d, enginetest.NewReference(events), q)
	must(t, d.exec(t.Context(), fmt.Sprintf("UPDATE rday SET cubes = 0 WHERE day = %d", today-2)))
	left := without(events, func(ev *clicks.Event) bool { return dayOf(ev.At) < today-1 })
	sameCrossed(t, d, enginetest.NewReference(left), q)
}
