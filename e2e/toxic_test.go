package e2e

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/testengine"
)

// toxicProxy is a toxiproxy between a server and one of its engines.
type toxicProxy struct {
	name  string
	proxy *toxiproxy.Proxy
}

// newToxicProxy starts a proxy before the server of an address and returns the address through it.
func newToxicProxy(t *testing.T, name, address string) (*toxicProxy, string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := toxiproxy.NewProxy(server, name, "127.0.0.1:0", u.Host)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	u.Host = p.Listen
	return &toxicProxy{name, p}, u.String()
}

// ail makes connections ill, those that are open too, until heal.
func (p *toxicProxy) ail(t *testing.T, toxics ...string) {
	t.Helper()
	for _, toxic := range toxics {
		if _, err := p.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			t.Fatalf("%s: %v", toxic, err)
		}
	}
}

func (p *toxicProxy) heal() { p.proxy.Toxics.ResetToxics(context.Background()) }

// ailments are what connections suffer from.
var ailments = []struct {
	name   string
	toxics []string
}{
	{"slow", []string{
		`{"type":"latency","stream":"downstream","attributes":{"latency":300,"jitter":200}}`,
	}},
	{"half-open", []string{ // what is sent is lost, and nobody says so
		`{"type":"timeout","stream":"upstream","attributes":{"timeout":0}}`,
		`{"type":"timeout","stream":"downstream","attributes":{"timeout":0}}`,
	}},
	{"deaf", []string{ // what is sent arrives and is done, and the answers are lost
		`{"type":"timeout","stream":"downstream","attributes":{"timeout":0}}`,
	}},
	{"reset", []string{ // with the first answer on each connection
		`{"type":"reset_peer","stream":"downstream","attributes":{"timeout":20}}`,
	}},
	{"cut-in-the-middle", []string{
		`{"type":"limit_data","stream":"upstream","attributes":{"bytes":900}}`,
	}},
	{"narrow", []string{
		`{"type":"bandwidth","stream":"upstream","attributes":{"rate":20}}`,
		`{"type":"slicer","stream":"downstream","attributes":{"average_size":64,"size_variation":32,"delay":2000}}`,
	}},
}

// ward is a server whose engines are behind toxic proxies, and what it is known to have.
type ward struct {
	t       *testing.T
	s       *proc.Server
	a       *api
	warm    []madeLink
	visits  atomic.Int64 // that were sent on
	mu      sync.Mutex   // guards tickets
	tickets []*ticket
}

// ticket is a creation that was asked for and that may have to be asked for again.
type ticket struct {
	path        string
	body        string
	contentType string
	key         string
	answer      string // of the attempt that succeeded; "": none did
}

const wardWarm = 20

func newWard(t *testing.T, env []string) *ward {
	t.Helper()
	w := &ward{t: t, s: start(t, proc.Options{Env: append(env, quick...)})}
	w.a = newAPI(t, w.s)
	w.a.http.Timeout = 2 * time.Minute // far beyond every deadline of the server: who waits so long was forgotten
	w.warm = w.links("warm", wardWarm)
	v := newVisitor(w.s, "User-Agent", agentDesktop)
	defer v.close()
	for i := range w.warm {
		until(t, 5*time.Minute, "a link is in memory", func() bool { return w.visit(v, w.warm[i], destination("warm", i)) == 302 })
	}
	return w
}

func destination(name string, i int) string { return fmt.Sprintf("https://example.com/%s/%d", name, i) }

// links makes links that nobody has visited.
func (w *ward) links(name string, count int) (made []madeLink) {
	w.t.Helper()
	for i := range count {
		var l madeLink
		got, err := w.a.json(w.t.Context(), "POST", "/api/v1/links", newLink{Destination: destination(name, i)}, &l)
		if err != nil || got.status != 201 {
			w.t.Fatalf("create: %v, %+v", err, got)
		}
		made = append(made, l)
	}
	return made
}

// visit visits a link and counts. It returns the status; anything but the link's own destination and 503 is an error.
func (w *ward) visit(v *visitor, l madeLink, to string) int {
	status, location, err := v.visit("GET", pathOf(l.ShortURL))
	switch {
	case err == nil && status == 302 && location == to:
		w.visits.Add(1)
	case err == nil && status == 503:
	default:
		w.t.Errorf("visit of %s: %d to %q, %v; want %q", l.ShortURL, status, location, err, to)
	}
	return status
}

