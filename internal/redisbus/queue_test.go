package redisbus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/terselink/terse/internal/links"
	"github.com/terselink/terse/internal/sleep"
	"github.com/terselink/terse/internal/testengine"
)

var _ links.Spread = (*Run)(nil)

// newQueue returns a queue that is patient with a machine which is busy otherwise.
func newQueue(t *testing.T, prefix, name string) *Queue {
	t.Helper()
	q, err := NewQueue(QueueOptions{
		Options: Options{URL: testengine.Address(t, testengine.Redis), Prefix: prefix, Instance: "i"}, Version: "v{1}", Name: name, Label: "label", Slots: 2, Log: slog.New(slog.DiscardHandler), Secret: bytes.Repeat([]byte{7}, 32),
	})
	if err != nil {
		t.Fatal(err)
	}
	q.waits = waits{gone: time.Hour, claim: time.Hour, patience: time.Hour, flight: time.Hour}
	t.Cleanup(q.Close)
	return q
}

// work has a node take chunks until the test ends, or stop is called.
func work(t *testing.T, q *Queue, run func(context.Context, []byte) []byte) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); q.Work(ctx, run) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func double(_ context.Context, chunk []byte) []byte { return append(bytes.Clone(chunk), chunk...) }

// hasRoom waits until chunks may be handed in.
func hasRoom(t *testing.T, r *Run) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if !r.Room(ctx, 0) {
		t.Fatal("no other node was seen for a minute")
	}
}

// insist hands a chunk in until it is answered: a server that has no processor for seconds refuses some.
func insist(ctx context.Context, r *Run, chunk string) (outcome string, err error) {
	for end := time.Now().Add(time.Minute); ; {
		got, node, err := r.Do(ctx, []byte(chunk))
		if err == nil && node != "label" {
			return "", fmt.Errorf("the outcome is of the node %q", node)
		}
		if err == nil || ctx.Err() != nil || time.Now().After(end) {
			return string(got), err
		}
		_ = sleep.For(ctx, 50*time.Millisecond)
	}
}

// answer is what insist returned.
type answer struct {
	outcome string
	err     error
}

func (r *Run) insisting(ctx context.Context, chunk string) <-chan answer {
	c := make(chan answer, 1)
	go func() {
		outcome, err := insist(ctx, r, chunk)
		c <- answer{outcome, err}
	}()
	return c
}

// idler is a node that says it takes chunks, and takes none by itself.
func idler(t *testing.T, q *Queue) *worker {
	t.Helper()
	w := &worker{q: q, cursor: "0-0", tasks: map[string]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.beat(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

// until waits for a condition.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// keysOf lists the keys of a prefix.
func keysOf(t *testing.T, q *Queue, prefix string) []string {
	t.Helper()
	c, err := q.connect()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern(prefix+":*").Build()).AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// TestQueue: chunks are run by other nodes, each outcome reaches who handed the chunk in, and what stays expires.
func TestQueue(t *testing.T) {
	prefix := newPrefix()
	home := newQueue(t, prefix, "home")
	r := home.Open()
	if _, _, err := r.Do(t.Context(), []byte("x")); !errors.Is(err, errNobody) {
		t.Errorf("without another node: %v", err)
	}
	for _, name := range []string{"a", "b"} {
		work(t, newQueue(t, prefix, name), double)
	}
	hasRoom(t, r)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			chunk := strings.Repeat(fmt.Sprint(i, " "), 10_000)
			got, err := insist(t.Context(), r, chunk)
			if err != nil || got != chunk+chunk {
				t.Errorf("chunk %d: %d bytes, %v", i, len(got), err)
			}
		})
	}
	all.Wait()
	r.Close()
	c, err := home.connect()
	if err != nil {
		t.Fatal(err)
	}
	// An entry goes, and what a run leaves expires, after the outcome was heard.
	until(t, "no entry stays", func() bool {
		n, err := c.Do(t.Context(), c.B().Xlen().Key(home.stream).Build()).AsInt64()
		return err == nil && n == 0
	})
	if !strings.HasPrefix(home.stream, prefix+":{i:jobs:v1}:") {
		t.Errorf("stream %q", home.stream)
	}
	var keys []string
	until(t, "the keys are those of the stream and its nodes", func() bool {
		keys = keysOf(t, home, prefix)
		slices.Sort(keys)
		return slices.Equal(keys, []string{home.stream, home.nodes})
	})
	for _, k := range keys {
		if ttl, err := c.Do(t.Context(), c.B().Ttl().Key(k).Build()).AsInt64(); err != nil || ttl <= 0 {
			t.Errorf("%s does not expire: %d, %v", k, ttl, err)
		}
	}
}

