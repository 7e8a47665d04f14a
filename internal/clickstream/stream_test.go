package clickstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// node is a node that redirects.
type node struct {
	name     string
	dir      string
	recorder *clicks.Recorder
	sender   *Sender
	made     int
	end      clicks.Position // of what was made
	stop     func()
}

func newNode(t *testing.T, name string, remote Remote, window int64) *node {
	t.Helper()
	n := &node{name: name, dir: t.TempDir()}
	n.open(t, remote, window)
	t.Cleanup(func() { n.close(t) })
	return n
}

func (n *node) open(t *testing.T, remote Remote, window int64) {
	t.Helper()
	var err error
	if n.recorder, err = clicks.Open(clicks.Options{Dir: n.dir, Node: n.name}); err != nil {
		t.Fatal(err)
	}
	n.sender = NewSender(SenderOptions{Remote: remote, Dir: n.dir, Spool: n.name, Window: window, Log: quiet})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); n.sender.Run(ctx) }()
	n.stop = func() { cancel(); <-done }
}

func (n *node) close(t *testing.T) {
	t.Helper()
	n.stop()
	if err := n.recorder.Close(); err != nil {
		t.Error(err)
	}
	n.sender.close()
}

// visit records clicks and writes them to the disk.
func (n *node) visit(t *testing.T, clicksMade int) {
	t.Helper()
	for range clicksMade {
		n.made++
		c := clicks.Click{At: terse.MillisOf(time.Now()), Workspace: 1, Link: terse.LinkNumber(n.made), Domain: "go.test", Code: []byte("abc")}
		if !n.recorder.Capture(0, &c) {
			t.Fatal("the buffer is full")
		}
	}
	if err := n.recorder.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.end = n.recorder.Position()
}

// engine counts clicks as an analytics engine does: rows first, the place after them, and what follows a place at the start is looked up.
type engine struct {
	mu     sync.Mutex
	rows   map[[16]byte]int
	nodes  map[string]int // rows by the name of the node
	places map[string]clicks.Position
	doubt  map[string]int
	most   int // clicks of a batch
	// meets is called with each click that is handed out; nil: nothing is.
	meets func(*clicks.Event) error
	// passes refuses to write places that go past clicks of the node named "a" of which none was handed out, so often.
	passes atomic.Int64
}

func newEngine() *engine {
	return &engine{rows: map[[16]byte]int{}, nodes: map[string]int{}, places: map[string]clicks.Position{}, most: 500}
}

// place is of one receiver.
func (e *engine) place(_ context.Context, spool string) (clicks.Position, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.doubt[spool] = e.most + clicks.MaxGroup
	return e.places[spool], nil
}

var errDied = errors.New("the process died")

// run is one process that counts; die is asked at each step whether it ends there.
func (e *engine) run(ctx context.Context, r *Receiver, die func(step string) bool) error {
	e.doubt = map[string]int{}
	for {
		var batch []clicks.Event
		for len(batch) < e.most {
			n, err := r.Next(ctx, e.most-len(batch), func(ev *clicks.Event) error {
				batch = append(batch, *ev)
				if e.meets != nil {
					return e.meets(ev)
				}
				return nil
			})
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
		}
		if die("read") {
			return errDied
		}
		doubtful := false
		places := map[string]clicks.Position{}
		r.Places(func(spool string, at clicks.Position, n int) {
			doubtful = doubtful || e.doubt[spool] > 0
			e.doubt[spool] -= n
			places[spool] = at
		})
		e.mu.Lock()
		for i := range batch {
			if doubtful && e.rows[batch[i].ID] > 0 {
				continue
			}
			e.rows[batch[i].ID]++
			e.nodes[batch[i].Node]++
		}
		e.mu.Unlock()
		if die("rows") {
			return errDied
		}
		fromA := slices.ContainsFunc(batch, func(ev clicks.Event) bool { return ev.Node == "a" })
		e.mu.Lock()
		if at, ok := places["a"]; ok && at != e.places["a"] && !fromA && e.passes.Add(-1) >= 0 {
			e.mu.Unlock()
			return errors.New("the server refuses the place")
		}
		for spool, at := range places {
			e.places[spool] = at
		}
		e.mu.Unlock()
		if die("places") {
			return errDied
		}
		r.Written(ctx)
		if len(batch) == 0 {
			if err := r.Wait(ctx); err != nil {
				return err
			}
		}
	}
}

