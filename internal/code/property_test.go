package code

import (
	"math"
	"testing"
)

// The keys here are fixed, so these tests give the same answer on every run: the
// bounds say how surprising a result would be for a random permutation.

// chiSquareLimit is the value that chi-squared with df degrees of freedom passes with
// a probability of 1e-6 (Wilson and Hilferty's approximation, 1931).
func chiSquareLimit(df float64) float64 {
	const z = 4.753424 // of 1e-6
	c := 2 / (9 * df)
	return df * math.Pow(1-c+z*math.Sqrt(c), 3)
}

// TestRandomLooking: digits are even at every position, neighbours share a
// digit as often as chance has it, and consecutive codes do not follow each other.
func TestRandomLooking(t *testing.T) {
	count := 10_000_000
	if testing.Short() {
		count = 400_000
	}
	for _, length := range []int{7, 6} { // 6 is a perfect square
		p := mustPerm(t, testKey(5), "base62", length)
		e := p.NewEncoder()
		frequency := make([][62]float64, length)
		shared := make([]float64, length)
		var serial, sum, sumSquares float64
		var previous []byte
		var previousY float64
		indexes := make([]uint64, 0, 4096)
		codes := make([]byte, 0, 4096*length)
		for next := 0; next < count; {
			indexes = indexes[:0]
			for len(indexes) < cap(indexes) && next < count {
				indexes = append(indexes, uint64(next))
				next++
			}
			codes = e.AppendAll(codes[:0], indexes)
			for j := range indexes {
				c := codes[j*length:][:length]
				y := 0.0
				for pos, ch := range c {
					v := p.alphabet.value[ch]
					frequency[pos][v]++
					y = y*62 + float64(v)
					if previous != nil && ch == previous[pos] {
						shared[pos]++
					}
				}
				y = y/float64(p.n) - 0.5
				sum += y
				sumSquares += y * y
				if previous != nil {
					serial += y * previousY
				}
				previous, previousY = append(previous[:0], c...), y
			}
		}
		n := float64(count)
		for pos := range length {
			chi := 0.0
			for _, f := range frequency[pos] {
				d := f - n/62
				chi += d * d / (n / 62)
			}
			if limit := chiSquareLimit(61); chi > limit {
				t.Errorf("length %d, position %d: digits are biased, chi-squared %.1f > %.1f", length, pos, chi, limit)
			}
			q := 1.0 / 62
			if dev := (shared[pos] - (n-1)*q) / math.Sqrt((n-1)*q*(1-q)); math.Abs(dev) > 5 {
				t.Errorf("length %d, position %d: neighbours share the digit %.1f sigma off chance", length, pos, dev)
			}
		}
		if dev := sum / n * math.Sqrt(12*n); math.Abs(dev) > 5 {
			t.Errorf("length %d: the mean is %.1f sigma off", length, dev)
		}
		if r := serial / sumSquares * math.Sqrt(n); math.Abs(r) > 5 {
			t.Errorf("length %d: consecutive codes correlate, %.1f sigma", length, r)
		}
	}
}

// TestKeysUnrelated: the codes of one index under two keys, two lengths or two alphabets of one
// key are as good as independent, also for keys that differ in one bit.
func TestKeysUnrelated(t *testing.T) {
	count := uint64(1_000_000)
	if testing.Short() {
		count = 100_000
	}
	key, flipped := testKey(6), testKey(6)
	flipped[31] ^= 1
	base := mustPerm(t, key, "base62", 7)
	for _, other := range []struct {
		name string
		p    *Permutation
	}{
		{"another key", mustPerm(t, testKey(200), "base62", 7)},
		{"one bit of the key", mustPerm(t, flipped, "base62", 7)},
		{"another length", mustPerm(t, key, "base62", 8)},
		{"another alphabet", mustPerm(t, key, "base58", 7)},
	} {
		t.Run(other.name, func(t *testing.T) {
			t.Parallel()
			a, b := base.NewEncoder(), other.p.NewEncoder()
			size := other.p.alphabet.Len()
			tables := make([][]float64, base.length)
			for pos := range tables {
				tables[pos] = make([]float64, 62*size)
			}
			equal := 0
			var x, y []byte
			for i := range count {
				x, y = a.Append(x[:0], i), b.Append(y[:0], i)
				if string(x) == string(y) {
					equal++
				}
				for pos := range tables {
					tables[pos][int(base.alphabet.value[x[pos]])*size+int(other.p.alphabet.value[y[pos]])]++
				}
			}
			if equal > 1 {
				t.Errorf("%d of %d codes are the same", equal, count)
			}
			cells := float64(62 * size)
			expected := float64(count) / cells
			for pos, table := range tables {
				chi := 0.0
				for _, f := range table {
					chi += (f - expected) * (f - expected) / expected
				}
				if limit := chiSquareLimit(cells - 1); chi > limit {
					t.Errorf("position %d: the digits depend on each other, chi-squared %.0f > %.0f", pos, chi, limit)
				}
			}
		})
	}
}

func TestRandom(t *testing.T) {
	for _, a := range alphabets {
		count := 200_000
		text := Random([]byte("x"), a, count)
		if len(text) != count+1 || text[0] != 'x' || !a.Fits(text[1:]) {
			t.Fatalf("%s: %d characters, or one that is foreign", a.Name(), len(text))
		}
		frequency := make([]float64, a.Len())
		for _, c := range text[1:] {
			frequency[a.value[c]]++
		}
		expected := float64(count) / float64(a.Len())
		chi := 0.0
		for _, f := range frequency {
			chi += (f - expected) * (f - expected) / expected
		}
		// The one test here with real randomness. Twice the limit is never met by
		// chance, and passed ten times over if the rest of the division is kept.
		if limit := 2 * chiSquareLimit(float64(a.Len()-1)); chi > limit {
			t.Errorf("%s: characters are biased, chi-squared %.0f > %.0f", a.Name(), chi, limit)
		}
	}
	if got := Random(nil, alphabets[0], 0); len(got) != 0 {
		t.Errorf("no characters wanted, got %q", got)
	}
	if a, b := string(Random(nil, alphabets[0], 22)), string(Random(nil, alphabets[0], 22)); a == b || len(a) != 22 {
		t.Errorf("two secret codes: %q, %q", a, b)
	}
}
