// Package api is the control plane's HTTP interface: the operations under /api/v1,
// their OpenAPI document, health and metrics. It is the only place that maps errors
// to HTTP status.
//
// It holds no rules about links, domains or keys (packages links, domains, auth) and
// does not listen (NewHTTPServer makes a server for package app). Invariants:
//
//   - every answer that is not a success of an operation is application/problem+json;
//   - every operation demands one scope; what no key allows is refused;
//   - a thing of another workspace is answered byte for byte as if it did not exist;
//   - no answer and no log line repeats a key, a password or a body.
package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/clientip"
	"github.com/terselink/terse/internal/conversions"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/exports"
	"github.com/terselink/terse/internal/jobs"
	"github.com/terselink/terse/internal/limit"
	"github.com/terselink/terse/internal/links"
	"github.com/terselink/terse/internal/live"
	"github.com/terselink/terse/internal/peers"
	"github.com/terselink/terse/internal/shares"
)

// Options configures a Server. Fields without a remark are required.
type Options struct {
	Store     terse.Store // for the records of idempotent requests, and for edge nodes
	Edge      Edge
	Links     *links.Service
	Domains   *domains.Registry
	Auth      *auth.Service
	Jobs      *jobs.Manager    // nil: jobs and uploads answer 503 jobs_disabled
	Places    Places           // nil: explain knows no countries of addresses
	Analytics analytics.Engine // nil: analytics answer 503 analytics_disabled
	// Terms says how long a workspace keeps its clicks; nil: rows are never said to be incomplete.
	Terms     analytics.TermsFunc
	Exports   *exports.Manager    // nil: exports answer 503 analytics_disabled
	Schedules *exports.Scheduler  // nil: as Exports
	Live      *live.Hub           // nil: the live view answers 503 analytics_disabled
	Nodes     Nodes               // required
	Node      string              // the id of this node in jobs and uploads; "": no other node uses the store
	Peers     *peers.Client       // asks other nodes for what they have; nil: nobody does
	Ready     func() []Check      // nil: always ready
	Metrics   prometheus.Gatherer // nil: no /metrics
	ClientIP  *clientip.Resolver  // nil: the peer of the connection is the client
	// Ticket makes the path at which the redirect plane shows what it sees of a visitor, and says until when it does;
	// nil: whoami shows no such place.
	Ticket func() (path string, until terse.Millis, err error)
	Clock  func() terse.Millis
	Log    *slog.Logger
	System System
	// MaxBulkBytes bounds the decompressed body of a bulk request; 0: 4 GiB.
	MaxBulkBytes int64
	// AccessEvery logs one of so many answers at level debug; 0: 100. Answers of 500 and
	// above are always logged, at level error.
	AccessEvery uint64
	// TellFailure tells other nodes of a wrong key or password, for HeardFailure; it must not wait. nil: there are none.
	TellFailure func(table string, client netip.Prefix)
	// Rate counts a request of a key, by its id, and returns 0, or how long the key has to wait. nil: keys have no limit.
	Rate func(ctx context.Context, key string) time.Duration
	// Heartbeat is how often a stream of events says that it is still there, and asks whether its
	// key is still valid; 0: 15 s.
	Heartbeat time.Duration
}

// System is what GET /api/v1/system shows of the instance.
type System struct {
	Version string   `json:"version"`
	Shape   string   `json:"shape" doc:"embedded, cluster or mixed."`
	Roles   []string `json:"roles"`
}

// Limits of failed authentications from one address.
const (
	failureEvery = time.Second
	failureBurst = 100
	failureMax   = 100_000
)

// Server is the control plane's handler. It is also a prometheus.Collector of its
// own metrics.
type Server struct {
	o           Options
	mux         *http.ServeMux
	huma        huma.API
	operations  map[string]*operation
	idem        *idempotency
	failures    *limit.Table
	noInboxOnce sync.Once
	origins     *http.CrossOriginProtection
	metrics     *metrics
	openAPI     []byte
	docs        []byte
	docsCSP     string
	nothing     string        // is said of a path that there is not
	requests    atomic.Uint64 // for the sampled access log

	conversions *conversions.Service
	shares      *shares.Service
	public      publicCache
	guesses     *limit.Table // of the passwords of shares, by address

	terms analytics.TermsFunc // Options.Terms with a memory; nil: there are none
}

// The names of the tables of failures, for other nodes.
const (
	failuresOfKeys   = "api_key"
	failuresOfShares = "share_password"
)

// HeardFailure counts a failure of a client at another node; it reports whether the table is one of this plane.
func (s *Server) HeardFailure(table string, client netip.Prefix) bool {
	switch table {
	case failuresOfKeys:
		s.failures.Heard(client)
	case failuresOfShares:
		s.guesses.Heard(client)
	default:
		return false
	}
	return true
}

