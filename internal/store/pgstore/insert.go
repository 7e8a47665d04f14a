package pgstore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/terselink/terse"
)

// InsertLinks implements terse.Store: one transaction, in which the links travel as a binary COPY.
func (s *Store) InsertLinks(ctx context.Context, chunk *terse.Chunk) error {
	const op = "insert links"
	if err := checkChunk(chunk); err != nil {
		return err
	}
	ctx, cancel, err := s.enter(ctx, op)
	if err != nil {
		return err
	}
	defer cancel()
	if len(chunk.Links) == 0 && len(chunk.Documents) == 0 {
		return nil
	}
	c := plan(chunk)
	defer c.release()
	for try := 1; ; try++ {
		err = s.write(ctx, op, func(ctx context.Context, t *txn) error { return s.insert(ctx, t, c) })
		taken := terse.ErrorCode(err) == terse.CodeInternal && violates(err, "links", "aliases")
		raced := terse.ErrorCode(err) == terse.CodeInternal && violates(err, "documents")
		switch {
		case err == nil:
			s.inserted.Add(uint64(len(chunk.Links)))
			return nil
		case !taken && !raced && !errors.Is(err, errReserved):
			return err
		case try > tries:
			return &terse.Error{Code: terse.CodeUnavailable, Message: "other writes are in the way", Op: op, Err: err}
		}
		rows, checkErr := s.conflicts(ctx, op, chunk)
		if checkErr != nil {
			return checkErr
		}
		if len(rows) > 0 {
			return &terse.AliasConflictError{Rows: rows}
		}
		// Whatever was in the way has gone, or is a document, which the next try finds.
	}
}

// errReserved: an alias would reserve an index that has been leased.
var errReserved = &terse.Error{Code: terse.CodeConflict, Reason: "reserved", Message: "an index is leased"}

// planned is a chunk in the order in which it is written, with what follows from it.
type planned struct {
	links     []*terse.Link // by number
	named     []*terse.Link // by domain and code
	reserves  []terse.LinkNumber
	documents []*terse.Document // by name
	puts      []terse.Document  // the same as they came
	runs      []run
	campaigns []campaignCount
	tagged    int
	buf       *[]byte
}

// run is a row of inserts.
type run struct {
	workspace terse.WorkspaceID
	first     terse.LinkNumber
	count     int64
	from, to  terse.Millis // of CreatedAt
}

type campaignCount struct {
	workspace terse.WorkspaceID
	campaign  terse.CampaignID
	links     int64
}

var copyBuffers = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled is the largest buffer that is kept for the next chunk.
const maxPooled = 8 << 20

func (c *planned) release() {
	if cap(*c.buf) <= maxPooled {
		copyBuffers.Put(c.buf)
	}
}

func plan(chunk *terse.Chunk) *planned {
	c := &planned{links: make([]*terse.Link, len(chunk.Links)), buf: copyBuffers.Get().(*[]byte)}
	for i := range chunk.Links {
		l := &chunk.Links[i]
		c.links[i] = l
		if l.Named() {
			c.named = append(c.named, l)
		}
		if l.Reserves != 0 {
			c.reserves = append(c.reserves, l.Reserves)
		}
		if l.Settings != nil {
			c.tagged += len(l.Settings.Tags)
		}
	}
	byNumber := func(a, b *terse.Link) int { return cmp.Compare(a.Number, b.Number) }
	if !slices.IsSortedFunc(c.links, byNumber) {
		slices.SortFunc(c.links, byNumber)
	}
	slices.SortFunc(c.named, func(a, b *terse.Link) int {
		return cmp.Or(cmp.Compare(a.Number.Domain(), b.Number.Domain()), strings.Compare(a.Code, b.Code))
	})
	slices.Sort(c.reserves)
	c.reserves = slices.Compact(c.reserves)
	for i := range chunk.Documents {
		c.documents = append(c.documents, &chunk.Documents[i])
	}
	slices.SortFunc(c.documents, compareDocuments)
	c.puts = chunk.Documents

	c.runs = runsOf(c.links)
	counts := map[campaignCount]int64{}
	for _, l := range c.links {
		if l.Campaign != 0 {
			counts[campaignCount{workspace: l.Workspace, campaign: l.Campaign}]++
		}
	}
	for k, n := range counts {
		k.links = n
		c.campaigns = append(c.campaigns, k)
	}
	slices.SortFunc(c.campaigns, func(a, b campaignCount) int {
		return cmp.Or(cmp.Compare(a.workspace, b.workspace), cmp.Compare(a.campaign, b.campaign))
	})
	return c
}

