package e2e

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/testengine"
)

// liveView is what a node has shown so far.
type liveView struct {
	clicks, total atomic.Int64 // shown, and counted
	nodes         atomic.Int64 // of the last second
	whole         atomic.Bool  // the last second was
}

// watchLive watches a node until the test ends.
func watchLive(t *testing.T, s *proc.Server) *liveView {
	t.Helper()
	v, c := new(liveView), newClient(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.LiveClicks(ctx, client.Query{}, "", func(ev client.LiveEvent) bool { // ends with ctx
			switch {
			case ev.Click != nil:
				v.clicks.Add(1)
			case ev.Counters != nil:
				v.total.Add(ev.Counters.Total)
				v.nodes.Store(int64(ev.Counters.Nodes))
				v.whole.Store(!ev.Counters.Partial)
			}
			return true
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return v
}

// TestLiveOverNodes: a control plane that records no clicks, and each of two nodes that do, show the clicks of both, those of an edge
// of one of them too; with Redis away each shows its own and says so.
func TestLiveOverNodes(t *testing.T) {
	redis := testengine.NewRedis(t)
	env := append(append(onPostgres(newDatabase(t)), "TERSE_REDIS_URL="+redis.URL, "TERSE_ANALYTICS_ENABLED=false"), quick...)
	node := func(name, role string) *proc.Server {
		o := fixedAddrs(t, append([]string{"TERSE_NODE_NAME=" + name, "TERSE_ROLE=" + role}, env...)...)
		o.NoWait = true
		return start(t, o)
	}
	home := node("home", "control,worker")
	a := newAPI(t, home)
	until(t, 3*time.Minute, "the control plane answers", func() bool {
		got, err := a.do(t.Context(), "GET", "/readyz", nil)
		return err == nil && got.status == 200
	})
	east, west := node("east", "redirect,control"), node("west", "redirect,control")
	l, err := newClient(t, home).CreateLink(t.Context(), client.NewLink{Destination: "https://example.com/live"})
	if err != nil {
		t.Fatal(err)
	}
	host := strings.TrimSuffix(strings.TrimPrefix(l.ShortURL, "http://"), pathOf(l.ShortURL))
	visit := func(s *proc.Server) {
		t.Helper()
		v := newVisitor(s, "User-Agent", agentDesktop)
		defer v.close()
		v.host = host
		until(t, 3*time.Minute, "a node redirects", func() bool {
			status, _, err := v.visit("GET", pathOf(l.ShortURL))
			return err == nil && status == 302
		})
	}
	for _, s := range []*proc.Server{east, west} {
		visit(s)
		a := newAPI(t, s)
		until(t, 3*time.Minute, "a node answers", func() bool {
			got, err := a.do(t.Context(), "GET", "/readyz", nil)
			return err == nil && got.status == 200
		})
	}
	eo := edgeOptions(t, east)
	out := start(t, eo)
	visit(out)
	until(t, time.Minute, "the click of the edge is there", func() bool {
		m, err := readClickMetrics(t.Context(), newAPI(t, out))
		return err == nil && m.settled() && m.captured > 0 && edgeArrived(t, east, eo.Data)
	})
	views := map[string]*liveView{"home": watchLive(t, home), "east": watchLive(t, east), "west": watchLive(t, west)}
	both := func() {
		t.Helper()
		for name, v := range views {
			until(t, time.Minute, name+" sees both nodes", func() bool { return v.nodes.Load() == 2 && v.whole.Load() })
		}
	}
	both()
	before := map[string]int64{}
	for name, v := range views {
		before[name] = v.total.Load()
	}
	for _, s := range []*proc.Server{east, west, west, out, out, out} {
		visit(s)
	}
	for name, v := range views {
		until(t, time.Minute, name+" shows the clicks of all", func() bool { return v.total.Load() == before[name]+6 && v.clicks.Load() >= 6 })
	}
	redis.Pause()
	for name, n := range map[string]int64{"home": 0, "east": 1, "west": 1} {
		until(t, time.Minute, name+" is alone", func() bool { return views[name].nodes.Load() == n && !views[name].whole.Load() })
	}
	began := views["west"].total.Load()
	visit(west)
	until(t, time.Minute, "a node shows its own clicks", func() bool { return views["west"].total.Load() == began+1 })
	redis.Resume()
	both()
	if n, ok := metrics(t, west)[`terse_live_letters_refused_total{what="letter"}`]; !ok || n != 0 {
		t.Errorf("%v letters were refused", n)
	}
}
