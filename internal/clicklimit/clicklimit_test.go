package clicklimit

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/memstore"
)

func newStore() *memstore.Store { return memstore.New(func() terse.Millis { return 1 }) }

// TestExact: of a thousand visitors at once, as many get through as the link allows.
func TestExact(t *testing.T) {
	t.Parallel()
	store := newStore()
	for n, limit := range map[terse.LinkNumber]uint64{1: 1, 2: 7, 3: 999, 4: 2000} {
		c := New(store)
		var got atomic.Uint64
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				for range 3 {
					ok, err := c.Take(t.Context(), n, limit)
					if err != nil {
						t.Error(err)
					}
					if ok {
						got.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if got.Load() != limit {
			t.Errorf("limit %d: %d clicks", limit, got.Load())
		}
		if left, err := c.Left(t.Context(), n, limit); left || err != nil {
			t.Errorf("limit %d: left %v, %v", limit, left, err)
		}
		if ok, err := New(store).Take(t.Context(), n, limit); ok || err != nil {
			t.Errorf("limit %d: after a restart: %v, %v", limit, ok, err)
		}
	}
}

// TestKilled: a process that ends at any moment without Close never lets one click too
// many through, and loses fewer than a block.
func TestKilled(t *testing.T) {
	t.Parallel()
	const limit = Near + 5*Block
	store := newStore()
	served := 0
	for life := 1; ; life++ {
		c := New(store)
		took := 0
		for range 37 * life {
			ok, err := c.Take(t.Context(), 1, limit)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			took++
		}
		served += took
		if took == 0 {
			break
		}
		if lost := life * (Block - 1); served > limit || served+lost < 37*life {
			t.Fatalf("life %d: %d served of %d", life, served, limit)
		}
	}
	if served > limit || served < Near {
		t.Errorf("%d served, want %d to %d", served, Near, limit)
	}
}

// TestClose: an ordered stop loses nothing.
func TestClose(t *testing.T) {
	t.Parallel()
	const limit = 3 * Near
	store := newStore()
	served := 0
	for served < limit {
		c := New(store)
		for range 7 {
			ok, err := c.Take(t.Context(), 1, limit)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				t.Fatalf("refused after %d of %d", served, limit)
			}
			if served++; served == limit {
				break
			}
		}
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// broken fails every n-th write, applied or not.
type broken struct {
	Documents
	writes  int
	applied bool
}

func (b *broken) PutDocument(ctx context.Context, doc terse.Document) error {
	if b.writes++; b.writes%3 != 0 {
		return b.Documents.PutDocument(ctx, doc)
	}
	if b.applied {
		if err := b.Documents.PutDocument(ctx, doc); err != nil {
			return err
		}
		return terse.ErrUnknownOutcome
	}
	return terse.ErrUnavailable
}

// TestWriteErrors: a failed claim serves nobody, and what may have been claimed counts.
func TestWriteErrors(t *testing.T) {
	t.Parallel()
	for _, applied := range []bool{false, true} {
		c := New(&broken{Documents: newStore(), applied: applied})
		served, failed := uint64(0), uint64(0)
		for range 100 {
			ok, err := c.Take(t.Context(), 1, 20)
			switch {
			case err != nil:
				if !errors.Is(err, terse.ErrUnavailable) && !errors.Is(err, terse.ErrUnknownOutcome) {
					t.Fatal(err)
				}
				failed++
			case ok:
				served++
			}
		}
		want := uint64(20)
		if applied {
			want -= failed
		}
		if served != want || failed == 0 {
			t.Errorf("applied %v: %d served, %d failed", applied, served, failed)
		}
	}
}

// TestChangedLimit: the limit is an argument; clicks used stay used.
func TestChangedLimit(t *testing.T) {
	t.Parallel()
	c := New(newStore())
	for i, step := range []struct {
		limit uint64
		want  bool
	}{{5000, true}, {5000, true}, {2, false}, {3, true}, {3, false}, {5000, true}} {
		if ok, err := c.Take(t.Context(), 1, step.limit); ok != step.want || err != nil {
			t.Fatalf("step %d: %v, %v", i, ok, err)
		}
	}
}

// TestNodes: several processes that share a store let through as many as the link allows, and what one holds when it stops
// is for the others.
func TestNodes(t *testing.T) {
	t.Parallel()
	store := newStore()
	const nodes = 3
	for n, limit := range map[terse.LinkNumber]uint64{1: 1, 2: 50, 3: 999, 4: Near + 5*Block} {
		var got atomic.Uint64
		var wg sync.WaitGroup
		counters := make([]*Counter, nodes)
		for i := range counters {
			counters[i] = New(store)
			for range 4 {
				wg.Go(func() {
					for range int(limit)/2 + 5 {
						ok, err := counters[i].Take(t.Context(), n, limit)
						if err != nil {
							t.Error(err)
						}
						if ok {
							got.Add(1)
						}
					}
				})
			}
		}
		wg.Wait()
		for _, c := range counters {
			if err := c.Close(t.Context()); err != nil {
				t.Errorf("limit %d: close: %v", limit, err)
			}
		}
		if got.Load() != limit {
			t.Errorf("limit %d: %d clicks", limit, got.Load())
		}
	}
}

// TestNodesGiveBack: blocks that are given back in any order add up.
func TestNodesGiveBack(t *testing.T) {
	t.Parallel()
	const limit = 10 * Near
	store := newStore()
	served := 0
	counters := []*Counter{New(store), New(store), New(store)}
	for i, c := range counters {
		for range 10*i + 7 { // each holds a block, of which it uses a part
			if ok, err := c.Take(t.Context(), 1, limit); !ok || err != nil {
				t.Fatal(ok, err)
			}
			served++
		}
	}
	for _, i := range []int{1, 0, 2} {
		if err := counters[i].Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	last := New(store)
	for {
		ok, err := last.Take(t.Context(), 1, limit)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		served++
	}
	if served != limit {
		t.Errorf("%d clicks of %d", served, limit)
	}
}
