package redirect

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
)

// memoryConn is a connection whose other end has sent all and closed.
type memoryConn struct {
	net.Conn
	in   *bytes.Reader
	out  bytes.Buffer
	peer netip.AddrPort
}

func (c *memoryConn) Read(b []byte) (int, error)       { return c.in.Read(b) }
func (c *memoryConn) Write(b []byte) (int, error)      { return c.out.Write(b) }
func (c *memoryConn) Close() error                     { return nil }
func (c *memoryConn) LocalAddr() net.Addr              { return addr{} }
func (c *memoryConn) RemoteAddr() net.Addr             { return addr{c.peer} }
func (c *memoryConn) SetDeadline(time.Time) error      { return nil }
func (c *memoryConn) SetReadDeadline(time.Time) error  { return nil }
func (c *memoryConn) SetWriteDeadline(time.Time) error { return nil }

var dates = regexp.MustCompile(`(?m)^Date: .*\r\n`)

func withoutDate(b []byte) []byte { return dates.ReplaceAll(b, nil) }

// describeClicks is all that clicks say.
func describeClicks(got []clicks.Click) string {
	var b strings.Builder
	for _, c := range got {
		fmt.Fprintf(&b, "%+v\n", c)
	}
	return b.String()
}

var somePeer = netip.MustParseAddrPort("203.0.113.9:4711")

// checkPlain answers raw the way of the event loops as far as that goes, and the bytes that took by
// fasthttp: the answers and the clicks must be the same. It returns how many were answered.
func checkPlain(t *testing.T, w *world, p *plainer, raw []byte) (answered int) {
	t.Helper()
	p.out = p.out[:0]
	rest := raw
	for more := true; more && len(rest) > 0; {
		before := len(p.out)
		n, next := p.answer(rest, somePeer.Addr(), 0, testNow)
		switch next {
		case stepNext, stepClose:
			rest = rest[n:]
			answered++
			more = next == stepNext
		case stepBroken:
			if !endsBare(rest) {
				t.Fatalf("a panic at %q", rest)
			}
			p.out, more = p.out[:before], false // fasthttp would wait for an end
		default:
			more = false
		}
	}
	ours := describeClicks(w.clicks.take())
	c := &memoryConn{in: bytes.NewReader(raw[:len(raw)-len(rest)]), peer: somePeer}
	_ = w.server.fast.ServeConn(c) // its error is about the connection
	theirs := describeClicks(w.clicks.take())
	if got, want := withoutDate(p.out), withoutDate(c.out.Bytes()); !bytes.Equal(got, want) {
		t.Fatalf("%q\nloop:     %q\nfasthttp: %q", raw, got, want)
	}
	if ours != theirs {
		t.Fatalf("%q\nclicks by loop:     %s\nclicks by fasthttp: %s", raw, ours, theirs)
	}
	return answered
}

// plainWorld is a world of which everything is cached.
func plainWorld(t testing.TB) (*world, *plainer) {
	w := newWorld(t, func(o *Options) {
		o.TrustedProxies, o.ListenHost = []string{"203.0.113.0/24"}, "127.0.0.1:8080"
	})
	linkForwarding(w)
	w.link("go.example.com", "a", "https://example.com/a")
	w.link("go.example.com", "off", "https://example.com/off", func(l *terse.Link) { l.Status = terse.StatusDisabled })
	w.link("go.example.com", "secret", "https://example.com/", func(l *terse.Link) { l.Settings = &terse.LinkSettings{PasswordHash: "x"} })
	w.link("go.example.com", "ruled", "https://example.com/", func(l *terse.Link) {
		l.Settings = &terse.LinkSettings{Rules: []terse.Rule{{
			Conditions:  []terse.Condition{{Type: "device", Values: []string{"mobile"}}},
			Destination: "https://example.com/mobile",
		}}}
	})
	for _, path := range []string{"/a", "/fq", "/fp", "/plain", "/off", "/secret", "/ruled", "/no-body"} {
		w.ask(path)
	}
	w.clicks.take()
	return w, newPlainer(w.server)
}

