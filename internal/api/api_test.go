package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/api"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/clientip"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/exports"
	"github.com/terselink/terse/internal/jobs"
	"github.com/terselink/terse/internal/links"
	"github.com/terselink/terse/internal/live"
	"github.com/terselink/terse/internal/nodes"
	"github.com/terselink/terse/internal/outbound"
	"github.com/terselink/terse/internal/peers"
	"github.com/terselink/terse/internal/store/memstore"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

const ownerKey = "owner-key-of-the-tests-0123456789-abcdef"

// bench is a control plane on a memory store, served over real HTTP.
type bench struct {
	t         testing.TB
	url       string
	client    *http.Client
	store     terse.Store
	auth      *auth.Service
	domains   *domains.Registry
	server    *api.Server
	jobs      *jobs.Manager // not started: its jobs stay queued
	engine    *fakeEngine
	exports   *exports.Manager
	schedules *exports.Scheduler
	bucket    *objects // nothing runs
	now       atomic.Int64
	log       lockedBuffer
	checks    atomic.Pointer[[]api.Check]

	termsAsked atomic.Int64
	termsAway  atomic.Bool // they cannot be read
}

// terms are those of all workspaces.
func (b *bench) terms(context.Context, terse.WorkspaceID) (analytics.Terms, error) {
	b.termsAsked.Add(1)
	if b.termsAway.Load() {
		return analytics.Terms{}, terse.ErrUnavailable
	}
	return analytics.Terms{Raw: 400, Bots: 30}, nil
}

func (b *bench) clock() terse.Millis { return terse.Millis(b.now.Load()) }

type options struct {
	wrap     func(terse.Store) terse.Store
	maxBulk  int64
	noEngine bool
	live     *live.Hub
	trusted  []string // proxies
	ticket   func() (string, terse.Millis, error)

	heartbeat time.Duration
	rate      func(ctx context.Context, key string) time.Duration

	// For a node of several.
	node   string
	store  terse.Store
	others *directory
	noJobs bool
}

