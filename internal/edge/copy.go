package edge

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/linkjson"
)

// Keys of the copy.
const (
	keyState    = 's'
	keyLink     = 'l' // number
	keyName     = 'n' // domain, code -> number
	keyDocument = 'd' // workspace, kind, 0, id
)

// state is what the copy says of itself. It changes in one batch with what it is about.
type state struct {
	Format     int          `json:"format"`
	Epoch      string       `json:"epoch"`      // of the feed
	Position   uint64       `json:"position"`   // in the feed: changes before it are in the copy
	Mark       string       `json:"mark"`       // of the change at the position; "": not known
	Generation uint64       `json:"generation"` // what has an older one is in doubt
	FollowedAt terse.Millis `json:"followed_at"`
}

const copyFormat = 1

// queue is how many writes may wait. Those that only keep an answer are left out when it is full.
const queue = 4096

// stampUnit is how exactly the last use of an entry is known.
const stampUnit = terse.Millis(10 * time.Minute / time.Millisecond)

// diskCopy is what an edge keeps on disk. One goroutine writes, so a disk that hangs or fails holds up nobody who
// reads. The copy is then not written until the next start, and its position stays: what it has is in doubt. A disk
// that hangs is not read either.
type diskCopy struct {
	db    *pebble.DB
	log   *slog.Logger
	clock func() terse.Millis
	limit int64

	within  time.Duration // writeWithin
	work    chan job
	stop    chan struct{}
	done    chan struct{}
	failed  chan struct{} // closed when the copy cannot be written
	failure sync.Once
	hangs   atomic.Bool // the disk does not answer
	state   atomic.Pointer[state]
	bytes   atomic.Int64  // of links and names, about
	recent  recent        // the writer's
	docs    atomic.Uint64 // grows with every change of documents
	dirty   atomic.Bool   // something was written and not synced
	evicted atomic.Uint64
}

// job is a write. It fills the batch, which is then committed.
type job struct {
	fill func(*pebble.Batch) error
	done chan error // nil: nobody waits
}

// pebbleLog makes a failure of the disk the end of the copy, not of the process.
type pebbleLog struct{ c *diskCopy }

// Infof implements pebble.Logger.
func (pebbleLog) Infof(string, ...any) {}

// Errorf implements pebble.Logger.
func (l pebbleLog) Errorf(format string, args ...any) {
	l.c.log.Debug("copy of the edge", "message", fmt.Sprintf(format, args...))
}

// Fatalf implements pebble.Logger. It must not return, and nobody waits for the goroutine that called it.
func (l pebbleLog) Fatalf(format string, args ...any) {
	l.c.fail(fmt.Errorf(format, args...))
	select {}
}

// openCopy opens the copy in a folder, or makes it. A copy that cannot be read is set aside: it is made again from upstream.
func openCopy(dir string, limit int64, clock func() terse.Millis, log *slog.Logger) (*diskCopy, error) {
	c, err := openCopyOnce(dir, limit, clock, log)
	if err == nil || errors.Is(err, errInUse) {
		return c, err
	}
	bad := dir + ".bad"
	log.Error("the copy of this edge node cannot be read, and is set aside", "error", err, "to", bad)
	if err := errors.Join(os.RemoveAll(bad), os.Rename(dir, bad)); err != nil {
		return nil, fmt.Errorf("set copy aside: %w", err)
	}
	return openCopyOnce(dir, limit, clock, log)
}

var errInUse = &terse.Error{Code: terse.CodeConflict, Op: "open copy", Message: "another process uses this data folder"}

