package pebblestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"unsafe"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"

	"github.com/terselink/terse"
)

// Kinds of hints: the second byte of their keys.
const (
	hintPlain      = 1 // workspace, domain, hash of the destination, number
	hintExternalID = 2 // workspace, hash, created, number
	hintTag        = 3 // workspace, hash, created, number
)

// hashBytes is how much of a hash is stored. 40 bits make one needless read in a
// thousand look-ups at a billion links, and save three bytes a hint.
const hashBytes = 5

// hints is what the index knows of one link. It borrows the link's tags.
type hints struct {
	number     terse.LinkNumber
	workspace  terse.WorkspaceID
	created    terse.Millis
	plain      bool
	dest       uint64 // hash
	hasExtID   bool
	externalID uint64 // hash
	tags       []string
}

func linkHints(l *terse.Link) hints {
	h := hints{number: l.Number, workspace: l.Workspace, created: l.CreatedAt, plain: l.Plain()}
	if h.plain {
		h.dest = xxhash.Sum64String(l.Destination)
	}
	if l.ExternalID != "" {
		h.hasExtID, h.externalID = true, xxhash.Sum64String(l.ExternalID)
	}
	if l.Settings != nil {
		h.tags = l.Settings.Tags
	}
	return h
}

// borrow returns b as a string without a copy. The string lives only as long as b is not changed.
func borrow(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func rowHints(r *row) (hints, error) {
	l := terse.Link{
		Number: r.number, Workspace: r.workspace, Campaign: r.campaign, CreatedAt: r.created, ExpiresAt: r.expires,
		Destination: borrow(r.destination), ExternalID: borrow(r.externalID),
		Status: r.status, DefaultExpiry: r.defaultExpiry, RedirectStatus: r.redirect,
	}
	if r.settings != nil {
		var err error
		if l.Settings, err = decodeSettings(r.number, r.settings); err != nil {
			return hints{}, err
		}
	}
	return linkHints(&l), nil
}

func appendHash(dst []byte, hash uint64) []byte {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], hash)
	return append(dst, b[:hashBytes]...)
}

func appendPlainPrefix(dst []byte, w terse.WorkspaceID, d terse.DomainID, hash uint64) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, famHint, hintPlain), uint32(w))
	dst = binary.BigEndian.AppendUint32(dst, uint32(d))
	return appendHash(dst, hash)
}

// appendHintPrefix is for external ids and tags.
func appendHintPrefix(dst []byte, kind byte, w terse.WorkspaceID, hash uint64) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, famHint, kind), uint32(w))
	return appendHash(dst, hash)
}

// each calls f with the key of every hint. The key is valid during the call.
func (h *hints) each(f func(key []byte) error) error {
	var buf [40]byte
	number := func(key []byte) []byte { return binary.BigEndian.AppendUint64(key, uint64(h.number)) }
	// The sign bit is turned so that byte order is the order of time.
	created := func(key []byte) []byte { return binary.BigEndian.AppendUint64(key, uint64(h.created)^1<<63) }
	if h.plain {
		if err := f(number(appendPlainPrefix(buf[:0], h.workspace, h.number.Domain(), h.dest))); err != nil {
			return err
		}
	}
	if h.hasExtID {
		if err := f(number(created(appendHintPrefix(buf[:0], hintExternalID, h.workspace, h.externalID)))); err != nil {
			return err
		}
	}
	for _, tag := range h.tags {
		if err := f(number(created(appendHintPrefix(buf[:0], hintTag, h.workspace, xxhash.Sum64String(tag))))); err != nil {
			return err
		}
	}
	return nil
}

func setHints(b *pebble.Batch, h hints) error {
	return h.each(func(key []byte) error {
		if err := b.Set(key, nil, nil); err != nil {
			return errBatch(err)
		}
		return nil
	})
}

// replaceHints writes the hints of a link's new state and removes those of the old that no longer hold.
func replaceHints(b *pebble.Batch, old, now hints) error {
	var keys [][]byte
	if err := now.each(func(key []byte) error {
		keys = append(keys, slices.Clone(key))
		return nil
	}); err != nil {
		return err
	}
	if err := old.each(func(key []byte) error {
		if slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) }) {
			return nil
		}
		if err := b.Delete(key, nil); err != nil {
			return errBatch(err)
		}
		return nil
	}); err != nil {
		return err
	}
	return setHints(b, now)
}

