package code

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/terselink/terse"
)

// ledger is a Leaser with a counter that behaves as a store does, and a script for
// what the next calls do.
type ledger struct {
	mu       sync.Mutex
	next     uint64
	reserved []uint64 // ascending
	delay    time.Duration
	faults   []fault // of the next calls, first first; none: apply
	leases   []terse.Lease
	active   int
	overlap  bool // two calls were under way at once
}

type fault int

const (
	applied     fault = iota
	failed            // not applied
	unknown           // applied, and the reply is lost
	short             // applied, with half of what was asked for
	hang              // no answer until the context ends
	failedPlain       // an error that is not of type terse.Error
)

var errFire = errors.New("the disk is on fire")

func (l *ledger) Lease(ctx context.Context, req terse.LeaseRequest) (terse.Lease, error) {
	l.mu.Lock()
	l.active++
	l.overlap = l.overlap || l.active > 1
	f := applied
	if len(l.faults) > 0 {
		f, l.faults = l.faults[0], l.faults[1:]
	}
	delay := l.delay
	l.mu.Unlock()
	defer func() { l.mu.Lock(); l.active--; l.mu.Unlock() }()

	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return terse.Lease{}, fmt.Errorf("lease: %w", ctx.Err())
		}
	}
	switch f {
	case failed:
		return terse.Lease{}, terse.ErrUnavailable
	case failedPlain:
		return terse.Lease{}, errFire
	case hang:
		<-ctx.Done()
		return terse.Lease{}, fmt.Errorf("lease: %w", ctx.Err())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	count := req.Count
	if f == short {
		count = (count + 1) / 2
	}
	limit := req.Cap
	if limit == 0 {
		limit = terse.MaxIndex + 1
	}
	if l.next >= limit {
		return terse.Lease{}, terse.ErrSpaceFull
	}
	lease := terse.Lease{Domain: req.Domain, Space: req.Space, Start: l.next, End: min(limit, l.next+count)}
	lo, _ := slices.BinarySearch(l.reserved, lease.Start)
	hi, _ := slices.BinarySearch(l.reserved, lease.End)
	lease.Reserved = slices.Clone(l.reserved[lo:hi])
	l.next = lease.End
	l.leases = append(l.leases, lease)
	if f == unknown {
		return terse.Lease{}, terse.ErrUnknownOutcome
	}
	return lease, nil
}

func (l *ledger) sizes() []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var s []uint64
	for _, lease := range l.leases {
		s = append(s, lease.End-lease.Start)
	}
	return s
}

// checkIssued fails if the outcome of one Issue is not n good indexes.
func checkIssued(t *testing.T, p *Permutation, n int, indexes []uint64, codes []byte) {
	t.Helper()
	if len(indexes) != n || p != nil && len(codes) != n*p.Length() {
		t.Fatalf("%d indexes and %d bytes of codes, want %d", len(indexes), len(codes), n)
	}
	for j, i := range indexes {
		if j > 0 && i <= indexes[j-1] {
			t.Fatalf("index %d follows %d", i, indexes[j-1])
		}
		if p == nil {
			continue
		}
		c := codes[j*p.Length():][:p.Length()]
		if string(c) != string(p.AppendCode(nil, i)) || Blocked(c) {
			t.Fatalf("index %d came with code %s", i, c)
		}
	}
}

func TestIssue(t *testing.T) {
	p := mustPerm(t, testKey(1), "base62", 7)
	l := &ledger{reserved: []uint64{0, 5, 6, 63, 64, 65, 1000, 1001}}
	a := NewAllocator(l, 1, 7, 0, p, AllocatorOptions{})
	defer a.Close()
	seen := map[uint64]bool{}
	for _, n := range []int{1, 0, -3, 2, 60, 1, 7, 9, 5000, 1, 100} {
		indexes, codes, err := a.Issue(t.Context(), n, []uint64{99}, []byte("ab"))
		if err != nil {
			t.Fatal(err)
		}
		if indexes[0] != 99 || string(codes[:2]) != "ab" {
			t.Fatal("what the slices held is gone")
		}
		checkIssued(t, p, max(n, 0), indexes[1:], codes[2:])
		for _, i := range indexes[1:] {
			if seen[i] || slices.Contains(l.reserved, i) {
				t.Fatalf("index %d issued twice, or reserved", i)
			}
			seen[i] = true
		}
	}
	// Nothing but reserved and blocked indexes is left out below the last.
	last := uint64(0)
	for i := range seen {
		last = max(last, i)
	}
	for i := range last {
		if !seen[i] && !slices.Contains(l.reserved, i) && !Blocked(p.AppendCode(nil, i)) {
			t.Errorf("index %d was left out", i)
		}
	}
}

