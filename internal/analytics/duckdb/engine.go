package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/sleep"
)

// errTimeout is the answer to a query that takes longer than Options.QueryTimeout.
var errTimeout = &terse.Error{Code: terse.CodeUnavailable, Reason: "query_timeout",
	Message: "the query takes too long: use a shorter range or fewer filters, or try again when fewer queries run"}

// ask answers a question within the deadline. fn reads one state of the tables; it is
// called again if clicks moved from one place to another under its hands.
func (d *DB) ask(ctx context.Context, op string, fn func(ctx context.Context, at *snapshot) error) error {
	limited, cancel := context.WithTimeout(ctx, d.o.QueryTimeout)
	defer cancel()
	err := func() error {
		select {
		case d.slots <- struct{}{}:
			defer func() { <-d.slots }()
		case <-limited.Done():
			return limited.Err()
		}
		if err := limited.Err(); err != nil {
			return err
		}
		for try := 0; ; try++ {
			generation, err := d.look(limited, fn)
			if err == nil || try == moveRetries || limited.Err() != nil {
				return err
			}
			// The tables change a moment before what we know of them.
			if sleep.For(limited, moveWait) != nil {
				return err
			}
			if _, now := d.view(); now == generation {
				return err
			}
		}
	}()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", op, errors.Join(ctx.Err(), err))
	case limited.Err() != nil:
		return errTimeout
	}
	return &terse.Error{Code: terse.CodeUnavailable, Message: "the analytics engine failed", Op: op, Err: err}
}

const (
	moveRetries = 100 // many days can be closed in a row; the deadline comes first
	moveWait    = 20 * time.Millisecond
)

// tables returns the days that have a hot table. The slice is never changed.
func (d *DB) tables() []int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.days
}

// Summary implements analytics.Engine.
func (d *DB) Summary(ctx context.Context, q analytics.Query) (analytics.Summary, error) {
	q, err := q.Normalize()
	if err != nil {
		return analytics.Summary{}, err
	}
	var r analytics.Summary
	err = d.ask(ctx, "summary", func(ctx context.Context, at *snapshot) error {
		lag := d.lag() // before the clicks are read
		p, err := at.planSummary(ctx, q)
		if err != nil {
			return err
		}
		r, err = at.summary(ctx, p, q)
		r.LagMs = lag
		return err
	})
	if err != nil {
		return analytics.Summary{}, err
	}
	return r, nil
}

// summary answers a Summary as planned.
func (at *snapshot) summary(ctx context.Context, p plan, q analytics.Query) (analytics.Summary, error) {
	r := analytics.Summary{Outcomes: map[string]int64{}}
	if len(p.rolled) > 0 {
		var st statement
		text := st.rolledSummary(p.rolled, q)
		if err := at.addSummary(ctx, &r, text, st.args); err != nil {
			return r, err
		}
	}
	for _, c := range p.cubeDays {
		var st statement
		text := st.cubedSummary(c, q)
		if err := at.addSummary(ctx, &r, text, st.args); err != nil {
			return r, err
		}
	}
	if err := at.quietSummary(ctx, p, q, &r); err != nil {
		return r, err
	}
	var st statement
	text := st.summary(p.raw, q)
	err := at.addSummary(ctx, &r, text, st.args)
	r.Total = r.Humans + r.Bots
	return r, err
}

// addSummary adds the one row of a statement to r; no statement, because no day is concerned, adds nothing.
func (at *snapshot) addSummary(ctx context.Context, r *analytics.Summary, text string, args []any) error {
	if text == "" {
		return nil
	}
	var n [7 + outcomes]int64
	dst := make([]any, len(n))
	for i := range n {
		dst[i] = &n[i]
	}
	if err := at.scan(ctx, text, func(rows *sql.Rows) error { return rows.Scan(dst...) }, args...); err != nil {
		return err
	}
	for i, p := range []*int64{&r.Clicks, &r.Visitors, &r.UniqueClicks, &r.Deduped, &r.QR, &r.Humans, &r.Bots} {
		*p += n[i]
	}
	for i, name := range outcomeNames {
		if v := n[7+i]; v != 0 {
			r.Outcomes[name] += v
		}
	}
	return nil
}

