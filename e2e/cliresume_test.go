package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/terselink/terse/e2e/proc"
)

// hurdle stands between the command line and a server: it can hold a request in the middle of its body, or when it
// comes, until the command is gone.
type hurdle struct {
	*httptest.Server
	to     atomic.Pointer[proc.Server]
	lowest atomic.Int64 // Upload-Offset of the pieces that came

	mu      sync.Mutex
	hold    func(*http.Request) int64 // bytes of a body to let through; negative: all
	reached chan struct{}             // closed when a request is held
}

func newHurdle(t *testing.T, s *proc.Server) *hurdle {
	h := &hurdle{}
	h.to.Store(s)
	forward := &httputil.ReverseProxy{
		FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: h.to.Load().ControlAddr})
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		if offset, err := strconv.ParseInt(r.Header.Get("Upload-Offset"), 10, 64); err == nil {
			h.lowest.Store(min(h.lowest.Load(), offset))
		}
		h.mu.Lock()
		hold := h.hold
		h.mu.Unlock()
		limit := int64(-1)
		if hold != nil {
			limit = hold(r)
		}
		r.Body = &heldBody{ReadCloser: r.Body, h: h, ctx: r.Context(), left: limit}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	return h
}

// holdNext arms the hurdle and returns what is closed when a request is held.
func (h *hurdle) holdNext(f func(*http.Request) int64) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hold, h.reached = f, make(chan struct{})
	return h.reached
}

// held tells that a request is held, and lets all later ones pass.
func (h *hurdle) held() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hold != nil {
		h.hold = nil
		close(h.reached)
	}
}

type heldBody struct {
	io.ReadCloser
	h    *hurdle
	ctx  context.Context
	left int64
}

func (b *heldBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		b.h.held()
		<-b.ctx.Done()
		return 0, b.ctx.Err()
	}
	if b.left > 0 {
		p = p[:min(int64(len(p)), b.left)]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left > 0 {
		b.left -= int64(n)
	}
	return n, err
}

// command is a run of the command line that can be interrupted.
func (h *hurdle) command(t *testing.T, data string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), bin, append([]string{"--data", data, "--server", h.URL}, args...)...)
	cmd.Env = proc.Environ()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &out
	return cmd, &out
}

// resume runs a command until it succeeds: the server may still be busy with the request of the one that was killed, and
// says so.
func (h *hurdle) resume(t *testing.T, data string, args ...string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Minute); ; {
		cmd, out := h.command(t, data, args...)
		err := cmd.Run()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("terse %v: %v\n%s", args, err, out)
		}
	}
}

// interrupted runs a command until the hurdle holds its request, and ends it by a signal.
func (h *hurdle) interrupted(t *testing.T, data string, sig os.Signal, hold func(*http.Request) int64, args ...string) string {
	t.Helper()
	reached := h.holdNext(hold)
	cmd, out := h.command(t, data, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-reached:
	case err := <-ended:
		t.Fatalf("terse %v ended by itself: %v\n%s", args, err, out)
	case <-time.After(5 * time.Minute):
		_ = cmd.Process.Kill()
		t.Fatalf("terse %v does not get there", args)
	}
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Fatalf("terse %v: exit code 0 after %v\n%s", args, sig, out)
	}
	return out.String()
}

// links returns the short URLs in a file of results, which must be one for each row and no two the same.
func links(t *testing.T, name string, rows int) []string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	var list []string
	for line := range strings.Lines(string(b)) {
		if _, short, ok := strings.Cut(strings.TrimSpace(line), ","); ok && strings.HasPrefix(short, "http") {
			short, _, _ = strings.Cut(short, ",")
			seen[short] = true
			list = append(list, short)
		}
	}
	if len(list) != rows || len(seen) != rows {
		t.Fatalf("%s has %d links, %d of them different, want %d", name, len(list), len(seen), rows)
	}
	return list
}

