package storetest_test

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/memstore"
)

// Each type is memstore with one defect; the comment says which mistake of an
// engine it stands for.

// overlap takes the counter back after a lease, as an unsynced one does in a crash.
type overlap struct {
	*memstore.Store
	last atomic.Uint64
}

func (s *overlap) Lease(ctx context.Context, req terse.LeaseRequest) (terse.Lease, error) {
	l, err := s.Store.Lease(ctx, req)
	if err == nil && l.Start > 0 && s.last.Add(1)%5 == 0 {
		l.Start--
	}
	return l, err
}

// noReserved leases without reading the reservations.
type noReserved struct{ *memstore.Store }

func (s noReserved) Lease(ctx context.Context, req terse.LeaseRequest) (terse.Lease, error) {
	l, err := s.Store.Lease(ctx, req)
	l.Reserved = nil
	return l, err
}

// noCap looks at the cap before it adds.
type noCap struct{ *memstore.Store }

func (s noCap) Lease(ctx context.Context, req terse.LeaseRequest) (terse.Lease, error) {
	next, err := s.Next(ctx, req.Domain, req.Space)
	if err != nil {
		return terse.Lease{}, err
	}
	if req.Cap != 0 && next >= req.Cap {
		return terse.Lease{}, terse.ErrSpaceFull
	}
	req.Cap = 0
	return s.Store.Lease(ctx, req)
}

// piecemeal has no transaction around a chunk.
type piecemeal struct{ *memstore.Store }

func (s piecemeal) InsertLinks(ctx context.Context, chunk *terse.Chunk) error {
	var rows []int
	for i := range chunk.Links {
		err := s.Store.InsertLinks(ctx, &terse.Chunk{Links: chunk.Links[i : i+1]})
		if errors.Is(err, terse.ErrAliasTaken) {
			rows = append(rows, i)
		} else if err != nil {
			return err
		}
	}
	if rows != nil {
		return &terse.AliasConflictError{Rows: rows}
	}
	return s.Store.InsertLinks(ctx, &terse.Chunk{Documents: chunk.Documents})
}

// firstRow reports the constraint that the database met first.
type firstRow struct{ *memstore.Store }

func (s firstRow) InsertLinks(ctx context.Context, chunk *terse.Chunk) error {
	err := s.Store.InsertLinks(ctx, chunk)
	if e, ok := errors.AsType[*terse.AliasConflictError](err); ok {
		return &terse.AliasConflictError{Rows: e.Rows[:1]}
	}
	return err
}

// noChunkDocs writes the links only.
type noChunkDocs struct{ *memstore.Store }

func (s noChunkDocs) InsertLinks(ctx context.Context, chunk *terse.Chunk) error {
	return s.Store.InsertLinks(ctx, &terse.Chunk{Links: chunk.Links})
}

// foldCase has a collation that ignores case.
type foldCase struct{ *memstore.Store }

func (s foldCase) GetAlias(ctx context.Context, d terse.DomainID, alias string) (terse.Link, error) {
	l, err := s.Store.GetAlias(ctx, d, alias)
	if errors.Is(err, terse.ErrNotFound) {
		return s.Store.GetAlias(ctx, d, strings.ToLower(alias))
	}
	return l, err
}

// trimIDs compares as the CHAR type of SQL does.
type trimIDs struct{ *memstore.Store }

func (s trimIDs) ListLinks(ctx context.Context, w terse.WorkspaceID, q terse.ListQuery) (terse.LinkPage, error) {
	if t := strings.TrimRight(q.ExternalID, " "); t != "" {
		q.ExternalID = t
	}
	return s.Store.ListLinks(ctx, w, q)
}

// manyWinners looks whether an alias is free and then writes, without a lock:
// losers of the race believe that they have won.
type manyWinners struct{ *memstore.Store }