func openCopyOnce(dir string, limit int64, clock func() terse.Millis, log *slog.Logger) (*diskCopy, error) {
	c := &diskCopy{
		log: log, clock: clock, limit: limit, within: writeWithin,
		work: make(chan job, queue), stop: make(chan struct{}), done: make(chan struct{}), failed: make(chan struct{}),
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := pebble.LockDirectory(dir, vfs.Default)
	if err != nil {
		return nil, errors.Join(errInUse, err)
	}
	o := &pebble.Options{
		Logger: pebbleLog{c}, FormatMajorVersion: pebble.FormatTableFormatV6, CacheSize: 32 << 20, MemTableSize: 8 << 20, MaxOpenFiles: 500, Lock: lock,
		EventListener: &pebble.EventListener{BackgroundError: c.fail},
	}
	if c.db, err = pebble.Open(dir, o); err != nil {
		return nil, errors.Join(fmt.Errorf("open copy: %w", err), lock.Close())
	}
	st := state{Format: copyFormat}
	b, err := c.get([]byte{keyState})
	if err == nil && b != nil {
		if err = json.Unmarshal(b, &st); err == nil && st.Format != copyFormat {
			err = fmt.Errorf("its format is %d, this version of Terse reads %d", st.Format, copyFormat)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read copy: %w", err), c.db.Close(), lock.Close())
	}
	c.state.Store(&st)
	go func() {
		defer close(c.done)
		ctx, cancel := context.WithCancel(context.Background())
		var syncing sync.WaitGroup
		syncing.Go(func() { c.syncAll(ctx) })
		c.write()
		cancel()
		syncing.Wait()
		if err := errors.Join(c.db.Close(), lock.Close()); err != nil {
			c.log.Error("the copy of this edge node was not closed in order", "error", err)
		}
	}()
	return c, nil
}

// fail ends the writing of the copy.
func (c *diskCopy) fail(err error) {
	c.failure.Do(func() {
		close(c.failed)
		c.log.Error("the copy of this edge node cannot be written: until the next start links are asked of the upstream control plane, and what the copy has is served only while nobody answers", "error", err)
	})
}

func (c *diskCopy) broken() bool {
	select {
	case <-c.failed:
		return true
	default:
		return false
	}
}

// close writes what waits. A disk that has failed is left alone.
func (c *diskCopy) close() {
	close(c.stop)
	select {
	case <-c.done:
	case <-c.failed:
	}
}

// write is the goroutine that writes.
func (c *diskCopy) write() {
	for {
		select {
		case j := <-c.work:
			c.run(j)
		case <-c.stop:
			for {
				select {
				case j := <-c.work:
					c.run(j)
				default:
					return
				}
			}
		}
	}
}

// syncEvery is how long what was written may be in memory: Pebble keeps it there until somebody asks for more.
const syncEvery = 200 * time.Millisecond

// syncAll makes what was written durable, beside the writer, until ctx ends.
func (c *diskCopy) syncAll(ctx context.Context) {
	t := time.NewTicker(syncEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if c.dirty.Swap(false) {
			if err := c.db.LogData(nil, pebble.Sync); err != nil {
				c.fail(err)
				return
			}
		}
	}
}

func (c *diskCopy) run(j job) {
	if c.broken() { // what comes after a write that failed must not be there without it
		if j.done != nil {
			j.done <- errCopy
		}
		return
	}
	b := c.db.NewBatch()
	err := j.fill(b)
	if err == nil && !b.Empty() {
		err = b.Commit(pebble.NoSync)
		c.dirty.Store(true)
	}
	if cerr := b.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		c.fail(err)
	}
	if j.done != nil {
		j.done <- err
	}
}

// later has something written that may as well be left out.
func (c *diskCopy) later(fill func(*pebble.Batch) error) {
	if c.broken() {
		return
	}
	select {
	case c.work <- job{fill: fill}:
	default:
	}
}

// errCopy is what a write returns that the disk did not take.
var errCopy = &terse.Error{Code: terse.CodeInternal, Message: "the copy of this edge node cannot be written"}

// writeWithin is how long a write may take, with all that wait before it, until the disk counts as one that hangs.
const writeWithin = 30 * time.Second

// now has something written, and waits until a reader sees it. Returns errCopy if the disk does not take it.
func (c *diskCopy) now(ctx context.Context, fill func(*pebble.Batch) error) error {
	if c.broken() {
		return errCopy
	}
	hangs := time.NewTimer(c.within)
	defer hangs.Stop()
	done := make(chan error, 1)
	work := c.work
	for {
		select {
		case work <- job{fill, done}:
			work = nil
		case err := <-done:
			if err != nil {
				return errCopy // and fail has said why
			}
			return nil
		case <-c.failed:
			return errCopy
		case <-hangs.C:
			c.hangs.Store(true)
			c.fail(errHangs)
			return errCopy
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

var errHangs = errors.New("the disk does not answer")

// get returns a copy of a value; nil if there is none.
func (c *diskCopy) get(key []byte) ([]byte, error) {
	v, closer, err := c.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b := bytes.Clone(v)
	return b, closer.Close()
}

// entry is the value of a link or a document.
type entry struct {
	generation uint64
	stamp      uint64 // when it was used last, in stampUnit
	version    uint64
	payload    []byte
}

func (e *entry) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, e.generation)
	dst = binary.AppendUvarint(dst, e.stamp)
	dst = binary.AppendUvarint(dst, e.version)
	return append(dst, e.payload...)
}

var errEntry = errors.New("an entry of the copy is damaged")

func parseEntry(b []byte) (e entry, err error) {
	for _, p := range []*uint64{&e.generation, &e.stamp, &e.version} {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return e, errEntry
		}
		*p, b = v, b[n:]
	}
	e.payload = b
	return e, nil
}

func linkKey(n terse.LinkNumber) []byte {
	return binary.BigEndian.AppendUint64([]byte{keyLink}, uint64(n))
}

func nameKey(d terse.DomainID, code string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{keyName}, uint32(d)), code...)
}

