package domains

import (
	"errors"
	"strings"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/code"
	"github.com/terselink/terse/internal/store/memstore"
)

func issue(t testing.TB, r *Registry, d *Domain, n int) Issued {
	t.Helper()
	var b Issued
	if err := r.Issue(t.Context(), d, n, &b); err != nil {
		t.Fatalf("Issue: %v", err)
	}
	if len(b.Indexes) != n || len(b.Codes) != n*b.Length {
		t.Fatalf("%d indexes, %d bytes of codes of %d", len(b.Indexes), len(b.Codes), b.Length)
	}
	return b
}

// TestStrategyChange walks a domain through its strategies: every one opens a length that was
// never used, and codes of before still mean what they meant.
func TestStrategyChange(t *testing.T) {
	t.Parallel()
	store := memstore.New(clock)
	r := open(t, store)
	d := create(t, r, 1, New{Host: "go.example.com"})
	permuted := issue(t, r, d, 1)
	for _, step := range []struct {
		strategy string
		length   int // asked for; 0: not
		want     int // 0: refused
		field    string
	}{
		{StrategyRandom, 0, 8, ""},
		{StrategyRandom, 7, 0, "code_length"}, // permuted for ever
		{StrategyRandom, 5, 5, ""},
		{StrategyPermuted, 0, 6, ""},
		{StrategyPermuted, 8, 0, "code_length"}, // random for ever
		{StrategyPermuted, 7, 7, ""},            // its own again
		{StrategySnowflake, 0, 11, ""},
		{StrategySnowflake, 9, 0, "code_length"},
		{StrategyRandom, 0, 9, ""},
		{StrategySnowflake, 0, 11, ""}, // its own again
		{"hash", 0, 0, "strategy"},
		{"", 0, 10, ""}, // permuted
	} {
		p := Patch{Strategy: &step.strategy}
		if step.length != 0 {
			p.CodeLength = &step.length
		}
		u, err := r.Update(t.Context(), 1, d.Host, p, 0)
		if step.want == 0 {
			wantError(t, err, "invalid", step.field)
			continue
		}
		if err != nil || u.CodeLength != step.want {
			t.Fatalf("%+v: %v, %v", step, u, err)
		}
		b := issue(t, r, u, 3)
		if b.Length != step.want || b.ByCode == (u.Strategy == StrategyPermuted) || u.Permuted(b.Number(u, 0)) == b.ByCode {
			t.Fatalf("%+v: %+v", step, b)
		}
		if _, ok := u.Generated(b.Codes[:b.Length]); ok == b.ByCode {
			t.Errorf("%+v: the code %s is taken for one that is permuted: %v", step, b.Codes[:b.Length], ok)
		}
	}
	_, err := r.Update(t.Context(), 1, d.Host, Patch{Strategy: new(StrategyRandom)}, 0)
	if err != nil { // 4 was never used, but is shorter; the next is beyond the alphabet
		wantError(t, err, "domain_full", "")
	} else {
		t.Error("a strategy began at a length that was used")
	}
	again := open(t, store).ByName(d.Host)
	if again.Broken() != nil {
		t.Fatal(again.Broken())
	}
	if n, ok := again.Generated(permuted.Codes); !ok || n != permuted.Number(d, 0) {
		t.Errorf("the first code means %v, %v now", n, ok)
	}
}

func TestStrategyRefused(t *testing.T) {
	t.Parallel()
	r := open(t, memstore.New(clock))
	for _, tc := range []struct {
		n     New
		field string
	}{
		{New{Host: "a.example", Strategy: StrategySnowflake, Alphabet: "crockford32"}, "strategy"},
		{New{Host: "a.example", Strategy: StrategySnowflake, CodeLength: 7}, "code_length"},
		{New{Host: "a.example", Strategy: StrategyRandom, CodeLength: 3}, "code_length"},
		{New{Host: "a.example", Strategy: StrategyRandom, CodeLength: 11}, "code_length"},
		{New{Host: "a.example", Strategy: "secret"}, "strategy"},
	} {
		_, err := r.Create(t.Context(), 1, tc.n, nil)
		wantError(t, err, "invalid", tc.field)
	}
}

