package api_test

import (
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
)

// TestSharePage: the page needs no key, shows no small number and no destination, and is not for search engines.
func TestSharePage(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.engine.breakdown = &analytics.Breakdown{Data: []analytics.Value{{Value: "DE", Clicks: 4000}, {Value: "<b>", Clicks: 3}, {Value: "few", Clicks: 2}}, Other: 1, Total: 4006}
	b.engine.series = []analytics.Point{{T: 1, Clicks: 2}, {T: 2, Clicks: 1}, {T: 3, Clicks: 4}, {T: 4}}
	id := b.want(201, request{method: "POST", path: "/api/v1/shares", body: `{"name":"For <the> client"}`}).text(t, "id")
	a := b.want(200, request{method: "GET", path: "/s/" + id, key: "-"})
	page := string(a.body)
	for _, want := range []string{"For &lt;the&gt; client", "4,000", ": not shown", "(other)", "&lt;b&gt;", "<svg", `name="robots" content="noindex`, "<rect"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	if strings.Contains(page, "<script") || strings.Contains(page, "few<") || strings.Contains(page, "<b>") || len(page) > 15_000 {
		t.Errorf("%d bytes:\n%s", len(page), page)
	}
	h := a.header
	if h.Get("X-Robots-Tag") != "noindex, nofollow" || !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") || !strings.Contains(h.Get("Content-Type"), "text/html") {
		t.Errorf("%v", h)
	}
	// What was shown is shown for a minute, and asked of the engine once.
	b.engine.breakdown = &analytics.Breakdown{Data: []analytics.Value{{Value: "DE", Clicks: 2}}, Total: 2}
	if again := b.want(200, request{method: "GET", path: "/s/" + id, key: "-"}); string(again.body) != page {
		t.Error("another page within a minute")
	}
	b.now.Add(61_000)
	if again := b.want(200, request{method: "GET", path: "/s/" + id, key: "-"}); string(again.body) == page || !strings.Contains(string(again.body), "&lt; 3") || strings.Contains(string(again.body), "DE") {
		t.Errorf("after a minute:\n%s", again.body)
	}
}

// TestSharePassword: without the password there is a form, guesses are slowed down, and the right one opens.
func TestSharePassword(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	id := b.want(201, request{method: "POST", path: "/api/v1/shares", body: `{"name":"secret numbers","password":"hunter2"}`}).text(t, "id")
	form := func(password string) request {
		return request{method: "POST", path: "/s/" + id, key: "-", body: url.Values{"password": {password}}.Encode(), header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}}
	}
	a := b.want(401, request{method: "GET", path: "/s/" + id, key: "-"})
	if text := string(a.body); !strings.Contains(text, `type="password"`) || strings.Contains(text, "secret numbers") {
		t.Errorf("%s", text)
	}
	a = b.want(200, form("hunter2"))
	if text := string(a.body); !strings.Contains(text, "secret numbers") || !strings.Contains(text, `href="?period=7d"`) {
		t.Errorf("%s", text)
	}
	// The password is not asked again for another period, until an hour later, and not for another share.
	cookie, err := http.ParseSetCookie(a.header.Get("Set-Cookie"))
	if err != nil || !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.Path != "/s/"+id || cookie.MaxAge != 3600 {
		t.Fatalf("%v, %v", cookie, err)
	}
	with := func(id, path, value string) request {
		return request{method: "GET", path: "/s/" + id + path, key: "-", header: map[string]string{"Cookie": cookie.Name + "=" + value}}
	}
	b.want(200, with(id, "?period=7d", cookie.Value))
	b.want(200, with(id, "/stats?period=7d", cookie.Value))
	until, mark, _ := strings.Cut(cookie.Value, ".")
	for _, value := range []string{"", mark, until + ".", until + "9." + mark, "9" + until + "." + mark, until + ".A" + mark[1:] + "A"} {
		b.want(401, with(id, "", value))
	}
	same := b.want(201, request{method: "POST", path: "/api/v1/shares", body: `{"name":"other numbers","password":"hunter2"}`}).text(t, "id")
	b.want(401, with(same, "", cookie.Value))
	b.now.Add(3_599_000)
	b.want(200, with(id, "", cookie.Value))
	b.now.Add(1000)
	b.want(401, with(id, "", cookie.Value))
	b.wantProblem(401, "password_required", request{method: "GET", path: "/s/" + id + "/stats", key: "-"})
	b.want(200, request{method: "GET", path: "/s/" + id + "/stats", key: "-", header: map[string]string{"Terse-Share-Password": "hunter2"}})
	for range 10 {
		b.want(401, form("wrong"))
	}
	a = b.want(http.StatusTooManyRequests, form("hunter2"))
	if a.header.Get("Retry-After") == "" || !strings.Contains(string(a.body), "too many wrong passwords") || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
		t.Errorf("after ten guesses: %v\n%s", a.header, a.body)
	}
}

