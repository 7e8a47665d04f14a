package peers

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/nodes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// directory is a list of nodes.
type directory []nodes.Seen

func (d directory) List(context.Context) ([]nodes.Seen, error) { return d, nil }

func (d directory) Find(_ context.Context, id string) (nodes.Seen, error) {
	for _, n := range d {
		if n.ID == id {
			return n, nil
		}
	}
	return nodes.Seen{}, terse.ErrNotFound
}

func seen(id, u string, state nodes.State, roles ...string) nodes.Seen {
	return nodes.Seen{Node: nodes.Node{ID: id, Name: "name of " + id, URL: u, Roles: roles}, State: state}
}

func TestTarget(t *testing.T) {
	t.Parallel()
	c := New(Options{Self: "me", Nodes: directory{
		seen("alive", "http://10.0.0.1:1", nodes.Alive, "control", "worker"), seen("dead", "http://10.0.0.2:1", nodes.Dead, "control", "worker"),
		seen("silent", "", nodes.Alive, "control", "worker"), seen("odd", "file:///etc/passwd", nodes.Alive), seen("hand", "http://10.0.0.3:1", nodes.Alive, "worker"),
		{Node: nodes.Node{ID: "me", URL: "http://10.0.0.4:1", Roles: []string{"control", "worker"}}, State: nodes.Alive, Self: true},
	}})
	defer c.Close()
	for id, want := range map[string]string{"alive": "http://10.0.0.1:1", "silent": "", "dead": "name of dead", "gone": "gone", "odd": "name of odd"} {
		target, err := c.Target(t.Context(), id)
		switch {
		case err != nil:
			if e, ok := errors.AsType[*terse.Error](err); !ok || e.Code != terse.CodeUnavailable || e.Reason != "node_unavailable" || !strings.Contains(e.Message, "node "+want+",") {
				t.Errorf("%s: %v", id, err)
			}
		case target == nil:
			if want != "" {
				t.Errorf("%s cannot be asked", id)
			}
		case target.url.String() != want:
			t.Errorf("%s is at %s", id, target.url)
		}
	}
	for range 20 {
		if any, err := c.Any(t.Context(), "control", "worker"); err != nil || any == nil || any.name != "name of alive" {
			t.Fatalf("%v, %+v", err, any)
		}
	}
	if any, err := c.Any(t.Context(), "redirect"); err != nil || any != nil {
		t.Errorf("nobody redirects: %v, %+v", err, any)
	}
}

// pair is a node that passes everything on to another one.
type pair struct {
	front *httptest.Server
	c     *Client
	errs  chan error    // of every request
	began chan struct{} // if set, the time for reads of a body is over when it is closed
}

func newPair(t *testing.T, u string, stall time.Duration) *pair {
	t.Helper()
	p := &pair{c: New(Options{Self: "front", Nodes: directory{seen("back", u, nodes.Alive)}, Stall: stall}), errs: make(chan error, 10)}
	p.front = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		target, err := p.c.Target(r.Context(), "back")
		if err != nil {
			t.Error(err)
			return
		}
		w.Header().Set("X-Request-Id", "r1")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if p.began != nil {
			go func() {
				<-p.began
				_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
			}()
		}
		err = p.c.Pass(w, r, target, "192.0.2.7")
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		p.errs <- err
	}))
	t.Cleanup(func() { p.c.Close(); p.front.CloseClientConnections(); p.front.Close() })
	return p
}

func backend(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s.URL
}

