package api

import (
	"context"
	"net/http"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/conversions"
)

// NewConversion is the body of a conversion.
type NewConversion struct {
	ClickID    string            `json:"click_id,omitempty" nullable:"true" doc:"The click that led to it; or code and customer_id." example:"click_01kaq3v3s8x6m9c2f4h7j0n5pq"`
	Code       string            `json:"code,omitempty" nullable:"true" doc:"The code of the link, where the click is not known."`
	Domain     string            `json:"domain,omitempty" nullable:"true" doc:"The host of code; without it the workspace's default."`
	CustomerID string            `json:"customer_id,omitempty" nullable:"true" doc:"Your own name, or a hash, of the customer."`
	Kind       string            `json:"kind" doc:"lead, sale or custom." example:"sale"`
	Name       string            `json:"name,omitempty" nullable:"true" doc:"What happened; required for custom."`
	Amount     int64             `json:"amount,omitempty" nullable:"true" doc:"In minor units, such as cents; less than 0 is a refund." example:"1999"`
	Currency   string            `json:"currency,omitempty" nullable:"true" doc:"ISO 4217; required with an amount." example:"EUR"`
	InvoiceID  string            `json:"invoice_id,omitempty" nullable:"true" doc:"Makes the conversion the only one of its kind with this invoice."`
	Ts         *time.Time        `json:"ts,omitempty" nullable:"true" doc:"When it happened; now if absent."`
	Metadata   map[string]string `json:"metadata,omitempty" nullable:"true"`
}

// Conversion is a recorded conversion.
type Conversion struct {
	ID         string            `json:"id"`
	Ts         time.Time         `json:"ts"`
	Kind       string            `json:"kind"`
	Name       *string           `json:"name"`
	Amount     int64             `json:"amount"`
	Currency   *string           `json:"currency"`
	ClickID    *string           `json:"click_id"`
	LinkID     *string           `json:"link_id" doc:"null with a click_id: the click knows it."`
	CustomerID *string           `json:"customer_id"`
	InvoiceID  *string           `json:"invoice_id"`
	Metadata   map[string]string `json:"metadata"`
}

type conversionOutput struct {
	Status int
	Body   *Conversion
}

// conversionsInput names the parameters of the report.
type conversionsInput struct {
	LinkID     string   `query:"link_id" doc:"Only conversions of this link."`
	CampaignID string   `query:"campaign_id" doc:"Only conversions of this campaign."`
	Domain     string   `query:"domain" doc:"Only conversions on this domain."`
	Tag        string   `query:"tag" doc:"Only conversions of links with this tag."`
	From       string   `query:"from" doc:"Start of the range: RFC 3339 time or date."`
	To         string   `query:"to" doc:"End of the range, not included: RFC 3339 time or date."`
	Period     string   `query:"period" doc:"A range that ends now, instead of from and to: 24h, 7d, 30d and so on."`
	TZ         string   `query:"tz" doc:"IANA time zone of dates; UTC if absent." example:"Europe/Berlin"`
	Bots       string   `query:"bots" doc:"exclude, include or only."`
	Filter     []string `query:"f,explode" doc:"Filter on the clicks that led to conversions, repeatable." example:"[\"is,country,DE,AT\"]"`
	By         string   `query:"by" doc:"Adds a breakdown by this dimension."`
	Metric     string   `query:"metric" doc:"Of the breakdown: sales (default), leads, customs or revenue."`
	Currency   string   `query:"currency" doc:"Of revenue in the breakdown." example:"EUR"`
	Search     string   `query:"q" doc:"Of the breakdown: only values that contain this text."`
	Limit      string   `query:"limit" doc:"Values of the breakdown."`
}

// ConversionReport is what became of clicks.
type ConversionReport struct {
	From               time.Time          `json:"from"`
	To                 time.Time          `json:"to"`
	Clicks             int64              `json:"clicks" doc:"Of the same range, scope and filters."`
	Leads              int64              `json:"leads"`
	Sales              int64              `json:"sales" doc:"Without refunds."`
	Refunds            int64              `json:"refunds" doc:"Sales with an amount below 0."`
	Customs            int64              `json:"customs"`
	LeadClicks         int64              `json:"lead_clicks" doc:"Clicks that led to a lead; a conversion without a click counts its customer."`
	SaleClicks         int64              `json:"sale_clicks" doc:"Clicks that led to a sale; a refund is none."`
	Revenue            []analytics.Amount `json:"revenue" doc:"Of sales less refunds, by currency, in minor units."`
	NewCustomers       int64              `json:"new_customers" doc:"Customers whose first sale lies in the range. A refund makes nobody a customer."`
	ReturningCustomers int64              `json:"returning_customers"`
	Pending            int64              `json:"pending" doc:"Conversions of the range whose click has not been found yet; they count nowhere else."`
	By                 *ConversionsBy     `json:"by,omitempty"`
}