func TestIssueWithoutCodes(t *testing.T) {
	l := &ledger{}
	a := NewAllocator(l, 1, terse.AliasSpace, 0, nil, AllocatorOptions{})
	defer a.Close()
	indexes, codes, err := a.Issue(t.Context(), 200, nil, nil)
	if err != nil || len(codes) != 0 {
		t.Fatal(codes, err)
	}
	checkIssued(t, nil, 200, indexes, nil)
	if indexes[0] != 0 || indexes[199] != 199 {
		t.Errorf("indexes %d to %d", indexes[0], indexes[199])
	}
}

func TestIssueToTheCap(t *testing.T) {
	p := mustPerm(t, testKey(1), "base62", 7)
	l := &ledger{}
	a := NewAllocator(l, 1, 7, 1000, p, AllocatorOptions{})
	defer a.Close()
	total := 0
	for {
		indexes, codes, err := a.Issue(t.Context(), 30, nil, nil)
		if err != nil {
			if !errors.Is(err, terse.ErrSpaceFull) || len(indexes)+len(codes) != 0 {
				t.Fatal(indexes, err)
			}
			break
		}
		checkIssued(t, p, 30, indexes, codes)
		if indexes[29] >= 1000 {
			t.Fatalf("index %d is over the cap", indexes[29])
		}
		total += 30
	}
	if total < 930 {
		t.Errorf("%d of 1000 indexes issued", total)
	}
	a.wg.Wait()
	calls := len(l.sizes())
	if _, _, err := a.Issue(t.Context(), 1, nil, nil); !errors.Is(err, terse.ErrSpaceFull) || len(l.sizes()) != calls {
		t.Errorf("a full space: %v, %d more leases", err, len(l.sizes())-calls)
	}

	// The cap is that of the space, whatever was asked for.
	for _, tt := range []struct {
		cap  uint64
		p    *Permutation
		want uint64
	}{{0, nil, 1 << 38}, {1 << 50, nil, 1 << 38}, {0, mustPerm(t, testKey(1), "digits", 6), 1e6}, {5e6, mustPerm(t, testKey(1), "digits", 6), 1e6}, {7, p, 7}, {0, p, 1 << 38}} {
		if got := NewAllocator(l, 1, 6, tt.cap, tt.p, AllocatorOptions{}).limit; got != tt.want {
			t.Errorf("cap %d: %d, want %d", tt.cap, got, tt.want)
		}
	}
}

// TestBrokenLeases: a store that breaks its contract cannot make the allocator issue an
// index twice, a reserved one, or one outside the space.
func TestBrokenLeases(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lease terse.Lease
	}{
		{"empty", terse.Lease{Start: 64, End: 64}},
		{"backwards", terse.Lease{Start: 70, End: 64}},
		{"again", terse.Lease{Start: 0, End: 64}},
		{"overlapping", terse.Lease{Start: 63, End: 100}},
		{"over the cap", terse.Lease{Start: 64, End: 1001}},
		{"reserved outside", terse.Lease{Start: 64, End: 100, Reserved: []uint64{100}}},
		{"reserved before", terse.Lease{Start: 64, End: 100, Reserved: []uint64{5}}},
		{"reserved twice", terse.Lease{Start: 64, End: 100, Reserved: []uint64{70, 70}}},
		{"reserved unordered", terse.Lease{Start: 64, End: 100, Reserved: []uint64{80, 70}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			leases := []terse.Lease{{Start: 0, End: 64}, tt.lease, {Start: 200, End: 264}}
			a := NewAllocator(leaserFunc(func(context.Context, terse.LeaseRequest) (terse.Lease, error) {
				l := leases[0]
				leases = leases[1:]
				return l, nil
			}), 1, 0, 1000, nil, AllocatorOptions{})
			defer a.Close()
			if _, _, err := a.Issue(t.Context(), 31, nil, nil); err != nil {
				t.Fatal(err)
			}
			indexes, _, err := a.Issue(t.Context(), 40, nil, nil) // fetches the broken lease
			if err == nil {                                       // unless that was fetched ahead and refused just before
				var want []uint64
				for x := range uint64(40) {
					if x < 33 {
						want = append(want, 31+x)
					} else {
						want = append(want, 200+x-33)
					}
				}
				if !slices.Equal(indexes, want) {
					t.Fatalf("issued %v", indexes)
				}
				return
			}
			if terse.ErrorCode(err) != terse.CodeInternal || len(indexes) != 0 {
				t.Fatal(indexes, err)
			}
			if indexes, _, err := a.Issue(t.Context(), 2, nil, nil); err != nil || indexes[0] != 200 {
				t.Fatal("the call after it:", indexes, err)
			}
		})
	}
}

type leaserFunc func(context.Context, terse.LeaseRequest) (terse.Lease, error)

