package redirect

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clientip"
	"github.com/terselink/terse/internal/domains"
)

// ticket returns the target of a ticket of the world's plane.
func (w *world) ticket() string {
	w.t.Helper()
	path, until, err := w.server.WhoamiTicket()
	if err != nil {
		w.t.Fatal(err)
	}
	if got := until - w.now(); got != terse.Millis(WhoamiTTL.Milliseconds()) {
		w.t.Errorf("the ticket is good for %d ms", got)
	}
	return path
}

// TestWhoami: what a visitor with a ticket is shown is what rules and clicks get of them.
func TestWhoami(t *testing.T) {
	t.Parallel()
	w := specialWorld(t)
	w.domain(domains.New{Host: "plain.example.com", Scheme: "http"})
	const peer = "203.0.113.9" // a trusted proxy of specialWorld
	for name, tt := range map[string]struct {
		peer, host, headers string
		want                string // client, client_from, ignored, scheme, scheme_from, country, device, os, browser, bot
	}{
		"direct":             {"192.0.2.1", "", "", "192.0.2.1 connection - http connection DE desktop macOS Safari -"},
		"a proxy":            {peer, "", "X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-Proto: https", "198.51.100.1 x-forwarded-for - https x-forwarded-proto FR desktop macOS Safari -"},
		"two proxies":        {peer, "", "X-Forwarded-For: 10.9.9.9, 192.0.2.1, 203.0.113.5\r\nX-Forwarded-Proto: http, HTTPS ", "192.0.2.1 x-forwarded-for - https x-forwarded-proto DE desktop macOS Safari -"},
		"forwarded":          {peer, "", `Forwarded: for=10.9.9.9;proto=http, for="192.0.2.1:55";Proto="https"`, "192.0.2.1 forwarded - https forwarded DE desktop macOS Safari -"},
		"an odd scheme":      {peer, "", "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: gopher", "192.0.2.1 x-forwarded-for - http connection DE desktop macOS Safari -"},
		"nobody's proxy":     {"198.51.100.1", "", "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https", "198.51.100.1 connection untrusted_peer http connection FR desktop macOS Safari -"},
		"two that disagree":  {peer, "", "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=198.51.100.1", peer + " connection conflict http connection - desktop macOS Safari -"},
		"two that agree":     {peer, "", "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1", "192.0.2.1 x-forwarded-for - http connection DE desktop macOS Safari -"},
		"nonsense":           {peer, "", "X-Forwarded-For: unknown", peer + " connection unreadable http connection - desktop macOS Safari -"},
		"another host":       {"192.0.2.1", "plain.example.com", "", "192.0.2.1 connection - http connection DE desktop macOS Safari -"},
		"a prefetch":         {"192.0.2.1", "", "Sec-Purpose: prefetch", "192.0.2.1 connection - http connection DE desktop macOS Safari prefetch"},
		"a program":          {"192.0.2.1", "", "User-Agent: curl/8.9.1", "192.0.2.1 connection - http connection DE bot - - library"},
		"bytes of any other": {peer, "", "X-Forwarded-For: \xff<script>", peer + " connection unreadable http connection - desktop macOS Safari -"},
	} {
		host := "go.example.com"
		if tt.host != "" {
			host = tt.host
		}
		raw := "GET " + w.ticket() + " HTTP/1.1\r\nHost: " + host + "\r\n"
		if !strings.Contains(tt.headers, "User-Agent") {
			raw += "User-Agent: " + macAgent + "\r\n"
		}
		if tt.headers != "" {
			raw += tt.headers + "\r\n"
		}
		ctx := newCtxFrom(t, tt.peer, raw+"\r\n")
		w.server.handle(ctx)
		var got Seen
		if err := json.Unmarshal(ctx.Response.Body(), &got); err != nil || ctx.Response.StatusCode() != 200 {
			t.Errorf("%s: %d, %v\n%s", name, ctx.Response.StatusCode(), err, ctx.Response.Body())
			continue
		}
		list := []string{got.Client, got.ClientFrom, got.HeadersIgnored, got.Scheme, got.SchemeFrom, got.Country, got.Device, got.OS, got.Browser, got.Bot}
		for i, s := range list {
			if s == "" {
				list[i] = "-"
			}
		}
		if line := strings.Join(list, " "); line != tt.want {
			t.Errorf("%s:\n %s, want\n %s", name, line, tt.want)
		}
		if got.Peer != tt.peer || got.PeerTrusted != (tt.peer == peer) || got.Host != host || got.Domain != host || !strings.HasSuffix(got.BaseURL, "://"+host+"/") {
			t.Errorf("%s: %+v", name, got)
		}
		if head := ctx.Response.Header.String(); !strings.Contains(head, "Cache-Control: no-store\r\n") || !strings.Contains(head, "Content-Type: application/json\r\n") {
			t.Errorf("%s: headers\n%s", name, head)
		}
	}
	if got := w.clicks.take(); len(got) != 0 {
		t.Errorf("%d clicks are recorded", len(got))
	}
}

