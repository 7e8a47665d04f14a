package redirect

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/domains"
)

// behaviourWorld is what TestBehaviour speaks of.
func behaviourWorld(t *testing.T) *world {
	w := newWorld(t, func(o *Options) { o.ListenHost = "127.0.0.1:8080" })
	yes, no := true, false
	settings := func(s terse.LinkSettings) func(*terse.Link) {
		return func(l *terse.Link) { l.Settings = &s }
	}
	status := func(s uint16) func(*terse.Link) { return func(l *terse.Link) { l.RedirectStatus = s } }
	const goHost = "go.example.com"

	w.link(goHost, "plain", "https://example.com/some/path")
	w.link(goHost, "Plain", "https://example.com/other")
	w.link(goHost, "café", "https://example.com/coffee")
	w.link(goHost, "healthz", "https://example.com/clinic")
	w.link(goHost, "big", "https://example.com/"+strings.Repeat("x", 8000))
	w.link(goHost, "odd", "https://example.com/?q=%20\"'<>`{}|\\^[]&u=a:b@c")
	for _, s := range []uint16{301, 303, 307, 308, 200} {
		w.link(goHost, "s"+http.StatusText(int(s))[:2]+string(rune('0'+s%10)), "https://example.com/s", status(s))
	}
	w.link(goHost, "off", "https://example.com/off", func(l *terse.Link) { l.Status = terse.StatusDisabled })
	w.link(goHost, "old", "https://example.com/old", func(l *terse.Link) { l.ExpiresAt = testNow })
	w.link(goHost, "last", "https://example.com/last", func(l *terse.Link) { l.ExpiresAt = testNow + 1 })
	w.link(goHost, "old-to", "https://example.com/old", func(l *terse.Link) {
		l.ExpiresAt, l.Settings = testNow-1, &terse.LinkSettings{ExpiredDestination: "https://example.com/ended"}
	})
	w.link(goHost, "off-old", "https://example.com/old", func(l *terse.Link) {
		l.Status, l.ExpiresAt = terse.StatusDisabled, testNow-1
		l.Settings = &terse.LinkSettings{ExpiredDestination: "https://example.com/ended"}
	})
	w.link(goHost, "soon", "https://example.com/soon", settings(terse.LinkSettings{StartsAt: testNow + 1}))
	w.link(goHost, "now", "https://example.com/now", settings(terse.LinkSettings{StartsAt: testNow}))
	w.link(goHost, "fq", "https://example.com/p?a=1#frag", settings(terse.LinkSettings{ForwardQuery: &yes}))
	w.link(goHost, "fq-bare", "https://example.com", settings(terse.LinkSettings{ForwardQuery: &yes}))
	w.link(goHost, "fp", "https://example.com/base?a=1#frag", settings(terse.LinkSettings{ForwardPath: true}))
	w.link(goHost, "fp-bare", "https://example.com", settings(terse.LinkSettings{ForwardPath: true}))
	w.link(goHost, "fp-slash", "https://example.com/base/", settings(terse.LinkSettings{ForwardPath: true, ForwardQuery: &yes}))
	w.link(goHost, "secret", "https://example.com/secret", settings(terse.LinkSettings{PasswordHash: "x"}))
	w.link(goHost, "limited", "https://example.com/limited", settings(terse.LinkSettings{MaxClicks: 1}))
	w.link(goHost, "ruled", "https://example.com/ruled", settings(terse.LinkSettings{Rules: []terse.Rule{{}}}))
	w.link(goHost, "split", "https://example.com/\r\nSet-Cookie: a=b")
	w.link(goHost, "values", "", func(l *terse.Link) { l.Values = `{"u":"1"}` })
	gone := w.link(goHost, "gone", "https://example.com/gone")
	w.remove(gone)

	w.domain(domains.New{Host: "set.example.com", RedirectStatus: 308, ForwardQuery: true, SMaxAge: 30,
		RootDestination: "https://example.com/root", NotFoundDestination: "https://example.com/lost", ExpiredDestination: "https://example.com/late"})
	w.link("set.example.com", "plain", "https://example.com/set")
	w.link("set.example.com", "quiet", "https://example.com/quiet", settings(terse.LinkSettings{ForwardQuery: &no}))
	w.link("set.example.com", "old", "https://example.com/old", func(l *terse.Link) { l.ExpiresAt = testNow })
	w.link("set.example.com", "old-to", "https://example.com/old", func(l *terse.Link) {
		l.ExpiresAt, l.Settings = testNow-1, &terse.LinkSettings{ExpiredDestination: "https://example.com/ended"}
	})
	w.link("set.example.com", "soon", "https://example.com/soon", settings(terse.LinkSettings{StartsAt: testNow + 1}))
	w.link("set.example.com", "off", "https://example.com/off", func(l *terse.Link) { l.Status = terse.StatusDisabled })

	w.domain(domains.New{Host: "fold.example.com", Alphabet: "crockford32"})
	w.link("fold.example.com", "summer", "https://example.com/fold")
	w.domain(domains.New{Host: "port.example.com:8443"})
	w.link("port.example.com:8443", "plain", "https://example.com/port")
	w.domain(domains.New{Host: "127.0.0.1:8080"})
	w.link("127.0.0.1:8080", "plain", "https://example.com/local")
	return w.listen()
}

