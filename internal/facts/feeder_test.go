package facts_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/facts"
	"github.com/terselink/terse/internal/store/memstore"
)

// engine is a sink that keeps facts in maps and is strict about the contract.
type engine struct {
	mu          sync.Mutex
	at          uint64
	known       bool
	resets      int
	down        bool
	links       map[terse.LinkNumber][]string
	campaigns   map[terse.CampaignID][]string
	conversions map[string]int64
	violation   error
}

func newEngine() *engine {
	e := &engine{}
	e.forget()
	return e
}

func (e *engine) forget() {
	e.links, e.campaigns, e.conversions = map[terse.LinkNumber][]string{}, map[terse.CampaignID][]string{}, map[string]int64{}
	e.at, e.known = 0, false
}

func (e *engine) FactsAt(context.Context) (uint64, bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.down {
		return 0, false, terse.ErrUnavailable
	}
	return e.at, e.known, nil
}

func (e *engine) PutFacts(_ context.Context, b analytics.FactBatch) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.down {
		return terse.ErrUnavailable
	}
	if !b.Follows(e.at, e.known) {
		return &terse.Error{Code: terse.CodePrecondition, Message: "not there"}
	}
	if b.Reset {
		e.forget()
		e.resets++
	}
	for _, l := range b.Links {
		if _, known := e.links[l.Link]; known && l.New {
			e.violation = fmt.Errorf("link %d is told as new twice", l.Link)
		}
		if delete(e.links, l.Link); len(l.Tags) > 0 {
			e.links[l.Link] = l.Tags
		}
	}
	for _, c := range b.Campaigns {
		if delete(e.campaigns, c.Campaign); len(c.Tags) > 0 {
			e.campaigns[c.Campaign] = c.Tags
		}
	}
	for _, c := range b.Conversions {
		e.conversions[c.ID] = c.Amount
	}
	e.at, e.known = b.At, !b.Partial
	return nil
}

// world is a store in which things happen.
type world struct {
	t     *testing.T
	store terse.Store
	r     *rand.Rand
	made  []terse.Link
	next  uint64
	now   terse.Millis
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, r: rand.New(rand.NewPCG(3, 4)), now: 1_795_000_000_000}
	w.store = memstore.New(func() terse.Millis { return w.now })
	for _, id := range []terse.WorkspaceID{1, 2} {
		w.check(w.store.PutDocument(t.Context(), terse.Document{Kind: terse.KindWorkspace, ID: id.String(), Version: 1, Data: []byte("{}")}))
	}
	return w
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) tags() *terse.LinkSettings {
	if w.r.IntN(3) == 0 {
		return nil
	}
	return &terse.LinkSettings{Tags: []string{[]string{"a", "b", "c"}[w.r.IntN(3)]}}
}

// act does something at random.
func (w *world) act() {
	ctx := w.t.Context()
	switch w.r.IntN(6) {
	case 0, 1: // links, some at a time
		n := uint64(1 + w.r.IntN(20))
		lease, err := w.store.Lease(ctx, terse.LeaseRequest{Domain: 1, Space: 7, Count: n})
		w.check(err)
		var chunk terse.Chunk
		for i := lease.Start; i < lease.End; i++ {
			l := terse.Link{Number: terse.NewLinkNumber(1, 7, i), Workspace: terse.WorkspaceID(1 + w.r.IntN(2)), Version: 1, CreatedAt: w.now, UpdatedAt: w.now,
				Code: fmt.Sprintf("c%d", i), Destination: "https://example.com/", Settings: w.tags()}
			chunk.Links = append(chunk.Links, l)
		}
		w.check(w.store.InsertLinks(ctx, &chunk))
		w.made = append(w.made, chunk.Links...)
	case 2: // another tag
		if len(w.made) > 0 {
			l := &w.made[w.r.IntN(len(w.made))]
			l.Version++
			l.Settings = w.tags()
			w.check(w.store.UpdateLink(ctx, l, l.Version-1))
		}
	case 3:
		if len(w.made) > 0 {
			i := w.r.IntN(len(w.made))
			l := &w.made[i]
			w.check(w.store.DeleteLink(ctx, terse.LinkKey{Number: l.Number, Code: l.Code}, 0))
			w.made = slices.Delete(w.made, i, i+1)
		}
	case 4:
		id := terse.CampaignID(1 + w.r.IntN(5))
		c := terse.Campaign{ID: id, Workspace: 1}
		if s := w.tags(); s != nil {
			c.Settings = *s
		}
		w.put(terse.KindCampaign, id.String(), c)
	case 5:
		w.next++
		id := fmt.Sprintf("conv_%d", w.next)
		w.put(terse.KindConversion, id, analytics.Conversion{ID: id, Workspace: 1, Amount: int64(w.next)})
	}
}

