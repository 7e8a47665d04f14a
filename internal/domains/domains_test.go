package domains

import (
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/memstore"
)

func clock() terse.Millis { return 1_800_000_000_000 }

func open(t testing.TB, store terse.Store) *Registry {
	t.Helper()
	r, err := Open(t.Context(), Options{Store: store, Clock: clock, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func create(t testing.TB, r *Registry, w terse.WorkspaceID, n New) *Domain {
	t.Helper()
	d, err := r.Create(t.Context(), w, n, nil)
	if err != nil {
		t.Fatalf("Create(%+v): %v", n, err)
	}
	return d
}

func wantError(t testing.TB, err error, code, field string) {
	t.Helper()
	e, ok := errors.AsType[*terse.Error](err)
	if !ok || e.PublicCode() != code || e.Field != field {
		t.Errorf("error %v; want %s for %q", err, code, field)
	}
}

func TestAppendHost(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in, want string
		ok       bool
	}{
		{"go.example.com", "go.example.com", true},
		{"GO.Example.COM", "go.example.com", true},
		{"go.example.com.", "go.example.com", true},
		{"go.example.com:80", "go.example.com", true},
		{"go.example.com:443", "go.example.com", true},
		{"go.example.com.:8080", "go.example.com:8080", true},
		{"go.example.com:", "go.example.com", true},
		{"localhost:8080", "localhost:8080", true},
		{"[::1]:8080", "[::1]:8080", true},
		{"", "", false},
		{".", "", false},
		{":8080", "", false},
		{"a b", "", false},
		{"a\r\nb", "", false},
		{"a/b", "", false},
		{"bücher.example", "", false},
		{strings.Repeat("a", 300), "", false},
	} {
		got, ok := AppendHost(nil, []byte(tc.in))
		if ok != tc.ok || ok && string(got) != tc.want {
			t.Errorf("AppendHost(%q) = %q, %v; want %q, %v", tc.in, got, ok, tc.want, tc.ok)
		}
	}
}

func FuzzAppendHost(f *testing.F) {
	for _, s := range []string{"go.example.com", "A.:80", "[::1]:1", ":", "a:b:c", "a.:443"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := AppendHost(nil, []byte(s))
		if !ok {
			return
		}
		if again, ok := AppendHost(nil, got); len(again) == 0 || !ok {
			t.Fatalf("%q became %q, which is refused", s, got)
		}
		if h, err := ParseHost(s); err == nil && h != string(got) {
			t.Fatalf("%q: a request has %q, a domain %q", s, got, h)
		}
	})
}

func TestParseHostRefuses(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", ".", "https://go.example.com", "go.example.com/x", "a@b", "a b", "-a.com", "a..b", "go.example.com:0", "go.example.com:99999", "go.example.com:08", "1.2.3", "a_b.com", strings.Repeat("a", 64) + ".com", "a?b"} {
		if h, err := ParseHost(s); err == nil {
			t.Errorf("ParseHost(%q) = %q", s, h)
		} else {
			wantError(t, err, "invalid", "host")
		}
	}
	if h, err := ParseHost("Bücher.Example:8443"); err != nil || h != "xn--bcher-kva.example:8443" {
		t.Errorf("%q, %v", h, err)
	}
}

func TestRegistry(t *testing.T) {
	t.Parallel()
	store := memstore.New(clock)
	r := open(t, store)
	def, err := r.EnsureDefault(t.Context(), "localhost:8080", "http")
	if err != nil || def.Base() != "http://localhost:8080/" || def.Workspace != 0 {
		t.Fatalf("%+v, %v", def, err)
	}
	d := create(t, r, 2, New{Host: "Go.Example.com"})
	if d.Base() != "https://go.example.com/" || d.CodeLength != 7 || d.RedirectStatus != 302 || d.Number == def.Number {
		t.Fatalf("%+v", d.Domain)
	}
	_, err = r.Create(t.Context(), 3, New{Host: "go.example.com"}, nil)
	wantError(t, err, "domain_taken", "host")
	r.SetLoopback("8080")
	for host, want := range map[string]*Domain{
		"localhost:8080": def, "127.0.0.1:8080": def, "[::1]:8080": def, "go.example.com": d, "go.example.com:9999": d,
		"localhost:9999": nil, "192.0.2.1:8080": nil, "example.com": nil, "x.go.example.com": nil,
	} {
		if got := r.ByHost([]byte(host)); got != want {
			t.Errorf("ByHost(%s) = %v", host, got)
		}
	}
	if n := len(r.List(1)); n != 1 {
		t.Errorf("workspace 1 sees %d domains", n)
	}
	if n := len(r.List(2)); n != 2 {
		t.Errorf("workspace 2 sees %d domains", n)
	}
	nf, old := "https://example.com/404", uint64(7)
	if _, err := r.Update(t.Context(), 3, "go.example.com", Patch{NotFoundDestination: &nf}, 0); !errors.Is(err, terse.ErrNotFound) {
		t.Errorf("foreign update: %v", err)
	}
	if _, err := r.Update(t.Context(), 2, "go.example.com", Patch{NotFoundDestination: &nf}, old); !errors.Is(err, terse.ErrVersion) {
		t.Errorf("old version: %v", err)
	}
	u, err := r.Update(t.Context(), 2, "go.example.com", Patch{NotFoundDestination: &nf}, d.Version)
	if err != nil || u.NotFoundDestination != nf || u.Version != 2 || r.ByName("go.example.com") != u {
		t.Fatalf("%+v, %v", u, err)
	}
	loop := "https://go.example.com/x"
	_, err = r.Update(t.Context(), 2, "go.example.com", Patch{RootDestination: &loop}, 0)
	wantError(t, err, "invalid_destination", "root_destination")

	again := open(t, store)
	if got := again.ByName("go.example.com"); got == nil || got.NotFoundDestination != nf || got.Broken() != nil || again.Default().Host != "localhost:8080" {
		t.Fatalf("after reopening: %+v", got)
	}
	wantError(t, r.Delete(t.Context(), 0, "localhost:8080", 0), "domain_in_use", "")
	if err := r.Delete(t.Context(), 2, "go.example.com", 0); err != nil {
		t.Fatal(err)
	}
	if r.ByName("go.example.com") != nil || r.ByNumber(d.Number) != nil {
		t.Error("a deleted domain is still served")
	}
}

