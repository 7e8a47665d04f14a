// Package cache keeps compiled links in memory by domain and code: bounded in
// bytes, with one load per key however many ask, a separate small memory for codes
// that do not exist, and invalidation that no race can undo.
//
// It is not a store and knows no link rules: what a value is and how it is loaded
// is the caller's. It is generic for that reason alone; the redirect plane is its
// only user.
//
// Invariants:
//
//   - After Invalidate returns, no Get or Fetch that starts later returns what was
//     read before it: a load under way is repeated, and a value of an older version
//     of the same link is refused for as long as the mark of the invalidation lives.
//   - A value is never replaced by an older version of the same link.
//   - ErrNotFound is returned only if a load said so no longer than NegativeTTL ago
//     and nothing was created under that key since.
//   - A failing loader never removes a value: what is cached keeps being served.
//   - A stale value (Preload) is served only while loads fail as unavailable, and whatever a load
//     finds replaces it.
//   - Every write for a key (install, invalidate, forget) happens under the mutex of
//     the key's shard. Lock order: shard.mu, then the locks inside otter.
//
// The design is DESIGN.md section 6 ("Changes") and docs/redirect.md.
package cache

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/maypok86/otter/v2"

	"github.com/terselink/terse"
)

// Loaded is what a load found.
type Loaded[V any] struct {
	Value   V
	Number  terse.LinkNumber // which link it is: versions compare only within one
	Version uint64
	Bytes   int // memory that Value refers to beside its own size
	// Stale says that Value may be out of date, because a part of it could not be read: it is
	// kept as a preloaded one is.
	Stale bool
}

// Options configure a Cache. Zero values mean the defaults named.
type Options[V any] struct {
	// Load reads a value. It returns an error that matches terse.ErrNotFound if the
	// code is known not to exist; every other error means that nothing is known.
	// code is borrowed. Load must honour ctx. Required.
	Load func(ctx context.Context, d terse.DomainID, code []byte) (Loaded[V], error)
	// Clock tells the time for NegativeTTL and MaxAge. Required.
	Clock func() terse.Millis

	MaxBytes      int64         // memory for values; default 256 MiB
	NegativeBytes int64         // memory for codes known not to exist; default 8 MiB
	NegativeTTL   time.Duration // how long a code stays known not to exist; default and at most 5 s
	MaxAge        time.Duration // older values are served once more while they are read again; default 0: never, invalidation is enough
	LoadTimeout   time.Duration // how long a Fetch waits, and a load may take; default 250 ms
	MaxLoads      int           // loads at once; more wait within LoadTimeout; default 1024
}

// Cache holds values of type V. Use New.
type Cache[V any] struct {
	o         Options[V]
	entries   *otter.Cache[string, *entry[V]]
	negatives *otter.Cache[string, negative]
	epoch     atomic.Uint64 // grows when links are created whose codes are not named
	probeAt   atomic.Int64  // 0: loads work; else one has failed as unavailable, and the next may try at this time
	shards    [shardCount]shard[V]
	seed      maphash.Seed
	slots     chan struct{} // MaxLoads
	ctx       context.Context
	cancel    context.CancelFunc
	closed    atomic.Bool
	loads     sync.WaitGroup
	stats     counters
}

const shardCount = 64 // only misses and writes take a shard's mutex

type shard[V any] struct {
	mu      sync.Mutex
	flights map[string]*flight[V]
	_       [48]byte // one cache line each
}

// entry is a value, or the mark that an invalidation left: what is older than
// version of link number must not come back.
type entry[V any] struct {
	value    V
	live     bool // false: a mark
	deleted  bool // mark only: no version of the link may come back
	stale    bool // served only while loads fail
	number   terse.LinkNumber
	version  uint64
	bytes    int
	loadedAt terse.Millis
	retryAt  atomic.Int64 // no refresh before this time
}

type negative struct {
	until terse.Millis
	epoch uint64
}

// flight is one load that any number of callers wait for.
type flight[V any] struct {
	key   string
	shard *shard[V]
	done  chan struct{}
	value *V
	err   error
	dirty uint64 // invalidations since it began; under the shard's mutex
}

// Key layout: the number of the domain, then the canonical code.
const keyPrefix = 4

// AppendPrefix appends the part of a key that comes before the code.
func AppendPrefix(dst []byte, d terse.DomainID) []byte {
	return binary.BigEndian.AppendUint32(dst, uint32(d))
}

