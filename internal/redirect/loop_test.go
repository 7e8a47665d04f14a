//go:build linux

package redirect

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
)

// talk sends bytes in pieces, half-closes, and returns everything that comes back.
func talk(t *testing.T, address, raw string, piece int) []byte {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	go func() {
		for rest := raw; len(rest) > 0; {
			n := min(piece, len(rest))
			if _, err := io.WriteString(nc, rest[:n]); err != nil {
				return // answered and closed before the end
			}
			rest = rest[n:]
			runtime.Gosched()
		}
		_ = nc.(*net.TCPConn).CloseWrite()
	}()
	all, err := io.ReadAll(nc)
	if err != nil {
		t.Fatalf("%q: %v after %q", raw, err, all)
	}
	return all
}

// TestLoopIsFasthttp sends the same bytes to an event loop and to fasthttp, whole and in pieces, one request
// and many in a row: what comes back is the same, to the byte.
func TestLoopIsFasthttp(t *testing.T) {
	t.Parallel()
	w, _ := plainWorld(t)
	w.listen()
	first := w.addr
	address := w.listenPlainly().addr
	w.addr = first
	const last = "GET /a HTTP/1.1\r\nHost: go.example.com\r\nConnection: close\r\n\r\n"
	conversations := []string{
		"", "GET /a HT", "GET /a HTTP/1.1\r\nHost: go.exa", strings.Join(plainRequests, ""),
		"GET /a HTTP/1.1\r\nHost: go.example.com\r\n\r\n" + "GET /a HTTP/1.1\r\nHo", "POST /a HTTP/1.1\r\nHost: go.example.com\r\nContent-Length: 5\r\n\r\nhel",
	}
	for i, raw := range append(append([]string{}, plainRequests...), unusualRequests...) {
		conversations = append(conversations, raw+last)
		if i%3 == 0 {
			conversations = append(conversations, plainRequests[0]+raw+plainRequests[1]+last)
		}
	}
	for _, raw := range conversations {
		for _, piece := range []int{1 << 20, 37} {
			if got, want := withoutDate(talk(t, w.addr, raw, piece)), withoutDate(talk(t, address, raw, piece)); !bytes.Equal(got, want) {
				t.Errorf("%.300q in pieces of %d\nloop:     %q\nfasthttp: %q", raw, piece, got, want)
			}
		}
	}
}

// TestBareLineFeeds: a head that was ended with bare line feeds is answered 400 at once: the time for a request is an hour here.
func TestBareLineFeeds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet, func(o *Options) { o.ReadTimeout = time.Hour })
	w.link("go.example.com", "plain", "https://example.com/")
	w.listen()
	for _, raw := range []string{"GET /plain HTTP/1.1\nHost: go.example.com\n\n", "POST /plain HTTP/1.1\nHost: go.example.com\nContent-Length: 3\n\nabc",
		"GET /plain HTTP/1.1\r\nHost: go.example.com\r\n\r\nGET /plain HTTP/1.1\r\nHost: go.example.com\n\n"} {
		c := dial(t, w)
		_ = c.nc.SetDeadline(time.Now().Add(time.Minute))
		if _, err := c.nc.Write([]byte(raw)); err != nil {
			t.Fatal(err)
		}
		var got []int
		for closed := false; !closed; {
			res, err := http.ReadResponse(c.br, nil)
			if err != nil {
				t.Fatalf("%q: %v after %v", raw, err, got)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			got, closed = append(got, res.StatusCode), res.Close
		}
		if got[len(got)-1] != 400 || len(got) != 1+strings.Count(raw, "\r\n\r\n") {
			t.Errorf("%q: %v", raw, got)
		}
	}
}

