package linkcache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/memstore"
)

// remote is a Remote in memory, which does what one promises and no more.
type remote struct {
	mu       sync.Mutex
	st       State
	has      bool
	links    map[terse.LinkNumber]Entry
	versions map[terse.LinkNumber]uint64 // that are known of; Deleted: a tombstone
	broken   bool
	puts     int // entries that came
}

func newRemote() *remote {
	return &remote{links: map[terse.LinkNumber]Entry{}, versions: map[terse.LinkNumber]uint64{}}
}

var errBroken = errors.New("broken")

func (r *remote) do(f func()) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken {
		return errBroken
	}
	f()
	return nil
}

func (r *remote) Get(_ context.Context, n terse.LinkNumber) (st State, link []byte, ok bool, err error) {
	err = r.do(func() { st, link, ok = r.st, r.links[n].Link, r.has })
	return st, link, ok, err
}

func (r *remote) GetNamed(context.Context, []byte) (State, []byte, bool, error) {
	return State{}, nil, false, errBroken
}

func (r *remote) State(context.Context) (st State, ok bool, err error) {
	err = r.do(func() { st, ok = r.st, r.has })
	return st, ok, err
}

func (r *remote) Begin(_ context.Context, old string, st State) error {
	return r.do(func() {
		if r.st.Epoch == old {
			r.st, r.has = st, true
			clear(r.links)
			clear(r.versions)
		}
	})
}

func (r *remote) Put(_ context.Context, epoch string, entries []Entry) (took int, err error) {
	err = r.do(func() {
		r.puts += len(entries)
		for _, e := range entries {
			if epoch == r.st.Epoch && e.Version >= r.versions[e.Number] {
				r.links[e.Number], r.versions[e.Number] = e, e.Version
				took++
			}
		}
	})
	return took, err
}

func (r *remote) Apply(_ context.Context, epoch string, changed []Changed, from, to uint64) error {
	return r.do(func() {
		if epoch != r.st.Epoch {
			return
		}
		for _, c := range changed {
			r.versions[c.Number] = max(r.versions[c.Number], c.Version)
			if r.links[c.Number].Version < c.Version {
				delete(r.links, c.Number)
			}
		}
		if r.st.Position >= from {
			r.st.Position = max(r.st.Position, to)
		}
	})
}

// kept returns the version that is kept of a link, 0 if none is.
func (r *remote) kept(n terse.LinkNumber) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.links[n].Version
}

// came returns how many entries have come to be kept.
func (r *remote) came() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.puts
}

// fixture is a store with one link, and a cache above it.
type fixture struct {
	*memstore.Store
	t      *testing.T
	remote *remote
	cache  *Cache
	above  terse.Store
	link   terse.Link

	mu    sync.Mutex
	at    uint64                      // how far the node has followed the feed
	told  map[terse.LinkNumber]uint64 // versions
	reads int                         // of the store
	after func()                      // runs between the next read and its return
}

func newFixture(t *testing.T) *fixture {
	now := func() terse.Millis { return terse.MillisOf(time.Now()) }
	f := &fixture{Store: memstore.New(now), t: t, remote: newRemote(), told: map[terse.LinkNumber]uint64{}}
	lease, err := f.Lease(t.Context(), terse.LeaseRequest{Domain: 1, Space: 1, Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	f.link = terse.Link{Number: terse.NewLinkNumber(1, 1, lease.Start), Workspace: 1, Version: 1, Code: "c", Destination: "https://example.com/1"}
	if err := f.InsertLinks(t.Context(), &terse.Chunk{Links: []terse.Link{f.link}}); err != nil {
		t.Fatal(err)
	}
	f.cache, err = New(Options{
		Remote: f.remote, Feed: f, Clock: now, Within: time.Minute, // the machine may be busy
		Position: func() (uint64, bool) { f.mu.Lock(); defer f.mu.Unlock(); return f.at, true },
		Told: func(n terse.LinkNumber) (uint64, bool) {
			f.mu.Lock()
			defer f.mu.Unlock()
			v, ok := f.told[n]
			return v, ok
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.above = f.cache.Above(f)
	f.cache.Start()
	t.Cleanup(f.cache.Stop)
	f.until("the cache is used", func() bool { return f.cache.epoch.Load() != nil })
	return f
}

// GetLinks is that of the store, counted.
func (f *fixture) GetLinks(ctx context.Context, keys []terse.LinkKey, dst []terse.Link) error {
	err := f.Store.GetLinks(ctx, keys, dst)
	f.mu.Lock()
	after := f.after
	f.reads, f.after = f.reads+1, nil
	f.mu.Unlock()
	if after != nil {
		after()
	}
	return err
}

// FeedHead returns the position of the last change.
func (f *fixture) FeedHead(ctx context.Context) (uint64, error) {
	list, err := f.Changes(ctx, 0, 1000)
	if e, ok := errors.AsType[*terse.ForgottenError](err); ok {
		return e.Floor, nil
	}
	if err != nil || len(list) == 0 {
		return 0, err
	}
	return list[len(list)-1].Seq, nil
}

func (f *fixture) until(what string, done func() bool) {
	f.t.Helper()
	for end := time.Now().Add(5 * time.Minute); !done(); <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("not within five minutes: %s", what)
		}
	}
}

// look returns where the link leads, and whether the store was asked.
func (f *fixture) look() (destination string, asked bool) {
	f.t.Helper()
	before := f.readCount()
	dst := make([]terse.Link, 1)
	if err := f.above.GetLinks(f.t.Context(), []terse.LinkKey{{Number: f.link.Number, Code: f.link.Code}}, dst); err != nil {
		f.t.Fatal(err)
	}
	return dst[0].Destination, f.readCount() > before
}

func (f *fixture) readCount() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reads
}

// kept looks until the link comes from the server.
func (f *fixture) kept() {
	f.t.Helper()
	f.until("the link is kept", func() bool { _, asked := f.look(); return !asked })
}

// update writes the next version to the store, and nobody is told.
func (f *fixture) update() {
	f.t.Helper()
	f.link.Version++
	f.link.Destination = fmt.Sprintf("https://example.com/%d", f.link.Version)
	if err := f.UpdateLink(f.t.Context(), &f.link, f.link.Version-1); err != nil {
		f.t.Error(err)
	}
}

// TestOldEntries: an entry is not believed while the server has not followed the feed as far as the node has, nor if the node
// was told of a newer version.
func TestOldEntries(t *testing.T) {
	for name, learn := range map[string]func(f *fixture){
		"followed": func(f *fixture) { f.at, _ = f.FeedHead(t.Context()) },
		"told":     func(f *fixture) { f.told[f.link.Number] = f.link.Version },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.kept()
			f.update()
			f.mu.Lock()
			learn(f)
			f.mu.Unlock()
			for range 3 {
				if got, _ := f.look(); got != f.link.Destination {
					t.Fatalf("the link leads to %s, want %s", got, f.link.Destination)
				}
			}
			f.cache.Changed(f.link.Number, f.link.Version, false)
			f.kept()
			if got, _ := f.look(); got != f.link.Destination {
				t.Errorf("from the server it leads to %s, want %s", got, f.link.Destination)
			}
		})
	}
}

