package live_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/export"
	"github.com/terselink/terse/internal/live"
)

// pipe is a tail that the test feeds.
type pipe struct {
	c    chan clicks.Event
	fail atomic.Pointer[error] // what Next returns
}

func (p *pipe) Next(_ context.Context, most int, fn func(*clicks.Event) error) (int, error) {
	if err := p.fail.Load(); err != nil {
		return 0, *err
	}
	for n := 0; ; n++ {
		if n == most {
			return n, nil
		}
		select {
		case ev := <-p.c:
			if err := fn(&ev); err != nil {
				return n, err
			}
		default:
			return n, nil
		}
	}
}

func (p *pipe) failWith(err error) { p.fail.Store(&err) }

func (p *pipe) Wait(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (p *pipe) Close() error { return nil }

func (p *pipe) put(n int, change func(*clicks.Event)) {
	for range n {
		ev := clicks.Event{At: terse.MillisOf(time.Now()), Workspace: 1, Link: 5, Domain: "d", Code: "c", Weight: 1}
		if change != nil {
			change(&ev)
		}
		p.c <- ev
	}
}

func hub(p *pipe) *live.Hub {
	return live.New(live.Options{Open: func() (live.Tail, error) { return p, nil }})
}

func watch(t *testing.T, h *live.Hub, scope analytics.Scope, last string) *live.Watcher {
	t.Helper()
	w, err := h.Watch(1, scope, last)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// pass lets the time of the test pass.
func pass(d time.Duration) { <-time.After(d) }

// drain returns what has come so far.
func drain(w *live.Watcher) (list []live.Message, open bool) {
	for {
		select {
		case m, ok := <-w.C:
			if !ok {
				return list, false
			}
			list = append(list, m)
		default:
			return list, true
		}
	}
}

// sum adds up the counters and counts the clicks shown.
func sum(t *testing.T, list []live.Message) (total live.Counters, shown int64) {
	t.Helper()
	for _, m := range list {
		switch m.Event {
		case live.EventCounters:
			var c live.Counters
			if err := json.Unmarshal(m.Data, &c); err != nil {
				t.Fatal(err)
			}
			total.Clicks, total.Bots, total.Refused, total.Total, total.Shown = total.Clicks+c.Clicks, total.Bots+c.Bots, total.Refused+c.Refused, total.Total+c.Total, total.Shown+c.Shown
		case live.EventClick:
			var r export.Row
			if err := json.Unmarshal(m.Data, &r); err != nil || r.Domain != "d" {
				t.Fatalf("%s: %v", m.Data, err)
			}
			shown++
		}
	}
	return total, shown
}

func TestCountersAndSample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipe{c: make(chan clicks.Event, 10_000)}
		h := hub(p)
		defer h.Close()
		all, link := watch(t, h, analytics.Scope{}, ""), watch(t, h, analytics.Scope{Link: 9}, "")
		p.put(100, nil)
		p.put(3, func(ev *clicks.Event) { ev.Bot, ev.Weight = clicks.BotSearch, 10 })
		p.put(2, func(ev *clicks.Event) { ev.Outcome = clicks.OutcomeExpired })
		p.put(4, func(ev *clicks.Event) { ev.Link = 9 })
		p.put(7, func(ev *clicks.Event) { ev.Workspace = 2 })
		pass(1500 * time.Millisecond)
		synctest.Wait()
		list, open := drain(all)
		got, shown := sum(t, list)
		if !open || got.Clicks != 104 || got.Bots != 30 || got.Refused != 2 || got.Total != 136 || shown != live.MaxSampled || got.Shown != shown {
			t.Errorf("%+v, %d shown, open %v", got, shown, open)
		}
		list, _ = drain(link)
		if got, shown := sum(t, list); got.Total != 4 || shown != 4 {
			t.Errorf("the feed of a link: %+v, %d shown", got, shown)
		}
	})
}

func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipe{c: make(chan clicks.Event, 10_000)}
		h := hub(p)
		defer h.Close()
		first := watch(t, h, analytics.Scope{}, "")
		p.put(5, nil)
		pass(1100 * time.Millisecond)
		synctest.Wait()
		list, _ := drain(first)
		first.Leave()
		first.Leave()
		if len(list) < 6 {
			t.Fatalf("%d messages", len(list))
		}
		p.put(3, nil)
		pass(time.Second)
		synctest.Wait()
		again := watch(t, h, analytics.Scope{}, list[2].ID)
		got, _ := drain(again)
		if len(got) < len(list)-3+3 || got[0].ID != list[3].ID {
			t.Errorf("resumed with %d messages from %v", len(got), got)
		}
		for _, id := range []string{"other-1", "nonsense", list[0].ID[:strings.Index(list[0].ID, "-")] + "-999999"} {
			w := watch(t, h, analytics.Scope{}, id)
			if got, _ := drain(w); len(got) != 1 || got[0].Event != live.EventGap {
				t.Errorf("resumed after %q with %v", id, got)
			}
		}
		// More than the ring holds is a gap.
		for range 600 {
			pass(time.Second)
			drain(again)
		}
		synctest.Wait()
		late := watch(t, h, analytics.Scope{}, list[2].ID)
		if got, _ := drain(late); len(got) != 1 || got[0].Event != live.EventGap {
			t.Errorf("resumed after the ring's end with %d messages", len(got))
		}
	})
}