// TestPipelines sends many requests before it reads one answer, so that the loop runs out of room to write
// into; among them some that take a goroutine or fasthttp. The answers come in order.
func TestPipelines(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	for i := range 10 {
		w.link("go.example.com", fmt.Sprintf("l-%d", i), fmt.Sprintf("https://example.com/%d", i))
	}
	w.listen()
	c := dial(t, w)
	const n = 20_000
	handed := n - 1000
	go func() {
		var b bytes.Buffer
		for i := range n {
			switch {
			case i%97 == 0: // never cached: a goroutine
				fmt.Fprintf(&b, "GET /cold-%d HTTP/1.1\r\nHost: go.example.com\r\n\r\n", i)
			case i == handed: // from here on fasthttp
				fmt.Fprintf(&b, "GET /l-%d HTTP/1.1\r\nHost: go.example.com\r\nContent-Length: 3\r\n\r\nabc", i%10)
			default:
				fmt.Fprintf(&b, "GET /l-%d HTTP/1.1\r\nHost: go.example.com\r\n\r\n", i%10)
			}
		}
		_, _ = c.nc.Write(b.Bytes())
	}()
	for i := range n {
		res, err := http.ReadResponse(c.br, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		want, location := 302, fmt.Sprintf("https://example.com/%d", i%10)
		if i%97 == 0 {
			want, location = 404, ""
		}
		if res.StatusCode != want || res.Header.Get("Location") != location {
			t.Fatalf("answer %d: %s, Location %q; want %d %q", i, res.Status, res.Header.Get("Location"), want, location)
		}
	}
}

// TestMissesDoNotBlockLoops: while the store hangs, cached links are answered on every connection.
func TestMissesDoNotBlockLoops(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet, func(o *Options) { o.LoadTimeout = time.Minute })
	w.link("go.example.com", "hot", "https://example.com/hot")
	w.link("go.example.com", "cold-1", "https://example.com/cold")
	w.want("/hot", 302, "https://example.com/hot")
	w.listen()
	hold := make(chan struct{})
	w.reader.mu.Lock()
	w.reader.hold = hold
	w.reader.mu.Unlock()
	var slow, fast []*rawConn
	for range 8 {
		c := dial(t, w)
		_, _ = io.WriteString(c.nc, "GET /cold-1 HTTP/1.1\r\nHost: go.example.com\r\n\r\nGET /hot HTTP/1.1\r\nHost: go.example.com\r\n\r\n")
		slow, fast = append(slow, c), append(fast, dial(t, w))
	}
	for range 10 {
		for _, c := range fast {
			if res, _ := c.roundTrip(t, "GET", "GET /hot HTTP/1.1\r\nHost: go.example.com\r\n\r\n"); res.StatusCode != 302 {
				t.Fatalf("%s while the store hangs", res.Status)
			}
		}
	}
	close(hold)
	for _, c := range slow {
		for _, want := range []string{"https://example.com/cold", "https://example.com/hot"} {
			res, err := http.ReadResponse(c.br, nil)
			if err != nil || res.Header.Get("Location") != want {
				t.Fatalf("%v, %v; want %s", res, err, want)
			}
		}
	}
}

// TestIdleConnectionsHaveNoGoroutine opens many connections that have had an answer and wait.
func TestIdleConnectionsHaveNoGoroutine(t *testing.T) {
	w := newWorld(t, quiet)
	w.link("go.example.com", "a", "https://example.com/")
	w.want("/a", 302, "https://example.com/")
	w.listen()
	before := runtime.NumGoroutine()
	const n = 400
	for range n {
		c := dial(t, w)
		c.roundTrip(t, "GET", "GET /a HTTP/1.1\r\nHost: go.example.com\r\n\r\n")
	}
	if more := runtime.NumGoroutine() - before; more > n/4 {
		t.Errorf("%d goroutines more for %d idle connections", more, n)
	}
	if open := w.server.admission.open.Load(); open != n {
		t.Errorf("%d connections counted, want %d", open, n)
	}
}

