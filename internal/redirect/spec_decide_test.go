package redirect

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
)

// TestSpecStates is the specification of states: blocked, not begun, used up, and where visits go then.
func TestSpecStates(t *testing.T) {
	t.Parallel()
	const goHost, full = "go.example.com", "full.example.com"
	w := specialWorld(t)
	w.domain(domains.New{Host: full, SMaxAge: 30, NotFoundDestination: "https://d.test/lost", ExpiredDestination: "https://d.test/late",
		NotStartedDestination: "https://d.test/soon", LimitDestination: "https://d.test/full"})
	w.domain(domains.New{Host: "late.example.com", ExpiredDestination: "https://d.test/late"})
	blocked := func(l *terse.Link) {
		l.Status, l.Settings = terse.StatusBlocked, &terse.LinkSettings{Block: &terse.Block{Reason: "phishing", By: "owner", Owner: true}}
	}
	for _, host := range []string{goHost, full, "late.example.com"} {
		w.link(host, "plain", "https://x.test/")
		w.link(host, "off", "https://x.test/", func(l *terse.Link) { l.Status = terse.StatusDisabled })
		w.link(host, "blocked", "https://x.test/", blocked)
		w.link(host, "blocked-old", "https://x.test/", blocked, func(l *terse.Link) {
			l.ExpiresAt, l.Settings.ExpiredDestination = testNow-1, "https://l.test/ended"
		})
		w.link(host, "blocked-soon", "https://x.test/", blocked, func(l *terse.Link) {
			l.Settings.StartsAt, l.Settings.Web = testNow+1, &terse.LinkWeb{NotStartedDestination: "https://l.test/soon"}
		})
		w.link(host, "blocked-locked", "https://x.test/", blocked, func(l *terse.Link) { l.Settings.PasswordHash = "x" })
		w.link(host, "soon", "https://x.test/", settings(terse.LinkSettings{StartsAt: testNow + 1}))
		w.link(host, "soon-to", "https://x.test/", settings(terse.LinkSettings{StartsAt: testNow + 1, Web: &terse.LinkWeb{NotStartedDestination: "https://l.test/soon"}}))
		w.link(host, "soon-off", "https://x.test/", settings(terse.LinkSettings{StartsAt: testNow + 1}), func(l *terse.Link) { l.Status = terse.StatusDisabled })
		w.link(host, "begun", "https://x.test/", settings(terse.LinkSettings{StartsAt: testNow, Web: &terse.LinkWeb{NotStartedDestination: "https://l.test/soon"}}))
		w.link(host, "old", "https://x.test/", func(l *terse.Link) { l.ExpiresAt = testNow })
		w.link(host, "old-to", "https://x.test/", settings(terse.LinkSettings{ExpiredDestination: "https://l.test/ended"}), func(l *terse.Link) { l.ExpiresAt = testNow })
		w.link(host, "once", "https://x.test/", settings(terse.LinkSettings{MaxClicks: 1}))
		w.link(host, "once-ended", "https://x.test/", settings(terse.LinkSettings{MaxClicks: 1, ExpiredDestination: "https://l.test/ended"}))
		w.link(host, "once-to", "https://x.test/", settings(terse.LinkSettings{MaxClicks: 1, ExpiredDestination: "https://l.test/ended", Web: &terse.LinkWeb{LimitDestination: "https://l.test/full"}}))
	}
	w.link(goHost, "orphan", "", func(l *terse.Link) { l.ExpiresAt = testNow - 1 })
	w.link(goHost, "orphan-soon", "", func(l *terse.Link) { l.ExpiresAt = testNow + 1 })
	w.link(goHost, "orphan-blocked", "", blocked, func(l *terse.Link) { l.ExpiresAt = testNow - 1 })
	w.link(goHost, "future", "https://x.test/", func(l *terse.Link) { l.Status = 3 })
	w.link(goHost, "split", "https://x.test/", webLink(terse.LinkWeb{NotStartedDestination: "https://x.test/\r\nSet-Cookie: a=b"}))
	w.link(goHost, "mode", "https://x.test/", webLink(terse.LinkWeb{QueryMode: "shuffle"}))
	w.link(goHost, "policy", "https://x.test/", webLink(terse.LinkWeb{ReferrerPolicy: "all"}))
	w.link(goHost, "glue", "https://x.test/", webLink(terse.LinkWeb{Sticky: "fingerprint"}))
	w.listen()
	private, shared := "Cache-Control: private, max-age=0", "Cache-Control: public, max-age=0, s-maxage=30"
	rows := []visitRow{
		{"blocked", "GET go.example.com /blocked", 451, "This link was blocked", "blocked", []string{"X-Robots-Tag: noindex", "Cache-Control: no-store"}},
		{"blocked, HEAD", "HEAD go.example.com /blocked", 451, "", "blocked head", nil},
		{"blocked, its preview page", "GET go.example.com /blocked+", 451, "This link was blocked", "", nil},
		{"blocked in German", "GET go.example.com /blocked\nAccept-Language: de", 451, "Dieser Link wurde gesperrt", "blocked", []string{"Content-Language: de"}},
		{"blocked in French", "GET go.example.com /blocked\nAccept-Language: fr", 451, "Ce lien a été bloqué", "blocked", nil},
		{"blocked in Spanish", "GET go.example.com /blocked\nAccept-Language: es", 451, "Este enlace fue bloqueado", "blocked", nil},
		{"blocked in Portuguese", "GET go.example.com /blocked\nAccept-Language: pt-BR", 451, "Este link foi bloqueado", "blocked", nil},
		{"blocked in Japanese", "GET go.example.com /blocked\nAccept-Language: ja", 451, "このリンクは遮断されました", "blocked", nil},
		{"blocked does not say why or by whom", "GET go.example.com /blocked", 451, "reported for abuse", "blocked", nil},
		{"blocked before expired", "GET go.example.com /blocked-old", 451, "This link was blocked", "blocked", nil},
		{"blocked before not begun", "GET go.example.com /blocked-soon", 451, "This link was blocked", "blocked", nil},
		{"blocked before the password", "GET go.example.com /blocked-locked", 451, "This link was blocked", "blocked", nil},
		{"blocked, a password is sent", "POST go.example.com /blocked-locked\nContent-Length: 0", 451, "This link was blocked", "blocked", nil},
		{"blocked with more path", "GET go.example.com /blocked/more", 451, "This link was blocked", "blocked", nil},
		{"blocked, a scan", "GET go.example.com /blocked?qr=1", 451, "This link was blocked", "blocked qr", nil},
		{"blocked on a domain with places", "GET full.example.com /blocked", 451, "This link was blocked", "blocked", nil},

		{"disabled is no blocked", "GET go.example.com /off", 410, "This link has ended", "disabled", nil},
		{"disabled on a domain with places", "GET full.example.com /off", 410, "This link has ended", "disabled", nil},

		{"not begun", "GET go.example.com /soon", 404, "Link not found", "notfound", nil},
		{"not begun, its own place", "GET go.example.com /soon-to", 302, "https://l.test/soon", "notfound", []string{private}},
		{"not begun, its own place, HEAD", "HEAD go.example.com /soon-to", 302, "https://l.test/soon", "notfound head", nil},
		{"not begun, its own place, with a query", "GET go.example.com /soon-to?a=b", 302, "https://l.test/soon", "notfound", nil},
		{"not begun, its own place, preview page", "GET go.example.com /soon-to+", 302, "https://l.test/soon", "", nil},
		{"not begun before disabled", "GET go.example.com /soon-off", 404, "Link not found", "notfound", nil},
		{"not begun, the domain's place", "GET full.example.com /soon", 302, "https://d.test/soon", "notfound", []string{private}},
		{"not begun, the link's before the domain's", "GET full.example.com /soon-to", 302, "https://l.test/soon", "notfound", nil},
		{"not begun, the domain has another place", "GET late.example.com /soon", 404, "Link not found", "notfound", nil},
		{"begun", "GET go.example.com /begun", 302, "https://x.test/", "redirect", []string{private}},
		{"begun, shared", "GET full.example.com /begun", 302, "https://x.test/", "redirect", []string{shared}},

		{"expired", "GET go.example.com /old", 410, "This link has ended", "expired", nil},
		{"expired, its own place", "GET go.example.com /old-to", 302, "https://l.test/ended", "expired", nil},
		{"expired, the domain's place", "GET full.example.com /old", 302, "https://d.test/late", "expired", []string{private}},
		{"expired, the link's before the domain's", "GET full.example.com /old-to", 302, "https://l.test/ended", "expired", nil},

		{"ended with its campaign, which left no destination", "GET go.example.com /orphan", 410, "This link has ended", "expired", nil},
		{"ended with its campaign, preview page", "GET go.example.com /orphan+", 410, "This link has ended", "", nil},
		{"ended with its campaign and blocked", "GET go.example.com /orphan-blocked", 451, "This link was blocked", "blocked", nil},
		{"no destination, and not ended", "GET go.example.com /orphan-soon", 503, "Please try again", "", nil},

		{"the first click", "GET go.example.com /once", 302, "https://x.test/", "redirect", []string{private}},
		{"used up", "GET go.example.com /once", 410, "This link has ended", "limit", nil},
		{"used up, HEAD", "HEAD go.example.com /once", 410, "", "limit head", nil},
		{"used up, preview page", "GET go.example.com /once+", 410, "This link has ended", "", nil},
		{"the first click, place for the expired", "GET go.example.com /once-ended", 302, "https://x.test/", "redirect", nil},
		{"used up, the place for the expired", "GET go.example.com /once-ended", 302, "https://l.test/ended", "limit", []string{private}},
		{"the first click, place of its own", "GET go.example.com /once-to", 302, "https://x.test/", "redirect", nil},
		{"used up, a place of its own", "GET go.example.com /once-to", 302, "https://l.test/full", "limit", nil},
		{"used up, a place of its own, query", "GET go.example.com /once-to?a=b", 302, "https://l.test/full", "limit", nil},
		{"the first click on a domain with places", "GET full.example.com /once", 302, "https://x.test/", "redirect", []string{private}},
		{"used up, the domain's place", "GET full.example.com /once", 302, "https://d.test/full", "limit", nil},
		{"the first click, the link has an end", "GET full.example.com /once-ended", 302, "https://x.test/", "redirect", nil},
		{"used up, the link's end before the domain's", "GET full.example.com /once-ended", 302, "https://l.test/ended", "limit", nil},
		{"the first click, a domain for the expired", "GET late.example.com /once", 302, "https://x.test/", "redirect", nil},
		{"used up, the domain's place for the expired", "GET late.example.com /once", 302, "https://d.test/late", "limit", nil},

		{"a status of a later version", "GET go.example.com /future", 503, "Please try again", "", nil},
		{"a place that would split the header", "GET go.example.com /split", 503, "Please try again", "", nil},
		{"a query mode of a later version", "GET go.example.com /mode", 503, "Please try again", "", nil},
		{"a referrer policy of a later version", "GET go.example.com /policy", 503, "Please try again", "", nil},
		{"a glue of a later version", "GET go.example.com /glue", 503, "Please try again", "", nil},
	}
	runVisits(t, w, rows)
}

