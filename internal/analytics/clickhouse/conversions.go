package clickhouse

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
)

// conversionHead are the first columns of the table conversions.
const conversionHead = "epoch, workspace_id, conversion_id, ver, kind, amount, currency, customer_id, click_id, pending, day, ts_ms"

// conversionRow is the row of a conversion whose click is not known.
func conversionRow(s *state, c *analytics.Conversion) []any {
	text := func(v string) string { return strings.ToValidUTF8(v, "\uFFFD") }
	return []any{
		s.epoch, uint32(c.Workspace), text(c.ID), s.ver, uint8(c.Kind), c.Amount, text(c.Currency), text(c.Customer), uuid.UUID(c.Click), uint8(bit(c.Click != terse.ClickID{})),
		dateOf(dayOf(c.At)), int64(c.At), uint64(c.Link), uint64(c.Campaign), text(c.Domain), text(c.Code),
	}
}

// finalSettings are those of statements on the newest rows: what is moved before the merging of versions would see old ones.
var finalSettings = map[string]any{"optimize_move_to_prewhere": 0}

// known are the newest rows of the conversions of a workspace.
func knownConversions(w terse.WorkspaceID) string {
	return "conversions FINAL WHERE epoch = " + epoch + " AND workspace_id = " + number(w)
}

// converted returns the conditions of the conversions that a query selects.
func (b builder) converted(q analytics.Query) string {
	return fmt.Sprintf("%s AND pending = 0 AND %s AND ts_ms >= %d AND ts_ms < %d", b.where(q), chosen(q.Bots), q.From, q.To)
}

// who is what a funnel counts once: the click, or the customer where no click is known.
const who = "if(toString(click_id) = '00000000-0000-0000-0000-000000000000', concat('c', customer_id), toString(click_id))"

// sold and refunded part the rows of kind sale: what is said of sales and customers is said of the first, and
// revenue is of both.
const (
	sold     = "(kind = 1 AND amount >= 0)"
	refunded = "(kind = 1 AND amount < 0)"
)

// Funnel implements analytics.Engine.
func (e *Engine) Funnel(ctx context.Context, q analytics.Query) (analytics.Funnel, error) {
	q, err := q.Normalize()
	if err == nil {
		err = q.CheckConversions(false)
	}
	if err != nil {
		return analytics.Funnel{}, err
	}
	var f analytics.Funnel
	err = e.ask(ctx, "funnel", func(ctx context.Context) error {
		f = analytics.Funnel{Revenue: []analytics.Amount{}}
		return e.funnel(ctx, q, &f)
	})
	if err != nil {
		return analytics.Funnel{}, err
	}
	return f, nil
}

func (e *Engine) funnel(ctx context.Context, q analytics.Query, f *analytics.Funnel) error {
	known := knownConversions(q.Workspace)
	where := known + " AND " + e.builder().converted(q)
	kind := func(k analytics.ConversionKind) string { return "kind = " + number(k) }
	count := func(expr string) string { return "toInt64(" + expr + ")" }
	text := "SELECT " + strings.Join([]string{
		count("countIf(" + kind(analytics.Lead) + ")"), count("countIf(" + sold + ")"), count("countIf(" + refunded + ")"), count("countIf(" + kind(analytics.Custom) + ")"),
		count("uniqExactIf(" + who + ", " + kind(analytics.Lead) + ")"), count("uniqExactIf(" + who + ", " + sold + ")"),
	}, ", ") + " FROM " + where
	if err := e.scanWith(ctx, text, finalSettings, func(r row) error {
		return r.Scan(&f.Leads, &f.Sales, &f.Refunds, &f.Customs, &f.LeadClicks, &f.SaleClicks)
	}); err != nil {
		return err
	}
	text = "SELECT currency, toInt64(sum(amount)), toInt64(countIf(" + sold + ")), toInt64(countIf(" + refunded + ")) FROM " + where + " AND currency != '' AND " + kind(analytics.Sale) + " GROUP BY currency ORDER BY currency"
	if err := e.scanWith(ctx, text, finalSettings, func(r row) error {
		var a analytics.Amount
		err := r.Scan(&a.Currency, &a.Amount, &a.Sales, &a.Refunds)
		f.Revenue = append(f.Revenue, a)
		return err
	}); err != nil {
		return err
	}
	firsts := "(SELECT customer_id, min(ts_ms) AS first FROM " + known + " AND pending = 0 AND customer_id != '' AND " + sold + " GROUP BY customer_id)"
	text = fmt.Sprintf("SELECT toInt64(countIf(first >= %d)), toInt64(countIf(first < %d)) FROM (SELECT DISTINCT customer_id FROM %s AND %s AND customer_id != '') ANY INNER JOIN %s USING customer_id",
		q.From, q.From, where, sold, firsts)
	if err := e.scanWith(ctx, text, finalSettings, func(r row) error { return r.Scan(&f.NewCustomers, &f.ReturningCustomers) }); err != nil {
		return err
	}
	text = fmt.Sprintf("SELECT toInt64(count()) FROM %s AND pending = 1 AND ts_ms >= %d AND ts_ms < %d", known, q.From, q.To)
	return e.scanWith(ctx, text, finalSettings, func(r row) error { return r.Scan(&f.Pending) })
}

