package redirect

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/alexedwards/argon2id"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/cache"
)

// TestSpecCampaignSettings is the specification of what the settings of a campaign do for its links.
func TestSpecCampaignSettings(t *testing.T) {
	t.Parallel()
	w := specialWorld(t)
	interstitialsOn(w)
	c := w.campaign("https://shop.test/{sku}", "sku", "u")
	in := func(values string, set ...func(*terse.Link)) func(*terse.Link) {
		return func(l *terse.Link) {
			l.Campaign, l.Values = c.ID, values
			for _, f := range set {
				f(l)
			}
		}
	}
	const host = "go.example.com"
	w.link(host, "a", "", in("A 17\x1f9&3"))
	w.link(host, "b", "", in("b\x1f\r\nX: y"))
	w.link(host, "own", "", in("c\x1f3", webLink(terse.LinkWeb{
		NoIndex: new(false), ReferrerPolicy: "origin", UTM: &terse.UTM{Source: "own"}, IOSDestination: "https://own.test/ios", OGTitle: "Own {sku}",
		LimitDestination: "https://own.test/limit",
	})))
	w.link(host, "away", "https://away.test/", in("d\x1f4"))
	w.link(host, "dots", "", in("e\x1f.."))
	hash, err := argon2id.CreateHash("s3cret", &argon2id.Params{Memory: 64, Iterations: 1, Parallelism: 1, SaltLength: 16, KeyLength: 32})
	if err != nil {
		t.Fatal(err)
	}
	w.listen()
	step := func(name string, f func(set *terse.LinkSettings), rows []visitRow) {
		t.Run(name, func(t *testing.T) {
			w.change(c, func(c *terse.Campaign) {
				c.Settings = terse.LinkSettings{}
				f(&c.Settings)
			})
			runVisits(t, w, rows)
		})
	}
	web := func(web terse.LinkWeb) func(*terse.LinkSettings) {
		return func(set *terse.LinkSettings) { set.Web = &web }
	}
	defaults := []string{"X-Robots-Tag: noindex", "Referrer-Policy: strict-origin-when-cross-origin"}

	step("nothing", func(*terse.LinkSettings) {}, []visitRow{
		{"plain", "GET go.example.com /a", 302, "https://shop.test/A%2017", "redirect", defaults},
		{"own", "GET go.example.com /own", 302, "https://shop.test/c?utm_source=own", "redirect", []string{"X-Robots-Tag", "Referrer-Policy: origin"}},
	})
	step("headers", web(terse.LinkWeb{NoIndex: new(false), ReferrerPolicy: "no-referrer"}), []visitRow{
		{"all links", "GET go.example.com /a", 302, "https://shop.test/A%2017", "redirect", []string{"X-Robots-Tag", "Referrer-Policy: no-referrer"}},
		{"a link elsewhere", "GET go.example.com /away", 302, "https://away.test/", "redirect", []string{"X-Robots-Tag", "Referrer-Policy: no-referrer"}},
		{"the link's own goes before", "GET go.example.com /own", 302, "https://shop.test/c?utm_source=own", "redirect", []string{"X-Robots-Tag", "Referrer-Policy: origin"}},
	})
	step("utm", web(terse.LinkWeb{UTM: &terse.UTM{Source: "mail", Content: "{u}"}}), []visitRow{
		{"filled", "GET go.example.com /a", 302, "https://shop.test/A%2017?utm_source=mail&utm_content=9%263", "redirect", nil},
		{"again, from the cache", "GET go.example.com /a", 302, "https://shop.test/A%2017?utm_source=mail&utm_content=9%263", "redirect", nil},
		{"no value ends a line", "GET go.example.com /b", 302, "https://shop.test/b?utm_source=mail&utm_content=%0D%0AX%3A%20y", "redirect", []string{"X"}},
		{"the link's own goes before, one by one", "GET go.example.com /own", 302, "https://shop.test/c?utm_source=own&utm_content=3", "redirect", nil},
		{"a link elsewhere", "GET go.example.com /away", 302, "https://away.test/?utm_source=mail&utm_content=4", "redirect", nil},
	})
	step("query mode", func(set *terse.LinkSettings) {
		set.ForwardQuery, set.Web = new(true), &terse.LinkWeb{QueryMode: terse.QueryIncomingFirst}
	}, []visitRow{
		{"added", "GET go.example.com /a?x=1", 302, "https://shop.test/A%2017?x=1", "redirect", nil},
		{"before the stored one", "GET go.example.com /own?x=1", 302, "https://shop.test/c?x=1&utm_source=own", "redirect", nil},
	})
	step("path", func(set *terse.LinkSettings) { set.ForwardPath = true }, []visitRow{
		{"added", "GET go.example.com /a/more", 302, "https://shop.test/A%2017/more", "redirect", nil},
	})
	step("before the start", func(set *terse.LinkSettings) {
		set.StartsAt, set.Web = testNow+1, &terse.LinkWeb{NotStartedDestination: "https://soon.test/{sku}"}
	}, []visitRow{
		{"its place", "GET go.example.com /a", 302, "https://soon.test/A%2017", "notfound", nil},
	})
	step("telephones", web(terse.LinkWeb{IOSDestination: "https://ios.test/{sku}", AndroidDestination: "myapp://item/{u}", AndroidStore: "https://play.test/{u}"}), []visitRow{
		{"a desktop", by(macAgent, "GET go.example.com /a"), 302, "https://shop.test/A%2017", "redirect", nil},
		{"an iPhone", by(iphoneAgent, "GET go.example.com /a"), 302, "https://ios.test/A%2017", "redirect", nil},
		{"an app", by(phoneAgent, "GET go.example.com /a"), 200, `href="myapp://item/9%263"`, "redirect", nil},
		{"its store", by(phoneAgent, "GET go.example.com /a"), 200, `href="https://play.test/9%263"`, "redirect", nil},
		{"the link's own", by(iphoneAgent, "GET go.example.com /own"), 302, "https://own.test/ios?utm_source=own", "redirect", nil},
		{"and the campaign's beside it", by(phoneAgent, "GET go.example.com /own"), 200, `href="myapp://item/3?utm_source=own"`, "redirect", nil},
		{"not of a link elsewhere", by(iphoneAgent, "GET go.example.com /away"), 302, "https://away.test/", "redirect", nil},
		{"values that make no URL", by(phoneAgent, "GET go.example.com /dots"), 302, "https://shop.test/e", "redirect", nil},
	})
	step("previews", func(set *terse.LinkSettings) {
		set.Title, set.Web = "For {u}", &terse.LinkWeb{OGDescription: "<b>{sku}</b> {not a field}", OGImage: "https://img.test/{u}.png"}
	}, []visitRow{
		{"people are redirected", by(macAgent, "GET go.example.com /a"), 302, "https://shop.test/A%2017", "redirect", nil},
		{"title", by(slackAgent, "GET go.example.com /a"), 200, `For 9&amp;3`, "preview", nil},
		{"description", by(slackAgent, "GET go.example.com /a"), 200, `&lt;b&gt;A 17&lt;/b&gt; {not a field}`, "preview", nil},
		{"image", by(slackAgent, "GET go.example.com /a"), 200, `https://img.test/9%263.png`, "preview", nil},
		{"the link's own title", by(slackAgent, "GET go.example.com /own"), 200, `Own {sku}`, "preview", nil},
		{"with the campaign's image", by(slackAgent, "GET go.example.com /own"), 200, `https://img.test/3.png`, "preview", nil},
	})
	step("pages", web(terse.LinkWeb{Pixels: []terse.Pixel{{Provider: "meta", ID: "1234567890123456"}}}), []visitRow{
		{"people pass it", by(macAgent, "GET go.example.com /a"), 200, "1234567890123456", "redirect", nil},
		{"programs do not", by("curl/8.9.1", "GET go.example.com /a"), 302, "https://shop.test/A%2017", "redirect", nil},
	})
	step("cloak", func(set *terse.LinkSettings) { set.Title, set.Web = "Only {sku}", &terse.LinkWeb{Cloak: true} }, []visitRow{
		{"people see it", by(macAgent, "GET go.example.com /a"), 200, "<title>Only A 17</title>", "redirect", nil},
	})
	step("one click each", func(set *terse.LinkSettings) {
		set.MaxClicks, set.Web = 1, &terse.LinkWeb{LimitDestination: "https://used.test/{sku}"}
	}, []visitRow{
		{"first", by(macAgent, "GET go.example.com /a"), 302, "https://shop.test/A%2017", "redirect", []string{"Cache-Control: private, max-age=0"}},
		{"second", by(macAgent, "GET go.example.com /a"), 302, "https://used.test/A%2017", "limit", nil},
		{"another link has its own", by(macAgent, "GET go.example.com /b"), 302, "https://shop.test/b", "redirect", nil},
		{"own, first", by(macAgent, "GET go.example.com /own"), 302, "https://shop.test/c?utm_source=own", "redirect", nil},
		{"own, second", by(macAgent, "GET go.example.com /own"), 302, "https://own.test/limit", "limit", nil},
	})
	step("a password", func(set *terse.LinkSettings) { set.PasswordHash = hash }, []visitRow{
		{"asked for", by(macAgent, "GET go.example.com /a"), 200, `name="password"`, "password", nil},
		{"of a link elsewhere, too", by(macAgent, "GET go.example.com /away"), 200, `name="password"`, "password", nil},
		{"entered", by(macAgent, "POST go.example.com /a") + "\nContent-Type: application/x-www-form-urlencoded\nContent-Length: 15\n\npassword=s3cret", 303, "https://shop.test/A%2017", "redirect", nil},
	})
	step("a setting of a later version", web(terse.LinkWeb{QueryMode: "shuffle"}), []visitRow{
		{"is not ignored", "GET go.example.com /a", 503, "Please try again", "", nil},
	})
	w.change(c, func(c *terse.Campaign) {
		c.Settings = terse.LinkSettings{ExpiredDestination: "https://over.test/?was={sku}"}
		c.ExpiresAt = testNow
	})
	runVisits(t, w, []visitRow{
		{"ended", "GET go.example.com /a", 302, "https://over.test/?was=A%2017", "expired", nil},
	})
}