func (p *pair) send(t *testing.T, method, path string, body io.Reader, header ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, p.front.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := p.front.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// TestPass: what matters of a request and of its answer arrives as it was sent.
func TestPass(t *testing.T) {
	t.Parallel()
	var got *http.Request
	var body []byte
	p := newPair(t, backend(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Clone(context.Background())
		body, _ = io.ReadAll(r.Body)
		h := w.Header()
		h.Set("Upload-Offset", "7")
		h.Set("Etag", `"x"`)
		h.Set("X-Request-Id", r.Header.Get("X-Request-Id"))
		h.Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(http.StatusConflict)
		io.WriteString(w, "answer")
	}), 0)
	keep := map[string]string{
		"Authorization": "Bearer k", "Range": "bytes=1-2", "Last-Event-Id": "1-2", "Idempotency-Key": "i", "Upload-Offset": "5", "Terse-Workspace": "ws_1", "If-None-Match": `"y"`, "Accept-Encoding": "zstd",
	}
	drop := map[string]string{"Origin": "https://a.example", "Sec-Fetch-Site": "same-origin", "Connection": "X-Odd", "X-Odd": "1", "Forwarded": "for=1.2.3.4"}
	header := []string{"X-Forwarded-For", "6.6.6.6"}
	for _, m := range []map[string]string{keep, drop} {
		for name, value := range m {
			header = append(header, name, value)
		}
	}
	resp := p.send(t, "PATCH", "/api/v1/a%2Fb?x=1;y=%zz&z", strings.NewReader("piece"), header...)
	if err := <-p.errs; err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusConflict || string(answer) != "answer" || resp.Header.Get("Upload-Offset") != "7" || resp.Header.Get("Etag") != `"x"` {
		t.Errorf("%v, %d %v %s", err, resp.StatusCode, resp.Header, answer)
	}
	for _, name := range []string{"X-Request-Id", "X-Content-Type-Options", "Content-Length"} {
		if len(resp.Header[name]) != 1 {
			t.Errorf("%s: %q", name, resp.Header[name])
		}
	}
	if got.Method != "PATCH" || got.RequestURI != "/api/v1/a%2Fb?x=1;y=%zz&z" || string(body) != "piece" || got.ContentLength != 5 {
		t.Errorf("%s %s, %d bytes: %s", got.Method, got.RequestURI, got.ContentLength, body)
	}
	for name, value := range keep {
		if got.Header.Get(name) != value {
			t.Errorf("%s is %q, want %q", name, got.Header.Get(name), value)
		}
	}
	for name := range drop {
		if v := got.Header.Get(name); v != "" && v != "close" {
			t.Errorf("%s is passed on: %q", name, v)
		}
	}
	if v := got.Header.Values("X-Forwarded-For"); len(v) != 1 || v[0] != "192.0.2.7" {
		t.Errorf("X-Forwarded-For: %q", v)
	}
	if !Passed(got) || got.Header.Get(Hop) != "front" || got.Header.Get("X-Request-Id") != "r1" {
		t.Errorf("%v", got.Header)
	}
}

// TestPassStreams: both bodies travel piece by piece, and a visitor who goes away ends both requests.
func TestPassStreams(t *testing.T) {
	t.Parallel()
	read, gone := make(chan string), make(chan struct{})
	p := newPair(t, backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "data: 1\n\n")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
			close(gone)
			return
		}
		piece := make([]byte, 5)
		for range 2 {
			if _, err := io.ReadFull(r.Body, piece); err != nil {
				t.Error(err)
			}
			read <- string(piece)
		}
	}), 0)
	pr, pw := io.Pipe()
	go func() {
		for _, piece := range []string{"first", "again"} {
			io.WriteString(pw, piece)
			if got := <-read; got != piece { // before the next one is sent
				t.Errorf("%q, want %q", got, piece)
			}
		}
		pw.Close()
	}()
	if resp := p.send(t, "PATCH", "/", pr); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	if err := <-p.errs; err != nil {
		t.Error(err)
	}
	resp := p.send(t, "GET", "/", nil)
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || line != "data: 1\n" {
		t.Errorf("%v, %q", err, line)
	}
	resp.Body.Close()
	<-gone
}

// TestClose: a stream of events that is passed on ends well with the node that passes it on.
func TestClose(t *testing.T) {
	t.Parallel()
	p := newPair(t, backend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: 1\n\n")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}), 0)
	resp := p.send(t, "GET", "/", nil)
	lines := bufio.NewReader(resp.Body)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	p.c.Close()
	if rest, err := io.ReadAll(lines); err != nil || string(rest) != "\n" {
		t.Errorf("%v, %q", err, rest)
	}
}

// TestPassFails: what was not sent is unavailable; what may have been done is unknown; an answer that breaks off breaks off.
func TestPassFails(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + ln.Addr().String()
	ln.Close()
	mute := backend(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		panic(http.ErrAbortHandler)
	})
	for _, tc := range []struct {
		url, method string
		body        string
		want        string
	}{
		{nobody, "GET", "", "node_unavailable"}, {nobody, "POST", "x", "node_unavailable"}, {nobody, "DELETE", "", "node_unavailable"}, {nobody, "PATCH", "x", "node_unavailable"},
		{mute, "GET", "", "node_unavailable"}, {mute, "HEAD", "", "node_unavailable"}, {mute, "POST", "", "unknown_outcome"}, {mute, "POST", "x", "unknown_outcome"},
		{mute, "DELETE", "", "unknown_outcome"}, {mute, "PATCH", "x", "unknown_outcome"},
	} {
		p := newPair(t, tc.url, 0)
		resp := p.send(t, tc.method, "/", strings.NewReader(tc.body), "Idempotency-Key", "k")
		err := <-p.errs
		e, ok := errors.AsType[*terse.Error](err)
		if !ok || e.PublicCode() != tc.want || !strings.Contains(e.Message, "name of back") || resp.StatusCode != 503 {
			t.Errorf("%s %q: %d, %v, want %s", tc.method, tc.body, resp.StatusCode, err, tc.want)
		}
	}
	p := newPair(t, backend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "half")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}), 0)
	resp, err := p.front.Client().Get(p.front.URL)
	if err == nil { // else nothing of it had arrived yet
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("an answer that broke off passes for a whole one")
	}
}

