package duckdb

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
)

const linkCube = 4

// TestCrowdedDays: a day has the cubes of links of as many workspaces, the small ones first, as have no more rows than is allowed; the
// others answer the same, from clicks, and have all other cubes.
func TestCrowdedDays(t *testing.T) {
	t.Parallel()
	events := threeDays()
	type workspaceDay struct {
		day       int64
		workspace terse.WorkspaceID
	}
	type row struct {
		link     terse.LinkNumber
		campaign uint64
		bot      uint64
		outcome  clicks.Outcome
	}
	rows := map[workspaceDay]map[row]bool{}
	today := dayOf(terse.MillisOf(inSpan))
	for i := range events {
		ev := &events[i]
		if k := (workspaceDay{dayOf(ev.At), ev.Workspace}); k.day < today {
			if rows[k] == nil {
				rows[k] = map[row]bool{}
			}
			rows[k][row{ev.Link, uint64(ev.Campaign), uint64(ev.Bot), ev.Outcome}] = true
		}
	}
	totals := map[int64]int{}
	for k, list := range rows {
		totals[k.day] += len(list)
	}
	most := slices.Min(slices.Collect(maps.Values(totals))) // one day has just as many
	want, upto, crowded := map[workspaceDay]int64{}, map[int64]int{}, 0
	for _, k := range slices.SortedFunc(maps.Keys(rows), func(a, b workspaceDay) int {
		return cmp.Or(len(rows[a])-len(rows[b]), int(a.workspace)-int(b.workspace))
	}) {
		if upto[k.day] += len(rows[k]); upto[k.day] <= most {
			want[k] = int64(len(rows[k]))
		} else {
			crowded++
		}
	}
	if len(want) == 0 || crowded == 0 {
		t.Fatalf("%d workspaces and days have the cube, %d are crowded: the test wants both", len(want), crowded)
	}

	d, ref := closed(t, Options{linkCubeRows: most}, events), enginetest.NewReference(events)
	got, days := map[workspaceDay]int64{}, 0
	must(t, d.scan(t.Context(), fmt.Sprintf("SELECT day, workspace_id, cubes, (SELECT count(*) FROM rcube c WHERE c.day = r.day AND c.workspace_id = r.workspace_id AND cube = %[1]d), "+
		"(SELECT count(*) FROM rset c WHERE c.day = r.day AND c.workspace_id = r.workspace_id AND cube = %[1]d) FROM rday r WHERE scope = %[2]d", linkCube, scopeWorkspace), func(r *sql.Rows) error {
		var k workspaceDay
		var has, n, sets int64
		if err := r.Scan(&k.day, &k.workspace, &has, &n, &sets); err != nil {
			return err
		}
		if days++; n > 0 {
			got[k] = n
		}
		if others := int64(1<<linkCube - 1); has&others != others || has>>linkCube&1 != 0 != (n > 0) || n == 0 && sets > 0 {
			t.Errorf("%s of workspace %d: cubes %b, %d rows and %d of sets of the cube of links", date(k.day), k.workspace, has, n, sets)
		}
		return nil
	}))
	if days != len(rows) || !maps.Equal(want, got) {
		t.Errorf("%d of %d days of workspaces; rows of cubes of links: %v, want %v", days, len(rows), got, want)
	}
	tellTags(t, events, d, ref)
	r := rand.New(rand.NewPCG(42, 8))
	for range 6 {
		for _, c := range cubes[2:] {
			sameCrossed(t, d, ref, crossedQuery(r, c, events))
		}
	}
}

