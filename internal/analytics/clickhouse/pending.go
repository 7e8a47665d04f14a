package clickhouse

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/terselink/terse"
)

const (
	// pendingEvery is how often pending conversions look for their clicks while clicks come.
	pendingEvery = 2 * time.Second
	// pendingShare bounds the part of the time that they look: after a look of a second there is none for this many.
	pendingShare = 20
	// mostPending is how many of them look at once, the newest first: a click id may be made up.
	mostPending = 20_000
)

// joinSoon lets pending conversions look for their clicks now and then; failures are logged, ingest goes on.
func (e *Engine) joinSoon(ctx context.Context) error {
	now := time.Now()
	if now.Before(e.joinNext) {
		return nil
	}
	if err := e.join(ctx); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		e.o.Log.Warn("conversions cannot look for their clicks; tried again", "error", err)
		e.joinNext = now.Add(time.Minute)
		return nil
	}
	e.joinNext = time.Now().Add(max(pendingEvery, pendingShare*time.Since(now)))
	return nil
}

// join writes pending conversions again with what their clicks say, where the clicks have come meanwhile.
func (e *Engine) join(ctx context.Context) error {
	e.joining.Lock()
	defer e.joining.Unlock()
	ctx, cancel := context.WithTimeout(ctx, e.o.InsertTimeout)
	defer cancel()
	waiting := "conversions FINAL WHERE epoch = " + epoch + " AND pending = 1"
	days, workspaces := map[int64]bool{}, map[terse.WorkspaceID]bool{}
	newest := 1 + dayOf(max(terse.MillisOf(time.Now()), terse.MillisOf(e.o.Clock()), terse.Millis(e.watermark.Load())))
	text := fmt.Sprintf("SELECT workspace_id, click_id FROM %s GROUP BY workspace_id, click_id ORDER BY max(ts_ms) DESC LIMIT %d", waiting, mostPending)
	if err := e.scanWith(ctx, text, finalSettings, func(r row) error {
		var w uint32
		var id uuid.UUID
		err := r.Scan(&w, &id)
		if t := terse.ClickID(id).Time(); storedAt(t) && dayOf(t) <= newest { // or it was made up
			days[dayOf(t)], workspaces[terse.WorkspaceID(w)] = true, true
		}
		return err
	}); err != nil || len(days) == 0 {
		return err
	}
	taken := names(conversionColumns)
	// The next version of the row: what is told later has a higher one.
	text = fmt.Sprintf("INSERT INTO conversions (epoch, workspace_id, conversion_id, ver, kind, amount, currency, customer_id, click_id, pending, day, ts_ms, %s) "+
		"SELECT e, workspace_id, conversion_id, ver + 1, kind, amount, currency, customer_id, click_id, toUInt8(0), d, t, %s FROM "+
		"(SELECT epoch AS e, workspace_id, conversion_id, ver, kind, amount, currency, customer_id, click_id, day AS d, ts_ms AS t FROM %s) ALL INNER JOIN "+
		"(SELECT workspace_id, event_id AS click_id, %s FROM clicks WHERE workspace_id IN (%s) AND %s AND event_id IN (SELECT click_id FROM %s)) USING workspace_id, click_id",
		taken, taken, waiting, taken, list(keys(workspaces), number[terse.WorkspaceID]), dayIn(keys(days)), waiting)
	return e.conn.Exec(e.with(ctx, "", finalSettings), text)
}
