package code

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/terselink/terse"
)

// Leaser hands out ranges of indexes; terse.Store is one, and its Lease method
// is the contract.
type Leaser interface {
	Lease(ctx context.Context, req terse.LeaseRequest) (terse.Lease, error)
}

// AllocatorOptions tunes an Allocator. The zero value is ready to use.
type AllocatorOptions struct {
	// MinLease is the least number of indexes of a lease; 0 means 64. An idle
	// node that is killed wastes about so many.
	MinLease uint64
	// MaxLease is the largest number of indexes that is leased ahead of demand;
	// 0 means 4<<20. A single Issue of more leases what it needs.
	MaxLease uint64
	// Clock measures demand; nil means time.Now.
	Clock func() time.Time
}

const (
	defaultMinLease = 64
	defaultMaxLease = 4 << 20

	// demandWindow is how long a lease should last. With two leases held and the
	// second fetched when half of the first is used, bulk goes on through a
	// stall of the store of one to two windows.
	demandWindow = 2 * time.Second
	// maxGrowth bounds how much larger a lease is than the one before, so that a
	// short burst does not burn seconds of its own rate.
	maxGrowth = 4
	// leaseTimeout ends a fetch that the store does not answer.
	leaseTimeout = 10 * time.Second
	// retryPause is how long no lease is fetched ahead after a failure. Callers
	// that wait for an index do not wait for it.
	retryPause = time.Second
)

// errClosed is what Issue returns after Close.
var errClosed = &terse.Error{Code: terse.CodeUnavailable, Message: "shutting down", Op: "issue codes"}

// Allocator issues the indexes of one space, each once, from ranges that it leases
// for ever. What is leased and not issued when the process ends is burned: a gap
// in the space and nothing else. Safe for many goroutines.
//
// The lock is held only while a range is cut; codes are made outside it. One fetch
// is under way at a time; callers that need its indexes wait for it or for
// their context, whichever ends first.
type Allocator struct {
	leaser Leaser
	domain terse.DomainID
	space  terse.SpaceID
	limit  uint64       // the cap of the space: every index is below it
	perm   *Permutation // nil: indexes without codes
	opts   AllocatorOptions

	ctx    context.Context // of the fetches; ended by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // the fetch under way

	mu      sync.Mutex
	closed  bool
	cur     segment
	next    segment
	high    uint64 // the end of the last lease: none may start before it
	flight  *flight
	waiting uint64 // indexes that blocked callers need

	size    uint64    // of the last lease that was asked for
	issued  uint64    // indexes cut since then
	since   time.Time // when it was asked for
	retryAt time.Time // no fetch ahead of demand before
}

// segment is what is left of a lease, or a part cut from it.
type segment struct {
	start, end uint64
	reserved   []uint64 // ascending; those below start may be gone
	size       uint64   // of the whole lease
}

// flight is a fetch under way. err is set before done is closed.
type flight struct {
	done chan struct{}
	err  error
}

