package code

import (
	"errors"
	"slices"
	"testing"

	"github.com/terselink/terse"
)

func TestAlphabets(t *testing.T) {
	tests := []struct {
		name          string
		len, min, max int
		fold          bool
		without       string
		smallest      uint64 // N at min
	}{
		{name: "base62", len: 62, min: 4, max: 10, smallest: 14776336},
		{name: "base58", len: 58, min: 4, max: 10, smallest: 11316496, without: "0OIl"},
		{name: "human53", len: 53, min: 4, max: 10, smallest: 7890481, without: "01OIiljoJ"},
		{name: "clean46", len: 46, min: 4, max: 11, smallest: 4477456, without: "aeiouyAEIOUY0134"},
		{name: "crockford32", len: 32, min: 5, max: 12, smallest: 33554432, fold: true, without: "ilouABCZ"},
		{name: "digits", len: 10, min: 6, max: 18, smallest: 1000000, without: "aZ"},
	}
	if got := len(Names()); got != len(tests) {
		t.Errorf("%d alphabets, the table has %d", got, len(tests))
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := mustLookup(t, tt.name)
			if a.Name() != tt.name || a.Len() != tt.len || a.MinLength() != tt.min || a.MaxLength() != tt.max || a.Fold() != tt.fold {
				t.Errorf("got %s len %d, lengths %d to %d, fold %t", a.Name(), a.Len(), a.MinLength(), a.MaxLength(), a.Fold())
			}
			digits := []byte(a.Digits())
			if len(digits) != tt.len || !slices.IsSorted(digits) || len(slices.Compact(slices.Clone(digits))) != tt.len {
				t.Errorf("digits %q are not %d distinct bytes in byte order", digits, tt.len)
			}
			if !a.Fits(digits) {
				t.Error("the digits do not fit")
			}
			for _, c := range []byte(tt.without + "-_ \x00\xff") {
				if a.Fits([]byte{digits[0], c}) {
					t.Errorf("%q fits", c)
				}
			}
			if n, ok := power(uint64(tt.len), tt.min); !ok || n != tt.smallest || n < 1e6 {
				t.Errorf("N at the least length is %d, %t; want %d", n, ok, tt.smallest)
			}
			if _, ok := power(uint64(tt.len), tt.max); !ok {
				t.Error("N at the greatest length has more than 63 bits")
			}
			if tt.max > maxDigits {
				t.Errorf("codes of %d characters do not fit the scratch", tt.max)
			}
		})
	}
}

func TestLookupUnknown(t *testing.T) {
	for _, name := range []string{"", "Base62", "base64", "base62 "} {
		_, err := Lookup(name)
		e, ok := errors.AsType[*terse.Error](err)
		if !ok || e.Code != terse.CodeInvalid || e.Field != "alphabet" {
			t.Errorf("Lookup(%q): %v", name, err)
		}
	}
}
