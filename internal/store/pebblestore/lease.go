package pebblestore

import (
	"context"
	"encoding/binary"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"github.com/terselink/terse"
)

// Lease implements terse.Store. The counter is synced before Lease returns.
func (s *Store) Lease(ctx context.Context, req terse.LeaseRequest) (_ terse.Lease, err error) {
	if err := s.enter(ctx); err != nil {
		return terse.Lease{}, err
	}
	defer s.leave(&err)
	if req.Count == 0 {
		return terse.Lease{}, terse.Invalid("count", "must be at least 1")
	}
	if err := checkSpace(req.Domain, req.Space); err != nil {
		return terse.Lease{}, err
	}
	limit := terse.MaxIndex + 1
	if req.Cap != 0 {
		limit = min(limit, req.Cap)
	}
	// The committer writes the lease; the caller reads it only after the op is done.
	lease := &terse.Lease{Domain: req.Domain, Space: req.Space}
	o := s.newOp()
	o.check = func(s *Store, o *op) error {
		start, err := s.next(req.Domain, req.Space)
		if err != nil {
			return err
		}
		if start >= limit {
			return terse.ErrSpaceFull
		}
		lease.Start, lease.End = start, start+min(req.Count, limit-start)
		var value [8]byte
		binary.BigEndian.PutUint64(value[:], lease.End)
		if err := o.batch.Set(appendCounterKey(nil, req.Domain, req.Space), value[:], nil); err != nil {
			return errBatch(err)
		}
		lease.Reserved, err = s.reserved(req.Domain, req.Space, lease.Start, lease.End-1, math.MaxInt)
		return err
	}
	if err := s.submit(ctx, o); err != nil {
		return terse.Lease{}, err
	}
	return *lease, nil
}

// Next implements terse.Store.
func (s *Store) Next(ctx context.Context, d terse.DomainID, sp terse.SpaceID) (_ uint64, err error) {
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	defer s.leave(&err)
	if err := checkSpace(d, sp); err != nil {
		return 0, err
	}
	return s.next(d, sp)
}

func checkSpace(d terse.DomainID, s terse.SpaceID) error {
	if d > terse.MaxDomain {
		return terse.Invalid("domain", "out of range")
	}
	if s > terse.MaxSpace {
		return terse.Invalid("space", "out of range")
	}
	return nil
}

func (s *Store) next(d terse.DomainID, sp terse.SpaceID) (uint64, error) {
	var buf [8]byte
	value, ok, err := s.get(appendCounterKey(nil, d, sp), buf[:0])
	if err != nil || !ok {
		return 0, err
	}
	if len(value) != 8 {
		// Never start again from 0: that would issue every code a second time.
		return 0, errDamaged("counter", terse.NewLinkNumber(d, sp, 0), "length")
	}
	return binary.BigEndian.Uint64(value), nil
}

// Reservations implements terse.Store.
func (s *Store) Reservations(ctx context.Context, d terse.DomainID, sp terse.SpaceID, from uint64, limit int) (_ []uint64, err error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave(&err)
	if limit < 1 {
		return nil, terse.Invalid("limit", "at least 1")
	}
	if err := checkSpace(d, sp); err != nil {
		return nil, err
	}
	if from > terse.MaxIndex {
		return nil, nil
	}
	return s.reserved(d, sp, from, terse.MaxIndex, limit)
}

// reserved returns at most limit indexes from first to last that belong to aliases.
func (s *Store) reserved(d terse.DomainID, sp terse.SpaceID, first, last uint64, limit int) (out []uint64, err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{
		LowerBound: appendNumberKey(nil, famReservation, terse.NewLinkNumber(d, sp, first)),
		UpperBound: appendNumberKey(nil, famReservation, terse.NewLinkNumber(d, sp, last)+1),
	})
	if err != nil {
		return nil, errRead("reservations", err)
	}
	defer closeIter(it, &err)
	for ok := it.First(); ok && len(out) < limit; ok = it.Next() {
		out = append(out, terse.LinkNumber(binary.BigEndian.Uint64(it.Key()[1:])).Index())
	}
	return out, nil
}
