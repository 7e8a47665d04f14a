package clickstream

import (
	"context"
	"errors"
	"time"
)

// heldEntry is an entry with which processes ended, and of which no copy can be kept at the moment. It stays in the stream, not done, and holds its
// spool: nothing of the spool is handed out, and its place stays before the entry. What comes after it in the stream is done with at once, because
// its clicks are in the spool of its node, which is not trimmed: they are sent again when the entry is out of the way. So a spool that is held
// takes up no more of a server that is full than this one entry.
type heldEntry struct {
	m       Message
	e       *entry
	passed  bool // something of the spool was done with that was not handed out
	trouble trouble
}

// keepAgain is how often it is tried to keep copies of what is held.
const keepAgain = time.Second

// hold begins to hold a spool for the sake of an entry. why is what was wrong with its copy.
func (r *Receiver) hold(ctx context.Context, sp *spool, e *entry, m *Message, why error) {
	log := r.o.Log.With("spool", e.spool, "node", e.node)
	sp.held = &heldEntry{m: *m, e: e, trouble: trouble{
		log: log.With("id", m.ID), text: "an entry with which processes ended cannot be copied aside: the clicks of its spool wait behind it",
	}}
	r.held[m.ID] = true
	r.o.Counters.hold(e.spool, e.node)
	r.noteHeld(ctx, sp.held, why)
}

// noteHeld notes that a copy could not be kept. That ctx has ended says nothing of the server, and a refusal for lack of room is no call that failed.
func (r *Receiver) noteHeld(ctx context.Context, h *heldEntry, err error) {
	r.keepTried, r.behind = time.Now(), time.Now()
	if ctx.Err() == nil {
		if !errors.Is(err, ErrNoRoom) {
			r.o.Counters.failures.Add(1)
		}
		h.trouble.note(err)
	}
}

// pass has done with an entry of a spool that is held, unread.
func (r *Receiver) pass(sp *spool, m *Message) {
	sp.held.passed = true
	r.o.Counters.held.Add(1)
	r.batch = append(r.batch, m.ID)
}

// keep tries now and then to keep the copies that could not be kept, and lets the spools go on. It returns how many places it has moved, or the
// error of the engine.
func (r *Receiver) keep(ctx context.Context) (n int, err error) {
	if len(r.held) == 0 {
		return 0, nil
	}
	r.behind = time.Now()
	if time.Since(r.keepTried) < keepAgain {
		return 0, nil
	}
	for name, sp := range r.spools {
		h := sp.held
		if h == nil || sp.at != sp.stored { // the place that is asked for may be behind what is in the batch
			continue
		}
		if err := r.o.Remote.SetAside(ctx, h.m, whyDead); err != nil {
			r.noteHeld(ctx, h, err)
			return n, nil // nor is there room for the next one
		}
		// It may have been held for days, in which its node inserted clicks itself.
		if err := r.ask(ctx, name, sp); err != nil {
			return n, err
		}
		n += r.letGo(name, sp)
	}
	return n, nil
}

// letGo lets a spool go on after there is a copy of what held it, and returns how many places that moves. Until those are written the entry is
// among the copied ones, whose deliveries are not forgotten either.
func (r *Receiver) letGo(name string, sp *spool) (moved int) {
	h := sp.held
	sp.held = nil
	delete(r.held, h.m.ID)
	r.o.Counters.letGo(name)
	switch {
	case h.e.from.Compare(sp.at) > 0: // the place has gone back: its clicks come again
		h.passed = true
		r.batch = append(r.batch, h.m.ID)
	case h.e.to().Compare(sp.at) <= 0: // the node has inserted them itself
		r.o.Counters.repeated.Add(1)
		r.batch = append(r.batch, h.m.ID)
	default:
		r.dead(sp, h.e, &h.m)
		moved = 1
	}
	sp.lost = sp.lost || h.passed // so that its sender begins again from the place
	r.tell[name] = true
	r.o.Log.Info("the clicks of a spool that waited go on", "spool", name, "node", h.e.node)
	return moved
}

// dead moves the place of a spool past an entry of which there is a copy. When that place is not written the entry comes again, to this process or
// another one, and is dead at once.
func (r *Receiver) dead(sp *spool, e *entry, m *Message) {
	if r.o.Counters.copied[m.ID] {
		r.batch = append(r.batch, m.ID)
	} else {
		r.setAside(m, whyDead, nil)
		r.o.Counters.copied[m.ID] = true
	}
	sp.at = e.to()
	r.moved = true
	r.tell[e.spool] = true
}
