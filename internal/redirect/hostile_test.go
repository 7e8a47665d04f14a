package redirect

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// exchange sends bytes on a new connection, half-closes it and returns all answers.
func exchange(t *testing.T, w *world, raw string) []*http.Response {
	t.Helper()
	nc, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(nc, raw); err != nil {
		t.Fatal(err)
	}
	// A server that closes lingers (conn.Close): neither this nor the read may meet a reset.
	if err := nc.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(nc)
	if err != nil {
		t.Fatalf("read: %v after %q", err, all)
	}
	var got []*http.Response
	br := bufio.NewReader(bytes.NewReader(all))
	for {
		if _, err := br.Peek(1); err != nil {
			return got
		}
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("the answer is no HTTP: %v\n%q", err, all)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatal(err)
		}
		got = append(got, res)
	}
}

// TestHostileRequests are requests that two programs may understand differently,
// or that are too much. Each gets one answer with the status and the connection
// is closed, so that what was smuggled behind it is never read as a request.
func TestHostileRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.link("go.example.com", "plain", "https://example.com/")
	w.listen()
	const (
		host     = "Host: go.example.com\r\n"
		smuggled = "GET /plain HTTP/1.1\r\n" + host + "\r\n"
	)
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "X-%d: y\r\n", i)
		}
		return b.String()
	}
	tests := []struct {
		name   string
		raw    string
		status int
	}{
		{"length and chunks", "GET /plain HTTP/1.1\r\n" + host + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, 400},
		{"chunks and length", "GET /plain HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + smuggled, 400},
		{"two lengths", "GET /plain HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello" + smuggled, 400},
		{"two equal lengths", "GET /plain HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello" + smuggled, 400},
		{"length with a sign", "GET /plain HTTP/1.1\r\n" + host + "Content-Length: +5\r\n\r\nhello" + smuggled, 400},
		{"negative length", "GET /plain HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\n" + smuggled, 400},
		{"hexadecimal length", "GET /plain HTTP/1.1\r\n" + host + "Content-Length: 0x5\r\n\r\nhello" + smuggled, 400},
		{"huge length", "GET /plain HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999999\r\n\r\n" + smuggled, 400},
		{"list of lengths", "GET /plain HTTP/1.1\r\n" + host + "Content-Length: 5, 5\r\n\r\nhello" + smuggled, 400},
		{"other coding", "GET /plain HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + smuggled, 400},
		{"chunked twice", "GET /plain HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, 400},
		{"chunked in HTTP/1.0", "GET /plain HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, 400},
		{"bad chunk size", "GET /plain HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n" + smuggled, 400},
		{"chunk without end", "GET /plain HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n" + smuggled, 400},
		{"two hosts", "GET /plain HTTP/1.1\r\n" + host + "Host: evil.example\r\n\r\n" + smuggled, 400},
		{"no host", "GET /plain HTTP/1.1\r\n\r\n" + smuggled, 400},
		{"host with user", "GET /plain HTTP/1.1\r\nHost: a\\b@go.example.com\r\n\r\n" + smuggled, 400},
		{"bare line feed in headers", "GET /plain HTTP/1.1\r\n" + host + "X: y\nContent-Length: 50\r\n\r\n" + smuggled, 400},
		{"folded line", "GET /plain HTTP/1.1\r\n" + host + "X: y\r\n Content-Length: 50\r\n\r\n" + smuggled, 400},
		{"folded line, tab", "GET /plain HTTP/1.1\r\n" + host + "X: y\r\n\tz\r\n\r\n" + smuggled, 400},
		{"space before the first header", "GET /plain HTTP/1.1\r\n " + host + "\r\n" + smuggled, 400},
		{"space before the colon", "GET /plain HTTP/1.1\r\n" + host + "Content-Length : 5\r\n\r\nhello" + smuggled, 400},
		{"no colon", "GET /plain HTTP/1.1\r\n" + host + "Nonsense\r\n\r\n" + smuggled, 400},
		{"no name", "GET /plain HTTP/1.1\r\n" + host + ": x\r\n\r\n" + smuggled, 400},
		{"NUL in a name", "GET /plain HTTP/1.1\r\n" + host + "X\x00Y: z\r\n\r\n" + smuggled, 400},
		{"NUL in a value", "GET /plain HTTP/1.1\r\n" + host + "X: y\x00z\r\n\r\n" + smuggled, 400},
		{"bare carriage return in a value", "GET /plain HTTP/1.1\r\n" + host + "X: y\rz\r\n\r\n" + smuggled, 400},
		{"control byte in the target", "GET /pl\x01ain HTTP/1.1\r\n" + host + "\r\n" + smuggled, 400},
		{"tab in the target", "GET /pl\tain HTTP/1.1\r\n" + host + "\r\n" + smuggled, 400},
		{"space in the target", "GET /pl ain HTTP/1.1\r\n" + host + "\r\n" + smuggled, 400},
		{"no target", "GET  HTTP/1.1\r\n" + host + "\r\n" + smuggled, 400},
		{"target without a slash", "GET plain HTTP/1.1\r\n" + host + "\r\n" + smuggled, 400},
		{"asterisk for GET", "GET * HTTP/1.1\r\n" + host + "\r\n" + smuggled, 400},
		{"no version", "GET /plain\r\n" + host + "\r\n" + smuggled, 400},
		{"other version", "GET /plain HTTP/3.0\r\n" + host + "\r\n" + smuggled, 400},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 400},
		{"TLS to a plain port", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400},
		{"body over the limit", "GET /plain HTTP/1.1\r\n" + host + "Content-Length: 5000\r\n\r\n" + strings.Repeat("x", 5000), 413},
		{"chunked body over the limit", "GET /plain HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n2000\r\n" + strings.Repeat("x", 0x2000) + "\r\n0\r\n\r\n", 413},
		{"101 headers", "GET /plain HTTP/1.1\r\n" + host + many(100) + "\r\n" + smuggled, 431},
		{"headers over 16 KiB", "GET /plain HTTP/1.1\r\n" + host + "X: " + strings.Repeat("y", 17<<10) + "\r\n\r\n" + smuggled, 431},
		{"URL over 8 KiB", "GET /" + strings.Repeat("x", 8<<10) + " HTTP/1.1\r\n" + host + "\r\n" + smuggled, 414},
		{"URL over 16 KiB", "GET /" + strings.Repeat("x", 17<<10) + " HTTP/1.1\r\n" + host + "\r\n" + smuggled, 431},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := exchange(t, w, tt.raw)
			if len(got) != 1 || got[0].StatusCode != tt.status || !got[0].Close {
				for _, res := range got {
					t.Logf("%s, Connection: %s", res.Status, res.Header.Get("Connection"))
				}
				t.Errorf("%d answers, want one %d that closes", len(got), tt.status)
			}
			for _, res := range got {
				if l := res.Header.Get("Location"); l != "" {
					t.Errorf("redirected to %s", l)
				}
			}
		})
	}
}

