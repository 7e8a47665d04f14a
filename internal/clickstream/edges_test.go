package clickstream

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/terselink/terse/internal/clicks"
)

// TestFullOfItself: a server that is full of the stream takes no marks and no entries, and gets its memory back from what is stored.
func TestFullOfItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		remote, e := newFake(), newEngine()
		remote.limit = 150 << 10 // some entries
		a, b := newNode(t, "a", remote, 0), newNode(t, "b", remote, 0)
		counters := serve(t, e, remote, func(step string) bool {
			if step == "rows" {
				time.Sleep(time.Second) // the stream fills
			}
			return false
		})
		for range 200 {
			a.visit(t, 300)
			b.visit(t, 300)
		}
		until(t, "all are counted", func() bool { return e.check(t) == a.made+b.made })
		until(t, "the spools may go", func() bool { return a.sender.Stored() == a.end && b.sender.Stored() == b.end })
		if counters.failures.Load() == 0 {
			t.Error("it was never full: the test proves nothing")
		}
	})
}

// holdReads fails reads of the stream before they are applied until it is told not to.
func holdReads(remote *fakeRemote) *atomic.Bool {
	hold := &atomic.Bool{}
	remote.setBefore(func(call string) error {
		if hold.Load() && (call == "Read" || call == "Pending") {
			return errAway
		}
		return nil
	})
	return hold
}

// inOnePage visits so that six entries wait in the stream before one of them is read.
func inOnePage(t *testing.T, e *engine, remote *fakeRemote, hold *atomic.Bool) *node {
	t.Helper()
	a := newNode(t, "a", remote, 0)
	a.visit(t, 1)
	until(t, "the first is counted", func() bool { return e.check(t) == 1 })
	hold.Store(true)
	before, _, _ := remote.count()
	for range 6 {
		a.visit(t, 10)
		time.Sleep(200 * time.Millisecond)
	}
	if n, _, _ := remote.count(); n < before+6 {
		t.Fatalf("%d entries wait", n)
	}
	return a
}

// TestSlowReplies: replies that do not arrive in time are counted by the server as deliveries; nothing is set aside for them, by this
// process or by the next.
func TestSlowReplies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		remote, e := newFake(), newEngine()
		hold := holdReads(remote)
		var slow atomic.Int64
		remote.setAfter(func(call string) error {
			if (call == "Read" || call == "Unfinished") && slow.Add(-1) >= 0 {
				return errAway
			}
			return nil
		})
		var deaths atomic.Int64
		counters := serve(t, e, remote, func(step string) bool { return step == "rows" && deaths.Add(-1) >= 0 })
		a := inOnePage(t, e, remote, hold)
		slow.Store(40)
		deaths.Store(3)
		hold.Store(false)
		until(t, "all are counted", func() bool { return e.check(t) == a.made })
		if slow.Load() > 0 || counters.dead.Load() != 0 {
			t.Errorf("%d replies were not lost, %d entries are dead", slow.Load(), counters.dead.Load())
		}
	})
}

// TestPoisonInPage: of a page that is read at once only the entry with which processes end is set aside, and not before there is room for
// its copy.
func TestPoisonInPage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		remote, e := newFake(), newEngine()
		hold := holdReads(remote)
		poisoned(e)
		room := noRoomAside(remote)
		counters := serve(t, e, remote, never)
		a := inOnePage(t, e, remote, hold)
		hold.Store(false)
		time.Sleep(time.Minute)
		if n := e.check(t); n != 21 || counters.dead.Load() != 0 {
			t.Errorf("%d are counted and %d entries dead before there is a copy", n, counters.dead.Load())
		}
		if p := e.at("a"); !strings.HasPrefix(p.String(), a.end.Boot) || p.Compare(a.end) >= 0 {
			t.Errorf("the place is %v of %v", p, a.end)
		}
		room.Store(true)
		until(t, "the rest is counted", func() bool { return e.check(t) == 51 })
		until(t, "the spool may go", func() bool { return a.sender.Stored() == a.end })
		if _, pending, aside := remote.count(); pending != 0 || aside != 1 || counters.dead.Load() != 1 {
			t.Errorf("%d pending, %d aside, %d dead", pending, aside, counters.dead.Load())
		}
	})
}

