package links

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/store/memstore"
)

// setupT bundles a service on the memory store with a clock that tests move.
type setupT struct {
	*Service
	store   terse.Store
	domains *domains.Registry
	now     *terse.Millis
	changes []Change
	mu      sync.Mutex
}

const testWorkspace = terse.WorkspaceID(1)

var actor = Actor{Workspace: testWorkspace, By: "key1"}

func setup(t testing.TB) *setupT {
	t.Helper()
	now := terse.Millis(1_800_000_000_000)
	clock := func() terse.Millis { return now }
	return setupOn(t, memstore.New(clock), &now)
}

func setupOn(t testing.TB, store terse.Store, now *terse.Millis, set ...func(*Options)) *setupT {
	t.Helper()
	clock := func() terse.Millis { return *now }
	log := slog.New(slog.DiscardHandler)
	reg, err := domains.Open(t.Context(), domains.Options{Store: store, Clock: clock, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reg.EnsureDefault(t.Context(), "go.example.com", "https"); err != nil {
		t.Fatal(err)
	}
	s := &setupT{store: store, domains: reg, now: now}
	o := Options{Store: store, Domains: reg, Clock: clock, Log: log, OnChange: func(c Change) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.changes = append(s.changes, c)
	}}
	for _, f := range set {
		f(&o)
	}
	s.Service = New(o)
	t.Cleanup(func() { reg.Close(); store.Close() })
	return s
}

func (s *setupT) create(t testing.TB, n NewLink) terse.Link {
	t.Helper()
	l, _, err := s.Create(context.Background(), actor, n, CreateOptions{})
	if err != nil {
		t.Fatalf("Create(%+v): %v", n, err)
	}
	return l
}

func (s *setupT) bulkString(t testing.TB, o BulkOptions, body string) (string, BulkSummary) {
	t.Helper()
	var out strings.Builder
	sum, err := s.Bulk(t.Context(), actor, o, strings.NewReader(body), &out)
	if err != nil {
		t.Fatalf("Bulk: %v\n%s", err, out.String())
	}
	return out.String(), sum
}

func wantError(t testing.TB, err error, code, field string) {
	t.Helper()
	e, ok := errors.AsType[*terse.Error](err)
	if !ok || e.PublicCode() != code || e.Field != field {
		t.Fatalf("error %v; want %s for %q", err, code, field)
	}
}

func TestCreateAndGet(t *testing.T) {
	t.Parallel()
	s := setup(t)
	l := s.create(t, NewLink{Destination: "https://example.com/a", Title: "t", Tags: []string{"b", "a", "b"}, ExternalID: "x"})
	if len(l.Code) != 7 || s.ShortURL(&l) != "https://go.example.com/"+l.Code {
		t.Fatalf("code %q, short URL %q", l.Code, s.ShortURL(&l))
	}
	got, err := s.Get(t.Context(), actor, l.Number)
	if err != nil || got.Destination != "https://example.com/a" || got.Code != l.Code || got.Version != 1 || strings.Join(got.Settings.Tags, ",") != "a,b" {
		t.Fatalf("Get: %+v, %v", got, err)
	}
	for _, u := range []string{s.ShortURL(&l), "go.example.com/" + l.Code, "HTTP://GO.example.com:80/" + l.Code + "+", s.ShortURL(&l) + "?x=1"} {
		if got, err := s.Lookup(t.Context(), actor, u); err != nil || got.Number != l.Number {
			t.Errorf("Lookup(%q): %v, %v", u, got.Number, err)
		}
	}
	other := Actor{Workspace: 2}
	if _, err := s.Get(t.Context(), other, l.Number); !errors.Is(err, terse.ErrNotFound) {
		t.Errorf("another workspace: %v", err)
	}
	if _, err := s.Lookup(t.Context(), other, s.ShortURL(&l)); !errors.Is(err, terse.ErrNotFound) {
		t.Errorf("another workspace looks up: %v", err)
	}
	if err := s.Delete(t.Context(), other, l.Number, 0); !errors.Is(err, terse.ErrNotFound) {
		t.Errorf("another workspace deletes: %v", err)
	}
	if err := s.Delete(t.Context(), actor, l.Number, 2); !errors.Is(err, terse.ErrVersion) {
		t.Errorf("delete of another version: %v", err)
	}
	if err := s.Delete(t.Context(), actor, l.Number, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), actor, l.Number); !errors.Is(err, terse.ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}
}

