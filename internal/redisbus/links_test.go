package redisbus

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/linkcache"
	"github.com/terselink/terse/internal/store/memstore"
	"github.com/terselink/terse/internal/testengine"
)

// shelf is a store, and what is known of the reads that reached it.
type shelf struct {
	*memstore.Store
	reads atomic.Int64
	down  atomic.Bool
	// after, if set, runs between a read and its return: what happens there overtakes the read.
	mu    sync.Mutex
	after func()
}

func (s *shelf) read() error {
	if s.down.Load() {
		return terse.ErrUnavailable
	}
	s.reads.Add(1)
	return nil
}

func (s *shelf) overtake() {
	s.mu.Lock()
	f := s.after
	s.after = nil
	s.mu.Unlock()
	if f != nil {
		f()
	}
}

func (s *shelf) GetLinks(ctx context.Context, keys []terse.LinkKey, dst []terse.Link) error {
	if err := s.read(); err != nil {
		return err
	}
	err := s.Store.GetLinks(ctx, keys, dst)
	s.overtake()
	return err
}

func (s *shelf) GetAlias(ctx context.Context, d terse.DomainID, alias string) (terse.Link, error) {
	if err := s.read(); err != nil {
		return terse.Link{}, err
	}
	l, err := s.Store.GetAlias(ctx, d, alias)
	s.overtake()
	return l, err
}

// FeedHead returns the position of the last change.
func (s *shelf) FeedHead(ctx context.Context) (at uint64, err error) {
	for {
		list, err := s.Changes(ctx, at, 1000)
		if err != nil || len(list) == 0 {
			return at, err
		}
		at = list[len(list)-1].Seq
	}
}

// update writes the next version of a link.
func (s *shelf) update(t *testing.T, l *terse.Link, i int) {
	t.Helper()
	was := l.Version
	l.Version++
	l.Destination = destinationOf(i, l.Version)
	if err := s.UpdateLink(t.Context(), l, was); err != nil {
		t.Fatal(err)
	}
}

func destinationOf(i int, version uint64) string {
	return fmt.Sprintf("https://example.com/%d/%d", i, version)
}

// node is what a node has of the cache: how far it has followed the feed, what it was told of, and its cache.
type node struct {
	t     *testing.T
	shelf *shelf
	store terse.Store
	cache *linkcache.Cache
	links *Links
	mu    sync.Mutex
	at    uint64
	told  map[terse.LinkNumber]uint64
}

func newLinks(url, prefix string) (*Links, error) {
	return NewLinks(LinksOptions{
		Options: Options{URL: url, Prefix: prefix, Instance: "i"}, Secret: make([]byte, 32), Log: slog.New(slog.DiscardHandler),
	})
}

