package storecopy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/facts"
	"github.com/terselink/terse/internal/store/memstore"
)

const now terse.Millis = 1_790_000_000_000

// source returns a store with some of everything: two workspaces, codes that follow from numbers and others, aliases in between.
func source(t *testing.T) *memstore.Store {
	t.Helper()
	ctx := context.Background()
	s := memstore.New(func() terse.Millis { return now })
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	r, err := domains.Open(ctx, domains.Options{Store: s, Clock: func() terse.Millis { return now }, Log: slog.New(slog.DiscardHandler)})
	check(err)
	defer r.Close()
	d, err := r.EnsureDefault(ctx, "go.example.com", "https")
	check(err)
	for _, w := range []terse.WorkspaceID{1, 2} {
		check(s.PutDocument(ctx, terse.Document{Kind: terse.KindWorkspace, ID: w.String(), Version: 1, Data: []byte(`{}`)}))
		doc := terse.Document{Workspace: w, Kind: terse.KindClicks, ID: "x", Data: []byte(`1`)}
		for doc.Version = 1; doc.Version < 4; doc.Version++ {
			check(s.PutDocument(ctx, doc))
		}
	}
	space := d.Current().Space
	lease, err := s.Lease(ctx, terse.LeaseRequest{Domain: d.Number, Space: space, Count: 5_000})
	check(err)
	next := lease.Start
	for i := range 60 {
		var links []terse.Link
		w := terse.WorkspaceID(1 + i%2)
		for range 1 + 37*(i%3) {
			n := terse.NewLinkNumber(d.Number, space, next)
			next++
			links = append(links, terse.Link{Number: n, Workspace: w, Version: 1, CreatedAt: now, UpdatedAt: now, Code: string(d.AppendCode(nil, n)), Destination: fmt.Sprintf("https://example.com/%d", next)})
		}
		check(s.InsertLinks(ctx, &terse.Chunk{Links: links}))
		a, err := s.Lease(ctx, terse.LeaseRequest{Domain: d.Number, Space: terse.AliasSpace, Count: 1})
		check(err)
		alias := terse.Link{Number: terse.NewLinkNumber(d.Number, terse.AliasSpace, a.Start), Workspace: w, Version: 1, CreatedAt: now, UpdatedAt: now, Code: fmt.Sprintf("alias-%d", i), Destination: "https://example.com/a"}
		if i%4 == 0 {
			alias.Reserves = terse.NewLinkNumber(d.Number, space, 7_000+uint64(i))
		}
		check(s.InsertLinks(ctx, &terse.Chunk{Links: []terse.Link{alias}}))
		if i%5 == 0 {
			b, err := s.Lease(ctx, terse.LeaseRequest{Domain: d.Number, Space: terse.SecretSpace, Count: 1})
			check(err)
			secret := terse.Link{Number: terse.NewLinkNumber(d.Number, terse.SecretSpace, b.Start), Workspace: w, Version: 1, CreatedAt: now, UpdatedAt: now, ByCode: true, Code: fmt.Sprintf("secret-%d", i), Destination: "https://example.com/s", Settings: &terse.LinkSettings{Tags: []string{"t"}}}
			check(s.InsertLinks(ctx, &terse.Chunk{Links: []terse.Link{secret}}))
			if i%10 == 0 {
				check(s.DeleteLink(ctx, terse.LinkKey{Number: secret.Number, Code: secret.Code}, 0))
			}
		}
		changed := links[0]
		changed.Version, changed.ExternalID, changed.UpdatedAt = 9, "changed", now+5
		check(s.UpdateLink(ctx, &changed, 1))
	}
	return s
}