func (s manyWinners) InsertLinks(ctx context.Context, chunk *terse.Chunk) error {
	if len(chunk.Links) != 1 || chunk.Links[0].Number.Space() != terse.AliasSpace {
		return s.Store.InsertLinks(ctx, chunk)
	}
	l := &chunk.Links[0]
	_, err := s.GetAlias(ctx, l.Number.Domain(), l.Code)
	free := errors.Is(err, terse.ErrNotFound)
	runtime.Gosched()
	err = s.Store.InsertLinks(ctx, chunk)
	if free && errors.Is(err, terse.ErrAliasTaken) && l.Reserves == 0 {
		return nil
	}
	return err
}

// purgeAll leaves the campaign out of its condition.
type purgeAll struct{ *memstore.Store }

func (s purgeAll) PurgeLinks(ctx context.Context, w terse.WorkspaceID, c terse.CampaignID, limit int) (int, error) {
	page, err := s.ListLinks(ctx, w, terse.ListQuery{Limit: limit})
	for i := range page.Links {
		err = errors.Join(err, s.DeleteLink(ctx, terse.LinkKey{Number: page.Links[i].Number}, 0))
	}
	return len(page.Links), err
}

// purgeNothing has only marked the links, and says that there are none left.
type purgeNothing struct{ *memstore.Store }

func (s purgeNothing) PurgeLinks(ctx context.Context, _ terse.WorkspaceID, _ terse.CampaignID, _ int) (int, error) {
	return 0, s.Ping(ctx)
}

// noVersions overwrites whatever is there.
type noVersions struct{ *memstore.Store }

func (s noVersions) UpdateLink(ctx context.Context, l *terse.Link, ifVersion uint64) error {
	cur := make([]terse.Link, 1)
	if err := s.GetLinks(ctx, []terse.LinkKey{{Number: l.Number}}, cur); err != nil {
		return err
	}
	if cur[0].Version < l.Version && ifVersion < l.Version {
		ifVersion = cur[0].Version
	}
	return s.Store.UpdateLink(ctx, l, ifVersion)
}

// checkThenAct reads the version, thinks, and writes whatever has happened meanwhile.
type checkThenAct struct{ *memstore.Store }

func (s checkThenAct) UpdateLink(ctx context.Context, l *terse.Link, ifVersion uint64) error {
	cur := make([]terse.Link, 1)
	if err := s.GetLinks(ctx, []terse.LinkKey{{Number: l.Number}}, cur); err != nil {
		return err
	}
	runtime.Gosched()
	err := s.Store.UpdateLink(ctx, l, ifVersion)
	if errors.Is(err, terse.ErrVersion) && cur[0].Version == ifVersion {
		return nil // the later write wins, nobody is told
	}
	return err
}

// offsets makes cursors of positions, which move when links come and go.
type offsets struct{ *memstore.Store }

func (s offsets) ListLinks(ctx context.Context, w terse.WorkspaceID, q terse.ListQuery) (terse.LinkPage, error) {
	skip := 0
	if q.Cursor != "" {
		n, err := strconv.Atoi(q.Cursor)
		if err != nil {
			return terse.LinkPage{}, terse.Invalid("cursor", "no number")
		}
		skip = n
	}
	if q.Limit < 1 || q.Limit > 10_000 {
		return s.Store.ListLinks(ctx, w, q)
	}
	all, err := everything(ctx, s.Store, w, q)
	if err != nil {
		return terse.LinkPage{}, err
	}
	page := terse.LinkPage{Links: all[min(skip, len(all)):]}
	if len(page.Links) > q.Limit {
		page.Links = page.Links[:q.Limit]
		page.Next = strconv.Itoa(skip + q.Limit)
	}
	return page, nil
}

func everything(ctx context.Context, s terse.Store, w terse.WorkspaceID, q terse.ListQuery) (all []terse.Link, err error) {
	q.Limit, q.Cursor = 10_000, ""
	for {
		p, err := s.ListLinks(ctx, w, q)
		if err != nil {
			return nil, err
		}
		all = append(all, p.Links...)
		if p.Next == "" {
			return all, nil
		}
		q.Cursor = p.Next
	}
}