func (f leaserFunc) Lease(ctx context.Context, req terse.LeaseRequest) (terse.Lease, error) {
	return f(ctx, req)
}

func TestFailedLease(t *testing.T) {
	for _, tt := range []struct {
		name string
		f    fault
		code terse.Code
	}{{"not applied", failed, terse.CodeUnavailable}, {"unknown outcome", unknown, terse.CodeUnavailable}, {"foreign error", failedPlain, terse.CodeInternal}} {
		t.Run(tt.name, func(t *testing.T) {
			l := &ledger{faults: []fault{tt.f}}
			a := NewAllocator(l, 1, 0, 0, nil, AllocatorOptions{})
			defer a.Close()
			indexes, codes, err := a.Issue(t.Context(), 3, []uint64{7}, []byte("x"))
			if terse.ErrorCode(err) != tt.code || errors.Is(err, terse.ErrUnknownOutcome) || len(indexes) != 1 || string(codes) != "x" {
				t.Fatal(indexes, codes, err)
			}
			indexes, _, err = a.Issue(t.Context(), 3, nil, nil)
			if err != nil {
				t.Fatal("the next call:", err)
			}
			want := uint64(0)
			if tt.f == unknown {
				want = 64 // the first range is burned
			}
			if indexes[0] != want {
				t.Errorf("index %d, want %d", indexes[0], want)
			}
		})
	}
}

// TestFetchAhead: the next lease is fetched when half is used, once, without anybody waiting.
func TestFetchAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{delay: time.Second}
		a := NewAllocator(l, 1, 0, 0, nil, AllocatorOptions{MinLease: 100})
		defer a.Close()
		issue := func(n int) time.Duration {
			t.Helper()
			start := time.Now()
			if _, _, err := a.Issue(t.Context(), n, nil, nil); err != nil {
				t.Fatal(err)
			}
			return time.Since(start)
		}
		if d := issue(49); d != time.Second {
			t.Errorf("the first call took %s", d)
		}
		if time.Sleep(5 * time.Second); len(l.sizes()) != 1 {
			t.Fatal("a second lease before half of the first was used")
		}
		if d := issue(1); d != 0 {
			t.Errorf("the call that starts the fetch took %s", d)
		}
		if d := issue(30); d != 0 { // the fetch is under way
			t.Errorf("a call during the fetch took %s", d)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := l.sizes(); len(got) != 2 {
			t.Fatalf("leases %v", got)
		}
		if d := issue(60); d != 0 { // the rest of the first and a part of the second
			t.Errorf("a call over two leases took %s", d)
		}
	})
}

// TestFetchAheadFailure: a failed fetch ahead is nobody's error, and is not tried again
// at once; the caller who needs the lease does not wait for the pause.
func TestFetchAheadFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{faults: []fault{applied, failed, failed, applied}}
		a := NewAllocator(l, 1, 0, 0, nil, AllocatorOptions{MinLease: 100})
		defer a.Close()
		remaining := func() int {
			synctest.Wait()
			l.mu.Lock()
			defer l.mu.Unlock()
			return len(l.faults)
		}
		issue := func(n int) {
			t.Helper()
			if _, _, err := a.Issue(t.Context(), n, nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		issue(60)
		if got := remaining(); got != 2 {
			t.Fatalf("%d calls left, want 2: the fetch ahead", got)
		}
		issue(10)
		if got := remaining(); got != 2 {
			t.Fatalf("%d calls left: fetched again at once", got)
		}
		time.Sleep(retryPause)
		issue(10)
		if got := remaining(); got != 1 {
			t.Fatalf("%d calls left: not fetched again after the pause", got)
		}
		issue(25) // needs the second lease, inside the pause
	})
}

// TestHangingStore: callers leave with their context, the fetch ends by itself, and the
// allocator goes on.
func TestHangingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{faults: []fault{hang}}
		a := NewAllocator(l, 1, 0, 0, nil, AllocatorOptions{})
		defer a.Close()
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, _, err := a.Issue(ctx, 1, nil, nil)
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
				t.Errorf("after %s: %v", time.Since(start), err)
			}
		})
		wg.Go(func() {
			_, _, err := a.Issue(t.Context(), 1, nil, nil)
			if terse.ErrorCode(err) != terse.CodeUnavailable || errors.Is(err, context.DeadlineExceeded) || time.Since(start) != leaseTimeout {
				t.Errorf("after %s: %v", time.Since(start), err)
			}
		})
		wg.Wait()
		if _, _, err := a.Issue(t.Context(), 1, nil, nil); err != nil {
			t.Error("the next call:", err)
		}
		if a.waiting != 0 {
			t.Errorf("%d indexes are still waited for", a.waiting)
		}
	})
}

