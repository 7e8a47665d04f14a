package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
)

// closed is what the table rolled says of a day.
type closed struct {
	gen    uint64 // of its rollups; 0: they must be computed again
	clicks uint64 // that they are of
	raw    bool   // whether the clicks are there, too
	pruned string // the condition of those that were removed; "" for none
}

// settled reports whether the numbers of the day come from rollups alone.
func (c closed) settled() bool { return c.gen != 0 || !c.raw }

// noDay is later than any.
const noDay = int64(1) << 40

const (
	// closedFor is how long what is known of the table rolled is good for: other processes write it too.
	closedFor = 2 * time.Second
	// closeGrace is how long after its end a day is closed.
	closeGrace = 2 * time.Hour
	// genGrace is how long rollups that were replaced stay: a question may be reading them.
	genGrace = time.Hour
	// maintenanceTime is the deadline of a round of maintenance, and of an erasure.
	maintenanceTime = time.Hour
)

// generations returns the days and generations that were known at a version of the table rolled: other processes
// may close days, or find that clicks came to them, while a question is answered.
func generations(ver uint64) string {
	return "(SELECT day, argMax(gen, ver) AS g FROM rolled WHERE ver <= " + number(ver) + " GROUP BY day)"
}

// closedDays returns the days that are closed, and the version of what is known. The map is never changed.
func (e *Engine) closedDays(ctx context.Context) (map[int64]closed, uint64, error) {
	e.mu.RLock()
	days, ver, read := e.closed, e.closedVer, e.closedRead
	e.mu.RUnlock()
	if days != nil && time.Since(read) < closedFor {
		return days, ver, nil
	}
	return e.readClosed(ctx)
}

func (e *Engine) readClosed(ctx context.Context) (map[int64]closed, uint64, error) {
	began := time.Now()
	days := map[int64]closed{}
	var newest uint64
	err := e.scan(ctx, "SELECT toUInt16(day), argMax(gen, ver), argMax(clicks, ver), argMax(raw, ver), argMax(pruned, ver), max(ver) FROM rolled GROUP BY day", func(r row) error {
		var day uint16
		var raw uint8
		var c closed
		var ver uint64
		err := r.Scan(&day, &c.gen, &c.clicks, &raw, &c.pruned, &ver)
		c.raw = raw != 0
		days[int64(day)] = c
		newest = max(newest, ver)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	e.mu.Lock()
	if newest < e.closedVer { // written here meanwhile
		days, newest = e.closed, e.closedVer
	}
	e.closed, e.closedVer, e.closedRead = days, newest, began
	e.lastNow = max(e.lastNow, newest) // the clock of another process may be ahead
	for day, c := range days {
		if c.gen == 0 && c.raw {
			e.openFrom = min(e.openFrom, day)
		}
	}
	e.mu.Unlock()
	return days, newest, nil
}

// writeClosed says something new of days.
func (e *Engine) writeClosed(ctx context.Context, changed map[int64]closed) error {
	if len(changed) == 0 {
		return nil
	}
	ver := e.now()
	rows := make([][]any, 0, len(changed))
	for _, day := range slices.Sorted(maps.Keys(changed)) {
		c := changed[day]
		rows = append(rows, []any{dateOf(day), ver, c.gen, c.clicks, uint8(bit(c.raw)), c.pruned})
	}
	if err := e.rows(ctx, "rolled (day, ver, gen, clicks, raw, pruned)", rows); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	days := maps.Clone(e.closed)
	if days == nil {
		days = map[int64]closed{}
	}
	maps.Copy(days, changed)
	e.closed, e.closedVer = days, max(e.closedVer, ver)
	return nil
}

// now returns a number that grows with every call, and from one process to the next.
func (e *Engine) now() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lastNow = max(e.lastNow+1, uint64(e.o.Clock().UnixNano()))
	return e.lastNow
}

// markDirty lets days be read from clicks, because some are about to be added or removed. Not those of which clicks were
// removed for their age: nothing but the rollups has their numbers.
func (e *Engine) markDirty(ctx context.Context, days map[int64]bool) error {
	e.mu.Lock()
	known := e.closed
	for day := range days {
		e.openFrom, e.touched = min(e.openFrom, day), min(e.touched, day)
	}
	e.mu.Unlock()
	changed := map[int64]closed{}
	for day := range days {
		if c, ok := known[day]; ok && c.gen != 0 && c.raw && c.pruned == "" {
			c.gen = 0
			changed[day] = c
		}
	}
	return e.writeClosed(ctx, changed)
}

// reduced reports whether clicks of a day have been removed already: a late one could not be added to its numbers.
func (e *Engine) reduced(day int64) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	c, ok := e.closed[day]
	return ok && (!c.raw || c.pruned != "")
}

// countDays returns how many clicks there are of each day that a condition chooses.
func (e *Engine) countDays(ctx context.Context, where string) (map[int64]uint64, error) {
	ctx, cancel := e.within(ctx)
	defer cancel()
	days := map[int64]uint64{}
	err := e.scan(ctx, "SELECT toUInt16(day), count() FROM clicks "+where+" GROUP BY day", func(r row) error {
		var day uint16
		var n uint64
		err := r.Scan(&day, &n)
		days[int64(day)] = n
		return err
	})
	return days, err
}

