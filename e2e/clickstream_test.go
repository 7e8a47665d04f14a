package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/testengine"
)

// streamFleet is a control plane, nodes that redirect and know no ClickHouse, and workers that count what those send through Redis.
type streamFleet struct {
	t                *testing.T
	redis            *testengine.RedisServer
	common, counting []string // settings of all, and of those that know ClickHouse
	control          *api
	dir              string
	visitor          *http.Client
	link             madeLink
	made             int // clicks
}

func newStreamFleet(t *testing.T) *streamFleet {
	t.Helper()
	f := &streamFleet{t: t, redis: testengine.NewRedis(t), dir: t.TempDir()}
	f.common = append(append(onPostgres(newDatabase(t)), "TERSE_REDIS_URL="+f.redis.URL, fmt.Sprintf("TERSE_REDIS_PREFIX=e2e%x", rand.Uint64()), "TERSE_REDIS_CLICK_STREAMS=true",
		"TERSE_ANALYTICS_ENGINE=clickhouse"), quick...)
	f.counting = append(onClickHouse(newClickHouse(t)), f.common...)
	home := start(t, proc.Options{Env: append([]string{"TERSE_NODE_NAME=home", "TERSE_ROLE=control"}, f.counting...), NoWait: true})
	f.control = newAPI(t, home)
	until(t, 3*time.Minute, "the control plane answers", func() bool {
		got, err := f.control.do(t.Context(), "GET", "/readyz", nil)
		return err == nil && got.status == 200
	})
	f.visitor = &http.Client{Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(f.visitor.CloseIdleConnections)
	if got, err := f.control.json(t.Context(), "POST", "/api/v1/links", newLink{Destination: "https://example.com/stream"}, &f.link); err != nil || got.status != 201 {
		t.Fatalf("create: %v, %+v", err, got)
	}
	return f
}

// redirects starts a node that redirects, with the data of the one before of its name.
func (f *streamFleet) redirects(name string) *proc.Server {
	return start(f.t, proc.Options{
		Data: filepath.Join(f.dir, name), Env: append([]string{"TERSE_NODE_NAME=" + name, "TERSE_ROLE=redirect"}, f.common...), NoWait: true,
	})
}

// works starts a worker.
func (f *streamFleet) works() *proc.Server {
	return start(f.t, proc.Options{Env: append([]string{"TERSE_NODE_NAME=hand", "TERSE_ROLE=worker"}, f.counting...), NoWait: true})
}

// ask asks the redirect plane of a node. 0: it does not answer.
func (f *streamFleet) ask(s *proc.Server, path, host string) (status int, body string) {
	req, err := http.NewRequestWithContext(f.t.Context(), "GET", "http://"+s.RedirectAddr+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	req.Host = host
	req.Header.Set("User-Agent", agentPhone) // a person, always the same
	resp, err := f.visitor.Do(req)
	if err != nil {
		return 0, ""
	}
	b, _ := io.ReadAll(resp.Body) // the status is what matters
	_ = resp.Body.Close()
	return resp.StatusCode, string(b)
}

// visit clicks n times, and once more when the node begins to redirect.
func (f *streamFleet) visit(s *proc.Server, n int) {
	f.t.Helper()
	path := pathOf(f.link.ShortURL)
	host := strings.TrimSuffix(strings.TrimPrefix(f.link.ShortURL, "http://"), path)
	until(f.t, 3*time.Minute, "a node redirects", func() bool {
		status, _ := f.ask(s, path, host)
		if status == 302 {
			f.made++
		}
		return status == 302
	})
	for range n {
		if status, body := f.ask(s, path, host); status != 302 {
			f.t.Fatalf("a visit: %d %s", status, body)
		}
		f.made++
	}
}

// total returns how many clicks are counted; -1: nobody says.
func (f *streamFleet) total() int { return f.sum().Total }

// clickSums is what a summary says.
type clickSums struct {
	Total    int `json:"total"`
	Visitors int `json:"visitors"`
}

func (f *streamFleet) sum() (sum clickSums) {
	got, err := f.control.json(f.t.Context(), "GET", "/api/v1/analytics/summary?bots=include&link_id="+f.link.ID, nil, &sum)
	if err != nil || got.status != 200 {
		return clickSums{Total: -1}
	}
	return sum
}

// counted waits until every click is counted, and fails if one is twice.
func (f *streamFleet) counted() {
	f.t.Helper()
	until(f.t, 5*time.Minute, "every click is counted", func() bool {
		n := f.total()
		if n > f.made {
			f.t.Fatalf("%d clicks are counted, %d were made", n, f.made)
		}
		return n == f.made
	})
}

// TestClickStreams: two nodes that redirect and know no ClickHouse, two workers that are killed in turn, Redis emptied and full. Every click is
// counted once, and the one person who clicks is one visitor at both nodes.
func TestClickStreams(t *testing.T) {
	waits(t)
	day := time.Now().UTC().YearDay()
	f := newStreamFleet(t)
	east, west := f.redirects("east"), f.redirects("west")
	workers := []*proc.Server{f.works(), f.works()}
	f.visit(east, 100)
	f.visit(west, 50)
	f.counted()
	for round := range 4 {
		f.visit(east, 100)
		if err := workers[round%2].Kill(); err != nil {
			t.Fatal(err)
		}
		f.visit(west, 100)
		switch round {
		case 0, 2:
			f.redis.Do("FLUSHALL")
		case 1:
			f.redis.Do("CONFIG", "SET", "maxmemory", "1")
			f.visit(east, 100)
			until(t, 3*time.Minute, "a node says that its clicks wait", func() bool {
				_, body := f.ask(east, "/readyz", east.RedirectAddr)
				return strings.Contains(body, "sending_clicks")
			})
			f.redis.Do("CONFIG", "SET", "maxmemory", "0")
		case 3:
			if err := west.Stop(); err != nil {
				t.Fatal(err)
			}
			west = f.redirects("west")
			f.visit(west, 10)
		}
		workers[round%2] = f.works()
		f.visit(east, 50)
	}
	f.counted()
	if n := f.sum().Visitors; n != 1 && time.Now().UTC().YearDay() == day {
		t.Errorf("%d visitors, want 1", n)
	}
}

// countsClicks reports whether a worker says that it has the lock of who counts clicks.
func countsClicks(t *testing.T, worker *api) bool { return lockOfClicks(t, worker) == 1 }

// lockOfClicks is 1 if a worker has that lock, 0 if not, and -1 while it does not say.
func lockOfClicks(t *testing.T, worker *api) int {
	m, err := readMetrics(t.Context(), worker)
	if err != nil {
		return -1
	}
	return int(m[`terse_lock_held{lock="click-streams"}`])
}

// TestClickStreamsPaused: of two workers the one that counts is stopped for longer than its lock lives, in the middle of clicks, and goes on after
// the other has taken over; then the other way round. It counts no more and takes the lock from nobody, and in the end every click is counted once.
func TestClickStreamsPaused(t *testing.T) {
	waits(t)
	f := newStreamFleet(t)
	east := f.redirects("east")
	workers := []*api{newAPI(t, f.works()), newAPI(t, f.works())}
	f.visit(east, 50)
	f.counted()
	var paused *proc.Server
	goOn := func() {
		if paused != nil {
			if err := paused.Signal(syscall.SIGCONT); err != nil {
				t.Error(err)
			}
			paused = nil
		}
	}
	t.Cleanup(goOn) // or it cannot be ended in order
	for range 4 {
		holder := -1
		until(t, 3*time.Minute, "a worker counts", func() bool {
			holder = slices.IndexFunc(workers, func(w *api) bool { return countsClicks(t, w) })
			return holder >= 0
		})
		first, other := workers[holder], workers[1-holder]
		f.visit(east, 100)
		paused = first.s
		if err := paused.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		f.visit(east, 100)
		until(t, 3*time.Minute, "the other one takes over", func() bool { return countsClicks(t, other) })
		until(t, 3*time.Minute, "it counts all", func() bool { return f.total() >= f.made })
		f.visit(east, 100)
		goOn()
		f.visit(east, 100)
		until(t, 3*time.Minute, "the first learns that it counts no more", func() bool { return lockOfClicks(t, first) == 0 })
		if lockOfClicks(t, other) == 0 {
			t.Error("it took the lock from the one that has it")
		}
	}
	until(t, 3*time.Minute, "all are counted", func() bool { return f.total() >= f.made })
	for _, w := range workers {
		if err := w.s.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.total(); n > f.made {
		t.Logf("%d clicks were in an insert when their worker was stopped, and are written twice until the audit", n-f.made)
	}
	last := newAPI(t, f.works()) // its audit comes first
	until(t, 3*time.Minute, "a new worker counts", func() bool { return countsClicks(t, last) })
	until(t, 3*time.Minute, "every click is counted once", func() bool { return f.total() == f.made })
}
