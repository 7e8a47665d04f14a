package live_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/live"
)

// air carries letters to all who listen.
type air struct {
	mu    sync.Mutex
	ears  map[chan []byte]bool
	down  bool
	lose  int // letters from now on that are lost
	total int
	bytes int
}

var errDown = errors.New("the air is down")

func (a *air) Publish(_ context.Context, m []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.down {
		return errDown
	}
	a.total++
	a.bytes += len(m)
	if a.lose > 0 {
		a.lose--
		return nil
	}
	for ear := range a.ears {
		ear <- m
	}
	return nil
}

func (a *air) Receive(ctx context.Context, listening func(), got func([]byte)) error {
	ear := make(chan []byte, 10_000)
	a.mu.Lock()
	if a.down {
		a.mu.Unlock()
		return errDown
	}
	a.ears[ear] = true
	a.mu.Unlock()
	listening()
	for {
		select {
		case m, ok := <-ear:
			if !ok {
				return errDown
			}
			got(m)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// fail takes the air down, or brings it back.
func (a *air) fail(down bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.down = down
	if down {
		for ear := range a.ears {
			close(ear)
		}
		clear(a.ears)
	}
}

func (a *air) sent() (letters, bytes int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.total, a.bytes
}

// station is a hub among others.
type station struct {
	*live.Hub
	pipe *pipe
}

func stations(a *air, n int, nodes *atomic.Int64) []station {
	nodes.Store(int64(n))
	list := make([]station, n)
	for i := range list {
		list[i].pipe = &pipe{c: make(chan clicks.Event, 10_000)}
		list[i].Hub = hub(list[i].pipe)
		list[i].Join(live.JoinOptions{Transport: a, Nodes: func(context.Context) (int, error) { return int(nodes.Load()), nil }})
	}
	return list
}

// lastCounters returns the counters of the last second.
func lastCounters(t *testing.T, list []live.Message) (c live.Counters) {
	t.Helper()
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].Event == live.EventCounters {
			if err := json.Unmarshal(list[i].Data, &c); err != nil {
				t.Fatal(err)
			}
			return c
		}
	}
	t.Fatal("no counters")
	return c
}

// TestOthers: a view has the clicks of every node, and nothing is sent once nobody watches.
func TestOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, nodes := &air{ears: map[chan []byte]bool{}}, new(atomic.Int64)
		list := stations(a, 3, nodes)
		for i := range list {
			defer list[i].Close()
		}
		pass(10 * time.Second)
		synctest.Wait()
		if n, _ := a.sent(); n != 0 {
			t.Errorf("%d letters before anybody watches", n)
		}
		all, link := watch(t, list[0].Hub, analytics.Scope{}, ""), watch(t, list[0].Hub, analytics.Scope{Link: 9}, "")
		pass(5 * time.Second)
		synctest.Wait()
		got, _ := drain(all)
		drain(link)
		if c := lastCounters(t, got); c.Nodes != 3 || c.Partial {
			t.Fatalf("nobody clicks: %+v", c)
		}
		list[0].pipe.put(2, nil)
		list[1].pipe.put(3, nil)
		list[1].pipe.put(1, func(ev *clicks.Event) { ev.Bot, ev.Weight = clicks.BotSearch, 10 })
		list[2].pipe.put(4, func(ev *clicks.Event) { ev.Link = 9 })
		list[2].pipe.put(1, func(ev *clicks.Event) { ev.Outcome = clicks.OutcomeExpired })
		list[2].pipe.put(5, func(ev *clicks.Event) { ev.Workspace = 2 })
		pass(4 * time.Second)
		synctest.Wait()
		got, _ = drain(all)
		if sum, shown := sum(t, got); sum.Clicks != 9 || sum.Bots != 10 || sum.Refused != 1 || sum.Total != 20 || shown != 11 || sum.Shown != 11 {
			t.Errorf("%+v, %d shown", sum, shown)
		}
		if c := lastCounters(t, got); c.Nodes != 3 || c.Partial {
			t.Errorf("%+v", c)
		}
		got, _ = drain(link)
		if sum, shown := sum(t, got); sum.Clicks != 4 || shown != 4 {
			t.Errorf("the view of a link: %+v, %d shown", sum, shown)
		}
		// A resumed view has what came from elsewhere, too.
		list[1].pipe.put(3, nil)
		first := got[0]
		pass(3 * time.Second)
		synctest.Wait()
		got, _ = drain(all)
		again := watch(t, list[0].Hub, analytics.Scope{}, got[0].ID)
		if resumed, _ := drain(again); len(resumed) != len(got)-1 || resumed[0].ID != got[1].ID {
			t.Errorf("%d of %d messages come again", len(resumed), len(got)-1)
		}
		elsewhere := watch(t, list[1].Hub, analytics.Scope{}, first.ID)
		if resumed, _ := drain(elsewhere); len(resumed) != 1 || resumed[0].Event != live.EventGap {
			t.Errorf("resumed at another node with %v", resumed)
		}
		for _, w := range []*live.Watcher{all, link, again, elsewhere} {
			w.Leave()
		}
		pass(2 * time.Minute)
		synctest.Wait()
		before, _ := a.sent()
		pass(time.Minute)
		synctest.Wait()
		if after, _ := a.sent(); after != before {
			t.Errorf("%d letters while nobody watches", after-before)
		}
	})
}

