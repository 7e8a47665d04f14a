package pgstore

import (
	"context"
	"math"

	"github.com/jackc/pgx/v5"

	"github.com/terselink/terse"
)

// FindPlain implements terse.Store. It asks the index by destination, after that has caught
// up with the inserts of the workspace on the domain.
func (s *Store) FindPlain(ctx context.Context, w terse.WorkspaceID, d terse.DomainID, destination string, at terse.Millis) (terse.Link, error) {
	const op = "find plain link"
	ctx, cancel, err := s.enter(ctx, op)
	if err != nil {
		return terse.Link{}, err
	}
	defer cancel()
	for more := true; more; {
		if more, err = s.catchUp(ctx, op, w, d); err != nil {
			return terse.Link{}, err
		}
	}
	var l terse.Link
	err = s.query(ctx, op, func(r pgx.Rows) error { return scanLink(r, &l) },
		"select "+columns+` from terse.destinations h join terse.links l using (number)
		where h.destination_key = $1 and l.destination_key = $1 and l.workspace_id = $2 and l.number between $3 and $4
			and l.destination = $5 and l.deleted_at is null and (l.expires_at is null or l.expires_at > $6) limit 1`,
		destinationKey(w, d, destination), int32(w), int64(terse.NewLinkNumber(d, 0, 0)), int64(terse.NewLinkNumber(d, terse.MaxSpace, terse.MaxIndex)),
		destination, timeOf(max(at, 1)))
	if err != nil {
		return terse.Link{}, err
	}
	if l.Number == 0 {
		return terse.Link{}, terse.ErrNotFound
	}
	return l, nil
}

// catchUpLinks is how many links one transaction adds to the index by destination.
const catchUpLinks = 200_000

// catchUp adds inserts that the index by destination does not know yet; more says that there are others. The mark of
// the workspace on the domain moves up to where no insert can appear any more (terse.feed_end); what lies
// above is added as well, again and again until the mark has passed it.
func (s *Store) catchUp(ctx context.Context, op string, w terse.WorkspaceID, d terse.DomainID) (more bool, err error) {
	first, last := int64(terse.NewLinkNumber(d, 0, 0)), int64(terse.NewLinkNumber(d, terse.MaxSpace, terse.MaxIndex))
	var behind bool
	if err := s.query(ctx, op, func(r pgx.Rows) error { return r.Scan(&behind) },
		`select exists (select from terse.inserts where workspace_id = $1 and first_number between $3 and $4
			and seq > coalesce((select seq from terse.destination_marks where workspace_id = $1 and domain_id = $2), 0))`,
		int32(w), int32(d), first, last); err != nil || !behind {
		return false, err
	}
	err = s.write(ctx, op, func(ctx context.Context, t *txn) error {
		more = false
		var mark, end int64
		b := begin(s)
		b.Queue("insert into terse.destination_marks (workspace_id, domain_id, seq) values ($1, $2, 0) on conflict do nothing", int32(w), int32(d))
		b.Queue("select seq from terse.destination_marks where workspace_id = $1 and domain_id = $2 for update", int32(w), int32(d)).
			QueryRow(func(r pgx.Row) error { return r.Scan(&mark) })
		b.Queue("select terse.feed_end()").QueryRow(func(r pgx.Row) error { return r.Scan(&end) })
		if err := t.run(ctx, b); err != nil {
			return err
		}
		var firsts, counts []int64
		total, seq := int64(0), int64(math.MaxInt64)
		rows, err := t.conn.Query(ctx, `select seq, first_number, links from terse.inserts
			where workspace_id = $1 and seq > $2 and first_number between $3 and $4 order by seq limit 10000`, int32(w), mark, first, last)
		if err != nil {
			return err
		}
		for rows.Next() {
			var f, n int64
			if err := rows.Scan(&seq, &f, &n); err != nil {
				rows.Close()
				return err
			}
			firsts, counts = append(firsts, f), append(counts, n)
			if total += n; total >= catchUpLinks {
				break
			}
		}
		rows.Close()
		if err := rows.Err(); err != nil {
			return err
		}
		if more = total >= catchUpLinks || len(firsts) == 10_000; more {
			mark = max(mark, min(seq, end-1))
		} else {
			mark = max(mark, end-1)
		}
		more = more && seq < end // above it the mark stays, and the next round would be the same
		b = &pgx.Batch{}
		b.Queue(`insert into terse.destinations (destination_key, number)
			select l.destination_key, l.number from unnest($1::bigint[], $2::bigint[]) as r (f, n)
				join terse.links l on l.number >= r.f and l.number < r.f + r.n
			where l.workspace_id = $3 and l.destination_key is not null order by 1, 2 on conflict do nothing`, firsts, counts, int32(w))
		b.Queue("update terse.destination_marks set seq = $3 where workspace_id = $1 and domain_id = $2", int32(w), int32(d), mark)
		return t.commit(ctx, b)
	})
	return more, err
}
