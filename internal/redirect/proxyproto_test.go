package redirect

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestProxyProtocol: who the client is comes from the header of a trusted proxy, on both ways of serving, whole
// and byte by byte; what is no header ends the connection without an answer.
func TestProxyProtocol(t *testing.T) {
	t.Parallel()
	const (
		request = "GET /a HTTP/1.1\r\nHost: go.example.com\r\n\r\n"
		last    = "GET /a HTTP/1.1\r\nHost: go.example.com\r\nConnection: close\r\n\r\n"
		odd     = "GET /a HTTP/1.0\r\nHost: go.example.com\r\n\r\n" // fasthttp answers it on a loop, too
		text    = "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"
		binary  = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x01\xdc\x04\x01\xbb"
	)
	for name, tt := range map[string]struct {
		trusted string
		in      string
		clients []string // of the clicks
		status  string   // of the first answer; "": none
	}{
		"text":               {"127.0.0.0/8", text + request + last, []string{"192.0.2.1", "192.0.2.1"}, "302"},
		"binary":             {"127.0.0.0/8", binary + last, []string{"192.0.2.1"}, "302"},
		"unusual request":    {"127.0.0.0/8", binary + odd, []string{"192.0.2.1"}, "302"},
		"unknown":            {"127.0.0.0/8", "PROXY UNKNOWN\r\n" + last, []string{"127.0.0.1"}, "302"},
		"and a header field": {"127.0.0.0/8", text + "GET /a HTTP/1.1\r\nHost: go.example.com\r\nX-Forwarded-For: 203.0.113.1\r\nConnection: close\r\n\r\n", []string{"192.0.2.1"}, "302"},
		"twice":              {"127.0.0.0/8", text + text + last, nil, "400"},
		"missing":            {"127.0.0.0/8", last, nil, ""},
		"broken":             {"127.0.0.0/8", "PROXY TCP4 nonsense\r\n" + last, nil, ""},
		"cut":                {"127.0.0.0/8", text[:20], nil, ""},
		"from anybody":       {"10.0.0.0/8", text + last, nil, "400"},
		"from anybody, v2":   {"10.0.0.0/8", binary + last, nil, "400"},
		"none from anybody":  {"10.0.0.0/8", last, []string{"127.0.0.1"}, "302"},
	} {
		for _, by := range []string{"loop", "fasthttp"} {
			for _, piece := range []int{1 << 20, 1} {
				t.Run(name+" by "+by, func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, func(o *Options) { o.ProxyProtocol, o.TrustedProxies = true, []string{tt.trusted} })
					w.link("go.example.com", "a", "https://example.com/")
					w.want("/a", 302, "https://example.com/")
					w.clicks.take()
					if by == "loop" {
						w.listen()
					} else {
						w.listenPlainly()
					}
					nc, err := net.Dial("tcp", w.addr)
					if err != nil {
						t.Fatal(err)
					}
					defer nc.Close()
					_ = nc.SetDeadline(time.Now().Add(time.Minute))
					for rest := tt.in; len(rest) > 0; {
						n := min(piece, len(rest))
						if _, err := io.WriteString(nc, rest[:n]); err != nil {
							break // refused before the end
						}
						rest = rest[n:]
					}
					_ = nc.(*net.TCPConn).CloseWrite() // fails on one that was refused
					var all bytes.Buffer
					_, err = all.ReadFrom(nc)
					got := all.String()
					switch {
					case tt.status == "":
						if got != "" {
							t.Errorf("answer %q, want none", got)
						}
					case err != nil || !strings.HasPrefix(got, "HTTP/1.1 "+tt.status+" "):
						t.Errorf("answer %q, %v; want %s", got, err, tt.status)
					}
					var clients []string
					for _, c := range w.clicks.take() {
						clients = append(clients, c.IP.String())
					}
					if strings.Join(clients, " ") != strings.Join(tt.clients, " ") {
						t.Errorf("clients %q, want %q", clients, tt.clients)
					}
				})
			}
		}
	}
}
