package outbound

import "net/netip"

// special lists the networks that no request may reach: those that are not globally
// reachable by the IANA special-purpose registries for IPv4 and IPv6 (RFC 6890 and its
// successors), multicast, and the few global ones that clouds use for metadata.
var special = parse(
	"0.0.0.0/8",         // this network
	"10.0.0.0/8",        // private
	"100.64.0.0/10",     // carrier-grade NAT
	"127.0.0.0/8",       // loopback
	"168.63.129.16/32",  // a cloud's host agent
	"169.254.0.0/16",    // link-local, metadata
	"172.16.0.0/12",     // private
	"192.0.0.0/24",      // protocol assignments
	"192.0.2.0/24",      // documentation
	"192.31.196.0/24",   // AS112
	"192.52.193.0/24",   // AMT
	"192.88.99.0/24",    // 6to4 relays
	"192.168.0.0/16",    // private
	"192.175.48.0/24",   // AS112
	"198.18.0.0/15",     // benchmarking
	"198.51.100.0/24",   // documentation
	"203.0.113.0/24",    // documentation
	"224.0.0.0/4",       // multicast
	"240.0.0.0/4",       // reserved, broadcast
	"::/128",            // unspecified
	"::1/128",           // loopback
	"::/96",             // IPv4-compatible
	"::ffff:0:0:0/96",   // IPv4-translated
	"64:ff9b:1::/48",    // local-use translation
	"100::/64",          // discard
	"100:0:0:1::/64",    // dummy
	"2001::/23",         // protocol assignments, Teredo, ORCHID
	"2001:db8::/32",     // documentation
	"2620:4f:8000::/48", // AS112
	"3fff::/20",         // documentation
	"5f00::/16",         // segment routing
	"fc00::/7",          // unique local, metadata
	"fe80::/10",         // link-local
	"fec0::/10",         // site-local
	"ff00::/8",          // multicast
)

// embedded lists the networks whose addresses carry an IPv4 address, and where: a router
// may deliver to that one, so it decides.
var embedded = []struct {
	prefix netip.Prefix
	at     int // offset of its four bytes
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12}, // NAT64
	{netip.MustParsePrefix("2002::/16"), 2},     // 6to4
}

func parse(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// Public reports whether an address belongs to the public internet.
func Public(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsValid() || a.Zone() != "" {
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	for _, e := range embedded {
		if e.prefix.Contains(a) {
			b := a.As16()
			return Public(netip.AddrFrom4([4]byte(b[e.at : e.at+4])))
		}
	}
	// What is not assigned for global use is nobody's.
	return a.Is4() || netip.MustParsePrefix("2000::/3").Contains(a) || netip.MustParsePrefix("64:ff9b::/96").Contains(a)
}