// Timeseries implements analytics.Engine.
func (d *DB) Timeseries(ctx context.Context, q analytics.Query) (analytics.Timeseries, error) {
	q, err := q.Normalize()
	if err != nil {
		return analytics.Timeseries{}, err
	}
	starts := q.Buckets()
	r := analytics.Timeseries{Interval: q.Interval}
	err = d.ask(ctx, "timeseries", func(ctx context.Context, at *snapshot) error {
		r.Points = make([]analytics.Point, len(starts))
		for i, t := range starts {
			r.Points[i].T = t
		}
		p, err := at.planTimeseries(ctx, q, starts)
		if err != nil {
			return err
		}
		if len(p.rolled) > 0 {
			if err := at.rolledTimeseries(ctx, p.rolled, q, starts, r.Points); err != nil {
				return err
			}
		}
		if len(p.parts) > 0 {
			if err := at.partTimeseries(ctx, p.parts, q, starts, r.Points); err != nil {
				return err
			}
		}
		for _, c := range p.cubeDays {
			if err := at.addCubedTimeseries(ctx, c, q, starts, r.Points); err != nil {
				return err
			}
		}
		if err := at.quietTimeseries(ctx, p, q, starts, r.Points); err != nil {
			return err
		}
		var st statement
		text := st.timeseries(p.raw, q, starts)
		if text == "" {
			return nil
		}
		return at.scan(ctx, text, func(rows *sql.Rows) error {
			var i int
			var p analytics.Point
			if err := rows.Scan(&i, &p.Clicks, &p.Visitors, &p.Bots, &p.QR); err != nil {
				return err
			}
			addPoint(&r.Points[i], p)
			return nil
		}, st.args...)
	})
	if err != nil {
		return analytics.Timeseries{}, err
	}
	return r, nil
}

// Breakdown implements analytics.Engine.
func (d *DB) Breakdown(ctx context.Context, q analytics.Query) (analytics.Breakdown, error) {
	q, err := q.Normalize()
	if err != nil {
		return analytics.Breakdown{}, err
	}
	if err := q.CheckBreakdown(); err != nil {
		return analytics.Breakdown{}, err
	}
	var r analytics.Breakdown
	var clicks, visitors int64
	err = d.ask(ctx, "breakdown", func(ctx context.Context, at *snapshot) error {
		r, clicks, visitors = analytics.Breakdown{Data: []analytics.Value{}}, 0, 0
		p, err := at.planBreakdown(ctx, q)
		if err != nil {
			return err
		}
		var st statement
		text := st.breakdown(p, q)
		if text == "" {
			return nil
		}
		return at.scan(ctx, text, func(rows *sql.Rows) error {
			var v analytics.Value
			var n uint64
			value := any(&v.Value)
			if q.By.Numeric() {
				value = &n
			}
			if err := rows.Scan(value, &v.Clicks, &v.Visitors, &v.Label, &clicks, &visitors, &r.Values); err != nil {
				return err
			}
			if q.By.Numeric() {
				v.Value = q.By.Text(n)
			}
			if v.Value == "" {
				v.Label = "" // not a link, whatever was asked for
			}
			r.Data = append(r.Data, v)
			return nil
		}, st.args...)
	})
	if err != nil {
		return analytics.Breakdown{}, err
	}
	if r.Total = clicks; q.Metric == analytics.Visitors {
		r.Total = visitors
	}
	r.Other = r.Total
	for _, v := range r.Data {
		if q.Metric == analytics.Visitors {
			r.Other -= v.Visitors
		} else {
			r.Other -= v.Clicks
		}
	}
	return r, nil
}

// Status implements analytics.Engine. It does not touch the database.
func (d *DB) Status(context.Context) analytics.Status {
	d.mu.RLock()
	defer d.mu.RUnlock()
	s := analytics.Status{State: analytics.StateReady, LagMs: d.lag(), LagKnown: d.watermark.Load() != 0, Rows: d.events.Load() + d.coldRows.Load(), Position: d.position, Detail: d.detail}
	if d.rebuilding.Load() {
		s.State = analytics.StateRebuilding
		if s.Detail == "" {
			s.Detail = "reading the recorded clicks again: " + strconv.FormatInt(s.Rows, 10) + " so far"
		}
	}
	return s
}

// Rejected returns how many events did not fit into the tables since Open.
func (d *DB) Rejected() int64 { return d.rejected.Load() }

// RecordErrors returns how often clicks could not be moved into the record since Open.
func (d *DB) RecordErrors() int64 { return d.recordErrors.Load() }

// Position returns the place in the spool up to which events are in the tables.
func (d *DB) Position() clicks.Position {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.position
}

// lag returns for how long clicks have not been queryable yet, in ms: 0 if
// there is none yet.
func (d *DB) lag() int64 {
	w := d.watermark.Load()
	if w == 0 {
		return 0
	}
	return max(0, d.o.Clock().UnixMilli()-w)
}