// plainRequests are answered by the loop itself.
var plainRequests = []string{
	"GET /a HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
	"HEAD /a HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
	"GET /a HTTP/1.1\r\n" + browserHeaders + "\r\n",
	"GET /ruled HTTP/1.1\r\n" + browserHeaders + "\r\n",
	"GET /ruled HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
	"GET /off HTTP/1.1\r\nhost:go.example.com:80  \r\nAccept-Language: de\r\n\r\n",
	"GET /fq?a=1&&b=%20&qr=1 HTTP/1.1\r\nHOST: GO.Example.COM.\r\nUser-Agent:  x y \r\nCookie: a=b\r\n\r\n",
	"GET /a HTTP/1.1\r\nHost: go.example.com\r\nCookie: terse_notrack=1\r\nCookie: a=b\r\nCookie: c=d\r\n\r\n",
	"GET /fp/x/y?u=https://example.org/ HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
	"GET /fp/../y HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
	"GET /a+ HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
	"GET /a HTTP/1.1\r\nHost: go.example.com\r\nConnection: keep-alive\r\n\r\n",
	"GET /a HTTP/1.1\r\nHost: go.example.com\r\nX-Forwarded-For: 192.0.2.1, 203.0.113.7\r\nForwarded: for=192.0.2.1\r\n\r\n",
	"GET /a HTTP/1.1\r\nHost: go.example.com\r\nSec-Purpose: prefetch;prerender\r\nSec-CH-UA-Mobile: ?1\r\nSec-CH-UA-Platform: \"Android\"\r\n\r\n",
	"GET /1234567 HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
	"GET /no-body HTTP/1.1\r\nHost: go.example.com\r\nAccept-Language: fr-CH, fr;q=0.9\r\n\r\n",
	"HEAD /no-body HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
	"GET /caf%C3%A9%zz%0d%0a HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
	"GET /robots.txt HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
	"GET /favicon.ico HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
	"GET /.well-known/x HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
	"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n",
	"GET /a HTTP/1.1\r\nHost: unknown.example.com:8080\r\nContent-Type: text/plain\r\n\r\n",
	"GET /a HTTP/1.1\r\nHost: GO.example.com:80\r\n\r\n", "GET /a HTTP/1.1\r\nHost: GO.example.com:80\r\n\r\n", // the second from memory
	"GET /a HTTP/1.1\r\nHost: go.example.com\r\nConnection: close\r\n\r\n",
}

// unusualRequests are left to fasthttp, as a whole or from the goroutine of a request.
var unusualRequests = []string{
	"GET /a HTTP/1.0\r\nHost: go.example.com\r\n\r\n", "POST /a HTTP/1.1\r\nHost: go.example.com\r\nContent-Length: 0\r\n\r\n",
	"get /a HTTP/1.1\r\nHost: go.example.com\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
	"\r\nGET /a HTTP/1.1\r\nHost: go.example.com\r\n\r\n", "GET  /a HTTP/1.1\r\nHost: go.example.com\r\n\r\n", "GET /a  HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
	"GET /a HTTP/1.1\nHost: go.example.com\n\n", "GET /a HTTP/1.1\r\nHost: go.example.com\n\r\n\r\n", "GET /a HTTP/1.1\r\nHost: go.example.com\r\n x\r\n\r\n",
	"GET //a HTTP/1.1\r\nHost: go.example.com\r\n\r\n", "GET http://go.example.com/a HTTP/1.1\r\nHost: go.example.com\r\n\r\n", "GET /a#b HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
	"GET /\xff HTTP/1.1\r\nHost: go.example.com\r\n\r\n", "GET /a\x01 HTTP/1.1\r\nHost: go.example.com\r\n\r\n", "GET /a HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
	"GET /a HTTP/1.1\r\n\r\n", "GET /a HTTP/1.1\r\nHost: go.example.com\r\nHost: go.example.com\r\n\r\n", "GET /a HTTP/1.1\r\nHost: a@go.example.com\r\n\r\n",
	"GET /a HTTP/1.1\r\nHost:\r\n\r\n", "GET /a HTTP/1.1\r\nHost: go.example.com\r\nContent-Length: 0\r\n\r\n", "GET /a HTTP/1.1\r\nHost: go.example.com\r\nTransfer-Encoding: identity\r\n\r\n",
	"GET /a HTTP/1.1\r\nHost: go.example.com\r\nExpect: 100-continue\r\n\r\n", "GET /a HTTP/1.1\r\nHost: go.example.com\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
	"GET /a HTTP/1.1\r\nHost: go.example.com\r\nConnection: keep-alive, close\r\n\r\n", "GET /a HTTP/1.1\r\nHost: go.example.com\r\nX Y: 1\r\n\r\n",
	"GET /a HTTP/1.1\r\nHost: go.example.com\r\nX: a\x00b\r\n\r\n", "GET /a HTTP/1.1\r\nHost: go.example.com\r\nX: a\tb\r\n\r\n", "GET /a HTTP/1.1\r\nHost: go.example.com\r\nX: a\x7fb\r\n\r\n",
	"GET /a HTTP/1.1\r\nHost: go.example.com\r\nTrailer: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /a HTTP/1.1\r\nHost: go.example.com\r\n" + strings.Repeat("X: y\r\n", 100) + "\r\n",
	"GET /a HTTP/1.1\r\nHost: go.example.com\r\nX: " + strings.Repeat("y", 16<<10) + "\r\n\r\n", "GET /" + strings.Repeat("x", 9<<10) + " HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
	"GET /secret HTTP/1.1\r\nHost: go.example.com\r\n\r\n", "GET /not-cached-yet HTTP/1.1\r\nHost: go.example.com\r\n\r\n", "GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n",
}

