package code

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/terselink/terse"
)

const (
	// maxCanonical is the longest canonical code or alias in bytes.
	maxCanonical = 255
	// maxRaw bounds the work on a path: percent-encoding triples a byte and decomposed
	// text can be three times as long as its composed form.
	maxRaw = 9 * maxCanonical
	// MaxAlias is the longest alias that can be created, in bytes. It is shorter
	// than what is looked up so that keys with a prefix stay below 255 bytes.
	MaxAlias = 190
)

// The errors of Canonical are made once: the redirect path answers them to anybody.
var (
	errEmpty   = invalidCode("must not be empty")
	errTooLong = invalidCode("must not be longer than 255 bytes")
	errPercent = invalidCode("has a % that two hexadecimal digits do not follow")
	errUTF8    = invalidCode("is not valid UTF-8")
	errChar    = invalidCode("has a character that a code cannot have: no spaces, control or invisible characters, nor any of \" # % / < > ? [ \\ ] ^ ` { | }")
	errDots    = invalidCode("must not be . or ..")
)

func invalidCode(message string) *terse.Error {
	return &terse.Error{Code: terse.CodeInvalid, Field: "code", Message: message}
}

// plain marks the ASCII characters that RFC 3986 lets stand for themselves in a path
// segment (pchar without the percent sign). They are all that a canonical code may
// have of ASCII, so an ASCII code is printed in a URL as it is.
var plain = func() (t [256]bool) {
	for c := range 128 {
		letter := 'a' <= lower(byte(c)) && lower(byte(c)) <= 'z'
		digit := '0' <= c && c <= '9'
		t[c] = letter || digit || c != 0 && strings.IndexByte("-._~!$&'()*+,;=:@", byte(c)) >= 0
	}
	return t
}()

// Canonical returns the one form of a code or an alias that is stored and looked up.
// Its argument is one path segment as it came from a client, raw or percent-encoded,
// without the slash before it.
//
// The segment is percent-decoded once and normalised to NFC. If fold is an alphabet
// that folds (Alphabet.Fold), letters are read in lower case, and what then reads as a
// code of that alphabet becomes that code: o is 0, i and l are 1, hyphens vanish. An
// alphabet that does not fold changes nothing, so callers pass the domain's.
//
// Returns an error of code invalid, field "code", for an empty segment, more than
// 255 bytes, bad percent-encoding or UTF-8, spaces, control and invisible
// characters, the segments . and .., and ASCII characters that cannot stand in a
// path segment, encoded or not. That includes a slash and a percent sign, so
// decoding a second time changes nothing: Canonical(Canonical(x)) = Canonical(x).
func Canonical(path []byte, fold *Alphabet) (string, error) {
	b, err := AppendCanonical(nil, path, fold)
	return string(b), err
}

// AppendCanonical appends the canonical form of path to dst, as Canonical
// defines it. It returns dst as it was and the error if there is none.
//
// Hot path: 0 allocs/op for ASCII without percent signs, accepted or not; see TestAllocs.
func AppendCanonical(dst, path []byte, fold *Alphabet) ([]byte, error) {
	if len(path) == 0 {
		return dst, errEmpty
	}
	if len(path) > maxRaw {
		return dst, errTooLong
	}
	for _, c := range path {
		if plain[c] {
			continue
		}
		if c < utf8.RuneSelf && c != '%' {
			return dst, errChar // at once: scanners send many of these
		}
		return appendCanonicalSlow(dst, path, fold)
	}
	if len(path) > maxCanonical {
		return dst, errTooLong
	}
	if isDots(path) {
		return dst, errDots
	}
	start := len(dst)
	dst = append(dst, path...)
	if fold != nil && fold.fold {
		dst = dst[:start+len(fold.foldASCII(dst[start:]))]
	}
	return dst, nil
}

func appendCanonicalSlow(dst, path []byte, fold *Alphabet) ([]byte, error) {
	b, err := unescape(path)
	if err != nil {
		return dst, err
	}
	b, err = normalise(b, fold)
	if err != nil {
		return dst, err
	}
	return append(dst, b...), nil
}

