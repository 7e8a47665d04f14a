package redirect

import (
	"encoding/base64"
	"html/template"
	"net/url"
	"strings"
	"testing"

	"github.com/alexedwards/argon2id"
	"golang.org/x/net/html"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/code"
	"github.com/terselink/terse/internal/destination"
	"github.com/terselink/terse/internal/domains"
)

const (
	iphoneAgent = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1"
	ipadAgent   = "Mozilla/5.0 (iPad; CPU OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Mobile/15E148 Safari/604.1"
	slackAgent  = "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"
	whatsAgent  = "WhatsApp/2.23.20.0 A"
	robotPhone  = "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Mobile Safari/537.36 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
)

// by makes a request of an agent.
func by(agent, request string) string { return request + "\nUser-Agent: " + agent }

// interstitialsOn lets workspace 1 show pages before destinations.
func interstitialsOn(w *world) {
	w.server.o.Interstitials = func(id terse.WorkspaceID) bool { return id == 1 }
}

// TestSpecPhones is the specification of where telephones are sent.
func TestSpecPhones(t *testing.T) {
	t.Parallel()
	w := specialWorld(t)
	w.domain(domains.New{Host: "fwd.example.com", ForwardQuery: true, SMaxAge: 30, UTM: &terse.UTM{Source: "d"}})
	const web, appStore, play = "https://x.test/web?a=1", "https://apps.test/id1", "https://play.test/id1"
	for _, host := range []string{"go.example.com", "fwd.example.com"} {
		w.link(host, "links", web, webLink(terse.LinkWeb{IOSDestination: "https://ios.test/u", AndroidDestination: "https://android.test/u"}))
		w.link(host, "apps", web, webLink(terse.LinkWeb{IOSDestination: "myapp://item/7?x=1", IOSStore: appStore, AndroidDestination: "myapp://item/8", AndroidStore: play}))
		w.link(host, "bare", web, webLink(terse.LinkWeb{IOSDestination: "myapp://item/7"}))
		w.link(host, "stores", web, webLink(terse.LinkWeb{IOSStore: appStore, AndroidStore: play}))
		w.link(host, "ruled", web, settings(terse.LinkSettings{Rules: []terse.Rule{to("https://de.test/", on("country", "", "DE"))},
			Web: &terse.LinkWeb{IOSDestination: "https://ios.test/u", AndroidStore: play}}))
		w.link(host, "old", web, webLink(terse.LinkWeb{IOSDestination: "myapp://item/7"}), func(l *terse.Link) { l.ExpiresAt = testNow })
		w.link(host, "path", web, settings(terse.LinkSettings{ForwardPath: true, Web: &terse.LinkWeb{IOSDestination: "myapp://item", AndroidDestination: "https://android.test/u"}}))
		w.link(host, "moved", web, webLink(terse.LinkWeb{IOSDestination: "https://ios.test/u"}), func(l *terse.Link) { l.RedirectStatus = 301 })
		w.link(host, "once", web, settings(terse.LinkSettings{MaxClicks: 1, Web: &terse.LinkWeb{IOSDestination: "myapp://item/7"}}))
	}
	w.listen()
	open := func(app string) string { return `<a id="open" href="` + app + `">Open the app</a>` }
	rows := []visitRow{
		{"a desktop", by(macAgent, "GET go.example.com /links"), 302, web, "redirect", []string{"Cache-Control: private, max-age=0"}},
		{"an iPhone", by(iphoneAgent, "GET go.example.com /links"), 302, "https://ios.test/u", "redirect", []string{"Cache-Control: private, max-age=0"}},
		{"an iPad that says so", by(ipadAgent, "GET go.example.com /links"), 302, "https://ios.test/u", "redirect", nil},
		{"Android", by(phoneAgent, "GET go.example.com /links"), 302, "https://android.test/u", "redirect", nil},
		{"Android, by client hint", by(macAgent, "GET go.example.com /links") + "\nSec-CH-UA-Platform: \"Android\"", 302, "https://android.test/u", "redirect", nil},
		{"an iPhone, HEAD", by(iphoneAgent, "HEAD go.example.com /links"), 302, "https://ios.test/u", "redirect head", nil},
		{"an iPhone, preview page", by(iphoneAgent, "GET go.example.com /links+"), 200, "https://ios.test/u", "", nil},
		{"an app on an iPhone, preview page", by(iphoneAgent, "GET go.example.com /apps+"), 200, `<a href="myapp://item/7?x=1" rel="noopener noreferrer nofollow">myapp://item/7?x=1</a>`, "", nil},
		{"a crawler that says Android", by(robotPhone, "GET go.example.com /links"), 302, web, "redirect", nil},
		{"a program", by("curl/8.9.1", "GET go.example.com /links"), 302, web, "redirect", nil},
		{"no agent at all", "GET go.example.com /links", 302, web, "redirect", nil},
		{"the status is the link's", by(iphoneAgent, "GET go.example.com /moved"), 301, "https://ios.test/u", "redirect", nil},
		{"never shared", by(macAgent, "GET fwd.example.com /links"), 302, web + "&utm_source=d", "redirect", []string{"Cache-Control: private, max-age=0"}},
		{"query and UTM go along", by(iphoneAgent, "GET fwd.example.com /links?b=2"), 302, "https://ios.test/u?b=2&utm_source=d", "redirect", nil},
		{"path goes along", by(phoneAgent, "GET go.example.com /path/x"), 302, "https://android.test/u/x", "redirect", nil},

		{"an app on an iPhone is a page", by(iphoneAgent, "GET go.example.com /apps"), 200, open("myapp://item/7?x=1"), "redirect", []string{"Referrer-Policy: strict-origin-when-cross-origin", "X-Robots-Tag: noindex"}},
		{"with the store", by(iphoneAgent, "GET go.example.com /apps"), 200, `<a id="get" href="` + appStore + `">Get the app</a>`, "redirect", nil},
		{"and the web", by(iphoneAgent, "GET go.example.com /apps"), 200, `<a id="web" href="https://x.test/web?a=1">Continue in the browser</a>`, "redirect", nil},
		{"an app on Android", by(phoneAgent, "GET go.example.com /apps"), 200, open("myapp://item/8"), "redirect", nil},
		{"with its own store", by(phoneAgent, "GET go.example.com /apps"), 200, `<a id="get" href="` + play + `">`, "redirect", nil},
		{"an app, HEAD", by(iphoneAgent, "HEAD go.example.com /apps"), 200, "", "redirect head", nil},
		{"an app in German", by(iphoneAgent, "GET go.example.com /apps") + "\nAccept-Language: de", 200, "App öffnen", "redirect", []string{"Content-Language: de"}},
		{"an app, a desktop", by(windowsAgent, "GET go.example.com /apps"), 302, web, "redirect", nil},
		{"an app, a link preview", by(slackAgent, "GET go.example.com /apps"), 302, web, "redirect", nil},
		{"an app without store", by(iphoneAgent, "GET go.example.com /bare"), 200, `<a id="open" href="myapp://item/7">Open the app</a><a id="web"`, "redirect", nil},
		{"an app of the other system only", by(phoneAgent, "GET go.example.com /bare"), 302, web, "redirect", nil},
		{"an app, query and UTM", by(iphoneAgent, "GET fwd.example.com /apps?b=2"), 200, open("myapp://item/7?x=1&amp;b=2&amp;utm_source=d"), "redirect", nil},
		{"the web behind it, query and UTM", by(iphoneAgent, "GET fwd.example.com /apps?b=2"), 200, `href="https://x.test/web?a=1&amp;b=2&amp;utm_source=d"`, "redirect", nil},
		{"an app, path", by(iphoneAgent, "GET go.example.com /path/7"), 200, open("myapp://item/7"), "redirect", nil},
		{"an app, path that climbs", by(iphoneAgent, "GET go.example.com /path/../7"), 404, "Link not found", "notfound", nil},

		{"stores alone, iPhone", by(iphoneAgent, "GET go.example.com /stores"), 302, appStore, "redirect", nil},
		{"stores alone, Android", by(phoneAgent, "GET go.example.com /stores"), 302, play, "redirect", nil},
		{"stores alone, desktop", by(macAgent, "GET go.example.com /stores"), 302, web, "redirect", nil},
		{"a rule comes first", by(iphoneAgent, "GET go.example.com /ruled") + "\nX-Forwarded-For: 192.0.2.1", 302, "https://de.test/", "redirect", nil},
		{"no rule matches", by(iphoneAgent, "GET go.example.com /ruled") + "\nX-Forwarded-For: 198.51.100.1", 302, "https://ios.test/u", "redirect", nil},
		{"no rule matches, Android", by(phoneAgent, "GET go.example.com /ruled"), 302, play, "redirect", nil},
		{"an ended link opens nothing", by(iphoneAgent, "GET go.example.com /old"), 410, "This link has ended", "expired", nil},
		{"an app uses a click", by(iphoneAgent, "GET go.example.com /once"), 200, open("myapp://item/7"), "redirect", nil},
		{"an app, used up", by(iphoneAgent, "GET go.example.com /once"), 410, "This link has ended", "limit", nil},
	}
	runVisits(t, w, rows)
}