// NewAllocator returns an allocator of the indexes of one space below cap; 0 means all
// indexes of the space. p makes the codes; it is nil for terse.AliasSpace, whose
// links are numbered and have no generated codes. Nothing is leased until the
// first Issue. Close it.
func NewAllocator(l Leaser, d terse.DomainID, space terse.SpaceID, cap uint64, p *Permutation, o AllocatorOptions) *Allocator {
	limit := terse.MaxIndex + 1
	if p != nil {
		limit = min(limit, p.n)
	}
	if cap > 0 && cap < limit {
		limit = cap
	}
	if o.MinLease == 0 {
		o.MinLease = defaultMinLease
	}
	if o.MaxLease == 0 {
		o.MaxLease = defaultMaxLease
	}
	o.MaxLease = max(o.MaxLease, o.MinLease)
	if o.Clock == nil {
		o.Clock = time.Now
	}
	a := &Allocator{leaser: l, domain: d, space: space, limit: limit, perm: p, opts: o}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

// Issue appends n indexes to indexes, ascending and never issued before, and their
// codes to codes, Permutation.Length bytes each and nothing between them. Indexes that
// an alias reserves and codes that Blocked refuses are skipped.
//
// On an error the slices return as they came, and what was cut for the call is
// burned. Returns terse.ErrSpaceFull when the cap is reached (the domain must grow),
// an error of code unavailable if the store does not lease, and one that wraps
// ctx.Err() if the context ends first. A later call tries again.
//
// Hot path: no allocation for a code if the slices have room, see TestAllocs.
func (a *Allocator) Issue(ctx context.Context, n int, indexes []uint64, codes []byte) ([]uint64, []byte, error) {
	firstIndex, firstCode := len(indexes), len(codes)
	if n <= 0 {
		return indexes, codes, nil
	}
	var enc *Encoder
	if a.perm != nil {
		enc = a.perm.encoders.Get().(*Encoder)
		defer a.perm.encoders.Put(enc)
		codes = slices.Grow(codes, n*a.perm.length)
	}
	indexes = slices.Grow(indexes, n)
	for {
		missing := n - (len(indexes) - firstIndex)
		if missing == 0 {
			return indexes, codes, nil
		}
		seg, err := a.cut(ctx, uint64(missing))
		if err != nil {
			return indexes[:firstIndex], codes[:firstCode], err
		}
		indexes, codes = seg.appendTo(indexes, codes, enc)
	}
}

// Close ends the fetch under way and waits for it. Later calls of Issue fail. A
// second Close does nothing.
func (a *Allocator) Close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.cancel()
	a.wg.Wait()
}

// cut takes 1 to want indexes, reserved ones included, off the lease.
func (a *Allocator) cut(ctx context.Context, want uint64) (segment, error) {
	for {
		if err := ctx.Err(); err != nil {
			return segment{}, fmt.Errorf("issue codes: %w", err)
		}
		a.mu.Lock()
		if a.closed {
			a.mu.Unlock()
			return segment{}, errClosed
		}
		if a.cur.left() == 0 {
			a.cur, a.next = a.next, segment{}
		}
		if a.cur.left() > 0 {
			seg := a.cur.take(want)
			a.issued += seg.left()
			a.fetchAheadLocked()
			a.mu.Unlock()
			return seg, nil
		}
		if a.high >= a.limit {
			a.mu.Unlock()
			return segment{}, terse.ErrSpaceFull
		}
		a.waiting += want
		f := a.flight
		if f == nil {
			f = a.fetchLocked(a.opts.Clock())
		}
		a.mu.Unlock()

		var ended bool
		select {
		case <-f.done:
		case <-ctx.Done():
			ended = true
		}

		a.mu.Lock()
		a.waiting -= want
		a.mu.Unlock()
		if !ended && f.err != nil {
			return segment{}, f.err
		}
	}
}

// fetchAheadLocked starts to fetch the next lease when half of this one is used.
func (a *Allocator) fetchAheadLocked() {
	if a.flight != nil || a.next.left() > 0 || a.cur.left() > a.cur.size/2 || a.high >= a.limit {
		return
	}
	if now := a.opts.Clock(); !now.Before(a.retryAt) {
		a.fetchLocked(now)
	}
}

// fetchLocked starts the one fetch. It asks for what the last seconds used in
// demandWindow, or for what the blocked callers need if that is more.
func (a *Allocator) fetchLocked(now time.Time) *flight {
	size := a.opts.MinLease
	if elapsed := now.Sub(a.since); a.size > 0 {
		perWindow := float64(a.issued) * float64(demandWindow) / float64(max(elapsed, time.Microsecond))
		grown := min(float64(a.size)*maxGrowth, float64(a.opts.MaxLease))
		size = max(size, uint64(min(perWindow, grown)))
	}
	size = max(size, a.waiting)
	a.size, a.issued, a.since = size, 0, now

	f := &flight{done: make(chan struct{})}
	a.flight = f
	a.wg.Go(func() { a.fetch(f, size) })
	return f
}

