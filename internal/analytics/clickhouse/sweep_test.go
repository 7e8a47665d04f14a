package clickhouse

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/testengine"
)

// inSpan is a moment in the middle of what enginetest.Events spans.
var inSpan = enginetest.SpanFrom.Time().Add(20*24*time.Hour + 13*time.Hour)

// patience is for a question on a machine that others keep busy.
const patience = 5 * time.Minute

func tidy(t testing.TB, e *Engine) {
	t.Helper()
	if err := e.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestSweepsAgree: in whatever portions and order clicks are read, and however often they are looked at, the numbers are
// those of the definition; while days are open, when they are closed, by another process, and after an erasure.
func TestSweepsAgree(t *testing.T) {
	n, portions, questions := 20_000, 6, 12
	if testing.Short() {
		n, portions, questions = 10_000, 3, 4
	}
	today := dayOf(terse.MillisOf(inSpan))
	events := slices.DeleteFunc(enginetest.Sweeping(1, n), func(ev clicks.Event) bool { return dayOf(ev.At) < today-2 || ev.At >= terse.MillisOf(inSpan) })
	want, swept := enginetest.Reclassed(events)
	if swept < len(events)/20 || swept > len(events)/2 {
		t.Fatalf("%d of %d clicks are swept: the test proves little", swept, len(events))
	}
	r := rand.New(rand.NewPCG(1, 6))
	spool := slices.Clone(events) // nearly in order: what comes after its day was closed is judged without those that were classed
	for i := range spool {
		j := min(len(spool)-1, i+r.IntN(3))
		spool[i], spool[j] = spool[j], spool[i]
	}
	o := Options{URL: ownDatabase(t), Source: "test", scopeRows: 20, QueryTimeout: patience}
	var now time.Time // each portion is there at its time, but for those that come late
	o.Clock = func() time.Time { return now }
	e := open(t, o)
	for i := 1; i <= portions; i++ {
		at := len(spool) * i / portions
		now = spool[at-1].At.Time().Add(time.Second)
		if i == portions {
			now = inSpan
		}
		ingest(t, e, &sliceSource{events: spool[:at], at: int(e.Position().Offset)})
		tidy(t, e)
		if i%3 == 0 { // as after a restart
			e = open(t, o)
			tidy(t, e)
		}
	}
	enginetest.Compare(t, e, want, 1, questions)
	if days, _, err := e.closedDays(t.Context()); err != nil || len(days) != 2 {
		t.Errorf("%d days are closed, %v", len(days), err)
	}
	if n, err := e.number(t.Context(), "SELECT toUInt64(count()) FROM swept_clicks WHERE day < toDate("+number(uint64(today))+")"); err != nil || n != 0 {
		t.Errorf("%d clicks of closed days are remembered, %v", n, err)
	}
	if _, err := e.Erase(t.Context(), analytics.Erasure{Workspace: enginetest.Workspace, Link: want[len(want)-1].Link}); err != nil {
		t.Fatal(err)
	}
	tidy(t, e)
	gone := want[len(want)-1].Link
	want = slices.DeleteFunc(want, func(ev clicks.Event) bool { return ev.Workspace == enginetest.Workspace && ev.Link == gone })
	enginetest.Compare(t, e, want, 2, questions/2)
	now = inSpan.Add(24 * time.Hour)
	tidy(t, e)
	enginetest.Compare(t, e, want, 3, questions) // in rollups
}

// burst returns clicks of one visitor on as many links, one each millisecond.
func burst(at terse.Millis, n int) (events []clicks.Event) {
	for i := range n {
		ev := clicks.Event{At: at + terse.Millis(i), Workspace: enginetest.Workspace, Link: terse.LinkNumber(i + 1), Visitor: 5, Domain: "d", Code: "c", Trigger: "link", Weight: 1}
		ev.ID = clicks.NewClickID(ev.At, uint64(i), 9)
		events = append(events, ev)
	}
	return events
}

// TestSweepsOfConversions: a conversion says of its click what the click says.
func TestSweepsOfConversions(t *testing.T) {
	at := terse.MillisOf(inSpan)
	events := burst(at, 6)
	e := open(t, Options{QueryTimeout: patience, Clock: func() time.Time { return inSpan.Add(time.Minute) }})
	ingest(t, e, &sliceSource{events: events})
	if err := e.PutFacts(t.Context(), analytics.FactBatch{Reset: true, At: 1, Conversions: []analytics.Conversion{
		{ID: "a", Workspace: enginetest.Workspace, Kind: analytics.Lead, Click: events[0].ID, At: at},
	}}); err != nil {
		t.Fatal(err)
	}
	q := analytics.Query{Workspace: enginetest.Workspace, From: at - 1000, To: at + 1000}
	if f, err := e.Funnel(t.Context(), q); err != nil || f.Leads != 1 {
		t.Fatalf("%+v, %v", f, err)
	}
	tidy(t, e)
	if f, err := e.Funnel(t.Context(), q); err != nil || f.Leads != 0 {
		t.Errorf("%+v, %v; its click is one of a sweep", f, err)
	}
	q.Bots = analytics.BotsInclude
	if s, err := e.Summary(t.Context(), q); err != nil || s.Bots != 6 || s.Humans != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestSweepsErased: a visitor whose clicks became those of a sweep can be erased while the day is open.
func TestSweepsErased(t *testing.T) {
	at := terse.MillisOf(inSpan)
	events := append(burst(at, 6), burst(at, 6)...)
	for i := range events[6:] { // another one, on the same links
		events[6+i].Visitor, events[6+i].ID[15] = 6, 1
	}
	e := open(t, Options{QueryTimeout: patience, Clock: func() time.Time { return inSpan.Add(time.Minute) }})
	ingest(t, e, &sliceSource{events: events})
	tidy(t, e)
	q := analytics.Query{Workspace: enginetest.Workspace, From: at - 1000, To: at + 1000, Bots: analytics.BotsInclude}
	if s, err := e.Summary(t.Context(), q); err != nil || s.Bots != 12 {
		t.Fatalf("%+v, %v", s, err)
	}
	if n, err := e.Erase(t.Context(), analytics.Erasure{Workspace: enginetest.Workspace, Visitor: 5}); err != nil || n != 6 {
		t.Errorf("%d clicks are erased, %v", n, err)
	}
	if s, err := e.Summary(t.Context(), q); err != nil || s.Bots != 6 {
		t.Errorf("%+v, %v", s, err)
	}
	if n, err := e.number(t.Context(), "SELECT toUInt64(count()) FROM swept_clicks WHERE visitor = 5"); err != nil || n != 0 {
		t.Errorf("%d clicks of the visitor are remembered, %v", n, err)
	}
}

// TestSweepsOff: nobody looks for sweeps who is told not to.
func TestSweepsOff(t *testing.T) {
	at := terse.MillisOf(inSpan)
	e := open(t, Options{SweepLinks: -1, QueryTimeout: patience, Clock: func() time.Time { return inSpan.Add(48 * time.Hour) }})
	ingest(t, e, &sliceSource{events: burst(at, 6)})
	tidy(t, e)
	q := analytics.Query{Workspace: enginetest.Workspace, From: at - 1000, To: at + 1000}
	if s, err := e.Summary(t.Context(), q); err != nil || s.Humans != 6 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestSweepsUnended: what a failure leaves undone is done when the day is closed, also by the next process.
func TestSweepsUnended(t *testing.T) {
	at := terse.MillisOf(inSpan)
	events := burst(at, 6)
	direct := ownDatabase(t)
	proxy, through := testengine.NewProxy(t, direct)
	o := Options{URL: plain(through), QueryTimeout: patience, Clock: func() time.Time { return inSpan.Add(time.Minute) }}
	e := open(t, o)
	ingest(t, e, &sliceSource{events: events})
	if err := e.PutFacts(t.Context(), analytics.FactBatch{Reset: true, At: 1, Conversions: []analytics.Conversion{
		{ID: "a", Workspace: enginetest.Workspace, Kind: analytics.Lead, Click: events[0].ID, At: at},
	}}); err != nil {
		t.Fatal(err)
	}
	proxy.Cut("ALTER TABLE conversions UPDATE", false)
	if err := e.Tidy(t.Context()); err == nil {
		t.Fatal("nothing was cut: the test proves nothing")
	}
	q := analytics.Query{Workspace: enginetest.Workspace, From: at - 1000, To: at + 1000}
	if s, err := e.Summary(t.Context(), q); err != nil || s.Humans != 0 {
		t.Fatalf("%+v, %v; the clicks are of a sweep", s, err)
	}

	o.Clock = func() time.Time { return inSpan.Add(48 * time.Hour) }
	e = open(t, o)
	proxy.Cut("ALTER TABLE swept_clicks DELETE", false)
	if err := e.Tidy(t.Context()); err == nil {
		t.Fatal("nothing was cut: the test proves nothing")
	}
	if f, err := e.Funnel(t.Context(), q); err != nil || f.Leads != 0 {
		t.Errorf("%+v, %v; its click is one of a sweep", f, err)
	}
	if days, _, err := e.readClosed(t.Context()); err != nil || days[dayOf(at)].gen == 0 {
		t.Fatalf("the day is not closed: %v, %v", days, err)
	}
	e = open(t, o)
	tidy(t, e)
	if n, err := e.number(t.Context(), "SELECT count() FROM swept_clicks"); err != nil || n != 0 {
		t.Errorf("%d clicks of a closed day are remembered, %v", n, err)
	}
}

// TestSweepsFail: days are closed although a sweep of another one could not be classed.
func TestSweepsFail(t *testing.T) {
	at := terse.MillisOf(inSpan)
	proxy, through := testengine.NewProxy(t, ownDatabase(t))
	e := open(t, Options{URL: plain(through), QueryTimeout: patience, Clock: func() time.Time { return inSpan.Add(time.Minute) }})
	before := at - 2*dayMillis
	ingest(t, e, &sliceSource{events: append(burst(before, 1), burst(at, 6)...)})
	proxy.Cut("INSERT INTO swept_clicks", false)
	if err := e.Tidy(t.Context()); err == nil {
		t.Fatal("nothing was cut: the test proves nothing")
	}
	if days, _, err := e.readClosed(t.Context()); err != nil || days[dayOf(before)].gen == 0 {
		t.Errorf("the day before is not closed: %v, %v", days, err)
	}
}

// TestSweepsErasedPartly: of a day that lost some clicks for their age, the numbers of a visitor's sweep go, too.
func TestSweepsErasedPartly(t *testing.T) {
	at := terse.MillisOf(inSpan)
	e := open(t, Options{QueryTimeout: patience, Clock: func() time.Time { return inSpan.Add(time.Minute) }})
	ingest(t, e, &sliceSource{events: burst(at, 6)})
	tidy(t, e)
	day := dayOf(at)
	counts, err := e.countDays(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	known, _, err := e.readClosed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Closed and pruned, but by a process that could not forget the sweep.
	if _, err := e.closeDays(t.Context(), []int64{day}, known, counts); err != nil {
		t.Fatal(err)
	}
	known, _, err = e.readClosed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	count := func() (n uint64) {
		t.Helper()
		n, err := e.number(t.Context(), "SELECT toUInt64(sum(clicks_b)) FROM rday WHERE workspace_id = "+number(enginetest.Workspace))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if count() == 0 {
		t.Fatal("the rollups do not count the sweep: the test proves nothing")
	}
	c := known[day]
	c.pruned = "workspace_id = 77"
	if err := e.writeClosed(t.Context(), map[int64]closed{day: c}); err != nil {
		t.Fatal(err)
	}
	if n, err := e.Erase(t.Context(), analytics.Erasure{Workspace: enginetest.Workspace, Visitor: 5}); err != nil || n != 6 {
		t.Errorf("%d clicks are erased, %v", n, err)
	}
	if n := count(); n != 0 {
		t.Errorf("the rollups still count %d clicks", n)
	}
}