// AppendKey appends the key of a code of a domain.
func AppendKey(dst []byte, d terse.DomainID, code string) []byte {
	return append(AppendPrefix(dst, d), code...)
}

// Code returns the code in a key.
func Code(key []byte) []byte { return key[keyPrefix:] }

// New returns an empty cache. Returns an error of code invalid if an option is out of range.
func New[V any](o Options[V]) (*Cache[V], error) {
	if o.Load == nil || o.Clock == nil {
		return nil, terse.Invalid("cache", "Load and Clock are required")
	}
	setDefault(&o.MaxBytes, 256<<20)
	setDefault(&o.NegativeBytes, 8<<20)
	setDefault(&o.NegativeTTL, 5*time.Second)
	setDefault(&o.LoadTimeout, 250*time.Millisecond)
	setDefault(&o.MaxLoads, 1024)
	if o.MaxBytes < 0 || o.NegativeBytes < 0 || o.MaxAge < 0 || o.LoadTimeout < 0 || o.MaxLoads < 0 ||
		o.NegativeTTL < 0 || o.NegativeTTL > 5*time.Second {
		return nil, terse.Invalid("cache", "a limit is out of range")
	}
	c := &Cache[V]{o: o, seed: maphash.MakeSeed(), slots: make(chan struct{}, o.MaxLoads)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	for i := range c.shards {
		c.shards[i].flights = make(map[string]*flight[V])
	}
	var err error
	c.entries, err = otter.New(&otter.Options[string, *entry[V]]{
		MaximumWeight: uint64(o.MaxBytes),
		// A full table is copied while writers wait: 160 ms for a million entries on
		// two cores, which is a miss that nobody should have to wait for.
		InitialCapacity: int(o.MaxBytes / typicalEntry),
		Executor:        inline,
		Weigher: func(k string, e *entry[V]) uint32 {
			return uint32(min(len(k)+e.bytes+int(unsafe.Sizeof(*e))+entryOverhead, 1<<31))
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make cache: %w", err)
	}
	c.negatives, err = otter.New(&otter.Options[string, negative]{
		MaximumWeight: uint64(o.NegativeBytes),
		Executor:      inline,
		Weigher:       func(k string, _ negative) uint32 { return uint32(len(k) + entryOverhead) },
	})
	if err != nil {
		return nil, fmt.Errorf("make negative cache: %w", err)
	}
	return c, nil
}

// inline runs what otter would start a goroutine for: once in sixteen reads it tells the eviction policy of them. That
// takes two microseconds; to wake another thread for it took a tenth of the processor time of a loaded server.
func inline(f func()) { f() }

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// entryOverhead is what otter and the allocator need for an entry beside key and
// value, in bytes; TestBoundedInBytes measures it.
const entryOverhead = 112

// typicalEntry is the estimated memory of an entry with a destination of 80 bytes.
const typicalEntry = 400

// Get returns the cached value of a key, nil if there is none. The value is
// shared and must not be modified. A value that has reached MaxAge is returned
// while one load reads it again.
//
// Hot path: 0 allocs/op, see TestGetAllocs.
func (c *Cache[V]) Get(key []byte, now terse.Millis) *V {
	e, ok := c.entries.GetIfPresent(unsafeString(key))
	if !ok || !e.live || e.stale && !c.outage(key, now) {
		return nil
	}
	if c.o.MaxAge != 0 && now-e.loadedAt >= terse.Millis(c.o.MaxAge.Milliseconds()) {
		c.refresh(key, e, now)
	}
	return &e.value
}

// Absent reports whether the code of a key is remembered not to exist. It never waits.
//
// Hot path: 0 allocs/op, see TestGetAllocs.
func (c *Cache[V]) Absent(key []byte) bool {
	n, ok := c.negatives.GetIfPresent(unsafeString(key))
	if !ok || n.epoch != c.epoch.Load() || c.o.Clock() >= n.until {
		return false
	}
	c.stats.negativeHits.Add(1)
	return true
}

// Fetch returns the value of a key that Get did not have. It joins or starts the
// one load of the key and waits at most LoadTimeout. Returns terse.ErrNotFound if
// the code is known not to exist, an error of code unavailable if that could not
// be found out in time, or the error of the load.
func (c *Cache[V]) Fetch(key []byte) (*V, error) {
	if c.Absent(key) {
		return nil, terse.ErrNotFound
	}
	f, lead := c.join(key)
	switch {
	case f == nil:
		return nil, terse.ErrUnavailable
	case lead:
		c.fly(f)
		return f.value, f.err
	}
	t := time.NewTimer(c.o.LoadTimeout)
	defer t.Stop()
	select {
	case <-f.done:
		return f.value, f.err
	case <-t.C:
		c.stats.timeouts.Add(1)
		if e, ok := c.entries.GetIfPresent(unsafeString(key)); ok && e.live && e.stale {
			c.stats.staleServed.Add(1)
			return &e.value, nil
		}
		return nil, errTimeout
	}
}

var errTimeout = &terse.Error{Code: terse.CodeUnavailable, Message: "the link could not be read in time"}

// Renew has the value of a key read again, if there is one, at most once a second. It does not wait; meanwhile the
// value is served as it is.
func (c *Cache[V]) Renew(key []byte, now terse.Millis) {
	if cur, ok := c.entries.GetEntryQuietly(unsafeString(key)); ok && cur.Value.live && !cur.Value.stale {
		c.refresh(key, cur.Value, now)
	}
}

// refresh starts a load of a value that is old, at most once a second.
func (c *Cache[V]) refresh(key []byte, e *entry[V], now terse.Millis) {
	at := e.retryAt.Load()
	if int64(now) < at || !e.retryAt.CompareAndSwap(at, int64(now)+1000) {
		return
	}
	c.stats.refreshes.Add(1)
	if f, lead := c.join(key); lead {
		go c.fly(f)
	}
}

// join returns the flight of a key; lead says that it is new and that the caller
// must fly it. nil after Close.
func (c *Cache[V]) join(key []byte) (f *flight[V], lead bool) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.flights[unsafeString(key)]; f != nil {
		return f, false
	}
	if c.closed.Load() {
		return nil, false
	}
	f = &flight[V]{key: string(key), shard: s, done: make(chan struct{})}
	s.flights[f.key] = f
	c.loads.Add(1)
	return f, true
}

// fly loads the key of a flight until it has a result that no invalidation has
// overtaken. The caller of the first Fetch does it itself: a hand-over to another
// goroutine would cost more than most loads.
func (c *Cache[V]) fly(f *flight[V]) {
	defer c.loads.Done()
	ctx, cancel := context.WithTimeout(c.ctx, c.o.LoadTimeout)
	defer cancel()
	var loaded Loaded[V]
	var err error
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		err = errTimeout
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		f.shard.mu.Lock()
		dirty := f.dirty
		f.shard.mu.Unlock()
		epoch := c.epoch.Load()
		if err == nil {
			c.stats.loads.Add(1)
			loaded, err = c.load(ctx, f.key)
		}
		switch c.land(ctx, f, dirty, epoch, &loaded, err) {
		case landed:
			return
		case lagging: // a replica that has not seen the write yet
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
		err = nil
	}
}

// load calls the loader and turns a panic into an error: the goroutine of a
// flight has nobody above it who could.
func (c *Cache[V]) load(ctx context.Context, key string) (l Loaded[V], err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &terse.Error{Code: terse.CodeInternal, Message: "internal error", Err: fmt.Errorf("panic in load: %v", p)}
		}
	}()
	return c.o.Load(ctx, terse.DomainID(binary.BigEndian.Uint32([]byte(key[:keyPrefix]))), []byte(key[keyPrefix:]))
}

