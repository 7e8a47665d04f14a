package clickhouse

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// Sweeps (analytics.Sweeps) are seen only once several of their clicks are there, so those are classed again in the table, by
// a mutation. Before it, swept_clicks gets the clicks as they were: they have no visitor any more, and those beside them that
// come later are judged by them, too. After a failure before the clicks are updated, or if another node finds the same, it is
// done once more, and changes nothing else: a click is judged by those around it, never by when it came. After a later one
// the clicks are not found again; their conversions are classed when the day is closed.
//
// Tidy looks at what is new and, before a day is closed, at the whole day, with the clicks of nodes that were behind. A closed
// day has the final classes, so it needs swept_clicks no more, and each Tidy forgets them.
const (
	sweepFirst   = terse.Millis(2 * dayMillis) // how far back the first look of a process reaches
	sweepOverlap = terse.Millis(120_000)       // clicks may come so late and be seen before their day is closed
	sweepIDs     = 5000                        // that one statement names
)

const sweptColumns = "event_id, day, workspace_id, link_id, ts_ms, visitor, asn, lang"

// createSweeps makes the table beside databases of any age: it is about days that are not closed yet.
func createSweeps(d *dialect) string {
	return "CREATE TABLE IF NOT EXISTS swept_clicks (event_id UUID, day Date, workspace_id UInt32, link_id " + d.column(kindID) + ", ts_ms " + d.column(kindMillis) + ", visitor UInt64, asn UInt32, lang " + d.column(kindName) +
		") ENGINE = ReplacingMergeTree PARTITION BY tuple() ORDER BY (workspace_id, day, ts_ms, event_id)" + d.tableSettings()
}

// sweepNew looks for sweeps in the clicks of open days since the last look. The caller holds maintaining.
func (e *Engine) sweepNew(ctx context.Context, known map[int64]closed, counts map[int64]uint64) error {
	now := terse.MillisOf(e.o.Clock())
	from := now - sweepFirst
	if e.sweptTo > 0 {
		from = min(e.sweptTo, now) - sweepOverlap
	}
	for day := dayOf(from); day <= dayOf(now); day++ {
		if c, ok := known[day]; counts[day] == 0 || ok && c.settled() {
			continue
		}
		if err := e.sweepDay(ctx, day, from, now); err != nil {
			return fmt.Errorf("find sweeps: %w", err)
		}
	}
	e.sweptTo = now
	return nil
}

// sweepDays looks at days whole, and at the conversions of all of their sweeps.
func (e *Engine) sweepDays(ctx context.Context, days []int64) error {
	for _, day := range days {
		if err := e.sweepDay(ctx, day, terse.Millis(day*dayMillis), terse.Millis((day+1)*dayMillis)); err != nil {
			return fmt.Errorf("find sweeps: %w", err)
		}
	}
	if err := e.sweepConversions(ctx, days); err != nil {
		return fmt.Errorf("class conversions of sweeps: %w", err)
	}
	return nil
}

// sweepConversions gives conversions the class of their clicks, which a failure, or another node that joined them meanwhile,
// has kept from them.
func (e *Engine) sweepConversions(ctx context.Context, days []int64) error {
	var ids []uuid.UUID
	err := e.scan(ctx, "SELECT DISTINCT click_id FROM conversions WHERE pending = 0 AND bot = 0 AND click_id IN (SELECT event_id FROM swept_clicks WHERE "+dayIn(days)+")", func(r row) error {
		var id uuid.UUID
		err := r.Scan(&id)
		ids = append(ids, id)
		return err
	})
	if err != nil {
		return err
	}
	for chunk := range slices.Chunk(ids, sweepIDs) {
		if err := e.reclassConversions(ctx, chunk); err != nil {
			return err
		}
	}
	return nil
}

// sweepDay classes the clicks of sweeps that have clicks of a day between two times.
func (e *Engine) sweepDay(ctx context.Context, day int64, from, to terse.Millis) error {
	if e.o.SweepLinks < 0 {
		return nil
	}
	within := fmt.Sprintf("%s AND link_id != 0 AND ts_ms >= %d AND ts_ms <= %d", dayIn([]int64{day}), from-2*analytics.SweepWindow, to+2*analytics.SweepWindow)
	ids := map[uuid.UUID]bool{}
	for _, who := range []struct{ column, cond string }{{"visitor", "visitor != 0"}, {"asn", "asn != 0 AND lang = ''"}} {
		if err := e.findSweeps(ctx, who.column, who.cond, within, ids); err != nil {
			return err
		}
	}
	for chunk := range slices.Chunk(slices.Collect(maps.Keys(ids)), sweepIDs) {
		if err := e.reclass(ctx, within, chunk); err != nil {
			return err
		}
	}
	return nil
}

