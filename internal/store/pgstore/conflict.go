package pgstore

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/terselink/terse"
)

type codeKey struct {
	domain terse.DomainID
	code   string
}

// conflicts returns the links that are in the way of the chunk, ascending. A link is in the
// way if it could not be inserted after all links before it that are not.
func (s *Store) conflicts(ctx context.Context, op string, chunk *terse.Chunk) ([]int, error) {
	numbers := make([]int64, len(chunk.Links))
	var domains []int32
	var codes []string
	var reserves []terse.LinkNumber
	for i := range chunk.Links {
		l := &chunk.Links[i]
		numbers[i] = int64(l.Number)
		if l.Named() {
			domains, codes = append(domains, int32(l.Number.Domain())), append(codes, l.Code)
		}
		if l.Reserves != 0 {
			reserves = append(reserves, l.Reserves)
		}
	}
	used := map[terse.LinkNumber]bool{}
	err := s.query(ctx, op, func(r pgx.Rows) error {
		var n int64
		err := r.Scan(&n)
		used[terse.LinkNumber(n)] = true
		return err
	}, "select number from terse.links where number = any($1::bigint[])", numbers)
	if err != nil {
		return nil, err
	}
	taken := map[codeKey]bool{}
	if len(codes) > 0 {
		if err := s.query(ctx, op, func(r pgx.Rows) error {
			var d int32
			var code string
			err := r.Scan(&d, &code)
			taken[codeKey{terse.DomainID(d), code}] = true
			return err
		}, "select domain_id, code from terse.aliases join unnest($1::int[], $2::text[]) as n (domain_id, code) using (domain_id, code)", domains, codes); err != nil {
			return nil, err
		}
	}
	issued := map[terse.LinkNumber]bool{}
	if len(reserves) > 0 {
		d, sp, idx := splitNumbers(reserves)
		if err := s.query(ctx, op, func(r pgx.Rows) error {
			var d int32
			var sp int16
			var i int64
			err := r.Scan(&d, &sp, &i)
			issued[terse.NewLinkNumber(terse.DomainID(d), terse.SpaceID(sp), uint64(i))] = true
			return err
		}, `select r.domain_id, r.space, r.idx from unnest($1::int[], $2::smallint[], $3::bigint[]) as r (domain_id, space, idx)
			join terse.spaces s using (domain_id, space)
			where r.idx < s.next and not exists (
				select from terse.reservations v where v.domain_id = r.domain_id and v.space = r.space and v.idx = r.idx)`, d, sp, idx); err != nil {
			return nil, err
		}
	}
	var rows []int
	for i := range chunk.Links {
		l := &chunk.Links[i]
		inTheWay := used[l.Number]
		key := codeKey{l.Number.Domain(), l.Code}
		if l.Named() {
			inTheWay = inTheWay || taken[key] || issued[l.Reserves]
		}
		if inTheWay {
			rows = append(rows, i)
			continue
		}
		used[l.Number] = true
		if l.Named() {
			taken[key] = true
		}
	}
	return rows, nil
}
