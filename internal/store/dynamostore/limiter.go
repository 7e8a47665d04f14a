package dynamostore

import (
	"context"
	"sync"
	"time"
)

// limiter bounds the requests under way: additive increase while the table keeps up, multiplicative
// decrease when it throttles, as TCP does. Waiters are served in order.
type limiter struct {
	now func() time.Time
	max float64

	mu      sync.Mutex
	limit   float64
	active  int
	waiting []chan struct{}
	lowered time.Time
}

// Requests that were sent before a decrease are throttled too: they are one event.
const oneEvent = 100 * time.Millisecond

func newLimiter(most int, now func() time.Time) *limiter {
	return &limiter{now: now, max: float64(most), limit: min(32, float64(most))}
}

func (l *limiter) acquire(ctx context.Context) error {
	l.mu.Lock()
	if l.active < int(l.limit) && len(l.waiting) == 0 {
		l.active++
		l.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	l.waiting = append(l.waiting, turn)
	l.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, w := range l.waiting {
		if w == turn {
			l.waiting = append(l.waiting[:i], l.waiting[i+1:]...)
			return ctx.Err()
		}
	}
	l.active-- // the turn came meanwhile: it is the next one's
	l.wakeLocked()
	return ctx.Err()
}

// release ends a request and says whether the table throttled it.
func (l *limiter) release(throttled bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active--
	if !throttled {
		l.limit = min(l.max, l.limit+1/l.limit)
	} else if now := l.now(); now.Sub(l.lowered) > oneEvent {
		l.limit, l.lowered = max(1, l.limit*0.7), now
	}
	l.wakeLocked()
}

func (l *limiter) wakeLocked() {
	for len(l.waiting) > 0 && l.active < int(l.limit) {
		l.active++
		close(l.waiting[0])
		l.waiting = l.waiting[1:]
	}
}

func (l *limiter) current() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int(l.limit)
}