func TestCreateRefuses(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.create(t, NewLink{Destination: "https://example.com/", Code: "summer-sale"})
	past := *s.now - 1
	for _, tc := range []struct {
		name        string
		n           NewLink
		code, field string
	}{
		{"destination", NewLink{Destination: "javascript:alert(1)"}, "invalid_destination", "destination"},
		{"own domain", NewLink{Destination: "https://go.example.com/x"}, "invalid_destination", "destination"},
		{"domain", NewLink{Destination: "https://example.com/", Domain: "other.example.com"}, "unknown_domain", "domain"},
		{"alias", NewLink{Destination: "https://example.com/", Code: "a b"}, "invalid_code", "code"},
		{"system path", NewLink{Destination: "https://example.com/", Code: "robots.txt"}, "invalid_code", "code"},
		{"taken", NewLink{Destination: "https://example.com/", Code: "summer-sale"}, "alias_taken", "code"},
		{"title", NewLink{Destination: "https://example.com/", Title: "a\x00b"}, "invalid", "title"},
		{"long title", NewLink{Destination: "https://example.com/", Title: strings.Repeat("x", MaxTitle+1)}, "invalid", "title"},
		{"external id", NewLink{Destination: "https://example.com/", ExternalID: "\xff"}, "invalid", "external_id"},
		{"empty tag", NewLink{Destination: "https://example.com/", Tags: []string{""}}, "invalid", "tags[0]"},
		{"expiry", NewLink{Destination: "https://example.com/", ExpiresAt: past}, "invalid", "expires_at"},
		{"start", NewLink{Destination: "https://example.com/", ExpiresAt: *s.now + 5, StartsAt: *s.now + 6}, "invalid", "starts_at"},
		{"expired destination", NewLink{Destination: "https://example.com/", ExpiredDestination: "data:x"}, "invalid_destination", "expired_destination"},
		{"status", NewLink{Destination: "https://example.com/", RedirectStatus: 200}, "invalid", "redirect_status"},
		{"if_exists", NewLink{Destination: "https://example.com/", IfExists: "replace"}, "invalid", "if_exists"},
		{"metadata", NewLink{Destination: "https://example.com/", Metadata: map[string]string{"": "x"}}, "invalid", "metadata"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, err := s.Create(t.Context(), actor, tc.n, CreateOptions{})
			wantError(t, err, tc.code, tc.field)
		})
	}
	if p, err := s.List(t.Context(), actor, Filter{}); err != nil || len(p.Links) != 1 {
		t.Fatalf("refused links left something: %d, %v", len(p.Links), err)
	}
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	s := setup(t)
	l := s.create(t, NewLink{Destination: "https://example.com/a", Title: "old", ExternalID: "x"})
	dest, none, disabled := "https://example.com/b", "", terse.StatusDisabled
	u, err := s.Update(t.Context(), actor, l.Number, Patch{Destination: &dest, Status: &disabled, SettingsPatch: SettingsPatch{Title: &none}}, 1)
	if err != nil || u.Version != 2 || u.Destination != dest || u.Settings != nil || u.ExternalID != "x" || s.Status(&u) != StatusDisabled {
		t.Fatalf("%+v, %v", u, err)
	}
	if _, err := s.Update(t.Context(), actor, l.Number, Patch{Destination: &dest}, 1); !errors.Is(err, terse.ErrVersion) {
		t.Fatalf("old version: %v", err)
	}
	bad := "ftp://example.com"
	_, err = s.Update(t.Context(), actor, l.Number, Patch{Destination: &bad}, 0)
	wantError(t, err, "invalid_destination", "destination")
	if got, _ := s.Get(t.Context(), actor, l.Number); got.Version != 2 {
		t.Fatalf("a refused update changed the link: %+v", got)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := s.changes[len(s.changes)-1]; last.Version != 2 || last.Code != l.Code || last.Deleted {
		t.Fatalf("caches were told %+v", last)
	}
}

func TestUpdateRace(t *testing.T) {
	t.Parallel()
	s := setup(t)
	l := s.create(t, NewLink{Destination: "https://example.com/a"})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			dest := "https://example.com/b"
			if _, err := s.Update(t.Context(), actor, l.Number, Patch{Destination: &dest}, 0); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got, _ := s.Get(t.Context(), actor, l.Number); got.Version != 17 {
		t.Fatalf("version %d after 16 updates", got.Version)
	}
}

