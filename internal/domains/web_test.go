package domains

import (
	"strings"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/memstore"
)

func TestWeb(t *testing.T) {
	t.Parallel()
	store := memstore.New(clock)
	r := open(t, store)
	w := terse.DomainWeb{
		RobotsTxt: "User-agent: *\r\nAllow: /\n# ü\n", Index: true, ReferrerPolicy: "no-referrer", TrailingSlash: "strict",
		AppleAppSiteAssociation: `{"applinks":{"details":[]}}`, AssetLinks: ` [{"relation":[]}]`,
	}
	create(t, r, 1, New{Host: "a.example", Web: w})
	if got := open(t, store).ByName("a.example").DomainWeb; got != w {
		t.Errorf("%+v after reopening", got)
	}
	// Defaults by name are defaults.
	d := create(t, r, 1, New{Host: "b.example", Web: terse.DomainWeb{ReferrerPolicy: DefaultReferrerPolicy, TrailingSlash: "ignore"}})
	if d.DomainWeb != (terse.DomainWeb{}) {
		t.Errorf("%+v", d.DomainWeb)
	}
	none, no := "", false
	u, err := r.Update(t.Context(), 1, "a.example", Patch{Web: WebPatch{RobotsTxt: &none, Index: &no, ReferrerPolicy: &none, TrailingSlash: &none, AppleAppSiteAssociation: &none}}, 0)
	if want := (terse.DomainWeb{AssetLinks: w.AssetLinks}); err != nil || u.DomainWeb != want {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestWebRefuses(t *testing.T) {
	t.Parallel()
	r := open(t, memstore.New(clock))
	long := strings.Repeat(" ", MaxDocument)
	for _, tc := range []struct {
		w     terse.DomainWeb
		field string
	}{
		{terse.DomainWeb{RobotsTxt: long + "x"}, "robots_txt"},
		{terse.DomainWeb{RobotsTxt: "a\x00b"}, "robots_txt"},
		{terse.DomainWeb{RobotsTxt: "a\x7fb"}, "robots_txt"},
		{terse.DomainWeb{RobotsTxt: "\xff"}, "robots_txt"},
		{terse.DomainWeb{ReferrerPolicy: "none"}, "referrer_policy"},
		{terse.DomainWeb{ReferrerPolicy: "origin\r\nX: y"}, "referrer_policy"},
		{terse.DomainWeb{TrailingSlash: "redirect"}, "trailing_slash"},
		{terse.DomainWeb{AppleAppSiteAssociation: "[]"}, "apple_app_site_association"},
		{terse.DomainWeb{AppleAppSiteAssociation: "{"}, "apple_app_site_association"},
		{terse.DomainWeb{AppleAppSiteAssociation: "{} {}"}, "apple_app_site_association"},
		{terse.DomainWeb{AppleAppSiteAssociation: `{"a":1,"a":2}`}, "apple_app_site_association"},
		{terse.DomainWeb{AppleAppSiteAssociation: long + "{}"}, "apple_app_site_association"},
		{terse.DomainWeb{AssetLinks: "{}"}, "assetlinks"},
		{terse.DomainWeb{AssetLinks: strings.Repeat("[", 40_000)}, "assetlinks"},
		{terse.DomainWeb{AssetLinks: "[\"\xff\"]"}, "assetlinks"},
	} {
		_, err := r.Create(t.Context(), 1, New{Host: "a.example", Web: tc.w}, nil)
		wantError(t, err, "invalid", tc.field)
	}
	if len(r.List(1)) != 0 {
		t.Error("a domain was made")
	}
}

func FuzzCheckDocument(f *testing.F) {
	for _, s := range []string{"", "{}", "[]", "{\"a\":[1]}", "nul", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if checkDocument("assetlinks", s, '[', "an array") == nil && s != "" && !strings.HasPrefix(strings.TrimLeft(s, " \t\r\n"), "[") {
			t.Fatalf("%q passed for an array", s)
		}
	})
}
