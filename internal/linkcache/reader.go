package linkcache

import (
	"context"
	"fmt"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/linkjson"
)

// Above returns a store whose links are looked up in the cache first.
func (c *Cache) Above(store terse.Store) terse.Store { return reader{store, c} }

// reader is a store below a Cache.
type reader struct {
	terse.Store
	c *Cache
}

// GetLinks implements terse.Store. Whoever asks for several links at once does so in the background, and asks the store.
func (r reader) GetLinks(ctx context.Context, keys []terse.LinkKey, dst []terse.Link) error {
	if len(keys) != 1 || keys[0].Number == 0 {
		return r.Store.GetLinks(ctx, keys, dst)
	}
	n := keys[0].Number
	l := r.c.lookup(func(ctx context.Context) (State, []byte, bool, error) { return r.c.o.Remote.Get(ctx, n) })
	if l != nil && l.Number == n && (keys[0].Code == "" || keys[0].Code == l.Code) {
		r.c.stats.hits.Add(1)
		dst[0] = *l
		return nil
	}
	at, _ := r.c.o.Position()
	if err := r.Store.GetLinks(ctx, keys, dst); err != nil {
		return err
	}
	if dst[0].Number == n {
		kept := dst[0]
		if kept.Code == "" {
			kept.Code = keys[0].Code // which the number says
		}
		r.c.keep(&kept, nil, at)
	}
	return nil
}

// GetAlias implements terse.Store.
func (r reader) GetAlias(ctx context.Context, d terse.DomainID, alias string) (terse.Link, error) {
	named := fmt.Appendf(nil, "%x:%s", uint32(d), alias)
	l := r.c.lookup(func(ctx context.Context) (State, []byte, bool, error) { return r.c.o.Remote.GetNamed(ctx, named) })
	if l != nil && l.Number.Domain() == d && l.Code == alias {
		r.c.stats.hits.Add(1)
		return *l, nil
	}
	at, _ := r.c.o.Position()
	found, err := r.Store.GetAlias(ctx, d, alias)
	if err != nil {
		return found, err
	}
	r.c.keep(&found, named, at)
	return found, nil
}

// lookup asks the server, for as long as a look-up may wait. nil: ask the store.
func (c *Cache) lookup(get func(context.Context) (State, []byte, bool, error)) *terse.Link {
	if c.epoch.Load() == nil || time.Now().UnixMilli() < c.offTill.Load() {
		c.stats.skipped.Add(1)
		return nil
	}
	select {
	case c.slots <- struct{}{}:
	default:
		c.stats.skipped.Add(1)
		return nil
	}
	at, _ := c.o.Position() // before the server is asked: what it says must be at least as new
	type answer struct {
		st   State
		link []byte
		ok   bool
		err  error
	}
	// In a goroutine of its own, so that nothing the client library does makes a visitor wait for longer.
	got := make(chan answer, 1)
	ctx, cancel := context.WithTimeout(c.ctx, c.o.Within)
	go func() {
		defer func() { <-c.slots }()
		var a answer
		a.st, a.link, a.ok, a.err = get(ctx)
		got <- a
	}()
	defer cancel()
	var a answer
	select {
	case a = <-got:
	case <-ctx.Done():
		a.err = ctx.Err()
	}
	switch {
	case a.err != nil:
		c.fail()
		return nil
	case !a.ok || a.st.Position < at:
		c.stats.behind.Add(1)
		return nil
	case a.link == nil:
		c.stats.misses.Add(1)
		return nil
	}
	l, err := linkjson.Unmarshal(a.link)
	if err != nil || l.Number == 0 || l.Code == "" {
		c.stats.misses.Add(1)
		return nil
	}
	if told, ok := c.o.Told(l.Number); ok && told > l.Version {
		c.stats.old.Add(1)
		return nil
	}
	return &l
}
