package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/testengine"
)

// deafProxy stands between a node and Redis and loses every nth message that Redis passes on, heartbeats too. It
// knows the frames of the protocol, so that nothing else is lost.
type deafProxy struct {
	ln      net.Listener
	server  string
	nth     int64
	done    sync.WaitGroup
	seen    atomic.Int64
	dropped atomic.Int64
	mu      sync.Mutex
	conns   []net.Conn
}

func newDeafProxy(t *testing.T, address string, nth int64) (*deafProxy, string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &deafProxy{ln: ln, server: u.Host, nth: nth}
	p.done.Go(p.accept)
	t.Cleanup(func() {
		_ = ln.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.done.Wait()
	})
	u.Host = ln.Addr().String()
	return p, u.String()
}

func (p *deafProxy) accept() {
	for {
		client, err := p.ln.Accept()
		if err != nil {
			return
		}
		server, err := net.DialTimeout("tcp", p.server, time.Minute)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		p.done.Go(func() {
			_, _ = io.Copy(server, client) // until one side ends
			_ = server.Close()
		})
		p.done.Go(func() {
			p.pass(client, bufio.NewReader(server))
			_ = client.Close()
		})
	}
}

func (p *deafProxy) pass(to net.Conn, from *bufio.Reader) {
	for {
		frame, err := readFrame(nil, from)
		if err != nil {
			return
		}
		if frame[0] == '>' && bytes.Contains(frame, []byte("\r\nmessage\r\n")) && p.seen.Add(1)%p.nth == 0 {
			p.dropped.Add(1)
			continue
		}
		if _, err := to.Write(frame); err != nil {
			return
		}
	}
}

// readFrame appends one answer or push of the protocol (RESP2 and 3).
func readFrame(dst []byte, r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	dst = append(dst, line...)
	n, _ := strconv.Atoi(strings.TrimSpace(string(line[1:]))) // 0 where there is no number
	switch line[0] {
	case '$', '=', '!':
		if n < 0 {
			return dst, nil
		}
		body := make([]byte, n+2)
		if _, err := io.ReadFull(r, body); err != nil {
			return nil, err
		}
		return append(dst, body...), nil
	case '%', '|':
		n *= 2
	case '*', '>', '~':
	default:
		return dst, nil
	}
	for range n {
		if dst, err = readFrame(dst, r); err != nil {
			return nil, err
		}
	}
	return dst, nil
}

// cluster is some nodes on one database.
type cluster struct {
	nodes    []*proc.Server
	apis     []*api
	visitors []*visitor
}

// startCluster starts nodes on the store of env; the redis of each is at its own address.
func startCluster(t *testing.T, env []string, redis ...string) *cluster {
	t.Helper()
	c := &cluster{}
	c.add(t, env, redis...)
	return c
}

// add starts further nodes.
func (c *cluster) add(t *testing.T, store []string, redis ...string) {
	t.Helper()
	for _, address := range redis {
		env := append(slices.Clone(store), quick...)
		env = append(env, "TERSE_REDIS_URL="+address, "TERSE_REDIS_PREFIX="+strings.Trim(strings.ToLower(t.Name()), "/")+strconv.Itoa(os.Getpid()), "TERSE_ANALYTICS_ENABLED=false")
		s := start(t, proc.Options{Env: env})
		v := newVisitor(s)
		t.Cleanup(v.close)
		if len(c.nodes) > 0 {
			v.host = c.nodes[0].Host // the default domain is that of the first
		}
		c.nodes, c.apis, c.visitors = append(c.nodes, s), append(c.apis, newAPI(t, s)), append(c.visitors, v)
	}
}

// changing is something that visits show, and that is changed again and again.
type changing struct {
	what string
	path string // of the short link
	edit func(a *api, round int) error
	show func(round int) (status int, location string)
}

