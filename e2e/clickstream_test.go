package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/testengine"
)

// TestClickStreams: two nodes that redirect and know no ClickHouse, two workers that are killed in turn, Redis emptied and full. Every click is
// counted once.
func TestClickStreams(t *testing.T) {
	waits(t)
	redis := testengine.NewRedis(t)
	common := append(append(onPostgres(newDatabase(t)), "TERSE_REDIS_URL="+redis.URL, fmt.Sprintf("TERSE_REDIS_PREFIX=e2e%x", rand.Uint64()), "TERSE_REDIS_CLICK_STREAMS=true",
		"TERSE_ANALYTICS_ENGINE=clickhouse"), quick...)
	counting := append(onClickHouse(newClickHouse(t)), common...)
	home := start(t, proc.Options{Env: append([]string{"TERSE_NODE_NAME=home", "TERSE_ROLE=control"}, counting...), NoWait: true})
	a := newAPI(t, home)
	until(t, 3*time.Minute, "the control plane answers", func() bool {
		got, err := a.do(t.Context(), "GET", "/readyz", nil)
		return err == nil && got.status == 200
	})
	redirects := func(data, name string) *proc.Server {
		return start(t, proc.Options{Data: data, Env: append([]string{"TERSE_NODE_NAME=" + name, "TERSE_ROLE=redirect"}, common...), NoWait: true})
	}
	works := func() *proc.Server {
		return start(t, proc.Options{Env: append([]string{"TERSE_NODE_NAME=hand", "TERSE_ROLE=worker"}, counting...), NoWait: true})
	}
	dir := t.TempDir()
	east, west := redirects(filepath.Join(dir, "east"), "east"), redirects(filepath.Join(dir, "west"), "west")
	workers := []*proc.Server{works(), works()}

	var l madeLink
	if got, err := a.json(t.Context(), "POST", "/api/v1/links", newLink{Destination: "https://example.com/stream"}, &l); err != nil || got.status != 201 {
		t.Fatalf("create: %v, %+v", err, got)
	}
	visitor := &http.Client{Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(visitor.CloseIdleConnections)
	ask := func(s *proc.Server, path, host string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+s.RedirectAddr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := visitor.Do(req)
		if err != nil {
			return 0, ""
		}
		body, _ := io.ReadAll(resp.Body) // the status is what matters
		_ = resp.Body.Close()
		return resp.StatusCode, string(body)
	}
	host := strings.TrimSuffix(strings.TrimPrefix(l.ShortURL, "http://"), pathOf(l.ShortURL))
	made := 0
	visit := func(s *proc.Server, n int) {
		t.Helper()
		until(t, 3*time.Minute, "a node redirects", func() bool {
			status, _ := ask(s, pathOf(l.ShortURL), host)
			if status == 302 {
				made++
			}
			return status == 302
		})
		for range n {
			if status, body := ask(s, pathOf(l.ShortURL), host); status != 302 {
				t.Fatalf("a visit: %d %s", status, body)
			}
			made++
		}
	}
	var sum struct {
		Total int `json:"total"`
	}
	counted := func() {
		t.Helper()
		until(t, 5*time.Minute, "every click is counted", func() bool {
			sum.Total = 0
			got, err := a.json(t.Context(), "GET", "/api/v1/analytics/summary?bots=include&link_id="+l.ID, nil, &sum)
			if err == nil && got.status == 200 && sum.Total > made {
				t.Fatalf("%d clicks are counted, %d were made", sum.Total, made)
			}
			return err == nil && got.status == 200 && sum.Total == made
		})
	}
	visit(east, 100)
	visit(west, 50)
	counted()
	for round := range 4 {
		visit(east, 100)
		if err := workers[round%2].Kill(); err != nil {
			t.Fatal(err)
		}
		visit(west, 100)
		switch round {
		case 0, 2:
			redis.Do("FLUSHALL")
		case 1:
			redis.Do("CONFIG", "SET", "maxmemory", "1")
			visit(east, 100)
			until(t, 3*time.Minute, "a node says that its clicks wait", func() bool {
				_, body := ask(east, "/readyz", east.RedirectAddr)
				return strings.Contains(body, "sending_clicks")
			})
			redis.Do("CONFIG", "SET", "maxmemory", "0")
		case 3:
			if err := west.Stop(); err != nil {
				t.Fatal(err)
			}
			west = redirects(filepath.Join(dir, "west"), "west")
			visit(west, 10)
		}
		workers[round%2] = works()
		visit(east, 50)
	}
	counted()
}
