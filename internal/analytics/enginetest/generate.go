package enginetest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// Zones are the time zones of generated queries: whole, half and quarter hours,
// a clock change of 30 minutes, and one on the southern half.
var Zones = []string{
	"UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Chatham", "Asia/Kolkata",
}

// Span is the time of the generated events: it holds the clock changes of autumn
// 2026 in Lord Howe, Chatham, Europe and America.
var (
	SpanFrom = terse.MillisOf(time.Date(2026, 9, 20, 0, 0, 0, 0, time.UTC))
	SpanTo   = terse.MillisOf(time.Date(2026, 11, 12, 0, 0, 0, 0, time.UTC))
)

// Workspace is the one that generated queries ask for; events of another one are among
// the generated ones too.
const Workspace terse.WorkspaceID = 3

// pick returns one of the values, the first ones far more often.
func pick[T any](r *rand.Rand, values ...T) T {
	i := int(r.ExpFloat64() * float64(len(values)) / 4)
	return values[min(i, len(values)-1)]
}

// Events returns n believable events in the order of a spool: nearly sorted by time,
// a few links with most of the clicks, people who come back, bots, refusals,
// unknown codes, sampled rows and strings that are awkward to store. The same
// seed gives the same events.
func Events(seed uint64, n int) []clicks.Event {
	r := rand.New(rand.NewPCG(seed, 7))
	events := make([]clicks.Event, n)
	step := float64(SpanTo-SpanFrom) / float64(n)
	for i := range events {
		at := SpanFrom + terse.Millis(float64(i)*step) + terse.Millis(r.IntN(4000))
		if r.IntN(3) == 0 { // some land exactly on boundaries
			at -= at % pick(r, 60_000, 900_000, 3_600_000, terse.Millis(86_400_000))
		}
		events[i] = event(r, uint64(i), min(at, SpanTo-1))
	}
	return events
}

// idOf returns the id of event i.
func idOf(at terse.Millis, i uint64) (id [16]byte) {
	binary.BigEndian.PutUint64(id[:8], uint64(at)<<16|7<<12)
	binary.BigEndian.PutUint64(id[8:], 1<<63|i)
	return id
}

func event(r *rand.Rand, i uint64, at terse.Millis) clicks.Event {
	link := terse.NewLinkNumber(1+terse.DomainID(r.IntN(2)), terse.SpaceID(pick(r, 7, 0)), uint64(r.ExpFloat64()*30))
	ev := clicks.Event{
		At: at, Workspace: pick(r, Workspace, Workspace, Workspace+1), Link: link, Campaign: pick[terse.CampaignID](r, 0, 12, 1<<62+5, 99),
		Domain: []string{"go.example.com", "s.example:8080"}[link.Domain()-1], Code: fmt.Sprintf("c%d", link.Index()),
		Destination: pick(r, "https://example.com/", "https://example.com/a long/path/that/does/not/fit/inline", ""),
		Rule:        pick[uint8](r, 0, 2, 10, 255), Trigger: pick(r, "link", "qr", "nfc", "api"),
		Visitor: r.Uint64N(40) * 0x9e3779b97f4a7c15, Repeat: r.IntN(5) == 0,
		Country: pick(r, "DE", "US", "AT", "IN", "", "NP"), Region: pick(r, "", "DE-BY", "US-NY"), City: pick(r, "", "München", "New York", "a'b\"c"),
		ASN: pick[uint32](r, 0, 3320, 4294967295), Device: pick(r, "mobile", "desktop", "tablet", ""), OS: pick(r, "iOS", "Android", "Windows", ""),
		OSVersion: pick(r, "18", "", "11"), Browser: pick(r, "Chrome", "Safari", "Mobile Safari UI/WKWebView", ""), BrowserVer: pick(r, "141", ""),
		Language: pick(r, "de", "en", "", "ne"), RefHost: pick(r, "", "google.com", "l.instagram.com", "news.ycombinator.com"),
		RefPath: pick(r, "", "/a/b"), Source: pick(r, "", "Google", "Instagram", "X"), UTMSource: pick(r, "", "newsletter", "sms"),
		UTMMedium: pick(r, "", "email"), UTMCampaign: pick(r, "", "spring, summer", "50% off"), UTMTerm: pick(r, "", "a\x00b"),
		UTMContent: pick(r, "", "🎉 party time with emoji 🎉", "'; DROP TABLE clicks; --"), Weight: pick[uint16](r, 1, 1, 1, 1, 1, 20, 65535), Node: pick(r, "n1", "n2"),
	}
	ev.ID = idOf(at, i)
	if ev.Workspace == Workspace && i%3 != 0 { // some workspaces keep these, from and up to some time
		ev.UserAgent = []string{"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) 'x\"y", "", "Grüße/1.0 🎉"}[i/3%3]
		ev.IP = []string{"203.0.113.0/24", "2001:db8:1::/48", "198.51.100.0/24", ""}[i/5%4]
	}
	if r.IntN(4) == 0 {
		ev.Bot, ev.Visitor = clicks.BotClass(1+r.IntN(11)), 0
		if at < SpanFrom+8*86_400_000 { // bots have no visitor, but an engine must not rely on it
			ev.Visitor = uint64(r.IntN(2)) * 7
		}
		ev.BotName = pick(r, "Slackbot", "Googlebot", "")
	}
	if r.IntN(6) == 0 {
		ev.Outcome = clicks.Outcome(1 + r.IntN(7))
		if ev.Outcome == clicks.OutcomeNotFound {
			ev.Link, ev.Campaign, ev.Code = 0, 0, pick(r, "wp-login.php", ".env", "xyz")
		}
	}
	return ev
}