// make makes one of each kind at the first node.
func (c *cluster) make(t *testing.T) []changing {
	t.Helper()
	a := c.apis[0]
	link := func(in any) madeLink {
		t.Helper()
		var l madeLink
		if got, err := a.json(t.Context(), "POST", "/api/v1/links", in, &l); err != nil || got.status != 201 {
			t.Fatalf("create: %v, %+v", err, got)
		}
		return l
	}
	patch := func(path string, body func(round int) any) func(*api, int) error {
		return func(a *api, round int) error {
			got, err := a.json(t.Context(), "PATCH", path, body(round), nil)
			if err != nil {
				return err
			}
			if got.status != 200 {
				return fmt.Errorf("%d %s", got.status, got.body)
			}
			return nil
		}
	}
	to := func(kind string) func(int) (int, string) {
		return func(round int) (int, string) { return 302, fmt.Sprintf("https://example.com/%s/%d", kind, round) }
	}
	destination := func(kind string) func(int) any {
		return func(round int) any {
			_, d := to(kind)(round)
			return map[string]any{"destination": d}
		}
	}
	generated := link(newLink{Destination: "https://example.com/generated/0"})
	alias := link(newLink{Destination: "https://example.com/alias/0", Code: "alias-" + strconv.Itoa(os.Getpid())})
	switched := link(newLink{Destination: "https://example.com/on"})
	var campaign struct {
		ID string `json:"id"`
	}
	if got, err := a.json(t.Context(), "POST", "/api/v1/campaigns", map[string]any{"name": "c", "destination": "https://example.com/campaign/0?u={u}"}, &campaign); err != nil || got.status != 201 {
		t.Fatalf("create campaign: %v, %+v", err, got)
	}
	got, err := a.do(t.Context(), "POST", "/api/v1/campaigns/"+campaign.ID+"/links", strings.NewReader(`{"u":"7"}`+"\n"), "Content-Type", ndjsonType)
	if err != nil || got.status != 200 {
		t.Fatalf("add to campaign: %v, %+v", err, got)
	}
	var of madeLink
	row, _, _ := bytes.Cut(got.body, []byte("\n"))
	if err := json.Unmarshal(row, &of); err != nil {
		t.Fatalf("%s: %v", got.body, err)
	}
	return []changing{
		{"a destination", pathOf(generated.ShortURL), patch("/api/v1/links/"+generated.ID, destination("generated")), to("generated")},
		{"the destination of an alias", pathOf(alias.ShortURL), patch("/api/v1/links/"+alias.ID, destination("alias")), to("alias")},
		{"disabled or not", pathOf(switched.ShortURL), patch("/api/v1/links/"+switched.ID, func(round int) any {
			return map[string]any{"status": []string{"active", "disabled"}[round%2]}
		}), func(round int) (int, string) {
			if round%2 == 1 {
				return 410, ""
			}
			return 302, "https://example.com/on"
		}},
		{"a campaign", pathOf(of.ShortURL), patch("/api/v1/campaigns/"+campaign.ID, func(round int) any {
			return map[string]any{"destination": fmt.Sprintf("https://example.com/campaign/%d?u={u}", round)}
		}), func(round int) (int, string) { return 302, fmt.Sprintf("https://example.com/campaign/%d?u=7", round) }},
	}
}

// await visits until a node shows a round, and returns how long that took.
func (c *cluster) await(t *testing.T, node int, x *changing, round int) time.Duration {
	wantStatus, wantLocation := x.show(round)
	began := time.Now()
	for {
		status, location, err := c.visitors[node].visit("GET", x.path)
		if err == nil && status == wantStatus && location == wantLocation {
			return time.Since(began)
		}
		if time.Since(began) > 3*time.Minute {
			t.Errorf("%s, round %d, node %d: %d %q, %v; want %d %q", x.what, round, node, status, location, err, wantStatus, wantLocation)
			return time.Since(began)
		}
		<-time.After(time.Millisecond)
	}
}

