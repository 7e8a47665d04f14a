package redirect

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alexedwards/argon2id"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicklimit"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/geo"
)

// atlas is a database of two networks.
type atlas struct{}

func (atlas) Country(ip netip.Addr) string {
	switch {
	case netip.MustParsePrefix("192.0.2.0/24").Contains(ip):
		return "DE"
	case netip.MustParsePrefix("198.51.100.0/24").Contains(ip):
		return "FR"
	}
	return ""
}

func (a atlas) Lookup(ip netip.Addr, p *geo.Place) {
	if p.Country = a.Country(ip); p.Country == "DE" {
		p.Region = "DE-BE"
	}
}

func specialWorld(t testing.TB) *world {
	w := newWorld(t, func(o *Options) {
		o.Places, o.CookieKey, o.TrustedProxies = atlas{}, []byte(strings.Repeat("k", 32)), []string{"127.0.0.0/8", "203.0.113.0/24"}
	})
	w.server.o.Limiter = clicklimit.New(w.store)
	return w
}

func settings(set terse.LinkSettings) func(*terse.Link) {
	return func(l *terse.Link) { l.Settings = &set }
}

const (
	phoneAgent   = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Mobile Safari/537.36"
	macAgent     = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15"
	windowsAgent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:130.0) Gecko/20100101 Firefox/130.0"
	crawlerAgent = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
	previewAgent = "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)"
)

func on(kind, key string, values ...string) terse.Condition {
	return terse.Condition{Type: kind, Key: key, Values: values}
}

func to(destination string, c ...terse.Condition) terse.Rule {
	return terse.Rule{Conditions: c, Destination: destination}
}

// TestRules is the table of what rules see of a request, over a socket.
func TestRules(t *testing.T) {
	t.Parallel()
	w := specialWorld(t).listen()
	w.domain(domains.New{Host: "cdn.example.com", SMaxAge: 60, ForwardQuery: true})
	ruled := settings(terse.LinkSettings{Rules: []terse.Rule{
		to("https://berlin.test/", on("region", "", "DE-BE"), on("query", "where")),
		to("https://de.test/", on("country", "", "DE")),
		to("https://fr.test/a?b=c#d", on("language", "", "fr")),
		to("https://bot.test/", on("bot", "")),
		to("https://android.test/", on("os", "", "Android")),
		to("https://safari.test/", on("browser", "", "Safari"), on("device", "", "desktop")),
		to("https://news.test/", on("referrer", "", "news.example.com")),
	}})
	w.link("go.example.com", "r", "https://else.test/", ruled)
	w.link("cdn.example.com", "r", "https://else.test/", ruled)
	for _, c := range []struct {
		host, query, headers string
		want                 string
		rule                 uint8
	}{
		{"go.example.com", "", "", "https://else.test/", 0},
		{"go.example.com", "", "X-Forwarded-For: 192.0.2.1", "https://de.test/", 2},
		{"go.example.com", "?where", "X-Forwarded-For: 192.0.2.1", "https://berlin.test/", 1},
		{"go.example.com", "?where", "X-Forwarded-For: 198.51.100.1", "https://else.test/", 0},
		{"go.example.com", "", "Forwarded: for=192.0.2.1", "https://de.test/", 2},
		{"go.example.com", "", "X-Forwarded-For: 192.0.2.1, 198.51.100.1", "https://else.test/", 0}, // the first is a claim of the client
		{"go.example.com", "", "Accept-Language: fr-CA,en;q=0.5", "https://fr.test/a?b=c#d", 3},
		{"go.example.com", "", "Accept-Language: en,fr;q=0.5", "https://else.test/", 0},
		{"go.example.com", "", "User-Agent: " + crawlerAgent, "https://bot.test/", 4},
		{"go.example.com", "", "User-Agent: " + macAgent + "\r\nSec-Purpose: prefetch", "https://bot.test/", 4},
		{"go.example.com", "", "User-Agent: " + phoneAgent, "https://android.test/", 5},
		{"go.example.com", "", "User-Agent: " + phoneAgent + "\r\nX-Forwarded-For: 192.0.2.1", "https://de.test/", 2},
		{"go.example.com", "", "User-Agent: " + macAgent, "https://safari.test/", 6},
		{"go.example.com", "", "Referer: https://news.example.com/x", "https://news.test/", 7},
		{"cdn.example.com", "?x=1", "Accept-Language: fr", "https://fr.test/a?b=c&x=1#d", 3},
		{"cdn.example.com", "", "", "https://else.test/", 0},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+w.addr+"/r"+c.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		req.Header.Set("User-Agent", windowsAgent)
		for line := range strings.SplitSeq(c.headers, "\r\n") {
			if name, v, ok := strings.Cut(line, ": "); ok {
				req.Header.Set(name, v)
			}
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Location"); got != c.want || resp.StatusCode != 302 {
			t.Errorf("%+v: %d %s", c, resp.StatusCode, got)
		}
		if cc := resp.Header.Get("Cache-Control"); cc != "private, max-age=0" {
			t.Errorf("%+v: Cache-Control %q: a shared cache would send everybody there", c, cc)
		}
		if got := w.clicks.take(); len(got) != 1 || got[0].Rule != c.rule {
			t.Errorf("%+v: clicks %+v", c, got)
		}
	}
}

