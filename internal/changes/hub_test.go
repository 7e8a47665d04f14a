package changes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/terselink/terse"
)

// wire is a Transport between hubs of one process, which can be broken.
type wire struct {
	mu        sync.Mutex
	listeners map[*listener]bool
	down      bool
	drop      func(m *message) bool // nil: nothing is lost
	block     chan struct{}         // not nil: Publish waits for it
}

type listener struct {
	got  chan []byte
	over chan struct{}
}

var errDown = errors.New("down")

func newWire() *wire { return &wire{listeners: map[*listener]bool{}} }

func (w *wire) Publish(ctx context.Context, b []byte) error {
	w.mu.Lock()
	block := w.block
	w.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return errDown
	}
	m, err := parseMessage(b)
	if err != nil {
		return err
	}
	if w.drop != nil && w.drop(&m) {
		return nil
	}
	for l := range w.listeners {
		l.got <- slices.Clone(b)
	}
	return nil
}

func (w *wire) Receive(ctx context.Context, listening func(), got func([]byte)) error {
	l := &listener{got: make(chan []byte, 1000), over: make(chan struct{})}
	w.mu.Lock()
	if w.down {
		w.mu.Unlock()
		return errDown
	}
	w.listeners[l] = true
	w.mu.Unlock()
	listening()
	for {
		select {
		case b := <-l.got:
			got(b)
		case <-l.over:
			return errDown
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *wire) set(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
	if down {
		for l := range w.listeners {
			close(l.over)
			delete(w.listeners, l)
		}
	}
}

// feed is the feed of a store.
type feed struct {
	mu   sync.Mutex
	list []terse.Change
	err  error
	// floor is up to where changes were forgotten.
	floor uint64
}

func (f *feed) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.floor = uint64(len(f.list))
}

func (f *feed) add(c terse.Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.Seq = uint64(len(f.list)) + 1
	f.list = append(f.list, c)
}

func (f *feed) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *feed) Changes(_ context.Context, after uint64, limit int) ([]terse.Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	if after < f.floor {
		return nil, &terse.ForgottenError{Floor: f.floor}
	}
	rest := f.list[min(after, uint64(len(f.list))):]
	return slices.Clone(rest[:min(limit, len(rest))]), nil
}

func (f *feed) FeedHead(context.Context) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return uint64(len(f.list)), f.err
}

// memory is what a node keeps: the newest version that it was told of.
type memory struct {
	mu         sync.Mutex
	versions   map[terse.LinkNumber]uint64
	gone       map[terse.LinkNumber]bool
	documents  []string
	links      int
	failures   []string
	everything int
	err        error // of Document
}

func newMemory() *memory {
	return &memory{versions: map[terse.LinkNumber]uint64{}, gone: map[terse.LinkNumber]bool{}}
}

func (m *memory) Link(e Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.versions[e.Number] = max(m.versions[e.Number], e.Version)
	m.gone[e.Number] = m.gone[e.Number] || e.Deleted
}

func (m *memory) Links() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.links++
}

func (m *memory) Failure(e Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failures = append(m.failures, string(e.DocKind)+" "+e.DocID)
}

func (m *memory) Feed(_ context.Context, inserted []terse.Run, updated, deleted map[terse.LinkNumber]uint64) error {
	if len(inserted) > 0 {
		m.Links()
	}
	for n, v := range updated {
		m.Link(Event{Number: n, Version: v})
	}
	for n, v := range deleted {
		m.Link(Event{Number: n, Version: v, Deleted: true})
	}
	return nil
}

func (m *memory) Document(_ context.Context, w terse.WorkspaceID, kind terse.Kind, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	m.documents = append(m.documents, fmt.Sprintf("%d %s %s", w, kind, id))
	return nil
}

func (m *memory) Everything(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.everything++
	return nil
}

func (m *memory) version(n terse.LinkNumber) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.versions[n]
}

// node is a hub with its memory.
type node struct {
	*Hub
	memory *memory
}

