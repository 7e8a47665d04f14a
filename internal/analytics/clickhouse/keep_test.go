package clickhouse

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
)

// metricValue returns a counter or gauge of the engine.
func metricValue(t *testing.T, e *Engine, name string) float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(e)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// afterSpan is a clock that stands some days after the generated events.
func afterSpan(days int) func() time.Time {
	return func() time.Time { return enginetest.SpanTo.Time().Add(time.Duration(days) * 24 * time.Hour) }
}

var whole = analytics.Query{Workspace: enginetest.Workspace, From: enginetest.SpanFrom, To: enginetest.SpanTo, By: analytics.Country, Interval: analytics.Day, Limit: 1000}

// answers are those that stay when clicks go.
type answers struct {
	Summary analytics.Summary
	Series  analytics.Timeseries
	By      analytics.Breakdown
	Slots   []analytics.Slot
	Totals  map[terse.LinkNumber]analytics.LinkTotal
}

func ask(t *testing.T, e *Engine, links []terse.LinkNumber) (a answers) {
	t.Helper()
	var errs [5]error
	ctx := t.Context()
	a.Summary, errs[0] = e.Summary(ctx, whole)
	a.Series, errs[1] = e.Timeseries(ctx, whole)
	a.By, errs[2] = e.Breakdown(ctx, whole)
	a.Slots, errs[3] = e.Slots(ctx, whole)
	a.Totals, errs[4] = e.LinkTotals(ctx, enginetest.Workspace, links)
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	a.Summary.LagMs = 0
	return a
}

func linksOf(events []clicks.Event) (links []terse.LinkNumber) {
	for i := range events {
		if ev := &events[i]; ev.Link != 0 && ev.Workspace == enginetest.Workspace {
			links = append(links, ev.Link)
		}
	}
	slices.Sort(links)
	return slices.Compact(links)
}

// busiest returns the link with the most clicks.
func busiest(events []clicks.Event) (most terse.LinkNumber) {
	n := map[terse.LinkNumber]int{}
	for i := range events {
		if ev := &events[i]; ev.Link != 0 && ev.Workspace == enginetest.Workspace {
			if n[ev.Link]++; n[ev.Link] > n[most] {
				most = ev.Link
			}
		}
	}
	return most
}

// TestRetention: bots go first, then all clicks; the numbers stay until their own time is over, totals of links longer.
func TestRetention(t *testing.T) {
	e := open(t, Options{Clock: afterSpan(1), scopeRows: 10})
	events := enginetest.Events(12, 4000)[:1000]
	ingest(t, e, &sliceSource{events: events})
	links := linksOf(events)
	before := ask(t, e, links)
	rule := func(clock func() time.Time, r analytics.Retention) {
		t.Helper()
		e.o.Clock = clock
		if err := e.SetRetention(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if err := e.Tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := e.Tidy(t.Context()); err != nil { // nothing is due twice
			t.Fatal(err)
		}
	}
	count := func(where string) uint64 {
		t.Helper()
		n, err := e.number(t.Context(), "SELECT count() FROM clicks WHERE "+where)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	other := enginetest.Workspace + 1
	rule(afterSpan(60), analytics.Retention{Default: analytics.Terms{Raw: 400, Bots: 30}, Workspaces: map[terse.WorkspaceID]analytics.Terms{other: {Raw: 400, Bots: 300}}})
	if n := count("bot != 0 AND workspace_id != " + number(other)); n != 0 {
		t.Errorf("%d clicks of bots are left", n)
	}
	if count("bot != 0") == 0 || count("bot = 0") == 0 {
		t.Error("clicks are gone before their time")
	}
	if d := cmp.Diff(before, ask(t, e, links)); d != "" {
		t.Errorf("the numbers changed with the clicks of bots:\n%s", d)
	}
	// Late clicks of a day whose numbers could not be added to are refused.
	late := events[10]
	late.ID[15] ^= 1
	ingest(t, e, &sliceSource{events: append(slices.Clone(events), late), at: len(events)})
	if e.Rejected() != 1 {
		t.Errorf("%d rejected, want 1", e.Rejected())
	}
	rule(afterSpan(500), analytics.Retention{Default: analytics.Terms{Raw: 400, Bots: 30}})
	if n := count("1"); n != 0 {
		t.Errorf("%d clicks are left", n)
	}
	if d := cmp.Diff(before, ask(t, e, links)); d != "" {
		t.Errorf("the numbers changed with the clicks:\n%s", d)
	}
	rule(afterSpan(900), analytics.Retention{Default: analytics.Terms{Raw: 400, Bots: 30}, Rollups: 800})
	after := ask(t, e, links)
	if after.Summary.Clicks != 0 || !cmp.Equal(before.Totals, after.Totals) {
		t.Errorf("numbers whose time is over: %+v; totals of links must stay", after.Summary)
	}
}

// TestQuietLinks: links with too few clicks for rows of their own keep their clicks by day when retention takes the clicks themselves.
func TestQuietLinks(t *testing.T) {
	events := enginetest.Events(12, 4000)[:1000]
	e, ref := open(t, Options{Clock: afterSpan(500), scopeRows: 1000}), enginetest.NewReference(events)
	ingest(t, e, &sliceSource{events: events})
	if err := e.SetRetention(t.Context(), analytics.Retention{Default: analytics.Terms{Raw: 400}}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // closed, then pruned
		if err := e.Tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := e.number(t.Context(), "SELECT count() FROM clicks"); err != nil || n != 0 {
		t.Fatalf("%d clicks are left, %v", n, err)
	}
	all := int64(0)
	for _, link := range linksOf(events)[:20] {
		q := whole
		q.Scope.Link = link
		want, _ := ref.Summary(t.Context(), q)
		want = analytics.Summary{Clicks: want.Clicks, Humans: want.Humans, Total: want.Humans, Outcomes: map[string]int64{}}
		if want.Clicks > 0 {
			want.Outcomes["redirect"] = want.Clicks
		}
		got, err := e.Summary(t.Context(), q)
		if got.LagMs = 0; err != nil || !cmp.Equal(want, got) {
			t.Errorf("link %d: %v %s", link, err, cmp.Diff(want, got))
		}
		series, err := e.Timeseries(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		wantSeries, _ := ref.Timeseries(t.Context(), q)
		for i, p := range wantSeries.Points {
			wantSeries.Points[i] = analytics.Point{T: p.T, Clicks: p.Clicks}
		}
		if !cmp.Equal(wantSeries, series) {
			t.Errorf("link %d: %s", link, cmp.Diff(wantSeries, series))
		}
		q.Bots = analytics.BotsOnly
		if got, err := e.Summary(t.Context(), q); err != nil || got.Clicks != 0 {
			t.Errorf("link %d: %d clicks of bots, %v", link, got.Clicks, err)
		}
		all += want.Clicks
	}
	if all == 0 {
		t.Error("nothing was asked for")
	}
}

// TestErase: the clicks of a link go from clicks and numbers, those that come later too, and nothing else changes.
func TestErase(t *testing.T) {
	e := open(t, Options{Clock: afterSpan(1), scopeRows: 10})
	events := enginetest.Events(13, 3000)[:700] // of 13 days
	ingest(t, e, &sliceSource{events: events[:650]})
	if err := e.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	link := busiest(events[:650])
	gone := func(ev clicks.Event) bool { return ev.Link == link && ev.Workspace == enginetest.Workspace }
	want := int64(0)
	for _, ev := range events[:650] {
		if gone(ev) {
			want++
		}
	}
	n, err := e.Erase(t.Context(), analytics.Erasure{Workspace: enginetest.Workspace, Link: link})
	if err != nil || n != want || n == 0 {
		t.Fatalf("%d erased, %v; want %d", n, err, want)
	}
	ingest(t, e, &sliceSource{events: events, at: 650}) // made before the erasure
	left := slices.DeleteFunc(slices.Clone(events), gone)
	fresh := open(t, Options{Clock: afterSpan(1), scopeRows: 10})
	ingest(t, fresh, &sliceSource{events: left})
	if d := cmp.Diff(ask(t, fresh, linksOf(events)), ask(t, e, linksOf(events))); d != "" {
		t.Errorf("(-never there +erased):\n%s", d)
	}
	if err := e.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(ask(t, fresh, linksOf(events)), ask(t, e, linksOf(events))); d != "" {
		t.Errorf("from rollups (-never there +erased):\n%s", d)
	}
	// Another process knows of it.
	other := open(t, Options{URL: e.o.URL, Source: "other"})
	at := slices.IndexFunc(events, gone)
	if !other.erased.covers(&events[at]) {
		t.Error("another process would count an erased click")
	}
	if again, err := e.Erase(t.Context(), analytics.Erasure{Workspace: enginetest.Workspace, Link: link}); again != 0 || err != nil {
		t.Errorf("erased again: %d, %v", again, err)
	}
}

// TestErasePartly: an erasure on days of which the clicks of bots went already leaves the numbers of others as they are,
// and takes its own from those of its workspace.
func TestErasePartly(t *testing.T) {
	e := open(t, Options{Clock: afterSpan(1), scopeRows: 10})
	events := enginetest.Events(17, 3000)[:300] // of 6 days
	ingest(t, e, &sliceSource{events: events})
	if err := e.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := whole
	other.Workspace, other.Bots = enginetest.Workspace+1, analytics.BotsInclude
	others := func() (s analytics.Summary, b analytics.Breakdown) {
		t.Helper()
		var errs [2]error
		s, errs[0] = e.Summary(t.Context(), other)
		b, errs[1] = e.Breakdown(t.Context(), other)
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		s.LagMs = 0
		return s, b
	}
	e.o.Clock = afterSpan(60)
	if err := e.SetRetention(t.Context(), analytics.Retention{Default: analytics.Terms{Raw: 400, Bots: 30}}); err != nil {
		t.Fatal(err)
	}
	if err := e.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantSummary, wantBy := others()
	if wantSummary.Bots == 0 {
		t.Fatal("the other workspace has no numbers of bots: the test proves nothing")
	}
	link := busiest(events)
	if n, err := e.Erase(t.Context(), analytics.Erasure{Workspace: enginetest.Workspace, Link: link}); err != nil || n == 0 {
		t.Fatalf("%d erased, %v", n, err)
	}
	fresh := open(t, Options{Clock: afterSpan(1), scopeRows: 10})
	ingest(t, fresh, &sliceSource{events: slices.DeleteFunc(slices.Clone(events), func(ev clicks.Event) bool { return ev.Link == link && ev.Workspace == enginetest.Workspace })})
	want := ask(t, fresh, linksOf(events))
	for range 2 { // and after maintenance
		s, b := others()
		if d := cmp.Diff(wantSummary, s) + cmp.Diff(wantBy, b); d != "" {
			t.Errorf("another workspace (-before +after):\n%s", d)
		}
		got := ask(t, e, linksOf(events))
		if d := cmp.Diff(want.By, got.By) + cmp.Diff(want.Slots, got.Slots) + cmp.Diff(want.Totals, got.Totals); d != "" {
			t.Errorf("the erased link's workspace (-never there +erased):\n%s", d)
		}
		if err := e.Tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEraseWhileClicksCome: the old numbers of a day go with an erasure, also when a click that comes meanwhile leaves the
// day open.
func TestEraseWhileClicksCome(t *testing.T) {
	e := open(t, Options{Clock: afterSpan(1), scopeRows: 10})
	events := enginetest.Events(19, 400)[:40] // of one day
	ingest(t, e, &sliceSource{events: events})
	if err := e.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	known, _, err := e.readClosed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	day := dayOf(events[0].At)
	if known[day].gen == 0 {
		t.Fatalf("day %d is not closed: %+v", day, known)
	}
	more := enginetest.Events(20, 20)
	late := open(t, Options{URL: e.o.URL, Source: "late", Clock: afterSpan(1)})
	n := 0
	e.o.Clock = func() time.Time { // read for each number that e.now gives: also after the clicks were counted
		more[n].At = events[0].At
		ingest(t, late, &sliceSource{events: more[:n+1], at: n})
		n++
		return afterSpan(1)()
	}
	if err := e.rollAgain(t.Context(), []int64{day}, known); err != nil {
		t.Fatal(err)
	}
	if n < 2 {
		t.Fatalf("%d clicks came meanwhile: the test proves nothing", n)
	}
	for _, table := range rollupTables {
		left, err := e.number(t.Context(), fmt.Sprintf("SELECT count() FROM %s WHERE day = toDate(%d) AND gen <= %d", table, day, known[day].gen))
		if err != nil || left != 0 {
			t.Errorf("%s has %d rows of before, %v", table, left, err)
		}
	}
}

// TestFailedMutation: a change that the server says it cannot make is an error at once.
func TestFailedMutation(t *testing.T) {
	e := open(t, Options{})
	d := *e.dialect.Load()
	d.mutations = "(SELECT currentDatabase() AS database, 'clicks' AS table, 0 AS is_done, 'disk is full' AS latest_fail_reason)"
	e.dialect.Store(&d)
	if err := e.waitMutations(t.Context(), "clicks"); err == nil || !strings.Contains(err.Error(), "disk is full") {
		t.Errorf("a change that failed: %v", err)
	}
	if err := e.waitMutations(t.Context(), "rday"); err != nil {
		t.Errorf("a table without changes: %v", err)
	}
}

// TestDropMonth: clicks that came to a month since its clicks were counted do not go with it while their day is not over.
func TestDropMonth(t *testing.T) {
	e := open(t, Options{})
	events := enginetest.Events(18, 2)
	early := terse.MillisOf(time.Date(2026, 10, 3, 12, 0, 0, 0, time.UTC))
	events[0].At, events[1].At = early, early+5*dayMillis
	ingest(t, e, &sliceSource{events: events})
	day := dayOf(early)
	for _, tt := range []struct {
		over int64 // the last day that is over
		left uint64
	}{{day + 1, 1}, {day + 40, 0}} {
		if err := e.removeClicks(t.Context(), "true", []int64{day}, map[int64]uint64{day: 1}, func(d int64) bool { return d <= tt.over }); err != nil {
			t.Fatal(err)
		}
		if n, _ := clicksIn(t, e); n != tt.left {
			t.Errorf("%d clicks are left, want %d", n, tt.left)
		}
	}
}

// TestTidyGoesOn: what is over goes, and so do rollups that were replaced, when a roll-up fails; and maintenance has
// more time than an insert.
func TestTidyGoesOn(t *testing.T) {
	e := open(t, Options{Clock: afterSpan(1), scopeRows: 10})
	e.o.InsertTimeout = time.Nanosecond
	if err := e.Tidy(t.Context()); err != nil {
		t.Fatalf("with the time of an insert: %v", err)
	}
	e.o.InsertTimeout = time.Minute
	events := enginetest.Events(19, 3000)[:300] // of 6 days
	slices.SortStableFunc(events, func(a, b clicks.Event) int { return int(a.At - b.At) })
	ingest(t, e, &sliceSource{events: events[:150]})
	if err := e.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"INSERT INTO rday (day, gen) SELECT toDate(20000), toUInt64(1)", "DROP TABLE rlink"} {
		if err := e.exec(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	ingest(t, e, &sliceSource{events: events, at: 150})
	if err := e.SetRetention(t.Context(), analytics.Retention{Default: analytics.Terms{Raw: 400}}); err != nil {
		t.Fatal(err)
	}
	e.o.Clock, e.collected, e.audited = afterSpan(500), time.Time{}, time.Time{}
	if err := e.Tidy(t.Context()); err == nil {
		t.Fatal("nothing failed: the test proves nothing")
	}
	// Days that are in no rollup stay.
	open := dayOf(events[150].At)
	counts, err := e.countDays(t.Context(), "")
	if err != nil || len(counts) == 0 {
		t.Fatalf("%v, %v", counts, err)
	}
	for day, n := range counts {
		if day < open {
			t.Errorf("%d clicks of day %d are left", n, day)
		}
	}
	for i := range events[150:] {
		if day := dayOf(events[150+i].At); counts[day] == 0 {
			t.Errorf("day %d went before it was rolled up", day)
		}
	}
	if n, err := e.number(t.Context(), "SELECT count() FROM rday WHERE gen = 1"); err != nil || n != 0 {
		t.Errorf("%d old rollups are left, %v", n, err)
	}
	if e.audited.IsZero() {
		t.Error("nobody looked for clicks that are there twice")
	}
}

// TestMadeUpClick: a conversion of a click that cannot be does not keep others from finding theirs.
func TestMadeUpClick(t *testing.T) {
	e := open(t, Options{})
	events := enginetest.Events(20, 50)
	ingest(t, e, &sliceSource{events: events})
	at := slices.IndexFunc(events, func(ev clicks.Event) bool { return ev.Workspace == enginetest.Workspace })
	sale := func(id string, click terse.ClickID) analytics.Conversion {
		return analytics.Conversion{ID: id, Workspace: enginetest.Workspace, At: events[at].At, Kind: analytics.Sale, Amount: 100, Currency: "EUR", Click: click}
	}
	never := terse.ClickID(events[at].ID)
	for i := range 6 {
		never[i] = 0xff // the year 10889
	}
	soon := terse.ClickID(events[at].ID)
	soon[0]++ // 35 years later
	if err := e.PutFacts(t.Context(), analytics.FactBatch{Reset: true, At: 1, Conversions: []analytics.Conversion{
		sale("never", never), sale("soon", soon), sale("real", terse.ClickID(events[at].ID)),
	}}); err != nil {
		t.Fatal(err)
	}
	q := whole
	q.Bots, q.Every = analytics.BotsInclude, true
	f, err := e.Funnel(t.Context(), q)
	if err != nil || f.Sales != 1 || f.Pending != 2 {
		t.Errorf("%+v, %v; want one sale, two that wait", f, err)
	}
	if got := dayIn([]int64{-1, 3_000_000}); got != "(day >= toDate(0) AND day <= toDate(65535) AND toUInt16(day) IN (-1, 3000000))" {
		t.Error(got)
	}
}

// TestInterner: texts that are kept are bounded by their bytes.
func TestInterner(t *testing.T) {
	var b batch
	ev := clicks.Event{Destination: strings.Repeat("x", 2000), Code: "a\xffb"}
	for i := range mostTextBytes/2000 - 500 {
		ev.UTMTerm = ev.Destination + strconv.Itoa(i)
		b.add(&ev)
	}
	if c := b.events[7]; c.Code != "a\uFFFDb" || c.Destination != ev.Destination || c.UTMTerm != ev.Destination+"7" {
		t.Errorf("%+v", c)
	}
	if b.reset(); len(b.texts.texts) == 0 {
		t.Error("nothing is kept")
	}
	for i := range 1000 {
		ev.UTMTerm = ev.Destination + "/" + strconv.Itoa(i)
		b.add(&ev)
	}
	if b.reset(); len(b.texts.texts) != 0 {
		t.Errorf("%d bytes are kept", b.texts.bytes)
	}
}

// TestLateClicks: a click of a day that was closed is counted at once, and is in the rollups after the next look.
func TestLateClicks(t *testing.T) {
	e := open(t, Options{Clock: afterSpan(1), scopeRows: 10})
	events := enginetest.Events(14, 2000)[:500] // of 14 days
	ingest(t, e, &sliceSource{events: events[:400]})
	if err := e.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := 400; i < 500; i++ { // of days that are closed
		events[i].At -= (events[i].At - events[i-400].At) / 86_400_000 * 86_400_000
	}
	ingest(t, e, &sliceSource{events: events, at: 400})
	fresh := open(t, Options{Clock: afterSpan(1)})
	ingest(t, fresh, &sliceSource{events: events})
	links := linksOf(events)
	want := ask(t, fresh, links)
	if d := cmp.Diff(want, ask(t, e, links)); d != "" {
		t.Errorf("at once:\n%s", d)
	}
	if err := e.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, ask(t, e, links)); d != "" {
		t.Errorf("closed again:\n%s", d)
	}
	q, err := whole.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	p, err := e.planSummary(t.Context(), q)
	if err != nil || len(p.rolled) < 10 {
		t.Errorf("%d days are read from rollups, %v", len(p.rolled), err)
	}
}

// TestRetelling: facts that are told from the beginning are not seen before they are whole, and what was told before is gone then.
func TestRetelling(t *testing.T) {
	e := open(t, Options{})
	events := enginetest.Events(15, 500)
	ingest(t, e, &sliceSource{events: events})
	link := busiest(events)
	tagged := func(tag string) int64 {
		t.Helper()
		q := whole
		q.Scope.Tag, q.Bots, q.Every = tag, analytics.BotsInclude, true
		s, err := e.Summary(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return s.Clicks
	}
	put := func(b analytics.FactBatch) {
		t.Helper()
		if err := e.PutFacts(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	tags := func(tag string) []analytics.LinkTags {
		return []analytics.LinkTags{{Workspace: enginetest.Workspace, Link: link, Tags: []string{tag}}}
	}
	put(analytics.FactBatch{Reset: true, At: 5, Links: tags("a")})
	put(analytics.FactBatch{Reset: true, Partial: true, At: 6, Links: tags("b")})
	if tagged("a") == 0 || tagged("b") != 0 {
		t.Error("half of a telling is seen")
	}
	put(analytics.FactBatch{From: 6, At: 7})
	if tagged("a") != 0 || tagged("b") == 0 {
		t.Error("a whole telling is not seen")
	}
	n, err := e.number(t.Context(), "SELECT uniqExact(epoch) FROM link_tags")
	if err != nil || n != 1 {
		t.Errorf("%d epochs are kept, %v", n, err)
	}
}

// TestFolded: where a day has more values than are kept, the smallest of them are one row, and the total stays.
func TestFolded(t *testing.T) {
	e := open(t, Options{Clock: afterSpan(1), scopeRows: 10, topValues: 5})
	ingest(t, e, &sliceSource{events: enginetest.Events(16, 5000)[:1000]})
	q := whole
	q.By = analytics.Code
	before, err := e.Breakdown(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, err := e.Breakdown(t.Context(), q)
	if err != nil || after.Total != before.Total || before.Other != 0 || after.Other <= 0 || after.Values >= before.Values {
		t.Errorf("%+v, %v; before %+v", after, err, before)
	}
	// A value that may be among the others is counted in the clicks themselves.
	q.Filters = []analytics.Filter{{Dim: analytics.Code, Values: []string{before.Data[len(before.Data)-1].Value}}}
	s, err := e.Summary(t.Context(), q)
	if err != nil || s.Clicks != before.Data[len(before.Data)-1].Clicks {
		t.Errorf("%+v, %v; want %+v", s, err, before.Data[len(before.Data)-1])
	}
}
