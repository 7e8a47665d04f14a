package redirect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"
	"go.uber.org/goleak"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/domains"
)

func TestMain(m *testing.M) {
	// As the server does: loops may then hold their processors.
	runtime.GOMAXPROCS(2 * max(runtime.NumCPU(), runtime.GOMAXPROCS(0)))
	// fasthttp starts its clock with the first answer, which must not be one in a bubble of synctest.
	_ = new(fasthttp.ResponseHeader).Header()
	goleak.VerifyTestMain(m,
		// fasthttp's clock for the Date header, one for the process.
		goleak.IgnoreTopFunction("time.Sleep"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
	)
}

// ask calls the handler without a network.
func (w *world) ask(path string) (status int, location string) {
	w.t.Helper()
	ctx := newCtx(w.t, "GET "+path+" HTTP/1.1\r\nHost: go.example.com\r\n\r\n")
	w.server.handle(ctx)
	_, location, _ = strings.Cut(ctx.Response.Header.String(), "\r\nLocation: ") // Peek does not see into the block
	location, _, _ = strings.Cut(location, "\r\n")
	return ctx.Response.StatusCode(), location
}

func (w *world) want(path string, status int, location string) {
	w.t.Helper()
	if s, l := w.ask(path); s != status || l != location {
		w.t.Fatalf("%s: %d %q, want %d %q", path, s, l, status, location)
	}
}

func TestChangesAreSeenByTheNextRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want("/a", 404, "")
	l := w.link("go.example.com", "a", "https://example.com/1")
	w.server.OnChange(Invalidation{Domain: l.Number.Domain(), Code: "a", Number: l.Number, Version: 1, Created: true})
	w.want("/a", 302, "https://example.com/1")
	l = w.update(l, func(l *terse.Link) { l.Destination = "https://example.com/2" })
	w.want("/a", 302, "https://example.com/2")
	l = w.update(l, func(l *terse.Link) { l.Status = terse.StatusDisabled })
	w.want("/a", 410, "")
	l = w.update(l, func(l *terse.Link) { l.Status, l.ExpiresAt = terse.StatusActive, testNow+1000 })
	w.want("/a", 302, "https://example.com/2")
	w.now = func() terse.Millis { return testNow + 1000 }
	w.want("/a", 410, "") // expiry needs no news
	w.remove(l)
	w.want("/a", 404, "")
	l = w.link("go.example.com", "a", "https://example.com/3")
	w.server.OnChange(Invalidation{Domain: l.Number.Domain(), Code: "a", Number: l.Number, Version: 1, Created: true})
	w.want("/a", 302, "https://example.com/3")

	status := 307
	if _, err := w.domains.Update(t.Context(), 1, "go.example.com", domains.Patch{RedirectStatus: &status}, 0); err != nil {
		t.Fatal(err)
	}
	w.want("/a", 307, "https://example.com/3")
}

func TestCachedLinksOutliveTheStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.link("go.example.com", "a", "https://example.com/1")
	b := w.link("go.example.com", "", "https://example.com/2")
	w.link("go.example.com", "cold", "https://example.com/3")
	w.want("/a", 302, "https://example.com/1")
	w.want("/"+b.Code, 302, "https://example.com/2")
	w.reader.fail(terse.ErrUnavailable)
	for range 100 {
		w.want("/a", 302, "https://example.com/1")
		w.want("/"+b.Code, 302, "https://example.com/2")
		w.want("/cold", 503, "")
		w.want("/not-known", 503, "") // not known: never 404
	}
	// The link changes while the store fails: where it leads now is not known.
	w.server.OnChange(Invalidation{Domain: a.Number.Domain(), Code: "a", Number: a.Number, Version: 2})
	w.want("/a", 503, "")
	w.reader.fail(nil)
	w.want("/cold", 302, "https://example.com/3")
	w.want("/not-known", 404, "")
}

func TestOneReadForManyClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, quiet)
		w.link("go.example.com", "cold", "https://example.com/")
		w.reader.hold = make(chan struct{})
		var wg sync.WaitGroup
		for range 10_000 {
			wg.Go(func() { w.want("/cold", 302, "https://example.com/") })
		}
		synctest.Wait()
		close(w.reader.hold)
		wg.Wait()
		if n := w.reader.count(); n != 1 {
			t.Errorf("%d reads of the store for 10,000 clients, want 1", n)
		}
	})
}

func TestVisitorsDoNotWaitForAHangingStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, quiet, func(o *Options) { o.LoadTimeout = 0 }) // the default
		w.link("go.example.com", "cold", "https://example.com/")
		w.reader.hold = make(chan struct{}) // never closed
		var wg sync.WaitGroup
		start := time.Now()
		for range 100 {
			wg.Go(func() { w.want("/cold", 503, "") })
		}
		wg.Wait()
		if d := time.Since(start); d != 250*time.Millisecond {
			t.Errorf("waited %v, want 250 ms", d)
		}
	})
}

// faulty panics where the plane calls out.
type faulty struct{ Domains }

func (f faulty) ByHost(host []byte) *domains.Domain {
	if string(host) == "panic.example.com" {
		panic("boom")
	}
	return f.Domains.ByHost(host)
}

func TestPanicIsA500(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.Domains = faulty{o.Domains} })
	w.link("go.example.com", "a", "https://example.com/")
	w.listen()
	got := exchange(t, w, "GET /a HTTP/1.1\r\nHost: panic.example.com\r\n\r\n")
	if len(got) != 1 || got[0].StatusCode != 500 || !got[0].Close {
		t.Errorf("answers %v, want one 500 that closes", got)
	}
	w.want("/a", 302, "https://example.com/")
	if n := w.server.metrics.sum(countPanic); n != 1 {
		t.Errorf("%d panics counted, want 1", n)
	}
}

func TestBrokenDomainIs503(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.link("go.example.com", "a", "https://example.com/")
	l := w.link("go.example.com", "", "https://example.com/")
	w.want("/"+l.Code, 302, "https://example.com/")
	doc, err := w.store.GetDocument(t.Context(), 0, terse.KindDomain, "go.example.com")
	if err != nil {
		t.Fatal(err)
	}
	key := strings.Index(string(doc.Data), `"perm_key":"`) + len(`"perm_key":"`)
	if doc.Data[key] == 'A' {
		doc.Data[key] = 'B'
	} else {
		doc.Data[key] = 'A'
	}
	doc.Version++
	if err := w.store.PutDocument(t.Context(), doc); err != nil {
		t.Fatal(err)
	}
	reg, err := domains.Open(t.Context(), domains.Options{Store: w.store, Clock: w.now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reg.Close)
	s, err := New(Options{Domains: reg, Store: w.reader, Clock: w.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Shutdown(context.Background()) })
	w.server, s = s, w.server
	for _, path := range []string{"/" + l.Code, "/a", "/nobody", "/"} {
		w.want(path, 503, "")
	}
	w.server = s
}

func TestClick(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.TrustedProxies = []string{"127.0.0.0/8"} })
	camp := w.campaign("https://example.com/x?y={u}", "u")
	l := w.link("go.example.com", "a", "", func(l *terse.Link) { l.Campaign, l.Values = camp.ID, "1" })
	w.listen()
	exchange(t, w, "GET /%61?utm_source=sms&qr=1 HTTP/1.1\r\nHost: go.example.com\r\nUser-Agent:  Mozilla/5.0 \r\nReferer: https://t.co/\r\n"+
		"Accept-Language: de\r\nSec-CH-UA-Platform: \"Android\"\r\nSec-CH-UA-Mobile: ?1\r\nX-Forwarded-For: 1.1.1.1, 203.0.113.5\r\n\r\n")
	got := w.clicks.take()
	if len(got) != 1 {
		t.Fatalf("%d clicks, want 1", len(got))
	}
	c := got[0]
	want := clicks.Click{
		At: testNow, Workspace: 1, Link: l.Number, Campaign: camp.ID, Domain: "go.example.com", Code: []byte("a"),
		Destination: "https://example.com/x?y=1", Outcome: clicks.OutcomeRedirect, Flags: clicks.FlagQR | clicks.FlagMobile,
		IP: netip.MustParseAddr("203.0.113.5"), UserAgent: []byte("Mozilla/5.0"), Referrer: []byte("https://t.co/"),
		Language: []byte("de"), Platform: []byte(`"Android"`), Query: []byte("utm_source=sms&qr=1"),
	}
	if g, w := fmt.Sprintf("%+v", c), fmt.Sprintf("%+v", want); g != w {
		t.Errorf("click\n%s\nwant\n%s", g, w)
	}
	w.clicks.fill() // under its lock: a loop may still hold the click before
	exchange(t, w, "GET /a HTTP/1.1\r\nHost: go.example.com\r\n\r\n")
	if n := w.server.metrics.sum(countClickDropped); n != 1 {
		t.Errorf("%d dropped clicks counted, want 1", n)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.link("go.example.com", "a", "https://example.com/")
	for range 3 {
		w.ask("/a")
	}
	w.ask("/no-body")
	w.ask("/a+")
	w.ask("/")
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(w.server)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"terse_redirect_requests_total redirect": 3, "terse_redirect_requests_total not_found": 1,
		"terse_redirect_requests_total preview": 1, "terse_redirect_requests_total root": 1,
		"terse_redirect_requests_total panic": 0, "terse_redirect_cache_total hit": 3, "terse_redirect_cache_total miss": 2,
		"terse_redirect_loads_total ok": 2, "terse_redirect_cache_entries link": 1, "terse_redirect_cache_entries negative": 1,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	state := StateOK
	w := newWorld(t, func(o *Options) {
		o.ListenHost = ":8080"
		o.Ready = func() []Check { return []Check{{"store", state, ""}, {"analytics", StateDegraded, "rebuilding"}} }
	})
	ready := func() (int, string) {
		ctx := newCtx(t, "GET /readyz HTTP/1.1\r\nHost: localhost:8080\r\n\r\n")
		w.server.handle(ctx)
		return ctx.Response.StatusCode(), string(ctx.Response.Body())
	}
	for _, tt := range []struct {
		state State
		want  int
	}{{StateOK, 200}, {StateDegraded, 200}, {StateDown, 503}} {
		state = tt.state
		status, body := ready()
		if want := "redirect: ok\nstore: " + string(tt.state) + "\nanalytics: degraded (rebuilding)\n"; status != tt.want || body != want {
			t.Errorf("%s: %d %q, want %d %q", tt.state, status, body, tt.want, want)
		}
	}
	state = StateOK
	if err := w.server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, body := ready(); status != 503 || !strings.HasPrefix(body, "redirect: down (stopping)\n") {
		t.Errorf("stopping: %d %q", status, body)
	}
}

func TestOptionErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, set := range map[string]func(*Options){
		"no domains":     func(o *Options) { o.Domains = nil },
		"no store":       func(o *Options) { o.Store = nil },
		"listen address": func(o *Options) { o.ListenHost = "nonsense" },
		"proxies":        func(o *Options) { o.TrustedProxies = []string{"nonsense"} },
		"timeout":        func(o *Options) { o.ReadTimeout = -1 },
		"cache":          func(o *Options) { o.CacheBytes = -1 },
	} {
		o := Options{Domains: w.domains, Store: w.reader}
		set(&o)
		if _, err := New(o); terse.ErrorCode(err) != terse.CodeInvalid {
			t.Errorf("%s: error %v, want invalid", name, err)
		}
	}
}

// TestShutdown stops a server with an idle connection, a request under way and a
// readiness probe watching: the request is finished, nothing hangs.
func TestShutdown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.DrainDelay = 3 * time.Second })
	w.link("go.example.com", "slow", "https://example.com/slow")
	w.link("go.example.com", "fast", "https://example.com/fast")
	w.listen()
	w.want("/fast", 302, "https://example.com/fast") // cached
	idle, busy := dial(t, w), dial(t, w)
	idle.roundTrip(t, "GET", "GET /fast HTTP/1.1\r\nHost: go.example.com\r\n\r\n")
	hold := make(chan struct{})
	w.reader.mu.Lock()
	w.reader.hold = hold
	w.reader.mu.Unlock()
	answered := make(chan int, 1)
	go func() {
		_, _ = io.WriteString(busy.nc, "GET /slow HTTP/1.1\r\nHost: go.example.com\r\n\r\n")
		res, err := http.ReadResponse(busy.br, nil)
		if err != nil {
			answered <- 0
			return
		}
		answered <- res.StatusCode
	}()
	for w.reader.count() < 2 { // the request waits for the store
		time.Sleep(time.Millisecond) // a real socket: nothing signals this
	}
	stopped := make(chan error, 2)
	for range 2 {
		go func() { stopped <- w.server.Shutdown(context.Background()) }()
	}
	for !w.server.draining.Load() {
		time.Sleep(time.Millisecond)
	}
	// Still accepting during the delay, and saying goodbye.
	got := exchange(t, w, "GET /fast HTTP/1.1\r\nHost: go.example.com\r\n\r\n")
	if len(got) != 1 || got[0].StatusCode != 302 || !got[0].Close {
		t.Errorf("during the delay: %v, want one 302 that closes", got)
	}
	close(hold)
	if status := <-answered; status != 302 {
		t.Errorf("the request under way got %d, want 302", status)
	}
	for range 2 {
		if err := <-stopped; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	}
	if _, err := net.Dial("tcp", w.addr); err == nil {
		t.Error("the listener is still open")
	}
	if _, err := idle.br.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection: %v, want EOF", err)
	}
}

