package redirect

import (
	"net/netip"

	"github.com/terselink/terse/internal/geo"
)

// toldCountry returns the country that a proxy in front tells of the visitor, borrowed; "" if it is not trusted, tells none, or says
// that it does not know: networks of content use XX, ZZ and, for Tor, T1.
//
// Hot path: 0 allocs/op, see TestHitAllocs.
func (s *Server) toldCountry(r *request) string {
	c := r.country
	if len(c) != 2 || c[0] < 'A' || c[0] > 'Z' || c[1] < 'A' || c[1] > 'Z' || string(c) == "XX" || string(c) == "ZZ" || !s.clients.Trusted(r.peer) {
		return ""
	}
	return bytesString(c)
}

// placeOf returns the country of a visitor and, if it is asked for, the region. What a proxy tells comes before what is known of the
// address; then that has no region to tell unless both name the same country.
func (s *Server) placeOf(r *request, ip netip.Addr, region bool) (country, part string) {
	told := s.toldCountry(r)
	switch {
	case s.o.Places == nil, !region && told != "":
		return told, ""
	case !region:
		return s.o.Places.Country(ip), ""
	}
	r.place = geo.Place{}
	s.o.Places.Lookup(ip, &r.place)
	if told != "" && told != r.place.Country {
		return told, ""
	}
	return r.place.Country, r.place.Region
}
