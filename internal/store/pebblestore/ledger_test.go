package pebblestore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
)

// ledger is what a client knows: what was acknowledged, and the one call of each
// writer that was under way. It is the judge of the crash and the fault tests.
type ledger struct {
	mu      sync.Mutex
	links   map[terse.LinkNumber]terse.Link // acknowledged; Number 0: deleted
	next    map[terse.DomainID]uint64       // end of the last lease
	docs    map[string]uint64               // id -> version
	changes []terse.Change                  // seen by a follower
	pending map[int]call                    // by writer
}

// call is a write whose outcome is not known.
type call struct {
	links   []terse.Link // after the call; Number 0 at i: old[i] is deleted
	numbers []terse.LinkNumber
	doc     string
	version uint64
}

func newLedger() *ledger {
	return &ledger{
		links: make(map[terse.LinkNumber]terse.Link), next: make(map[terse.DomainID]uint64),
		docs: make(map[string]uint64), pending: make(map[int]call),
	}
}

// clone copies the ledger, of which the caller holds the lock.
func (l *ledger) clone() *ledger {
	return &ledger{
		links: maps.Clone(l.links), next: maps.Clone(l.next), docs: maps.Clone(l.docs),
		changes: slices.Clone(l.changes), pending: maps.Clone(l.pending),
	}
}

// do makes a call and enters what it said. An error that is none of the disk's is returned.
func (l *ledger) do(writer int, c call, f func() error) error {
	l.mu.Lock()
	l.pending[writer] = c
	l.mu.Unlock()
	err := f()
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		for i, n := range c.numbers {
			l.links[n] = c.links[i]
		}
		if c.doc != "" {
			l.docs[c.doc] = c.version
		}
		delete(l.pending, writer)
	case errors.Is(err, terse.ErrUnavailable):
		delete(l.pending, writer) // not applied
	case errors.Is(err, terse.ErrUnknownOutcome):
		// stays pending for ever: the writer must stop
	default:
		return err
	}
	return err
}

// writer makes random writes on a domain of its own.
type writer struct {
	id     int
	r      *rand.Rand
	s      *Store
	l      *ledger
	mine   []terse.Link // that exist
	serial int
}

func (w *writer) domain() terse.DomainID { return terse.DomainID(w.id + 1) }

// step makes one random call. It returns the error of a call that did not end well.
func (w *writer) step(ctx context.Context) error {
	switch k := w.r.IntN(10); {
	case k < 2:
		return w.insert(ctx, 1+w.r.IntN(3))
	case k < 4:
		return w.insert(ctx, 60+w.r.IntN(300))
	case k < 6 && len(w.mine) > 0:
		return w.update(ctx)
	case k < 7 && len(w.mine) > 0:
		return w.delete(ctx)
	case k < 8:
		w.serial++
		doc := terse.Document{Workspace: 1, Kind: terse.KindJob, ID: fmt.Sprintf("%d-%d", w.id, w.serial), Version: 1, Data: []byte("{}")}
		return w.l.do(w.id, call{doc: doc.ID, version: 1}, func() error { return w.s.PutDocument(ctx, doc) })
	case k < 9:
		_, err := w.s.FindPlain(ctx, 1, w.domain(), "https://example.com/none", testNow)
		if errors.Is(err, terse.ErrNotFound) {
			err = nil
		}
		return err
	default:
		return w.follow(ctx)
	}
}

func (w *writer) lease(ctx context.Context, n uint64) (terse.Lease, error) {
	lease, err := w.s.Lease(ctx, terse.LeaseRequest{Domain: w.domain(), Space: 7, Count: n})
	if err == nil {
		w.l.mu.Lock()
		w.l.next[w.domain()] = lease.End
		w.l.mu.Unlock()
	}
	return lease, err
}

func (w *writer) insert(ctx context.Context, n int) error {
	lease, err := w.lease(ctx, uint64(n))
	if err != nil {
		return err
	}
	c := call{}
	for i := lease.Start; i < lease.End; i++ {
		l := testLink(i)
		l.Number = terse.NewLinkNumber(w.domain(), 7, i)
		l.Destination = fmt.Sprintf("https://example.com/%d/%d/%x", w.id, i, w.r.Uint64())
		if w.r.IntN(20) == 0 {
			l.Settings = &terse.LinkSettings{Title: "t", Tags: []string{"x"}}
		}
		c.links, c.numbers = append(c.links, l), append(c.numbers, l.Number)
	}
	err = w.l.do(w.id, c, func() error { return w.s.InsertLinks(ctx, &terse.Chunk{Links: c.links}) })
	if err == nil {
		w.mine = append(w.mine, c.links...)
	}
	return err
}

func (w *writer) update(ctx context.Context) error {
	i := w.r.IntN(len(w.mine))
	l := w.mine[i]
	l.Version++
	l.Destination += "/v"
	err := w.l.do(w.id, call{links: []terse.Link{l}, numbers: []terse.LinkNumber{l.Number}}, func() error {
		return w.s.UpdateLink(ctx, &l, l.Version-1)
	})
	if err == nil {
		w.mine[i] = l
	}
	return err
}

