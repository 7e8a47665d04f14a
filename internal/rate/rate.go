// Package rate bounds how often a client may ask, by the generic cell rate algorithm (ITU-T I.371): so many requests a second
// in the long run, so many at once.
//
// A Table counts in this process, redisbus.Rates for all nodes of an instance, and a Limiter asks the second and goes on with the
// first while that does not answer: a limit never makes a request fail that has time to be answered.
package rate

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Limit is what one client may do.
type Limit struct {
	PerSecond int // requests in the long run; above 0
	Burst     int // requests at once, after a pause; above 0
}

// Interval is the time after which one more request is allowed.
func (l Limit) Interval() time.Duration { return time.Second / time.Duration(l.PerSecond) }

// Counter counts requests of clients for several processes.
type Counter interface {
	// Take counts a request of a client and returns 0, or counts nothing and returns how long the client has to wait. Returns an
	// error if nobody can say; then the request may have been counted.
	Take(ctx context.Context, client string, l Limit) (wait time.Duration, err error)
}

// Table counts requests in memory. Its methods may be called from many goroutines.
type Table struct {
	max   int // clients
	clock func() time.Time

	mu   sync.Mutex
	free map[string]time.Time // when everything that a client has asked is forgotten
}

// NewTable returns an empty table of at most so many clients; when it is full it forgets those that have nothing to wait for, and then any.
func NewTable(clients int, clock func() time.Time) *Table {
	return &Table{max: clients, clock: clock, free: map[string]time.Time{}}
}

// Take counts a request and returns 0, or counts nothing and returns how long the client has to wait.
func (t *Table) Take(client string, l Limit) (wait time.Duration) {
	now := t.clock()
	t.mu.Lock()
	defer t.mu.Unlock()
	at, known := t.free[client]
	if !known && len(t.free) >= t.max {
		t.makeRoomLocked(now)
	}
	if at.Before(now) {
		at = now
	}
	if most := now.Add(time.Duration(l.Burst) * l.Interval()); at.After(most) { // the clock went back
		at = most
		t.free[client] = at
	}
	at = at.Add(l.Interval())
	if wait := at.Sub(now) - time.Duration(l.Burst)*l.Interval(); wait > 0 {
		return wait
	}
	t.free[client] = at
	return 0
}

func (t *Table) makeRoomLocked(now time.Time) {
	for client, at := range t.free {
		if !at.After(now) {
			delete(t.free, client)
		}
	}
	for client := range t.free {
		if len(t.free) < t.max {
			return
		}
		delete(t.free, client)
	}
}

const (
	// remoteWithin bounds what the count of all nodes adds to a request.
	remoteWithin = 50 * time.Millisecond
	// aloneFor is how long a node counts alone after a failure, so that not every request waits for a server that hangs.
	aloneFor = time.Second
)

// Limiter holds clients to one limit.
type Limiter struct {
	limit   Limit
	remote  Counter // nil: this process is the only one
	local   *Table
	log     *slog.Logger
	tryAt   atomic.Int64 // nanoseconds since 1970; 0: the last try went well
	refused prometheus.Counter
	alone   prometheus.Counter
}

// NewLimiter returns a limiter that counts with remote, and in the table while remote does not answer or if it is nil.
func NewLimiter(l Limit, remote Counter, local *Table, log *slog.Logger) *Limiter {
	return &Limiter{
		limit: l, remote: remote, local: local, log: log,
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "terse_api_rate_limited_total", Help: "API requests that were refused because their key had made too many (api.requests_per_second).",
		}),
		alone: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "terse_api_rate_alone_total", Help: "API requests that this node counted alone, because Redis did not answer in time.",
		}),
	}
}

// Take counts a request of a client and returns 0, or returns how long the client has to wait.
func (l *Limiter) Take(ctx context.Context, client string) time.Duration {
	wait := l.take(ctx, client)
	if wait > 0 {
		l.refused.Inc()
	}
	return wait
}

func (l *Limiter) take(ctx context.Context, client string) time.Duration {
	if l.remote == nil {
		return l.local.Take(client, l.limit)
	}
	if wait, ok := l.ask(ctx, client); ok {
		return wait
	}
	l.alone.Inc()
	return l.local.Take(client, l.limit)
}

// ask asks the count of all nodes. ok is false if it does not answer, or did not a moment ago: then one request tries again.
func (l *Limiter) ask(ctx context.Context, client string) (wait time.Duration, ok bool) {
	now := l.local.clock()
	at := l.tryAt.Load()
	if at != 0 && (now.UnixNano() < at || !l.tryAt.CompareAndSwap(at, now.Add(aloneFor).UnixNano())) {
		return 0, false
	}
	call, cancel := context.WithTimeout(ctx, remoteWithin)
	defer cancel()
	wait, err := l.remote.Take(call, client, l.limit)
	switch {
	case err == nil:
		if l.tryAt.Swap(0) != 0 {
			l.log.Info("requests of keys are counted over all nodes again")
		}
		return wait, true
	case ctx.Err() != nil: // the client has left: that says nothing
		return 0, false
	}
	if l.tryAt.Swap(now.Add(aloneFor).UnixNano()) == 0 {
		l.log.Warn("requests of keys are counted by each node alone for now", "error", err)
	}
	return 0, false
}

// Describe implements prometheus.Collector.
func (l *Limiter) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(l, ch) }

// Collect implements prometheus.Collector.
func (l *Limiter) Collect(ch chan<- prometheus.Metric) {
	l.refused.Collect(ch)
	l.alone.Collect(ch)
}
