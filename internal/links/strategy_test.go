package links

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/store/memstore"
)

// takenStore says that the codes of the first inserts of ByCode links are taken.
type takenStore struct {
	terse.Store
	left atomic.Int64
}

func (s *takenStore) InsertLinks(ctx context.Context, c *terse.Chunk) error {
	var rows []int
	for i := range c.Links {
		if c.Links[i].ByCode && i%2 == 0 {
			rows = append(rows, i)
		}
	}
	if len(rows) > 0 && s.left.Add(-1) >= 0 {
		return &terse.AliasConflictError{Rows: rows}
	}
	return s.Store.InsertLinks(ctx, c)
}

func setupTaken(t *testing.T) (*setupT, *takenStore) {
	now := terse.Millis(1_800_000_000_000)
	store := &takenStore{Store: memstore.New(func() terse.Millis { return now })}
	return setupOn(t, store, &now), store
}

func (s *setupT) domain(t *testing.T, n domains.New) {
	t.Helper()
	if _, err := s.domains.Create(t.Context(), testWorkspace, n, nil); err != nil {
		t.Fatal(err)
	}
}

// found fails the test unless the link is found by number, by its short URL and in the list.
func (s *setupT) found(t *testing.T, l terse.Link) {
	t.Helper()
	byNumber, err := s.Get(t.Context(), actor, l.Number)
	if err != nil || byNumber.Code != l.Code || byNumber.ByCode != l.ByCode {
		t.Errorf("Get: %+v, %v; want the code %s", byNumber, err, l.Code)
	}
	byCode, err := s.Lookup(t.Context(), actor, s.ShortURL(&l))
	if err != nil || byCode.Number != l.Number {
		t.Errorf("Lookup of %s: %v, %v; want %v", s.ShortURL(&l), byCode.Number, err, l.Number)
	}
	page, err := s.List(t.Context(), actor, Filter{Query: l.Code})
	if err != nil || !slices.ContainsFunc(page.Links, func(m terse.Link) bool { return m.Number == l.Number && m.Code == l.Code }) {
		t.Errorf("List of %s: %+v, %v", l.Code, page.Links, err)
	}
}

// TestStrategies creates, changes and deletes a link of every strategy and of the class secret.
func TestStrategies(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		domain domains.New
		class  string
		length int
	}{
		{domains.New{}, "", 7},
		{domains.New{}, ClassSecret, 22},
		{domains.New{Strategy: "random"}, "", 7},
		{domains.New{Strategy: "random"}, ClassSecret, 22},
		{domains.New{Strategy: "snowflake"}, "", 11},
		{domains.New{Strategy: "snowflake"}, ClassSecret, 22},
		{domains.New{Strategy: "random", Alphabet: "crockford32", CodeLength: 6}, "", 6},
		{domains.New{Alphabet: "crockford32"}, ClassSecret, 26},
	} {
		t.Run(fmt.Sprintf("%s %s %s", tc.domain.Strategy, tc.domain.Alphabet, tc.class), func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			tc.domain.Host = "s.example"
			s.domain(t, tc.domain)
			n := NewLink{Destination: "https://example.com/a", Domain: "s.example", Class: tc.class}
			l := s.create(t, n)
			if len(l.Code) != tc.length || int(l.Number.Space()) != tc.length {
				t.Fatalf("%+v", l)
			}
			s.found(t, l)
			u, err := s.Update(t.Context(), actor, l.Number, Patch{Destination: new("https://example.com/b")}, 1)
			if err != nil || u.Code != l.Code {
				t.Fatalf("%+v, %v", u, err)
			}
			s.found(t, u)

			// A link of the class secret is not handed to somebody who asks for any link.
			n.Class, n.IfExists, n.Destination = "", IfExistsReuse, "https://example.com/b"
			again, created, err := s.Create(t.Context(), actor, n, CreateOptions{})
			if err != nil || created != (tc.class == ClassSecret) {
				t.Errorf("reuse: created %v, %v", created, err)
			}
			if !created && again.Code != l.Code {
				t.Errorf("reuse: %s, want %s", again.Code, l.Code)
			}

			if err := s.Delete(t.Context(), actor, l.Number, 0); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Lookup(t.Context(), actor, s.ShortURL(&l)); !errors.Is(err, terse.ErrNotFound) {
				t.Errorf("after the deletion: %v", err)
			}
			_, _, err = s.Create(t.Context(), actor, NewLink{Destination: "https://example.com/c", Domain: "s.example", Code: l.Code}, CreateOptions{})
			wantError(t, err, "alias_taken", "code") // a code is never used again
		})
	}
}