// check returns how many clicks there are, and fails if one is there twice.
func (e *engine) check(t *testing.T) int {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, n := range e.rows {
		if n != 1 {
			t.Fatalf("click %x was counted %d times", id, n)
		}
	}
	return len(e.rows)
}

// serve runs processes that count, one after another, until the test ends.
func serve(t *testing.T, e *engine, remote Remote, die func(step string) bool) *Counters {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	counters := NewCounters()
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			r, err := NewReceiver(ReceiverOptions{Remote: remote, Place: e.place, Counters: counters, Log: quiet})
			if err != nil {
				t.Error(err)
				return
			}
			if err := e.run(ctx, r, die); !errors.Is(err, errDied) {
				r.Close(context.Background())
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return counters
}

func never(string) bool { return false }

// until waits in the time of the bubble. It asks ok while everybody else waits, too: who wakes at the same moment has done what there is to do, and
// what is looked at after it is not in the middle of a change.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 100_000 {
		synctest.Wait()
		if ok() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("after long it is not so that %s", what)
}

// TestOnce: clicks of two nodes arrive, once each, with the names of their nodes; the stream is empty then but for its last entry, and the spools may be trimmed.
func TestOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		remote, e := newFake(), newEngine()
		a, b := newNode(t, "a", remote, 0), newNode(t, "b", remote, 0)
		serve(t, e, remote, never)
		for range 20 {
			a.visit(t, 100)
			b.visit(t, 7)
		}
		until(t, "all are counted", func() bool { return e.check(t) == a.made+b.made })
		until(t, "the spools may go", func() bool {
			return a.sender.Stored() == a.end && b.sender.Stored() == b.end
		})
		if e.nodes["a"] != a.made || e.nodes["b"] != b.made {
			t.Errorf("clicks by node: %v", e.nodes)
		}
		if entries, pending, aside := remote.count(); entries > 1 || pending != 0 || aside != 0 {
			t.Errorf("%d entries, %d pending, %d aside", entries, pending, aside)
		}
		if a.sender.Trouble() != "" || a.sender.window.Load() != 0 {
			t.Errorf("%q, %d bytes", a.sender.Trouble(), a.sender.window.Load())
		}
	})
}

// TestHavoc empties the stream, fills it, loses answers, and ends whoever counts and whoever sends, all at random; in the end every click is
// there once.
func TestHavoc(t *testing.T) {
	var all Counters
	t.Run("seeds", func(t *testing.T) {
		for seed := range uint64(10) {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					c := havoc(t, seed)
					all.lost.Add(c.lost.Load())
					all.repeated.Add(c.repeated.Load())
					all.dead.Add(c.dead.Load())
				})
			})
		}
	})
	if all.lost.Load() == 0 || all.repeated.Load() == 0 || all.dead.Load() != 0 {
		t.Errorf("%d lost, %d repeated, %d dead: the test proves little, or too much", all.lost.Load(), all.repeated.Load(), all.dead.Load())
	}
}

