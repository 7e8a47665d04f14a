package pebblestore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/terselink/terse"
)

// formatVersion is the version of the keys and values. Open refuses a newer one.
//
// 1: the first. 2: links may be blocked and have LinkWeb, which a binary of format 1 would not carry out.
const formatVersion = 2

var formatKey = []byte{famMeta, 'f', 'o', 'r', 'm', 'a', 't'}

// Store is a terse.Store in one directory. Make one with Open.
type Store struct {
	opts Options
	db   *pebble.DB
	lock *pebble.Lock

	ops     chan *op      // to the committer
	applied chan *op      // committer to syncer, in commit order
	stop    chan struct{} // closed by Close: no more operations
	workers sync.WaitGroup

	seq     uint64        // last given; the committer's own
	fresh   fresh         // the committer's own
	durable atomic.Uint64 // last synced
	lists   atomic.Uint64 // last seq that put an entry in the index queue
	queued  atomic.Int64  // entries of the index queue

	indexing chan struct{} // holds one token: who takes it indexes
	opPool   sync.Pool     // *op
	chunkOps chan *op      // ops of chunks, for the next ones
	readers  sync.Pool     // *reader

	purges atomic.Uint64 // calls of PurgeLinks that have returned
	holes  holes

	failOnce sync.Once
	failErr  error // set before failed is closed
	failed   chan struct{}

	closeOnce sync.Once
	closeErr  error
	closed    atomic.Bool
	calls     sync.RWMutex // held for reading by every call, for writing by Close

	counters counters
}

var _ terse.Portable = (*Store)(nil)

// Open opens the store in dir, which is made with mode 0700 if it does not exist.
// It recovers what was acknowledged before a crash.
//
// Returns an error of code unavailable if another process holds the directory or the
// disk fails, and of code internal if the data is damaged or written by a newer
// version of Terse. After an error of the disk the directory may stay locked
// until the process ends.
func Open(dir string, o Options) (*Store, error) {
	o.setDefaults()
	s := &Store{
		opts:     o,
		ops:      make(chan *op),
		applied:  make(chan *op, 1024),
		stop:     make(chan struct{}),
		indexing: make(chan struct{}, 1),
		chunkOps: make(chan *op, keptChunks),
		failed:   make(chan struct{}),
	}
	s.indexing <- struct{}{}
	s.opPool.New = func() any { return &op{done: make(chan error, 1)} }
	s.readers.New = func() any { return new(reader) }

	// Pebble parks a goroutine that meets a disk it cannot work with, so Open waits beside it.
	opened := make(chan error, 1)
	go func() { opened <- s.open(dir) }()
	select {
	case err := <-opened:
		if err != nil {
			return nil, fmt.Errorf("open store %s: %w", dir, err)
		}
	case <-s.failed:
		return nil, fmt.Errorf("open store %s: %w", dir, s.unavailable())
	}
	s.workers.Go(s.commitLoop)
	s.workers.Go(s.syncLoop)
	if o.MaintainEvery > 0 {
		s.workers.Go(func() {
			tick := time.NewTicker(o.MaintainEvery)
			defer tick.Stop()
			s.maintainLoop(tick.C)
		})
	}
	return s, nil
}

func (s *Store) open(dir string) (err error) {
	fsys := s.opts.FS
	if s.opts.ReadOnly {
		if _, err := fsys.Stat(dir); err != nil {
			return unavailable("find directory", err)
		}
	} else if err := makeDir(fsys, dir); err != nil {
		return unavailable("make directory", err)
	}
	if s.lock, err = pebble.LockDirectory(dir, fsys); err != nil {
		return &terse.Error{
			Code: terse.CodeUnavailable, Err: err,
			Message: "the data directory is in use by another process: stop it, or choose another directory",
		}
	}
	po := s.pebbleOptions()
	po.Lock = s.lock
	if s.db, err = pebble.Open(dir, po); err != nil {
		return errors.Join(openError(err), s.lock.Close())
	}
	if err := s.start(); err != nil {
		return errors.Join(err, s.db.Close(), s.lock.Close())
	}
	return nil
}

func openError(err error) error {
	if pebble.IsCorruptionError(err) {
		return &terse.Error{Code: terse.CodeInternal, Message: "the store's files are damaged", Err: err}
	}
	return unavailable("open database", err)
}

