package duckdb

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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
		must(t, filepath.WalkDir(o.Record, func(path string, _ fs.DirEntry, err error) error {
			if strings.HasSuffix(path, tmpSuffix) {
				t.Errorf("%s is left", path)
			}
			return err
		}))
		return sums
	}
	if diff := cmp.Diff(rollups(Options{}), rollups(Options{batchRollups: 1})); diff != "" {
		t.Errorf("together from tables (-), one by one from files (+):\n%s", diff)
	}
}
