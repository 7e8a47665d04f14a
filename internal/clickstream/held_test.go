package clickstream

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse/internal/clicks"
)

// poison is the number of the click of each node named "a" with which a process ends, of six entries with ten clicks after one.
const poison = 25

// poisoned makes processes end with that click, and returns how many did.
func poisoned(e *engine) *atomic.Int64 {
	ended := &atomic.Int64{}
	e.meets = func(ev *clicks.Event) error {
		if ev.Node == "a" && ev.Link == poison {
			ended.Add(1)
			return errDied
		}
		return nil
	}
	return ended
}

// noRoomAside fails copies until it is told not to.
func noRoomAside(remote *fakeRemote) *atomic.Bool {
	room := &atomic.Bool{}
	remote.setAfter(func(call string) error {
		if call == "SetAside" && !room.Load() {
			remote.mu.Lock()
			defer remote.mu.Unlock()
			remote.aside = nil
			return errFull
		}
		return nil
	})
	return room
}

// heldSpools returns what the metric says: "spool of node" for each.
func heldSpools(t *testing.T, c *Counters) string {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, f := range families {
		if f.GetName() != "terse_click_stream_held" {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			list = append(list, labels["spool"]+" of "+labels["node"])
		}
	}
	return strings.Join(list, ", ")
}

// TestHeldAlone: while there is no room for the copy of an entry with which processes ended, the clicks of other spools are counted, whatever
// becomes of whoever counts and whoever sends; nobody ends with that entry again, and nothing is called lost. With room the spool goes on.
func TestHeldAlone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		// meanwhile happens while the spool is held.
		meanwhile func(t *testing.T, h *heldWorld)
		lost      uint64 // entries may be called so
	}{
		{"nothing", func(_ *testing.T, h *heldWorld) {
			h.calm = true
			h.counters.failures.Store(0) // those before
		}, 0},
		{"whoever counts ends in order", func(_ *testing.T, h *heldWorld) { h.refuse.Store(1) }, 0},
		{"whoever counts is killed", func(_ *testing.T, h *heldWorld) { h.kill.Store(3) }, 0},
		{"replies are lost", func(_ *testing.T, h *heldWorld) { h.slow.Store(20) }, 0},
		{"replies are lost, and the end in order too", func(_ *testing.T, h *heldWorld) {
			h.slow.Store(20)
			h.deaf.Store(true)
			h.refuse.Store(2)
		}, 0},
		{"its node starts again", func(t *testing.T, h *heldWorld) {
			h.a.close(t)
			h.a.open(t, h.remote, 0)
		}, 0},
		{"the place after it cannot be written once there is room", func(_ *testing.T, h *heldWorld) { h.e.passes.Store(2) }, 2}, // who comes then does not know what was passed
		{"it is in nobody's stream any more", func(_ *testing.T, h *heldWorld) { h.remote.empty() }, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := holdA(t)
				at := h.e.at("a")
				c.meanwhile(t, h)
				for range 20 {
					h.a.visit(t, 10)
					h.b.visit(t, 10)
					time.Sleep(time.Second)
				}
				until(t, "the clicks of b are counted", func() bool { return h.counted("b") == h.b.made })
				until(t, "the spool of b may go", func() bool { return h.b.sender.Stored() == h.b.end })
				if n := h.counted("a"); n != 21 {
					t.Errorf("%d clicks of the spool that is held are counted", n)
				}
				if p := h.e.at("a"); p != at || p == (clicks.Position{}) {
					t.Errorf("the place went from %v to %v", at, p)
				}
				if got := heldSpools(t, h.counters); got != "a of a" {
					t.Errorf("the metric says %q", got)
				}
				if _, pending, _ := h.remote.count(); pending > 1 {
					t.Errorf("%d entries are not done with", pending)
				}
				h.slow.Store(0)
				h.room.Store(true)
				until(t, "the rest is counted", func() bool { return h.e.check(t) == h.a.made-10+h.b.made })
				until(t, "the spool may go", func() bool { return h.a.sender.Stored() == h.a.end })
				until(t, "nothing is pending", func() bool { _, pending, _ := h.remote.count(); return pending == 0 })
				if n := h.ended.Load(); n != deadAfter {
					t.Errorf("%d processes ended with it", n)
				}
				if n := h.e.passes.Load(); n > 0 {
					t.Errorf("%d times too few was a place refused", n)
				}
				if n := h.counters.failures.Load(); n > 2 && h.calm {
					t.Errorf("%d calls are said to have failed", n)
				}
				if _, _, aside := h.remote.count(); aside != 1 || h.counters.dead.Load() != 1 {
					t.Errorf("%d aside, %d dead", aside, h.counters.dead.Load())
				}
				if got := heldSpools(t, h.counters); got != "" {
					t.Errorf("the metric says %q at the end", got)
				}
				if n := h.counters.lost.Load(); n > c.lost {
					t.Errorf("%d entries are called lost", n)
				}
			})
		})
	}
}

