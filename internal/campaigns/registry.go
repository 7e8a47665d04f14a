// Package campaigns keeps the campaigns that are in use compiled in memory, so that a
// change of one is a single write that every link of it follows on its next visit.
//
// It loads and stores campaigns and knows no rule about what one may be (package links)
// and nothing about its links. A compiled link holds a *Handle; the handle holds the newest
// snapshot that this node has seen.
//
// Invariants:
//
//   - there is at most one handle of a campaign at a time, whoever asks for it;
//   - the snapshot of a handle is never replaced by an older version, and never once the
//     campaign is deleted: ids are not used again;
//   - a campaign that could not be read is an error, not "does not exist".
//
// Locks: Handle.loading (one load of a campaign at a time) is taken before Registry.mu.
package campaigns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/failpoint"
	"github.com/terselink/terse/internal/rules"
	"github.com/terselink/terse/internal/template"
)

// Campaign is an immutable snapshot of a campaign with its template compiled.
type Campaign struct {
	terse.Campaign
	Template *template.Template
	// Rules decide for every link without a destination and rules of its own; nil: there are none.
	Rules *rules.Set
	// Targets expand the destinations of Rules, in the order of their numbers.
	Targets []*template.Template
	blanks  []blank // in Settings
	// Compiled is for package redirect: what it made of the settings, for links that add nothing to them.
	Compiled atomic.Value
	Deleted  bool // nothing else of it counts then
	// Stale says that it was kept from before and not read from the store since.
	Stale bool
}

// Handle is a campaign through all its versions.
type Handle struct {
	key     key
	current atomic.Pointer[Campaign]
	loading chan struct{} // one load at a time; a channel, so that waiting ends with a context
}

type key struct {
	workspace terse.WorkspaceID
	id        terse.CampaignID
}

// Load returns the newest snapshot that this node has seen; it may be Deleted.
//
// Hot path: one atomic load.
func (h *Handle) Load() *Campaign { return h.current.Load() }

// publish makes c the snapshot unless a newer one is there.
func (h *Handle) publish(c *Campaign) {
	for {
		cur := h.current.Load()
		replaces := cur == nil || cur.Stale && !c.Stale // the store is right, whatever was kept
		if !replaces && (cur.Deleted || !c.Deleted && cur.Version >= c.Version) {
			return
		}
		if h.current.CompareAndSwap(cur, c) {
			return
		}
	}
}

// recentHandles is how many handles are kept although no cached link may need them.
const recentHandles = 1024

// Options configures a Registry.
type Options struct {
	Store terse.Store
	Clock func() terse.Millis
	// OnDelete is told that a campaign was deleted: there is something to purge. May be nil.
	OnDelete func()
}

// Registry finds the handles of campaigns. Its methods may be called from many goroutines.
type Registry struct {
	o Options

	mu sync.Mutex
	// Handles live as long as a cached link or recent holds them, so memory is bounded by
	// the cache of links, however many campaigns there are.
	handles map[key]weak.Pointer[Handle]
	recent  [recentHandles]*Handle
}

// New returns an empty registry.
func New(o Options) *Registry {
	return &Registry{o: o, handles: make(map[key]weak.Pointer[Handle])}
}

// handle returns the one handle of a campaign, which may have no snapshot yet.
func (r *Registry) handle(k key) *Handle {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.handles[k].Value()
	if h == nil {
		h = &Handle{key: k, loading: make(chan struct{}, 1)}
		p := weak.Make(h)
		r.handles[k] = p
		runtime.AddCleanup(h, r.forget, forgotten{k, p})
	}
	r.recent[uint64(k.id)%recentHandles] = h
	return h
}

type forgotten struct {
	key key
	was weak.Pointer[Handle]
}

// forget removes the entry of a handle that is gone, unless there is a new one.
func (r *Registry) forget(f forgotten) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.handles[f.key] == f.was {
		delete(r.handles, f.key)
	}
}