// TestSpecHeaders is the specification of noindex and referrer policy: the link before its domain.
func TestSpecHeaders(t *testing.T) {
	t.Parallel()
	w := specialWorld(t)
	yes, no := true, false
	w.domain(domains.New{Host: "open.example.com", SMaxAge: 30, Web: terse.DomainWeb{Index: true, ReferrerPolicy: "origin"}})
	for _, host := range []string{"go.example.com", "open.example.com"} {
		w.link(host, "plain", "https://x.test/")
		w.link(host, "hide", "https://x.test/", webLink(terse.LinkWeb{NoIndex: &yes}))
		w.link(host, "show", "https://x.test/", webLink(terse.LinkWeb{NoIndex: &no}))
		w.link(host, "quiet", "https://x.test/", webLink(terse.LinkWeb{ReferrerPolicy: "no-referrer"}))
		w.link(host, "default", "https://x.test/", webLink(terse.LinkWeb{ReferrerPolicy: domains.DefaultReferrerPolicy}))
		w.link(host, "both", "https://x.test/", webLink(terse.LinkWeb{NoIndex: &no, ReferrerPolicy: "unsafe-url"}))
		w.link(host, "both-old", "https://x.test/", webLink(terse.LinkWeb{NoIndex: &no, ReferrerPolicy: "unsafe-url"}), func(l *terse.Link) {
			l.ExpiresAt, l.Settings.ExpiredDestination = testNow, "https://l.test/"
		})
	}
	w.listen()
	const index, noindex = "X-Robots-Tag", "X-Robots-Tag: noindex"
	policy := func(p string) string { return "Referrer-Policy: " + p }
	rows := []visitRow{
		{"the defaults", "GET go.example.com /plain", 302, "https://x.test/", "redirect", []string{noindex, policy("strict-origin-when-cross-origin")}},
		{"of the domain", "GET open.example.com /plain", 302, "https://x.test/", "redirect", []string{index, policy("origin")}},
		{"noindex where that is the default", "GET go.example.com /hide", 302, "https://x.test/", "redirect", []string{noindex, policy("strict-origin-when-cross-origin")}},
		{"noindex on an open domain", "GET open.example.com /hide", 302, "https://x.test/", "redirect", []string{noindex, policy("origin")}},
		{"index where the domain says noindex", "GET go.example.com /show", 302, "https://x.test/", "redirect", []string{index, policy("strict-origin-when-cross-origin")}},
		{"index on an open domain", "GET open.example.com /show", 302, "https://x.test/", "redirect", []string{index, policy("origin")}},
		{"a policy", "GET go.example.com /quiet", 302, "https://x.test/", "redirect", []string{noindex, policy("no-referrer")}},
		{"a policy before the domain's", "GET open.example.com /quiet", 302, "https://x.test/", "redirect", []string{index, policy("no-referrer")}},
		{"the default policy before the domain's", "GET open.example.com /default", 302, "https://x.test/", "redirect", []string{index, policy(domains.DefaultReferrerPolicy)}},
		{"both", "GET go.example.com /both", 302, "https://x.test/", "redirect", []string{index, policy("unsafe-url")}},
		{"both, HEAD", "HEAD go.example.com /both", 302, "https://x.test/", "redirect head", []string{index, policy("unsafe-url")}},
		{"such a link may be shared", "GET open.example.com /hide", 302, "https://x.test/", "redirect", []string{"Cache-Control: public, max-age=0, s-maxage=30"}},
		{"both when it has ended", "GET go.example.com /both-old", 302, "https://l.test/", "expired", []string{index, policy("unsafe-url")}},
		{"a page is never indexed", "GET open.example.com /nobody", 404, "Link not found", "notfound", []string{noindex}},
	}
	runVisits(t, w, rows)
}