// heldWorld is the spool a that is held, with 21 clicks counted, and another one.
type heldWorld struct {
	remote   *fakeRemote
	e        *engine
	a, b     *node
	counters *Counters
	ended    *atomic.Int64 // processes that ended with the entry
	room     *atomic.Bool  // for copies
	refuse   atomic.Int64  // batches that the engine refuses
	kill     atomic.Int64  // processes that are killed between rows and places
	slow     atomic.Int64  // replies that do not arrive
	deaf     atomic.Bool   // nor do those of the next ends
	calm     bool          // but for copies, nothing fails
}

func (h *heldWorld) counted(node string) int {
	h.e.mu.Lock()
	defer h.e.mu.Unlock()
	return h.e.nodes[node]
}

func holdA(t *testing.T) *heldWorld {
	t.Helper()
	h := &heldWorld{remote: newFake(), e: newEngine()}
	hold := holdReads(h.remote)
	h.ended, h.room = poisoned(h.e), noRoomAside(h.remote)
	noRoom := h.remote.after
	h.remote.setAfter(func(call string) error {
		switch {
		case (call == "Read" || call == "Unfinished") && h.slow.Add(-1) >= 0:
			return errAway
		case call == "Excuse" && h.deaf.CompareAndSwap(true, false):
			return errAway
		}
		return noRoom(call)
	})
	ends := h.e.meets
	h.e.meets = func(ev *clicks.Event) error {
		if ev.Node == "b" && h.refuse.Add(-1) >= 0 {
			return errors.New("the server refuses")
		}
		return ends(ev)
	}
	h.counters = serve(t, h.e, h.remote, func(step string) bool { return step == "rows" && h.kill.Add(-1) >= 0 })
	h.a = inOnePage(t, h.e, h.remote, hold)
	h.b = newNode(t, "b", h.remote, 0)
	hold.Store(false)
	until(t, "the spool is held", func() bool { return heldSpools(t, h.counters) == "a of a" })
	return h
}

// TestDeadUnwritten: the engine refuses the place after an entry with which processes ended, and of which there is a copy. Nobody ends with it again, and it
// is dead once.
func TestDeadUnwritten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		remote, e := newFake(), newEngine()
		hold := holdReads(remote)
		ended := poisoned(e)
		e.passes.Store(2)
		counters := serve(t, e, remote, never)
		a := inOnePage(t, e, remote, hold)
		hold.Store(false)
		until(t, "the rest is counted", func() bool { return e.check(t) == a.made-10 })
		until(t, "the spool may go", func() bool { return a.sender.Stored() == a.end })
		until(t, "nothing is pending", func() bool { _, pending, _ := remote.count(); return pending == 0 })
		if n := e.passes.Load(); n > 0 {
			t.Errorf("%d times too few was a place refused", n)
		}
		if _, _, aside := remote.count(); ended.Load() != deadAfter || aside != 1 || counters.dead.Load() != 1 {
			t.Errorf("%d processes ended, %d aside, %d dead", ended.Load(), aside, counters.dead.Load())
		}
	})
}