// ConversionsBy is conversions by a dimension of the clicks that led to them.
type ConversionsBy struct {
	Data   []analytics.ConversionValue `json:"data"`
	Other  int64                       `json:"other"`
	Total  int64                       `json:"total"`
	Values int64                       `json:"values"`
}

func (s *Server) registerConversions() {
	register(s, operation{
		ID: "createConversion", Method: http.MethodPost, Path: "/api/v1/conversions", Tag: "Analytics", Scope: auth.ScopeConversionsWrite, Status: http.StatusCreated,
		Summary: "Record a lead, a sale or another conversion",
		Description: "Durable when it is answered with 201. The same kind and invoice_id, or without one the same kind, customer_id and name, is the same conversion: " +
			"it is answered with 200 as it was recorded first. A conversion may come before its click.",
	}, s.createConversion)
	register(s, operation{
		ID: "analyticsConversions", Method: http.MethodGet, Path: "/api/v1/analytics/conversions", Tag: "Analytics", Scope: auth.ScopeAnalyticsRead, Status: http.StatusOK,
		Summary: "Conversions and revenue of a range",
	}, s.analyticsConversions)
}

func (s *Server) createConversion(ctx context.Context, c *call, in *struct{ Body NewConversion }) (*conversionOutput, error) {
	b := &in.Body
	got, created, err := s.conversions.Record(ctx, c.actor(), conversions.NewConversion{
		Click: b.ClickID, Code: b.Code, Domain: b.Domain, Customer: b.CustomerID, Kind: b.Kind, Name: b.Name, Amount: b.Amount, Currency: b.Currency,
		Invoice: b.InvoiceID, At: pointInTime(b.Ts), Metadata: b.Metadata,
	})
	if err != nil {
		return nil, err
	}
	out := &conversionOutput{Status: http.StatusOK, Body: &Conversion{
		ID: got.ID, Ts: got.At.Time(), Kind: got.Kind.String(), Name: orNull(got.Name), Amount: got.Amount, Currency: orNull(got.Currency),
		CustomerID: orNull(got.Customer), InvoiceID: orNull(got.Invoice), Metadata: got.Metadata,
	}}
	if created {
		out.Status = http.StatusCreated
	}
	if got.Click != (terse.ClickID{}) {
		out.Body.ClickID = orNull(got.Click.String())
	}
	if got.Link != 0 {
		out.Body.LinkID = orNull(got.Link.String())
	}
	if out.Body.Metadata == nil {
		out.Body.Metadata = map[string]string{}
	}
	return out, nil
}

func (s *Server) analyticsConversions(ctx context.Context, c *call, in *conversionsInput) (*struct{ Body *ConversionReport }, error) {
	q, err := s.analyticsQuery(ctx, c)
	if err != nil {
		return nil, err
	}
	clicks := q
	clicks.By, clicks.Metric, clicks.Search = "", "", ""
	sum, err := s.o.Analytics.Summary(ctx, clicks)
	if err != nil {
		return nil, err
	}
	f, err := s.o.Analytics.Funnel(ctx, q)
	if err != nil {
		return nil, err
	}
	out := &ConversionReport{
		From: q.From.Time(), To: q.To.Time(), Clicks: sum.Clicks, Leads: f.Leads, Sales: f.Sales, Refunds: f.Refunds, Customs: f.Customs, LeadClicks: f.LeadClicks, SaleClicks: f.SaleClicks,
		Revenue: amounts(f.Revenue), NewCustomers: f.NewCustomers, ReturningCustomers: f.ReturningCustomers, Pending: f.Pending,
	}
	if q.By != "" {
		if in.Metric == "" {
			q.Metric = analytics.Sales
		}
		b, err := s.o.Analytics.ConversionsBy(ctx, q)
		if err != nil {
			return nil, err
		}
		out.By = &ConversionsBy{Data: b.Data, Other: b.Other, Total: b.Total, Values: b.Values}
		if out.By.Data == nil {
			out.By.Data = []analytics.ConversionValue{}
		}
	}
	return &struct{ Body *ConversionReport }{out}, nil
}

func amounts(list []analytics.Amount) []analytics.Amount {
	if list == nil {
		return []analytics.Amount{}
	}
	return list
}
