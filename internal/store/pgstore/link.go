package pgstore

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/terselink/terse"
)

// GetLinks implements terse.Store. A key whose code is not that of the numbered link is a
// defect of the caller and fails the call: answering would send a visitor to somebody else's destination.
func (s *Store) GetLinks(ctx context.Context, keys []terse.LinkKey, dst []terse.Link) error {
	ctx, cancel, err := s.enter(ctx, "get links")
	if err != nil {
		return err
	}
	defer cancel()
	return getLinks(ctx, s.pool, keys, dst)
}

func getLinks(ctx context.Context, pool *pgxpool.Pool, keys []terse.LinkKey, dst []terse.Link) error {
	const op = "get links"
	if len(keys) != len(dst) {
		return terse.Invalid("dst", "%d keys, but room for %d links", len(keys), len(dst))
	}
	clear(dst)
	put := func(i int, l *terse.Link) error {
		if keys[i].Code != "" && l.Code != "" && keys[i].Code != l.Code {
			return &terse.Error{Code: terse.CodeInternal, Message: "the code does not belong to the link", Op: op}
		}
		dst[i] = *l
		if l.Code == "" {
			dst[i].Code = keys[i].Code
		}
		return nil
	}
	switch len(keys) {
	case 0:
		return nil
	case 1:
		return queryPool(ctx, pool, op, func(r pgx.Rows) error {
			var l terse.Link
			if err := scanLink(r, &l); err != nil {
				return err
			}
			return put(0, &l)
		}, "select "+columns+" from terse.links l where number = $1 and deleted_at is null", int64(keys[0].Number))
	}
	numbers, at := make([]int64, len(keys)), make(map[terse.LinkNumber][]int, len(keys))
	for i, k := range keys {
		numbers[i] = int64(k.Number)
		at[k.Number] = append(at[k.Number], i)
	}
	return queryPool(ctx, pool, op, func(r pgx.Rows) error {
		var l terse.Link
		if err := scanLink(r, &l); err != nil {
			return err
		}
		for _, i := range at[l.Number] {
			if err := put(i, &l); err != nil {
				return err
			}
		}
		return nil
	}, "select "+columns+" from terse.links l where number = any($1::bigint[]) and deleted_at is null", numbers)
}

// GetAlias implements terse.Store.
func (s *Store) GetAlias(ctx context.Context, d terse.DomainID, alias string) (terse.Link, error) {
	ctx, cancel, err := s.enter(ctx, "get alias")
	if err != nil {
		return terse.Link{}, err
	}
	defer cancel()
	return getAlias(ctx, s.pool, d, alias)
}

func getAlias(ctx context.Context, pool *pgxpool.Pool, d terse.DomainID, alias string) (terse.Link, error) {
	var l terse.Link
	if err := queryPool(ctx, pool, "get alias", func(r pgx.Rows) error { return scanLink(r, &l) },
		"select "+columns+" from terse.aliases a join terse.links l using (number) where a.domain_id = $1 and a.code = $2 and l.deleted_at is null",
		int32(d), alias); err != nil {
		return terse.Link{}, err
	}
	if l.Number == 0 {
		return terse.Link{}, terse.ErrNotFound
	}
	return l, nil
}

// lockLink reads and locks a link with its position; a link that is not there is the zero one.
func lockLink(ctx context.Context, s *Store, t *txn, n terse.LinkNumber) (l terse.Link, position, seq int64, shard int16, err error) {
	b := begin(s)
	b.Queue("select terse.seq(0), (pg_backend_pid() % 16)::smallint").QueryRow(func(r pgx.Row) error { return r.Scan(&seq, &shard) })
	b.Queue("select "+columns+", l.position from terse.links l where number = $1 and deleted_at is null for update", int64(n)).
		Query(func(r pgx.Rows) error {
			for r.Next() {
				if err := scanLink(r, &l, &position); err != nil {
					return err
				}
			}
			return r.Err()
		})
	return l, position, seq, shard, t.run(ctx, b)
}

