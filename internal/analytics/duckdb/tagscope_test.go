package duckdb

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
)

// tagQuery returns a random question about a tag, or by tag.
func tagQuery(r *rand.Rand, events []clicks.Event) analytics.Query {
	zones := []string{"UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns"}
	for {
		zone, err := time.LoadLocation(zones[r.IntN(len(zones))])
		if err != nil {
			panic(err)
		}
		q := analytics.Query{Workspace: enginetest.Workspace, From: enginetest.SpanFrom + terse.Millis(r.IntN(20*24))*3_600_000, Zone: zone, Limit: 1000,
			Interval: []analytics.Interval{analytics.Day, analytics.Hour, analytics.Week, analytics.Month}[r.IntN(4)], By: analytics.Tag,
			Metric: []analytics.Metric{analytics.Clicks, analytics.Visitors}[r.IntN(2)],
			Bots:   []analytics.Bots{analytics.BotsExclude, analytics.BotsInclude, analytics.BotsOnly}[r.IntN(3)]}
		if r.IntN(2) == 0 { // whole days
			q.From -= q.From % dayMillis
		}
		q.To = q.From + terse.Millis(1+r.IntN(30))*dayMillis
		if r.IntN(4) == 0 {
			q.Search = []string{"s", "VIP", "nothing like it"}[r.IntN(3)]
		}
		if r.IntN(4) != 0 {
			q.Scope.Tag = []string{"sms", "vip", "a,b", "spring", "no such tag"}[r.IntN(5)]
			dims := analytics.Dimensions()
			if q.By = dims[r.IntN(len(dims))]; q.By == analytics.Tag {
				continue
			}
			q.Search = ""
			if r.IntN(2) == 0 {
				dim := q.By
				if r.IntN(2) == 0 {
					dim = partDimensions[r.IntN(len(partDimensions))]
				}
				q.Filters = []analytics.Filter{{Dim: dim, Values: []string{dim.Of(&events[r.IntN(len(events))])}}}
			}
		}
		if n, err := q.Normalize(); err == nil {
			return n
		}
	}
}

