package redisbus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/terselink/terse/internal/sleep"
)

// Fields of the entries of the stream.
const (
	fieldReplies = "r"
	fieldNumber  = "n"
	fieldChunk   = "c"
	fieldMAC     = "m"
)

const (
	// maxWindow bounds the chunks of a run under way: their rows are in memory. Eight nodes of two processors run as many.
	maxWindow = 64
	// roomEvery is how often somebody who has no room looks again.
	roomEvery = 250 * time.Millisecond
	// patrolEvery is how often chunks under way are looked at.
	patrolEvery = time.Second
)

// Run is one run of a job that hands chunks in. Use Open, and Close when it has ended. It implements links.Spread.
type Run struct {
	q       *Queue
	replies string // a key
	ctx     context.Context
	cancel  context.CancelFunc
	begun   sync.Once
	running sync.WaitGroup

	mu      sync.Mutex
	next    uint64
	flights map[uint64]*flight
}

// flight is a chunk that was handed in.
type flight struct {
	began time.Time
	id    string // of the entry; "": not there yet
	end   chan landing
}

// landing is how a flight ended.
type landing struct {
	outcome string // packed
	err     error
}

// Open begins a run. Nothing is sent before Do.
func (q *Queue) Open() *Run {
	r := &Run{q: q, replies: q.base + "replies:" + rand.Text(), flights: map[uint64]*flight{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	q.runs.Add(1)
	return r
}

// Close ends the run, of which no call may be under way. It is called once.
func (r *Run) Close() {
	r.cancel()
	r.running.Wait()
	r.q.runs.Add(-1)
}

// Window implements links.Spread.
func (r *Run) Window() int { return maxWindow }

// Now implements links.Spread.
func (r *Run) Now() int {
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	return r.q.roomFor(r.q.others)
}

// Room implements links.Spread.
func (r *Run) Room(ctx context.Context, i int) bool {
	for r.q.room(ctx) <= i {
		if sleep.For(ctx, roomEvery) != nil {
			return false
		}
	}
	return ctx.Err() == nil
}

var (
	errNobody = errors.New("no other node takes chunks")
	errLost   = errors.New("the chunk is lost: no node has it")
	errLate   = errors.New("the chunk takes too long elsewhere")
)

// Do implements links.Spread.
func (r *Run) Do(ctx context.Context, chunk []byte) (outcome []byte, node string, err error) {
	defer func() {
		if err == nil {
			r.q.chunks.WithLabelValues("answered").Inc()
		} else if ctx.Err() == nil {
			r.q.chunks.WithLabelValues("taken_back").Inc()
		}
	}()
	if r.q.room(ctx) == 0 {
		return nil, "", errNobody
	}
	packed := pack(chunk)
	if err := r.q.reserve(ctx, len(packed)); err != nil {
		return nil, "", err
	}
	defer r.q.release(len(packed))
	f := &flight{began: time.Now(), end: make(chan landing, 1)}
	number := r.add(f)
	defer r.remove(number)
	if err := r.send(ctx, f, number, packed); err != nil {
		r.q.failed()
		r.q.log.say("chunks of jobs cannot be handed to other nodes: they are run here", err)
		return nil, "", err
	}
	r.begun.Do(func() { r.running.Go(r.receive) })
	var l landing
	select {
	case l = <-f.end:
	case <-ctx.Done():
		l.err = ctx.Err()
	}
	if l.err != nil {
		r.takeBack(ctx, f.id)
		return nil, "", l.err
	}
	whole, err := unpack(l.outcome)
	if err != nil {
		return nil, "", err
	}
	name, outcome, ok := cutName(whole)
	if !ok {
		return nil, "", errors.New("the outcome of a chunk does not say whose it is")
	}
	return outcome, name, nil
}

func (r *Run) add(f *flight) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next++
	r.flights[r.next] = f
	return r.next
}

func (r *Run) remove(number uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.flights, number)
}

// land ends a flight, if it is still under way.
func (r *Run) land(number uint64, l landing) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.flights[number]; f != nil {
		delete(r.flights, number)
		f.end <- l
	}
}

