package analytics

import (
	"encoding/csv"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/terselink/terse"
)

// ParseOptions is what a query needs besides its parameters.
type ParseOptions struct {
	Workspace terse.WorkspaceID
	Now       time.Time
	Zone      *time.Location // of a request without tz; nil: UTC
}

// ParseQuery reads a query from the parameters that API.md names. The result has passed
// Normalize. Every error has code invalid and the name of the parameter as Field;
// a parameter that does not exist, or is there twice (f aside), is an error
// too. The dimensions outcome and bot, where the query names them, make bots=include the
// default: without it "by bot" would show people only.
func ParseQuery(v url.Values, o ParseOptions) (Query, error) {
	for name, values := range v {
		if !parameters[name] {
			return Query{}, terse.Invalid(clip(name), "is no parameter of analytics")
		}
		if len(values) > 1 && name != "f" {
			return Query{}, terse.Invalid(name, "is given more than once")
		}
		for _, s := range values {
			if s == "" {
				return Query{}, terse.Invalid(name, "is empty")
			}
		}
	}
	q := Query{
		Workspace: o.Workspace,
		Interval:  Interval(v.Get("interval")),
		By:        Dimension(v.Get("by")),
		Metric:    Metric(v.Get("metric")),
		Bots:      Bots(v.Get("bots")),
		Compare:   Compare(v.Get("compare")),
		Currency:  strings.ToUpper(v.Get("currency")),
		Search:    strings.ToLower(strings.ToValidUTF8(v.Get("q"), "\uFFFD")),
		Zone:      o.Zone,
	}
	if q.Zone == nil {
		q.Zone = time.UTC
	}
	for _, step := range []func(*Query, url.Values, time.Time) error{parseScope, parseZone, parseRange, parseComparison, parseLimit, parseFilters, parseEvery} {
		if err := step(&q, v, o.Now); err != nil {
			return Query{}, err
		}
	}
	if q.Bots == "" && (q.names(Bot) || q.names(BotName) || q.names(Outcome)) {
		q.Bots = BotsInclude
	}
	return q.Normalize()
}

var parameters = map[string]bool{
	"link_id": true, "campaign_id": true, "domain": true, "tag": true, "from": true, "to": true, "period": true, "tz": true,
	"interval": true, "by": true, "metric": true, "bots": true, "f": true, "limit": true, "q": true, "all": true, "currency": true,
	"compare": true, "compare_from": true, "compare_to": true,
}

func parseScope(q *Query, v url.Values, _ time.Time) (err error) {
	if s := v.Get("link_id"); s != "" {
		if q.Scope.Link, err = terse.ParseLinkNumber(s); err != nil || q.Scope.Link == 0 {
			return terse.Invalid("link_id", "%q is no id of a link", clip(s))
		}
	}
	if s := v.Get("campaign_id"); s != "" {
		if q.Scope.Campaign, err = terse.ParseCampaignID(s); err != nil || q.Scope.Campaign == 0 {
			return terse.Invalid("campaign_id", "%q is no id of a campaign", clip(s))
		}
	}
	q.Scope.Domain = strings.ToLower(strings.ToValidUTF8(v.Get("domain"), "\uFFFD"))
	q.Scope.Tag = strings.ToValidUTF8(v.Get("tag"), "\uFFFD")
	return nil
}

func parseZone(q *Query, v url.Values, _ time.Time) (err error) {
	s := v.Get("tz")
	if s == "" {
		return nil
	}
	// LoadLocation would take "Local", and on some systems paths.
	if q.Zone, err = time.LoadLocation(s); err != nil || s == "Local" || len(s) > 64 {
		return terse.Invalid("tz", "%q is no time zone such as Europe/Berlin", clip(s))
	}
	return nil
}

// parseRange reads from, to and period. With none of them the last 30 days count.
func parseRange(q *Query, v url.Values, now time.Time) (err error) {
	now = now.In(q.Zone)
	from, to, period := v.Get("from"), v.Get("to"), v.Get("period")
	if period != "" && (from != "" || to != "") {
		return terse.Invalid("period", "cannot be combined with from and to")
	}
	// The clicks of this very millisecond count.
	var start time.Time
	end := now.Truncate(time.Millisecond).Add(time.Millisecond)
	switch {
	case from != "" || to != "":
		if to != "" {
			if end, err = parseTime(to, q.Zone, 1); err != nil {
				return terse.Invalid("to", "%q is neither a date nor a time as in RFC 3339", clip(to))
			}
		}
		start = end.AddDate(0, 0, -30)
		if from != "" {
			if start, err = parseTime(from, q.Zone, 0); err != nil {
				return terse.Invalid("from", "%q is neither a date nor a time as in RFC 3339", clip(from))
			}
		}
	default:
		if period == "" {
			period = "30d"
		}
		var ok bool
		if start, end, ok = parsePeriod(period, now, end); !ok {
			return terse.Invalid("period", "%q is none of: today, yesterday, mtd, ytd, or a number with m, h, d, w, mo or y, such as 24h or 7d", clip(period))
		}
	}
	q.From, q.To = terse.MillisOf(start), terse.MillisOf(end)
	return nil
}