// TestPlainIsFasthttp answers each request by both paths.
func TestPlainIsFasthttp(t *testing.T) {
	t.Parallel()
	w, p := plainWorld(t)
	for _, raw := range plainRequests {
		if n := checkPlain(t, w, p, []byte(raw)); n != 1 {
			t.Errorf("%q: %d answers by the loop, want 1", raw, n)
		}
	}
	for _, raw := range unusualRequests {
		if n := checkPlain(t, w, p, []byte(raw)); n != 0 {
			t.Errorf("%q: %d answers by the loop, want 0", raw, n)
		}
	}
	all := strings.Join(plainRequests, "")
	if n := checkPlain(t, w, p, []byte(all)); n != len(plainRequests) {
		t.Errorf("%d answers to %d requests at once", n, len(plainRequests))
	}
}

// TestPartialRequests cuts plain requests everywhere: no part is answered, none is taken for unusual.
func TestPartialRequests(t *testing.T) {
	t.Parallel()
	var r request
	for _, raw := range plainRequests {
		for i := 1; i < len(raw); i++ {
			if n, what := r.parse([]byte(raw[:i])); what != partial {
				t.Fatalf("%q: %d, %v, want partial", raw[:i], n, what)
			}
		}
	}
	for _, raw := range []string{"\x16\x03\x01", "\n", "PRI", "GET x", "GET /a HTTP/1.1\n", "GET /a HTTP/1.0\r\n", "GET /a HTTP/1.1\r\nHost: a\n", "GET /" + strings.Repeat("x", maxHead)} {
		if _, what := r.parse([]byte(raw)); what != unusual {
			t.Errorf("%.40q: %v, want unusual: fasthttp may have an answer already", raw, what)
		}
	}
}

// TestEndsBare: only a head that was ended with bare line feeds is refused before fasthttp sees it.
func TestEndsBare(t *testing.T) {
	t.Parallel()
	for _, raw := range plainRequests {
		for i := range len(raw) + 1 {
			if endsBare([]byte(raw[:i])) {
				t.Fatalf("%q is refused", raw[:i])
			}
		}
	}
	for raw, want := range map[string]bool{
		"GET /a HTTP/1.1\nHost: a\n\n": true, "GET /a HTTP/1.1\r\nHost: a\n\n": true, "GET /a HTTP/1.1\nHost: a\r\n\n": true, "GET /a HTTP/1.0\n\n": true, "POST /a HTTP/1.1\nHost: a\n\nx=y": true,
		"GET /a HTTP/1.1\r\nHost: a\n\r\n": true, "GET /a HTTP/1.1\n\nGET /": true,
		"": false, "\n": false, "\n\n": false, "\n\nGET /a HTTP/1.1\n": false, "GET /a HTTP/1.1\n": false, "GET /a HTTP/1.1\nHost: a\n": false, "GET /a HTTP/1.1\n\r\n": false,
		"GET /a HTTP/1.1\r\n\r\n\n\n": false, "GET /a HTTP/1.1\nHost: a\r\n\r\n": false, "GET /a\n\n": false, "\x16\x03\x01\n\n": false,
	} {
		if endsBare([]byte(raw)) != want {
			t.Errorf("%q: %v", raw, !want)
		}
	}
}

