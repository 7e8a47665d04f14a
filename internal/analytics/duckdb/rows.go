package duckdb

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"

	ddb "github.com/duckdb/duckdb-go/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// slots returns the statement of Slots: rows of slot number and clicks.
func (s *statement) slots(p plan, q analytics.Query) string {
	inner := s.union(p.raw, func(from string, day int64) string {
		return fmt.Sprintf("SELECT epoch_ms(ts) // %d AS k, sum(weight) AS c FROM %s WHERE %s AND %s AND %s%s GROUP BY k",
			slotMillis, from, s.where(q), s.redirected(q), chosen(q.Bots), inDay(q, day))
	})
	if len(p.rolled) > 0 {
		if inner != "" {
			inner += "\nUNION ALL "
		}
		inner += s.rolledSlots(p.rolled, q)
	}
	if len(p.parts) > 0 {
		if inner != "" {
			inner += "\nUNION ALL "
		}
		inner += s.slotRows(q, partsTable+" WHERE "+s.partRows(p.parts, q))
	}
	if inner == "" {
		return ""
	}
	return "SELECT k, sum(c)::BIGINT FROM (" + inner + ") GROUP BY k ORDER BY k"
}

// Slots implements analytics.Engine.
func (d *DB) Slots(ctx context.Context, q analytics.Query) ([]analytics.Slot, error) {
	q, err := q.Normalize()
	if err != nil {
		return nil, err
	}
	if err := q.CheckSlots(); err != nil {
		return nil, err
	}
	var slots []analytics.Slot
	err = d.ask(ctx, "slots", func(ctx context.Context, at *snapshot) error {
		slots = nil
		p, err := at.planSlots(ctx, q)
		if err != nil {
			return err
		}
		var st statement
		text := st.slots(p, q)
		if text == "" {
			return nil
		}
		return at.scan(ctx, text, func(rows *sql.Rows) error {
			var k int64
			var s analytics.Slot
			if err := rows.Scan(&k, &s.Clicks); err != nil {
				return err
			}
			s.T = terse.Millis(k * slotMillis)
			slots = append(slots, s)
			return nil
		}, st.args...)
	})
	if err != nil {
		return nil, err
	}
	return slots, nil
}

// search returns the condition of q.Search, "" for none.
func (s *statement) search(q analytics.Query) string {
	if q.Search == "" {
		return ""
	}
	if found, ok := q.SearchNumbers(); ok {
		if len(found) == 0 {
			return " AND false"
		}
		values := make([]string, len(found))
		for i, n := range found {
			values[i] = number(n)
		}
		return " AND " + dimensionColumns[q.By] + " IN (" + strings.Join(values, ", ") + ")"
	}
	text := "lower(" + dimensionColumns[q.By] + ")"
	switch q.By {
	case analytics.Tag:
		text = "lower(k)" // of byTag
	case analytics.Link:
		text = "lower(domain || '/' || code)"
	case analytics.ASN:
		text = "CASE WHEN asn = 0 THEN '' ELSE asn::VARCHAR END"
	}
	return " AND contains(" + text + ", " + s.param(q.Search) + ")"
}

// rowColumns are the columns of a click and where its values go: a pointer into the
// event, or a scratch value of row that finish moves there.
var rowColumns = []struct {
	expr string
	dst  func(*row) any
}{
	{"event_id::UUID", func(r *row) any { return &r.id }},
	{"epoch_ms(ts)", func(r *row) any { return &r.ev.At }},
	{"workspace_id", func(r *row) any { return &r.ev.Workspace }},
	{"link_id", func(r *row) any { return &r.ev.Link }},
	{"campaign_id", func(r *row) any { return &r.ev.Campaign }},
	{"domain", func(r *row) any { return &r.ev.Domain }},
	{"code", func(r *row) any { return &r.ev.Code }},
	{"destination", func(r *row) any { return &r.ev.Destination }},
	{"rule", func(r *row) any { return &r.ev.Rule }},
	{"outcome", func(r *row) any { return &r.ev.Outcome }},
	{`"trigger"`, func(r *row) any { return &r.ev.Trigger }},
	{"visitor", func(r *row) any { return &r.visitor }},
	{"repeat", func(r *row) any { return &r.repeat }},
	{"bot", func(r *row) any { return &r.ev.Bot }},
	{"bot_name", func(r *row) any { return &r.ev.BotName }},
	{"country", func(r *row) any { return &r.ev.Country }},
	{"region", func(r *row) any { return &r.ev.Region }},
	{"city", func(r *row) any { return &r.ev.City }},
	{"asn", func(r *row) any { return &r.ev.ASN }},
	{"device", func(r *row) any { return &r.ev.Device }},
	{"os", func(r *row) any { return &r.ev.OS }},
	{"os_ver", func(r *row) any { return &r.ev.OSVersion }},
	{"browser", func(r *row) any { return &r.ev.Browser }},
	{"browser_ver", func(r *row) any { return &r.ev.BrowserVer }},
	{"lang", func(r *row) any { return &r.ev.Language }},
	{"ref_host", func(r *row) any { return &r.ev.RefHost }},
	{"ref_path", func(r *row) any { return &r.ev.RefPath }},
	{"source", func(r *row) any { return &r.ev.Source }},
	{"utm_source", func(r *row) any { return &r.ev.UTMSource }},
	{"utm_medium", func(r *row) any { return &r.ev.UTMMedium }},
	{"utm_campaign", func(r *row) any { return &r.ev.UTMCampaign }},
	{"utm_term", func(r *row) any { return &r.ev.UTMTerm }},
	{"utm_content", func(r *row) any { return &r.ev.UTMContent }},
	{"weight", func(r *row) any { return &r.ev.Weight }},
	{"node", func(r *row) any { return &r.ev.Node }},
	{"user_agent", func(r *row) any { return &r.ev.UserAgent }},
	{"ip", func(r *row) any { return &r.ev.IP }},
}

