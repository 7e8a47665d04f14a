// Package openloop offers HTTP/1.1 load at a fixed rate and measures how long the answers
// take.
//
// Arrivals follow a schedule that the server cannot slow down: request i is due at i/rate,
// whether or not the ones before it were answered, and its latency counts from that moment.
// A server that stalls for a second therefore shows a second of bad latencies, not one
// slow request (coordinated omission). A closed loop such as wrk is right for throughput and
// wrong for this.
//
// It is no general client: requests are prepared bytes, answers need a length, one request at a
// time is under way on a connection. It costs about 10 µs of processor time a request.
package openloop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/e2e/rawhttp"
)

// Target is a prepared request and the answer that is right.
type Target struct {
	Request  []byte // header block and all
	Status   int
	Location []byte // nil: not looked at
}

// Options say what to offer. Zero values mean the defaults named.
type Options struct {
	Addr     string  // "127.0.0.1:8080"; required
	Rate     float64 // requests a second; required
	Duration time.Duration
	Conns    int           // keep-alive connections; default 64
	Timeout  time.Duration // for one answer; default 5 s
	// Target returns the request with a number; it is called in order by one goroutine.
	Target func(i uint64) *Target
	// Progress, if not nil, is kept up to date while the load runs.
	Progress *Progress
}

// Progress counts while a load runs.
type Progress struct {
	Sent     atomic.Uint64 // requests written
	Answered atomic.Uint64 // right answers received
}

// Result is what came of a load.
type Result struct {
	Offered uint64 // arrivals of the schedule
	Right   uint64 // answered as the target says
	Wrong   uint64 // answered otherwise
	Failed  uint64 // not answered: connection refused, cut or too slow
	Unsent  uint64 // never written: no connection was free until the end
	Elapsed time.Duration
	// Latency counts right answers from the moment they were due.
	Latency Histogram
	// Service counts right answers from the moment they were written: the difference to
	// Latency is the wait for a free connection or for this program.
	Service Histogram
	// Faults are the first few of what went wrong.
	Faults []string
}

// Errors returns how many requests did not get their right answer.
func (r *Result) Errors() uint64 { return r.Wrong + r.Failed + r.Unsent }

const maxFaults = 5

// run is a load under way.
type run struct {
	o     Options
	idle  chan *conn
	stop  chan struct{} // closed when no more answers are waited for
	wg    sync.WaitGroup
	conns []*conn

	mu     sync.Mutex
	faults []string
}

// conn is a connection with at most one request under way.
type conn struct {
	r       *run
	mu      sync.Mutex
	net     net.Conn
	target  *Target // of the request under way, nil if there is none
	due     time.Time
	written time.Time

	// Of the goroutine that reads answers.
	right, wrong     uint64
	latency, service Histogram
}

// Run offers the load and returns when every request was answered or given up. An error means
// that it could not begin.
func Run(ctx context.Context, o Options) (*Result, error) {
	if o.Rate <= 0 || o.Duration <= 0 || o.Target == nil {
		return nil, terse.Invalid("rate", "rate, duration and target are required")
	}
	if o.Conns == 0 {
		o.Conns = 64
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Progress == nil {
		o.Progress = &Progress{}
	}
	r := &run{o: o, idle: make(chan *conn, o.Conns), stop: make(chan struct{})}
	for range o.Conns {
		c := &conn{r: r}
		if _, err := c.dial(); err != nil {
			r.end()
			return nil, fmt.Errorf("connect: %w", err)
		}
		r.conns = append(r.conns, c)
		r.wg.Go(c.read)
		r.idle <- c
	}
	watch := time.NewTicker(o.Timeout / 5)
	defer watch.Stop()
	r.wg.Go(func() {
		for {
			select {
			case <-r.stop:
				return
			case now := <-watch.C:
				r.cutSlow(now)
			}
		}
	})

	res := &Result{Offered: uint64(o.Rate * o.Duration.Seconds())}
	began := time.Now()
	sent := r.pace(ctx, began, res.Offered)
	res.Unsent = res.Offered - sent
	// Every connection is idle again when its answer came or was given up.
	grace := time.NewTimer(2 * o.Timeout)
	defer grace.Stop()
	for n := 0; n < o.Conns; n++ {
		select {
		case <-r.idle:
			continue
		case <-grace.C:
		case <-ctx.Done():
		}
		break
	}
	res.Elapsed = time.Since(began)
	r.end()
	for _, c := range r.conns {
		res.Right += c.right
		res.Wrong += c.wrong
		res.Latency.Add(&c.latency)
		res.Service.Add(&c.service)
	}
	res.Failed = res.Offered - res.Unsent - res.Right - res.Wrong
	res.Faults = r.faults
	return res, nil
}

// end closes the connections and waits for their goroutines.
func (r *run) end() {
	close(r.stop)
	for _, c := range r.conns {
		c.mu.Lock()
		if c.net != nil {
			_ = c.net.Close() // the run is over
		}
		c.mu.Unlock()
	}
	r.wg.Wait()
}

// pace writes the requests when they are due and returns how many it wrote.
func (r *run) pace(ctx context.Context, began time.Time, offered uint64) uint64 {
	// A sleep of the kernel is precise to some ten microseconds, one of the Go scheduler to a millisecond.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tight, relax := preciseSleep()
	defer relax()
	deadline := began.Add(r.o.Duration + r.o.Timeout)
	late := time.NewTimer(time.Until(deadline))
	defer late.Stop()
	for i := range offered {
		due := began.Add(time.Duration(float64(i) / r.o.Rate * float64(time.Second)))
		if wait := time.Until(due); wait > 0 {
			tight(max(wait, minSleep))
		}
		var c *conn
		select {
		case c = <-r.idle:
		default:
			select {
			case c = <-r.idle:
			case <-late.C:
				return i
			case <-ctx.Done():
				return i
			}
		}
		if i%64 == 0 && ctx.Err() != nil {
			r.idle <- c
			return i
		}
		c.send(r.o.Target(i), due)
	}
	return offered
}

// minSleep keeps a high rate from waking the processor for each request.
const minSleep = 40 * time.Microsecond

// dial puts a new connection in the place of the old one. lost says that a request was
// written to the old one meanwhile.
func (c *conn) dial() (lost bool, err error) {
	nc, err := net.DialTimeout("tcp", c.r.o.Addr, c.r.o.Timeout)
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.r.stop:
		return false, errors.Join(errEnded, nc.Close())
	default:
	}
	lost = c.target != nil
	c.net, c.target = nc, nil
	return lost, nil
}

