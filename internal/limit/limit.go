// Package limit counts failures by client address, so that guessing is slow.
//
// It is a bounded table in memory, which the nodes of one instance fill together if they tell each other of
// failures (Options.Tell, Table.Heard); without word from the others a node counts its own. It is not a general rate
// limiter and not a quota: what it forgets under pressure is a few counts, never a block
// on everybody.
package limit

import (
	"net/netip"
	"sync"
	"time"
)

// Options configures a Table. All fields but Tell are required.
type Options struct {
	Every time.Duration // one more failure is forgiven every so long
	Burst int           // failures in a row before an address is blocked
	Max   int           // addresses remembered at once
	Clock func() time.Time
	// Tell is called with every failure of this node, for the tables of others; it must not wait. nil: nobody is told.
	Tell func(client netip.Prefix)
}

// Table remembers failures by address; IPv6 addresses count by their /64, which
// one customer usually has whole. Its methods may be called from many goroutines.
type Table struct {
	o Options

	mu sync.Mutex
	// until is when all failures of an address will be forgiven (the "theoretical
	// arrival time" of the generic cell rate algorithm, ITU-T I.371).
	until map[netip.Prefix]time.Time
}

// New returns an empty table.
func New(o Options) *Table {
	return &Table{o: o, until: make(map[netip.Prefix]time.Time)}
}

// Blocked returns how long the address has to wait before its next attempt; 0 if
// it need not.
func (t *Table) Blocked(a netip.Addr) time.Duration {
	now := t.o.Clock()
	t.mu.Lock()
	defer t.mu.Unlock()
	unforgiven := max(t.until[key(a)].Sub(now), 0)
	return max(unforgiven-time.Duration(t.o.Burst-1)*t.o.Every, 0)
}

// Fail counts a failure of the address.
func (t *Table) Fail(a netip.Addr) {
	k := key(a)
	t.count(k)
	if t.o.Tell != nil {
		t.o.Tell(k)
	}
}

// Heard counts a failure that another node has told of.
func (t *Table) Heard(client netip.Prefix) { t.count(client) }

func (t *Table) count(k netip.Prefix) {
	now := t.o.Clock()
	t.mu.Lock()
	defer t.mu.Unlock()
	u, known := t.until[k]
	if !known && len(t.until) >= t.o.Max {
		t.makeRoomLocked(now)
	}
	if u.Before(now) {
		u = now
	}
	t.until[k] = u.Add(t.o.Every)
}

// makeRoomLocked drops every address that is forgiven, and if there is none, one
// that is not: a flood of addresses must not grow the table.
func (t *Table) makeRoomLocked(now time.Time) {
	for k, u := range t.until {
		if !u.After(now) {
			delete(t.until, k)
		}
	}
	if len(t.until) < t.o.Max {
		return
	}
	for k := range t.until {
		delete(t.until, k)
		return
	}
}

func key(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // the zero Addr: clients whose address is not known share one count
	}
	return p
}