// TestHeldTakesNoRoom: what is sent after an entry that holds its spool does not fill the server, so that there is room for the copy as soon as
// the clicks of others are stored.
func TestHeldTakesNoRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		remote, e := newFake(), newEngine()
		remote.limit = 150 << 10 // some entries
		hold := holdReads(remote)
		ended := poisoned(e)
		counters := serve(t, e, remote, never)
		a := inOnePage(t, e, remote, hold)
		last := remote.newest()
		until(t, "the server is full", func() bool {
			a.visit(t, 300)
			return a.sender.Trouble() != ""
		})
		remote.limitTo(last) // what is before the entry is stored and goes first: that must leave no room for the copy
		b := newNode(t, "b", remote, 0)
		b.visit(t, 30)
		hold.Store(false)
		until(t, "all but the entry are counted", func() bool { return e.check(t) == a.made-10+b.made })
		until(t, "the spools may go", func() bool { return a.sender.Stored() == a.end && b.sender.Stored() == b.end })
		if counters.held.Load() == 0 || ended.Load() != deadAfter || counters.lost.Load() != 0 {
			t.Errorf("%d passed, %d processes ended, %d lost", counters.held.Load(), ended.Load(), counters.lost.Load())
		}
	})
}

// TestHeldWhileDirect: a node whose spool is held inserts its clicks itself. Its place does not go back when there is room for the copy.
func TestHeldWhileDirect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := holdA(t)
		h.a.stop()
		h.e.mu.Lock()
		h.e.places["a"] = h.a.end
		h.e.mu.Unlock()
		h.a.close(t)
		h.room.Store(true)
		until(t, "it is not held", func() bool { return heldSpools(t, h.counters) == "" })
		h.a.open(t, h.remote, 0)
		h.a.visit(t, 5)
		until(t, "the spool may go", func() bool { return h.a.sender.Stored() == h.a.end })
		if n := h.counted("a"); n != 26 || h.counters.dead.Load() != 0 {
			t.Errorf("%d clicks of a came through the stream, %d entries are dead", n, h.counters.dead.Load())
		}
	})
}

// TestHeldLog: the log says once which spool is held and why, and once that it goes on.
func TestHeldLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		remote, e := newFake(), newEngine()
		e.doubt = map[string]int{}
		var text bytes.Buffer
		log := slog.New(slog.NewTextHandler(&text, nil))
		en := &entry{run: 7, spool: "spool-1", node: "east", from: clicks.Position{}, groups: []group{{end: place(1, 100), data: []byte("g")}}}
		if err := remote.Add(t.Context(), en.append(nil)); err != nil {
			t.Fatal(err)
		}
		counters := NewCounters()
		r, err := NewReceiver(ReceiverOptions{Remote: remote, Place: e.place, Counters: counters, Log: log})
		if err != nil {
			t.Fatal(err)
		}
		sp := &spool{run: 7}
		r.spools["spool-1"], r.old = sp, false
		r.hold(t.Context(), sp, en, &Message{ID: "1", Entry: remote.entries[0].data}, errFull)
		remote.set(true, false)
		next := func(want int) {
			t.Helper()
			time.Sleep(2 * keepAgain)
			if n, err := r.Next(t.Context(), 10, func(*clicks.Event) error { return nil }); n != want || err != nil {
				t.Fatalf("%d, %v; want %d", n, err, want)
			}
		}
		next(0)
		next(0)
		if r.Current() {
			t.Error("clicks wait, and nothing more is said to come")
		}
		remote.set(false, false)
		next(1)
		r.Written(t.Context())
		for part, want := range map[string]int{
			"the clicks of its spool wait behind it\" spool=spool-1 node=east id=1 error=\"there is no room for a copy: OOM": 1,
			"go on\" spool=spool-1 node=east": 1,
		} {
			if n := strings.Count(text.String(), part); n != want {
				t.Errorf("the log says %d times %q, not %d times:\n%s", n, part, want, text.String())
			}
		}
		if m, ok := parseMark(remote.marks["spool-1"]); !ok || m.stored != place(1, 100) || m.lost {
			t.Errorf("the mark is %q: nothing was sent in vain", remote.marks["spool-1"])
		}
	})
}
