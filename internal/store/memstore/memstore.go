// Package memstore is the store that lives in memory: the plainest reading of
// the contract in terse.Store. The conformance suite uses it as the oracle that
// other engines are compared with, and tests of the layers above use it as
// their store.
//
// It is not durable and not meant to be fast: one mutex guards everything, and
// every method is a straight line from its arguments to its answer. Nothing
// here may be cleverer than the sentence of the contract that it implements.
//
// Invariants, all under Store.mu:
//
//   - a number is in links (live), in dead (deleted) or in neither (never
//     inserted), and never leaves dead;
//   - aliases and plain hold exactly the live links they should;
//   - order[w] ascends by (seq, number) and holds every link ever inserted for w;
//   - reserved ascends and never shrinks; next never falls.
package memstore

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/terselink/terse"
)

// Store implements terse.Store in memory. Make one with New.
type Store struct {
	clock func() terse.Millis

	mu     sync.Mutex
	closed bool
	content
}

// content is what a durable store would have on disk.
type content struct {
	links    map[terse.LinkNumber]terse.Link
	dead     map[terse.LinkNumber]struct{}
	aliases  map[aliasKey]terse.LinkNumber
	plain    map[plainKey]map[terse.LinkNumber]struct{}
	order    map[terse.WorkspaceID][]entry
	next     map[spaceKey]uint64
	reserved []terse.LinkNumber
	docs     map[docKey]terse.Document
	changes  []terse.Change // changes[i].Seq is forgotten+i+1
	// forgotten is how many changes are gone (ForgetChanges).
	forgotten uint64
}

var _ terse.Portable = (*Store)(nil)

type aliasKey struct {
	domain terse.DomainID
	alias  string
}

type plainKey struct {
	workspace   terse.WorkspaceID
	domain      terse.DomainID
	destination string
}

type spaceKey struct {
	domain terse.DomainID
	space  terse.SpaceID
}

type docKey struct {
	workspace terse.WorkspaceID
	kind      terse.Kind
	id        string
}

// entry is the place of a link in the listing of its workspace.
type entry struct {
	seq    uint64 // of the insert
	number terse.LinkNumber
}

// New returns an empty store. The clock gives the time of changes (Change.At)
// and nothing else; nil means the wall clock.
func New(clock func() terse.Millis) *Store {
	if clock == nil {
		clock = func() terse.Millis { return terse.MillisOf(time.Now()) }
	}
	return &Store{clock: clock, content: content{
		links:   map[terse.LinkNumber]terse.Link{},
		dead:    map[terse.LinkNumber]struct{}{},
		aliases: map[aliasKey]terse.LinkNumber{},
		plain:   map[plainKey]map[terse.LinkNumber]struct{}{},
		order:   map[terse.WorkspaceID][]entry{},
		next:    map[spaceKey]uint64{},
		docs:    map[docKey]terse.Document{},
	}}
}

// Reopen closes the store and returns one with the same content, as a durable
// engine has after a restart.
func (s *Store) Reopen() *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return &Store{clock: s.clock, content: s.content}
}

// enter takes the mutex for an operation. If it returns an error the mutex is not held.
func (s *Store) enter(ctx context.Context, op string) error {
	if err := ctx.Err(); err != nil {
		return &terse.Error{Code: terse.CodeUnavailable, Message: "the call was cancelled", Op: op, Err: err}
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return &terse.Error{Code: terse.CodeUnavailable, Message: "the store is closed", Op: op}
	}
	return nil
}

// Ping returns nil until the store is closed.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.enter(ctx, "ping"); err != nil {
		return err
	}
	s.mu.Unlock()
	return nil
}

