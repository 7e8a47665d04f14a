package clientip

import "strings"

// Scheme returns the scheme, http or https, of the connection to the nearest proxy, by the lines of X-Forwarded-Proto or
// else of Forwarded; false: neither names one. It is worth as much as the peer that sent them: see Trusted.
func Scheme(proto, forwarded []string) (string, bool) {
	if n := len(proto); n > 0 {
		if scheme, ok := KnownScheme(proto[n-1]); ok {
			return scheme, true
		}
	}
	if n := len(forwarded); n > 0 {
		return ForwardedScheme(forwarded[n-1])
	}
	return "", false
}

// KnownScheme reads the last value of X-Forwarded-Proto: the scheme that the nearest proxy saw.
func KnownScheme(v string) (string, bool) {
	if i := strings.LastIndexByte(v, ','); i >= 0 {
		v = v[i+1:]
	}
	v = strings.ToLower(strings.TrimSpace(v))
	return v, v == "http" || v == "https"
}

// ForwardedScheme reads the proto of the last element of a Forwarded line (RFC 7239).
func ForwardedScheme(line string) (string, bool) {
	if i := strings.LastIndexByte(line, ','); i >= 0 {
		line = line[i+1:]
	}
	for pair := range strings.SplitSeq(line, ";") {
		if name, v, ok := strings.Cut(strings.TrimSpace(pair), "="); ok && strings.EqualFold(name, "proto") {
			return KnownScheme(strings.Trim(v, `"`))
		}
	}
	return "", false
}
