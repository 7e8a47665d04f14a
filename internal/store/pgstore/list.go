package pgstore

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/terselink/terse"
)

// ListLinks implements terse.Store. External ids, tags and campaigns have an index that is walked in the
// order of the listing; everything else walks the inserts of the workspace backwards.
func (s *Store) ListLinks(ctx context.Context, w terse.WorkspaceID, q terse.ListQuery) (terse.LinkPage, error) {
	const op = "list links"
	if q.Limit < 1 || q.Limit > maxPage {
		return terse.LinkPage{}, terse.Invalid("limit", "must be 1 to %d", maxPage)
	}
	from, err := parseCursor(q.Cursor)
	if err != nil {
		return terse.LinkPage{}, err
	}
	ctx, cancel, err := s.enter(ctx, op)
	if err != nil {
		return terse.LinkPage{}, err
	}
	defer cancel()
	if q.ExternalID != "" || q.Tag != "" || q.Campaign != 0 {
		return s.listIndexed(ctx, op, w, &q, from)
	}
	return s.listInserts(ctx, op, w, &q, from)
}

// filter collects the conditions of a listing and their parameters.
type filter struct {
	where []string
	args  []any
}

// and adds a condition; %d in it stands for the number of its parameter.
func (f *filter) and(condition string, arg any) {
	f.args = append(f.args, arg)
	f.where = append(f.where, strings.ReplaceAll(condition, "%d", fmt.Sprint(len(f.args))))
}

// links adds the conditions on a link l that the query has.
func (f *filter) links(q *terse.ListQuery) {
	f.where = append(f.where, "l.deleted_at is null")
	if q.Domain != 0 {
		f.and("l.number >= $%d", int64(terse.NewLinkNumber(q.Domain, 0, 0)))
		f.and("l.number <= $%d", int64(terse.NewLinkNumber(q.Domain, terse.MaxSpace, terse.MaxIndex)))
	}
	if q.Campaign != 0 {
		f.and("l.campaign_id = $%d", int64(q.Campaign))
	}
	if q.ExternalID != "" {
		f.and("l.external_id = $%d", q.ExternalID)
	}
	if q.CreatedFrom != 0 {
		f.and("l.created_at >= $%d", timeOf(q.CreatedFrom))
	}
	if q.CreatedTo != 0 {
		f.and("l.created_at < $%d", timeOf(q.CreatedTo))
	}
}

// listIndexed walks an index whose order is that of the listing.
func (s *Store) listIndexed(ctx context.Context, op string, w terse.WorkspaceID, q *terse.ListQuery, from place) (terse.LinkPage, error) {
	sql, args := indexedQuery(w, q, from)
	var page terse.LinkPage
	last := from
	err := s.query(ctx, op, func(r pgx.Rows) error {
		var l terse.Link
		err := scanLink(r, &l, &last.position)
		last.number = int64(l.Number)
		page.Links = append(page.Links, l)
		return err
	}, sql, args...)
	if err != nil {
		return terse.LinkPage{}, err
	}
	if len(page.Links) == q.Limit {
		page.Next = last.String()
	}
	return page, nil
}

func indexedQuery(w terse.WorkspaceID, q *terse.ListQuery, from place) (string, []any) {
	f := filter{args: []any{int32(w), from.position, from.number, int64(q.Limit)}}
	f.links(q)
	source, order := "terse.links l", "l"
	if q.Tag != "" && q.ExternalID == "" {
		source, order = "terse.link_tags t join terse.links l using (number)", "t"
		f.and("t.tag = $%d", q.Tag)
	} else if q.Tag != "" {
		f.and("l.settings->'tags' @> to_jsonb($%d::text)", q.Tag)
	}
	return fmt.Sprintf("select %s, l.position from %s where %[3]s.workspace_id = $1 and (%[3]s.position, %[3]s.number) < ($2, $3) and %[4]s "+
		"order by %[3]s.position desc, %[3]s.number desc limit $4", columns, source, order, strings.Join(f.where, " and ")), f.args
}

