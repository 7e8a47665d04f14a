package domains

import (
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/idna"

	"github.com/terselink/terse"
)

// maxHost is the longest host name of the DNS, and a port.
const maxHost = 253 + len(":65535")

// AppendHost appends the canonical form of a Host header to dst: lower case,
// without a trailing dot and without port 80 or 443. It reports false for bytes
// that no served host can contain. Hot path: 0 allocs/op, see TestByHostAllocs.
func AppendHost(dst, host []byte) ([]byte, bool) {
	if len(host) == 0 || len(host) > maxHost {
		return dst, false
	}
	start := len(dst)
	colon := -1
	for i, c := range host {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '.', c == '_':
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case c == ':' || c == '[' || c == ']':
			if c == ':' && host[0] != '[' && colon < 0 {
				colon = i
			}
		default:
			return dst[:start], false
		}
		dst = append(dst, c)
	}
	if host[0] == '[' { // an IPv6 literal: only the loopback rule knows it
		return dst, true
	}
	name, port := dst[start:], []byte(nil)
	if colon >= 0 {
		name, port = dst[start:start+colon], dst[start+colon:]
	}
	if n := len(name); n > 0 && name[n-1] == '.' {
		copy(dst[start+n-1:], port)
		dst = dst[:len(dst)-1]
		name, port = dst[start:start+n-1], dst[start+n-1:]
	}
	if s := string(port); s == ":80" || s == ":443" || s == ":" {
		dst = dst[:start+len(name)]
	}
	return dst, len(name) > 0
}

// ParseHost returns the canonical form of a host that somebody wants to serve
// links on: an A-label or an IPv4 address, with a port if it is not 80 or 443.
// Returns an error of code invalid for field host.
func ParseHost(s string) (string, error) {
	name, port, hasPort := strings.Cut(strings.TrimSpace(s), ":")
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || port[0] == '0' {
			return "", terse.Invalid("host", "the port of a host is a number from 1 to 65535")
		}
	}
	name = strings.TrimSuffix(name, ".")
	if name == "" {
		return "", terse.Invalid("host", "a host such as go.example.com is required")
	}
	if strings.ContainsAny(name, "/?#@\\") {
		return "", terse.Invalid("host", "a host alone, without scheme, path or credentials")
	}
	if _, err := netip.ParseAddr(name); err != nil {
		ascii, err := idna.Lookup.ToASCII(name)
		if err != nil {
			return "", terse.Invalid("host", "not a host name: %v", err)
		}
		if !validName(ascii) {
			return "", terse.Invalid("host", "not a host name")
		}
		name = ascii
	}
	if hasPort && port != "80" && port != "443" {
		name += ":" + port
	}
	return name, nil
}

// validName checks the letter-digit-hyphen rule and the lengths of RFC 1035, and
// that the name cannot be read as a number (a last label of digits is an address).
func validName(s string) bool {
	if len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if len(l) == 0 || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
		for i := range len(l) {
			c := l[i]
			if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
				return false
			}
		}
	}
	last := labels[len(labels)-1]
	return strings.Trim(last, "0123456789") != ""
}

// splitPort returns the host without its port.
func splitPort(host []byte) []byte {
	for i := len(host) - 1; i >= 0; i-- {
		switch c := host[i]; {
		case c == ':':
			return host[:i]
		case c < '0' || c > '9':
			return host
		}
	}
	return host
}

// isLoopback reports whether a canonical host without port is a name of this machine.
func isLoopback(name string) bool {
	if name == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && a.IsLoopback()
}