func havoc(t *testing.T, seed uint64) *Counters {
	var mu sync.Mutex
	luck, calm := rand.New(rand.NewPCG(seed, 7)), false // of everybody, under mu
	chance := func(one int) bool {
		mu.Lock()
		defer mu.Unlock()
		return !calm && luck.IntN(one) == 0
	}
	remote, e := newFake(), newEngine()
	fail := func(call string) error {
		if chance(30) {
			return errAway
		}
		return nil
	}
	remote.setBefore(func(call string) error {
		if call == "Read" && chance(20) { // what waits there is lost
			remote.empty()
		}
		return fail(call)
	})
	remote.setAfter(fail)
	counters := serve(t, e, remote, func(string) bool { return chance(40) })
	nodes := []*node{newNode(t, "a", remote, 0), newNode(t, "b", remote, 16<<10), newNode(t, "c", remote, 0)}
	rng := rand.New(rand.NewPCG(seed, 8))
	for range 150 {
		n := nodes[rng.IntN(len(nodes))]
		n.visit(t, 1+rng.IntN(300))
		time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
		switch rng.IntN(12) {
		case 0:
			remote.empty()
		case 1:
			remote.set(true, false)
		case 2:
			remote.set(false, true)
		case 3, 4:
			remote.set(false, false)
		case 5:
			n.close(t)
			n.open(t, remote, n.sender.o.Window)
		}
	}
	remote.set(false, false)
	mu.Lock()
	calm = true
	mu.Unlock()
	want := 0
	for _, n := range nodes {
		want += n.made
	}
	until(t, "all are counted", func() bool { return e.check(t) == want })
	for _, n := range nodes {
		until(t, "the spool may go", func() bool { return n.sender.Stored() == n.end })
	}
	until(t, "nothing is pending", func() bool { _, pending, _ := remote.count(); return pending == 0 })
	return counters
}

// TestEmptiedWhileIdle: what was in the stream and is lost is sent again although nobody visits any more.
func TestEmptiedWhileIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		remote, e := newFake(), newEngine()
		a := newNode(t, "a", remote, 0)
		hold := make(chan struct{})
		served := serve(t, e, remote, func(step string) bool { <-hold; return false })
		a.visit(t, 10)
		until(t, "the question of the sender waits", func() bool { n, _, _ := remote.count(); return n > 0 })
		close(hold)
		until(t, "they are counted", func() bool { return e.check(t) == 10 })
		remote.set(true, false)
		a.visit(t, 10)
		time.Sleep(time.Minute)
		if e.check(t) != 10 || a.sender.Trouble() == "" {
			t.Errorf("%d are counted while the server is full, trouble %q", e.check(t), a.sender.Trouble())
		}
		remote.setBefore(func(call string) error { // it loses everything between the entry and whoever reads it
			if call == "Read" {
				remote.empty()
			}
			return nil
		})
		remote.set(false, false)
		time.Sleep(time.Minute)
		if e.check(t) != 10 {
			t.Fatal("the test proves nothing")
		}
		remote.setBefore(nil)
		until(t, "they are counted", func() bool { return e.check(t) == 20 })
		if served.dead.Load() != 0 {
			t.Error("something was set aside")
		}
	})
}

// TestWindow: without anybody who counts, a node has no more in the stream than its window, and says that nobody answers.
func TestWindow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		remote, e := newFake(), newEngine()
		const window = 20 << 10
		a := newNode(t, "a", remote, window)
		block := make(chan struct{})
		var once sync.Once
		release := func() { once.Do(func() { close(block) }) }
		t.Cleanup(release)
		serve(t, e, remote, func(step string) bool {
			if step == "rows" && e.check(t) > 0 {
				<-block
			}
			return false
		})
		for range 200 {
			a.visit(t, 50)
		}
		time.Sleep(2 * time.Minute)
		remote.mu.Lock()
		bytes := 0
		for _, en := range remote.entries {
			bytes += len(en.data)
		}
		remote.mu.Unlock()
		if bytes < window || bytes > window+2*entryBytes {
			t.Errorf("%d bytes in the stream", bytes)
		}
		if a.sender.Trouble() == "" {
			t.Error("it does not say that nobody answers")
		}
		release()
		until(t, "all are counted", func() bool { return e.check(t) == a.made })
	})
}

// TestPoison: an entry with which one process after another ends is handed out alone, then set aside, and the rest is counted.
func TestPoison(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		remote, e := newFake(), newEngine()
		e.meets = func(ev *clicks.Event) error {
			if ev.Link == 31 {
				return errDied
			}
			return nil
		}
		a := newNode(t, "a", remote, 0)
		counters := serve(t, e, remote, never)
		for range 6 {
			a.visit(t, 10)
			time.Sleep(time.Second)
		}
		until(t, "the rest is counted", func() bool { return e.check(t) == 50 })
		until(t, "the spool may go", func() bool { return a.sender.Stored() == a.end })
		if _, pending, aside := remote.count(); pending != 0 || aside != 1 || counters.dead.Load() != 1 {
			t.Errorf("%d pending, %d aside, %d counted", pending, aside, counters.dead.Load())
		}
		remote.mu.Lock()
		defer remote.mu.Unlock()
		kept, err := parseEntry(remote.aside[0].Entry)
		if err != nil || kept.spool != "a" || len(kept.groups) != 1 {
			t.Errorf("kept: %+v, %v", kept, err)
		}
	})
}

