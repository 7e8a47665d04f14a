package enginetest

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// know puts facts into engines in the way that package facts does.
func know(t *testing.T, e, ref analytics.Engine, b analytics.FactBatch) {
	t.Helper()
	for _, engine := range []analytics.Engine{e, ref} {
		sink := engine.(analytics.FactSink)
		for _, step := range []analytics.FactBatch{
			{Reset: true, Partial: true, At: 77},
			{Partial: true, From: 77, At: 77, Links: b.Links, Campaigns: b.Campaigns, Conversions: b.Conversions},
			{From: 77, At: b.At},
		} {
			if err := sink.PutFacts(t.Context(), step); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// compareConversions asks both engines for conversions; the totals of a breakdown are those of the funnel.
func compareConversions(t *testing.T, e, ref analytics.Engine, r *rand.Rand, q analytics.Query) {
	t.Helper()
	ctx := t.Context()
	if q.By == analytics.Outcome || slices.ContainsFunc(q.Filters, func(f analytics.Filter) bool { return f.Dim == analytics.Outcome }) {
		if _, err := e.Funnel(ctx, q); terse.ErrorCode(err) != terse.CodeInvalid {
			t.Errorf("conversions by outcome: %v, want invalid", err)
		}
		return
	}
	want, _ := ref.Funnel(ctx, q)
	got, err := e.Funnel(ctx, q)
	check(t, "funnel", err, want, got)
	q.Metric, q.Currency = pick(r, analytics.Sales, analytics.Revenue, analytics.Leads, analytics.Customs), pick(r, "EUR", "USD", "GBP")
	wantB, _ := ref.ConversionsBy(ctx, q)
	gotB, err := e.ConversionsBy(ctx, q)
	check(t, "conversions by "+string(q.By), err, wantB, gotB)
	if q.Search == "" && q.By != analytics.Tag && q.Metric == analytics.Sales && gotB.Total != got.Sales {
		t.Errorf("a breakdown of %d sales, the funnel has %d", gotB.Total, got.Sales)
	}
}

// testFacts: facts are replaced, forgotten and refused as the contract says, and retagging moves history.
func testFacts(t *testing.T, o Options) {
	events := Events(7, 500)
	e := o.New(t, events)
	sink, ctx := e.(analytics.FactSink), t.Context()
	if at, known, err := sink.FactsAt(ctx); at != 0 || known || err != nil {
		t.Errorf("a new engine is at %d, %v, %v", at, known, err)
	}
	for name, b := range map[string]analytics.FactBatch{"an ordinary batch": {At: 1}, "the rest of another telling": {Partial: true, From: 3, At: 3}, "an end": {From: 3, At: 4}} {
		if err := sink.PutFacts(ctx, b); terse.ErrorCode(err) != terse.CodePrecondition {
			t.Errorf("%s for an engine that knows nothing: %v", name, err)
		}
	}
	link := events[slices.IndexFunc(events, func(ev clicks.Event) bool { return ev.Workspace == Workspace && ev.Link != 0 && ev.Campaign == 0 })].Link
	q := analytics.Query{Workspace: Workspace, From: SpanFrom, To: SpanTo, Bots: analytics.BotsInclude, Every: true, Scope: analytics.Scope{Link: link}}
	s, err := e.Summary(ctx, q)
	if err != nil || s.Clicks == 0 {
		t.Fatal(s, err)
	}
	put := func(b analytics.FactBatch) {
		t.Helper()
		if err := sink.PutFacts(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	tagged := func(tag string) int64 {
		t.Helper()
		q := q
		q.Scope = analytics.Scope{Tag: tag}
		q.Filters = []analytics.Filter{{Dim: analytics.Link, Values: []string{link.String()}}}
		got, err := e.Summary(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		return got.Clicks
	}
	put(analytics.FactBatch{Reset: true, Partial: true, At: 9, Links: []analytics.LinkTags{{Workspace: Workspace, Link: link, New: true, Tags: []string{"old", "both"}}}})
	if _, known, _ := sink.FactsAt(ctx); known {
		t.Error("known before the end")
	}
	put(analytics.FactBatch{From: 9, At: 100})
	if tagged("old") != s.Clicks || tagged("both") != s.Clicks || tagged("new") != 0 {
		t.Errorf("of %d clicks: old %d, both %d, new %d", s.Clicks, tagged("old"), tagged("both"), tagged("new"))
	}
	put(analytics.FactBatch{From: 100, At: 101, Links: []analytics.LinkTags{{Workspace: Workspace, Link: link, Tags: []string{"new", "both"}}}})
	if tagged("old") != 0 || tagged("both") != s.Clicks || tagged("new") != s.Clicks {
		t.Errorf("after retagging, of %d clicks: old %d, both %d, new %d", s.Clicks, tagged("old"), tagged("both"), tagged("new"))
	}
	if err := sink.PutFacts(ctx, analytics.FactBatch{From: 100, At: 102}); terse.ErrorCode(err) != terse.CodePrecondition {
		t.Errorf("a batch for another place: %v", err)
	}
	if at, known, err := sink.FactsAt(ctx); at != 101 || !known || err != nil {
		t.Errorf("at %d, %v, %v", at, known, err)
	}
	// A conversion told twice counts once, also when it was told differently.
	conv := analytics.Conversion{ID: "conv_1", Workspace: Workspace, At: SpanFrom + 5, Kind: analytics.Sale, Amount: 100, Currency: "EUR", Customer: "c", Link: link, Domain: "d", Code: "c"}
	put(analytics.FactBatch{From: 101, At: 102, Conversions: []analytics.Conversion{conv}})
	conv.Amount = 200
	put(analytics.FactBatch{From: 102, At: 103, Conversions: []analytics.Conversion{conv}})
	f, err := e.Funnel(ctx, q)
	if err != nil || f.Sales != 1 || len(f.Revenue) != 1 || f.Revenue[0] != (analytics.Amount{Currency: "EUR", Amount: 200, Sales: 1}) || f.NewCustomers != 1 {
		t.Errorf("%+v, %v", f, err)
	}
	// The id is the workspace's own: another may have the same one.
	other := conv
	other.Workspace, other.Link, other.Amount = Workspace+1, 0, 300
	put(analytics.FactBatch{From: 103, At: 104, Conversions: []analytics.Conversion{other}})
	elsewhere := q
	elsewhere.Workspace, elsewhere.Scope = other.Workspace, analytics.Scope{}
	for where, amount := range map[*analytics.Query]int64{&q: 200, &elsewhere: 300} {
		if f, err := e.Funnel(ctx, *where); err != nil || f.Sales != 1 || len(f.Revenue) != 1 || f.Revenue[0].Amount != amount {
			t.Errorf("workspace %s: %+v, %v; want one sale of %d", where.Workspace, f, err, amount)
		}
	}
	// A refund is no sale, makes nobody a customer, and lowers the revenue. A sale of nothing is one.
	refund, free := conv, conv
	refund.ID, refund.At, refund.Customer, refund.Amount = "conv_2", SpanFrom+1, "c", -150
	free.ID, free.Customer, free.Amount = "conv_3", "d", 0
	alone := refund
	alone.ID, alone.Customer = "conv_4", "e"
	put(analytics.FactBatch{From: 104, At: 105, Conversions: []analytics.Conversion{refund, free, alone}})
	want := analytics.Funnel{Sales: 2, Refunds: 2, SaleClicks: 2, NewCustomers: 2, Revenue: []analytics.Amount{{Currency: "EUR", Amount: -100, Sales: 2, Refunds: 2}}}
	f, err = e.Funnel(ctx, q)
	check(t, "a funnel with refunds", err, want, f)
	// The refund of the first millisecond of the range is no earlier sale of whoever buys after it.
	later := q
	later.From += 3
	want = analytics.Funnel{Sales: 2, SaleClicks: 2, NewCustomers: 2, Revenue: []analytics.Amount{{Currency: "EUR", Amount: 200, Sales: 2}}}
	f, err = e.Funnel(ctx, later)
	check(t, "a funnel after refunds", err, want, f)
	by := q
	by.By, by.Metric, by.Currency = analytics.Link, analytics.Sales, "EUR"
	b, err := e.ConversionsBy(ctx, by)
	check(t, "a breakdown with refunds", err, analytics.ConversionBreakdown{
		Data:  []analytics.ConversionValue{{Value: link.String(), Label: "d/c", Sales: 2, Refunds: 2, Revenue: -100}},
		Total: 2, Values: 1,
	}, b)
	put(analytics.FactBatch{Reset: true, Partial: true, At: 11})
	put(analytics.FactBatch{From: 11, At: 3})
	if f, err := e.Funnel(ctx, q); err != nil || f.Sales != 0 || tagged("new") != 0 {
		t.Errorf("after a reset: %+v, %v, %d", f, err, tagged("new"))
	}
	bad := q
	bad.By, bad.Metric = analytics.Country, analytics.Revenue
	if _, err := e.ConversionsBy(ctx, bad); !errors.As(err, new(*terse.Error)) || terse.ErrorCode(err) != terse.CodeInvalid {
		t.Errorf("revenue without a currency: %v", err)
	}
	if _, err := e.Breakdown(ctx, bad); terse.ErrorCode(err) != terse.CodeInvalid {
		t.Errorf("a breakdown of clicks by revenue: %v", err)
	}
}
