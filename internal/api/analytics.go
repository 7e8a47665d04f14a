package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/auth"
)

// analyticsInput names the parameters for the document; analytics.ParseQuery reads them.
type analyticsInput struct {
	LinkID     string   `query:"link_id" doc:"Only clicks of this link."`
	CampaignID string   `query:"campaign_id" doc:"Only clicks of this campaign."`
	Domain     string   `query:"domain" doc:"Only clicks on this domain."`
	Tag        string   `query:"tag" doc:"Only clicks of links with this tag."`
	From       string   `query:"from" doc:"Start of the range: RFC 3339 time or date."`
	To         string   `query:"to" doc:"End of the range, not included: RFC 3339 time or date."`
	Period     string   `query:"period" doc:"A range that ends now, instead of from and to: 24h, 7d, 30d and so on."`
	TZ         string   `query:"tz" doc:"IANA time zone of days and hours; UTC if absent." example:"Europe/Berlin"`
	Interval   string   `query:"interval" doc:"Of time series: auto, minute, hour, day, week or month."`
	By         string   `query:"by" doc:"Of breakdowns: the dimension." example:"country"`
	Metric     string   `query:"metric" doc:"clicks or visitors."`
	Bots       string   `query:"bots" doc:"exclude, include or only."`
	Filter     []string `query:"f,explode" doc:"Filter, repeatable: is or not, a dimension, and its values." example:"[\"is,country,DE,AT\"]"`
	Limit      string   `query:"limit" doc:"Values of a breakdown."`
	Search     string   `query:"q" doc:"Of breakdowns: only values, or short URLs of links, that contain this text."`
	All        string   `query:"all" doc:"true: every decision counts, whatever its outcome; bots are then included unless bots says otherwise."`
	Compare    string   `query:"compare" doc:"Adds the same for another range: previous, year, or custom."`
	CompareF   string   `query:"compare_from" doc:"Start of the other range of compare=custom."`
	CompareT   string   `query:"compare_to" doc:"End of the other range of compare=custom."`
}

// heatmapInput names the parameters of the heat map.
type heatmapInput struct {
	LinkID     string   `query:"link_id" doc:"Only clicks of this link."`
	CampaignID string   `query:"campaign_id" doc:"Only clicks of this campaign."`
	Domain     string   `query:"domain" doc:"Only clicks on this domain."`
	Tag        string   `query:"tag" doc:"Only clicks of links with this tag."`
	From       string   `query:"from" doc:"Start of the range: RFC 3339 time or date."`
	To         string   `query:"to" doc:"End of the range, not included: RFC 3339 time or date."`
	Period     string   `query:"period" doc:"A range that ends now, instead of from and to: 24h, 7d, 30d and so on; at most 400 days."`
	TZ         string   `query:"tz" doc:"IANA time zone of weekdays and hours; UTC if absent." example:"Europe/Berlin"`
	Bots       string   `query:"bots" doc:"exclude, include or only."`
	Filter     []string `query:"f,explode" doc:"Filter, repeatable: is or not, a dimension, and its values." example:"[\"is,country,DE,AT\"]"`
	All        string   `query:"all" doc:"true: every decision counts, whatever its outcome."`
}

// Heatmap is the clicks of a range by weekday and hour.
type Heatmap struct {
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	Clicks [][]int64 `json:"clicks" doc:"Seven days from Monday, of 24 hours each, on the local clock."`
	Total  int64     `json:"total"`
}