// New returns the handler of the control plane.
func New(o Options) (*Server, error) {
	if o.MaxBulkBytes == 0 {
		o.MaxBulkBytes = 4 << 30
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = 15 * time.Second
	}
	if o.System.Roles == nil {
		o.System.Roles = []string{}
	}
	s := newServer(o)
	s.idem = &idempotency{store: o.Store, clock: o.Clock, inFlight: map[string]chan struct{}{}}
	s.conversions = conversions.New(conversions.Options{Store: o.Store, Clock: o.Clock, Find: o.Links.LookupCode})
	s.shares = shares.New(o.Store, o.Clock)
	if o.Terms != nil {
		s.terms = analytics.CachedTerms(o.Terms, o.Clock)
	}
	s.nothing = "there is nothing here; see /api/v1/docs"
	s.huma = huma.NewAPI(humaConfig(o.System.Version), adapter{s})
	s.registerLinks()
	s.registerQR()
	s.registerExplain()
	s.registerBulk()
	s.registerUploads()
	s.registerJobs()
	s.registerCampaigns()
	s.registerDomains()
	s.registerAnalytics()
	s.registerErasure()
	s.registerClicks()
	s.registerLive()
	s.registerConversions()
	s.registerShares()
	s.registerExports()
	s.registerExportSchedules()
	s.registerAccess()
	s.registerSystem()
	s.registerNodes()
	s.registerEdge()
	s.registerWhoami()
	if err := s.document(); err != nil {
		return nil, fmt.Errorf("document the API: %w", err)
	}
	s.mux.HandleFunc("GET /api/v1/openapi.json", s.serveOpenAPI)
	s.mux.HandleFunc("GET /api/v1/docs", s.serveDocs)
	return s, nil
}

// NewSigns returns the handler of a node without the API: health, readiness and metrics, under the rules that they have beside it.
// Of the options it uses Auth, Ready, Metrics, ClientIP, Clock, Log, AccessEvery and TellFailure.
func NewSigns(o Options) *Server {
	s := newServer(o)
	s.nothing = "this node has no API, only /healthz, /readyz and /metrics: the API is at nodes with the role control"
	return s
}

// newServer returns what every server has.
func newServer(o Options) *Server {
	if o.AccessEvery == 0 {
		o.AccessEvery = 100
	}
	if o.Ready == nil {
		o.Ready = func() []Check { return nil }
	}
	tell := func(table string) func(netip.Prefix) {
		if o.TellFailure == nil {
			return nil
		}
		return func(client netip.Prefix) { o.TellFailure(table, client) }
	}
	s := &Server{
		o: o, mux: http.NewServeMux(), operations: map[string]*operation{},
		failures: limit.New(limit.Options{
			Every: failureEvery, Burst: failureBurst, Max: failureMax, Clock: func() time.Time { return o.Clock().Time() }, Tell: tell(failuresOfKeys),
		}),
		origins: http.NewCrossOriginProtection(),
		metrics: newMetrics(),
		guesses: limit.New(limit.Options{
			Every: 10 * time.Second, Burst: 10, Max: failureMax, Clock: func() time.Time { return o.Clock().Time() }, Tell: tell(failuresOfShares),
		}),
	}
	s.mux.HandleFunc("GET /healthz", s.serveHealth)
	s.mux.HandleFunc("GET /readyz", s.serveReady)
	if o.Metrics != nil {
		s.mux.Handle("GET /metrics", s.guardMetrics(promhttp.HandlerFor(o.Metrics, promhttp.HandlerOpts{
			MaxRequestsInFlight: 4, ErrorHandling: promhttp.ContinueOnError,
		})))
	}
	return s
}

func humaConfig(version string) huma.Config {
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Terse", Version: version,
				Description: "Short links, their domains and their clicks. Errors are application/problem+json (RFC 9457) with a code for programs.",
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"bearer": {Type: "http", Scheme: "bearer", Description: "An API key. The names beside an operation are the scope that the key needs."},
				},
			},
		},
		Formats:                      map[string]huma.Format{"application/json": jsonFormat, "json": jsonFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
	}
}

// NewHTTPServer returns a server for the handler with the limits that an
// administration port on a network needs. Bulk requests set deadlines of their own.
func NewHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      callTimeout + 2*bodyTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// Run does the server's work in the background, pruning idempotency records once an
// hour, until ctx ends. It returns nil then.
func (s *Server) Run(ctx context.Context) error {
	t := time.NewTicker(time.Hour)
	defer t.Stop()
	for {
		if err := s.Prune(ctx); err != nil && ctx.Err() == nil {
			s.o.Log.Warn("prune failed; the next try is in an hour", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// Prune deletes idempotency records that are too old to be asked for.
func (s *Server) Prune(ctx context.Context) error {
	owner := auth.Identity{Owner: true}
	for after := terse.WorkspaceID(0); ; {
		list, err := s.o.Auth.ListWorkspaces(ctx, &owner, after, 500)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, w := range list {
			if err := s.idem.prune(ctx, w.ID); err != nil {
				return err
			}
			after = w.ID
		}
	}
}

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }
