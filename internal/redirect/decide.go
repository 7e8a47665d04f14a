package redirect

import (
	"net/http"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/forward"
)

// facts are what a decision depends on beside the link and its domain.
type facts struct {
	now   terse.Millis
	query []byte    // of the request, raw, without the question mark
	rest  []byte    // of the path, raw, after the code and a slash; nil if there is none
	keys  *[]uint64 // scratch memory for queries that become one
}

// decision says how to answer. With a location it is a redirect, else a page.
type decision struct {
	outcome  clicks.Outcome
	status   int
	location []byte   // part of the link, of the domain or of the scratch buffer: read only
	target   string   // the stored destination that won, for the click
	private  bool     // depends on the visitor: no shared cache may keep it
	special  *special // of the link, if the answer is its own; nil: none
}

// decide is the whole behaviour of a link. It has no side effects; scratch is
// memory for a location that has to be put together, and grows with it.
//
// Hot path: 0 allocs/op, see TestDecideAllocs.
func decide(scratch *[]byte, d *domains.Domain, l *link, f *facts) decision {
	x := l.special
	switch {
	case l.blocked:
		return decision{outcome: clicks.OutcomeBlocked, status: http.StatusUnavailableForLegalReasons}
	case l.startsAt != 0 && f.now < l.startsAt:
		return notStarted(d, x)
	case l.disabled:
		return decision{outcome: clicks.OutcomeDisabled, status: http.StatusGone}
	case l.expiresAt != 0 && f.now >= l.expiresAt:
		return expired(d, l)
	case f.rest != nil && !l.forwardPath:
		return notFound(d)
	}
	v := decision{outcome: clicks.OutcomeRedirect, status: int(l.status), target: l.destination, special: x}
	var utm *forward.UTM
	if x != nil {
		v.private, utm = x.varies, x.utm
	}
	v.private = v.private || l.ruled != nil
	if v.status == 0 {
		v.status = defaultStatus(d)
	}
	v.location = stringBytes(l.destination)
	if (!l.forwards && !d.ForwardQuery || len(f.query) == 0 && f.rest == nil) && utm == nil && d.UTMPairs() == nil {
		return v
	}
	visit := forward.Visit{Rest: f.rest, Query: f.query, Mode: l.mode.Or(d.ForwardMode()), Link: utm, Domain: d.UTMPairs(), Scratch: f.keys}
	if !l.query.or(d.ForwardQuery) {
		visit.Query = nil
	}
	loc, ok := forward.AppendURL((*scratch)[:0], l.destination, l.parts, &visit)
	*scratch = loc
	if !ok {
		return notFound(d)
	}
	v.location = loc
	return v
}

// ended is the answer for a visit that a link no longer takes: the first place that is named, else
// the page.
func ended(outcome clicks.Outcome, x *special, places ...string) decision {
	for _, to := range places {
		if headerSafe(to) {
			return decision{outcome: outcome, status: http.StatusFound, location: stringBytes(to), target: to, special: x}
		}
	}
	return decision{outcome: outcome, status: http.StatusGone}
}

func expired(d *domains.Domain, l *link) decision {
	return ended(clicks.OutcomeExpired, l.special, l.expired, d.ExpiredDestination)
}

// limited is the answer when the clicks of a link are used up. A link or a domain that names no
// place for that has one for what has expired.
func limited(d *domains.Domain, l *link) decision {
	return ended(clicks.OutcomeLimit, l.special, l.special.limit, l.expired, d.LimitDestination, d.ExpiredDestination)
}

// notStarted is the answer before a link begins. Without a place of its own it is that for a
// code that does not exist, so that nobody learns what is planned.
func notStarted(d *domains.Domain, x *special) decision {
	to := d.NotStartedDestination
	if x != nil && x.notStarted != "" {
		to = x.notStarted
	}
	if !headerSafe(to) {
		return notFound(d)
	}
	return decision{outcome: clicks.OutcomeNotFound, status: http.StatusFound, location: stringBytes(to), target: to, special: x}
}

// notFound is the answer for a code that is known not to exist, and for every link
// that must look like that.
func notFound(d *domains.Domain) decision {
	to := d.NotFoundDestination
	if !headerSafe(to) {
		return decision{outcome: clicks.OutcomeNotFound, status: http.StatusNotFound}
	}
	return decision{outcome: clicks.OutcomeNotFound, status: http.StatusFound, location: stringBytes(to), target: to}
}

// defaultStatus is the status of redirects on a domain: 302 unless it says otherwise,
// because nobody can take a cached 301 back.
func defaultStatus(d *domains.Domain) int {
	if s := redirectStatus(d.RedirectStatus); s != 0 {
		return int(s)
	}
	return http.StatusFound
}
