package destination

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/terselink/terse"
)

func serves(host string) bool { return host == "go.example.com" || host == "localhost:8080" }

func TestParse(t *testing.T) {
	t.Parallel()
	same := "="
	for _, tc := range []struct{ name, in, want string }{
		{"plain", "https://example.com/a?b=c#d", same},
		{"host only", "https://example.com", same},
		{"http", "http://example.com/", same},
		{"query without path", "https://example.com?x=1", same},
		{"fragment without path", "https://example.com#x", same},
		{"port", "https://example.com:8443/x", same},
		{"empty port", "https://example.com:/x", "https://example.com/x"},
		{"port with zeros", "https://example.com:0443/x", "https://example.com:443/x"},
		{"upper-case scheme and host", "HTTPS://Example.COM/Path", "https://example.com/Path"},
		{"surrounding spaces", "  https://example.com/x ", "https://example.com/x"},
		{"space in path", "https://example.com/a b", "https://example.com/a%20b"},
		{"unicode path", "https://example.com/ü?q=ö", "https://example.com/%C3%BC?q=%C3%B6"},
		{"unicode host", "https://bücher.example/x", "https://xn--bcher-kva.example/x"},
		{"A-label", "https://xn--bcher-kva.example/x", same},
		{"percent stays", "https://example.com/%0d%0aSet-Cookie:x", same},
		{"empty keys and order", "https://example.com/?&=&a&b=&a=2", same},
		{"backslash after the host", `https://example.com/a\b`, same},
		{"IPv4", "http://192.0.2.7/x", same},
		{"IPv6", "http://[2001:DB8::1]:80/x", "http://[2001:db8::1]:80/x"},
		{"underscore", "https://a_b.example.com/", same},
		{"trailing dot", "https://example.com./x", same},
		{"digits in labels", "https://1a.2b.example3/", same},
		{"at sign in path", "https://example.com/@user", same},
		{"longest", "https://example.com/" + strings.Repeat("a", MaxLen-20), same},
		{"subdomain of ours", "https://x.go.example.com/", same},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			want := tc.want
			if want == same {
				want = tc.in
			}
			got, err := Parse("destination", tc.in, serves)
			if err != nil || got != want {
				t.Fatalf("Parse(%q) = %q, %v; want %q", tc.in, got, err, want)
			}
			again, err := Parse("destination", got, serves)
			if err != nil || again != got {
				t.Fatalf("a rendered destination changed: %q, %v", again, err)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, in := range []string{
		"", " ", "example.com", "/path", "//example.com/", "https:", "https:/", "https://", "https:///x", "https:/example.com", "https:example.com",
		"javascript:alert(1)", "JaVaScRiPt:alert(1)", " javascript:alert(1)", "java\tscript:alert(1)", "\x01javascript:alert(1)",
		"data:text/html,x", "vbscript:x", "file:///etc/passwd", "blob:https://example.com/x", "intent://x#Intent;end", "ftp://example.com/", "mailto:a@example.com", "about:blank",
		"https://user@example.com/", "https://user:pass@example.com/", "https://@example.com/", "https://:@example.com/", `https://example.com\@evil.example/`,
		`https:\\example.com\`, `https://example.com\x`, `http:/\example.com`,
		"https://example.com/\r\nSet-Cookie: a=b", "https://example.com/\x00", "https://example.com/\x7f", "https://exa\nmple.com/", "https://example.com/\t", "\thttps://example.com/",
		"https://exa mple.com/", "https://%65xample.com/", "https://exa<mple.com/", "https://example.com:0/", "https://example.com:65536/", "https://example.com:x/", "https://example.com:+80/", "https://example.com:-1/",
		"http://2130706433/", "http://0x7f.1/", "http://127.1/", "http://0177.0.0.1/", "http://1.2.3.4.5/", "http://256.1.1.1/", "http://0x7f000001/", "http://1.2.3.08/",
		"http://[::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[1.2.3.4]/", "http://[::1/", "http://::1/", "http://[]/",
		"https://.example.com/", "https://a..b/", "https://./", "https://" + strings.Repeat("a", 64) + ".com/", "https://" + strings.Repeat("a.", 130) + "com/",
		"https://example.com/\xff", "https://example.com/" + strings.Repeat("a", MaxLen), "https://example.com/" + strings.Repeat("ü", MaxLen/3),
		"https://go.example.com/x", "https://GO.example.com/", "https://go.example.com./", "https://go.example.com:443/x", "http://go.example.com:80", "http://localhost:8080/x", "https://go.example.com",
	} {
		got, err := Parse("destination", in, serves)
		e, ok := errors.AsType[*terse.Error](err)
		if !ok || e.Code != terse.CodeInvalid || e.PublicCode() != "invalid_destination" || e.Field != "destination" || e.Message == "" {
			t.Errorf("Parse(%q) = %q, %v; want invalid_destination", in, got, err)
		}
	}
}

// FuzzParse checks that no input gets a byte into a header that could end it, that
// the fast path and the full parser agree, and that the host is the one net/url sees.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"https://example.com/a?b=c#d", "http://a.b:1/%20", "https://xn--bcher-kva.example/", "HTTP://Ü.example/ü", "https://go.example.com/x", "http://[::1]/", "https://a@b/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		out, err := Parse("destination", in, serves)
		slow, slowErr := parse("destination", in, serves)
		if out != slow || (err == nil) != (slowErr == nil) {
			t.Fatalf("%q: fast %q, %v; full %q, %v", in, out, err, slow, slowErr)
		}
		if err != nil {
			return
		}
		if len(out) > MaxLen {
			t.Fatalf("%q: %d bytes", in, len(out))
		}
		for i := range len(out) {
			if out[i] < 0x21 || out[i] > 0x7e {
				t.Fatalf("%q: byte %#x in %q", in, out[i], out)
			}
		}
		if again, err := Parse("destination", out, serves); err != nil || again != out {
			t.Fatalf("%q rendered as %q does not stay: %q, %v", in, out, again, err)
		}
		u, err := url.Parse(out)
		if err != nil {
			return // net/url is stricter about percent signs; browsers are not
		}
		if u.User != nil || u.Host == "" || !strings.HasPrefix(out, u.Scheme+"://"+u.Host) {
			t.Fatalf("%q: net/url sees host %q of %q", in, u.Host, out)
		}
	})
}

func TestParseAllocs(t *testing.T) {
	s := "https://shop.example.com/products/12345?utm_source=sms&utm_campaign=spring&recipient=0123456789abcdef"
	f := serves
	if n := testing.AllocsPerRun(100, func() { Parse("destination", s, f) }); n != 0 {
		t.Fatalf("%v allocs for a plain destination", n)
	}
}

func BenchmarkParse(b *testing.B) {
	s := "https://shop.example.com/products/12345?utm_source=sms&utm_campaign=spring&recipient=0123456789abcdef"
	b.SetBytes(int64(len(s)))
	for b.Loop() {
		if _, err := Parse("destination", s, serves); err != nil {
			b.Fatal(err)
		}
	}
}
