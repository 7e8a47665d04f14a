package redirect

import (
	"bytes"
	"errors"
	"net/http"

	"github.com/valyala/fasthttp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/cache"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/code"
	"github.com/terselink/terse/internal/domains"
)

// handle answers one request that fasthttp has read. It runs in a goroutine of the
// connection and may wait.
//
// Hot path: 0 allocs/op for a cached link, see TestHitAllocs.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	r := s.requests.Get().(*request)
	defer s.finish(ctx, r)
	r.shard = uint32(ctx.ConnID())
	r.now = s.o.Clock()
	r.peer = peerAddr(ctx.RemoteAddr())
	r.mayWait, r.waits = true, false
	if why := r.read(&ctx.Request.Header); why != accepted {
		if s.draining.Load() {
			ctx.SetConnectionClose()
		}
		s.refuse(ctx, r, why)
		return
	}
	s.respond(ctx, r)
}

// respond answers a request that was understood, the same on an event loop (plain.go) and in
// a goroutine. It reads the request from r alone, but for the body of a POST, which
// no loop takes; before it would wait for anything, it asks r.mustWait.
func (s *Server) respond(ctx *fasthttp.RequestCtx, r *request) {
	if s.draining.Load() {
		ctx.SetConnectionClose()
	}
	if r.method > head && r.method != post {
		s.answerMethod(ctx, r)
		return
	}
	d := s.o.Domains.ByHost(r.host)
	if r.method == post && (d == nil || len(r.path) == 1 || isSystem(r.path)) { // only codes have forms
		s.answerMethod(ctx, r)
		return
	}
	if isHealth(r.path) && (d == nil || s.isListenHost(r.host)) {
		s.answerHealth(ctx, r)
		return
	}
	switch {
	case d == nil && s.o.Domains.Kept(): // it may be a domain that is newer than what was kept
		s.answerUnavailable(ctx, r, nil)
	case d == nil:
		s.count(r, countUnknownHost)
		s.answerPage(ctx, nil, http.StatusNotFound, pageNotFound, r.language)
	case d.Broken() != nil:
		s.answerUnavailable(ctx, r, d)
	case len(r.path) == 1:
		s.answerRoot(ctx, r, d)
	case isSystem(r.path):
		s.answerSystem(ctx, r, d)
	default:
		s.answerCode(ctx, r, d)
	}
}

// finish recovers from a panic and gives the scratch memory back.
func (s *Server) finish(ctx *fasthttp.RequestCtx, r *request) {
	if p := recover(); p != nil {
		s.count(r, countPanic)
		s.o.Log.Error("panic while answering a request", "panic", p, "stack", stack())
		ctx.Response.Reset()
		s.answerText(ctx, http.StatusInternalServerError, "internal error\n")
		ctx.SetConnectionClose()
		return // r may be in any state: let it go
	}
	r.click, r.link = clicks.Click{}, link{}
	s.requests.Put(r)
}

func (s *Server) count(r *request, c counter) { s.metrics.add(r.shard, c) }

// refuse answers a request that is not understood the same way by everybody. The
// connection is closed: what follows on it may not be what it seems.
func (s *Server) refuse(ctx *fasthttp.RequestCtx, r *request, why refusal) {
	s.count(r, countMalformed)
	ctx.SetConnectionClose()
	switch why {
	case targetTooLong:
		s.answerText(ctx, http.StatusRequestURITooLong, "the URL is too long\n")
	case tooManyHeaders:
		s.answerText(ctx, http.StatusRequestHeaderFieldsTooLarge, "too many headers\n")
	default:
		s.answerText(ctx, http.StatusBadRequest, "malformed request\n")
	}
}

func (s *Server) answerMethod(ctx *fasthttp.RequestCtx, r *request) {
	s.count(r, countMethod)
	if r.method == options {
		ctx.SetStatusCode(http.StatusNoContent)
	} else {
		s.answerText(ctx, http.StatusMethodNotAllowed, "method not allowed\n")
	}
	ctx.Response.Header.Set("Allow", "GET, HEAD, OPTIONS")
}

