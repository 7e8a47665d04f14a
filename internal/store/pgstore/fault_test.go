package pgstore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/sleep"
	"github.com/terselink/terse/internal/testengine"
)

// chunkOf leases n numbers of a domain and returns links with them, one of them an alias, and a document.
func chunkOf(t *testing.T, s *Store, d terse.DomainID, n int) *terse.Chunk {
	t.Helper()
	ctx := context.Background()
	generated, err := s.Lease(ctx, terse.LeaseRequest{Domain: d, Space: 7, Count: uint64(n)})
	if err != nil {
		t.Fatal(err)
	}
	alias, err := s.Lease(ctx, terse.LeaseRequest{Domain: d, Space: terse.AliasSpace, Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	c := &terse.Chunk{}
	for i := generated.Start; i < generated.End; i++ {
		c.Links = append(c.Links, terse.Link{Number: terse.NewLinkNumber(d, 7, i), Workspace: 1, Version: 1, CreatedAt: 1000, UpdatedAt: 1000,
			Destination: fmt.Sprintf("https://example.com/%d", i)})
	}
	c.Links = append(c.Links, terse.Link{Number: terse.NewLinkNumber(d, terse.AliasSpace, alias.Start), Workspace: 1, Version: 1,
		CreatedAt: 1000, UpdatedAt: 1000, Code: fmt.Sprintf("alias-%d", alias.Start), Destination: "https://example.com/alias"})
	c.Documents = []terse.Document{{Workspace: 1, Kind: terse.KindLedger, ID: fmt.Sprintf("%d-%d", d, alias.Start), Version: 1, Data: []byte("{}")}}
	return c
}

// stored reports how many links of the chunk are there.
func stored(t *testing.T, s *Store, c *terse.Chunk) int {
	t.Helper()
	keys, dst := make([]terse.LinkKey, len(c.Links)), make([]terse.Link, len(c.Links))
	for i := range c.Links {
		keys[i].Number = c.Links[i].Number
	}
	if err := s.GetLinks(context.Background(), keys, dst); err != nil {
		t.Fatal(err)
	}
	n := 0
	for i := range dst {
		if dst[i].Number != 0 {
			n++
		}
	}
	return n
}

// TestLostConnections cuts the connection at each step of an insert, before the server has the message and
// before its answer arrives, and compares what the caller was told with what is stored.
func TestLostConnections(t *testing.T) {
	url := newDatabase(t, "")
	direct := open(t, Options{URL: url})
	p, through := testengine.NewProxy(t, url)
	s := open(t, Options{URL: through, MaxConns: 2, Pooler: true}) // so that the text of statements is on the wire
	ctx := context.Background()
	for _, step := range []struct {
		at     string
		answer bool
		want   error
		stored bool
	}{
		{"begin", false, terse.ErrUnavailable, false},
		{"begin", true, terse.ErrUnavailable, false},
		{"terse.aliases", false, terse.ErrUnavailable, false},
		{"terse.aliases", true, terse.ErrUnavailable, false},
		{"copy terse.links", false, terse.ErrUnavailable, false},
		{"copy terse.links", true, terse.ErrUnavailable, false},
		{"commit", false, terse.ErrUnknownOutcome, false},
		{"commit", true, terse.ErrUnknownOutcome, true},
	} {
		t.Run(fmt.Sprintf("%s/answer=%t", step.at, step.answer), func(t *testing.T) {
			c := chunkOf(t, direct, 1, 20)
			p.Cut(step.at, step.answer)
			if err := s.InsertLinks(ctx, c); !errors.Is(err, step.want) {
				t.Fatalf("InsertLinks: got error %v, want %v", err, step.want)
			}
			want := 0
			if step.stored {
				want = len(c.Links)
			}
			if n := stored(t, direct, c); n != want {
				t.Fatalf("%d links are stored, want %d", n, want)
			}
			// The caller repeats it: applied once, whatever happened.
			err := s.InsertLinks(ctx, c)
			if conflict, ok := errors.AsType[*terse.AliasConflictError](err); step.stored != ok || !ok && err != nil || ok && len(conflict.Rows) != len(c.Links) {
				t.Fatalf("InsertLinks again: %v", err)
			}
			if n := stored(t, direct, c); n != len(c.Links) {
				t.Fatalf("%d links are stored after the repetition, want %d", n, len(c.Links))
			}
		})
	}
	if n := s.unknown.Load(); n != 2 {
		t.Errorf("%d unknown outcomes were counted, want 2", n)
	}
}

// TestLostLease checks that a range whose answer was lost is never leased again.
func TestLostLease(t *testing.T) {
	url := newDatabase(t, "")
	p, through := testengine.NewProxy(t, url)
	s := open(t, Options{URL: through, MaxConns: 2, Pooler: true})
	req := terse.LeaseRequest{Domain: 1, Space: 7, Count: 10}
	p.Cut("commit", true)
	if _, err := s.Lease(context.Background(), req); !errors.Is(err, terse.ErrUnknownOutcome) {
		t.Fatalf("Lease: got error %v, want ErrUnknownOutcome", err)
	}
	l, err := s.Lease(context.Background(), req)
	if err != nil || l.Start != 10 {
		t.Fatalf("the lease after it begins at %d (%v), want 10", l.Start, err)
	}
}

// TestHalfOpen checks that a server which does not answer costs its callers their time and nothing
// else: no call hangs, nothing piles up, nobody is told that a link does not exist.
func TestHalfOpen(t *testing.T) {
	url := newDatabase(t, "")
	p, through := testengine.NewProxy(t, url)
	s := open(t, Options{URL: through, MaxConns: 4, ConnectTimeout: time.Hour})
	ctx := context.Background()
	c := chunkOf(t, s, 1, 10)
	if err := s.InsertLinks(ctx, c); err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	p.Hold()
	const callers = 200
	var wg sync.WaitGroup // ends only if no call waits for the server or for the connection, which takes an hour here
	for i := range callers {
		wg.Go(func() {
			call, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
			defer cancel()
			dst := make([]terse.Link, 1)
			err := s.GetLinks(call, []terse.LinkKey{{Number: c.Links[i%10].Number}}, dst)
			if !errors.Is(err, terse.ErrUnavailable) {
				t.Errorf("GetLinks: got error %v, want ErrUnavailable", err)
			}
			if _, err := s.GetAlias(call, 1, "alias-0"); !errors.Is(err, terse.ErrUnavailable) {
				t.Errorf("GetAlias: got error %v, want ErrUnavailable", err)
			}
		})
	}
	wg.Wait()
	p.Pass()
	p.Drop()
	call, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for s.Ping(call) != nil {
		if sleep.For(call, 50*time.Millisecond) != nil {
			t.Fatal("the store does not come back")
		}
	}
	if n := stored(t, s, c); n != len(c.Links) {
		t.Fatalf("%d links, want %d", n, len(c.Links))
	}
	for after := runtime.NumGoroutine(); after > before+50; after = runtime.NumGoroutine() { // what was cut off ends by itself
		if sleep.For(call, 50*time.Millisecond) != nil {
			t.Fatalf("%d goroutines before, %d after %d calls", before, after, callers)
		}
	}
}

// TestHistory checks what a change of the server's history does: leases jump once, the feed never falls.
func TestHistory(t *testing.T) {
	url := newDatabase(t, "")
	s := open(t, Options{URL: url})
	ctx := context.Background()
	c := chunkOf(t, s, 1, 100)
	if err := s.InsertLinks(ctx, c); err != nil {
		t.Fatal(err)
	}
	lease := func(s *Store, d terse.DomainID, space terse.SpaceID, limit uint64) uint64 {
		t.Helper()
		l, err := s.Lease(ctx, terse.LeaseRequest{Domain: d, Space: space, Count: 5, Cap: limit})
		if err != nil {
			t.Fatal(err)
		}
		return l.Start
	}
	if start := lease(s, 1, 7, 0); start != 100 {
		t.Fatalf("the second lease begins at %d, want 100", start)
	}
	last := uint64(0)
	feed := func(s *Store) uint64 {
		t.Helper()
		list, err := s.Changes(ctx, last, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, ch := range list {
			last = max(last, ch.Seq)
		}
		return last
	}
	put := func(s *Store, id string) {
		t.Helper()
		if err := s.PutDocument(ctx, terse.Document{Workspace: 1, Kind: terse.KindMeta, ID: id, Version: 1, Data: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	put(s, "a")
	for feed(s) == 0 { // other tests on the server hold the feed up for moments
		_ = sleep.For(ctx, 10*time.Millisecond)
	}
	// A counter that went back, as after the loss of the last writes, in tables that remember another server.
	exec(t, url, "update terse.spaces set lineage = 'other', next = 50", "update terse.feed set lineage = 'other', home = 'other'")
	again := open(t, Options{URL: url})
	if start, want := lease(again, 1, 7, 0), uint64(100+maxJump); start != want {
		t.Errorf("after the change a lease begins at %d, want %d: past every link, and the jump", start, want)
	}
	if start, want := lease(again, 1, 7, 0), uint64(105+maxJump); start != want {
		t.Errorf("the lease after it begins at %d, want %d: one jump", start, want)
	}
	if start := lease(again, 1, 5, 1600); start != 100 {
		t.Errorf("in a space that nobody knows of a lease begins at %d, want 100, a sixteenth of its cap", start)
	}
	if start := lease(again, 0, 1, 0); start != instanceJump {
		t.Errorf("a counter of the instance begins at %d, want %d", start, instanceJump)
	}
	before := last
	put(again, "b")
	for feed(again) == before {
		_ = sleep.For(ctx, 10*time.Millisecond)
	}
	if gap := last>>20 - before>>20; gap < historyJump {
		t.Errorf("the feed moved by %d transactions, want at least %d", gap, historyJump)
	}
	// And tables whose feed is ahead of the transactions of their server.
	exec(t, url, fmt.Sprintf("update terse.changes set seq = seq + (1::bigint << 50) where seq = %d", last))
	last += 1 << 50
	put(open(t, Options{URL: url}), "c")
	for before = last; feed(s) == before; {
		_ = sleep.For(ctx, 10*time.Millisecond)
	}
}
