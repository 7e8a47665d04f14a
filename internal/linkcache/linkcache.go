package linkcache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/linkjson"
)

// State is what the server says of its entries.
type State struct {
	Epoch    string // of 16 characters; another one after everything was lost
	Position uint64 // in the feed: every change up to it has been applied
}

// Entry is a link to be kept.
type Entry struct {
	Number  terse.LinkNumber
	Version uint64
	Named   []byte        // the key of a name that leads to Number; nil: none
	Link    []byte        // encoded
	For     time.Duration // how long it may be kept
	// Read is the position in the feed before the link was read.
	Read uint64
}

// Changed is a link that is not what it was.
type Changed struct {
	Number  terse.LinkNumber
	Version uint64 // entries of an older one are dropped; Deleted for all
}

// Deleted is the version of a link that is gone.
const Deleted = 1<<64 - 1

// Remote is the server. All methods return an error at once when they know that it cannot be reached. ok is false if it holds
// no state: it is new, was emptied, or has evicted it.
type Remote interface {
	// Get returns the state and, read after it, the entry of a link; nil: there is none, or one of another epoch.
	Get(ctx context.Context, n terse.LinkNumber) (st State, link []byte, ok bool, err error)
	// GetNamed is Get of the link that a name leads to.
	GetNamed(ctx context.Context, named []byte) (st State, link []byte, ok bool, err error)
	// State returns the state. It may connect.
	State(ctx context.Context) (st State, ok bool, err error)
	// Begin makes a state without entries in place of the epoch old, "" if there is none. Nothing happens if there is
	// another one by now.
	Begin(ctx context.Context, old string, st State) error
	// Put keeps entries in the epoch, those that must not be apart. It returns how many it took.
	Put(ctx context.Context, epoch string, entries []Entry) (took int, err error)
	// Apply drops what the changes have made old, and notes them. Then, if the position is at least from, it becomes to if that is larger.
	Apply(ctx context.Context, epoch string, changed []Changed, from, to uint64) error
}

// Feed is what is read of the store's changes, see changes.Feed.
type Feed interface {
	Changes(ctx context.Context, after uint64, limit int) ([]terse.Change, error)
	FeedHead(ctx context.Context) (uint64, error)
}

// Options configure a Cache. Zero values mean the defaults named.
type Options struct {
	Remote Remote // required
	Feed   Feed   // required
	// Position is how far this node has followed the feed; fresh is false if it could not lately. Required.
	Position func() (at uint64, fresh bool)
	// Told returns the newest version of a link that this node was told of. Required.
	Told  func(n terse.LinkNumber) (version uint64, ok bool)
	Clock func() terse.Millis // required
	Log   *slog.Logger        // default: discarded

	MaxAge time.Duration // of an entry; default one hour
	Within time.Duration // how long a look-up waits for the server; default 5 ms
}

const (
	// pause is how long nobody asks a server that has failed or not answered in time.
	pause = 250 * time.Millisecond
	// maxLookups is how many look-ups may wait for the server; further ones ask the store.
	maxLookups = 64
	// maxPuts, maxPutBytes and maxChanged bound what waits to be written; more is dropped: of entries that costs a read of the store,
	// and changes are in the feed. A link may be tens of kilobytes.
	maxPuts, maxPutBytes, maxChanged = 1 << 14, 16 << 20, 1 << 16
	putBatch                         = 128
	feedPage                         = 1000
	// maxPages is how many pages of the feed are applied before it is cheaper to begin anew.
	maxPages = 50
	// writeWithin bounds a write, and a read of the feed.
	writeWithin = 5 * time.Second
	// touchEvery keeps the state from expiring while nothing changes.
	touchEvery = time.Minute
)