// TestBehaviour is the specification of what a visitor gets: for each request its
// status, its Location or a part of its body, and the outcome of the click it counts as.
func TestBehaviour(t *testing.T) {
	t.Parallel()
	w := behaviourWorld(t)
	const (
		redirect = "redirect"
		none     = "" // not counted
	)
	big := "https://example.com/" + strings.Repeat("x", 8000)
	tests := []struct {
		name    string
		request string // method, host and path; lines after it are headers
		status  int
		want    string // Location of a redirect, else a part of the body
		click   string
	}{
		{"a link", "GET go.example.com /plain", 302, "https://example.com/some/path", redirect},
		{"HEAD is a GET without body", "HEAD go.example.com /plain", 302, "https://example.com/some/path", "redirect head"},
		{"case matters", "GET go.example.com /Plain", 302, "https://example.com/other", redirect},
		{"another case is another code", "GET go.example.com /PLAIN", 404, "Link not found", "notfound"},
		{"percent-encoded", "GET go.example.com /pl%61in", 302, "https://example.com/some/path", redirect},
		{"decoded once only", "GET go.example.com /pl%2561in", 404, "Link not found", "notfound"},
		{"UTF-8, encoded", "GET go.example.com /caf%C3%A9", 302, "https://example.com/coffee", redirect},
		{"UTF-8, raw", "GET go.example.com /café", 302, "https://example.com/coffee", redirect},
		{"UTF-8, decomposed", "GET go.example.com /cafe%CC%81", 302, "https://example.com/coffee", redirect},
		{"not UTF-8", "GET go.example.com /caf%E9", 404, "Link not found", "notfound"},
		{"NUL", "GET go.example.com /plain%00", 404, "Link not found", "notfound"},
		{"encoded slash", "GET go.example.com /plain%2F", 404, "Link not found", "notfound"},
		{"encoded line feed", "GET go.example.com /plain%0d%0aX:1", 404, "Link not found", "notfound"},
		{"bad percent", "GET go.example.com /plain%zz", 404, "Link not found", "notfound"},
		{"dot segments are not resolved", "GET go.example.com /x/../plain", 404, "Link not found", "notfound"},
		{"encoded dots", "GET go.example.com /%2e%2e/plain", 404, "Link not found", "notfound"},
		{"two slashes", "GET go.example.com //plain", 404, "Link not found", "notfound"},
		{"backslash", `GET go.example.com /\plain`, 404, "Link not found", "notfound"},
		{"semicolon is part of a code", "GET go.example.com /plain;x", 404, "Link not found", "notfound"},
		{"a slash at the end means nothing", "GET go.example.com /plain/", 302, "https://example.com/some/path", redirect},
		{"two slashes at the end do", "GET go.example.com /plain//", 404, "Link not found", "notfound"},
		{"more path, not asked for", "GET go.example.com /plain/more", 404, "Link not found", "notfound"},
		{"a fragment is ignored", "GET go.example.com /plain#x?y", 302, "https://example.com/some/path", redirect},
		{"a very long code", "GET go.example.com /" + strings.Repeat("a", 4000), 404, "Link not found", "notfound"},
		{"8 KiB destination", "GET go.example.com /big", 302, big, redirect},
		{"destination as stored", "GET go.example.com /odd", 302, "https://example.com/?q=%20\"'<>`{}|\\^[]&u=a:b@c", redirect},
		{"status 301", "GET go.example.com /sMo1", 301, "https://example.com/s", redirect},
		{"status 303", "GET go.example.com /sSe3", 303, "https://example.com/s", redirect},
		{"status 307", "GET go.example.com /sTe7", 307, "https://example.com/s", redirect},
		{"status 308", "GET go.example.com /sPe8", 308, "https://example.com/s", redirect},
		{"a status that is none", "GET go.example.com /sOK0", 302, "https://example.com/s", redirect},

		{"unknown code", "GET go.example.com /nobody", 404, "Link not found", "notfound"},
		{"unknown code, HEAD", "HEAD go.example.com /nobody", 404, "", "notfound head"},
		{"deleted is never existed", "GET go.example.com /gone", 404, "Link not found", "notfound"},
		{"disabled", "GET go.example.com /off", 410, "This link has ended", "disabled"},
		{"expired to the millisecond", "GET go.example.com /old", 410, "This link has ended", "expired"},
		{"the last millisecond", "GET go.example.com /last", 302, "https://example.com/last", redirect},
		{"expired with a place of its own", "GET go.example.com /old-to", 302, "https://example.com/ended", "expired"},
		{"disabled and expired", "GET go.example.com /off-old", 410, "This link has ended", "disabled"},
		{"not begun", "GET go.example.com /soon", 404, "Link not found", "notfound"},
		{"just begun", "GET go.example.com /now", 302, "https://example.com/now", redirect},

		{"domain: status", "GET set.example.com /plain", 308, "https://example.com/set", redirect},
		{"domain: unknown code", "GET set.example.com /nobody", 302, "https://example.com/lost", "notfound"},
		{"domain: impossible code", "GET set.example.com /a%00", 302, "https://example.com/lost", "notfound"},
		{"domain: not begun", "GET set.example.com /soon", 302, "https://example.com/lost", "notfound"},
		{"domain: expired", "GET set.example.com /old", 302, "https://example.com/late", "expired"},
		{"domain: the link's own place wins", "GET set.example.com /old-to", 302, "https://example.com/ended", "expired"},
		{"domain: disabled is a page", "GET set.example.com /off", 410, "This link has ended", "disabled"},
		{"domain: root", "GET set.example.com /", 302, "https://example.com/root", none},
		{"domain: query forwarded", "GET set.example.com /plain?b=2", 308, "https://example.com/set?b=2", redirect},
		{"domain: the link says no", "GET set.example.com /quiet?b=2", 308, "https://example.com/quiet", redirect},
		{"domain: not to other places", "GET set.example.com /nobody?b=2", 302, "https://example.com/lost", "notfound"},

		{"query is dropped", "GET go.example.com /plain?x=1", 302, "https://example.com/some/path", redirect},
		{"query after the stored one, fragment last", "GET go.example.com /fq?b=2&a=3", 302, "https://example.com/p?a=1&b=2&a=3#frag", redirect},
		{"order and empty keys", "GET go.example.com /fq?z&&=&y=", 302, "https://example.com/p?a=1&z&&=&y=#frag", redirect},
		{"raw bytes are encoded", "GET go.example.com /fq?b=\xff\"%0d%0a", 302, "https://example.com/p?a=1&b=%FF\"%0d%0a#frag", redirect},
		{"query, bare host", "GET go.example.com /fq-bare?b=2", 302, "https://example.com?b=2", redirect},
		{"an empty query", "GET go.example.com /fq?", 302, "https://example.com/p?a=1#frag", redirect},
		{"a question mark in the query", "GET go.example.com /fq?b=?c", 302, "https://example.com/p?a=1&b=?c#frag", redirect},
		{"qr=1 marks a scan", "GET go.example.com /plain?qr=1", 302, "https://example.com/some/path", "redirect qr"},
		{"qr=1 is not forwarded", "GET go.example.com /fq?qr=1", 302, "https://example.com/p?a=1#frag", "redirect qr"},
		{"qr=1 between others", "GET go.example.com /fq?b=2&qr=1&c=3", 302, "https://example.com/p?a=1&b=2&c=3#frag", "redirect qr"},
		{"terse_notrack=1 marks a member's visit", "GET go.example.com /plain?terse_notrack=1", 302, "https://example.com/some/path", "redirect notrack"},
		{"terse_notrack=1 is not forwarded", "GET go.example.com /fq?b=2&terse_notrack=1&qr=1&c=3", 302, "https://example.com/p?a=1&b=2&c=3#frag", "redirect qr notrack"},
		{"notrack=1 is the destination's", "GET go.example.com /fq?notrack=1", 302, "https://example.com/p?a=1&notrack=1#frag", redirect},
		{"terse_notrack=0 is something else", "GET go.example.com /fq?terse_notrack=0", 302, "https://example.com/p?a=1&terse_notrack=0#frag", redirect},
		{"the cookie of a member", "GET go.example.com /plain\nCookie: a=b; terse_notrack=1;c=d", 302, "https://example.com/some/path", "redirect notrack"},
		{"the cookie of a member, unknown code", "GET go.example.com /nobody\nCookie: terse_notrack=1", 404, "", "notfound notrack"},
		{"the cookie of a member, in the first of two lines", "GET go.example.com /plain\nCookie: terse_notrack=1\nCookie: a=b", 302, "https://example.com/some/path", "redirect notrack"},
		{"the cookie of a member, between others", "GET go.example.com /plain\nCookie: a=b\ncookie: terse_notrack=1\nCookie:\nCookie: c=d", 302, "https://example.com/some/path", "redirect notrack"},
		{"two lines are two cookies", "GET go.example.com /plain\nCookie: terse_notrack\nCookie: =1", 302, "https://example.com/some/path", redirect},
		{"another value of the cookie", "GET go.example.com /plain\nCookie: terse_notrack=10; xterse_notrack=1", 302, "https://example.com/some/path", redirect},
		{"Global Privacy Control", "GET go.example.com /plain\nSec-GPC: 1", 302, "https://example.com/some/path", "redirect optout"},
		{"Do Not Track", "GET go.example.com /plain\nDNT: 1", 302, "https://example.com/some/path", "redirect optout"},
		{"no objection", "GET go.example.com /plain\nDNT: 0\nSec-GPC: 0", 302, "https://example.com/some/path", redirect},
		{"qr=10 is something else", "GET go.example.com /fq?qr=10", 302, "https://example.com/p?a=1&qr=10#frag", redirect},

		{"path forwarded", "GET go.example.com /fp/x/y%20z", 302, "https://example.com/base/x/y%20z?a=1#frag", redirect},
		{"path and dropped query", "GET go.example.com /fp/x?b=2", 302, "https://example.com/base/x?a=1#frag", redirect},
		{"path and query", "GET go.example.com /fp-slash/x?b=2", 302, "https://example.com/base/x?b=2", redirect},
		{"path, bare host", "GET go.example.com /fp-bare/x", 302, "https://example.com/x", redirect},
		{"path cannot become a host", "GET go.example.com /fp-bare//evil.example", 302, "https://example.com//evil.example", redirect},
		{"path cannot become a host, either", "GET go.example.com /fp-bare/@evil.example", 302, "https://example.com/@evil.example", redirect},
		{"path cannot climb", "GET go.example.com /fp/../x", 404, "Link not found", "notfound"},
		{"path cannot climb, encoded", "GET go.example.com /fp/a/%2E%2e/x", 404, "Link not found", "notfound"},
		{"path cannot climb by encoded slashes", "GET go.example.com /fp/a%2f..%2Fx", 404, "Link not found", "notfound"},
		{"path without backslash", `GET go.example.com /fp/a\b`, 404, "Link not found", "notfound"},
		{"three dots are a name", "GET go.example.com /fp/.../x", 302, "https://example.com/base/.../x?a=1#frag", redirect},
		{"path forwarding without a path", "GET go.example.com /fp/", 302, "https://example.com/base?a=1#frag", redirect},

		{"preview", "GET go.example.com /plain+", 200, "https://example.com/some/path", none},
		{"preview names the short URL", "GET go.example.com /plain+", 200, "https://go.example.com/plain", none},
		{"preview, escaped", "GET go.example.com /odd+", 200, "&lt;&gt;", none},
		{"preview, HEAD", "HEAD go.example.com /plain+", 200, "", none},
		{"preview of nothing", "GET go.example.com /nobody+", 404, "Link not found", none},
		{"preview of an ended link", "GET go.example.com /off+", 410, "This link has ended", none},
		{"preview of a link not begun", "GET go.example.com /soon+", 404, "Link not found", none},
		{"preview of an expired link", "GET go.example.com /old-to+", 302, "https://example.com/ended", none},
		{"an encoded plus is part of a code", "GET go.example.com /plain%2B", 404, "Link not found", "notfound"},
		{"a plus alone is a code", "GET go.example.com /+", 404, "Link not found", "notfound"},

		{"a setting we cannot carry out: password", "GET go.example.com /secret", 503, "Please try again", none},
		{"a setting we cannot carry out: limit", "GET go.example.com /limited", 503, "Please try again", none},
		{"a setting we cannot carry out: rules", "GET go.example.com /ruled", 503, "Please try again", none},
		{"a setting we cannot carry out: campaign values", "GET go.example.com /values", 503, "Please try again", none},
		{"a destination that would split the header", "GET go.example.com /split", 503, "Please try again", none},

		{"root", "GET go.example.com /", 200, "Short links", none},
		{"root with a query", "GET go.example.com /?a=b", 200, "Short links", none},
		{"robots.txt", "GET go.example.com /robots.txt", 200, "User-agent: *\nDisallow: /\n", none},
		{"favicon.ico", "GET go.example.com /favicon.ico", 204, "", none},
		{"well-known", "GET go.example.com /.well-known/security.txt", 404, "not found", none},
		{"system path", "GET go.example.com /_/anything", 404, "not found", none},
		{"underscore is no system path by itself", "GET go.example.com /_x", 404, "Link not found", "notfound"},
		{"health checks are codes on domains", "GET go.example.com /healthz", 302, "https://example.com/clinic", redirect},
		{"health: listen address", "GET 127.0.0.1:8080 /healthz", 200, "ok", none},
		{"health: the same port here", "GET localhost:8080 /healthz", 200, "ok", none},
		{"health: unknown host", "GET 10.1.2.3:8080 /healthz", 200, "ok", none},
		{"ready", "GET 127.0.0.1:8080 /readyz", 200, "redirect: ok", none},
		{"a link on the listen address", "GET 127.0.0.1:8080 /plain", 302, "https://example.com/local", redirect},

		{"host: upper case", "GET GO.Example.COM /plain", 302, "https://example.com/some/path", redirect},
		{"host: trailing dot", "GET go.example.com. /plain", 302, "https://example.com/some/path", redirect},
		{"host: default port", "GET go.example.com:80 /plain", 302, "https://example.com/some/path", redirect},
		{"host: any port", "GET go.example.com:8080 /plain", 302, "https://example.com/some/path", redirect},
		{"host: its own port", "GET port.example.com:8443 /plain", 302, "https://example.com/port", redirect},
		{"host: not its port", "GET port.example.com /plain", 404, "Link not found", none},
		{"host: unknown", "GET other.example.com /plain", 404, "Link not found", none},
		{"host: a part of ours", "GET example.com /plain", 404, "Link not found", none},
		{"host: in another header", "GET other.example.com /plain\nX-Forwarded-Host: go.example.com", 404, "Link not found", none},
		{"host: absolute form wins", "GET other.example.com http://go.example.com/plain", 302, "https://example.com/some/path", redirect},
		{"host: absolute form, https", "GET other.example.com HTTPS://GO.example.com/plain?x", 302, "https://example.com/some/path", redirect},
		{"host: absolute form without path", "GET go.example.com http://go.example.com", 200, "Short links", none},
		{"host: absolute form, other scheme", "GET go.example.com ftp://go.example.com/plain", 400, "malformed", none},
		{"case-insensitive domain", "GET fold.example.com /SUMMER", 302, "https://example.com/fold", redirect},

		{"POST", "POST go.example.com /plain\nContent-Length: 0", 405, "method not allowed", none},
		{"PUT", "PUT go.example.com /plain\nContent-Length: 0", 405, "method not allowed", none},
		{"DELETE", "DELETE go.example.com /plain", 405, "method not allowed", none},
		{"TRACE", "TRACE go.example.com /plain", 405, "method not allowed", none},
		{"an unknown method", "BREW go.example.com /plain", 405, "method not allowed", none},
		{"a lower-case method", "get go.example.com /plain", 405, "method not allowed", none},
		{"CONNECT", "CONNECT go.example.com go.example.com:443", 405, "method not allowed", none},
		{"OPTIONS", "OPTIONS go.example.com /plain", 204, "", none},
		{"OPTIONS of the server", "OPTIONS go.example.com *", 204, "", none},

		{"prefetch", "GET go.example.com /plain\nSec-Purpose: prefetch;prerender", 302, "https://example.com/some/path", "redirect prefetch"},
		{"preview agent", "GET go.example.com /plain\nX-Purpose: Preview", 302, "https://example.com/some/path", "redirect prefetch"},
		{"old Firefox", "GET go.example.com /plain\nX-Moz: prefetch", 302, "https://example.com/some/path", "redirect prefetch"},
		{"mobile", "GET go.example.com /plain\nSec-CH-UA-Mobile: ?1", 302, "https://example.com/some/path", "redirect mobile"},
		{"German", "GET go.example.com /nobody\nAccept-Language: de-CH, en;q=0.5", 404, "Link nicht gefunden", "notfound"},
		{"Japanese by weight", "GET go.example.com /nobody\nAccept-Language: xx, en;q=0.5, ja;q=0.9", 404, "リンクが見つかりません", "notfound"},
		{"URL over 8 KiB", "GET go.example.com /" + strings.Repeat("a", 8200), 414, "too long", none},
	}
	c := dial(t, w)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			first, headers, _ := strings.Cut(tt.request, "\n")
			part := strings.SplitN(first, " ", 3)
			raw := part[0] + " " + part[2] + " HTTP/1.1\r\nHost: " + part[1] + "\r\n"
			if headers != "" {
				raw += strings.ReplaceAll(headers, "\n", "\r\n") + "\r\n"
			}
			res, body := c.roundTrip(t, part[0], raw+"\r\n")
			if res.StatusCode != tt.status {
				t.Fatalf("status %d, want %d\n%s", res.StatusCode, tt.status, body)
			}
			location := res.Header.Get("Location")
			if redirects := tt.status/100 == 3; redirects {
				if location != tt.want {
					t.Errorf("Location %.200q, want %.200q", location, tt.want)
				}
				if len(body) > 0 {
					t.Errorf("a redirect has a body: %q", body)
				}
			} else {
				if location != "" {
					t.Errorf("unexpected Location %q", location)
				}
				if !strings.Contains(string(body), tt.want) {
					t.Errorf("body has no %q:\n%s", tt.want, body)
				}
				if len(body) > 15<<10 {
					t.Errorf("body has %d bytes, want fewer than 15 KiB", len(body))
				}
			}
			checkHeaders(t, res, part[1] == "set.example.com" && tt.click == redirect)
			if got := describe(w.clicks.take()); got != tt.click {
				t.Errorf("counted as %q, want %q", got, tt.click)
			}
		})
	}
}

