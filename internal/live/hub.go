package live

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// Limits of the view.
const (
	MaxSampled  = 20   // clicks of a second that a feed shows
	RingSize    = 500  // messages of a feed that a watcher can resume after
	MaxWatchers = 1000 // of all feeds together
	MaxFeeds    = 1000 // at once; near it a feed does not outlive its last watcher
	queue       = RingSize + 140
	batch       = 4096 // clicks between two looks at the clock
)

// Tail hands out clicks as they are recorded; clicks.Tail is one.
type Tail interface {
	// Next calls fn for clicks, about most of them; fewer: there are no more now.
	Next(ctx context.Context, most int, fn func(*clicks.Event) error) (int, error)
	// Wait returns when there may be more, or with the error of ctx.
	Wait(ctx context.Context) error
	Close() error
}

// Options configure a Hub.
type Options struct {
	Open   func() (Tail, error) // a tail from now on; nil: this node records no clicks, and shows those of others
	Tags   TagSource            // for views of a tag; default: there are none
	Linger time.Duration        // how long a feed outlives its last watcher; default 1 minute
	Clock  func() time.Time     // default time.Now
	Log    *slog.Logger         // default: discarded
}

// Hub is the view of one server. It is safe for concurrent use.
type Hub struct {
	o      Options
	life   context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex // guards what follows, and all feeds and watchers
	feeds    map[feedKey]*feed
	byOwner  map[terse.WorkspaceID][]*feed
	byTag    map[terse.WorkspaceID]map[string]int // feeds of a tag
	watchers int
	running  bool
	closed   bool
	net      *network // nil: Join was not called
	asked    int      // feeds that other hubs have asked for
	asking   int      // feeds that other hubs are asked for
}

// New returns a hub. It reads nothing before somebody watches.
func New(o Options) *Hub {
	if o.Linger == 0 {
		o.Linger = time.Minute
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	life, cancel := context.WithCancel(context.Background())
	return &Hub{o: o, life: life, cancel: cancel, feeds: map[feedKey]*feed{}, byOwner: map[terse.WorkspaceID][]*feed{}, byTag: map[terse.WorkspaceID]map[string]int{}}
}

// Stopping is closed when the hub ends: whoever serves watchers should let them go.
func (h *Hub) Stopping() <-chan struct{} { return h.life.Done() }

// Close drops all watchers and waits until nothing is read any more. Safe to call twice.
func (h *Hub) Close() {
	h.mu.Lock()
	if !h.closed {
		h.closed = true
		h.cancel()
		h.dropAll()
	}
	h.mu.Unlock()
	h.wg.Wait()
}

// Watcher receives the messages of a feed.
type Watcher struct {
	// C is closed when the watcher was too slow, the clicks cannot be read, or the hub ends.
	C   <-chan Message
	c   chan Message
	f   *feed
	hub *Hub
}

// Watch joins the feed of a workspace, or of one thing of it. The messages after lastID come
// first if the feed still has them; if it does not, a message EventGap does. Returns an error
// of code rate_limited if too many watch, unavailable if the hub ends or knows no tags and one is watched.
func (h *Hub) Watch(w terse.WorkspaceID, scope analytics.Scope, lastID string) (*Watcher, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return nil, &terse.Error{Code: terse.CodeUnavailable, Message: "the server is stopping"}
	case scope.Tag != "" && h.o.Tags == nil:
		return nil, &terse.Error{Code: terse.CodeUnavailable, Message: "this server cannot watch a tag"}
	case h.watchers >= MaxWatchers:
		return nil, &terse.Error{Code: terse.CodeRateLimited, Message: "too many live views are open"}
	}
	k := feedKey{w, scope}
	if h.feeds[k] == nil && len(h.feeds) >= MaxFeeds {
		h.forgetIdle()
	}
	f := h.feed(k)
	if f.ring == nil {
		f.ring = new([RingSize]Message)
		if h.net != nil && h.asking < MaxAsked { // now, and again with every second
			f.other.asks = true
			h.asking++
			h.net.post(letter{Asks: []wireKey{wireKeyOf(k)}})
		}
	}
	c := make(chan Message, queue)
	out := &Watcher{C: c, c: c, f: f, hub: h}
	f.watchers[out] = true
	if h.watchers++; h.watchers == 1 && h.net != nil {
		h.net.countAgain()
	}
	f.resume(out, lastID)
	h.awake()
	return out, nil
}

// awake lets clicks be read. The caller holds mu.
func (h *Hub) awake() {
	if !h.running {
		h.running = true
		h.wg.Go(h.run)
	}
}

// Leave ends the watcher. Safe after it was dropped, and twice.
func (w *Watcher) Leave() {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	w.hub.drop(w)
}

// drop lets a watcher go. The caller holds mu.
func (h *Hub) drop(w *Watcher) {
	if !w.f.watchers[w] {
		return
	}
	delete(w.f.watchers, w)
	close(w.c)
	h.watchers--
	w.f.left = h.o.Clock()
}

func (h *Hub) dropAll() {
	for _, f := range h.feeds {
		for w := range f.watchers {
			h.drop(w)
		}
	}
}

// feed returns the feed of a key, made if it is new. The caller holds mu.
func (h *Hub) feed(k feedKey) *feed {
	f := h.feeds[k]
	if f == nil {
		f = newFeed(k)
		f.other.share = h.share()
		h.feeds[k] = f
		h.byOwner[k.workspace] = append(h.byOwner[k.workspace], f)
		if tag := k.scope.Tag; tag != "" {
			if h.byTag[k.workspace] == nil {
				h.byTag[k.workspace] = map[string]int{}
			}
			h.byTag[k.workspace][tag]++
		}
	}
	return f
}

