package clientip

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/terselink/terse"
)

func TestNew(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "10.0.0.0/33", "nonsense", "10.0.0.1:80", "fe80::1%eth0", "::ffff:10.0.0.0/40"} {
		_, err := New([]string{"10.0.0.0/8", bad})
		var e *terse.Error
		if !errors.As(err, &e) || e.Code != terse.CodeInvalid || e.Field != "trusted_proxies" {
			t.Errorf("New(%q): error %v, want invalid trusted_proxies", bad, err)
		}
	}
	r, err := New([]string{" 10.1.2.3/8 ", "192.0.2.7", "::ffff:172.16.0.0/108", "2001:db8::/32"})
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{
		"10.255.0.1": true, "11.0.0.1": false, "192.0.2.7": true, "192.0.2.8": false, "172.16.9.9": true,
		"172.32.0.1": false, "2001:db8:1::1": true, "2001:db9::1": false, "::ffff:10.0.0.1": true,
	} {
		if got := r.Trusted(netip.MustParseAddr(addr)); got != want {
			t.Errorf("Trusted(%s) = %v, want %v", addr, got, want)
		}
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	const proxy, outside = "10.0.0.1", "198.51.100.9"
	tests := []struct {
		name      string
		peer      string
		xff       []string
		forwarded []string
		want      string
	}{
		{"no header", outside, nil, nil, outside},
		{"mapped peer", "::ffff:198.51.100.9", nil, nil, outside},
		{"untrusted peer, forged header", outside, []string{"203.0.113.5"}, []string{"for=203.0.113.5"}, outside},
		{"trusted peer, no header", proxy, nil, nil, proxy},
		{"one hop", proxy, []string{"203.0.113.5"}, nil, "203.0.113.5"},
		{"forged left part", proxy, []string{"1.1.1.1, 203.0.113.5"}, nil, "203.0.113.5"},
		{"two trusted hops", proxy, []string{"1.1.1.1, 203.0.113.5, 10.9.9.9"}, nil, "203.0.113.5"},
		{"several lines", proxy, []string{"1.1.1.1", "203.0.113.5", "10.9.9.9,10.9.9.8"}, nil, "203.0.113.5"},
		{"only trusted hops", proxy, []string{"10.3.3.3, 10.9.9.9"}, nil, "10.3.3.3"},
		{"empty entries", proxy, []string{", 203.0.113.5 ,,", ""}, nil, "203.0.113.5"},
		{"no address in it", proxy, []string{", ,"}, nil, proxy},
		{"unknown", proxy, []string{"1.1.1.1, unknown, 10.9.9.9"}, nil, "10.9.9.9"},
		{"with a port", proxy, []string{"203.0.113.5:4711"}, nil, "203.0.113.5"},
		{"IPv6", proxy, []string{"2001:db8::5"}, nil, "2001:db8::5"},
		{"IPv6 with a port", proxy, []string{"[2001:db8::5]:4711"}, nil, "2001:db8::5"},
		{"mapped", proxy, []string{"::ffff:203.0.113.5"}, nil, "203.0.113.5"},
		{"zone", proxy, []string{"fe80::1%eth0"}, nil, proxy},
		{"bad port", proxy, []string{"203.0.113.5:x"}, nil, proxy},
		{"bad brackets", proxy, []string{"[203.0.113.5]"}, nil, proxy},
		{"leading zeros", proxy, []string{"203.0.113.05"}, nil, proxy},
		{"forwarded", proxy, nil, []string{"for=203.0.113.5;proto=https;by=10.0.0.1"}, "203.0.113.5"},
		{"forwarded, order and case", proxy, nil, []string{"proto=https; For=203.0.113.5"}, "203.0.113.5"},
		{"forwarded, quoted IPv6", proxy, nil, []string{`for=1.1.1.1, for="[2001:db8::5]:4711"`}, "2001:db8::5"},
		{"forwarded, open quote of the client", proxy, nil, []string{`for="1.1.1.1, for=203.0.113.5`}, "203.0.113.5"},
		{"forwarded, open quote, own line", proxy, nil, []string{`for="1.1.1.1`, `for=203.0.113.5`}, "203.0.113.5"},
		{"forwarded, obfuscated", proxy, nil, []string{"for=1.1.1.1, for=_hidden, for=10.4.4.4"}, "10.4.4.4"},
		{"forwarded without for", proxy, nil, []string{"proto=https"}, proxy},
		{"both agree", proxy, []string{"203.0.113.5"}, []string{"for=203.0.113.5"}, "203.0.113.5"},
		{"both disagree", proxy, []string{"203.0.113.5"}, []string{"for=203.0.113.6"}, proxy},
	}
	r, err := New([]string{"10.0.0.0/8"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := r.Resolve(netip.MustParseAddr(tt.peer), tt.xff, tt.forwarded); got != netip.MustParseAddr(tt.want) {
				t.Errorf("Resolve = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestResolveAllocs(t *testing.T) {
	r, _ := New([]string{"10.0.0.0/8"})
	peer := netip.MustParseAddr("10.0.0.1")
	xff, fwd := []string{"1.1.1.1, 203.0.113.5, 10.1.1.1"}, []string{`for=203.0.113.5, for="10.1.1.1"`}
	if n := testing.AllocsPerRun(100, func() { r.Resolve(peer, xff, fwd) }); n != 0 {
		t.Errorf("Resolve allocates %v times, want 0", n)
	}
}

// FuzzResolve checks the two promises that matter: a header of an untrusted peer
// changes nothing, and whatever a client puts to the left of what a trusted proxy
// appended changes nothing either.
func FuzzResolve(f *testing.F) {
	for _, s := range []string{"", "1.1.1.1", `for="1.1.1.1`, `"`, ",,,", "for=a;for=b", "[::1", "\x00", `for="\",`, "unknown"} {
		f.Add(s)
	}
	r, err := New([]string{"10.0.0.0/8", "2001:db8::/32"})
	if err != nil {
		f.Fatal(err)
	}
	client, proxy := netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("10.0.0.1")
	f.Fuzz(func(t *testing.T, forged string) {
		if got := r.Resolve(client, []string{forged}, []string{forged}); got != client {
			t.Fatalf("untrusted peer: %v, want %v", got, client)
		}
		if got := r.Resolve(proxy, []string{forged + ", 203.0.113.5"}, nil); got != client {
			t.Fatalf("X-Forwarded-For: %v, want %v", got, client)
		}
		if got := r.Resolve(proxy, []string{forged, "203.0.113.5"}, nil); got != client {
			t.Fatalf("X-Forwarded-For, two lines: %v, want %v", got, client)
		}
		if got := r.Resolve(proxy, nil, []string{forged + ", for=203.0.113.5"}); got != client {
			t.Fatalf("Forwarded: %v, want %v", got, client)
		}
		a := r.Resolve(proxy, []string{forged}, nil)
		if !a.IsValid() || a.Is4In6() || strings.Contains(a.String(), "%") {
			t.Fatalf("Resolve(%q) = %v", forged, a)
		}
	})
}