// runsOf joins links, which ascend by number, into runs: each of one workspace with consecutive
// numbers. Runs of one workspace ascend, so that a listing, which walks them backwards, falls.
func runsOf(links []*terse.Link) []run {
	var runs []run
	open := map[terse.WorkspaceID]int{}
	for _, l := range links {
		if i, ok := open[l.Workspace]; ok {
			if r := &runs[i]; r.first+terse.LinkNumber(r.count) == l.Number {
				r.count++
				r.from, r.to = min(r.from, l.CreatedAt), max(r.to, l.CreatedAt)
				continue
			}
		}
		open[l.Workspace] = len(runs)
		runs = append(runs, run{workspace: l.Workspace, first: l.Number, count: 1, from: l.CreatedAt, to: l.CreatedAt})
	}
	return runs
}

// checkChunk refuses what no caller may send, whatever the store holds.
func checkChunk(chunk *terse.Chunk) error {
	for i := range chunk.Links {
		l := &chunk.Links[i]
		switch {
		case l.Number == 0:
			return terse.Invalid("number", "link %d of the chunk has no number", i)
		case l.Named() && l.Code == "":
			return terse.Invalid("code", "link %d of the chunk has no code to be found by", i)
		case l.Reserves != 0 && (l.Number.Space() != terse.AliasSpace || l.Reserves.Domain() != l.Number.Domain() || l.Reserves.Space() == terse.AliasSpace):
			return terse.Invalid("reserves", "link %d of the chunk reserves what only an alias of that domain could", i)
		}
		if err := checkLink(l); err != nil {
			return err
		}
	}
	seen := map[docKey]struct{}{}
	for i := range chunk.Documents {
		d := &chunk.Documents[i]
		if err := checkDocument(d); err != nil {
			return err
		}
		if _, ok := seen[keyOf(d)]; ok {
			return terse.Invalid("documents", "the chunk puts a document twice")
		}
		seen[keyOf(d)] = struct{}{}
	}
	return nil
}

// insert writes the chunk in one transaction.
func (s *Store) insert(ctx context.Context, t *txn, c *planned) error {
	var base int64
	var shard int16
	b := begin(s)
	b.Queue("select terse.seq(0), (pg_backend_pid() % 16)::smallint").QueryRow(func(r pgx.Row) error { return r.Scan(&base, &shard) })
	reserved := lockSpaces(b, c.reserves)
	old := lockDocuments(b, c.documents)
	if err := t.run(ctx, b); err != nil {
		return err
	}
	if reserved != nil && *reserved {
		return errReserved
	}
	// The links decide before the documents: a document that is in the way is reported when the links went in.
	b = &pgx.Batch{}
	if len(c.reserves) > 0 {
		d, sp, idx := splitNumbers(c.reserves)
		b.Queue(`insert into terse.reservations (domain_id, space, idx)
			select * from unnest($1::int[], $2::smallint[], $3::bigint[]) on conflict do nothing`, d, sp, idx)
	}
	if len(c.named) > 0 {
		domains, codes, numbers := make([]int32, len(c.named)), make([]string, len(c.named)), make([]int64, len(c.named))
		for i, l := range c.named {
			domains[i], codes[i], numbers[i] = int32(l.Number.Domain()), l.Code, int64(l.Number)
		}
		b.Queue(`insert into terse.aliases (domain_id, code, number) select * from unnest($1::int[], $2::text[], $3::bigint[])`, domains, codes, numbers)
	}
	if b.Len() > 0 {
		if err := t.run(ctx, b); err != nil {
			return err
		}
	}
	positions, err := s.copyLinks(ctx, t, c, base)
	if err != nil {
		return err
	}
	if err := checkPuts(c.puts, old); err != nil {
		return err
	}

	b = &pgx.Batch{}
	if c.tagged > 0 {
		queueTags(b, c, positions)
	}
	queueRuns(b, c.runs, base)
	for _, n := range c.campaigns {
		queueCount(b, n.workspace, n.campaign, shard, n.links)
	}
	next := base + int64(len(c.runs)) + 1
	for i, d := range c.documents {
		queueDocument(b, d, next+int64(i))
	}
	return t.commit(ctx, b)
}

