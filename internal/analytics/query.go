package analytics

import (
	"slices"
	"strings"
	"time"

	"github.com/terselink/terse"
)

// Limits of a query. They bound the work of an engine, not what may be stored.
const (
	MaxBuckets  = 2000          // points of a time series
	MaxRange    = 10 * 366      // days between From and To
	MaxLimit    = 1000          // values of a breakdown
	MaxFilters  = 20            // filters of a query
	MaxValues   = 100           // values of a filter
	MaxValueLen = 2048          // bytes of a value
	MaxLinks    = 10_000        // links of one LinkTotals
	MaxClicks   = 5000          // rows of one page of Clicks
	MaxSlotDays = 400           // days of a heat map
	MaxSearch   = 200           // bytes of a search
	firstMillis = 946684800000  // 2000-01-01, before the first click anywhere
	lastMillis  = 4102444800000 // 2100-01-01
)

// Metric is what a breakdown orders by and adds up.
type Metric string

// The metrics.
const (
	Clicks   Metric = "clicks"
	Visitors Metric = "visitors"
	Leads    Metric = "leads" // of conversions, as all that follow
	Sales    Metric = "sales"
	Customs  Metric = "customs"
	Revenue  Metric = "revenue" // in minor units of Query.Currency
)

// Bots says which clicks are counted as clicks.
type Bots string

// The choices. In each of them the field bots of a result counts all clicks of bots.
const (
	BotsExclude Bots = "exclude" // people only (class 0); the default
	BotsInclude Bots = "include" // people and bots
	BotsOnly    Bots = "only"    // bots only
)

// Compare chooses the earlier time that a result is compared with.
type Compare string

// The choices.
const (
	CompareNone     Compare = ""
	ComparePrevious Compare = "previous"
	CompareYear     Compare = "year"   // 52 weeks earlier, so that days of the week match
	CompareCustom   Compare = "custom" // Query.CompareFrom to CompareTo
)

// Scope narrows a query to one thing of its workspace. At most one field is set;
// none means the workspace.
type Scope struct {
	Link     terse.LinkNumber
	Campaign terse.CampaignID
	Domain   string // host
	Tag      string // links with this tag, or of campaigns with it
}

// Filter keeps the clicks whose value is one of Values, or none of them if Not.
// Values are canonical (Dimension.Canonical). Filters of a query must all hold.
type Filter struct {
	Dim    Dimension
	Not    bool
	Values []string
}

// Query is one question about the clicks of a workspace. Summary reads neither
// Interval nor By, Metric, Limit and Search; Timeseries reads Interval; Breakdown reads
// By, Metric, Limit and Search. Compare is for callers (Comparison), engines ignore it.
type Query struct {
	Workspace terse.WorkspaceID
	Scope     Scope
	From, To  terse.Millis   // the half-open range [From, To)
	Zone      *time.Location // nil: UTC
	Interval  Interval       // "" is auto
	By        Dimension
	Metric    Metric // "" is clicks
	Bots      Bots   // "" is exclude
	Filters   []Filter
	Limit     int // values of a breakdown; 0: 10
	// Search keeps, of a breakdown, the clicks whose value contains it, whatever the
	// case; with By Link the clicks whose host/code does. "" keeps all.
	Search   string
	Currency string // of Revenue
	// Every counts all outcomes, not those alone that were redirected.
	Every                  bool
	Compare                Compare
	CompareFrom, CompareTo terse.Millis // of CompareCustom
}

// Normalize fills in the defaults and checks the query. Engines call it first.
// Returns an error of code invalid whose Field is the name of the API's
// parameter.
func (q Query) Normalize() (Query, error) {
	if q.Zone == nil {
		q.Zone = time.UTC
	}
	if q.Interval == "" || q.Interval == Auto {
		q.Interval = AutoInterval(q.From, q.To)
	}
	if q.Metric == "" {
		q.Metric = Clicks
	}
	if q.Bots == "" {
		q.Bots = BotsExclude
	}
	if q.Limit == 0 {
		q.Limit = 10
	}
	return q, q.check()
}