// landing says what becomes of the result of a load.
type landing uint8

const (
	landed  landing = iota // the flight is over
	stale                  // overtaken by an invalidation: read again now
	lagging                // the store does not know a write yet that we know of: read again soon
)

// land ends the flight with a result, unless the result may be older than a write
// that had been reported by now.
func (c *Cache[V]) land(ctx context.Context, f *flight[V], dirty, epoch uint64, l *Loaded[V], err error) landing {
	s, key := f.shard, f.key
	s.mu.Lock()
	defer s.mu.Unlock()
	notFound := err != nil && terse.ErrorCode(err) == terse.CodeNotFound
	outage := err != nil && !notFound && (ctx.Err() != nil || terse.ErrorCode(err) == terse.CodeUnavailable)
	c.answered(!outage)
	overtaken := f.dirty != dirty || notFound && c.epoch.Load() != epoch
	cur, known := c.entries.GetEntryQuietly(key)
	var e *entry[V]
	if known {
		e = cur.Value
	}
	switch {
	case err != nil && !notFound:
		c.stats.loadErrors.Add(1)
		if ctx.Err() != nil {
			err = errTimeout // whatever the store made of it
		}
		if outage && known && e.live && e.stale {
			c.stats.staleServed.Add(1)
			f.value, err = &e.value, nil
		}
	case overtaken && ctx.Err() == nil:
		return stale
	case overtaken:
		err = errTimeout
	case notFound:
		err = terse.ErrNotFound
		if known && e.live {
			c.entries.Invalidate(key)
		}
		c.negatives.Set(key, negative{until: c.o.Clock() + terse.Millis(c.o.NegativeTTL.Milliseconds()), epoch: epoch})
	case known && !e.stale && e.number == l.Number && (e.deleted || e.version > l.Version):
		if e.live { // a newer version is here already
			f.value = &e.value
			break
		}
		if ctx.Err() == nil {
			return lagging
		}
		err = errTimeout
	default:
		e = &entry[V]{value: l.Value, live: true, stale: l.Stale, number: l.Number, version: l.Version, bytes: l.Bytes, loadedAt: c.o.Clock()}
		c.entries.Set(key, e)
		f.value = &e.value
	}
	f.err = err
	delete(s.flights, key)
	close(f.done)
	return landed
}

