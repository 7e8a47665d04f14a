package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
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
	"github.com/terselink/terse/internal/failpoint"
	"github.com/terselink/terse/internal/sleep"
)

// TestTorture kills a server again and again at the places of package failpoint, and now and
// then at a random moment, while it takes repeatable bulk requests, campaigns and their
// rows, uploads, jobs, their callbacks and their rollbacks. Whoever was cut off goes on after the next
// start as a client does: with the same Idempotency-Key, or by asking for the job, which goes on by
// itself.
//
// Proven at the end: every row that was acknowledged has one link, which leads where the row
// says; no row has two; a repetition answers what was answered before the kill; of what
// was rolled back nothing is left; every job has the whole result; every callback came.
//
// TERSE_TORTURE is the number of kills (make crash: 200).
func TestTorture(t *testing.T) {
	kills := 28
	if testing.Short() {
		kills = 12
	}
	if v := os.Getenv("TERSE_TORTURE"); v != "" {
		var err error
		if kills, err = strconv.Atoi(v); err != nil {
			t.Fatalf("TERSE_TORTURE: %v", err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := newTorture(t, seed)
	hits := map[string]int{}
	armed, hit := 0, 0
	offset := c.r.IntN(len(failpoint.Names)) // a short run begins anywhere
	for n := range kills {
		name := ""
		if n%8 != 7 {
			name = failpoint.Names[(offset+armed)%len(failpoint.Names)]
			armed++
		}
		if c.cycle(name) {
			hit++
			hits[name]++
		}
		if c.failed() || t.Failed() {
			break
		}
	}
	c.finish()
	for _, f := range c.faults {
		t.Error(f)
	}
	t.Logf("%d kills, %d of %d at a place that was named, of which there are %d: %v; %s", kills, hit, armed, len(failpoint.Names), hits, c.done())
	if !t.Failed() && hit*10 < armed*7 {
		t.Errorf("only %d of %d places were passed: the test does not reach what it is for", hit, armed)
	}
	if missing := slices.DeleteFunc(slices.Clone(failpoint.Names), func(name string) bool { return hits[name] > 0 }); kills >= 200 && len(missing) > 0 {
		t.Errorf("never passed: %v", missing)
	}
}

// crashReady is within what a server is ready again after a kill (docs/durability.md).
const crashReady = 5 * time.Second

// torture is the state of the test.
type torture struct {
	t       *testing.T
	r       *rand.Rand
	options proc.Options
	server  *proc.Server
	api     *api
	serial  atomic.Uint64

	slots []*slot

	mu       sync.Mutex
	want     map[string]string // external_id -> destination of every row that has a link
	faults   []string
	counts   map[string]int
	received map[string]int // callbacks by webhook-id
	secrets  map[string]string
	hook     string // URL of the receiver
}

// slot works on one thing after another, over kills.
type slot struct {
	r    *rand.Rand
	next func() work
	now  work
}

// work is something that a client wants done. step goes on where it was, until it is done
// (true), or the server or ctx is gone (false).
type work interface {
	step(ctx context.Context) bool
}

func newTorture(t *testing.T, seed uint64) *torture {
	c := &torture{
		t: t, r: rand.New(rand.NewPCG(seed, 1)), want: map[string]string{}, counts: map[string]int{}, received: map[string]int{}, secrets: map[string]string{},
	}
	killable, err := buildKillable()
	if err != nil {
		t.Fatal(err)
	}
	receiver := httptest.NewServer(http.HandlerFunc(c.receive))
	t.Cleanup(receiver.Close)
	c.hook = receiver.URL + "/hook"
	_, port, err := net.SplitHostPort(receiver.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	redirectAddr, err := proc.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	controlAddr, err := proc.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	c.options = proc.Options{
		Bin: killable, Data: filepath.Join(t.TempDir(), "data"), RedirectAddr: redirectAddr, ControlAddr: controlAddr,
		Env: append(slices.Clone(quick), "TERSE_ANALYTICS_ENABLED=false", "TERSE_JOBS_WORKERS=2", "TERSE_OUTBOUND_ALLOW=127.0.0.0/8", "TERSE_OUTBOUND_PORTS="+port),
	}
	c.api = &api{http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true}, Timeout: 3 * time.Minute}}
	t.Cleanup(c.api.http.CloseIdleConnections)
	for _, next := range []func() work{
		func() work { return &bulkWork{c: c, rows: c.rows(false), key: c.key()} },
		func() work { return &bulkWork{c: c, rows: c.rows(true), key: c.key(), campaign: c.newCampaign()} },
		func() work { return c.newJob(false) },
		func() work { return c.newJob(true) },
	} {
		c.slots = append(c.slots, &slot{r: rand.New(rand.NewPCG(seed, c.r.Uint64())), next: next})
	}
	t.Cleanup(func() {
		if t.Failed() && c.server != nil {
			t.Logf("the end of the server's log:\n%s", c.server.Log())
		}
	})
	return c
}

func (c *torture) key() string { return "key-" + strconv.FormatUint(c.serial.Add(1), 10) }

func (c *torture) fault(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.faults) < 20 {
		c.faults = append(c.faults, fmt.Sprintf(format, args...))
	}
}

func (c *torture) failed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.faults) > 0
}

func (c *torture) count(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[what]++
}

