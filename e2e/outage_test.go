package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/testengine"
)

// engineSet is some engines of a test's own, which may be halted.
type engineSet struct {
	t     *testing.T
	dir   string
	names []string
}

// oneEngineSet lets one test at a time have engines of its own: tests that wait run at once, and several sets would be more
// servers than a small machine takes, and might be given the ports of engines that are halted. TestOutage and its like so run
// behind each other, each for as long as its engines are away (a few minutes, or TERSE_OUTAGE_MINUTES).
var oneEngineSet = make(chan struct{}, 1)

// newEngineSet waits until no other test has any, starts engines and returns their addresses by the name of their variable.
func newEngineSet(t *testing.T, names ...string) (*engineSet, map[string]string) {
	t.Helper()
	for _, name := range names { // where there are no engines there is nothing to do
		testengine.Address(t, "TERSE_TEST_"+strings.ToUpper(name))
	}
	oneEngineSet <- struct{}{}
	t.Cleanup(func() { <-oneEngineSet }) // after the set was stopped
	base, err := os.MkdirTemp("", "terse-engines-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(base, 0o711); err != nil { // engines may run as another user
		t.Fatal(err)
	}
	e := &engineSet{t: t, dir: filepath.Join(base, "engines"), names: names}
	t.Cleanup(func() {
		if out, err := e.script(context.Background(), "stop"); err != nil {
			t.Errorf("stop engines: %v\n%s", err, out)
		}
		if err := os.RemoveAll(base); err != nil {
			t.Error(err)
		}
	})
	e.do("start")
	out, err := e.script(t.Context(), "env")
	if err != nil {
		t.Fatalf("addresses of engines: %v\n%s", err, out)
	}
	addresses := map[string]string{}
	for line := range strings.Lines(out) {
		name, address, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "export ")), "=")
		addresses[name] = address
	}
	return e, addresses
}

