package app

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/config"
)

// running is a server in this process.
type running struct {
	t    *testing.T
	cfg  *config.Config
	stop context.CancelFunc
	done chan error
}

const testKey = "app-test-owner-key-0123456789abcdefghij"

// serve runs a server on free ports without an analytics process.
func serve(t *testing.T, flags map[string]string) *running {
	t.Helper()
	all := map[string]string{
		"bootstrap_key": testKey, "analytics.enabled": "false", "redirect.drain_wait": "0s", "shutdown_timeout": "1m",
	}
	for k, v := range flags {
		all[k] = v
	}
	l, err := config.Load(config.Sources{Flags: all})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	r := &running{t: t, cfg: l.Config, stop: stop, done: make(chan error, 1)}
	go func() {
		r.done <- Run(ctx, r.cfg, Options{Version: "test", Stdout: io.Discard, Log: slog.New(slog.DiscardHandler)})
	}()
	return r
}

// end stops the server in order.
func (r *running) end() {
	r.t.Helper()
	r.stop()
	select {
	case err := <-r.done:
		if err != nil {
			r.t.Fatalf("Run: %v", err)
		}
	case <-time.After(5 * time.Minute):
		r.t.Fatal("an orderly stop takes for ever")
	}
}

// ask sends a request to one of the planes, again while nobody listens.
func (r *running) ask(method, addr, host, path, body string) (status int, location, answer string) {
	r.t.Helper()
	client := &http.Client{
		Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	end := time.NewTimer(3 * time.Minute)
	defer end.Stop()
	for {
		req, err := http.NewRequestWithContext(r.t.Context(), method, "http://"+addr+path, strings.NewReader(body))
		if err != nil {
			r.t.Fatal(err)
		}
		req.Host = host
		req.Header.Set("Authorization", "Bearer "+testKey)
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err == nil {
			b, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil {
				r.t.Fatal(err)
			}
			return resp.StatusCode, resp.Header.Get("Location"), string(b)
		}
		select {
		case <-end.C:
			r.t.Fatalf("nobody answers: %v", err)
		case err := <-r.done:
			r.t.Fatalf("the server ended: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// until waits for a plane to be ready, or to be what it is meant to be.
func (r *running) until(what string, f func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for !f() {
		if time.Now().After(deadline) {
			r.t.Fatalf("not within three minutes: %s", what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// freeAddr returns an address that nobody listened on a moment ago, below the ports of outgoing connections.
func freeAddr(t *testing.T) string {
	t.Helper()
	addr, err := proc.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// deadServer returns the address of a server that ends every connection at once.
func deadServer(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	})
	t.Cleanup(func() { _ = ln.Close(); done.Wait() })
	return ln.Addr().String()
}

// TestServeKept: what a server with one store kept on its disk serves visitors of the next start, whose database never
// answers. Nothing is read from a store, and it stops in order all the same. e2e has the same with a database
// that comes back.
func TestServeKept(t *testing.T) {
	t.Parallel()
	flags := map[string]string{"data": t.TempDir(), "redirect_addr": freeAddr(t), "control_addr": freeAddr(t), "geo.city_mmdb": "../geo/data/country.mmdb"}
	r := serve(t, flags)
	host := strings.Replace(flags["redirect_addr"], "127.0.0.1", "localhost", 1)
	visit := func(host, path string) (int, string) {
		t.Helper()
		status, location, _ := r.ask("GET", flags["redirect_addr"], host, path, "")
		return status, location
	}
	r.until("the control plane serves", func() bool {
		status, _, _ := r.ask("GET", flags["control_addr"], "", "/readyz", "")
		return status == 200
	})
	for _, body := range []string{`{"destination":"https://example.com/warm","code":"warm"}`, `{"destination":"https://example.com/cold","code":"cold"}`} {
		if status, _, answer := r.ask("POST", flags["control_addr"], "", "/api/v1/links", body); status != 201 {
			t.Fatalf("create: %d %s", status, answer)
		}
	}
	r.until("the link redirects", func() bool {
		status, to := visit(host, "/warm")
		return status == 302 && to == "https://example.com/warm"
	})
	r.end()

	flags["store.engine"], flags["store.postgres.url"] = "postgres", "postgres://nobody@"+deadServer(t)+"/none"
	r = serve(t, flags)
	r.until("the warm link redirects", func() bool { status, _ := visit(host, "/warm"); return status == 302 })
	for _, c := range []struct {
		host, path string
		status     int
		location   string
	}{
		{host, "/warm", 302, "https://example.com/warm"}, {"127.0.0.1:" + host[strings.IndexByte(host, ':')+1:], "/warm", 302, "https://example.com/warm"},
		{host, "/cold", 503, ""}, {host, "/nobody", 503, ""}, {"other.example.com", "/x", 503, ""}, {host, "/_/whoami?ticket=x", 404, ""},
	} {
		if status, to := visit(c.host, c.path); status != c.status || to != c.location {
			t.Errorf("%s%s: %d to %q, want %d to %q", c.host, c.path, status, to, c.status, c.location)
		}
	}
	if status, _, answer := r.ask("GET", flags["redirect_addr"], flags["redirect_addr"], "/readyz", ""); status != 200 || !strings.Contains(answer, "store: degraded (the database has not answered since the start)") {
		t.Errorf("/readyz of the redirect plane: %d\n%s", status, answer)
	}
	if status, _, answer := r.ask("GET", flags["control_addr"], "", "/readyz", ""); status != 503 || !strings.Contains(answer, "redirect: ok") || !strings.Contains(answer, "store: down") {
		t.Errorf("/readyz of the control plane: %d\n%s", status, answer)
	}
	if status, _, answer := r.ask("GET", flags["control_addr"], "", "/api/v1/links", ""); status != 503 || !strings.Contains(answer, `"code":"unavailable"`) {
		t.Errorf("the API: %d %s", status, answer)
	}
	r.end()

	// Turned off, or with nothing on the disk, both planes say that the server is not ready.
	flags["cache.warm_bytes"] = "0"
	r = serve(t, flags)
	r.until("the redirect plane answers", func() bool { status, _ := visit(host, "/warm"); return status == 503 })
	if status, _, answer := r.ask("GET", flags["redirect_addr"], host, "/readyz", ""); status != 503 || !strings.Contains(answer, "redirect: down") {
		t.Errorf("/readyz without anything kept: %d\n%s", status, answer)
	}
	r.end()
}