// catchUp indexes what bulk inserts have queued, until every link whose insert returned before
// the call is indexed. One call works, the others wait for it. Progress is kept entry by
// entry, so a call that ctx ends has not worked in vain.
func (s *Store) catchUp(ctx context.Context) error {
	if s.queued.Load() == 0 {
		return nil
	}
	target := s.lists.Load()
	select {
	case <-s.indexing:
		defer func() { s.indexing <- struct{}{} }()
	case <-ctx.Done():
		return errContext(ctx.Err())
	case <-s.failed:
		return s.unavailable()
	}
	var entry queueEntry
	for {
		more, err := s.nextQueued(&entry)
		if err != nil || !more || (target != 0 && entry.seq > target) {
			return err
		}
		if err := s.index(ctx, &entry); err != nil {
			return err
		}
		s.queued.Add(-1)
		if err := ctx.Err(); err != nil {
			return errContext(err)
		}
	}
}

// queueEntry is one bulk insert that has no hints yet.
type queueEntry struct {
	seq  uint64
	key  []byte
	runs []terse.Run

	hints []sortedHint
	keys  []byte // of all hints
}

// sortedHint is a key in queueEntry.keys. Keys begin with a hash; sorting them makes the
// batch cheaper for the memtable, whose search then starts near the last place.
type sortedHint struct{ key, end int }

func (s *Store) nextQueued(e *queueEntry) (more bool, err error) {
	// The keys that were indexed before are gone; starting behind them skips their tombstones.
	it, err := s.db.NewIter(&pebble.IterOptions{
		LowerBound: appendSeqKey(nil, famQueue, e.seq),
		UpperBound: []byte{famQueue + 1},
	})
	if err != nil {
		return false, errRead("index queue", err)
	}
	defer closeIter(it, &err)
	if !it.First() {
		return false, nil
	}
	e.key = append(e.key[:0], it.Key()...)
	e.seq = binary.BigEndian.Uint64(e.key[1:])
	d := decoder{b: it.Value()}
	e.runs = d.runs(e.runs[:0])
	if d.bad || len(d.b) != 0 {
		return false, errDamaged("index queue", terse.LinkNumber(e.seq), "cut or too long")
	}
	return true, nil
}

// hintBatch keeps other writes from waiting for more than a millisecond or two.
const hintBatch = 1024

// index writes the hints of one queue entry and then removes it. Nothing is synced: the WAL keeps
// the order, so if a crash takes hints back, the entry is back, too.
func (s *Store) index(ctx context.Context, e *queueEntry) error {
	r := s.reader()
	defer s.readers.Put(r)
	e.hints, e.keys = e.hints[:0], e.keys[:0]
	err := r.scan(e.runs, func(row *row) error {
		h, err := rowHints(row)
		if err != nil {
			return err
		}
		return h.each(func(key []byte) error {
			e.hints = append(e.hints, sortedHint{len(e.keys), len(e.keys) + len(key)})
			e.keys = append(e.keys, key...)
			return nil
		})
	})
	if err != nil {
		return err
	}
	slices.SortFunc(e.hints, func(a, b sortedHint) int { return bytes.Compare(e.keys[a.key:a.end], e.keys[b.key:b.end]) })
	for hints := range slices.Chunk(e.hints, hintBatch) {
		o := s.newOp()
		o.noSync = true
		for _, h := range hints {
			if err := o.batch.Set(e.keys[h.key:h.end], nil, nil); err != nil {
				s.free(o)
				return errBatch(err)
			}
		}
		if err := s.submit(ctx, o); err != nil {
			return err
		}
	}
	o := s.newOp()
	o.noSync = true
	if err := o.batch.Delete(e.key, nil); err != nil {
		s.free(o)
		return errBatch(err)
	}
	return s.submit(ctx, o)
}

// FindPlain implements terse.Store.
func (s *Store) FindPlain(ctx context.Context, w terse.WorkspaceID, d terse.DomainID, destination string, at terse.Millis) (_ terse.Link, err error) {
	if err := s.enter(ctx); err != nil {
		return terse.Link{}, err
	}
	defer s.leave(&err)
	if err := s.catchUp(ctx); err != nil {
		return terse.Link{}, err
	}
	prefix := appendPlainPrefix(nil, w, d, xxhash.Sum64String(destination))
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upperBound(prefix)})
	if err != nil {
		return terse.Link{}, errRead("hints", err)
	}
	defer closeIter(it, &err)
	r := s.reader()
	defer s.readers.Put(r)
	// From the newest: with a default_ttl the oldest have ended first.
	for ok := it.Last(); ok; ok = it.Prev() {
		if err := ctx.Err(); err != nil {
			return terse.Link{}, errContext(err)
		}
		key := it.Key()
		var row row
		found, err := r.get(terse.LinkNumber(binary.BigEndian.Uint64(key[len(key)-8:])), &row)
		if err != nil {
			return terse.Link{}, err
		}
		if !found || row.workspace != w || string(row.destination) != destination || row.expires != 0 && at >= row.expires {
			continue
		}
		l, err := row.link("")
		if err != nil {
			return terse.Link{}, err
		}
		if l.Plain() {
			return l, nil
		}
	}
	return terse.Link{}, terse.ErrNotFound
}
