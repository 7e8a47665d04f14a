package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/terselink/terse"
)

// testAlias checks that an alias has one owner, and that no index is both issued
// and reserved.
func testAlias(t *testing.T, s *suite) {
	t.Run("belongs to its domain", func(t *testing.T) {
		c := s.scope(t)
		o := c.other()
		a, b := c.alias("summer"), o.alias("summer")
		c.mustInsert(a)
		o.wantAliasFree("summer")
		o.mustInsert(b)
		c.wantStored(a, b)
		wantRows(t, c.insert(c.alias("summer")), 0)
		stranger := c.alias("summer")
		stranger.Workspace = o.w // the other tenant of a shared domain
		wantRows(t, c.insert(stranger), 0)
		c.wantStored(a, b)
	})

	t.Run("is found by number without its code", func(t *testing.T) {
		c := s.scope(t)
		a := c.alias("by-number")
		c.mustInsert(a)
		dst := make([]terse.Link, 1)
		wantErr(t, "GetLinks", s.store.GetLinks(c.ctx, []terse.LinkKey{{Number: a.Number}}, dst), nil)
		if d := diffLink(dst[0], a); d != "" {
			t.Fatal(d)
		}
	})

	t.Run("is free again after a deletion", func(t *testing.T) {
		c := s.scope(t)
		first := c.alias("again")
		c.mustInsert(first)
		wantErr(t, "DeleteLink", s.store.DeleteLink(c.ctx, terse.LinkKey{Number: first.Number}, 1), nil)
		c.wantAliasFree("again")
		second := c.alias("again")
		c.mustInsert(second)
		c.wantStored(second)
		c.wantAbsent(first)
	})

	t.Run("reserves an index that is not leased", func(t *testing.T) {
		c := s.scope(t)
		leased := c.numbers(5, 10)
		wantRows(t, c.insert(c.reserving(leased[0])), 0)
		wantRows(t, c.insert(c.reserving(leased[9])), 0)
		c.wantAliasFree(codeOf(5, 9))
		next := terse.NewLinkNumber(c.d, 5, 10)
		a := c.reserving(next)
		c.mustInsert(a)
		c.wantStored(a)
		if got, want := c.numbers(5, 3), terse.NewLinkNumber(c.d, 5, 11); got[0] != want {
			t.Fatalf("the lease after a reservation of %v starts with %v, want %v", next, got[0], want)
		}
	})

	t.Run("keeps its reservation after a deletion", func(t *testing.T) {
		c := s.scope(t)
		n := terse.NewLinkNumber(c.d, 5, 2)
		a := c.reserving(n)
		c.mustInsert(a)
		wantErr(t, "DeleteLink", s.store.DeleteLink(c.ctx, terse.LinkKey{Number: a.Number, Code: a.Code}, 0), nil)
		l, err := s.store.Lease(c.ctx, terse.LeaseRequest{Domain: c.d, Space: 5, Count: 5})
		wantErr(t, "Lease", err, nil)
		if !slices.Equal(l.Reserved, []uint64{2}) {
			t.Fatalf("the lease reports %d as reserved, want 2", l.Reserved)
		}
		again := c.reserving(n) // leased by now, but never issued: the alias decides
		c.mustInsert(again)
		c.wantStored(again)
		wantRows(t, c.insert(c.reserving(n)), 0)
	})

	t.Run("that failed reserves nothing", func(t *testing.T) {
		c := s.scope(t)
		c.mustInsert(c.alias("taken"))
		wantRows(t, c.insert(c.reserving(terse.NewLinkNumber(c.d, 5, 0)), c.alias("taken")), 1)
		if got, want := c.numbers(5, 1)[0], terse.NewLinkNumber(c.d, 5, 0); got != want {
			t.Fatalf("got number %v, want %v", got, want)
		}
	})

	t.Run("far beyond what is leased", func(t *testing.T) {
		c := s.scope(t)
		n := terse.NewLinkNumber(c.d, 9, terse.MaxIndex)
		a := c.reserving(n)
		c.mustInsert(a)
		c.wantStored(a)
	})

	t.Run("race has one winner", func(t *testing.T) {
		c := s.scope(t)
		const rounds, goroutines = 4, 64
		for r := range rounds {
			code := fmt.Sprintf("race-%d", r)
			links := make([]terse.Link, goroutines)
			for i := range links {
				links[i] = c.alias(code)
				links[i].Destination = fmt.Sprintf("https://example.com/%d/%d", r, i)
			}
			errs := make([]error, goroutines)
			var wg sync.WaitGroup
			start := make(chan struct{})
			for i := range links {
				wg.Go(func() {
					<-start
					errs[i] = c.insert(links[i])
				})
			}
			close(start)
			wg.Wait()
			winner := -1
			for i, err := range errs {
				switch {
				case err == nil && winner >= 0:
					t.Fatalf("both %d and %d got the alias", winner, i)
				case err == nil:
					winner = i
				default:
					wantRows(t, err, 0)
				}
			}
			if winner < 0 {
				t.Fatal("nobody got the alias")
			}
			c.wantStored(links[winner])
			c.wantAbsent(slices.Delete(links, winner, winner+1)...)
		}
	})

	t.Run("race with leases never shares an index", func(t *testing.T) { testAliasLeaseRace(t, s) })
}

// testAliasLeaseRace leases a tiny space to its end while aliases reserve
// indexes of it, and checks that every index went to one side only.
func testAliasLeaseRace(t *testing.T, s *suite) {
	c := s.scope(t)
	const size, leasers, claimers = 300, 4, 4
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		leases   []terse.Lease
		reserved = map[uint64]bool{} // by an insert that succeeded
	)
	start := make(chan struct{})
	for g := range leasers {
		wg.Go(func() {
			<-start
			for {
				l, err := s.store.Lease(c.ctx, terse.LeaseRequest{Domain: c.d, Space: 5, Count: uint64(1 + g), Cap: size})
				if errors.Is(err, terse.ErrSpaceFull) {
					return
				}
				if err != nil {
					t.Errorf("Lease: %v", err)
					return
				}
				mu.Lock()
				leases = append(leases, l)
				mu.Unlock()
			}
		})
	}
	for g := range claimers {
		wg.Go(func() {
			<-start
			// Each claims every fourth index, from the front where the leases are.
			for i := uint64(g); i < size; i += claimers {
				at := c.now()
				err := c.insert(terse.Link{
					Number: terse.NewLinkNumber(c.d, terse.AliasSpace, i), Workspace: c.w, Version: 1, CreatedAt: at, UpdatedAt: at,
					Code: codeOf(5, i), Destination: "https://example.com/", Reserves: terse.NewLinkNumber(c.d, 5, i),
				})
				switch {
				case err == nil:
					mu.Lock()
					reserved[i] = true
					mu.Unlock()
				case !errors.Is(err, terse.ErrAliasTaken):
					t.Errorf("InsertLinks: %v", err)
					return
				}
			}
		})
	}
	c.numbers(terse.AliasSpace, size) // the numbers of the aliases
	close(start)
	wg.Wait()
	var covered uint64
	for _, l := range leases {
		covered += l.End - l.Start
		for i := l.Start; i < l.End; i++ {
			if told := slices.Contains(l.Reserved, i); told != reserved[i] {
				t.Errorf("index %d: reported as reserved %v, the alias has it %v", i, told, reserved[i])
			}
		}
	}
	if !t.Failed() && covered != size {
		t.Fatalf("the leases cover %d indexes, want %d", covered, size)
	}
}