// TestRuleAllocs is the gate for links with rules.
func TestRuleAllocs(t *testing.T) {
	w := specialWorld(t)
	w.server.o.Recorder = discard{}
	w.link("go.example.com", "r", "https://else.test/", settings(terse.LinkSettings{Rules: []terse.Rule{
		to("https://de.test/", on("region", "", "DE-BY")),
		to("https://bot.test/", on("bot", "")),
		{Variants: []terse.Variant{{Destination: "https://a.test/", Weight: 1}, {Destination: "https://b.test/", Weight: 1}}},
	}}))
	ctx := newCtx(t, "GET /r HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1\r\n"+browserHeaders+"\r\n")
	w.server.handle(ctx)
	ctx.Response.Reset()
	if n := testing.AllocsPerRun(200, func() {
		w.server.handle(ctx)
		if ctx.Response.StatusCode() != 302 {
			t.Error("no redirect")
		}
		ctx.Response.Reset()
	}); n != 0 {
		t.Errorf("%v allocs, want 0", n)
	}
}

// TestMaxClicks: 1,000 visitors at once, one gets through, 200 times out of 200.
func TestMaxClicks(t *testing.T) {
	t.Parallel()
	w := specialWorld(t)
	w.server.o.Recorder = discard{}
	rounds := 200
	if testing.Short() {
		rounds = 20
	}
	for round := range rounds {
		alias := fmt.Sprintf("once%d", round)
		w.link("go.example.com", alias, "https://x.test/", settings(terse.LinkSettings{MaxClicks: 1, ExpiredDestination: "https://over.test/"}))
		var through, over atomic.Int64
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				ctx := newCtx(t, "GET /"+alias+" HTTP/1.1\r\n"+browserHeaders+"\r\n")
				for range 50 {
					w.server.handle(ctx)
					answer := ctx.Response.Header.String()
					if strings.Contains(answer, "Location: https://x.test/") {
						through.Add(1)
					} else if strings.Contains(answer, "Location: https://over.test/") {
						over.Add(1)
					}
					ctx.Response.Reset()
				}
			})
		}
		wg.Wait()
		if through.Load() != 1 || over.Load() != 999 {
			t.Fatalf("round %d: %d redirects, %d refused", round, through.Load(), over.Load())
		}
	}
}

