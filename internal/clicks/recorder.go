package clicks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/terselink/terse"
)

// Recorder takes clicks from the redirect plane into the spool. It is safe for
// concurrent use. It is also a prometheus.Collector.
type Recorder struct {
	o      Options
	boot   string
	lock   io.Closer
	shards []shard
	mask   uint32

	wake   chan struct{}   // a shard is half full, or a click came while the writer slept
	asleep atomic.Bool     // the writer waits on wake alone
	flush  chan chan error // requests of Flush
	append chan appended   // requests of Append
	stop   chan struct{}   // closed by Close
	done   chan struct{}   // closed when the writer and the syncer have ended

	dirBytes atomic.Int64 // size of the spool
	written  atomic.Pointer[Position]
	stats    counters
	syncer   *syncer
	closeErr error
	once     sync.Once
}

// shard is a bounded buffer of slots. The writer swaps buf for spare, so a
// capture waits for at most another capture's copy.
type shard struct {
	mu       sync.Mutex
	buf      []byte
	captured uint64
	full     uint64  // dropped: no room
	late     uint64  // dropped: closed
	waiting  *commit // answered when buf is synced; nil: nobody waits
	closed   bool

	half  int      // wakes the writer; never changes
	spare []byte   // the writer's
	_     [16]byte // shards lie on cache lines of their own
}

// commit is a group's promise to those who wait for its fsync.
type commit struct {
	done chan struct{}
	err  error // set before done is closed
}

// Open starts a recorder with a new boot id. It never appends to a segment of
// an earlier boot. Returns an error of code conflict if another process records
// into the directory. A disk that is full or failing is not an error: the
// recorder counts, keeps trying, and redirects go on.
func Open(o Options) (*Recorder, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	if err := makeDir(o.FS, o.Dir); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	lock, err := o.FS.Lock(o.FS.PathJoin(o.Dir, lockName))
	if err != nil {
		return nil, &terse.Error{Code: terse.CodeConflict, Op: "open spool", Message: "another process records into this directory", Err: err}
	}
	ids, err := listSegments(o.FS, o.Dir)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	// A boot sorts after all before it even if the clock went back.
	ms := o.Clock().UnixMilli()
	if len(ids) > 0 {
		ms = max(ms, bootMillis(ids[len(ids)-1].boot)+1)
	}
	r := &Recorder{
		o: o, boot: newBoot(ms, rand.Uint64()), lock: lock,
		shards: make([]shard, o.Shards), mask: uint32(o.Shards - 1),
		wake: make(chan struct{}, 1), flush: make(chan chan error), append: make(chan appended), stop: make(chan struct{}), done: make(chan struct{}),
	}
	size := o.BufferBytes / o.Shards / 2
	for i := range r.shards {
		r.shards[i].buf = make([]byte, 0, size)
		r.shards[i].spare = make([]byte, 0, size)
		r.shards[i].half = size / 2
	}
	r.dirBytes.Store(segmentBytes(o.FS, o.Dir, ids))
	if o.Salts != nil {
		if err := o.Salts.Maintain(); err != nil {
			o.Log.Error("salts not maintained: new visitors cannot be told apart", "err", err)
		}
	}
	r.syncer = newSyncer(r)
	var wg sync.WaitGroup
	wg.Go(newWriter(r).run)
	wg.Go(r.syncer.run)
	go func() { wg.Wait(); close(r.done) }()
	return r, nil
}

// Boot returns the id of this run: the Boot of the positions it writes.
func (r *Recorder) Boot() string { return r.boot }

// Position returns the end of what was written: a reader that begins there sees the clicks
// from now on. It always is the end of a group.
func (r *Recorder) Position() Position {
	if p := r.written.Load(); p != nil {
		return *p
	}
	return Position{Boot: r.boot}
}

// Capture copies c into the buffer of a shard (any number; spread it by
// connection). It never waits for the disk. It returns false if the click was
// dropped, which is counted by reason. A click of unknown time gets the current.
//
// Hot path: 0 allocs/op, see TestCaptureAllocs.
func (r *Recorder) Capture(shard uint32, c *Click) bool {
	ok, wake := r.shards[shard&r.mask].put(c, nil)
	if wake || r.asleep.Load() {
		r.wakeWriter()
	}
	return ok
}

// CaptureSync is Capture for DurabilityBatch: it returns nil after the fsync
// of the click's group. It returns an error of code unavailable if the click
// was dropped and unknown_outcome if SyncWait or ctx ended first or the fsync
// failed; the click may still become durable. With DurabilityInterval it does
// not wait. The redirect is answered in every case.
func (r *Recorder) CaptureSync(ctx context.Context, shard uint32, c *Click) error {
	if r.o.Durability != DurabilityBatch {
		if !r.Capture(shard, c) {
			return terse.ErrUnavailable
		}
		return nil
	}
	var w *commit
	ok, wake := r.shards[shard&r.mask].put(c, &w)
	if wake || r.asleep.Load() {
		r.wakeWriter()
	}
	if !ok {
		return terse.ErrUnavailable
	}
	timer := time.NewTimer(r.o.SyncWait)
	defer timer.Stop()
	select {
	case <-w.done:
		if w.err != nil {
			return &terse.Error{Code: terse.CodeUnknownOutcome, Op: "sync click", Err: w.err}
		}
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	r.stats.syncTimeouts.Add(1)
	return terse.ErrUnknownOutcome
}

// put appends c. wake: the writer should run before its time. With w the
// caller is promised the fsync.
func (s *shard) put(c *Click, w **commit) (ok, wake bool) {
	need := slotSize(c)
	s.mu.Lock()
	s.captured++
	if s.closed {
		s.late++
		s.mu.Unlock()
		return false, false
	}
	n := len(s.buf)
	if need > cap(s.buf)-n {
		s.full++
		s.mu.Unlock()
		return false, true
	}
	s.buf = s.buf[:n+need]
	putSlot(s.buf[n:], c)
	if w != nil {
		if s.waiting == nil {
			s.waiting = &commit{done: make(chan struct{})}
		}
		*w = s.waiting
	}
	s.mu.Unlock()
	return true, n < s.half && n+need >= s.half
}

func (r *Recorder) wakeWriter() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Flush returns after everything captured before the call is written and
// synced. Returns an error of code unknown_outcome if the disk refused or ctx ended.
func (r *Recorder) Flush(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case r.flush <- answer:
	case <-r.done:
		return &terse.Error{Code: terse.CodeUnavailable, Op: "flush clicks", Message: "the recorder is closed"}
	case <-ctx.Done():
		return &terse.Error{Code: terse.CodeUnknownOutcome, Op: "flush clicks", Err: ctx.Err()}
	}
	select {
	case err := <-answer:
		if err != nil {
			return &terse.Error{Code: terse.CodeUnknownOutcome, Op: "flush clicks", Err: err}
		}
		return nil
	case <-ctx.Done():
		return &terse.Error{Code: terse.CodeUnknownOutcome, Op: "flush clicks", Err: ctx.Err()}
	}
}

// Close refuses further captures (reason "closed"), writes and syncs what is in
// memory and stops. If the disk still refuses after a few attempts, the rest is
// dropped (reason "disk") and the error returned. Closing twice is allowed.
func (r *Recorder) Close() error {
	r.once.Do(func() {
		for i := range r.shards {
			s := &r.shards[i]
			s.mu.Lock()
			s.closed = true
			s.mu.Unlock()
		}
		close(r.stop)
		<-r.done
		r.closeErr = errors.Join(r.closeErr, r.lock.Close())
	})
	<-r.done
	return r.closeErr
}
