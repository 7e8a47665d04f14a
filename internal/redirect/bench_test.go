package redirect

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/valyala/fasthttp"

	"github.com/terselink/terse/internal/cache"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/domains"
)

// browserHeaders are what a telephone sends.
const browserHeaders = "Host: go.example.com\r\n" +
	"User-Agent: Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Mobile Safari/537.36\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Encoding: gzip, deflate, br\r\n" +
	"Accept-Language: de-DE,de;q=0.9,en;q=0.8\r\nReferer: https://t.co/abc\r\nSec-CH-UA-Mobile: ?1\r\nSec-CH-UA-Platform: \"Android\"\r\n"

// newCtx returns a context as fasthttp hands it to the handler.
func newCtx(t testing.TB, request string) *fasthttp.RequestCtx {
	t.Helper()
	return newCtxFrom(t, "203.0.113.5", request)
}

// newCtxFrom is newCtx with a peer.
func newCtxFrom(t testing.TB, peer, request string) *fasthttp.RequestCtx {
	t.Helper()
	ctx := &fasthttp.RequestCtx{}
	ctx.Init(&fasthttp.Request{}, &net.TCPAddr{IP: net.ParseIP(peer), Port: 4711}, nil)
	if err := ctx.Request.Header.Read(bufio.NewReaderSize(bytes.NewBufferString(request), 16<<10)); err != nil {
		t.Fatal(err)
	}
	return ctx
}

// discard takes clicks and forgets them.
type discard struct{}

func (discard) Capture(uint32, *clicks.Click) bool { return true }

func quiet(o *Options) { o.Recorder = discard{} }

// TestHitAllocs is the gate of the hot path: nothing is allocated for a cached
// link, forwarded or not, nor for a code that is known not to exist.
func TestHitAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("with the race detector pooled requests are made anew at times")
	}
	w := newWorld(t, quiet, func(o *Options) { o.TrustedProxies, o.CountryHeader = []string{"203.0.113.0/24"}, "CF-IPCountry" })
	w.domain(domains.New{Host: "fwd.example.com", ForwardQuery: true, SMaxAge: 60})
	plain := w.link("go.example.com", "", "https://example.com/some/long/path?a=b")
	w.link("fwd.example.com", "alias", "https://example.com/some/long/path?a=b#part")
	for name, request := range map[string]string{
		"hit":                              "GET /" + plain.Code + " HTTP/1.1\r\n" + browserHeaders + "\r\n",
		"head":                             "HEAD /" + plain.Code + " HTTP/1.1\r\n" + browserHeaders + "\r\n",
		"proxied":                          "GET /" + plain.Code + " HTTP/1.1\r\nCF-IPCountry: DE\r\nX-Forwarded-For: 192.0.2.1, 203.0.113.9\r\n" + browserHeaders + "\r\n",
		"forward":                          "GET /alias?qr=1&b=%20c&d= HTTP/1.1\r\nHost: fwd.example.com\r\n\r\n",
		"a query and a cookie of a member": "GET /" + plain.Code + "?terse_notrack=1&qr=1 HTTP/1.1\r\nCookie: a=b; terse_notrack=1\r\nSec-GPC: 1\r\n" + browserHeaders + "\r\n",
		"several lines of cookies":         "GET /" + plain.Code + " HTTP/1.1\r\nCookie: terse_notrack=1\r\nCookie: a=b\r\nCookie: c=d\r\n" + browserHeaders + "\r\n",
		"unknown":                          "GET /nobodyhasthis HTTP/1.1\r\n" + browserHeaders + "\r\n",
		"host":                             "GET /x HTTP/1.1\r\nHost: unknown.example.com\r\n\r\n",
	} {
		ctx := newCtx(t, request)
		w.server.handle(ctx) // fills the cache and grows buffers
		ctx.Response.Reset()
		n := testing.AllocsPerRun(200, func() {
			w.server.handle(ctx)
			ctx.Response.Reset()
		})
		if n != 0 {
			t.Errorf("%s: %v allocations a request, want 0", name, n)
		}
	}
}

