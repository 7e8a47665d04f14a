// Package proxyproto reads the header that a load balancer of layer 4 puts before the bytes of a
// connection to say who the client is: the PROXY protocol, versions 1 and 2
// (https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt).
//
// It does not decide whom to believe; whoever calls it has made sure that the peer is a
// trusted proxy.
package proxyproto

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strconv"
)

// Result is what the bytes of a connection so far are.
type Result uint8

// The results.
const (
	More Result = iota // the beginning of a header
	Done               // a header
	Bad                // no header
)

// MaxLength is the largest header that is taken, in bytes: one of version 2 with addresses and what
// load balancers tell beside them. More is not asked for.
const MaxLength = 2048

const (
	signature = "\r\n\r\n\x00\r\nQUIT\n"
	maxText   = 107 // of version 1, by the specification
)

// Parse reads the header that b begins with, n bytes long if the result is Done. The client is not valid if
// the header names none (UNKNOWN, LOCAL, a family that is not of the internet): then the peer
// itself is meant, as with the health checks of load balancers.
func Parse(b []byte) (n int, client netip.AddrPort, r Result) {
	switch {
	case len(b) == 0:
		return 0, client, More
	case b[0] == 'P':
		return parseText(b)
	case b[0] == '\r':
		return parseBinary(b)
	}
	return 0, client, Bad
}

// parseText reads version 1: "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".
func parseText(b []byte) (n int, client netip.AddrPort, r Result) {
	const begin = "PROXY "
	if k := min(len(b), len(begin)); string(b[:k]) != begin[:k] {
		return 0, client, Bad
	}
	end := bytes.Index(b[:min(len(b), maxText)], []byte("\r\n"))
	switch {
	case end >= 0:
	case len(b) >= maxText || bytes.IndexByte(b, '\n') >= 0:
		return 0, client, Bad
	default:
		return 0, client, More
	}
	fields := bytes.Split(b[len(begin):end], []byte(" "))
	if string(fields[0]) == "UNKNOWN" {
		return end + 2, client, Done
	}
	if len(fields) != 5 {
		return 0, client, Bad
	}
	source, ok := address(fields[1], fields[3], string(fields[0]))
	if _, ok2 := address(fields[2], fields[4], string(fields[0])); !ok || !ok2 {
		return 0, client, Bad
	}
	return end + 2, source, Done
}

func address(ip, port []byte, family string) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(string(ip))
	if err != nil || a.Zone() != "" {
		return netip.AddrPort{}, false
	}
	switch {
	case family == "TCP4" && a.Is4(), family == "TCP6" && a.Is6():
	default:
		return netip.AddrPort{}, false
	}
	p, err := strconv.ParseUint(string(port), 10, 16)
	if err != nil || len(port) > 1 && port[0] == '0' || port[0] == '+' {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), true
}

// parseBinary reads version 2: signature, version and command, family, length, addresses, more.
func parseBinary(b []byte) (n int, client netip.AddrPort, r Result) {
	if k := min(len(b), len(signature)); string(b[:k]) != signature[:k] {
		return 0, client, Bad
	}
	const fixed = len(signature) + 4
	if len(b) < fixed {
		return 0, client, More
	}
	command, family := b[12], b[13]
	n = fixed + int(binary.BigEndian.Uint16(b[14:]))
	switch {
	case n > MaxLength, command != 0x20 && command != 0x21:
		return 0, client, Bad
	case len(b) < n:
		return 0, client, More
	case command == 0x20: // LOCAL: the proxy speaks for itself
		return n, client, Done
	}
	body := b[fixed:n]
	switch family {
	case 0x11, 0x12: // TCP and UDP over IPv4
		if len(body) < 12 {
			return 0, client, Bad
		}
		client = netip.AddrPortFrom(netip.AddrFrom4([4]byte(body)), binary.BigEndian.Uint16(body[8:]))
	case 0x21, 0x22: // over IPv6
		if len(body) < 36 {
			return 0, client, Bad
		}
		client = netip.AddrPortFrom(netip.AddrFrom16([16]byte(body)).Unmap(), binary.BigEndian.Uint16(body[32:]))
	case 0x00, 0x31, 0x32: // not said, or a socket of the machine
	default:
		return 0, client, Bad
	}
	return n, client, Done
}