// start reads what the store keeps in memory.
func (s *Store) start() error {
	version, closer, err := s.db.Get(formatKey)
	switch {
	case errors.Is(err, pebble.ErrNotFound) && s.opts.ReadOnly:
		return &terse.Error{Code: terse.CodeInvalid, Message: "the directory holds no store of Terse"}
	case errors.Is(err, pebble.ErrNotFound):
		var v [4]byte
		binary.BigEndian.PutUint32(v[:], formatVersion)
		if err := s.db.Set(formatKey, v[:], pebble.Sync); err != nil {
			return unavailable("write format version", err)
		}
		// Pebble makes the first log before it raises the format, so that log could not tell damage from
		// a torn end. A flush makes the second.
		if err := s.db.Flush(); err != nil {
			return unavailable("write format version", err)
		}
	case err != nil:
		return errRead("format version", err)
	default:
		v := uint32(0)
		if len(version) == 4 {
			v = binary.BigEndian.Uint32(version)
		}
		if err := closer.Close(); err != nil {
			return errRead("format version", err)
		}
		if v == 0 || v > formatVersion {
			return &terse.Error{Code: terse.CodeInternal, Message: fmt.Sprintf(
				"the data directory has format %d, this version of Terse reads up to %d: use a newer one", v, formatVersion)}
		}
		if v < formatVersion && !s.opts.ReadOnly {
			// Every older format is a part of this one. The mark comes first, so that no older binary
			// ever meets what it does not know.
			var now [4]byte
			binary.BigEndian.PutUint32(now[:], formatVersion)
			if err := s.db.Set(formatKey, now[:], pebble.Sync); err != nil {
				return unavailable("write format version", err)
			}
			s.opts.Log.Info("the store has a new format: older versions of Terse no longer open it", "from", v, "to", formatVersion)
		}
	}

	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{famChange}, UpperBound: []byte{famChange + 1}})
	if err != nil {
		return errRead("last change", err)
	}
	if it.Last() {
		s.seq = binary.BigEndian.Uint64(it.Key()[1:])
	}
	if err := it.Close(); err != nil {
		return errRead("last change", err)
	}
	// Pebble has flushed what it replayed from the WAL.
	s.durable.Store(s.seq)

	it, err = s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{famQueue}, UpperBound: []byte{famQueue + 1}})
	if err != nil {
		return errRead("index queue", err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		s.queued.Add(1)
	}
	if err := it.Close(); err != nil {
		return errRead("index queue", err)
	}
	return nil
}

// Failed returns a channel that is closed when the disk has failed in a way that only
// a new start can mend, such as a failed sync (which must never be repeated).
// From then on every call but GetLinks and GetAlias returns ErrUnavailable, so
// redirects can go on from what is readable while the process drains and exits.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Err returns why the store has failed, nil while it has not.
func (s *Store) Err() error {
	select {
	case <-s.failed:
		return s.failErr
	default:
		return nil
	}
}

func (s *Store) fail(err error) {
	s.failOnce.Do(func() {
		s.failErr = err
		s.opts.Log.Error("store: the disk failed, no more writes", "err", err)
		close(s.failed)
	})
}

// failAndPark never returns. What it leaves behind, locked and half done, goes with the process.
func (s *Store) failAndPark(err error) {
	s.fail(err)
	select {}
}

// Ping implements terse.Store.
func (s *Store) Ping(ctx context.Context) (err error) {
	if err := s.enter(ctx); err != nil {
		return err
	}
	s.leave(&err)
	return nil
}

// Close ends the store. A store that has failed keeps its directory locked until the process
// ends, because Pebble may still be at work on it.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.closed.Store(true)
		close(s.stop)
		closed := make(chan error, 1)
		go func() {
			s.workers.Wait()
			s.calls.Lock() // calls under way have finished; those that come now see closed
			defer s.calls.Unlock()
			if s.Err() == nil {
				closed <- errors.Join(s.db.Close(), s.lock.Close())
			}
		}()
		select {
		case err := <-closed:
			if err != nil {
				s.closeErr = unavailable("close store", err)
			}
		case <-s.failed:
			s.closeErr = s.unavailable()
		}
	})
	return s.closeErr
}

// Checkpoint makes a copy of the store, of this moment and consistent, in dir, which must not
// exist and is best on the same disk: files are linked where possible. The copy is
// itself a store.
func (s *Store) Checkpoint(dir string) (err error) {
	if err := s.enter(context.Background()); err != nil {
		return err
	}
	defer s.leave(&err)
	if err := s.db.Checkpoint(dir, pebble.WithFlushedWAL()); err != nil {
		return unavailable("checkpoint", err)
	}
	return nil
}

// enter begins a call that needs a store in order.
func (s *Store) enter(ctx context.Context) error {
	if err := s.enterRead(ctx); err != nil {
		return err
	}
	select {
	case <-s.failed:
		s.calls.RUnlock()
		return s.unavailable()
	default:
		return nil
	}
}

// enterRead begins a call that is worth a try on a failed store.
func (s *Store) enterRead(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return errContext(err)
	}
	if !s.closed.Load() && s.calls.TryRLock() {
		if !s.closed.Load() {
			return nil
		}
		s.calls.RUnlock()
	}
	return &terse.Error{Code: terse.CodeUnavailable, Message: "the store is closed"}
}

// leave ends a call. It is deferred, so that a panic does not keep Close waiting.
func (s *Store) leave(*error) { s.calls.RUnlock() }

func (s *Store) unavailable() error {
	return &terse.Error{Code: terse.CodeUnavailable, Message: "the store has failed and must be started again", Err: s.failErr}
}

// unavailable says that the disk did not do op and nothing was applied.
func unavailable(op string, err error) error {
	return &terse.Error{Code: terse.CodeUnavailable, Message: "the store cannot be reached", Op: op, Err: err}
}

// errRead is the error of a read that Pebble did not finish.
func errRead(what string, err error) error {
	if pebble.IsCorruptionError(err) {
		return &terse.Error{Code: terse.CodeInternal, Message: "the store holds damaged data", Op: "read " + what, Err: err}
	}
	return unavailable("read "+what, err)
}

// errBatch is the error of a batch that does not take an entry.
func errBatch(err error) error {
	return &terse.Error{Code: terse.CodeInternal, Message: "the write cannot be encoded", Err: err}
}

func errContext(err error) error {
	return &terse.Error{Code: terse.CodeUnavailable, Message: "the call was ended early", Err: err}
}

// closeIter closes an iterator and reports what stopped it early.
func closeIter(it io.Closer, err *error) {
	if cerr := it.Close(); cerr != nil && *err == nil {
		*err = errRead("range", cerr)
	}
}
