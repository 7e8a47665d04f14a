package clicks

import (
	"strings"
	"unicode/utf8"
)

// maxText is the longest text of an event, in bytes, where none is named.
const maxText = 255

// memo remembers what a pure function made of a byte string, because the same
// few come again and again. It is bounded by count; keys are short because the
// spool cuts them. Not safe for concurrent use.
type memo[V any] struct {
	most   int
	f      func([]byte) V
	values map[string]V
}

func newMemo[V any](most int, f func([]byte) V) memo[V] {
	return memo[V]{most: most, f: f, values: map[string]V{}}
}

func (m *memo[V]) get(b []byte) V {
	if v, ok := m.values[string(b)]; ok {
		return v
	}
	v := m.f(b)
	if len(m.values) >= m.most {
		clear(m.values) // simpler than ageing, and what is hot is back at once
	}
	m.values[string(b)] = v
	return v
}

// cleanText returns b as valid UTF-8 without control characters: what every
// engine and file format takes.
func cleanText(b []byte) string {
	s := string(b)
	clean := true
	for i := 0; i < len(s) && clean; i++ {
		clean = s[i] >= ' ' && s[i] < 0x7f
	}
	if clean {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
}

// cutText is cleanText of at most most bytes, cut between characters.
func cutText(b []byte, most int) string {
	s := cleanText(b)
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return strings.Clone(s[:most])
}

// primaryLanguage returns the primary subtag of the first language of an
// Accept-Language header in lower case: "de" of "de-AT, de;q=0.9". "" if there is none.
func primaryLanguage(b []byte) string {
	i := 0
	for i < len(b) && (b[i] == ' ' || b[i] == ',') {
		i++
	}
	start := i
	for i < len(b) && ('a' <= b[i] && b[i] <= 'z' || 'A' <= b[i] && b[i] <= 'Z') {
		i++
	}
	if n := i - start; n < 2 || n > 3 || i < len(b) && !strings.ContainsRune("-_,; ", rune(b[i])) {
		return ""
	}
	return strings.ToLower(string(b[start:i]))
}
