package redirect

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/go-json-experiment/json"
	"github.com/valyala/fasthttp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/forward"
)

// override is what the header lines of a link's redirects say instead of its domain's.
type override struct {
	referrer int8 // index of a policy; -1: the domain's
	index    int8 // 1: search engines may index, 0: they may not; -1: as the domain says
}

var domainDecides = override{-1, -1}

// on returns the policy of a domain as the link changes it.
func (o override) on(p policy) policy {
	if o.referrer >= 0 {
		p = 2*policy(o.referrer) + p%2
	}
	if o.index >= 0 {
		p = p&^1 + policy(o.index)
	}
	return p
}

// compileWeb compiles what a link says of the answer beside where it leads. It returns the
// memory that this takes.
func (x *special) compileWeb(l *terse.Link) (bytes int, err error) {
	w := l.Settings.Web
	if w.ReferrerPolicy != "" {
		i := slices.Index(domains.ReferrerPolicies(), w.ReferrerPolicy)
		if i < 0 {
			return 0, fmt.Errorf("the referrer policy %q is not known", w.ReferrerPolicy)
		}
		x.override.referrer = int8(i)
	}
	if w.NoIndex != nil {
		x.override.index = 1
		if *w.NoIndex {
			x.override.index = 0
		}
	}
	for _, place := range []struct {
		from string
		to   *string
	}{{w.NotStartedDestination, &x.notStarted}, {w.LimitDestination, &x.limit}} {
		if place.from != "" && !headerSafe(place.from) {
			return 0, errors.New("a destination is not rendered for a header")
		}
		*place.to = strings.Clone(place.from)
		bytes += len(place.from)
	}
	if w.QueryMode != "" && forward.ParseMode(w.QueryMode) == forward.Inherit {
		return 0, fmt.Errorf("the query mode %q is not known", w.QueryMode)
	}
	x.utm = forward.CompileUTM(w.UTM)
	switch w.Sticky {
	case "", terse.StickyHash:
	case terse.StickyCookie:
		if x.sticky, err = rulesPrint(l); err != nil {
			return 0, err
		}
	default:
		return 0, fmt.Errorf("what keeps visitors on a variant is not known: %q", w.Sticky)
	}
	instead, more, safe := compileInstead(l)
	if !safe {
		return 0, errors.New("a destination is not rendered for a header, or a pixel is not known")
	}
	x.instead = instead
	x.varies = x.varies || x.instead != nil
	return bytes + more + x.utm.Bytes(), nil
}

// rulesPrint names one link with its rules as they are, so that a cookie of another link, or of rules
// that were changed since, says nothing here. It is never 0.
func rulesPrint(l *terse.Link) (uint64, error) {
	b, err := json.Marshal(l.Settings.Rules, json.Deterministic(true))
	if err != nil {
		return 0, fmt.Errorf("print rules: %w", err)
	}
	return max(xxhash.Sum64(strconv.AppendUint(b, uint64(l.Number), 10)), 1), nil
}

const (
	// variantCookie names the variant that a browser had: its number and rulesPrint. The same for all
	// who had it, so it tells nobody apart; a visitor who changes it gets another variant.
	variantCookie = "terse_v"
	// keptFor is how long a browser keeps it, in seconds: 90 days.
	keptFor = 90 * 24 * 3600
)

// preferred returns the number in the cookie of rules that are printed so, 0 without one.
//
// Hot path: 0 allocs/op, see TestStickyAllocs.
func preferred(header []byte, print uint64) uint8 {
	var buf [16]byte
	want := appendPrint(buf[:0], print)
	tries := 0
	for part := range strings.SplitSeq(bytesString(header), ";") {
		name, v, _ := strings.Cut(strings.TrimSpace(part), "=")
		if name != variantCookie {
			continue
		}
		if tries++; tries > 8 {
			return 0
		}
		number, tag, _ := strings.Cut(v, ".")
		if n, err := strconv.ParseUint(number, 10, 8); err == nil && tag == string(want) {
			return uint8(n)
		}
	}
	return 0
}

func appendPrint(dst []byte, print uint64) []byte {
	return hex.AppendEncode(dst, []byte{
		byte(print >> 56), byte(print >> 48), byte(print >> 40), byte(print >> 32), byte(print >> 24), byte(print >> 16), byte(print >> 8), byte(print),
	})
}

// setVariant makes the browser keep the variant that was chosen.
func (s *Server) setVariant(ctx *fasthttp.RequestCtx, r *request, d *domains.Domain, asked []byte) {
	c := make([]byte, 0, 128)
	c = append(strconv.AppendUint(append(c, variantCookie+"="...), uint64(r.variant), 10), '.')
	c = appendPrint(c, r.glue)
	c = append(c, "; Path="...)
	c = appendCookiePath(c, r.path, asked)
	c = append(strconv.AppendInt(append(c, "; Max-Age="...), keptFor, 10), "; HttpOnly; SameSite=Lax"...)
	if d.Scheme == "https" {
		c = append(c, "; Secure"...)
	}
	ctx.Response.Header.Add("Set-Cookie", string(c))
}
