package links

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/terselink/terse"
)

// TestCampaignSettings: a campaign has every setting of a link, with placeholders, and a link its own before it.
func TestCampaignSettings(t *testing.T) {
	s := setup(t)
	no, two := false, uint64(2)
	c := s.campaign(t, NewCampaign{
		Destination: "https://shop.example/p/{sku}", Rules: []terse.Rule{in("DE", "https://de.example/{lang}")},
		Title: "For {name}", ExpiredDestination: "https://over.example/{sku}", MaxClicks: 1, Password: "s3cret", ForwardQuery: &no,
		Web: &terse.LinkWeb{
			NoIndex: &no, ReferrerPolicy: "origin", LimitDestination: "https://used.example/?{sku}", IOSStore: "https://apps.example/{app}",
			UTM: &terse.UTM{Source: "mail", Content: "{sku} {name}"}, OGTitle: "{name}!", OGImage: "https://img.example/{sku}.png",
		},
	})
	if got := strings.Join(c.Fields, " "); got != "sku lang name app" {
		t.Errorf("fields %q", got)
	}
	if c.Settings.PasswordHash == "" || strings.Contains(c.Settings.PasswordHash, "s3cret") {
		t.Errorf("password kept as %q", c.Settings.PasswordHash)
	}
	s.bulkString(t, BulkOptions{Campaign: c.ID}, `{"sku":"A 17","lang":"de","name":"Zoë & <b>","app":"x","code":"one"}`)
	shown := func() *terse.LinkSettings {
		t.Helper()
		l, err := s.Lookup(t.Context(), actor, "https://go.example.com/one")
		if err != nil {
			t.Fatal(err)
		}
		out, _ := s.Shown(&l)
		return out.Settings
	}
	got := shown()
	w := got.Web
	if got.Title != "For Zoë & <b>" || got.ExpiredDestination != "https://over.example/A%2017" || got.MaxClicks != 1 || got.PasswordHash != c.Settings.PasswordHash ||
		got.ForwardQuery == nil || *got.ForwardQuery || w.NoIndex == nil || *w.NoIndex || w.ReferrerPolicy != "origin" || w.LimitDestination != "https://used.example/?A%2017" ||
		w.IOSStore != "https://apps.example/x" || *w.UTM != (terse.UTM{Source: "mail", Content: "A 17 Zoë & <b>"}) || w.OGTitle != "Zoë & <b>!" || w.OGImage != "https://img.example/A%2017.png" {
		t.Errorf("settings as visitors meet them: %+v, %+v", got, w)
	}

	// A row must give every URL what it needs.
	for row, field := range map[string]string{
		`{"sku":"a","lang":"x","name":"n","app":""}`: "app", `{"sku":"a","lang":"x","name":"n","app":".."}`: "destination", `{"sku":"a","lang":"x","app":"y"}`: "name",
	} {
		if out, sum := s.bulkString(t, BulkOptions{Campaign: c.ID}, row); sum.Failed != 1 || !strings.Contains(out, `"field":"`+field+`"`) {
			t.Errorf("%s: %s", row, out)
		}
	}

	// What a link says itself stays, whatever the campaign says afterwards.
	l, err := s.Lookup(t.Context(), actor, "https://go.example.com/one")
	if err != nil {
		t.Fatal(err)
	}
	own := SettingsPatch{Title: new("Own {sku}"), MaxClicks: &two, Web: WebPatch{UTM: &terse.UTM{Source: "own"}}}
	if _, err := s.Update(t.Context(), actor, l.Number, Patch{SettingsPatch: own}, 0); err != nil {
		t.Fatal(err)
	}
	change := func(p SettingsPatch) error {
		_, err := s.UpdateCampaign(context.Background(), actor, c.ID, CampaignPatch{SettingsPatch: p}, 0)
		return err
	}
	if err := change(SettingsPatch{Title: new("All"), MaxClicks: new(uint64(9)), Password: new(""), Web: WebPatch{UTM: &terse.UTM{Source: "x", Medium: "{lang}"}, OGTitle: new("")}}); err != nil {
		t.Fatal(err)
	}
	if got := shown(); got.Title != "Own {sku}" || got.MaxClicks != 2 || got.PasswordHash != "" || *got.Web.UTM != (terse.UTM{Source: "own", Medium: "de"}) || got.Web.OGTitle != "" {
		t.Errorf("after both changes: %+v, %+v", got, got.Web)
	}

	// Bad ones name their field and change nothing.
	before, err := s.GetCampaign(t.Context(), actor, c.ID)
	if err != nil {
		t.Fatal(err)
	}
	for field, p := range map[string]SettingsPatch{
		"title":                   {Title: new("{unknown}")},
		"expired_destination":     {ExpiredDestination: new("https://over.example/{unknown}")},
		"og_title":                {Web: WebPatch{OGTitle: new("{code}")}},
		"og_image":                {Web: WebPatch{OGImage: new("https://{sku}.example/")}},
		"ios_store":               {Web: WebPatch{IOSStore: new("javascript:{sku}")}},
		"ios_destination":         {Web: WebPatch{IOSDestination: new("myapp://item/{sku}")}}, // not a scheme of the workspace
		"utm.term":                {Web: WebPatch{UTM: &terse.UTM{Term: "{unknown}"}}},
		"not_started_destination": {Web: WebPatch{NotStartedDestination: new("https://go.example.com/{sku}")}},
		"referrer_policy":         {Web: WebPatch{ReferrerPolicy: new("{sku}")}},
		"query_mode":              {Web: WebPatch{QueryMode: new("shuffle")}},
		"cloak":                   {Web: WebPatch{Cloak: new(true)}},
		"max_clicks":              {MaxClicks: new(uint64(1 << 41))},
		"password":                {Password: new(strings.Repeat("x", MaxPassword+1))},
	} {
		wantField(t, change(p), field)
	}
	if after, err := s.GetCampaign(t.Context(), actor, c.ID); err != nil || after != before {
		t.Errorf("a refused change was made: %+v, %v", after, err)
	}
	_, err = s.CreateCampaign(t.Context(), actor, NewCampaign{Name: "c", Destination: "https://shop.example/", Web: &terse.LinkWeb{Cloak: true}}, nil)
	wantField(t, err, "cloak")
	_, err = s.CreateCampaign(t.Context(), actor, NewCampaign{Name: "c", Destination: "https://shop.example/", StartsAt: s.o.Clock() + 2000, ExpiresAt: s.o.Clock() + 1000}, nil)
	wantField(t, err, "starts_at")
}