// send puts a chunk into the stream.
func (r *Run) send(ctx context.Context, f *flight, number uint64, packed string) error {
	c, err := r.q.connect()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*ioWithin)
	defer cancel()
	n := strconv.FormatUint(number, 10)
	sent := c.DoMulti(ctx,
		c.B().Xadd().Key(r.q.stream).Id("*").FieldValue().FieldValue(fieldReplies, r.replies).FieldValue(fieldNumber, n).FieldValue(fieldChunk, packed).
			FieldValue(fieldMAC, r.q.seal.sign(sealedChunk, r.replies, n, packed)).Build(),
		c.B().Expire().Key(r.q.stream).Seconds(seconds(keysKeep)).Build())
	id, err := sent[0].ToString()
	if err != nil {
		return fmt.Errorf("hand in a chunk: %w", err)
	}
	r.mu.Lock()
	f.id = id
	r.mu.Unlock()
	return nil
}

// takeBack keeps a chunk from nodes that have not taken it yet. If it fails, one may take it: that does no harm.
func (r *Run) takeBack(ctx context.Context, id string) {
	c, err := r.q.connect()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ioWithin)
	defer cancel()
	err = firstError(c.DoMulti(ctx, c.B().Xack().Key(r.q.stream).Group(group).Id(id).Build(), c.B().Xdel().Key(r.q.stream).Id(id).Build()))
	if err != nil {
		r.q.o.Log.Debug("a chunk was not taken back", "error", err)
	}
}

// receive hands outcomes to those who wait for them until the run ends, and leaves no list behind.
func (r *Run) receive() {
	patrol := time.Now()
	for r.ctx.Err() == nil {
		number, outcome, err := r.pop()
		switch {
		case r.ctx.Err() != nil:
		case err != nil:
			r.landAll(fmt.Errorf("receive outcomes: %w", err))
			r.q.failed()
			_ = sleep.For(r.ctx, retryPause)
		case number != 0:
			r.land(number, landing{outcome: outcome})
		}
		if time.Since(patrol) >= patrolEvery {
			patrol = time.Now()
			r.patrol()
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), ioWithin)
	defer cancel()
	if c, err := r.q.connect(); err == nil {
		if err := c.Do(ctx, c.B().Del().Key(r.replies).Build()).Error(); err != nil {
			r.q.o.Log.Debug("a list of outcomes stays until it expires", "error", err)
		}
	}
}

// pop waits a moment for an outcome; number 0: there was none.
func (r *Run) pop() (number uint64, outcome string, err error) {
	c, err := r.q.connect()
	if err != nil {
		return 0, "", err
	}
	ctx, cancel := context.WithTimeout(r.ctx, takeWait+ioWithin)
	defer cancel()
	got, err := c.Do(ctx, c.B().Blpop().Key(r.replies).Timeout(takeWait.Seconds()).Build()).AsStrSlice()
	if rueidis.IsRedisNil(err) {
		return 0, "", nil
	}
	if err != nil || len(got) != 2 {
		return 0, "", err
	}
	n, signed, _ := strings.Cut(got[1], " ")
	number, err = strconv.ParseUint(n, 10, 64)
	if err != nil || len(signed) < macSize || !r.q.seal.verify(signed[:macSize], sealedOutcome, r.replies, n, signed[macSize:]) {
		r.q.bad.add(sealedOutcome) // the one that is signed may still come
		return 0, "", nil
	}
	return number, signed[macSize:], nil
}

func (r *Run) landAll(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for number, f := range r.flights {
		delete(r.flights, number)
		f.end <- landing{err: err}
	}
}

// patrol gives up chunks that no node has: the stream was emptied, or nobody takes them. Those of nodes that died are taken by
// others.
func (r *Run) patrol() {
	type late struct {
		number uint64
		id     string
	}
	var list []late
	r.mu.Lock()
	for number, f := range r.flights {
		switch age := time.Since(f.began); {
		case f.id == "" || age < r.q.waits.patience:
		case age > r.q.waits.flight:
			delete(r.flights, number)
			f.end <- landing{err: errLate}
		default:
			list = append(list, late{number, f.id})
		}
	}
	r.mu.Unlock()
	c, err := r.q.connect()
	if err != nil || len(list) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(r.ctx, ioWithin)
	defer cancel()
	var questions []rueidis.Completed
	for _, l := range list {
		questions = append(questions, c.B().Xpending().Key(r.q.stream).Group(group).Start(l.id).End(l.id).Count(1).Build())
	}
	for i, result := range c.DoMulti(ctx, questions...) {
		pending, err := result.ToArray()
		if err == nil && len(pending) == 0 || missing(err) || rueidis.IsRedisNil(err) {
			r.land(list[i].number, landing{err: errLost})
		}
	}
}
