package conversions_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/conversions"
	"github.com/terselink/terse/internal/links"
	"github.com/terselink/terse/internal/store/memstore"
)

const now terse.Millis = 1_795_000_000_000

var (
	me    = links.Actor{Workspace: 1}
	click = terse.ClickID{0x01, 0x93, 1, 2, 3, 4, 0x70, 3, 0xbf, 6}
)

func service(t *testing.T) (*conversions.Service, terse.Store) {
	t.Helper()
	clock := func() terse.Millis { return now }
	store := memstore.New(clock)
	return conversions.New(conversions.Options{Store: store, Clock: clock, Find: func(_ context.Context, _ links.Actor, host, code string) (terse.Link, string, error) {
		if code != "summer" {
			return terse.Link{}, "", terse.ErrNotFound
		}
		return terse.Link{Number: 5, Campaign: 7, Code: code}, "go.example.com", nil
	}}), store
}

func TestRecord(t *testing.T) {
	s, store := service(t)
	n := conversions.NewConversion{Click: click.String(), Kind: "sale", Amount: 1999, Currency: "EUR", Invoice: "i-1", Customer: "c-1", Metadata: map[string]string{"plan": "pro"}}
	got, created, err := s.Record(t.Context(), me, n)
	want := analytics.Conversion{ID: got.ID, At: now, Workspace: 1, Kind: analytics.Sale, Amount: 1999, Currency: "EUR", Customer: "c-1", Invoice: "i-1", Click: click, Metadata: map[string]string{"plan": "pro"}}
	if d := cmp.Diff(want, got); d != "" || err != nil || !created || !strings.HasPrefix(got.ID, "conv_") || len(got.ID) != 31 {
		t.Errorf("%v, %v\n%s", created, err, d)
	}
	if _, err := store.GetDocument(t.Context(), 1, terse.KindConversion, got.ID); err != nil {
		t.Error(err)
	}
	// The same invoice again is the same sale, whatever else is said.
	n.Amount = 5
	again, created, err := s.Record(t.Context(), me, n)
	if d := cmp.Diff(want, again); d != "" || err != nil || created {
		t.Errorf("%v, %v\n%s", created, err, d)
	}
	got, _, err = s.Record(t.Context(), me, conversions.NewConversion{Code: "summer", Customer: "c-2", Kind: "lead"})
	want = analytics.Conversion{ID: got.ID, At: now, Workspace: 1, Customer: "c-2", Link: 5, Campaign: 7, Domain: "go.example.com", Code: "summer"}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
}

// TestSame: what makes two conversions one.
func TestSame(t *testing.T) {
	s, _ := service(t)
	base := conversions.NewConversion{Click: click.String(), Kind: "sale"}
	seen := map[string]string{}
	for _, tt := range []struct {
		name   string
		change func(*conversions.NewConversion)
		same   string
	}{
		{"click", func(*conversions.NewConversion) {}, ""},
		{"click again", func(n *conversions.NewConversion) { n.Amount, n.Currency = 1, "EUR" }, "click"},
		{"another name", func(n *conversions.NewConversion) { n.Name = "upgrade" }, ""},
		{"lead", func(n *conversions.NewConversion) { n.Kind = "lead" }, ""},
		{"customer", func(n *conversions.NewConversion) { n.Customer = "c" }, ""},
		{"customer, another click", func(n *conversions.NewConversion) { n.Customer, n.Click = "c", terse.ClickID{1}.String() }, "customer"},
		{"invoice", func(n *conversions.NewConversion) { n.Invoice = "c" }, ""},
		{"invoice of another customer", func(n *conversions.NewConversion) { n.Invoice, n.Customer = "c", "d" }, "invoice"},
		{"a refund has an invoice of its own", func(n *conversions.NewConversion) { n.Invoice, n.Amount, n.Currency = "c-refund", -5, "EUR" }, ""},
	} {
		n := base
		tt.change(&n)
		c, created, err := s.Record(t.Context(), me, n)
		if err != nil || created != (tt.same == "") {
			t.Errorf("%s: %v, %v", tt.name, created, err)
		}
		if tt.same != "" && seen[tt.same] != c.ID {
			t.Errorf("%s is not %s", tt.name, tt.same)
		}
		seen[tt.name] = c.ID
	}
	if _, created, err := s.Record(t.Context(), links.Actor{Workspace: 2}, base); err != nil || !created {
		t.Errorf("another workspace: %v, %v", created, err)
	}
}

// TestRace: of many that record the same at once, one is the first and all get its answer.
func TestRace(t *testing.T) {
	s, _ := service(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	firsts, amounts := 0, map[int64]bool{}
	for i := range 20 {
		wg.Go(func() {
			c, created, err := s.Record(context.Background(), me, conversions.NewConversion{Click: click.String(), Kind: "sale", Invoice: "i", Amount: int64(i + 1), Currency: "EUR"})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if created {
				firsts++
			}
			amounts[c.Amount] = true
		})
	}
	wg.Wait()
	if firsts != 1 || len(amounts) != 1 {
		t.Errorf("%d were first, amounts %v", firsts, amounts)
	}
}

func TestRefused(t *testing.T) {
	s, _ := service(t)
	for field, n := range map[string]conversions.NewConversion{
		"click_id":    {Kind: "lead"},
		"code":        {Click: click.String(), Code: "summer", Kind: "lead"},
		"customer_id": {Code: "summer", Kind: "lead"},
		"kind":        {Click: click.String(), Kind: "gift"},
		"name":        {Click: click.String(), Kind: "custom"},
		"currency":    {Click: click.String(), Kind: "sale", Amount: 5},
		"amount":      {Click: click.String(), Kind: "sale", Amount: 1 << 60, Currency: "EUR"},
		"ts":          {Click: click.String(), Kind: "sale", At: now + 3_600_000},
		"invoice_id":  {Click: click.String(), Kind: "sale", Invoice: "a\x00b"},
		"metadata":    {Click: click.String(), Kind: "sale", Metadata: map[string]string{"k": strings.Repeat("x", 5000)}},
	} {
		_, _, err := s.Record(t.Context(), me, n)
		if e, ok := errors.AsType[*terse.Error](err); !ok || e.Code != terse.CodeInvalid || e.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, n := range []conversions.NewConversion{
		{Click: "click_1", Kind: "lead"}, {Click: click.String(), Kind: "sale", Amount: 5, Currency: "eur"}, {Click: click.String(), Kind: "lead", At: 5},
		{Click: click.String(), Kind: "lead", Name: strings.Repeat("x", 300)}, {Click: terse.ClickID{}.String(), Kind: "lead"},
	} {
		if _, _, err := s.Record(t.Context(), me, n); terse.ErrorCode(err) != terse.CodeInvalid {
			t.Errorf("%+v: %v", n, err)
		}
	}
	if _, _, err := s.Record(t.Context(), me, conversions.NewConversion{Code: "winter", Customer: "c", Kind: "lead"}); terse.ErrorCode(err) != terse.CodeNotFound {
		t.Errorf("got %v", err)
	}
}
