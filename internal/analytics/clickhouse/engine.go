package clickhouse

import (
	"context"
	"strings"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
)

var (
	_ analytics.Engine   = (*Engine)(nil)
	_ analytics.FactSink = (*Engine)(nil)
	_ analytics.Eraser   = (*Engine)(nil)
)

func (e *Engine) builder() builder { return builder{e.dialect.Load()} }

// Summary implements analytics.Engine.
func (e *Engine) Summary(ctx context.Context, q analytics.Query) (analytics.Summary, error) {
	q, err := q.Normalize()
	if err != nil {
		return analytics.Summary{}, err
	}
	var r analytics.Summary
	err = e.ask(ctx, "summary", func(ctx context.Context) error {
		r = analytics.Summary{Outcomes: map[string]int64{}, LagMs: e.lag()}
		p, err := e.planSummary(ctx, q)
		if err != nil {
			return err
		}
		if len(p.rolled) > 0 {
			if err := e.addSummary(ctx, &r, p.rolledSummary(q)); err != nil {
				return err
			}
		}
		if err := e.quietSummary(ctx, p, q, &r); err != nil {
			return err
		}
		if p.raw.empty() {
			return nil
		}
		return e.addSummary(ctx, &r, e.builder().summary(p.raw, q))
	})
	if err != nil {
		return analytics.Summary{}, err
	}
	r.Total = r.Humans + r.Bots
	return r, nil
}

// addSummary adds the one row of a statement to r.
func (e *Engine) addSummary(ctx context.Context, r *analytics.Summary, text string) error {
	var n [7 + outcomes]int64
	dst := make([]any, len(n))
	for i := range n {
		dst[i] = &n[i]
	}
	if err := e.scan(ctx, text, func(rows row) error { return rows.Scan(dst...) }); err != nil {
		return err
	}
	for i, p := range []*int64{&r.Clicks, &r.Visitors, &r.UniqueClicks, &r.Deduped, &r.QR, &r.Humans, &r.Bots} {
		*p += n[i]
	}
	for i := range outcomes {
		if v := n[7+i]; v != 0 {
			r.Outcomes[analytics.Outcome.Text(uint64(i))] += v
		}
	}
	return nil
}

// Timeseries implements analytics.Engine.
func (e *Engine) Timeseries(ctx context.Context, q analytics.Query) (analytics.Timeseries, error) {
	q, err := q.Normalize()
	if err != nil {
		return analytics.Timeseries{}, err
	}
	starts := q.Buckets()
	r := analytics.Timeseries{Interval: q.Interval}
	err = e.ask(ctx, "timeseries", func(ctx context.Context) error {
		r.Points = make([]analytics.Point, len(starts))
		for i, t := range starts {
			r.Points[i].T = t
		}
		p, err := e.planTimeseries(ctx, q, starts)
		if err != nil {
			return err
		}
		if len(p.rolled) > 0 {
			if err := e.rolledTimeseries(ctx, p, q, starts, r.Points); err != nil {
				return err
			}
		}
		if err := e.quietTimeseries(ctx, p, q, starts, r.Points); err != nil {
			return err
		}
		if p.raw.empty() {
			return nil
		}
		return e.scan(ctx, e.builder().timeseries(p.raw, q, starts), func(rows row) error {
			var i int64
			var p analytics.Point
			if err := rows.Scan(&i, &p.Clicks, &p.Visitors, &p.Bots, &p.QR); err != nil {
				return err
			}
			to := &r.Points[i]
			to.Clicks, to.Visitors, to.Bots, to.QR = to.Clicks+p.Clicks, to.Visitors+p.Visitors, to.Bots+p.Bots, to.QR+p.QR
			return nil
		})
	})
	if err != nil {
		return analytics.Timeseries{}, err
	}
	return r, nil
}

// Breakdown implements analytics.Engine. Values and totals are two statements: clicks that come between
// them are in the totals, and so in Other, alone.
func (e *Engine) Breakdown(ctx context.Context, q analytics.Query) (analytics.Breakdown, error) {
	q, err := q.Normalize()
	if err != nil {
		return analytics.Breakdown{}, err
	}
	if err := q.CheckBreakdown(); err != nil {
		return analytics.Breakdown{}, err
	}
	var r analytics.Breakdown
	var clicks, visitors int64
	err = e.ask(ctx, "breakdown", func(ctx context.Context) error {
		r, clicks, visitors = analytics.Breakdown{Data: []analytics.Value{}}, 0, 0
		p, err := e.planBreakdown(ctx, q)
		if err != nil {
			return err
		}
		rolled := ""
		if len(p.rolled) > 0 {
			rolled = p.rolledBreakdown(q)
		}
		text := e.builder().breakdown(p.raw, rolled, q)
		if text == "" {
			return nil
		}
		values, totals, _ := strings.Cut(text, totalsMark)
		if err := e.scan(ctx, values, func(rows row) error {
			var v analytics.Value
			var other uint8
			scan := textOrNumber{by: q.By}
			if err := rows.Scan(scan.dst(), &v.Clicks, &v.Visitors, &v.Label, &other); err != nil {
				return err
			}
			if v.Value = scan.value(); v.Value == "" {
				v.Label = "" // not a link, whatever was asked for
			}
			r.Data = append(r.Data, v)
			return nil
		}); err != nil {
			return err
		}
		return e.scan(ctx, totals, func(rows row) error { return rows.Scan(&clicks, &visitors, &r.Values) })
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

// textOrNumber is a value of a dimension being read.
type textOrNumber struct {
	by   analytics.Dimension
	text string
	n    uint64
}

func (v *textOrNumber) dst() any {
	if v.by.Numeric() {
		return &v.n
	}
	return &v.text
}

func (v *textOrNumber) value() string {
	if v.by.Numeric() {
		return v.by.Text(v.n)
	}
	return v.text
}

// Slots implements analytics.Engine.
func (e *Engine) Slots(ctx context.Context, q analytics.Query) ([]analytics.Slot, error) {
	q, err := q.Normalize()
	if err != nil {
		return nil, err
	}
	if err := q.CheckSlots(); err != nil {
		return nil, err
	}
	var slots []analytics.Slot
	err = e.ask(ctx, "slots", func(ctx context.Context) error {
		slots = nil
		p, err := e.planSlots(ctx, q)
		if err != nil {
			return err
		}
		var parts []string
		if !p.raw.empty() {
			parts = append(parts, "SELECT intDiv(ts_ms, 900000) AS k, toInt64(sum(weight)) AS c FROM clicks WHERE "+e.builder().where(q)+" AND "+redirected(q)+" AND "+chosen(q.Bots)+" AND "+p.raw.cond()+" GROUP BY k")
		}
		if len(p.rolled) > 0 {
			parts = append(parts, p.rolledSlots(q))
		}
		if len(parts) == 0 {
			return nil
		}
		return e.scan(ctx, "SELECT toInt64(k), toInt64(sum(c)) AS cc FROM ("+strings.Join(parts, " UNION ALL ")+") GROUP BY k ORDER BY k", func(rows row) error {
			var k int64
			var s analytics.Slot
			if err := rows.Scan(&k, &s.Clicks); err != nil {
				return err
			}
			s.T = terse.Millis(k * slotMillis)
			slots = append(slots, s)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return slots, nil
}