func newNode(t *testing.T, f *feed, w *wire, set ...func(*Options)) *node {
	t.Helper()
	m := newMemory()
	o := Options{
		Feed: f, Target: m, Transport: w,
		Follows: func(_ terse.WorkspaceID, kind terse.Kind, _ string) bool { return kind == terse.KindDomain },
	}
	for _, s := range set {
		s(&o)
	}
	h, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	h.Start()
	t.Cleanup(func() {
		if err := h.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return &node{h, m}
}

// write is a write of a link at a node.
func (n *node) write(f *feed, link terse.LinkNumber, version uint64) {
	f.add(terse.Change{Kind: terse.ChangeUpdated, Version: version, Runs: []terse.Run{{First: link, Count: 1}}})
	n.Publish(Event{Kind: KindLink, Number: link, Code: "code", Version: version})
}

func (n *node) has(t *testing.T, link terse.LinkNumber, version uint64) {
	t.Helper()
	if got := n.memory.version(link); got != version {
		t.Fatalf("link %d: version %d, want %d", link, got, version)
	}
}

// TestAtOnce: what one node writes the others know without a tick of any clock, and the writer itself is told nothing.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, w := &feed{}, newWire()
		a, b, c := newNode(t, f, w), newNode(t, f, w), newNode(t, f, w)
		synctest.Wait()
		began := time.Now()
		a.write(f, 1, 2)
		a.Publish(Event{Kind: KindLinks})
		a.Publish(Event{Kind: KindDocument, DocKind: terse.KindDomain, DocID: "go.example.com", Version: 2})
		a.Publish(Event{Kind: KindDocument, DocKind: terse.KindJob, DocID: "job_1", Version: 2}) // nobody follows it
		a.Publish(Event{Kind: KindFailure, DocKind: "api_key", DocID: "192.0.2.1/32"})
		b.Publish(Event{Kind: KindLink, Number: 9, Code: "gone", Version: 4, Deleted: true})
		synctest.Wait()
		if time.Since(began) != 0 {
			t.Fatal("the clock moved")
		}
		for _, n := range []*node{b, c} {
			n.has(t, 1, 2)
			if got := n.memory.documents; !slices.Equal(got, []string{"0 domain go.example.com"}) {
				t.Errorf("documents: %q", got)
			}
			if got := n.memory.failures; !slices.Equal(got, []string{"api_key 192.0.2.1/32"}) {
				t.Errorf("failures: %q", got)
			}
			if n.memory.links != 1 {
				t.Errorf("told of many links %d times", n.memory.links)
			}
		}
		if !c.memory.gone[9] || b.memory.gone[9] || a.memory.version(1) != 0 {
			t.Error("a node was told of its own write, or of nobody's")
		}
		if s := a.Stats(); !s.Connected || s.Sent != 4 || s.Received != 1 {
			t.Errorf("stats of the writer: %+v", s)
		}
		// The feed says the same again, and nobody has to look.
		time.Sleep(time.Second)
		synctest.Wait()
		if s := b.Stats(); s.Applied != 0 {
			t.Errorf("%d changes came by the feed although all had been told", s.Applied)
		}
	})
}

// TestLost: a message that is lost is missed by the next heartbeat, and the feed makes it good.
func TestLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, w := &feed{}, newWire()
		slow := func(o *Options) { o.Every = time.Hour } // the feed is read only when something is missing
		a, b := newNode(t, f, w, slow), newNode(t, f, w, slow)
		time.Sleep(time.Second) // they have heard of each other
		synctest.Wait()
		w.mu.Lock()
		w.drop = func(m *message) bool { return len(m.events) > 0 }
		w.mu.Unlock()
		for i := range uint64(50) {
			before := b.Stats().Gaps
			a.write(f, 1, i+2)
			synctest.Wait()
			if got := b.memory.version(1); got >= i+2 {
				t.Fatal("the message was not lost")
			}
			time.Sleep(200 * time.Millisecond)
			synctest.Wait()
			b.has(t, 1, i+2)
			if got := b.Stats().Gaps; got != before+1 {
				t.Fatalf("%d gaps, want %d", got, before+1)
			}
		}
	})
}

// TestCatchUp: what the feed shows is applied when CatchUp returns, though no message came.
func TestCatchUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, w := &feed{}, newWire()
		w.set(true)
		slow := func(o *Options) { o.Every = time.Hour }
		a, b := newNode(t, f, w, slow), newNode(t, f, w, slow)
		a.write(f, 1, 2)
		if err := b.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.has(t, 1, 2)
		f.fail(terse.ErrUnavailable)
		if err := b.CatchUp(t.Context()); !errors.Is(err, terse.ErrUnavailable) {
			t.Errorf("without the feed: %v", err)
		}
		// Whoever has enough of waiting for another one who reads the feed goes.
		b.polls <- struct{}{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := b.CatchUp(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while the feed is read: %v", err)
		}
		<-b.polls
	})
}