var errEnded = errors.New("the run has ended")

// send writes a request; its answer comes to read.
func (c *conn) send(t *Target, due time.Time) {
	c.mu.Lock()
	nc := c.net
	c.target, c.due, c.written = t, due, time.Now()
	c.mu.Unlock()
	if _, err := nc.Write(t.Request); err != nil {
		_ = nc.Close() // read notices
		return
	}
	c.r.o.Progress.Sent.Add(1)
}

// take returns the request under way and forgets it.
func (c *conn) take() (t *Target, due, written time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, due, written = c.target, c.due, c.written
	c.target = nil
	return t, due, written
}

// read takes the answers of a connection, and connects again when it breaks.
func (c *conn) read() {
	reader := rawhttp.NewReader(c.net)
	var resp rawhttp.Response
	for {
		err := reader.Next(&resp, false)
		now := time.Now()
		t, due, written := c.take()
		switch {
		case t == nil && err == nil:
			c.r.fault("an answer that nobody asked for: %d", resp.Status)
			err = rawhttp.ErrMalformed
		case t == nil: // an idle connection was closed
		case err != nil:
			c.r.fault("no answer: %v", err)
		case resp.Status == t.Status && (t.Location == nil || bytes.Equal(resp.Location, t.Location)):
			c.right++
			c.latency.Record(now.Sub(due))
			c.service.Record(now.Sub(written))
			c.r.o.Progress.Answered.Add(1)
		default:
			c.wrong++
			c.r.fault("answer %d to %q, want %d to %q", resp.Status, resp.Location, t.Status, t.Location)
		}
		lost := false
		if err != nil || resp.Close {
			if lost, err = c.again(reader); err != nil {
				return
			}
		}
		// A connection that had no request under way is in the queue already.
		if t != nil || lost {
			c.r.idle <- c
		}
	}
}

// again connects anew. It returns an error when the run has ended.
func (c *conn) again(reader *rawhttp.Reader) (lost bool, err error) {
	c.mu.Lock()
	_ = c.net.Close() // it is of no use any more
	c.mu.Unlock()
	for {
		select {
		case <-c.r.stop:
			return false, errEnded
		default:
		}
		lost, err := c.dial()
		if err == nil {
			reader.Reset(c.net)
			return lost, nil
		}
		c.r.fault("connect: %v", err)
		select {
		case <-c.r.stop:
			return false, errEnded
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// cutSlow closes the connections whose answer takes too long.
func (r *run) cutSlow(now time.Time) {
	for _, c := range r.conns {
		c.mu.Lock()
		if c.target != nil && now.Sub(c.written) > r.o.Timeout {
			_ = c.net.Close() // read notices
		}
		c.mu.Unlock()
	}
}

// fault keeps the first few things that went wrong before the end of the run.
func (r *run) fault(format string, args ...any) {
	select {
	case <-r.stop:
		return
	default:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.faults) < maxFaults {
		r.faults = append(r.faults, fmt.Sprintf(format, args...))
	}
}
