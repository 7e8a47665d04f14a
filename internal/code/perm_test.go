package code

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"testing"

	"github.com/terselink/terse"
)

func TestCeilSqrt(t *testing.T) {
	check := func(n uint64) {
		t.Helper()
		x := new(big.Int).Sqrt(new(big.Int).SetUint64(n)) // floor
		if new(big.Int).Mul(x, x).Uint64() < n {
			x.Add(x, big.NewInt(1))
		}
		if got := ceilSqrt(n); got != x.Uint64() {
			t.Errorf("ceilSqrt(%d) = %d, want %s", n, got, x)
		}
	}
	for n := uint64(1); n < 5000; n++ {
		check(n)
	}
	// Around squares near 2^63, where floating point is off by one, and powers.
	for _, r := range []uint64{3037000499, 3037000498, 2147483648, 1876597, 1 << 20} {
		for d := range uint64(5) {
			check(r*r - 2 + d)
		}
	}
	for e := range 63 {
		check(1 << e)
		check(1<<e + 1)
	}
	check(1<<63 - 1)
	for _, a := range alphabets {
		for l := 1; l <= a.max; l++ {
			n, _ := power(uint64(a.Len()), l)
			check(n)
		}
	}
}

func TestPowerOverflow(t *testing.T) {
	for _, tt := range []struct {
		base uint64
		exp  int
		want uint64 // 0: too large
	}{
		{62, 0, 1}, {62, 7, 3521614606208}, {62, 10, 839299365868340224}, {62, 11, 0}, {62, 40, 0},
		{32, 12, 1 << 60}, {32, 13, 0}, {2, 62, 1 << 62}, {2, 63, 0}, {2, 64, 0}, {10, 18, 1e18}, {10, 19, 0},
	} {
		got, ok := power(tt.base, tt.exp)
		if got != tt.want || ok != (tt.want != 0) {
			t.Errorf("power(%d, %d) = %d, %t; want %d", tt.base, tt.exp, got, ok, tt.want)
		}
	}
}

func TestNewPermutationRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, alphabet string
		key            []byte
		length         int
		field          string
	}{
		{"no key", "base62", nil, 7, "perm_key"},
		{"short key", "base62", testKey(1)[:31], 7, "perm_key"},
		{"long key", "base62", append(testKey(1), 0), 7, "perm_key"},
		{"too short", "base62", testKey(1), 3, "code_length"},
		{"too long", "base62", testKey(1), 11, "code_length"},
		{"crockford too short", "crockford32", testKey(1), 4, "code_length"},
		{"digits too long", "digits", testKey(1), 19, "code_length"},
		{"negative", "digits", testKey(1), -1, "code_length"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewPermutation(tt.key, mustLookup(t, tt.alphabet), tt.length)
			e, ok := errors.AsType[*terse.Error](err)
			if !ok || e.Code != terse.CodeInvalid || e.Field != tt.field {
				t.Errorf("got %v, want field %s", err, tt.field)
			}
		})
	}
}

// TestHalves covers the three kinds of N: perfect squares, which never walk; b = a; b = a-1.
func TestHalves(t *testing.T) {
	for _, tt := range []struct {
		length int
		a, b   uint64
	}{{6, 238328, 238328}, {7, 1876597, 1876597}, {9, 116348987, 116348986}} {
		p := mustPerm(t, testKey(1), "base62", tt.length)
		if p.a != tt.a || p.b != tt.b {
			t.Errorf("length %d: a = %d, b = %d; want %d, %d", tt.length, p.a, p.b, tt.a, tt.b)
		}
	}
}

// TestBijection walks whole spaces: every code is in range, none comes twice,
// and each leads back to its index.
func TestBijection(t *testing.T) {
	for _, n := range []uint64{999983, 999979, 999001, 998002, 1000003, 1 << 20, 32 * 32 * 32 * 32} {
		t.Run(fmt.Sprint("artificial-", n), func(t *testing.T) {
			t.Parallel()
			exhaust(t, artificial(t, "base62", 4, n))
		})
	}
	t.Run("tiny", func(t *testing.T) { // here a third of the indexes walk
		t.Parallel()
		for n := uint64(1); n <= 600; n++ {
			exhaust(t, artificial(t, "base62", 4, n))
		}
	})
	for _, a := range alphabets {
		for l := a.min; l <= a.max; l++ {
			p := mustPerm(t, testKey(3), a.name, l)
			if p.N() > 14776336 {
				break
			}
			t.Run(fmt.Sprint(a.name, "-", l), func(t *testing.T) {
				if testing.Short() && p.N() > 1e6 {
					t.Skip("a whole space of more than a million codes")
				}
				t.Parallel()
				exhaust(t, p)
			})
		}
	}
}

func exhaust(t *testing.T, p *Permutation) {
	e := p.NewEncoder()
	seen := make([]uint64, p.n/64+1)
	count := uint64(0)
	var ys [lanes]uint64
	for i := uint64(0); i < p.n; i += lanes {
		for j := range ys {
			ys[j] = min(i+uint64(j), p.n-1)
		}
		e.permuteLanes(&ys)
		for j, y := range ys[:min(lanes, p.n-i)] {
			if y >= p.n || seen[y/64]&(1<<(y%64)) != 0 {
				t.Fatalf("n = %d: index %d gives %d, out of range or given before", p.n, i+uint64(j), y)
			}
			seen[y/64] |= 1 << (y % 64)
			count++
			if x := e.invert(y); x != i+uint64(j) {
				t.Fatalf("n = %d: index %d gives %d, which leads back to %d", p.n, i+uint64(j), y, x)
			}
		}
	}
	if count != p.n {
		t.Fatalf("%d codes, want %d", count, p.n)
	}
}