// Tidy does what is due now: it closes days that are over, removes what is kept no longer and, about once an hour, looks
// for clicks that are there twice. What fails does not keep the rest from being done.
func (e *Engine) Tidy(ctx context.Context) error {
	e.maintaining.Lock()
	defer e.maintaining.Unlock()
	ctx, cancel := context.WithTimeout(ctx, maintenanceTime)
	defer cancel()
	if err := e.readErasures(ctx); err != nil {
		return err
	}
	known, _, err := e.readClosed(ctx)
	if err != nil {
		return err
	}
	e.mu.Lock()
	e.touched = noDay
	e.mu.Unlock()
	counts, err := e.countDays(ctx, "")
	if err != nil {
		return err
	}
	return errors.Join(e.sweepNew(ctx, known, counts), e.closePast(ctx, known, counts), e.forgetSweeps(ctx), e.retain(ctx, counts), e.collect(ctx), e.auditSoon(ctx))
}

// batchClicks bounds the days that are rolled up together, batchDays their number.
const (
	batchClicks = 2_000_000
	batchDays   = 60
)

// closePast computes the rollups of days that are over and have none, or have others than their clicks.
func (e *Engine) closePast(ctx context.Context, known map[int64]closed, counts map[int64]uint64) error {
	open := noDay
	now := terse.MillisOf(e.o.Clock().Add(-closeGrace))
	var batch []int64
	var clicks uint64
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		if err := e.sweepDays(ctx, batch); err != nil {
			return err
		}
		left, err := e.closeDays(ctx, batch, known, counts)
		open, batch, clicks = min(open, left), nil, 0
		return err
	}
	for _, day := range slices.Sorted(maps.Keys(counts)) {
		c, ok := known[day]
		switch {
		case ok && (!c.raw || c.pruned != "" && c.gen != 0), ok && c.gen != 0 && c.clicks == counts[day]:
			continue
		case terse.Millis((day+1)*dayMillis) > now:
			open = min(open, day)
			continue
		}
		if len(batch) == batchDays || clicks > 0 && clicks+counts[day] > batchClicks {
			if err := flush(); err != nil {
				return err
			}
		}
		batch, clicks = append(batch, day), clicks+counts[day]
	}
	if err := flush(); err != nil {
		return err
	}
	e.mu.Lock()
	e.openFrom = min(open, e.touched)
	e.mu.Unlock()
	return nil
}

// closeDays rolls days up and says so. It returns the first day to which clicks came meanwhile, so that they may not be in all of
// its numbers: that is done again next time.
func (e *Engine) closeDays(ctx context.Context, days []int64, known map[int64]closed, counts map[int64]uint64) (open int64, err error) {
	gen := e.now()
	if err := e.rollUp(ctx, days, gen, "1"); err != nil {
		return noDay, err
	}
	after, err := e.countDays(ctx, "WHERE "+dayIn(days))
	if err != nil {
		return noDay, err
	}
	open = noDay
	done := map[int64]closed{}
	for _, day := range days {
		if after[day] != counts[day] {
			open = min(open, day)
			continue
		}
		done[day] = closed{gen: gen, clicks: counts[day], raw: true, pruned: known[day].pruned}
	}
	return open, e.writeClosed(ctx, done)
}

// collect removes rollups that were replaced a while ago.
func (e *Engine) collect(ctx context.Context) error {
	if time.Since(e.collected) < genGrace {
		return nil
	}
	before := e.o.Clock().Add(-genGrace).UnixNano()
	for _, table := range rollupTables {
		var old []string
		text := fmt.Sprintf("SELECT DISTINCT toUInt16(day), gen FROM %s WHERE gen < %d AND (day, gen) NOT IN (SELECT day, argMax(gen, ver) FROM rolled GROUP BY day)", table, before)
		if err := e.scan(ctx, text, func(r row) error {
			var day uint16
			var gen uint64
			err := r.Scan(&day, &gen)
			old = append(old, fmt.Sprintf("(toDate(%d), %d)", day, gen))
			return err
		}); err != nil {
			return err
		}
		if len(old) > 0 {
			if err := e.mutate(ctx, table, "DELETE WHERE (day, gen) IN ("+list(old, func(s string) string { return s })+")"); err != nil {
				return err
			}
		}
	}
	e.collected = time.Now()
	return nil
}

// LinkTotals implements analytics.Engine.
func (e *Engine) LinkTotals(ctx context.Context, w terse.WorkspaceID, links []terse.LinkNumber) (map[terse.LinkNumber]analytics.LinkTotal, error) {
	if len(links) > analytics.MaxLinks {
		return nil, terse.Invalid("links", "more than %d links", analytics.MaxLinks)
	}
	totals := make(map[terse.LinkNumber]analytics.LinkTotal, len(links))
	if len(links) == 0 {
		return totals, nil
	}
	err := e.ask(ctx, "link_totals", func(ctx context.Context) error {
		clear(totals)
		_, ver, err := e.closedDays(ctx)
		if err != nil {
			return err
		}
		done := generations(ver)
		e.mu.RLock()
		open := e.openFrom
		e.mu.RUnlock()
		which := "workspace_id = " + number(w) + " AND link_id IN (" + list(links, number[terse.LinkNumber]) + ")"
		text := "SELECT link_id, toInt64(sum(c)), max(l) FROM (SELECT link_id, clicks AS c, last AS l FROM rlink WHERE " + which + " AND (day, gen) IN " + done
		if open < noDay {
			text += fmt.Sprintf(" UNION ALL SELECT link_id, toInt64(sum(weight)) AS c, max(ts_ms) AS l FROM clicks WHERE %s AND day >= toDate(%d) AND day NOT IN (SELECT day FROM %s WHERE g != 0) AND outcome = 0 AND bot = 0 GROUP BY link_id",
				which, open, done)
		}
		return e.scan(ctx, text+") GROUP BY link_id", func(r row) error {
			var link uint64
			var t analytics.LinkTotal
			var last int64
			if err := r.Scan(&link, &t.Clicks, &last); err != nil {
				return err
			}
			t.Last = terse.Millis(last)
			totals[terse.LinkNumber(link)] = t
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return totals, nil
}
