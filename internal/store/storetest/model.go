package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/faultstore"
	"github.com/terselink/terse/internal/store/memstore"
)

// RunModel drives the store and memstore through the same random histories and
// compares every result and every change. In the second half calls fail before
// or after they are applied: the store must then be in the one state or in the
// other, and the repetition of a call must end as the contract says.
//
// The flags -rapid.checks and -rapid.steps make it longer; a failure prints how
// to repeat it.
func RunModel(t *testing.T, o Opts) {
	t.Helper()
	for _, mode := range []struct {
		name   string
		faults bool
	}{{"Plain", false}, {"Faults", true}} {
		t.Run(mode.name, func(t *testing.T) {
			s := newSuite(t, o)
			rapid.Check(t, func(t *rapid.T) { newModel(t, s, mode.faults).run(t) })
		})
	}
}

// model is one history: two workspaces on two domains, used by both stores.
type model struct {
	*suite
	faults *faultstore.Store // the store under test behind faults; nil for none
	real   terse.Store
	oracle *memstore.Store
	scopes [2]*scope

	used  []terse.Link       // every link that was ever inserted, as it was then
	free  []terse.LinkNumber // leased and not used
	after [2]uint64          // where the feeds of real and oracle have been read to
}

// The model draws from small pools, so that histories collide.
var (
	modelAliases = []string{"Al-1", "al-1", "Al-1 ", "\u00e9", "e\u0301"}
	modelCodes   = []string{"Al-1", "rAnd01", "rAnd02", "rAnd03", "rAnd04"} // one is an alias too
	modelDests   = []string{"https://example.com/a", "https://example.com/A", "https://example.com/b", "https://example.com/%C3%BC"}
	modelTags    = [][]string{nil, {"x"}, {"X", "x"}, {"x", "y"}}
	modelIDs     = []string{"", "", "e1", "E1"}
	modelDocs    = []string{"a", "B", "b", "é"}
)

const (
	modelSpace    terse.SpaceID = 4  // the space that aliases reserve in
	modelReserved               = 12 // below this index
	modelNamed    terse.SpaceID = 6  // whose links are found by their code
)

func newModel(t *rapid.T, s *suite, faults bool) *model {
	m := &model{suite: s, real: s.store, oracle: memstore.New(nil)}
	if faults {
		m.faults = faultstore.New(s.store)
		m.real = m.faults
	}
	for i := range m.scopes {
		n := s.scopes.Add(1)
		m.scopes[i] = &scope{tb: t, suite: s, ctx: context.Background(), w: terse.WorkspaceID(n), d: terse.DomainID(n)}
	}
	m.after[0] = m.scopes[0].tail()
	// Numbers to begin with, so that histories need not begin with leases.
	for _, c := range m.scopes {
		for _, space := range []terse.SpaceID{terse.AliasSpace, 5, modelNamed} {
			req := terse.LeaseRequest{Domain: c.d, Space: space, Count: 4}
			for _, store := range []terse.Store{s.store, m.oracle} {
				l, err := store.Lease(c.ctx, req)
				wantErr(t, "Lease", err, nil)
				if store == s.store {
					m.free = append(m.free, usable(l)...)
				}
			}
		}
	}
	return m
}

func (m *model) run(t *rapid.T) {
	actions := map[string]func(*rapid.T){
		"lease":           m.lease,
		"next":            m.next,
		"insert":          m.insert,
		"insert more":     m.insert,
		"insert again":    m.insertAgain,
		"update":          m.update,
		"delete":          m.delete,
		"get":             m.get,
		"get alias":       m.getAlias,
		"find":            m.find,
		"list":            m.list,
		"put document":    m.putDocument,
		"delete document": m.deleteDocument,
		"documents":       m.documents,
	}
	// The length of one Repeat is set by -rapid.steps, 30 on average: too short for
	// links to be made, changed, deleted and looked for.
	for range 4 {
		t.Repeat(actions)
	}
}

// scope draws one of the two, bound to the part of the history that t is.
func (m *model) scope(t *rapid.T) *scope {
	c := *rapid.SampledFrom(m.scopes[:]).Draw(t, "scope")
	c.tb = t
	return &c
}

// workspace returns the workspace of one scope: domains are shared by both.
func (m *model) workspace(t *rapid.T) terse.WorkspaceID {
	return rapid.SampledFrom(m.scopes[:]).Draw(t, "workspace").w
}