// Close makes every later call but Close fail with ErrUnavailable.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// Lease takes the next indexes of a space.
func (s *Store) Lease(ctx context.Context, req terse.LeaseRequest) (terse.Lease, error) {
	switch {
	case req.Count == 0:
		return terse.Lease{}, terse.Invalid("count", "a lease takes at least one index")
	case req.Domain > terse.MaxDomain:
		return terse.Lease{}, terse.Invalid("domain", "at most %d", terse.MaxDomain)
	case req.Space > terse.MaxSpace:
		return terse.Lease{}, terse.Invalid("space", "at most %d", terse.MaxSpace)
	}
	if err := s.enter(ctx, "lease"); err != nil {
		return terse.Lease{}, err
	}
	defer s.mu.Unlock()

	limit := terse.MaxIndex + 1
	if req.Cap != 0 {
		limit = min(limit, req.Cap)
	}
	key := spaceKey{req.Domain, req.Space}
	start := s.next[key]
	if start >= limit {
		return terse.Lease{}, terse.ErrSpaceFull
	}
	end := start + min(req.Count, limit-start)
	s.next[key] = end

	lease := terse.Lease{Domain: req.Domain, Space: req.Space, Start: start, End: end}
	i, _ := slices.BinarySearch(s.reserved, terse.NewLinkNumber(req.Domain, req.Space, start))
	last := terse.NewLinkNumber(req.Domain, req.Space, end-1)
	for ; i < len(s.reserved) && s.reserved[i] <= last; i++ {
		lease.Reserved = append(lease.Reserved, s.reserved[i].Index())
	}
	return lease, nil
}

// Next returns the index that the next lease of the space will start with.
func (s *Store) Next(ctx context.Context, d terse.DomainID, sp terse.SpaceID) (uint64, error) {
	if err := s.enter(ctx, "next"); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	return s.next[spaceKey{d, sp}], nil
}

// Reservations returns the reserved indexes of a space.
func (s *Store) Reservations(ctx context.Context, d terse.DomainID, sp terse.SpaceID, from uint64, limit int) ([]uint64, error) {
	switch {
	case limit < 1:
		return nil, terse.Invalid("limit", "at least 1")
	case d > terse.MaxDomain:
		return nil, terse.Invalid("domain", "at most %d", terse.MaxDomain)
	case sp > terse.MaxSpace:
		return nil, terse.Invalid("space", "at most %d", terse.MaxSpace)
	}
	if err := s.enter(ctx, "list reservations"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if from > terse.MaxIndex {
		return nil, nil
	}
	var out []uint64
	last := terse.NewLinkNumber(d, sp, terse.MaxIndex)
	i, _ := slices.BinarySearch(s.reserved, terse.NewLinkNumber(d, sp, from))
	for ; i < len(s.reserved) && s.reserved[i] <= last && len(out) < limit; i++ {
		out = append(out, s.reserved[i].Index())
	}
	return out, nil
}

// ForgetChanges forgets every change there is. None is forgotten otherwise.
func (s *Store) ForgetChanges() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgotten += uint64(len(s.changes))
	s.changes = nil
}

// Changes returns the changes after a sequence number.
func (s *Store) Changes(ctx context.Context, after uint64, limit int) ([]terse.Change, error) {
	if limit < 1 {
		return nil, terse.Invalid("limit", "at least 1")
	}
	if err := s.enter(ctx, "changes"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if after < s.forgotten {
		return nil, &terse.ForgottenError{Floor: s.forgotten}
	}
	if after-s.forgotten >= uint64(len(s.changes)) {
		return nil, nil
	}
	rest := s.changes[after-s.forgotten:]
	out := slices.Clone(rest[:min(limit, len(rest))])
	for i := range out {
		out[i].Runs = slices.Clone(out[i].Runs)
	}
	return out, nil
}

// logLocked appends a change and returns its sequence number.
func (s *Store) logLocked(c terse.Change) uint64 {
	c.Seq = s.forgotten + uint64(len(s.changes)) + 1
	c.At = s.clock()
	s.changes = append(s.changes, c)
	return c.Seq
}

// clone returns a link that shares no memory with l.
func clone(l *terse.Link) terse.Link {
	c := *l
	c.Code = strings.Clone(l.Code)
	c.Destination = strings.Clone(l.Destination)
	c.Values = strings.Clone(l.Values)
	c.ExternalID = strings.Clone(l.ExternalID)
	c.Reserves = 0
	c.Settings = cloneSettings(l.Settings)
	return c
}