// TestWhoamiTicket: without a ticket that is good now there is nothing to see, not even that there is such a place.
func TestWhoamiTicket(t *testing.T) {
	t.Parallel()
	w := specialWorld(t)
	now := testNow
	w.server.o.Clock = func() terse.Millis { return now }
	w.now = w.server.o.Clock
	ask := func(target string) string {
		ctx := newCtx(t, "GET "+target+" HTTP/1.1\r\nHost: go.example.com\r\n\r\n")
		w.server.handle(ctx)
		return fmt.Sprintf("%d %s", ctx.Response.StatusCode(), ctx.Response.Body())
	}
	const nothing = "404 not found\n"
	good := w.ticket()
	if got := ask(good); !strings.HasPrefix(got, "200 {") {
		t.Fatalf("a good ticket: %s", got)
	}
	path, ticket, _ := strings.Cut(good, "?")
	bad := []byte(good)
	bad[len(bad)-3] ^= 1
	for _, target := range []string{path, path + "?", path + "?ticket=", path + "?x=1&" + ticket, good + "&x=1", good + "A", good[:len(good)-2], string(bad), path + "?ticket=" + strings.Repeat("A", 32), path + "/" + ticket} {
		if got := ask(target); got != nothing {
			t.Errorf("%s: %s", target, got)
		}
	}
	now += terse.Millis(WhoamiTTL.Milliseconds()) - 1
	if got := ask(good); !strings.HasPrefix(got, "200 {") {
		t.Errorf("just before its end: %s", got)
	}
	now++
	if got := ask(good); got != nothing {
		t.Errorf("after its end: %s", got)
	}
	other := newWorld(t)
	if _, _, err := other.server.WhoamiTicket(); !errors.Is(err, terse.ErrUnavailable) {
		t.Errorf("a plane without a key: %v", err)
	}
	other.server.SetCookieKey([]byte(strings.Repeat("o", 32)))
	if got := ask(other.ticket()); got != nothing {
		t.Errorf("the ticket of another instance: %s", got)
	}
	if !slices.Equal([]byte(ask("/_/other")), []byte(nothing)) {
		t.Error("another path of the system answers differently")
	}
}

// FuzzTicket: no query opens what no ticket was made for.
func FuzzTicket(f *testing.F) {
	g := newGate([]byte(strings.Repeat("k", 32)), func() terse.Millis { return testNow }, nil)
	good := "ticket=" + g.ticket(testNow+1000)
	f.Add([]byte(good))
	f.Add([]byte(good[:20]))
	f.Add([]byte("ticket=&" + good))
	f.Fuzz(func(t *testing.T, query []byte) {
		if g.ticketOpens(query, testNow) && string(query) != good {
			t.Fatalf("%q opens", query)
		}
		if g.ticketOpens(query, testNow+1000) {
			t.Fatalf("%q opens after its end", query)
		}
	})
}

// FuzzScheme: whatever a proxy says, the scheme is one that there is.
func FuzzScheme(f *testing.F) {
	f.Add("https")
	f.Add("http, https ")
	f.Add(`for=1.2.3.4;proto="https";by=x, for=_x;Proto=HTTP`)
	f.Fuzz(func(t *testing.T, v string) {
		for _, read := range []func(string) (string, bool){clientip.KnownScheme, clientip.ForwardedScheme} {
			if s, ok := read(v); ok && s != "http" && s != "https" {
				t.Fatalf("%q gives %q", v, s)
			}
		}
	})
}