// TestShutdownCutsWhatDoesNotEnd gives up on a connection that never finishes its
// request.
func TestShutdownCutsWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t).listen()
	stuck := dial(t, w)
	_, _ = io.WriteString(stuck.nc, "GET /never-ends")
	for w.server.admission.open.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := w.server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v, want deadline exceeded", err)
	}
	if b, err := io.ReadAll(stuck.br); len(b) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the stuck connection got %q, %v", b, err)
	}
}

// TestSlowClients are cut by the timeouts.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	slow := newWorld(t, func(o *Options) { o.ReadTimeout = 100 * time.Millisecond }).listen()
	idle := newWorld(t, func(o *Options) { o.IdleTimeout = 100 * time.Millisecond }).listen()
	for name, tt := range map[string]struct {
		w          *world
		sent, want string
	}{
		"nothing":       {slow, "", "408"},
		"half a header": {slow, "GET /a HTTP/1.1\r\nHo", "408"},
		"half a body":   {slow, "GET /a HTTP/1.1\r\nHost: go.example.com\r\nContent-Length: 5\r\n\r\nhe", "408"},
		"idle":          {idle, "GET / HTTP/1.1\r\nHost: go.example.com\r\n\r\n", "200"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, tt.w)
			_, _ = io.WriteString(c.nc, tt.sent) // may come after the end
			all, err := io.ReadAll(c.br)
			if err != nil && !errors.Is(err, syscall.ECONNRESET) || !strings.HasPrefix(string(all), "HTTP/1.1 "+tt.want+" ") {
				t.Errorf("%q, %v; want a %s and a close", all, err, tt.want)
			}
		})
	}
}

// failingListener fails its first accepts as a process without file descriptors does.
type failingListener struct {
	net.Listener
	mu    sync.Mutex
	fails int
}

func (l *failingListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fails > 0 {
		l.fails--
		return nil, errors.New("accept: too many open files")
	}
	return l.Listener.Accept()
}

func TestAcceptErrorsPass(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.link("go.example.com", "a", "https://example.com/")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addr = ln.Addr().String()
	done := make(chan error, 1)
	go func() { done <- w.server.Serve(&failingListener{Listener: ln, fails: 3}) }()
	if got := exchange(t, w, "GET /a HTTP/1.1\r\nHost: go.example.com\r\n\r\n"); len(got) != 1 || got[0].StatusCode != 302 {
		t.Errorf("answers %v, want a 302", got)
	}
	if n := w.server.metrics.acceptErrs.Load(); n != 3 {
		t.Errorf("%d failed accepts counted, want 3", n)
	}
	if err := w.server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if err := w.server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve after Shutdown: %v, want server closed", err)
	}
}

// TestRequestsAndChangesRace reads and changes one link from many goroutines; with
// the race detector it also checks that nothing is shared that should not be.
func TestRequestsAndChangesRace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	l := w.link("go.example.com", "a", "https://example.com/0")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer func() { close(stop); wg.Wait() }()
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if s, loc := w.ask("/a"); s != 302 || !strings.HasPrefix(loc, "https://example.com/") {
					t.Errorf("%d %q", s, loc)
					return
				}
			}
		})
	}
	for i := 1; i <= 300; i++ {
		to := fmt.Sprintf("https://example.com/%d", i)
		l = w.update(l, func(l *terse.Link) { l.Destination = to })
		w.want("/a", 302, to)
	}
}

// TestUnknownCodesAreRefusedWithoutTheStore: codes that look generated and were never issued cost no
// read, whatever the store does, and leave nothing behind in memory.
func TestUnknownCodesAreRefusedWithoutTheStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	w.link("go.example.com", "aliasXY", "https://example.com/alias")
	w.link("go.example.com", "", "https://example.com/")
	const n = 20_000
	for i := range n {
		w.want(fmt.Sprintf("/%07d", i), 404, "")
	}
	w.want("/aliasXY", 302, "https://example.com/alias")
	if reads := w.reader.count(); reads > 1+n/1000 {
		t.Errorf("%d reads of the store for %d unknown codes and an alias", reads, n)
	}
	if s := w.server.CacheStats(); s.Negatives > 100 {
		t.Errorf("%d codes that do not exist are kept", s.Negatives)
	}
	w.reader.fail(terse.ErrUnavailable)
	w.want("/1234567", 404, "")
	w.want("/aliasXZ", 404, "")
}
