package links

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/campaigns"
	"github.com/terselink/terse/internal/domains"
)

func (s *setupT) campaign(t testing.TB, n NewCampaign) *campaigns.Campaign {
	t.Helper()
	n.Name = "c"
	c, err := s.CreateCampaign(context.Background(), actor, n, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestCampaignRows: the three forms of rows make the same links, and a bad row is a result
// that names its field.
func TestCampaignRows(t *testing.T) {
	s := setup(t)
	for _, c := range []struct {
		in   Format
		body string
	}{
		{NDJSON, `{"sku":"A17","u":"9f3","external_id":"r-0"}` + "\n" + `{"u":1.5e3,"sku":"ü"}` + "\n" + `{"sku":"x"}`},
		{JSON, `[{"sku":"A17","u":"9f3","external_id":"r-0"},{"u":1.5e3,"sku":"\u00fc"},{"sku":"x"}]`},
		{CSV, "u,external_id,sku\n9f3,r-0,A17\n1.5e3,,\"ü\"\nx,\n"},
	} {
		camp := s.campaign(t, NewCampaign{Destination: "https://shop.example/p/{sku}?u={u}"})
		_, sum := s.bulkString(t, BulkOptions{Campaign: camp.ID, In: c.in}, c.body)
		if sum != (BulkSummary{Created: 2, Failed: 1}) {
			t.Errorf("format %d: %+v", c.in, sum)
		}
		page, err := s.List(t.Context(), actor, Filter{Campaign: camp.ID})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i := range page.Links {
			shown, _ := s.Shown(&page.Links[i])
			got = append(got, shown.Destination+" "+shown.ExternalID)
		}
		slices.Sort(got)
		if want := []string{"https://shop.example/p/%C3%BC?u=1.5e3 ", "https://shop.example/p/A17?u=9f3 r-0"}; !slices.Equal(got, want) {
			t.Errorf("format %d: links %q, want %q", c.in, got, want)
		}
		if n, err := s.CountLinks(t.Context(), actor, camp.ID); n != 2 || err != nil {
			t.Errorf("format %d: count %d, error %v", c.in, n, err)
		}
	}
}

func TestCampaignRowErrors(t *testing.T) {
	s := setup(t)
	camp := s.campaign(t, NewCampaign{Destination: "https://shop.example/{a}?b={b}"})
	for _, c := range []struct{ row, field string }{
		{`{"a":"1"}`, "b"},
		{`{"a":"1","b":"2","c":"3"}`, "c"},
		{`{"a":"1","b":true}`, "b"},
		{`{"a":"1","b":null}`, "b"},
		{`{"a":"","b":"2"}`, "a"},
		{`{"a":"1","b":"\u0007"}`, "b"},
		{`{"a":"1","b":"` + strings.Repeat("x", 1025) + `"}`, "b"},
		{`{"a":"..","b":"2"}`, "destination"},
		{`{"a":"1","b":"2","a":"3"}`, "a"},
		{`{"a":"1","b":"2","code":"a/b"}`, "code"},
		{`{"a":"1","b":"2","domain":"nobody.example"}`, "domain"},
	} {
		out, sum := s.bulkString(t, BulkOptions{Campaign: camp.ID}, c.row)
		if sum.Failed != 1 || !strings.Contains(out, `"field":"`+c.field+`"`) {
			t.Errorf("%.60s: %s", c.row, out)
		}
	}
	for _, header := range []string{"a\n1\n", "a,b,c\n1,2,3\n", "a,b,a\n1,2,3\n"} {
		if _, err := s.Bulk(t.Context(), actor, BulkOptions{Campaign: camp.ID, In: CSV}, strings.NewReader(header), io.Discard); terse.ErrorCode(err) != terse.CodeInvalid {
			t.Errorf("%q: error %v", header, err)
		}
	}
}

// TestCampaignTurns: links are spread over the domains by weight, whatever the batches are.
func TestCampaignTurns(t *testing.T) {
	s := setup(t)
	for _, host := range []string{"a.example.com", "b.example.com"} {
		if _, err := s.domains.Create(t.Context(), testWorkspace, domains.New{Host: host}, nil); err != nil {
			t.Fatal(err)
		}
	}
	camp := s.campaign(t, NewCampaign{Destination: "https://shop.example/", Domains: []DomainWeight{{"a.example.com", 3}, {"b.example.com", 1}}})
	var out strings.Builder
	if _, err := s.Generate(t.Context(), actor, BulkOptions{Campaign: camp.ID}, 40_000, &out); err != nil {
		t.Fatal(err)
	}
	if a, b := strings.Count(out.String(), "//a.example.com/"), strings.Count(out.String(), "//b.example.com/"); a != 30_000 || b != 10_000 {
		t.Errorf("%d and %d links", a, b)
	}
	if got := spread([]uint32{2, 1}); fmt.Sprint(got) != "[0 1 0]" {
		t.Errorf("spread: %v", got)
	}
}

func TestGenerateRefuses(t *testing.T) {
	s := setup(t)
	with := s.campaign(t, NewCampaign{Destination: "https://shop.example/{a}"})
	without := s.campaign(t, NewCampaign{Destination: "https://shop.example/"})
	disabled := terse.StatusDisabled
	off := s.campaign(t, NewCampaign{Destination: "https://shop.example/"})
	if _, err := s.UpdateCampaign(t.Context(), actor, off.ID, CampaignPatch{Status: &disabled}, 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		id    terse.CampaignID
		count uint64
		want  terse.Code
	}{
		{with.ID, 1, terse.CodeInvalid}, {without.ID, 0, terse.CodeInvalid}, {without.ID, MaxGenerate + 1, terse.CodeInvalid},
		{off.ID, 1, terse.CodeConflict}, {1, 1, terse.CodeNotFound},
	} {
		if _, err := s.Generate(t.Context(), actor, BulkOptions{Campaign: c.id}, c.count, io.Discard); terse.ErrorCode(err) != c.want {
			t.Errorf("%d: error %v, want %s", c.count, err, c.want)
		}
	}
	other := Actor{Workspace: 2}
	if _, err := s.Generate(t.Context(), other, BulkOptions{Campaign: without.ID}, 1, io.Discard); terse.ErrorCode(err) != terse.CodeNotFound {
		t.Errorf("another workspace: %v", err)
	}
}

// TestCampaignOverride: one link can have a destination of its own and lose it again; a
// deleted campaign takes every link with it.
func TestCampaignOverride(t *testing.T) {
	s := setup(t)
	camp := s.campaign(t, NewCampaign{Destination: "https://shop.example/{a}"})
	s.bulkString(t, BulkOptions{Campaign: camp.ID}, `{"a":"1","code":"one"}`)
	l, err := s.Lookup(t.Context(), actor, "https://go.example.com/one")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ set, want string }{
		{"https://own.example/", "https://own.example/"}, {"", "https://shop.example/1"},
	} {
		got, err := s.Update(t.Context(), actor, l.Number, Patch{Destination: &c.set}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if shown, _ := s.Shown(&got); shown.Destination != c.want {
			t.Errorf("%q: %q, want %q", c.set, shown.Destination, c.want)
		}
	}
	if err := s.DeleteCampaign(t.Context(), actor, camp.ID, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), actor, l.Number); terse.ErrorCode(err) != terse.CodeNotFound {
		t.Errorf("link of a deleted campaign: %v", err)
	}
	if page, err := s.List(t.Context(), actor, Filter{}); err != nil || len(page.Links) != 0 {
		t.Errorf("list: %d links, error %v", len(page.Links), err)
	}
}

// TestCampaignLedger: a repeated request returns the same links.
func TestCampaignLedger(t *testing.T) {
	s := setup(t)
	camp := s.campaign(t, NewCampaign{Destination: "https://shop.example/{a}"})
	body := `{"a":"1","external_id":"x"}` + "\n" + `{"b":"1"}` + "\n" + `{"a":2}` + "\n"
	o := BulkOptions{Campaign: camp.ID, Ledger: "k"}
	first, _ := s.bulkString(t, o, body)
	second, _ := s.bulkString(t, o, body)
	if first != second {
		t.Errorf("first\n%ssecond\n%s", first, second)
	}
	if n, _ := s.CountLinks(t.Context(), actor, camp.ID); n != 2 {
		t.Errorf("%d links", n)
	}
}

// rows returns a parser for rows of the fields sku and u.
func (s *setupT) rows(t testing.TB) *campaignRows {
	t.Helper()
	c := s.campaign(t, NewCampaign{Destination: "https://shop.example/p/{sku}?u={u}"})
	r, err := s.openCampaign(context.Background(), actor, &BulkOptions{Campaign: c.ID})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// FuzzParseValues holds the scan of plain rows against the full parser.
func FuzzParseValues(f *testing.F) {
	for _, row := range []string{
		`{"sku":"A17","u":"9f3"}`, `{"u":-1.5e+3 , "sku":"x","external_id":"r","code":"c","domain":"d"}`, `{"sku":01,"u":1.}`,
		`{"sku":"a","sku":"b"}`, `{"sku":"","u":"\u0041"}`, `{}`, `null`, `{"sku":1,"u":2}x`, `{"sku":"a","u":"b","external_id":5}`,
		`{"sku":"a","u":"b","class":"secret","expires_at":"2027-01-31T12:00:00Z"}`, `{"sku":"a","u":"b","expires_at":null,"class":null}`,
	} {
		f.Add(row)
	}
	s := setup(f)
	r := s.rows(f)
	f.Fuzz(func(t *testing.T, row string) {
		var plain, full valueParser
		var n, m NewLink
		if !r.parsePlain(&plain, []byte(row), &n) {
			return
		}
		if err := r.parseFull(&full, []byte(row), &m); err != nil {
			t.Fatalf("%q: plain, but the full parser says %v", row, err)
		}
		if n.ExternalID != m.ExternalID || n.Code != m.Code || n.Domain != m.Domain || n.Class != m.Class || string(plain.expires) != string(full.expires) ||
			string(plain.values[0]) != string(full.values[0]) || string(plain.values[1]) != string(full.values[1]) {
			t.Fatalf("%q: %q %+v against %q %+v", row, plain.values[:2], n, full.values[:2], m)
		}
	})
}

// TestValueRowAllocs: a plain row leaves no garbage.
func TestValueRowAllocs(t *testing.T) {
	s := setup(t)
	r := s.rows(t)
	var v valueParser
	var n NewLink
	row := []byte(`{"sku":"A17","u":9.5,"external_id":"r-0"}`)
	parse := func() {
		v.joined = v.joined[:0]
		if err := r.parse(&v, NDJSON, nil, row, &n); err != nil {
			t.Fatal(err)
		}
	}
	parse()
	if a := testing.AllocsPerRun(100, parse); a != 0 || n.values != "A17\x1f9.5" {
		t.Errorf("%v allocations, values %q", a, n.values)
	}
}