// TestSpecGraph is the specification of what agents that make link previews get.
func TestSpecGraph(t *testing.T) {
	t.Parallel()
	w := specialWorld(t)
	w.domain(domains.New{Host: "brand.example.com", Brand: &terse.Brand{Name: "Acme"}})
	const dest = "https://x.test/"
	for _, host := range []string{"go.example.com", "brand.example.com"} {
		w.link(host, "plain", dest)
		w.link(host, "all", dest, webLink(terse.LinkWeb{OGTitle: "Black <Friday> & \"more\"", OGDescription: "50 % off", OGImage: "https://i.test/a.png?x=1&y=2"}))
		w.link(host, "image", dest, settings(terse.LinkSettings{Title: "The title", Web: &terse.LinkWeb{OGImage: "https://i.test/a.png"}}))
		w.link(host, "text", dest, webLink(terse.LinkWeb{OGDescription: "only text"}))
		w.link(host, "titled", dest, settings(terse.LinkSettings{Title: "The title"}))
		w.link(host, "old", dest, webLink(terse.LinkWeb{OGTitle: "T"}), func(l *terse.Link) { l.ExpiresAt = testNow })
		w.link(host, "off", dest, webLink(terse.LinkWeb{OGTitle: "T"}), func(l *terse.Link) { l.Status = terse.StatusDisabled })
		w.link(host, "locked", dest, settings(terse.LinkSettings{PasswordHash: "x", Web: &terse.LinkWeb{OGTitle: "T"}}))
		w.link(host, "once", dest, settings(terse.LinkSettings{MaxClicks: 1, Web: &terse.LinkWeb{OGTitle: "T"}}))
		w.link(host, "ruled", dest, settings(terse.LinkSettings{Rules: []terse.Rule{to("https://bot.test/", on("bot", "", "preview"))}, Web: &terse.LinkWeb{OGTitle: "T"}}))
	}
	w.listen()
	rows := []visitRow{
		{"an agent and a link that says nothing", by(slackAgent, "GET go.example.com /plain"), 302, dest, "redirect", nil},
		{"a title alone is for people", by(slackAgent, "GET go.example.com /titled"), 302, dest, "redirect", nil},
		{"title", by(slackAgent, "GET go.example.com /all"), 200, `<meta property="og:title" content="Black &lt;Friday&gt; &amp; &#34;more&#34;">`, "preview", []string{"X-Robots-Tag: noindex", "Cache-Control: no-store"}},
		{"description", by(previewAgent, "GET go.example.com /all"), 200, `<meta property="og:description" content="50 % off">`, "preview", nil},
		{"image", by(whatsAgent, "GET go.example.com /all"), 200, `<meta property="og:image" content="https://i.test/a.png?x=1&amp;y=2">`, "preview", nil},
		{"a large card with an image", by(slackAgent, "GET go.example.com /all"), 200, `content="summary_large_image"`, "preview", nil},
		{"the short URL", by(slackAgent, "GET go.example.com /all"), 200, `<meta property="og:url" content="https://go.example.com/all">`, "preview", nil},
		{"the title of the link in place of its own", by(slackAgent, "GET go.example.com /image"), 200, `<meta property="og:title" content="The title">`, "preview", nil},
		{"the host in place of a title", by(slackAgent, "GET go.example.com /text"), 200, `<meta property="og:title" content="go.example.com">`, "preview", nil},
		{"the brand in place of a title", by(slackAgent, "GET brand.example.com /text"), 200, `<meta property="og:title" content="Acme">`, "preview", nil},
		{"the brand is the site", by(slackAgent, "GET brand.example.com /all"), 200, `<meta property="og:site_name" content="Acme">`, "preview", nil},
		{"a small card without an image", by(slackAgent, "GET go.example.com /text"), 200, `content="summary"`, "preview", nil},
		{"HEAD of an agent", by(slackAgent, "HEAD go.example.com /all"), 200, "", "preview head", nil},
		{"a scan of an agent", by(slackAgent, "GET go.example.com /all?qr=1"), 200, "og:title", "preview qr", nil},
		{"a person", by(macAgent, "GET go.example.com /all"), 302, dest, "redirect", []string{"Cache-Control: private, max-age=0"}},
		{"a person on a telephone", by(phoneAgent, "GET go.example.com /all"), 302, dest, "redirect", nil},
		{"a search engine", by(crawlerAgent, "GET go.example.com /all"), 302, dest, "redirect", nil},
		{"a program", by("curl/8.9.1", "GET go.example.com /all"), 302, dest, "redirect", nil},
		{"no agent at all", "GET go.example.com /all", 302, dest, "redirect", nil},
		{"the preview page of a person", by(macAgent, "GET go.example.com /all+"), 200, "Where this link leads", "", nil},
		{"expired", by(slackAgent, "GET go.example.com /old"), 410, "This link has ended", "expired", nil},
		{"disabled", by(slackAgent, "GET go.example.com /off"), 410, "This link has ended", "disabled", nil},
		{"a password comes first", by(slackAgent, "GET go.example.com /locked"), 200, "Password needed", "password", nil},
		{"an agent uses no click", by(slackAgent, "GET go.example.com /once"), 200, "og:title", "preview", nil},
		{"an agent uses no click, again", by(slackAgent, "GET go.example.com /once"), 200, "og:title", "preview", nil},
		{"a person does", by(macAgent, "GET go.example.com /once"), 302, dest, "redirect", nil},
		{"used up, for agents too", by(slackAgent, "GET go.example.com /once"), 410, "This link has ended", "limit", nil},
		{"a rule for agents does not matter", by(slackAgent, "GET go.example.com /ruled"), 200, `content="T"`, "preview", nil},
	}
	runVisits(t, w, rows)
}

