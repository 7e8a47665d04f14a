package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse/e2e/proc"
)

const (
	// clicksBound is how long before a kill a click may have been answered and be lost, if processors and disk are not late
	// (docs/durability.md).
	clicksBound = 10 * time.Millisecond

	busyTries = 60 // a second apart, of a request that a slow database could not answer
)

// TestCrash kills a server again and again while it takes bulk streams, atomic bulk requests,
// single creations with and without an alias, updates, deletions and redirects, at random
// moments and right after an answer was read. After every start, what it has acknowledged is
// held against the ledger.
//
// A row of a bulk stream that was not answered may exist; if it does, it is whole.
func TestCrash(t *testing.T) {
	kills := 25 // TestTorture has as many
	if testing.Short() {
		kills = 10
	}
	runCrash(t, kills)
}

// runCrash is TestCrash on a server with further variables.
func runCrash(t *testing.T, kills int, env ...string) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := newCrash(t, seed, env...)
	c.networked = len(env) > 0
	c.prepare()
	slowest := time.Duration(0)
	for n := range kills {
		c.round(n)
		began := time.Now()
		c.server = start(t, c.options)
		slowest = max(slowest, time.Since(began))
		c.api.s = c.server
		c.check(n, c.ledger.takeFresh())
		if len(c.ledger.faults) > 0 || t.Failed() {
			break
		}
	}
	c.check(kills, c.ledger.all())
	c.checkClicks()
	if !c.networked && c.shares.tooMany() {
		t.Errorf("%d of %d visits were answered with 503", c.shares.late, c.shares.visits)
	}
	for _, f := range c.ledger.faults {
		t.Error(f)
	}
	t.Logf("%d of %d visits were answered with 503", c.shares.late, c.shares.visits)
	t.Logf("%d kills, %d of them right after an answer; %d links acknowledged, %d atomic requests cut (%d of them applied), %d creations repeated, slowest start %v",
		kills, c.prompt, len(c.ledger.entries), c.atomicCut, c.atomicApplied, c.repeated, slowest.Round(time.Millisecond))
}

// crash is the state of the test.
type crash struct {
	t       *testing.T
	seed    uint64
	options proc.Options
	server  *proc.Server
	api     *api
	ledger  *ledger
	// networked: the links are in a database of its own.
	networked bool
	serial    atomic.Uint64 // makes destinations and aliases distinct
	visiting  sync.RWMutex  // read by who visits, written by who must see no visit under way

	stable  []*clickLedger // of the links that are visited
	paths   []string       // of stable
	ids     []string       // of stable
	mutable [][]*entry     // links that are updated and deleted, by worker

	mu        sync.Mutex
	cut       []atomicRequest // whose answer did not come
	retries   []creation      // whose answer did not come
	inStreams []aliasRow      // of bulk streams, not answered
	shares    unavailable     // of visits

	prompt, atomicCut, atomicApplied, repeated int
}

type atomicRequest struct{ aliases, destinations []string }

type creation struct{ key, alias, destination string }

type aliasRow struct{ path, destination string }

const (
	visitedLinks = 24
	editors      = 2
	creators     = 3
	streams      = 2
	visitors     = 2
)

func newCrash(t *testing.T, seed uint64, env ...string) *crash {
	redirectAddr, err := proc.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	controlAddr, err := proc.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	c := &crash{t: t, seed: seed, ledger: newLedger()}
	// The same addresses every time: clients keep knocking while the server is down.
	c.options = proc.Options{Data: filepath.Join(t.TempDir(), "data"), RedirectAddr: redirectAddr, ControlAddr: controlAddr, Env: append(env, quick...)}
	c.server = start(t, c.options)
	c.api = newAPI(t, c.server)
	c.api.http.Timeout = 0 // streams last as long as the server
	return c
}

func (c *crash) destination(kind string) string {
	return "https://shop.example.com/" + kind + "/" + strconv.FormatUint(c.serial.Add(1), 10) + "?utm_source=sms"
}

// newLink is what the test sends to make a link.
type newLink struct {
	Destination string `json:"destination"`
	Code        string `json:"code,omitzero"`
	ExternalID  string `json:"external_id,omitzero"`
}

// madeLink is what matters of the answer.
type madeLink struct {
	ID       string `json:"id"`
	ShortURL string `json:"short_url"`
	Version  int    `json:"version"`
}