// ConversionsBy implements analytics.Engine.
func (e *Engine) ConversionsBy(ctx context.Context, q analytics.Query) (analytics.ConversionBreakdown, error) {
	q, err := q.Normalize()
	if err == nil {
		err = q.CheckConversions(true)
	}
	if err != nil {
		return analytics.ConversionBreakdown{}, err
	}
	groups, order := e.builder().conversionsBy(q)
	var b analytics.ConversionBreakdown
	err = e.ask(ctx, "conversions", func(ctx context.Context) error {
		b = analytics.ConversionBreakdown{Data: []analytics.ConversionValue{}}
		text := fmt.Sprintf("SELECT k, l, s, r, c, m, t FROM (%s) ORDER BY %s DESC, k ASC LIMIT %d", groups, order, q.Limit)
		if err := e.scanWith(ctx, text, finalSettings, func(r row) error {
			var v analytics.ConversionValue
			scan := textOrNumber{by: q.By}
			if err := r.Scan(scan.dst(), &v.Leads, &v.Sales, &v.Refunds, &v.Customs, &v.Revenue, &v.Label); err != nil {
				return err
			}
			if v.Value = scan.value(); v.Value == "" {
				v.Label = ""
			}
			if q.Currency == "" {
				v.Revenue = 0
			}
			b.Data = append(b.Data, v)
			return nil
		}); err != nil {
			return err
		}
		return e.scanWith(ctx, "SELECT toInt64(sum("+order+")), toInt64(count()) FROM ("+groups+")", finalSettings, func(r row) error { return r.Scan(&b.Total, &b.Values) })
	})
	if err != nil {
		return analytics.ConversionBreakdown{}, err
	}
	b.Other = b.Total
	for i := range b.Data {
		b.Other -= b.Data[i].Metric(q.Metric)
	}
	return b, nil
}

// conversionsBy returns the statement that groups conversions, k, l, s, r, c, m, t, and the column of the metric.
func (b builder) conversionsBy(q analytics.Query) (groups, order string) {
	where := knownConversions(q.Workspace) + " AND " + b.converted(q)
	source, key, label := where, "k", "''"
	switch q.By {
	case analytics.Tag:
		source = b.byTag(q.Workspace, "(SELECT link_id, campaign_id, kind, amount, currency FROM "+where+")", "kind, amount, currency") + " WHERE 1"
	case analytics.Link:
		key, label = keyOf(q.By), "max(concat(domain, '/', code))"
	default:
		key = keyOf(q.By)
	}
	groups = fmt.Sprintf("SELECT %s AS k, toInt64(countIf(kind = 0)) AS l, toInt64(countIf(%s)) AS s, toInt64(countIf(%s)) AS r, toInt64(countIf(kind = 2)) AS c, "+
		"toInt64(sumIf(amount, kind = 1 AND currency = %s)) AS m, %s AS t FROM %s%s GROUP BY k", key, sold, refunded, literal(q.Currency), label, source, b.search(q))
	return groups, map[analytics.Metric]string{analytics.Leads: "l", analytics.Sales: "s", analytics.Customs: "c", analytics.Revenue: "m"}[q.Metric]
}