// TestConnectionLimits holds for both ways of serving, and what is closed makes room.
func TestConnectionLimits(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		set    func(*Options)
		status int
	}{
		"all":            {func(o *Options) { o.MaxConns = 3 }, 503},
		"of one address": {func(o *Options) { o.MaxConnsPerIP = 3 }, 429},
	} {
		for _, by := range []string{"loop", "fasthttp"} {
			t.Run(name+" by "+by, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, quiet, tt.set)
				w.link("go.example.com", "a", "https://example.com/")
				if by == "loop" {
					w.listen()
				} else {
					w.listenPlainly()
				}
				const raw = "GET /a HTTP/1.1\r\nHost: go.example.com\r\n\r\n"
				var open []*rawConn
				for range 3 {
					c := dial(t, w)
					c.roundTrip(t, "GET", raw)
					open = append(open, c)
				}
				res, err := http.ReadResponse(dial(t, w).br, nil)
				if err != nil || res.StatusCode != tt.status || !res.Close {
					t.Fatalf("%v, %v; want a %d that closes", res, err, tt.status)
				}
				for _, c := range open {
					_ = c.nc.Close()
				}
				for w.server.admission.open.Load() != 0 {
					runtime.Gosched()
				}
				if res, _ := dial(t, w).roundTrip(t, "GET", raw); res.StatusCode != 302 {
					t.Errorf("%s when there is room again", res.Status)
				}
			})
		}
	}
}

// TestSlowReaders do not keep a connection for ever.
func TestSlowReaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet, func(o *Options) { o.WriteTimeout = 100 * time.Millisecond })
	w.link("go.example.com", "big", "https://example.com/"+strings.Repeat("x", 8000))
	w.want("/big", 302, "https://example.com/"+strings.Repeat("x", 8000))
	w.listen()
	c := dial(t, w)
	raw := strings.Repeat("GET /big HTTP/1.1\r\nHost: go.example.com\r\n\r\n", 1000)
	for {
		if _, err := io.WriteString(c.nc, raw); err != nil {
			return // cut
		}
	}
}

// waitingRecorder waits for the disk with every click.
type waitingRecorder struct{ release chan struct{} }

func (r waitingRecorder) Capture(uint32, *clicks.Click) bool {
	<-r.release
	return true
}

// TestRecorderThatWaits: connections do not wait for each other's clicks.
func TestRecorderThatWaits(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	w := newWorld(t, func(o *Options) { o.Recorder, o.RecorderWaits = waitingRecorder{release}, true })
	w.link("go.example.com", "a", "https://example.com/")
	w.listen()
	var waiting []*rawConn
	for range 8 {
		c := dial(t, w)
		_, _ = io.WriteString(c.nc, "GET /a HTTP/1.1\r\nHost: go.example.com\r\n\r\n")
		waiting = append(waiting, c)
	}
	if res, _ := dial(t, w).roundTrip(t, "GET", "GET / HTTP/1.1\r\nHost: go.example.com\r\n\r\n"); res.StatusCode != 200 {
		t.Errorf("%s while clicks wait", res.Status)
	}
	close(release)
	for _, c := range waiting {
		if res, err := http.ReadResponse(c.br, nil); err != nil || res.StatusCode != 302 {
			t.Errorf("%v, %v", res, err)
		}
	}
}

// TestManyConnectionsComeAndGo opens and closes connections from many goroutines while links change;
// for the race detector.
func TestManyConnectionsComeAndGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	l := w.link("go.example.com", "a", "https://example.com/0")
	w.listen()
	done := make(chan struct{})
	for g := range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range 100 {
				c := dial(t, w)
				for range 3 {
					if res, _ := c.roundTrip(t, "GET", "GET /a HTTP/1.1\r\nHost: go.example.com\r\n\r\n"); res.StatusCode != 302 {
						t.Errorf("%s", res.Status)
					}
				}
				if i%3 == g%3 {
					_, _ = io.WriteString(c.nc, "POST /a HTTP/1.1\r\nHost: go.example.com\r\nContent-Le")
				}
				_ = c.nc.Close()
			}
		}()
	}
	for i := range 100 {
		l = w.update(l, func(l *terse.Link) { l.Destination = fmt.Sprintf("https://example.com/%d", i+1) })
	}
	for range 4 {
		<-done
	}
}