// checkHeaders checks what every answer promises.
func checkHeaders(t *testing.T, res *http.Response, shared bool) {
	t.Helper()
	want := map[string]string{"Server": "", "Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store"}
	switch {
	case res.Header.Get("Location") != "":
		want["Content-Type"], want["Cache-Control"] = "", "private, max-age=0"
		if shared {
			want["Cache-Control"] = "public, max-age=0, s-maxage=30"
		}
	case res.StatusCode == http.StatusNoContent:
		delete(want, "Cache-Control")
		want["Content-Type"] = ""
	case strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain"):
		want = map[string]string{"Server": ""}
	default:
		want["Content-Language"], want["Vary"] = res.Header.Get("Content-Language"), "Accept-Language"
		if csp := res.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; style-src 'sha256-") {
			t.Errorf("Content-Security-Policy is %q", csp)
		}
	}
	if res.StatusCode != http.StatusNoContent {
		want["X-Robots-Tag"], want["X-Content-Type-Options"] = "noindex", "nosniff"
		want["Referrer-Policy"] = "strict-origin-when-cross-origin"
	}
	switch res.StatusCode {
	case http.StatusServiceUnavailable:
		want["Retry-After"] = "1"
	case http.StatusMethodNotAllowed:
		want["Allow"] = "GET, HEAD, OPTIONS"
	}
	for name, v := range want {
		if got := strings.Join(res.Header.Values(name), "|"); got != v {
			t.Errorf("%s is %q, want %q", name, got, v)
		}
	}
	if _, err := http.ParseTime(res.Header.Get("Date")); err != nil {
		t.Errorf("Date: %v", err)
	}
	for name := range res.Header {
		if name == "Set-Cookie" || name == "X" {
			t.Errorf("unexpected header %s", name)
		}
	}
}