// TestSpecBetween is the specification of pages between a link and its destination.
func TestSpecBetween(t *testing.T) {
	t.Parallel()
	w := specialWorld(t)
	interstitialsOn(w)
	const dest = "https://x.test/a?b=c&d=e"
	pixels := []terse.Pixel{{Provider: "meta", ID: "1234567890"}, {Provider: "google_ads", ID: "987654321"}}
	hash, err := argon2id.CreateHash("open", &argon2id.Params{Memory: 64, Iterations: 1, Parallelism: 1, SaltLength: 16, KeyLength: 32})
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := func(l *terse.Link) { l.Workspace = 2 }
	w.link("go.example.com", "px", dest, webLink(terse.LinkWeb{Pixels: pixels}))
	w.link("go.example.com", "px-off", dest, webLink(terse.LinkWeb{Pixels: pixels}), elsewhere)
	w.link("go.example.com", "px-quiet", dest, webLink(terse.LinkWeb{Pixels: pixels, ReferrerPolicy: "no-referrer"}))
	w.link("go.example.com", "px-old", dest, webLink(terse.LinkWeb{Pixels: pixels}), func(l *terse.Link) { l.ExpiresAt = testNow })
	w.link("go.example.com", "px-once", dest, settings(terse.LinkSettings{MaxClicks: 1, Web: &terse.LinkWeb{Pixels: pixels}}))
	w.link("go.example.com", "px-locked", dest, settings(terse.LinkSettings{PasswordHash: hash, Web: &terse.LinkWeb{Pixels: pixels}}))
	w.link("go.example.com", "px-ruled", dest, settings(terse.LinkSettings{Rules: []terse.Rule{to("https://de.test/", on("country", "", "DE"))}, Web: &terse.LinkWeb{Pixels: pixels}}))
	w.link("go.example.com", "px-graph", dest, webLink(terse.LinkWeb{Pixels: pixels, OGTitle: "T"}))
	w.link("go.example.com", "px-app", dest, webLink(terse.LinkWeb{Pixels: pixels, IOSDestination: "myapp://x"}))
	w.link("go.example.com", "cloak", dest, settings(terse.LinkSettings{Title: "Shop <1>", Web: &terse.LinkWeb{Cloak: true}}))
	w.link("go.example.com", "cloak-off", dest, webLink(terse.LinkWeb{Cloak: true}), elsewhere)
	w.link("go.example.com", "cloak-px", "https://www.x.test/", webLink(terse.LinkWeb{Cloak: true, Pixels: pixels}))
	w.link("go.example.com", "later", dest, webLink(terse.LinkWeb{Pixels: []terse.Pixel{{Provider: "future", ID: "1"}}}))
	w.listen()
	const (
		refresh = "Refresh: 1; url=https://x.test/a?b=c&d=e"
		metaImg = `<img class="px" src="https://www.facebook.com/tr?id=1234567890&amp;ev=PageView&amp;noscript=1" alt="">`
		frame   = `<iframe src="https://x.test/a?b=c&amp;d=e" title="Shop &lt;1&gt;"></iframe>`
	)
	csp := func(rest string) string {
		return "Content-Security-Policy: default-src 'none'; style-src " + hashSource(style) + rest + "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	}
	images := "; img-src https://www.facebook.com https://googleads.g.doubleclick.net https://www.google.com"
	rows := []visitRow{
		{"a person", by(macAgent, "GET go.example.com /px"), 200, metaImg, "redirect", []string{refresh, csp(images), "Referrer-Policy: strict-origin-when-cross-origin", "Cache-Control: no-store"}},
		{"both pixels", by(macAgent, "GET go.example.com /px"), 200, "/987654321/?guid=ON", "redirect", nil},
		{"where it leads is shown", by(macAgent, "GET go.example.com /px"), 200, `<a href="https://x.test/a?b=c&amp;d=e"`, "redirect", nil},
		{"in French", by(macAgent, "GET go.example.com /px") + "\nAccept-Language: fr", 200, "Un instant", "redirect", []string{"Content-Language: fr"}},
		{"HEAD", by(macAgent, "HEAD go.example.com /px"), 200, "", "redirect head", []string{refresh}},
		{"Global Privacy Control", by(macAgent, "GET go.example.com /px") + "\nSec-GPC: 1", 302, dest, "redirect optout", []string{"Cache-Control: private, max-age=0", "Refresh"}},
		{"Do Not Track", by(macAgent, "GET go.example.com /px") + "\nDNT: 1", 302, dest, "redirect optout", nil},
		{"a choice not to object", by(macAgent, "GET go.example.com /px") + "\nDNT: 0\nSec-GPC: 0", 200, metaImg, "redirect", nil},
		{"prefetch", by(macAgent, "GET go.example.com /px") + "\nSec-Purpose: prefetch", 302, dest, "redirect prefetch", nil},
		{"a search engine", by(crawlerAgent, "GET go.example.com /px"), 302, dest, "redirect", nil},
		{"a program", by("curl/8.9.1", "GET go.example.com /px"), 302, dest, "redirect", nil},
		{"no agent at all", "GET go.example.com /px", 302, dest, "redirect", nil},
		{"a workspace that has them switched off", by(macAgent, "GET go.example.com /px-off"), 302, dest, "redirect", nil},
		{"the policy of the link", by(macAgent, "GET go.example.com /px-quiet"), 200, metaImg, "redirect", []string{"Referrer-Policy: no-referrer"}},
		{"an ended link", by(macAgent, "GET go.example.com /px-old"), 410, "This link has ended", "expired", []string{"Refresh"}},
		{"a click is used", by(macAgent, "GET go.example.com /px-once"), 200, metaImg, "redirect", nil},
		{"used up", by(macAgent, "GET go.example.com /px-once"), 410, "This link has ended", "limit", nil},
		{"a password comes first", by(macAgent, "GET go.example.com /px-locked"), 200, "Password needed", "password", []string{"Refresh"}},
		{"a rule says where", by(macAgent, "GET go.example.com /px-ruled") + "\nX-Forwarded-For: 192.0.2.1", 200, `<a href="https://de.test/"`, "redirect", []string{"Refresh: 1; url=https://de.test/"}},
		{"a link preview has its own page", by(slackAgent, "GET go.example.com /px-graph"), 200, "og:title", "preview", []string{"Refresh"}},
		{"an app comes first", by(iphoneAgent, "GET go.example.com /px-app"), 200, `id="open" href="myapp://x"`, "redirect", []string{"Refresh"}},
		{"the page that shows where it leads", by(macAgent, "GET go.example.com /px+"), 200, "Where this link leads", "", []string{"Refresh"}},
		{"a frame", by(macAgent, "GET go.example.com /cloak"), 200, frame, "redirect", []string{"Refresh", csp("; frame-src https://x.test https://*.x.test")}},
		{"a frame with its title", by(macAgent, "GET go.example.com /cloak"), 200, "<title>Shop &lt;1&gt;</title>", "redirect", nil},
		{"a frame, who objects to be followed", by(macAgent, "GET go.example.com /cloak") + "\nSec-GPC: 1", 200, frame, "redirect optout", nil},
		{"a frame, a search engine", by(crawlerAgent, "GET go.example.com /cloak"), 302, dest, "redirect", nil},
		{"a frame, switched off", by(macAgent, "GET go.example.com /cloak-off"), 302, dest, "redirect", nil},
		{"a frame with pixels", by(macAgent, "GET go.example.com /cloak-px"), 200, metaImg, "redirect", []string{csp(images + "; frame-src https://x.test https://*.x.test")}},
		{"a frame with pixels, who objects", by(macAgent, "GET go.example.com /cloak-px") + "\nSec-GPC: 1", 200, `<iframe src="https://www.x.test/" title="go.example.com"></iframe>` + "\n</body>", "redirect optout", []string{csp("; frame-src https://x.test https://*.x.test")}},
		{"a provider of a later version", by(macAgent, "GET go.example.com /later"), 503, "Please try again", "", nil},
	}
	runVisits(t, w, rows)

	// The right password leads to the page at once, with the cookie.
	ctx := newCtx(t, "POST /px-locked HTTP/1.1\r\nHost: go.example.com\r\nUser-Agent: "+macAgent+"\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n")
	ctx.Request.SetBodyString("password=open")
	w.server.handle(ctx)
	if h := ctx.Response.Header.String(); ctx.Response.StatusCode() != 200 || !strings.Contains(h, "terse_pw=") || !strings.Contains(h, refresh) || !strings.Contains(string(ctx.Response.Body()), metaImg) {
		t.Errorf("after the password:\n%s", h)
	}
}

// TestSpecBrand is the specification of what a brand changes.
func TestSpecBrand(t *testing.T) {
	t.Parallel()
	w := specialWorld(t)
	logo := "data:image/png;base64," + base64.StdEncoding.EncodeToString([]byte("\x89PNG\r\n\x1a\n+/="))
	w.domain(domains.New{Host: "a.example.com", Brand: &terse.Brand{Name: "Acme & Söhne <x>", Accent: "#ffcc00", Logo: logo, SupportURL: "https://acme.test/help?a=b&c=d"}})
	w.domain(domains.New{Host: "b.example.com", Brand: &terse.Brand{Name: "Bcme", Logo: "https://cdn.test:8443/logo.svg", SupportURL: "mailto:help@acme.test"}})
	w.domain(domains.New{Host: "c.example.com", Brand: &terse.Brand{Accent: "#102030"}})
	for _, host := range []string{"a.example.com", "b.example.com", "c.example.com"} {
		w.link(host, "off", "https://x.test/", func(l *terse.Link) { l.Status = terse.StatusDisabled })
		w.link(host, "blocked", "https://x.test/", func(l *terse.Link) { l.Status = terse.StatusBlocked })
		w.link(host, "locked", "https://x.test/", settings(terse.LinkSettings{PasswordHash: "x"}))
		w.link(host, "plain", "https://x.test/")
		w.link(host, "later", "https://x.test/", func(l *terse.Link) { l.Status = 99 }) // of a later version: it cannot be read
	}
	w.listen()
	css := func(accent, on string) string { return style + ":root{--accent:" + accent + ";--on:" + on + "}" }
	csp := func(css, images string) string {
		return "Content-Security-Policy: default-src 'none'; style-src " + hashSource(css) + images + "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	}
	const help = `<a href="https://acme.test/help?a=b&amp;c=d" rel="noopener nofollow">Help and contact</a>`
	rows := []visitRow{
		{"404", "GET a.example.com /nobody", 404, "<title>Link not found · Acme &amp; Söhne &lt;x&gt;</title>", "notfound", []string{csp(css("#ffcc00", "#000"), "; img-src data:")}},
		{"404, the logo", "GET a.example.com /nobody", 404, `<header><img src="` + strings.ReplaceAll(logo, "+", "&#43;") + `" alt="Acme &amp; Söhne &lt;x&gt;"></header>`, "notfound", nil},
		{"404, the colour", "GET a.example.com /nobody", 404, "--accent:#ffcc00;--on:#000", "notfound", nil},
		{"404, help", "GET a.example.com /nobody", 404, help, "notfound", nil},
		{"404, HEAD", "HEAD a.example.com /nobody", 404, "", "notfound head", nil},
		{"404 in Japanese", "GET a.example.com /nobody\nAccept-Language: ja", 404, "ヘルプとお問い合わせ", "notfound", []string{"Content-Language: ja"}},
		{"410", "GET a.example.com /off", 410, help, "disabled", nil},
		{"451", "GET a.example.com /blocked", 451, help, "blocked", nil},
		{"451, whom to ask", "GET b.example.com /blocked", 451, `href="mailto:help@acme.test"`, "blocked", nil},
		{"503", "GET a.example.com /later", 503, help, "", []string{csp(css("#ffcc00", "#000"), "; img-src data:"), "Retry-After: 1"}},
		{"503 in German", "GET b.example.com /later\nAccept-Language: de", 503, "<title>Bitte noch einmal versuchen · Bcme</title>", "", []string{"Content-Language: de"}},
		{"503 of another domain", "GET go.example.com /later", 404, "<title>Link not found</title>", "notfound", nil},
		{"the form", "GET a.example.com /locked", 200, help, "password", []string{"Content-Security-Policy: default-src 'none'; style-src " + hashSource(css("#ffcc00", "#000")) + "; img-src data:; base-uri 'none'; frame-ancestors 'none'"}},
		{"the root", "GET a.example.com /", 200, help, "", nil},
		{"the preview page", "GET a.example.com /plain+", 200, help, "", []string{csp(css("#ffcc00", "#000"), "; img-src data:")}},
		{"a logo elsewhere", "GET b.example.com /nobody", 404, `<img src="https://cdn.test:8443/logo.svg" alt="Bcme">`, "notfound", []string{csp(style, "; img-src https://cdn.test:8443")}},
		{"white on a dark colour", "GET c.example.com /nobody", 404, "--accent:#102030;--on:#fff", "notfound", []string{csp(css("#102030", "#fff"), "")}},
		{"a colour alone", "GET c.example.com /nobody", 404, "<body>\n<main>", "notfound", nil},
		{"another domain", "GET go.example.com /nobody", 404, "<title>Link not found</title>", "notfound", []string{csp(style, "")}},
		{"an unknown host", "GET other.example.com /nobody", 404, "<title>Link not found</title>", "", []string{csp(style, "")}},
		{"redirects have no brand", "GET a.example.com /plain", 302, "https://x.test/", "redirect", nil},
	}
	runVisits(t, w, rows)
}

// TestBrandChanges: the next page after a change of the domain is the new one.
func TestBrandChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.domain(domains.New{Host: "a.example.com", Brand: &terse.Brand{Name: "First"}})
	ctx := newCtx(t, "GET /nobody HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
	for _, name := range []string{"First", "Second", "Third"} {
		if _, err := w.domains.Update(t.Context(), 1, "a.example.com", domains.Patch{Brand: &terse.Brand{Name: name}}, 0); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			ctx.Response.Reset()
			w.server.handle(ctx)
			if body := string(ctx.Response.Body()); !strings.Contains(body, "<header>"+name+"</header>") {
				t.Errorf("after the change to %s:\n%s", name, body)
			}
		}
	}
	if n := w.server.skins.kept.Load(); n <= 0 || n > 64<<10 {
		t.Errorf("%d bytes of pages are kept", n)
	}
}

// TestBrandedPageSize: the largest brand leaves every page below 15 KB.
func TestBrandedPageSize(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const logo = "data:image/png;base64,"
	d := w.domain(domains.New{Host: "a.example.com", Brand: &terse.Brand{
		Name: strings.Repeat("&", domains.MaxBrandName), Accent: "#ffffff", SupportURL: "https://example.com/?" + strings.Repeat("&", domains.MaxSupportURL-21),
		Logo: logo + strings.Repeat("A", (domains.MaxLogo-len(logo))/4*4),
	}})
	k := w.server.skins.of(d)
	for p := range pageCount {
		for l := range language(languageCount) {
			if n := len(k.get(p, l)); n >= 15<<10 {
				t.Errorf("page %d in %s has %d bytes", p, languages[l], n)
			}
		}
	}
}

// TestLongDestinations: beside the addresses that a page must hold it stays below 15 KB, and a destination stands in it whole once.
func TestLongDestinations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const logo = "data:image/png;base64,"
	d := w.domain(domains.New{Host: "a.example.com", Brand: &terse.Brand{
		Name: strings.Repeat("&", domains.MaxBrandName), Accent: "#ffffff", SupportURL: "https://example.com/?" + strings.Repeat("&", domains.MaxSupportURL-21),
		Logo: logo + strings.Repeat("A", (domains.MaxLogo-len(logo))/4*4),
	}})
	to := "https://" + strings.Repeat("a.", 120) + "example/?"
	to += strings.Repeat("&", destination.MaxLen-len(to))
	short := "https://a.example.com/" + strings.Repeat("%C3%A9", code.MaxAlias/2)
	k := w.server.skins.of(d)
	for l := range language(languageCount) {
		for p, data := range map[page]*pageData{
			pagePreview: {Destination: to, Short: short},
			pageForward: {Destination: to},
			pageApp:     {App: &appData{Open: template.URL(to), Store: template.URL(to), Web: template.URL(to), OpenWord: appWords[l][0], StoreWord: appWords[l][1], WebWord: appWords[l][2], Script: template.JS(openScript)}},
		} {
			body, err := k.render(p, l, data)
			if err != nil {
				t.Fatal(err)
			}
			whole := html.EscapeString(to)
			times, want := strings.Count(string(body), whole), 1
			if p == pageApp {
				want = 3
			}
			if times != want {
				t.Errorf("page %d in %s has the destination whole %d times, want %d", p, languages[l], times, want)
			}
			if n := len(body) - times*len(whole); n >= 15<<10 {
				t.Errorf("page %d in %s has %d bytes beside the destination", p, languages[l], n)
			}
		}
	}
}