// TestSpecForwarding is the specification of what of a visit goes along: query modes, path, UTM, of the
// link and of the domain. What becomes of a query in each mode is TestAppendURL of package forward.
func TestSpecForwarding(t *testing.T) {
	t.Parallel()
	w := specialWorld(t)
	yes, no := true, false
	w.domain(domains.New{Host: "in.example.com", QueryMode: terse.QueryIncomingFirst, UTM: &terse.UTM{Source: "dom", Medium: "sms"}})
	w.domain(domains.New{Host: "utm.example.com", SMaxAge: 30, UTM: &terse.UTM{Source: "dom"}})
	w.domain(domains.New{Host: "add.example.com", ForwardQuery: true})
	to := "https://x.test/p?a=1&b=2#f"
	for _, host := range []string{"go.example.com", "in.example.com", "utm.example.com", "add.example.com"} {
		w.link(host, "plain", to)
		w.link(host, "no", to, settings(terse.LinkSettings{ForwardQuery: &no}))
		w.link(host, "add", to, settings(terse.LinkSettings{ForwardQuery: &yes, Web: &terse.LinkWeb{QueryMode: terse.QueryAppend}}))
		w.link(host, "in", to, settings(terse.LinkSettings{ForwardQuery: &yes, Web: &terse.LinkWeb{QueryMode: terse.QueryIncomingFirst}}))
		w.link(host, "st", to, settings(terse.LinkSettings{ForwardQuery: &yes, ForwardPath: true, Web: &terse.LinkWeb{QueryMode: terse.QueryStoredFirst}}))
		w.link(host, "utm", to, webLink(terse.LinkWeb{UTM: &terse.UTM{Source: "link", Campaign: "b f"}}))
		w.link(host, "ruled", to, settings(terse.LinkSettings{ForwardQuery: &yes, Rules: []terse.Rule{{Destination: "https://r.test/?utm_source=rule"}},
			Web: &terse.LinkWeb{QueryMode: terse.QueryStoredFirst, UTM: &terse.UTM{Source: "link", Content: "c"}}}))
		w.link(host, "old", to, webLink(terse.LinkWeb{UTM: &terse.UTM{Source: "link"}}), func(l *terse.Link) {
			l.ExpiresAt, l.Settings.ExpiredDestination = testNow, "https://l.test/"
		})
	}
	w.listen()
	rows := []visitRow{
		{"not asked for", "GET go.example.com /plain?a=9", 302, "https://x.test/p?a=1&b=2#f", "redirect", nil},
		{"append", "GET go.example.com /add?a=9&c", 302, "https://x.test/p?a=1&b=2&a=9&c#f", "redirect", nil},
		{"incoming first", "GET go.example.com /in?a=9&c", 302, "https://x.test/p?a=9&c&b=2#f", "redirect", nil},
		{"incoming first, nothing comes", "GET go.example.com /in", 302, "https://x.test/p?a=1&b=2#f", "redirect", nil},
		{"incoming first, a scan", "GET go.example.com /in?qr=1&a=9", 302, "https://x.test/p?a=9&b=2#f", "redirect qr", nil},
		{"stored first", "GET go.example.com /st?a=9&c", 302, "https://x.test/p?a=1&b=2&c#f", "redirect", nil},
		{"stored first, with a path", "GET go.example.com /st/x?a=9&c=", 302, "https://x.test/p/x?a=1&b=2&c=#f", "redirect", nil},
		{"stored first, a path that climbs", "GET go.example.com /st/../x?c", 404, "Link not found", "notfound", nil},
		{"the link says no", "GET in.example.com /no?a=9", 302, "https://x.test/p?a=1&b=2&utm_source=dom&utm_medium=sms#f", "redirect", nil},
		{"the domain's mode", "GET in.example.com /plain?a=9", 302, "https://x.test/p?a=9&b=2&utm_source=dom&utm_medium=sms#f", "redirect", nil},
		{"the link's mode before the domain's", "GET in.example.com /add?a=9", 302, "https://x.test/p?a=1&b=2&a=9&utm_source=dom&utm_medium=sms#f", "redirect", nil},
		{"the domain appends", "GET add.example.com /plain?a=9", 302, "https://x.test/p?a=1&b=2&a=9#f", "redirect", nil},
		{"the link's mode where the domain appends", "GET add.example.com /in?a=9", 302, "https://x.test/p?a=9&b=2#f", "redirect", nil},

		{"utm of the link", "GET go.example.com /utm", 302, "https://x.test/p?a=1&b=2&utm_source=link&utm_campaign=b%20f#f", "redirect", nil},
		{"utm of the link, HEAD", "HEAD go.example.com /utm", 302, "https://x.test/p?a=1&b=2&utm_source=link&utm_campaign=b%20f#f", "redirect head", nil},
		{"utm of a query that is not forwarded", "GET go.example.com /utm?utm_source=mail", 302, "https://x.test/p?a=1&b=2&utm_source=link&utm_campaign=b%20f#f", "redirect", nil},
		{"utm of the link before the domain's", "GET in.example.com /utm", 302, "https://x.test/p?a=1&b=2&utm_source=link&utm_medium=sms&utm_campaign=b%20f#f", "redirect", nil},
		{"utm of the visit before both", "GET in.example.com /utm?utm_source=mail&utm_medium", 302, "https://x.test/p?utm_source=mail&utm_medium&a=1&b=2&utm_campaign=b%20f#f", "redirect", nil},
		{"utm of the domain, on a plain link", "GET utm.example.com /plain", 302, "https://x.test/p?a=1&b=2&utm_source=dom#f", "redirect", []string{"Cache-Control: public, max-age=0, s-maxage=30"}},
		{"utm of the domain, the query stays out", "GET utm.example.com /plain?a=9", 302, "https://x.test/p?a=1&b=2&utm_source=dom#f", "redirect", nil},
		{"utm of the link, shared", "GET utm.example.com /utm", 302, "https://x.test/p?a=1&b=2&utm_source=link&utm_campaign=b%20f#f", "redirect", []string{"Cache-Control: public, max-age=0, s-maxage=30"}},
		{"utm of the destination of a rule stays", "GET go.example.com /ruled", 302, "https://r.test/?utm_source=rule&utm_content=c", "redirect", nil},
		{"modes hold for destinations of rules", "GET go.example.com /ruled?utm_source=x&z", 302, "https://r.test/?utm_source=rule&z&utm_content=c", "redirect", nil},
		{"none on the way to other places", "GET go.example.com /old?a=9", 302, "https://l.test/", "expired", nil},
		{"none of the domain on the way to other places", "GET utm.example.com /old", 302, "https://l.test/", "expired", nil},
		{"the preview page shows what is stored", "GET go.example.com /utm+", 200, "https://x.test/p?a=1&amp;b=2#f", "", nil},
	}
	runVisits(t, w, rows)
}

