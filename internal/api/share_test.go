package api_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/terselink/terse/internal/analytics"
)

// TestSharePage: the page needs no key, shows no small number and no destination, and is not for search engines.
func TestSharePage(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.engine.breakdown = &analytics.Breakdown{Data: []analytics.Value{{Value: "DE", Clicks: 4000}, {Value: "<b>", Clicks: 2}}, Other: 1, Total: 4003}
	id := b.want(201, request{method: "POST", path: "/api/v1/shares", body: `{"name":"For <the> client"}`}).text(t, "id")
	a := b.want(200, request{method: "GET", path: "/s/" + id, key: "-"})
	page := string(a.body)
	for _, want := range []string{"For &lt;the&gt; client", "4,000", "&lt; 3", "&lt;b&gt;", "<svg", `name="robots" content="noindex`, "<rect"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	if strings.Contains(page, "<script") || strings.Contains(page, "<b>") || len(page) > 15_000 {
		t.Errorf("%d bytes:\n%s", len(page), page)
	}
	h := a.header
	if h.Get("X-Robots-Tag") != "noindex, nofollow" || !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") || !strings.Contains(h.Get("Content-Type"), "text/html") {
		t.Errorf("%v", h)
	}
	// What was shown is shown for a minute, and asked of the engine once.
	b.engine.breakdown = nil
	if again := b.want(200, request{method: "GET", path: "/s/" + id, key: "-"}); string(again.body) != page {
		t.Error("another page within a minute")
	}
	b.now.Add(61_000)
	if again := b.want(200, request{method: "GET", path: "/s/" + id, key: "-"}); string(again.body) == page {
		t.Error("the same page after a minute")
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
	if a := b.want(200, form("hunter2")); !strings.Contains(string(a.body), "secret numbers") {
		t.Errorf("%s", a.body)
	}
	b.wantProblem(401, "password_required", request{method: "GET", path: "/s/" + id + "/stats", key: "-"})
	b.want(200, request{method: "GET", path: "/s/" + id + "/stats", key: "-", header: map[string]string{"Terse-Share-Password": "hunter2"}})
	for range 10 {
		b.want(401, form("wrong"))
	}
	if a := b.do(form("hunter2")); a.status != http.StatusTooManyRequests {
		t.Errorf("after ten guesses: %d", a.status)
	}
}
