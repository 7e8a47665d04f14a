package redirect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/cache"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/clientip"
	"github.com/terselink/terse/internal/domains"
)

// Domains is what the plane needs of the registry of domains.
type Domains interface {
	// ByHost returns the domain that serves a canonical host, nil if none does.
	// It is called for every request and must not allocate.
	ByHost(host []byte) *domains.Domain
	// ByNumber returns a domain by its number, nil if there is none.
	ByNumber(n terse.DomainID) *domains.Domain
	// Kept reports that the domains are those of before the start, because the store has not answered
	// since: there may be others.
	Kept() bool
}

// Recorder takes clicks. *clicks.Recorder is one.
type Recorder interface {
	// Capture records c, whose slices are borrowed, without waiting for anything.
	// It reports false if the click was dropped. shard is any number that
	// spreads connections.
	Capture(shard uint32, c *clicks.Click) bool
}

// Options configure a Server. Zero values mean the defaults named.
type Options struct {
	Domains   Domains        // required
	Store     domains.Reader // where links are read on a cache miss; required
	Campaigns Campaigns      // where campaigns are; nil: links of campaigns answer 503
	Recorder  Recorder       // nil: clicks are not recorded
	// RecorderWaits says that Capture waits for the disk. Then every connection has a
	// goroutine, since an event loop must not wait.
	RecorderWaits bool
	// IgnoreOptOut counts a visitor who asks not to be followed (Sec-GPC, DNT) like any other. They are shown no pixels in
	// either case.
	IgnoreOptOut bool
	Places       Places  // nil: no rule on a country or a region matches
	Limiter      Limiter // nil: links with max_clicks answer 503
	// TellFailure tells other nodes of a wrong password, for HeardFailure; it must not wait. nil: there are none.
	TellFailure func(table string, client netip.Prefix)
	CookieKey   []byte              // signs the cookies of links with a password, which answer 503 without it
	Clock       func() terse.Millis // default: the system's
	Log         *slog.Logger        // default: discarded
	Ready       func() []Check      // dependencies for /readyz; nil: none

	// Interstitials tells whether a workspace lets its links show people a page before the
	// destination, without waiting for anything; nil: none does.
	Interstitials func(terse.WorkspaceID) bool

	// ListenHost is the listen address, such as "127.0.0.1:8080" or ":8080"; health
	// checks are answered there even if it is a domain.
	ListenHost string
	// TrustedProxies are the CIDRs whose X-Forwarded-For and Forwarded headers count.
	TrustedProxies []string
	// CountryHeader is the header in which those proxies tell the country of the visitor, such as CF-IPCountry. It comes before
	// what Places say. "": none. It is for a proxy that replaces what a visitor sends in it.
	CountryHeader string
	// ProxyProtocol says that connections of trusted proxies, and no others, begin with a header of
	// the PROXY protocol.
	ProxyProtocol bool

	CacheBytes  int64         // memory for compiled links; default 256 MiB
	MaxAge      time.Duration // ceiling for the age of a cached link, for stores that others write to; default: none
	LoadTimeout time.Duration // how long a visitor waits for the store; default 250 ms

	ReadTimeout   time.Duration // for a whole request; default 5 s
	WriteTimeout  time.Duration // for an answer; default 5 s
	IdleTimeout   time.Duration // between requests of a connection; default 60 s
	MaxConns      int           // open connections; more get 503; default 16384
	MaxConnsPerIP int           // open connections of one peer; default 0: no limit, as behind a proxy
	DrainDelay    time.Duration // between readiness turning off and the listener closing; default 0
}

// Server answers visitors of short links. Use New. It is a prometheus.Collector.
type Server struct {
	o          Options
	fast       *fasthttp.Server
	cache      *cache.Cache[link]
	clients    *clientip.Resolver
	skins      *skins
	listenHost []byte // canonical; empty if it is every address
	listenPort string // ":8080"; empty if unknown
	metrics    metrics
	parsers    parsers
	gate       *gate
	requests   sync.Pool
	lastLog    atomic.Int64
	draining   atomic.Bool
	stopping   atomic.Bool   // idle connections are to close
	closing    chan struct{} // closed when the listeners are to close
	stopped    bool          // under shutdown
	shutdown   sync.Mutex
	admission  admission
	conns      tracker // connections that fasthttp serves
	loops      []*loop // and those that do the rest
	listeners  []io.Closer
	serving    sync.Mutex     // for loops and listeners
	goroutines sync.WaitGroup // that loops have started
}