// TestEngineAway: an engine that refuses for long ends one session after another, and nothing is set aside for it.
func TestEngineAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		remote, e := newFake(), newEngine()
		var mu sync.Mutex
		refusals := 0
		e.meets = func(*clicks.Event) error {
			mu.Lock()
			defer mu.Unlock()
			if refusals++; refusals < 40 {
				return errors.New("the disk of the server is full")
			}
			return nil
		}
		a := newNode(t, "a", remote, 0)
		counters := serve(t, e, remote, never)
		a.visit(t, 100)
		until(t, "all are counted", func() bool { return e.check(t) == 100 })
		if counters.dead.Load() != 0 {
			t.Errorf("%d were set aside", counters.dead.Load())
		}
	})
}

// TestDamaged: an entry that arrives damaged is set aside, and its clicks are sent again.
func TestDamaged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		remote, e := newFake(), newEngine()
		a := newNode(t, "a", remote, 0)
		until(t, "the question of the sender waits", func() bool { n, _, _ := remote.count(); return n > 0 })
		gate := make(chan struct{})
		counters := serve(t, e, remote, func(string) bool { <-gate; return false })
		close(gate)
		a.visit(t, 10)
		until(t, "they are counted", func() bool { return e.check(t) == 10 })
		var once sync.Once
		remote.setBefore(func(call string) error {
			if call != "Read" {
				return nil
			}
			remote.mu.Lock()
			defer remote.mu.Unlock()
			for i := range remote.entries {
				if en := &remote.entries[i]; en.id > remote.sent && len(en.data) > 200 {
					once.Do(func() { en.data[len(en.data)/2] ^= 1 })
				}
			}
			return nil
		})
		a.visit(t, 10)
		time.Sleep(time.Second)
		a.visit(t, 10)
		until(t, "all are counted", func() bool { return e.check(t) == 30 })
		if counters.dead.Load() != 1 || counters.lost.Load() == 0 {
			t.Errorf("%d dead, %d lost", counters.dead.Load(), counters.lost.Load())
		}
	})
}

// TestTwoRunsLost: entries of two beginnings of a sender wait, and none of them follows what is stored: both are looked at once.
func TestTwoRunsLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		remote, e := newFake(), newEngine()
		e.doubt = map[string]int{}
		for run := range uint64(4) {
			if err := remote.Add(t.Context(), (&entry{run: run + 1, spool: "a", from: place(1, 100)}).append(nil)); err != nil {
				t.Fatal(err)
			}
		}
		counters := NewCounters()
		for range 2 { // the second finds them in the hands of the first
			r, err := NewReceiver(ReceiverOptions{Remote: remote, Place: e.place, Counters: counters, Log: quiet})
			if err != nil {
				t.Fatal(err)
			}
			remote.setAfter(func(call string) error {
				if call == "Done" && counters.lost.Load() <= 4 {
					return errAway
				}
				return nil
			})
			for range 5 {
				if n, err := r.Next(t.Context(), 100, func(*clicks.Event) error { return nil }); n != 0 || err != nil {
					t.Fatalf("%d clicks, %v", n, err)
				}
			}
		}
		if _, pending, _ := remote.count(); pending != 0 {
			t.Errorf("%d are pending", pending)
		}
		if n := counters.lost.Load(); n < 4 || n > 100 {
			t.Errorf("%d were lost", n)
		}
		if m, ok := parseMark(remote.marks["a"]); !ok || !m.lost || m.run != 4 {
			t.Errorf("the mark is %q", remote.marks["a"])
		}
	})
}