// Summary is what happened in a range.
type Summary struct {
	From         time.Time        `json:"from"`
	To           time.Time        `json:"to"`
	Clicks       int64            `json:"clicks"`
	Visitors     int64            `json:"visitors"`
	UniqueClicks int64            `json:"unique_clicks" doc:"Distinct visitor, link and UTC day."`
	Deduped      int64            `json:"deduped" doc:"Clicks without repetitions within an hour."`
	QR           int64            `json:"qr" doc:"Clicks that came from a QR code."`
	Humans       int64            `json:"humans"`
	Bots         int64            `json:"bots"`
	Total        int64            `json:"total" doc:"Humans and bots."`
	Outcomes     map[string]int64 `json:"outcomes" doc:"All decisions, by outcome."`
	// Conversions are absent for a query about outcomes, which conversions have none of.
	Leads    *int64             `json:"leads,omitempty" doc:"Conversions of the range; absent for a query that names outcomes."`
	Sales    *int64             `json:"sales,omitempty" doc:"Without refunds."`
	Refunds  *int64             `json:"refunds,omitempty"`
	Revenue  []analytics.Amount `json:"revenue,omitempty" doc:"Of sales less refunds, by currency, in minor units."`
	LagMs    int64              `json:"lag_ms" doc:"Clicks older than this are counted."`
	Previous *Summary           `json:"previous,omitempty" doc:"The earlier range, with compare."`
}

// Timeseries is the course of a range; every bucket is there.
type Timeseries struct {
	Interval string   `json:"interval" doc:"As chosen for auto."`
	Data     []Point  `json:"data"`
	Previous *[]Point `json:"previous,omitempty" doc:"The earlier range, with compare."`
}

// Point is one bucket of a time series.
type Point struct {
	T        time.Time `json:"t" doc:"The start of the bucket."`
	Clicks   int64     `json:"clicks"`
	Visitors int64     `json:"visitors"`
	Bots     int64     `json:"bots"`
	QR       int64     `json:"qr"`
}

// Breakdown is the clicks of a range by one dimension, largest first.
type Breakdown struct {
	Data          []BreakdownRow `json:"data"`
	Other         int64          `json:"other" doc:"The sum of the metric over the values that are not in data."`
	Total         int64          `json:"total"`
	Values        int64          `json:"values" doc:"How many distinct values there are."`
	PreviousTotal *int64         `json:"previous_total,omitempty" doc:"The total of the other range, with compare."`
}

// BreakdownRow is one value of a dimension.
type BreakdownRow struct {
	Value    string       `json:"value" doc:"Empty for unknown or none."`
	Label    string       `json:"label,omitempty" doc:"Of links the short URL without its scheme, of campaigns the name."`
	Clicks   int64        `json:"clicks"`
	Visitors int64        `json:"visitors"`
	Previous *PreviousRow `json:"previous,omitempty" doc:"The same value in the other range, with compare."`
}

// PreviousRow is a value of a dimension in the range that is compared with.
type PreviousRow struct {
	Clicks   int64 `json:"clicks"`
	Visitors int64 `json:"visitors"`
}

func (s *Server) registerAnalytics() {
	register(s, operation{
		ID: "analyticsSummary", Method: http.MethodGet, Path: "/api/v1/analytics/summary", Tag: "Analytics", Scope: auth.ScopeAnalyticsRead, Status: http.StatusOK,
		Summary: "Count the clicks of a range",
	}, s.analyticsSummary)
	register(s, operation{
		ID: "analyticsTimeseries", Method: http.MethodGet, Path: "/api/v1/analytics/timeseries", Tag: "Analytics", Scope: auth.ScopeAnalyticsRead, Status: http.StatusOK,
		Summary: "Clicks over time",
	}, s.analyticsTimeseries)
	register(s, operation{
		ID: "analyticsBreakdown", Method: http.MethodGet, Path: "/api/v1/analytics/breakdown", Tag: "Analytics", Scope: auth.ScopeAnalyticsRead, Status: http.StatusOK,
		Summary: "Clicks by a dimension",
	}, s.analyticsBreakdown)
	register(s, operation{
		ID: "analyticsHeatmap", Method: http.MethodGet, Path: "/api/v1/analytics/heatmap", Tag: "Analytics", Scope: auth.ScopeAnalyticsRead, Status: http.StatusOK,
		Summary: "Clicks by weekday and hour",
	}, s.analyticsHeatmap)
}

var errAnalyticsDisabled = &terse.Error{Code: terse.CodeUnavailable, Reason: "analytics_disabled", Message: "this server records no analytics"}