// at returns the place of a spool.
func (e *engine) at(spool string) clicks.Position {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.places[spool]
}

// TestDirectForAWhile: a node that inserts its clicks itself for a while, and sends them again later, has none counted twice by a receiver
// that has been there all the time.
func TestDirectForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		remote, e := newFake(), newEngine()
		serve(t, e, remote, never)
		a := newNode(t, "a", remote, 0)
		a.visit(t, 10)
		until(t, "they are counted", func() bool { return e.check(t) == 10 })
		a.stop()
		a.visit(t, 7) // and it inserts these
		e.mu.Lock()
		e.places["a"] = a.end
		e.mu.Unlock()
		a.close(t)
		a.open(t, remote, 0)
		a.visit(t, 10)
		until(t, "the spool may go", func() bool { return a.sender.Stored() == a.end })
		if n := e.check(t); n != 20 {
			t.Errorf("%d clicks came through the stream, not 20", n)
		}
	})
}

// TestFinish: the last clicks that could not be sent are told of.
func TestFinish(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		remote, e := newFake(), newEngine()
		a := newNode(t, "a", remote, 0)
		until(t, "the question of the sender waits", func() bool { n, _, _ := remote.count(); return n > 0 })
		a.stop()
		if err := a.sender.Finish(t.Context()); err == nil {
			t.Error("nobody has said from where, and nothing is wrong")
		}
		a.close(t)
		a.open(t, remote, 0)
		serve(t, e, remote, never)
		a.visit(t, 10)
		until(t, "they are counted", func() bool { return e.check(t) == 10 })
		a.stop()
		a.visit(t, 10)
		if n, err := clicks.BytesAfter(a.dir, a.sender.Stored()); err != nil || n == 0 {
			t.Errorf("%d bytes wait, %v", n, err)
		}
		if err := a.sender.Finish(t.Context()); err != nil {
			t.Error(err)
		}
		until(t, "they are counted", func() bool { return e.check(t) == 20 })
		if n, err := clicks.BytesAfter(a.dir, a.end); err != nil || n != 0 {
			t.Errorf("%d bytes are after the end, %v", n, err)
		}
		if n, err := clicks.BytesAfter(a.dir, clicks.Position{}); err != nil || n < a.end.Offset {
			t.Errorf("%d bytes are in the spool, %v", n, err)
		}
	})
}

// TestCurrent: while reads fail, and until each sender has tried again, no more clicks in the stream does not mean that there are none.
func TestCurrent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		remote, e := newFake(), newEngine()
		e.doubt = map[string]int{}
		r, err := NewReceiver(ReceiverOptions{Remote: remote, Place: e.place, Counters: NewCounters(), Log: quiet})
		if err != nil {
			t.Fatal(err)
		}
		next := func() {
			if n, err := r.Next(t.Context(), 1, nil); n != 0 || err != nil {
				t.Fatalf("%d clicks, %v", n, err)
			}
		}
		is := func(want bool, when string) {
			if next(); r.Current() != want {
				t.Errorf("%s: current is %t", when, !want)
			}
		}
		is(false, "at first")
		time.Sleep(time.Minute)
		is(true, "later")
		remote.set(false, true)
		is(false, "away")
		time.Sleep(time.Minute)
		is(false, "away for long")
		remote.set(false, false)
		is(false, "there again")
		time.Sleep(time.Minute)
		is(true, "there for long")
	})
}

// TestUnsigned: an entry that no node has signed is done with, whatever it says; one that was a node's own is sent again.
func TestUnsigned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		remote, e := newFake(), newEngine()
		counters := serve(t, e, remote, never)
		a := newNode(t, "a", remote, 0)
		a.visit(t, 10)
		until(t, "they are counted", func() bool { return e.check(t) == 10 })
		remote.mu.Lock()
		remote.forged = remote.last + 1
		remote.mu.Unlock()
		a.visit(t, 10)
		time.Sleep(time.Second)
		a.visit(t, 10)
		until(t, "all are counted", func() bool { return e.check(t) == 30 })
		until(t, "the spool may go", func() bool { return a.sender.Stored() == a.end })
		if _, pending, aside := remote.count(); pending != 0 || aside != 0 || counters.lost.Load() == 0 {
			t.Errorf("%d pending, %d aside, %d lost", pending, aside, counters.lost.Load())
		}
	})
}
