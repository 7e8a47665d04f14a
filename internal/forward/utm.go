package forward

import (
	"net/url"
	"strings"
	"unsafe"

	"github.com/terselink/terse"
)

const utmCount = 5

var utmNames = [utmCount]string{"utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content"}

var utmHashes = func() (h [utmCount]uint64) {
	for i, name := range utmNames {
		h[i] = keyHash([]byte(name))
	}
	return h
}()

// UTM are UTM parameters as they stand in a query.
type UTM struct{ pairs [utmCount]string }

// CompileUTM renders parameters; nil if there are none.
func CompileUTM(in *terse.UTM) *UTM {
	if in == nil || *in == (terse.UTM{}) {
		return nil
	}
	var u UTM
	for i, v := range [utmCount]string{in.Source, in.Medium, in.Campaign, in.Term, in.Content} {
		if v != "" {
			u.pairs[i] = utmNames[i] + "=" + strings.ReplaceAll(url.QueryEscape(v), "+", "%20")
		}
	}
	return &u
}

// Bytes returns the memory that u takes.
func (u *UTM) Bytes() int {
	if u == nil {
		return 0
	}
	n := int(unsafe.Sizeof(*u))
	for _, p := range u.pairs {
		n += len(p)
	}
	return n
}

// view returns the bytes of a string for reading only.
func view(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
