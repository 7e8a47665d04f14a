package outbound

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/terselink/terse"
)

// Addresses on both sides of every edge of the special networks.
func TestPublic(t *testing.T) {
	t.Parallel()
	blocked := strings.Fields(`
0.0.0.0 0.0.0.1 0.255.255.255 10.0.0.0 10.0.0.1 10.1.2.3 10.255.255.255 100.64.0.0 100.64.0.1 100.100.100.200 100.127.255.255
127.0.0.0 127.0.0.1 127.0.0.53 127.1.1.1 127.255.255.255 168.63.129.16 169.254.0.0 169.254.0.1 169.254.169.123 169.254.169.254 169.254.170.2 169.254.255.255
172.16.0.0 172.16.0.1 172.17.0.1 172.31.255.255 192.0.0.0 192.0.0.1 192.0.0.8 192.0.0.170 192.0.0.192 192.0.0.255 192.0.2.0 192.0.2.1 192.0.2.255
192.31.196.1 192.52.193.1 192.88.99.0 192.88.99.1 192.88.99.255 192.168.0.0 192.168.0.1 192.168.1.1 192.168.255.255 192.175.48.1
198.18.0.0 198.18.0.1 198.19.255.255 198.51.100.0 198.51.100.255 203.0.113.0 203.0.113.255
224.0.0.0 224.0.0.1 239.255.255.255 240.0.0.0 240.0.0.1 254.1.2.3 255.255.255.254 255.255.255.255
:: ::1 ::2 ::127.0.0.1 ::10.0.0.1 ::8.8.8.8 ::ffff:0.0.0.0 ::ffff:10.0.0.1 ::ffff:100.64.0.1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::ffff:172.16.0.1 ::ffff:192.168.0.1 ::ffff:224.0.0.1 ::ffff:255.255.255.255
::ffff:0:127.0.0.1 ::ffff:0:8.8.8.8 ::ffff:0:10.0.0.1
64:ff9b::0.0.0.0 64:ff9b::10.0.0.1 64:ff9b::127.0.0.1 64:ff9b::169.254.169.254 64:ff9b::192.168.1.1 64:ff9b::100.64.0.1 64:ff9b:1::1 64:ff9b:1::8.8.8.8 64:ff9b:1:ffff::1 64:ff9b:0:1::1 64:ff9c::1
100:: 100::1 100::ffff:ffff:ffff:ffff 100:0:0:1::1 100:0:0:2::1 101::1
2001:: 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:1::1 2001:2::1 2001:3::1 2001:4:112::1 2001:10::1 2001:20::1 2001:30::1 2001:1ff:ffff::1 2001:db8:: 2001:db8::1 2001:db8:ffff:ffff::1
2002:0a00:0001::1 2002:7f00:0001::1 2002:a9fe:a9fe::1 2002:c0a8:0101::1 2002:ac10:0001::1 2002:6440:0001::1 2002:e000:0001::1 2002:ffff:ffff::1 2002::
2620:4f:8000::1 3fff::1 3fff:fff::1 4000::1 5f00::1 5fff::1 6000::1 8000::1 a000::1 c000::1 e000::1 f000::1 fc00:: fc00::1 fd00::1 fd00:ec2::254 fd20:ce::254 fdff:ffff::1
fe00::1 fe80:: fe80::1 fe80::a9fe:a9fe febf::1 fec0::1 feff::1 ff00::1 ff01::1 ff02::1 ff05::2 ffff::1 1::1 200::1 400::1 1fff:ffff::1`)
	open := strings.Fields(`
1.0.0.0 1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 93.184.216.34 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0
172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 192.0.3.0 192.88.98.255 192.88.100.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0 223.255.255.255
::ffff:8.8.8.8 ::ffff:1.1.1.1 64:ff9b::8.8.8.8 64:ff9b::1.1.1.1 2000::1 2001:200::1 2001:4860:4860::8888 2001:db7:ffff::1 2001:db9::1 2002:0808:0808::1 2003::1 2606:4700:4700::1111 2620:4f:7fff::1 2620:4f:8001::1 2a00:1450::1 2fff::1 3ffe::1`)
	if n := len(blocked) + len(open); n < 200 {
		t.Errorf("the table has %d addresses, want 200", n)
	}
	for _, s := range blocked {
		if Public(netip.MustParseAddr(s)) {
			t.Errorf("%s may be reached", s)
		}
	}
	for _, s := range open {
		if !Public(netip.MustParseAddr(s)) {
			t.Errorf("%s may not be reached", s)
		}
	}
	if Public(netip.MustParseAddr("fe80::1%eth0")) || Public(netip.Addr{}) {
		t.Error("a zone or no address may be reached")
	}
}

