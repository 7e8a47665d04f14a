package redirect

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
)

// TestClickID: the destination is told the id under which the click is recorded, in the right place, and no id
// where browsers keep the redirect or there is none.
func TestClickID(t *testing.T) {
	w := newWorld(t)
	w.domain(domains.New{Host: "id.example.com", ClickIDParameter: "click_id", SMaxAge: 60, ForwardQuery: true})
	for alias, destination := range map[string]string{
		"plain": "https://example.com/a", "query": "https://example.com/a?b=c", "fragment": "https://example.com/a?b=c#part", "permanent": "https://example.com/p",
	} {
		w.link("id.example.com", alias, destination, func(l *terse.Link) {
			if alias == "permanent" {
				l.RedirectStatus = 301
			}
		})
	}
	for _, tt := range []struct{ path, before, after string }{
		{"/plain", "https://example.com/a?click_id=", ""},
		{"/query", "https://example.com/a?b=c&click_id=", ""},
		{"/fragment", "https://example.com/a?b=c&click_id=", "#part"},
		{"/fragment?x=1", "https://example.com/a?b=c&x=1&click_id=", "#part"},
	} {
		ctx := newCtx(t, "GET "+tt.path+" HTTP/1.1\r\nHost: id.example.com\r\n\r\n")
		w.server.handle(ctx)
		header := headerOf(t, ctx)
		location := header.Get("Location")
		rest, ok1 := strings.CutPrefix(location, tt.before)
		text, ok2 := strings.CutSuffix(rest, tt.after)
		id, err := terse.ParseClickID(text)
		got := w.clicks.take()
		if !ok1 || !ok2 || err != nil || len(got) != 1 || got[0].ID != id || id.Time() != got[0].At {
			t.Errorf("%s leads to %s, recorded as %v", tt.path, location, got)
		}
		if strings.Contains(got[0].Destination, "click_id") {
			t.Errorf("recorded destination %s", got[0].Destination)
		}
		if cc := header.Get("Cache-Control"); strings.Contains(cc, "s-maxage") {
			t.Errorf("a shared cache may keep it: %s", cc)
		}
	}
	for _, path := range []string{"/permanent", "/unknown", "/plain+"} {
		ctx := newCtx(t, "GET "+path+" HTTP/1.1\r\nHost: id.example.com\r\n\r\n")
		w.server.handle(ctx)
		got := w.clicks.take()
		if strings.Contains(headerOf(t, ctx).Get("Location"), "click_id") || len(got) > 0 && got[0].ID != (terse.ClickID{}) {
			t.Errorf("%s has an id: %v", path, got)
		}
	}
	// Off by default, and never the same twice.
	w.link("go.example.com", "off", "https://example.com/a")
	ctx := newCtx(t, "GET /off HTTP/1.1\r\nHost: go.example.com\r\n\r\n")
	w.server.handle(ctx)
	if location := headerOf(t, ctx).Get("Location"); location != "https://example.com/a" {
		t.Errorf("without the setting: %s", location)
	}
	if _, err := w.domains.Create(t.Context(), 1, domains.New{Host: "bad.example.com", ClickIDParameter: "a b"}, nil); terse.ErrorCode(err) != terse.CodeInvalid {
		t.Errorf("a parameter with a space: %v", err)
	}
}

// headerOf reads the header of an answer as a client does.
func headerOf(t *testing.T, ctx *fasthttp.RequestCtx) http.Header {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(ctx.Response.String())), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.Header
}

func TestClickIDAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations are counted without the race detector")
	}
	w := newWorld(t, quiet)
	w.domain(domains.New{Host: "id.example.com", ClickIDParameter: "click_id"})
	w.link("id.example.com", "a", "https://example.com/some/long/path?a=b#part")
	ctx := newCtx(t, "GET /a HTTP/1.1\r\nHost: id.example.com\r\n\r\n")
	w.server.handle(ctx)
	ctx.Response.Reset()
	if n := testing.AllocsPerRun(200, func() {
		w.server.handle(ctx)
		ctx.Response.Reset()
	}); n != 0 {
		t.Errorf("%v allocations a request, want 0", n)
	}
}