// describe turns clicks into a word with flags.
func describe(got []clicks.Click) string {
	var b strings.Builder
	for _, c := range got {
		switch c.Outcome {
		case clicks.OutcomeRedirect:
			b.WriteString("redirect")
		case clicks.OutcomeExpired:
			b.WriteString("expired")
		case clicks.OutcomeDisabled:
			b.WriteString("disabled")
		case clicks.OutcomeNotFound:
			b.WriteString("notfound")
		case clicks.OutcomeLimit:
			b.WriteString("limit")
		case clicks.OutcomePassword:
			b.WriteString("password")
		case clicks.OutcomeBlocked:
			b.WriteString("blocked")
		case clicks.OutcomePreview:
			b.WriteString("preview")
		default:
			b.WriteString("unexpected")
		}
		for _, f := range []struct {
			flag clicks.Flag
			name string
		}{{clicks.FlagHead, " head"}, {clicks.FlagPrefetch, " prefetch"}, {clicks.FlagQR, " qr"}, {clicks.FlagMobile, " mobile"}, {clicks.FlagNoTrack, " notrack"}, {clicks.FlagOptOut, " optout"}} {
			if c.Flags&f.flag != 0 {
				b.WriteString(f.name)
			}
		}
	}
	return b.String()
}

// rawConn speaks HTTP by hand and sees every byte of the answers.
type rawConn struct {
	t  testing.TB // of the whole test: the connection outlives subtests
	w  *world
	nc net.Conn
	br *bufio.Reader
}

