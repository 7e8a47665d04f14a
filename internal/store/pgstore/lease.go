package pgstore

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/terselink/terse"
)

// Lease implements terse.Store.
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
	ctx, cancel, err := s.enter(ctx, op)
	if err != nil {
		return terse.Lease{}, err
	}
	defer cancel()
	limit := terse.MaxIndex + 1
	if req.Cap != 0 {
		limit = min(limit, req.Cap)
	}
	d, sp := int32(req.Domain), int16(req.Space)
	lease := terse.Lease{Domain: req.Domain, Space: req.Space}
	err = s.write(ctx, op, func(ctx context.Context, t *txn) error {
		lease.Reserved = nil
		var next int64
		var was, lineage, home string
		b := begin(s)
		b.Queue("insert into terse.spaces (domain_id, space, next, lineage) values ($1, $2, 0, '') on conflict do nothing", d, sp)
		b.Queue("select next, lineage, terse.lineage(), (select home from terse.feed) from terse.spaces where domain_id = $1 and space = $2 for update", d, sp).
			QueryRow(func(r pgx.Row) error { return r.Scan(&next, &was, &lineage, &home) })
		if err := t.run(ctx, b); err != nil {
			return err
		}
		if was == "" { // never leased from, as far as this history knows
			was = home
		}
		start, jumped := uint64(next), uint64(0)
		if was != "" && lineage != "" && was != lineage {
			after, err := s.jump(ctx, t, req, start, limit)
			if err != nil {
				return err
			}
			start, jumped = after, after-start
			s.o.Log.Warn("the database has another history than at the last lease: indexes that may have been lost are left out",
				"domain", req.Domain, "space", req.Space, "skipped", jumped, "was", was, "is", lineage)
		}
		full := start >= limit
		end := start
		if !full {
			end += min(req.Count, limit-start)
		}
		if lineage == "" {
			lineage = was
		}
		b = &pgx.Batch{}
		b.Queue("update terse.spaces set next = $3, lineage = $4, jumped = jumped + $5 where domain_id = $1 and space = $2",
			d, sp, int64(end), lineage, int64(jumped))
		b.Queue("select idx from terse.reservations where domain_id = $1 and space = $2 and idx >= $3 and idx < $4 order by idx",
			d, sp, int64(start), int64(end)).Query(func(r pgx.Rows) error {
			for r.Next() {
				var i int64
				if err := r.Scan(&i); err != nil {
					return err
				}
				lease.Reserved = append(lease.Reserved, uint64(i))
			}
			return r.Err()
		})
		lease.Start, lease.End = start, end
		return t.commit(ctx, b)
	})
	if err != nil {
		return terse.Lease{}, err
	}
	if lease.Start >= lease.End {
		return terse.Lease{}, terse.ErrSpaceFull
	}
	return lease, nil
}

// The jump after a change of the server's history, in indexes: what may have been issued by
// a server whose last writes were lost. docs/postgresql.md has the reasons.
const (
	maxJump      = 1 << 26 // over a minute at a million links a second
	instanceJump = 1 << 10 // of the counters of workspaces and domains, which have few numbers and move seldom
)

// jump returns the first index that cannot have been issued by a history that this server lost. It
// may be the limit: the space is full then.
func (s *Store) jump(ctx context.Context, t *txn, req terse.LeaseRequest, next, limit uint64) (uint64, error) {
	var last *int64
	lo := terse.NewLinkNumber(req.Domain, req.Space, 0)
	hi := terse.NewLinkNumber(req.Domain, req.Space, terse.MaxIndex)
	row := t.conn.QueryRow(ctx, "select max(number) from terse.links where number between $1 and $2", int64(lo), int64(hi))
	if err := row.Scan(&last); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, err
	}
	if last != nil {
		next = max(next, terse.LinkNumber(*last).Index()+1)
	}
	size := min(uint64(maxJump), max(limit/16, 1))
	if req.Domain == 0 {
		size = instanceJump
	}
	return min(next+size, limit), nil
}

// Next implements terse.Store.
func (s *Store) Next(ctx context.Context, d terse.DomainID, sp terse.SpaceID) (uint64, error) {
	const op = "next"
	ctx, cancel, err := s.enter(ctx, op)
	if err != nil {
		return 0, err
	}
	defer cancel()
	var next int64
	err = s.query(ctx, op, func(r pgx.Rows) error { return r.Scan(&next) },
		"select next from terse.spaces where domain_id = $1 and space = $2", int32(d), int16(sp))
	return uint64(next), err
}

// Reservations implements terse.Store.
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
	ctx, cancel, err := s.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer cancel()
	if from > terse.MaxIndex {
		return nil, nil
	}
	var list []uint64
	err = s.query(ctx, op, func(r pgx.Rows) error {
		var i int64
		err := r.Scan(&i)
		list = append(list, uint64(i))
		return err
	}, "select idx from terse.reservations where domain_id = $1 and space = $2 and idx >= $3 order by idx limit $4", int32(d), int16(sp), int64(from), int64(limit))
	return list, err
}