// TestCampaignSettingsAllocs: a cached link under a campaign with settings costs no allocation, whether they are the
// same for all links or not.
func TestCampaignSettingsAllocs(t *testing.T) {
	for _, source := range []string{"mail", "{sku}"} {
		w := newWorld(t)
		c := w.campaign("https://shop.example/p/{sku}", "sku")
		w.change(c, func(c *terse.Campaign) {
			c.Settings.Web = &terse.LinkWeb{UTM: &terse.UTM{Source: source}, NoIndex: new(false)}
		})
		l := w.link("go.example.com", "one", "", func(l *terse.Link) { l.Campaign, l.Values = c.ID, "A17" })
		loaded, err := w.server.compileShared(context.Background(), &l)
		if err != nil {
			t.Fatal(err)
		}
		d := w.domains.ByName("go.example.com")
		r := &request{}
		var v decision
		visit := func() {
			under, err := loaded.Value.under(&r.link, &r.expanded)
			if err != nil {
				t.Fatal(err)
			}
			v = decide(&r.location, d, under, &facts{now: testNow, keys: &r.keys})
		}
		visit()
		if n := testing.AllocsPerRun(100, visit); n != 0 {
			t.Errorf("%v allocations with %s", n, source)
		}
		if want := "?utm_source=" + strings.ReplaceAll(source, "{sku}", "A17"); !strings.HasSuffix(string(v.location), want) {
			t.Errorf("location %s, want %s", v.location, want)
		}
		if kept := loaded.Value.shared.settled.Load() != nil; kept == (source == "mail") {
			t.Errorf("with %s, kept for the link alone: %v", source, kept)
		}
	}
}