func BenchmarkHandle(b *testing.B) {
	w := newWorld(b, quiet)
	links := make([]string, 1000)
	for i := range links {
		links[i] = w.link("go.example.com", "", fmt.Sprintf("https://shop.example.com/products/%d?utm_source=sms&utm_campaign=bf", i)).Code
	}
	run := func(name, request string) {
		b.Run(name, func(b *testing.B) {
			ctx := newCtx(b, request)
			w.server.handle(ctx)
			b.ReportAllocs()
			for b.Loop() {
				ctx.Response.Reset()
				w.server.handle(ctx)
			}
		})
	}
	run("hit", "GET /"+links[0]+" HTTP/1.1\r\n"+browserHeaders+"\r\n")
	run("hit-no-headers", "GET /"+links[0]+" HTTP/1.1\r\nHost: go.example.com\r\n\r\n")
	run("unknown-negative", "GET /nobodyhasthis HTTP/1.1\r\n"+browserHeaders+"\r\n")
	b.Run("unknown-random", func(b *testing.B) {
		ctx := newCtx(b, "GET /aaaaaaa HTTP/1.1\r\n"+browserHeaders+"\r\n")
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			ctx.Response.Reset()
			ctx.Request.Header.SetRequestURI(fmt.Sprintf("/%07d", i))
			i++
			w.server.handle(ctx)
		}
	})
	b.Run("miss", func(b *testing.B) {
		ctx := newCtx(b, "GET /"+links[0]+" HTTP/1.1\r\n"+browserHeaders+"\r\n")
		d := w.domains.ByName("go.example.com")
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			l := links[i%len(links)]
			w.server.OnChange(Invalidation{Domain: d.Number, Code: l, Number: 1, Version: 1})
			ctx.Response.Reset()
			ctx.Request.Header.SetRequestURI("/" + l)
			w.server.handle(ctx)
		}
	})
	b.Run("hit-parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			ctx := newCtx(b, "GET /"+links[0]+" HTTP/1.1\r\n"+browserHeaders+"\r\n")
			for pb.Next() {
				ctx.Response.Reset()
				w.server.handle(ctx)
			}
		})
	})
}

// BenchmarkSteps shows where the time of a hit goes.
func BenchmarkSteps(b *testing.B) {
	w := newWorld(b, quiet)
	l := w.link("go.example.com", "", "https://shop.example.com/products/1?utm_source=sms&utm_campaign=bf")
	ctx := newCtx(b, "GET /"+l.Code+" HTTP/1.1\r\n"+browserHeaders+"\r\n")
	w.server.handle(ctx)
	r := w.server.requests.Get().(*request)
	d := w.domains.ByName("go.example.com")
	key := cache.AppendKey(nil, d.Number, l.Code)
	c := w.server.cache.Get(key, testNow)
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			r.read(&ctx.Request.Header)
		}
	})
	b.Run("host", func(b *testing.B) {
		for b.Loop() {
			w.domains.ByHost(r.host)
		}
	})
	b.Run("get", func(b *testing.B) {
		for b.Loop() {
			w.server.cache.Get(key, testNow)
		}
	})
	b.Run("decide", func(b *testing.B) {
		f := facts{now: testNow}
		for b.Loop() {
			decide(&r.location, d, c, &f)
		}
	})
	b.Run("capture", func(b *testing.B) {
		v := decision{}
		for b.Loop() {
			w.server.capture(r, d, c, &v, key[4:])
		}
	})
	b.Run("respond", func(b *testing.B) {
		for b.Loop() {
			ctx.Response.Reset()
			w.server.answerRedirect(ctx, 302, stringBytes(c.destination), 0, 0)
		}
	})
	b.Run("clock", func(b *testing.B) {
		o, _ := New(Options{Domains: w.domains, Store: w.reader})
		for b.Loop() {
			o.o.Clock()
		}
	})
}

// BenchmarkHeaders compares one prepared block with one call for each header; the
// answer on the wire is the same.
func BenchmarkHeaders(b *testing.B) {
	location := []byte("https://shop.example.com/products/1?utm_source=sms&utm_campaign=bf")
	w := bufio.NewWriterSize(io.Discard, 4<<10)
	var s Server
	run := func(name string, set func(ctx *fasthttp.RequestCtx)) {
		b.Run(name, func(b *testing.B) {
			ctx := newCtx(b, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			b.ReportAllocs()
			for b.Loop() {
				ctx.Response.Reset()
				set(ctx)
				if err := ctx.Response.Write(w); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("block", func(ctx *fasthttp.RequestCtx) { s.answerRedirect(ctx, 302, location, 0, 0) })
	run("calls", func(ctx *fasthttp.RequestCtx) { setPlainly(ctx, 302, location) })
}

// setPlainly is answerRedirect without the prepared block: its oracle.
func setPlainly(ctx *fasthttp.RequestCtx, status int, location []byte) {
	ctx.Response.SetStatusCode(status)
	h := &ctx.Response.Header
	h.Set("X-Robots-Tag", "noindex")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "strict-origin-when-cross-origin")
	h.Set("Cache-Control", "private, max-age=0")
	h.SetBytesV("Location", location)
}

func TestHeaderBlockIsPlainHeaders(t *testing.T) {
	location := []byte("https://example.com/")
	var s Server
	a, b := newCtx(t, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"), newCtx(t, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	s.answerRedirect(a, 307, location, 0, 0)
	setPlainly(b, 307, location)
	if got, want := a.Response.Header.String(), b.Response.Header.String(); got != want {
		t.Errorf("block:\n%s\nplain:\n%s", got, want)
	}
}