func documentKey(w terse.WorkspaceID, kind terse.Kind, id string) []byte {
	k := append(binary.BigEndian.AppendUint32([]byte{keyDocument}, uint32(w)), kind...)
	return append(append(k, 0), id...)
}

// read returns a value; nil if there is none, or it cannot be read.
func (c *diskCopy) read(key []byte) []byte {
	if c.hangs.Load() {
		return nil
	}
	b, err := c.get(key)
	if err != nil {
		c.fail(err)
		return nil
	}
	return b
}

// entry returns an entry; found says that there is one. One that is damaged is missing: it is asked for and written again.
func (c *diskCopy) entry(key []byte) (e entry, found bool) {
	b := c.read(key)
	if b == nil {
		return e, false
	}
	e, err := parseEntry(b)
	return e, err == nil
}

// sure reports whether no change of an entry can have been missed.
func (c *diskCopy) sure(e *entry) bool {
	return !c.broken() && e.generation == c.state.Load().Generation
}

func (c *diskCopy) stamp() uint64 { return uint64(c.clock() / stampUnit) }

// link returns a link and whether it is there; sure says that no change can have been missed. Its use is noted.
func (c *diskCopy) link(n terse.LinkNumber) (l terse.Link, found, sure bool) {
	key := linkKey(n)
	e, found := c.entry(key)
	if !found {
		return l, false, false
	}
	l, err := linkjson.Unmarshal(e.payload)
	if err != nil {
		return terse.Link{}, false, false
	}
	if e.stamp != c.stamp() {
		c.later(func(b *pebble.Batch) error {
			cur, found := c.entry(key)
			if !found {
				return nil
			}
			cur.stamp = c.stamp()
			return b.Set(key, cur.append(nil), nil)
		})
	}
	return l, true, c.sure(&e)
}

// named returns the number of the link of a name; 0 if it is not known.
func (c *diskCopy) named(d terse.DomainID, code string) terse.LinkNumber {
	b := c.read(nameKey(d, code))
	if len(b) != 8 {
		return 0
	}
	return terse.LinkNumber(binary.BigEndian.Uint64(b))
}

// keep has a link kept that was asked for in a generation, unless a change has overtaken it.
func (c *diskCopy) keep(l terse.Link, generation uint64) {
	c.later(func(b *pebble.Batch) error {
		if c.recent.version(l.Number) > l.Version {
			return nil
		}
		return c.putLink(b, &l, generation, true)
	})
}

