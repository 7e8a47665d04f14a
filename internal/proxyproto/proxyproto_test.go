package proxyproto

import (
	"net/netip"
	"strings"
	"testing"
)

const v2 = signature + "\x21\x11\x00\x0c" + "\xc0\x00\x02\x01\xc6\x33\x64\x01\xdc\x04\x01\xbb"

func TestParse(t *testing.T) {
	t.Parallel()
	v6 := signature + "\x21\x21\x00\x24" + "\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x07" + strings.Repeat("\x00", 15) + "\x01" + "\x10\x00\x01\xbb"
	for name, tt := range map[string]struct {
		in     string
		client string // "": none
		result Result
	}{
		"text, IPv4":             {"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", "192.0.2.1:56324", Done},
		"text, IPv6":             {"PROXY TCP6 2001:db8::7 2001:db8::1 4096 443\r\n", "[2001:db8::7]:4096", Done},
		"text, unknown":          {"PROXY UNKNOWN\r\n", "", Done},
		"text, unknown and more": {"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "", Done},
		"text, wrong family":     {"PROXY TCP6 192.0.2.1 198.51.100.1 56324 443\r\n", "", Bad},
		"text, zone":             {"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n", "", Bad},
		"text, no address":       {"PROXY TCP4 localhost 198.51.100.1 56324 443\r\n", "", Bad},
		"text, port too large":   {"PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n", "", Bad},
		"text, port with a zero": {"PROXY TCP4 192.0.2.1 198.51.100.1 056 443\r\n", "", Bad},
		"text, port with a sign": {"PROXY TCP4 192.0.2.1 198.51.100.1 +56 443\r\n", "", Bad},
		"text, two spaces":       {"PROXY TCP4  192.0.2.1 198.51.100.1 56324 443\r\n", "", Bad},
		"text, too few":          {"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n", "", Bad},
		"text, UDP":              {"PROXY UDP4 192.0.2.1 198.51.100.1 56324 443\r\n", "", Bad},
		"text, bare line feed":   {"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\n", "", Bad},
		"text, too long":         {"PROXY TCP4 " + strings.Repeat("1", 120), "", Bad},
		"text, lower case":       {"proxy TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", "", Bad},
		"binary, IPv4":           {v2, "192.0.2.1:56324", Done},
		"binary, IPv6":           {v6, "[2001:db8::7]:4096", Done},
		"binary, with more":      {signature + "\x21\x11\x00\x13" + v2[16:] + "\x04\x00\x04abcd", "192.0.2.1:56324", Done},
		"binary, local":          {signature + "\x20\x00\x00\x00", "", Done},
		"binary, not said":       {signature + "\x21\x00\x00\x00", "", Done},
		"binary, a socket":       {signature + "\x21\x31\x00\xd8" + strings.Repeat("\x00", 216), "", Done},
		"binary, version 1":      {signature + "\x11\x11\x00\x0c" + v2[16:], "", Bad},
		"binary, command 2":      {signature + "\x22\x11\x00\x0c" + v2[16:], "", Bad},
		"binary, family 4":       {signature + "\x21\x41\x00\x0c" + v2[16:], "", Bad},
		"binary, short":          {signature + "\x21\x11\x00\x0b" + v2[16:27], "", Bad},
		"binary, short IPv6":     {signature + "\x21\x21\x00\x0c" + v2[16:], "", Bad},
		"binary, huge":           {signature + "\x21\x11\xff\xff", "", Bad},
		"a request":              {"GET / HTTP/1.1\r\n", "", Bad},
		"a POST":                 {"POST / HTTP/1.1\r\n", "", Bad},
		"an empty line":          {"\r\nGET / HTTP/1.1\r\n", "", Bad},
	} {
		n, client, result := Parse([]byte(tt.in + "GET"))
		got := ""
		if client.IsValid() {
			got = client.String()
		}
		if result != tt.result || got != tt.client || result == Done && n != len(tt.in) {
			t.Errorf("%s: %d bytes, client %q, result %d; want %d bytes, %q, %d", name, n, got, result, len(tt.in), tt.client, tt.result)
		}
		if tt.result != Done {
			continue
		}
		for i := range len(tt.in) {
			if _, _, result := Parse([]byte(tt.in[:i])); result != More {
				t.Errorf("%s: result %d after %d bytes, want more", name, result, i)
			}
		}
	}
}

// FuzzParse: no panic; a header stays what it is whatever follows; no part of it is one.
func FuzzParse(f *testing.F) {
	for _, s := range []string{v2, "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", "PROXY UNKNOWN\r\n", signature + "\x20\x00\x00\x00", "GET / HTTP/1.1\r\n\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, client, r := Parse(b)
		switch r {
		case Done:
			if n <= 0 || n > len(b) || n > MaxLength {
				t.Fatalf("%d bytes of %d", n, len(b))
			}
			if n2, c2, r2 := Parse(b[:n]); n2 != n || c2 != client || r2 != Done {
				t.Fatalf("alone it is %d, %v, %d", n2, c2, r2)
			}
			if _, _, r2 := Parse(b[:n-1]); r2 != More {
				t.Fatalf("without its last byte it is %d", r2)
			}
		case More:
			if len(b) >= MaxLength || client != (netip.AddrPort{}) {
				t.Fatalf("more after %d bytes, client %v", len(b), client)
			}
		case Bad:
			if client != (netip.AddrPort{}) {
				t.Fatalf("bad, and client %v", client)
			}
		}
	})
}