// TestToleratedRequests are unusual but have one meaning only: every one is
// answered, and so is the request behind it.
func TestToleratedRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.link("go.example.com", "plain", "https://example.com/")
	w.listen()
	const host = "Host: go.example.com\r\n"
	for name, raw := range map[string]string{
		"pipelined":              "GET /plain HTTP/1.1\r\n" + host + "\r\n",
		"empty lines before":     "\r\n\r\nGET /plain HTTP/1.1\r\n" + host + "\r\n",
		"a body nobody needs":    "GET /plain HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\nhello",
		"a chunked body":         "GET /plain HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"multipart":              "GET /plain HTTP/1.1\r\n" + host + "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 5\r\n\r\n--x--",
		"99 more headers":        "GET /plain HTTP/1.1\r\n" + host + strings.Repeat("X: y\r\n", 99) + "\r\n",
		"HTTP/1.0 kept alive":    "GET /plain HTTP/1.0\r\n" + host + "Connection: keep-alive\r\n\r\n",
		"header case and spaces": "GET /plain HTTP/1.1\r\nhOsT: \t go.example.com \t\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := exchange(t, w, raw+"GET /plain HTTP/1.1\r\n"+host+"Connection: close\r\n\r\n")
			if len(got) != 2 {
				t.Fatalf("%d answers, want 2", len(got))
			}
			for _, res := range got {
				if res.StatusCode != 302 || res.Header.Get("Location") != "https://example.com/" {
					t.Errorf("%s, Location %q", res.Status, res.Header.Get("Location"))
				}
			}
		})
	}
}

// TestExpectContinue answers 100 and then the redirect.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.link("go.example.com", "plain", "https://example.com/")
	w.listen()
	got := exchange(t, w, "GET /plain HTTP/1.1\r\nHost: go.example.com\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi")
	if len(got) != 2 || got[0].StatusCode != 100 || got[1].StatusCode != 302 {
		t.Errorf("answers %v, want 100 and 302", got)
	}
}

// FuzzRequestBytes sends any bytes to a real connection handler: no panic, no 500, and
// whatever is answered is HTTP with no header that the request has written.
func FuzzRequestBytes(f *testing.F) {
	for _, s := range []string{
		"GET /plain HTTP/1.1\r\nHost: go.example.com\r\n\r\n", "GET /fq?a=%0d%0aX-Evil:1 HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
		"GET http://go.example.com/fp/x HTTP/1.1\r\nHost: x\r\n\r\n", "GET //fp//x/..%2f?&&=#? HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"GET /fp/\xff\x80 HTTP/1.1\r\nHost: GO.example.com.:80\r\nX-Forwarded-For: \"\r\nForwarded: for=\"[::1\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	w := newWorld(f, quiet)
	linkForwarding(w)
	f.Fuzz(func(t *testing.T, raw []byte) {
		client, server := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = w.server.fast.ServeConn(server) // its error is about the connection
		}()
		go func() {
			_, _ = client.Write(raw)
			_, _ = io.WriteString(client, "\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		}()
		_ = client.SetReadDeadline(time.Now().Add(2 * time.Second))
		all, _ := io.ReadAll(client)
		_ = client.Close()
		<-done
		br := bufio.NewReader(bytes.NewReader(all))
		for {
			if _, err := br.Peek(1); err != nil {
				return
			}
			res, err := http.ReadResponse(br, nil)
			if err != nil {
				if bytes.HasPrefix(raw, []byte("HEAD")) || bytes.Contains(raw, []byte("HEAD ")) {
					return // an answer to HEAD announces a body that does not come
				}
				t.Fatalf("no HTTP: %v\n%q", err, all)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			if res.StatusCode == 500 || res.Header.Get("X-Evil") != "" {
				t.Fatalf("%s %v", res.Status, res.Header)
			}
		}
	})
}