// parsed is what a browser makes of a page.
type parsed struct {
	meta    map[string]string // property or name -> content
	links   []string
	scripts []string
	tags    map[string]int
	title   string
}

func parsePage(t testing.TB, body []byte) parsed {
	t.Helper()
	root, err := html.Parse(strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	p := parsed{meta: map[string]string{}, tags: map[string]int{}}
	var walk func(n *html.Node)
	walk = func(n *html.Node) {
		if n.Type == html.ElementNode {
			p.tags[n.Data]++
			attr := map[string]string{}
			for _, a := range n.Attr {
				attr[a.Key] = a.Val
				if strings.HasPrefix(a.Key, "on") {
					p.tags["on-attribute"]++
				}
			}
			switch n.Data {
			case "meta":
				p.meta[attr["property"]+attr["name"]] = attr["content"]
			case "a":
				p.links = append(p.links, attr["href"])
			case "script":
				p.scripts = append(p.scripts, n.FirstChild.Data)
			case "title":
				p.title = n.FirstChild.Data
			}
		}
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			walk(c)
		}
	}
	walk(root)
	return p
}

// TestAppPage: the one script is the one that the policy lets in, and it stands as it was written.
func TestAppPage(t *testing.T) {
	t.Parallel()
	w := specialWorld(t)
	w.link("go.example.com", "app", "https://x.test/", webLink(terse.LinkWeb{IOSDestination: `myapp://x?'"<>&`, IOSStore: "https://apps.test/"}))
	ctx := newCtx(t, "GET /app HTTP/1.1\r\nHost: go.example.com\r\nUser-Agent: "+iphoneAgent+"\r\n\r\n")
	w.server.handle(ctx)
	p := parsePage(t, ctx.Response.Body())
	if len(p.scripts) != 1 || !strings.Contains(ctx.Response.Header.String(), "; script-src "+hashSource(p.scripts[0])+";") {
		t.Errorf("scripts %q\n%s", p.scripts, ctx.Response.Header.String())
	}
	if p.tags["on-attribute"] != 0 || len(p.links) != 3 {
		t.Fatalf("%v %q", p.tags, p.links)
	}
	if got, err := url.QueryUnescape(p.links[0]); err != nil || got != `myapp://x?'"<>&` {
		t.Errorf("the app is opened by %q", p.links[0])
	}
}

