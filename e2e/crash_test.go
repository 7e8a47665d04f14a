package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
