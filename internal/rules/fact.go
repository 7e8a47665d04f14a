package rules

import (
	"bytes"
	"slices"
	"strings"
)

// manyValues is the number from which a map is faster than looking at each value.
const manyValues = 8

// values is a set of strings.
type values struct {
	few  []string
	many map[string]struct{}
}

func newValues(list []string) values {
	list = slices.Clone(list)
	slices.Sort(list)
	list = slices.Compact(list)
	for i, v := range list {
		list[i] = strings.Clone(v) // not a part of a request's body
	}
	if len(list) <= manyValues {
		return values{few: list}
	}
	v := values{many: make(map[string]struct{}, len(list))}
	for _, s := range list {
		v.many[s] = struct{}{}
	}
	return v
}

func (v *values) has(b []byte) bool {
	if v.many != nil {
		_, ok := v.many[string(b)]
		return ok
	}
	for _, s := range v.few {
		if string(b) == s {
			return true
		}
	}
	return false
}

// hasFold compares ASCII letters of either case.
func (v *values) hasFold(s string) bool {
	var buf [MaxValue]byte
	if s == "" || len(s) > len(buf) {
		return false
	}
	return v.has(appendLower(buf[:0], s))
}

func (v *values) hasFoldBytes(b []byte) bool {
	var buf [MaxValue]byte
	if len(b) == 0 || len(b) > len(buf) {
		return false
	}
	return v.has(appendLower(buf[:0], b))
}

// appendLower lowers ASCII; other letters are as strings.ToLower left them in most
// languages, because the facts come from closed lists of ASCII or from hosts.
func appendLower[T string | []byte](dst []byte, s T) []byte {
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// preferred returns the language of an Accept-Language header with the highest weight,
// the earlier of equals. Nothing counts that cannot be read, nor what has weight 0, nor *.
func preferred(header []byte) []byte {
	var best []byte
	bestQ := 0
	for len(header) > 0 {
		var item []byte
		item, header, _ = bytes.Cut(header, []byte{','})
		tag, params, weighted := bytes.Cut(item, []byte{';'})
		tag = bytes.TrimSpace(tag)
		q := 1000
		if weighted {
			q = quality(bytes.TrimSpace(params))
		}
		if q > bestQ && len(tag) > 0 && tag[0] != '*' {
			best, bestQ = tag, q
		}
	}
	return best
}

// quality reads "q=0.8" as 800; what is wrong is 0.
func quality(p []byte) int {
	if len(p) < 3 || len(p) > 7 || p[0]|0x20 != 'q' || p[1] != '=' {
		return 0
	}
	n, scale := 0, 1000
	for i, c := range p[2:] {
		switch {
		case i == 1 && c == '.':
		case i == 1 || c < '0' || c > '9':
			return 0
		default:
			n += int(c-'0') * scale
			scale /= 10
		}
	}
	return min(n, 1000)
}

// host returns the host of a referrer without port; nil if there is none.
func host(ref []byte) []byte {
	i := bytes.Index(ref, []byte("://"))
	if i < 0 {
		return nil
	}
	h := ref[i+3:]
	if i := bytes.IndexAny(h, "/?#"); i >= 0 {
		h = h[:i]
	}
	if i := bytes.LastIndexByte(h, '@'); i >= 0 {
		h = h[i+1:]
	}
	if i := bytes.LastIndexByte(h, ':'); i >= 0 && bytes.IndexByte(h[i:], ']') < 0 {
		h = h[:i]
	}
	return bytes.TrimSuffix(h, []byte{'.'})
}

// unescape decodes a part of a query into dst without growing it: what is longer than
// any value, or has a wrong escape, is ok false.
func unescape(dst, s []byte) ([]byte, bool) {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%':
			if i+2 >= len(s) {
				return nil, false
			}
			hi, lo := unhex(s[i+1]), unhex(s[i+2])
			if hi > 15 || lo > 15 {
				return nil, false
			}
			c = hi<<4 | lo
			i += 2
		}
		if len(dst) == cap(dst) {
			return nil, false
		}
		dst = append(dst, c)
	}
	return dst, true
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 0xff
}
