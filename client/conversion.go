package client

import (
	"context"
	"net/http"
	"time"
)

// NewConversion is a lead, a sale or another event that a click led to. Either ClickID is set, or
// Code and CustomerID.
type NewConversion struct {
	ClickID    string            `json:"click_id,omitzero"`
	Code       string            `json:"code,omitzero"`
	Domain     string            `json:"domain,omitzero"` // of Code; "" is the workspace's default
	CustomerID string            `json:"customer_id,omitzero"`
	Kind       string            `json:"kind"` // lead, sale or custom
	Name       string            `json:"name,omitzero"`
	Amount     int64             `json:"amount,omitzero"` // minor units; less than 0 is a refund
	Currency   string            `json:"currency,omitzero"`
	InvoiceID  string            `json:"invoice_id,omitzero"` // the only one of its kind with this invoice
	Ts         time.Time         `json:"ts,omitzero"`         // zero: now
	Metadata   map[string]string `json:"metadata,omitempty"`
}

// Conversion is a recorded conversion.
type Conversion struct {
	ID         string            `json:"id"`
	Ts         time.Time         `json:"ts"`
	Kind       string            `json:"kind"`
	Name       string            `json:"name"`
	Amount     int64             `json:"amount"`
	Currency   string            `json:"currency"`
	ClickID    string            `json:"click_id"`
	LinkID     string            `json:"link_id"`
	CustomerID string            `json:"customer_id"`
	InvoiceID  string            `json:"invoice_id"`
	Metadata   map[string]string `json:"metadata"`
}

// Amount is money of one currency, in minor units.
type Amount struct {
	Currency string `json:"currency"`
	Amount   int64  `json:"amount"`
	Sales    int64  `json:"sales"`
	Refunds  int64  `json:"refunds"`
}

// ConversionReport is what became of clicks. Conversions are those of the range, whenever their clicks were.
type ConversionReport struct {
	From               time.Time      `json:"from"`
	To                 time.Time      `json:"to"`
	Clicks             int64          `json:"clicks"`
	Leads              int64          `json:"leads"`
	Sales              int64          `json:"sales"` // without refunds
	Refunds            int64          `json:"refunds"`
	Customs            int64          `json:"customs"`
	LeadClicks         int64          `json:"lead_clicks"` // clicks that led to a lead
	SaleClicks         int64          `json:"sale_clicks"`
	Revenue            []Amount       `json:"revenue"`
	NewCustomers       int64          `json:"new_customers"`
	ReturningCustomers int64          `json:"returning_customers"`
	Pending            int64          `json:"pending"` // whose click has not been found yet
	By                 *ConversionsBy `json:"by,omitzero"`
}

// ConversionsBy is conversions by a dimension of the clicks that led to them.
type ConversionsBy struct {
	Data []struct {
		Value   string `json:"value"`
		Label   string `json:"label,omitzero"`
		Leads   int64  `json:"leads"`
		Sales   int64  `json:"sales"`
		Refunds int64  `json:"refunds"`
		Customs int64  `json:"customs"`
		Revenue int64  `json:"revenue"` // in Query.Currency
	} `json:"data"`
	Other  int64 `json:"other"` // in Query.Metric, as Total
	Total  int64 `json:"total"`
	Values int64 `json:"values"`
}

// CreateConversion records a conversion. It is durable when the call returns; one that was recorded before is
// returned as it was, and created is false.
func (c *Client) CreateConversion(ctx context.Context, n NewConversion) (conv *Conversion, created bool, err error) {
	var out Conversion
	a := &call{method: http.MethodPost, path: "/conversions", in: n, out: &out}
	err = c.do(ctx, a)
	return &out, a.status == http.StatusCreated, err
}

// Conversions returns conversions and revenue, with Query.By also by a dimension; Query.Metric is then
// sales, leads, customs or revenue.
func (c *Client) Conversions(ctx context.Context, q Query) (*ConversionReport, error) {
	var out ConversionReport
	v := q.values()
	for _, name := range []string{"interval", "compare", "compare_from", "compare_to", "all"} {
		v.Del(name)
	}
	return &out, c.do(ctx, &call{method: http.MethodGet, path: "/analytics/conversions", query: v, out: &out})
}