// TestRandomGrows fills a random space to its density.
func TestRandomGrows(t *testing.T) {
	t.Parallel()
	r := open(t, memstore.New(clock))
	d := create(t, r, 1, New{Host: "go.example.com", Strategy: StrategyRandom, Alphabet: "digits"})
	if d.CodeLength != 7 || d.Current().Cap != 10_000 {
		t.Fatalf("%+v", d.Domain)
	}
	for range 100 {
		if b := issue(t, r, d, 100); b.Length != 7 {
			t.Fatalf("%d characters before the cap", b.Length)
		}
	}
	if b := issue(t, r, d, 1); b.Length != 8 {
		t.Fatalf("%d characters after the cap", b.Length)
	}
	if u := r.ByName(d.Host); u.Strategy != StrategyRandom || len(u.Spaces) != 2 {
		t.Errorf("%+v", u.Domain)
	}
}

func TestSnowflakeDomain(t *testing.T) {
	t.Parallel()
	store := memstore.New(clock)
	r := open(t, store)
	d := create(t, r, 1, New{Host: "go.example.com", Strategy: StrategySnowflake})
	b := issue(t, r, d, 10)
	for i := range 10 {
		c := b.Codes[i*b.Length : (i+1)*b.Length]
		if ms, node, _, ok := code.ParseSnowflake(c); !ok || ms != 0 || node != 0 || !d.IsSnowflake(c) {
			t.Errorf("%s: %d ms, node %d, %v", c, ms, node, ok)
		}
	}
	if d.IsSnowflake([]byte("zzzzzzzzzzz")) || d.IsSnowflake([]byte("summer")) {
		t.Error("what is no snowflake is taken for one")
	}
	if create(t, r, 1, New{Host: "b.example"}).IsSnowflake([]byte("00000000001")) {
		t.Error("a domain without snowflakes has one")
	}
	if _, err := r.grow(t.Context(), d); terse.ErrorCode(err) != terse.CodeConflict {
		t.Errorf("grow: %v", err)
	}
	// Another process has another node, as the first may still be there.
	other := open(t, store)
	c := issue(t, other, other.ByName(d.Host), 1)
	if _, node, _, _ := code.ParseSnowflake(c.Codes); node != 1 {
		t.Errorf("the second process is node %d", node)
	}
}

func TestSecret(t *testing.T) {
	t.Parallel()
	r := open(t, memstore.New(clock))
	for host, n := range map[string]New{
		"a.example": {}, "b.example": {Strategy: StrategySnowflake}, "c.example": {Alphabet: "digits"}, "d.example": {Alphabet: "crockford32"},
	} {
		n.Host = host
		d := create(t, r, 1, n)
		length := 22
		if d.Fold() != nil {
			length = 26
		}
		var b Issued
		if err := r.IssueSecret(t.Context(), d, 50, &b); err != nil {
			t.Fatal(err)
		}
		if b.Length != length || !b.ByCode || d.Permuted(b.Number(d, 0)) || len(b.Codes) != 50*length {
			t.Errorf("%s: %+v", host, b)
		}
		for i := range 50 {
			c := b.Codes[i*length : (i+1)*length]
			if canonical, err := code.Canonical(c, d.Fold()); err != nil || canonical != string(c) {
				t.Errorf("%s: %s is looked up as %s, %v", host, c, canonical, err)
			}
		}
	}
}

// TestRedraw counts the collision and keeps to the form of the space.
func TestRedraw(t *testing.T) {
	t.Parallel()
	r := open(t, memstore.New(clock))
	d := create(t, r, 1, New{Host: "go.example.com", Strategy: StrategyRandom, Alphabet: "clean46", CodeLength: 5})
	b := issue(t, r, d, 1)
	c, err := r.Redraw(t.Context(), b.Number(d, 0))
	if err != nil || len(c) != 5 || c == string(b.Codes) || strings.ContainsAny(c, "aeiou01") || r.Collisions() != 1 {
		t.Errorf("%q after %q, %v, %d collisions", c, b.Codes, err, r.Collisions())
	}
	if _, err := r.Redraw(t.Context(), terse.NewLinkNumber(77, 5, 0)); !errors.Is(err, terse.ErrNotFound) {
		t.Errorf("a foreign domain: %v", err)
	}
}
