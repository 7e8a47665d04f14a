package analytics

import "github.com/terselink/terse"

// ConversionKind says what a conversion is. The numbers are in every engine and document.
type ConversionKind uint8

// The kinds.
const (
	Lead   ConversionKind = 0
	Sale   ConversionKind = 1
	Custom ConversionKind = 2
)

var conversionNames = []string{"lead", "sale", "custom"}

// String returns the name that the API uses.
func (k ConversionKind) String() string {
	if int(k) < len(conversionNames) {
		return conversionNames[k]
	}
	return ""
}

// ParseConversionKind is the inverse of String. Returns an error of code invalid for any other text.
func ParseConversionKind(s string) (ConversionKind, error) {
	for i, name := range conversionNames {
		if s == name {
			return ConversionKind(i), nil
		}
	}
	return 0, terse.Invalid("kind", "the kind is lead, sale or custom")
}

// Conversion is a lead, a sale or another event that a click led to. It is known by the click, or
// without one by link and customer.
type Conversion struct {
	ID        string            `json:"id"` // of its document: unique in the workspace
	At        terse.Millis      `json:"at"`
	Workspace terse.WorkspaceID `json:"workspace"`
	Kind      ConversionKind    `json:"kind"`
	Name      string            `json:"name,omitempty"`
	Amount    int64             `json:"amount,omitempty"`   // in minor units; less than 0 is a refund
	Currency  string            `json:"currency,omitempty"` // ISO 4217; "" without an amount
	Customer  string            `json:"customer,omitempty"` // as the caller names customers
	Invoice   string            `json:"invoice,omitempty"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	// Click is the click that it came from; zero: only the link is known. Until the
	// engine has the click, the conversion is pending and counts nowhere else.
	Click    terse.ClickID    `json:"click,omitzero"`
	Link     terse.LinkNumber `json:"link,omitempty"` // 0 with Click: the click knows it
	Campaign terse.CampaignID `json:"campaign,omitempty"`
	Domain   string           `json:"domain,omitempty"`
	Code     string           `json:"code,omitempty"`
}

// Funnel is what became of the clicks of a range. The numbers are of conversions in the
// range, whenever their clicks were.
type Funnel struct {
	Leads   int64 `json:"leads"` // conversions
	Sales   int64 `json:"sales"` // without refunds
	Refunds int64 `json:"refunds"`
	Customs int64 `json:"customs"`
	// LeadClicks and SaleClicks count a click once, however many conversions it led to; a
	// conversion without a click counts its customer. Refunds count for neither.
	LeadClicks int64    `json:"lead_clicks"`
	SaleClicks int64    `json:"sale_clicks"`
	Revenue    []Amount `json:"revenue"` // of sales less refunds, by currency in alphabetical order
	// Customers with a sale in the range: whose first one it is, and who had bought before. A refund is no sale.
	NewCustomers       int64 `json:"new_customers"`
	ReturningCustomers int64 `json:"returning_customers"`
	// Pending conversions of the range wait for their click; scope and filters do not matter for them.
	Pending int64 `json:"pending"`
}

// Amount is money of one currency.
type Amount struct {
	Currency string `json:"currency"`
	Amount   int64  `json:"amount"` // minor units, of sales less refunds
	Sales    int64  `json:"sales"`
	Refunds  int64  `json:"refunds"`
}

// ConversionBreakdown is the conversions of a range by one dimension, in descending order of the
// metric, then ascending in the order of Dimension.Compare. Other and Total are in the metric.
type ConversionBreakdown struct {
	Data   []ConversionValue `json:"data"`
	Other  int64             `json:"other"`
	Total  int64             `json:"total"`
	Values int64             `json:"values"`
}

// ConversionValue is one row of a ConversionBreakdown.
type ConversionValue struct {
	Value   string `json:"value"`
	Label   string `json:"label,omitempty"` // for links: host/code
	Leads   int64  `json:"leads"`
	Sales   int64  `json:"sales"` // without refunds
	Refunds int64  `json:"refunds"`
	Customs int64  `json:"customs"`
	Revenue int64  `json:"revenue"` // of sales less refunds in Query.Currency, 0 without one
}

// Refund reports whether the conversion gives back the money of a sale, or of a part of it. A sale of nothing is none.
func (c *Conversion) Refund() bool { return c.Kind == Sale && c.Amount < 0 }

// Metric returns the number that the metric orders by.
func (v *ConversionValue) Metric(m Metric) int64 {
	switch m {
	case Leads:
		return v.Leads
	case Sales:
		return v.Sales
	case Customs:
		return v.Customs
	}
	return v.Revenue
}