// onePage takes a short page for the last one.
type onePage struct{ *memstore.Store }

func (s onePage) ListLinks(ctx context.Context, w terse.WorkspaceID, q terse.ListQuery) (terse.LinkPage, error) {
	p, err := s.Store.ListLinks(ctx, w, q)
	if len(p.Links) == 10_000 {
		p.Next = ""
	}
	return p, err
}

// oldestFirst reverses every page.
type oldestFirst struct{ *memstore.Store }

func (s oldestFirst) ListLinks(ctx context.Context, w terse.WorkspaceID, q terse.ListQuery) (terse.LinkPage, error) {
	p, err := s.Store.ListLinks(ctx, w, q)
	slices.Reverse(p.Links)
	return p, err
}

// noTagFilter lists links without the tag too.
type noTagFilter struct{ *memstore.Store }

func (s noTagFilter) ListLinks(ctx context.Context, w terse.WorkspaceID, q terse.ListQuery) (terse.LinkPage, error) {
	q.Tag = ""
	return s.Store.ListLinks(ctx, w, q)
}

// late answers from an index that is one insert behind.
type late struct {
	*memstore.Store
	mu     sync.Mutex
	newest terse.LinkNumber
}

func (s *late) InsertLinks(ctx context.Context, chunk *terse.Chunk) error {
	err := s.Store.InsertLinks(ctx, chunk)
	if err == nil && len(chunk.Links) > 0 {
		s.mu.Lock()
		s.newest = chunk.Links[len(chunk.Links)-1].Number
		s.mu.Unlock()
	}
	return err
}

func (s *late) FindPlain(ctx context.Context, w terse.WorkspaceID, d terse.DomainID, dest string, at terse.Millis) (terse.Link, error) {
	l, err := s.Store.FindPlain(ctx, w, d, dest, at)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && l.Number == s.newest {
		return terse.Link{}, terse.ErrNotFound
	}
	return l, err
}

// undead compares expiry with > where it should with >=.
type undead struct{ *memstore.Store }

func (s undead) FindPlain(ctx context.Context, w terse.WorkspaceID, d terse.DomainID, dest string, at terse.Millis) (terse.Link, error) {
	return s.Store.FindPlain(ctx, w, d, dest, at-1)
}

// collated orders and pages documents as a locale does.
type collated struct{ *memstore.Store }

func (s collated) ListDocuments(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, after string, limit int) ([]terse.Document, error) {
	all, err := s.Store.ListDocuments(ctx, w, kind, "", 1<<30)
	if err != nil {
		return nil, err
	}
	less := func(a, b string) int {
		return cmp.Or(strings.Compare(strings.ToLower(a), strings.ToLower(b)), strings.Compare(a, b))
	}
	all = slices.DeleteFunc(all, func(d terse.Document) bool { return after != "" && less(d.ID, after) <= 0 })
	slices.SortFunc(all, func(a, b terse.Document) int { return less(a.ID, b.ID) })
	return all[:min(limit, len(all))], nil
}

// lossyFeed never shows some changes, as when numbers are drawn before the commit
// and a reader has passed them by the time they are visible.
type lossyFeed struct{ *memstore.Store }

func (s lossyFeed) Changes(ctx context.Context, after uint64, limit int) ([]terse.Change, error) {
	list, err := s.Store.Changes(ctx, after, limit)
	return slices.DeleteFunc(list, func(c terse.Change) bool { return c.Seq%7 == 0 }), err
}

// deaf never looks at the context.
type deaf struct{ *memstore.Store }

func (s deaf) UpdateLink(ctx context.Context, l *terse.Link, ifVersion uint64) error {
	return s.Store.UpdateLink(context.WithoutCancel(ctx), l, ifVersion)
}

// panics uses what Close has closed.
type panics struct {
	*memstore.Store
	closed atomic.Bool
}

