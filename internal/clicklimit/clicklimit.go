// Package clicklimit counts the clicks of links that allow only so many, exactly: never
// one more than allowed, whatever runs at once and whenever the process is killed.
//
// It works with claims. A click is served only from a claim that is durable in the store,
// so what is on disk is at least what was served. Close to the limit, and for small
// limits always, a claim is as many clicks as visitors wait for one: a synced write, shared
// by those who came together. Far from it a claim is a block, of which a kill -9 loses the
// rest: up to Block-1 clicks are then refused that would have been allowed (never the other way).
// Close gives the rests back.
//
// Several processes may share the store: a claim is a write on a condition, so each click of a link is in the claim of
// one of them. Who loses a race reads and claims again. Far from the limit each process holds a block of its own, so a
// link may be refused to the visitors of one while another has clicks left of a block: up to Block-1 for each
// process, until it uses or gives them back. Close to the limit there are no blocks. It is no rate limit.
package clicklimit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/terselink/terse"
)

const (
	// Block is the size of a claim far from the limit.
	Block = 100
	// Near is how many clicks before the limit claims become exact.
	Near = 1000

	shardCount = 64
	// maxEntries bounds the links that are remembered, at about 150 bytes each.
	maxEntries = 1 << 17
)

// Documents is what a Counter needs of a store.
type Documents interface {
	GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error)
	PutDocument(ctx context.Context, doc terse.Document) error
}

// Counter counts. Its methods may be called from many goroutines.
type Counter struct {
	store  Documents
	shards [shardCount]shard
}

type shard struct {
	mu      sync.Mutex
	entries map[terse.LinkNumber]*entry
}

// entry is one link. waiting is guarded by the shard, the rest by the entry.
type entry struct {
	waiting int // calls that hold or wait for mu

	mu      sync.Mutex
	loaded  bool
	used    uint64 // served
	claimed uint64 // durable: used <= claimed
	version uint64 // of the document; 0: none
}

// record is the document of a link.
type record struct {
	Used uint64 `json:"used"`
}

// New returns a Counter that keeps its claims in the store.
func New(store Documents) *Counter {
	c := &Counter{store: store}
	for i := range c.shards {
		c.shards[i].entries = map[terse.LinkNumber]*entry{}
	}
	return c
}

// Take uses up one of the clicks that the link allows, durable when it returns true. It
// returns false if none is left. An error means that nobody may be sent on: it is not known.
func (c *Counter) Take(ctx context.Context, n terse.LinkNumber, limit uint64) (bool, error) {
	e, done := c.enter(n)
	defer done()
	for try := 0; ; try++ {
		if err := c.load(ctx, n, e); err != nil {
			return false, err
		}
		if e.used >= limit {
			return false, nil
		}
		if e.used == e.claimed {
			err := c.claim(ctx, n, e, min(e.claimed+c.size(n, e, limit), limit))
			if overtaken(err) && try < maxRaces && ctx.Err() == nil {
				continue
			}
			if err != nil {
				return false, err
			}
		}
		e.used++
		return true, nil
	}
}

// maxRaces bounds how often a claim is repeated because another process was faster: each time one of them got on.
const maxRaces = 50

// overtaken reports whether a claim failed because another process has claimed meanwhile.
func overtaken(err error) bool {
	return errors.Is(err, terse.ErrVersion) || errors.Is(err, terse.ErrExists)
}

// Left reports whether the link has clicks left, and uses none.
func (c *Counter) Left(ctx context.Context, n terse.LinkNumber, limit uint64) (bool, error) {
	e, done := c.enter(n)
	defer done()
	if err := c.load(ctx, n, e); err != nil {
		return false, err
	}
	return e.used < limit, nil
}

// size is how much to claim.
func (c *Counter) size(n terse.LinkNumber, e *entry, limit uint64) uint64 {
	s := &c.shards[n%shardCount]
	s.mu.Lock()
	waiting := uint64(e.waiting)
	s.mu.Unlock()
	if left := limit - e.claimed; left > Near {
		return max(waiting, min(Block, left-Near))
	}
	return waiting
}

// enter returns the locked entry of a link, and what unlocks it.
func (c *Counter) enter(n terse.LinkNumber) (e *entry, done func()) {
	s := &c.shards[n%shardCount]
	s.mu.Lock()
	e = s.entries[n]
	if e == nil {
		if len(s.entries) >= maxEntries/shardCount {
			s.forget()
		}
		e = &entry{}
		s.entries[n] = e
	}
	e.waiting++
	s.mu.Unlock()
	e.mu.Lock()
	return e, func() {
		e.mu.Unlock()
		s.mu.Lock()
		e.waiting--
		s.mu.Unlock()
	}
}

// forget drops entries that are read again without a loss: nobody is in them and no claim
// is open. Under the lock of the shard; an entry nobody waits for is not locked.
func (s *shard) forget() {
	dropped := 0
	for n, e := range s.entries {
		if e.waiting == 0 && e.used == e.claimed {
			delete(s.entries, n)
			if dropped++; dropped == 64 {
				return
			}
		}
	}
}

func (c *Counter) load(ctx context.Context, n terse.LinkNumber, e *entry) error {
	if e.loaded {
		return nil
	}
	doc, err := c.store.GetDocument(ctx, 0, terse.KindClicks, n.String())
	if errors.Is(err, terse.ErrNotFound) {
		e.used, e.claimed, e.version, e.loaded = 0, 0, 0, true
		return nil
	}
	var r record
	if err == nil {
		err = json.Unmarshal(doc.Data, &r)
	}
	if err != nil {
		return fmt.Errorf("read the clicks of link %s: %w", n, err)
	}
	// What was claimed and perhaps not served counts as served.
	e.used, e.claimed, e.version, e.loaded = r.Used, r.Used, doc.Version, true
	return nil
}

// claim makes claimed durable. After an error the entry is read again: it is not known
// what the store has.
func (c *Counter) claim(ctx context.Context, n terse.LinkNumber, e *entry, claimed uint64) error {
	data, err := json.Marshal(record{claimed})
	if err != nil {
		return err
	}
	e.loaded = false
	err = c.store.PutDocument(ctx, terse.Document{Kind: terse.KindClicks, ID: n.String(), Version: e.version + 1, Data: data})
	if err != nil {
		// Nothing was open (used == claimed), so nothing is lost by reading again.
		return fmt.Errorf("claim clicks of link %s: %w", n, err)
	}
	e.claimed, e.version, e.loaded = claimed, e.version+1, true
	return nil
}

// giveBack returns the rest of a block. If another process has claimed since, it is taken off what that one wrote.
func (c *Counter) giveBack(ctx context.Context, n terse.LinkNumber, e *entry) error {
	rest := e.claimed - e.used
	err := c.claim(ctx, n, e, e.used)
	for try := 0; overtaken(err) && try < maxRaces && ctx.Err() == nil; try++ {
		if err := c.load(ctx, n, e); err != nil {
			return err
		}
		e.used -= min(rest, e.used)
		err = c.claim(ctx, n, e, e.used)
	}
	return err
}

// Close gives back what was claimed and not served. Call it when nobody calls the other
// methods any more. It tries all links and returns the first errors.
func (c *Counter) Close(ctx context.Context) error {
	var errs []error
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		entries := maps.Clone(s.entries)
		s.mu.Unlock()
		for n, e := range entries {
			e.mu.Lock()
			if e.loaded && e.used < e.claimed && len(errs) < 8 {
				if err := c.giveBack(ctx, n, e); err != nil {
					errs = append(errs, err)
				}
			}
			e.mu.Unlock()
		}
	}
	return errors.Join(errs...)
}