// Handle returns the handle of a campaign of the workspace, with a snapshot that is not
// deleted at the time. Returns ErrNotFound if the campaign is known not to exist; every other
// error means that it is not known.
func (r *Registry) Handle(ctx context.Context, w terse.WorkspaceID, id terse.CampaignID) (*Handle, error) {
	h := r.handle(key{w, id})
	c := h.current.Load()
	if c == nil || c.Stale {
		select {
		case h.loading <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		defer func() { <-h.loading }()
		if c = h.current.Load(); c == nil || c.Stale {
			if err := r.read(ctx, h); err != nil && (c == nil || terse.ErrorCode(err) != terse.CodeUnavailable) {
				return nil, err
			}
			c = h.current.Load()
		}
	}
	if c.Deleted {
		return nil, terse.ErrNotFound
	}
	return h, nil
}

// read publishes what the store has.
func (r *Registry) read(ctx context.Context, h *Handle) error {
	doc, err := r.o.Store.GetDocument(ctx, h.key.workspace, terse.KindCampaign, h.key.id.String())
	if errors.Is(err, terse.ErrNotFound) {
		if cur := h.current.Load(); cur != nil && cur.Stale {
			h.publish(gone(h.key)) // it existed, so it was deleted
		}
		return terse.ErrNotFound // nothing is kept: an id may come into use
	}
	if err != nil {
		return fmt.Errorf("read campaign: %w", err)
	}
	c, err := decode(doc)
	if err != nil {
		return err
	}
	h.publish(c)
	return nil
}

// gone is the last snapshot of a campaign.
func gone(k key) *Campaign {
	c := &Campaign{Deleted: true}
	c.ID, c.Workspace = k.id, k.workspace
	return c
}

// Preload makes a campaign that was kept from before known, if nothing newer is: it is read again
// when somebody asks for it, and serves as it is while the store does not answer. The handle is
// forgotten unless the caller or a cached link holds it.
func (r *Registry) Preload(doc terse.Document) (*Handle, error) {
	c, err := decode(doc)
	if err != nil {
		return nil, err
	}
	c.Stale = true
	h := r.handle(key{c.Workspace, c.ID})
	h.current.CompareAndSwap(nil, c)
	return h, nil
}

// Document returns the stored form of a campaign.
func (c *Campaign) Document() (terse.Document, error) {
	data, err := json.Marshal(&c.Campaign)
	if err != nil {
		return terse.Document{}, fmt.Errorf("encode campaign: %w", err)
	}
	return terse.Document{Workspace: c.Workspace, Kind: terse.KindCampaign, ID: c.ID.String(), Version: c.Version, Data: data}, nil
}

func decode(doc terse.Document) (*Campaign, error) {
	c := &Campaign{}
	if err := json.Unmarshal(doc.Data, &c.Campaign); err != nil {
		return nil, fmt.Errorf("read campaign %s: %w", doc.ID, err)
	}
	c.Version = doc.Version
	return c, c.compile()
}

func (c *Campaign) compile() (err error) {
	fields := c.Fields
	if fields == nil {
		fields = []string{} // nil would let the template choose
	}
	if c.Template, err = template.Parse(c.Destination, fields, nil); err != nil {
		return fmt.Errorf("compile campaign %s: %w", c.ID, err)
	}
	c.compileSettings(fields)
	if len(c.Settings.Rules) == 0 {
		return nil
	}
	if c.Rules, err = rules.Compile(c.Settings.Rules); err != nil {
		return fmt.Errorf("compile campaign %s: %w", c.ID, err)
	}
	for _, to := range c.Rules.Targets() {
		t, err := template.Parse(to, fields, nil)
		if err != nil {
			return fmt.Errorf("compile campaign %s: %w", c.ID, err)
		}
		c.Targets = append(c.Targets, t)
	}
	return nil
}

// Get returns a campaign of the workspace. Returns ErrNotFound.
func (r *Registry) Get(ctx context.Context, w terse.WorkspaceID, id terse.CampaignID) (*Campaign, error) {
	h, err := r.Handle(ctx, w, id)
	if err != nil {
		return nil, err
	}
	c := h.Load()
	if c.Deleted {
		return nil, terse.ErrNotFound
	}
	return c, nil
}

// List returns at most limit campaigns of the workspace, oldest first, those after the given id.
func (r *Registry) List(ctx context.Context, w terse.WorkspaceID, after terse.CampaignID, limit int) ([]*Campaign, error) {
	from := ""
	if after != 0 {
		from = after.String()
	}
	docs, err := r.o.Store.ListDocuments(ctx, w, terse.KindCampaign, from, limit)
	if err != nil {
		return nil, fmt.Errorf("list campaigns: %w", err)
	}
	list := make([]*Campaign, 0, len(docs))
	for _, doc := range docs {
		c, err := decode(doc)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// randomBits of an id keep campaigns of one millisecond apart; the 42 bits above hold the
// milliseconds until the year 2109.
const randomBits = 21

// newID returns an id that sorts by the time of its making.
func newID(now terse.Millis) terse.CampaignID {
	return terse.CampaignID(uint64(now)<<randomBits&(1<<63-1) | rand.Uint64N(1<<randomBits))
}

// maxTries bounds how often a write is repeated that met another or whose outcome is unknown.
const maxTries = 5

// Create stores a campaign, durable on return, and gives it its id, times and version. What
// also returns for it, such as an idempotency record, goes into the same atomic write; nil:
// nothing. The campaign was checked by the caller.
func (r *Registry) Create(ctx context.Context, c terse.Campaign, also func(*Campaign) ([]terse.Document, error)) (*Campaign, error) {
	for try := 0; ; try++ {
		now := r.o.Clock()
		c.ID, c.CreatedAt, c.UpdatedAt, c.Version = newID(now), now, now, 1
		s, err := r.put(ctx, c, also)
		if errors.Is(err, terse.ErrExists) && try < maxTries {
			continue // the id is taken
		}
		return s, err
	}
}

// Update changes a campaign, durable on return, and every link of it on this node follows at
// once. change gets a copy that it may modify, and may be called again with a newer one.
// ifVersion 0 accepts any version. Returns ErrNotFound, ErrVersion, or the error of change.
func (r *Registry) Update(ctx context.Context, w terse.WorkspaceID, id terse.CampaignID, ifVersion uint64, change func(*terse.Campaign) error) (*Campaign, error) {
	h, err := r.Handle(ctx, w, id)
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		cur := h.Load()
		if cur.Deleted {
			return nil, terse.ErrNotFound
		}
		if ifVersion != 0 && ifVersion != cur.Version {
			if try > 0 {
				return nil, terse.ErrVersion
			}
			if err := r.read(ctx, h); err != nil { // the caller may have the version of another node
				return nil, err
			}
			continue
		}
		c := cur.Campaign
		if err := change(&c); err != nil {
			return nil, err
		}
		c.Version, c.UpdatedAt = cur.Version+1, max(r.o.Clock(), c.CreatedAt)
		s, err := r.put(ctx, c, nil)
		if errors.Is(err, terse.ErrVersion) && try < maxTries {
			// Another node, or another change on this one, was faster: see what it wrote.
			if err := r.read(ctx, h); err != nil {
				return nil, err
			}
			continue
		}
		return s, err
	}
}

// Delete ends a campaign and with it all its links, whose space a Purger gives back afterwards. ifVersion 0 accepts any version. Returns
// ErrNotFound, ErrVersion.
func (r *Registry) Delete(ctx context.Context, w terse.WorkspaceID, id terse.CampaignID, ifVersion uint64) error {
	k := key{w, id}
	c, err := r.Get(ctx, w, id)
	if err != nil {
		return err
	}
	if err := r.notePurge(ctx, c); err != nil {
		return fmt.Errorf("delete campaign: %w", err)
	}
	h := r.handle(k)
	err = r.o.Store.DeleteDocument(ctx, w, terse.KindCampaign, id.String(), ifVersion)
	for try := 0; errors.Is(err, terse.ErrUnknownOutcome) && try < maxTries && ctx.Err() == nil; try++ {
		// A repetition that finds nothing says that it was applied.
		if err = r.o.Store.DeleteDocument(ctx, w, terse.KindCampaign, id.String(), ifVersion); errors.Is(err, terse.ErrNotFound) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("delete campaign: %w", err)
	}
	h.publish(gone(k))
	if r.o.OnDelete != nil {
		r.o.OnDelete()
	}
	return nil
}

// put stores and publishes a version.
func (r *Registry) put(ctx context.Context, c terse.Campaign, also func(*Campaign) ([]terse.Document, error)) (*Campaign, error) {
	s := &Campaign{Campaign: c}
	if err := s.compile(); err != nil {
		return nil, err
	}
	doc, err := s.Document()
	if err != nil {
		return nil, err
	}
	docs := []terse.Document{doc}
	if also != nil {
		more, err := also(s)
		if err != nil {
			return nil, err
		}
		docs = append(docs, more...)
	}
	h := r.handle(key{c.Workspace, c.ID})
	for try := 0; ; try++ {
		err = r.o.Store.InsertLinks(ctx, &terse.Chunk{Documents: docs})
		if try > 0 && err != nil && !errors.Is(err, terse.ErrUnknownOutcome) {
			// The write before may be what is in the way of this one.
			stored, rerr := r.o.Store.GetDocument(ctx, doc.Workspace, doc.Kind, doc.ID)
			switch {
			case rerr == nil && stored.Version == doc.Version && string(stored.Data) == string(doc.Data):
				err = nil
			case rerr != nil && !errors.Is(rerr, terse.ErrNotFound):
				err = fmt.Errorf("%w: %w", terse.ErrUnknownOutcome, rerr) // of the first try
			}
		}
		if !errors.Is(err, terse.ErrUnknownOutcome) || try == maxTries || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("store campaign: %w", err)
	}
	failpoint.Hit(failpoint.CampaignStored)
	h.publish(s)
	return s, nil
}