// TestOthersBusy: of many clicks at every node each shows a part, the counters have all, and what is sent is bounded.
func TestOthersBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, nodes := &air{ears: map[chan []byte]bool{}}, new(atomic.Int64)
		list := stations(a, 4, nodes)
		for i := range list {
			defer list[i].Close()
		}
		w := watch(t, list[0].Hub, analytics.Scope{}, "")
		pass(10 * time.Second)
		synctest.Wait()
		drain(w)
		_, before := a.sent()
		pass(time.Second / 2) // clicks come in the middle of a second, not sometimes before and sometimes after its end
		for range 10 {
			for i := range list {
				list[i].pipe.put(500, func(ev *clicks.Event) { ev.Node = fmt.Sprint(i) })
			}
			pass(time.Second)
		}
		pass(3 * time.Second)
		synctest.Wait()
		got, _ := drain(w)
		sum, shown := sum(t, got)
		if sum.Total != 20_000 || sum.Shown != shown || shown > 11*live.MaxSampled || shown < 8*live.MaxSampled {
			t.Errorf("%+v, %d shown", sum, shown)
		}
		second := int64(0)
		for _, m := range got {
			if m.Event == live.EventCounters {
				second = 0
			} else if second++; second > live.MaxSampled {
				t.Fatalf("%d clicks in a second", second)
			}
		}
		if _, after := a.sent(); after-before > 14*live.MaxSampled*2000 {
			t.Errorf("%d bytes in 13 seconds", after-before)
		}
	})
}

// TestOthersLost: a transport that fails, or loses letters, is told, and the clicks of the node itself go on. A node that is
// not heard is missing.
func TestOthersLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, nodes := &air{ears: map[chan []byte]bool{}}, new(atomic.Int64)
		list := stations(a, 2, nodes)
		for i := range list {
			defer list[i].Close()
		}
		w := watch(t, list[0].Hub, analytics.Scope{}, "")
		step := func(want int, partial bool, what string) {
			t.Helper()
			drain(w)
			list[0].pipe.put(1, nil)
			list[1].pipe.put(1, nil)
			pass(5 * time.Second)
			synctest.Wait()
			got, open := drain(w)
			sum, _ := sum(t, got)
			if c := lastCounters(t, got); !open || sum.Total != int64(want) || c.Nodes != want || c.Partial != partial {
				t.Errorf("%s: %d clicks, %+v", what, sum.Total, c)
			}
		}
		pass(5 * time.Second)
		step(2, false, "both")
		a.fail(true)
		pass(10 * time.Second)
		step(1, true, "no transport")
		a.fail(false)
		pass(10 * time.Second)
		step(2, false, "it is back")
		nodes.Store(3)
		pass(10 * time.Second)
		drain(w)
		pass(2 * time.Second)
		synctest.Wait()
		got, _ := drain(w)
		if c := lastCounters(t, got); c.Nodes != 2 || !c.Partial {
			t.Errorf("a node that is not heard: %+v", c)
		}
		nodes.Store(2)
		pass(10*time.Second + time.Second/2) // in the middle of a second, so that both have letters to come
		drain(w)
		a.mu.Lock()
		a.lose = 2 // one of each
		a.mu.Unlock()
		pass(5 * time.Second)
		synctest.Wait()
		partial := 0
		got, _ = drain(w)
		for i := range got {
			if c := lastCounters(t, got[:i+1]); got[i].Event == live.EventCounters && c.Partial {
				partial++
			}
		}
		if partial == 0 || partial > 3 {
			t.Errorf("lost letters: %d seconds are partial", partial)
		}
		list[1].Close()
		nodes.Store(1)
		pass(10 * time.Second)
		step(1, false, "one has gone")
	})
}