func (w *world) put(kind terse.Kind, id string, v any) {
	ctx := w.t.Context()
	data, err := json.Marshal(v)
	w.check(err)
	version := uint64(1)
	if doc, err := w.store.GetDocument(ctx, 1, kind, id); err == nil {
		version = doc.Version + 1
	}
	w.check(w.store.PutDocument(ctx, terse.Document{Workspace: 1, Kind: kind, ID: id, Version: version, Data: data}))
}

// wantLinks is what the engine should know of links.
func (w *world) wantLinks() map[terse.LinkNumber][]string {
	want := map[terse.LinkNumber][]string{}
	for i := range w.made {
		if s := w.made[i].Settings; s != nil {
			want[w.made[i].Number] = s.Tags
		}
	}
	return want
}

// settle waits until the engine knows what the world holds.
func (w *world) settle(e *engine) {
	w.t.Helper()
	limit := time.NewTimer(2 * time.Minute)
	defer limit.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		e.mu.Lock()
		d := gocmp.Diff(w.wantLinks(), e.links)
		n, violation := len(e.conversions), e.violation
		e.mu.Unlock()
		if violation != nil {
			w.t.Fatal(violation)
		}
		if d == "" && n == int(w.next) {
			return
		}
		select {
		case <-tick.C:
		case <-limit.C:
			w.t.Fatalf("%d conversions of %d, links (-want +got):\n%s", n, w.next, d)
		}
	}
}