// findSweeps adds the clicks to ids that belong to sweeps of visitors or networks and are not classed so yet. The server leaves
// out who has too few clicks; the others are few, and are looked at one by one.
func (e *Engine) findSweeps(ctx context.Context, column, cond, within string, ids map[uuid.UUID]bool) error {
	text := sweepers(column, cond, within, e.o.SweepLinks)
	type click struct {
		id    uuid.UUID
		fresh bool
	}
	var ofClicks []click
	var judged []analytics.SweepClick
	var workspace uint32
	var who uint64
	flush := func() {
		i := 0
		for _, span := range analytics.Sweeps(judged, e.o.SweepLinks) {
			for ; i < len(judged) && judged[i].At <= span.To; i++ {
				if judged[i].At >= span.From && ofClicks[i].fresh {
					ids[ofClicks[i].id] = true
				}
			}
		}
		judged, ofClicks = judged[:0], ofClicks[:0]
	}
	err := e.scan(ctx, text, func(r row) error {
		var id uuid.UUID
		var w uint32
		var k, link uint64
		var at int64
		var fresh uint8
		if err := r.Scan(&id, &w, &k, &at, &link, &fresh); err != nil {
			return err
		}
		if w != workspace || k != who {
			flush()
			workspace, who = w, k
		}
		judged = append(judged, analytics.SweepClick{At: terse.Millis(at), Link: terse.LinkNumber(link)})
		ofClicks = append(ofClicks, click{id, fresh != 0})
		return nil
	})
	flush()
	return err
}

// sweepers returns the clicks of whoever, named by a column, may be a sweep, in order of time.
func sweepers(column, cond, within string, links int) string {
	all := fmt.Sprintf("(SELECT %[1]s, toUInt8(1) AS fresh FROM clicks WHERE bot = 0 AND %[2]s UNION ALL SELECT %[1]s, toUInt8(0) AS fresh FROM swept_clicks WHERE %[2]s)", sweptColumns, within)
	many := fmt.Sprintf("SELECT workspace_id, %[1]s FROM %[2]s WHERE %[3]s GROUP BY workspace_id, %[1]s HAVING count() >= %[4]d AND min(link_id) != max(link_id)", column, all, cond, links)
	return fmt.Sprintf("SELECT event_id, workspace_id, toUInt64(%[1]s) AS who, ts_ms, link_id, fresh FROM %[2]s WHERE %[3]s AND (workspace_id, %[1]s) IN (%[4]s) ORDER BY workspace_id, who, ts_ms", column, all, cond, many)
}

// reclass gives clicks, and the conversions that came of them, the class of a sweep.
func (e *Engine) reclass(ctx context.Context, within string, ids []uuid.UUID) error {
	which := "bot = 0 AND " + within + " AND toString(event_id) " + named(ids)
	if err := e.exec(ctx, "INSERT INTO swept_clicks ("+sweptColumns+") SELECT "+sweptColumns+" FROM clicks WHERE "+which); err != nil {
		return err
	}
	if err := e.mutate(ctx, "clicks", "UPDATE "+sweepClass+", visitor = 0, repeat = 0 WHERE "+which); err != nil {
		return err
	}
	e.metrics.swept.Add(float64(len(ids)))
	return e.reclassConversions(ctx, ids)
}

// sweepClass sets what the clicks of a sweep and their conversions are.
var sweepClass = fmt.Sprintf("bot = %d, bot_name = %s", clicks.BotScanner, literal(analytics.SweepName))

func named(ids []uuid.UUID) string {
	return "IN (" + list(ids, func(id uuid.UUID) string { return "'" + id.String() + "'" }) + ")"
}

// reclassConversions gives the conversions of clicks the class of a sweep.
func (e *Engine) reclassConversions(ctx context.Context, ids []uuid.UUID) error {
	e.joining.Lock() // what was being joined to clicks as they were is there now
	defer e.joining.Unlock()
	which := "pending = 0 AND bot = 0 AND toString(click_id) " + named(ids)
	if n, err := e.number(ctx, "SELECT count() FROM conversions WHERE "+which); err != nil || n == 0 {
		return err
	}
	return e.mutate(ctx, "conversions", "UPDATE "+sweepClass+" WHERE "+which)
}

// forgetSweeps forgets what the clicks of closed days were, whoever closed them.
func (e *Engine) forgetSweeps(ctx context.Context) error {
	e.mu.RLock()
	known := e.closed // never changed
	e.mu.RUnlock()
	var over []int64
	err := e.scan(ctx, "SELECT DISTINCT toUInt16(day) FROM swept_clicks", func(r row) error {
		var day uint16
		err := r.Scan(&day)
		if c, ok := known[int64(day)]; ok && c.settled() {
			over = append(over, int64(day))
		}
		return err
	})
	if err == nil && len(over) > 0 {
		err = e.mutate(ctx, "swept_clicks", "DELETE WHERE "+dayIn(over))
	}
	if err != nil {
		return fmt.Errorf("forget sweeps: %w", err)
	}
	return nil
}

// sweptOf returns a condition of the clicks of sweeps that were those of an erasure by visitor, "" if there are none.
func (e *Engine) sweptOf(ctx context.Context, er analytics.Erasure) (cond string, err error) {
	if er.Visitor == 0 {
		return "", nil
	}
	var ids []string
	days := map[int64]bool{}
	err = e.scan(ctx, "SELECT DISTINCT toString(event_id), toUInt16(day) FROM swept_clicks WHERE "+erasureCond(er), func(r row) error {
		var id string
		var day uint16
		err := r.Scan(&id, &day)
		ids, days[int64(day)] = append(ids, "'"+id+"'"), true
		return err
	})
	if err != nil || len(ids) == 0 {
		return "", err
	}
	return fmt.Sprintf("workspace_id = %d AND %s AND toString(event_id) IN (%s)", er.Workspace, dayIn(keys(days)), list(ids, func(s string) string { return s })), nil
}
