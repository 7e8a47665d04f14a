package code

import (
	"bytes"
	"flag"
	"testing"

	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write testdata for a new PermVersion or WordsVersion")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testKey(b byte) []byte { return bytes.Repeat([]byte{b}, KeySize) }

func mustLookup(tb testing.TB, name string) *Alphabet {
	tb.Helper()
	a, err := Lookup(name)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

func mustPerm(tb testing.TB, key []byte, name string, length int) *Permutation {
	tb.Helper()
	p, err := NewPermutation(key, mustLookup(tb, name), length)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// artificial returns a permutation of any size under a fixed key.
func artificial(tb testing.TB, name string, length int, n uint64) *Permutation {
	tb.Helper()
	p, err := newPermutation(testKey(7)[:16], mustLookup(tb, name), length, n)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}
