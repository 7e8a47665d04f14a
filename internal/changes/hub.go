package changes

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
	"github.com/terselink/terse/internal/sleep"
)

// Transport carries messages from each node to all, itself included. It may lose, repeat, delay and reorder them.
type Transport interface {
	// Publish sends a message. It must end with ctx; when it does not work it should say so at once.
	Publish(ctx context.Context, message []byte) error
	// Receive calls got for every message, whose bytes are borrowed, until what it listens on fails or ctx ends, and
	// returns why. It calls listening once, before the first message and when none is missed any more.
	Receive(ctx context.Context, listening func(), got func(message []byte)) error
}

// Feed is what is read of a store.
type Feed interface {
	Changes(ctx context.Context, after uint64, limit int) ([]terse.Change, error)
	// FeedHead returns a position such that every change that Changes does not show yet has a larger Seq.
	FeedHead(ctx context.Context) (uint64, error)
}

// Target applies changes to what this node keeps in memory. Methods may be called from several goroutines; an
// error that matches terse.ErrUnavailable makes the change come again, every other is logged.
type Target interface {
	// Link is told of a link whose code is known. It must not wait.
	Link(e Event)
	// Links is told that many links with generated codes were created. It must not wait.
	Links()
	// Failure is told of a failed attempt at another node. It must not wait.
	Failure(e Event)
	// Feed is told of links that the feed names by number alone: inserted runs, changed links with their versions and the
	// last versions of deleted ones.
	Feed(ctx context.Context, inserted []terse.Run, updated, deleted map[terse.LinkNumber]uint64) error
	// Document is told that a document was put or deleted.
	Document(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) error
	// Everything is told that changes were missed which nobody can name any more.
	Everything(ctx context.Context) error
}

// Options configure a Hub. Zero values mean the defaults named.
type Options struct {
	Feed      Feed      // required
	Target    Target    // required
	Transport Transport // required
	// Follows says which documents Target is told of. Required.
	Follows func(w terse.WorkspaceID, kind terse.Kind, id string) bool
	Log     *slog.Logger // default: discarded
	// Moved is called when the feed was followed to another position (Position). It must not wait. nil: nobody is.
	Moved func()

	Every      time.Duration // between reads of the feed; default 500 ms
	Beat       time.Duration // between heartbeats; default 200 ms
	SendWithin time.Duration // for one message; default 500 ms
	ReadWithin time.Duration // for one read of the feed or of a document; default 5 s
	MaxPending int           // events that wait to be sent; default 65,536
}

// Hub publishes what this node writes and applies what others have written. Use New, then Start and Stop.
// It is a prometheus.Collector.
type Hub struct {
	o      Options
	sender uint64
	recent recent
	stats  counters

	mu      sync.Mutex // guards what waits to be sent
	pending []Event
	skipped bool // something was dropped: a number has to be skipped

	send chan struct{} // something waits to be sent
	wake chan struct{} // the feed is to be read now
	docs chan Event    // documents that others have written

	peersMu sync.Mutex
	peers   map[uint64]peer

	position atomic.Uint64
	polled   atomic.Int64 // when the feed was last read to its end, Unix milliseconds
	heard    atomic.Int64 // when this node last heard itself; 0: never
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup

	polls chan struct{} // holds a token while the feed is read
}

// peer is what is known of another sender.
type peer struct {
	number uint64
	at     time.Time
}

const (
	// feedPage is how many changes are read at once.
	feedPage = 1000
	// missedAfter is how long the feed may have been out of reach before changes may have been forgotten: stores keep
	// them for a day.
	missedAfter = 20 * time.Hour
	// manyCreated is how many events may wait before new aliases are told of as many links at once: all that either does is
	// that codes no longer count as absent.
	manyCreated = 100
	// peerKeep is how long a silent sender is remembered.
	peerKeep = time.Minute
	// maxPeers bounds the senders that are remembered.
	maxPeers = 1000
	// deafAfter is how long a node that does not hear itself counts as connected.
	deafAfter = 3 * time.Second
	// docsQueue is how many documents may wait; more are left to the feed.
	docsQueue = 1024
)

