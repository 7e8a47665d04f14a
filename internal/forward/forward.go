// Package forward puts a rendered destination and what a visit brings along together: more
// path, the query in one of three ways, and UTM parameters where they are missing. The redirect
// plane and the explanation of a link share it.
//
// It knows no link and no HTTP. Invariants: nothing of the visit can reach scheme or authority,
// because what is added comes after a slash or a question mark that is written here; the result
// is safe in a header if the destination is; order and empty keys are kept.
package forward

import (
	"bytes"
	"slices"
	"strings"

	"github.com/terselink/terse"
)

// Parts are the ends of the parts of a rendered URL: path [.., path), query
// [path, query) with its question mark, fragment [query, len) with its hash sign.
type Parts struct {
	path, query int32
	bare        bool // nothing stands after the authority: "https://example.com"
}

// Split finds the parts. It needs no URL parser: the first ? or # ends the
// path, the first # the query (RFC 3986, appendix B), and a rendered destination
// has no user information.
func Split(u string) Parts {
	query := strings.IndexByte(u, '#')
	if query < 0 {
		query = len(u)
	}
	path := strings.IndexByte(u[:query], '?')
	if path < 0 {
		path = query
	}
	authority := strings.Index(u[:path], "://")
	bare := authority >= 0 && strings.IndexByte(u[authority+len("://"):path], '/') < 0
	return Parts{path: int32(path), query: int32(query), bare: bare}
}

// Mode says how the query of a visit and the stored one become one.
type Mode uint8

// The modes.
const (
	Inherit       Mode = iota // as the domain says
	Append                    // the stored one, then that of the visit; a key may be there twice
	IncomingFirst             // that of the visit, then the stored parameters that it does not name
	StoredFirst               // the stored one, then the parameters of the visit that it does not name
)

// ParseMode returns the mode of a name; Inherit for "", and for a name that is none.
func ParseMode(name string) Mode {
	switch name {
	case terse.QueryAppend:
		return Append
	case terse.QueryIncomingFirst:
		return IncomingFirst
	case terse.QueryStoredFirst:
		return StoredFirst
	}
	return Inherit
}

// Or returns m, or what the domain says.
func (m Mode) Or(domain Mode) Mode {
	if m == Inherit {
		return domain
	}
	return m
}

// Visit is what a visit brings along, and how it is added.
type Visit struct {
	Rest  []byte // of the path, after the code and a slash; nil: none
	Query []byte // raw, without the question mark; nil: none, or not forwarded
	Mode  Mode   // Inherit is Append
	// UTM of the link and of the domain, nil for none. The first that has a parameter gives it.
	Link, Domain *UTM
	// Scratch is memory for the hashes of keys; it grows, and may be nil.
	Scratch *[]uint64
}

// The query parameters that are ours and are not forwarded.
const (
	// ScanMark is what QR codes carry.
	ScanMark = "qr=1"
	// NoTrackMark says that a visit is not to be counted as a person's. Its name is ours, so that no destination has it.
	NoTrackMark = "terse_notrack=1"
)

// isMark reports whether a pair of a query is ours.
func isMark(pair []byte) bool { return string(pair) == ScanMark || string(pair) == NoTrackMark }

// Marks reports which parameters of ours a raw query has.
func Marks(query []byte) (scan, noTrack bool) {
	for len(query) >= len(ScanMark) {
		var pair []byte
		pair, query, _ = bytes.Cut(query, []byte{'&'})
		scan = scan || string(pair) == ScanMark
		noTrack = noTrack || string(pair) == NoTrackMark
	}
	return scan, noTrack
}

// AppendURL appends destination, whose parts are p, with what the visit brings along: rest
// joined to the path with one slash, the queries as the mode says, the UTM parameters that no
// query has, the fragment of the destination at the end. It reports false if rest would leave the
// path of the destination.
//
// Hot path: 0 allocs/op once the buffers have grown, see TestAppendAllocs.
func AppendURL(dst []byte, destination string, p Parts, v *Visit) ([]byte, bool) {
	dst = append(dst, destination[:p.path]...)
	if v.Rest != nil {
		if escapes(v.Rest) {
			return dst, false
		}
		if p.bare || dst[len(dst)-1] != '/' {
			dst = append(dst, '/')
		}
		dst = appendVisible(dst, v.Rest)
	}
	q := queries{dst: dst, sep: '?', utm: v.Link != nil || v.Domain != nil}
	stored := destination[p.path:p.query]
	switch {
	case v.Mode == IncomingFirst && len(v.Query) > 0 && len(stored) > 1:
		q.winners(v.Scratch, v.Query, true)
		q.incoming(v.Query, nil)
		q.storedPairs(stored[1:], q.keys)
	case v.Mode == StoredFirst && len(v.Query) > 0 && len(stored) > 1:
		q.winners(v.Scratch, view(stored[1:]), false)
		q.storedWhole(stored)
		q.incoming(v.Query, q.keys)
	default:
		q.storedWhole(stored)
		q.incoming(v.Query, nil)
	}
	if q.utm {
		q.addUTM(v.Link, v.Domain)
	}
	return append(q.dst, destination[p.query:]...), true
}

// queries writes one query out of several.
type queries struct {
	dst  []byte
	sep  byte // to write before the next pair; 0: it stands there already
	utm  bool // the names of UTM parameters are looked for
	seen [utmCount]bool
	keys []uint64 // sorted hashes of the keys that win
}