// TestStickyCookie goes through variants as browsers do.
func TestStickyCookie(t *testing.T) {
	t.Parallel()
	w := specialWorld(t)
	split := func(weights ...uint32) []terse.Rule {
		r := []terse.Rule{{Conditions: []terse.Condition{on("query", "q")}, Destination: "https://q.test/"}, {}}
		for i, weight := range weights {
			r[1].Variants = append(r[1].Variants, terse.Variant{Destination: "https://" + string(rune('a'+i)) + ".test/", Weight: weight})
		}
		return r
	}
	sticky := func(rules []terse.Rule) func(*terse.Link) {
		return settings(terse.LinkSettings{Rules: rules, Web: &terse.LinkWeb{Sticky: terse.StickyCookie}})
	}
	l := w.link("go.example.com", "ab", "https://x.test/", sticky(split(1, 1, 1)))
	w.link("go.example.com", "other", "https://x.test/", sticky(split(1, 1, 1)))
	w.link("go.example.com", "hash", "https://x.test/", settings(terse.LinkSettings{Rules: split(1, 1, 1)}))
	visit := func(path, agent, cookie string) (location, set string, rule uint8) {
		t.Helper()
		ctx := newCtx(t, "GET "+path+" HTTP/1.1\r\nHost: go.example.com\r\nUser-Agent: "+agent+"\r\nCookie: x=y; "+cookie+"\r\n\r\n")
		w.server.handle(ctx)
		got := w.clicks.take()
		if len(got) != 1 || ctx.Response.StatusCode() != 302 {
			t.Fatalf("%s: %d clicks\n%s", path, len(got), &ctx.Response.Header)
		}
		res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(ctx.Response.Header.String())), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.Header.Get("Location"), strings.Join(res.Header.Values("Set-Cookie"), "|"), got[0].Rule
	}
	first, set, rule := visit("/ab", macAgent, "")
	for _, part := range []string{"terse_v=", "; Path=/ab;", "Max-Age=7776000", "HttpOnly", "SameSite=Lax", "Secure"} {
		if !strings.Contains(set, part) {
			t.Errorf("Set-Cookie %q lacks %q", set, part)
		}
	}
	if rule < 2 || rule > 4 || first != "https://"+string(rune('a'+rule-2))+".test/" {
		t.Errorf("the click says %d, the visit went to %s", rule, first)
	}
	cookie, _, _ := strings.Cut(set, ";")
	// Whoever brings the cookie stays, whatever else changes; the cookie is not sent again.
	for _, agent := range []string{macAgent, phoneAgent, windowsAgent, "x", "y", "z"} {
		if to, set, got := visit("/ab", agent, cookie); to != first || set != "" || got != rule {
			t.Errorf("%s with %s: %s (%d), Set-Cookie %q; want %s", agent, cookie, to, got, set, first)
		}
	}
	if to, set, got := visit("/ab", macAgent, cookie+"\r\nCookie: later=1"); to != first || set != "" || got != rule {
		t.Errorf("with the cookie in the first of two lines: %s (%d), Set-Cookie %q; want %s", to, got, set, first)
	}
	// Every variant can be had, and the same one makes the same cookie for everybody.
	cookies := map[string]string{}
	for i := range 60 {
		to, set, _ := visit("/ab", strings.Repeat("a", i), "")
		if had := cookies[to]; had != "" && had != set {
			t.Errorf("%s has the cookies %q and %q: they tell visitors apart", to, had, set)
		}
		cookies[to] = set
	}
	if len(cookies) != 3 {
		t.Errorf("variants %v", cookies)
	}
	if to, set, _ := visit("/ab?q", macAgent, cookie); to != "https://q.test/" || set != "" {
		t.Errorf("a rule without variants: %s, %q", to, set)
	}
	for name, c := range map[string]string{"of another link": cookie, "without print": "terse_v=3", "of no variant": "terse_v=9." + strings.TrimPrefix(cookie, "terse_v=3."), "junk": "terse_v=;terse_v=a.b;terse_v"} {
		path := "/ab"
		if name == "of another link" {
			path = "/other"
		}
		if _, set, _ := visit(path, macAgent, c); set == "" {
			t.Errorf("the cookie %s is taken", name)
		}
	}
	if _, set, _ := visit("/hash", macAgent, cookie); set != "" {
		t.Errorf("a link that did not ask sets %q", set)
	}
	if to, set, _ := visit("/other", macAgent, ""); to == "" || !strings.Contains(set, "Path=/other;") || strings.Contains(set, strings.TrimPrefix(cookie, "terse_v=")) {
		t.Errorf("another link: %s, %q", to, set)
	}
	// A browser compares the path byte for byte: it is as it was asked.
	if _, set, _ := visit("/%61b", macAgent, ""); !strings.Contains(set, "; Path=/%61b;") {
		t.Errorf("asked in another spelling: %q", set)
	}
	// The rules change: the cookie says nothing any more.
	l = w.update(l, sticky(split(5, 1, 1)))
	if _, set, _ := visit("/ab", macAgent, cookie); set == "" || strings.HasPrefix(set, cookie) {
		t.Errorf("after a change of the rules: Set-Cookie %q", set)
	}
	// A paused variant loses its visitors.
	w.update(l, sticky(split(0, 1, 0)))
	if to, _, _ := visit("/ab", macAgent, cookie); to != "https://b.test/" {
		t.Errorf("a paused variant: %s", to)
	}
}