// TestCampaignSettingsBounded: a link that was cached before its campaign said so much keeps none of it, because the
// cache counts what a link has when it is cached.
func TestCampaignSettingsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.campaign("https://shop.example/p/{sku}", "sku")
	l := w.link("go.example.com", "one", "", func(l *terse.Link) { l.Campaign, l.Values = c.ID, "A17" })
	loaded, err := w.server.compileShared(t.Context(), &l)
	if err != nil {
		t.Fatal(err)
	}
	w.change(c, func(c *terse.Campaign) { c.Settings.Web = &terse.LinkWeb{OGTitle: "For {sku}"} })
	r := &request{}
	under, err := loaded.Value.under(&r.link, &r.expanded)
	if err != nil || under.special.instead.graph.title != "For A17" {
		t.Fatalf("%+v, %v", under, err)
	}
	if loaded.Value.shared.settled.Load() != nil {
		t.Error("it is kept")
	}
	again, err := w.server.compileShared(t.Context(), &l)
	if err != nil || again.Bytes <= loaded.Bytes || again.Value.shared.settled.Load() == nil {
		t.Errorf("cached anew: %d bytes after %d, %v", again.Bytes, loaded.Bytes, err)
	}
}

// TestCampaignOutgrown: a link whose campaign says more than there was room for when it was cached is cached anew
// after a visit.
func TestCampaignOutgrown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.campaign("https://shop.example/p/{sku}", "sku")
		l := w.link("go.example.com", "one", "", func(l *terse.Link) { l.Campaign, l.Values = c.ID, "A17" })
		w.want("/one", 302, "https://shop.example/p/A17")
		w.change(c, func(c *terse.Campaign) { c.Settings.Web = &terse.LinkWeb{UTM: &terse.UTM{Source: "{sku}"}} })
		w.want("/one", 302, "https://shop.example/p/A17?utm_source=A17")
		synctest.Wait() // for the load
		key := cache.AppendKey(nil, l.Number.Domain(), "one")
		if cached := w.server.cache.Get(key, testNow); cached == nil || cached.shared.settled.Load() == nil {
			t.Errorf("%+v: compiled with each visit", cached)
		}
		w.want("/one", 302, "https://shop.example/p/A17?utm_source=A17")
		if n := w.server.cache.Stats().Refreshes; n != 1 {
			t.Errorf("read again %d times", n)
		}
	})
}

// BenchmarkCampaignOutgrown is a visit of a link that was cached before its campaign said more than others share.
func BenchmarkCampaignOutgrown(b *testing.B) {
	w := newWorld(b, quiet)
	c := w.campaign("https://shop.example/p/{sku}", "sku")
	w.link("go.example.com", "one", "", func(l *terse.Link) { l.Campaign, l.Values = c.ID, "A17" })
	p := newPlainer(w.server)
	raw := []byte("GET /one HTTP/1.1\r\n" + browserHeaders + "\r\n")
	w.want("/one", 302, "https://shop.example/p/A17")
	w.change(c, func(c *terse.Campaign) { c.Settings.Web = &terse.LinkWeb{UTM: &terse.UTM{Source: "{sku}"}} })
	b.ReportAllocs()
	for b.Loop() {
		p.out = p.out[:0]
		if _, step := p.answer(raw, somePeer.Addr(), 1, testNow); step != stepNext {
			b.Fatal("not cached")
		}
	}
}