func dial(t testing.TB, w *world) *rawConn {
	t.Helper()
	nc, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(2 * time.Minute))
	return &rawConn{t: t, w: w, nc: nc, br: bufio.NewReaderSize(nc, 32<<10)}
}

// roundTrip sends bytes and reads one answer: one header block that net/http
// understands, and exactly the body it announces. It dials again after a close.
func (c *rawConn) roundTrip(t *testing.T, method, raw string) (*http.Response, []byte) {
	t.Helper()
	if _, err := io.WriteString(c.nc, raw); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(c.br, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("the answer is no HTTP: %v", err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if c.br.Buffered() > 0 {
		rest, _ := c.br.Peek(c.br.Buffered())
		t.Fatalf("bytes after the answer: %q", rest)
	}
	if res.Close {
		*c = *dial(c.t, c.w)
	}
	return res, body
}

// TestDeletedLooksLikeNeverExisted compares the bytes of the two answers.
func TestDeletedLooksLikeNeverExisted(t *testing.T) {
	t.Parallel()
	w := behaviourWorld(t)
	get := func(path string) []byte {
		nc, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_, _ = io.WriteString(nc, "GET "+path+" HTTP/1.1\r\nHost: go.example.com\r\nConnection: close\r\n\r\n")
		b, err := io.ReadAll(nc)
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(b, []byte("Date: "))
		return append(b[:at], b[at+len("Date: Mon, 23 Nov 2026 17:49:19 GMT\r\n"):]...)
	}
	never := get("/never-existed")
	for _, path := range []string{"/gone", "/soon", "/impossible%00", "/gone"} {
		if got := get(path); !bytes.Equal(got, never) {
			t.Errorf("%s:\n%s\nnever existed:\n%s", path, got, never)
		}
	}
}
