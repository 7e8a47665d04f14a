package domains

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/memstore"
)

func openShared(t testing.TB, store terse.Store) *Registry {
	t.Helper()
	r, err := Open(t.Context(), Options{Store: store, Clock: clock, Log: slog.New(slog.DiscardHandler), Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func refresh(t testing.TB, r *Registry, host string) *Domain {
	t.Helper()
	if err := r.Refresh(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	return r.ByName(host)
}

// TestRefresh: what another node makes of a domain is known after Refresh, and nothing older replaces it.
func TestRefresh(t *testing.T) {
	t.Parallel()
	store := memstore.New(clock)
	a, b := openShared(t, store), openShared(t, store)
	const host = "go.example.com"
	if refresh(t, b, host) != nil {
		t.Fatal("a domain that nobody has made")
	}
	made := create(t, a, 1, New{Host: host})
	if d := refresh(t, b, host); d == nil || d.Number != made.Number || b.ByNumber(made.Number) != d {
		t.Fatalf("made elsewhere: %+v", d)
	}
	status := 307
	if _, err := a.Update(t.Context(), 1, host, Patch{RedirectStatus: &status}, 0); err != nil {
		t.Fatal(err)
	}
	d := refresh(t, b, host)
	if d.RedirectStatus != 307 || d.Version != 2 {
		t.Fatalf("changed elsewhere: %+v", d.Domain)
	}
	if again := refresh(t, b, host); again != d {
		t.Error("the same version was compiled again")
	}
	if err := a.Delete(t.Context(), 1, host, 0); err != nil {
		t.Fatal(err)
	}
	if refresh(t, b, host) != nil || b.ByNumber(made.Number) != nil {
		t.Error("deleted elsewhere: it is still there")
	}
	again := create(t, a, 2, New{Host: host})
	if d := refresh(t, b, host); d == nil || d.Number != again.Number || d.Workspace != 2 {
		t.Errorf("made again elsewhere: %+v", d)
	}
}

// TestUpdateElsewhere: a node that has not heard of a change yet does not refuse a caller who has.
func TestUpdateElsewhere(t *testing.T) {
	t.Parallel()
	store := memstore.New(clock)
	a, b := openShared(t, store), openShared(t, store)
	const host = "go.example.com"
	create(t, a, 1, New{Host: host})
	status := 307
	if _, err := b.Update(t.Context(), 1, host, Patch{RedirectStatus: &status}, 1); err != nil {
		t.Fatalf("a domain that this node has not heard of: %v", err)
	}
	status = 308
	d, err := a.Update(t.Context(), 1, host, Patch{RedirectStatus: &status}, 2)
	if err != nil || d.Version != 3 {
		t.Fatalf("with the version of the other node: %v", err)
	}
	if _, err := b.Update(t.Context(), 1, host, Patch{RedirectStatus: &status}, 2); terse.ErrorCode(err) != terse.CodePrecondition {
		t.Errorf("with an old version: %v", err)
	}
	if d, err := b.Update(t.Context(), 1, host, Patch{RedirectStatus: &status}, 0); err != nil || d.Version != 4 {
		t.Errorf("with any version: %v", err)
	}
	if err := a.Delete(t.Context(), 1, host, 4); err != nil {
		t.Errorf("delete with the version of the other node: %v", err)
	}
	if _, err := b.Update(t.Context(), 1, host, Patch{RedirectStatus: &status}, 0); terse.ErrorCode(err) != terse.CodeNotFound {
		t.Errorf("a domain that is gone: %v", err)
	}
}

// TestIssuedElsewhere: a node never takes a code for unknown that another may have made, and refuses what nobody ever makes.
func TestIssuedElsewhere(t *testing.T) {
	t.Parallel()
	store := memstore.New(clock)
	a, b := openShared(t, store), openShared(t, store)
	const host = "go.example.com"
	made := create(t, a, 1, New{Host: host})
	d := refresh(t, b, host)
	var issued Issued
	if err := a.Issue(t.Context(), made, 100, &issued); err != nil {
		t.Fatal(err)
	}
	for i := range issued.Indexes {
		n, ok := d.Generated(issued.Codes[i*issued.Length : (i+1)*issued.Length])
		if !ok || n != issued.Number(made, i) || !d.Issued(n) || d.Refuses(issued.Codes[i*issued.Length:(i+1)*issued.Length]) {
			t.Fatalf("code %d of another node is unknown", i)
		}
		if code, ok := b.CodeOf(n); !ok || code != string(issued.Codes[i*issued.Length:(i+1)*issued.Length]) {
			t.Fatalf("number %v is code %q", n, code)
		}
	}
	space := issued.Space
	if n := terse.NewLinkNumber(d.Number, space, d.Current().Cap); d.Issued(n) {
		t.Error("an index at the cap is never leased")
	}
	if n := terse.NewLinkNumber(d.Number, space+1, 5); !d.Issued(n) {
		t.Error("another node may have grown the domain")
	}
	b.Leased(d.Number, space, 500)
	if got := d.live.next[space].Load(); got != 500 {
		t.Errorf("next is %d after a lease elsewhere", got)
	}
	if _, ok := b.CodeOf(terse.NewLinkNumber(d.Number, terse.AliasSpace, 5)); ok {
		t.Error("an alias has no code by number")
	}
}

// TestGrowElsewhere: two nodes fill one domain to its cap and beyond: no code comes twice and nobody sees the race.
func TestGrowElsewhere(t *testing.T) {
	t.Parallel()
	store := memstore.New(clock)
	a := openShared(t, store)
	create(t, a, 1, New{Host: "go.example.com", CodeLength: 4}) // cap 14,776
	b := openShared(t, store)
	var mu sync.Mutex
	seen := map[string]bool{}
	var wg sync.WaitGroup
	for _, r := range []*Registry{a, b} {
		wg.Go(func() {
			var issued Issued
			for range 100 {
				if err := r.Issue(context.Background(), r.ByName("go.example.com"), 100, &issued); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for i := range issued.Indexes {
					c := string(issued.Codes[i*issued.Length : (i+1)*issued.Length])
					if seen[c] {
						t.Errorf("code %s twice", c)
					}
					seen[c] = true
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 20_000 {
		t.Errorf("%d codes, want 20,000", len(seen))
	}
}
