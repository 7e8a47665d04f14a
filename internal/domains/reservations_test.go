package domains

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/faultstore"
	"github.com/terselink/terse/internal/store/memstore"
)

// reserve stores aliases of the shape of generated codes and returns them.
func reserve(t *testing.T, r *Registry, store terse.Store, d *Domain, n int) []string {
	t.Helper()
	indexes, err := r.IssueAliases(t.Context(), d, n, nil)
	if err != nil {
		t.Fatal(err)
	}
	var aliases []string
	chunk := &terse.Chunk{}
	for i, index := range indexes {
		alias := fmt.Sprintf("alias%02d", i)
		if i >= 100 {
			alias = fmt.Sprintf("A%06d", i)
		}
		reserved := d.Reserve([]byte(alias))
		if reserved == 0 {
			t.Fatalf("%s does not look generated", alias)
		}
		aliases = append(aliases, alias)
		chunk.Links = append(chunk.Links, terse.Link{Workspace: 1, Version: 1, Number: terse.NewLinkNumber(d.Number, terse.AliasSpace, index),
			Code: alias, Destination: "https://example.com/", Reserves: reserved})
	}
	if err := store.InsertLinks(t.Context(), chunk); err != nil {
		t.Fatal(err)
	}
	return aliases
}

// TestUnknownCodesCostNoReads asks for many codes that nobody made, before and after a restart, beside
// aliases that look like them: at most one in a thousand reads the store, and every alias is found.
func TestUnknownCodesCostNoReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(clock)
		r := open(t, store)
		d := create(t, r, 1, New{Host: "go.example.com"})
		aliases := reserve(t, r, store, d, 12_000) // three layers
		var b Issued
		if err := r.Issue(t.Context(), d, 1000, &b); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			c := faultstore.New(store)
			rng := rand.New(rand.NewPCG(1, 2))
			const n = 100_000
			for range n {
				code := fmt.Appendf(nil, "%07s", strconv.FormatUint(rng.Uint64N(36*36*36*36*36*36*36), 36))
				if _, err := d.Find(t.Context(), c, code); terse.ErrorCode(err) != terse.CodeNotFound {
					t.Fatalf("%s: %v", code, err)
				}
			}
			if reads := c.Calls(faultstore.Any); reads > n/1000 {
				t.Errorf("%d reads for %d unknown codes", reads, n)
			}
			for _, alias := range aliases {
				if l, err := d.Find(t.Context(), c, []byte(alias)); err != nil || l.Code != alias {
					t.Fatalf("%s: %v, %v", alias, l, err)
				}
			}
			r = open(t, store) // a restart
			d = r.ByName("go.example.com")
			synctest.Wait()
		}
	})
}

// TestReservationsFailOpen: while the reservations cannot be read, unknown codes are asked of the store.
func TestReservationsFailOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		inner := memstore.New(clock)
		first := open(t, inner)
		d := create(t, first, 1, New{Host: "go.example.com"})
		aliases := reserve(t, first, inner, d, 5)
		store := faultstore.New(inner)
		store.Inject(faultstore.Fault{Op: faultstore.Reservations, Times: 3})
		d = open(t, store).ByName("go.example.com")
		synctest.Wait()
		if d.Refuses([]byte("unknown")) {
			t.Error("refused without the reservations")
		}
		<-time.After(time.Minute)
		synctest.Wait()
		if !d.Refuses([]byte("unknown")) {
			t.Error("not refused although the store has recovered")
		}
		for _, alias := range aliases {
			if d.Refuses([]byte(alias)) {
				t.Errorf("refused the alias %s", alias)
			}
		}
		shared, err := Open(t.Context(), Options{Store: inner, Clock: clock, Log: slog.New(slog.DiscardHandler), Shared: true})
		if err != nil {
			t.Fatal(err)
		}
		defer shared.Close()
		synctest.Wait()
		if shared.ByName("go.example.com").Refuses([]byte("unknown")) {
			t.Error("refused although other nodes make aliases")
		}
	})
}

// TestReserveWhileRefusing makes aliases while others look: one that was made is never refused.
func TestReserveWhileRefusing(t *testing.T) {
	t.Parallel()
	r := open(t, memstore.New(clock))
	d := create(t, r, 1, New{Host: "go.example.com"})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 5000 {
				code := fmt.Appendf(nil, "w%d%05d", g, i)
				if d.Reserve(code); d.Refuses(code) {
					t.Errorf("%s is refused", code)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestRefusesAllocs(t *testing.T) {
	r := open(t, memstore.New(clock))
	d := create(t, r, 1, New{Host: "go.example.com"})
	d.Reserve([]byte("aliasXY"))
	code := []byte("unknown")
	if n := testing.AllocsPerRun(100, func() { d.Refuses(code) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkRefuses(b *testing.B) {
	r := open(b, memstore.New(clock))
	d := create(b, r, 1, New{Host: "go.example.com"})
	for i := range 100_000 {
		d.Reserve(fmt.Appendf(nil, "A%06d", i))
	}
	code := []byte("unknown")
	b.ReportAllocs()
	for b.Loop() {
		d.Refuses(code)
	}
}

// TestOldDomainsAskForWhatTheyDidNotReserve: a domain of an older version may have aliases without a reservation.
func TestOldDomainsAskForWhatTheyDidNotReserve(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(clock)
		d := create(t, open(t, store), 1, New{Host: "go.example.com"})
		var above, below []byte
		for i := 0; above == nil || below == nil; i++ {
			code := fmt.Appendf(nil, "C%06d", i)
			if _, ok := d.Generated(code); ok {
				below = code
			} else {
				above = code
			}
		}
		if !d.Refuses(above) || !d.Refuses(below) {
			t.Error("not refused on a new domain")
		}
		doc, err := store.GetDocument(t.Context(), 0, terse.KindDomain, "go.example.com")
		if err != nil {
			t.Fatal(err)
		}
		doc.Version++
		doc.Data = bytes.Replace(doc.Data, []byte(`"all_reserved":true,`), nil, 1)
		if err := store.PutDocument(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
		d = open(t, store).ByName("go.example.com")
		synctest.Wait()
		if d.AllReserved || d.Refuses(above) || !d.Refuses(below) {
			t.Errorf("all reserved %v; refuses %v above the largest index, %v below it", d.AllReserved, d.Refuses(above), d.Refuses(below))
		}
	})
}
