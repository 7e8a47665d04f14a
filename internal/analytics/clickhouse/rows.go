package clickhouse

import (
	"context"
	"fmt"
	"strconv"

	"github.com/google/uuid"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// firstSpan is the stretch of time that is looked at for a page first, with its neighbours after it: a range of years
// is not sorted for its newest clicks.
const firstSpan = terse.Millis(2 * dayMillis)

// Clicks implements analytics.Engine.
func (e *Engine) Clicks(ctx context.Context, q analytics.Query, p analytics.Page) ([]clicks.Event, error) {
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
	for span := firstSpan; hi > q.From && len(events) < p.Limit; span *= 16 {
		lo := max(q.From, hi-span)
		if lo < q.From+span/2 { // the rest is not worth a statement of its own
			lo = q.From
		}
		had := len(events)
		// Each stretch has a deadline of its own, because a page is nearly always found in one or two.
		err := e.ask(ctx, "clicks", func(ctx context.Context) error {
			events = events[:had]
			return e.clicksIn(ctx, q, p.After, lo, hi, p.Limit-had, &events)
		})
		if err != nil {
			return nil, err
		}
		hi = lo
	}
	return events, nil
}

// clicksIn appends the newest clicks of [lo, hi) that follow a click. It finds out by their times alone how far
// back they reach, and then reads them whole.
func (e *Engine) clicksIn(ctx context.Context, q analytics.Query, after terse.ClickID, lo, hi terse.Millis, limit int, events *[]clicks.Event) error {
	cond := func(lo terse.Millis) string {
		c := e.builder().where(q) + " AND " + redirected(q) + " AND " + chosen(q.Bots) + " AND " + raw{from: lo, to: hi}.cond()
		if after != (terse.ClickID{}) {
			c += fmt.Sprintf(" AND (ts_ms < %d OR toString(event_id) < '%s')", after.Time(), uuid.UUID(after).String())
		}
		return c
	}
	var oldest int64
	var n uint64
	text := "SELECT min(ts_ms), count() FROM (SELECT ts_ms FROM clicks WHERE " + cond(lo) + " ORDER BY ts_ms DESC LIMIT " + strconv.Itoa(limit) + ")"
	if err := e.scan(ctx, text, func(r row) error { return r.Scan(&oldest, &n) }); err != nil || n == 0 {
		return err
	}
	text = "SELECT event_id, " + names(columns) + " FROM clicks WHERE " + cond(terse.Millis(oldest)) + " ORDER BY ts_ms DESC, toString(event_id) DESC LIMIT " + strconv.Itoa(limit)
	var c clickRow
	dst := c.dst()
	return e.scan(ctx, text, func(r row) error {
		if err := r.Scan(dst...); err != nil {
			return err
		}
		*events = append(*events, c.event())
		return nil
	})
}

// clickRow is a click being read.
type clickRow struct {
	ev               clicks.Event
	id               uuid.UUID
	ts               int64
	workspace        uint32
	link, campaign   uint64
	repeat, bot, out uint8
	version          uint8
}

// dst returns where a query of event_id and columns scans to.
func (c *clickRow) dst() []any {
	ev := &c.ev
	return []any{
		&c.id, &c.ts, &c.workspace, &c.link, &c.campaign, &ev.Domain, &ev.Code, &ev.Destination, &ev.Rule, &c.out, &ev.Trigger, &ev.Visitor, &c.repeat, &c.bot, &ev.BotName,
		&ev.Country, &ev.Region, &ev.City, &ev.ASN, &ev.Device, &ev.OS, &ev.OSVersion, &ev.Browser, &ev.BrowserVer, &ev.Language, &ev.RefHost, &ev.RefPath, &ev.Source,
		&ev.UTMSource, &ev.UTMMedium, &ev.UTMCampaign, &ev.UTMTerm, &ev.UTMContent, &ev.Weight, &ev.Node, &c.version, &ev.UserAgent, &ev.IP,
	}
}

func (c *clickRow) event() clicks.Event {
	ev := c.ev
	ev.ID, ev.At, ev.Workspace = c.id, terse.Millis(c.ts), terse.WorkspaceID(c.workspace)
	ev.Link, ev.Campaign = terse.LinkNumber(c.link), terse.CampaignID(c.campaign)
	ev.Repeat, ev.Bot, ev.Outcome = c.repeat != 0, clicks.BotClass(c.bot), clicks.Outcome(c.out)
	return ev
}