// New returns a Hub that does nothing yet. It reads where the feed is now: what was read from the store before this call
// is not kept up to date.
func New(ctx context.Context, o Options) (*Hub, error) {
	if o.Feed == nil || o.Target == nil || o.Transport == nil || o.Follows == nil {
		return nil, terse.Invalid("changes", "Feed, Target, Transport and Follows are required")
	}
	setDefault(&o.Every, 500*time.Millisecond)
	setDefault(&o.Beat, 200*time.Millisecond)
	setDefault(&o.SendWithin, 500*time.Millisecond)
	setDefault(&o.ReadWithin, 5*time.Second)
	setDefault(&o.MaxPending, 1<<16)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	began := time.Now()
	at, err := o.Feed.FeedHead(ctx)
	if err != nil {
		return nil, err
	}
	h := &Hub{
		o: o, sender: rand.Uint64(), peers: make(map[uint64]peer),
		send: make(chan struct{}, 1), wake: make(chan struct{}, 1), docs: make(chan Event, docsQueue),
		polls: make(chan struct{}, 1),
	}
	h.position.Store(at)
	h.polled.Store(began.UnixMilli())
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h, nil
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Start lets the hub send, listen and follow the feed, until Stop.
func (h *Hub) Start() {
	h.running.Go(h.sendAll)
	h.running.Go(h.listen)
	h.running.Go(h.follow)
	h.running.Go(h.readDocuments)
}

// Stop sends what waits, within ctx, and ends everything. A second Stop is nothing.
func (h *Hub) Stop(ctx context.Context) error {
	h.cancel()
	done := make(chan struct{})
	go func() { h.running.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Publish tells the other nodes of a write of this one, after it is durable. It never waits.
func (h *Hub) Publish(e Event) {
	switch {
	case len(e.Code) > maxText || len(e.DocID) > maxText:
		return // nothing has such a name
	case e.Kind == KindLink && !e.Created: // of a new link nobody has a version
		h.recent.note(e.Number, e.knownVersion())
	case e.Kind == KindDocument && !h.o.Follows(e.Workspace, e.DocKind, e.DocID):
		return
	}
	h.mu.Lock()
	if e.Created && len(h.pending) >= manyCreated {
		e = Event{Kind: KindLinks}
	}
	switch last := len(h.pending) - 1; {
	case e.Kind == KindLinks && last >= 0 && h.pending[last].Kind == KindLinks: // says the same
	case last+1 >= h.o.MaxPending:
		h.skipped = true
		h.stats.dropped.Add(1)
	default:
		h.pending = append(h.pending, e)
	}
	h.mu.Unlock()
	select {
	case h.send <- struct{}{}:
	default:
	}
}

// knownVersion is the version of a link after the event.
func (e *Event) knownVersion() uint64 {
	if e.Deleted {
		return deletedVersion
	}
	return e.Version
}

// take returns the next events to send; skipped says that some were dropped before them.
func (h *Hub) take() (events []Event, skipped bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := min(len(h.pending), maxEvents)
	events, skipped = h.pending[:n:n], h.skipped
	if h.pending = h.pending[n:]; len(h.pending) == 0 {
		h.pending = nil
	}
	h.skipped = false
	return events, skipped
}

// sendAll sends what is published, and a heartbeat at least every Beat.
func (h *Hub) sendAll() {
	beat := time.NewTicker(h.o.Beat)
	defer beat.Stop()
	number := uint64(0)
	for {
		select {
		case <-h.ctx.Done():
			// What was written just now: once more, for as long as one message may take.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(h.ctx), h.o.SendWithin)
			defer cancel()
			for more := true; more && ctx.Err() == nil; {
				events, skipped := h.take()
				if more = len(events) > 0; more || skipped {
					h.sendOne(ctx, events, skipped, &number)
				}
			}
			return
		case <-h.send:
		case <-beat.C:
		}
		for more := true; more && h.ctx.Err() == nil; {
			events, skipped := h.take()
			h.sendOne(h.ctx, events, skipped, &number)
			more = len(events) == maxEvents
		}
	}
}

// sendOne sends a message with the events, or a heartbeat.
func (h *Hub) sendOne(ctx context.Context, events []Event, skipped bool, number *uint64) {
	if skipped {
		*number++
	}
	if len(events) > 0 {
		*number++
	}
	ctx, cancel := context.WithTimeout(ctx, h.o.SendWithin)
	defer cancel()
	err := h.o.Transport.Publish(ctx, appendMessage(nil, &message{sender: h.sender, number: *number, events: events}))
	switch {
	case err != nil:
		h.stats.sendErrors.Add(1)
		h.stats.lost.Add(uint64(len(events))) // the number tells the others
	case len(events) > 0:
		h.stats.sent.Add(uint64(len(events)))
	}
}

// listen receives messages, again and again.
func (h *Hub) listen() {
	last := "" // what was logged, once until it changes
	for pause := 100 * time.Millisecond; h.ctx.Err() == nil; {
		err := h.o.Transport.Receive(h.ctx, func() {
			pause = 100 * time.Millisecond
			if last != "" {
				last = ""
				h.o.Log.Info("changes: the other nodes are heard again")
			}
			h.stats.subscriptions.Add(1)
			h.heard.Store(time.Now().UnixMilli())
			h.Wake() // what was said before
		}, h.hear)
		if h.ctx.Err() != nil {
			return
		}
		if err != nil && err.Error() != last {
			last = err.Error()
			h.o.Log.Warn("changes: nothing is heard from the other nodes; the feed of the store is followed", "error", err)
		}
		if sleep.For(h.ctx, pause/2+rand.N(pause)) != nil {
			return
		}
		pause = min(2*pause, 2*time.Second)
	}
}

// hear takes a message.
func (h *Hub) hear(b []byte) {
	m, err := parseMessage(b)
	if err != nil {
		h.stats.badMessages.Add(1)
		return
	}
	now := time.Now()
	if m.sender == h.sender {
		h.heard.Store(now.UnixMilli())
		return
	}
	if h.missed(&m, now) {
		h.stats.gaps.Add(1)
		h.Wake()
	}
	h.stats.received.Add(uint64(len(m.events)))
	for _, e := range m.events {
		h.apply(e)
	}
}

// missed notes the number of a message and reports whether one of its sender before it was lost.
func (h *Hub) missed(m *message, now time.Time) bool {
	h.peersMu.Lock()
	defer h.peersMu.Unlock()
	p, known := h.peers[m.sender]
	next := p.number
	if len(m.events) > 0 {
		next++
	}
	gap := !known || m.number > next
	if !known && len(h.peers) >= maxPeers {
		clear(h.peers)
	}
	for s, o := range h.peers {
		if now.Sub(o.at) > peerKeep {
			delete(h.peers, s)
		}
	}
	h.peers[m.sender] = peer{max(p.number, m.number), now}
	return gap
}

// apply applies an event of another node, or has it applied.
func (h *Hub) apply(e Event) {
	switch e.Kind {
	case KindLink:
		h.o.Target.Link(e)
		h.recent.note(e.Number, e.knownVersion())
	case KindLinks:
		h.o.Target.Links()
	case KindFailure:
		h.o.Target.Failure(e)
	case KindDocument:
		if !h.o.Follows(e.Workspace, e.DocKind, e.DocID) {
			return
		}
		select {
		case h.docs <- e:
		default:
			h.Wake()
		}
	}
}

// readDocuments applies documents that messages name.
func (h *Hub) readDocuments() {
	for {
		select {
		case <-h.ctx.Done():
			return
		case e := <-h.docs:
			if err := h.document(document{e.Workspace, e.DocKind, e.DocID}); err != nil {
				h.Wake() // the feed has it, too
			}
		}
	}
}

// document names a document.
type document struct {
	w    terse.WorkspaceID
	kind terse.Kind
	id   string
}

// document tells the target of a document. It returns an error only if it has to be told again.
func (h *Hub) document(s document) error {
	ctx, cancel := context.WithTimeout(h.ctx, h.o.ReadWithin)
	defer cancel()
	return h.settle(h.o.Target.Document(ctx, s.w, s.kind, s.id), "kind", s.kind, "id", s.id)
}

// settle returns an error of the target if the change has to come again, and logs any other.
func (h *Hub) settle(err error, what ...any) error {
	if err == nil {
		return nil
	}
	h.stats.applyErrors.Add(1)
	if errors.Is(err, terse.ErrUnavailable) || h.ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	h.o.Log.Error("changes: a change of another node is not in force on this one", append(what, "error", err)...)
	return nil
}

// Wake has the feed read now.
func (h *Hub) Wake() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// follow reads the feed until the hub stops.
func (h *Hub) follow() {
	t := time.NewTicker(h.o.Every)
	defer t.Stop()
	failing := false
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-h.wake:
		case <-t.C:
		}
		err := h.poll(h.ctx)
		if err != nil && h.ctx.Err() == nil {
			h.stats.pollErrors.Add(1)
			if !failing {
				h.o.Log.Warn("changes: the feed of the store cannot be followed: caches go on from what they know", "error", err)
			}
		} else if failing && err == nil {
			h.o.Log.Info("changes: the feed of the store is followed again")
		}
		failing = err != nil
	}
}

// CatchUp applies every change that the feed shows at the time of the call. Returns why it could not be read; if ctx ends, an
// error that wraps ctx.Err().
func (h *Hub) CatchUp(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.ctx, cancel)()
	return h.poll(ctx)
}