// setup starts a control plane.
func setup(t testing.TB, o options) *bench {
	t.Helper()
	ctx := context.Background()
	b := &bench{t: t, engine: &fakeEngine{}}
	b.now.Store(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC).UnixMilli())
	b.checks.Store(&[]api.Check{})
	if b.store = o.store; b.store == nil {
		b.store = memstore.New(b.clock)
	}
	if o.wrap != nil {
		b.store = o.wrap(b.store)
	}
	log := slog.New(slog.NewJSONHandler(&b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if _, _, err := auth.Bootstrap(ctx, auth.BootstrapOptions{Store: b.store, Clock: b.clock, Key: ownerKey}); err != nil {
		t.Fatal(err)
	}
	reg, err := domains.Open(ctx, domains.Options{Store: b.store, Clock: b.clock, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reg.Close)
	b.domains = reg
	if _, err := reg.EnsureDefault(ctx, "localhost:8080", "http"); err != nil {
		t.Fatal(err)
	}
	if b.auth, err = auth.Open(ctx, auth.Options{Store: b.store, Clock: b.clock}); err != nil {
		t.Fatal(err)
	}
	metrics := prometheus.NewRegistry()
	linkService := links.New(links.Options{Store: b.store, Domains: reg, Workspaces: b.auth.Settings, Clock: b.clock, Log: log})
	b.jobs, err = jobs.Open(ctx, jobs.Options{
		Node: o.node, Store: b.store, Links: linkService, Send: outbound.New(outbound.Options{}), Dir: t.TempDir(), Clock: b.clock, Log: log, Workers: 1, MaxUpload: 1 << 20,
		Workspaces: func(context.Context, terse.WorkspaceID, int) ([]terse.WorkspaceID, error) { return nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.jobs.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	b.exports, err = exports.Open(exports.Options{
		Node: o.node, Store: b.store, Source: b.engine, Dir: t.TempDir(), Clock: b.clock, Log: log, Terms: b.terms,
		Workspaces: func(_ context.Context, after terse.WorkspaceID, _ int) ([]terse.WorkspaceID, error) {
			if after > 0 {
				return nil, nil
			}
			return []terse.WorkspaceID{1}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.bucket = &objects{}
	b.schedules, err = exports.OpenScheduler(exports.SchedulerOptions{
		Store: b.store, Source: b.engine, Bucket: b.bucket, Dir: t.TempDir(), Clock: b.clock, Log: log, Terms: b.terms,
		Status: func(context.Context) analytics.Status {
			return analytics.Status{State: analytics.StateReady, LagKnown: true}
		},
		Workspaces: func(_ context.Context, after terse.WorkspaceID, _ int) ([]terse.WorkspaceID, error) {
			if after > 0 {
				return nil, nil
			}
			return []terse.WorkspaceID{1}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ao := api.Options{
		Rate:    o.rate,
		Edge:    api.Edge{Head: func(context.Context) (uint64, error) { return 0, nil }, Epoch: "e1"},
		Exports: b.exports, Schedules: b.schedules,
		Jobs:  b.jobs,
		Store: b.store, Domains: reg, Auth: b.auth, Analytics: b.engine, Terms: b.terms, Live: o.live,
		Links: linkService,
		Ready: func() []api.Check { return *b.checks.Load() }, Metrics: metrics, Clock: b.clock, Log: log,
		Nodes:  nodes.New(nodes.Options{Clock: b.clock, Self: nodes.Node{ID: "box-1", Name: "box", Roles: []string{"control"}, ControlAddr: "127.0.0.1:8081", Version: "0.0.0-test", StartedAt: b.clock()}}),
		System: api.System{Version: "0.0.0-test", Shape: "embedded", Roles: []string{"control"}}, MaxBulkBytes: o.maxBulk, AccessEvery: 1,
	}
	ao.Heartbeat, ao.Ticket = o.heartbeat, o.ticket
	if ao.ClientIP, err = clientip.New(o.trusted); err != nil {
		t.Fatal(err)
	}
	if o.noEngine {
		ao.Analytics = nil
	}
	if o.noJobs {
		ao.Jobs = nil
	}
	if o.others != nil {
		ao.Node, ao.Nodes = o.node, o.others
		ao.Peers = peers.New(peers.Options{Nodes: o.others, Self: o.node})
		t.Cleanup(ao.Peers.Close)
	}
	if b.server, err = api.New(ao); err != nil {
		t.Fatal(err)
	}
	metrics.MustRegister(b.server)
	srv := httptest.NewUnstartedServer(b.server)
	srv.Config = api.NewHTTPServer(b.server, log)
	srv.Start()
	t.Cleanup(srv.Close)
	b.url, b.client = srv.URL, srv.Client()
	if o.others != nil {
		roles := []string{"control"}
		if !o.noJobs {
			roles = append(roles, "worker")
		}
		o.others.set(nodes.Seen{Node: nodes.Node{ID: o.node, Name: "name of " + o.node, Roles: roles, URL: srv.URL}, State: nodes.Alive})
	}
	return b
}

// request is one request of a test; zero fields are left out.
type request struct {
	method, path string
	key          string // "" the owner, "-" none
	body         string
	header       map[string]string
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func (b *bench) do(q request) answer {
	b.t.Helper()
	r, err := http.NewRequest(q.method, b.url+q.path, strings.NewReader(q.body))
	if err != nil {
		b.t.Fatal(err)
	}
	switch q.key {
	case "-":
	case "":
		r.Header.Set("Authorization", "Bearer "+ownerKey)
	default:
		r.Header.Set("Authorization", "Bearer "+q.key)
	}
	if q.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("X-Request-Id", "test")
	r.Header.Set("Accept-Encoding", "identity") // else net/http asks for gzip by itself
	for k, v := range q.header {
		r.Header.Set(k, v)
	}
	resp, err := b.client.Do(r)
	if err != nil {
		b.t.Fatalf("%s %s: %v", q.method, q.path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatalf("%s %s %v %.60q: status %d, read answer: %v after %.200q", q.method, q.path, q.header, q.body, resp.StatusCode, err, body)
	}
	return answer{resp.StatusCode, resp.Header, body}
}

// want does a request that must have a status.
func (b *bench) want(status int, q request) answer {
	b.t.Helper()
	a := b.do(q)
	if a.status != status {
		b.t.Fatalf("%s %s %s: status %d, want %d\n%s", q.method, q.path, q.body, a.status, status, a.body)
	}
	return a
}

// wantProblem is want for a refusal: an answer of that status whose problem has the code. Others are errors of the test, which
// goes on.
func (b *bench) wantProblem(status int, code string, q request) answer {
	b.t.Helper()
	a := b.do(q)
	var p struct {
		Code string `json:"code"`
	}
	err := json.Unmarshal(a.body, &p)
	if a.status != status || err != nil || p.Code != code || a.header.Get("Content-Type") != "application/problem+json" {
		b.t.Errorf("%s %s %.200s: %d %.300s, want %d %s", q.method, q.path, q.body, a.status, a.body, status, code)
	}
	return a
}

// field returns a member of a JSON answer.
func (a answer) field(t testing.TB, name string) any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(a.body, &m); err != nil {
		t.Fatalf("answer %q: %v", a.body, err)
	}
	v, ok := m[name]
	if !ok {
		t.Fatalf("answer %s has no field %s", a.body, name)
	}
	return v
}

func (a answer) text(t testing.TB, name string) string {
	t.Helper()
	s, ok := a.field(t, name).(string)
	if !ok {
		t.Fatalf("answer %s: %s is no string", a.body, name)
	}
	return s
}

// workspace makes a workspace with a key of the given scopes.
func (b *bench) workspace(name string, scopes ...string) (id, key string) {
	b.t.Helper()
	id = b.want(201, request{method: "POST", path: "/api/v1/workspaces", body: fmt.Sprintf(`{"name":%q}`, name)}).text(b.t, "id")
	return id, b.key(id, scopes...)
}

func (b *bench) key(workspace string, scopes ...string) string {
	b.t.Helper()
	list, err := json.Marshal(scopes)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.want(201, request{method: "POST", path: "/api/v1/keys", body: fmt.Sprintf(`{"name":"k","workspace_id":%q,"scopes":%s}`, workspace, list)}).text(b.t, "key")
}

var discard = slog.New(slog.DiscardHandler)

func sha256Base64(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// golden compares got with a file below testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run the test with -update", err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s differs (-want +got); if that is meant, run with -update\n%s", path, d)
	}
}

// lockedBuffer collects the log of a server.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// fakeEngine answers analytics with numbers that tell the query apart.
type fakeEngine struct {
	query     atomic.Pointer[analytics.Query]
	err       error
	breakdown *analytics.Breakdown // in place of the usual one
	series    []analytics.Point    // in place of the usual ones
	real      analytics.Engine     // answers Summary, Timeseries and Breakdown, if it is there
	erased    analytics.Erasure    // the last one asked for
	eraseBy   time.Time
}

func (e *fakeEngine) Summary(ctx context.Context, q analytics.Query) (analytics.Summary, error) {
	e.query.Store(&q)
	if e.real != nil {
		return e.real.Summary(ctx, q)
	}
	return analytics.Summary{Clicks: 7, Visitors: 5, UniqueClicks: 6, Deduped: 6, QR: 1, Humans: 7, Bots: 2, Total: 9, Outcomes: map[string]int64{"redirect": 9}, LagMs: 120}, e.err
}

func (e *fakeEngine) Timeseries(ctx context.Context, q analytics.Query) (analytics.Timeseries, error) {
	e.query.Store(&q)
	if e.real != nil {
		return e.real.Timeseries(ctx, q)
	}
	if e.series != nil {
		return analytics.Timeseries{Interval: q.Interval, Points: e.series}, e.err
	}
	return analytics.Timeseries{Interval: q.Interval, Points: []analytics.Point{{T: q.From, Clicks: 7, Visitors: 5, Bots: 2, QR: 1}}}, e.err
}

func (e *fakeEngine) Breakdown(ctx context.Context, q analytics.Query) (analytics.Breakdown, error) {
	e.query.Store(&q)
	if e.real != nil {
		return e.real.Breakdown(ctx, q)
	}
	if e.breakdown != nil {
		return *e.breakdown, e.err
	}
	return analytics.Breakdown{Data: []analytics.Value{{Value: "DE", Clicks: 4, Visitors: 3}}, Other: 3, Total: 7, Values: 2}, e.err
}

func (e *fakeEngine) Slots(_ context.Context, q analytics.Query) ([]analytics.Slot, error) {
	e.query.Store(&q)
	return []analytics.Slot{{T: q.From, Clicks: 4}, {T: q.From + 26*3_600_000, Clicks: 3}}, e.err
}

// Clicks has one click a minute back from the end of the range, until there are five.
func (e *fakeEngine) Clicks(_ context.Context, q analytics.Query, p analytics.Page) ([]clicks.Event, error) {
	e.query.Store(&q)
	rows := []clicks.Event{}
	for i := range 5 {
		ev := clicks.Event{At: q.To - terse.Millis(60_000*(i+1)), Workspace: q.Workspace, Link: 5, Domain: "localhost:8080", Code: "summer", Destination: "https://example.com/",
			Trigger: "link", Visitor: uint64(i), Country: "DE", City: "=München", Device: "mobile", Weight: 1, Node: "node"}
		binary.BigEndian.PutUint64(ev.ID[:], uint64(ev.At)<<16|7<<12)
		if (p.After == terse.ClickID{} || bytes.Compare(ev.ID[:], p.After[:]) < 0) && len(rows) < p.Limit {
			rows = append(rows, ev)
		}
	}
	return rows, e.err
}

func (e *fakeEngine) Funnel(_ context.Context, q analytics.Query) (analytics.Funnel, error) {
	return analytics.Funnel{Leads: 3, Sales: 2, LeadClicks: 3, SaleClicks: 1, Revenue: []analytics.Amount{{Currency: "EUR", Amount: 3998, Sales: 2}}, NewCustomers: 1, Pending: 1}, e.err
}

func (e *fakeEngine) ConversionsBy(_ context.Context, q analytics.Query) (analytics.ConversionBreakdown, error) {
	e.query.Store(&q)
	if err := q.CheckConversions(true); err != nil {
		return analytics.ConversionBreakdown{}, err
	}
	return analytics.ConversionBreakdown{Data: []analytics.ConversionValue{{Value: "DE", Sales: 2, Revenue: 3998}}, Total: 2, Values: 1}, e.err
}

func (e *fakeEngine) Erase(ctx context.Context, in analytics.Erasure) (int64, error) {
	e.erased = in
	e.eraseBy, _ = ctx.Deadline()
	return 7, e.err
}

func (e *fakeEngine) LinkTotals(_ context.Context, _ terse.WorkspaceID, links []terse.LinkNumber) (map[terse.LinkNumber]analytics.LinkTotal, error) {
	return map[terse.LinkNumber]analytics.LinkTotal{links[0]: {Clicks: 41, Last: 1_795_000_000_000}}, e.err
}

func (e *fakeEngine) Status(context.Context) analytics.Status { return analytics.Status{} }
