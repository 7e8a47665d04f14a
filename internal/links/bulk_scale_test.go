package links

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/memstore"
)

// farStore is a store which a request takes a while to reach, as PostgreSQL in another region: an insert goes there four times.
type farStore struct {
	terse.Store
	away time.Duration // there and back
}

func (s farStore) wait(ctx context.Context, times int) {
	select {
	case <-time.After(time.Duration(times) * s.away):
	case <-ctx.Done():
	}
}

func (s farStore) InsertLinks(ctx context.Context, c *terse.Chunk) error {
	s.wait(ctx, 4)
	return s.Store.InsertLinks(ctx, c)
}

func (s farStore) PutDocument(ctx context.Context, d terse.Document) error {
	s.wait(ctx, 1)
	return s.Store.PutDocument(ctx, d)
}

func (s farStore) GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error) {
	s.wait(ctx, 1)
	return s.Store.GetDocument(ctx, w, kind, id)
}

func (s farStore) Lease(ctx context.Context, r terse.LeaseRequest) (terse.Lease, error) {
	s.wait(ctx, 1)
	return s.Store.Lease(ctx, r)
}

// crew are processes that take chunks as package redisbus hands them out.
type crew struct {
	others int
	slots  int // of each
	tasks  chan crewTask
}

type crewTask struct {
	chunk []byte
	done  chan []byte
}

func (c *crew) Window() int { return 1000 }
func (c *crew) Now() int    { return c.others * (c.slots + (c.slots+2)/3) }
func (c *crew) Room(ctx context.Context, i int) bool {
	if i >= c.Now() {
		<-ctx.Done()
	}
	return ctx.Err() == nil
}

func (c *crew) Do(ctx context.Context, chunk []byte) ([]byte, string, error) {
	t := crewTask{chunk, make(chan []byte, 1)}
	select {
	case c.tasks <- t:
	case <-ctx.Done():
		return nil, "", ctx.Err()
	}
	return <-t.done, "other", nil
}

// TestSpreadScales: where the store is far away and nothing else costs time, two processes do the work in about half the time of one
// and four in a quarter, but for the beginning and the end. Time is that of a bubble, and the processors are said: the machine has no part
// in it.
func TestSpreadScales(t *testing.T) {
	const (
		chunks = 120
		away   = 80 * time.Millisecond
	)
	size := func(o *Options) { o.Processors, o.Apart = 2, 8 }
	var body strings.Builder
	for i := 0; body.Len() < chunks*batchBytes; i++ {
		fmt.Fprintf(&body, "{\"destination\":\"https://example.com/%d/%s\"}\n", i, strings.Repeat("x", 2000))
	}
	took := func(t *testing.T, processes int) (d time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			now := terse.Millis(1_800_000_000_000)
			store := farStore{memstore.New(func() terse.Millis { return now }), away}
			home := setupOn(t, store, &now, size)
			c := &crew{others: processes - 1, slots: 6, tasks: make(chan crewTask, 1000)}
			var wg sync.WaitGroup
			for range c.others {
				s := nodeOn(t, store, &now, size)
				for range c.slots {
					wg.Go(func() {
						for task := range c.tasks {
							task.done <- s.RunChunk(t.Context(), task.chunk)
						}
					})
				}
			}
			var elsewhere uint64
			began := time.Now()
			_, err := home.Bulk(t.Context(), actor, BulkOptions{
				Ledger: "l", MaxBytes: 1 << 40, Out: NoOutput, Spread: c, Progress: func(p BulkProgress) { elsewhere += p.ByRows },
			}, strings.NewReader(body.String()), io.Discard)
			d = time.Since(began)
			close(c.tasks)
			wg.Wait()
			if err != nil || processes > 1 && elsewhere == 0 {
				t.Fatalf("%v; %d rows by others", err, elsewhere)
			}
		})
		return d
	}
	one := took(t, 1)
	for _, processes := range []int{2, 4} {
		d := took(t, processes)
		// A process has 4 turns, for each of which an insert takes 4 ways to the store and back, and another has 6 slots, for each of
		// which a chunk takes 6: two ways for its place in the ledger are before the turn. So p processes work p times as fast as
		// one. What more of them do not make faster is 11 ways before the first insert (the ledger, the round, leases of numbers)
		// and up to 7 for the chunk that ends last, which others may have begun as the rest ended, with a lease.
		most := one/time.Duration(processes) + (11+7)*away
		t.Logf("%d processes: %v of at most %v, %.2f times one (%v)", processes, d, most, one.Seconds()/d.Seconds(), one)
		if d > most {
			t.Errorf("%d processes take %v and one %v: want at most %v", processes, d, one, most)
		}
	}
}

// TestReuseFar: requests that wait for each other's new destination do not hold the turn that the first of them needs.
func TestReuseFar(t *testing.T) {
	t.Parallel()
	now := terse.Millis(1_800_000_000_000)
	s := setupOn(t, farStore{memstore.New(func() terse.Millis { return now }), time.Millisecond}, &now, func(o *Options) { o.Apart = 8 })
	var wg sync.WaitGroup
	for range 4 * (runtime.NumCPU() + 2) {
		wg.Go(func() {
			_, err := s.Bulk(t.Context(), actor, BulkOptions{Out: NoOutput}, strings.NewReader(`{"destination":"https://example.com/","if_exists":"reuse"}`+"\n"), io.Discard)
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := countLinks(t, s); n != 1 {
		t.Errorf("%d links, want one", n)
	}
}