// Cache is a Reader above a store that asks the server first. Use New, then Start and Stop. It is a prometheus.Collector.
type Cache struct {
	o     Options
	stats counters

	slots   chan struct{}
	offTill atomic.Int64           // Unix milliseconds
	epoch   atomic.Pointer[string] // of the state as it was last seen; nil: there is none, or nobody knows
	puts    chan Entry
	waiting atomic.Int64 // bytes of entries that are to be written, or just are
	wake    chan struct{}

	mu      sync.Mutex // guards changed
	changed []Changed

	touched  time.Time // of follow alone, as is verified
	verified string    // the epoch whose position is one of this feed

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// New returns a cache that does nothing yet.
func New(o Options) (*Cache, error) {
	if o.Remote == nil || o.Feed == nil || o.Position == nil || o.Told == nil || o.Clock == nil {
		return nil, terse.Invalid("linkcache", "Remote, Feed, Position, Told and Clock are required")
	}
	if o.MaxAge == 0 {
		o.MaxAge = time.Hour
	}
	if o.Within == 0 {
		o.Within = 5 * time.Millisecond
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Cache{o: o, slots: make(chan struct{}, maxLookups), puts: make(chan Entry, maxPuts), wake: make(chan struct{}, 1)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// Start connects, and keeps the entries up to date until Stop.
func (c *Cache) Start() {
	c.running.Go(c.follow)
	c.running.Go(c.putAll)
}

// Stop ends everything; what waits to be written is dropped. A second Stop is nothing.
func (c *Cache) Stop() {
	c.cancel()
	c.running.Wait()
}

// Wake has the entries follow the feed now: this node has just followed it.
func (c *Cache) Wake() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Changed tells of a write to a link, of this node or of another. It never waits.
func (c *Cache) Changed(n terse.LinkNumber, version uint64, deleted bool) {
	if deleted {
		version = Deleted
	}
	c.mu.Lock()
	if len(c.changed) < maxChanged {
		c.changed = append(c.changed, Changed{n, version})
	}
	c.mu.Unlock()
	c.Wake()
}

func (c *Cache) fail() {
	c.stats.errors.Add(1)
	c.offTill.Store(time.Now().Add(pause).UnixMilli())
}

// keep has a link that was read from the store written, some time soon.
func (c *Cache) keep(l *terse.Link, named []byte, read uint64) {
	if c.epoch.Load() == nil || !keeps(l) {
		return
	}
	e := Entry{Number: l.Number, Version: l.Version, Named: named, For: c.o.MaxAge, Read: read}
	if l.ExpiresAt != 0 {
		e.For = min(e.For, time.Duration(l.ExpiresAt-c.o.Clock())*time.Millisecond)
	}
	if e.For < time.Second {
		return
	}
	var err error
	if e.Link, err = linkjson.Marshal(l); err != nil {
		return
	}
	size := e.size()
	if c.waiting.Add(size) <= maxPutBytes {
		select {
		case c.puts <- e:
			return
		default:
		}
	}
	c.waiting.Add(-size)
	c.stats.dropped.Add(1)
}

// entryBytes is about what an entry takes beside its texts.
const entryBytes = 128

func (e *Entry) size() int64 { return int64(entryBytes + len(e.Link) + len(e.Named)) }

// wrote gives back what entries took of maxPutBytes.
func (c *Cache) wrote(batch []Entry) {
	for i := range batch {
		c.waiting.Add(-batch[i].size())
	}
	clear(batch)
}

// keeps reports whether a link may be kept. A name of a campaign's link becomes free without a word in the feed when the links of a
// deleted campaign are removed.
func keeps(l *terse.Link) bool {
	s := l.Settings
	return (s == nil || s.PasswordHash == "" && s.MaxClicks == 0) && (l.Campaign == 0 || !l.Named())
}

// putAll writes entries until the cache stops.
func (c *Cache) putAll() {
	batch := make([]Entry, 0, putBatch)
	for {
		select {
		case <-c.ctx.Done():
			return
		case e := <-c.puts:
			batch = append(batch[:0], e)
		}
		for more := true; more && len(batch) < putBatch; {
			select {
			case e := <-c.puts:
				batch = append(batch, e)
			default:
				more = false
			}
		}
		if !c.rest(time.Until(time.UnixMilli(c.offTill.Load()))) {
			return
		}
		epoch := c.epoch.Load()
		n := len(batch)
		if epoch == nil {
			c.wrote(batch)
			c.stats.dropped.Add(uint64(n))
			continue
		}
		ctx, cancel := context.WithTimeout(c.ctx, writeWithin)
		took, err := c.o.Remote.Put(ctx, *epoch, batch)
		cancel()
		c.wrote(batch)
		if err != nil {
			c.fail()
			c.stats.dropped.Add(uint64(n))
			continue
		}
		c.stats.kept.Add(uint64(took))
		c.stats.refused.Add(uint64(n - took))
	}
}

// rest waits; false: the cache has stopped.
func (c *Cache) rest(d time.Duration) bool {
	if d <= 0 {
		return c.ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// follow keeps the server's position up with the feed.
func (c *Cache) follow() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	last := ""
	for {
		err := c.step()
		switch {
		case c.ctx.Err() != nil:
			return
		case err == nil && last != "":
			c.o.Log.Info("link cache: the server is used again")
			last = ""
		case err != nil:
			c.epoch.Store(nil)
			c.stats.stepErrors.Add(1)
			if last != err.Error() {
				last = err.Error()
				c.o.Log.Warn("link cache: it is not used: links are read from the database", "error", err)
			}
		}
		select {
		case <-c.ctx.Done():
			return
		case <-c.wake:
		case <-t.C:
		}
	}
}

// step applies what this node was told of, and what the feed has that was not applied yet.
func (c *Cache) step() error {
	ctx, cancel := context.WithTimeout(c.ctx, writeWithin)
	defer cancel()
	c.mu.Lock()
	changed := c.changed
	c.changed = nil // if it fails: the feed has them
	c.mu.Unlock()
	at, fresh := c.o.Position()
	st, ok, err := c.o.Remote.State(ctx)
	if err != nil {
		return fmt.Errorf("read the state: %w", err)
	}
	if ok && st.Epoch != c.verified && st.Position > at {
		// Another node is ahead, or the database was put back to what it was: then positions mean something else.
		head, err := c.o.Feed.FeedHead(ctx)
		if err != nil {
			return fmt.Errorf("read the feed: %w", err)
		}
		if st.Position > head {
			c.o.Log.Warn("link cache: it knows changes that the database does not have: it begins anew")
			return c.begin(ctx, st.Epoch, at)
		}
	}
	if !ok {
		return c.begin(ctx, "", at)
	}
	c.verified = st.Epoch
	for ; len(changed) > 0; changed = changed[min(len(changed), feedPage):] {
		if err := c.o.Remote.Apply(ctx, st.Epoch, changed[:min(len(changed), feedPage)], st.Position, st.Position); err != nil {
			return fmt.Errorf("drop links: %w", err)
		}
	}
	if st.Position < at {
		if err := c.catchUp(ctx, st, at); err != nil {
			return err
		}
	} else if fresh && time.Since(c.touched) > touchEvery {
		if err := c.o.Remote.Apply(ctx, st.Epoch, nil, st.Position, st.Position); err != nil {
			return fmt.Errorf("keep the state: %w", err)
		}
		c.touched = time.Now()
	}
	if e := c.epoch.Load(); e == nil || *e != st.Epoch {
		c.epoch.Store(&st.Epoch)
	}
	return nil
}

// begin makes a state without entries; the next step finds it, or that of a node which was faster.
func (c *Cache) begin(ctx context.Context, old string, at uint64) error {
	c.epoch.Store(nil)
	c.stats.begun.Add(1)
	if err := c.o.Remote.Begin(ctx, old, State{Epoch: fmt.Sprintf("%016x", rand.Uint64()), Position: at}); err != nil {
		return fmt.Errorf("begin anew: %w", err)
	}
	c.Wake()
	return nil
}

// catchUp applies the changes from the server's position on, at least to at.
func (c *Cache) catchUp(ctx context.Context, st State, at uint64) error {
	for range maxPages {
		list, err := c.o.Feed.Changes(ctx, st.Position, feedPage)
		if _, forgotten := errors.AsType[*terse.ForgottenError](err); forgotten {
			return c.begin(ctx, st.Epoch, at)
		}
		if err != nil {
			return fmt.Errorf("read the feed: %w", err)
		}
		to := at // every change up to it is in the list, or was before
		if len(list) > 0 {
			to = list[len(list)-1].Seq
		}
		if len(list) < feedPage {
			to = max(to, at)
		}
		if err := c.o.Remote.Apply(ctx, st.Epoch, changedIn(list), st.Position, to); err != nil {
			return fmt.Errorf("apply the feed: %w", err)
		}
		c.touched = time.Now()
		if st.Position = to; to >= at {
			return nil
		}
	}
	return c.begin(ctx, st.Epoch, at)
}

// changedIn returns the links that are changed or deleted in a page of the feed. Nobody can have kept one that was inserted.
func changedIn(list []terse.Change) (changed []Changed) {
	for i := range list {
		switch c := &list[i]; c.Kind {
		case terse.ChangeUpdated:
			for _, r := range c.Runs {
				changed = append(changed, Changed{r.First, c.Version})
			}
		case terse.ChangeDeleted:
			for _, r := range c.Runs {
				changed = append(changed, Changed{r.First, Deleted})
			}
		}
	}
	return changed
}
