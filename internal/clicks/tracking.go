package clicks

import "bytes"

// trackingKeys are the query parameters that say where a click came from. No
// other parameter is recorded: queries hold names, addresses and tokens.
var trackingKeys = [...]string{"utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "ref", "source"}

// The indexes of trackingKeys.
const (
	keySource = iota
	keyMedium
	keyCampaign
	keyTerm
	keyContent
	keyRef
	keySourceShort
	keyCount
)

// trackingKey returns the index of a key, -1 if it is none. ASCII case is ignored.
func trackingKey(key []byte) int {
	if len(key) < 3 || len(key) > 12 {
		return -1
	}
	for i, k := range trackingKeys {
		if len(k) == len(key) && bytes.EqualFold(key, []byte(k)) {
			return i
		}
	}
	return -1
}

// nextPair cuts the first pair off a raw query.
func nextPair(query []byte) (pair, key, value, rest []byte) {
	pair = query
	if i := bytes.IndexByte(query, '&'); i >= 0 {
		pair, rest = query[:i], query[i+1:]
	}
	key = pair
	if i := bytes.IndexByte(pair, '='); i >= 0 {
		key, value = pair[:i], pair[i+1:]
	}
	return pair, key, value, rest
}

// trackingOnly returns the pairs of query that trackingKeys names, appended to
// scratch, and the grown scratch.
func trackingOnly(scratch, query []byte) (pairs, grown []byte) {
	start := len(scratch)
	for len(query) > 0 {
		pair, key, _, rest := nextPair(query)
		if trackingKey(key) >= 0 {
			if len(scratch) > start {
				scratch = append(scratch, '&')
			}
			scratch = append(scratch, pair...)
		}
		query = rest
	}
	return scratch[start:len(scratch):len(scratch)], scratch
}

// trackingOnlyURL cuts the fragment off a URL and keeps of its query what
// trackingOnly keeps.
func trackingOnlyURL(scratch, url []byte) (cut, grown []byte) {
	if i := bytes.IndexByte(url, '#'); i >= 0 {
		url = url[:i]
	}
	i := bytes.IndexByte(url, '?')
	if i < 0 {
		return url, scratch
	}
	start := len(scratch)
	scratch = append(append(scratch, url[:i]...), '?')
	pairs, scratch := trackingOnly(scratch, url[i+1:])
	if len(pairs) == 0 {
		return url[:i], scratch[:start]
	}
	return scratch[start:len(scratch):len(scratch)], scratch
}

// cutQuery cuts query and fragment off a URL.
func cutQuery(url []byte) []byte {
	if i := bytes.IndexAny(url, "?#"); i >= 0 {
		return url[:i]
	}
	return url
}

// tracking holds the raw values of trackingKeys.
type tracking [keyCount][]byte

// parse sets every value that is not set yet; of equal keys the first counts.
func (t *tracking) parse(query []byte) {
	for len(query) > 0 {
		_, key, value, rest := nextPair(query)
		if i := trackingKey(key); i >= 0 && len(t[i]) == 0 {
			t[i] = value
		}
		query = rest
	}
}

// decodeValue undoes percent- and plus-encoding; broken escapes stay as they are.
func decodeValue(b []byte) []byte {
	if bytes.IndexByte(b, '%') < 0 && bytes.IndexByte(b, '+') < 0 {
		return b
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '+':
			out = append(out, ' ')
		case c == '%' && i+2 < len(b) && unhex(b[i+1]) >= 0 && unhex(b[i+2]) >= 0:
			out = append(out, byte(unhex(b[i+1])<<4|unhex(b[i+2])))
			i += 2
		default:
			out = append(out, c)
		}
	}
	return out
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
