package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/testengine"
)

// newDatabase makes a database on the test server and returns its address.
func newDatabase(t *testing.T) string {
	t.Helper()
	server := testengine.Address(t, testengine.Postgres)
	name := fmt.Sprintf("terse_e2e_%x", rand.Uint64())
	exec := func(sql string) {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		conn, err := pgx.Connect(ctx, server)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	exec("create database " + name)
	t.Cleanup(func() { exec("drop database if exists " + name + " with (force)") })
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

func onPostgres(address string) []string {
	return []string{"TERSE_STORE_ENGINE=postgres", "TERSE_STORE_POSTGRES_URL=" + address}
}

// TestCrashPostgres is TestCrash with the links in PostgreSQL.
func TestCrashPostgres(t *testing.T) {
	kills := 8
	if testing.Short() {
		kills = 3
	}
	runCrash(t, kills, onPostgres(newDatabase(t))...)
}

// TestPostgresSecondNode checks that a database is used by one node.
func TestPostgresSecondNode(t *testing.T) {
	env := append(onPostgres(newDatabase(t)), quick...)
	start(t, proc.Options{Env: env})
	_, err := proc.Start(t.Context(), proc.Options{Bin: bin, Data: t.TempDir(), Env: env})
	if err == nil || !strings.Contains(err.Error(), "another node uses this database") {
		t.Fatalf("a second node: %v", err)
	}
}

// TestPostgresAway takes the database away from a server under load: stopped, and silent. What is in memory
// redirects without one failure, what is not is 503 and never 404, writes are 503, nothing hangs and nothing piles up, and
// it ends by itself.
func TestPostgresAway(t *testing.T) {
	proxy, through := testengine.NewProxy(t, newDatabase(t))
	env := append(onPostgres(through), quick...)
	o := proc.Options{Data: t.TempDir(), Env: env}
	first := start(t, o)
	a := newAPI(t, first)
	const warm, cold = 40, 60
	var paths, destinations []string
	for i := range warm + cold {
		var l madeLink
		d := fmt.Sprintf("https://example.com/away/%d", i)
		if got, err := a.json(t.Context(), "POST", "/api/v1/links", newLink{Destination: d}, &l); err != nil || got.status != 201 {
			t.Fatalf("create: %v, %+v", err, got)
		}
		paths, destinations = append(paths, pathOf(l.ShortURL)), append(destinations, d)
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}

	// A start while the database is away: the process lives and is not ready.
	proxy.Refuse()
	o.NoWait, o.Bin = true, bin
	o.RedirectAddr, o.ControlAddr = first.RedirectAddr, first.ControlAddr
	s, err := proc.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("stop: %v\n%s", err, s.Log())
		}
	})
	a.s = s
	visitor := &http.Client{Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	visitor.Transport = &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(visitor.CloseIdleConnections)
	visit := func(i int) (status int, location string) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+s.RedirectAddr+paths[i], nil)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		req.Host = s.Host
		resp, err := visitor.Do(req) // one that hangs ends with an error
		if err != nil {
			return 0, err.Error()
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("Location")
	}
	until(t, 3*time.Minute, "the waiting server answers", func() bool {
		got, err := a.do(t.Context(), "GET", "/livez", nil)
		return err == nil && got.status == 204
	})
	if got, err := a.do(t.Context(), "GET", "/readyz", nil); err != nil || got.status != 503 || got.header.Get("Retry-After") == "" {
		t.Fatalf("/readyz while the database is away at start: %v, %+v", err, got)
	}
	if status, _ := visit(0); status != 503 {
		t.Fatalf("a visit while the database is away at start: %d, want 503", status)
	}
	proxy.Pass()
	ready := func() bool {
		got, err := a.do(t.Context(), "GET", "/readyz", nil)
		return err == nil && got.status == 200 && !strings.Contains(string(got.body), "store: degraded")
	}
	until(t, 3*time.Minute, "the server starts once the database answers", ready)

	goroutines := func() int {
		got, err := a.do(t.Context(), "GET", "/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`(?m)^go_goroutines (\d+)`).FindSubmatch(got.body)
		if m == nil {
			t.Fatalf("no go_goroutines in /metrics: status %d", got.status)
		}
		n, err := strconv.Atoi(string(m[1]))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	// asked visits a link until the database, on a busy machine, has said where it leads.
	asked := func(i int) {
		t.Helper()
		until(t, 3*time.Minute, paths[i]+" is known", func() bool {
			status, location := visit(i)
			if status != 503 && (status != 302 || location != destinations[i]) {
				t.Fatalf("visit of %s: %d to %q", paths[i], status, location)
			}
			return status == 302
		})
	}
	for i := range warm {
		asked(i)
	}
	next := warm // the first cold link that was never asked for
	for _, mode := range []struct {
		name  string
		begin func()
	}{{"stopped", proxy.Refuse}, {"silent", proxy.Hold}} {
		t.Run(mode.name, func(t *testing.T) {
			before := goroutines()
			mode.begin()
			var wg sync.WaitGroup
			var mu sync.Mutex
			var took []time.Duration // of visits of links that are not in memory
			end := time.Now().Add(2 * time.Second)
			for w := range 4 {
				wg.Go(func() {
					for i := w; time.Now().Before(end); i++ {
						if status, location := visit(i % warm); status != 302 || location != destinations[i%warm] {
							t.Errorf("visit of a link in memory: %d to %q", status, location)
							return
						}
					}
				})
				wg.Go(func() {
					// At least eight each, so that a pause of the machine, which is long for the four under way, is no median.
					for i := w; i < 8*4 || time.Now().Before(end); i += 4 {
						began := time.Now()
						if status, _ := visit(next + i%30); status != 503 {
							t.Errorf("visit of a link that is not in memory: %d, want 503", status)
							return
						}
						mu.Lock()
						took = append(took, time.Since(began))
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			slices.Sort(took)
			if len(took) > 0 && took[len(took)/2] > 5*time.Second {
				t.Errorf("half of %d visits of links that are not in memory took more than %v", len(took), took[len(took)/2])
			}
			until(t, 3*time.Minute, "/readyz says that the store is degraded", func() bool {
				if status, _ := visit(next); status != 503 { // somebody has to ask the database
					t.Fatalf("visit of a link that is not in memory: %d, want 503", status)
				}
				got, err := a.do(t.Context(), "GET", "/readyz", nil)
				return err == nil && got.status == 200 && strings.Contains(string(got.body), "store: degraded")
			})
			if mode.name == "stopped" { // the silent one would take its time
				var l madeLink
				got, err := a.json(t.Context(), "POST", "/api/v1/links", newLink{Destination: "https://example.com/", Code: "made-while-away"}, &l)
				if err != nil || got.status != 503 {
					t.Errorf("a creation: %v, %+v; want 503", err, got)
				}
			}
			if after := goroutines(); after > before+150 {
				t.Errorf("%d goroutines before, %d after two seconds without the database", before, after)
			}
			proxy.Pass()
			proxy.Drop()
			until(t, 3*time.Minute, "the server is ready again", ready)
			for i := next; i < next+30; i++ {
				asked(i)
			}
			next += 30
		})
	}
}