func TestCancelledBeforehand(t *testing.T) {
	l := &ledger{}
	a := NewAllocator(l, 1, 0, 0, nil, AllocatorOptions{})
	defer a.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := a.Issue(ctx, 1, nil, nil); !errors.Is(err, context.Canceled) || len(l.sizes()) != 0 {
		t.Errorf("%v, %d leases", err, len(l.sizes()))
	}
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{faults: []fault{hang}}
		a := NewAllocator(l, 1, 0, 0, nil, AllocatorOptions{})
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, _, err := a.Issue(t.Context(), 1, nil, nil); terse.ErrorCode(err) != terse.CodeUnavailable {
				t.Error("the waiting call:", err)
			}
		})
		synctest.Wait()
		a.Close()
		a.Close()
		wg.Wait()
		if time.Since(start) != 0 {
			t.Errorf("Close took %s", time.Since(start))
		}
		if _, _, err := a.Issue(t.Context(), 1, nil, nil); terse.ErrorCode(err) != terse.CodeUnavailable {
			t.Error("a call after Close:", err)
		}
		NewAllocator(l, 1, 0, 0, nil, AllocatorOptions{}).Close() // never used
	})
}

// TestSingleFlight: many callers at once share one fetch, and the next one asks for what all
// of them need.
func TestSingleFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{delay: time.Second}
		a := NewAllocator(l, 1, 0, 0, nil, AllocatorOptions{})
		defer a.Close()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, _, err := a.Issue(t.Context(), 1000, nil, nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := l.sizes(); l.overlap || len(got) > 3 {
			t.Errorf("leases %v, at once: %t", got, l.overlap)
		}
	})
}

// TestLeaseSizes: leases follow demand up and down, within bounds.
func TestLeaseSizes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{delay: 100 * time.Millisecond}
		a := NewAllocator(l, 1, 0, 0, nil, AllocatorOptions{MaxLease: 1 << 20})
		defer a.Close()
		var indexes []uint64
		var stalls time.Duration
		issue := func(n int) {
			t.Helper()
			start := time.Now()
			var err error
			if indexes, _, err = a.Issue(t.Context(), n, indexes[:0], nil); err != nil {
				t.Fatal(err)
			}
			stalls += time.Since(start)
		}
		last := func() uint64 { s := l.sizes(); return s[len(s)-1] }

		issue(1)
		if last() != defaultMinLease {
			t.Errorf("an idle node leases %d", last())
		}
		for range 100 { // 10,000 a second
			issue(1000)
			time.Sleep(100 * time.Millisecond)
		}
		if got := last(); got < 10_000 || got > 50_000 {
			t.Errorf("at 10,000 indexes a second leases have %d", got)
		}
		stalls = 0
		for range 100 {
			issue(1000)
			time.Sleep(100 * time.Millisecond)
		}
		if stalls != 0 {
			t.Errorf("steady demand waited %s", stalls)
		}
		for range 400 { // 2 M a second
			issue(200_000)
			time.Sleep(100 * time.Millisecond)
		}
		if last() != 1<<20 {
			t.Errorf("at 2 M indexes a second leases have %d", last())
		}
		issue(3 << 20) // more than MaxLease
		for range 50_000 {
			time.Sleep(time.Second)
			issue(100)
		}
		if got := last(); got > 1000 {
			t.Errorf("at 100 indexes a second leases have %d", got)
		}
	})
}

// TestIssueRace lets many goroutines on two nodes issue from one store that fails often.
// Run it under -race.
func TestIssueRace(t *testing.T) {
	p := mustPerm(t, testKey(1), "base62", 7)
	l := &ledger{}
	for i := range uint64(20_000) {
		if i%7 == 0 {
			l.reserved = append(l.reserved, i)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		l.faults = append(l.faults, []fault{applied, applied, applied, failed, unknown, short}[rng.IntN(6)])
	}
	var mu sync.Mutex
	seen := map[uint64]bool{}
	var wg sync.WaitGroup
	for node := range 2 {
		a := NewAllocator(l, 1, 7, 0, p, AllocatorOptions{MaxLease: 512})
		defer a.Close()
		for g := range 8 {
			rng := rand.New(rand.NewPCG(uint64(node), uint64(g)))
			wg.Go(func() {
				for range 60 {
					n := 1 + rng.IntN(150)
					indexes, codes, err := a.Issue(t.Context(), n, nil, nil)
					if err != nil {
						if terse.ErrorCode(err) != terse.CodeUnavailable {
							t.Error(err)
						}
						continue
					}
					checkIssued(t, p, n, indexes, codes)
					mu.Lock()
					for _, i := range indexes {
						if seen[i] || i%7 == 0 && i < 20_000 {
							t.Errorf("index %d issued twice, or reserved", i)
						}
						seen[i] = true
					}
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	if len(seen) < 10_000 {
		t.Errorf("only %d indexes were issued", len(seen))
	}
}
