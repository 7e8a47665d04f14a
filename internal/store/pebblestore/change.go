package pebblestore

import (
	"context"
	"encoding/binary"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"github.com/terselink/terse"
)

// appendRuns appends runs that are ascending and do not touch: count, then for each
// the distance from the end of the one before, and the count of its numbers less one.
func appendRuns(dst []byte, runs []terse.Run) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(runs)))
	end := terse.LinkNumber(0)
	for _, r := range runs {
		dst = binary.AppendUvarint(dst, uint64(r.First-end))
		dst = binary.AppendUvarint(dst, r.Count-1)
		end = r.First + terse.LinkNumber(r.Count)
	}
	return dst
}

func (d *decoder) runs(dst []terse.Run) []terse.Run {
	n := d.uvarint()
	if n > uint64(len(d.b)) { // a run takes at least two bytes
		d.bad = true
		return dst
	}
	end := uint64(0)
	for range n {
		first, count := end+d.uvarint(), d.uvarint()+1
		if d.bad || first > math.MaxInt64 || count == 0 || count > math.MaxInt64-first {
			d.bad = true
			return dst
		}
		dst = append(dst, terse.Run{First: terse.LinkNumber(first), Count: count})
		end = first + count
	}
	return dst
}

// appendChange appends the value of a change; its Seq is in the key.
func appendChange(dst []byte, c *terse.Change) []byte {
	dst = append(dst, byte(c.Kind))
	dst = binary.AppendUvarint(dst, uint64(c.Workspace))
	dst = binary.AppendUvarint(dst, zigzag(int64(c.At)))
	dst = binary.AppendUvarint(dst, c.Version)
	if c.Kind == terse.ChangeDocument {
		dst = append(binary.AppendUvarint(dst, uint64(len(c.DocKind))), c.DocKind...)
		return append(binary.AppendUvarint(dst, uint64(len(c.DocID))), c.DocID...)
	}
	return appendRuns(dst, c.Runs)
}

func decodeChange(seq uint64, value []byte) (terse.Change, error) {
	d := decoder{b: value}
	c := terse.Change{Seq: seq, Kind: terse.ChangeKind(d.byte())}
	c.Workspace = terse.WorkspaceID(d.uvarint())
	c.At = terse.Millis(d.varint())
	c.Version = d.uvarint()
	switch c.Kind {
	case terse.ChangeDocument:
		c.DocKind, c.DocID = terse.Kind(d.text()), string(d.text())
	case terse.ChangeInserted, terse.ChangeUpdated, terse.ChangeDeleted:
		c.Runs = d.runs(nil)
	default:
		d.bad = true
	}
	if d.bad || len(d.b) != 0 {
		return terse.Change{}, errDamaged("change", terse.LinkNumber(seq), "cut or unknown")
	}
	return c, nil
}

// Changes implements terse.Store. It shows synced changes only, so what a follower
// has seen is never taken back by a crash.
func (s *Store) Changes(ctx context.Context, after uint64, limit int) (_ []terse.Change, err error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave(&err)
	if limit < 1 {
		return nil, terse.Invalid("limit", "must be at least 1")
	}
	durable := s.durable.Load()
	if after >= durable {
		return nil, nil
	}
	it, err := s.db.NewIter(&pebble.IterOptions{
		LowerBound: appendSeqKey(nil, famChange, after+1),
		UpperBound: appendSeqKey(nil, famChange, durable+1),
	})
	if err != nil {
		return nil, errRead("changes", err)
	}
	defer closeIter(it, &err)
	ok := it.First()
	// The numbers are consecutive, so what is missing between was trimmed.
	if ok && binary.BigEndian.Uint64(it.Key()[1:]) != after+1 {
		return nil, &terse.ForgottenError{Floor: binary.BigEndian.Uint64(it.Key()[1:]) - 1}
	}
	var out []terse.Change
	for ; ok && len(out) < limit; ok = it.Next() {
		c, err := decodeChange(binary.BigEndian.Uint64(it.Key()[1:]), it.Value())
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// FeedHead returns a position such that every change that Changes does not show yet has a larger Seq.
func (s *Store) FeedHead(ctx context.Context) (_ uint64, err error) {
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	defer s.leave(&err)
	return s.durable.Load(), nil
}

// trimFeed forgets changes that are older than FeedMaxAge or more than FeedMaxEntries behind. The
// last one always stays: it holds the sequence number to go on from.
func (s *Store) trimFeed(ctx context.Context) (err error) {
	last := s.durable.Load()
	if last == 0 {
		return nil
	}
	it, err := s.db.NewIter(&pebble.IterOptions{
		LowerBound: []byte{famChange},
		UpperBound: appendSeqKey(nil, famChange, last),
	})
	if err != nil {
		return errRead("changes", err)
	}
	defer closeIter(it, &err)
	keepFrom := uint64(0)
	if last > s.opts.FeedMaxEntries {
		keepFrom = last - s.opts.FeedMaxEntries
	}
	oldest := s.opts.Clock() - terse.Millis(s.opts.FeedMaxAge.Milliseconds())
	var from []byte
	to := last
	for ok := it.First(); ok; ok = it.Next() {
		if from == nil {
			from = append(from, it.Key()...)
			// Changes before keepFrom go whatever their age.
			if ok = it.SeekGE(appendSeqKey(nil, famChange, keepFrom)); !ok {
				break
			}
		}
		seq := binary.BigEndian.Uint64(it.Key()[1:])
		c, err := decodeChange(seq, it.Value())
		if err != nil {
			return err
		}
		if c.At >= oldest {
			to = seq
			break
		}
	}
	if from == nil || binary.BigEndian.Uint64(from[1:]) >= to {
		return nil
	}
	o := s.newOp()
	o.noSync = true
	if err := o.batch.DeleteRange(from, appendSeqKey(nil, famChange, to), nil); err != nil {
		return errBatch(err)
	}
	return s.submit(ctx, o)
}
