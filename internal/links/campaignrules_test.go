package links

import (
	"context"
	"strings"
	"testing"

	"github.com/terselink/terse"
)

func in(country, destination string) terse.Rule {
	return terse.Rule{Conditions: []terse.Condition{{Type: "country", Values: []string{country}}}, Destination: destination}
}

// TestCampaignRules: rules of a campaign are templates of its fields, and hold for what it is.
func TestCampaignRules(t *testing.T) {
	s := setup(t)
	list := []terse.Rule{
		in("DE", "https://de.example/{sku}?{lang}"),
		{Variants: []terse.Variant{{Destination: "https://a.example/{sku}", Weight: 1}, {Destination: "https://b.example/#{u}", Weight: 1}}},
	}
	c := s.campaign(t, NewCampaign{Destination: "https://shop.example/p/{sku}?u={u}", Rules: list})
	if got := strings.Join(c.Fields, " "); got != "sku u lang" {
		t.Errorf("fields %q: those of the destination come first, then those of the rules", got)
	}
	s.bulkString(t, BulkOptions{Campaign: c.ID}, `{"sku":"A 17","u":"9&3","lang":"ä","code":"one"}`)
	shown := func() terse.Link {
		t.Helper()
		l, err := s.Lookup(t.Context(), actor, "https://go.example.com/one")
		if err != nil {
			t.Fatal(err)
		}
		out, _ := s.Shown(&l)
		return out
	}
	rules := shown().Settings.Rules
	if len(rules) != 2 || rules[0].Destination != "https://de.example/A%2017?%C3%A4" || rules[1].Variants[1].Destination != "https://b.example/#9%263" {
		t.Errorf("rules as visitors meet them: %+v", rules)
	}
	if c.Settings.Rules[0].Destination != "https://de.example/{sku}?{lang}" || c.Settings.Rules[1].Variants[0].Destination != "https://a.example/{sku}" {
		t.Errorf("the campaign's own rules were changed: %+v", c.Settings.Rules)
	}

	// A row must give every destination what it needs.
	for row, field := range map[string]string{
		`{"sku":"..","u":"1","lang":"x"}`: "destination", `{"sku":"","u":"1","lang":"x"}`: "sku", `{"sku":"a","u":"1"}`: "lang",
	} {
		if out, sum := s.bulkString(t, BulkOptions{Campaign: c.ID}, row); sum.Failed != 1 || !strings.Contains(out, `"field":"`+field+`"`) {
			t.Errorf("%s: %s", row, out)
		}
	}

	// What the link says itself goes before.
	l := shown()
	own := "https://own.example/"
	if _, err := s.Update(t.Context(), actor, l.Number, Patch{Destination: &own}, 0); err != nil {
		t.Fatal(err)
	}
	if got := shown(); got.Settings != nil && len(got.Settings.Rules) != 0 {
		t.Errorf("a link with a destination of its own follows the rules of its campaign: %+v", got.Settings.Rules)
	}
	none, ownRules := "", []terse.Rule{in("AT", "https://at.example/")}
	if _, err := s.Update(t.Context(), actor, l.Number, Patch{Destination: &none, SettingsPatch: SettingsPatch{Rules: &ownRules}}, 0); err != nil {
		t.Fatal(err)
	}
	if got := shown().Settings.Rules; len(got) != 1 || got[0].Destination != "https://at.example/" {
		t.Errorf("rules of a link with its own: %+v", got)
	}

	// Changing them is one write, and checked against the fields that there are.
	update := func(list []terse.Rule) error {
		_, err := s.UpdateCampaign(context.Background(), actor, c.ID, CampaignPatch{SettingsPatch: SettingsPatch{Rules: &list}}, 0)
		return err
	}
	wantError(t, update([]terse.Rule{in("DE", "https://de.example/{other}")}), "invalid_destination", "rules[0].destination")
	wantError(t, update([]terse.Rule{in("DE", "https://{sku}.example/")}), "invalid_destination", "rules[0].destination")
	wantError(t, update([]terse.Rule{in("DE", "javascript:{sku}")}), "invalid_destination", "rules[0].destination")
	wantError(t, update([]terse.Rule{in("DE", "https://go.example.com/{sku}")}), "invalid_destination", "rules[0].destination")
	wantError(t, update([]terse.Rule{{Variants: []terse.Variant{{Destination: "https://a.example/", Weight: 1}, {Destination: "https://a.example/{", Weight: 1}}}}),
		"invalid_destination", "rules[0].variants[1].destination")
	wantError(t, update([]terse.Rule{{Destination: "https://a.example/"}, {Destination: "https://b.example/"}}), "invalid", "rules[1]")
	if err := update(nil); err != nil {
		t.Fatal(err)
	}
	if got, err := s.GetCampaign(t.Context(), actor, c.ID); err != nil || got.Rules != nil || len(got.Settings.Rules) != 0 {
		t.Errorf("rules after they were taken away: %+v, error %v", got, err)
	}
	_, err := s.CreateCampaign(t.Context(), actor, NewCampaign{
		Name: "c", Destination: "https://a.example/{x}", Fields: []string{"x"}, Rules: []terse.Rule{in("DE", "https://a.example/{y}")},
	}, nil)
	wantError(t, err, "invalid_destination", "rules[0].destination")
}