func (c *crash) prepare() {
	make1 := func(kind string) (madeLink, string) {
		var l madeLink
		d := c.destination(kind)
		if got, err := c.api.json(c.t.Context(), "POST", "/api/v1/links", newLink{Destination: d}, &l); err != nil || got.status != 201 {
			c.t.Fatalf("create: %v, %+v", err, got)
		}
		return l, d
	}
	for range visitedLinks {
		l, _ := make1("visited")
		c.stable = append(c.stable, &clickLedger{})
		c.paths = append(c.paths, pathOf(l.ShortURL))
		c.ids = append(c.ids, l.ID)
	}
	c.mutable = make([][]*entry, editors)
	for w := range editors {
		for range 20 {
			l, d := make1("edited")
			c.mutable[w] = append(c.mutable[w], c.ledger.created(pathOf(l.ShortURL), l.ID, d))
		}
	}
}

// round lets clients loose on the server and kills it.
func (c *crash) round(n int) {
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	r := rand.New(rand.NewPCG(c.seed, uint64(n)))
	children := proc.Children(c.server.PID())
	killed := make(chan struct{})
	var once sync.Once
	kill := func() {
		once.Do(func() {
			if err := c.server.Kill(); err != nil {
				c.t.Errorf("kill %d: %v\n%s", n, err, c.server.Log())
			}
			close(killed)
		})
	}
	if n%2 == 1 {
		c.prompt++
		c.ledger.after(1+r.IntN(12_000), kill)
	}
	var wg sync.WaitGroup
	worker := func(f func(context.Context, *rand.Rand, int), count int) {
		for i := range count {
			wr := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
			wg.Go(func() { f(ctx, wr, i) })
		}
	}
	worker(c.stream, streams)
	worker(c.atomic, 1)
	worker(c.create, creators)
	worker(c.edit, editors)
	worker(c.visit, visitors)
	secured := make(chan struct{}) // closed once clicks are known to be written
	wg.Go(func() { c.secure(ctx, secured) })

	limit := time.NewTimer(3 * time.Second) // if the acks do not get there
	defer limit.Stop()
	if n%2 == 0 {
		// Not before there is a click that the kill must not lose.
		select {
		case <-secured:
		case <-time.After(5 * time.Minute):
			c.t.Errorf("kill %d: no click is written within five minutes", n)
		}
		limit.Reset(time.Duration(100+r.IntN(600)) * time.Millisecond)
	}
	select {
	case <-limit.C:
		kill()
		<-killed
	case <-killed:
	}
	cancel()
	c.api.http.CloseIdleConnections()
	wg.Wait()
	for _, l := range c.stable {
		l.killed()
	}
	// The analytics process must not outlive its server, or the next one finds the files taken.
	for _, pid := range children {
		until(c.t, time.Minute, fmt.Sprintf("child %d of the killed server ends", pid), func() bool { return !proc.Alive(pid) })
	}
}

// stream sends bulk requests whose rows come in bursts, and notes every result as it is read.
// Every 40th row has an alias, so that its path is known without an answer.
func (c *crash) stream(ctx context.Context, r *rand.Rand, _ int) {
	for ctx.Err() == nil {
		c.streamOnce(ctx, r)
	}
}

