package pebblestore

import (
	"context"
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"

	"github.com/terselink/terse"
)

// CountLinks implements terse.Store. It reads one entry for each write of the campaign and
// one key for each link that left it, not the links: 60 entries for a million of them.
func (s *Store) CountLinks(ctx context.Context, w terse.WorkspaceID, c terse.CampaignID) (_ uint64, err error) {
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	defer s.leave(&err)
	// One view of both families: a link must not be counted and then not be seen to leave.
	snap := s.db.NewSnapshot()
	defer func() {
		if cerr := snap.Close(); err == nil && cerr != nil {
			err = errRead("count", cerr)
		}
	}()
	var total, left uint64
	var runs []terse.Run
	err = eachKey(ctx, snap, appendCampaignPrefix(nil, w, c), func(key, value []byte) error {
		e, err := decodeEntry(binary.BigEndian.Uint64(key[len(key)-8:]), value, runs[:0])
		runs = e.runs
		for _, r := range e.runs {
			total += r.Count
		}
		return err
	})
	if err == nil {
		err = eachKey(ctx, snap, appendLeftPrefix(nil, w, c), func(_, _ []byte) error { left++; return nil })
	}
	if err != nil {
		return 0, err
	}
	return total - min(left, total), nil
}

// eachKey calls f for every key that starts with prefix.
func eachKey(ctx context.Context, r pebble.Reader, prefix []byte, f func(key, value []byte) error) (err error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upperBound(prefix)})
	if err != nil {
		return errRead("count", err)
	}
	defer closeIter(it, &err)
	for ok := it.First(); ok; ok = it.Next() {
		if err := ctx.Err(); err != nil {
			return errContext(err)
		}
		if err := f(it.Key(), it.Value()); err != nil {
			return err
		}
	}
	return nil
}

// logLeft notes in the op that a link leaves its campaign: it was counted when it came.
func (o *op) logLeft(old *row) error {
	if old.campaign == 0 {
		return nil
	}
	key := appendLeftPrefix(nil, old.workspace, old.campaign)
	key = binary.BigEndian.AppendUint64(key, uint64(old.number))
	key = binary.BigEndian.AppendUint64(key, old.version)
	if err := o.batch.Set(key, nil, nil); err != nil {
		return errBatch(err)
	}
	return nil
}