// parseTime reads an RFC 3339 time or a date. A date is its first instant in the
// zone; with plusDays 1 the first of the day after, so that to=2026-11-03
// includes that day.
func parseTime(s string, zone *time.Location, plusDays int) (time.Time, error) {
	if d, err := time.Parse(time.DateOnly, s); err == nil {
		return startOfDate(d.Year(), d.Month(), d.Day()+plusDays, zone), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	return t.In(zone).Truncate(time.Millisecond), err
}

// parsePeriod reads a period that ends now. Minutes and hours cover at least
// their length and begin on a full one; days, weeks, months and years are
// those of the calendar and include the current day or month.
func parsePeriod(s string, now, end time.Time) (from, to time.Time, ok bool) {
	y, m, d := now.Date()
	day := func(y int, m time.Month, d int) time.Time { return startOfDate(y, m, d, now.Location()) }
	switch s {
	case "today":
		return day(y, m, d), end, true
	case "yesterday":
		return day(y, m, d-1), day(y, m, d), true
	case "mtd":
		return day(y, m, 1), end, true
	case "ytd":
		return day(y, time.January, 1), end, true
	}
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyz")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > MaxRange*24*60 || digits[0] == '+' {
		return from, to, false
	}
	switch s[len(digits):] {
	case "m":
		return now.Add(-time.Duration(n) * time.Minute).Truncate(time.Minute), end, true
	case "h":
		return Hour.floor(now.Add(-time.Duration(n) * time.Hour)), end, true
	case "w":
		n *= 7
		fallthrough
	case "d":
		if n > MaxRange {
			return from, to, false
		}
		return day(y, m, d-n+1), end, true
	case "y":
		n *= 12
		fallthrough
	case "mo":
		if n > MaxRange/28 {
			return from, to, false
		}
		return day(y, m-time.Month(n-1), 1), end, true
	}
	return from, to, false
}

// parseComparison reads compare_from and compare_to, which compare=custom alone has.
func parseComparison(q *Query, v url.Values, _ time.Time) error {
	for _, p := range []struct {
		name string
		dst  *terse.Millis
		plus int
	}{{"compare_from", &q.CompareFrom, 0}, {"compare_to", &q.CompareTo, 1}} {
		s := v.Get(p.name)
		if (s != "") != (q.Compare == CompareCustom) {
			return terse.Invalid(p.name, "compare_from and compare_to belong to compare=custom, which needs both")
		}
		if s == "" {
			continue
		}
		t, err := parseTime(s, q.Zone, p.plus)
		if err != nil {
			return terse.Invalid(p.name, "%q is neither a date nor a time as in RFC 3339", clip(s))
		}
		*p.dst = terse.MillisOf(t)
	}
	return nil
}

// parseEvery reads all=true: every decision, of people and bots, whatever its outcome.
func parseEvery(q *Query, v url.Values, _ time.Time) error {
	switch v.Get("all") {
	case "", "false":
	case "true":
		q.Every = true
		if q.Bots == "" {
			q.Bots = BotsInclude
		}
	default:
		return terse.Invalid("all", "is neither true nor false")
	}
	return nil
}

func parseLimit(q *Query, v url.Values, _ time.Time) (err error) {
	if s := v.Get("limit"); s != "" {
		if q.Limit, err = strconv.Atoi(s); err != nil || q.Limit < 1 || q.Limit > MaxLimit {
			return terse.Invalid("limit", "%q is no number from 1 to %d", clip(s), MaxLimit)
		}
	}
	return nil
}

// parseFilters reads every f: "is" or "not", a dimension and values, as one line
// of CSV, so that a value with a comma can be quoted.
func parseFilters(q *Query, v url.Values, _ time.Time) error {
	if len(v["f"]) > MaxFilters {
		return terse.Invalid("f", "at most %d filters", MaxFilters)
	}
	for _, s := range v["f"] {
		fields, err := csv.NewReader(strings.NewReader(s)).Read()
		if err != nil || strings.ContainsAny(s, "\r\n") || len(fields) < 3 || (fields[0] != "is" && fields[0] != "not") {
			return terse.Invalid("f", "%q is not of the form is,country,DE,AT or not,country,DE", clip(s))
		}
		f := Filter{Dim: Dimension(fields[1]), Not: fields[0] == "not"}
		if !f.Dim.Valid() {
			return terse.Invalid("f", "%q is no dimension", clip(fields[1]))
		}
		for _, value := range fields[2:] {
			c, err := f.Dim.Canonical(strings.ToValidUTF8(value, "\uFFFD"))
			if err != nil {
				return terse.Invalid("f", "%q is no value of %s", clip(value), f.Dim)
			}
			f.Values = append(f.Values, c)
		}
		q.Filters = append(q.Filters, f)
	}
	return nil
}