// analyticsQuery reads the query and checks that its link or domain is one of the workspace.
func (s *Server) analyticsQuery(ctx context.Context, c *call) (analytics.Query, error) {
	if s.o.Analytics == nil {
		return analytics.Query{}, errAnalyticsDisabled
	}
	return s.scopedQuery(ctx, c)
}

// scopedQuery is analyticsQuery without the need of an engine.
func (s *Server) scopedQuery(ctx context.Context, c *call) (analytics.Query, error) {
	q, err := analytics.ParseQuery(c.query, analytics.ParseOptions{Workspace: c.workspace, Now: s.o.Clock().Time()})
	if err != nil {
		return q, err
	}
	if q.Scope.Link != 0 {
		if _, err := s.o.Links.Get(ctx, c.actor(), q.Scope.Link); err != nil {
			return q, err
		}
	}
	if q.Scope.Domain != "" {
		d, err := s.visibleDomain(c, q.Scope.Domain)
		if err != nil {
			return q, err
		}
		q.Scope.Domain = d.Host
	}
	return q, nil
}

func (s *Server) analyticsSummary(ctx context.Context, c *call, _ *analyticsInput) (*struct{ Body *Summary }, error) {
	q, err := s.analyticsQuery(ctx, c)
	if err != nil {
		return nil, err
	}
	out, err := s.summary(ctx, q)
	if err != nil {
		return nil, err
	}
	if earlier, ok := q.Comparison(); ok {
		if out.Previous, err = s.summary(ctx, earlier); err != nil {
			return nil, err
		}
	}
	return &struct{ Body *Summary }{out}, nil
}

func (s *Server) summary(ctx context.Context, q analytics.Query) (*Summary, error) {
	r, err := s.o.Analytics.Summary(ctx, q)
	if err != nil {
		return nil, err
	}
	out := &Summary{
		From: q.From.Time(), To: q.To.Time(), Clicks: r.Clicks, Visitors: r.Visitors, UniqueClicks: r.UniqueClicks, Deduped: r.Deduped,
		QR: r.QR, Humans: r.Humans, Bots: r.Bots, Total: r.Total, Outcomes: r.Outcomes, LagMs: r.LagMs,
	}
	if out.Outcomes == nil {
		out.Outcomes = map[string]int64{}
	}
	if q.CheckConversions(false) == nil {
		f, err := s.o.Analytics.Funnel(ctx, q)
		if err != nil {
			return nil, err
		}
		out.Leads, out.Sales, out.Refunds, out.Revenue = &f.Leads, &f.Sales, &f.Refunds, f.Revenue
	}
	return out, nil
}

func (s *Server) analyticsTimeseries(ctx context.Context, c *call, _ *analyticsInput) (*struct{ Body *Timeseries }, error) {
	q, err := s.analyticsQuery(ctx, c)
	if err != nil {
		return nil, err
	}
	r, err := s.o.Analytics.Timeseries(ctx, q)
	if err != nil {
		return nil, err
	}
	out := &Timeseries{Interval: string(r.Interval), Data: points(r)}
	if earlier, ok := q.Comparison(); ok {
		if r, err = s.o.Analytics.Timeseries(ctx, earlier); err != nil {
			return nil, err
		}
		previous := points(r)
		out.Previous = &previous
	}
	return &struct{ Body *Timeseries }{out}, nil
}

func points(r analytics.Timeseries) []Point {
	out := make([]Point, len(r.Points))
	for i, p := range r.Points {
		out[i] = Point{T: p.T.Time(), Clicks: p.Clicks, Visitors: p.Visitors, Bots: p.Bots, QR: p.QR}
	}
	return out
}

