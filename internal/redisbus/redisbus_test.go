package redisbus

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/terselink/terse/internal/changes"
	"github.com/terselink/terse/internal/testengine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ changes.Transport = (*Bus)(nil)

func newBus(t *testing.T, url, prefix string) *Bus {
	t.Helper()
	b, err := New(Options{URL: url, Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func newPrefix() string { return fmt.Sprintf("terse-test-%x", rand.Uint64()) }

// ear listens until the test ends, again and again.
type ear struct {
	listening chan struct{}
	got       chan string
	ended     chan error
	last      string // what hears has heard
}

// hears waits for the next message. The one before may be repeated: publish does that when the answer of a busy server comes late.
func (e *ear) hears(t *testing.T, want string) {
	t.Helper()
	got := within(t, e.got, "message")
	for got == e.last && got != want {
		got = within(t, e.got, "message")
	}
	if got != want {
		t.Fatalf("heard %q, want %q", got, want)
	}
	e.last = want
}

func listen(t *testing.T, b *Bus) *ear {
	e := &ear{listening: make(chan struct{}, 1000), got: make(chan string, 1000), ended: make(chan error, 1000)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			err := b.Receive(ctx, func() { e.listening <- struct{}{} }, func(m []byte) { e.got <- string(m) })
			select {
			case e.ended <- err:
			default:
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return e
}

func within[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatalf("%s: waited for a minute", what)
		panic("unreachable")
	}
}

// publish publishes until it works.
func publish(t *testing.T, b *Bus, m string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := b.Publish(ctx, []byte(m))
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("publish: %v", err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// TestBus: messages arrive whole and in order at everybody of the prefix, and at nobody else.
func TestBus(t *testing.T) {
	url, prefix := testengine.Address(t, testengine.Redis), newPrefix()
	a, b, stranger := newBus(t, url, prefix), newBus(t, url, prefix), newBus(t, url, prefix+"x")
	mine, other, theirs := listen(t, a), listen(t, b), listen(t, stranger)
	for _, e := range []*ear{mine, other, theirs} {
		within(t, e.listening, "subscription")
	}
	for i := range 100 {
		publish(t, a, fmt.Sprintf("%d\x00\r\n\xff", i))
	}
	for i := range 100 {
		for _, e := range []*ear{mine, other} {
			e.hears(t, fmt.Sprintf("%d\x00\r\n\xff", i))
		}
	}
	if len(theirs.got) != 0 {
		t.Error("another instance heard a message")
	}
}

// TestCut: a connection that is lost is told to the listener, who listens again.
func TestCut(t *testing.T) {
	proxy, through := testengine.NewProxy(t, testengine.Address(t, testengine.Redis))
	b := newBus(t, through, newPrefix())
	e := listen(t, b)
	within(t, e.listening, "subscription")
	for i := range 3 {
		proxy.Drop()
		within(t, e.listening, "the next subscription")
		m := fmt.Sprint("after cut ", i)
		publish(t, b, m)
		for within(t, e.got, "message") != m { // one that was published twice
		}
	}
}

// TestCloseWhileDialing: a connection that is being made while the client is closed does not stay open.
func TestCloseWhileDialing(t *testing.T) {
	proxy, through := testengine.NewProxy(t, testengine.Address(t, testengine.Redis))
	b := newBus(t, through, newPrefix())
	publish(t, b, "x")
	open := func() int {
		b.sockets.mu.Lock()
		defer b.sockets.mu.Unlock()
		return len(b.sockets.open)
	}
	if open() == 0 {
		t.Fatal("the connection in use is not known")
	}
	proxy.Drop()
	for open() > 0 {
		<-time.After(time.Millisecond)
	}
	proxy.Hold()
	done := make(chan error)
	go func() { done <- b.Publish(context.Background(), []byte("y")) }()
	for open() == 0 { // it has dialled and waits for the first answer
		<-time.After(time.Millisecond)
	}
	b.Close()
	proxy.Pass()
	if err := within(t, done, "publish"); err == nil {
		t.Error("published by a client that is closed")
	}
	if n := open(); n != 0 {
		t.Errorf("%d connections are open after Close", n)
	}
}

// TestAway: a server that refuses, is killed and comes back empty.
func TestAway(t *testing.T) {
	s := testengine.NewRedis(t)
	b := newBus(t, s.URL, newPrefix())
	e := listen(t, b)
	within(t, e.listening, "subscription")
	s.Kill()
	within(t, e.ended, "the end of the subscription")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := b.Publish(ctx, []byte("x")); err == nil || ctx.Err() != nil {
		t.Errorf("publish without a server: %v", err)
	}
	for len(e.listening) > 0 {
		<-e.listening
	}
	s.Start()
	within(t, e.listening, "the next subscription")
	publish(t, b, "back")
	for within(t, e.got, "message") != "back" {
	}
}

// TestSilent: a server that does not answer ends every call with its context, and the subscription soon.
func TestSilent(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for pings that are not answered")
	}
	s := testengine.NewRedis(t)
	b := newBus(t, s.URL, newPrefix())
	e := listen(t, b)
	within(t, e.listening, "subscription")
	publish(t, b, "x")
	s.Pause()
	defer s.Resume()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := b.Publish(ctx, []byte("y")); err == nil {
		t.Error("published by a server that is stopped")
	}
	within(t, e.ended, "the end of the subscription")
}

// TestFull: a server without memory, and one that evicts or has lost everything, carries messages.
func TestFull(t *testing.T) {
	s := testengine.NewRedis(t)
	b := newBus(t, s.URL, newPrefix())
	e := listen(t, b)
	within(t, e.listening, "subscription")
	for _, policy := range []string{"noeviction", "allkeys-lru"} {
		s.Do("CONFIG", "SET", "maxmemory-policy", policy)
		s.Do("CONFIG", "SET", "maxmemory", "1")
		if got := s.Do("SET", "x", "y"); policy == "noeviction" && !strings.HasPrefix(got, "-OOM") {
			t.Fatalf("the server is not full: %s", got)
		}
		publish(t, b, policy)
		e.hears(t, policy)
		s.Do("FLUSHALL")
	}
	publish(t, b, "emptied")
	e.hears(t, "emptied")
}

// TestReplica: a replica is refused, because messages stay on it.
func TestReplica(t *testing.T) {
	s := testengine.NewRedis(t)
	s.Do("REPLICAOF", "127.0.0.1", "1")
	b := newBus(t, s.URL, newPrefix())
	e := listen(t, b)
	if err := within(t, e.ended, "the end"); err == nil || !strings.Contains(err.Error(), "replica") {
		t.Fatalf("listening to a replica: %v", err)
	}
	s.Do("REPLICAOF", "NO", "ONE") // it was made the primary
	within(t, e.listening, "subscription")
}

// TestCheck: what is wrong is said in words, without the password.
func TestCheck(t *testing.T) {
	s := testengine.NewRedis(t, "--requirepass", "hunter2")
	at := func(user string) string { return strings.Replace(s.URL, "redis://", "redis://"+user, 1) }
	for _, c := range []struct{ name, url, want string }{
		{"right", at(":hunter2@"), ""},
		{"wrong password", at(":hunter3@"), "password of redis.url is wrong"},
		{"no password", s.URL, "wants a password"},
		{"nobody there", "redis://:hunter2@127.0.0.1:1/0", "nobody listens"},
		{"no such host", "redis://:hunter2@no-such-host.invalid:6379/0", "has no address"},
		{"no such database", strings.Replace(at(":hunter2@"), "/0", "/4711", 1), "DB index"},
	} {
		found, err := Check(t.Context(), Options{URL: c.url, Prefix: newPrefix()})
		switch {
		case c.want == "" && (err != nil || !strings.Contains(found, "answers")):
			t.Errorf("%s: %q, %v", c.name, found, err)
		case c.want != "" && (err == nil || strings.Contains(err.Error(), "hunter")):
			t.Errorf("%s: got error %v", c.name, err)
		case c.want != "" && !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: got %v, want something about %q", c.name, err, c.want)
		}
	}
}

// BenchmarkPublish is what a message of one event costs the sender, who does it behind everybody's back.
func BenchmarkPublish(b *testing.B) {
	bus, err := New(Options{URL: testengine.Address(b, testengine.Redis), Prefix: newPrefix()})
	if err != nil {
		b.Fatal(err)
	}
	defer bus.Close()
	m := make([]byte, 40)
	for b.Loop() {
		if err := bus.Publish(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
}