// unescape decodes percent-encoding once.
func unescape(path []byte) ([]byte, error) {
	out := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			if i+2 >= len(path) {
				return nil, errPercent
			}
			hi, lo := unhex(path[i+1]), unhex(path[i+2])
			if hi > 15 || lo > 15 {
				return nil, errPercent
			}
			c = hi<<4 | lo
			i += 2
		}
		out = append(out, c)
	}
	return out, nil
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= lower(c) && lower(c) <= 'f':
		return lower(c) - 'a' + 10
	}
	return noDigit
}

// normalise applies everything but percent-decoding, and checks the result: NFC
// turns some harmless characters into a backtick or a semicolon.
func normalise(b []byte, fold *Alphabet) ([]byte, error) {
	if !utf8.Valid(b) {
		return nil, errUTF8
	}
	b = norm.NFC.Bytes(b)
	if fold != nil && fold.fold {
		// Through upper case, so that the two lower-case sigmas become one.
		b = bytes.Map(func(r rune) rune { return unicode.ToLower(unicode.ToUpper(r)) }, b)
		b = norm.NFC.Bytes(b)
		b = fold.foldASCII(b)
	}
	switch {
	case len(b) == 0:
		return nil, errEmpty
	case len(b) > maxCanonical:
		return nil, errTooLong
	case isDots(b):
		return nil, errDots
	}
	for _, r := range string(b) {
		// IsPrint refuses control, format, unassigned and private characters and
		// every space but the ASCII one, which is not plain.
		if r < utf8.RuneSelf && !plain[r] || !unicode.IsPrint(r) {
			return nil, errChar
		}
	}
	return b, nil
}

// foldASCII folds s in place and returns it, perhaps shorter.
func (a *Alphabet) foldASCII(s []byte) []byte {
	digits := 0
	for i, c := range s {
		s[i] = lower(c)
		switch a.read[s[i]] {
		case noDigit:
			digits = -len(s) // never a code
		case 0:
		default:
			digits++
		}
	}
	if digits <= 0 { // an alias, or nothing but hyphens: only its case is folded
		return s
	}
	out := s[:0]
	for _, c := range s {
		if r := a.read[c]; r != 0 {
			out = append(out, r)
		}
	}
	return out
}

func isDots(b []byte) bool { return string(b) == "." || string(b) == ".." }

// AppendPath appends a canonical code as it stands in a URL: bytes beyond ASCII
// are percent-encoded. Canonical leads back to the code.
func AppendPath(dst []byte, code string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(code) {
		c := code[i]
		if plain[c] {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		}
	}
	return dst
}

// ValidateAlias reports whether an alias may be created: one that Canonical accepts,
// of 1 to MaxAlias bytes, which does not end in + (a short URL with a plus shows
// where it leads) or in a dot (programs that find links in text leave it out), and
// which is not a path of the system itself. Returns an error of code invalid,
// field "code". Whether the alias is free is the store's to say.
func ValidateAlias(alias string) error {
	c, err := Canonical([]byte(alias), nil)
	if err != nil {
		return err
	}
	switch last := c[len(c)-1]; {
	case len(c) > MaxAlias:
		return terse.Invalid("code", "must not be longer than %d bytes", MaxAlias)
	case last == '+' || last == '.':
		return terse.Invalid("code", "must not end in %c", last)
	case systemPath(strings.ToLower(c)):
		return terse.Invalid("code", "is a path of the system itself")
	}
	return nil
}

// systemPath reports whether the redirect plane answers a path by itself: /_/…,
// /.well-known/…, /robots.txt, /favicon.ico and the health checks.
func systemPath(c string) bool {
	switch c {
	case "_", "healthz", "readyz":
		return true
	}
	for _, prefix := range []string{".well-known", "robots.txt", "favicon.ico"} {
		if strings.HasPrefix(c, prefix) {
			return true
		}
	}
	return false
}