// Query returns a random query over the span that passes Normalize, with a dimension.
func Query(r *rand.Rand, events []clicks.Event) analytics.Query {
	for {
		q := randomQuery(r, events)
		if n, err := q.Normalize(); err == nil {
			return n
		}
	}
}

func randomQuery(r *rand.Rand, events []clicks.Event) analytics.Query {
	zone, err := time.LoadLocation(Zones[r.IntN(len(Zones))])
	if err != nil {
		panic(err) // the zones are embedded
	}
	sample := &events[r.IntN(len(events))]
	dims := analytics.Dimensions()
	q := analytics.Query{
		Workspace: Workspace, Zone: zone, By: dims[r.IntN(len(dims))],
		Interval: pick(r, analytics.Auto, analytics.Day, analytics.Hour, analytics.Week, analytics.Month, analytics.Minute),
		Metric:   pick(r, analytics.Clicks, analytics.Visitors),
		Bots:     []analytics.Bots{analytics.BotsExclude, analytics.BotsInclude, analytics.BotsOnly}[r.IntN(3)],
		Limit:    pick(r, 3, 1, 10, 1000),
	}
	length := pick(r, 7*24*time.Hour, 31*24*time.Hour, 26*time.Hour, 90*time.Minute, 45*24*time.Hour, time.Duration(1+r.IntN(1e9))*time.Millisecond)
	q.From = SpanFrom - 3_600_000 + terse.Millis(r.Int64N(int64(SpanTo-SpanFrom)))
	switch r.IntN(3) {
	case 0: // local midnights
		y, m, d := q.From.Time().In(zone).Date()
		q.From = terse.MillisOf(time.Date(y, m, d, 0, 0, 0, 0, zone))
	case 1: // UTC days
		q.From -= q.From % 86_400_000
	}
	q.To = q.From + terse.Millis(length.Milliseconds())
	switch r.IntN(5) {
	case 0:
		q.Scope.Link = sample.Link
	case 1:
		q.Scope.Campaign = sample.Campaign
	case 2:
		q.Scope.Domain = sample.Domain
	case 3:
		q.Scope.Tag = pick(r, "sms", "vip", "spring", "none")
	}
	if r.IntN(6) == 0 {
		q.Every = true
	}
	if q.By == analytics.Tag && r.IntN(3) == 0 {
		q.Search = pick(r, "s", "ü", "none")
	}
	if text := strings.ToLower(q.By.Of(sample)); r.IntN(4) == 0 && text != "" && q.By != analytics.Campaign {
		if q.By == analytics.Link {
			text = sample.Domain + "/" + sample.Code
		}
		runes := []rune(text)
		i := r.IntN(len(runes))
		q.Search = string(runes[i:min(len(runes), i+1+r.IntN(3))])
	}
	for range pick(r, 0, 1, 2, 3) {
		f := analytics.Filter{Dim: dims[r.IntN(len(dims))], Not: r.IntN(3) == 0}
		for range 1 + r.IntN(3) {
			if f.Dim == analytics.Tag {
				f.Values = append(f.Values, pick(r, "sms", "", "vip", "spring", "none"))
				continue
			}
			f.Values = append(f.Values, f.Dim.Of(&events[r.IntN(len(events))]))
		}
		f.Values = slices.Compact(f.Values)
		q.Filters = append(q.Filters, f)
	}
	return q
}
