package cache

import (
	"unsafe"

	"github.com/terselink/terse"
)

// probePause is how long an outage lasts at least before a stale value is asked for again, in
// milliseconds: one load a second, whatever the number of visits.
const probePause = 1000

// Preload puts a value that may be out of date under a key that has none. It is served only
// while loads fail as unavailable, and whatever a load finds replaces it.
func (c *Cache[V]) Preload(key []byte, l Loaded[V]) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := c.entries.GetEntryQuietly(unsafeString(key)); known || s.flights[unsafeString(key)] != nil {
		return // what is here, or on its way, is newer: a mark of an invalidation, too
	}
	c.entries.Set(string(key), &entry[V]{value: l.Value, live: true, stale: true, number: l.Number, version: l.Version, bytes: l.Bytes, loadedAt: c.o.Clock()})
}

// outage reports whether loads are known to fail, so that a stale value is served without one. Once in
// probePause a load is tried beside that, by nobody who waits.
func (c *Cache[V]) outage(key []byte, now terse.Millis) bool {
	at := c.probeAt.Load()
	if at == 0 {
		return false
	}
	if int64(now) >= at && c.probeAt.CompareAndSwap(at, int64(now)+probePause) {
		if f, lead := c.join(key); lead {
			go c.fly(f)
		}
	}
	c.stats.staleServed.Add(1)
	return true
}

// Settle says what the store has under a key of a stale value now: of the same number and version the value is
// stale no more, else it is dropped. number 0: there is no such link any more.
func (c *Cache[V]) Settle(key string, number terse.LinkNumber, version uint64) {
	s := c.shard([]byte(key))
	s.mu.Lock()
	defer s.mu.Unlock()
	cur, known := c.entries.GetEntryQuietly(key)
	if !known || !cur.Value.stale {
		return // read meanwhile
	}
	if number == 0 || cur.Value.number != number || cur.Value.version != version {
		c.entries.Invalidate(key)
		return
	}
	e := cur.Value // readers hold it: it is replaced, not changed
	c.entries.Set(key, &entry[V]{value: e.value, live: true, number: e.number, version: e.version, bytes: e.bytes, loadedAt: c.o.Clock()})
}

// answered notes whether a load got an answer, be it that there is nothing.
func (c *Cache[V]) answered(ok bool) {
	switch {
	case !ok:
		c.probeAt.Store(int64(c.o.Clock()) + probePause)
	case c.probeAt.Load() != 0:
		c.probeAt.Store(0)
	}
}

// Hot is a key of a value that is likely to be needed again.
type Hot struct {
	Key     string
	Number  terse.LinkNumber
	Version uint64
	Stale   bool // it was not read since Preload
}

// Hottest returns the keys of values, those first that are likely to be needed again, until they take
// about limit bytes together by what estimate says of a value.
func (c *Cache[V]) Hottest(limit int, estimate func(*V) int) (keys []Hot) {
	for e := range c.entries.Hottest() {
		if !e.Value.live || len(e.Key) < keyPrefix {
			continue
		}
		if limit -= len(e.Key) + estimate(&e.Value.value); limit < 0 {
			break
		}
		keys = append(keys, Hot{e.Key, e.Value.number, e.Value.version, e.Value.stale})
	}
	return keys
}

// Stale returns how many stale values there are. It looks at every entry.
func (c *Cache[V]) Stale() (n int) {
	for _, e := range c.entries.All() {
		if e.stale {
			n++
		}
	}
	return n
}

// Domain returns the domain in a key.
func Domain(key string) terse.DomainID {
	b := unsafe.Slice(unsafe.StringData(key), keyPrefix)
	return terse.DomainID(uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]))
}
