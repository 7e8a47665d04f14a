package analytics

import (
	"context"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
)

// Engine answers questions about clicks. It is derived data: an engine can be
// lost and rebuilt from the record at any time.
//
// For all methods:
//
//   - Answers see every click up to the engine's lag (Status) and no click
//     twice. One answer is one consistent view; two calls may see different clicks.
//   - Errors have code invalid for a query that breaks a rule (Field names the API's
//     parameter), and unavailable if the engine is down, rebuilding from nothing, busy, or
//     did not finish within its deadline (Reason query_timeout). A cancelled
//     context ends the work and returns an error that wraps ctx.Err().
//   - Methods may be called at once from many goroutines. Results belong to the
//     caller.
//   - A workspace never sees clicks of another one.
type Engine interface {
	// Summary counts the clicks of a range.
	Summary(ctx context.Context, q Query) (Summary, error)
	// Timeseries returns one point for every bucket of q.Buckets, in order,
	// also where there were no clicks.
	Timeseries(ctx context.Context, q Query) (Timeseries, error)
	// Breakdown groups the clicks of a range by q.By, largest first.
	Breakdown(ctx context.Context, q Query) (Breakdown, error)
	// Slots counts the clicks of a range of at most MaxSlotDays days by quarters of an
	// hour, ascending; quarters without a click are absent. Query.HeatmapOf makes a
	// heat map of them.
	Slots(ctx context.Context, q Query) ([]Slot, error)
	// Clicks returns the clicks that Summary counts for the same query, newest first (by time,
	// then by id), those after p.After: p.Limit of them, fewer only at the end. The time of
	// an id is that of its click.
	Clicks(ctx context.Context, q Query, p Page) ([]clicks.Event, error)
	// Funnel counts the conversions of a range.
	Funnel(ctx context.Context, q Query) (Funnel, error)
	// ConversionsBy groups the conversions of a range by q.By, largest by q.Metric first.
	ConversionsBy(ctx context.Context, q Query) (ConversionBreakdown, error)
	// LinkTotals returns the totals of at most MaxLinks links of a workspace over
	// all time. Links without a click are absent.
	LinkTotals(ctx context.Context, w terse.WorkspaceID, links []terse.LinkNumber) (map[terse.LinkNumber]LinkTotal, error)
	// Status reports the state of the engine; it does not fail.
	Status(ctx context.Context) Status
}

// Summary is what happened in a range. All numbers but Outcomes are of outcome
// redirect (unless the query filters by outcome) and are sums of weights
// except the distinct counts Visitors and UniqueClicks.
type Summary struct {
	Clicks       int64 `json:"clicks"`        // people, or what Query.Bots chose
	Visitors     int64 `json:"visitors"`      // distinct visitors per UTC day, of Clicks
	UniqueClicks int64 `json:"unique_clicks"` // distinct visitor, link and UTC day, of Clicks
	Deduped      int64 `json:"deduped"`       // Clicks without repeats within an hour
	QR           int64 `json:"qr"`            // Clicks that came from a QR code
	Humans       int64 `json:"humans"`        // whatever Query.Bots says
	Bots         int64 `json:"bots"`          // whatever Query.Bots says
	Total        int64 `json:"total"`         // Humans + Bots
	// Outcomes counts, by name, all decisions of the range that match scope, filters
	// and Query.Bots, whether they redirected or not. Zeros are absent.
	Outcomes map[string]int64 `json:"outcomes"`
	LagMs    int64            `json:"lag_ms"`
}

// Timeseries is the course of a range.
type Timeseries struct {
	Interval Interval `json:"interval"` // as chosen for auto
	Points   []Point  `json:"points"`
}

// Point is one bucket of a time series. Clicks, Bots and QR add up to those of the
// Summary; Visitors do not, because one person may come in several buckets.
type Point struct {
	T        terse.Millis `json:"t"` // the start of the bucket, at or before Query.From for the first
	Clicks   int64        `json:"clicks"`
	Visitors int64        `json:"visitors"`
	Bots     int64        `json:"bots"`
	QR       int64        `json:"qr"`
}

// Breakdown is the clicks of a range by one dimension. The values are in
// descending order of the metric, then of the other one, then ascending in
// the order of Dimension.Compare.
type Breakdown struct {
	Data []Value `json:"data"`
	// Other and Total are in the metric of the query: the sum over the values that
	// are not in Data, and over all. For visitors the total counts a person once
	// for every value, and by tag it counts a click once for every tag.
	Other  int64 `json:"other"`
	Total  int64 `json:"total"`
	Values int64 `json:"values"` // how many distinct values there are
}

// Value is one row of a breakdown.
type Value struct {
	Value    string `json:"value"`           // Dimension.Text or the text itself; "" is unknown or none
	Label    string `json:"label,omitempty"` // for links: host/code as last stored, for people
	Clicks   int64  `json:"clicks"`
	Visitors int64  `json:"visitors"`
}

// Slot is the clicks of a quarter of an hour that begins at T, of what Query.Bots chose.
type Slot struct {
	T      terse.Millis `json:"t"`
	Clicks int64        `json:"clicks"`
}

// Page selects rows of Clicks.
type Page struct {
	After terse.ClickID // the last row of the page before; zero: the newest row is the first
	Limit int           // 1 to MaxClicks
}

// Check returns an error of code invalid if the page cannot be asked for.
func (p Page) Check() error {
	if p.Limit < 1 || p.Limit > MaxClicks {
		return terse.Invalid("limit", "is not between 1 and %d", MaxClicks)
	}
	return nil
}

// LinkTotal is all that a link ever got.
type LinkTotal struct {
	Clicks int64        `json:"clicks"` // people, outcome redirect
	Last   terse.Millis `json:"last"`   // the time of the last of them
}

// State says what an engine can do now.
type State string

// The states.
const (
	StateReady      State = "ready"
	StateRebuilding State = "rebuilding" // answers, but clicks of the past are still being read
	StateDown       State = "down"       // does not answer; clicks wait in the spool
)

// Status is the state of an engine.
type Status struct {
	State    State           `json:"state"`
	LagMs    int64           `json:"lag_ms"`    // clicks older than this can be queried
	LagKnown bool            `json:"lag_known"` // false: nothing was read since the start, and LagMs says nothing
	Rows     int64           `json:"rows"`      // clicks stored
	Position clicks.Position `json:"position"`
	Detail   string          `json:"detail,omitempty"` // why it is not ready, for people
}