func (c *crash) streamOnce(ctx context.Context, r *rand.Rand) {
	var mu sync.Mutex
	var rows []newLink // sent
	body, w := io.Pipe()
	seed1, seed2, bursts := r.Uint64(), r.Uint64(), 1+r.IntN(40)
	var wg sync.WaitGroup
	wg.Go(func() {
		r := rand.New(rand.NewPCG(seed1, seed2))
		for range bursts {
			var buf []byte
			mu.Lock()
			for range 1 + r.IntN(700) {
				n := newLink{Destination: c.destination("bulk"), ExternalID: "r-" + strconv.Itoa(len(rows))}
				if len(rows)%40 == 0 {
					n.Code = "bulk-" + strconv.FormatUint(c.serial.Add(1), 10)
				}
				rows = append(rows, n)
				buf = append(mustJSON(buf, n), '\n')
			}
			mu.Unlock()
			if _, err := w.Write(buf); err != nil {
				return
			}
			if !pause(ctx, time.Duration(r.IntN(20))*time.Millisecond) {
				break
			}
		}
		_ = w.Close() // never fails
	})
	defer func() {
		_ = body.CloseWithError(io.ErrClosedPipe) // ends the writer
		wg.Wait()
	}()
	answered := 0
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, n := range rows[min(answered, len(rows)):] {
			if n.Code != "" {
				c.inStreams = append(c.inStreams, aliasRow{"/" + n.Code, n.Destination})
			}
		}
	}()
	req, err := http.NewRequestWithContext(ctx, "POST", c.server.URL("/api/v1/links/bulk"), body)
	if err != nil {
		c.ledger.fault("bulk: %v", err)
		return
	}
	req.Header.Set("Authorization", "Bearer "+proc.Key)
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := c.api.http.Do(req)
	if err != nil {
		pause(ctx, 5*time.Millisecond)
		return // the server is down
	}
	defer func() { _ = resp.Body.Close() }()
	if c.busy(resp.StatusCode) {
		pause(ctx, 5*time.Millisecond)
		return
	}
	if resp.StatusCode != 200 {
		c.ledger.fault("bulk: status %d", resp.StatusCode)
		return
	}
	lines := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return // cut: the rest is not acknowledged
		}
		var res struct {
			Index    int    `json:"index"`
			Done     bool   `json:"done"`
			ShortURL string `json:"short_url"`
			ID       string `json:"id"`
			External string `json:"external_id"`
			Error    struct {
				Code string `json:"code"`
			} `json:"error"`
		}
		if err := json.Unmarshal(line, &res); err != nil {
			c.ledger.fault("bulk: result %q: %v", line, err)
			return
		}
		if res.Done {
			return
		}
		if c.networked && (res.Error.Code == "unavailable" || res.Error.Code == "unknown_outcome") {
			return // the database was too slow: this row and the rest are not acknowledged
		}
		mu.Lock()
		if res.Index != answered || answered >= len(rows) || res.ShortURL == "" || res.External != rows[answered].ExternalID {
			mu.Unlock()
			c.ledger.fault("bulk: result %q where row %d was due", line, answered)
			return
		}
		n := rows[answered]
		answered++
		mu.Unlock()
		c.ledger.created(pathOf(res.ShortURL), res.ID, n.Destination)
	}
}

// atomic sends bulk requests that are all or nothing, of rows with an alias.
func (c *crash) atomic(ctx context.Context, r *rand.Rand, _ int) {
	for ctx.Err() == nil {
		var a atomicRequest
		var body strings.Builder
		for range []int{2, 300, 3000}[r.IntN(3)] {
			n := newLink{Destination: c.destination("atomic"), Code: "atomic-" + strconv.FormatUint(c.serial.Add(1), 10)}
			a.aliases = append(a.aliases, "/"+n.Code)
			a.destinations = append(a.destinations, n.Destination)
			body.Write(append(mustJSON(nil, n), '\n'))
		}
		got, err := c.api.do(ctx, "POST", "/api/v1/links/bulk?atomic=true", strings.NewReader(body.String()), "Content-Type", "application/x-ndjson")
		switch {
		case err != nil || c.busy(got.status):
			c.mu.Lock()
			c.cut = append(c.cut, a)
			c.mu.Unlock()
			pause(ctx, 5*time.Millisecond)
			continue
		case got.status != 200 || !strings.Contains(string(got.body), `"done":true,"created":`+strconv.Itoa(len(a.aliases))):
			c.ledger.fault("atomic bulk: status %d, %.300s", got.status, got.body)
			return
		}
		for i, path := range a.aliases {
			c.ledger.created(path, "", a.destinations[i])
		}
		pause(ctx, time.Duration(r.IntN(20))*time.Millisecond)
	}
}

// create makes links one by one, half of them with an alias.
func (c *crash) create(ctx context.Context, r *rand.Rand, _ int) {
	for ctx.Err() == nil {
		n := creation{key: "key-" + strconv.FormatUint(c.serial.Add(1), 10), destination: c.destination("single")}
		if r.IntN(2) == 0 {
			n.alias = "single-" + strconv.FormatUint(c.serial.Add(1), 10)
		}
		if !c.createOnce(ctx, n) {
			c.mu.Lock()
			c.retries = append(c.retries, n)
			c.mu.Unlock()
			pause(ctx, 5*time.Millisecond)
		}
	}
}

// createOnce reports false if there was no answer.
func (c *crash) createOnce(ctx context.Context, n creation) bool {
	var l madeLink
	got, err := c.api.json(ctx, "POST", "/api/v1/links", newLink{Destination: n.destination, Code: n.alias}, &l, "Idempotency-Key", n.key)
	switch {
	case err != nil || c.busy(got.status):
		return false
	case got.status != 201 || n.alias != "" && pathOf(l.ShortURL) != "/"+n.alias:
		c.ledger.fault("create %+v: status %d, %.300s", n, got.status, got.body)
	default:
		c.ledger.created(pathOf(l.ShortURL), l.ID, n.destination)
	}
	return true
}