// TestShareCookieSecure: the cookie is for encrypted connections alone if the client's own is one, of which a trusted proxy
// tells, and nobody else.
func TestShareCookieSecure(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		trusted []string
		header  map[string]string
		secure  bool
	}{
		{nil, nil, false},
		{nil, map[string]string{"X-Forwarded-Proto": "https"}, false},
		{[]string{"127.0.0.0/8"}, nil, false},
		{[]string{"127.0.0.0/8"}, map[string]string{"X-Forwarded-Proto": "https"}, true},
		{[]string{"127.0.0.0/8"}, map[string]string{"X-Forwarded-Proto": "https, http"}, false},
		{[]string{"127.0.0.0/8"}, map[string]string{"Forwarded": "for=192.0.2.7;proto=https"}, true},
		{[]string{"127.0.0.0/8"}, map[string]string{"X-Forwarded-Proto": "http", "Forwarded": "for=192.0.2.7;proto=https"}, false},
		{[]string{"192.0.2.0/24"}, map[string]string{"X-Forwarded-Proto": "https"}, false},
	} {
		b := setup(t, options{trusted: c.trusted})
		id := b.want(201, request{method: "POST", path: "/api/v1/shares", body: `{"name":"numbers","password":"hunter2"}`}).text(t, "id")
		header := map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
		maps.Copy(header, c.header)
		a := b.want(200, request{method: "POST", path: "/s/" + id, key: "-", body: "password=hunter2", header: header})
		if cookie, err := http.ParseSetCookie(a.header.Get("Set-Cookie")); err != nil || cookie.Secure != c.secure {
			t.Errorf("%v, %v: %v, %v", c.trusted, c.header, cookie, err)
		}
	}
}

// TestShareErrors: what goes wrong is a page for people, and a problem for whoever asks for JSON.
func TestShareErrors(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	id := b.want(201, request{method: "POST", path: "/api/v1/shares", body: `{"name":"numbers"}`}).text(t, "id")
	gone := b.want(201, request{method: "POST", path: "/api/v1/shares", body: `{"name":"gone"}`}).text(t, "id")
	b.want(204, request{method: "DELETE", path: "/api/v1/shares/" + gone})
	b.engine.err = &terse.Error{Code: terse.CodeUnavailable, Reason: "analytics_down", Message: "the engine is away"}
	for _, c := range []struct {
		path, text, code string
		status           int
	}{
		{"/s/" + gone, "no page here", "not_found", 404},
		{"/s/nonsense", "no page here", "not_found", 404},
		{"/s/" + id + "?period=99d", "no such period", "invalid", 422},
		{"/s/" + id, "cannot be read right now", "analytics_down", 503},
	} {
		a := b.want(c.status, request{method: "GET", path: c.path, key: "-", header: map[string]string{"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}})
		if h := a.header; !strings.Contains(string(a.body), c.text) || !strings.HasPrefix(h.Get("Content-Type"), "text/html") || h.Get("X-Robots-Tag") == "" || h.Get("Content-Security-Policy") == "" {
			t.Errorf("%s: %v\n%s", c.path, h, a.body)
		}
		b.wantProblem(c.status, c.code, request{method: "GET", path: c.path, key: "-", header: map[string]string{"Accept": "application/json"}})
	}
}
