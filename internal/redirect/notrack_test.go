package redirect

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/domains"
)

// TestOptOutRecorded follows visits through the handler and the spool to their events: who asks not to be followed is a
// person without a visitor, of whom nothing is kept; a member's own visit is of the class of its own.
func TestOptOutRecorded(t *testing.T) {
	t.Parallel()
	type event struct {
		Bot     clicks.BotClass
		Visitor bool
		Kept    bool
	}
	person, anonymous, self := event{Visitor: true, Kept: true}, event{}, event{Bot: clicks.BotSelf}
	for _, tt := range []struct {
		name, target, header string
		want, ignoring       event // what the event is, and what it is with IgnoreOptOut
	}{
		{"a person", "/a", "Accept: */*", person, person},
		{"Global Privacy Control", "/a", "Sec-GPC: 1", anonymous, person},
		{"Do Not Track", "/a", "dnt: 1", anonymous, person},
		{"no objection", "/a", "DNT: 0", person, person},
		{"the parameter", "/a?terse_notrack=1", "Accept: */*", self, self},
		{"the cookie", "/a", "Cookie: terse_notrack=1", self, self},
		{"the cookie of who objects", "/a", "Cookie: terse_notrack=1\r\nSec-GPC: 1", self, self},
	} {
		for _, ignore := range []bool{false, true} {
			dir := t.TempDir()
			salts, err := clicks.OpenSalts(filepath.Join(dir, "salts.json"), testNow.Time)
			if err != nil {
				t.Fatal(err)
			}
			if err := salts.Maintain(); err != nil {
				t.Fatal(err)
			}
			recorder, err := clicks.Open(clicks.Options{
				Dir: filepath.Join(dir, "spool"), Salts: salts, Clock: testNow.Time,
				Kept: func(terse.WorkspaceID) clicks.Kept { return clicks.Kept{UserAgent: true, Network: true} },
			})
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, func(o *Options) { o.Recorder, o.IgnoreOptOut = recorder, ignore })
			w.link("go.example.com", "a", "https://example.com/")
			ctx := newCtx(t, "GET "+tt.target+" HTTP/1.1\r\nHost: go.example.com\r\nUser-Agent: "+macAgent+"\r\n"+tt.header+"\r\n\r\n")
			w.server.handle(ctx)
			if got := ctx.Response.StatusCode(); got != http.StatusFound {
				t.Errorf("%s: %d", tt.name, got)
			}
			if err := recorder.Close(); err != nil {
				t.Fatal(err)
			}
			want := tt.want
			if ignore {
				want = tt.ignoring
			}
			var got []event
			events, err := clicks.OpenEvents(filepath.Join(dir, "spool"), clicks.Position{}, clicks.EnrichSettings{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := events.Next(t.Context(), 10, func(e *clicks.Event) error {
				got = append(got, event{e.Bot, e.Visitor != 0, e.UserAgent == macAgent && e.IP == "203.0.113.0/24"})
				if e.Browser != "Safari" || (e.UserAgent != "" || e.IP != "") != want.Kept {
					t.Errorf("%s: %+v", tt.name, e)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if err := events.Close(); err != nil {
				t.Fatal(err)
			}
			if len(got) != 1 || got[0] != want {
				t.Errorf("%s, ignoring objections %v: %+v, want %+v", tt.name, ignore, got, want)
			}
		}
	}
}

// TestNoTrackCookie: what the path sets is what visits are recognised by, for the domain and no other.
func TestNoTrackCookie(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.domain(domains.New{Host: "plain.example.com", Scheme: "http"})
	w.link("go.example.com", "a", "https://example.com/")
	ask := func(request string) (status int, cookie, body string) {
		ctx := newCtx(t, strings.ReplaceAll(request, "\n", "\r\n")+"\r\n\r\n")
		w.server.handle(ctx)
		if !strings.Contains(ctx.Response.Header.String(), "Cache-Control: no-store") && ctx.Response.StatusCode() == http.StatusOK {
			t.Errorf("%s: caches may keep the answer", request)
		}
		return ctx.Response.StatusCode(), string(ctx.Response.Header.Peek("Set-Cookie")), string(ctx.Response.Body())
	}
	const on, off = "not counted as a person's.\nTo change that, open https://go.example.com/_/notrack?set=off\n", "counted like anybody's.\nTo change that, open https://go.example.com/_/notrack?set=on\n"
	const has = "\nCookie: x=y; terse_notrack=1"
	const set, cleared = "terse_notrack=1; Path=/; Max-Age=34560000; HttpOnly; SameSite=Lax", "terse_notrack=1; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"
	for _, tt := range []struct{ name, request, cookie, body string }{
		{"without", "GET /_/notrack HTTP/1.1\nHost: go.example.com", "", off},
		{"with", "GET /_/notrack HTTP/1.1\nHost: go.example.com" + has, "", on},
		{"set", "GET /_/notrack?set=on HTTP/1.1\nHost: go.example.com", set + "; Secure", on},
		{"clear", "GET /_/notrack?set=off HTTP/1.1\nHost: go.example.com" + has, cleared + "; Secure", off},
		{"set, without TLS", "GET /_/notrack?set=on HTTP/1.1\nHost: plain.example.com", set, strings.ReplaceAll(strings.ReplaceAll(on, "https:", "http:"), "go.", "plain.")},
		{"another query", "GET /_/notrack?set=1 HTTP/1.1\nHost: go.example.com", "", off},
		{"set, among other parameters", "GET /_/notrack?utm_source=mail&set=on&mc_eid=1 HTTP/1.1\nHost: go.example.com", set + "; Secure", on},
		{"clear, among other parameters", "GET /_/notrack?set=off&utm_source=mail HTTP/1.1\nHost: go.example.com" + has, cleared + "; Secure", off},
		{"another parameter", "GET /_/notrack?reset=on HTTP/1.1\nHost: go.example.com", "", off},
		{"the first counts", "GET /_/notrack?set=1&set=on HTTP/1.1\nHost: go.example.com", "", off},
		{"entered", "GET /_/notrack?set=on HTTP/1.1\nHost: go.example.com\nSec-Fetch-Site: none", set + "; Secure", on},
		{"shown from another site", "GET /_/notrack HTTP/1.1\nHost: go.example.com\nSec-Fetch-Site: cross-site" + has, "", on},
		{"a prefetch", "GET /_/notrack?set=on HTTP/1.1\nHost: go.example.com\nSec-Purpose: prefetch", "", off},
		{"a prefetch to clear", "GET /_/notrack?set=off HTTP/1.1\nHost: go.example.com\nPurpose: prefetch" + has, "", on},
		{"HEAD", "HEAD /_/notrack?set=on HTTP/1.1\nHost: go.example.com", "", off},
	} {
		status, cookie, body := ask(tt.request)
		if host := "go.example.com"; status != 200 || cookie != tt.cookie || !strings.HasSuffix(body, tt.body) ||
			!strings.HasPrefix(strings.ReplaceAll(body, "plain.", "go."), "Visits of this browser to links of "+host+" are ") {
			t.Errorf("%s: %d %q\n%s", tt.name, status, cookie, body)
		}
	}
	// Another site changes nothing, and the visitor reads why.
	for request, state := range map[string]string{
		"GET /_/notrack?set=on HTTP/1.1\nHost: go.example.com\nSec-Fetch-Site: cross-site":            off,
		"GET /_/notrack?a=b&set=off HTTP/1.1\nHost: go.example.com\nsec-fetch-site: cross-site" + has: on,
	} {
		status, cookie, body := ask(request)
		if status != 403 || cookie != "" || !strings.HasPrefix(body, "Nothing was changed, since a page of another site led here") || !strings.HasSuffix(body, state) {
			t.Errorf("%s: %d %q\n%s", request, status, cookie, body)
		}
	}
	if status, _, _ := ask("GET /_/notracks HTTP/1.1\nHost: go.example.com"); status != 404 {
		t.Errorf("another path: %d", status)
	}
	_, cookie, _ := ask("GET /_/notrack?set=on HTTP/1.1\nHost: go.example.com")
	pair, _, _ := strings.Cut(cookie, ";")
	if w.clicks.take(); len(w.clicks.take()) != 0 {
		t.Fatal("clicks are left")
	}
	ask("GET /a HTTP/1.1\nHost: go.example.com\nCookie: " + pair)
	ask("GET /a HTTP/1.1\nHost: go.example.com")
	if got := describe(w.clicks.take()); got != "redirect notrackredirect" {
		t.Errorf("the visits are %s", got)
	}
}

// TestNoTrackUsesClicks: the mark is for anybody, so it is no way around a limit of clicks.
func TestNoTrackUsesClicks(t *testing.T) {
	t.Parallel()
	w := specialWorld(t)
	w.link("go.example.com", "once", "https://example.com/", settings(terse.LinkSettings{MaxClicks: 1}))
	w.want("/once?terse_notrack=1", 302, "https://example.com/")
	w.want("/once?terse_notrack=1", 410, "")
}