// TestChangesEverywhere: three nodes on one database; what is changed at one of them is what all show, although every third
// message is lost. TERSE_CHANGES=1000 makes so many changes and holds each against the second that is promised.
func TestChangesEverywhere(t *testing.T) {
	rounds, strict := 40, false
	if s := os.Getenv("TERSE_CHANGES"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("TERSE_CHANGES=%q", s)
		}
		rounds, strict = n, true
	}
	redis := testengine.Address(t, testengine.Redis)
	var proxies []*deafProxy
	var addresses []string
	for range 3 {
		p, through := newDeafProxy(t, redis, 3)
		proxies, addresses = append(proxies, p), append(addresses, through)
	}
	c := startCluster(t, onPostgres(newDatabase(t)), addresses...)
	things := c.make(t)
	for i := range things {
		for n := range c.nodes {
			c.await(t, n, &things[i], 0)
		}
	}
	var took []time.Duration
	for round := 1; round <= rounds; round++ {
		x := &things[round%len(things)]
		if err := x.edit(c.apis[round%3], round/len(things)+1); err != nil {
			t.Fatalf("%s: %v", x.what, err)
		}
		slowest := make([]time.Duration, len(c.nodes))
		var wg sync.WaitGroup
		for n := range c.nodes {
			wg.Go(func() { slowest[n] = c.await(t, n, x, round/len(things)+1) })
		}
		wg.Wait()
		took = append(took, slices.Max(slowest))
		if t.Failed() {
			t.FailNow()
		}
	}
	slices.Sort(took)
	late := len(took) - len(slices.DeleteFunc(slices.Clone(took), func(d time.Duration) bool { return d > time.Second }))
	dropped, seen := int64(0), int64(0)
	for _, p := range proxies {
		dropped, seen = dropped+p.dropped.Load(), seen+p.seen.Load()
	}
	t.Logf("%d changes on 3 nodes, %d of %d messages lost: everywhere within p50 %v, p99 %v, max %v; %d after more than 1 s",
		rounds, dropped, seen, took[len(took)/2], took[len(took)*99/100], took[len(took)-1], late)
	if dropped == 0 {
		t.Error("no message was lost: the proxy does not do its work")
	}
	if strict && late > 0 {
		t.Errorf("%d of %d changes took more than a second", late, rounds)
	}
}

// TestChangesWithoutRedis: whatever happens to Redis, visits and writes go on, and two nodes follow each other.
func TestChangesWithoutRedis(t *testing.T) {
	waits(t)
	redis := testengine.NewRedis(t)
	store := onPostgres(newDatabase(t))
	c := startCluster(t, store, redis.URL, redis.URL)
	things := c.make(t)
	for i := range things {
		for n := range c.nodes {
			c.await(t, n, &things[i], 0)
		}
	}
	// Somebody visits all the time: not one visit may fail. A change makes the next visit ask the database, and one that a
	// busy machine holds up for longer than the redirect plane waits is 503: that is not Redis's doing.
	stop, stopped := make(chan struct{}), make(chan struct{})
	var visits, failures, busy atomic.Int64
	go func() {
		defer close(stopped)
		v := newVisitor(c.nodes[1])
		v.host = c.nodes[0].Host
		defer v.close()
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			visits.Add(1)
			switch status, location, err := v.visit("GET", things[0].path); {
			case err == nil && status == http.StatusServiceUnavailable:
				busy.Add(1)
			case err != nil || status != 302 || !strings.HasPrefix(location, "https://example.com/generated/"):
				failures.Add(1)
			}
		}
	}()
	round := 0
	rounds := make([]int, len(things)) // what each shows
	follow := func(what string) {
		t.Helper()
		round++
		for i := range 2 { // others each time
			x := &things[(2*round+i)%len(things)]
			rounds[(2*round+i)%len(things)] = round
			began := time.Now()
			if err := x.edit(c.apis[round%2], round); err != nil {
				t.Errorf("%s: change %s: %v", what, x.what, err)
			}
			wrote := time.Since(began)
			slowest := max(c.await(t, 0, x, round), c.await(t, 1, x, round))
			t.Logf("%s: %s: written in %v, everywhere %v later", what, x.what, wrote.Round(time.Millisecond), slowest.Round(time.Millisecond))
		}
	}
	ready := func(want string) {
		t.Helper()
		until(t, 3*time.Minute, "redis is "+want, func() bool {
			got, err := c.apis[0].do(t.Context(), "GET", "/readyz", nil)
			return err == nil && got.status == 200 && bytes.Contains(got.body, []byte("does not carry messages")) == (want == "away")
		})
	}
	ready("there")
	follow("redis is there")
	redis.Pause()
	follow("redis is silent")
	redis.Resume()
	ready("there")
	redis.Do("CONFIG", "SET", "maxmemory", "1")
	follow("redis is full")
	redis.Do("FLUSHALL")
	redis.Do("REPLICAOF", "127.0.0.1", "1")
	follow("redis is read-only")
	redis.Kill()
	ready("away")
	follow("redis is gone")
	c.add(t, store, redis.URL) // a node that starts meanwhile
	for i := range things {
		c.await(t, 2, &things[i], rounds[i])
	}
	redis.Start()
	ready("there")
	follow("redis is back, empty")
	close(stop)
	<-stopped
	t.Logf("%d visits, %d of them 503 after a change", visits.Load(), busy.Load())
	if failures.Load() > 0 {
		t.Errorf("%d of %d visits failed", failures.Load(), visits.Load())
	}
	if busy.Load() >= visits.Load()/2 {
		t.Errorf("%d of %d visits were 503", busy.Load(), visits.Load())
	}
}