func isHealth(path []byte) bool { return string(path) == "/healthz" || string(path) == "/readyz" }

func (s *Server) answerHealth(ctx *fasthttp.RequestCtx, r *request) {
	if string(r.path) == "/healthz" {
		s.count(r, countHealth)
		s.answerText(ctx, http.StatusOK, "ok\n")
		return
	}
	if r.mustWait() { // the checks ask the store
		return
	}
	s.count(r, countHealth)
	body, ready := s.readiness()
	status := http.StatusOK
	if !ready {
		status = http.StatusServiceUnavailable
	}
	s.answerText(ctx, status, string(body))
}

// isSystem reports whether a path is the system's own on every domain.
func isSystem(path []byte) bool {
	switch path[1] {
	case '_':
		return len(path) == 2 || path[2] == '/'
	case '.':
		return bytes.HasPrefix(path, []byte("/.well-known/")) || string(path) == "/.well-known"
	case 'r':
		return string(path) == "/robots.txt"
	case 'f':
		return string(path) == "/favicon.ico"
	}
	return false
}

func (s *Server) answerSystem(ctx *fasthttp.RequestCtx, r *request, d *domains.Domain) {
	s.count(r, countSystem)
	if s.answerDomainFile(ctx, r, d) {
		return
	}
	switch string(r.path) {
	case whoamiPath:
		s.answerWhoami(ctx, r, d)
	case noTrackPath:
		s.answerNoTrack(ctx, r, d)
	case "/favicon.ico":
		ctx.SetStatusCode(http.StatusNoContent)
		ctx.Response.Header.Set("Cache-Control", "public, max-age=86400")
	default:
		s.answerText(ctx, http.StatusNotFound, "not found\n")
	}
}

func (s *Server) answerRoot(ctx *fasthttp.RequestCtx, r *request, d *domains.Domain) {
	s.count(r, countRoot)
	if headerSafe(d.RootDestination) {
		s.answerRedirect(ctx, http.StatusFound, stringBytes(d.RootDestination), 0, policyOf(d))
		return
	}
	s.answerPage(ctx, d, http.StatusOK, pageRoot, r.language)
}