func TestClassRefused(t *testing.T) {
	t.Parallel()
	s := setup(t)
	for _, n := range []NewLink{{Class: "public"}, {Class: ClassSecret, Code: "mine"}} {
		n.Destination = "https://example.com/"
		_, _, err := s.Create(t.Context(), actor, n, CreateOptions{})
		wantError(t, err, "invalid", "class")
	}
}

// TestAliasOfSnowflakeShape: a code that the clock will come to is nobody's alias.
func TestAliasOfSnowflakeShape(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.domain(t, domains.New{Host: "s.example", Strategy: "snowflake"})
	_, _, err := s.Create(t.Context(), actor, NewLink{Destination: "https://example.com/", Domain: "s.example", Code: "0000000000a"}, CreateOptions{})
	wantError(t, err, "alias_taken", "code")
	s.found(t, s.create(t, NewLink{Destination: "https://example.com/", Domain: "s.example", Code: "zzzzzzzzzzz"}))
	s.found(t, s.create(t, NewLink{Destination: "https://example.com/", Code: "0000000000a"})) // on a permuted domain
}

// TestCollision has codes that are taken: others are drawn, at most ten for a link.
func TestCollision(t *testing.T) {
	t.Parallel()
	for _, class := range []string{"", ClassSecret} {
		s, store := setupTaken(t)
		s.domain(t, domains.New{Host: "r.example", Strategy: "random"})
		n := NewLink{Destination: "https://example.com/", Domain: "r.example", Class: class}
		store.left.Store(domains.MaxDraws - 1)
		documents := 0
		l, _, err := s.Create(t.Context(), actor, n, CreateOptions{Documents: func(terse.Link) ([]terse.Document, error) { documents++; return nil, nil }})
		if err != nil || documents != domains.MaxDraws || s.domains.Collisions() != domains.MaxDraws-1 {
			t.Errorf("%v; %d drafts of documents, %d collisions", err, documents, s.domains.Collisions())
		}
		s.found(t, l)
		store.left.Store(domains.MaxDraws)
		_, _, err = s.Create(t.Context(), actor, n, CreateOptions{})
		wantError(t, err, "no_free_code", "")
	}
}

// TestBulkStrategies mixes strategies, classes and aliases in one request, in which half of
// the drawn codes are taken again and again, and repeats the request.
func TestBulkStrategies(t *testing.T) {
	t.Parallel()
	for _, draws := range []int{0, domains.MaxDraws - 1, domains.MaxDraws} {
		s, store := setupTaken(t)
		s.domain(t, domains.New{Host: "r.example", Strategy: "random"})
		s.domain(t, domains.New{Host: "s.example", Strategy: "snowflake"})
		store.left.Store(int64(draws))
		const rows = 300
		var body strings.Builder
		for i := range rows {
			extra := [...]string{``, `,"domain":"r.example"`, `,"domain":"s.example"`, `,"class":"secret"`, fmt.Sprintf(`,"code":"alias-%d"`, i), `,"class":"x"`}[i%6]
			fmt.Fprintf(&body, `{"destination":"https://example.com/%d"%s}`+"\n", i, extra)
		}
		var first string
		for range 2 {
			var out bytes.Buffer
			sum, err := s.Bulk(t.Context(), actor, BulkOptions{In: NDJSON, Out: NDJSON, Ledger: "same"}, strings.NewReader(body.String()), &out)
			if err != nil {
				t.Fatalf("%d draws: %v", draws, err)
			}
			if draws < domains.MaxDraws && sum.Failed != rows/6 || draws == domains.MaxDraws && sum.Failed <= rows/6 {
				t.Errorf("%d draws: %+v", draws, sum)
			}
			if draws == domains.MaxDraws {
				break // a row that failed for chance fails the second time for another reason
			}
			if first == "" {
				first = out.String()
			} else if out.String() != first {
				t.Errorf("the repetition answers otherwise:\n%s\nfirst:\n%s", out.String(), first)
			}
		}
		page, err := s.List(t.Context(), actor, Filter{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range page.Links {
			s.found(t, l)
		}
		if draws < domains.MaxDraws && len(page.Links) != rows*5/6 {
			t.Errorf("%d draws: %d links", draws, len(page.Links))
		}
	}
}
