// Package faultstore wraps a store and makes chosen calls fail, so that a test
// can show what its caller does in both truths of a failure: the write was not
// applied, and the write was applied but nobody was told.
//
// It injects nothing into the engine itself (its files, its network); engines
// have their own tests for that. It is for tests only.
package faultstore

import (
	"context"
	"fmt"
	"sync"

	"github.com/terselink/terse"
)

// Op names a method of terse.Store.
type Op string

// The operations. Any is every one but Close, which fails only if it is named.
const (
	Any            Op = ""
	Lease          Op = "lease"
	Next           Op = "next"
	Reservations   Op = "reservations"
	InsertLinks    Op = "insert_links"
	GetLinks       Op = "get_links"
	GetAlias       Op = "get_alias"
	FindPlain      Op = "find_plain"
	UpdateLink     Op = "update_link"
	DeleteLink     Op = "delete_link"
	ListLinks      Op = "list_links"
	CountLinks     Op = "count_links"
	PurgeLinks     Op = "purge_links"
	GetDocument    Op = "get_document"
	PutDocument    Op = "put_document"
	DeleteDocument Op = "delete_document"
	ListDocuments  Op = "list_documents"
	Changes        Op = "changes"
	Ping           Op = "ping"
	Close          Op = "close"
)

// Writes reports whether the operation changes the store.
func (op Op) Writes() bool {
	switch op {
	case Lease, InsertLinks, UpdateLink, DeleteLink, PurgeLinks, PutDocument, DeleteDocument:
		return true
	}
	return false
}

// When says on which side of the call a fault strikes.
type When uint8

const (
	// Before: the call never reaches the store, so nothing is applied.
	Before When = iota
	// After: the store carries out the call and its answer is lost.
	After
)

// Forever is a Fault.Times that never ends.
const Forever = -1

// Fault makes calls fail.
type Fault struct {
	// Op is the operation that fails; the zero value is Any.
	Op   Op
	When When
	// From is the first matching call that fails, counted from the injection: 1 is
	// the next. 0 means 1.
	From int
	// Times is how many matching calls fail in a row from there; 0 means 1, Forever
	// every one.
	Times int
	// Err is the error of the call. Nil means terse.ErrUnknownOutcome for a write that
	// fails After, and terse.ErrUnavailable for everything else.
	Err error
}

// Store passes every call on to another store, unless a fault strikes it. Make
// one with New.
type Store struct {
	inner terse.Store

	mu     sync.Mutex
	calls  map[Op]int
	fired  int
	faults []*armed
	slow   func(ctx context.Context, op Op) error
}

var _ terse.Store = (*Store)(nil)

type armed struct {
	Fault
	seen int // matching calls since the injection
}

// New returns a store that behaves as inner does until a fault is injected.
func New(inner terse.Store) *Store {
	return &Store{inner: inner, calls: map[Op]int{}}
}

// Inner returns the store without faults, to look at what was really applied.
func (s *Store) Inner() terse.Store { return s.inner }

// Inject arms a fault. The function it returns disarms it again. If several
// faults strike one call, the one injected first decides.
func (s *Store) Inject(f Fault) (disarm func()) {
	f.From = max(f.From, 1)
	if f.Times == 0 {
		f.Times = 1
	}
	a := &armed{Fault: f}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, a)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range s.faults {
			if s.faults[i] == a {
				s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
				return
			}
		}
	}
}

// Down makes every call but Close fail with ErrUnavailable until up is called.
func (s *Store) Down() (up func()) { return s.Inject(Fault{Times: Forever}) }

// Slow sets a function that every call but Close waits for before it goes on; nil
// removes it. An error from it ends the call, which then is not applied.
func (s *Store) Slow(wait func(ctx context.Context, op Op) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slow = wait
}

// Calls returns how often an operation has been called; of Any, all but Close.
func (s *Store) Calls(op Op) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if op != Any {
		return s.calls[op]
	}
	n := 0
	for o, c := range s.calls {
		if o != Close {
			n += c
		}
	}
	return n
}

// Fired returns how many calls have failed by a fault. A test that fails the
// n-th call for n = 1, 2, … ends when a run fires none.
func (s *Store) Fired() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fired
}

// do runs one call of the store with the faults that strike it.
func (s *Store) do(ctx context.Context, op Op, call func() error) error {
	fault, slow := s.begin(op)
	if slow != nil && op != Close {
		if err := slow(ctx, op); err != nil {
			return fmt.Errorf("slow %s: %w", op, err)
		}
	}
	if fault == nil {
		return call()
	}
	if fault.When == After {
		// The answer is lost, whatever it was.
		_ = call()
	}
	return fmt.Errorf("fault in %s: %w", op, fault.err(op))
}

// begin counts the call and returns the fault that strikes it, nil if none does.
func (s *Store) begin(op Op) (*Fault, func(context.Context, Op) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[op]++
	var strikes *Fault
	for _, a := range s.faults {
		if a.Op != op && (a.Op != Any || op == Close) {
			continue
		}
		a.seen++
		if a.seen >= a.From && (a.Times < 0 || a.seen-a.From < a.Times) && strikes == nil {
			strikes = &a.Fault
		}
	}
	if strikes != nil {
		s.fired++
	}
	return strikes, s.slow
}

func (f *Fault) err(op Op) error {
	switch {
	case f.Err != nil:
		return f.Err
	case f.When == After && op.Writes():
		return terse.ErrUnknownOutcome
	}
	return terse.ErrUnavailable
}
