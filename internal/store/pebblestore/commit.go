package pebblestore

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/terselink/terse"
)

// op is one write on its way through the committer and the syncer. Everything
// that they read belongs to the op, because the caller may leave early.
type op struct {
	batch *pebble.Batch
	// check runs on the committer: it reads what the write depends on and may
	// add to the batch. An error means that nothing is applied.
	check func(*Store, *op) error
	// noSync is for what can be made again: it has no log entries and nobody waits for its sync.
	noSync bool
	done   chan error

	logs   []logEntry
	logBuf []byte
	seq    uint64 // of the last log entry

	insert insertState
	chunk  bool // goes back to chunkOps, not to opPool
}

const (
	// keptChunks is how many ops of chunks wait for the next ones: about as many as are under way at once.
	keptChunks = 8
	// maxKeptBatch is the most room that the batch of such an op keeps.
	maxKeptBatch = 4 << 20
)

// logEntry is a key and value whose key ends with a sequence number that is not
// known yet: logBuf[key:value] and logBuf[value:end].
type logEntry struct{ key, value, end int }

func (s *Store) newOp() *op {
	o := s.opPool.Get().(*op)
	o.batch = s.db.NewBatch()
	o.begin()
	return o
}

// newChunkOp returns an op for a chunk of many links. It has room of its own: in one pool with small writes,
// of which there may be hundreds at once, every op and every batch would in time grow to the size of a chunk.
func (s *Store) newChunkOp() *op {
	var o *op
	select {
	case o = <-s.chunkOps:
	default:
		o = &op{done: make(chan error, 1), chunk: true, batch: s.db.NewBatch(pebble.WithMaxRetainedSizeBytes(maxKeptBatch))}
	}
	o.begin()
	return o
}

// begin forgets the write before.
func (o *op) begin() {
	o.check, o.noSync, o.seq = nil, false, 0
	o.logs, o.logBuf = o.logs[:0], o.logBuf[:0]
	o.insert.reset()
}

// free gives the op back. Only for an op that no worker holds.
func (s *Store) free(o *op) {
	if o.chunk {
		o.batch.Reset()
		o.insert.reset()
		select {
		case s.chunkOps <- o:
			return
		default:
		}
	}
	// An error here would mean that the batch is still in use, and it is not.
	_ = o.batch.Close()
	o.batch = nil
	if !o.chunk {
		s.opPool.Put(o)
	}
}

// beginLog starts a log entry with a key, to which the seq will be added; the caller then
// appends the value to logBuf and calls endLog.
func (o *op) beginLog(key ...byte) {
	at := len(o.logBuf)
	o.logBuf = append(o.logBuf, key...)
	o.logs = append(o.logs, logEntry{key: at, value: len(o.logBuf)})
}

func (o *op) endLog() { o.logs[len(o.logs)-1].end = len(o.logBuf) }

// logChange adds a change, which takes the next sequence number. List entries that are
// logged after it share that number.
func (o *op) logChange(c *terse.Change) {
	o.beginLog(famChange)
	o.logBuf = appendChange(o.logBuf, c)
	o.endLog()
}

// submit commits the op and waits until it is synced, then frees it. The error says
// whether it was applied, as terse.Store asks.
func (s *Store) submit(ctx context.Context, o *op) error {
	select {
	case s.ops <- o:
	case <-ctx.Done():
		s.free(o)
		return errContext(ctx.Err())
	case <-s.failed:
		return s.unavailable()
	case <-s.stop:
		s.free(o)
		return &terse.Error{Code: terse.CodeUnavailable, Message: "the store is closed"}
	}
	select {
	case err := <-o.done:
		if err != nil && o.chunk {
			return err // Pebble may still hold a batch that failed: the garbage collector frees it
		}
		s.free(o)
		return err
	case <-ctx.Done():
		// The workers finish it; nobody frees it but the garbage collector.
		return errUnknown(ctx.Err())
	case <-s.failed:
		select {
		case err := <-o.done:
			return err
		default:
			return errUnknown(s.failErr)
		}
	}
}

func errUnknown(err error) error {
	return &terse.Error{Code: terse.CodeUnknownOutcome, Message: terse.ErrUnknownOutcome.Message, Err: err}
}

// commitLoop is the committer. It ends with Close, or when the store fails.
func (s *Store) commitLoop() {
	defer close(s.applied)
	for {
		select {
		case o := <-s.ops:
			if !s.commit(o) {
				return
			}
		case <-s.failed:
			return
		case <-s.stop:
			// Calls that had entered before Close may still be handing over.
			for {
				select {
				case o := <-s.ops:
					if !s.commit(o) {
						return
					}
				default:
					return
				}
			}
		}
	}
}

// commit checks and applies one op. It returns false if Pebble panicked: what it then
// holds in memory is not to be trusted with another write. Errors of the disk do not
// come this way, see storeFS.
func (s *Store) commit(o *op) (ok bool) {
	defer func() {
		if r := recover(); r != nil {
			err := fmt.Errorf("commit: %v", r)
			s.fail(err)
			o.done <- errUnknown(err)
		}
	}()
	if err := s.apply(o); err != nil {
		o.done <- err
		return true
	}
	if o.noSync {
		o.done <- nil
		return true
	}
	s.applied <- o
	return true
}

func (s *Store) apply(o *op) error {
	if o.check != nil {
		if err := o.check(s, o); err != nil {
			return err
		}
	}
	seq := s.seq
	var key [32]byte
	for _, e := range o.logs {
		if o.logBuf[e.key] == famChange {
			seq++
		}
		k := binary.BigEndian.AppendUint64(append(key[:0], o.logBuf[e.key:e.value]...), seq)
		if err := o.batch.Set(k, o.logBuf[e.value:e.end], nil); err != nil {
			return errBatch(err)
		}
	}
	if o.batch.Empty() {
		o.noSync = true
		return nil
	}
	if o.noSync {
		if err := s.db.Apply(o.batch, pebble.NoSync); err != nil {
			return unavailable("apply", err)
		}
		return nil
	}
	if err := s.db.ApplyNoSyncWait(o.batch, pebble.Sync); err != nil {
		return unavailable("apply", err)
	}
	s.seq, o.seq = seq, seq
	if n := o.insert.queued; n > 0 {
		s.queued.Add(n)
		s.lists.Store(seq)
	}
	return nil
}

// syncLoop is the syncer. Syncs end in the order of commits, so one goroutine can wait for all.
func (s *Store) syncLoop() {
	for o := range s.applied {
		if err := o.batch.SyncWait(); err != nil {
			err = fmt.Errorf("sync the write-ahead log: %w", err)
			s.fail(err)
			o.done <- errUnknown(err)
			continue
		}
		s.durable.Store(max(s.durable.Load(), o.seq))
		s.counters.commits.Add(1)
		o.done <- nil
	}
}
