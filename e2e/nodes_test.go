package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/testengine"
)

// nodesOf returns the nodes that a server lists, by state and name.
func nodesOf(t *testing.T, c *client.Client) string {
	t.Helper()
	var list []string
	for n, err := range c.Nodes(t.Context()) {
		if err != nil {
			return err.Error()
		}
		list = append(list, fmt.Sprintf("%s %s %s", n.Name, n.State, strings.Join(n.Roles, "+")))
	}
	return strings.Join(list, ", ")
}

// onRedis names a Redis server of the tests, with channels of this test alone.
func onRedis(t *testing.T) []string {
	t.Helper()
	return []string{"TERSE_REDIS_URL=" + testengine.Address(t, testengine.Redis), fmt.Sprintf("TERSE_REDIS_PREFIX=e2e%x", rand.Uint64())}
}

// TestNodesEmbedded: the process of an embedded store shows itself.
func TestNodesEmbedded(t *testing.T) {
	s := start(t, proc.Options{Env: append([]string{"TERSE_NODE_NAME=alone"}, quick...)})
	if got := nodesOf(t, newClient(t, s)); got != "alone alive redirect+control+worker" {
		t.Errorf("nodes: %s", got)
	}
}

// TestRoles starts a node that only redirects and one that does the rest on one database. What is not of the role is not
// opened but for health and metrics; a link that one makes redirects at the other; who is killed is dead to the other.
func TestRoles(t *testing.T) {
	waits(t)
	env := append(append(onPostgres(newDatabase(t)), onRedis(t)...), quick...)
	env = append(env, "TERSE_ANALYTICS_ENABLED=false")
	main := start(t, proc.Options{Env: append([]string{"TERSE_NODE_NAME=main", "TERSE_ROLE=control,worker"}, env...), NoWait: true})
	c := newClient(t, main)
	until(t, 3*time.Minute, "the control plane answers", func() bool { return strings.HasPrefix(nodesOf(t, c), "main alive") })
	edge := start(t, proc.Options{Env: append([]string{"TERSE_NODE_NAME=edge", "TERSE_ROLE=redirect"}, env...), NoWait: true})
	visitor := &http.Client{Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(visitor.CloseIdleConnections)
	visit := func(path, host string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+edge.RedirectAddr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := visitor.Do(req)
		if err != nil {
			return 0, ""
		}
		_ = resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("Location")
	}
	until(t, 3*time.Minute, "the redirect plane is ready", func() bool { status, _ := visit("/readyz", edge.RedirectAddr); return status == 200 })
	until(t, 3*time.Minute, "both nodes are listed", func() bool {
		got := nodesOf(t, c)
		return strings.Contains(got, "main alive control+worker") && strings.Contains(got, "edge alive redirect")
	})
	hand := start(t, proc.Options{Env: append([]string{"TERSE_NODE_NAME=hand", "TERSE_ROLE=worker"}, env...), NoWait: true})
	checkSigns(t, edge)
	checkSigns(t, hand)
	for _, addr := range []string{main.RedirectAddr, hand.RedirectAddr} {
		if conn, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			_ = conn.Close()
			t.Errorf("%s is open", addr)
		}
	}
	l, err := c.CreateLink(t.Context(), client.NewLink{Destination: "https://example.com/roles"})
	if err != nil {
		t.Fatal(err)
	}
	host := main.Host
	until(t, 3*time.Minute, "a link that one node made redirects at the other", func() bool {
		status, to := visit(pathOf(l.ShortURL), host)
		return status == 302 && to == "https://example.com/roles"
	})
	if err := edge.Kill(); err != nil {
		t.Fatal(err)
	}
	until(t, 3*time.Minute, "the killed node is dead", func() bool { return strings.Contains(nodesOf(t, c), "edge dead") })
}

// checkSigns waits until a node without the API is ready, and checks what it answers to whom.
func checkSigns(t *testing.T, s *proc.Server) {
	t.Helper()
	a := newAPI(t, s)
	until(t, 3*time.Minute, "a node without the API is ready", func() bool {
		got, err := a.do(t.Context(), "GET", "/readyz", nil, "Authorization", "")
		return err == nil && got.status == 200 && strings.Contains(string(got.body), "store: ok\n")
	})
	for _, c := range []struct {
		path   string
		header []string
		status int
		want   string
	}{
		{"/healthz", []string{"Authorization", ""}, 200, "ok\n"},
		{"/metrics", []string{"Authorization", ""}, 200, "\nterse_node_heartbeat_failures_total "},
		{"/metrics", []string{"Authorization", "", "X-Forwarded-For", "192.0.2.1"}, 401, "unauthorized"},
		{"/metrics", []string{"X-Forwarded-For", "192.0.2.1"}, 200, "\nterse_node_heartbeat_failures_total "},
		{"/api/v1/links", nil, 404, "this node has no API"},
	} {
		got, err := a.do(t.Context(), "GET", c.path, nil, c.header...)
		if err != nil {
			t.Fatal(err)
		}
		if got.status != c.status || !strings.Contains(string(got.body), c.want) {
			t.Errorf("%s with %q: %d %.300s", c.path, c.header, got.status, got.body)
		}
	}
}