// write runs a call on both stores, struck by a fault or not, and compares the
// outcomes and what it changed. It returns the outcome of the oracle; applied
// says that the caller got it.
func (m *model) write(t *rapid.T, op faultstore.Op, do func(terse.Store) (any, error)) (v any, err error, applied bool) {
	fault := "none"
	if m.faults != nil {
		fault = rapid.SampledFrom([]string{"none", "none", "before", "after"}).Draw(t, "fault")
	}
	switch fault {
	case "before":
		m.faults.Inject(faultstore.Fault{Op: op})
		_, err := do(m.real)
		wantErr(t, string(op)+" that failed before", err, terse.ErrUnavailable)
		m.compareChanges(t)
		return nil, err, false
	case "after":
		m.faults.Inject(faultstore.Fault{Op: op, When: faultstore.After})
		_, err := do(m.real)
		wantErr(t, string(op)+" that failed after", err, terse.ErrUnknownOutcome)
		v, want := do(m.oracle)
		m.compareChanges(t)
		if op == faultstore.Lease {
			return nil, err, false // the range is lost
		}
		// The caller repeats it.
		_, got := do(m.real)
		_, again := do(m.oracle)
		if d := diffErr(got, again); d != "" {
			t.Fatalf("%s repeated after an unknown outcome: %s", op, d)
		}
		m.compareChanges(t)
		return v, want, want == nil
	}
	got, gotErr := do(m.real)
	v, err = do(m.oracle)
	if d := diffErr(gotErr, err); d != "" {
		t.Fatalf("%s: %s", op, d)
	}
	if d := cmp.Diff(v, got, cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("%s (-want +got):\n%s", op, d)
	}
	m.compareChanges(t)
	return v, err, err == nil
}

// diffErr says how two outcomes differ in what programs can see, "" if they do not.
func diffErr(got, want error) string {
	if (got == nil) != (want == nil) {
		return fmt.Sprintf("got error %v, want %v", got, want)
	}
	a, isRows := errors.AsType[*terse.AliasConflictError](got)
	b, wantRows := errors.AsType[*terse.AliasConflictError](want)
	if isRows || wantRows {
		if isRows != wantRows || !slices.Equal(a.Rows, b.Rows) {
			return fmt.Sprintf("got error %+v, want %+v", got, want)
		}
		return ""
	}
	if want != nil {
		a, isOurs := errors.AsType[*terse.Error](got)
		b, _ := errors.AsType[*terse.Error](want)
		if !isOurs || a.Code != b.Code || a.Reason != b.Reason || a.Field != b.Field {
			return fmt.Sprintf("got error %+v, want %+v", got, want)
		}
	}
	return ""
}

// compareChanges compares what both feeds say about the last write. Several
// changes of one write may come in any order, and runs may cover more.
func (m *model) compareChanges(t *rapid.T) {
	m.scopes[0].tb = t
	inserted := map[terse.LinkNumber]terse.WorkspaceID{}
	oracle, err := m.oracle.Changes(context.Background(), m.after[1], 1000)
	wantErr(t, "Changes of the oracle", err, nil)
	if len(oracle) > 0 {
		m.after[1] = oracle[len(oracle)-1].Seq
	}
	want := events(oracle, func(w terse.WorkspaceID, n terse.LinkNumber) bool { inserted[n] = w; return true })
	slices.SortFunc(want, compareEvents)

	var list []terse.Change
	m.scopes[0].eventually(func() string {
		list = m.scopes[0].changes(m.after[0], 1000)
		got := of(events(list, func(w terse.WorkspaceID, n terse.LinkNumber) bool { return inserted[n] == w }), m.scopes[0].w, m.scopes[1].w)
		slices.SortFunc(got, compareEvents)
		if !slices.Equal(got, want) {
			return fmt.Sprintf("Changes: got %+v, want %+v", got, want)
		}
		return ""
	})
	if len(list) > 0 {
		m.after[0] = list[len(list)-1].Seq
	}
}