// newNode starts a node, which has followed the feed to where it is now.
func newNode(t *testing.T, s *shelf, url, prefix string) *node {
	t.Helper()
	links, err := newLinks(url, prefix)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, shelf: s, links: links, told: map[terse.LinkNumber]uint64{}}
	if n.at, err = s.FeedHead(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.cache, err = linkcache.New(linkcache.Options{
		Remote: links, Feed: s, Clock: func() terse.Millis { return terse.MillisOf(time.Now()) }, Within: 10 * time.Second, // the machine may be busy
		Position: func() (uint64, bool) { n.mu.Lock(); defer n.mu.Unlock(); return n.at, true },
		Told: func(l terse.LinkNumber) (uint64, bool) {
			n.mu.Lock()
			defer n.mu.Unlock()
			v, ok := n.told[l]
			return v, ok
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	n.store = n.cache.Above(s)
	n.cache.Start()
	t.Cleanup(func() { links.Close(); n.cache.Stop() })
	return n
}

// follow follows the feed to its end, as package changes does.
func (n *node) follow() {
	n.t.Helper()
	head, err := n.shelf.FeedHead(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	n.mu.Lock()
	n.at = head
	n.mu.Unlock()
	n.cache.Wake()
}

// tell tells the node of a write, as a message does.
func (n *node) tell(l terse.LinkNumber, version uint64) {
	n.mu.Lock()
	n.told[l] = version
	n.mu.Unlock()
	n.cache.Changed(l, version, false)
}

func (n *node) destination(l *terse.Link) string {
	n.t.Helper()
	dst := make([]terse.Link, 1)
	if err := n.store.GetLinks(n.t.Context(), []terse.LinkKey{{Number: l.Number, Code: l.Code}}, dst); err != nil {
		n.t.Fatal(err)
	}
	return dst[0].Destination
}

// served looks until the store is not asked, and reports what is served then.
func (n *node) served(l *terse.Link) string {
	n.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); <-time.After(10 * time.Millisecond) {
		before := n.shelf.reads.Load()
		if d := n.destination(l); n.shelf.reads.Load() == before {
			return d
		}
	}
	st, ok, err := n.links.State(n.t.Context())
	n.t.Fatalf("the store is asked again and again; redis: %+v, %v, %v", st, ok, err)
	return ""
}

// world is a store with some links, and Redis.
func world(t *testing.T, url string, count int) (*shelf, string, []terse.Link) {
	t.Helper()
	s := &shelf{Store: memstore.New(func() terse.Millis { return terse.MillisOf(time.Now()) })}
	lease, err := s.Lease(t.Context(), terse.LeaseRequest{Domain: 1, Space: 1, Count: uint64(count)})
	if err != nil {
		t.Fatal(err)
	}
	links := make([]terse.Link, count)
	for i := range links {
		links[i] = terse.Link{Number: terse.NewLinkNumber(1, 1, lease.Start+uint64(i)), Workspace: 1, Version: 1, Code: fmt.Sprintf("c%d", i), Destination: destinationOf(i, 1)}
	}
	if err := s.InsertLinks(t.Context(), &terse.Chunk{Links: links}); err != nil {
		t.Fatal(err)
	}
	return s, fmt.Sprintf("terse-test-%x", rand.Uint64()), links
}

// TestLinkCache: what one node has read another need not ask for, and what is written is what both have.
func TestLinkCache(t *testing.T) {
	s, prefix, links := world(t, testengine.Address(t, testengine.Redis), 3)
	url := testengine.Address(t, testengine.Redis)
	a := newNode(t, s, url, prefix)
	l := &links[0]
	if got := a.served(l); got != destinationOf(0, 1) {
		t.Fatalf("the first node: %s", got)
	}
	b := newNode(t, s, url, prefix)
	if got := b.served(l); got != destinationOf(0, 1) {
		t.Fatalf("the second node: %s", got)
	}
	s.down.Store(true)
	if got := b.destination(l); got != destinationOf(0, 1) {
		t.Fatalf("without the store: %s", got)
	}
	s.down.Store(false)

	s.update(t, l, 0)
	a.tell(l.Number, l.Version)
	b.follow()
	for _, n := range []*node{a, b} {
		if got := n.destination(l); got != destinationOf(0, 2) {
			t.Errorf("after a write: %s", got)
		}
		if got := n.served(l); got != destinationOf(0, 2) {
			t.Errorf("after a write, from redis: %s", got)
		}
	}
	if err := s.DeleteLink(t.Context(), terse.LinkKey{Number: l.Number, Code: l.Code}, l.Version); err != nil {
		t.Fatal(err)
	}
	b.follow()
	if got := b.destination(l); got != "" {
		t.Errorf("after the deletion: %s", got)
	}
	if got := newNode(t, s, url, prefix).destination(l); got != "" {
		t.Errorf("after the deletion, at a new node: %s", got)
	}
}

// TestLinkCacheNames: a name leads to the link that has it now, also when it had another.
func TestLinkCacheNames(t *testing.T) {
	url := testengine.Address(t, testengine.Redis)
	s, prefix, _ := world(t, url, 1)
	a := newNode(t, s, url, prefix)
	ask := func(n *node) (string, error) {
		l, err := n.store.GetAlias(t.Context(), 1, "name")
		return l.Destination, err
	}
	for i := range 3 {
		lease, err := s.Lease(t.Context(), terse.LeaseRequest{Domain: 1, Space: terse.AliasSpace, Count: 1})
		if err != nil {
			t.Fatal(err)
		}
		l := terse.Link{Number: terse.NewLinkNumber(1, terse.AliasSpace, lease.Start), Workspace: 1, Version: 1, Code: "name", Destination: destinationOf(i, 1)}
		if err := s.InsertLinks(t.Context(), &terse.Chunk{Links: []terse.Link{l}}); err != nil {
			t.Fatal(err)
		}
		a.follow()
		for end := time.Now().Add(time.Minute); ; <-time.After(10 * time.Millisecond) {
			before := s.reads.Load()
			if got, err := ask(a); err != nil || got != destinationOf(i, 1) {
				t.Fatalf("%q, %v", got, err)
			}
			if s.reads.Load() == before {
				break
			}
			if time.Now().After(end) {
				t.Fatal("the store is asked again and again")
			}
		}
		if got, err := ask(newNode(t, s, url, prefix)); err != nil || got != destinationOf(i, 1) {
			t.Fatalf("a new node: %q, %v", got, err)
		}
		if err := s.DeleteLink(t.Context(), terse.LinkKey{Number: l.Number, Code: "name"}, 1); err != nil {
			t.Fatal(err)
		}
		if got, err := ask(newNode(t, s, url, prefix)); terse.ErrorCode(err) != terse.CodeNotFound {
			t.Fatalf("after the deletion: %q, %v", got, err)
		}
	}
}

// TestLinkCacheLostNews: a change that nobody told Redis of is not undone by it: not at a node that has just started, and not
// at one that was told.
func TestLinkCacheLostNews(t *testing.T) {
	url := testengine.Address(t, testengine.Redis)
	s, prefix, links := world(t, url, 2)
	a := newNode(t, s, url, prefix)
	for i := range links {
		a.served(&links[i])
	}
	told := newNode(t, s, url, prefix)
	told.served(&links[1])
	for i := range links {
		s.update(t, &links[i], i) // the feed has it, and nobody reads it
	}
	told.mu.Lock()
	told.told[links[1].Number] = 2
	told.mu.Unlock()
	if got := told.destination(&links[1]); got != destinationOf(1, 2) {
		t.Errorf("at a node that was told: %s", got)
	}
	b := newNode(t, s, url, prefix)
	if got := b.destination(&links[0]); got != destinationOf(0, 2) {
		t.Errorf("at a new node: %s", got)
	}
	if got := b.served(&links[0]); got != destinationOf(0, 2) {
		t.Errorf("at a new node, from redis: %s", got)
	}
}

// TestLinkCacheLateWrite: a link that was read before a change and arrives after it is refused, whatever Redis has forgotten
// meanwhile.
func TestLinkCacheLateWrite(t *testing.T) {
	for _, forget := range []bool{false, true} {
		t.Run(fmt.Sprintf("forgotten %v", forget), func(t *testing.T) {
			url := testengine.Address(t, testengine.Redis)
			s, prefix, links := world(t, url, 2)
			slow, quick := newNode(t, s, url, prefix), newNode(t, s, url, prefix)
			slow.served(&links[1])
			quick.served(&links[1])
			s.mu.Lock()
			s.after = func() {
				s.update(t, &links[0], 0)
				quick.follow()
				quick.served(&links[1]) // it is believed again: the change was applied
				if forget {
					c, err := quick.links.connected()
					if err != nil {
						t.Error(err)
						return
					}
					if err := c.Do(t.Context(), c.B().Del().Key(quick.links.state).Build()).Error(); err != nil {
						t.Error(err)
					}
				}
			}
			s.mu.Unlock()
			if got := slow.destination(&links[0]); got != destinationOf(0, 1) {
				t.Fatalf("the slow read: %s", got)
			}
			slow.follow()
			for _, n := range []*node{quick, slow, newNode(t, s, url, prefix)} {
				if got := n.served(&links[0]); got != destinationOf(0, 2) {
					t.Errorf("after the change: %s", got)
				}
			}
		})
	}
}

// TestLinkCacheForged: an entry that no node has signed, that is of another link, or that was changed is not served; the store is asked, and
// what it says is kept again.
func TestLinkCacheForged(t *testing.T) {
	url := testengine.Address(t, testengine.Redis)
	s, prefix, links := world(t, url, 2)
	a := newNode(t, s, url, prefix)
	for i := range links {
		a.served(&links[i])
	}
	c, err := a.links.connected()
	if err != nil {
		t.Fatal(err)
	}
	key := func(i int) string { return a.links.link + number(links[i].Number) }
	get := func(i int) string {
		t.Helper()
		b, err := c.Do(t.Context(), c.B().Get().Key(key(i)).Build()).ToString()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	own, other := get(0), get(1)
	forger, err := NewLinks(LinksOptions{Options: Options{URL: url, Prefix: prefix, Instance: "i"}, Secret: []byte("another secret of 32 bytes, or so"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer forger.Close()
	elsewhere := strings.Replace(own[headBytes:], "example.com", "example.net", 1)
	later := own[:epochBytes] + hex(9)
	for what, entry := range map[string]string{
		"another destination": own[:headBytes] + elsewhere,
		"no signature":        own[:epochBytes+versionBytes] + elsewhere,
		"another secret":      forger.entry(number(links[0].Number), own[:epochBytes], own[epochBytes:epochBytes+versionBytes], []byte(elsewhere)),
		"another link":        other,
		"a later version":     later + own[epochBytes+versionBytes:],
		"cut":                 own[:headBytes],
	} {
		before := value(t, a.links.bad.count.WithLabelValues(sealedLink))
		if err := c.Do(t.Context(), c.B().Set().Key(key(0)).Value(entry).Build()).Error(); err != nil {
			t.Fatal(err)
		}
		if _, link, ok, err := a.links.Get(t.Context(), links[0].Number); link != nil || !ok || err != nil {
			t.Errorf("%s: %s is served, %v, %v", what, link, ok, err)
		}
		if n := value(t, a.links.bad.count.WithLabelValues(sealedLink)); n != before+1 {
			t.Errorf("%s: refused %v times", what, n-before)
		}
	}
	if err := c.Do(t.Context(), c.B().Set().Key(key(0)).Value(own[:headBytes]+elsewhere).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if got := a.served(&links[0]); got != destinationOf(0, 1) {
		t.Errorf("afterwards: %s", got)
	}
}

// TestLinkCacheRestored: a database that was put back has other changes under the positions that Redis knows.
func TestLinkCacheRestored(t *testing.T) {
	url := testengine.Address(t, testengine.Redis)
	s, prefix, links := world(t, url, 1)
	a := newNode(t, s, url, prefix)
	for range 5 {
		s.update(t, &links[0], 0)
	}
	a.follow()
	if got := a.served(&links[0]); got != destinationOf(0, 6) {
		t.Fatal(got)
	}
	a.links.Close()
	a.cache.Stop()
	back, _, _ := world(t, url, 1) // as it was in the beginning
	if got := newNode(t, back, url, prefix).served(&links[0]); got != destinationOf(0, 1) {
		t.Errorf("after the restore: %s", got)
	}
}

// TestLinkCacheWithoutRedis: whatever happens to the server, every answer is right, and it is used again afterwards.
func TestLinkCacheWithoutRedis(t *testing.T) {
	redis := testengine.NewRedis(t)
	s, prefix, links := world(t, redis.URL, 1)
	a := newNode(t, s, redis.URL, prefix)
	l := &links[0]
	right := func(what string) {
		t.Helper()
		for range 20 {
			if got := a.destination(l); got != destinationOf(0, l.Version) {
				t.Fatalf("%s: %s, want version %d", what, got, l.Version)
			}
		}
	}
	change := func(what string) {
		t.Helper()
		right(what)
		s.update(t, l, 0)
		a.follow()
		right(what + ", after a change")
	}
	back := func(what string) {
		t.Helper()
		if got := a.served(l); got != destinationOf(0, l.Version) {
			t.Fatalf("%s: %s", what, got)
		}
	}
	back("redis is there")
	redis.Do("CONFIG", "SET", "maxmemory", "1")
	change("redis is full")
	redis.Do("CONFIG", "SET", "maxmemory", "0")
	back("redis has room again")
	redis.Do("FLUSHALL")
	change("redis was emptied")
	back("redis was emptied")
	redis.Do("REPLICAOF", "127.0.0.1", "1")
	change("redis is read-only")
	redis.Do("REPLICAOF", "NO", "ONE")
	back("redis is writable again")
	redis.Kill()
	change("redis is gone")
	redis.Start()
	back("redis is back, empty")
}

// TestLinkCacheModel: three nodes, of which now and then one is replaced, read and write at random; messages get lost, Redis
// forgets some or all. No node ever reads less than what the feed had when it last followed it.
func TestLinkCacheModel(t *testing.T) {
	url := testengine.Address(t, testengine.Redis)
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			s, prefix, links := world(t, url, 4)
			nodes, known := make([]*node, 3), make([][]uint64, 3)
			versions := func() (v []uint64) {
				for i := range links {
					v = append(v, links[i].Version)
				}
				return v
			}
			for i := range nodes {
				nodes[i], known[i] = newNode(t, s, url, prefix), versions()
			}
			for step := range 400 {
				n, i := r.IntN(len(nodes)), r.IntN(len(links))
				switch r.IntN(12) {
				case 0, 1:
					s.update(t, &links[i], i)
				case 2:
					s.update(t, &links[i], i)
					nodes[n].tell(links[i].Number, links[i].Version)
					known[n][i] = links[i].Version
				case 3:
					nodes[n].follow()
					known[n] = versions()
				case 4:
					if r.IntN(4) == 0 {
						nodes[n].links.Close()
						nodes[n].cache.Stop()
						nodes[n], known[n] = newNode(t, s, url, prefix), versions()
					}
				case 5:
					key := nodes[n].links.state
					if r.IntN(2) == 0 {
						key = nodes[n].links.link + number(links[i].Number)
					}
					if c, err := nodes[n].links.connected(); err == nil {
						_ = c.Do(t.Context(), c.B().Del().Key(key).Build()) // as if it was evicted
					}
				default:
					read := nodes[n].destination
					if r.IntN(8) == 0 { // not before Redis has it, which takes nothing from a node that is behind
						nodes[n].follow()
						known[n], read = versions(), nodes[n].served
					}
					got := read(&links[i])
					var which, version uint64
					if _, err := fmt.Sscanf(got, "https://example.com/%d/%d", &which, &version); err != nil || which != uint64(i) {
						t.Fatalf("step %d: %q of link %d", step, got, i)
					}
					if version < known[n][i] {
						t.Fatalf("step %d: node %d has version %d of link %d, and knew of %d", step, n, version, i, known[n][i])
					}
				}
			}
		})
	}
}
