package redirect

import (
	"bytes"
	"net/http"
	"strconv"

	"github.com/valyala/fasthttp"

	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/forward"
)

// Whoever makes links opens them, too. Such visits are recorded with clicks.FlagNoTrack if they carry forward.NoTrackMark,
// or a cookie that the visitor has set at noTrackPath. Both are for anybody, so they change nothing of what a visit gets:
// limits of clicks count it.

const (
	// noTrackPath shows a browser whether it has the cookie, and sets and clears it, for one domain.
	noTrackPath = "/_/notrack"
	// noTrackCookie says nothing but that it is there: it is the same for all.
	noTrackCookie = "terse_notrack"
	// noTrackFor is how long a browser keeps it, in seconds: 400 days, the most that browsers grant (RFC 6265bis).
	noTrackFor = 400 * 24 * 3600

	noTrackSet = "set" // the parameter; the first of the name counts
	noTrackOn  = "on"
	noTrackOff = "off"
)

// marksOf returns the flags that the query of a visit asks for.
func marksOf(query []byte) (f clicks.Flag) {
	scan, noTrack := forward.Marks(query)
	if scan {
		f |= clicks.FlagQR
	}
	if noTrack {
		f |= clicks.FlagNoTrack
	}
	return f
}

// hasNoTrackCookie reports whether a Cookie header has the cookie.
//
// Hot path: 0 allocs/op, see TestHitAllocs.
func hasNoTrackCookie(header []byte) bool {
	for len(header) > 0 {
		var pair []byte
		pair, header, _ = bytes.Cut(header, []byte{';'})
		if string(bytes.TrimSpace(pair)) == noTrackCookie+"=1" {
			return true
		}
	}
	return false
}

// askedNoTrack returns the value of the parameter that sets and clears the cookie. Others may stand around it: tools that
// send mail add theirs to every address.
func askedNoTrack(query []byte) string {
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, []byte{'&'})
		if name, value, _ := bytes.Cut(pair, []byte{'='}); string(name) == noTrackSet {
			return string(value)
		}
	}
	return ""
}

// answerNoTrack sets the cookie, clears it, or tells whether it is there. A prefetch and a HEAD change nothing: nobody
// has asked for it yet. Nor does what a page of another site leads to or embeds: it is not for that site to say how
// a visitor counts.
func (s *Server) answerNoTrack(ctx *fasthttp.RequestCtx, r *request, d *domains.Domain) {
	has, age := hasNoTrackCookie(r.cookie), -1
	status, refused := http.StatusOK, ""
	asked := askedNoTrack(r.query)
	switch change := asked == noTrackOn || asked == noTrackOff; {
	case !change || r.flags&(clicks.FlagHead|clicks.FlagPrefetch) != 0:
	case r.crossSite:
		status, refused = http.StatusForbidden, "Nothing was changed, since a page of another site led here: enter the address yourself.\n"
	case asked == noTrackOn:
		has, age = true, noTrackFor
	default:
		has, age = false, 0
	}
	state, other := "counted like anybody's", noTrackOn
	if has {
		state, other = "not counted as a person's", noTrackOff
	}
	s.answerText(ctx, status, refused+"Visits of this browser to links of "+d.Host+" are "+state+".\nTo change that, open "+d.Base()+noTrackPath[1:]+"?"+noTrackSet+"="+other+"\n")
	if age < 0 {
		return
	}
	c := noTrackCookie + "=1; Path=/; Max-Age=" + strconv.Itoa(age) + "; HttpOnly; SameSite=Lax"
	if d.Scheme == "https" {
		c += "; Secure"
	}
	ctx.Response.Header.Add("Set-Cookie", c)
}