func (s *Server) analyticsBreakdown(ctx context.Context, c *call, _ *analyticsInput) (*struct{ Body *Breakdown }, error) {
	q, err := s.analyticsQuery(ctx, c)
	if err != nil {
		return nil, err
	}
	if q.By == "" {
		return nil, terse.Invalid("by", "a dimension is required, such as country")
	}
	if err := q.CheckBreakdown(); err != nil {
		return nil, err
	}
	r, err := s.o.Analytics.Breakdown(ctx, q)
	if err != nil {
		return nil, err
	}
	out := &Breakdown{Data: make([]BreakdownRow, len(r.Data)), Other: r.Other, Total: r.Total, Values: r.Values}
	for i, v := range r.Data {
		out.Data[i] = BreakdownRow{Value: v.Value, Label: s.label(ctx, c, q.By, v), Clicks: v.Clicks, Visitors: v.Visitors}
	}
	if earlier, ok := q.Comparison(); ok {
		if err := s.compareRows(ctx, earlier, out); err != nil {
			return nil, err
		}
	}
	return &struct{ Body *Breakdown }{out}, nil
}

// label returns what people call a value: the engine's label, or the name of a campaign, which it does not know.
func (s *Server) label(ctx context.Context, c *call, by analytics.Dimension, v analytics.Value) string {
	if by != analytics.Campaign || v.Value == "" {
		return v.Label
	}
	id, err := terse.ParseCampaignID(v.Value)
	if err != nil {
		return ""
	}
	campaign, err := s.o.Links.GetCampaign(ctx, c.actor(), id) // from memory but for the first time
	if err != nil {
		return "" // deleted, or not readable now: the id is shown
	}
	return campaign.Name
}

// compareRows adds to every row what it was in the earlier range, however small it was there.
func (s *Server) compareRows(ctx context.Context, earlier analytics.Query, out *Breakdown) error {
	whole := earlier
	whole.Limit = 1
	r, err := s.o.Analytics.Breakdown(ctx, whole)
	if err != nil {
		return err
	}
	out.PreviousTotal = &r.Total
	// A filter has a limit of values and a query one of filters: of a long list the first rows are compared.
	if len(out.Data) == 0 || len(earlier.Filters) == analytics.MaxFilters {
		return nil
	}
	rows := out.Data[:min(len(out.Data), analytics.MaxValues)]
	only := analytics.Filter{Dim: earlier.By}
	for _, row := range rows {
		only.Values = append(only.Values, row.Value)
	}
	others := earlier.Filters
	earlier.Filters = append(slices.Clone(others), only)
	earlier.Limit = len(rows)
	if earlier.By == analytics.Tag { // the same clicks have other tags, which may come before those that are listed
		earlier.Limit = analytics.MaxLimit
	}
	if r, err = s.o.Analytics.Breakdown(ctx, earlier); err != nil {
		return err
	}
	before := map[string]PreviousRow{}
	for _, v := range r.Data {
		before[v.Value] = PreviousRow{v.Clicks, v.Visitors}
	}
	cut := r.Values > int64(len(r.Data))
	for i := range rows {
		p, found := before[rows[i].Value] // zero if there was none
		if !found && cut {
			if p, err = s.previousRow(ctx, earlier, others, rows[i].Value); err != nil {
				return err
			}
		}
		rows[i].Previous = &p
	}
	return nil
}

// previousRow asks for one value alone: a breakdown that is cut off does not say whether it was there. What a value of a
// breakdown counts is what the summary of its clicks counts.
func (s *Server) previousRow(ctx context.Context, q analytics.Query, others []analytics.Filter, value string) (PreviousRow, error) {
	q.Filters = append(slices.Clone(others), analytics.Filter{Dim: q.By, Values: []string{value}})
	r, err := s.o.Analytics.Summary(ctx, q)
	return PreviousRow{r.Clicks, r.Visitors}, err
}

func (s *Server) analyticsHeatmap(ctx context.Context, c *call, _ *heatmapInput) (*struct{ Body *Heatmap }, error) {
	q, err := s.analyticsQuery(ctx, c)
	if err != nil {
		return nil, err
	}
	slots, err := s.o.Analytics.Slots(ctx, q)
	if err != nil {
		return nil, err
	}
	h := q.HeatmapOf(slots)
	out := &Heatmap{From: q.From.Time(), To: q.To.Time(), Total: h.Total, Clicks: make([][]int64, len(h.Clicks))}
	for i := range h.Clicks {
		out.Clicks[i] = h.Clicks[i][:]
	}
	return &struct{ Body *Heatmap }{out}, nil
}