// TestFirstStartTogether starts two nodes at once on an empty database, with the same host and without a key that was chosen:
// both serve, under one default domain and one owner key.
func TestFirstStartTogether(t *testing.T) {
	waits(t)
	redis := testengine.Address(t, testengine.Redis)
	for round := range 3 {
		env := append(onPostgres(newDatabase(t)), quick...)
		env = append(env, "TERSE_REDIS_URL="+redis, "TERSE_ANALYTICS_ENABLED=false", "TERSE_BOOTSTRAP_KEY=")
		hosts := []string{"127.0.0.1", "127.0.0.2"}
		port, err := proc.FreePort(hosts...)
		if err != nil {
			t.Fatal(err)
		}
		nodes, errs := make([]*proc.Server, 2), make([]error, 2)
		data := []string{t.TempDir(), t.TempDir()}
		var wg sync.WaitGroup
		for i := range nodes {
			wg.Go(func() {
				nodes[i], errs[i] = proc.Start(t.Context(), proc.Options{Bin: bin, Data: data[i], RedirectAddr: net.JoinHostPort(hosts[i], port), Env: env})
			})
		}
		wg.Wait()
		keys := 0
		for i, n := range nodes {
			if errs[i] != nil {
				t.Errorf("round %d, node %d: %v", round, i, errs[i])
				continue
			}
			if b, err := os.ReadFile(filepath.Join(data[i], "owner.key")); err == nil && len(b) > 0 {
				keys++
			}
			if err := n.Stop(); err != nil {
				t.Errorf("round %d, node %d: stop: %v", round, i, err)
			}
		}
		if keys != 1 && !t.Failed() {
			t.Errorf("round %d: %d nodes say that they have the owner key", round, keys)
		}
	}
}

// TestDoctorNodes: the doctor tries where nodes say that they are to be reached, and says whose URL leads elsewhere.
func TestDoctorNodes(t *testing.T) {
	waits(t)
	env := append(append(onPostgres(newDatabase(t)), onRedis(t)...), "TERSE_ANALYTICS_ENABLED=false")
	begin := func(name, at string) (proc.Options, *proc.Server) {
		o := fixedAddrs(t, append([]string{"TERSE_NODE_NAME=" + name}, env...)...)
		if at == "" {
			at = "http://" + o.ControlAddr
		}
		o.Env, o.NoWait = append(o.Env, "TERSE_NODE_URL="+at), true
		return o, start(t, o)
	}
	right, east := begin("east", "")
	noted := func(o proc.Options) bool {
		_, err := os.Stat(filepath.Join(o.Data, config.ServerFile))
		return err == nil
	} // late in the start
	until(t, 3*time.Minute, "the first node is listed", func() bool { return strings.HasPrefix(nodesOf(t, newClient(t, east)), "east alive") })
	wrong, _ := begin("west", "http://"+right.ControlAddr)
	until(t, 3*time.Minute, "both nodes are listed", func() bool { return strings.Contains(nodesOf(t, newClient(t, east)), "west alive") })
	until(t, 3*time.Minute, "both nodes have started", func() bool { return noted(right) && noted(wrong) })
	doctor := func(o proc.Options) string {
		cmd := exec.CommandContext(t.Context(), bin, "doctor", "--data", o.Data)
		cmd.Env = append(append(proc.Environ(), o.Env...), "TERSE_CONTROL_ADDR="+o.ControlAddr, "TERSE_REDIRECT_ADDR="+o.RedirectAddr)
		out, _ := cmd.CombinedOutput() // it fails where something is wrong
		return string(out)
	}
	for what, c := range map[string]struct {
		o    proc.Options
		want []string
		not  string
	}{
		"a node with the right URL": {right, []string{"node_url ok", "node west problem http://" + right.ControlAddr + " leads to another node"}, "node east"},
		"a node with a wrong URL":   {wrong, []string{"node_url problem http://" + right.ControlAddr + " leads to another node", "node east ok"}, "node west"},
	} {
		got := doctor(c.o)
		for _, want := range c.want {
			if !strings.Contains(strings.Join(strings.Fields(got), " "), want) {
				t.Errorf("%s: no %q in\n%s", what, want, got)
			}
		}
		if strings.Contains(got, c.not) {
			t.Errorf("%s: the node itself is listed again\n%s", what, got)
		}
	}
}
