package clickhouse

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/terselink/terse"
)

const auditEvery = time.Hour

// auditSoon looks at the last days for clicks that are there twice, once an hour.
func (e *Engine) auditSoon(ctx context.Context) error {
	if time.Since(e.audited) < auditEvery {
		return nil
	}
	e.audited = time.Now() // also when it fails: it reads days whole
	today := dayOf(terse.MillisOf(e.o.Clock()))
	_, err := e.auditDays(ctx, fmt.Sprintf("day >= toDate(%d) AND day <= toDate(%d)", today-2, today+1))
	return err
}

// auditDays counts clicks that are there twice, by day. There are none unless an insert of a process that died was applied
// after another process had looked for it. The table is made so that merging its parts takes them out.
func (e *Engine) auditDays(ctx context.Context, cond string) (twice map[int64]uint64, err error) {
	twice = map[int64]uint64{}
	months := map[string]bool{}
	var sum uint64
	err = e.scan(ctx, "SELECT toUInt16(day), count() - uniqExact(event_id) AS n FROM clicks WHERE "+cond+" GROUP BY day HAVING n > 0", func(r row) error {
		var day uint16
		var n int64
		err := r.Scan(&day, &n)
		twice[int64(day)] = uint64(n)
		months[monthOf(int64(day))] = true
		sum += uint64(n)
		return err
	})
	if err != nil || len(twice) == 0 {
		return twice, err
	}
	e.o.Log.Error("clicks were stored twice and are taken out", "clicks", sum)
	e.metrics.twice.Add(float64(sum))
	days := map[int64]bool{}
	for day := range twice {
		days[day] = true
	}
	if err := e.markDirty(ctx, days); err != nil {
		return twice, err
	}
	for _, month := range slices.Sorted(maps.Keys(months)) {
		if err := e.exec(ctx, "OPTIMIZE TABLE clicks PARTITION "+month+" FINAL"); err != nil {
			return twice, err
		}
	}
	return twice, nil
}