// TestEncodersAgree compares the three ways to make a code, and Index.
func TestEncodersAgree(t *testing.T) {
	for _, a := range alphabets {
		for l := a.min; l <= a.max; l++ {
			p := mustPerm(t, testKey(9), a.name, l)
			indexes := []uint64{0, 1, p.n - 1, p.n / 2}
			for i := range uint64(101) { // not a multiple of the lanes
				indexes = append(indexes, (i*0x9e3779b97f4a7c15)%p.n)
			}
			all := p.NewEncoder().AppendAll(nil, indexes)
			e := p.NewEncoder()
			for j, i := range indexes {
				c := p.AppendCode(nil, i)
				if len(c) != l || !a.Fits(c) || string(c) != string(all[j*l:][:l]) || string(c) != string(e.Append(nil, i)) {
					t.Fatalf("%s-%d index %d: %q, %q, %q", a.name, l, i, c, all[j*l:][:l], e.Append(nil, i))
				}
				if x, ok := p.Index(c); !ok || x != i {
					t.Fatalf("%s-%d: Index(%q) = %d, %t; want %d", a.name, l, c, x, ok, i)
				}
			}
		}
	}
}

// TestLeadingZeros: codes of small values keep their length.
func TestLeadingZeros(t *testing.T) {
	p := mustPerm(t, testKey(1), "base62", 7)
	for _, y := range []uint64{0, 1, 61, 62, p.n - 1} {
		c := p.NewEncoder().appendDigits(nil, y)
		i, ok := p.Index(c)
		if len(c) != 7 || !ok || p.NewEncoder().permute(i) != y {
			t.Errorf("digits of %d: %q, index %d, %t", y, c, i, ok)
		}
	}
	if got := string(p.NewEncoder().appendDigits(nil, 62)); got != "0000010" {
		t.Errorf("62 is written %q", got)
	}
}

func TestIndexRefuses(t *testing.T) {
	p := mustPerm(t, testKey(1), "base58", 7)
	for _, c := range []string{"", "aB3dE5", "aB3dE5gh", "aB3dE50", "aB3dE5O", "aB3 E5g", "aB3-E5g", "caf\xc3\xa9bc", "\x00\x00\x00\x00\x00\x00\x00", "\xff\xff\xff\xff\xff\xff\xff"} {
		if i, ok := p.Index([]byte(c)); ok {
			t.Errorf("Index(%q) = %d", c, i)
		}
	}
}

func TestAppendCodeOutOfRange(t *testing.T) {
	p := mustPerm(t, testKey(1), "base62", 4)
	for _, i := range []uint64{p.N(), p.N() + 1, math.MaxUint64} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("no panic for index %d", i)
				}
			}()
			p.AppendCode(nil, i)
		}()
	}
}

func TestCheckCodes(t *testing.T) {
	p := mustPerm(t, testKey(1), "base62", 7)
	codes := p.CheckCodes()
	if len(codes) != 8 {
		t.Fatalf("%d codes", len(codes))
	}
	for i, c := range codes {
		if c != string(p.AppendCode(nil, uint64(i))) {
			t.Errorf("check code %d is %q", i, c)
		}
	}
	for _, other := range []*Permutation{mustPerm(t, testKey(2), "base62", 7), mustPerm(t, testKey(1), "base58", 7)} {
		for i, c := range other.CheckCodes() {
			if c == codes[i] {
				t.Errorf("another key or alphabet has the same code %q", c)
			}
		}
	}
}

func TestCap(t *testing.T) {
	for _, tt := range []struct {
		n       uint64
		density float64
		want    uint64
	}{
		{3521614606208, 0.001, 3521614606}, // 62^7
		{56800235584, 0.001, 56800235},     // 62^6
		{916132832, 0.01, 9161328},         // 62^5
		{916132832, 0.00001, 9161},
		{1000000, 1, 1000000},
		{1000000, 0.001, 1000},
		{218340105584896, 0.001, 218340105584}, // 62^8, below 2^38
		{218340105584896, 1, 1 << 38},
		{1<<63 - 1, 0.5, 1 << 38},
		{1<<63 - 1, 0.00000001, 92233720368},
		{100, 0.001, 1},
		{1000, 0, 1000}, {1000, -1, 1000}, {1000, 2, 1000}, {1000, math.NaN(), 1000}, {1000, math.Inf(1), 1000},
	} {
		if got := Cap(tt.n, tt.density); got != tt.want {
			t.Errorf("Cap(%d, %g) = %d, want %d", tt.n, tt.density, got, tt.want)
		}
	}
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte("aB3dE5g"), uint8(0), uint8(3))
	f.Add([]byte("0000000"), uint8(0), uint8(3))
	f.Add([]byte("zzzzzzzzzz"), uint8(0), uint8(6))
	f.Add([]byte("caf\xc3\xa9"), uint8(4), uint8(0))
	f.Add([]byte("999999999999999999"), uint8(5), uint8(12))
	f.Fuzz(func(t *testing.T, code []byte, which, extra uint8) {
		a := alphabets[int(which)%len(alphabets)]
		p := mustPerm(t, testKey(1), a.name, a.min+int(extra)%(a.max-a.min+1))
		i, ok := p.Index(code)
		if ok != (len(code) == p.Length() && a.Fits(code)) {
			t.Fatalf("Index(%q) = %d, %t", code, i, ok)
		}
		if !ok {
			return
		}
		if i >= p.N() {
			t.Fatalf("index %d of %q is not below %d", i, code, p.N())
		}
		if back := p.AppendCode(nil, i); string(back) != string(code) {
			t.Fatalf("%q has index %d, whose code is %q", code, i, back)
		}
	})
}