func (c *torture) done() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(c.counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", c.counts[what], what))
	}
	return strings.Join(parts, ", ")
}

// often are the places that are passed many times a second; the others are hit the first or
// the second time.
var often = map[string]int{
	failpoint.CodesIssued: 12, failpoint.ChunkReady: 12, failpoint.ChunkHalf: 20, failpoint.ChunkCommitted: 12, failpoint.BatchDone: 12,
	failpoint.ResultsWritten: 12, failpoint.ResultFileWritten: 8, failpoint.UploadWritten: 6, failpoint.UploadSynced: 6, failpoint.AnswerStored: 4,
	failpoint.LeaseTaken: 1, failpoint.CampaignStored: 1, failpoint.RollbackBatch: 3,
}

// cycle runs the server until it is killed at the named place, or soon if none is named or
// it is not passed. It reports whether the place was passed.
func (c *torture) cycle(name string) (hit bool) {
	o := c.options
	limit := time.Duration(50+c.r.IntN(800)) * time.Millisecond
	if name != "" {
		times := often[name]
		if times == 0 {
			times = 2
		}
		o.Env = append(slices.Clone(o.Env), fmt.Sprintf("FAILPOINT=%s:%d", name, 1+c.r.IntN(times)))
		limit = time.Minute
	}
	s, err := proc.Start(c.t.Context(), o)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && name != "" && exit.ExitCode() == -1 {
		return true // a job goes on at once, and passed it before the server was ready
	}
	if err != nil {
		c.t.Fatalf("start for %q: %v", name, err)
	}
	c.server, c.api.s = s, s
	if os.Getenv("TERSE_TORTURE") != "" && s.Ready > crashReady { // of a machine that has nothing else to do
		c.fault("ready after %v, want %v", s.Ready, crashReady)
	}
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for _, sl := range c.slots {
		wg.Go(func() { sl.work(ctx) })
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-s.Done():
		hit = name != ""
	case <-t.C:
		if err := s.Kill(); err != nil {
			hit = name != "" // it was passed in the last moment
		}
	}
	if hit {
		if code, _ := s.Wait(proc.EndWithin); code != -1 {
			c.fault("the server ended by itself with %d at %q", code, name)
		}
	}
	cancel()
	c.api.http.CloseIdleConnections()
	wg.Wait()
	return hit
}

// work goes on until ctx ends.
func (s *slot) work(ctx context.Context) {
	for ctx.Err() == nil {
		if s.now == nil {
			s.now = s.next()
		}
		if s.now.step(ctx) {
			s.now = nil
			_ = sleep.For(ctx, time.Duration(s.r.IntN(150))*time.Millisecond)
		} else {
			_ = sleep.For(ctx, 5*time.Millisecond)
		}
	}
}

// finish lets everything that is under way come to its end on a server that is left alone, and
// holds what there is against what there must be.
func (c *torture) finish() {
	s, err := proc.Start(c.t.Context(), c.options)
	if err != nil {
		c.t.Fatal(err)
	}
	c.server, c.api.s = s, s
	defer func() {
		if err := s.Stop(); err != nil {
			c.t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for i, sl := range c.slots {
		wg.Go(func() {
			for sl.now != nil && !sl.now.step(ctx) {
				if sleep.For(ctx, 10*time.Millisecond) != nil || c.failed() {
					c.fault("slot %d is not at its end: %+v", i, sl.now)
					return
				}
			}
		})
	}
	wg.Wait()
	c.checkLinks(ctx)
	c.checkCallbacks()
}

// checkLinks lists every link: each row that was acknowledged has one, and there is no other.
func (c *torture) checkLinks(ctx context.Context) {
	seen := make(map[string]bool, len(c.want))
	v := newVisitor(c.server)
	defer v.close()
	for cursor := ""; ; {
		var page struct {
			Data []struct {
				ExternalID  string `json:"external_id"`
				Destination string `json:"destination"`
				ShortURL    string `json:"short_url"`
			} `json:"data"`
			NextCursor *string `json:"next_cursor"`
		}
		if got, err := c.api.json(ctx, "GET", "/api/v1/links?limit=1000&cursor="+cursor, nil, &page); err != nil || got.status != 200 {
			c.fault("list: %v, %+v", err, got)
			return
		}
		for i, l := range page.Data {
			switch want, ok := c.want[l.ExternalID]; {
			case !ok:
				c.fault("%s of the row %q is nobody's", l.ShortURL, l.ExternalID)
			case seen[l.ExternalID]:
				c.fault("the row %q has two links, one is %s", l.ExternalID, l.ShortURL)
			case l.Destination != want:
				c.fault("%s leads to %.80q, want %.80q", l.ShortURL, l.Destination, want)
			case i%97 == 0:
				if status, location, err := v.look("HEAD", pathOf(l.ShortURL)); status != 302 || location != want {
					c.fault("%s answers %d, %.80q, %v; want %.80q", l.ShortURL, status, location, err, want)
				}
			}
			seen[l.ExternalID] = true
		}
		if page.NextCursor == nil {
			break
		}
		cursor = *page.NextCursor
	}
	for id := range c.want {
		if !seen[id] {
			c.fault("the row %q is lost", id)
		}
	}
	c.mu.Lock()
	c.counts["links"] = len(seen)
	c.mu.Unlock()
}