// TestAway: without a transport the feed carries everything, and a transport that comes back is used.
func TestAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, w := &feed{}, newWire()
		a, b := newNode(t, f, w), newNode(t, f, w)
		synctest.Wait()
		w.set(true)
		time.Sleep(5 * time.Second)
		if a.Stats().Connected {
			t.Error("a node counts as connected that hears nothing")
		}
		a.write(f, 1, 2)
		f.add(terse.Change{Kind: terse.ChangeDocument, DocKind: terse.KindDomain, DocID: "go.example.com", Version: 1})
		f.add(terse.Change{Kind: terse.ChangeDeleted, Version: 7, Runs: []terse.Run{{First: 3, Count: 1}}})
		f.add(terse.Change{Kind: terse.ChangeInserted, Runs: []terse.Run{{First: 100, Count: 50}}})
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		b.has(t, 1, 2)
		if !b.memory.gone[3] || b.memory.links != 1 || len(b.memory.documents) != 1 {
			t.Errorf("the feed was not applied: %+v", b.memory)
		}
		w.set(false)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		a.write(f, 1, 3)
		synctest.Wait()
		b.has(t, 1, 3)
		if !a.Stats().Connected || a.Stats().Lost == 0 {
			t.Errorf("stats: %+v", a.Stats())
		}
	})
}

// TestNeverWaits: publishing returns whatever the transport does, holds a bounded number of events, and what was dropped
// is found in the feed.
func TestNeverWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, w := &feed{}, newWire()
		a := newNode(t, f, w, func(o *Options) { o.MaxPending = 100 })
		b := newNode(t, f, w, func(o *Options) { o.Every = time.Hour })
		time.Sleep(time.Second)
		synctest.Wait()
		w.mu.Lock()
		w.block = make(chan struct{})
		w.mu.Unlock()
		began := time.Now()
		for i := range terse.LinkNumber(1000) {
			a.write(f, i+1, 2)
		}
		if time.Since(began) != 0 {
			t.Fatal("publishing waited")
		}
		a.mu.Lock()
		waiting := len(a.pending)
		a.mu.Unlock()
		if dropped := a.Stats().Dropped; waiting > 100 || dropped < 700 {
			t.Errorf("%d events wait, %d were dropped", waiting, dropped)
		}
		w.mu.Lock()
		close(w.block)
		w.block = nil
		w.mu.Unlock()
		time.Sleep(time.Second)
		synctest.Wait()
		for i := range terse.LinkNumber(1000) {
			b.has(t, i+1, 2)
		}
	})
}

// TestManyCreated: the aliases of a bulk request are told of together.
func TestManyCreated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, w := &feed{}, newWire()
		a, b := newNode(t, f, w), newNode(t, f, w)
		synctest.Wait()
		w.mu.Lock()
		w.block = make(chan struct{})
		w.mu.Unlock()
		for i := range terse.LinkNumber(100_000) {
			a.Publish(Event{Kind: KindLink, Number: i + 1, Code: "alias", Version: 1, Created: true})
		}
		a.Publish(Event{Kind: KindLink, Number: 7, Code: "alias", Version: 2})
		a.mu.Lock()
		waiting := len(a.pending)
		a.mu.Unlock()
		if waiting > manyCreated+2 || a.Stats().Dropped != 0 {
			t.Errorf("%d events wait, %d were dropped", waiting, a.Stats().Dropped)
		}
		w.mu.Lock()
		close(w.block)
		w.block = nil
		w.mu.Unlock()
		synctest.Wait()
		b.has(t, 7, 2)
		if b.memory.links == 0 {
			t.Error("nobody was told of the aliases")
		}
	})
}

// TestStoreAway: a change is not passed over because the store was away when it came, or when it was to be applied.
func TestStoreAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, w := &feed{}, newWire()
		a, b := newNode(t, f, w), newNode(t, f, w)
		synctest.Wait()
		b.memory.mu.Lock()
		b.memory.err = terse.ErrUnavailable
		b.memory.mu.Unlock()
		f.add(terse.Change{Kind: terse.ChangeDocument, DocKind: terse.KindDomain, DocID: "go.example.com", Version: 1})
		a.Publish(Event{Kind: KindDocument, DocKind: terse.KindDomain, DocID: "go.example.com", Version: 1})
		f.fail(terse.ErrUnavailable)
		time.Sleep(time.Minute)
		if s := b.Stats(); s.Behind < 50*time.Second || s.PollErrors == 0 {
			t.Errorf("stats while the store is away: %+v", s)
		}
		f.fail(nil)
		time.Sleep(time.Minute)
		b.memory.mu.Lock()
		if len(b.memory.documents) != 0 {
			t.Error("a document was applied that could not be read")
		}
		b.memory.err = nil
		b.memory.mu.Unlock()
		time.Sleep(time.Second)
		synctest.Wait()
		if len(b.memory.documents) == 0 {
			t.Error("the document was passed over")
		}
		// What can never be applied does not hold up what follows.
		b.memory.mu.Lock()
		b.memory.err = errors.New("damaged")
		b.memory.mu.Unlock()
		f.add(terse.Change{Kind: terse.ChangeDocument, DocKind: terse.KindDomain, DocID: "damaged.example.com", Version: 1})
		f.add(terse.Change{Kind: terse.ChangeUpdated, Version: 5, Runs: []terse.Run{{First: 4, Count: 1}}})
		time.Sleep(time.Second)
		synctest.Wait()
		b.has(t, 4, 5)
	})
}