func TestCreateRefuses(t *testing.T) {
	t.Parallel()
	r := open(t, memstore.New(clock))
	for _, tc := range []struct {
		n     New
		field string
	}{
		{New{Host: "bad host"}, "host"},
		{New{Host: "a.example", Scheme: "ftp"}, "scheme"},
		{New{Host: "a.example", Alphabet: "emoji"}, "alphabet"},
		{New{Host: "a.example", CodeLength: 3}, "code_length"},
		{New{Host: "a.example", CodeLength: 11}, "code_length"},
		{New{Host: "a.example", Strategy: "hash"}, "strategy"},
		{New{Host: "a.example", RedirectStatus: 200}, "redirect_status"},
		{New{Host: "a.example", DefaultTTL: -1}, "default_ttl"},
		{New{Host: "a.example", DefaultTTL: time.Millisecond}, "default_ttl"},
		{New{Host: "a.example", SMaxAge: -1}, "s_maxage"},
	} {
		_, err := r.Create(t.Context(), 1, tc.n, nil)
		wantError(t, err, "invalid", tc.field)
	}
	_, err := r.Create(t.Context(), 1, New{Host: "a.example", RootDestination: "https://a.example/x"}, nil)
	wantError(t, err, "invalid_destination", "root_destination")
	if n := len(r.List(1)); n != 0 {
		t.Errorf("%d domains were made", n)
	}
}

// TestWrongKey swaps a permutation key behind the registry's back: the domain must
// neither find nor make codes, since they would be other people's.
func TestWrongKey(t *testing.T) {
	t.Parallel()
	store := memstore.New(clock)
	create(t, open(t, store), 1, New{Host: "go.example.com"})
	doc, err := store.GetDocument(t.Context(), 0, terse.KindDomain, "go.example.com")
	if err != nil {
		t.Fatal(err)
	}
	var d terse.Domain
	if err := json.Unmarshal(doc.Data, &d); err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string][]byte{"other": make([]byte, 32), "missing": nil} {
		d.PermKey = key
		doc.Data, _ = json.Marshal(d) // the same struct was decoded above
		doc.Version++
		if err := store.PutDocument(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
		r := open(t, store)
		broken := r.ByName("go.example.com")
		if broken == nil || broken.Broken() == nil {
			t.Fatalf("%s key: not noticed", name)
		}
		if _, err := broken.Find(t.Context(), store, []byte("abcdefg")); terse.ErrorCode(err) != terse.CodeUnavailable {
			t.Errorf("%s key: Find: %v", name, err)
		}
		var b Issued
		if err := r.Issue(t.Context(), broken, 1, &b); terse.ErrorCode(err) != terse.CodeUnavailable {
			t.Errorf("%s key: Issue: %v", name, err)
		}
	}
}

// TestGrow fills a space to its cap: codes become one character longer, nothing fails,
// nothing comes twice, and old codes still decode.
func TestGrow(t *testing.T) {
	t.Parallel()
	store := memstore.New(clock)
	r := open(t, store)
	d := create(t, r, 1, New{Host: "go.example.com", CodeLength: 4}) // cap 14,776
	var mu sync.Mutex
	seen := map[string]terse.LinkNumber{}
	lengths := map[int]int{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var b Issued
			for range 50 {
				if err := r.Issue(t.Context(), d, 100, &b); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for i := range b.Indexes {
					c := string(b.Codes[i*b.Length : (i+1)*b.Length])
					if _, twice := seen[c]; twice {
						t.Errorf("code %s twice", c)
					}
					seen[c] = b.Number(d, i)
					lengths[len(c)]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if lengths[4] < 13_000 || lengths[5] == 0 || len(lengths) != 2 {
		t.Fatalf("codes by length: %v", lengths)
	}
	cur := open(t, store).ByName("go.example.com")
	if cur.CodeLength != 5 || len(cur.Spaces) != 2 {
		t.Fatalf("%+v", cur.Domain)
	}
	for c, n := range seen {
		if got, ok := cur.Generated([]byte(c)); !ok || got != n || !cur.Issued(n) {
			t.Fatalf("%s decodes to %v, %v; want %v", c, got, ok, n)
		}
	}
}

func TestFold(t *testing.T) {
	t.Parallel()
	r := open(t, memstore.New(clock))
	if create(t, r, 1, New{Host: "a.example"}).Fold() != nil {
		t.Error("base62 folds case")
	}
	d := create(t, r, 1, New{Host: "b.example", Alphabet: "crockford32", CodeLength: 8})
	if d.Fold() == nil || d.CodeLength != 8 {
		t.Error("crockford32 does not fold case")
	}
}

func TestByHostAllocs(t *testing.T) {
	r := open(t, memstore.New(clock))
	create(t, r, 1, New{Host: "go.example.com"})
	buf, host := make([]byte, 0, 64), []byte("GO.example.com:8080")
	if n := testing.AllocsPerRun(100, func() {
		h, _ := AppendHost(buf, host)
		if r.ByHost(h) == nil {
			t.Fatal("not found")
		}
	}); n != 0 {
		t.Errorf("%v allocs", n)
	}
}