// TestChangesDynamoDB: two nodes on one table follow each other.
func TestChangesDynamoDB(t *testing.T) {
	waits(t)
	redis := testengine.Address(t, testengine.Redis)
	c := startCluster(t, onDynamoDB(t), redis, redis)
	things := c.make(t)
	for round := range 3 {
		for i := range things {
			if round > 0 {
				if err := things[i].edit(c.apis[(round+i)%2], round); err != nil {
					t.Fatalf("%s: %v", things[i].what, err)
				}
			}
			t.Logf("%s: everywhere within %v", things[i].what, max(c.await(t, 0, &things[i], round), c.await(t, 1, &things[i], round)))
		}
	}
}

// TestClickLimitOnNodes: a link that allows so many clicks is visited at two nodes at once by many: it redirects exactly so
// many.
func TestClickLimitOnNodes(t *testing.T) {
	redis := testengine.Address(t, testengine.Redis)
	c := startCluster(t, onPostgres(newDatabase(t)), redis, redis)
	const limit, visitors = 60, 8
	var l madeLink
	if got, err := c.apis[0].json(t.Context(), "POST", "/api/v1/links", map[string]any{"destination": "https://example.com/limited", "max_clicks": limit}, &l); err != nil || got.status != 201 {
		t.Fatalf("create: %v, %+v", err, got)
	}
	var redirected, unknown atomic.Int64
	var wg sync.WaitGroup
	for i := range visitors {
		wg.Go(func() {
			v := newVisitor(c.nodes[i%2], "User-Agent", agentDesktop)
			v.host = c.nodes[0].Host
			defer v.close()
			for end := time.Now().Add(5 * time.Minute); ; {
				status, _, err := v.visit("GET", pathOf(l.ShortURL))
				switch {
				case err != nil || time.Now().After(end):
					t.Errorf("status %d, error %v", status, err)
					return
				case status == 302:
					redirected.Add(1)
				case status == 503: // it could not be found out in time
					unknown.Add(1)
				default: // none is left
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d redirects, %d times it was not known", redirected.Load(), unknown.Load())
	// A claim whose outcome is not known counts as used: visitors may be refused then, and never one too many let through.
	if got := redirected.Load(); got > limit || got < limit && unknown.Load() == 0 {
		t.Errorf("%d redirects of a link that allows %d", got, limit)
	}
}