// TestTagScopes: tags of closed days are answered from rollups, and the same as click by click, also while their tags change, and
// after it. What changes of links and campaigns makes those days due again that have their clicks, and no others.
func TestTagScopes(t *testing.T) {
	t.Parallel()
	events := enginetest.Events(42, 6000)
	o := Options{Dir: t.TempDir(), Record: t.TempDir(), tagBudget: time.Hour}
	d, ref := closed(t, o, events), enginetest.NewReference(events)
	tellTags(t, events, d, ref)
	r := rand.New(rand.NewPCG(42, 11))
	rolled := 0
	same := func(n int) {
		t.Helper()
		for range n {
			q := tagQuery(r, events)
			sameCrossed(t, d, ref, q)
			p := planned(t, d, func(ctx context.Context, at *snapshot) (plan, error) { return at.planBreakdown(ctx, q) })
			rolled += len(p.tags)
			if q.Scope.Tag != "" {
				rolled += len(p.rolled)
			}
		}
	}
	taggedDays := func() (n int) {
		t.Helper()
		must(t, d.readers.QueryRow("SELECT count(*) FROM tagged WHERE workspace_id = "+number(enginetest.Workspace)).Scan(&n))
		return n
	}
	same(10)
	if taggedDays() != 0 || rolled != 0 {
		t.Fatalf("%d days, %d answers before their time", taggedDays(), rolled)
	}
	maintain(t, d)
	all := taggedDays()
	if all != len(d.rolled) {
		t.Fatalf("tags of %d days of %d are rolled up", all, len(d.rolled))
	}
	same(60)
	if rolled < 100 {
		t.Errorf("only %d days were read from scopes of tags", rolled)
	}

	link := events[slices.IndexFunc(events, func(ev clicks.Event) bool { return ev.Workspace == enginetest.Workspace && ev.Link != 0 })].Link
	days := map[int64]bool{}
	campaignDays := map[int64]bool{}
	var campaign terse.CampaignID
	for i := range events {
		ev := &events[i]
		if ev.Workspace != enginetest.Workspace || !d.rolled[dayOf(ev.At)] {
			continue
		}
		if ev.Link == link {
			days[dayOf(ev.At)] = true
		}
		if campaign == 0 {
			campaign = ev.Campaign
		}
		if campaign != 0 && ev.Campaign == campaign {
			campaignDays[dayOf(ev.At)] = true
		}
	}
	at := uint64(1)
	tell := func(b analytics.FactBatch) {
		t.Helper()
		b.From, b.At = at, at+1
		at++
		for _, e := range []analytics.FactSink{d, ref} {
			must(t, e.PutFacts(t.Context(), b))
		}
	}
	for name, step := range map[string]struct {
		b   analytics.FactBatch
		out int
	}{
		"a link":                       {analytics.FactBatch{Links: []analytics.LinkTags{{Workspace: enginetest.Workspace, Link: link, Tags: []string{"vip", "spring"}}}}, len(days)},
		"a campaign":                   {analytics.FactBatch{Campaigns: []analytics.CampaignTags{{Workspace: enginetest.Workspace, Campaign: campaign, Tags: []string{"sms", "no such tag"}}}}, len(campaignDays)},
		"a link without clicks":        {analytics.FactBatch{Links: []analytics.LinkTags{{Workspace: enginetest.Workspace, Link: 1<<40 + 12345, Tags: []string{"vip"}}}}, 0},
		"another workspace":            {analytics.FactBatch{Links: []analytics.LinkTags{{Workspace: enginetest.Workspace + 77, Link: 1<<40 + 12346, New: true, Tags: []string{"vip"}}}}, 0},
		"a conversion, or nothing new": {analytics.FactBatch{}, 0},
		"a young link":                 {analytics.FactBatch{Links: []analytics.LinkTags{{Workspace: enginetest.Workspace, Link: 1<<40 + 12347, New: true, Created: terse.MillisOf(inSpan), Tags: []string{"vip"}}}}, 0},
		"a link that is told of late":  {analytics.FactBatch{Links: []analytics.LinkTags{{Workspace: enginetest.Workspace, Link: 1<<40 + 12348, New: true, Created: terse.MillisOf(inSpan) - 2*dayMillis, Tags: []string{"vip"}}}}, 2},
	} {
		tell(step.b)
		if got := all - taggedDays(); got != step.out {
			t.Errorf("%s: %d days are due, want %d", name, got, step.out)
		}
		same(10)
		maintain(t, d)
		if taggedDays() != all {
			t.Errorf("%s: %d days of %d are rolled up again", name, taggedDays(), all)
		}
		same(10)
	}
	// The same tags once more change nothing.
	tell(analytics.FactBatch{Links: []analytics.LinkTags{{Workspace: enginetest.Workspace, Link: link, Tags: []string{"spring", "vip"}}}})
	if taggedDays() != all {
		t.Errorf("%d days of %d are left after tags that were so before", taggedDays(), all)
	}

	// Clicks are pruned: what rollups and cubes say of all tags stays, whatever else gets another one.
	q, err := analytics.Query{Workspace: enginetest.Workspace, Scope: analytics.Scope{Tag: "sms"}, From: terse.Millis(dayOf(enginetest.SpanFrom)+9) * dayMillis, To: terse.Millis(dayOf(terse.MillisOf(inSpan))) * dayMillis, Bots: analytics.BotsInclude}.Normalize()
	must(t, err)
	want, err := d.Summary(t.Context(), q)
	must(t, err)
	if want.Bots == 0 {
		t.Fatal("the test has no bots")
	}
	d.SetRetention(Retention{Default: Terms{Bots: 1}})
	maintain(t, d)
	tell(analytics.FactBatch{Links: []analytics.LinkTags{{Workspace: enginetest.Workspace, Link: link, Tags: []string{"vip"}}}})
	for range 2 {
		got, err := d.Summary(t.Context(), q)
		must(t, err)
		if got.LagMs = want.LagMs; !cmp.Equal(want, got) {
			t.Errorf("after pruning: %s", cmp.Diff(want, got))
		}
		maintain(t, d)
	}
	all = taggedDays()

	o.Clock, o.MemoryLimit, o.SweepLinks, o.scopeRows, o.cubeShare = leapsFrom(inSpan), 512<<20, -1, 20, -1
	reopen := func() {
		t.Helper()
		must(t, d.Close())
		again, err := Open(t.Context(), o)
		must(t, err)
		d = again
	}
	reopen()
	if taggedDays() != all {
		t.Errorf("%d days of %d after a start", taggedDays(), all)
	}
	_, err = d.readers.Exec(fmt.Sprintf(`UPDATE meta SET "value" = '%d' WHERE "key" = '%s'`, at+1, factsKey))
	must(t, err)
	reopen()
	if taggedDays() != 0 {
		t.Errorf("%d days are thought to be right after facts that a version wrote that knows no scopes of tags", taggedDays())
	}
	must(t, d.Close())
}

// TestTagsOfDamagedDay: a file that cannot be read keeps its own day from having its tags rolled up, once, and no other day.
func TestTagsOfDamagedDay(t *testing.T) {
	t.Parallel()
	events := threeDays()
	d := closed(t, Options{tagBudget: time.Hour}, events)
	tellTags(t, events, d)
	days := slices.Sorted(maps.Keys(d.rolled))
	damaged := days[len(days)-1] // the first that is looked at
	must(t, os.WriteFile(d.coldFiles(damaged)[0].path(d.o.Record), []byte("damaged"), 0o600))
	for range 2 { // the second time it is not tried
		maintain(t, d)
		var tagged []int64
		must(t, d.scan(t.Context(), "SELECT DISTINCT day FROM tagged ORDER BY day", func(r *sql.Rows) error {
			var day int64
			err := r.Scan(&day)
			tagged = append(tagged, day)
			return err
		}))
		if len(days) < 2 || !slices.Equal(tagged, days[:len(days)-1]) || d.RecordErrors() != 1 {
			t.Errorf("the tags of days %v of %v are rolled up, %d errors", tagged, days, d.RecordErrors())
		}
	}
}
