package live

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/sleep"
)

// Transport carries messages between the hubs of all nodes. It may lose them, but neither repeats nor changes any; it also
// brings a hub its own.
type Transport interface {
	// Publish sends a message. It must end with ctx; when it does not work it should say so at once.
	Publish(ctx context.Context, message []byte) error
	// Receive calls got for every message, whose bytes are borrowed, until what it listens on fails or ctx ends, and
	// returns why. It calls listening once, before the first message.
	Receive(ctx context.Context, listening func(), got func(message []byte)) error
}

const (
	// MaxAsked is how many feeds a hub asks others for, and how many it tells others of; views beyond it are of one node, and say so.
	MaxAsked = 200
	// askedFor is how long others are told of a feed after somebody has asked.
	askedFor = 5 * time.Second
	// reportFor is how long a node counts as seen after it has told of a feed.
	reportFor = 3 * time.Second
	// hubFor is how long a hub is remembered that says nothing.
	hubFor = time.Minute
	// maxHubs bounds what is remembered of hubs.
	maxHubs = 1000
	// letterRows is how many clicks a letter has before the next one is begun: some 40 KB.
	letterRows = 40
	// outbox bounds the letters that wait for a transport that is slow.
	outbox = 64
	// publishWithin bounds the wait for it.
	publishWithin = 2 * time.Second
	// receivePause is the pause between two attempts to listen.
	receivePause = 500 * time.Millisecond
	// countEvery is how often nodes are counted while somebody watches.
	countEvery = 5 * time.Second
	// countedFor is how long a count says that no node is missing.
	countedFor = 3 * countEvery
	// sickFor is how long others are told nothing after the clicks here could not be read.
	sickFor = 10 * time.Second
)

// letter is what hubs send each other: what they watch, and what they have.
type letter struct {
	From    string     `json:"from"` // a hub
	Seq     uint64     `json:"seq"`  // grows by one with each letter of the hub
	Asks    []wireKey  `json:"asks,omitempty"`
	Reports []wireFeed `json:"reports,omitempty"`
}

// wireKey names a feed.
type wireKey struct {
	Workspace terse.WorkspaceID `json:"w"`
	Link      terse.LinkNumber  `json:"l,omitempty"`
	Campaign  terse.CampaignID  `json:"c,omitempty"`
	Domain    string            `json:"d,omitempty"`
	Tag       string            `json:"t,omitempty"`
}

func wireKeyOf(k feedKey) wireKey {
	return wireKey{k.workspace, k.scope.Link, k.scope.Campaign, k.scope.Domain, k.scope.Tag}
}

func (k wireKey) key() feedKey {
	return feedKey{k.Workspace, analytics.Scope{Link: k.Link, Campaign: k.Campaign, Domain: k.Domain, Tag: k.Tag}}
}

// wireFeed is what a second brought to one node.
type wireFeed struct {
	Key     wireKey          `json:"key"`
	Clicks  int64            `json:"clicks,omitempty"`
	Bots    int64            `json:"bots,omitempty"`
	Refused int64            `json:"refused,omitempty"`
	LagMs   int64            `json:"lag_ms,omitempty"`
	Gap     bool             `json:"gap,omitempty"`
	Rows    []jsontext.Value `json:"rows,omitempty"` // export.Row
}

// others is what a feed has to do with other nodes.
type others struct {
	asked time.Time // until then others are told of the feed; zero: nobody has asked
	asks  bool      // others are asked for it
	share int64     // how many clicks of this node are shown in a second
	quota int       // how many clicks of this node others are told of in a second

	own                   Counters // of this node, in this second
	rows                  []jsontext.Value
	gap                   bool
	shownHere, shownThere int64
	seen                  map[string]time.Time // hubs that told of the feed
}

// takes counts a click for the others, and reports whether they are to see it.
func (o *others) takes(of func(*Counters)) bool {
	if o.asked.IsZero() {
		return false
	}
	of(&o.own)
	return len(o.rows) < o.quota
}

// network is what a hub knows of the others. Nil: there are none.
type network struct {
	t     Transport
	count func(context.Context) (int, error)
	id    string
	out   chan []byte
	watch chan struct{} // has room for one: somebody watches who is the first

	// Guarded by the mu of the hub.
	seq       uint64
	hubs      map[string]hubSeen
	listening bool
	hole      bool      // letters are missing in this second
	nodes     int       // that there should be, this one included if it records clicks
	countedAt time.Time // when nodes was; zero: not since the first watcher came
	sick      time.Time // until then others are told nothing
}