// TestOthersNoClicks: a node that records nothing shows what others have.
func TestOthersNoClicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, nodes := &air{ears: map[chan []byte]bool{}}, new(atomic.Int64)
		list := stations(a, 1, nodes)
		defer list[0].Close()
		h := live.New(live.Options{})
		defer h.Close()
		h.Join(live.JoinOptions{Transport: a, Nodes: func(context.Context) (int, error) { return 1, nil }})
		w := watch(t, h, analytics.Scope{}, "")
		pass(5 * time.Second)
		list[0].pipe.put(3, nil)
		pass(3 * time.Second)
		synctest.Wait()
		got, _ := drain(w)
		if sum, shown := sum(t, got); sum.Total != 3 || shown != 3 {
			t.Errorf("%+v, %d shown", sum, shown)
		}
		if c := lastCounters(t, got); c.Nodes != 1 || c.Partial {
			t.Errorf("%+v", c)
		}
	})
}

// TestOthersMany: what others ask of a node is bounded, and what it asks.
func TestOthersMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, nodes := &air{ears: map[chan []byte]bool{}}, new(atomic.Int64)
		list := stations(a, 2, nodes)
		for i := range list {
			defer list[i].Close()
		}
		var watchers []*live.Watcher
		for i := range live.MaxAsked + 50 {
			watchers = append(watchers, watch(t, list[0].Hub, analytics.Scope{Domain: fmt.Sprint(i)}, ""))
		}
		pass(6 * time.Second)
		synctest.Wait()
		whole := 0
		for _, w := range watchers {
			got, _ := drain(w)
			if !lastCounters(t, got).Partial {
				whole++
			}
		}
		if whole != live.MaxAsked {
			t.Errorf("%d views are whole", whole)
		}
	})
}

// TestOthersCounted: as long as nobody knows how many nodes there are now, the view does not say that it is whole.
func TestOthersCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &air{ears: map[chan []byte]bool{}}
		p := &pipe{c: make(chan clicks.Event, 10)}
		h := hub(p)
		defer h.Close()
		var nodes atomic.Int64 // 0: the list cannot be read
		h.Join(live.JoinOptions{Transport: a, Nodes: func(context.Context) (int, error) {
			if n := nodes.Load(); n > 0 {
				return int(n), nil
			}
			return 0, errDown
		}})
		pass(7 * time.Second) // a count every five seconds would be three away
		step := func(w *live.Watcher, wait time.Duration, partial bool, what string) {
			t.Helper()
			drain(w)
			pass(wait)
			synctest.Wait()
			got, _ := drain(w)
			if c := lastCounters(t, got); c.Nodes != 1 || c.Partial != partial {
				t.Errorf("%s: %+v", what, c)
			}
		}
		w := watch(t, h, analytics.Scope{}, "")
		step(w, 4*time.Second, true, "never counted")
		nodes.Store(1)
		step(w, 7*time.Second, false, "counted")
		nodes.Store(0)
		step(w, 5*time.Second, false, "the list was read a moment ago")
		step(w, 20*time.Second, true, "the list cannot be read any more")
		nodes.Store(1)
		step(w, 7*time.Second, false, "it can again")
		w.Leave()
		pass(time.Second)
		nodes.Store(2) // while nobody watches
		w = watch(t, h, analytics.Scope{}, "")
		step(w, 2*time.Second, true, "a node came meanwhile")
		w.Leave()
		pass(time.Second)
		nodes.Store(1)
		w = watch(t, h, analytics.Scope{}, "")
		step(w, 2*time.Second, false, "counted at once for the first watcher")
		w.Leave()
	})
}
