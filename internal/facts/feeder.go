package facts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/sleep"
)

// Store is what the feeder reads of a terse.Store.
type Store interface {
	Changes(ctx context.Context, after uint64, limit int) ([]terse.Change, error)
	GetLinks(ctx context.Context, keys []terse.LinkKey, dst []terse.Link) error
	ListLinks(ctx context.Context, w terse.WorkspaceID, q terse.ListQuery) (terse.LinkPage, error)
	GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error)
	ListDocuments(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, after string, limit int) ([]terse.Document, error)
}

// Sink is the engine's side, see analytics.FactSink.
type Sink interface {
	FactsAt(ctx context.Context) (seq uint64, known bool, err error)
	PutFacts(ctx context.Context, b analytics.FactBatch) error
}

// Options configure a Feeder.
type Options struct {
	Store Store                           // required
	Sink  Sink                            // required
	Code  func(n terse.LinkNumber) string // the code of a generated link, for stores that find links by it; nil: such stores are not used
	Every time.Duration                   // how often changes are looked for; default 500 ms
	Log   *slog.Logger                    // default: discarded
}

// How much one step holds in memory, and the pauses after something failed.
const (
	manyChanges = 1000
	manyLinks   = 4096
	pageLinks   = 10_000
	gentleAbove = time.Millisecond
	idleChanges = 5000 // changes that mean nothing and are not told of at once
	firstPause  = 200 * time.Millisecond
	longPause   = 10 * time.Second

	// keptFor is how long a store keeps a change for sure: the contract says a day.
	keptFor = 20 * time.Hour
)

// Feeder follows one store for one engine.
type Feeder struct {
	o       Options
	told    atomic.Int64 // links looked at
	retells atomic.Int64 // how often everything was told again

	// Until this change a link that was inserted may have been told by tellAll already.
	careful uint64
	began   bool      // careful is known
	base    uint64    // what an engine adds to the numbers of changes (FeedID)
	telling uint64    // where the engine is while everything is told
	looked  time.Time // when the store was last asked for what follows the position; zero: not since follow began
	idle    int       // changes since the engine was last told something
}

