package cache

import "github.com/terselink/terse"

// Several nodes may write to one store. What they write is told by Invalidate as soon as it is heard of; the functions
// here are for news that names no code, or nothing at all.

// Forget drops the values of deleted links, whose codes the caller does not know; deleted has the last version of each. It
// looks at every entry once, whatever the number of links.
func (c *Cache[V]) Forget(deleted map[terse.LinkNumber]uint64) {
	if len(deleted) == 0 {
		return
	}
	c.repeatLoads()
	for key, e := range c.entries.All() {
		version, ok := deleted[e.number]
		if !ok || !e.live {
			continue
		}
		s := c.shard([]byte(key))
		s.mu.Lock()
		if cur, known := c.entries.GetEntryQuietly(key); known && cur.Value.live && cur.Value.number == e.number {
			c.entries.Set(key, &entry[V]{number: e.number, version: version, deleted: true})
		}
		s.mu.Unlock()
	}
}

// Doubt takes every value for one that may be out of date, as a preloaded one is: it is served only while loads fail as
// unavailable, and whatever a load finds replaces it. No code is known not to exist any more.
func (c *Cache[V]) Doubt() {
	c.epoch.Add(1)
	c.repeatLoads()
	for key, e := range c.entries.All() {
		if !e.live || e.stale {
			continue
		}
		s := c.shard([]byte(key))
		s.mu.Lock()
		if cur, known := c.entries.GetEntryQuietly(key); known && cur.Value == e { // else it was read meanwhile
			c.entries.Set(key, &entry[V]{value: e.value, live: true, stale: true, number: e.number, version: e.version, bytes: e.bytes, loadedAt: e.loadedAt})
		}
		s.mu.Unlock()
	}
}

// repeatLoads makes the loads under way read again, whatever they have found: after it, what lands was read later.
func (c *Cache[V]) repeatLoads() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for _, f := range s.flights {
			f.dirty++
		}
		s.mu.Unlock()
	}
}
