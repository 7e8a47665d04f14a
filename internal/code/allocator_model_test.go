package code

import (
	"context"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/terselink/terse"
)

// TestAllocatorModel drives several allocators over one store, with failures, crashes and
// reservations at any moment, against a map of what was issued: never an index
// twice, never a reserved one, never one over the cap, and no failure that stays.
func TestAllocatorModel(t *testing.T) {
	alphabet := mustLookup(t, "base62")
	rapid.Check(t, func(t *rapid.T) {
		const limit = 3000
		p, err := newPermutation(testKey(2)[:16], alphabet, 4, 100_003)
		if err != nil {
			t.Fatal(err)
		}
		l := &ledger{}
		start := func() *Allocator {
			return NewAllocator(l, 1, 4, limit, p, AllocatorOptions{MinLease: 8, MaxLease: 100})
		}
		nodes := []*Allocator{start(), start(), start()}
		defer func() {
			for _, a := range nodes {
				a.Close()
			}
		}()
		issued := map[uint64]bool{}
		node := rapid.IntRange(0, len(nodes)-1)

		issue := func(t *rapid.T, a *Allocator, n int) error {
			indexes, codes, err := a.Issue(context.Background(), n, nil, nil)
			a.wg.Wait() // the fetch ahead: the script of faults is followed in order
			if err != nil {
				if len(indexes)+len(codes) != 0 {
					t.Fatalf("%d indexes with error %v", len(indexes), err)
				}
				return err
			}
			if len(indexes) != n || len(codes) != 4*n || !slices.IsSorted(indexes) {
				t.Fatalf("asked for %d, got %v", n, indexes)
			}
			for j, i := range indexes {
				c := codes[4*j:][:4]
				if issued[i] {
					t.Fatalf("index %d issued twice", i)
				}
				if slices.Contains(l.reserved, i) || i >= limit || Blocked(c) {
					t.Fatalf("index %d, code %s: reserved, over the cap or blocked", i, c)
				}
				if x, ok := p.Index(c); !ok || x != i {
					t.Fatalf("index %d came with code %s", i, c)
				}
				issued[i] = true
			}
			return nil
		}

		t.Repeat(map[string]func(*rapid.T){
			"issue": func(t *rapid.T) {
				err := issue(t, nodes[node.Draw(t, "node")], rapid.IntRange(1, 120).Draw(t, "n"))
				switch {
				case err == nil, terse.ErrorCode(err) == terse.CodeUnavailable:
				case errors.Is(err, terse.ErrSpaceFull) && l.next >= limit:
				case errors.Is(err, errFire):
				default:
					t.Fatal(err)
				}
			},
			"fail": func(t *rapid.T) {
				l.faults = append(l.faults, rapid.SliceOfN(rapid.SampledFrom([]fault{applied, failed, unknown, short, failedPlain}), 1, 4).Draw(t, "faults")...)
			},
			"crash": func(t *rapid.T) { // what was leased is burned
				i := node.Draw(t, "node")
				nodes[i].Close()
				nodes[i] = start()
			},
			"reserve": func(t *rapid.T) { // an alias takes an index that is not leased
				i := l.next + rapid.Uint64Range(0, 40).Draw(t, "ahead")
				if at, found := slices.BinarySearch(l.reserved, i); !found {
					l.reserved = slices.Insert(l.reserved, at, i)
				}
			},
			"heal": func(t *rapid.T) { // no failure outlives its cause
				l.faults = nil
				for _, a := range nodes {
					if err := issue(t, a, 1); err != nil && !(errors.Is(err, terse.ErrSpaceFull) && l.next >= limit) {
						t.Fatalf("after the failures: %v", err)
					}
				}
			},
		})
	})
}