// TestSpanPatch: no change leaves a link or a campaign without a time between its start and its end, but one may be
// ended now.
func TestSpanPatch(t *testing.T) {
	t.Parallel()
	s := setup(t)
	now := s.o.Clock()
	hour := terse.Millis(3_600_000)
	c := s.campaign(t, NewCampaign{Destination: "https://shop.example/", StartsAt: now + 2*hour, ExpiresAt: now + 3*hour})
	l := s.create(t, NewLink{Destination: "https://shop.example/", StartsAt: now + 2*hour, ExpiresAt: now + 3*hour})
	for name, change := range map[string]func(starts, ends *terse.Millis) error{
		"campaign": func(starts, ends *terse.Millis) error {
			_, err := s.UpdateCampaign(t.Context(), actor, c.ID, CampaignPatch{ExpiresAt: ends, SettingsPatch: SettingsPatch{StartsAt: starts}}, 0)
			return err
		},
		"link": func(starts, ends *terse.Millis) error {
			_, err := s.Update(t.Context(), actor, l.Number, Patch{ExpiresAt: ends, SettingsPatch: SettingsPatch{StartsAt: starts}}, 0)
			return err
		},
	} {
		wantField(t, change(nil, new(now+hour)), "expires_at")
		wantField(t, change(new(now+3*hour), nil), "starts_at")
		wantField(t, change(new(now+5*hour), new(now+4*hour)), "starts_at")
		for _, err := range []error{change(new(now+5*hour), new(now+6*hour)), change(nil, new(now-hour)), change(nil, new(terse.Millis(0)))} {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestCampaignValueMissing: the error names the URL that needs the value.
func TestCampaignValueMissing(t *testing.T) {
	t.Parallel()
	s := setup(t)
	c := s.campaign(t, NewCampaign{Destination: "https://shop.example/?{sku}", Fields: []string{"sku"}, Web: &terse.LinkWeb{LimitDestination: "https://shop.example/{sku}"}})
	out, sum := s.bulkString(t, BulkOptions{In: CSV, Campaign: c.ID}, "external_id,sku\na,\n")
	if sum.Failed != 1 || !strings.Contains(out, "stands in the path of limit_destination") {
		t.Errorf("%+v %s", sum, out)
	}
}

func wantField(t *testing.T, err error, field string) {
	t.Helper()
	e, ok := errors.AsType[*terse.Error](err)
	if !ok || e.Code != terse.CodeInvalid || e.Field != field {
		t.Errorf("error %v, want one that names %s", err, field)
	}
}

// TestCampaignSettingsBeforePlaceholders: a setting that was stored when braces were only characters stands for itself, and
// does not keep anybody from changing the campaign.
func TestCampaignSettingsBeforePlaceholders(t *testing.T) {
	before := setup(t)
	made := before.campaign(t, NewCampaign{Destination: "https://shop.example/{sku}"})
	old := *made
	const url, title, source = "https://over.example/{when}?a={", "Buy {now}", "{mail}"
	old.Settings.ExpiredDestination, old.Settings.Title = url, title
	old.Settings.Web = &terse.LinkWeb{UTM: &terse.UTM{Source: source}}
	old.Version++
	doc, err := old.Document()
	if err != nil {
		t.Fatal(err)
	}
	if err := before.store.PutDocument(t.Context(), doc); err != nil {
		t.Fatal(err)
	}
	s := New(Options{Store: before.store, Domains: before.domains, Clock: func() terse.Millis { return *before.now }})
	change := func(p CampaignPatch) error {
		_, err := s.UpdateCampaign(t.Context(), actor, made.ID, p, 0)
		return err
	}
	if err := change(CampaignPatch{Name: new("other")}); err != nil {
		t.Fatalf("its name cannot be changed: %v", err)
	}
	if err := change(CampaignPatch{SettingsPatch: SettingsPatch{Title: new(title), ExpiredDestination: new(url)}}); err != nil {
		t.Errorf("what is there cannot be sent again: %v", err)
	}
	for field, p := range map[string]SettingsPatch{
		"title":               {Title: new("Buy {then}")},
		"expired_destination": {ExpiredDestination: new("https://over.example/{then}")},
		"utm.source":          {Web: WebPatch{UTM: &terse.UTM{Source: "{post}"}}},
	} {
		e, ok := errors.AsType[*terse.Error](change(CampaignPatch{SettingsPatch: p}))
		if !ok || e.Field != field {
			t.Errorf("another %s: %v", field, e)
		}
	}
	c, err := s.GetCampaign(t.Context(), actor, made.ID)
	if err != nil || c.Name != "other" || c.Settings.Title != title || c.Settings.ExpiredDestination != url || c.Settings.Web.UTM.Source != source || c.Filled() {
		t.Errorf("afterwards: %+v, %v", c, err)
	}
	if err := change(CampaignPatch{SettingsPatch: SettingsPatch{Title: new("")}}); err != nil {
		t.Fatal(err)
	}
	if err := change(CampaignPatch{SettingsPatch: SettingsPatch{Title: new(title)}}); err == nil {
		t.Error("a title that was taken away came back without being a template")
	}
}
