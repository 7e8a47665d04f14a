package redirect

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/campaigns"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/store/memstore"
)

// testNow is when tests happen.
const testNow = terse.Millis(1_800_000_000_000)

// world is a plane with everything around it in memory.
type world struct {
	t         testing.TB
	store     *memstore.Store
	domains   *domains.Registry
	campaigns *campaigns.Registry
	reader    *reader
	clicks    *recorder
	server    *Server
	addr      string // of the plane, after listen
	now       func() terse.Millis
}

// newWorld makes a world with the domain go.example.com.
func newWorld(t testing.TB, set ...func(*Options)) *world {
	t.Helper()
	w := &world{t: t, now: func() terse.Millis { return testNow }, clicks: &recorder{}}
	clock := func() terse.Millis { return w.now() }
	w.store = memstore.New(clock)
	w.reader = &reader{Reader: w.store}
	var err error
	if w.domains, err = domains.Open(t.Context(), domains.Options{Store: w.store, Clock: clock, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.domains.Close)
	w.domain(domains.New{Host: "go.example.com"})
	w.campaigns = campaigns.New(campaigns.Options{Store: w.store, Clock: clock})
	o := Options{
		Domains: w.domains, Campaigns: w.campaigns, Store: w.reader, Recorder: w.clicks, Clock: clock,
		// A busy machine is neither a slow store nor a slow client: tests of these say how long they wait.
		LoadTimeout: time.Minute, ReadTimeout: time.Minute, WriteTimeout: time.Minute, IdleTimeout: time.Hour,
	}
	for _, f := range set {
		f(&o)
	}
	if w.server, err = New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.server.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return w
}

func (w *world) domain(n domains.New) *domains.Domain {
	w.t.Helper()
	d, err := w.domains.Create(context.Background(), 1, n, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// link stores a link on go.example.com (or the host given as "host/alias"); an
// empty alias makes a generated code. It returns the code.
func (w *world) link(host, alias, destination string, set ...func(*terse.Link)) terse.Link {
	w.t.Helper()
	ctx := context.Background()
	d := w.domains.ByName(host)
	l := terse.Link{Workspace: 1, Version: 1, CreatedAt: testNow, UpdatedAt: testNow, Code: alias, Destination: destination}
	if alias == "" {
		var b domains.Issued
		if err := w.domains.Issue(ctx, d, 1, &b); err != nil {
			w.t.Fatal(err)
		}
		l.Number, l.Code = b.Number(d, 0), string(b.Codes)
	} else {
		index, err := w.domains.IssueAliases(ctx, d, 1, nil)
		if err != nil {
			w.t.Fatal(err)
		}
		l.Number = terse.NewLinkNumber(d.Number, terse.AliasSpace, index[0])
		l.Reserves = d.Reserve([]byte(alias))
	}
	for _, f := range set {
		f(&l)
	}
	if err := w.store.InsertLinks(ctx, &terse.Chunk{Links: []terse.Link{l}}); err != nil {
		w.t.Fatal(err)
	}
	return l
}

// update stores a new version of a link and tells the plane.
func (w *world) update(l terse.Link, f func(*terse.Link)) terse.Link {
	w.t.Helper()
	was := l.Version
	f(&l)
	l.Version++
	if err := w.store.UpdateLink(context.Background(), &l, was); err != nil {
		w.t.Fatal(err)
	}
	w.server.OnChange(Invalidation{Domain: l.Number.Domain(), Code: l.Code, Number: l.Number, Version: l.Version})
	return l
}

// remove deletes a link and tells the plane.
func (w *world) remove(l terse.Link) {
	w.t.Helper()
	if err := w.store.DeleteLink(context.Background(), terse.LinkKey{Number: l.Number, Code: l.Code}, 0); err != nil {
		w.t.Fatal(err)
	}
	w.server.OnChange(Invalidation{Domain: l.Number.Domain(), Code: l.Code, Number: l.Number, Version: l.Version, Deleted: true})
}

// listen serves on a loopback port, by event loops if the system has them.
func (w *world) listen() *world {
	w.t.Helper()
	return w.serve(func(ln net.Listener) net.Listener { return ln })
}

// plainListener hides that it is a TCP listener, so that fasthttp serves its connections.
type plainListener struct{ net.Listener }

// listenPlainly is listen by fasthttp alone.
func (w *world) listenPlainly() *world {
	w.t.Helper()
	return w.serve(func(ln net.Listener) net.Listener { return plainListener{ln} })
}

func (w *world) serve(wrap func(net.Listener) net.Listener) *world {
	w.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.addr = ln.Addr().String()
	done := make(chan error, 1)
	go func() { done <- w.server.Serve(wrap(ln)) }()
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := w.server.Shutdown(ctx); err != nil {
			w.t.Errorf("Shutdown: %v", err)
		}
		if err := <-done; err != nil {
			w.t.Errorf("Serve: %v", err)
		}
	})
	return w
}

// reader counts the reads of a store, and can hold or fail them.
type reader struct {
	domains.Reader
	mu    sync.Mutex
	reads int
	err   error         // returned by every read
	hold  chan struct{} // if not nil, a read waits until it is closed
}

func (r *reader) read(ctx context.Context) error {
	r.mu.Lock()
	r.reads++
	err, hold := r.err, r.hold
	r.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

func (r *reader) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reads
}

func (r *reader) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

func (r *reader) GetLinks(ctx context.Context, keys []terse.LinkKey, dst []terse.Link) error {
	if err := r.read(ctx); err != nil {
		return err
	}
	return r.Reader.GetLinks(ctx, keys, dst)
}

func (r *reader) GetAlias(ctx context.Context, d terse.DomainID, alias string) (terse.Link, error) {
	if err := r.read(ctx); err != nil {
		return terse.Link{}, err
	}
	return r.Reader.GetAlias(ctx, d, alias)
}

// recorder keeps copies of clicks.
type recorder struct {
	mu   sync.Mutex
	got  []clicks.Click
	full bool
}

func (r *recorder) Capture(_ uint32, c *clicks.Click) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full {
		return false
	}
	k := *c
	for _, b := range []*[]byte{&k.Code, &k.UserAgent, &k.Referrer, &k.Language, &k.Platform, &k.Query} {
		*b = append([]byte(nil), *b...)
	}
	r.got = append(r.got, k)
	return true
}

// fill makes the recorder refuse every click from now on.
func (r *recorder) fill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.full = true
}

// take returns the clicks since the last take.
func (r *recorder) take() []clicks.Click {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = nil
	return got
}