// TestForgotten: after a day without the store a node takes everything for old, once.
func TestForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, w := &feed{}, newWire()
		n := newNode(t, f, w, func(o *Options) { o.Every, o.Beat = time.Minute, time.Hour })
		f.fail(terse.ErrUnavailable)
		time.Sleep(19 * time.Hour)
		f.fail(nil)
		time.Sleep(time.Hour)
		if n.memory.everything != 0 {
			t.Fatal("everything is read again after less than the feed keeps")
		}
		f.fail(terse.ErrUnavailable)
		time.Sleep(30 * time.Hour)
		f.fail(nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		if n.memory.everything != 1 {
			t.Fatalf("everything was read again %d times, want once", n.memory.everything)
		}
	})
}

// TestTrimmed: a store that has forgotten changes before this node read them says so: everything is taken for old, once.
func TestTrimmed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, w := &feed{}, newWire()
		n := newNode(t, f, w, func(o *Options) { o.Every, o.Beat = time.Minute, time.Hour })
		time.Sleep(time.Hour)
		f.fail(terse.ErrUnavailable)
		for range 5 {
			f.add(terse.Change{Kind: terse.ChangeUpdated, Version: 2, Runs: []terse.Run{{First: 7, Count: 1}}})
		}
		f.forget()
		f.fail(nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		if n.memory.everything != 1 {
			t.Fatalf("everything was read again %d times, want once", n.memory.everything)
		}
		f.add(terse.Change{Kind: terse.ChangeUpdated, Version: 3, Runs: []terse.Run{{First: 7, Count: 1}}})
		time.Sleep(time.Hour)
		synctest.Wait()
		n.has(t, 7, 3)
	})
}

// TestStrangers: messages that are damaged, late or repeated do no harm.
func TestStrangers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, w := &feed{}, newWire()
		n := newNode(t, f, w, func(o *Options) { o.Every = time.Hour })
		synctest.Wait()
		for _, b := range [][]byte{nil, []byte("hello"), appendMessage(nil, &everyKind)[:20]} {
			n.hear(b)
		}
		if got := n.Stats().BadMessages; got != 3 {
			t.Errorf("%d bad messages, want 3", got)
		}
		say := func(number uint64, events ...Event) uint64 {
			before := n.Stats().Gaps
			n.hear(appendMessage(nil, &message{sender: n.sender + 1, number: number, events: events}))
			return n.Stats().Gaps - before
		}
		e := Event{Kind: KindLink, Number: 1, Code: "x", Version: 3}
		for i, c := range []struct {
			number uint64
			events []Event
			gap    uint64
		}{
			{4, nil, 1}, // the first of a sender: what was before is not known
			{5, []Event{e}, 0},
			{5, []Event{e}, 0}, // repeated
			{5, nil, 0},
			{7, []Event{e}, 1}, // 6 is missing
			{6, []Event{e}, 0}, // it was late
			{7, nil, 0},
			{8, nil, 1}, // one was not heard
		} {
			if got := say(c.number, c.events...); got != c.gap {
				t.Errorf("message %d: %d gaps, want %d", i, got, c.gap)
			}
		}
		n.has(t, 1, 3)
		for i := range uint64(3 * maxPeers) { // senders that come once
			n.hear(appendMessage(nil, &message{sender: i + 1<<32}))
		}
		if len(n.peers) > maxPeers {
			t.Errorf("%d senders are remembered", len(n.peers))
		}
	})
}

// BenchmarkPublish is what telling the others adds to a write, and to each row of a bulk request that has an alias.
func BenchmarkPublish(b *testing.B) {
	h, err := New(b.Context(), Options{Feed: &feed{}, Target: newMemory(), Transport: newWire(), Follows: func(terse.WorkspaceID, terse.Kind, string) bool { return false }})
	if err != nil {
		b.Fatal(err)
	}
	h.Start()
	defer func() { _ = h.Stop(context.Background()) }()
	b.ReportAllocs()
	n := terse.LinkNumber(0)
	for b.Loop() {
		n++
		h.Publish(Event{Kind: KindLink, Number: n, Code: "alias", Version: 1, Created: true})
	}
}
