package clickstream

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/sleep"
)

// ReceiverOptions configure a Receiver. Every field but Enrich is required.
type ReceiverOptions struct {
	Remote Remote
	// Place returns up to where clicks of a spool are with the engine, durably.
	Place    func(ctx context.Context, spool string) (clicks.Position, error)
	Counters *Counters
	Log      *slog.Logger
	Enrich   clicks.EnrichSettings
}

// Receiver hands out the clicks of the stream. One process at a time may have one. It is not safe for concurrent use.
//
// It hides that the stream is away: there is nothing new then.
type Receiver struct {
	o      ReceiverOptions
	events *clicks.GroupEvents
	spools map[string]*spool
	buf    []Message // read and not looked at yet
	old    bool      // what was handed out before is read first
	after  string    // the last of that
	// rereads is how often this receiver itself has read them again.
	rereads int64
	// taken: something is missing, perhaps because somebody took it who was not allowed to any more.
	taken bool
	size  int      // of the batch: clicks handed out since Written
	moved bool     // somebody will call Written: the place of a spool has moved
	alone bool     // the batch is one entry that may be what ends processes
	batch []string // entries of the batch, and those of batches that could not be said to be done
	tell  map[string]bool
	pause time.Duration
	page  int // entries to read at once
	// behind is when it last was so that senders may wait with clicks.
	behind time.Time
	// held are the entries that hold their spools, by id, and keepTried is when it was last tried to keep a copy of one.
	held      map[string]bool
	keepTried time.Time

	trouble, untold trouble
}

// spool is what is known of one.
type spool struct {
	run    uint64
	lost   bool
	at     clicks.Position // everything before it was handed out
	stored clicks.Position // everything before it is with the engine
	clicks int             // in the batch
	held   *heldEntry      // nothing of it is handed out before this one is out of the way; nil: there is none
}

const (
	readAtOnce = 64 // entries; fewer after a failure, because what does not arrive in time never does
	pollFirst  = 5 * time.Millisecond
	pollMost   = 50 * time.Millisecond
	// currentAfter is how long nothing must have failed or been lost until no more clicks in the stream means that no sender waits: each has
	// tried again by then.
	currentAfter = 2 * askMost
	// aloneAfter and deadAfter are how many processes may end with an entry in their hands before it is handed out alone, and before
	// it is set aside.
	aloneAfter = 5
	deadAfter  = 10
)

// NewReceiver returns a Receiver that has read nothing yet.
func NewReceiver(o ReceiverOptions) (*Receiver, error) {
	events, err := clicks.NewGroupEvents(o.Enrich)
	if err != nil {
		return nil, err
	}
	return &Receiver{
		o: o, events: events, spools: map[string]*spool{}, old: true, tell: map[string]bool{}, pause: pollFirst,
		page: readAtOnce, behind: time.Now(), held: map[string]bool{},
		trouble: trouble{log: o.Log, text: "the stream of clicks cannot be read: clicks wait in the spools"},
		untold:  trouble{log: o.Log, text: "nodes cannot be told that their clicks are stored: their spools are not trimmed"},
	}, nil
}

// Current reports whether there are no more clicks than those of the stream, as far as one can know here.
func (r *Receiver) Current() bool { return time.Since(r.behind) > currentAfter }

// Next calls fn with clicks that were not handed out before, about most of them, and returns how many. Fewer: there are no more at the
// moment. An event is borrowed until fn returns.
func (r *Receiver) Next(ctx context.Context, most int, fn func(*clicks.Event) error) (n int, err error) {
	if n, err = r.keep(ctx); err != nil {
		return n, err
	}
	for n < most && !r.alone {
		m := r.message(ctx)
		if m == nil {
			break
		}
		r.alone = r.suspect(m.Deliveries)
		k, err := r.take(ctx, m, fn)
		n += k
		if errors.Is(err, errLater) {
			break
		}
		if err != nil {
			return n, err
		}
		r.buf = r.buf[1:]
	}
	if !r.moved { // nobody will call Written
		r.alone = false
		r.finish(ctx)
	}
	if n > 0 {
		r.pause = pollFirst
	}
	return n, ctx.Err()
}

// errLater: the message stays the next one; it cannot be taken before the batch is written.
var errLater = errors.New("later")

// suspect reports whether so many processes ended with an entry in their hands that it is read and handed out alone.
func (r *Receiver) suspect(deliveries int64) bool { return deliveries-r.rereads >= aloneAfter }

// message returns the next message; nil: there is none now.
func (r *Receiver) message(ctx context.Context) *Message {
	for len(r.buf) == 0 {
		var err error
		switch {
		case r.o.Counters.excuse:
			if err = r.excuse(ctx); err == nil {
				r.rereads = 0
			}
		case r.old:
			r.buf, err = r.unfinished(ctx)
			if errors.Is(err, errLater) {
				return nil
			}
		default:
			if r.buf, err = r.o.Remote.Read(ctx, r.page); err != nil { // something may have been handed out that we do not know of
				r.missed()
				r.reread()
			} else if len(r.buf) == 0 {
				r.note(ctx, nil)
				return nil
			}
		}
		if r.note(ctx, err); err != nil {
			r.buf = nil
			return nil
		}
		if len(r.buf) > 0 {
			r.page = min(r.page+1, readAtOnce)
		}
	}
	return &r.buf[0]
}