// putLink is for the writer. A link that was visited is used now. Any other is written only where it is already, and as
// old as it was: whoever changes many links that nobody visits here must not displace those that are visited.
func (c *diskCopy) putLink(b *pebble.Batch, l *terse.Link, generation uint64, visited bool) error {
	key := linkKey(l.Number)
	old, found := c.entry(key)
	stamp := c.stamp()
	if !visited {
		if !found {
			return nil
		}
		stamp = old.stamp
	}
	// Versions say what is newer within a generation alone: a store that was restored may count some again.
	if found && (old.generation > generation || old.generation == generation && old.version > l.Version) {
		return nil
	}
	payload, err := linkjson.Marshal(l)
	if err != nil {
		return err
	}
	v := (&entry{generation, stamp, l.Version, payload}).append(nil)
	if found {
		c.bytes.Add(-int64(len(old.payload)))
	} else {
		c.bytes.Add(int64(len(key) + entryHead))
	}
	c.bytes.Add(int64(len(payload)))
	if l.Named() {
		if err := b.Set(nameKey(l.Number.Domain(), l.Code), binary.BigEndian.AppendUint64(nil, uint64(l.Number)), nil); err != nil {
			return err
		}
	}
	return b.Set(key, v, nil)
}

// entryHead is about what an entry takes beside its key and its payload.
const entryHead = 8

// dropLink is for the writer.
func (c *diskCopy) dropLink(b *pebble.Batch, n terse.LinkNumber) error {
	key := linkKey(n)
	old, found := c.entry(key)
	if !found {
		return nil
	}
	c.bytes.Add(-int64(len(key) + entryHead + len(old.payload)))
	if l, err := linkjson.Unmarshal(old.payload); err == nil && l.Named() && c.named(n.Domain(), l.Code) == n {
		if err := b.Delete(nameKey(n.Domain(), l.Code), nil); err != nil {
			return err
		}
	}
	return b.Delete(key, nil)
}

// document returns a document; sure as for link.
func (c *diskCopy) document(w terse.WorkspaceID, kind terse.Kind, id string) (doc terse.Document, found, sure bool) {
	b := c.read(documentKey(w, kind, id))
	if b == nil {
		return doc, false, false
	}
	e, err := parseEntry(b)
	if err != nil { // the copy no longer has all there are
		c.fail(err)
		return doc, false, false
	}
	return terse.Document{Workspace: w, Kind: kind, ID: id, Version: e.version, Data: e.payload}, true, c.sure(&e)
}

// putDocument is for the writer.
func (c *diskCopy) putDocument(b *pebble.Batch, d *terse.Document, generation uint64) error {
	return b.Set(documentKey(d.Workspace, d.Kind, d.ID), (&entry{generation: generation, version: d.Version, payload: d.Data}).append(nil), nil)
}

// documents returns at most limit documents of a kind without a workspace, those after an id.
func (c *diskCopy) documents(kind terse.Kind, after string, limit int) (list []terse.Document, err error) {
	if c.hangs.Load() {
		return nil, errCopy
	}
	prefix := documentKey(0, kind, "")
	from := append(documentKey(0, kind, after), 0)
	if after == "" {
		from = prefix
	}
	it, err := c.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: append(bytes.Clone(prefix), 0xff)})
	if err != nil {
		return nil, err
	}
	for ok := it.First(); ok && len(list) < limit; ok = it.Next() {
		e, err := parseEntry(bytes.Clone(it.Value()))
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		list = append(list, terse.Document{Kind: kind, ID: string(it.Key()[len(prefix):]), Version: e.version, Data: e.payload})
	}
	return list, it.Close()
}

// setState is for the writer. The new state is in force for readers when setState's batch is: the caller says when.
func setState(b *pebble.Batch, st *state) error {
	v, err := json.Marshal(st)
	if err != nil {
		return err
	}
	return b.Set([]byte{keyState}, v, nil)
}
