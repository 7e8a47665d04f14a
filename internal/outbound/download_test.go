package outbound

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse"
)

func TestDownload(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	var other string
	stalled := make(chan struct{})
	s, port := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		switch r.URL.Path {
		case "/data":
			w.Write(data)
		case "/there":
			http.Redirect(w, r, "/data", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/inside":
			http.Redirect(w, r, "http://169.254.169.254/latest", http.StatusFound)
		case "/file":
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		case "/away":
			http.Redirect(w, r, other+"/who", http.StatusFound)
		case "/who":
			w.Write([]byte(user + ":" + password))
		case "/cut":
			w.Header().Set("Content-Length", "1000")
			w.Write(data[:10])
		case "/chunked":
			w.(http.Flusher).Flush()
			w.Write(data)
		case "/stalled":
			w.(http.Flusher).Flush()
			<-stalled
		default:
			http.NotFound(w, r)
		}
	})
	t.Cleanup(func() { close(stalled) }) // before the server closes, which waits for the handler
	other = strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
	c := New(Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Ports: []uint16{port, 80}})
	withUser := strings.Replace(s.URL, "http://", "http://me:secret@", 1)
	for _, tt := range []struct {
		url  string
		want string // of the answer
		err  string
		code terse.Code
	}{
		{url: s.URL + "/data", want: string(data)},
		{url: s.URL + "/there", want: string(data)},
		{url: withUser + "/who", want: "me:secret"},
		{url: s.URL + "/none", err: "404 Not Found", code: terse.CodeUnavailable},
		{url: s.URL + "/loop", err: "more than 5 times", code: terse.CodeUnavailable},
		{url: s.URL + "/inside", err: "not a public one", code: terse.CodeInvalid},
		{url: s.URL + "/file", err: "not an absolute URL", code: terse.CodeInvalid},
		{url: s.URL + "/cut", err: "broke off", code: terse.CodeUnavailable},
		{url: s.URL + "/chunked?key=hidden", want: string(data)},
		{url: "http://127.0.0.1:1/?key=hidden", err: "port 1 is not allowed", code: terse.CodeInvalid},
		{url: "::", err: "not an absolute URL", code: terse.CodeInvalid},
	} {
		var b bytes.Buffer
		var done, total int64
		err := c.Download(t.Context(), tt.url, &b, DownloadOptions{MaxBytes: 1 << 20, Progress: func(d, t int64) { done, total = d, t }})
		if tt.err == "" {
			if err != nil || b.String() != tt.want || done != int64(len(tt.want)) || total != done && total != -1 {
				t.Errorf("%s: %v, %d bytes, progress %d of %d", tt.url, err, b.Len(), done, total)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.err) || terse.ErrorCode(err) != tt.code || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v, want %q", tt.url, err, tt.err)
		}
	}
	// The password stays at the host it is for.
	var b bytes.Buffer
	if err := c.Download(t.Context(), withUser+"/away", &b, DownloadOptions{MaxBytes: 100}); err != nil || b.String() != ":" {
		t.Errorf("another host was told %q, %v", b.String(), err)
	}
	for _, path := range []string{"/data", "/chunked"} {
		b.Reset()
		if err := c.Download(t.Context(), s.URL+path, &b, DownloadOptions{MaxBytes: 1000}); terse.ErrorCode(err) != terse.CodeTooLarge || b.Len() > 1000 {
			t.Errorf("%s: %v, %d bytes", path, err, b.Len())
		}
	}
	if err := c.Download(t.Context(), s.URL+"/stalled", &b, DownloadOptions{MaxBytes: 1000, Stall: time.Millisecond}); err == nil || !strings.Contains(err.Error(), "nothing came") {
		t.Errorf("stalled: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Download(ctx, s.URL+"/data", &b, DownloadOptions{MaxBytes: 1000}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := New(Options{Ports: []uint16{port}}).Download(t.Context(), s.URL+"/data", &b, DownloadOptions{MaxBytes: 1000}); terse.ErrorCode(err) != terse.CodeInvalid {
		t.Errorf("loopback was reached: %v", err)
	}
}