// TestSlowWatcher: who does not read is dropped, the others go on, and nothing is read when nobody
// watches.
func TestSlowWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipe{c: make(chan clicks.Event, 10_000)}
		var opened atomic.Int64
		h := live.New(live.Options{Open: func() (live.Tail, error) { opened.Add(1); return p, nil }})
		defer h.Close()
		slow, quick := watch(t, h, analytics.Scope{}, ""), watch(t, h, analytics.Scope{}, "")
		for range 700 {
			pass(time.Second)
			if _, open := drain(quick); !open {
				t.Fatal("the quick one was dropped")
			}
		}
		if _, open := drain(slow); open {
			t.Error("the slow one was not dropped")
		}
		quick.Leave()
		pass(2 * time.Minute)
		synctest.Wait()
		if n := opened.Load(); n != 1 {
			t.Errorf("opened %d times", n)
		}
		watch(t, h, analytics.Scope{}, "")
		pass(time.Second)
		synctest.Wait()
		if n := opened.Load(); n != 2 {
			t.Errorf("opened %d times after a pause", n)
		}
	})
}

// TestUnreadable: watchers are dropped when clicks cannot be read, and may come back.
func TestUnreadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipe{c: make(chan clicks.Event, 10)}
		p.failWith(errors.New("no disk"))
		h := hub(p)
		w := watch(t, h, analytics.Scope{}, "")
		synctest.Wait()
		if _, open := drain(w); open {
			t.Error("not dropped")
		}
		p.fail.Store(nil)
		w = watch(t, h, analytics.Scope{}, "")
		pass(1100 * time.Millisecond)
		synctest.Wait()
		list, open := drain(w)
		if !open || len(list) == 0 {
			t.Fatalf("%d messages, open %v", len(list), open)
		}
		p.failWith(errors.New("no disk again"))
		pass(1100 * time.Millisecond)
		synctest.Wait()
		p.fail.Store(nil)
		w = watch(t, h, analytics.Scope{}, list[0].ID) // clicks came meanwhile that nobody has read
		if list, _ := drain(w); len(list) != 1 || list[0].Event != live.EventGap {
			t.Errorf("resumed after a failure with %v", list)
		}
		h.Close()
		h.Close()
		if _, open := drain(w); open {
			t.Error("open after Close")
		}
		if _, err := h.Watch(1, analytics.Scope{}, ""); terse.ErrorCode(err) != terse.CodeUnavailable {
			t.Errorf("got %v", err)
		}
	})
}

func TestTooMany(t *testing.T) {
	p := &pipe{c: make(chan clicks.Event)}
	h := hub(p)
	defer h.Close()
	for range live.MaxWatchers {
		watch(t, h, analytics.Scope{}, "")
	}
	if _, err := h.Watch(1, analytics.Scope{}, ""); terse.ErrorCode(err) != terse.CodeRateLimited {
		t.Errorf("got %v", err)
	}
}

// TestManyFeeds: feeds that nobody watches any more go before there are too many.
func TestManyFeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipe{c: make(chan clicks.Event, 10)}
		h := hub(p)
		defer h.Close()
		stays, idle := watch(t, h, analytics.Scope{Link: 1}, ""), watch(t, h, analytics.Scope{Link: 2}, "")
		pass(1100 * time.Millisecond)
		synctest.Wait()
		kept, _ := drain(stays)
		gone, _ := drain(idle)
		idle.Leave()
		if w := watch(t, h, analytics.Scope{Link: 2}, gone[0].ID); len(w.C) != 0 {
			t.Error("a feed is forgotten at once")
		} else {
			w.Leave()
		}
		for n := range live.MaxFeeds {
			watch(t, h, analytics.Scope{Link: terse.LinkNumber(n + 3)}, "").Leave()
		}
		for last, want := range map[string]int{kept[0].ID: 0, gone[0].ID: 1} {
			link := terse.LinkNumber(1 + want)
			if list, _ := drain(watch(t, h, analytics.Scope{Link: link}, last)); len(list) != want {
				t.Errorf("link %d: resumed with %v", link, list)
			}
		}
	})
}