// edit changes destinations, and now and then deletes a link and makes another.
func (c *crash) edit(ctx context.Context, r *rand.Rand, worker int) {
	links := c.mutable[worker]
	for ctx.Err() == nil {
		i := r.IntN(len(links))
		e := links[i]
		if e.want == "" || len(e.may) > 0 || e.mayGone {
			// Deleted, or not known: a later write would hide what this one did.
			if !anyEditable(links) {
				return
			}
			if e.want != "" {
				continue
			}
			d := c.destination("edited")
			var l madeLink
			got, err := c.api.json(ctx, "POST", "/api/v1/links", newLink{Destination: d}, &l)
			if err != nil || c.busy(got.status) {
				pause(ctx, 5*time.Millisecond)
				continue // a link may exist that nobody knows
			}
			if got.status != 201 {
				c.ledger.fault("create: status %d, %.300s", got.status, got.body)
				return
			}
			links[i] = c.ledger.created(pathOf(l.ShortURL), l.ID, d)
			continue
		}
		var d string
		var got *answer
		var err error
		want := 200
		if r.IntN(10) == 0 {
			want = 204
			got, err = c.api.do(ctx, "DELETE", "/api/v1/links/"+e.id, nil)
		} else {
			d = c.destination("edited")
			got, err = c.api.json(ctx, "PATCH", "/api/v1/links/"+e.id, map[string]string{"destination": d}, nil)
		}
		switch {
		case err != nil || c.busy(got.status):
			c.ledger.unknown(e, d)
		case got.status != want:
			c.ledger.fault("change of %s: status %d, %.300s", e.path, got.status, got.body)
			return
		default:
			c.ledger.changed(e, d)
		}
	}
}

// anyEditable reports whether a link can still be edited in this round.
func anyEditable(links []*entry) bool {
	for _, e := range links {
		if e.want == "" || len(e.may) == 0 && !e.mayGone {
			return true
		}
	}
	return false
}

// visit follows the stable links, at a moderate pace, and keeps books.
func (c *crash) visit(ctx context.Context, r *rand.Rand, _ int) {
	v := newVisitor(c.server, "User-Agent", agentDesktop, "Referer", "https://news.example.com/")
	defer v.close()
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		i := r.IntN(len(c.paths))
		c.visiting.RLock()
		c.stable[i].send()
		status, _, err := v.visit("GET", c.paths[i])
		if err == nil && status == 302 {
			c.stable[i].answer()
		}
		c.visiting.RUnlock()
		if err == nil {
			c.mu.Lock()
			c.shares.count(status)
			c.mu.Unlock()
		}
		switch {
		case err != nil || status == http.StatusServiceUnavailable:
			pause(ctx, 2*time.Millisecond)
		case status != 302:
			c.ledger.fault("visit of %s: status %d", c.paths[i], status)
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// secure lets the visitors wait now and then until the server says that all their clicks are written: those must be counted
// after whatever kill. It closes secured when that is so of one.
func (c *crash) secure(ctx context.Context, secured chan<- struct{}) {
	once := sync.OnceFunc(func() { close(secured) })
	for pause(ctx, 50*time.Millisecond) {
		c.visiting.Lock()
		for ctx.Err() == nil {
			m, err := readClickMetrics(ctx, c.api)
			if err != nil {
				break // the server is down
			}
			if m.settled() {
				for _, l := range c.stable {
					if l.secure() > 0 {
						once()
					}
				}
				break
			}
			pause(ctx, 2*time.Millisecond)
		}
		c.visiting.Unlock()
	}
}

// inspector returns a visitor who looks where paths lead.
func (c *crash) inspector() *visitor {
	v := newVisitor(c.server)
	v.networked = c.networked
	return v
}

// check holds entries against the running server and settles what was not known. It asks by
// HEAD, which is no visit.
func (c *crash) check(n int, entries []*entry) {
	began := time.Now()
	const workers = 4
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			v := c.inspector()
			defer v.close()
			for i := w; i < len(entries); i += workers {
				status, location, err := v.look("HEAD", entries[i].path)
				if err != nil {
					c.ledger.fault("check after kill %d: %v", n, err)
					return
				}
				c.ledger.saw(entries[i], status, location)
			}
		})
	}
	wg.Wait()
	c.checkAtomic(n)
	c.checkStreams(n)
	c.repeat(n)
	c.t.Logf("kill %d: ready after %v, %d entries checked in %v", n, c.server.Ready.Round(time.Millisecond), len(entries), time.Since(began).Round(time.Millisecond))
}