// TestCampaignRowSettings: rows may have a class and an end of their own; a field of that name
// goes before.
func TestCampaignRowSettings(t *testing.T) {
	s := setup(t)
	c := s.campaign(t, NewCampaign{Destination: "https://shop.example/{a}"})
	for form, body := range map[Format]string{
		NDJSON: `{"a":"1","class":"secret"}` + "\n" + `{"a":"2","expires_at":"2027-01-31T12:00:00Z"}` + "\n" + `{"a":"3","class":null,"expires_at":null}` + "\n" +
			`{"a":"4","class":"public"}` + "\n" + `{"a":"5","expires_at":"soon"}` + "\n" + `{"a":"6","expires_at":"2001-01-01T00:00:00Z"}` + "\n" + `{"a":"7","class":"secret","code":"x"}` + "\n",
		CSV: "a,class,expires_at,code\n1,secret,,\n2,,2027-01-31T12:00:00Z,\n3,,,\n4,public,,\n5,,soon,\n6,,2001-01-01T00:00:00Z,\n7,secret,,x\n",
	} {
		out, sum := s.bulkString(t, BulkOptions{Campaign: c.ID, In: form, Out: NDJSON}, body)
		if sum != (BulkSummary{Created: 3, Failed: 4}) {
			t.Fatalf("format %d: %+v\n%s", form, sum, out)
		}
		rows := ndjsonResults(t, out)
		if len(rows[0].Code) != 22 || len(rows[2].Code) == 22 {
			t.Errorf("format %d: codes %q and %q", form, rows[0].Code, rows[2].Code)
		}
		for i, field := range map[int]string{3: "class", 4: "expires_at", 5: "expires_at", 6: "class"} {
			if rows[i].Error == nil || rows[i].Error.Field != field {
				t.Errorf("format %d: row %d: %+v", form, i, rows[i].Error)
			}
		}
		secret, err := s.Lookup(t.Context(), actor, rows[0].ShortURL)
		if shown, _ := s.Shown(&secret); err != nil || shown.Destination != "https://shop.example/1" {
			t.Errorf("format %d: secret link: %+v, error %v", form, shown, err)
		}
		ends, err := s.Lookup(t.Context(), actor, rows[1].ShortURL)
		if err != nil || ends.ExpiresAt != 1_801_396_800_000 || ends.DefaultExpiry {
			t.Errorf("format %d: link with an end: %+v, error %v", form, ends, err)
		}
	}
	out, sum := s.bulkString(t, BulkOptions{Campaign: s.campaign(t, NewCampaign{Destination: "https://shop.example/{class}/{expires_at}"}).ID},
		`{"class":"secret","expires_at":"soon"}`)
	if sum.Created != 1 || len(ndjsonResults(t, out)[0].Code) == 22 {
		t.Errorf("fields that are named as settings: %s", out)
	}

	plain := s.campaign(t, NewCampaign{Destination: "https://shop.example/"})
	var w strings.Builder
	if _, err := s.Generate(t.Context(), actor, BulkOptions{Campaign: plain.ID, Class: ClassSecret, Ledger: "k"}, 20, &w); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, r := range ndjsonResults(t, w.String()) {
		if seen[r.Code] = true; len(r.Code) != 22 {
			t.Errorf("generated code %q", r.Code)
		}
	}
	if len(seen) != 20 {
		t.Errorf("%d codes", len(seen))
	}
	_, err := s.Generate(t.Context(), actor, BulkOptions{Campaign: plain.ID, Ledger: "k"}, 20, &strings.Builder{})
	wantError(t, err, "idempotency_mismatch", "body")
	_, err = s.Generate(t.Context(), actor, BulkOptions{Campaign: plain.ID, Class: "x"}, 20, &strings.Builder{})
	wantError(t, err, "invalid", "class")
}