// FuzzGraph: whatever a link says of itself, a preview page has exactly the elements that it has for plain
// words, and says what the link says.
func FuzzGraph(f *testing.F) {
	for _, s := range []string{"plain", `"><script>alert(1)</script>`, "</title><svg onload=x>", "&quot;&#0;", "\u2028", "<!--", "]]>", "{{.}}", "`'\"=", "https://x.test/?a=b&c"} {
		f.Add(s, s, s)
	}
	plain, err := renderGraph(&openGraph{"t", "d", "i"}, "", "https://go.example.com/a", "n", "h", 0)
	if err != nil {
		f.Fatal(err)
	}
	want := parsePage(f, plain).tags
	f.Fuzz(func(t *testing.T, title, description, image string) {
		if title == "" || description == "" || image == "" || strings.ContainsAny(title+description+image, "\x00\r") {
			return // shown as something else, or refused when the link is written
		}
		body, err := renderGraph(&openGraph{title, description, image}, "", "https://go.example.com/a", "n", "h", 0)
		if err != nil {
			t.Fatal(err)
		}
		p := parsePage(t, body)
		for tag, n := range p.tags {
			if want[tag] != n {
				t.Fatalf("%d of %s\n%s", n, tag, body)
			}
		}
		valid := strings.ToValidUTF8(title, "\uFFFD") == title && strings.ToValidUTF8(description, "\uFFFD") == description && strings.ToValidUTF8(image, "\uFFFD") == image
		if valid && (p.meta["og:title"] != title || p.meta["og:description"] != description || p.meta["og:image"] != image) {
			t.Fatalf("%q, %q, %q became %q", title, description, image, p.meta)
		}
	})
}

// TestInsteadAllocs: what a link has for others costs a person no allocation.
func TestInsteadAllocs(t *testing.T) {
	w := specialWorld(t)
	w.server.o.Recorder = discard{}
	interstitialsOn(w)
	w.link("go.example.com", "all", "https://x.test/", webLink(terse.LinkWeb{OGTitle: "T", IOSDestination: "myapp://x", AndroidDestination: "https://android.test/", NotStartedDestination: "https://n.test/"}))
	ctx := newCtx(t, "GET /all HTTP/1.1\r\n"+browserHeaders+"\r\n")
	w.server.handle(ctx)
	if h := ctx.Response.Header.String(); !strings.Contains(h, "Location: https://android.test/\r\n") {
		t.Fatal(h)
	}
	ctx.Response.Reset()
	if n := testing.AllocsPerRun(200, func() { w.server.handle(ctx); ctx.Response.Reset() }); n != 0 {
		t.Errorf("%v allocs, want 0", n)
	}
}
