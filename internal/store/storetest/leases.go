package storetest

import (
	"errors"
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
)

// testLeases checks that an index is leased once, below its cap, and that
// reservations are reported.
func testLeases(t *testing.T, s *suite) {
	t.Run("start at zero and follow", func(t *testing.T) {
		c := s.scope(t)
		wantNext(c, genSpace, 0)
		for _, want := range [][2]uint64{{0, 1}, {1, 4}, {4, 1004}} {
			l, err := s.store.Lease(c.ctx, terse.LeaseRequest{Domain: c.d, Space: genSpace, Count: want[1] - want[0]})
			wantErr(t, "Lease", err, nil)
			wantLease(t, l, terse.Lease{Domain: c.d, Space: genSpace, Start: want[0], End: want[1]})
			wantNext(c, genSpace, want[1])
		}
	})

	t.Run("spaces and domains are apart", func(t *testing.T) {
		c := s.scope(t)
		o := c.other()
		c.numbers(6, 10)
		wantNext(c, 5, 0)
		wantNext(c, 7, 0)
		wantNext(c, terse.AliasSpace, 0)
		wantNext(o, 6, 0)
		if got := o.numbers(6, 1)[0]; got != terse.NewLinkNumber(o.d, 6, 0) {
			t.Fatalf("the first lease of a domain starts at %v", got)
		}
		if got := c.numbers(terse.MaxSpace, 1)[0]; got != terse.NewLinkNumber(c.d, terse.MaxSpace, 0) {
			t.Fatalf("the first lease of the last space starts at %v", got)
		}
	})

	t.Run("the instance and the last domain have spaces", func(t *testing.T) {
		c := s.scope(t)
		for _, d := range []terse.DomainID{0, terse.MaxDomain} {
			first, err := s.store.Next(c.ctx, d, 1)
			wantErr(t, "Next", err, nil)
			l, err := s.store.Lease(c.ctx, terse.LeaseRequest{Domain: d, Space: 1, Count: 2})
			wantErr(t, "Lease", err, nil)
			wantLease(t, l, terse.Lease{Domain: d, Space: 1, Start: first, End: first + 2})
		}
	})

	t.Run("cap", func(t *testing.T) {
		c := s.scope(t)
		lease := func(count, limit uint64) (terse.Lease, error) {
			return s.store.Lease(c.ctx, terse.LeaseRequest{Domain: c.d, Space: genSpace, Count: count, Cap: limit})
		}
		l, err := lease(60, 100)
		wantErr(t, "below the cap", err, nil)
		wantLease(t, l, terse.Lease{Domain: c.d, Space: genSpace, Start: 0, End: 60})
		l, err = lease(60, 100)
		wantErr(t, "across the cap", err, nil)
		wantLease(t, l, terse.Lease{Domain: c.d, Space: genSpace, Start: 60, End: 100})
		for range 2 {
			_, err = lease(1, 100)
			wantErr(t, "at the cap", err, terse.ErrSpaceFull)
		}
		_, err = lease(1, 50)
		wantErr(t, "under the counter", err, terse.ErrSpaceFull)
		wantNext(c, genSpace, 100)
		l, err = lease(1, 101)
		wantErr(t, "a larger cap", err, nil)
		wantLease(t, l, terse.Lease{Domain: c.d, Space: genSpace, Start: 100, End: 101})
	})

	t.Run("to the last index", func(t *testing.T) {
		c := s.scope(t)
		c.numbers(genSpace, 1)
		l, err := s.store.Lease(c.ctx, terse.LeaseRequest{Domain: c.d, Space: genSpace, Count: math.MaxUint64, Cap: math.MaxUint64})
		wantErr(t, "the rest of the space", err, nil)
		wantLease(t, l, terse.Lease{Domain: c.d, Space: genSpace, Start: 1, End: terse.MaxIndex + 1})
		_, err = s.store.Lease(c.ctx, terse.LeaseRequest{Domain: c.d, Space: genSpace, Count: 1})
		wantErr(t, "after the last index", err, terse.ErrSpaceFull)
		wantNext(c, genSpace, terse.MaxIndex+1)
	})

	t.Run("bad requests", func(t *testing.T) {
		c := s.scope(t)
		for _, tc := range []struct {
			field string
			req   terse.LeaseRequest
		}{
			{"count", terse.LeaseRequest{Domain: c.d, Space: genSpace}},
			{"domain", terse.LeaseRequest{Domain: terse.MaxDomain + 1, Space: genSpace, Count: 1}},
			{"space", terse.LeaseRequest{Domain: c.d, Space: terse.MaxSpace + 1, Count: 1}},
		} {
			_, err := s.store.Lease(c.ctx, tc.req)
			wantInvalid(t, "Lease", err, tc.field)
		}
		wantNext(c, genSpace, 0)
	})

	t.Run("reserved indexes are reported once", func(t *testing.T) {
		c := s.scope(t)
		for _, i := range []uint64{3, 4, 9, 10} {
			c.mustInsert(c.reserving(terse.NewLinkNumber(c.d, 5, i)))
		}
		c.mustInsert(c.reserving(terse.NewLinkNumber(c.d, 6, 5))) // another space
		wantNext(c, 5, 0)
		for _, want := range []terse.Lease{
			{Domain: c.d, Space: 5, Start: 0, End: 3},
			{Domain: c.d, Space: 5, Start: 3, End: 10, Reserved: []uint64{3, 4, 9}},
			{Domain: c.d, Space: 5, Start: 10, End: 20, Reserved: []uint64{10}},
			{Domain: c.d, Space: 5, Start: 20, End: 21},
		} {
			l, err := s.store.Lease(c.ctx, terse.LeaseRequest{Domain: c.d, Space: 5, Count: want.End - want.Start})
			wantErr(t, "Lease", err, nil)
			wantLease(t, l, want)
		}
	})

	t.Run("reservations are listed", func(t *testing.T) {
		c := s.scope(t)
		list := func(space terse.SpaceID, from uint64, limit int, want ...uint64) {
			t.Helper()
			got, err := s.store.Reservations(c.ctx, c.d, space, from, limit)
			if err != nil || !slices.Equal(got, want) {
				t.Fatalf("Reservations of space %d from %d, at most %d: %d, %v; want %d", space, from, limit, got, err, want)
			}
		}
		const last = 900
		list(5, 0, 10)
		var links []terse.Link
		for _, i := range []uint64{300, 9, 0, last, 70} {
			links = append(links, c.reserving(terse.NewLinkNumber(c.d, 5, i)))
			c.mustInsert(links[len(links)-1])
		}
		c.mustInsert(c.reserving(terse.NewLinkNumber(c.d, 4, 1)))
		c.mustInsert(c.reserving(terse.NewLinkNumber(c.d, 6, 2))) // spaces beside it
		o := c.other()
		o.mustInsert(o.reserving(terse.NewLinkNumber(o.d, 5, 3)))
		list(5, 0, 10, 0, 9, 70, 300, last)
		list(5, 0, 2, 0, 9)
		list(5, 10, 2, 70, 300)
		list(5, 9, 1, 9)
		list(5, last, 5, last)
		list(5, last+1, 5)
		list(5, terse.MaxIndex+1, 5)
		list(6, 0, 1, 2)
		c.numbers(5, 20)
		wantErr(t, "DeleteLink", s.store.DeleteLink(c.ctx, terse.LinkKey{Number: links[0].Number, Code: links[0].Code}, 0), nil)
		list(5, 0, 10, 0, 9, 70, 300, last)
		_, err := s.store.Reservations(c.ctx, c.d, 5, 0, 0)
		wantInvalid(t, "Reservations", err, "limit")
		_, err = s.store.Reservations(c.ctx, terse.MaxDomain+1, 5, 0, 1)
		wantInvalid(t, "Reservations", err, "domain")
		_, err = s.store.Reservations(c.ctx, c.d, terse.MaxSpace+1, 0, 1)
		wantInvalid(t, "Reservations", err, "space")
	})

	t.Run("no index twice under concurrency", func(t *testing.T) {
		c := s.scope(t)
		const goroutines, calls, limit = 32, 10, 1500
		var (
			wg     sync.WaitGroup
			mu     sync.Mutex
			leases []terse.Lease
			full   int
		)
		for g := range goroutines {
			wg.Go(func() {
				for i := range calls {
					l, err := s.store.Lease(c.ctx, terse.LeaseRequest{
						Domain: c.d, Space: genSpace, Count: uint64(1 + (g+i)%9), Cap: limit})
					mu.Lock()
					switch {
					case err == nil:
						leases = append(leases, l)
					case errors.Is(err, terse.ErrSpaceFull):
						full++
					default:
						t.Errorf("Lease: %v", err)
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		slices.SortFunc(leases, func(a, b terse.Lease) int { return int(a.Start) - int(b.Start) })
		var next uint64
		for _, l := range leases {
			if l.Start != next || l.End <= l.Start {
				t.Fatalf("lease [%d, %d) after the one that ended at %d", l.Start, l.End, next)
			}
			next = l.End
		}
		if next != limit || full == 0 {
			t.Fatalf("%d indexes leased and %d calls found the space full, want all %d and at least one", next, full, limit)
		}
	})
}

func wantLease(t tb, got, want terse.Lease) {
	t.Helper()
	if len(got.Reserved) == 0 {
		got.Reserved = nil
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("Lease (-want +got):\n%s", d)
	}
}

func wantNext(c *scope, space terse.SpaceID, want uint64) {
	c.Helper()
	got, err := c.store.Next(c.ctx, c.d, space)
	if err != nil || got != want {
		c.Fatalf("Next of space %d: %d, %v; want %d", space, got, err, want)
	}
}
