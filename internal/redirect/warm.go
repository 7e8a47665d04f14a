package redirect

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/cache"
	"github.com/terselink/terse/internal/campaigns"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/warm"
)

// WarmOptions configure a Warmer. Zero values mean the defaults named.
type WarmOptions struct {
	Path      string              // of the file; required
	Bytes     int                 // of the file, about; default 16 MiB
	Every     time.Duration       // between looks at what is hot; default one minute
	Server    *Server             // required
	Domains   *domains.Registry   // required
	Campaigns *campaigns.Registry // required
	Log       *slog.Logger        // default: discarded
}

// Warmer keeps the hottest links of a plane in a file, so that one that starts while its store cannot be
// reached serves them (package warm). What is in the file is asked of the store when it is
// written, and when it is read served only while the store does not answer.
type Warmer struct {
	o WarmOptions

	mu         sync.Mutex // one Save at a time
	generation uint64     // of the file that was read or written last
	print      uint64     // of what it holds; 0: not written by this process
	known      map[string]terse.Link
}

// readBatch is how many links are asked of the store at once.
const readBatch = 256

// gently is the rest of Run between two reads, in times of a read: visitors come meanwhile. Reading without
// a rest had 39 % of the processor time of a loaded server for a second of every minute.
const gently = 4

// NewWarmer returns a warmer that does nothing before Load and Run.
func NewWarmer(o WarmOptions) *Warmer {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	setDefault(&o.Bytes, 16<<20)
	setDefault(&o.Every, time.Minute)
	return &Warmer{o: o}
}

// Load gives the plane the links of a file that was read, for as long as the store does not answer. Domains must
// be known by then. It returns how many links there are now.
func (w *Warmer) Load(c *warm.Content) (links int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.generation = c.Generation
	if !c.Usable(w.o.Server.o.Clock()) {
		return 0
	}
	handles := make(map[terse.CampaignID]*campaigns.Handle, len(c.Campaigns))
	for _, doc := range c.Campaigns {
		id, err := terse.ParseCampaignID(doc.ID)
		if err == nil {
			handles[id], err = w.o.Campaigns.Preload(doc)
		}
		if err != nil {
			w.o.Log.Warn("a campaign of the warm links cannot be used", "campaign", doc.ID, "error", err)
		}
	}
	for i := len(c.Links) - 1; i >= 0; i-- { // the hottest last, so that they are the last to be driven out
		l := &c.Links[i]
		h := handles[l.Campaign]
		if w.o.Domains.ByNumber(l.Number.Domain()) == nil || l.Campaign != 0 && h == nil {
			continue
		}
		loaded, err := compileUnder(l, h)
		if err != nil {
			w.o.Log.Warn("a warm link cannot be used", "link", l.Number.String(), "error", err)
			continue
		}
		if loaded.Value.waits() { // a password may have been changed since, because it leaked
			continue
		}
		w.o.Server.cache.Preload(cache.AppendKey(nil, l.Number.Domain(), l.Code), loaded)
		links++
	}
	return links
}

// Run saves at intervals until ctx ends. Errors are logged once until they change: the file that
// is there stays.
func (w *Warmer) Run(ctx context.Context) {
	tick := time.NewTicker(w.o.Every)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch err := w.save(ctx, gently); {
		case err == nil:
			last = ""
		case ctx.Err() == nil && err.Error() != last:
			last = err.Error()
			w.o.Log.Warn("the warm links cannot be kept: those kept before stay", "error", err)
		}
	}
}

// Save writes the file anew if what is hot has changed. It fails, and leaves the file as it is, if the store does not
// answer for every link that is new in it.
func (w *Warmer) Save(ctx context.Context) error { return w.save(ctx, 0) }

// save is Save; between two reads of the store it rests so many times as long as the last one took.
func (w *Warmer) save(ctx context.Context, rest int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := &warm.Content{Generation: w.generation + 1, Saved: w.o.Server.o.Clock()}
	links, err := w.hottest(ctx, rest)
	if err != nil {
		return err
	}
	if c.Domains, c.DefaultHost, err = w.o.Domains.Documents(); err != nil {
		return err
	}
	if links, c.Campaigns, err = w.campaigns(ctx, links); err != nil {
		return err
	}
	c.Links = links
	print := contentPrint(c)
	if print == w.print {
		return nil
	}
	size, err := warm.Save(w.o.Path, c, w.o.Bytes)
	if err != nil {
		return err
	}
	w.generation, w.print = c.Generation, print
	w.known = make(map[string]terse.Link, len(links))
	for i := range links {
		w.known[string(cache.AppendKey(nil, links[i].Number.Domain(), links[i].Code))] = links[i]
	}
	w.o.Log.Debug("warm links kept", "links", len(links), "bytes", size)
	return nil
}