func (q Query) check() error {
	switch {
	case q.Workspace == 0:
		return terse.Invalid("workspace", "is missing")
	case q.Workspace > 1<<31-1:
		return terse.Invalid("workspace", "is no workspace")
	case q.Scope.count() > 1:
		return terse.Invalid("link_id", "use one of link_id, campaign_id, domain and tag")
	case q.Scope.Link > 1<<63-1:
		return terse.Invalid("link_id", "is no link")
	case q.Scope.Campaign > 1<<63-1:
		return terse.Invalid("campaign_id", "is no campaign")
	case q.To < firstMillis || q.To > lastMillis:
		return terse.Invalid("to", "is not between the years 2000 and 2100")
	case q.From < firstMillis || q.From >= lastMillis:
		return terse.Invalid("from", "is not between the years 2000 and 2100")
	case q.To <= q.From:
		return terse.Invalid("to", "is not after from")
	case q.To-q.From > MaxRange*dayMillis:
		return terse.Invalid("from", "the range is longer than %d days", MaxRange)
	case !q.Interval.valid():
		return terse.Invalid("interval", "%q is none of: auto, minute, hour, day, week, month", clip(string(q.Interval)))
	case q.By != "" && !q.By.Valid():
		return terse.Invalid("by", "%q is no dimension", clip(string(q.By)))
	case q.Metric != Clicks && q.Metric != Visitors && !slices.Contains(conversionMetrics, q.Metric):
		return terse.Invalid("metric", "%q is neither clicks nor visitors", clip(string(q.Metric)))
	case q.Currency != "" && !validCurrency(q.Currency):
		return terse.Invalid("currency", "%q is no currency such as EUR", clip(q.Currency))
	case len(q.Scope.Tag) > MaxValueLen:
		return terse.Invalid("tag", "is longer than %d bytes", MaxValueLen)
	case q.Bots != BotsExclude && q.Bots != BotsInclude && q.Bots != BotsOnly:
		return terse.Invalid("bots", "%q is none of: exclude, include, only", clip(string(q.Bots)))
	case q.Limit < 1 || q.Limit > MaxLimit:
		return terse.Invalid("limit", "is not between 1 and %d", MaxLimit)
	case len(q.Filters) > MaxFilters:
		return terse.Invalid("f", "at most %d filters", MaxFilters)
	case !slices.Contains([]Compare{CompareNone, ComparePrevious, CompareYear, CompareCustom}, q.Compare):
		return terse.Invalid("compare", "%q is none of: previous, year, custom", clip(string(q.Compare)))
	case len(q.Search) > MaxSearch:
		return terse.Invalid("q", "is longer than %d bytes", MaxSearch)
	case q.Search != "" && q.By == Campaign:
		return terse.Invalid("q", "campaigns cannot be searched here: their clicks know their ids alone")
	}
	if q.Compare == CompareCustom {
		switch {
		case q.CompareFrom < firstMillis || q.CompareFrom >= lastMillis:
			return terse.Invalid("compare_from", "is not between the years 2000 and 2100")
		case q.CompareTo <= q.CompareFrom || q.CompareTo > lastMillis:
			return terse.Invalid("compare_to", "is not after compare_from")
		case (q.CompareTo-q.CompareFrom)/q.Interval.atLeast() > MaxBuckets:
			return terse.Invalid("compare_to", "more than %d points of %s", MaxBuckets, q.Interval)
		}
	}
	if (q.To-q.From)/q.Interval.atLeast() > MaxBuckets {
		return terse.Invalid("interval", "%s is too fine for this range: more than %d points", q.Interval, MaxBuckets)
	}
	for _, f := range q.Filters {
		if err := f.check(); err != nil {
			return err
		}
	}
	return nil
}

func validCurrency(s string) bool {
	return len(s) == 3 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

func (f Filter) check() error {
	if !f.Dim.Valid() {
		return terse.Invalid("f", "%q is no dimension", clip(string(f.Dim)))
	}
	if len(f.Values) == 0 || len(f.Values) > MaxValues {
		return terse.Invalid("f", "a filter has 1 to %d values", MaxValues)
	}
	for _, v := range f.Values {
		if len(v) > MaxValueLen {
			return terse.Invalid("f", "a value is longer than %d bytes", MaxValueLen)
		}
		c, err := f.Dim.Canonical(v)
		if err != nil {
			return terse.Invalid("f", "%q is no value of %s", clip(v), f.Dim)
		}
		if c != v {
			return terse.Invalid("f", "%q is written %q", clip(v), clip(c))
		}
	}
	return nil
}

func (s Scope) count() int {
	n := 0
	for _, set := range []bool{s.Link != 0, s.Campaign != 0, s.Domain != "", s.Tag != ""} {
		if set {
			n++
		}
	}
	return n
}

// names reports whether the query groups or filters by d.
func (q Query) names(d Dimension) bool {
	return q.By == d || slices.ContainsFunc(q.Filters, func(f Filter) bool { return f.Dim == d })
}

// RedirectsOnly reports whether only clicks that were redirected count, which is
// so unless the query itself groups or filters by outcome, or asks for Every.
func (q Query) RedirectsOnly() bool { return !q.Every && !q.names(Outcome) }

// Comparison returns the query for the earlier time that q.Compare asks for;
// false if it asks for none.
//
// A year is 52 weeks. The previous period of a range that starts at a local midnight,
// or is longer than two days, lies the smallest number of whole weeks
// earlier that does not overlap: days of the week and clock times match, and
// "today so far" is cut to the same time of the day. Any shorter range is
// compared with the one that ends where it begins.
func (q Query) Comparison() (Query, bool) {
	if q.Compare == CompareNone {
		return q, false
	}
	if q.Zone == nil {
		q.Zone = time.UTC
	}
	from, to := q.From.Time().In(q.Zone), q.To.Time().In(q.Zone)
	p := q
	p.Compare = CompareNone
	if q.Compare == CompareCustom {
		p.From, p.To = q.CompareFrom, q.CompareTo
		return p, true
	}
	weeks := 52
	if q.Compare == ComparePrevious {
		atMidnight := startOfDay(from).Equal(from)
		if length := q.To - q.From; !atMidnight && length <= 2*dayMillis {
			p.From, p.To = q.From-length, q.From
			return p, true
		}
		for weeks = 1; from.AddDate(0, 0, 7*weeks).Before(to); weeks++ { // at most MaxRange/7 rounds
		}
	}
	p.From = terse.MillisOf(from.AddDate(0, 0, -7*weeks))
	p.To = terse.MillisOf(to.AddDate(0, 0, -7*weeks))
	if p.To <= p.From { // a short range whose earlier twin falls into the hour that a clock change skips
		p.To = p.From + (q.To - q.From)
	}
	return p, true
}
