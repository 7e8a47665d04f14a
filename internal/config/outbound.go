package config

import (
	"net/netip"
	"strconv"
)

// Networks returns the networks of outbound.allow.
func (o *Outbound) Networks() []netip.Prefix {
	var list []netip.Prefix
	for _, s := range o.Allow {
		if p, ok := parseNetwork(s); ok { // Validate refused the others
			list = append(list, p)
		}
	}
	return list
}

func parseNetwork(s string) (netip.Prefix, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(s)
	return p, err == nil && p == p.Masked()
}

// PortNumbers returns the ports of outbound.ports.
func (o *Outbound) PortNumbers() []uint16 {
	var list []uint16
	for _, s := range o.Ports {
		if n, err := strconv.ParseUint(s, 10, 16); err == nil { // Validate refused the others
			list = append(list, uint16(n))
		}
	}
	return list
}

func (c *Config) checkOutbound(refuse refuser) {
	for _, s := range c.Outbound.Allow {
		if _, ok := parseNetwork(s); !ok {
			refuse("outbound.allow", "%q is not an address or a network such as 10.0.0.0/8", s)
		}
	}
	for _, s := range c.Outbound.Ports {
		if n, err := strconv.ParseUint(s, 10, 16); err != nil || n == 0 {
			refuse("outbound.ports", "%q is not a port from 1 to 65535", s)
		}
	}
}