func (m *model) lease(t *rapid.T) {
	c := m.scope(t)
	req := terse.LeaseRequest{
		Domain: c.d,
		Space:  rapid.SampledFrom([]terse.SpaceID{terse.AliasSpace, modelSpace, 5, modelNamed}).Draw(t, "space"),
		Count:  rapid.Uint64Range(0, 6).Draw(t, "count"),
		Cap:    rapid.SampledFrom([]uint64{0, 0, 5, 10, 1 << 60}).Draw(t, "cap"),
	}
	v, _, applied := m.write(t, faultstore.Lease, func(s terse.Store) (any, error) { return s.Lease(c.ctx, req) })
	if applied {
		m.free = append(m.free, usable(v.(terse.Lease))...)
	}
}

func (m *model) next(t *rapid.T) {
	c := m.scope(t)
	space := rapid.SampledFrom([]terse.SpaceID{terse.AliasSpace, modelSpace, 5, 6}).Draw(t, "space")
	got, err := m.real.Next(c.ctx, c.d, space)
	wantErr(t, "Next", err, nil)
	want, err := m.oracle.Next(c.ctx, c.d, space)
	wantErr(t, "Next of the oracle", err, nil)
	if got != want {
		t.Fatalf("Next: got %d, want %d", got, want)
	}
}

// number draws a number that is free, or seldom one that was used.
func (m *model) number(t *rapid.T) terse.LinkNumber {
	if len(m.used) > 0 && (len(m.free) == 0 || rapid.IntRange(0, 9).Draw(t, "use again") == 0) {
		return rapid.SampledFrom(m.used).Draw(t, "used link").Number
	}
	if len(m.free) == 0 {
		t.Skip("no number yet")
	}
	return rapid.SampledFrom(m.free).Draw(t, "number")
}

// settle draws the fields that an update may change.
func (m *model) settle(t *rapid.T, l *terse.Link) {
	l.Destination = rapid.SampledFrom(modelDests).Draw(t, "destination")
	l.ExternalID = rapid.SampledFrom(modelIDs).Draw(t, "external id")
	l.Campaign = rapid.SampledFrom([]terse.CampaignID{0, 0, 1, 2}).Draw(t, "campaign")
	l.ExpiresAt = rapid.SampledFrom([]terse.Millis{0, 0, epoch, epoch + 10}).Draw(t, "expiry")
	l.DefaultExpiry = l.ExpiresAt == epoch
	l.Status = terse.Status(rapid.IntRange(0, 1).Draw(t, "status") * rapid.IntRange(0, 1).Draw(t, "seldom"))
	l.Settings = nil
	if tags := rapid.SampledFrom(modelTags).Draw(t, "tags"); tags != nil {
		l.Settings = &terse.LinkSettings{Tags: tags}
	}
}

func (m *model) insert(t *rapid.T) {
	c := m.scope(t)
	at := m.now()
	var chunk terse.Chunk
	for range rapid.IntRange(0, 5).Draw(t, "links") {
		l := terse.Link{Number: m.number(t), Workspace: m.workspace(t), Version: 1, CreatedAt: at, UpdatedAt: at}
		m.settle(t, &l)
		switch {
		case l.Number.Space() == modelNamed:
			l.Code, l.ByCode = rapid.SampledFrom(modelCodes).Draw(t, "code"), true
		case l.Number.Space() != terse.AliasSpace:
			l.Code = codeOf(l.Number.Space(), l.Number.Index())
		case rapid.Bool().Draw(t, "reserves"):
			i := rapid.Uint64Range(0, modelReserved-1).Draw(t, "reserved index")
			l.Code, l.Reserves = codeOf(modelSpace, i), terse.NewLinkNumber(l.Number.Domain(), modelSpace, i)
		default:
			l.Code = rapid.SampledFrom(modelAliases).Draw(t, "alias")
		}
		chunk.Links = append(chunk.Links, l)
	}
	for _, id := range rapid.SliceOfNDistinct(rapid.SampledFrom(modelDocs), 0, 2, rapid.ID).Draw(t, "documents") {
		d := c.doc(terse.KindJob, id, m.docVersion(t, c, id))
		d.Data = fmt.Appendf(nil, `{"at":%d}`, at)
		chunk.Documents = append(chunk.Documents, d)
	}
	m.insertChunk(t, chunk)
}

func (m *model) insertChunk(t *rapid.T, chunk terse.Chunk) {
	_, _, applied := m.write(t, faultstore.InsertLinks, func(s terse.Store) (any, error) {
		return nil, s.InsertLinks(context.Background(), &chunk)
	})
	if !applied {
		return
	}
	for _, l := range chunk.Links {
		m.used = append(m.used, l)
		m.free = slices.DeleteFunc(m.free, func(n terse.LinkNumber) bool { return n == l.Number })
	}
}

