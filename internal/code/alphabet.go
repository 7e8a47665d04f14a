package code

import (
	"strings"

	"github.com/terselink/terse"
)

// Alphabet is an ordered set of ASCII characters that codes are written in. The
// place of a character is its digit; all alphabets are in byte order.
type Alphabet struct {
	name   string
	digits string
	min    int
	max    int
	fold   bool

	value [256]uint8 // digit of a byte, noDigit for all others
	pairs [][2]byte  // pairs[x] are the two digits of x < A*A
	read  [256]uint8 // fold only: the character that a byte is read as; 0: ignored, noDigit: foreign
}

const noDigit = 0xff

// The alphabets by name. Lengths: at least a million codes, which is the least
// that format-preserving encryption is trusted with (NIST SP 800-38G), and fewer
// than 2^63.
var alphabets = []*Alphabet{
	newAlphabet("base62", "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", 4, 10, false),
	// Without 0 O I l.
	newAlphabet("base58", "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", 4, 10, false),
	// Without any character that looks like another one.
	newAlphabet("human53", "23456789ABCDEFGHKLMNPQRSTUVWXYZabcdefghkmnpqrstuvwxyz", 4, 10, false),
	// Without vowels and the digits that stand for them: hardly ever a word.
	newAlphabet("clean46", "256789BCDFGHJKLMNPQRSTVWXZbcdfghjklmnpqrstvwxz", 4, 11, false),
	// Douglas Crockford's base 32: case does not matter, o is 0, i and l are 1, - is ignored.
	newAlphabet("crockford32", "0123456789abcdefghjkmnpqrstvwxyz", 5, 12, true),
	newAlphabet("digits", "0123456789", 6, 18, false),
}

// Lookup returns the alphabet of a name: base62, base58, human53, clean46,
// crockford32 or digits. Returns an error of code invalid, field "alphabet", for
// any other name.
func Lookup(name string) (*Alphabet, error) {
	for _, a := range alphabets {
		if a.name == name {
			return a, nil
		}
	}
	return nil, terse.Invalid("alphabet", "unknown alphabet; use one of %s", strings.Join(Names(), ", "))
}

// Names returns the names of all alphabets, the default first.
func Names() []string {
	names := make([]string, len(alphabets))
	for i, a := range alphabets {
		names[i] = a.name
	}
	return names
}

func newAlphabet(name, digits string, minLength, maxLength int, fold bool) *Alphabet {
	a := &Alphabet{name: name, digits: digits, min: minLength, max: maxLength, fold: fold}
	for i := range a.value {
		a.value[i] = noDigit
	}
	for i := range len(digits) {
		a.value[digits[i]] = uint8(i)
	}
	a.pairs = make([][2]byte, 0, len(digits)*len(digits))
	for i := range len(digits) {
		for j := range len(digits) {
			a.pairs = append(a.pairs, [2]byte{digits[i], digits[j]})
		}
	}
	if fold {
		a.setRead()
	}
	return a
}

// setRead fills the table that reads typed codes: upper case as lower case, look-alikes as
// digits, the hyphen as nothing.
func (a *Alphabet) setRead() {
	for i := range a.read {
		a.read[i] = noDigit
	}
	for i := range len(a.digits) {
		c := a.digits[i]
		a.read[c] = c
		a.read[upper(c)] = c
	}
	for _, c := range []byte("oO") {
		a.read[c] = '0'
	}
	for _, c := range []byte("iIlL") {
		a.read[c] = '1'
	}
	a.read['-'] = 0
}

// Name returns the name that Lookup knows the alphabet by. It is part of the key
// derivation of a Permutation, so it never changes.
func (a *Alphabet) Name() string { return a.name }

// Len returns the number of characters, A.
func (a *Alphabet) Len() int { return len(a.digits) }

// Digits returns the characters in the order of their values.
func (a *Alphabet) Digits() string { return a.digits }

// MinLength returns the shortest usable length of codes.
func (a *Alphabet) MinLength() int { return a.min }

// MaxLength returns the longest usable length of codes.
func (a *Alphabet) MaxLength() int { return a.max }

// Fold reports whether typed codes are folded before they are looked up: upper
// case is read as lower case, o as 0, i and l as 1, and hyphens are ignored.
// Canonical does it; a domain with such an alphabet is case-insensitive.
func (a *Alphabet) Fold() bool { return a.fold }

// Fits reports whether every byte of code is of the alphabet, in its canonical
// form. The empty code fits.
func (a *Alphabet) Fits(code []byte) bool {
	for _, c := range code {
		if a.value[c] == noDigit {
			return false
		}
	}
	return true
}

func upper(c byte) byte {
	if 'a' <= c && c <= 'z' {
		return c - ('a' - 'A')
	}
	return c
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}
