package config

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
)

// checkNodeURL refuses what no other node could ask.
func (c *Config) checkNodeURL(refuse refuser) {
	if c.NodeURL == "" {
		return
	}
	u, err := url.Parse(c.NodeURL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !validPort(u.Port()) ||
		u.Path != "" && u.Path != "/" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		refuse("node_url", "%q is not an address such as http://10.0.0.5:8081: a scheme, a host and a port", c.NodeURL)
	case c.Upstream != "":
		refuse("node_url", "is set, but an edge node (upstream) has no API that others could ask")
	case !slices.Contains(c.Role, RoleControl):
		refuse("node_url", "is set, but the role of this process lacks control: it has no API that others could ask")
	default:
		if ip, err := netip.ParseAddr(u.Hostname()); err == nil && ip.IsUnspecified() {
			refuse("node_url", "%s means every interface, which is nowhere for others; name one address", u.Hostname())
		}
	}
}

// validPort reports whether a URL may have a port; "" is that of its scheme.
func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return s == "" || err == nil && n > 0
}
