package duckdb

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse/internal/analytics"
)

// TestRollupsFromFile: a day that is too large to be counted from a table has the same rollups, of tags too, and its copy is gone.
func TestRollupsFromFile(t *testing.T) {
	t.Parallel()
	events := threeDays()
	rollups := func(o Options) map[string]string {
		t.Helper()
		o.Record, o.tagBudget = t.TempDir(), time.Hour
		d := closed(t, o, events)
		tellTags(t, events, d)
		maintain(t, d)
		sums := map[string]string{}
		for _, table := range rollupTables {
			var rows int
			var sum string
			must(t, d.readers.QueryRowContext(t.Context(), "SELECT count(*), coalesce(sum(hash(t)::HUGEINT), 0)::VARCHAR FROM "+table+" t").Scan(&rows, &sum))
			if sums[table] = sum; rows == 0 {
				t.Errorf("%s has no rows", table)
			}
		}
		for _, table := range tagTables {
			var tags bool
			must(t, d.readers.QueryRowContext(t.Context(), fmt.Sprintf("SELECT count(*) > 0 FROM %s WHERE scope = %d", table, scopeTag)).Scan(&tags))
			if !tags {
				t.Errorf("%s has no tags", table)
			}
		}
		nothingHalf(t, o.Record)
		return sums
	}
	if diff := cmp.Diff(rollups(Options{}), rollups(Options{batchRollups: 1})); diff != "" {
		t.Errorf("together from tables (-), one by one from files (+):\n%s", diff)
	}
}

// nothingHalf fails if a record has a file that is not whole.
func nothingHalf(t *testing.T, record string) {
	t.Helper()
	must(t, filepath.WalkDir(record, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, tmpSuffix) {
			t.Errorf("%s is left", path)
		}
		return err
	}))
}

// TestRollupIsStopped: who stops the closing of a large day leaves no copy of its clicks.
func TestRollupIsStopped(t *testing.T) {
	t.Parallel()
	o := Options{Record: t.TempDir(), batchRollups: 1}
	d := closed(t, o, threeDays())
	for after := range 5 {
		ctx, stop := context.WithTimeout(t.Context(), time.Duration(after)*100*time.Millisecond)
		for day, files := range d.cold {
			_ = d.rollUp(ctx, []prepared{{change: change{day: day}, file: files[0], any: true}}) // however far it comes
		}
		stop()
		nothingHalf(t, o.Record)
	}
}

// TestRollupsByCounting holds rdim to plain distinct counts of the clicks, also of what is beyond the largest values.
func TestRollupsByCounting(t *testing.T) {
	t.Parallel()
	const most = 3
	d := closed(t, Options{topValues: most}, threeDays())
	var files []file
	for _, list := range d.cold {
		files = append(files, list...)
	}
	for _, dim := range []analytics.Dimension{analytics.Country, analytics.Source, analytics.Referrer, analytics.Code} {
		const visit = "outcome = 'redirect' AND bot = 0 AND visitor <> 0"
		counted := fmt.Sprintf("WITH v AS (SELECT %s AS day, workspace_id, %s AS txt, coalesce(%s, 0) AS clicks_p, coalesce(%s, 0) AS clicks_b, count(DISTINCT visitor) FILTER (%s) AS visitors, count(DISTINCT (visitor, link_id)) FILTER (%s) AS uniques FROM %s GROUP BY ALL), "+
			"r AS (SELECT *, row_number() OVER (PARTITION BY day, workspace_id ORDER BY clicks_p + clicks_b DESC, visitors DESC, txt) > %d AS other FROM v) "+
			"SELECT day, workspace_id, CASE WHEN other THEN '' ELSE txt END AS txt, other, sum(clicks_p) AS clicks_p, sum(clicks_b) AS clicks_b, sum(visitors) AS visitors, sum(uniques) AS uniques FROM r GROUP BY ALL",
			dayColumn, columnOf(dim, true), sum("weight", "outcome = 'redirect' AND bot = 0"), sum("weight", "outcome = 'redirect' AND bot <> 0"), visit, visit, readParquet(d.o.Record, files), most)
		rolled := fmt.Sprintf("SELECT day, workspace_id, txt, other, clicks_p, clicks_b, visitors, uniques FROM rdim WHERE scope = %d AND dim = '%s'", scopeWorkspace, dim)
		var rows, others, wrong int
		must(t, d.readers.QueryRowContext(t.Context(), fmt.Sprintf("SELECT (SELECT count(*) FROM (%[1]s)), (SELECT count(*) FROM (%[1]s) WHERE other), (SELECT count(*) FROM ((%[1]s) EXCEPT (%[2]s))) + (SELECT count(*) FROM ((%[2]s) EXCEPT (%[1]s)))", rolled, counted)).
			Scan(&rows, &others, &wrong))
		if rows == 0 || others == 0 || wrong > 0 {
			t.Errorf("%s: %d of %d rows, %d of others, are not what a plain count says", dim, wrong, rows, others)
		}
	}
}
