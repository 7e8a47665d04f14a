package redisbus

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/live"
	"github.com/terselink/terse/internal/testengine"
)

var _ live.Transport = (*Live)(nil)

func newLive(t *testing.T, url, prefix string, secret []byte) *Live {
	t.Helper()
	l, err := NewLive(LiveOptions{Options: Options{URL: url, Prefix: prefix, Instance: "i"}, Secret: secret, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// tap is a tail of clicks that the test makes.
type tap chan clicks.Event

func (p tap) Next(_ context.Context, most int, fn func(*clicks.Event) error) (n int, err error) {
	for ; n < most; n++ {
		select {
		case ev := <-p:
			if err := fn(&ev); err != nil {
				return n, err
			}
		default:
			return n, nil
		}
	}
	return n, nil
}

func (p tap) Wait(ctx context.Context) error {
	pause, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	<-pause.Done()
	return ctx.Err()
}

func (p tap) Close() error { return nil }

// watchTwo returns the taps of two hubs on a server, and a watcher at the first.
func watchTwo(t *testing.T, urls [2]string, secret []byte) (taps [2]tap, bus [2]*Live, w *live.Watcher) {
	t.Helper()
	prefix := newPrefix()
	var hubs [2]*live.Hub
	for i := range hubs {
		taps[i], bus[i] = make(tap, 10_000), newLive(t, urls[i], prefix, secret)
		hubs[i] = live.New(live.Options{Open: func() (live.Tail, error) { return taps[i], nil }})
		hubs[i].Join(live.JoinOptions{Transport: bus[i], Nodes: func(context.Context) (int, error) { return 2, nil }})
		t.Cleanup(hubs[i].Close)
	}
	w, err := hubs[0].Watch(1, analytics.Scope{}, "")
	if err != nil {
		t.Fatal(err)
	}
	return taps, bus, w
}

// awaitCounters reads a view until its counters are as wanted.
func awaitCounters(t *testing.T, w *live.Watcher, what string, ok func(live.Counters) bool) (clicks int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		m := within(t, w.C, what)
		if m.Event == live.EventClick {
			clicks++
		}
		var c live.Counters
		if m.Event == live.EventCounters {
			if err := json.Unmarshal(m.Data, &c); err != nil {
				t.Fatal(err)
			}
			if ok(c) {
				return clicks
			}
		}
		if time.Now().After(end) {
			t.Fatalf("%s: the last second was %+v", what, c)
		}
	}
}

func some(n int, node string) []clicks.Event {
	list := make([]clicks.Event, n)
	for i := range list {
		list[i] = clicks.Event{At: terse.MillisOf(time.Now()), Workspace: 1, Link: 5, Domain: "d", Code: "c", Weight: 1, Node: node}
	}
	return list
}

func pour(to tap, list []clicks.Event) {
	for i := range list {
		to <- list[i]
	}
}

func both(c live.Counters) bool { return c.Nodes == 2 && !c.Partial }

// TestLive: two hubs show each other's clicks through Redis, while it is full too; a server that is stopped, or hangs, leaves each
// its own, and when it is back so is the view.
func TestLive(t *testing.T) {
	server := testengine.NewRedis(t)
	proxy, through := testengine.NewProxy(t, server.URL)
	taps, _, w := watchTwo(t, [2]string{through, server.URL}, make([]byte, 32))
	awaitCounters(t, w, "both nodes", both)
	exchange := func(what string) {
		t.Helper()
		pour(taps[0], some(3, "here"))
		pour(taps[1], some(4, "there"))
		total := int64(0)
		shown := awaitCounters(t, w, what, func(c live.Counters) bool { total += c.Total; return total >= 7 })
		if total != 7 || shown != 7 {
			t.Errorf("%s: %d clicks, %d shown", what, total, shown)
		}
	}
	exchange("redis is there")

	server.Do("CONFIG", "SET", "maxmemory", "1")
	exchange("redis is full")
	server.Do("CONFIG", "SET", "maxmemory", "0")

	server.Pause()
	awaitCounters(t, w, "redis hangs", func(c live.Counters) bool { return c.Nodes == 1 && c.Partial })
	pour(taps[0], some(3, "here"))
	own := int64(0) // they may fall into two seconds
	awaitCounters(t, w, "own clicks while redis hangs", func(c live.Counters) bool { own += c.Total; return own >= 3 })
	if own != 3 {
		t.Errorf("%d own clicks while redis hangs", own)
	}
	server.Resume()
	awaitCounters(t, w, "redis goes on", both)
	exchange("redis goes on")

	proxy.Drop()
	awaitCounters(t, w, "the connection is cut", func(c live.Counters) bool { return c.Partial })
	awaitCounters(t, w, "connected again", both)
	exchange("connected again")
}

// TestLiveForged: what no node of the instance has signed, or was damaged, does not arrive and is counted.
func TestLiveForged(t *testing.T) {
	url, prefix := testengine.Address(t, testengine.Redis), newPrefix()
	secret := make([]byte, 32)
	rand.Read(secret)
	mine, other, forger := newLive(t, url, prefix, secret), newLive(t, url, prefix, secret), newLive(t, url, prefix, make([]byte, 32))
	ctx, cancel := context.WithCancel(t.Context())
	listening, got, done := make(chan struct{}), make(chan string, 10), make(chan struct{})
	var once atomic.Bool
	go func() {
		defer close(done)
		_ = mine.Receive(ctx, func() {
			if once.CompareAndSwap(false, true) {
				close(listening)
			}
		}, func(b []byte) { got <- string(b) })
	}()
	defer func() { cancel(); <-done }()
	within(t, listening, "subscription")
	signed := other.seal.sign(sealedLetter, "", "", pack([]byte("x")))
	for i, m := range []string{"", "short", signed, signed + pack([]byte("y")), fmt.Sprintf("%s%s", signed, pack([]byte("x")))[1:]} {
		if err := other.bus.Publish(ctx, []byte(m)); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	if err := forger.Publish(ctx, []byte("forged")); err != nil {
		t.Fatal(err)
	}
	if err := other.Publish(ctx, []byte("whole")); err != nil {
		t.Fatal(err)
	}
	if m := within(t, got, "letter"); m != "whole" {
		t.Errorf("received %q", m)
	}
	if n := value(t, mine.bad.count.WithLabelValues(sealedLetter)); n != 6 {
		t.Errorf("%v refused", n)
	}
}

// BenchmarkLiveLetter packs, signs, verifies and unpacks what a busy second of a view brings.
func BenchmarkLiveLetter(b *testing.B) {
	l := &Live{seal: sealer{make([]byte, 32)}}
	letter, err := json.Marshal(some(40, "a node"))
	if err != nil {
		b.Fatal(err)
	}
	packed := pack(letter)
	b.SetBytes(int64(len(letter)))
	b.ReportMetric(float64(len(packed)), "packed-bytes")
	for b.Loop() {
		packed := pack(letter)
		if _, ok := l.open([]byte(l.seal.sign(sealedLetter, "", "", packed) + packed)); !ok {
			b.Fatal("not opened")
		}
	}
}
