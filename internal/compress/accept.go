package compress

import (
	"strconv"
	"strings"

	"github.com/terselink/terse/internal/inflate"
)

// Accepted returns the encoding that an Accept-Encoding header (RFC 9110, 12.5.3) likes best of those that
// there are: Zstd before Gzip where it likes both equally. Identity without the header, where it likes
// identity better, and where it names neither: a * is no wish.
func Accepted(header string) string {
	best, bestQ, identity := inflate.Identity, 0.0, 0.0
	for item := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(item, ";")
		q := quality(params)
		name = strings.TrimSpace(name)
		if strings.EqualFold(name, "identity") {
			identity = q
			continue
		}
		e, ok := inflate.ParseEncoding(name)
		if !ok || e == inflate.Identity {
			continue
		}
		if q > bestQ || q > 0 && q == bestQ && e == inflate.Zstd {
			best, bestQ = e, q
		}
	}
	if identity > bestQ {
		return inflate.Identity
	}
	return best
}

// quality returns the q of parameters: 1 without one, 0 for one that is not 0 to 1.
func quality(params string) float64 {
	for p := range strings.SplitSeq(params, ";") {
		name, value, ok := strings.Cut(p, "=")
		if !ok || !strings.EqualFold(strings.TrimSpace(name), "q") {
			continue
		}
		q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || !(q >= 0 && q <= 1) { // NaN is neither
			return 0
		}
		return q
	}
	return 1
}