// unfinished reads what was handed out before; nothing more: what is new comes next. A suspect comes alone, and not before the batch is
// written: what is read along with it would be counted with it when this process ends.
func (r *Receiver) unfinished(ctx context.Context) ([]Message, error) {
	pending, err := r.o.Remote.Pending(ctx, r.after, r.page)
	if err != nil {
		return nil, err
	}
	if len(pending) == 0 {
		r.old = false
		return nil, nil
	}
	n, deliveries := 0, map[string]int64{}
	for n < len(pending) && !r.suspect(pending[n].Deliveries) {
		n++
	}
	switch {
	case n == 0 && r.moved:
		return nil, errLater
	case n == 0:
		n = 1
	}
	for _, p := range pending[:n] {
		deliveries[p.ID] = p.Deliveries
	}
	list, err := r.o.Remote.Unfinished(ctx, r.after, n)
	if err != nil {
		r.missed()
		return nil, err
	}
	for i := range list {
		list[i].Deliveries = deliveries[list[i].ID]
	}
	if len(list) == 0 { // somebody else has done with them
		r.old = false
	} else {
		r.after = list[len(list)-1].ID
	}
	return list, nil
}

// missed notes that a reply did not arrive: the server may have counted a delivery, and no process ended.
func (r *Receiver) missed() {
	r.rereads++
	r.page = max(1, r.page/2)
	r.o.Counters.excuse = true
}

// excuse forgets deliveries, but those of what holds a spool or held it when the receiver before could not do this, and of what has a copy and is
// not done.
func (r *Receiver) excuse(ctx context.Context) error {
	maps.Copy(r.o.Counters.fault, r.held)
	maps.Copy(r.o.Counters.fault, r.o.Counters.copied)
	err := r.o.Remote.Excuse(ctx, r.o.Counters.fault)
	if r.o.Counters.excuse = err != nil; err == nil {
		clear(r.o.Counters.fault)
	}
	return err
}

// reread reads what was handed out before, from the beginning, once what was read is done with.
func (r *Receiver) reread() {
	r.rereads++
	r.old, r.after = true, ""
}

func (r *Receiver) note(ctx context.Context, err error) {
	if err != nil {
		r.behind = time.Now()
	}
	if err != nil && ctx.Err() == nil {
		r.o.Counters.failures.Add(1)
		r.trouble.note(err)
	} else if err == nil {
		r.trouble.note(nil)
	}
}

// take hands out the clicks of one message.
func (r *Receiver) take(ctx context.Context, m *Message, fn func(*clicks.Event) error) (n int, err error) {
	if r.held[m.ID] { // what was handed out is read again
		return 0, nil
	}
	if m.Entry == nil {
		r.o.Counters.lost.Add(1)
		r.o.Log.Warn("an entry of the stream of clicks is gone before it was stored: its clicks are sent again", "id", m.ID)
		r.batch = append(r.batch, m.ID)
		return 0, nil
	}
	if m.Unsigned { // the Remote counts and says it. If it was one of ours, the next does not follow, and it is sent again
		r.behind = time.Now()
		r.batch = append(r.batch, m.ID)
		return 0, nil
	}
	e, err := parseEntry(m.Entry)
	if err == nil {
		err = r.check(e)
	}
	if err != nil { // the sender sends its clicks again, because the next entry does not follow the one before
		const why = "it cannot be read: its clicks are sent again"
		r.note(ctx, r.o.Remote.SetAside(ctx, *m, why))
		r.setAside(m, why, err)
		return 0, nil
	}
	sp, err := r.spool(ctx, e.spool)
	if err != nil {
		return 0, err
	}
	if sp.held != nil {
		r.pass(sp, m)
		return 0, nil
	}
	if sp.run != e.run {
		if sp.run != 0 { // meanwhile the node may have inserted clicks itself
			if sp.at != sp.stored {
				return 0, errLater
			}
			if err := r.ask(ctx, e.spool, sp); err != nil {
				return 0, err
			}
		}
		sp.run, sp.lost = e.run, false
		r.tell[e.spool] = true
	}
	dead := m.Deliveries-r.rereads >= deadAfter && !sp.lost && len(e.groups) > 0 && e.from.Compare(sp.at) <= 0 && e.to().Compare(sp.at) > 0
	if dead { // these clicks are in the spool no longer than the place of it stays
		if err := r.o.Remote.SetAside(ctx, *m, whyDead); err != nil {
			r.hold(ctx, sp, e, m, err)
			return 0, nil
		}
	}
	if !dead {
		r.batch = append(r.batch, m.ID)
	}
	switch {
	case sp.lost:
		r.tell[e.spool] = true // in case it was not heard
	case e.from.Compare(sp.at) > 0:
		sp.lost = true
		r.taken = true
		r.tell[e.spool] = true
		r.o.Counters.lost.Add(1)
		r.o.Log.Warn("entries of the stream of clicks were lost: they are sent again", "spool", e.spool, "from", sp.at.String(), "to", e.from.String())
	case len(e.groups) == 0:
		r.tell[e.spool] = true
	case e.to().Compare(sp.at) <= 0:
		r.o.Counters.repeated.Add(1)
		r.tell[e.spool] = true
	case dead:
		r.dead(sp, e, m)
		return 1, nil // so that the place after it is written
	default:
		return r.hand(e, sp, fn)
	}
	return 0, nil
}

