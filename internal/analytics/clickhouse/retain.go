package clickhouse

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
)

// SetRetention replaces the rules; they are applied by Tidy. Without a call everything is kept.
func (e *Engine) SetRetention(_ context.Context, r analytics.Retention) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.retention, e.ruled = r, true
	return nil
}

// rollupsGone marks, in closed.pruned, a day whose numbers are gone too. The totals of links stay.
const rollupsGone = "rollups"

// retain removes clicks and rollups whose time is over. What is about to go is noted first: should this process end
// in the middle, nobody takes the clicks that are left for all of them.
func (e *Engine) retain(ctx context.Context, counts map[int64]uint64) error {
	e.mu.RLock()
	rules, ruled, days := e.retention, e.ruled, e.closed
	e.mu.RUnlock()
	if !ruled {
		return nil
	}
	today := dayOf(terse.MillisOf(e.o.Clock()))
	over := map[string][]int64{} // by condition
	noted := map[int64]closed{}
	var rollups []int64
	for _, day := range slices.Sorted(maps.Keys(days)) {
		c, age := days[day], today-day
		cond := rules.Over(age)
		switch {
		case c.raw && (c.gen == 0 || c.pruned == "" && c.clicks != counts[day]): // closed again first
		case counts[day] > 0 && (cond == "true" || !c.raw):
			over["true"] = append(over["true"], day)
			if c.raw {
				c.raw, c.pruned = false, ""
				noted[day] = c
			}
		case counts[day] > 0 && cond != "" && e.pruned[day] != cond:
			over[cond] = append(over[cond], day)
			if c.pruned != cond {
				c.pruned = cond
				noted[day] = c
			}
		case counts[day] == 0 && !c.raw && c.pruned != rollupsGone && rules.Rollups > 0 && age > int64(rules.Rollups):
			rollups = append(rollups, day)
		}
	}
	if err := e.writeClosed(ctx, noted); err != nil {
		return err
	}
	for _, cond := range slices.Sorted(maps.Keys(over)) {
		if err := e.removeClicks(ctx, cond, over[cond], counts, func(day int64) bool { return rules.Over(today-day) == "true" }); err != nil {
			return fmt.Errorf("retention: %w", err)
		}
		for _, day := range over[cond] {
			e.pruned[day] = cond
		}
	}
	return e.removeRollups(ctx, rollups, days)
}

// removeClicks removes the clicks of days that satisfy a condition: months by dropping them, if all their days are over
// and all that have clicks go. Clicks may have come to the others since they were counted.
func (e *Engine) removeClicks(ctx context.Context, cond string, days []int64, counts map[int64]uint64, isOver func(day int64) bool) error {
	rest := days
	if cond == "true" {
		cond, rest = "1", nil
		gone := map[string][]int64{}
		for _, day := range days {
			gone[monthOf(day)] = append(gone[monthOf(day)], day)
		}
		there := map[string]int{}
		for day, n := range counts {
			if n > 0 {
				there[monthOf(day)]++
			}
		}
		for _, month := range slices.Sorted(maps.Keys(gone)) {
			if len(gone[month]) < there[month] || !isOver(lastOfMonth(gone[month][0])) {
				rest = append(rest, gone[month]...)
			} else if err := e.exec(ctx, "ALTER TABLE clicks DROP PARTITION "+month); err != nil {
				return err
			}
		}
	}
	if len(rest) == 0 {
		return nil
	}
	where := dayIn(rest) + " AND (" + cond + ")"
	if n, err := e.number(ctx, "SELECT count() FROM clicks WHERE "+where); err != nil || n == 0 {
		return err
	}
	return e.mutate(ctx, "clicks", "DELETE WHERE "+where)
}

// monthOf returns the partition of a day.
func monthOf(day int64) string { return terse.Millis(day * dayMillis).Time().Format("200601") }

// lastOfMonth returns the last day of a day's month.
func lastOfMonth(day int64) int64 {
	t := terse.Millis(day * dayMillis).Time()
	return dayOf(terse.MillisOf(time.Date(t.Year(), t.Month()+1, 0, 0, 0, 0, 0, time.UTC)))
}

// removeRollups forgets the numbers of days whose clicks are gone already. Totals of links are over all time.
func (e *Engine) removeRollups(ctx context.Context, days []int64, known map[int64]closed) error {
	if len(days) == 0 {
		return nil
	}
	for _, table := range rollupTables {
		if table == "rlink" {
			continue
		}
		if err := e.mutate(ctx, table, "DELETE WHERE "+dayIn(days)); err != nil {
			return fmt.Errorf("retention: %w", err)
		}
	}
	gone := map[int64]closed{}
	for _, day := range days {
		c := known[day]
		c.pruned = rollupsGone
		gone[day] = c
	}
	return e.writeClosed(ctx, gone)
}
