// Package destination is the one place where the URL of a destination is parsed,
// checked and rendered to the bytes of a Location header. Everything that stores
// a URL that a visitor may be sent to goes through it, so the redirect plane can
// write the bytes without another look.
//
// A rendered destination is http or https with a lower-case scheme and host, has
// no credentials, and consists of the bytes 0x21 to 0x7e only. Everything after
// the host is kept as it was given; only spaces and bytes outside ASCII are
// percent-encoded, as browsers do (WHATWG URL, section 4.4).
package destination

import (
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/terselink/terse"
)

// MaxLen is the longest rendered destination in bytes.
const MaxLen = 8 << 10

// Parse checks a destination and returns its rendered form, which is raw itself
// where raw is in that form already. serves tells which canonical hosts are our own:
// a destination there would be a loop. Errors have code invalid, reason
// invalid_destination and the given field.
func Parse(field, raw string, serves func(host string) bool) (string, error) {
	if hostEnd, ok := scanPlain(raw); ok {
		if serves == nil {
			return raw, nil
		}
		if serves(raw[hostStart(raw):hostEnd]) {
			return "", bad(field, "leads back to a domain that is served here")
		}
		return raw, nil
	}
	return parse(field, raw, serves)
}

// hostStart returns where the host of a URL begins that scanPlain accepts.
func hostStart(s string) int {
	if s[4] == ':' {
		return len("http://")
	}
	return len("https://")
}

// scanPlain is the fast path for the destinations that programs send: rendered
// already, a named host in lower case, no port. It reports false for everything
// that needs a closer look, which is not to say that it is wrong.
func scanPlain(s string) (hostEnd int, ok bool) {
	if len(s) > MaxLen || len(s) < len("http://a") || s[:4] != "http" {
		return 0, false
	}
	i := 4
	if s[i] == 's' {
		i++
	}
	if len(s) < i+4 || s[i:i+3] != "://" {
		return 0, false
	}
	i += 3
	start, label := i, i // label: where the current label of the host begins
	for ; i < len(s); i++ {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-' && i > label:
			continue
		case c == '.' && i > label && s[i-1] != '-' && i-label <= 63:
			label = i + 1
			continue
		}
		break
	}
	hostEnd = i
	// A last label that begins with a digit may be an address; "xn--" needs IDNA.
	if hostEnd == label || s[label] < 'a' || s[hostEnd-1] == '-' || hostEnd-label > 63 || hostEnd-start > 253 ||
		strings.Contains(s[start:hostEnd], "xn--") {
		return 0, false
	}
	if i == len(s) {
		return hostEnd, true
	}
	if c := s[i]; c != '/' && c != '?' && c != '#' {
		return 0, false
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < 0x21 || c > 0x7e {
			return 0, false
		}
	}
	return hostEnd, true
}

func bad(field, message string) error {
	return &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_destination", Field: field, Message: message}
}

func parse(field, raw string, serves func(host string) bool) (string, error) {
	s := strings.Trim(raw, " ")
	if s == "" {
		return "", bad(field, "a URL such as https://example.com/ is required")
	}
	if len(s) > MaxLen {
		return "", bad(field, "longer than "+strconv.Itoa(MaxLen)+" bytes")
	}
	if !utf8.ValidString(s) {
		return "", bad(field, "not valid UTF-8")
	}
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == 0x7f {
			return "", bad(field, "has a control character")
		}
	}
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok {
		return "", bad(field, "not an absolute URL: it has no scheme")
	}
	scheme = strings.ToLower(scheme)
	if scheme != "http" && scheme != "https" {
		return "", bad(field, "the scheme must be http or https")
	}
	rest, ok = strings.CutPrefix(rest, "//")
	if !ok {
		return "", bad(field, "the scheme must be followed by //")
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	authority, tail := rest[:end], rest[end:]
	switch {
	case authority == "":
		return "", bad(field, "has no host")
	case strings.Contains(authority, "@"):
		return "", bad(field, "must not carry credentials")
	case strings.ContainsAny(authority, "\\ %<>^`{|}\""):
		return "", bad(field, "has a character in the host that does not belong there")
	}
	host, err := parseAuthority(field, authority)
	if err != nil {
		return "", err
	}
	if serves != nil && serves(canonicalHost(host)) {
		return "", bad(field, "leads back to a domain that is served here")
	}
	out := make([]byte, 0, len(s)+16)
	out = append(out, scheme...)
	out = append(out, "://"...)
	out = append(out, host...)
	out = appendEncoded(out, tail)
	if len(out) > MaxLen {
		return "", bad(field, "longer than "+strconv.Itoa(MaxLen)+" bytes when encoded")
	}
	return string(out), nil
}

// parseAuthority renders host and port.
func parseAuthority(field, authority string) (string, error) {
	host, port := authority, ""
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && !strings.HasSuffix(authority, "]") {
		host, port = authority[:i], authority[i+1:]
		n, err := strconv.ParseUint(port, 10, 16)
		if port != "" && (err != nil || n == 0 || strings.HasPrefix(port, "+")) {
			return "", bad(field, "the port is a number from 1 to 65535")
		}
		if port != "" {
			port = ":" + strconv.FormatUint(n, 10)
		}
	}
	if strings.HasPrefix(host, "[") {
		inner, ok := strings.CutSuffix(host[1:], "]")
		a, err := netip.ParseAddr(inner)
		if !ok || err != nil || !a.Is6() || a.Zone() != "" {
			return "", bad(field, "the host is not an IPv6 address")
		}
		return "[" + a.String() + "]" + port, nil
	}
	if strings.ContainsAny(host, ":[]") {
		return "", bad(field, "the host has a character that does not belong there")
	}
	name, err := parseName(host)
	if err != "" {
		return "", bad(field, err)
	}
	return name + port, nil
}

// parseName renders a host name or IPv4 address. What browsers would read as a
// number (WHATWG URL, "ends in a number") must be a plain dotted address, because
// 0x7f.1 and 2130706433 hide where they lead.
func parseName(host string) (name, problem string) {
	ascii, err := idna.Lookup.ToASCII(host)
	if err != nil {
		// Names with an underscore, or hyphens in places 3 and 4, resolve all the same.
		ascii = strings.ToLower(host)
		for i := range len(ascii) {
			c := ascii[i]
			if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.') {
				return "", "the host is not a valid name"
			}
		}
	}
	bare := strings.TrimSuffix(ascii, ".")
	if bare == "" || len(bare) > 253 {
		return "", "the host is not a valid name"
	}
	labels := strings.Split(bare, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 {
			return "", "the host is not a valid name"
		}
	}
	last := labels[len(labels)-1]
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") && strings.Trim(last[2:], "0123456789abcdef") == "" {
		a, err := netip.ParseAddr(bare)
		if err != nil || !a.Is4() {
			return "", "the host is a number but not a plain IPv4 address"
		}
		return a.String(), ""
	}
	return ascii, ""
}

// canonicalHost is the form in which served hosts are known: without a trailing
// dot and without a port that is the scheme's own.
func canonicalHost(host string) string {
	name, port := host, ""
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		name, port = host[:i], host[i:]
	}
	if port == ":80" || port == ":443" {
		port = ""
	}
	return strings.TrimSuffix(name, ".") + port
}

// appendEncoded appends path, query and fragment, percent-encoding spaces and
// bytes outside ASCII and nothing else.
func appendEncoded(dst []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if c > 0x20 && c < 0x7f {
			dst = append(dst, c)
			continue
		}
		dst = append(dst, '%', hex[c>>4], hex[c&15])
	}
	return dst
}
