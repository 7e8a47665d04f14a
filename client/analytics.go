package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Query selects clicks. Zero fields take the server's defaults; without a link,
// campaign, domain or tag it is the whole workspace.
type Query struct {
	LinkID     string
	CampaignID string
	Domain     string
	Tag        string
	From, To   time.Time
	FromDate   string   // such as 2026-10-01, in place of From: the first instant of that day in TZ
	ToDate     string   // such as 2026-10-31, in place of To: that day is included, to its end in TZ
	Period     string   // such as 24h, 7d or 30d, in place of From and To
	TZ         string   // IANA name of the zone that days begin in
	Interval   string   // minute, hour, day, week or month: of Timeseries
	By         string   // dimension of Breakdown, such as country or referrer
	Metric     string   // clicks or visitors: the order of Breakdown
	Currency   string   // of revenue in Conversions
	Bots       string   // exclude, include or only
	Filters    []string // such as "is,country,DE,AT"
	Limit      int      // rows of Breakdown
	Search     string   // of Breakdown: only values that contain it
	All        bool     // every decision counts, whatever its outcome
	RawCSV     bool     // of exports as CSV: values that a spreadsheet would run as a formula stay as they are
	// Compare adds the same for another range: previous, year, or custom, which is
	// CompareFrom to CompareTo.
	Compare                string
	CompareFrom, CompareTo time.Time
	// Dates in place of CompareFrom and CompareTo, as FromDate and ToDate are.
	CompareFromDate, CompareToDate string
}

func (q Query) values() url.Values {
	v := url.Values{}
	set(v, "link_id", q.LinkID)
	set(v, "campaign_id", q.CampaignID)
	set(v, "domain", q.Domain)
	set(v, "tag", q.Tag)
	setPoint(v, "from", q.FromDate, q.From)
	setPoint(v, "to", q.ToDate, q.To)
	set(v, "period", q.Period)
	set(v, "tz", q.TZ)
	set(v, "interval", q.Interval)
	set(v, "by", q.By)
	set(v, "metric", q.Metric)
	set(v, "currency", q.Currency)
	set(v, "bots", q.Bots)
	setInt(v, "limit", q.Limit)
	set(v, "q", q.Search)
	if q.All {
		v.Set("all", "true")
	}
	set(v, "compare", q.Compare)
	setPoint(v, "compare_from", q.CompareFromDate, q.CompareFrom)
	setPoint(v, "compare_to", q.CompareToDate, q.CompareTo)
	if len(q.Filters) > 0 {
		v["f"] = q.Filters
	}
	return v
}

// setPoint adds an end of a range: its date, which the server reads in the zone of the query, or its time.
func setPoint(v url.Values, name, date string, t time.Time) {
	if date != "" {
		v.Set(name, date)
		return
	}
	setTime(v, name, t)
}

// Summary is the totals of a query.
type Summary struct {
	From         time.Time        `json:"from"`
	To           time.Time        `json:"to"`
	Clicks       int64            `json:"clicks"`         // people, or what Query.Bots chose
	Visitors     int64            `json:"visitors"`       // distinct per UTC day, of Clicks
	UniqueClicks int64            `json:"unique_clicks"`  // distinct visitor, link and UTC day, of Clicks
	Deduped      int64            `json:"deduped"`        // Clicks without repetitions within an hour
	QR           int64            `json:"qr"`             // Clicks that came from a QR code
	Humans       int64            `json:"humans"`         // whatever Query.Bots says
	Bots         int64            `json:"bots"`           // whatever Query.Bots says
	Total        int64            `json:"total"`          // Humans and Bots
	Outcomes     map[string]int64 `json:"outcomes"`       // all decisions
	LagMS        int64            `json:"lag_ms"`         // clicks older than this are counted
	Leads        int64            `json:"leads,omitzero"` // conversions of the range
	Sales        int64            `json:"sales,omitzero"` // without refunds
	Refunds      int64            `json:"refunds,omitzero"`
	Revenue      []Amount         `json:"revenue,omitempty"` // of sales less refunds
	Previous     *Summary         `json:"previous,omitzero"`
}

// Point is the clicks of one interval.
type Point struct {
	T        time.Time `json:"t"` // its start
	Clicks   int64     `json:"clicks"`
	Visitors int64     `json:"visitors"`
	Bots     int64     `json:"bots"`
	QR       int64     `json:"qr"`
}

// Timeseries is clicks over time, every interval present.
type Timeseries struct {
	Interval string  `json:"interval,omitzero"`
	Data     []Point `json:"data"`
	Previous []Point `json:"previous,omitzero"` // of Query.Compare
}

// Row is one value of a dimension.
type Row struct {
	Value    string `json:"value"` // "" is unknown or none
	Label    string `json:"label,omitzero"`
	Clicks   int64  `json:"clicks"`
	Visitors int64  `json:"visitors"`
	Previous *struct {
		Clicks   int64 `json:"clicks"`
		Visitors int64 `json:"visitors"`
	} `json:"previous,omitzero"` // of Query.Compare
}

// Breakdown is clicks by the values of a dimension, most first.
type Breakdown struct {
	Data   []Row `json:"data"`
	Other  int64 `json:"other"` // of the values that are not in Data
	Total  int64 `json:"total"`
	Values int64 `json:"values"` // how many distinct values there are
	// PreviousTotal is the total of the other range of Query.Compare.
	PreviousTotal *int64 `json:"previous_total,omitzero"`
}

// Heatmap is clicks by weekday and hour, on the clock of Query.TZ.
type Heatmap struct {
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	Clicks [][]int64 `json:"clicks"` // seven days from Monday, of 24 hours
	Total  int64     `json:"total"`
}

// Summary returns the totals of the query.
func (c *Client) Summary(ctx context.Context, q Query) (*Summary, error) {
	return analytics[Summary](ctx, c, "summary", q)
}

// Timeseries returns clicks over time.
func (c *Client) Timeseries(ctx context.Context, q Query) (*Timeseries, error) {
	return analytics[Timeseries](ctx, c, "timeseries", q)
}

// Breakdown returns clicks by the values of Query.By.
func (c *Client) Breakdown(ctx context.Context, q Query) (*Breakdown, error) {
	return analytics[Breakdown](ctx, c, "breakdown", q)
}

// Heatmap returns clicks by weekday and hour, of at most 400 days.
func (c *Client) Heatmap(ctx context.Context, q Query) (*Heatmap, error) {
	return analytics[Heatmap](ctx, c, "heatmap", q)
}

func analytics[T any](ctx context.Context, c *Client, name string, q Query) (*T, error) {
	var out T
	if err := c.do(ctx, &call{method: http.MethodGet, path: "/analytics/" + name, query: q.values(), out: &out}); err != nil {
		return nil, err
	}
	return &out, nil
}
