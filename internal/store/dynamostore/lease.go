package dynamostore

import (
	"context"
	"encoding/binary"

	"github.com/terselink/terse"
)

// Lease takes the next indexes of a space by one addition, then reads which of them are
// reserved. An alias that reserves an index checks in its transaction that the counter
// is not past it: it comes before the addition and is read, or after it and fails.
func (s *Store) Lease(ctx context.Context, req terse.LeaseRequest) (terse.Lease, error) {
	const op = "lease"
	switch {
	case req.Count == 0:
		return terse.Lease{}, terse.Invalid("count", "a lease takes at least one index")
	case req.Domain > terse.MaxDomain:
		return terse.Lease{}, terse.Invalid("domain", "at most %d", terse.MaxDomain)
	case req.Space > terse.MaxSpace:
		return terse.Lease{}, terse.Invalid("space", "at most %d", terse.MaxSpace)
	}
	if err := s.enter(ctx, op); err != nil {
		return terse.Lease{}, err
	}
	limit := terse.MaxIndex + 1
	if req.Cap != 0 {
		limit = min(limit, req.Cap)
	}
	count := min(req.Count, limit)
	k := spaceKey(req.Domain, req.Space)
	lease := terse.Lease{Domain: req.Domain, Space: req.Space}
	for {
		got, o := s.update(ctx, k, "ADD next_index :n", "attribute_not_exists(next_index) OR next_index <= :m", nil,
			item{":n": num(count), ":m": num(limit - count)})
		if o == nil {
			lease.End = getNum(got, "next_index")
			lease.Start = lease.End - count
			break
		}
		if o.class != condition {
			return terse.Lease{}, o.writeErr(op)
		}
		// There are fewer left than asked for.
		next, o := s.next(ctx, req.Domain, req.Space)
		if o != nil {
			return terse.Lease{}, o.readErr(op)
		}
		if next >= limit {
			return terse.Lease{}, terse.ErrSpaceFull
		}
		count = min(count, limit-next)
	}
	reserved, o := s.reservedIn(ctx, lease)
	if o != nil {
		return terse.Lease{}, &terse.Error{Code: terse.CodeUnknownOutcome, Message: "the indexes are leased and lost: their reservations cannot be read", Op: op, Err: o.err}
	}
	lease.Reserved = reserved
	return lease, nil
}

// reservedIn returns the reserved indexes of a lease.
func (s *Store) reservedIn(ctx context.Context, l terse.Lease) ([]uint64, *outcome) {
	var out []uint64
	q := rangeQuery{pk: reservationPK(l.Domain, l.Space), from: be64(l.Start), to: be64(l.End - 1)}
	for {
		page, next, o := s.query(ctx, q)
		if o != nil {
			return nil, o
		}
		if out, o = s.appendReserved(ctx, out, page); o != nil || next == nil {
			return out, o
		}
		q.start = next
	}
}

// appendReserved appends the indexes of reservations. One whose chunk is not decided counts: the
// index is then neither issued nor, if the chunk fails, ever used.
func (s *Store) appendReserved(ctx context.Context, dst []uint64, items []item) ([]uint64, *outcome) {
	states, o := s.chunkStates(ctx, items)
	if o != nil {
		return nil, o
	}
	for _, it := range items {
		if id, ok := getChunk(it); ok && states[id].state == aborted {
			continue
		}
		if sk := getBin(it, attrSK); len(sk) == 8 {
			dst = append(dst, binary.BigEndian.Uint64(sk))
		}
	}
	return dst, nil
}

// Reservations returns the reserved indexes of a space.
func (s *Store) Reservations(ctx context.Context, d terse.DomainID, sp terse.SpaceID, from uint64, limit int) ([]uint64, error) {
	const op = "list reservations"
	switch {
	case limit < 1:
		return nil, terse.Invalid("limit", "at least 1")
	case d > terse.MaxDomain:
		return nil, terse.Invalid("domain", "at most %d", terse.MaxDomain)
	case sp > terse.MaxSpace:
		return nil, terse.Invalid("space", "at most %d", terse.MaxSpace)
	}
	if err := s.enter(ctx, op); err != nil {
		return nil, err
	}
	var out []uint64
	for q := (rangeQuery{pk: reservationPK(d, sp), from: be64(from)}); ; {
		q.limit = limit - len(out)
		page, next, o := s.query(ctx, q)
		if o == nil {
			out, o = s.appendReserved(ctx, out, page)
		}
		if o != nil {
			return nil, o.readErr(op)
		}
		if next == nil || len(out) >= limit {
			return out, nil
		}
		q.start = next
	}
}

func (s *Store) next(ctx context.Context, d terse.DomainID, sp terse.SpaceID) (uint64, *outcome) {
	it, o := s.getItem(ctx, spaceKey(d, sp))
	return getNum(it, "next_index"), o
}

// Next returns the index that the next lease of the space will start with.
func (s *Store) Next(ctx context.Context, d terse.DomainID, sp terse.SpaceID) (uint64, error) {
	if err := s.enter(ctx, "next"); err != nil {
		return 0, err
	}
	n, o := s.next(ctx, d, sp)
	if o != nil {
		return 0, o.readErr("next")
	}
	return n, nil
}