func survey0(t *testing.T, s terse.Portable) *Survey {
	t.Helper()
	v, err := survey(context.Background(), s, 0, func(uint64) {})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// wantSame fails the test unless the two stores hold the same, in the same order.
func wantSame(t *testing.T, a, b terse.Portable) {
	t.Helper()
	va, vb := survey0(t, a), survey0(t, b)
	if va.digest() != vb.digest() || va.LinkCount() != vb.LinkCount() || va.DocumentCount() != vb.DocumentCount() || vb.state != nil {
		t.Fatalf("the stores differ: %+v and %+v", va, vb)
	}
	for w := range va.workspaces {
		pa, err := a.DumpLinks(context.Background(), w, "", 10_000)
		if err != nil {
			t.Fatal(err)
		}
		pb, err := b.DumpLinks(context.Background(), w, "", 10_000)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(pa.Links, pb.Links); d != "" {
			t.Fatalf("the links of workspace %d differ, or their order:\n%s", w, d)
		}
	}
}

func TestCopy(t *testing.T) {
	ctx := context.Background()
	from, to := source(t), memstore.New(nil)
	const day = "2026-11-23"
	if err := from.PutDocument(ctx, terse.Document{Kind: terse.KindSalt, ID: day, Version: 1, Data: []byte(`"00112233445566778899aabbccddeeff"`)}); err != nil {
		t.Fatal(err)
	}
	var phases []Phase
	report, err := Run(ctx, Options{From: from, To: to, Sample: 150, Progress: func(p Progress) {
		if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
			phases = append(phases, p.Phase)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, from, to)
	if _, err := to.GetDocument(ctx, 0, terse.KindSalt, day); !errors.Is(err, terse.ErrNotFound) {
		t.Errorf("the copy has a salt of visitors: %v", err)
	}
	if report.Resumed || report.Sampled != 150 || report.Source.LinkCount() < 2_000 {
		t.Errorf("report %+v", report)
	}
	if d := cmp.Diff([]Phase{PhaseReading, PhaseCopying, PhaseVerifying}, phases); d != "" {
		t.Error(d)
	}
	if _, err := Run(ctx, Options{From: from, To: to}); terse.ErrorCode(err) != terse.CodeConflict {
		t.Errorf("a copy into a store that has something: %v", err)
	}
	if _, err := Run(ctx, Options{From: memstore.New(nil), To: memstore.New(nil)}); terse.ErrorCode(err) != terse.CodeInvalid {
		t.Errorf("a copy of nothing: %v", err)
	}
}

var errStop = errors.New("the process ends here")

// mortal fails the n-th write, applied or not, and every one after it, as a process that is killed.
type mortal struct {
	terse.Portable
	left    int
	applied bool
}

func (m *mortal) write(f func() error) error {
	m.left--
	if m.left > 0 || m.left == 0 && m.applied {
		if err := f(); err != nil || m.left > 0 {
			return err
		}
	}
	return errStop
}

func (m *mortal) InsertLinks(ctx context.Context, c *terse.Chunk) error {
	return m.write(func() error { return m.Portable.InsertLinks(ctx, c) })
}

func (m *mortal) PutDocument(ctx context.Context, d terse.Document) error {
	return m.write(func() error { return m.Portable.PutDocument(ctx, d) })
}

func (m *mortal) DeleteDocument(ctx context.Context, w terse.WorkspaceID, k terse.Kind, id string, v uint64) error {
	return m.write(func() error { return m.Portable.DeleteDocument(ctx, w, k, id, v) })
}

func (m *mortal) Load(ctx context.Context, p *terse.Part) error {
	return m.write(func() error { return m.Portable.Load(ctx, p) })
}

func (m *mortal) Lease(ctx context.Context, r terse.LeaseRequest) (l terse.Lease, err error) {
	err = m.write(func() (err error) { l, err = m.Portable.Lease(ctx, r); return err })
	return l, err
}

// TestGoesOnAnywhere ends a copy at every write, before and after it, and repeats it.
func TestGoesOnAnywhere(t *testing.T) {
	ctx := context.Background()
	from := source(t)
	for _, applied := range []bool{false, true} {
		for n := 1; ; n++ {
			to := memstore.New(nil)
			_, err := Run(ctx, Options{From: from, To: &mortal{Portable: to, left: n, applied: applied}})
			if err == nil {
				if n < 20 {
					t.Fatalf("a copy has %d writes only", n)
				}
				break
			}
			if !errors.Is(err, errStop) {
				t.Fatalf("write %d: %v", n, err)
			}
			if n > 1 || applied {
				done := len(survey0(t, to).Kinds) > 0 && Unfinished(ctx, to) == nil
				if done && !strings.HasPrefix(err.Error(), "end the copy") {
					t.Fatalf("write %d: a server would start on half a copy", n)
				}
				if done {
					wantSame(t, from, to)
					continue
				}
			}
			report, err := Run(ctx, Options{From: from, To: to})
			if err != nil || report.Resumed != (n > 1 || applied) {
				t.Fatalf("after write %d: resumed %t, %v", n, report.Resumed, err)
			}
			wantSame(t, from, to)
		}
	}
}

func TestNotTheSameCopy(t *testing.T) {
	ctx := context.Background()
	from, to := source(t), memstore.New(nil)
	if _, err := Run(ctx, Options{From: from, To: &mortal{Portable: to, left: 10}}); !errors.Is(err, errStop) {
		t.Fatal(err)
	}
	if err := Unfinished(ctx, to); terse.ErrorCode(err) != terse.CodeConflict {
		t.Errorf("half a copy: %v", err)
	}
	if _, err := Run(ctx, Options{From: source(t), To: to}); terse.ErrorCode(err) != terse.CodeConflict { // another key
		t.Errorf("another source: %v", err)
	}
	if _, err := Run(ctx, Options{From: to, To: memstore.New(nil)}); terse.ErrorCode(err) != terse.CodeInvalid {
		t.Errorf("half a copy as a source: %v", err)
	}
	if err := from.PutDocument(ctx, terse.Document{Kind: terse.KindMeta, ID: "new", Version: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(ctx, Options{From: from, To: to}); terse.ErrorCode(err) != terse.CodeConflict {
		t.Errorf("a source that has changed: %v", err)
	}
}

// lossy changes what it is given.
type lossy struct {
	terse.Portable
	link func(*terse.Link)
	part func(*terse.Part)
}

func (s lossy) InsertLinks(ctx context.Context, c *terse.Chunk) error {
	for i := range c.Links {
		if c.Links[i].Code == "alias-4" && s.link != nil {
			s.link(&c.Links[i])
		}
	}
	return s.Portable.InsertLinks(ctx, c)
}

func (s lossy) Load(ctx context.Context, p *terse.Part) error {
	q := *p
	if s.part != nil {
		s.part(&q)
	}
	return s.Portable.Load(ctx, &q)
}

func TestMismatch(t *testing.T) {
	from := source(t)
	for what, s := range map[string]lossy{
		"links of domain 1 go.example.com": {link: func(l *terse.Link) { l.Destination += "!" }},
		"documents of kind clicks":         {part: func(p *terse.Part) { p.Documents = p.Documents[:len(p.Documents)-1] }},
		"reserved codes":                   {part: func(p *terse.Part) { p.Reserved = nil }},
		"retired codes":                    {part: func(p *terse.Part) { p.Retired = nil }},
	} {
		to := memstore.New(nil)
		s.Portable = to
		_, err := Run(t.Context(), Options{From: from, To: s, Sample: 10_000})
		e, ok := errors.AsType[*MismatchError](err)
		if !ok || !strings.Contains(strings.Join(e.Differences, "\n"), what) && what != "documents of kind clicks" {
			t.Errorf("%s: got %v", what, err)
		}
		if s.link != nil && !strings.HasSuffix(fmt.Sprint(err), ": destination differ") {
			t.Errorf("the field is not named: %v", err)
		}
		if Unfinished(t.Context(), to) == nil {
			t.Errorf("%s: a server would start on it", what)
		}
	}
}

func TestWrongKey(t *testing.T) {
	ctx := context.Background()
	from := source(t)
	doc, err := from.GetDocument(ctx, 0, terse.KindDomain, "go.example.com")
	if err != nil {
		t.Fatal(err)
	}
	var d terse.Domain
	if err := json.Unmarshal(doc.Data, &d); err != nil {
		t.Fatal(err)
	}
	d.PermKey[0] ^= 1
	doc.Version++
	if doc.Data, err = json.Marshal(d); err != nil {
		t.Fatal(err)
	}
	if err := from.PutDocument(ctx, doc); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(ctx, Options{From: from, To: memstore.New(nil)}); terse.ErrorCode(err) != terse.CodeInvalid {
		t.Errorf("a domain with a wrong key: %v", err)
	}
}

// TestEveryField: a field of a link that differs is named, and changes the digest.
func TestEveryField(t *testing.T) {
	base := terse.Link{Number: terse.NewLinkNumber(1, terse.AliasSpace, 1), Code: "a"}
	digest := func(l *terse.Link) uint64 {
		v := Survey{Links: map[terse.DomainID]Tally{}}
		v.addLink(l)
		return v.Links[1].Digest
	}
	for i := range reflect.TypeFor[terse.Link]().NumField() {
		name := reflect.TypeFor[terse.Link]().Field(i).Name
		if name == "Reserves" { // of inserts only
			continue
		}
		l := base
		switch f := reflect.ValueOf(&l).Elem().Field(i); f.Kind() {
		case reflect.String:
			f.SetString(f.String() + "b")
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Int64:
			f.SetInt(7)
		case reflect.Pointer:
			l.Settings = &terse.LinkSettings{Title: "x"}
		default:
			f.SetUint(f.Uint() + 1)
		}
		if got := differences(&base, &l); len(got) != 1 {
			t.Errorf("%s: the differences are %v", name, got)
		}
		if digest(&base) == digest(&l) {
			t.Errorf("%s does not change the digest", name)
		}
	}
	empty := base
	empty.Settings = &terse.LinkSettings{Tags: []string{}, Rules: nil}
	if digest(&base) != digest(&empty) || len(differences(&base, &empty)) > 0 {
		t.Error("settings of which none is set differ from none")
	}
}

// TestAnalyticsFollowTheCopy: an engine that followed the source, whose feed is longer, learns of what happens in the copy.
func TestAnalyticsFollowTheCopy(t *testing.T) {
	ctx := t.Context()
	from, to := source(t), memstore.New(func() terse.Millis { return now })
	for v := range uint64(2_000) {
		if err := from.PutDocument(ctx, terse.Document{Kind: terse.KindMeta, ID: "often", Version: v + 1, Data: []byte("1")}); err != nil {
			t.Fatal(err)
		}
	}
	engine := enginetest.NewReference(nil)
	follow := func(s terse.Store, until func() bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		done := make(chan error, 1)
		f := facts.New(facts.Options{Store: s, Sink: engine, Every: time.Millisecond})
		go func() { done <- f.Run(ctx) }()
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for !until() {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatal("the engine does not learn what happens")
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	place := func() uint64 {
		at, known, err := engine.FactsAt(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !known {
			return 0
		}
		return at
	}
	follow(from, func() bool { return place() > 2_000 })
	old := place()
	if _, err := Run(ctx, Options{From: from, To: to}); err != nil {
		t.Fatal(err)
	}
	changes, err := to.Changes(ctx, 0, 10_000)
	if err != nil || len(changes) == 0 || changes[len(changes)-1].Seq >= old {
		t.Fatalf("%d changes in the copy, %d before; %v", len(changes), old, err)
	}
	follow(to, func() bool { at := place(); return at != 0 && at != old })
	told := place()
	data, err := json.Marshal(analytics.Conversion{ID: "c1", At: now, Workspace: 1, Kind: analytics.Lead, Link: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := to.PutDocument(ctx, terse.Document{Workspace: 1, Kind: terse.KindConversion, ID: "c1", Version: 1, Data: data}); err != nil {
		t.Fatal(err)
	}
	follow(to, func() bool { return place() == told+1 })
}