// Invalidation tells of a write to a link.
type Invalidation struct {
	Domain  terse.DomainID
	Code    string // canonical; "": many links were created at once, and nothing else happened
	Number  terse.LinkNumber
	Version uint64 // of the link after the write; of a deletion the last one it had
	Created bool
	Deleted bool
}

// Invalidate forgets what a write has made wrong. Call it when the write is
// durable and before it is acknowledged. It takes well under a microsecond.
func (c *Cache[V]) Invalidate(i Invalidation) {
	if i.Code == "" {
		c.epoch.Add(1)
		return
	}
	var buf [64]byte
	key := AppendKey(buf[:0], i.Domain, i.Code)
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.flights[unsafeString(key)]; f != nil {
		f.dirty++
	}
	c.negatives.Invalidate(unsafeString(key))
	var e *entry[V]
	if cur, ok := c.entries.GetEntryQuietly(unsafeString(key)); ok {
		e = cur.Value
	}
	if e != nil && !e.stale && e.number == i.Number && (e.deleted || !i.Deleted && e.version >= i.Version) {
		return // repeated or late news: what is here is as new, or its deletion is known
	}
	if i.Created && (e == nil || !e.live) {
		return // nothing older of this link can exist anywhere
	}
	c.entries.Set(string(key), &entry[V]{number: i.Number, version: i.Version, deleted: i.Deleted})
}

// Stats are counts since New and sizes now.
type Stats struct {
	Loads        uint64 // calls of the loader
	LoadErrors   uint64 // loads that found nothing out
	Timeouts     uint64 // callers that gave up waiting
	NegativeHits uint64 // answers from the memory of codes that do not exist
	Refreshes    uint64 // loads of values that had reached MaxAge, and of Renew
	StaleServed  uint64 // answers with stale values
	Entries      int    // values and marks
	Bytes        uint64 // estimated memory of entries
	Negatives    int
}

type counters struct {
	loads, loadErrors, timeouts, negativeHits, refreshes, staleServed atomic.Uint64
}

// Stats returns the counters.
func (c *Cache[V]) Stats() Stats {
	return Stats{
		Loads: c.stats.loads.Load(), LoadErrors: c.stats.loadErrors.Load(), Timeouts: c.stats.timeouts.Load(),
		NegativeHits: c.stats.negativeHits.Load(), Refreshes: c.stats.refreshes.Load(), StaleServed: c.stats.staleServed.Load(),
		Entries: c.entries.EstimatedSize(), Bytes: c.entries.WeightedSize(), Negatives: c.negatives.EstimatedSize(),
	}
}

// Close cancels the loads under way and waits for them. Later fetches fail as
// unavailable; Get goes on answering. A second Close is nothing.
func (c *Cache[V]) Close() {
	c.closed.Store(true)
	for i := range c.shards { // nobody is between the check of closed and loads.Add now
		c.shards[i].mu.Lock()
		c.shards[i].mu.Unlock() //nolint:staticcheck // a barrier
	}
	c.cancel()
	c.loads.Wait()
	c.entries.StopAllGoroutines()
	c.negatives.StopAllGoroutines()
}

func (c *Cache[V]) shard(key []byte) *shard[V] {
	return &c.shards[maphash.Bytes(c.seed, key)%shardCount]
}

// unsafeString returns the bytes as a string for a look-up that keeps nothing.
func unsafeString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