// UpdateLink implements terse.Store. A link of another workspace is not found.
func (s *Store) UpdateLink(ctx context.Context, link *terse.Link, ifVersion uint64) error {
	const op = "update link"
	if link.Version <= ifVersion {
		return terse.Invalid("version", "%d does not follow %d", link.Version, ifVersion)
	}
	if err := checkLink(link); err != nil {
		return err
	}
	settings, err := encodeSettings(link.Settings)
	if err != nil {
		return err
	}
	ctx, cancel, err := s.enter(ctx, op)
	if err != nil {
		return err
	}
	defer cancel()
	return s.write(ctx, op, func(ctx context.Context, t *txn) error {
		old, position, seq, shard, err := lockLink(ctx, s, t, link.Number)
		switch {
		case err != nil:
			return err
		case old.Number == 0 || old.Workspace != link.Workspace:
			return terse.ErrNotFound
		case old.Version != ifVersion:
			return terse.ErrVersion
		}
		next := *link
		next.Code, next.ByCode = old.Code, old.ByCode
		b := &pgx.Batch{}
		var key *int32
		if next.Plain() {
			key = new(destinationKey(next.Workspace, next.Number.Domain(), next.Destination))
			b.Queue("insert into terse.destinations (destination_key, number) values ($1, $2) on conflict do nothing", *key, int64(next.Number))
		}
		b.Queue(`update terse.links set version = $2, updated_at = $3, expires_at = $4, campaign_id = nullif($5::bigint, 0), destination_key = $6,
				redirect_status = nullif($7::smallint, 0), status = $8, default_expiry = $9, destination = $10, field_values = nullif($11::text, ''),
				external_id = nullif($12::text, ''), settings = $13::text::jsonb
			where number = $1`,
			int64(next.Number), int64(next.Version), timeOf(max(next.UpdatedAt, 1)), timeOf(next.ExpiresAt), int64(next.Campaign), key,
			int16(next.RedirectStatus), int16(next.Status), next.DefaultExpiry, next.Destination, next.Values,
			next.ExternalID, jsonParam(settings))
		queueTagChange(b, &old, tagsOf(next.Settings), position)
		if old.Campaign != next.Campaign {
			queueCampaignChange(b, &old, -1, shard)
			queueCampaignChange(b, &next, 1, shard)
		}
		queueChange(b, terse.ChangeUpdated, seq, &next)
		return t.commit(ctx, b)
	})
}

// jsonParam passes JSON as text; nil is null.
func jsonParam(b []byte) *string {
	if b == nil {
		return nil
	}
	return new(string(b))
}

func tagsOf(s *terse.LinkSettings) []string {
	if s == nil {
		return nil
	}
	return s.Tags
}

// queueTagChange makes tags those of the link.
func queueTagChange(b *pgx.Batch, l *terse.Link, tags []string, position int64) {
	old := tagsOf(l.Settings)
	if slices.Equal(old, tags) {
		return
	}
	if len(old) > 0 {
		b.Queue("delete from terse.link_tags where workspace_id = $1 and tag = any($2::text[]) and position = $3 and number = $4",
			int32(l.Workspace), old, position, int64(l.Number))
	}
	if len(tags) > 0 {
		b.Queue(`insert into terse.link_tags (workspace_id, tag, position, number)
			select distinct $1::int, tag, $3::bigint, $4::bigint from unnest($2::text[]) as t (tag)`,
			int32(l.Workspace), tags, position, int64(l.Number))
	}
}

func queueCampaignChange(b *pgx.Batch, l *terse.Link, links int64, shard int16) {
	if l.Campaign != 0 {
		queueCount(b, l.Workspace, l.Campaign, shard, links)
	}
}

func queueChange(b *pgx.Batch, kind terse.ChangeKind, seq int64, l *terse.Link) {
	b.Queue("insert into terse.changes (seq, kind, workspace_id, version, number) values ($1, $2, $3, $4, $5)",
		seq, int16(kind), int32(l.Workspace), int64(l.Version), int64(l.Number))
}

// DeleteLink implements terse.Store. The row stays, without content, to refuse its number.
func (s *Store) DeleteLink(ctx context.Context, key terse.LinkKey, ifVersion uint64) error {
	const op = "delete link"
	ctx, cancel, err := s.enter(ctx, op)
	if err != nil {
		return err
	}
	defer cancel()
	return s.write(ctx, op, func(ctx context.Context, t *txn) error {
		old, position, seq, shard, err := lockLink(ctx, s, t, key.Number)
		switch {
		case err != nil:
			return err
		case old.Number == 0:
			return terse.ErrNotFound
		case ifVersion != 0 && old.Version != ifVersion:
			return terse.ErrVersion
		}
		b := &pgx.Batch{}
		b.Queue(`update terse.links set deleted_at = now(), updated_at = null, expires_at = null, campaign_id = null, destination_key = null,
				redirect_status = null, destination = '', field_values = null, external_id = null, settings = null where number = $1`, int64(old.Number))
		if old.Number.Space() == terse.AliasSpace {
			b.Queue("delete from terse.aliases where domain_id = $1 and code = $2", int32(old.Number.Domain()), old.Code)
		}
		queueTagChange(b, &old, nil, position)
		queueCampaignChange(b, &old, -1, shard)
		queueChange(b, terse.ChangeDeleted, seq, &old)
		return t.commit(ctx, b)
	})
}