// FuzzParse holds the small parser and everything behind it to fasthttp.
func FuzzParse(f *testing.F) {
	for _, raw := range append(append([]string{strings.Join(plainRequests, "")}, plainRequests...), unusualRequests...) {
		f.Add([]byte(raw))
	}
	w, p := plainWorld(f)
	f.Fuzz(func(t *testing.T, raw []byte) { checkPlain(t, w, p, raw) })
}

// TestEqualFold holds the comparison of eight bytes at once to that of one, for every byte at every place.
func TestEqualFold(t *testing.T) {
	for _, word := range []string{"", "a", "host", "x-purpos", "forwarded", "user-agent", "sec-ch-ua-mobile", "sec-ch-ua-platform", "0123456789-"} {
		for i := range len(word) {
			for c := range 256 {
				b := []byte(word)
				b[i] = byte(c)
				if got, want := equalFold(b, word), word[i] == byte(c) || 'A' <= c && c <= 'Z' && word[i] == byte(c)+'a'-'A'; got != want {
					t.Errorf("equalFold(%q, %q) = %v", b, word, got)
				}
			}
		}
		if !equalFold([]byte(strings.ToUpper(word)), word) || equalFold([]byte(word+"x"), word) || word != "" && equalFold([]byte(word[1:]), word) {
			t.Errorf("equalFold of another case or size of %q is wrong", word)
		}
	}
}

// TestTextSize does the same for the search for control bytes.
func TestTextSize(t *testing.T) {
	for size := range 20 {
		for i := range size {
			for c := range 256 {
				for _, fill := range []string{"a", " ", "\xff", "\r"} {
					b := []byte(strings.Repeat("a", i) + strings.Repeat(fill, size-i))
					b[i] = byte(c)
					want := 0
					for want < size && b[want] >= ' ' && b[want] != 0x7f {
						want++
					}
					if got := textSize(b); got != want {
						t.Fatalf("textSize(%q) = %d, want %d", b, got, want)
					}
				}
			}
		}
	}
}

// TestPlainAllocs is the gate of the loop's hot path.
func TestPlainAllocs(t *testing.T) {
	w := newWorld(t, quiet)
	l := w.link("go.example.com", "", "https://example.com/some/long/path?a=b")
	w.ask("/" + l.Code)
	p := newPlainer(w.server)
	for name, raw := range map[string]string{
		"hit":     "GET /" + l.Code + " HTTP/1.1\r\n" + browserHeaders + "\r\n",
		"head":    "HEAD /" + l.Code + " HTTP/1.1\r\n" + browserHeaders + "\r\n",
		"cookies": "GET /" + l.Code + " HTTP/1.1\r\nCookie: terse_notrack=1\r\nCookie: a=b\r\n" + browserHeaders + "\r\n",
		"unknown": "GET /1234567 HTTP/1.1\r\n" + browserHeaders + "\r\n",
		"partial": "GET /1234567 HTTP/1.1\r\n" + browserHeaders,
	} {
		b := []byte(raw)
		run := func() {
			p.out = p.out[:0]
			p.answer(b, somePeer.Addr(), 1, testNow)
		}
		run()
		if n := testing.AllocsPerRun(100, run); n != 0 {
			t.Errorf("%s: %v allocations a request, want 0", name, n)
		}
	}
}

// BenchmarkPlain is what the loop spends on a request beside the kernel; beside it fasthttp's way.
func BenchmarkPlain(b *testing.B) {
	w := newWorld(b, quiet)
	l := w.link("go.example.com", "", "https://shop.example.com/products/1?utm_source=sms&utm_campaign=bf")
	w.ask("/" + l.Code)
	raw := []byte("GET /" + l.Code + " HTTP/1.1\r\n" + browserHeaders + "\r\n")
	p := newPlainer(w.server)
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.r.parse(raw)
		}
	})
	b.Run("answer", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.out = p.out[:0]
			p.answer(raw, somePeer.Addr(), 1, testNow)
		}
	})
	b.Run("fasthttp", func(b *testing.B) {
		b.ReportAllocs()
		many := bytes.Repeat(raw, 100)
		c := &memoryConn{in: bytes.NewReader(nil), peer: somePeer}
		for i := 0; b.Loop(); i++ {
			if i%100 == 0 {
				c.in.Reset(many)
				c.out.Reset()
				if err := w.server.fast.ServeConn(c); err != nil && !errors.Is(err, io.EOF) {
					b.Fatal(err)
				}
			}
		}
	})
}