// busy reports whether an answer says that the database is too slow or away, and to come again: it is no
// statement about a link. Only a database of its own, which shares the machine with the load, may say so.
func (c *crash) busy(status int) bool {
	return c.networked && status == http.StatusServiceUnavailable
}

// checkAtomic proves that an atomic request without an answer is there whole or not at all.
func (c *crash) checkAtomic(n int) {
	v := c.inspector()
	defer v.close()
	for _, a := range c.cut {
		there := 0
		for i, path := range a.aliases {
			switch status, location, err := v.look("HEAD", path); {
			case err != nil:
				c.ledger.fault("check after kill %d: %v", n, err)
			case status == 302 && location == a.destinations[i]:
				there++
			case status != 404:
				c.ledger.fault("kill %d: %s answers %d to %q, want %q or 404", n, path, status, location, a.destinations[i])
			}
		}
		c.atomicCut++
		switch there {
		case 0:
		case len(a.aliases):
			c.atomicApplied++
			for i, path := range a.aliases { // it stays
				c.ledger.created(path, "", a.destinations[i])
			}
		default:
			c.ledger.fault("kill %d: %d of the %d rows of an atomic request are there", n, there, len(a.aliases))
		}
	}
	c.cut = nil
}

// checkStreams proves that a row that was not answered is whole or not there.
func (c *crash) checkStreams(n int) {
	v := c.inspector()
	defer v.close()
	for _, a := range c.inStreams {
		status, location, err := v.look("HEAD", a.path)
		if err != nil || status != 404 && (status != 302 || location != a.destination) {
			c.ledger.fault("kill %d: %s of a cut stream answers %d to %q, want %q or 404: %v", n, a.path, status, location, a.destination, err)
		}
	}
	c.inStreams = nil
}

// repeat sends creations without an answer again, with the same Idempotency-Key: each ends
// in one link, whether or not the first attempt was applied.
func (c *crash) repeat(n int) {
	for _, r := range c.retries {
		c.repeated++
		made := c.createOnce(c.t.Context(), r)
		for try := 0; c.networked && !made && try < busyTries; try++ {
			pause(c.t.Context(), time.Second)
			made = c.createOnce(c.t.Context(), r)
		}
		if !made {
			c.ledger.fault("kill %d: no answer to a repeated creation", n)
		}
	}
	c.retries = nil
}

// checkClicks stops the server in order, so that what it has in memory is on disk, starts it
// again and waits until every click that is sure is counted. More than were sent must not be.
func (c *crash) checkClicks() {
	if err := c.server.Stop(); err != nil {
		c.t.Fatal(err)
	}
	c.server = start(c.t, c.options)
	c.api.s = c.server
	var sure, sent, counted int
	last := -1
	var quietSince time.Time
	// The count has to stand still: a click counted twice may come late.
	until(c.t, 5*time.Minute, "the count of clicks reaches what is sure and stands still", func() bool {
		sure, sent, counted = 0, 0, 0
		for i, l := range c.stable {
			n := c.clicks(c.ids[i])
			sure, sent, counted = sure+l.sure, sent+l.sent, counted+n
		}
		if counted != last {
			last, quietSince = counted, time.Now()
		}
		return time.Since(quietSince) > 2*time.Second && (counted >= sure || time.Since(quietSince) > 2*time.Minute)
	})
	for i, l := range c.stable {
		if n := c.clicks(c.ids[i]); n < l.sure || n > l.sent {
			c.ledger.fault("%s: %d clicks are counted; %d were written before a kill, %d were sent", c.paths[i], n, l.sure, l.sent)
		}
	}
	if sure == 0 {
		c.ledger.fault("no click was known to be written before a kill: nothing is proven")
	}
	c.t.Logf("clicks: %d sent, %d sure, %d counted", sent, sure, counted)
}

// clicks returns the count of a link, people and bots.
func (c *crash) clicks(id string) int {
	var sum struct {
		Total int `json:"total"`
	}
	got, err := c.api.json(c.t.Context(), "GET", "/api/v1/analytics/summary?bots=include&link_id="+id, nil, &sum)
	if err != nil {
		c.t.Fatalf("summary: %v", err)
	}
	if got.status != 200 {
		return 0 // analytics is starting
	}
	return sum.Total
}

func itoa(n int) string { return strconv.Itoa(n) }

func mustJSON(dst []byte, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return append(dst, b...)
}

// pause waits and reports false if ctx ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
