package redirect

import (
	"net/http"
	"runtime/debug"
	"strconv"

	"github.com/valyala/fasthttp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/domains"
)

// Header lines of every answer, in the one form in which fasthttp copies them
// without a look: as the beginning of a header name. SetCanonical takes the name as
// it is, so "A: 1\r\nB" with the value 2 becomes two lines in one step. Five
// calls with one header each cost 230 ns more a request (BenchmarkHeaders).
// TestBehaviour reads them back with net/http's parser.
const (
	// fasthttp looks at the first byte of a name for headers of its own: X begins none.
	commonLines = "X-Robots-Tag: noindex\r\n" +
		"X-Content-Type-Options: nosniff\r\n" +
		"Referrer-Policy: strict-origin-when-cross-origin\r\n"
	noStoreLines = commonLines + "Cache-Control"
)

var (
	noStoreBlock = []byte(noStoreLines)
	noStore      = []byte("no-store")
)

// answerRedirect writes a redirect. location must be header-safe.
//
// Hot path: 0 allocs/op, see TestHitAllocs.
func (s *Server) answerRedirect(ctx *fasthttp.RequestCtx, status int, location []byte, sMaxAge int, p policy) {
	ctx.Response.SetStatusCode(status)
	if sMaxAge <= 0 {
		ctx.Response.Header.SetCanonical(redirectBlocks[p], location)
		return
	}
	var buf [256]byte
	lines := append(strconv.AppendInt(append(buf[:0], sharedBlocks[p]...), int64(sMaxAge), 10), "\r\nLocation"...)
	ctx.Response.Header.SetCanonical(lines, location)
}

// answer writes what was decided and counts it.
func (s *Server) answer(ctx *fasthttp.RequestCtx, r *request, d *domains.Domain, v *decision) {
	s.count(r, counter(v.outcome))
	switch {
	case v.location != nil:
		shared := 0 // only what the link itself says may stay in a shared cache
		if v.outcome == clicks.OutcomeRedirect && !v.private {
			shared = d.SMaxAge
		}
		p := policyOf(d)
		if v.special != nil {
			p = v.special.override.on(p)
		}
		s.answerRedirect(ctx, v.status, v.location, shared, p)
	case v.status == http.StatusGone:
		s.answerPage(ctx, d, v.status, pageGone, r.language)
	case v.status == http.StatusUnavailableForLegalReasons:
		s.answerPage(ctx, d, v.status, pageBlocked, r.language)
	default:
		s.answerPage(ctx, d, v.status, pageNotFound, r.language)
	}
}

// answerUnavailable says that it is not known where the code leads, in the look of the domain (nil: the plain one).
func (s *Server) answerUnavailable(ctx *fasthttp.RequestCtx, r *request, d *domains.Domain) {
	s.count(r, countUnavailable)
	s.answerPage(ctx, d, http.StatusServiceUnavailable, pageUnavailable, r.language)
	ctx.Response.Header.Set("Retry-After", "1")
}

// answerAhead refuses what a browser fetches before anybody wants it: it asks again when somebody does.
func (s *Server) answerAhead(ctx *fasthttp.RequestCtx, r *request) {
	s.count(r, countAhead)
	s.answerText(ctx, http.StatusServiceUnavailable, "not ahead of a visit: this link allows only so many\n")
}

// answerText writes a short plain text that nobody keeps.
func (s *Server) answerText(ctx *fasthttp.RequestCtx, status int, body string) {
	ctx.Response.SetStatusCode(status)
	ctx.Response.Header.SetCanonical(noStoreBlock, noStore)
	ctx.Response.Header.SetContentType("text/plain; charset=utf-8")
	ctx.Response.SetBodyString(body)
}

// answerPage writes one of the pages that are the same for everybody, in the look of the domain (nil: the
// plain one) and the language that the visitor likes best.
func (s *Server) answerPage(ctx *fasthttp.RequestCtx, d *domains.Domain, status int, p page, language []byte) {
	k, lang := s.skins.of(d), preferredLanguage(language)
	ctx.Response.SetBodyRaw(k.get(p, lang))
	ctx.Response.SetStatusCode(status)
	ctx.Response.Header.SetCanonical(k.page, stringBytes(languages[lang]))
	ctx.Response.Header.SetContentType("text/html; charset=utf-8")
}

// logUnavailable logs at most once a second why links cannot be read: an outage
// must not fill the log disk.
func (s *Server) logUnavailable(d *domains.Domain, err error) {
	now := int64(s.o.Clock())
	last := s.lastLog.Load()
	if now-last < 1000 || !s.lastLog.CompareAndSwap(last, now) {
		return
	}
	s.o.Log.Warn("links cannot be read", "domain", d.Host, "code", terse.ErrorCode(err), "error", err)
}

func stack() string { return string(debug.Stack()) }