// row is a click being read.
type row struct {
	ev      clicks.Event
	id      ddb.UUID
	visitor int64 // the same 64 bits
	repeat  uint8
}

// dst returns where a query of rowColumns scans to.
func (r *row) dst() []any {
	dst := make([]any, len(rowColumns))
	for i, c := range rowColumns {
		dst[i] = c.dst(r)
	}
	return dst
}

// clicks returns the statement of the clicks of a day from lo up to, not including, hi, newest first, those after a row.
func (s *statement) clicks(v dayView, q analytics.Query, after terse.ClickID, lo, hi terse.Millis, limit int) string {
	return s.union([]dayView{v}, func(from string, _ int64) string {
		exprs := make([]string, len(rowColumns))
		for i, c := range rowColumns {
			exprs[i] = c.expr
			if c.expr == "outcome" {
				exprs[i] = columnOf(analytics.Outcome, s.text)
			}
		}
		rest := ""
		if after != (terse.ClickID{}) {
			id := ddb.UUID(after)
			rest = fmt.Sprintf(" AND (ts < %s OR event_id::UUID < UUID '%s')", timestamp(after.Time()), id.String())
		}
		return fmt.Sprintf("SELECT %s FROM %s WHERE ts >= %s AND ts < %s AND %s AND %s AND %s%s ORDER BY ts DESC, event_id::UUID DESC LIMIT %s", strings.Join(exprs, ", "), from,
			timestamp(lo), timestamp(hi), s.where(q), s.redirected(q), chosen(q.Bots), rest, strconv.Itoa(limit))
	})
}

// Clicks implements analytics.Engine. Each statement has a deadline of its own, because a page is nearly
// always found in one or two.
func (d *DB) Clicks(ctx context.Context, q analytics.Query, p analytics.Page) ([]clicks.Event, error) {
	q, err := q.Normalize()
	if err != nil {
		return nil, err
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	hi := q.To
	if p.After != (terse.ClickID{}) {
		hi = min(hi, p.After.Time()+1)
	}
	events := []clicks.Event{}
	days, _ := d.view()
	days = rawDays(within(days, q))
	for i := len(days) - 1; i >= 0 && len(events) < p.Limit; i-- {
		from, to := terse.Millis(days[i].day*dayMillis), terse.Millis((days[i].day+1)*dayMillis)
		if from = max(from, q.From); from >= min(to, hi) {
			continue
		}
		if events, err = d.clicksOfDay(ctx, q, p, days[i].day, from, min(to, hi), events); err != nil {
			return nil, err
		}
	}
	return events, nil
}

// clicksOfDay appends the rows of [from, to) that follow p.After until there are p.Limit. It looks at a stretch of time
// that should hold twice as many rows, and at longer ones before it: a day of millions is not sorted for a
// page of thousands.
func (d *DB) clicksOfDay(ctx context.Context, q analytics.Query, p analytics.Page, day int64, from, to terse.Millis, events []clicks.Event) ([]clicks.Event, error) {
	span := max(1000, terse.Millis(2*int64(p.Limit)*dayMillis/max(d.clicksOn(day), 1)))
	for hi := to; hi > from && len(events) < p.Limit; span *= 4 {
		lo := max(from, hi-span)
		had := len(events)
		err := d.ask(ctx, "clicks", func(ctx context.Context, at *snapshot) error {
			events = events[:had]
			i, found := slices.BinarySearchFunc(at.days, day, func(v dayView, day int64) int { return int(v.day - day) })
			if !found || !at.days[i].raw() {
				return nil
			}
			var st statement
			text := st.clicks(at.days[i], q, p.After, lo, hi, p.Limit-had)
			var r row
			dst := r.dst()
			return at.scan(ctx, text, func(rows *sql.Rows) error {
				if err := rows.Scan(dst...); err != nil {
					return err
				}
				r.ev.ID, r.ev.Visitor, r.ev.Repeat = r.id, uint64(r.visitor), r.repeat != 0
				events = append(events, r.ev)
				return nil
			}, st.args...)
		})
		if err != nil {
			return nil, err
		}
		hi = lo
	}
	return events, nil
}

// clicksOn returns how many clicks of a day there are one by one.
func (d *DB) clicksOn(day int64) int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n := d.rows[day]
	for _, f := range d.cold[day] {
		n += f.rows
	}
	return n
}