// TestCrowdedBySample: many rows are counted by a sample.
func TestCrowdedBySample(t *testing.T) {
	d := open(t, Options{})
	r := rollup{linkCubeRows: 4 * linkRowsSample, src: "(SELECT TIMESTAMP '2026-10-01 12:00:00' AS ts, CASE WHEN i < 50000 THEN 1 WHEN i < 110000 THEN 2 ELSE 3 END AS workspace_id, " +
		"i AS link_id, 7::BIGINT AS campaign_id, 0::INTEGER AS bot, 'redirect' AS outcome FROM range(210000) r(i) UNION ALL BY NAME " +
		"SELECT TIMESTAMP '2026-10-02 12:00:00' AS ts, 4 AS workspace_id, 9::BIGINT AS link_id, 7::BIGINT AS campaign_id, 0::INTEGER AS bot, 'redirect' AS outcome FROM range(210000))"}
	conn, err := d.readers.Conn(t.Context())
	must(t, err)
	defer conn.Close()
	_, err = conn.ExecContext(t.Context(), r.crowded())
	must(t, err)
	var who []string
	must(t, scanOn(t.Context(), conn, "SELECT workspace_id FROM crowded ORDER BY 1", func(r *sql.Rows) error {
		var id string
		err := r.Scan(&id)
		who = append(who, id)
		return err
	}, nil))
	if !slices.Equal(who, []string{"3"}) { // 50,000 and 60,000 rows of 131,072; 100,000 more are too many; 210,000 clicks of a link are one row
		t.Errorf("crowded are %v", who)
	}
}

// TestCubesOfTwoVersions: a database is lost, and a process died while a day was renewed: one file of cubes is of another version, and
// numbers the cells in another way. The day has no cubes until it is renewed.
func TestCubesOfTwoVersions(t *testing.T) {
	t.Parallel()
	events := threeDays()
	o := Options{Dir: t.TempDir(), Record: t.TempDir(), Clock: leapsFrom(inSpan), MemoryLimit: 512 << 20, SweepLinks: -1, scopeRows: 20, cubeShare: -1}
	old, err := Open(t.Context(), o)
	must(t, err)
	ingest(t, old, &sliceSource{events: events})
	maintain(t, old)
	day := dayOf(terse.MillisOf(inSpan)) - 1
	sets := old.rollupFile(day, "rset")
	renewed, err := os.ReadFile(sets)
	must(t, err)
	downgrade(t, old, 3)
	cells := old.rollupFile(day, "rcube")
	keys, err := old.parquetKeys(t.Context(), cells)
	must(t, err)
	must(t, old.copyTo(t.Context(), old.readers, "SELECT * REPLACE ((max(cell) OVER (PARTITION BY workspace_id, cube) + 1 - cell)::INTEGER AS cell) FROM "+parquet(quote(cells)), cells, keys))
	must(t, os.WriteFile(sets, renewed, 0o600))
	must(t, old.Close())
	must(t, SetAside(o.Dir, inSpan))

	d, ref := open(t, o), enginetest.NewReference(events)
	ingest(t, d, &sliceSource{events: events})
	tellTags(t, events, d, ref)
	check := func(step string, want int) {
		t.Helper()
		q, err := analytics.Query{Workspace: enginetest.Workspace, From: terse.Millis(day * dayMillis), To: terse.Millis((day + 1) * dayMillis), By: analytics.Country, Interval: analytics.Day,
			Filters: []analytics.Filter{{Dim: analytics.Trigger, Values: []string{"qr"}, Not: true}, {Dim: analytics.Device, Values: []string{"mobile", "desktop"}}}}.Normalize()
		must(t, err)
		p := planned(t, d, func(ctx context.Context, at *snapshot) (plan, error) { return at.planSummary(ctx, q) })
		if len(p.cubeDays) != want || !d.rolled[day] || d.outdated[day] != (want == 0) {
			t.Errorf("%s: %d days are read from cubes, want %d", step, len(p.cubeDays), want)
		}
		sameCrossed(t, d, ref, q)
		r := rand.New(rand.NewPCG(42, 9))
		for _, c := range cubes {
			sameCrossed(t, d, ref, crossedQuery(r, c, events))
		}
	}
	check("of two versions", 0)
	maintain(t, d)
	check("renewed", 1)
}