// listInserts walks the inserts of the workspace backwards and reads their links.
func (s *Store) listInserts(ctx context.Context, op string, w terse.WorkspaceID, q *terse.ListQuery, from place) (terse.LinkPage, error) {
	var page terse.LinkPage
	for seen := 0; ; {
		want := min(max(q.Limit-len(page.Links), 64), scanLimit-seen)
		batch, err := s.numbersBefore(ctx, op, w, q, from, want)
		if err != nil {
			return terse.LinkPage{}, err
		}
		if len(batch.numbers) == 0 {
			if batch.more {
				page.Next = from.String()
			}
			return page, nil
		}
		found := make(map[int64]*terse.Link, len(batch.numbers))
		f := filter{args: []any{batch.numbers, int32(w)}}
		f.links(q)
		if err := s.query(ctx, op, func(r pgx.Rows) error {
			l := new(terse.Link)
			err := scanLink(r, l)
			found[int64(l.Number)] = l
			return err
		}, "select "+columns+" from terse.links l where l.number = any($1::bigint[]) and l.workspace_id = $2 and "+strings.Join(f.where, " and "), f.args...); err != nil {
			return terse.LinkPage{}, err
		}
		for i, n := range batch.numbers {
			from = place{batch.positions[i], n}
			if l := found[n]; l != nil {
				page.Links = append(page.Links, *l)
				if len(page.Links) == q.Limit {
					if batch.more || i < len(batch.numbers)-1 {
						page.Next = from.String()
					}
					return page, nil
				}
			}
		}
		seen += len(batch.numbers)
		if !batch.more {
			return page, nil
		}
		if seen >= scanLimit {
			page.Next = from.String()
			return page, nil
		}
	}
}

// numberBatch are numbers in the order of a listing, with their positions.
type numberBatch struct {
	numbers, positions []int64
	more               bool
}

// numbersBefore returns at most limit numbers that come after a place of a listing.
func (s *Store) numbersBefore(ctx context.Context, op string, w terse.WorkspaceID, q *terse.ListQuery, from place, limit int) (numberBatch, error) {
	sql, args := insertsQuery(w, q, from, limit)
	var b numberBatch
	rows := 0
	err := s.query(ctx, op, func(r pgx.Rows) error {
		var seq, first, links int64
		if err := r.Scan(&seq, &first, &links); err != nil {
			return err
		}
		rows++
		last := first + links - 1
		if seq == from.position {
			last = min(last, from.number-1)
		}
		for n := last; n >= first; n-- {
			if len(b.numbers) == limit {
				b.more = true
				return nil
			}
			b.numbers, b.positions = append(b.numbers, n), append(b.positions, seq)
		}
		return nil
	}, sql, args...)
	b.more = b.more || rows > limit
	return b, err
}

func insertsQuery(w terse.WorkspaceID, q *terse.ListQuery, from place, limit int) (string, []any) {
	f := filter{args: []any{int32(w), from.position, int64(limit + 1)}}
	f.where = append(f.where, "workspace_id = $1", "seq <= $2")
	if q.Domain != 0 {
		f.and("first_number >= $%d", int64(terse.NewLinkNumber(q.Domain, 0, 0)))
		f.and("first_number <= $%d", int64(terse.NewLinkNumber(q.Domain, terse.MaxSpace, terse.MaxIndex)))
	}
	if q.CreatedFrom != 0 {
		f.and("created_to >= $%d", timeOf(q.CreatedFrom))
	}
	if q.CreatedTo != 0 {
		f.and("created_from < $%d", timeOf(q.CreatedTo))
	}
	return "select seq, first_number, links from terse.inserts where " + strings.Join(f.where, " and ") + " order by seq desc limit $3", f.args
}

// CountLinks implements terse.Store.
func (s *Store) CountLinks(ctx context.Context, w terse.WorkspaceID, c terse.CampaignID) (uint64, error) {
	const op = "count links"
	ctx, cancel, err := s.enter(ctx, op)
	if err != nil {
		return 0, err
	}
	defer cancel()
	var n int64
	err = s.query(ctx, op, func(r pgx.Rows) error { return r.Scan(&n) },
		"select coalesce(sum(links), 0)::bigint from terse.campaign_links where workspace_id = $1 and campaign_id = $2", int32(w), int64(c))
	return uint64(max(n, 0)), err
}