// receiver is a server on loopback and its port.
func receiver(t *testing.T, h http.HandlerFunc) (*httptest.Server, uint16) {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return s, uint16(n)
}

func TestPost(t *testing.T) {
	t.Parallel()
	var hits atomic.Int64
	s, port := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "/ok", http.StatusTemporaryRedirect)
		case "/large":
			w.Write(make([]byte, 1<<20))
		default:
			w.WriteHeader(http.StatusAccepted)
		}
	})
	ctx := context.Background()
	guarded := New(Options{Ports: []uint16{port}})
	if _, err := guarded.Post(ctx, s.URL, nil, nil); err == nil || hits.Load() != 0 {
		t.Errorf("loopback was reached: %v, %d hits", err, hits.Load())
	}
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	if _, err := New(Options{Allow: loopback}).Post(ctx, s.URL, nil, nil); err == nil || hits.Load() != 0 {
		t.Errorf("a port that is not allowed was reached: %v", err)
	}
	c := New(Options{Allow: loopback, Ports: []uint16{port}, MaxBytes: 1000})
	for path, want := range map[string]int{"/ok": 202, "/redirect": 307, "/large": 200} {
		before := hits.Load()
		r, err := c.Post(ctx, s.URL+path, nil, []byte("{}"))
		if err != nil || r.Status != want || len(r.Body) > 1000 {
			t.Errorf("%s: %v, %+v", path, err, r)
		}
		if hits.Load() != before+1 {
			t.Errorf("%s: %d requests, want 1: redirects are not followed", path, hits.Load()-before)
		}
	}
}

// A proxy of the environment would make the address of the proxy the one that is checked.
func TestNoProxy(t *testing.T) {
	var hits atomic.Int64
	proxy, _ := receiver(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("HTTPS_PROXY", proxy.URL)
	t.Setenv("http_proxy", proxy.URL)
	if _, err := New(Options{}).Post(context.Background(), "http://192.0.2.1/", nil, nil); err == nil || hits.Load() != 0 {
		t.Errorf("the proxy was used: %v, %d hits", err, hits.Load())
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	c := New(Options{})
	for u, ok := range map[string]bool{
		"https://hooks.example.com/x?y=z": true, "http://hooks.example.com": true, "https://hooks.example.com:443/": true, "http://93.184.216.34/": true,
		"": false, "hooks.example.com": false, "//hooks.example.com": false, "ftp://hooks.example.com": false, "file:///etc/passwd": false, "gopher://x": false,
		"https://u:p@hooks.example.com": false, "https://hooks.example.com:8443/": false, "https://hooks.example.com/#f": false, "http://:80/": false,
		"http://127.0.0.1/": false, "http://[::1]/": false, "http://[::ffff:127.0.0.1]/": false, "http://169.254.169.254/latest": false, "http://localhost/": false,
		"http://LOCALHOST./": false, "http://a.localhost/": false, "http://hooks.example.com/\n": false, "https://x/" + strings.Repeat("a", 2048): false,
	} {
		if err := c.Check(u); (err == nil) != ok {
			t.Errorf("%q: %v, want ok=%v", u, err, ok)
		}
	}
}

// A name that is public when it is looked at first and loopback later, or both at once, is
// not reached: what is connected to is what is checked.
func TestFlippingName(t *testing.T) {
	t.Parallel()
	var hits atomic.Int64
	_, port := receiver(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
	dns, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	var asked atomic.Int64
	go serveDNS(dns, &asked)
	c := New(Options{Ports: []uint16{port}, Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", dns.LocalAddr().String())
	}}})
	target := "http://flip.example.com:" + strconv.Itoa(int(port)) + "/"
	for range 4 {
		if err := c.Check(target); err != nil {
			t.Fatal(err)
		}
		_, err := c.Post(context.Background(), target, nil, nil)
		if e, ok := errors.AsType[*terse.Error](err); !ok || e.Reason != "blocked_destination" {
			t.Errorf("want blocked_destination, got %v", err)
		}
	}
	if hits.Load() != 0 || asked.Load() == 0 {
		t.Errorf("%d hits, %d questions", hits.Load(), asked.Load())
	}
}

// serveDNS answers every question for an IPv4 address with a private one, another each time.
func serveDNS(conn net.PacketConn, asked *atomic.Int64) {
	buf := make([]byte, 1500)
	answers := [][4]byte{{127, 0, 0, 1}, {10, 0, 0, 1}, {169, 254, 169, 254}, {192, 168, 0, 1}}
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		m.Response, m.Additionals = true, nil
		if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
			a := answers[int(asked.Add(1)-1)%len(answers)]
			m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}, Body: &dnsmessage.AResource{A: a}}}
		}
		if out, err := m.Pack(); err == nil {
			conn.WriteTo(out, from)
		}
	}
}