// TestWhatUsesClicks: only visits do.
func TestWhatUsesClicks(t *testing.T) {
	t.Parallel()
	w := specialWorld(t)
	w.link("go.example.com", "two", "https://x.test/", settings(terse.LinkSettings{MaxClicks: 2}))
	for i, c := range []struct {
		request string
		status  int
		outcome clicks.Outcome
	}{
		{"HEAD /two HTTP/1.1\r\nUser-Agent: " + macAgent, 302, clicks.OutcomeRedirect},
		{"GET /two+ HTTP/1.1\r\nUser-Agent: " + macAgent, 200, 255},
		{"GET /two HTTP/1.1\r\nSec-Purpose: prefetch;prerender\r\nUser-Agent: " + macAgent, 503, 255},
		{"GET /two HTTP/1.1\r\nUser-Agent: " + crawlerAgent, 302, clicks.OutcomeRedirect},
		{"GET /two HTTP/1.1\r\nUser-Agent: " + previewAgent, 302, clicks.OutcomeRedirect},
		{"GET /two HTTP/1.1\r\nUser-Agent: " + macAgent, 302, clicks.OutcomeRedirect}, // the first
		{"GET /two HTTP/1.1\r\nUser-Agent: curl/8.9.1", 302, clicks.OutcomeRedirect},  // the second
		{"GET /two HTTP/1.1\r\nUser-Agent: " + macAgent, 410, clicks.OutcomeLimit},
		{"GET /two HTTP/1.1\r\nUser-Agent: " + crawlerAgent, 410, clicks.OutcomeLimit},
		{"HEAD /two HTTP/1.1\r\nUser-Agent: " + macAgent, 410, clicks.OutcomeLimit},
		{"GET /two+ HTTP/1.1\r\nUser-Agent: " + macAgent, 410, 255},
		{"POST /two HTTP/1.1\r\nUser-Agent: " + macAgent, 405, 255},
	} {
		ctx := newCtx(t, c.request+"\r\nHost: go.example.com\r\n\r\n")
		w.server.handle(ctx)
		if got := ctx.Response.StatusCode(); got != c.status {
			t.Errorf("step %d: status %d, want %d", i, got, c.status)
		}
		got := w.clicks.take()
		if c.outcome == 255 && len(got) != 0 || c.outcome != 255 && (len(got) != 1 || got[0].Outcome != c.outcome) {
			t.Errorf("step %d: clicks %+v, want outcome %d", i, got, c.outcome)
		}
	}
}

// TestAheadOfLimit: what is fetched ahead of a visit, however that is said, neither uses a click nor learns where it leads.
func TestAheadOfLimit(t *testing.T) {
	t.Parallel()
	w := specialWorld(t)
	w.link("go.example.com", "once", "https://secret.test/", settings(terse.LinkSettings{MaxClicks: 1}))
	w.link("go.example.com", "free", "https://free.test/")
	ask := func(line, path string) (int, string) {
		t.Helper()
		ctx := newCtx(t, "GET "+path+" HTTP/1.1\r\nHost: go.example.com\r\nUser-Agent: "+macAgent+"\r\n"+line+"\r\n")
		w.server.handle(ctx)
		return ctx.Response.StatusCode(), ctx.Response.String()
	}
	for _, line := range []string{
		"Sec-Purpose: prefetch", "Sec-Purpose: prefetch;prerender", "Sec-Purpose: prefetch;anonymous-client-ip", "sec-purpose: PREFETCH",
		"Purpose: prefetch", "Purpose: preview", "X-Purpose: preview", "X-Purpose: instant, Preview", "X-Moz: prefetch", "x-moz:\tPrefetch",
	} {
		status, answer := ask(line+"\r\n", "/once?a=b")
		if status != 503 || !strings.Contains(answer, "Cache-Control: no-store\r\n") || strings.Contains(answer, "secret.test") {
			t.Errorf("%s: %d\n%s", line, status, answer)
		}
		if status, _ := ask(line+"\r\n", "/free"); status != 302 {
			t.Errorf("%s: a link without a limit is %d", line, status)
		}
	}
	if status, answer := ask("", "/once"); status != 302 || !strings.Contains(answer, "Location: https://secret.test/") {
		t.Errorf("the one visit: %d\n%s", status, answer)
	}
	if status, _ := ask("", "/once"); status != 410 {
		t.Errorf("after it: %d, want 410", status)
	}
	if n := w.server.metrics.sum(countAhead); n != 10 {
		t.Errorf("%d requests are counted as ahead of a visit, want 10", n)
	}
}