// TestStickyAllocs: a visit that brings its cookie costs no allocation.
func TestStickyAllocs(t *testing.T) {
	w := specialWorld(t)
	w.server.o.Recorder = discard{}
	l := w.link("go.example.com", "ab", "https://x.test/", settings(terse.LinkSettings{Web: &terse.LinkWeb{Sticky: terse.StickyCookie}, Rules: []terse.Rule{
		{Variants: []terse.Variant{{Destination: "https://a.test/", Weight: 1}, {Destination: "https://b.test/", Weight: 1}}},
	}}))
	print, err := rulesPrint(&l)
	if err != nil {
		t.Fatal(err)
	}
	ctx := newCtx(t, "GET /ab HTTP/1.1\r\nCookie: a=b; "+variantCookie+"=2."+string(appendPrint(nil, print))+"\r\n"+browserHeaders+"\r\n")
	w.server.handle(ctx)
	if h := ctx.Response.Header.String(); !strings.Contains(h, "\r\nLocation: https://b.test/\r\n") || strings.Contains(h, "Set-Cookie") {
		t.Fatal(h)
	}
	ctx.Response.Reset()
	if n := testing.AllocsPerRun(200, func() { w.server.handle(ctx); ctx.Response.Reset() }); n != 0 {
		t.Errorf("%v allocs, want 0", n)
	}
}

// FuzzVariantCookie: no header makes more of the cookie than a number for these very rules.
func FuzzVariantCookie(f *testing.F) {
	good := variantCookie + "=3." + string(appendPrint(nil, 77))
	f.Add([]byte(good))
	f.Add([]byte("a=b; " + good + "; c"))
	f.Add([]byte(variantCookie + "=999." + string(appendPrint(nil, 77))))
	f.Add([]byte(";;=;" + variantCookie))
	f.Fuzz(func(t *testing.T, header []byte) {
		if n := preferred(header, 77); n != 0 && !strings.Contains(string(header), "."+string(appendPrint(nil, 77))) {
			t.Fatalf("%q prefers %d", header, n)
		}
		if n := preferred(header, 78); n != 0 && strings.Contains(string(header), string(appendPrint(nil, 77))) && !strings.Contains(string(header), string(appendPrint(nil, 78))) {
			t.Fatalf("%q prefers %d for other rules", header, n)
		}
	})
}