type hubSeen struct {
	seq uint64
	at  time.Time
}

// JoinOptions configure Join. Every field is required.
type JoinOptions struct {
	Transport Transport
	// Nodes counts the living nodes that record clicks, this one included.
	Nodes func(context.Context) (int, error)
}

// Join lets the view show the clicks of all nodes, and those of this one elsewhere. It is called once at most. What the transport
// loses is missing in the view, which says so; nobody waits for it. The transport is in use until Close returns.
func (h *Hub) Join(o JoinOptions) {
	n := &network{t: o.Transport, count: o.Nodes, id: rand.Text(), out: make(chan []byte, outbox), watch: make(chan struct{}, 1), hubs: map[string]hubSeen{}}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.net = n
	h.wg.Go(func() { h.listen(n) })
	h.wg.Go(func() { h.publish(n) })
	h.wg.Go(func() { h.countNodes(n) })
}

// listen receives letters until the hub ends.
func (h *Hub) listen(n *network) {
	for {
		err := n.t.Receive(h.life, func() { h.connected(n, true) }, h.receive)
		h.connected(n, false)
		if h.life.Err() != nil {
			return
		}
		h.o.Log.Debug("the live view hears nothing of other nodes", "error", err)
		if sleep.For(h.life, receivePause) != nil {
			return
		}
	}
}

func (h *Hub) connected(n *network, yes bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n.listening = yes
	n.hole = true // what came meanwhile is not known
}

// publish sends letters until the hub ends. What a transport did not take in time is not of now any more.
func (h *Hub) publish(n *network) {
	for {
		select {
		case b := <-n.out:
			ctx, cancel := context.WithTimeout(h.life, publishWithin)
			err := n.t.Publish(ctx, b)
			cancel()
			if err == nil {
				continue
			}
			h.mu.Lock()
			n.hole = true
			h.mu.Unlock()
			for range len(n.out) {
				<-n.out
			}
		case <-h.life.Done():
			return
		}
	}
}

// countAgain has nodes counted now: until then nobody knows whether one is missing. The caller holds mu.
func (n *network) countAgain() {
	n.countedAt = time.Time{}
	select {
	case n.watch <- struct{}{}:
	default:
	}
}

// countNodes keeps the number of nodes while somebody watches here.
func (h *Hub) countNodes(n *network) {
	for {
		h.mu.Lock()
		watched := h.watchers > 0
		h.mu.Unlock()
		began := h.o.Clock()
		if watched {
			ctx, cancel := context.WithTimeout(h.life, countEvery)
			nodes, err := n.count(ctx)
			cancel()
			if err == nil { // else those of before
				h.mu.Lock()
				n.nodes, n.countedAt = nodes, began
				h.mu.Unlock()
			}
		}
		next := time.NewTimer(countEvery)
		select {
		case <-next.C:
		case <-n.watch:
			next.Stop()
		case <-h.life.Done():
			next.Stop()
			return
		}
	}
}

// post puts a letter into the outbox. The caller holds mu.
func (n *network) post(l letter) {
	n.seq++
	l.From, l.Seq = n.id, n.seq
	b, err := json.Marshal(l, json.Deterministic(true))
	if err != nil { // a tag or a host that is not UTF-8, which the API refuses
		n.hole = true
		return
	}
	select {
	case n.out <- b:
	default: // whoever receives the next one sees that one is missing
		n.hole = true
	}
}

// receive takes a letter of a hub.
func (h *Hub) receive(b []byte) {
	var l letter
	if err := json.Unmarshal(b, &l); err != nil || l.From == "" {
		h.o.Log.Debug("a letter of the live view cannot be read", "error", err)
		return
	}
	now := h.o.Clock()
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.net
	if l.From == n.id || h.closed || !n.follows(&l, now) {
		return
	}
	for _, k := range l.Asks {
		h.ask(k.key(), now)
	}
	for i := range l.Reports {
		if f := h.feeds[l.Reports[i].Key.key()]; f != nil && f.ring != nil {
			h.merge(f, l.From, &l.Reports[i], now)
		}
	}
}