// TestPassword goes through the form as a browser does.
func TestPassword(t *testing.T) {
	t.Parallel()
	w := specialWorld(t).listen()
	hash, err := argon2id.CreateHash("sésame", &argon2id.Params{Memory: 64, Iterations: 1, Parallelism: 1, SaltLength: 16, KeyLength: 32})
	if err != nil {
		t.Fatal(err)
	}
	l := w.link("go.example.com", "secret", "https://x.test/", settings(terse.LinkSettings{PasswordHash: hash}))
	w.link("go.example.com", "other", "https://x.test/", settings(terse.LinkSettings{PasswordHash: hash}))
	cookie := ""
	browser := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	visit := func(c *http.Client, path, password, from string) *http.Response {
		t.Helper()
		method, body := http.MethodGet, ""
		if password != "" {
			method, body = http.MethodPost, url.Values{"password": {password}}.Encode()
		}
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+w.addr+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "go.example.com"
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("X-Forwarded-For", from)
		if cookie != "" {
			req.Header.Set("Cookie", "a=b; "+cookie)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	expect := func(what string, resp *http.Response, status int, location string) {
		t.Helper()
		if resp.StatusCode != status || resp.Header.Get("Location") != location {
			t.Errorf("%s: %d %q, want %d %q", what, resp.StatusCode, resp.Header.Get("Location"), status, location)
		}
		if cc := resp.Header.Get("Cache-Control"); location == "" && cc != "no-store" {
			t.Errorf("%s: Cache-Control %q", what, cc)
		}
	}
	expect("first visit", visit(browser, "/secret", "", "192.0.2.1"), 200, "")
	expect("preview", visit(browser, "/secret+", "", "192.0.2.1"), 200, "")
	expect("wrong password", visit(browser, "/secret", "open", "192.0.2.1"), 403, "")
	expect("too long", visit(browser, "/secret", strings.Repeat("x", maxPassword+1), "192.0.2.1"), 403, "")
	resp := visit(browser, "/secret", "sésame", "192.0.2.1")
	expect("right password", resp, 303, "https://x.test/")
	set := resp.Header.Get("Set-Cookie")
	for _, part := range []string{"Path=/secret;", "HttpOnly", "SameSite=Lax", "Secure"} {
		if !strings.Contains(set, part) {
			t.Errorf("Set-Cookie %q lacks %s", set, part)
		}
	}
	if both := resp.Header.Values("Set-Cookie"); len(both) != 2 || !strings.Contains(both[1], "Path=/secret+;") || strings.ReplaceAll(both[1], "+;", ";") != both[0] {
		t.Errorf("cookies %q, want one for the preview page too", both)
	}
	for path, want := range map[string]string{"/secre%74": "/secre%74", "/secret/": "/secret", "/secret+": "/secret", "/%73ecret+?x=1": "/%73ecret"} {
		got := visit(browser, path, "sésame", "192.0.2.1").Header.Values("Set-Cookie")
		if len(got) != 2 || !strings.Contains(got[0], "Path="+want+";") || !strings.Contains(got[1], "Path="+want+"+;") {
			t.Errorf("%s: cookies %q, want the path as it was asked", path, got)
		}
	}
	cookie, _, _ = strings.Cut(set, ";")
	expect("with the cookie", visit(browser, "/secret", "", "192.0.2.1"), 302, "https://x.test/")
	expect("another link", visit(browser, "/other", "", "192.0.2.1"), 200, "")
	w.update(l, func(l *terse.Link) { l.Destination = "https://new.test/" })
	expect("after a change", visit(browser, "/secret", "", "192.0.2.1"), 200, "")
	for range 12 {
		resp = visit(http.DefaultClient, "/other", "guess", "198.51.100.7")
	}
	expect("guessing", resp, 429, "")
	if resp.Header.Get("Retry-After") == "" {
		t.Error("429 without Retry-After")
	}
	expect("right, but blocked", visit(http.DefaultClient, "/other", "sésame", "198.51.100.7"), 429, "")
	expect("somebody else", visit(browser, "/other", "sésame", "192.0.2.9"), 303, "https://x.test/")
	for _, c := range w.clicks.take() {
		if c.Outcome != clicks.OutcomePassword && c.Outcome != clicks.OutcomeRedirect {
			t.Errorf("a click of outcome %d", c.Outcome)
		}
	}
}

// FuzzCookie: no header opens a link but the one that was made for it.
func FuzzCookie(f *testing.F) {
	g := newGate([]byte(strings.Repeat("k", 32)), func() terse.Millis { return testNow }, nil)
	good := cookieName + "=" + g.token(7, 3, testNow+1000)
	f.Add([]byte(good))
	f.Add([]byte("a=b; " + good + "; c"))
	f.Add([]byte(cookieName + "=; " + cookieName))
	f.Add([]byte(";;==;" + good[:20]))
	f.Fuzz(func(t *testing.T, header []byte) {
		opens := g.opens(header, 7, 3, testNow)
		if opens && !strings.Contains(string(header), good[len(cookieName)+1:]) {
			// Another end of validity would need its own MAC.
			t.Fatalf("%q opens the link", header)
		}
		if g.opens(header, 8, 3, testNow) || g.opens(header, 7, 4, testNow) || g.opens(header, 7, 3, testNow+1000) {
			t.Fatalf("%q opens another link, version or time", header)
		}
	})
}