// New returns a server that does not listen yet. Returns an error of code invalid
// for an option out of range.
func New(o Options) (*Server, error) {
	if o.Domains == nil || o.Store == nil {
		return nil, terse.Invalid("redirect", "Domains and Store are required")
	}
	if o.Clock == nil {
		o.Clock = func() terse.Millis { return terse.Millis(time.Now().UnixMilli()) }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if strings.Trim(strings.ToLower(o.CountryHeader), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return nil, terse.Invalid("country_header", "is not the name of a header of letters, digits and hyphens")
	}
	setDefault(&o.ReadTimeout, 5*time.Second)
	setDefault(&o.WriteTimeout, 5*time.Second)
	setDefault(&o.IdleTimeout, 60*time.Second)
	setDefault(&o.MaxConns, 16384)
	if o.ReadTimeout < 0 || o.WriteTimeout < 0 || o.IdleTimeout < 0 || o.MaxConns < 0 || o.MaxConnsPerIP < 0 || o.DrainDelay < 0 {
		return nil, terse.Invalid("redirect", "a timeout or a limit is negative")
	}
	s := &Server{o: o, closing: make(chan struct{}), gate: newGate(o.CookieKey, o.Clock, o.TellFailure)}
	s.admission = admission{max: int64(o.MaxConns), perIP: int64(o.MaxConnsPerIP), byIP: make(map[netip.Addr]int64)}
	s.requests.New = func() any {
		return &request{countryName: strings.ToLower(o.CountryHeader), key: make([]byte, 0, 264), location: make([]byte, 0, 512)}
	}
	s.conns.init(o.ReadTimeout, o.WriteTimeout, o.IdleTimeout)
	if err := s.setListenHost(o.ListenHost); err != nil {
		return nil, err
	}
	var err error
	if s.skins, err = newSkins(); err != nil {
		return nil, err
	}
	if s.clients, err = clientip.New(o.TrustedProxies); err != nil {
		return nil, err
	}
	s.cache, err = cache.New(cache.Options[link]{
		Load: s.load, Clock: o.Clock, MaxBytes: o.CacheBytes, MaxAge: o.MaxAge, LoadTimeout: o.LoadTimeout,
	})
	if err != nil {
		return nil, err
	}
	s.fast = &fasthttp.Server{
		Handler:      s.handle,
		ErrorHandler: s.answerBroken,
		Logger:       fastLog{o.Log},

		ReadBufferSize:     maxHead,
		WriteBufferSize:    4 << 10,
		MaxRequestBodySize: 4 << 10, // no request needs a body; a small one is read and ignored
		ReadTimeout:        o.ReadTimeout,
		WriteTimeout:       o.WriteTimeout,
		IdleTimeout:        o.IdleTimeout,
		Concurrency:        math.MaxInt32, // admission limits
		ConnState:          noteState,

		DisablePreParseMultipartForm: true, // it would write files
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		SecureErrorLogMessage:        true, // what a client sent is not for the log
		LazyRequestTime:              true, // the time of a request is our clock's
		CloseOnShutdown:              true,
	}
	return s, nil
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// load reads and compiles a link for the cache.
func (s *Server) load(ctx context.Context, n terse.DomainID, canonical []byte) (cache.Loaded[link], error) {
	d := s.o.Domains.ByNumber(n)
	if d == nil { // deleted since the request came
		return cache.Loaded[link]{}, terse.ErrNotFound
	}
	l, err := d.Find(ctx, s.o.Store, canonical)
	if err != nil {
		return cache.Loaded[link]{}, err
	}
	return s.compileShared(ctx, &l)
}

// Invalidation tells of a write to a link; see OnChange.
type Invalidation = cache.Invalidation

// OnChange makes a write known: the next request sees it. Call it when the write is
// durable and before it is acknowledged. It takes well under a microsecond.
func (s *Server) OnChange(i Invalidation) { s.cache.Invalidate(i) }

// Forget drops deleted links whose codes are not known, by number with the last version of each. It looks at the whole cache once.
func (s *Server) Forget(deleted map[terse.LinkNumber]uint64) { s.cache.Forget(deleted) }

// Doubt has every link read again on its next visit, because changes were missed; while the store does not answer they
// redirect as they are.
func (s *Server) Doubt() { s.cache.Doubt() }

// CacheStats returns what the cache of links has done and holds.
func (s *Server) CacheStats() cache.Stats { return s.cache.Stats() }

// Serve answers connections of ln until Shutdown, and then returns nil. It may be
// called for several listeners.
func (s *Server) Serve(ln net.Listener) error {
	s.serving.Lock()
	if s.draining.Load() {
		s.serving.Unlock()
		return errors.Join(http.ErrServerClosed, ln.Close())
	}
	s.listeners = append(s.listeners, ln)
	s.serving.Unlock()
	s.conns.start()
	if ok, err := s.serveLoops(ln); ok {
		return err
	}
	if err := s.fast.Serve(&listener{Listener: ln, s: s}); err != nil {
		return fmt.Errorf("serve redirects: %w", err)
	}
	return nil
}

// Shutdown stops in order: readiness turns off and answers close their connections;
// after DrainDelay the listeners close; requests under way are finished. When ctx
// ends, what is still open is cut and its error returned. A second call waits for
// the first and returns nil.
func (s *Server) Shutdown(ctx context.Context) error {
	s.draining.Store(true)
	s.shutdown.Lock()
	defer s.shutdown.Unlock()
	if s.stopped {
		return nil
	}
	s.stopped = true
	if s.o.DrainDelay > 0 {
		t := time.NewTimer(s.o.DrainDelay)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
	close(s.closing)
	s.serving.Lock()
	for _, ln := range s.listeners {
		_ = ln.Close() // fasthttp closes its own, too
	}
	loops := s.loops
	s.stopping.Store(true)
	s.serving.Unlock()
	err := s.drain(ctx, loops)
	for _, l := range loops {
		l.cut()
	}
	s.conns.close()
	if e := s.fast.ShutdownWithContext(ctx); err == nil && e != nil && !errors.Is(e, net.ErrClosed) {
		err = e
	}
	if err == nil {
		s.goroutines.Wait()
	} else {
		err = fmt.Errorf("stop redirects: %w", err)
	}
	s.cache.Close()
	return err
}

// drain closes idle connections until there are no others.
func (s *Server) drain(ctx context.Context, loops []*loop) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, l := range loops {
			l.closeIdle()
		}
		s.conns.closeIdle()
		if s.admission.open.Load() <= 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// noteState is told by fasthttp what a connection does.
func noteState(nc net.Conn, state fasthttp.ConnState) {
	if c, ok := nc.(*conn); ok {
		c.idle.Store(state == fasthttp.StateIdle || state == fasthttp.StateNew)
	}
}

const (
	tooSlowText   = "the request took too long\n"
	malformedText = "malformed request\n"
)

// answerBroken answers what fasthttp could not read. The connection closes after it.
func (s *Server) answerBroken(ctx *fasthttp.RequestCtx, err error) {
	s.metrics.add(uint32(ctx.ConnID()), countMalformed)
	ctx.Response.Reset()
	var small *fasthttp.ErrSmallBuffer
	var netErr net.Error
	switch {
	case errors.As(err, &small):
		s.answerText(ctx, http.StatusRequestHeaderFieldsTooLarge, "the request header is too large\n")
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		s.answerText(ctx, http.StatusRequestEntityTooLarge, "the request body is too large\n")
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		s.answerText(ctx, http.StatusRequestTimeout, tooSlowText)
	default:
		s.answerText(ctx, http.StatusBadRequest, malformedText)
	}
	ctx.SetConnectionClose()
}

// fastLog passes fasthttp's own messages on; they are about connections, not requests.
type fastLog struct{ log *slog.Logger }

// Printf implements fasthttp.Logger.
func (l fastLog) Printf(format string, args ...any) {
	l.log.Debug("redirect server", "message", fmt.Sprintf(format, args...))
}
