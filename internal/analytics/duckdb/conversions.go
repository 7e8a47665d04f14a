package duckdb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"slices"
	"strconv"

	ddb "github.com/duckdb/duckdb-go/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
)

// conversionColumns are the columns that a conversion has in common with clicks, in the order of the table: it
// has a place in each breakdown of clicks.
func conversionColumns() []column {
	left := []string{"event_id", "outcome", "visitor", "repeat", "weight", "v", "user_agent", "ip"}
	cols := slices.DeleteFunc(slices.Clone(columns), func(c column) bool { return slices.Contains(left, c.name) })
	for i := range cols {
		cols[i].name = strconv.Quote(cols[i].name)
	}
	return cols
}

// putConversions replaces conversions by workspace and id.
func putConversions(ctx context.Context, conn *sql.Conn, list []analytics.Conversion) error {
	ids := map[terse.WorkspaceID][]string{}
	for i := range list {
		ids[list[i].Workspace] = append(ids[list[i].Workspace], quote(list[i].ID))
	}
	for w, ids := range ids {
		if err := deleteIn(ctx, conn, "conversions", "workspace_id = "+number(w)+" AND conversion_id", ids); err != nil {
			return err
		}
	}
	cols := conversionColumns()
	return conn.Raw(func(c any) error {
		return appendRows(c, "conversions", func(row func(...driver.Value) error) error {
			for i := range list {
				if err := row(conversionRow(&list[i], cols)...); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// conversionRow is the row of a conversion whose click is not known.
func conversionRow(c *analytics.Conversion, cols []column) []driver.Value {
	row := []driver.Value{c.ID, uint8(c.Kind), c.Amount, c.Currency, c.Customer, ddb.UUID(c.Click), c.Click != terse.ClickID{}}
	for _, col := range cols {
		switch col.name {
		case `"ts"`:
			row = append(row, c.At.Time())
		case `"workspace_id"`:
			row = append(row, int32(c.Workspace))
		case `"link_id"`:
			row = append(row, int64(c.Link))
		case `"campaign_id"`:
			row = append(row, int64(c.Campaign))
		case `"domain"`:
			row = append(row, c.Domain)
		case `"code"`:
			row = append(row, c.Code)
		default:
			switch col.typ {
			case "VARCHAR":
				row = append(row, "")
			case "UTINYINT":
				row = append(row, uint8(0))
			default: // asn
				row = append(row, int64(0))
			}
		}
	}
	return row
}

// converted returns the conditions of the conversions that a query selects.
func (s *statement) converted(q analytics.Query) string {
	return s.where(q) + " AND NOT pending AND " + chosen(q.Bots) + " AND ts >= " + timestamp(q.From) + " AND ts < " + timestamp(q.To)
}

// who is what a funnel counts once: the click, or the customer where no click is known.
const who = "CASE WHEN click_id = UUID '00000000-0000-0000-0000-000000000000' THEN 'c' || customer_id ELSE click_id::VARCHAR END"

// sold and refunded part the rows of kind sale: what is said of sales and customers is said of the first, and
// revenue is of both.
const (
	sold     = "(kind = 1 AND amount >= 0)"
	refunded = "(kind = 1 AND amount < 0)"
)

// Funnel implements analytics.FactSink.
func (d *DB) Funnel(ctx context.Context, q analytics.Query) (analytics.Funnel, error) {
	q, err := q.Normalize()
	if err == nil {
		err = q.CheckConversions(false)
	}
	if err != nil {
		return analytics.Funnel{}, err
	}
	var f analytics.Funnel
	var s statement
	where := s.converted(q)
	kind := func(k analytics.ConversionKind) string { return "kind = " + number(k) }
	text := fmt.Sprintf("SELECT count(*) FILTER (%s), count(*) FILTER (%s), count(*) FILTER (%s), count(*) FILTER (%s), count(DISTINCT %s) FILTER (%s), count(DISTINCT %s) FILTER (%s) FROM conversions WHERE %s",
		kind(analytics.Lead), sold, refunded, kind(analytics.Custom), who, kind(analytics.Lead), who, sold, where)
	err = d.ask(ctx, "funnel", func(ctx context.Context, at *snapshot) error {
		f.Revenue = []analytics.Amount{}
		if err := at.scan(ctx, text, func(r *sql.Rows) error {
			return r.Scan(&f.Leads, &f.Sales, &f.Refunds, &f.Customs, &f.LeadClicks, &f.SaleClicks)
		}, s.args...); err != nil {
			return err
		}
		text := "SELECT currency, sum(amount)::BIGINT, count(*) FILTER (" + sold + "), count(*) FILTER (" + refunded + ") FROM conversions WHERE " + where + " AND currency <> '' AND " + kind(analytics.Sale) + " GROUP BY currency ORDER BY currency"
		if err := at.scan(ctx, text, func(r *sql.Rows) error {
			var a analytics.Amount
			err := r.Scan(&a.Currency, &a.Amount, &a.Sales, &a.Refunds)
			f.Revenue = append(f.Revenue, a)
			return err
		}, s.args...); err != nil {
			return err
		}
		ws := " WHERE workspace_id = " + number(q.Workspace)
		text = "WITH firsts AS (SELECT customer_id AS customer, min(ts) AS first FROM conversions" + ws + " AND NOT pending AND customer_id <> '' AND " + sold + " GROUP BY customer_id)" +
			" SELECT count(DISTINCT customer) FILTER (first >= " + timestamp(q.From) + "), count(DISTINCT customer) FILTER (first < " + timestamp(q.From) + ")" +
			" FROM conversions JOIN firsts ON customer = customer_id WHERE " + where + " AND " + sold
		if err := at.scan(ctx, text, func(r *sql.Rows) error { return r.Scan(&f.NewCustomers, &f.ReturningCustomers) }, s.args...); err != nil {
			return err
		}
		text = "SELECT count(*) FROM conversions" + ws + " AND pending AND ts >= " + timestamp(q.From) + " AND ts < " + timestamp(q.To)
		return at.scan(ctx, text, func(r *sql.Rows) error { return r.Scan(&f.Pending) })
	})
	if err != nil {
		return analytics.Funnel{}, err
	}
	return f, nil
}

// ConversionsBy implements analytics.FactSink.
func (d *DB) ConversionsBy(ctx context.Context, q analytics.Query) (analytics.ConversionBreakdown, error) {
	q, err := q.Normalize()
	if err == nil {
		err = q.CheckConversions(true)
	}
	if err != nil {
		return analytics.ConversionBreakdown{}, err
	}
	var s statement
	source, key, label := "conversions", dimensionColumns[q.By], "''"
	where := s.converted(q)
	if q.By == analytics.Link {
		label = "max(domain || '/' || code)"
	}
	if q.By == analytics.Tag {
		source, key = s.byTag(q.Workspace, "(SELECT link_id, campaign_id, kind, amount, currency FROM conversions WHERE "+where+")"), "k"
		where = "true"
	}
	where += s.search(q)
	currency := s.param(q.Currency)
	order := map[analytics.Metric]string{analytics.Leads: "l", analytics.Sales: "s", analytics.Customs: "c", analytics.Revenue: "m"}[q.Metric]
	text := fmt.Sprintf("WITH g AS (SELECT %s AS k, count(*) FILTER (kind = 0) AS l, count(*) FILTER (%s) AS s, count(*) FILTER (%s) AS r, count(*) FILTER (kind = 2) AS c, "+
		"coalesce(sum(amount) FILTER (kind = 1 AND currency = %s), 0)::BIGINT AS m, %s AS t FROM %s WHERE %s GROUP BY ALL) "+
		"SELECT k, l, s, r, c, m, t, (SELECT sum(%s)::BIGINT FROM g), (SELECT count(*) FROM g) FROM g ORDER BY %s DESC, k ASC LIMIT %d",
		key, sold, refunded, currency, label, source, where, order, order, q.Limit)
	var b analytics.ConversionBreakdown
	err = d.ask(ctx, "conversions", func(ctx context.Context, at *snapshot) error {
		b = analytics.ConversionBreakdown{Data: []analytics.ConversionValue{}}
		return at.scan(ctx, text, func(r *sql.Rows) error {
			var v analytics.ConversionValue
			var n uint64
			value := any(&v.Value)
			if q.By.Numeric() {
				value = &n
			}
			if err := r.Scan(value, &v.Leads, &v.Sales, &v.Refunds, &v.Customs, &v.Revenue, &v.Label, &b.Total, &b.Values); err != nil {
				return err
			}
			if q.By.Numeric() {
				v.Value = q.By.Text(n)
			}
			if v.Value == "" {
				v.Label = ""
			}
			if q.Currency == "" {
				v.Revenue = 0
			}
			b.Data = append(b.Data, v)
			return nil
		}, s.args...)
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