// insertAgain repeats an insertion long after: nothing may rise from the dead.
func (m *model) insertAgain(t *rapid.T) {
	if len(m.used) == 0 {
		t.Skip("nothing was inserted yet")
	}
	m.insertChunk(t, terse.Chunk{Links: []terse.Link{rapid.SampledFrom(m.used).Draw(t, "link")}})
}

// stored returns what the oracle has of a drawn link; it may be gone.
func (m *model) stored(t *rapid.T) terse.Link {
	l := terse.Link{Number: m.number(t), Workspace: m.scopes[0].w, Version: 1, CreatedAt: m.now()}
	switch l.Number.Space() {
	case terse.AliasSpace:
	case modelNamed:
		l.ByCode = true
	default:
		l.Code = codeOf(l.Number.Space(), l.Number.Index())
	}
	dst := make([]terse.Link, 1)
	wantErr(t, "GetLinks of the oracle", m.oracle.GetLinks(context.Background(), []terse.LinkKey{{Number: l.Number, Code: l.Code}}, dst), nil)
	if dst[0].Number != 0 {
		return dst[0]
	}
	return l
}

// seen draws the version that a caller saw: mostly the right one.
func seen(t *rapid.T, version uint64) uint64 {
	return version + rapid.SampledFrom([]uint64{0, 0, 0, 1}).Draw(t, "seen") - rapid.SampledFrom([]uint64{0, 0, 0, 1}).Draw(t, "stale")
}

func (m *model) update(t *rapid.T) {
	l := m.stored(t)
	saw := seen(t, l.Version)
	l.Version = saw + rapid.SampledFrom([]uint64{1, 1, 1, 0, 5}).Draw(t, "step")
	l.UpdatedAt = m.now()
	m.settle(t, &l)
	m.write(t, faultstore.UpdateLink, func(s terse.Store) (any, error) { return nil, s.UpdateLink(context.Background(), &l, saw) })
}

func (m *model) delete(t *rapid.T) {
	l := m.stored(t)
	saw := seen(t, l.Version)
	if rapid.Bool().Draw(t, "any version") {
		saw = 0
	}
	m.write(t, faultstore.DeleteLink, func(s terse.Store) (any, error) {
		return nil, s.DeleteLink(context.Background(), terse.LinkKey{Number: l.Number, Code: l.Code}, saw)
	})
}

func (m *model) get(t *rapid.T) {
	var keys []terse.LinkKey
	for range rapid.IntRange(1, 10).Draw(t, "keys") {
		l := m.stored(t)
		keys = append(keys, terse.LinkKey{Number: l.Number, Code: l.Code})
	}
	got, want := make([]terse.Link, len(keys)), make([]terse.Link, len(keys))
	wantErr(t, "GetLinks", m.real.GetLinks(context.Background(), keys, got), nil)
	wantErr(t, "GetLinks of the oracle", m.oracle.GetLinks(context.Background(), keys, want), nil)
	for i := range got {
		if d := diffLink(got[i], want[i]); d != "" {
			t.Fatalf("GetLinks of %+v: %s", keys[i], d)
		}
	}
}

func (m *model) getAlias(t *rapid.T) {
	c := m.scope(t)
	alias := rapid.OneOf(rapid.SampledFrom(modelAliases), rapid.SampledFrom(modelCodes), rapid.Custom(func(t *rapid.T) string {
		return codeOf(modelSpace, rapid.Uint64Range(0, modelReserved-1).Draw(t, "index"))
	})).Draw(t, "alias")
	got, gotErr := m.real.GetAlias(c.ctx, c.d, alias)
	want, err := m.oracle.GetAlias(c.ctx, c.d, alias)
	if d := diffErr(gotErr, err); d != "" {
		t.Fatalf("GetAlias of %q: %s", alias, d)
	}
	if d := diffLink(got, want); d != "" {
		t.Fatalf("GetAlias of %q: %s", alias, d)
	}
}

