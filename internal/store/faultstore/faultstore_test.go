package faultstore_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/faultstore"
	"github.com/terselink/terse/internal/store/memstore"
	"github.com/terselink/terse/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestStore shows that the decorator without faults is a store as good as the one in it.
func TestStore(t *testing.T) {
	storetest.Run(t, storetest.Opts{Decorator: true, New: func(testing.TB) terse.Store { return faultstore.New(memstore.New(nil)) }})
}

func newStore() *faultstore.Store { return faultstore.New(memstore.New(nil)) }

func lease(s terse.Store) error {
	_, err := s.Lease(context.Background(), terse.LeaseRequest{Domain: 1, Space: 7, Count: 1})
	return err
}

func next(t *testing.T, s *faultstore.Store) uint64 {
	t.Helper()
	n, err := s.Inner().Next(context.Background(), 1, 7)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFaultBeforeIsNotApplied(t *testing.T) {
	s := newStore()
	s.Inject(faultstore.Fault{Op: faultstore.Lease})
	if err := lease(s); !errors.Is(err, terse.ErrUnavailable) {
		t.Fatalf("got %v, want ErrUnavailable", err)
	}
	if n := next(t, s); n != 0 {
		t.Fatalf("next is %d after a lease that was not applied", n)
	}
	if err := lease(s); err != nil {
		t.Fatalf("the fault strikes twice: %v", err)
	}
}

func TestFaultAfterIsApplied(t *testing.T) {
	s := newStore()
	s.Inject(faultstore.Fault{Op: faultstore.Lease, When: faultstore.After})
	if err := lease(s); !errors.Is(err, terse.ErrUnknownOutcome) {
		t.Fatalf("got %v, want ErrUnknownOutcome", err)
	}
	if n := next(t, s); n != 1 {
		t.Fatalf("next is %d after a lease that was applied", n)
	}
}

func TestFaultAfterReadIsUnavailable(t *testing.T) {
	s := newStore()
	s.Inject(faultstore.Fault{When: faultstore.After})
	if _, err := s.Next(context.Background(), 1, 7); !errors.Is(err, terse.ErrUnavailable) {
		t.Fatalf("got %v, want ErrUnavailable", err)
	}
}

func TestFaultStrikesTheCallsItNames(t *testing.T) {
	own := errors.New("own")
	for _, tc := range []struct {
		name  string
		fault faultstore.Fault
		want  []int // the calls of 1 to 6 that fail
	}{
		{"next", faultstore.Fault{Err: own}, []int{1}},
		{"third", faultstore.Fault{From: 3, Err: own}, []int{3}},
		{"two from the second", faultstore.Fault{From: 2, Times: 2, Err: own}, []int{2, 3}},
		{"from the fourth", faultstore.Fault{From: 4, Times: faultstore.Forever, Err: own}, []int{4, 5, 6}},
		{"of the operation", faultstore.Fault{Op: faultstore.Lease, From: 2, Err: own}, []int{2}},
		{"of another operation", faultstore.Fault{Op: faultstore.Next, Times: faultstore.Forever, Err: own}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore()
			s.Inject(tc.fault)
			var failed []int
			for i := 1; i <= 6; i++ {
				if err := lease(s); err != nil {
					if !errors.Is(err, own) {
						t.Fatalf("call %d: %v", i, err)
					}
					failed = append(failed, i)
				}
			}
			if !slices.Equal(failed, tc.want) {
				t.Fatalf("calls %d failed, want %d", failed, tc.want)
			}
			if s.Fired() != len(tc.want) || s.Calls(faultstore.Lease) != 6 || s.Calls(faultstore.Any) != 6 {
				t.Fatalf("fired %d, leases %d, calls %d", s.Fired(), s.Calls(faultstore.Lease), s.Calls(faultstore.Any))
			}
		})
	}
}

func TestDownAndUp(t *testing.T) {
	s := newStore()
	up := s.Down()
	for range 3 {
		if err := s.Ping(context.Background()); !errors.Is(err, terse.ErrUnavailable) {
			t.Fatalf("Ping of a store that is down: %v", err)
		}
	}
	up()
	up() // twice is harmless
	if err := s.Ping(context.Background()); err != nil {
		t.Fatalf("Ping of a store that is up again: %v", err)
	}
	s.Down()
	if err := s.Close(); err != nil {
		t.Fatalf("a store that is down can be closed: %v", err)
	}
	s = newStore()
	s.Inject(faultstore.Fault{Op: faultstore.Close})
	if err := s.Close(); !errors.Is(err, terse.ErrUnavailable) {
		t.Fatalf("Close with a fault: %v", err)
	}
}

func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		s.Slow(func(ctx context.Context, op faultstore.Op) error {
			select {
			case <-time.After(5 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		begin := time.Now()
		if err := lease(s); err != nil || time.Since(begin) != 5*time.Second {
			t.Fatalf("a slow call: %v after %s", err, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.Lease(ctx, terse.LeaseRequest{Domain: 1, Space: 7, Count: 1})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a call with a shorter deadline: %v", err)
		}
		if n := next(t, s); n != 1 {
			t.Fatalf("next is %d: the call that gave up was applied", n)
		}
		s.Slow(nil)
		begin = time.Now()
		if err := lease(s); err != nil || time.Since(begin) != 0 {
			t.Fatalf("a call after that: %v after %s", err, time.Since(begin))
		}
	})
}