// New returns a feeder.
func New(o Options) *Feeder {
	if o.Every == 0 {
		o.Every = 500 * time.Millisecond
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Feeder{o: o}
}

// errGap: the store has forgotten changes that the engine has not seen.
var errGap = errors.New("changes are missing")

// Run follows the store until ctx ends and returns nil then. An engine or a store that is
// not there is waited for.
func (f *Feeder) Run(ctx context.Context) error {
	pause := firstPause
	for ctx.Err() == nil {
		progress, err := f.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if progress {
			pause = firstPause
		}
		// An engine that is down or was replaced says so in the ordinary way.
		if c := terse.ErrorCode(err); c != terse.CodeUnavailable && c != terse.CodePrecondition {
			f.o.Log.Warn("the analytics engine does not learn of new tags and conversions; trying again", "error", err, "pause", pause)
		}
		if sleep.For(ctx, pause) != nil {
			return nil
		}
		pause = min(2*pause, longPause)
	}
	return nil
}

// follow asks where the engine is and tells it what follows, until something fails.
func (f *Feeder) follow(ctx context.Context) (progress bool, err error) {
	if err := f.readBase(ctx); err != nil {
		return false, err
	}
	told, known, err := f.place(ctx)
	if err != nil {
		return false, err
	}
	at := told
	f.looked, f.idle = time.Time{}, 0
	if known && !f.began { // an earlier process may have told everything and ended before it told what followed
		if f.careful, err = f.newest(ctx, told); err != nil {
			return false, err
		}
		f.began = true
	}
	for {
		if !known {
			if told, err = f.tellAll(ctx); err != nil {
				return progress, err
			}
			at, known, progress = told, true, true
		}
		began := time.Now()
		next, put, err := f.step(ctx, at, told)
		switch {
		case errors.Is(err, errGap):
			known = false
			continue
		case err != nil:
			return progress, err
		}
		progress = true
		if put {
			told = next
		}
		if next != at {
			at = next
			// While links are made by the million this reads them all again: not as fast as they are
			// made, so that it takes a quarter of a processor at most from those who make them.
			if took := time.Since(began); took > gentleAbove {
				if err := sleep.For(ctx, 3*took); err != nil {
					return true, err
				}
			}
			continue
		}
		if err := sleep.For(ctx, f.o.Every); err != nil {
			return true, err
		}
	}
}

// step reads the changes after at and tells the engine, which is at told, what they mean. It returns the new
// position, at if there are no changes, and whether the engine is there: changes that mean nothing to it are
// told of with a later one.
func (f *Feeder) step(ctx context.Context, at, told uint64) (next uint64, put bool, err error) {
	began := time.Now()
	changes, err := f.o.Store.Changes(ctx, at, manyChanges)
	if err == nil && len(changes) > 0 {
		err = f.whole(ctx, at, changes[0].Seq)
	}
	if _, forgotten := errors.AsType[*terse.ForgottenError](err); forgotten {
		err = errGap
	}
	if err != nil {
		return at, false, err
	}
	f.looked = began
	if len(changes) == 0 {
		return at, false, nil
	}
	// A change of many links ends the batch: the memory of a step is bounded by links, too.
	b := analytics.FactBatch{From: told}
	r := reader{f: f, batch: &b}
	for i := range changes {
		c := &changes[i]
		if err := r.change(ctx, c); err != nil {
			return at, false, err
		}
		b.At = c.Seq
		f.idle++
		if r.links >= manyLinks {
			break
		}
	}
	if b.Empty() && f.idle < idleChanges {
		return b.At, false, nil
	}
	next = b.At
	b.From, b.At = f.base+told, f.base+next
	if err := f.o.Sink.PutFacts(ctx, b); err != nil {
		return at, false, err
	}
	f.idle = 0
	return next, true, nil
}

// whole returns errGap if the store may have forgotten changes between at and next, the first behind it that it has.
// The numbers of some stores are not consecutive, so what tells is time: since this process looked, or since the
// change at the position was made.
func (f *Feeder) whole(ctx context.Context, at, next uint64) error {
	if next == at+1 || !f.looked.IsZero() && time.Since(f.looked) < keptFor {
		return nil
	}
	if at == 0 {
		return errGap
	}
	changes, err := f.o.Store.Changes(ctx, at-1, 1)
	if err != nil {
		return err
	}
	if len(changes) == 0 || changes[0].Seq != at || time.Since(changes[0].At.Time()) > keptFor {
		return errGap
	}
	return nil
}

// reader turns changes into facts.
type reader struct {
	f     *Feeder
	batch *analytics.FactBatch
	links int
	seen  map[terse.LinkNumber]int // index in batch.Links
	keys  []terse.LinkKey
	dst   []terse.Link
}

func (r *reader) change(ctx context.Context, c *terse.Change) error {
	switch c.Kind {
	case terse.ChangeInserted, terse.ChangeUpdated:
		for _, run := range c.Runs {
			for done := uint64(0); done < run.Count; {
				n := min(run.Count-done, manyLinks)
				if err := r.read(ctx, c, run.First+terse.LinkNumber(done), int(n)); err != nil {
					return err
				}
				done += n
			}
		}
	case terse.ChangeDeleted:
		for _, run := range c.Runs {
			r.put(analytics.LinkTags{Workspace: c.Workspace, Link: run.First})
		}
	case terse.ChangeDocument:
		return r.document(ctx, c.Workspace, c.DocKind, c.DocID)
	}
	return nil
}

// read looks at links that were inserted or changed. What is gone again comes as a deletion later.
func (r *reader) read(ctx context.Context, c *terse.Change, first terse.LinkNumber, n int) error {
	r.links += n
	r.keys, r.dst = r.keys[:0], r.dst[:0]
	for i := range n {
		k := terse.LinkKey{Number: first + terse.LinkNumber(i)}
		if r.f.o.Code != nil {
			k.Code = r.f.o.Code(k.Number)
		}
		r.keys = append(r.keys, k)
		r.dst = append(r.dst, terse.Link{})
	}
	if err := r.f.o.Store.GetLinks(ctx, r.keys, r.dst); err != nil {
		return fmt.Errorf("read changed links: %w", err)
	}
	r.f.told.Add(int64(n))
	for i := range r.dst {
		l := &r.dst[i]
		if l.Number == 0 {
			continue
		}
		tags := tagsOf(l)
		fresh := c.Kind == terse.ChangeInserted && c.Seq > r.f.careful
		if len(tags) > 0 || !fresh {
			r.put(analytics.LinkTags{Workspace: l.Workspace, Link: l.Number, New: fresh, Created: l.CreatedAt, Tags: tags})
		}
	}
	return nil
}

// put replaces what the batch says of a link.
func (r *reader) put(t analytics.LinkTags) {
	if r.seen == nil {
		r.seen = map[terse.LinkNumber]int{}
	}
	if i, ok := r.seen[t.Link]; ok {
		t.New = t.New || r.batch.Links[i].New
		r.batch.Links[i] = t
		return
	}
	r.seen[t.Link] = len(r.batch.Links)
	r.batch.Links = append(r.batch.Links, t)
}

func tagsOf(l *terse.Link) []string {
	if l.Settings == nil {
		return nil
	}
	return l.Settings.Tags
}

// document looks at a document that was put or deleted.
func (r *reader) document(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) error {
	if kind != terse.KindCampaign && kind != terse.KindConversion {
		return nil
	}
	doc, err := r.f.o.Store.GetDocument(ctx, w, kind, id)
	gone := errors.Is(err, terse.ErrNotFound)
	if err != nil && !gone {
		return fmt.Errorf("read a changed document: %w", err)
	}
	if kind == terse.KindConversion {
		if gone {
			return nil // they are never deleted one by one
		}
		return addConversion(r.batch, &doc)
	}
	c := analytics.CampaignTags{Workspace: w}
	if c.Campaign, err = terse.ParseCampaignID(id); err != nil {
		return nil // not a campaign's
	}
	if !gone {
		if c.Tags, err = campaignTags(&doc); err != nil {
			return err
		}
	}
	for i := range r.batch.Campaigns {
		if r.batch.Campaigns[i].Campaign == c.Campaign {
			r.batch.Campaigns[i] = c
			return nil
		}
	}
	r.batch.Campaigns = append(r.batch.Campaigns, c)
	return nil
}

func campaignTags(doc *terse.Document) ([]string, error) {
	var c terse.Campaign
	if err := json.Unmarshal(doc.Data, &c); err != nil {
		return nil, fmt.Errorf("read campaign %s: %w", doc.ID, err)
	}
	return c.Settings.Tags, nil
}

func addConversion(b *analytics.FactBatch, doc *terse.Document) error {
	var c analytics.Conversion
	if err := json.Unmarshal(doc.Data, &c); err != nil {
		return fmt.Errorf("read conversion %s: %w", doc.ID, err)
	}
	for i := range b.Conversions {
		if b.Conversions[i].ID == c.ID && b.Conversions[i].Workspace == c.Workspace { // an id is the workspace's own
			b.Conversions[i] = c
			return nil
		}
	}
	b.Conversions = append(b.Conversions, c)
	return nil
}