func (w *writer) delete(ctx context.Context) error {
	i := w.r.IntN(len(w.mine))
	l := w.mine[i]
	err := w.l.do(w.id, call{links: make([]terse.Link, 1), numbers: []terse.LinkNumber{l.Number}}, func() error {
		return w.s.DeleteLink(ctx, terse.LinkKey{Number: l.Number, Code: l.Code}, l.Version)
	})
	if err == nil {
		w.mine = slices.Delete(w.mine, i, i+1)
	}
	return err
}

// follow reads on in the feed, as a cache or the analytics would.
func (w *writer) follow(ctx context.Context) error {
	after := w.l.lastChange()
	changes, err := w.s.Changes(ctx, after, 50)
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	for _, c := range changes {
		if n := len(w.l.changes); n == 0 || c.Seq > w.l.changes[n-1].Seq {
			w.l.changes = append(w.l.changes, c)
		}
	}
	return err
}

func (l *ledger) lastChange() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.changes); n > 0 {
		return l.changes[n-1].Seq
	}
	return 0
}

// check compares a store after a crash with the ledger.
func (l *ledger) check(ctx context.Context, s *Store) error {
	uncertain := make(map[terse.LinkNumber]bool)
	for id, c := range l.pending {
		if err := l.settle(ctx, s, c); err != nil {
			return fmt.Errorf("call of writer %d that was under way: %w", id, err)
		}
		for _, n := range c.numbers {
			uncertain[n] = true
		}
	}
	alive := make(map[terse.LinkNumber]bool)
	for n, want := range l.links {
		if uncertain[n] {
			continue
		}
		got, err := one(ctx, s, n, want.Code)
		if err != nil {
			return err
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("acknowledged link %d.%d (-want +got):\n%s", n.Domain(), n.Index(), diff)
		}
		if want.Number != 0 {
			alive[n] = true
		}
	}
	for id, version := range l.docs {
		if d, err := s.GetDocument(ctx, 1, terse.KindJob, id); err != nil || d.Version != version {
			return fmt.Errorf("acknowledged document %s: version %d, error %w", id, d.Version, err)
		}
	}
	for d, end := range l.next {
		lease, err := s.Lease(ctx, terse.LeaseRequest{Domain: d, Space: 7, Count: 1})
		if err != nil {
			return err
		}
		if lease.Start < end {
			return fmt.Errorf("index %d of domain %d is issued again: it was leased up to %d", lease.Start, d, end)
		}
	}
	for i, want := range l.changes {
		got, err := s.Changes(ctx, want.Seq-1, 1)
		if err != nil || len(got) != 1 || !cmp.Equal(want, got[0]) {
			return fmt.Errorf("change %d that a follower has seen: got %v, want %v, error %w", i, got, want, err)
		}
	}
	return l.checkLists(ctx, s, alive, uncertain)
}

// settle checks that a call was applied as a whole or not at all.
func (l *ledger) settle(ctx context.Context, s *Store, c call) error {
	before, after := 0, 0
	for i, n := range c.numbers {
		got, err := one(ctx, s, n, "")
		if err != nil {
			return err
		}
		got.Code = ""
		was, is := l.links[n], c.links[i]
		was.Code, is.Code = "", ""
		if cmp.Equal(was, got) {
			before++
		}
		if cmp.Equal(is, got) {
			after++
		}
	}
	if before != len(c.numbers) && after != len(c.numbers) {
		return fmt.Errorf("of %d links %d are as before and %d as after", len(c.numbers), before, after)
	}
	return nil
}

// checkLists checks that every link is listed once and can be found by its destination.
func (l *ledger) checkLists(ctx context.Context, s *Store, alive, uncertain map[terse.LinkNumber]bool) error {
	seen := make(map[terse.LinkNumber]bool)
	q := terse.ListQuery{Limit: 500}
	for {
		page, err := s.ListLinks(ctx, 1, q)
		if err != nil {
			return err
		}
		for _, link := range page.Links {
			if seen[link.Number] {
				return fmt.Errorf("link %d is listed twice", link.Number)
			}
			if !alive[link.Number] && !uncertain[link.Number] {
				return fmt.Errorf("link %d is listed, but nobody made it", link.Number)
			}
			seen[link.Number] = true
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
	}
	i := 0
	for n := range alive {
		if !seen[n] {
			return fmt.Errorf("link %d is not listed", n)
		}
		link := l.links[n]
		if i++; i > 20 || !link.Plain() {
			continue
		}
		if got, err := s.FindPlain(ctx, 1, n.Domain(), link.Destination, testNow); err != nil || got.Number != n {
			return fmt.Errorf("find %s: got %d, want %d, error %w", link.Destination, got.Number, n, err)
		}
	}
	return nil
}

// one returns a link, or the zero Link.
func one(ctx context.Context, s *Store, n terse.LinkNumber, code string) (terse.Link, error) {
	got := make([]terse.Link, 1)
	err := s.GetLinks(ctx, []terse.LinkKey{{Number: n, Code: code}}, got)
	return got[0], err
}
