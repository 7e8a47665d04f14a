package code

import (
	_ "embed"
	"strings"
)

// WordsVersion is the version of the word list. Which indexes of a space are
// skipped depends on it, so whoever records issued ranges records it too.
const WordsVersion = 1

//go:embed words.txt
var wordsFile string

var words = parseWords(wordsFile)

// wordSet finds words inside codes. A code is read five bits a letter, and the
// last three letters index two bitmaps of 4 KiB: the words of three letters, and
// the first three letters of the longer ones. Most codes meet neither.
type wordSet struct {
	short  [1 << 15 / 64]uint64
	prefix [1 << 15 / 64]uint64
	rest   map[uint16][]string // the letters after the first three, of longer words
	all    []string
}

// letterOf is what a byte of a code reads as: 1 to 26 for a to z, with case folded and the
// digits of leet spelling undone; 0 for the other digits, which end a word.
var letterOf = func() (t [256]uint8) {
	for c := byte('a'); c <= 'z'; c++ {
		t[c] = c - 'a' + 1
		t[upper(c)] = t[c]
	}
	for i, c := range []byte("oieast") {
		t["013457"[i]] = t[c]
	}
	return t
}()

func parseWords(file string) *wordSet {
	s := &wordSet{rest: map[uint16][]string{}}
	for line := range strings.Lines(file) {
		w := strings.TrimSpace(line)
		if w == "" || w[0] == '#' {
			continue
		}
		s.all = append(s.all, w)
		t := trigram(0, w[0])
		t = trigram(t, w[1])
		t = trigram(t, w[2])
		if len(w) == 3 {
			s.short[t/64] |= 1 << (t % 64)
			continue
		}
		s.prefix[t/64] |= 1 << (t % 64)
		s.rest[t] = append(s.rest[t], w[3:])
	}
	return s
}

// trigram is t with its oldest letter replaced by c as its newest.
func trigram(t uint16, c byte) uint16 { return (t<<5 | uint16(letterOf[c])) & (1<<15 - 1) }

// Blocked reports whether the code contains a word of the list: in any case, and with
// 0 1 3 4 5 7 read as o i e a s t. A code of digits alone contains no words. An
// index with a blocked code is skipped, never re-shuffled, so that every code
// still has one index. The answer depends on the code and WordsVersion only.
//
// Hot path: 0 allocs/op, see TestAllocs.
func Blocked(code []byte) bool {
	var t uint16
	for i, c := range code {
		t = trigram(t, c)
		bit := uint64(1) << (t % 64)
		switch {
		case i < 2:
		case words.short[t/64]&bit != 0, words.prefix[t/64]&bit != 0 && words.continues(t, code[i+1:]):
			return !onlyDigits(code)
		}
	}
	return false
}

// continues reports whether tail starts with the rest of a word whose first
// three letters are t.
func (s *wordSet) continues(t uint16, tail []byte) bool {
next:
	for _, rest := range s.rest[t] {
		if len(rest) > len(tail) {
			continue
		}
		for i := range len(rest) {
			if letterOf[tail[i]] != letterOf[rest[i]] {
				continue next
			}
		}
		return true
	}
	return false
}

func onlyDigits(code []byte) bool {
	for _, c := range code {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