// copyLinks sends the links and returns the position of each, which is the sequence number of its run.
func (s *Store) copyLinks(ctx context.Context, t *txn, c *planned, base int64) ([]int64, error) {
	if len(c.links) == 0 {
		return nil, nil
	}
	var positions []int64
	open := map[terse.WorkspaceID]int{}
	next := 0
	buf := append((*c.buf)[:0], copyHeader...)
	defer func() { *c.buf = buf[:0] }()
	for _, l := range c.links {
		i, ok := open[l.Workspace]
		if !ok || c.runs[i].first+terse.LinkNumber(c.runs[i].count) <= l.Number {
			i = next
			open[l.Workspace] = i
			next++
		}
		position := base + int64(i) + 1
		if c.tagged > 0 {
			positions = append(positions, position)
		}
		var err error
		if buf, err = appendLink(buf, l, position); err != nil {
			return nil, err
		}
	}
	buf = append(buf, 0xff, 0xff) // the end
	_, err := t.conn.Conn().PgConn().CopyFrom(ctx, bytes.NewReader(buf), "copy terse.links ("+copyColumns+") from stdin with (format binary)")
	return positions, err
}

// lockSpaces makes sure that no lease moves while aliases reserve indexes, and comes to say whether
// one of them has been leased already. Nil if there is nothing to reserve.
func lockSpaces(b *pgx.Batch, reserves []terse.LinkNumber) *bool {
	if len(reserves) == 0 {
		return nil
	}
	leased := new(bool)
	d, sp, idx := splitNumbers(reserves)
	// A space without a lease has no row that could be locked.
	b.Queue(`insert into terse.spaces (domain_id, space, next, lineage)
		select distinct domain_id, space, 0, '' from unnest($1::int[], $2::smallint[]) as r (domain_id, space) order by 1, 2
		on conflict do nothing`, d, sp)
	b.Queue(`select from terse.spaces s where exists (
			select from unnest($1::int[], $2::smallint[]) as r (domain_id, space) where r.domain_id = s.domain_id and r.space = s.space)
		order by s.domain_id, s.space for share`, d, sp)
	// A statement of its own: it sees what was committed while the one before waited.
	b.Queue(`select exists (select from unnest($1::int[], $2::smallint[], $3::bigint[]) as r (domain_id, space, idx)
			join terse.spaces s using (domain_id, space)
			where r.idx < s.next and not exists (
				select from terse.reservations v where v.domain_id = r.domain_id and v.space = r.space and v.idx = r.idx))`, d, sp, idx).
		QueryRow(func(r pgx.Row) error { return r.Scan(leased) })
	return leased
}

func splitNumbers(numbers []terse.LinkNumber) (domains []int32, spaces []int16, indexes []int64) {
	for _, n := range numbers {
		domains, spaces, indexes = append(domains, int32(n.Domain())), append(spaces, int16(n.Space())), append(indexes, int64(n.Index()))
	}
	return domains, spaces, indexes
}

func queueTags(b *pgx.Batch, c *planned, positions []int64) {
	var workspaces []int32
	var tags []string
	var at, numbers []int64
	for i, l := range c.links {
		if l.Settings == nil {
			continue
		}
		for _, tag := range l.Settings.Tags {
			workspaces, tags = append(workspaces, int32(l.Workspace)), append(tags, tag)
			at, numbers = append(at, positions[i]), append(numbers, int64(l.Number))
		}
	}
	b.Queue(`insert into terse.link_tags (workspace_id, tag, position, number)
		select * from unnest($1::int[], $2::text[], $3::bigint[], $4::bigint[]) on conflict do nothing`, workspaces, tags, at, numbers)
}

func queueRuns(b *pgx.Batch, runs []run, base int64) {
	if len(runs) == 0 {
		return
	}
	seqs, workspaces := make([]int64, len(runs)), make([]int32, len(runs))
	firsts, counts := make([]int64, len(runs)), make([]int64, len(runs))
	from, to := make([]int64, len(runs)), make([]int64, len(runs))
	for i, r := range runs {
		seqs[i], workspaces[i], firsts[i], counts[i] = base+int64(i)+1, int32(r.workspace), int64(r.first), r.count
		from[i], to[i] = int64(r.from), int64(r.to)
	}
	b.Queue(`insert into terse.inserts (seq, workspace_id, first_number, links, created_from, created_to)
		select seq, workspace_id, first_number, links, to_timestamp(created_from / 1000.0), to_timestamp(created_to / 1000.0)
		from unnest($1::bigint[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
			as r (seq, workspace_id, first_number, links, created_from, created_to)`, seqs, workspaces, firsts, counts, from, to)
}

// queueCount moves the number of links of a campaign.
func queueCount(b *pgx.Batch, w terse.WorkspaceID, c terse.CampaignID, shard int16, links int64) {
	b.Queue(`insert into terse.campaign_links as c (workspace_id, campaign_id, shard, links) values ($1, $2, $3, $4)
		on conflict (workspace_id, campaign_id, shard) do update set links = c.links + excluded.links`, int32(w), int64(c), shard, links)
}