// TestForgottenFeed: where the feed has forgotten what the server had not followed yet, it begins anew.
func TestForgottenFeed(t *testing.T) {
	f := newFixture(t)
	f.kept()
	f.update()
	f.ForgetChanges()
	begun := f.cache.stats.begun.Load()
	f.mu.Lock()
	f.at, _ = f.FeedHead(t.Context())
	f.mu.Unlock()
	f.cache.Wake()
	f.until("it begins anew", func() bool { return f.cache.stats.begun.Load() > begun })
	f.kept()
	if got, _ := f.look(); got != f.link.Destination {
		t.Errorf("the link leads to %s, want %s", got, f.link.Destination)
	}
}

// TestLateEntry: a link that was read before a change or a deletion, and comes to be kept after the server has heard of it, is refused.
func TestLateEntry(t *testing.T) {
	for _, deleted := range []bool{false, true} {
		t.Run(fmt.Sprintf("deleted %t", deleted), func(t *testing.T) {
			f := newFixture(t)
			f.mu.Lock()
			f.after = func() {
				f.update()
				f.cache.Changed(f.link.Number, f.link.Version, deleted)
				f.until("the server knows", func() bool {
					f.remote.mu.Lock()
					defer f.remote.mu.Unlock()
					return f.remote.versions[f.link.Number] >= f.link.Version
				})
			}
			f.mu.Unlock()
			f.look()
			f.until("the entry has come", func() bool { return f.remote.came() == 1 })
			if got := f.remote.kept(f.link.Number); got != 0 {
				t.Errorf("version %d is kept", got)
			}
			f.until("it is counted", func() bool { return f.cache.stats.refused.Load() == 1 })
		})
	}
}

// TestBrokenRemote: while the server fails, the store is asked and says the truth, and afterwards the server is used again.
func TestBrokenRemote(t *testing.T) {
	f := newFixture(t)
	f.kept()
	set := func(broken bool) {
		f.remote.mu.Lock()
		defer f.remote.mu.Unlock()
		f.remote.broken = broken
	}
	set(true)
	for range 5 {
		if got, asked := f.look(); got != f.link.Destination || !asked {
			t.Errorf("the link leads to %s, the store was asked: %t", got, asked)
		}
	}
	set(false)
	f.cache.Wake()
	f.kept()
}

// TestPutBytes: what waits to be written is bounded in bytes, and the room comes back with the writes.
func TestPutBytes(t *testing.T) {
	f := newFixture(t)
	c, err := New(Options{
		Remote: f.remote, Feed: f, Clock: f.cache.o.Clock, Position: f.cache.o.Position, Told: f.cache.o.Told,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	epoch := *f.cache.epoch.Load()
	c.epoch.Store(&epoch)
	const each, links = 32 << 10, 1000 // twice as many as there is room for
	at, _ := f.cache.o.Position()
	for i := range links {
		l := terse.Link{Number: terse.NewLinkNumber(1, 2, uint64(i)), Workspace: 1, Version: 1, Code: "c", Destination: "https://example.com/" + strings.Repeat("x", each)}
		c.keep(&l, nil, at)
		if n := c.waiting.Load(); n > maxPutBytes {
			t.Fatalf("%d bytes wait", n)
		}
	}
	dropped := int(c.stats.dropped.Load())
	if room := maxPutBytes / each; links-dropped > room || links-dropped < room*9/10 {
		t.Errorf("%d links wait, there is room for %d", links-dropped, room)
	}
	c.Start()
	f.until("everything was written", func() bool { return c.waiting.Load() == 0 })
	if n := int(c.stats.kept.Load() + c.stats.refused.Load()); n != links-dropped {
		t.Errorf("%d links were written, %d waited", n, links-dropped)
	}
}
