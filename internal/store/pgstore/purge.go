package pgstore

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/terselink/terse"
)

// PurgeLinks implements terse.Store: rows go, with everything that leads to them, but for codes
// that are never used again. Inserts of which nothing is left go too, so that listings do not walk over them.
func (s *Store) PurgeLinks(ctx context.Context, w terse.WorkspaceID, c terse.CampaignID, limit int) (int, error) {
	const op = "purge links"
	if limit < 1 || limit > maxPage {
		return 0, terse.Invalid("limit", "must be 1 to %d", maxPage)
	}
	if c == 0 {
		return 0, terse.Invalid("campaign", "links without a campaign cannot be purged")
	}
	ctx, cancel, err := s.enter(ctx, op)
	if err != nil {
		return 0, err
	}
	defer cancel()
	purged := 0
	err = s.write(ctx, op, func(ctx context.Context, t *txn) error {
		var shard int16
		var numbers, aliases, positions, tagged, taggedAt []int64
		var tags []string
		b := begin(s)
		b.Queue("select (pg_backend_pid() % 16)::smallint").QueryRow(func(r pgx.Row) error { return r.Scan(&shard) })
		b.Queue(`select number, position, settings->'tags' from terse.links
			where campaign_id = $2 and workspace_id = $1 order by position, number limit $3 for update`, int32(w), int64(c), int64(limit)).
			Query(func(r pgx.Rows) error {
				for r.Next() {
					var n, at int64
					var of []string
					if err := r.Scan(&n, &at, &of); err != nil {
						return err
					}
					numbers = append(numbers, n)
					if k := len(positions); k == 0 || positions[k-1] != at {
						positions = append(positions, at)
					}
					if terse.LinkNumber(n).Space() == terse.AliasSpace {
						aliases = append(aliases, n)
					}
					for _, tag := range of {
						tags, tagged, taggedAt = append(tags, tag), append(tagged, n), append(taggedAt, at)
					}
				}
				return r.Err()
			})
		if err := t.run(ctx, b); err != nil {
			return err
		}
		purged = len(numbers)
		b = &pgx.Batch{}
		if purged > 0 {
			if len(aliases) > 0 {
				b.Queue(`delete from terse.aliases a using terse.links l
					where l.number = any($1::bigint[]) and a.domain_id = (l.number >> 43)::int and a.code = l.code`, aliases)
			}
			if len(tags) > 0 {
				b.Queue(`delete from terse.link_tags t using unnest($2::text[], $3::bigint[], $4::bigint[]) as g (tag, position, number)
					where t.workspace_id = $1 and t.tag = g.tag and t.position = g.position and t.number = g.number`, int32(w), tags, taggedAt, tagged)
			}
			b.Queue("delete from terse.links where number = any($1::bigint[])", numbers)
			b.Queue(`delete from terse.inserts i where i.seq = any($1::bigint[]) and not exists (
				select from terse.links l where l.number >= i.first_number and l.number < i.first_number + i.links and l.workspace_id = i.workspace_id)`, positions)
			queueCount(b, w, c, shard, -int64(purged))
		}
		return t.commit(ctx, b)
	})
	if err != nil {
		return 0, err
	}
	return purged, nil
}