// TestCommandResume: a command that is interrupted or killed in the middle of sending, and a server that is killed
// under a job, cost nothing: --resume goes on where it was, and makes no link twice.
func TestCommandResume(t *testing.T) {
	waits(t)
	s := start(t, proc.Options{Env: quick})
	h := newHurdle(t, s)
	dir := t.TempDir()
	const rows, piece = 6000, 8 << 20
	var body bytes.Buffer
	body.WriteString("destination,external_id\n")
	for i := range rows {
		fmt.Fprintf(&body, "https://shop.example.com/%s/%d,r-%d\n", strings.Repeat("x", 2000), i, i)
	}
	size := int64(body.Len())
	if size < piece*5/4 {
		t.Fatalf("%d bytes are no more than one piece", size)
	}
	write := func(name, text string) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	file := write("rows.csv", body.String())

	var pieces atomic.Int64
	secondPiece := func(r *http.Request) int64 {
		if r.Method != http.MethodPatch {
			return -1
		}
		if pieces.Add(1) < 2 {
			return -1
		}
		return 100_000
	}
	for _, sig := range []os.Signal{os.Interrupt, os.Kill} {
		pieces.Store(0)
		out := filepath.Join(dir, "links.csv")
		said := h.interrupted(t, s.Data, sig, secondPiece, "bulk", file, "--job", "-o", out)
		if sig == os.Interrupt && !strings.Contains(said, "--resume") {
			t.Errorf("after %v it says nothing of --resume: %s", sig, said)
		}
		h.lowest.Store(size)
		h.resume(t, s.Data, "bulk", file, "--job", "--resume", "-o", out)
		links(t, out, rows)
		if from := h.lowest.Load(); from < piece || from == size {
			t.Errorf("after %v the upload went on at %d of %d, and %d bytes had arrived", sig, from, size, piece)
		}
		if _, err := os.Stat(file + ".terse-job"); !os.IsNotExist(err) {
			t.Errorf("the note of the job is left: %v", err)
		}
	}

	// Rows of a campaign over one request.
	id := strings.TrimSpace(func() string {
		out, _, _ := terse(t, s, "campaign", "create", "c", "https://shop.example.com/{sku}")
		return out
	}())
	var values strings.Builder
	values.WriteString("sku,external_id\n")
	for i := range 50_000 {
		fmt.Fprintf(&values, "sku-%d,r-%d\n", i, i)
	}
	skus := write("skus.csv", values.String())
	middle := func(r *http.Request) int64 {
		if r.Method != http.MethodPost {
			return -1
		}
		return int64(values.Len() / 2)
	}
	out := filepath.Join(dir, "skus.out")
	h.interrupted(t, s.Data, os.Kill, middle, "campaign", "add", id, skus, "-o", out, "-q")
	h.resume(t, s.Data, "campaign", "add", id, skus, "-o", out, "-q", "--resume")
	links(t, out, 50_000)
	if shown, _, _ := terse(t, s, "--json", "campaign", "get", id); !strings.Contains(shown, `"links":50000,`) {
		t.Errorf("the campaign after the repetition: %.300s", shown)
	}

	// The server is killed when the job has begun, and the command waits for it.
	reached := h.holdNext(func(r *http.Request) int64 {
		if strings.HasSuffix(r.URL.Path, "/events") {
			h.held()
		}
		return -1
	})
	cmd, said := h.command(t, s.Data, "bulk", skus, "--job", "--campaign", id, "-o", out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-reached:
	case <-time.After(5 * time.Minute):
		_ = cmd.Process.Kill()
		t.Fatal("the job does not begin")
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	h.to.Store(start(t, proc.Options{Env: quick, Data: s.Data}))
	if err := cmd.Wait(); err != nil {
		t.Fatalf("after the server was killed: %v\n%s", err, said)
	}
	links(t, out, 50_000)
	if shown, _, _ := terse(t, h.to.Load(), "--json", "campaign", "get", id); !strings.Contains(shown, `"links":100000,`) {
		t.Errorf("the campaign after the job: %.300s", shown)
	}
}
