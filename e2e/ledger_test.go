package e2e

import (
	"fmt"
	"slices"
	"sync"
)

// ledger is what the client knows of the server: everything acknowledged, and everything
// asked for whose outcome it does not know. It decides what is lost, and nothing else does.
type ledger struct {
	mu      sync.Mutex
	entries map[string]*entry // by path
	fresh   []*entry          // acknowledged or touched since the last check
	faults  []string
	acks    int
	// onAck, if set, is called at the ack with number ackLimit, by the goroutine that read it.
	onAck    func()
	ackLimit int
}

// entry is one link. The strings of may are destinations that a write of unknown outcome may
// have set; gone that it may have been deleted.
type entry struct {
	path, id string
	want     string // "" once it is deleted
	may      []string
	mayGone  bool
}

func newLedger() *ledger { return &ledger{entries: map[string]*entry{}} }

func (l *ledger) fault(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faultLocked(format, args...)
}

func (l *ledger) faultLocked(format string, args ...any) {
	if len(l.faults) < 20 {
		l.faults = append(l.faults, fmt.Sprintf(format, args...))
	}
}

// created notes an acknowledged creation. A path that is known already, of a live link or
// of one that is gone, was issued twice.
func (l *ledger) created(path, id, destination string) *entry {
	l.mu.Lock()
	e := &entry{path: path, id: id, want: destination}
	if old := l.entries[path]; old != nil {
		l.faultLocked("%s was issued twice: for %s and for %s", path, old.want, destination)
	}
	l.entries[path] = e
	l.fresh = append(l.fresh, e)
	l.ackedLocked()
	return e
}

// changed notes an acknowledged change of destination, "" for a deletion.
func (l *ledger) changed(e *entry, destination string) {
	l.mu.Lock()
	e.want, e.may, e.mayGone = destination, nil, false
	l.fresh = append(l.fresh, e)
	l.ackedLocked()
}

// ackedLocked counts an ack and unlocks.
func (l *ledger) ackedLocked() {
	l.acks++
	var f func()
	if l.onAck != nil && l.acks >= l.ackLimit {
		f, l.onAck = l.onAck, nil
	}
	l.mu.Unlock()
	if f != nil {
		f()
	}
}

// unknown notes a change whose answer did not come.
func (l *ledger) unknown(e *entry, destination string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if destination == "" {
		e.mayGone = true
	} else {
		e.may = append(e.may, destination)
	}
	l.fresh = append(l.fresh, e)
}

// after calls f right at the n-th ack from now, in the goroutine that has just read it.
func (l *ledger) after(n int, f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.onAck, l.ackLimit = f, l.acks+n
}

// takeFresh returns the entries to check next.
func (l *ledger) takeFresh() []*entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.fresh
	l.fresh, l.onAck = nil, nil
	return f
}

func (l *ledger) all() []*entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*entry, 0, len(l.entries))
	for _, e := range l.entries {
		all = append(all, e)
	}
	return all
}

// saw compares an answer of the redirect plane with what is known, while nothing is written.
// What a write of unknown outcome has become is known from then on.
func (l *ledger) saw(e *entry, status int, location string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case status == 302 && location != "" && (location == e.want || slices.Contains(e.may, location)):
		e.want, e.may, e.mayGone = location, nil, false
	case (status == 404 || status == 410) && (e.want == "" || e.mayGone):
		e.want, e.may, e.mayGone = "", nil, false
	default:
		l.faultLocked("%s answers %d to %q; it was acknowledged to lead to %q (may: %q, may be gone: %t)", e.path, status, location, e.want, e.may, e.mayGone)
	}
}

// clickLedger counts the visits of one link.
type clickLedger struct {
	mu       sync.Mutex
	sent     int // requests written
	answered int // redirects received since the last kill
	written  int // of answered: the server has them on its disk
	sure     int // redirects of before the last kill that must be counted
}

func (c *clickLedger) send() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent++
}

func (c *clickLedger) answer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered++
}

// secure notes that the server has written the clicks of all redirects so far, and returns how many those are.
func (c *clickLedger) secure() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.written = c.answered
	return c.written
}

// killed settles a kill: what was written before it must be counted.
func (c *clickLedger) killed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sure += c.written
	c.answered, c.written = 0, 0
}