// run reads clicks until no feed is left, the hub ends, or the clicks cannot be read; then
// the watchers are dropped, and come back.
func (h *Hub) run() {
	err := h.read()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running = false
	if err != nil {
		h.o.Log.Error("the live view cannot read clicks", "error", err)
		h.dropAll()
		// Clicks pass unread until somebody comes back: feeds of now could not tell them what is missing.
		clear(h.feeds)
		clear(h.byOwner)
		clear(h.byTag)
		h.asked, h.asking = 0, 0
		if h.net != nil {
			h.net.sick = h.o.Clock().Add(sickFor)
		}
		return
	}
	// Somebody may have come between the last look and now.
	if len(h.feeds) > 0 && !h.closed {
		h.running = true
		h.wg.Go(h.run)
	}
}

func (h *Hub) read() (err error) {
	var tail Tail = noClicks{}
	if h.o.Open != nil {
		tail, err = h.o.Open()
	}
	if err != nil {
		return fmt.Errorf("open the tail of clicks: %w", err)
	}
	defer func() { err = errors.Join(err, tail.Close()) }()
	ctx := h.life
	next := h.o.Clock().Truncate(time.Second).Add(time.Second)
	var newest terse.Millis
	memo := tagMemo{source: h.o.Tags}
	for {
		n, err := tail.Next(ctx, batch, func(ev *clicks.Event) error {
			newest = ev.At
			h.take(ev, h.tagsOf(ctx, &memo, ev))
			return nil
		})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the tail of clicks: %w", err)
		}
		behind := n >= batch
		if now := h.o.Clock(); !now.Before(next) {
			lag := int64(0)
			if behind && newest != 0 {
				lag = max(0, now.UnixMilli()-int64(newest))
			}
			if !h.second(now, lag) {
				return nil
			}
			next = now.Truncate(time.Second).Add(time.Second)
		}
		if behind {
			continue
		}
		pause, cancel := context.WithTimeout(ctx, max(time.Millisecond, next.Sub(h.o.Clock())))
		err = tail.Wait(pause)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("read the tail of clicks: %w", err)
		}
	}
}

// tagsOf returns which of the tags that somebody watches a click has. The store is asked while nothing is locked.
func (h *Hub) tagsOf(ctx context.Context, memo *tagMemo, ev *clicks.Event) (tags []clickTag) {
	h.mu.Lock()
	for tag := range h.byTag[ev.Workspace] {
		tags = append(tags, clickTag{tag: tag})
	}
	h.mu.Unlock()
	if len(tags) == 0 {
		return nil
	}
	now := h.o.Clock()
	for i := range tags {
		tags[i].has, tags[i].known = memo.has(ctx, now, ev, tags[i].tag)
	}
	return tags
}

// take offers a click to the feeds of its workspace.
func (h *Hub) take(ev *clicks.Event, tags []clickTag) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.byOwner[ev.Workspace] {
		switch {
		case !f.wants(ev):
		case f.key.scope.Tag == "" || f.tagged(tags):
			h.send(f, f.take(ev))
		case f.unknown(tags):
			f.other.gap = true
			h.send(f, f.gap())
		}
	}
}

// second ends a second of all feeds and forgets those that nobody watches any more. It
// returns false if none is left.
func (h *Hub) second(now time.Time, lag int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.feeds {
		h.mark(f, now)
		h.send(f, f.second(now, lag))
	}
	h.report(now, lag)
	for k, f := range h.feeds {
		if len(f.watchers) > 0 || now.Sub(f.left) <= h.o.Linger {
			continue
		}
		if f.other.asked.IsZero() {
			delete(h.feeds, k)
			h.forget(f)
		} else if f.ring != nil { // others watch it
			h.stopAsking(f)
			f.rest()
		}
	}
	return len(h.feeds) > 0
}

// forgetIdle forgets the feeds that nobody watches. The caller holds mu.
func (h *Hub) forgetIdle() {
	for k, f := range h.feeds {
		if len(f.watchers) == 0 && f.other.asked.IsZero() {
			delete(h.feeds, k)
			h.forget(f)
		}
	}
}

// stopAsking no longer asks others for a feed.
func (h *Hub) stopAsking(f *feed) {
	if f.other.asks {
		f.other.asks = false
		h.asking--
	}
}

// forget removes a feed from its workspace.
func (h *Hub) forget(f *feed) {
	h.stopAsking(f)
	if of := h.byTag[f.key.workspace]; f.key.scope.Tag != "" {
		if of[f.key.scope.Tag]--; of[f.key.scope.Tag] == 0 {
			delete(of, f.key.scope.Tag)
		}
		if len(of) == 0 {
			delete(h.byTag, f.key.workspace)
		}
	}
	list := h.byOwner[f.key.workspace]
	for i := range list {
		if list[i] == f {
			list = append(list[:i], list[i+1:]...)
			break
		}
	}
	if h.byOwner[f.key.workspace] = list; len(list) == 0 {
		delete(h.byOwner, f.key.workspace)
	}
}

// send hands a message to all watchers of a feed. Whoever has no room for it is dropped.
func (h *Hub) send(f *feed, m Message) {
	if m.Event == "" {
		return
	}
	for w := range f.watchers {
		select {
		case w.c <- m:
		default:
			h.drop(w)
		}
	}
}

// noClicks is the tail of a node that records none.
type noClicks struct{}

func (noClicks) Next(context.Context, int, func(*clicks.Event) error) (int, error) { return 0, nil }

func (noClicks) Wait(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (noClicks) Close() error { return nil }