// hand hands out the groups of an entry that were not handed out before.
func (r *Receiver) hand(e *entry, sp *spool, fn func(*clicks.Event) error) (n int, err error) {
	for _, g := range e.groups {
		if g.end.Compare(sp.at) <= 0 {
			continue
		}
		k, err := r.events.Each(g.data, e.node, fn)
		n, r.size, sp.clicks = n+k, r.size+k, sp.clicks+k
		if err != nil {
			return n, err
		}
		sp.at, r.moved = g.end, true
	}
	r.tell[e.spool] = true
	return max(n, 1), nil // so that the place after it is written though nothing was in it
}

func (r *Receiver) check(e *entry) error {
	for _, g := range e.groups {
		if err := r.events.Check(g.data); err != nil {
			return err
		}
	}
	return nil
}

// whyDead is why an entry is set aside whose clicks do not come again.
const whyDead = "processes ended again and again with it in their hands: its clicks are not counted"

// setAside takes a message out of the way, of which a copy is where people find it.
func (r *Receiver) setAside(m *Message, why string, err error) {
	r.o.Counters.dead.Add(1)
	r.o.Log.Error("an entry of the stream of clicks is set aside: "+why, "id", m.ID, "bytes", len(m.Entry), "deliveries", m.Deliveries, "error", err)
	r.batch = append(r.batch, m.ID)
}

// spool returns what is known of one, and asks the engine at first.
func (r *Receiver) spool(ctx context.Context, name string) (*spool, error) {
	if sp := r.spools[name]; sp != nil {
		return sp, nil
	}
	sp := &spool{}
	if err := r.ask(ctx, name, sp); err != nil {
		return nil, err
	}
	r.spools[name] = sp
	return sp, nil
}

// ask asks the engine for the place of a spool of which nothing is in the batch.
func (r *Receiver) ask(ctx context.Context, name string, sp *spool) error {
	p, err := r.o.Place(ctx, name)
	if err != nil {
		return err
	}
	sp.at, sp.stored = p, p
	return nil
}

// Places calls fn for each spool that has clicks in the batch: up to where they were handed out, and how many.
func (r *Receiver) Places(fn func(spool string, at clicks.Position, n int)) {
	for name, sp := range r.spools {
		if sp.at != sp.stored {
			fn(name, sp.at, sp.clicks)
		}
	}
}

// Written says that all clicks that were handed out, and their places, are with the engine.
func (r *Receiver) Written(ctx context.Context) {
	for name, sp := range r.spools {
		if sp.at != sp.stored {
			sp.stored, sp.clicks = sp.at, 0
			r.tell[name] = true
		}
	}
	r.o.Counters.stored.Add(uint64(r.size))
	r.size, r.moved, r.alone = 0, false, false
	r.finish(ctx)
}

// finish tells senders and the stream what need not be kept. What cannot be told now is told with the next batch. A full server takes no
// marks, and may be full of what is done.
func (r *Receiver) finish(ctx context.Context) {
	if len(r.tell) > 0 {
		marks := make(map[string]string, len(r.tell))
		for name := range r.tell {
			sp := r.spools[name]
			marks[name] = mark{sp.run, sp.stored, sp.lost}.String()
		}
		err := r.o.Remote.Tell(ctx, marks)
		if err != nil || slices.ContainsFunc(slices.Collect(maps.Values(r.spools)), func(sp *spool) bool { return sp.lost }) {
			r.behind = time.Now()
		}
		if err == nil {
			clear(r.tell)
		} else if ctx.Err() == nil {
			r.o.Counters.failures.Add(1)
		}
		if ctx.Err() == nil {
			r.untold.note(err)
		}
	}
	n := len(r.batch)
	err := r.o.Remote.Done(ctx, r.batch) // none: memory may be left to be given back
	if n > 0 || err != nil {
		r.note(ctx, err)
	}
	if err != nil {
		return
	}
	for _, id := range r.batch { // every place after them is written
		delete(r.o.Counters.copied, id)
	}
	r.batch = r.batch[:0]
	if r.taken { // only now, or what was looked at comes again
		r.taken = false
		r.reread()
	}
}

// Close ends the receiver, in order: what it was handed and has not written is not at fault, but for what holds a spool or has a copy.
func (r *Receiver) Close(ctx context.Context) {
	r.note(ctx, errors.Join(r.excuse(ctx), r.o.Remote.Flush(ctx)))
	r.o.Counters.letAllGo()
}

// Wait returns after a moment, or with the error of ctx.
func (r *Receiver) Wait(ctx context.Context) error {
	err := sleep.For(ctx, r.pause)
	r.pause = min(2*r.pause, pollMost)
	return err
}
