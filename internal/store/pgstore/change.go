package pgstore

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/terselink/terse"
)

// changesQuery reads the floor of the feed and both its tables in the order of seq, up to where nothing can appear any more. A feed
// without changes is one row with seq 0.
const changesQuery = `
	select floor, coalesce(f.seq, 0), coalesce(f.kind, 0::smallint), coalesce(f.workspace_id, 0), coalesce(f.version, 0), coalesce(f.at, 'epoch'),
		coalesce(f.first_number, 0), coalesce(f.links, 0), coalesce(f.doc_kind, ''), coalesce(f.doc_id, '')
	from terse.feed_floor left join (select seq, kind, workspace_id, version, at, first_number, links, doc_kind, doc_id from (
		(select seq, 1::smallint as kind, workspace_id, 1::bigint as version, at, first_number, links, '' as doc_kind, '' as doc_id
			from terse.inserts where seq > $1 and seq < (select terse.feed_end()) order by seq limit $2)
		union all
		(select seq, kind, workspace_id, version, at, coalesce(number, 0), 1, coalesce(doc_kind, ''), coalesce(doc_id, '')
			from terse.changes where seq > $1 and seq < (select terse.feed_end()) order by seq limit $2)
	) u order by seq limit $2) f on true`

// Changes implements terse.Store. A change shows when every transaction that began before it was written has
// ended, so a transaction that somebody leaves open holds the feed up; the server ends its own after CallTimeout.
func (s *Store) Changes(ctx context.Context, after uint64, limit int) ([]terse.Change, error) {
	const op = "changes"
	if limit < 1 {
		return nil, terse.Invalid("limit", "at least 1")
	}
	ctx, cancel, err := s.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer cancel()
	if after >= math.MaxInt64 {
		return nil, nil
	}
	var list []terse.Change
	var floor int64
	err = s.query(ctx, op, func(r pgx.Rows) error {
		var seq, version, number, links int64
		var kind int16
		var workspace int32
		var at time.Time
		var docKind, docID string
		if err := r.Scan(&floor, &seq, &kind, &workspace, &version, &at, &number, &links, &docKind, &docID); err != nil {
			return err
		}
		if seq == 0 {
			return nil
		}
		c := terse.Change{
			Seq: uint64(seq), Kind: terse.ChangeKind(kind), Workspace: terse.WorkspaceID(workspace), At: terse.MillisOf(at),
			Version: uint64(version), DocKind: terse.Kind(docKind), DocID: docID,
		}
		if c.Kind != terse.ChangeDocument {
			c.Runs = []terse.Run{{First: terse.LinkNumber(number), Count: uint64(links)}}
		}
		list = append(list, c)
		return nil
	}, changesQuery, int64(after), int64(limit))
	if err != nil {
		return nil, err
	}
	if after < uint64(floor) {
		return nil, &terse.ForgottenError{Floor: uint64(floor)}
	}
	slices.SortFunc(list, func(a, b terse.Change) int { return cmp.Compare(a.Seq, b.Seq) }) // a join promises no order
	return list, nil
}

// FeedHead returns a position such that every change that Changes does not show yet has a larger Seq, without reading
// what is below it.
func (s *Store) FeedHead(ctx context.Context) (uint64, error) {
	const op = "feed head"
	ctx, cancel, err := s.enter(ctx, op)
	if err != nil {
		return 0, err
	}
	defer cancel()
	var end int64
	err = s.query(ctx, op, func(r pgx.Rows) error { return r.Scan(&end) }, "select terse.feed_end()")
	if err != nil {
		return 0, err
	}
	return uint64(max(end, 1)) - 1, nil
}

// maintain forgets old changes until ctx ends.
func (s *Store) maintain(ctx context.Context) {
	t := time.NewTicker(s.o.MaintainEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := s.trim(ctx); err != nil && ctx.Err() == nil {
			s.o.Log.Warn("old changes stay until the next try", "error", err)
		}
	}
}

// trimChanges is how many changes one statement forgets.
const trimChanges = 5_000

// trim forgets changes that are older than FeedMaxAge, oldest first, and moves the floor of the feed with them.
func (s *Store) trim(ctx context.Context) error {
	for {
		call, cancel := context.WithTimeout(ctx, s.o.CallTimeout)
		var gone int64
		err := s.pool.QueryRow(call, `with old as (select seq, at from terse.changes order by seq limit $2),
			gone as (delete from terse.changes c using old where c.seq = old.seq and old.at < now() - make_interval(secs => $1) returning c.seq),
			moved as (update terse.feed_floor set floor = greatest(floor, (select max(seq) from gone)) where exists (select from gone))
			select count(*) from gone`,
			s.o.FeedMaxAge.Seconds(), int64(trimChanges)).Scan(&gone)
		cancel()
		if err != nil {
			return failure(ctx, "forget old changes", err, false)
		}
		if gone < trimChanges {
			return nil
		}
	}
}