func start(t *testing.T, w *world, e *engine) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	f := facts.New(facts.Options{Store: w.store, Sink: e, Every: time.Millisecond})
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestFollow: whatever happens in the store, and whatever happens to the engine, it ends up with
// the tags and conversions of the store.
func TestFollow(t *testing.T) {
	w, e := newWorld(t), newEngine()
	for range 100 {
		w.act()
	}
	start(t, w, e)
	w.settle(e)
	for round := range 6 {
		for range 60 {
			w.act()
			e.mu.Lock()
			switch {
			case round == 2:
				e.down = true
			case round == 4 && w.r.IntN(20) == 0: // another file
				e.forget()
			}
			e.mu.Unlock()
		}
		e.mu.Lock()
		e.down = false
		e.mu.Unlock()
		w.settle(e)
	}
	want := map[terse.CampaignID][]string{}
	docs, err := w.store.ListDocuments(t.Context(), 1, terse.KindCampaign, "", 100)
	w.check(err)
	for i := range docs {
		var c terse.Campaign
		w.check(json.Unmarshal(docs[i].Data, &c))
		if len(c.Settings.Tags) > 0 {
			want[c.ID] = c.Settings.Tags
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if d := gocmp.Diff(want, e.campaigns); d != "" {
		t.Error(d)
	}
}

// forgetful is a store that has forgotten old changes.
type forgetful struct {
	terse.Store
	from uint64
}

func (f forgetful) Changes(ctx context.Context, after uint64, limit int) ([]terse.Change, error) {
	list, err := f.Store.Changes(ctx, max(after, f.from), limit)
	slices.SortFunc(list, func(a, b terse.Change) int { return cmp.Compare(a.Seq, b.Seq) })
	return list, err
}

// TestGap: an engine that has missed changes is told everything again.
func TestGap(t *testing.T) {
	w, e := newWorld(t), newEngine()
	for range 50 {
		w.act()
	}
	w.check(e.PutFacts(t.Context(), analytics.FactBatch{Reset: true, Partial: true, At: 9}))
	w.check(e.PutFacts(t.Context(), analytics.FactBatch{From: 9, At: 1}))
	w.store = forgetful{w.store, 20}
	start(t, w, e)
	w.settle(e)
	if e.resets != 2 {
		t.Errorf("%d resets", e.resets)
	}
}

// TestForgotten: an engine that was away while the store forgot changes is told everything again, and so is one that knows nothing.
func TestForgotten(t *testing.T) {
	w, e := newWorld(t), newEngine()
	store := w.store.(*memstore.Store)
	follow := func() (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		f := facts.New(facts.Options{Store: w.store, Sink: e, Every: time.Millisecond})
		go func() { done <- f.Run(ctx) }()
		return func() { cancel(); w.check(<-done) }
	}
	act := func() {
		for range 50 {
			w.act()
		}
	}
	for round, reset := range []int{1, 2} {
		act()
		store.ForgetChanges()
		act()
		stop := follow()
		w.settle(e)
		act()
		w.settle(e)
		stop()
		if e.resets != reset {
			t.Errorf("round %d: everything was told %d times", round, e.resets)
		}
	}
}

// sparse is a store whose numbers of changes are not consecutive, as those of PostgreSQL are not.
type sparse struct{ terse.Store }

func (s sparse) Changes(ctx context.Context, after uint64, limit int) ([]terse.Change, error) {
	list, err := s.Store.Changes(ctx, after/1000, limit)
	for i := range list {
		list[i].Seq *= 1000
	}
	return list, err
}

// TestSparse: numbers that are left out are no changes that were missed.
func TestSparse(t *testing.T) {
	w, e := newWorld(t), newEngine()
	w.now = terse.MillisOf(time.Now())
	w.store = sparse{w.store}
	for range 50 {
		w.act()
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	first := facts.New(facts.Options{Store: w.store, Sink: e, Every: time.Millisecond})
	go func() { done <- first.Run(ctx) }()
	w.settle(e)
	for range 50 {
		w.act()
	}
	w.settle(e)
	cancel()
	w.check(<-done)
	for range 50 { // while nobody follows
		w.act()
	}
	start(t, w, e)
	w.settle(e)
	for range 50 {
		w.act()
	}
	w.settle(e)
	if e.resets != 1 {
		t.Errorf("everything was told %d times", e.resets)
	}
}

// broken is a store that cannot be read.
type broken struct{ terse.Store }

func (broken) Changes(context.Context, uint64, int) ([]terse.Change, error) {
	return nil, errors.New("no disk")
}

// TestBroken: a store that fails is tried again until the end.
func TestBroken(t *testing.T) {
	w, e := newWorld(t), newEngine()
	w.store = broken{w.store}
	start(t, w, e)
	if _, known, _ := e.FactsAt(t.Context()); known {
		t.Error("told something")
	}
}

// TestRestart: a process that goes on behind what an earlier one told all of tells no link as new that the engine has.
func TestRestart(t *testing.T) {
	w, e := newWorld(t), newEngine()
	for range 50 {
		w.act()
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	first := facts.New(facts.Options{Store: w.store, Sink: e, Every: time.Millisecond})
	go func() { done <- first.Run(ctx) }()
	w.settle(e)
	cancel()
	w.check(<-done)
	e.mu.Lock()
	e.at = 1 // where it was when everything began to be told
	e.mu.Unlock()
	start(t, w, e)
	for range 30 {
		w.act()
	}
	w.settle(e)
}

// TestOtherFeed: an engine that followed one store is told everything of another, whose feed is shorter or longer, and
// then what happens there; a process that begins again goes on.
func TestOtherFeed(t *testing.T) {
	e := newEngine()
	for round, acts := range []int{200, 20, 400} {
		w := newWorld(t)
		if round > 0 {
			w.check(facts.NewFeed(t.Context(), w.store))
			w.check(facts.NewFeed(t.Context(), w.store)) // again, after an answer that was lost
		}
		for range acts {
			w.act()
		}
		for range 2 {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			f := facts.New(facts.Options{Store: w.store, Sink: e, Every: time.Millisecond})
			go func() { done <- f.Run(ctx) }()
			w.settle(e)
			for range 10 {
				w.act()
			}
			w.settle(e)
			cancel()
			w.check(<-done)
		}
		if e.resets != round+1 {
			t.Fatalf("store %d: everything was told %d times", round, e.resets)
		}
	}
}
