package code

import (
	"context"
	"testing"
)

// TestAllocs: no hot function allocates.
func TestAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools")
	}
	p := mustPerm(t, testKey(1), "base62", 7)
	crockford := mustLookup(t, "crockford32")
	e := p.NewEncoder()
	code := p.AppendCode(nil, 4711)
	batch := make([]uint64, 100)
	for i := range batch {
		batch[i] = uint64(i)
	}
	buf := make([]byte, 0, 1024)
	for _, tt := range []struct {
		name string
		f    func()
	}{
		{"AppendCode", func() { buf = p.AppendCode(buf[:0], 4711) }},
		{"Index", func() { p.Index(code) }},
		{"Encoder.Append", func() { buf = e.Append(buf[:0], 4711) }},
		{"Encoder.AppendAll", func() { buf = e.AppendAll(buf[:0], batch) }},
		{"Blocked", func() { Blocked(code) }},
		{"Blocked, prefix", func() { Blocked([]byte("FuckFuc")) }},
		{"AppendCanonical", func() { buf, _ = AppendCanonical(buf[:0], code, nil) }},
		{"AppendCanonical, folding", func() { buf, _ = AppendCanonical(buf[:0], []byte("7K-3Q"), crockford) }},
		{"AppendCanonical, refusal", func() { buf, _ = AppendCanonical(buf[:0], []byte(".."), nil) }},
		{"AppendCanonical, foreign", func() { buf, _ = AppendCanonical(buf[:0], []byte("wp-admin/setup.php"), nil) }},
		{"AppendPath", func() { buf = AppendPath(buf[:0], "caf\u00e9") }},
		{"Random", func() { buf = Random(buf[:0], crockford, 22) }},
	} {
		if n := testing.AllocsPerRun(200, tt.f); n != 0 {
			t.Errorf("%s: %v allocs/op", tt.name, n)
		}
	}

	// One lease lasts for all runs: leasing allocates, issuing does not.
	a := NewAllocator(&counter{}, 1, 7, 0, p, AllocatorOptions{MinLease: 4 << 20})
	defer a.Close()
	indexes, codes := make([]uint64, 0, 1000), make([]byte, 0, 7000)
	ctx := context.Background()
	if n := testing.AllocsPerRun(200, func() {
		if _, _, err := a.Issue(ctx, 1000, indexes, codes); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Issue of 1000: %v allocs", n)
	}
}
