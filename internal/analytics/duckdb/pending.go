package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
)

const (
	// pendingEvery is how often pending conversions look for their clicks.
	pendingEvery = 2 * time.Second
	// pendingShare bounds the part of the time that they look, during which nothing is ingested: after a look of
	// a second there is none for this many. A click id may be made up, and then it is looked for again and again.
	pendingShare = 20
	// fewPending clicks of a day are named one by one, so that DuckDB skips what it knows not to hold them.
	fewPending = 1000
)

// wanted are the clicks of one day that pending conversions look for.
type wanted struct {
	n     int64
	ids   []string // the first fewPending of them, as literals
	times []string // theirs
}

// pendingClicks returns the clicks of pending conversions by the days in their ids.
func pendingClicks(ctx context.Context, conn *sql.Conn) (days map[int64]*wanted, err error) {
	rows, err := conn.QueryContext(ctx, "SELECT DISTINCT click_id::VARCHAR FROM conversions WHERE pending")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	days = map[int64]*wanted{}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ms, err := strconv.ParseInt(strings.ReplaceAll(id, "-", "")[:12], 16, 64)
		if err != nil {
			return nil, err
		}
		day := dayOf(terse.Millis(ms))
		w := days[day]
		if w == nil {
			w = &wanted{}
			days[day] = w
		}
		if w.n++; w.n <= fewPending {
			w.ids, w.times = append(w.ids, quote(id)), append(w.times, timestamp(terse.Millis(ms)))
		}
	}
	return days, rows.Err()
}

// lookAgain lets the days of the clicks of new conversions be looked at, though nothing came to them. The caller holds
// writing.
func (d *DB) lookAgain(list []analytics.Conversion) {
	for i := range list {
		if c := list[i].Click; c != (terse.ClickID{}) {
			d.pending = true
			delete(d.looked, dayOf(c.Time()))
		}
	}
}

// state names what a day holds: it changes when clicks come or move. The caller holds writing.
func (d *DB) state(v dayView) string {
	var b strings.Builder
	if v.hot {
		fmt.Fprint(&b, d.rows[v.day])
	}
	for _, f := range v.cold {
		b.WriteString(" " + f.name)
	}
	return b.String()
}

// joinConversions copies to pending conversions what their clicks say, where the clicks have come meanwhile, and returns
// how many stay pending. A click is looked for in the table of the day in its id, and in a day only once until
// something comes to it. What fails is logged: the conversion stays pending. The caller holds writing.
func (d *DB) joinConversions(ctx context.Context, conn *sql.Conn) (left int64, err error) {
	days, err := pendingClicks(ctx, conn)
	if err != nil {
		return 0, err
	}
	var set []string
	for _, c := range conversionColumns() {
		if c.name != `"ts"` && c.name != `"workspace_id"` {
			set = append(set, c.name+" = e."+c.name)
		}
	}
	views, _ := d.view()
	for _, v := range rawDays(views) {
		w, state := days[v.day], d.state(v)
		if w == nil || d.looked[v.day] == state {
			continue
		}
		d.looked[v.day] = state
		from := v.source().from
		if w.n <= fewPending {
			// An id begins with the time of its click, which DuckDB can look for without making the ids of a file.
			from = "(SELECT * FROM " + from + " WHERE ts IN (" + strings.Join(w.times, ", ") + ") AND event_id IN (" + strings.Join(w.ids, ", ") + "))"
		}
		q := "UPDATE conversions SET pending = false, " + strings.Join(set, ", ") + " FROM " + from +
			" e WHERE conversions.pending AND conversions.click_id = e.event_id::UUID AND conversions.workspace_id = e.workspace_id"
		if _, err := conn.ExecContext(ctx, q); err != nil {
			d.o.Log.Error("conversions cannot find their clicks of a day; tried again when the day changes", "day", tableName(v.day), "error", err)
		}
	}
	err = conn.QueryRowContext(ctx, "SELECT count(*) FROM conversions WHERE pending").Scan(&left)
	return left, err
}

// joinPending lets pending conversions look for their clicks now and then; failures are logged, ingest goes on. The
// caller holds writing.
func (d *DB) joinPending(ctx context.Context) {
	if now := d.o.Clock(); d.pending && now.Sub(d.joined) >= pendingEvery && time.Now().After(d.joinNext) {
		d.joined = now
		d.join(ctx)
	}
}

// join lets pending conversions look for their clicks. The caller holds writing.
func (d *DB) join(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	began := time.Now()
	err := func() (err error) {
		conn, err := d.readers.Conn(ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, conn.Close()) }()
		left, err := d.joinConversions(ctx, conn)
		if err == nil {
			d.pending = left > 0
		}
		return err
	}()
	pause := pendingShare * time.Since(began)
	if err != nil {
		d.o.Log.Error("conversions cannot look for their clicks", "error", err)
		pause = time.Minute
	}
	d.joinNext = time.Now().Add(pause)
}
