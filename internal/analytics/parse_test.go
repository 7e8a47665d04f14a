package analytics

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
)

// now is a Tuesday afternoon in Berlin, 9 days after the clock change.
var now = time.Date(2026, 11, 3, 14, 7, 8, 9_000_000, time.UTC)

const link = "link_0008000000005"

func TestParseQueryRanges(t *testing.T) {
	tests := []struct {
		query    string
		from, to string
		interval Interval
	}{
		{"", "2026-10-05T00:00:00Z", "", Day},
		{"period=24h", "2026-11-02T14:00:00Z", "", Hour},
		{"period=24h&tz=Asia/Kathmandu", "2026-11-02T13:15:00Z", "", Hour},
		{"period=90m", "2026-11-03T12:37:00Z", "", Minute},
		{"period=7d", "2026-10-28T00:00:00Z", "", Day},
		{"period=7d&tz=America/New_York", "2026-10-28T04:00:00Z", "", Day},
		{"period=2w", "2026-10-21T00:00:00Z", "", Day},
		{"period=1mo", "2026-11-01T00:00:00Z", "", Day},
		{"period=1y", "2025-12-01T00:00:00Z", "", Month},
		{"period=today&tz=Europe/Berlin", "2026-11-02T23:00:00Z", "", Hour},
		{"period=yesterday&tz=Europe/Berlin", "2026-11-01T23:00:00Z", "2026-11-02T23:00:00Z", Hour},
		{"period=mtd", "2026-11-01T00:00:00Z", "", Day},
		{"period=ytd&tz=Europe/Berlin", "2025-12-31T23:00:00Z", "", Month},
		{"from=2026-10-25&to=2026-10-25&tz=Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", Hour},
		{"from=2026-11-03T10:00:00%2B02:00", "2026-11-03T08:00:00Z", "", Hour},
		{"to=2026-10-31", "2026-10-02T00:00:00Z", "2026-11-01T00:00:00Z", Day},
		{"from=2026-10-01&to=2026-10-31&interval=week", "2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z", Week},
	}
	for _, tt := range tests {
		t.Run(tt.query, func(t *testing.T) {
			q, err := ParseQuery(values(t, tt.query), ParseOptions{Workspace: 1, Now: now})
			if err != nil {
				t.Fatal(err)
			}
			to := terse.MillisOf(now) + 1
			if tt.to != "" {
				to = millis(t, tt.to)
			}
			if q.From != millis(t, tt.from) || q.To != to || q.Interval != tt.interval {
				t.Errorf("got %s to %s by %s", q.From.Time(), q.To.Time(), q.Interval)
			}
		})
	}
}