// hottest returns the links that visitors are likely to ask for again, as the store has them.
func (w *Warmer) hottest(ctx context.Context, rest int) ([]terse.Link, error) {
	keys := w.o.Server.cache.Hottest(w.o.Bytes, linkBytes)
	links := make([]terse.Link, 0, len(keys))
	for len(keys) > 0 {
		n := min(len(keys), readBatch)
		began := time.Now()
		part, err := w.read(ctx, keys[:n])
		if err != nil {
			return nil, err
		}
		links = append(links, part...)
		if keys = keys[n:]; len(keys) == 0 || rest == 0 {
			continue
		}
		select {
		case <-time.After(time.Duration(rest) * time.Since(began)):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return links, nil
}

// linkBytes estimates what a link takes in the file: most are smaller.
func linkBytes(l *link) int {
	n := 160 + len(l.destination) + len(l.expired)
	if l.shared != nil {
		n += len(l.shared.values)
	}
	if l.special != nil {
		n += 1024
	}
	return n
}

// read returns the links of some keys, those that are gone left out. A link of which the last file had the
// version that is cached, read from the store, is not asked for again.
func (w *Warmer) read(ctx context.Context, keys []cache.Hot) ([]terse.Link, error) {
	links := make([]terse.Link, len(keys))
	var ask []terse.LinkKey // permuted codes
	var asked []int
	for i, k := range keys {
		if known, ok := w.known[k.Key]; ok && !k.Stale && known.Number == k.Number && known.Version == k.Version {
			links[i] = known
			continue
		}
		d := w.o.Domains.ByNumber(cache.Domain(k.Key))
		if d == nil {
			continue
		}
		code := cache.Code([]byte(k.Key))
		if n, ok := d.Generated(code); ok && d.Issued(n) && n == k.Number {
			ask, asked = append(ask, terse.LinkKey{Number: n, Code: string(code)}), append(asked, i)
			continue
		}
		l, err := d.Find(ctx, w.o.Server.o.Store, code)
		switch {
		case err == nil:
			l.Code = string(code)
			links[i] = l
		case !errors.Is(err, terse.ErrNotFound):
			return nil, fmt.Errorf("read warm link: %w", err)
		}
	}
	if len(ask) > 0 {
		dst := make([]terse.Link, len(ask))
		if err := w.o.Server.o.Store.GetLinks(ctx, ask, dst); err != nil {
			return nil, fmt.Errorf("read warm links: %w", err)
		}
		for j, i := range asked {
			links[i] = dst[j]
			links[i].Code = ask[j].Code
		}
	}
	kept := links[:0]
	for i, l := range links {
		if keys[i].Stale { // the store has answered: what it did not confirm is not kept for the next outage
			w.o.Server.cache.Settle(keys[i].Key, l.Number, l.Version)
		}
		if l.Number != 0 {
			kept = append(kept, l)
		}
	}
	return kept, nil
}

// campaigns returns the campaigns of the links, and the links without those whose campaign is gone.
func (w *Warmer) campaigns(ctx context.Context, links []terse.Link) ([]terse.Link, []terse.Document, error) {
	var docs []terse.Document
	room := w.o.Bytes / 2 // what links have at least
	live := make(map[terse.CampaignID]bool)
	kept := links[:0]
	for _, l := range links {
		if l.Campaign != 0 {
			alive, seen := live[l.Campaign]
			if !seen {
				c, err := w.o.Campaigns.Get(ctx, l.Workspace, l.Campaign)
				if err != nil && !errors.Is(err, terse.ErrNotFound) {
					return nil, nil, fmt.Errorf("read warm campaign: %w", err)
				}
				if alive = err == nil; alive {
					if c.Stale {
						return nil, nil, fmt.Errorf("read warm campaign %s: %w", l.Campaign, terse.ErrUnavailable)
					}
					doc, err := c.Document()
					if err != nil {
						return nil, nil, err
					}
					if alive = len(doc.Data) <= room; alive { // else its links stay out
						room -= len(doc.Data)
						docs = append(docs, doc)
					}
				}
				live[l.Campaign] = alive
			}
			if !alive {
				continue
			}
		}
		kept = append(kept, l)
	}
	return kept, docs, nil
}

var printSeed = maphash.MakeSeed()

// contentPrint is the same for contents with the same versions of the same things in the same order.
func contentPrint(c *warm.Content) uint64 {
	var h maphash.Hash
	h.SetSeed(printSeed)
	add := func(version uint64, id string) {
		maphash.WriteComparable(&h, version)
		maphash.WriteComparable(&h, id)
	}
	for _, list := range [][]terse.Document{c.Domains, c.Campaigns} {
		for i := range list {
			add(list[i].Version, list[i].ID)
		}
		add(uint64(len(list)), "")
	}
	// The order of links changes with every visit and says little: it does not count.
	sum := uint64(0)
	for i := range c.Links {
		sum += maphash.Comparable(printSeed, [2]uint64{uint64(c.Links[i].Number), c.Links[i].Version})
	}
	add(sum, c.DefaultHost)
	return h.Sum64() | 1
}