func (m *model) find(t *rapid.T) {
	c := m.scope(t)
	w, dest := m.workspace(t), rapid.SampledFrom(modelDests).Draw(t, "destination")
	at := rapid.SampledFrom([]terse.Millis{epoch - 1, epoch, epoch + 10}).Draw(t, "at")
	got, gotErr := m.real.FindPlain(c.ctx, w, c.d, dest, at)
	_, err := m.oracle.FindPlain(c.ctx, w, c.d, dest, at)
	if d := diffErr(gotErr, err); d != "" {
		t.Fatalf("FindPlain of %q: %s", dest, d)
	}
	if err != nil {
		return
	}
	// Any one will do, as long as it is right and as stored.
	want := make([]terse.Link, 1)
	wantErr(t, "GetLinks of the oracle", m.oracle.GetLinks(c.ctx, []terse.LinkKey{{Number: got.Number}}, want), nil)
	if d := diffLink(got, want[0]); d != "" {
		t.Fatalf("FindPlain of %q: %s", dest, d)
	}
	if got.Workspace != w || got.Number.Domain() != c.d || got.Destination != dest || !got.Plain() || got.ExpiredAt(at) {
		t.Fatalf("FindPlain of %q at %d: %+v", dest, at, got)
	}
}

func (m *model) list(t *rapid.T) {
	c := m.scope(t)
	q := terse.ListQuery{
		Domain:     rapid.SampledFrom([]terse.DomainID{0, 0, m.scopes[0].d, m.scopes[1].d}).Draw(t, "domain"),
		Campaign:   rapid.SampledFrom([]terse.CampaignID{0, 0, 0, 1}).Draw(t, "campaign"),
		Tag:        rapid.SampledFrom([]string{"", "", "x", "X"}).Draw(t, "tag"),
		ExternalID: rapid.SampledFrom([]string{"", "", "e1", "E1"}).Draw(t, "external id"),
		Limit:      rapid.SampledFrom([]int{1, 2, 5, 100}).Draw(t, "limit"),
	}
	if len(m.used) > 0 && rapid.Bool().Draw(t, "range") {
		q.CreatedFrom = rapid.SampledFrom(m.used).Draw(t, "from").CreatedAt
		q.CreatedTo = q.CreatedFrom + terse.Millis(rapid.IntRange(1, 5).Draw(t, "length"))
	}
	o := *c
	o.suite = &suite{store: m.oracle}
	want := o.list(q, nil)
	c.eventually(func() string { return diffList(c.list(q, nil), want) })
}

// docVersion draws the version of a write: mostly the next one.
func (m *model) docVersion(t *rapid.T, c *scope, id string) uint64 {
	d, err := m.oracle.GetDocument(c.ctx, c.w, terse.KindJob, id)
	if err != nil && !errors.Is(err, terse.ErrNotFound) {
		t.Fatalf("GetDocument of the oracle: %v", err)
	}
	return max(1, d.Version+rapid.SampledFrom([]uint64{1, 1, 1, 0, 2}).Draw(t, "version"))
}

func (m *model) putDocument(t *rapid.T) {
	c := m.scope(t)
	id := rapid.SampledFrom(modelDocs).Draw(t, "id")
	d := c.doc(terse.KindJob, id, m.docVersion(t, c, id))
	m.write(t, faultstore.PutDocument, func(s terse.Store) (any, error) { return nil, s.PutDocument(c.ctx, d) })
}

func (m *model) deleteDocument(t *rapid.T) {
	c := m.scope(t)
	id := rapid.SampledFrom(modelDocs).Draw(t, "id")
	version := rapid.Uint64Range(0, 3).Draw(t, "version")
	m.write(t, faultstore.DeleteDocument, func(s terse.Store) (any, error) {
		return nil, s.DeleteDocument(c.ctx, c.w, terse.KindJob, id, version)
	})
}

func (m *model) documents(t *rapid.T) {
	c := m.scope(t)
	after := rapid.SampledFrom(append([]string{"", "c"}, modelDocs...)).Draw(t, "after")
	limit := rapid.IntRange(1, 5).Draw(t, "limit")
	got, err := m.real.ListDocuments(c.ctx, c.w, terse.KindJob, after, limit)
	wantErr(t, "ListDocuments", err, nil)
	want, err := m.oracle.ListDocuments(c.ctx, c.w, terse.KindJob, after, limit)
	wantErr(t, "ListDocuments of the oracle", err, nil)
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("ListDocuments after %q (-want +got):\n%s", after, d)
	}
	for _, d := range want {
		c.wantDoc(d)
	}
}