// TestBodyEnds: a visitor who stops in the middle of a body is no failure of a node, and what came before has arrived.
func TestBodyEnds(t *testing.T) {
	t.Parallel()
	const head = "PATCH / HTTP/1.1\r\nHost: x\r\n"
	for name, tc := range map[string]struct {
		send string
		then func(p *pair, conn *net.TCPConn)
	}{
		"stalls":    {head + "Content-Length: 100\r\n\r\nhalf", func(p *pair, _ *net.TCPConn) { close(p.began) }},
		"leaves":    {head + "Content-Length: 100\r\n\r\nhalf", func(_ *pair, conn *net.TCPConn) { conn.Close() }},
		"ends":      {head + "Content-Length: 100\r\n\r\nhalf", func(_ *pair, conn *net.TCPConn) { conn.CloseWrite() }},
		"malformed": {head + "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", func(_ *pair, conn *net.TCPConn) { io.WriteString(conn, "zz\r\n") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			half, rest := make(chan struct{}), make(chan error, 1)
			p := newPair(t, backend(t, func(_ http.ResponseWriter, r *http.Request) {
				b := make([]byte, 4)
				if _, err := io.ReadFull(r.Body, b); err != nil || string(b) != "half" {
					t.Errorf("%v, %q", err, b)
				}
				close(half)
				_, err := io.Copy(io.Discard, r.Body)
				rest <- err
			}), 0)
			p.front.Config.ErrorLog = nil
			if name == "stalls" {
				p.began = make(chan struct{})
			}
			conn, err := net.Dial("tcp", p.front.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, tc.send); err != nil {
				t.Fatal(err)
			}
			<-half
			tc.then(p, conn.(*net.TCPConn))
			if err := <-p.errs; !errors.Is(err, ErrBody) {
				t.Errorf("%v, want ErrBody", err)
			}
			if err := <-rest; err == nil {
				t.Error("half a body passes for a whole one")
			}
		})
	}
}

// TestStall: nobody waits for ever for a node that was paused, wherever in a request that happens.
func TestStall(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	u := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			io.WriteString(w, "half")
			http.NewResponseController(w).Flush()
		}
		<-release // it reads nothing
	})
	defer close(release)
	big := bytes.Repeat([]byte("x"), 64<<20) // more than sockets hold
	p := newPair(t, u, 300*time.Millisecond)
	p.front.Config.ErrorLog = nil
	for _, body := range [][]byte{big, nil} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", p.front.URL, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := p.front.Client().Do(r); err == nil { // else the answer came before all was sent
			resp.Body.Close()
		}
		if err := <-p.errs; terse.ErrorCode(err) != terse.CodeUnknownOutcome {
			t.Errorf("%d bytes: %v", len(body), err)
		}
	}
	p.c.transport.ResponseHeaderTimeout = time.Minute // the answer begins, however slow the machine is
	resp, err := p.front.Client().Get(p.front.URL)
	if err == nil { // else nothing of it was sent on before the end
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("an answer that stands still in the middle passes for a whole one")
	}
}

func TestGet(t *testing.T) {
	t.Parallel()
	u := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/jobs/1" || r.Header.Get("Authorization") != "Bearer k" || r.Header.Get("Terse-Workspace") != "ws_1" || r.Header.Get("Range") != "" || !Passed(r) {
			w.WriteHeader(http.StatusTeapot)
		}
		io.WriteString(w, "answer")
	})
	parsed, err := url.Parse(u)
	if err != nil {
		t.Fatal(err)
	}
	c := New(Options{Self: "front", Nodes: directory{}})
	defer c.Close()
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer k")
	r.Header.Set("Terse-Workspace", "ws_1")
	r.Header.Set("Range", "bytes=0-1")
	if b, err := c.Get(t.Context(), &Target{name: "back", url: parsed}, r, "/api/v1/jobs/1"); err != nil || string(b) != "answer" {
		t.Errorf("%v, %s", err, b)
	}
	if _, err := c.Get(t.Context(), &Target{name: "back", url: parsed}, r, "/api/v1/jobs/2"); err == nil || !strings.Contains(err.Error(), "418") {
		t.Errorf("another status: %v", err)
	}
}