// TestQueueTakenOver: the chunk of a node that gives no sign any more is run by another one.
func TestQueueTakenOver(t *testing.T) {
	prefix := newPrefix()
	home, dead := newQueue(t, prefix, "home"), newQueue(t, prefix, "dead")
	w := idler(t, dead)
	r := home.Open()
	defer r.Close()
	hasRoom(t, r)
	answers := r.insisting(t.Context(), "x")
	for end := time.Now().Add(time.Minute); ; {
		if got, err := w.take(t.Context()); err == nil && got != nil {
			break // and nothing is heard of it
		}
		if time.Now().After(end) {
			t.Fatal("no chunk came for a minute")
		}
	}
	heir := newQueue(t, prefix, "heir")
	heir.waits.claim = 100 * time.Millisecond
	work(t, heir, double)
	if a := within(t, answers, "an answer"); a.err != nil || a.outcome != "xx" {
		t.Errorf("%q, %v", a.outcome, a.err)
	}
}

// TestQueueEmptied: a chunk that is lost with the stream is given back to who handed it in.
func TestQueueEmptied(t *testing.T) {
	prefix := newPrefix()
	home, away := newQueue(t, prefix, "home"), newQueue(t, prefix, "away")
	idler(t, away)
	r := home.Open()
	defer r.Close()
	hasRoom(t, r)
	home.waits.patience = 10 * time.Millisecond
	errs := make(chan error, 1)
	go func() {
		_, _, err := r.Do(t.Context(), []byte("x"))
		errs <- err
	}()
	c, err := home.connect()
	if err != nil {
		t.Fatal(err)
	}
	for given := false; !given; {
		select {
		case err := <-errs:
			if err == nil {
				t.Error("a lost chunk was answered")
			}
			given = true
		case <-time.After(5 * time.Millisecond):
			_ = c.Do(t.Context(), c.B().Del().Key(home.stream).Build()).Error() // it is done again
		}
	}
	// The group is made again, and chunks go on.
	work(t, away, double)
	if got, err := insist(t.Context(), r, "y"); err != nil || got != "yy" {
		t.Fatalf("after the stream was made again: %q, %v", got, err)
	}
}

// TestQueueStopped: what a node runs at its stop is answered, and nothing waits for ever when a run is cut.
func TestQueueStopped(t *testing.T) {
	prefix := newPrefix()
	home, away := newQueue(t, prefix, "home"), newQueue(t, prefix, "away")
	running := make(chan struct{}, 1)
	stop := work(t, away, func(ctx context.Context, _ []byte) []byte {
		select {
		case running <- struct{}{}:
		case <-ctx.Done():
		}
		<-ctx.Done()
		return []byte("stopped")
	})
	r := home.Open()
	defer r.Close()
	hasRoom(t, r)
	ctx, cancel := context.WithCancel(t.Context())
	cut := r.insisting(ctx, "x")
	within(t, running, "the chunk is run")
	cancel()
	if a := within(t, cut, "the call ends"); !errors.Is(a.err, context.Canceled) {
		t.Errorf("a call that was cut: %v", a.err)
	}
	answers := r.insisting(t.Context(), "y")
	within(t, running, "the next chunk is run")
	stop()
	work(t, newQueue(t, prefix, "next"), double) // for an answer that a busy server has lost
	if a := within(t, answers, "an answer"); a.err != nil || a.outcome != "stopped" && a.outcome != "yy" {
		t.Errorf("%q, %v", a.outcome, a.err)
	}
}