func TestParseQuery(t *testing.T) {
	tests := []struct {
		query string
		want  func(*Query)
	}{
		{"", func(*Query) {}},
		{"link_id=" + link, func(q *Query) { q.Scope.Link, _ = terse.ParseLinkNumber(link) }},
		{"campaign_id=" + terse.CampaignID(7).String(), func(q *Query) { q.Scope.Campaign = 7 }},
		{"domain=Go.Example.COM", func(q *Query) { q.Scope.Domain = "go.example.com" }},
		{"by=country&metric=visitors&limit=1000", func(q *Query) { q.By, q.Metric, q.Limit = Country, Visitors, 1000 }},
		{"bots=only&compare=year", func(q *Query) { q.Bots, q.Compare = BotsOnly, CompareYear }},
		{"by=bot", func(q *Query) { q.By, q.Bots = Bot, BotsInclude }},
		{"by=bot&bots=exclude", func(q *Query) { q.By, q.Bots = Bot, BotsExclude }},
		{"f=is,outcome,notfound,expired", func(q *Query) {
			q.Bots, q.Filters = BotsInclude, []Filter{{Dim: Outcome, Values: []string{"notfound", "expired"}}}
		}},
		{"f=is,country,de,AT&f=not,referrer,", func(q *Query) {
			q.Filters = []Filter{{Dim: Country, Values: []string{"DE", "AT"}}, {Dim: Referrer, Not: true, Values: []string{""}}}
		}},
		{`f=is,utm_campaign,"a, ""b""",c`, func(q *Query) {
			q.Filters = []Filter{{Dim: UTMCampaign, Values: []string{`a, "b"`, "c"}}}
		}},
		{"f=is,rule,0,12&f=is,link," + link, func(q *Query) {
			q.Filters = []Filter{{Dim: Rule, Values: []string{"0", "12"}}, {Dim: Link, Values: []string{link}}}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.query, func(t *testing.T) {
			want := Query{Workspace: 1, Zone: time.UTC, From: millis(t, "2026-10-05T00:00:00Z"), To: terse.MillisOf(now) + 1,
				Interval: Day, Metric: Clicks, Bots: BotsExclude, Limit: 10}
			tt.want(&want)
			got, err := ParseQuery(values(t, tt.query), ParseOptions{Workspace: 1, Now: now})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got, cmp.Comparer(func(a, b *time.Location) bool { return a.String() == b.String() })); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseQueryRefuses(t *testing.T) {
	tests := []struct{ query, field string }{
		{"nonsense=1", "nonsense"},
		{"by=country&by=device", "by"},
		{"by=", "by"},
		{"by=ip", "by"},
		{"by=country;DROP", "by"},
		{"link_id=5", "link_id"},
		{"link_id=link_0000000000000", "link_id"},
		{"link_id=" + link + "&domain=a", "link_id"},
		{"campaign_id=" + link, "campaign_id"},
		{"tag=sms&domain=a", "link_id"},
		{"currency=euro", "currency"},
		{"tz=Mars/Olympus", "tz"},
		{"tz=Local", "tz"},
		{"tz=../../etc/passwd", "tz"},
		{"period=7", "period"},
		{"period=d", "period"},
		{"period=0d", "period"},
		{"period=%2B7d", "period"},
		{"period=-7d", "period"},
		{"period=99999d", "period"},
		{"period=999999999999999999999h", "period"},
		{"period=7d&from=2026-01-01", "period"},
		{"from=yesterday", "from"},
		{"from=1970-01-01", "from"},
		{"from=2026-11-04&to=2026-11-03", "to"},
		{"to=2026-02-30", "to"},
		{"to=9999-01-01", "to"},
		{"from=2001-01-01&to=2026-01-01", "from"},
		{"interval=second", "interval"},
		{"interval=minute&period=30d", "interval"},
		{"metric=money", "metric"},
		{"bots=yes", "bots"},
		{"compare=last", "compare"},
		{"limit=0", "limit"},
		{"limit=1001", "limit"},
		{"limit=ten", "limit"},
		{"f=is,country", "f"},
		{"f=has,country,DE", "f"},
		{"f=is,ip,1.2.3.4", "f"},
		{"f=is,bot,alien", "f"},
		{"f=is,rule,256", "f"},
		{`f=is,city,"Bonn`, "f"},
		{"f=is,city,Bonn%0Ais,city,Ulm", "f"},
		{"f=is,city," + strings.Repeat("x", MaxValueLen+1), "f"},
		{"f=is,city," + strings.Repeat("x,", MaxValues) + "x", "f"},
		{strings.Repeat("f=is,city,Bonn&", MaxFilters+1), "f"},
	}
	for _, tt := range tests {
		t.Run(clip(tt.query), func(t *testing.T) {
			v, _ := url.ParseQuery(strings.TrimSuffix(strings.ReplaceAll(tt.query, ";", "%3B"), "&"))
			_, err := ParseQuery(v, ParseOptions{Workspace: 1, Now: now})
			e, ok := errors.AsType[*terse.Error](err)
			if !ok || e.Code != terse.CodeInvalid || e.Field != tt.field || len(e.Message) > 400 {
				t.Errorf("got %v, want an invalid %s", err, tt.field)
			}
		})
	}
}

// FuzzParseQuery: whatever comes in, the answer is an error that names a
// parameter, or a query within all limits whose comparison is one too.
func FuzzParseQuery(f *testing.F) {
	for _, s := range []string{
		"", "period=24h", "from=2026-01-01&to=2026-02-01&tz=Asia/Kathmandu&interval=hour", "by=link&metric=visitors&limit=5",
		"f=is,country,DE,AT&f=not,bot,human", `f=is,utm_term,"a,b"`, "tz=Australia/Lord_Howe&period=3mo&compare=previous",
		"f=is,country,ı", "f=is,domain,İ", "period=99999999m", "from=2099-12-31&to=2099-12-31",
	} {
		f.Add(s, int64(1762178828009))
	}
	f.Fuzz(func(t *testing.T, raw string, at int64) {
		v, err := url.ParseQuery(raw)
		if err != nil || at < firstMillis || at > lastMillis {
			return
		}
		q, err := ParseQuery(v, ParseOptions{Workspace: 1, Now: time.UnixMilli(at)})
		if err != nil {
			if e, ok := errors.AsType[*terse.Error](err); !ok || e.Code != terse.CodeInvalid || e.Field == "" && !v.Has("") {
				t.Fatalf("%q: %v", raw, err)
			}
			return
		}
		starts := q.Buckets()
		if len(starts) == 0 || len(starts) > MaxBuckets+MaxBuckets/20+2 || starts[0] > q.From || starts[len(starts)-1] >= q.To {
			t.Fatalf("%q: %d buckets from %d for %d to %d", raw, len(starts), starts[0], q.From, q.To)
		}
		if !slices.IsSorted(starts) {
			t.Fatalf("%q: buckets are not ascending", raw)
		}
		if p, ok := q.Comparison(); ok && (p.To <= p.From || p.From >= q.From) {
			t.Fatalf("%q: compared with %s to %s", raw, p.From.Time(), p.To.Time())
		}
	})
}

func TestDimensionText(t *testing.T) {
	for _, d := range Dimensions() {
		if !d.Numeric() {
			continue
		}
		for n := range uint64(8) {
			got, err := d.Number(d.Text(n))
			if err != nil || got != n {
				t.Errorf("%s: %d became %q became %d, %v", d, n, d.Text(n), got, err)
			}
		}
	}
	if got := Bot.Text(200); got != "200" {
		t.Errorf("a class without a name is %q", got)
	}
	if Rule.Compare("9", "10") >= 0 || Bot.Compare("human", "ai") >= 0 || City.Compare("b", "a") <= 0 {
		t.Error("Compare")
	}
}

func values(t *testing.T, s string) url.Values {
	t.Helper()
	v, err := url.ParseQuery(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestNoDimensionOfVisitors: what a workspace keeps of its visitors can be read click by click, and is counted nowhere.
func TestNoDimensionOfVisitors(t *testing.T) {
	for _, d := range Dimensions() {
		if slices.Contains([]Dimension{"ip", "user_agent"}, d) {
			t.Errorf("%s is a dimension", d)
		}
		if ev := (clicks.Event{UserAgent: "kept-agent", IP: "203.0.113.0/24"}); d.Of(&ev) == ev.UserAgent || d.Of(&ev) == ev.IP {
			t.Errorf("%s shows what is kept of visitors", d)
		}
	}
}