func (e *engineSet) script(ctx context.Context, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute) // each engine may take three to end
	defer cancel()
	cmd := exec.CommandContext(ctx, "../scripts/engines", append([]string{command}, e.names...)...)
	cmd.Env = append(os.Environ(), "ENGINES_DIR="+e.dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (e *engineSet) do(command string) {
	e.t.Helper()
	if out, err := e.script(e.t.Context(), command); err != nil {
		e.t.Fatalf("engines %s: %v\n%s", command, err, out)
	}
}

// crowd visits the links of one node all the time and keeps count of the answers.
type crowd struct {
	links  []madeLink
	prefix string
	sent   []atomic.Int64 // redirects, by link
	lost   []atomic.Int64 // visits without an answer, by link: nobody knows whether they count
	strict atomic.Bool    // whatever is no redirect is a failure
	failed atomic.Int64
	stop   chan struct{}
	done   sync.WaitGroup
}

const crowdLinks, crowdVisitors = 20, 3

func newCrowd(t *testing.T, n *outageNode, name string) *crowd {
	c := &crowd{prefix: name, sent: make([]atomic.Int64, crowdLinks), lost: make([]atomic.Int64, crowdLinks), stop: make(chan struct{})}
	for i := range crowdLinks {
		var l madeLink
		if got, err := n.a.json(t.Context(), "POST", "/api/v1/links", newLink{Destination: destination(name, i)}, &l); err != nil || got.status != 201 {
			t.Fatalf("create: %v, %+v", err, got)
		}
		c.links = append(c.links, l)
	}
	return c
}

// visit visits a link once.
func (c *crowd) visit(t *testing.T, v *visitor, i int) int {
	status, location, err := v.visit("GET", pathOf(c.links[i].ShortURL))
	switch {
	case err != nil:
		if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "dial" {
			c.lost[i].Add(1)
		}
	case status == 302 && location == destination(c.prefix, i):
		c.sent[i].Add(1)
		return status
	case status != 503: // never another answer, whatever happens
		t.Errorf("%s %d: %d to %q", c.prefix, i, status, location)
	}
	if c.strict.Load() {
		if c.failed.Add(1) == 1 {
			t.Errorf("%s %d: %d, %v", c.prefix, i, status, err)
		}
	}
	return status
}

// begin has visitors come to a node; they go on when it is started again where it was.
func (c *crowd) begin(t *testing.T, n *outageNode) {
	c.strict.Store(true)
	for w := range crowdVisitors {
		c.done.Go(func() {
			v := newVisitor(n.s, "User-Agent", agentDesktop)
			v.host = n.host
			defer v.close()
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for i := w; ; i++ {
				select {
				case <-c.stop:
					return
				case <-tick.C:
				}
				c.visit(t, v, i%crowdLinks)
			}
		})
	}
}

func (c *crowd) total() (n int64) {
	for i := range c.sent {
		n += c.sent[i].Load()
	}
	return n
}

// more waits for further redirects.
func (c *crowd) more(t *testing.T, n int64) {
	t.Helper()
	want := c.total() + n
	until(t, 5*time.Minute, "visitors are redirected", func() bool { return c.total() >= want })
}

// outageNode is a node, its data folder and the crowd that visits it.
type outageNode struct {
	warmStart
	o     proc.Options
	host  string
	crowd *crowd
}

// TestOutage stops PostgreSQL, Redis and ClickHouse while two nodes are visited: the links in memory redirect without one
// failure, one node is started again meanwhile and serves, and afterwards every click is there once.
// TERSE_OUTAGE_MINUTES=10 makes it last so long, instead of ten seconds.
func TestOutage(t *testing.T) {
	waits(t)
	engines, at := newEngineSet(t, "postgres", "redis", "clickhouse")
	env := slices.Concat(onPostgres(at[testengine.Postgres]), []string{"TERSE_REDIS_URL=" + at[testengine.Redis]}, onClickHouse(strings.TrimSuffix(at[testengine.ClickHouse], "/default")+"/terse"))
	outage(t, env, func() { engines.do("halt") }, func() { engines.do("again") })
}

// TestOutageDynamoDB is TestOutage with the links in DynamoDB, which is out of reach; it is in memory here, so that it may not
// be stopped.
func TestOutageDynamoDB(t *testing.T) {
	waits(t)
	engines, at := newEngineSet(t, "redis", "clickhouse")
	env := onDynamoDB(t)
	var proxy *testengine.Proxy
	for i, kv := range env {
		if address, ok := strings.CutPrefix(kv, "TERSE_STORE_DYNAMODB_ENDPOINT="); ok {
			proxy, address = testengine.NewProxy(t, address)
			env[i] = "TERSE_STORE_DYNAMODB_ENDPOINT=" + address
		}
	}
	env = slices.Concat(env, []string{"TERSE_REDIS_URL=" + at[testengine.Redis]}, onClickHouse(strings.TrimSuffix(at[testengine.ClickHouse], "/default")+"/terse"))
	outage(t, env, func() { proxy.Refuse(); engines.do("halt") }, func() { engines.do("again"); proxy.Pass() })
}

func outage(t *testing.T, env []string, halt, again func()) {
	lasts := 10 * time.Second
	if s := os.Getenv("TERSE_OUTAGE_MINUTES"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("TERSE_OUTAGE_MINUTES=%q", s)
		}
		lasts = time.Duration(n) * time.Minute
	}
	nodes := make([]*outageNode, 2)
	for i := range nodes {
		n := &outageNode{warmStart: warmStart{t: t, visitor: &http.Client{Timeout: 30 * time.Second}}, o: proc.Options{Bin: bin, Data: t.TempDir(), Env: append(slices.Clone(env), quick...)}}
		n.start(n.o)
		n.o.RedirectAddr, n.o.ControlAddr = n.s.RedirectAddr, n.s.ControlAddr
		nodes[i] = n
	}
	stays, restarts := nodes[0], nodes[1]
	for i, n := range nodes {
		n.host = stays.s.Host // the default domain is that of the first
		n.crowd = newCrowd(t, n, fmt.Sprintf("outage-%d", i))
		n.serves("before the outage")
	}
	end := sync.OnceFunc(func() {
		for _, n := range nodes {
			close(n.crowd.stop)
			n.crowd.done.Wait()
		}
	})
	defer end()

	restarts.stop() // it keeps what is hot
	restarts.start(restarts.o)
	for _, n := range nodes {
		n.serves("before the outage")
		n.crowd.begin(t, n)
		n.crowd.more(t, 300)
	}

	began := time.Now()
	halt()
	over := time.After(lasts)
	before := stays.crowd.total()
	stays.crowd.more(t, 300)
	if got, err := stays.a.do(t.Context(), "POST", "/api/v1/links", strings.NewReader(`{"destination":"https://example.com/"}`)); err != nil || got.status != 503 || got.header.Get("Retry-After") == "" {
		t.Errorf("a creation during the outage: %v, %+v; want 503", err, got)
	}
	restarts.crowd.strict.Store(false)
	restarts.stop()
	away := time.Now()
	restarts.o.NoWait = true
	restarts.start(restarts.o)
	restarts.serves("started during the outage")
	back := time.Since(away)
	restarts.crowd.strict.Store(true)
	restarts.crowd.more(t, 300)
	<-over
	during := stays.crowd.total() - before
	again()
	lasted := time.Since(began)
	for _, n := range nodes {
		until(t, 5*time.Minute, "a node is well again", func() bool {
			status, body := n.readyz(n.o.ControlAddr)
			return status == 200 && strings.Contains(body, "store: ok") && strings.Contains(body, "changes: ok")
		})
		n.crowd.more(t, 300)
	}
	recovered := time.Since(began) - lasted
	end()

	for _, n := range nodes {
		c := n.crowd
		lost := int64(0)
		for i := range c.links {
			low, high := c.sent[i].Load(), c.sent[i].Load()+c.lost[i].Load()
			lost += c.lost[i].Load()
			until(t, 5*time.Minute, fmt.Sprintf("%s %d: %d to %d clicks are counted", c.prefix, i, low, high), func() bool {
				var sum struct {
					Total int64 `json:"total"`
				}
				got, err := stays.a.json(t.Context(), "GET", "/api/v1/analytics/summary?bots=include&period=24h&link_id="+c.links[i].ID, nil, &sum)
				if err == nil && got.status == 200 && sum.Total > high {
					t.Fatalf("%s %d: %d clicks are counted, at most %d were made", c.prefix, i, sum.Total, high)
				}
				return err == nil && got.status == 200 && sum.Total >= low
			})
		}
		t.Logf("%s: %d redirects, %d failures, %d visits without an answer while it was down; every click is counted", c.prefix, c.total(), c.failed.Load(), lost)
	}
	t.Logf("outage of %v: %d redirects at the node that stayed; the other one served %v after its start; all well %v after the end", lasted.Round(time.Second), during, back.Round(time.Millisecond), recovered.Round(time.Millisecond))
}

// serves waits until every link of the node's crowd redirects.
func (n *outageNode) serves(when string) {
	n.t.Helper()
	v := newVisitor(n.s, "User-Agent", agentDesktop)
	v.host = n.host
	defer v.close()
	for i := range n.crowd.links {
		until(n.t, 5*time.Minute, fmt.Sprintf("%s %d redirects %s", n.crowd.prefix, i, when), func() bool { return n.crowd.visit(n.t, v, i) == 302 })
	}
}