// poll applies what the feed has that is new, until ctx ends. What it has begun to apply it applies.
func (h *Hub) poll(ctx context.Context) error {
	select {
	case h.polls <- struct{}{}:
		defer func() { <-h.polls }()
	case <-ctx.Done():
		return fmt.Errorf("wait for the feed: %w", ctx.Err())
	}
	if time.Since(time.UnixMilli(h.polled.Load())) > missedAfter {
		if err := h.startOver(ctx, "the store was out of reach for so long that changes may have been forgotten"); err != nil {
			return err
		}
	}
	for ctx.Err() == nil {
		began := time.Now()
		within, cancel := context.WithTimeout(ctx, h.o.ReadWithin)
		list, err := h.o.Feed.Changes(within, h.position.Load(), feedPage)
		cancel()
		if _, forgotten := errors.AsType[*terse.ForgottenError](err); forgotten {
			if err := h.startOver(ctx, "the store has forgotten changes that were not read"); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if err := h.applyFeed(list); err != nil {
			return err
		}
		if len(list) > 0 {
			h.moveTo(list[len(list)-1].Seq)
		}
		if len(list) < feedPage {
			h.polled.Store(began.UnixMilli())
			h.stats.polls.Add(1)
			return nil
		}
	}
	return fmt.Errorf("read the feed: %w", ctx.Err())
}

// startOver takes everything for old and goes on from the end of the feed.
func (h *Hub) startOver(ctx context.Context, why string) error {
	ctx, cancel := context.WithTimeout(ctx, h.o.ReadWithin)
	defer cancel()
	began := time.Now()
	at, err := h.o.Feed.FeedHead(ctx)
	if err != nil {
		return err
	}
	// As long as it takes: with thousands of domains it reads thousands of times.
	if err := h.settle(h.o.Target.Everything(h.ctx)); err != nil {
		return err
	}
	h.o.Log.Warn("changes: everything is read again", "because", why)
	h.moveTo(at)
	h.polled.Store(began.UnixMilli())
	return nil
}

func (h *Hub) moveTo(position uint64) {
	h.position.Store(position)
	if h.o.Moved != nil {
		h.o.Moved()
	}
}

// Position returns how far the feed was followed: every change up to it has been applied here. fresh says that its end was
// reached within the last minute.
func (h *Hub) Position() (at uint64, fresh bool) {
	return h.position.Load(), time.Since(time.UnixMilli(h.polled.Load())) < time.Minute
}

// HeardWithin reports whether all that other nodes had written d ago is in force here, as far as the clock tells: one that was set
// back says no.
func (h *Hub) HeardWithin(d time.Duration) bool {
	return time.Since(time.UnixMilli(h.polled.Load())).Abs() < d
}

// Told returns the newest version of a link that this node has written or heard of lately; the largest number if it is gone.
func (h *Hub) Told(n terse.LinkNumber) (version uint64, ok bool) { return h.recent.version(n) }

// applyFeed applies a page of the feed, as a whole or not at all.
func (h *Hub) applyFeed(list []terse.Change) error {
	var inserted []terse.Run
	updated, deleted := map[terse.LinkNumber]uint64{}, map[terse.LinkNumber]uint64{}
	documents := map[document]struct{}{}
	for i := range list {
		switch c := &list[i]; c.Kind {
		case terse.ChangeInserted:
			inserted = append(inserted, c.Runs...)
		case terse.ChangeUpdated:
			for _, r := range c.Runs {
				if !h.recent.knows(r.First, c.Version) {
					updated[r.First] = c.Version
				}
			}
		case terse.ChangeDeleted:
			for _, r := range c.Runs {
				if !h.recent.knows(r.First, deletedVersion) {
					deleted[r.First] = c.Version
				}
			}
		case terse.ChangeDocument:
			if !h.o.Follows(c.Workspace, c.DocKind, c.DocID) {
				continue
			}
			documents[document{c.Workspace, c.DocKind, c.DocID}] = struct{}{}
		}
	}
	// Documents first: a domain may say what codes the links have.
	for s := range documents {
		if err := h.document(s); err != nil {
			return err
		}
	}
	if len(inserted)+len(updated)+len(deleted) > 0 {
		ctx, cancel := context.WithTimeout(h.ctx, h.o.ReadWithin)
		err := h.settle(h.o.Target.Feed(ctx, inserted, updated, deleted))
		cancel()
		if err != nil {
			return err
		}
		for n, v := range updated {
			h.recent.note(n, v)
		}
		for n := range deleted {
			h.recent.note(n, deletedVersion)
		}
	}
	h.stats.applied.Add(uint64(len(updated) + len(deleted) + len(documents)))
	return nil
}