// winners collects the keys whose parameters stay, so that the others of the name are left out. Sorted
// hashes, because both queries may have thousands of parameters.
func (q *queries) winners(scratch *[]uint64, query []byte, ours bool) {
	var keys []uint64
	if scratch != nil {
		keys = (*scratch)[:0]
	}
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, []byte{'&'})
		if len(pair) > 0 && !(ours && isMark(pair)) {
			keys = append(keys, keyHash(pair))
		}
	}
	slices.Sort(keys)
	if scratch != nil {
		*scratch = keys
	}
	q.keys = keys
}

// pair writes one pair, which may be empty, with what stands before it.
func (q *queries) pair(pair []byte) {
	if q.sep != 0 {
		q.dst = append(q.dst, q.sep)
	}
	q.dst = appendVisible(q.dst, pair)
	q.sep = '&'
	q.note(pair)
}

// note marks the UTM parameters that are there.
func (q *queries) note(pair []byte) {
	if !q.utm || len(pair) == 0 {
		return
	}
	if i := slices.Index(utmHashes[:], keyHash(pair)); i >= 0 {
		q.seen[i] = true
	}
}

// without reports whether a pair is left out because a query that goes before names its key.
func without(pair []byte, winners []uint64) bool {
	if len(winners) == 0 || len(pair) == 0 {
		return false
	}
	_, named := slices.BinarySearch(winners, keyHash(pair))
	return named
}

// storedWhole writes the stored query byte for byte, its question mark first.
func (q *queries) storedWhole(stored string) {
	if stored == "" {
		return
	}
	q.dst = append(q.dst, stored...)
	if q.sep = '&'; len(stored) == 1 || stored[len(stored)-1] == '&' {
		q.sep = 0 // "?" or "…&" stands there already
	}
	for rest := stored[1:]; q.utm && rest != ""; {
		var pair string
		pair, rest, _ = strings.Cut(rest, "&")
		q.note(view(pair))
	}
}

// storedPairs writes the stored pairs that no winner names.
func (q *queries) storedPairs(stored string, winners []uint64) {
	for more := true; more; {
		var pair string
		pair, stored, more = strings.Cut(stored, "&")
		if p := view(pair); (len(p) > 0 || more) && !without(p, winners) {
			q.pair(p)
		}
	}
}

// incoming writes the pairs of the visit that no winner names. Our own marks stay out. An ampersand at
// the end stays, if what it follows does.
func (q *queries) incoming(query []byte, winners []uint64) {
	wrote := false
	for query != nil {
		var pair []byte
		var more bool
		pair, query, more = bytes.Cut(query, []byte{'&'})
		if len(pair) == 0 && !more {
			if wrote {
				q.dst, q.sep = append(q.dst, '&'), 0
			}
			return
		}
		if wrote = !isMark(pair) && !without(pair, winners); wrote {
			q.pair(pair)
		}
		if !more {
			return
		}
	}
}

func (q *queries) addUTM(link, domain *UTM) {
	for i, seen := range q.seen {
		if seen {
			continue
		}
		for _, u := range [2]*UTM{link, domain} {
			if u != nil && u.pairs[i] != "" {
				if q.sep != 0 {
					q.dst = append(q.dst, q.sep)
				}
				q.dst, q.sep = append(q.dst, u.pairs[i]...), '&'
				break
			}
		}
	}
}

// keyHash returns the FNV-1a hash of the decoded key of a pair: utm%5Fsource is utm_source. Two keys
// that collide cost the visitor who looks for them one parameter of the own visit.
func keyHash(pair []byte) uint64 {
	h := uint64(14695981039346656037)
	for i := 0; i < len(pair) && pair[i] != '='; i++ {
		c := pair[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%' && i+2 < len(pair):
			if d, ok := unhex(pair[i+1], pair[i+2]); ok {
				c = d
				i += 2
			}
		}
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// escapes reports whether a raw path has a segment that climbs (. or .., encoded
// or not, between slashes encoded or not) or a backslash, which some programs read
// as a slash.
func escapes(path []byte) bool {
	dots, other := 0, false // of the current segment
	for i := 0; ; i++ {
		c := byte('/') // the end closes the last segment
		if i < len(path) {
			c = path[i]
			if c == '%' && i+2 < len(path) {
				if d, ok := unhex(path[i+1], path[i+2]); ok {
					c = d
					i += 2
				}
			}
		}
		switch c {
		case '\\':
			return true
		case '.':
			dots++
		case '/':
			if !other && (dots == 1 || dots == 2) {
				return true
			}
			dots, other = 0, false
		default:
			other = true
		}
		if i >= len(path) {
			return false
		}
	}
}

func unhex(hi, lo byte) (byte, bool) {
	h, l := strings.IndexByte(hexDigits, hi|0x20), strings.IndexByte(hexDigits, lo|0x20)
	return byte(h<<4 | l), h >= 0 && l >= 0
}

const hexDigits = "0123456789abcdef"

// appendVisible appends raw bytes of a request target, percent-encoding all that
// may not stand in a header value of ours.
func appendVisible(dst, raw []byte) []byte {
	const hex = "0123456789ABCDEF"
	for _, c := range raw {
		if c < 0x21 || c > 0x7e {
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}