func TestReuse(t *testing.T) {
	t.Parallel()
	s := setup(t)
	n := NewLink{Destination: "https://example.com/same", IfExists: IfExistsReuse}
	var wg sync.WaitGroup
	numbers := make([]terse.LinkNumber, 32)
	made := make([]bool, len(numbers))
	for i := range numbers {
		wg.Go(func() {
			l, created, err := s.Create(t.Context(), actor, n, CreateOptions{})
			if err != nil {
				t.Error(err)
			}
			numbers[i], made[i] = l.Number, created
		})
	}
	wg.Wait()
	count := 0
	for i := range numbers {
		if numbers[i] != numbers[0] {
			t.Fatalf("two links: %v and %v", numbers[0], numbers[i])
		}
		if made[i] {
			count++
		}
	}
	if count != 1 {
		t.Fatalf("%d of them created", count)
	}
	other, created, err := s.Create(t.Context(), Actor{Workspace: 2}, n, CreateOptions{})
	if err != nil || !created || other.Number == numbers[0] {
		t.Fatalf("another workspace got %v, created %v, %v", other.Number, created, err)
	}
	if l := s.create(t, NewLink{Destination: n.Destination, IfExists: IfExistsReuse, Title: "own settings"}); l.Number == numbers[0] {
		t.Fatal("a link with settings was reused for")
	}
}

func TestDefaultTTL(t *testing.T) {
	t.Parallel()
	s := setup(t)
	ttl := 3600_000
	_, err := s.domains.Create(t.Context(), testWorkspace, domains.New{Host: "ttl.example.com", DefaultTTL: 3600e9}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l := s.create(t, NewLink{Destination: "https://example.com/", Domain: "ttl.example.com"})
	if l.ExpiresAt != *s.now+terse.Millis(ttl) || s.Status(&l) != StatusActive {
		t.Fatalf("expires at %d", l.ExpiresAt)
	}
	again, created, err := s.Create(t.Context(), actor, NewLink{Destination: "https://example.com/", Domain: "ttl.example.com", IfExists: IfExistsReuse}, CreateOptions{})
	if err != nil || created || again.Number != l.Number {
		t.Fatalf("a default expiry hid the link from reuse: %v %v", created, err)
	}
	*s.now += terse.Millis(ttl)
	if s.Status(&l) != StatusExpired {
		t.Fatal("not expired at its time")
	}
	if _, created, _ := s.Create(t.Context(), actor, NewLink{Destination: "https://example.com/", Domain: "ttl.example.com", IfExists: IfExistsReuse}, CreateOptions{}); !created {
		t.Fatal("an expired link was reused")
	}
}

// TestAliasNeverEqualsCode makes an alias of a code that would come soon: it is
// reserved, and the code goes to nobody else.
func TestAliasNeverEqualsCode(t *testing.T) {
	t.Parallel()
	s := setup(t)
	d := s.domains.ByName("go.example.com")
	next := string(d.AppendCode(nil, terse.NewLinkNumber(d.Number, d.Current().Space, 200)))
	alias := s.create(t, NewLink{Destination: "https://example.com/alias", Code: next})
	seen := map[string]bool{alias.Code: true}
	for range 400 {
		l := s.create(t, NewLink{Destination: "https://example.com/x"})
		if seen[l.Code] {
			t.Fatalf("code %s twice", l.Code)
		}
		seen[l.Code] = true
	}
	issued := string(d.AppendCode(nil, terse.NewLinkNumber(d.Number, d.Current().Space, 1)))
	_, _, err := s.Create(t.Context(), actor, NewLink{Destination: "https://example.com/", Code: issued}, CreateOptions{})
	wantError(t, err, "alias_taken", "code")
	got, err := d.Find(t.Context(), s.store, []byte(next))
	if err != nil || got.Number != alias.Number {
		t.Fatalf("the alias resolves to %v, %v", got.Number, err)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	s := setup(t)
	var want []terse.LinkNumber
	for i := range 25 {
		n := NewLink{Destination: "https://example.com/x"}
		if i%5 == 0 {
			n.Title, n.Tags = "Fünf", []string{"five"}
		}
		l := s.create(t, n)
		want = append([]terse.LinkNumber{l.Number}, want...)
	}
	var got []terse.LinkNumber
	f := Filter{Limit: 4}
	for {
		p, err := s.List(t.Context(), actor, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range p.Links {
			got = append(got, l.Number)
		}
		if p.Next == "" {
			break
		}
		f.Cursor = p.Next
	}
	if len(got) != len(want) {
		t.Fatalf("%d of %d links", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("link %d is %v, want %v", i, got[i], want[i])
		}
	}
	for _, f := range []Filter{{Tag: "five"}, {Query: "FÜNF"}} {
		if p, err := s.List(t.Context(), actor, f); err != nil || len(p.Links) != 5 {
			t.Errorf("%+v: %d links, %v", f, len(p.Links), err)
		}
	}
	if p, err := s.List(t.Context(), actor, Filter{Status: StatusExpired}); err != nil || len(p.Links) != 0 {
		t.Errorf("expired: %d, %v", len(p.Links), err)
	}
	_, err := s.List(t.Context(), actor, Filter{Limit: 1001})
	wantError(t, err, "invalid", "limit")
	_, err = s.List(t.Context(), actor, Filter{Status: "gone"})
	wantError(t, err, "invalid", "status")
}
