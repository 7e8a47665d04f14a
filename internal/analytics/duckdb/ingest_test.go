package duckdb

import (
	"testing"

	"github.com/terselink/terse/internal/analytics/enginetest"
)

// TestThreadsAfterBatch: a batch that was written by one thread leaves queries all of theirs, and nothing else of the
// configuration can be changed.
func TestThreadsAfterBatch(t *testing.T) {
	t.Parallel()
	d := open(t, Options{Threads: 3})
	ingest(t, d, &sliceSource{events: enginetest.Events(4, 3*trickleRows)})
	var threads int
	if err := d.readers.QueryRowContext(t.Context(), "SELECT current_setting('threads')").Scan(&threads); err != nil || threads != 3 {
		t.Errorf("%d threads, %v", threads, err)
	}
	for _, set := range []string{"memory_limit = '1GB'", "allowed_configs = ['memory_limit']", "lock_configuration = false", "enable_external_access = true"} {
		if err := d.exec(t.Context(), "SET "+set); err == nil {
			t.Errorf("SET %s is allowed", set)
		}
	}
}