// ask tries a creation once. An error that says that it was not, or not certainly done is fine.
func (w *ward) ask(k *ticket) {
	got, err := w.a.do(w.t.Context(), "POST", k.path, strings.NewReader(k.body), "Content-Type", k.contentType, "Idempotency-Key", k.key)
	switch {
	case err != nil:
		w.t.Errorf("POST %s: no answer: %v", k.path, err)
	case got.status == 201 || got.status == 200:
		if k.answer == "" && !strings.Contains(string(got.body), `"code":"unavailable"`) && !strings.Contains(string(got.body), `"code":"unknown_outcome"`) {
			k.answer = string(got.body)
		}
	case got.status != 503 && got.status != 409 && got.status != 429: // 409: the attempt before is still under way
		w.t.Errorf("POST %s: %d %s", k.path, got.status, got.body)
	}
}

// strain uses everything while something is ill: visitors all the time, and each kind of request a few times. It ends when
// those have been answered.
func (w *ward) strain(name string, cold []madeLink) {
	done := make(chan struct{})
	var visitors, callers sync.WaitGroup
	for n := range 2 {
		visitors.Go(func() {
			v := newVisitor(w.s, "User-Agent", agentDesktop)
			defer v.close()
			for i := n; ; i += 2 {
				select {
				case <-done:
					return
				case <-time.After(time.Millisecond):
				}
				if status := w.visit(v, w.warm[i%wardWarm], destination("warm", i%wardWarm)); status != 302 {
					w.t.Errorf("%s: a link in memory: %d", name, status)
					return
				}
			}
		})
	}
	for i, l := range cold {
		callers.Go(func() {
			v := newVisitor(w.s, "User-Agent", agentDesktop)
			defer v.close()
			w.visit(v, l, destination(name, i))
			if status, _, err := v.visit("GET", fmt.Sprintf("/nobody-%d", i)); err != nil || status != 404 && status != 503 {
				w.t.Errorf("%s: a code of nobody: %d, %v", name, status, err)
			}
		})
	}
	for i := range 8 {
		callers.Go(func() {
			k := &ticket{path: "/api/v1/links", contentType: jsonType, key: fmt.Sprintf("%s %d", name, i), body: fmt.Sprintf(`{"destination":"https://example.com/one/%s/%d"}`, name, i)}
			w.ask(k)
			w.mu.Lock()
			w.tickets = append(w.tickets, k)
			w.mu.Unlock()
		})
	}
	callers.Go(func() {
		var rows strings.Builder
		for i := range 200 {
			fmt.Fprintf(&rows, `{"destination":"https://example.com/many/%s/%d"}`+"\n", name, i)
		}
		k := &ticket{path: "/api/v1/links/bulk", contentType: ndjsonType, key: name + " bulk", body: rows.String()}
		w.ask(k)
		w.mu.Lock()
		w.tickets = append(w.tickets, k)
		w.mu.Unlock()
	})
	for _, path := range []string{"/api/v1/links?limit=5", "/api/v1/analytics/summary?bots=include", "/readyz"} {
		callers.Go(func() {
			got, err := w.a.do(w.t.Context(), "GET", path, nil)
			if err != nil || got.status != 200 && got.status != 503 && got.status != 504 {
				w.t.Errorf("%s: GET %s: %v, %+v", name, path, err, got)
			}
		})
	}
	callers.Wait()
	close(done)
	visitors.Wait()
}

// recover waits until everything is as before: nothing is waited for, links are found, what was asked for is there. It returns
// the size of the server then.
func (w *ward) recover(name string, cold []madeLink, before size) size {
	w.t.Helper()
	until(w.t, 5*time.Minute, name+": the server says that all is well", func() bool {
		got, err := w.a.do(w.t.Context(), "GET", "/readyz", nil)
		return err == nil && got.status == 200 && !strings.Contains(string(got.body), "store: degraded") && !strings.Contains(string(got.body), "changes: degraded")
	})
	v := newVisitor(w.s, "User-Agent", agentDesktop)
	defer v.close()
	for i, l := range cold {
		until(w.t, 5*time.Minute, name+": a cold link redirects", func() bool {
			status := w.visit(v, l, destination(name, i))
			if status == 404 {
				w.t.FailNow()
			}
			return status == 302
		})
	}
	for _, k := range w.tickets {
		before := k.answer
		if before != "" { // the same answer again
			k.answer = ""
		}
		until(w.t, 5*time.Minute, name+": "+k.key+" is made", func() bool { w.ask(k); return w.t.Failed() || k.answer != "" })
		if before != "" && k.answer != before {
			w.t.Errorf("%s: %s was answered with %s, and later with %s", name, k.key, before, k.answer)
		}
	}
	w.a.http.CloseIdleConnections()
	var now size
	until(w.t, 5*time.Minute, fmt.Sprintf("%s: the server is of the size that it had, %v", name, before), func() bool {
		var err error
		now, err = w.size()
		return err == nil && now.goroutines <= before.goroutines+sizeSlack && now.files <= before.files+sizeSlack
	})
	return now
}

// size is what piles up in a server when something is forgotten.
type size struct{ goroutines, files int }