// answerCode answers /{code}, /{code}+ and /{code}/rest.
func (s *Server) answerCode(ctx *fasthttp.RequestCtx, r *request, d *domains.Domain) {
	f := facts{now: r.now, query: r.query, keys: &r.keys}
	segment := r.path[1:]
	if i := bytes.IndexByte(segment, '/'); i >= 0 {
		if i+1 < len(segment) || d.TrailingSlash == terse.TrailingSlashStrict { // else one slash at the end means nothing
			f.rest = segment[i+1:]
		}
		segment = segment[:i]
	}
	preview := f.rest == nil && len(segment) > 1 && segment[len(segment)-1] == '+'
	if preview {
		segment = segment[:len(segment)-1]
	}
	key, err := code.AppendCanonical(cache.AppendPrefix(r.key[:0], d.Number), segment, d.Fold())
	r.key = key
	if err != nil { // no link can have this code
		s.answerMiss(ctx, r, d, preview, terse.ErrNotFound, segment)
		return
	}
	l := s.cache.Get(key, r.now)
	switch {
	case l != nil && l.waits() && r.mustWait():
		return
	case l != nil:
		s.count(r, countCacheHit)
	case d.Refuses(cache.Code(key)): // before the cache: random codes drive nothing out of it
		s.count(r, countRefused)
		s.answerMiss(ctx, r, d, preview, terse.ErrNotFound, cache.Code(key))
		return
	case !r.mayWait && s.cache.Absent(key):
		s.count(r, countCacheMiss)
		s.answerMiss(ctx, r, d, preview, terse.ErrNotFound, cache.Code(key))
		return
	case r.mustWait():
		return
	default:
		s.count(r, countCacheMiss)
		if l, err = s.cache.Fetch(key); err != nil {
			s.answerMiss(ctx, r, d, preview, err, cache.Code(key))
			return
		}
	}
	if l, err = l.under(&r.link, &r.expanded); err != nil {
		s.answerMiss(ctx, r, d, preview, err, cache.Code(key))
		return
	}
	if l.outgrown {
		s.cache.Renew(key, r.now)
	}
	x := l.special
	if x.waits() && r.mustWait() { // the campaign says so since a moment ago
		return
	}
	if r.method == post && (x == nil || x.password == "") {
		s.answerMethod(ctx, r)
		return
	}
	if x != nil || l.ruled != nil {
		if l = s.aim(r, d, l, &f); l == nil {
			s.answerMiss(ctx, r, d, preview, terse.ErrNotFound, cache.Code(key))
			return
		}
	}
	v := decide(&r.location, d, l, &f)
	if x != nil && v.outcome == clicks.OutcomeRedirect && (x.password != "" || x.maxClicks != 0) &&
		s.answerSpecial(ctx, r, d, l, &v, preview, cache.Code(key)) {
		return
	}
	if r.variant != 0 && !preview && v.outcome == clicks.OutcomeRedirect {
		s.setVariant(ctx, r, d, cache.Code(key))
	}
	if x != nil && x.instead != nil && !preview && v.outcome == clicks.OutcomeRedirect && s.answerInstead(ctx, r, d, l, &v, cache.Code(key)) {
		return
	}
	switch {
	case !preview:
		s.capture(r, d, l, &v, cache.Code(key))
		s.answer(ctx, r, d, &v)
	case v.outcome == clicks.OutcomeRedirect:
		s.answerPreview(ctx, r, d, v.target, cache.Code(key))
	default: // what a visit would get, but nobody visited
		s.answer(ctx, r, d, &v)
	}
}

// answerMiss answers when there is no link: known not to exist, or not known.
func (s *Server) answerMiss(ctx *fasthttp.RequestCtx, r *request, d *domains.Domain, preview bool, err error, asked []byte) {
	if !errors.Is(err, terse.ErrNotFound) {
		s.logUnavailable(d, err)
		s.answerUnavailable(ctx, r, d)
		return
	}
	if r.method == post {
		s.answerMethod(ctx, r)
		return
	}
	v := notFound(d)
	if !preview {
		s.capture(r, d, nil, &v, asked)
	}
	s.answer(ctx, r, d, &v)
}

// capture hands the click to the recorder, which never waits.
func (s *Server) capture(r *request, d *domains.Domain, l *link, v *decision, asked []byte) {
	if s.o.Recorder == nil {
		return
	}
	c := &r.click
	if d.ClickIDParameter != "" {
		nameClick(r, d, v)
	}
	c.At, c.Domain, c.Code = r.now, d.Host, asked
	c.Outcome, c.Destination, c.Flags = v.outcome, v.target, r.flags
	c.Workspace, c.Link, c.Campaign = d.Workspace, 0, 0
	if l != nil {
		c.Workspace, c.Link, c.Campaign = l.workspace, l.number, l.campaign
	}
	if r.optsOut && !s.o.IgnoreOptOut {
		c.Flags |= clicks.FlagOptOut
	}
	if len(r.query) > 0 {
		c.Flags |= marksOf(r.query)
	}
	if len(r.cookie) > 0 && hasNoTrackCookie(r.cookie) {
		c.Flags |= clicks.FlagNoTrack
	}
	if told := s.toldCountry(r); told != "" {
		c.Country = [2]byte{told[0], told[1]}
	}
	c.IP = s.clients.Resolve(r.peer, r.xff, r.forwarded)
	c.UserAgent, c.Referrer, c.Language, c.Platform, c.Query = r.userAgent, r.referrer, r.language, r.platform, r.query
	if !s.o.Recorder.Capture(r.shard, c) {
		s.count(r, countClickDropped)
	}
}
