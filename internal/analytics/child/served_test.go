package child

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
)

// TestServed: served = people + bots + dropped by reason, through the real recorder, spool, enrichment and engine, when a
// part of the clicks is dropped because memory is short; and whatever a query filters by, what matches
// and what does not add up to all, in the summary, in buckets of any zone and in breakdowns.
func TestServed(t *testing.T) {
	dir := t.TempDir()
	rec, err := clicks.Open(clicks.Options{Dir: filepath.Join(dir, "spool"), Log: logs(t), Shards: 1, BufferBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, Options{DataDir: dir}, envMode+"=spool")
	r := rand.New(rand.NewPCG(11, 12))
	agents := []string{
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
		"Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", "curl/8.9.1", "",
	}
	from := terse.MillisOf(time.Date(2026, 10, 24, 0, 0, 0, 0, time.UTC))
	const served = 30_000
	taken := uint64(0)
	for i := range served {
		c := clicks.Click{
			At: from + terse.Millis(r.IntN(3*86_400_000)), Workspace: 1, Link: terse.LinkNumber(1 + r.IntN(9)), Domain: "go.example.com", Code: []byte("c"),
			Destination: "https://example.com/", UserAgent: []byte(agents[r.IntN(len(agents))]), IP: netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}),
			Referrer: []byte([]string{"", "https://www.google.com/", "https://t.co/x"}[r.IntN(3)]),
		}
		if r.IntN(10) == 0 {
			c.Outcome = clicks.OutcomeExpired
		}
		if r.IntN(9) == 0 {
			c.Flags = clicks.FlagQR
		}
		if rec.Capture(0, &c) {
			taken++
		}
	}
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	st := rec.Stats()
	dropped := st.Dropped.Sum()
	if st.Captured != served || dropped == 0 || st.Spooled != taken {
		t.Fatalf("captured %d, taken %d, dropped %d: the test proves little", st.Captured, taken, dropped)
	}
	all := analytics.Query{Workspace: 1, From: from, To: from + 3*86_400_000, Bots: analytics.BotsInclude, Every: true}
	var sum analytics.Summary
	until(t, "the clicks are counted", func() bool {
		sum, err = s.Summary(t.Context(), all)
		return err == nil && sum.Total >= int64(taken)
	})
	if sum.Humans+sum.Bots+int64(dropped) != served || sum.Total != sum.Humans+sum.Bots || sum.Bots == 0 {
		t.Fatalf("served %d, people %d, bots %d, dropped %d", served, sum.Humans, sum.Bots, dropped)
	}
	dims := []analytics.Dimension{analytics.Device, analytics.Browser, analytics.Referrer, analytics.Link, analytics.Outcome, analytics.Bot, analytics.Trigger, analytics.Tag}
	values := map[analytics.Dimension][]string{
		analytics.Device: {"mobile", "desktop"}, analytics.Browser: {"Chrome"}, analytics.Referrer: {"", "google.com"}, analytics.Link: {terse.LinkNumber(3).String()},
		analytics.Outcome: {"expired"}, analytics.Bot: {"human", "preview"}, analytics.Trigger: {"qr"}, analytics.Tag: {""},
	}
	for range 40 {
		zone, err := time.LoadLocation(enginetest.Zones[r.IntN(len(enginetest.Zones))])
		if err != nil {
			t.Fatal(err)
		}
		dim := dims[r.IntN(len(dims))]
		var both int64
		for _, not := range []bool{false, true} {
			q := all
			q.Zone, q.Interval, q.By, q.Limit = zone, analytics.Hour, analytics.Country, 1
			q.Filters = []analytics.Filter{{Dim: dim, Not: not, Values: values[dim]}}
			both += agreed(t, s, q)
		}
		if both != sum.Total {
			t.Errorf("%s of %v: what matches and what does not are %d of %d clicks", dim, values[dim], both, sum.Total)
		}
	}
}

// agreed returns the clicks of a query, which the summary, the buckets, the breakdown and the heat map agree on.
func agreed(t *testing.T, e analytics.Engine, q analytics.Query) int64 {
	t.Helper()
	ctx := t.Context()
	sum, err1 := e.Summary(ctx, q)
	ts, err2 := e.Timeseries(ctx, q)
	b, err3 := e.Breakdown(ctx, q)
	slots, err4 := e.Slots(ctx, q)
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var buckets int64
	for _, p := range ts.Points {
		buckets += p.Clicks
	}
	values := b.Other
	for _, v := range b.Data {
		values += v.Clicks
	}
	if got := fmt.Sprint(buckets, values, b.Total, q.HeatmapOf(slots).Total); got != fmt.Sprint(sum.Clicks, sum.Clicks, sum.Clicks, sum.Clicks) || sum.Total != sum.Humans+sum.Bots {
		t.Errorf("%v in %s: %s for %d clicks", q.Filters, q.Zone, got, sum.Clicks)
	}
	return sum.Clicks
}