// sizeSlack is how many goroutines and files a server may have more than at first, however many ailments it has had: pools
// keep some connections. What piles up is at least one for every request, of hundreds.
const sizeSlack = 40

// size asks the server for its size.
func (w *ward) size() (size, error) {
	m, err := readMetrics(w.t.Context(), w.a)
	return size{int(m["go_goroutines"]), int(m["process_open_fds"])}, err
}

// endure has each of the engines suffer from each ailment in turn.
func (w *ward) endure(proxies ...*toxicProxy) {
	cold := w.links("healthy", 5)
	w.strain("healthy", cold) // opens the connections that pools keep
	w.a.http.CloseIdleConnections()
	var before size
	until(w.t, 5*time.Minute, "the server says what it has", func() (ok bool) {
		var err error
		before, err = w.size()
		return err == nil
	})
	for _, p := range proxies {
		for _, ill := range ailments {
			name := p.name + "-" + ill.name
			cold := w.links(name, 5)
			began := time.Now()
			p.ail(w.t, ill.toxics...)
			w.tickets = nil
			w.strain(name, cold)
			strained := time.Since(began)
			p.heal()
			done := 0
			for _, k := range w.tickets {
				if k.answer != "" {
					done++
				}
			}
			now := w.recover(name, cold, before)
			w.t.Logf("%s: all answered within %v, %d of %d creations done; as before %v later: of size %v, at first %v", name, strained.Round(time.Millisecond), done, len(w.tickets), (time.Since(began) - strained).Round(time.Millisecond), now, before)
			if w.t.Failed() {
				w.t.FailNow()
			}
		}
	}
	w.once()
}

// once checks that no link was made twice, whatever became of the answers.
func (w *ward) once() {
	seen := map[string]bool{}
	for cursor := ""; ; {
		var page struct {
			Data []struct {
				Destination string `json:"destination"`
			} `json:"data"`
			NextCursor *string `json:"next_cursor"`
		}
		if got, err := w.a.json(w.t.Context(), "GET", "/api/v1/links?limit=1000&cursor="+cursor, nil, &page); err != nil || got.status != 200 {
			w.t.Fatalf("list: %v, %+v", err, got)
		}
		for _, l := range page.Data {
			if seen[l.Destination] {
				w.t.Errorf("%s was made twice", l.Destination)
			}
			seen[l.Destination] = true
		}
		if page.NextCursor == nil {
			break
		}
		cursor = *page.NextCursor
	}
	if len(seen) < wardWarm+len(ailments)*200 {
		w.t.Errorf("%d links are listed", len(seen))
	}
}

// TestToxicConnections has the connections to PostgreSQL, Redis and ClickHouse suffer in turn from what networks do. Links in
// memory redirect without one failure, all others are right or 503, every request is answered, nothing piles up, nothing
// is lost or made twice, and it ends by itself.
func TestToxicConnections(t *testing.T) {
	waits(t)
	postgres, store := newToxicProxy(t, "postgres", newDatabase(t))
	redis, bus := newToxicProxy(t, "redis", testengine.Address(t, testengine.Redis))
	clickhouse, engine := newToxicProxy(t, "clickhouse", newClickHouse(t))
	w := newWard(t, slices.Concat(onPostgres(store), onClickHouse(engine), []string{"TERSE_REDIS_URL=" + bus, "TERSE_REDIS_LINK_CACHE=true", "TERSE_REDIS_PREFIX=" + strings.ToLower(t.Name())}))
	w.endure(postgres, redis, clickhouse)
	var sum struct {
		Total int64 `json:"total"`
	}
	until(t, 5*time.Minute, "every click is counted", func() bool {
		got, err := w.a.json(t.Context(), "GET", "/api/v1/analytics/summary?bots=include&period=24h", nil, &sum)
		if err == nil && got.status == 200 && sum.Total > w.visits.Load() {
			t.Fatalf("%d clicks counted of %d", sum.Total, w.visits.Load())
		}
		return err == nil && got.status == 200 && sum.Total == w.visits.Load()
	})
	t.Logf("%d visits, each counted once", w.visits.Load())
}

// TestToxicDynamoDB is TestToxicConnections for the connections to DynamoDB.
func TestToxicDynamoDB(t *testing.T) {
	waits(t)
	env := onDynamoDB(t)
	var dynamodb *toxicProxy
	for i, kv := range env {
		if address, ok := strings.CutPrefix(kv, "TERSE_STORE_DYNAMODB_ENDPOINT="); ok {
			dynamodb, address = newToxicProxy(t, "dynamodb", address)
			env[i] = "TERSE_STORE_DYNAMODB_ENDPOINT=" + address
		}
	}
	w := newWard(t, append(env, "TERSE_ANALYTICS_ENABLED=false"))
	w.endure(dynamodb)
}