// follows reports whether a letter is later than those before it of the hub.
func (n *network) follows(l *letter, now time.Time) bool {
	was, known := n.hubs[l.From]
	if known && l.Seq <= was.seq || !known && len(n.hubs) >= maxHubs {
		return false
	}
	n.hole = n.hole || known && l.Seq != was.seq+1
	n.hubs[l.From] = hubSeen{l.Seq, now}
	return true
}

// ask notes that another hub watches a feed. The caller holds mu.
func (h *Hub) ask(k feedKey, now time.Time) {
	f := h.feeds[k]
	if h.o.Open == nil || k.scope.Tag != "" && h.o.Tags == nil || now.Before(h.net.sick) {
		return
	}
	if f == nil {
		if len(h.feeds) >= MaxFeeds {
			h.forgetIdle()
		}
		if len(h.feeds) >= MaxFeeds {
			return
		}
	}
	if f == nil || f.other.asked.IsZero() {
		if h.asked >= MaxAsked {
			return
		}
		f = h.feed(k)
		h.asked++
		f.other.quota = int(h.share())
	}
	f.other.asked = now.Add(askedFor)
	h.awake()
}

// merge adds what another node has to a feed that somebody watches here. The caller holds mu.
func (h *Hub) merge(f *feed, from string, r *wireFeed, now time.Time) {
	if f.other.seen == nil {
		f.other.seen = map[string]time.Time{}
	}
	f.other.seen[from] = now
	f.count.Clicks += r.Clicks
	f.count.Bots += r.Bots
	f.count.Refused += r.Refused
	f.count.Total += r.Clicks + r.Bots + r.Refused
	f.count.LagMs = max(f.count.LagMs, r.LagMs)
	if r.Gap {
		h.send(f, f.gap())
	}
	for _, row := range r.Rows {
		if f.count.Shown >= MaxSampled {
			return
		}
		f.count.Shown++
		f.other.shownThere++
		h.send(f, f.message(EventClick, row))
	}
}

// share returns how many of the clicks of a second are of one node. The caller holds mu.
func (h *Hub) share() int64 {
	if h.net == nil {
		return MaxSampled
	}
	return int64(max(1, MaxSampled/max(1, h.net.nodes, len(h.net.hubs)+1)))
}

// mark says in the counters of a second how whole they are, before they are sent. The caller holds mu.
func (h *Hub) mark(f *feed, now time.Time) {
	n := h.net
	if h.o.Open != nil {
		f.count.Nodes = 1
	}
	if n == nil {
		return
	}
	for id, at := range f.other.seen {
		if now.Sub(at) > reportFor {
			delete(f.other.seen, id)
		}
	}
	f.count.Nodes += len(f.other.seen)
	f.count.Partial = !n.listening || n.hole || now.Sub(n.countedAt) > countedFor || f.count.Nodes < n.nodes
}

// report tells the others of the second that ends, and begins the next one. The caller holds mu.
func (h *Hub) report(now time.Time, lag int64) {
	n := h.net
	share := h.share()
	if n != nil {
		n.hole = false // the counters have said it
	}
	var asks []wireKey
	var reports []wireFeed
	rows := 0
	flush := func() {
		if len(reports) > 0 {
			n.post(letter{Reports: reports})
			reports, rows = nil, 0
		}
	}
	for k, f := range h.feeds {
		o := &f.other
		// What other nodes did not use of the last second is free for this one.
		o.share, o.shownHere, o.shownThere = max(share, MaxSampled-o.shownThere), 0, 0
		if n == nil {
			continue
		}
		if f.ring != nil && !o.asks && h.asking < MaxAsked {
			o.asks = true
			h.asking++
		}
		if o.asks {
			asks = append(asks, wireKeyOf(k))
		}
		if o.asked.IsZero() {
			continue
		}
		reports = append(reports, wireFeed{Key: wireKeyOf(k), Clicks: o.own.Clicks, Bots: o.own.Bots, Refused: o.own.Refused, LagMs: lag, Gap: o.gap, Rows: o.rows})
		rows += len(o.rows)
		o.own, o.rows, o.gap, o.quota = Counters{}, nil, false, int(share)
		if !now.Before(o.asked) {
			o.asked = time.Time{}
			h.asked--
		}
		if rows >= letterRows {
			flush()
		}
	}
	if n == nil {
		return
	}
	flush()
	if len(asks) > 0 {
		n.post(letter{Asks: asks})
	}
	for id, seen := range n.hubs {
		if now.Sub(seen.at) > hubFor {
			delete(n.hubs, id)
		}
	}
}
