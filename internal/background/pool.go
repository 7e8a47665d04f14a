// Package background does work that fills whole processors beside work that somebody waits
// for: batches of bulk requests beside redirects. While visitors come it works on one
// processor at a time and rests as long as it works; else it takes all there are (ADR 0009).
//
// It is for computation: whoever waits long within it keeps others from their turn.
package background

import (
	"runtime"
	"sync"
	"time"
)

const (
	// busyRate is from how many foreground requests a second on the work steps back.
	busyRate = 100
	// look is how often the rate is looked at.
	look = 20 * time.Millisecond
	// maxRest bounds a rest.
	maxRest = 50 * time.Millisecond
)

// Pool lets functions run a few at a time, in the order in which they come. The zero Pool
// is ready, and takes all processors.
type Pool struct {
	// Foreground counts the requests that go first; nil: there are none. It is set before
	// the first Do.
	Foreground func() uint64
	// Processors is how many there are to fill; 0: all of the machine. It is set before the first Do.
	Processors int
	// MostApart is how many functions at a time may be without a turn in Apart; 0: none. Whom they wait for meets as many at
	// once, and those that have turns. It is set before the first Do.
	MostApart int

	mu      sync.Mutex
	running int
	apart   int             // functions in Apart without a turn
	queue   []chan struct{} // those who wait for their turn
	lookAt  time.Time
	count   uint64 // of Foreground at lookAt
	busy    bool
}

// Do runs f, which must not panic, when it is its turn, and returns when it has ended.
func (p *Pool) Do(f func()) {
	p.enter()
	defer p.leave()
	began := time.Now()
	f()
	if p.isBusy() {
		// Within the turn: what comes next waits too.
		rest := time.NewTimer(min(time.Since(began), maxRest))
		<-rest.C
	}
}

// Apart is called by a function that Do runs. It runs f, in which the caller waits for somebody who works elsewhere, and
// lets others have its turn meanwhile. While MostApart are so, or visitors come, the turn is kept: who works may be on this machine.
func (p *Pool) Apart(f func()) {
	if !p.goApart() {
		f()
		return
	}
	defer p.comeBack()
	f()
}

// goApart gives the turn of the caller to others, if it may.
func (p *Pool) goApart() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limitLocked()
	if p.busy || p.apart >= p.MostApart {
		return false
	}
	p.apart++
	p.leaveLocked()
	return true
}

// comeBack waits for a turn after goApart.
func (p *Pool) comeBack() {
	p.mu.Lock()
	p.apart--
	p.mu.Unlock()
	p.enter()
}

func (p *Pool) enter() {
	p.mu.Lock()
	if p.running < p.limitLocked() && len(p.queue) == 0 {
		p.running++
		p.mu.Unlock()
		return
	}
	turn := make(chan struct{})
	p.queue = append(p.queue, turn)
	p.mu.Unlock()
	<-turn
}

func (p *Pool) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaveLocked()
}

func (p *Pool) leaveLocked() {
	p.running--
	for limit := p.limitLocked(); len(p.queue) > 0 && p.running < limit; p.running++ {
		close(p.queue[0])
		p.queue = p.queue[1:]
	}
}

func (p *Pool) isBusy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limitLocked()
	return p.busy
}

// limitLocked returns how many may run now: with visitors one, else one a processor and two
// more, because some of them wait for the disk.
func (p *Pool) limitLocked() int {
	if p.Foreground != nil {
		if now := time.Now(); now.Sub(p.lookAt) >= look {
			count := p.Foreground()
			p.busy = !p.lookAt.IsZero() && float64(count-p.count) >= busyRate*now.Sub(p.lookAt).Seconds()
			p.lookAt, p.count = now, count
		}
	}
	if p.busy {
		return 1
	}
	if p.Processors > 0 {
		return p.Processors + 2
	}
	return runtime.NumCPU() + 2
}