func (s *panics) Close() error {
	s.closed.Store(true)
	return s.Store.Close()
}

func (s *panics) GetAlias(ctx context.Context, d terse.DomainID, alias string) (terse.Link, error) {
	if s.closed.Load() {
		panic("closed")
	}
	return s.Store.GetAlias(ctx, d, alias)
}

// riser forgets deleted numbers, so a late repetition brings a link back.
type riser struct {
	*memstore.Store
	mu   sync.Mutex
	dead map[terse.LinkNumber]bool
}

func (s *riser) DeleteLink(ctx context.Context, key terse.LinkKey, ifVersion uint64) error {
	err := s.Store.DeleteLink(ctx, key, ifVersion)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.dead == nil {
			s.dead = map[terse.LinkNumber]bool{}
		}
		s.dead[key.Number] = true
	}
	return err
}

func (s *riser) InsertLinks(ctx context.Context, chunk *terse.Chunk) error {
	err := s.Store.InsertLinks(ctx, chunk)
	e, ok := errors.AsType[*terse.AliasConflictError](err)
	if !ok {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rows := slices.DeleteFunc(e.Rows, func(i int) bool { return s.dead[chunk.Links[i].Number] })
	if len(rows) == 0 {
		return nil
	}
	return &terse.AliasConflictError{Rows: rows}
}

// amnesiac keeps nothing on disk.
type amnesiac struct{ *memstore.Store }

func (s amnesiac) Reopen() terse.Store { return amnesiac{memstore.New(nil)} }

// torn writes the documents of a chunk after its links.
type torn struct{ *memstore.Store }

func (s torn) InsertLinks(ctx context.Context, chunk *terse.Chunk) error {
	if err := s.Store.InsertLinks(ctx, &terse.Chunk{Links: chunk.Links}); err != nil {
		return err
	}
	for range 100 {
		runtime.Gosched()
	}
	return s.Store.InsertLinks(ctx, &terse.Chunk{Documents: chunk.Documents})
}

// noReservedDump leaves out a table.
type noReservedDump struct{ *memstore.Store }

func (s noReservedDump) Dump(ctx context.Context, after string, limit int) (terse.Part, error) {
	p, err := s.Store.Dump(ctx, after, limit)
	p.Reserved = nil
	return p, err
}

// firstVersions writes documents as new ones.
type firstVersions struct{ *memstore.Store }

func (s firstVersions) Load(ctx context.Context, part *terse.Part) error {
	p := *part
	p.Documents = slices.Clone(p.Documents)
	for i := range p.Documents {
		p.Documents[i].Version = min(p.Documents[i].Version, 1)
	}
	return s.Store.Load(ctx, &p)
}

// backwards returns each page as a listing would.
type backwards struct{ *memstore.Store }

func (s backwards) DumpLinks(ctx context.Context, w terse.WorkspaceID, after string, limit int) (terse.LinkPage, error) {
	p, err := s.Store.DumpLinks(ctx, w, after, limit)
	slices.Reverse(p.Links)
	return p, err
}

// hush shows what is left of the feed to whoever has missed the rest.
type hush struct{ *memstore.Store }

func (s hush) Changes(ctx context.Context, after uint64, limit int) ([]terse.Change, error) {
	list, err := s.Store.Changes(ctx, after, limit)
	if e, ok := errors.AsType[*terse.ForgottenError](err); ok {
		return s.Store.Changes(ctx, e.Floor, limit)
	}
	return list, err
}

// alarmist tells everybody that something is missing.
type alarmist struct{ *memstore.Store }

func (s alarmist) Changes(ctx context.Context, after uint64, limit int) ([]terse.Change, error) {
	list, err := s.Store.Changes(ctx, after, limit)
	if err == nil && len(list) == 0 && after > 0 {
		if _, err := s.Store.Changes(ctx, 0, 1); err != nil {
			return nil, &terse.ForgottenError{Floor: after + 1}
		}
	}
	return list, err
}