// fetch leases once and hands the outcome to the waiters.
func (a *Allocator) fetch(f *flight, count uint64) {
	ctx, cancel := context.WithTimeout(a.ctx, leaseTimeout)
	defer cancel()
	lease, err := a.leaser.Lease(ctx, terse.LeaseRequest{Domain: a.domain, Space: a.space, Count: count, Cap: a.limit})

	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		err = a.acceptLocked(lease)
	}
	if err != nil {
		f.err = leaseError(err)
		a.retryAt = a.opts.Clock().Add(retryPause)
	}
	a.flight = nil
	close(f.done)
}

// acceptLocked takes over a lease. It refuses one that breaks the contract of the
// store in a way that would issue an index twice or outside the space.
func (a *Allocator) acceptLocked(l terse.Lease) error {
	if l.Start >= l.End || l.Start < a.high || l.End > a.limit || !within(l.Reserved, l.Start, l.End) {
		return &terse.Error{Code: terse.CodeInternal, Message: fmt.Sprintf(
			"the store leased [%d, %d) with reserved indexes %v; a lease starts at %d or later and ends at %d or before",
			l.Start, l.End, l.Reserved, a.high, a.limit)}
	}
	a.high = l.End
	s := segment{start: l.Start, end: l.End, reserved: l.Reserved, size: l.End - l.Start}
	if a.cur.left() == 0 {
		a.cur = s
	} else {
		a.next = s // empty: a fetch starts only when it is
	}
	return nil
}

// leaseError says what a failed lease means to a caller of Issue: nothing of the
// caller's was applied, even if the outcome of the lease is unknown. That range is a gap.
func leaseError(err error) error {
	fetchEnded := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	if fetchEnded || terse.ErrorCode(err) == terse.CodeUnknownOutcome {
		// The text only: a caller must not take it for its own context or its own write.
		return &terse.Error{Code: terse.CodeUnavailable, Message: terse.ErrUnavailable.Message, Op: "lease indexes", Err: errors.New(err.Error())}
	}
	return fmt.Errorf("lease indexes: %w", err)
}

// within reports whether xs is strictly ascending and inside [start, end).
func within(xs []uint64, start, end uint64) bool {
	for _, x := range xs {
		if x < start || x >= end {
			return false
		}
		start = x + 1
	}
	return true
}

func (s *segment) left() uint64 { return s.end - s.start }

// take cuts at most want indexes off the front.
func (s *segment) take(want uint64) segment {
	head := *s
	head.end = min(s.end, s.start+want)
	s.start = head.end
	cut, _ := slices.BinarySearch(s.reserved, head.end)
	head.reserved, s.reserved = s.reserved[:cut], s.reserved[cut:]
	return head
}

// appendTo appends the indexes of the segment that are not reserved, and their
// codes if enc is given, without those whose code is blocked.
func (s segment) appendTo(indexes []uint64, codes []byte, enc *Encoder) ([]uint64, []byte) {
	first := len(indexes)
	for i := s.start; i < s.end; i++ {
		if len(s.reserved) > 0 && s.reserved[0] == i {
			s.reserved = s.reserved[1:]
			continue
		}
		indexes = append(indexes, i)
	}
	if enc == nil {
		return indexes, codes
	}
	length := enc.p.length
	firstCode := len(codes)
	codes = enc.AppendAll(codes, indexes[first:])
	kept := 0
	for j, i := range indexes[first:] {
		c := codes[firstCode+j*length:][:length]
		if Blocked(c) {
			continue
		}
		if kept != j {
			indexes[first+kept] = i
			copy(codes[firstCode+kept*length:], c)
		}
		kept++
	}
	return indexes[:first+kept], codes[:firstCode+kept*length]
}
