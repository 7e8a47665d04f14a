// Package app is the composition root: the only place where adapters meet. It opens
// what a server needs in order, runs it, and closes it in reverse.
//
// Start: data folder, listeners, store, domains, owner key, clicks, analytics, links, the two
// planes. While a store over the network does not answer, the redirect plane serves what was kept
// on disk (warm.go), and the start goes on behind it. Stop: readiness
// off, drain, stop accepting, finish what is under way, flush the spool, stop the
// analytics child, close the store.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/api"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/campaigns"
	"github.com/terselink/terse/internal/changes"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/edge"
	"github.com/terselink/terse/internal/exports"
	"github.com/terselink/terse/internal/facts"
	"github.com/terselink/terse/internal/fence"
	"github.com/terselink/terse/internal/geo"
	"github.com/terselink/terse/internal/inbox"
	"github.com/terselink/terse/internal/jobs"
	"github.com/terselink/terse/internal/linkcache"
	"github.com/terselink/terse/internal/links"
	"github.com/terselink/terse/internal/live"
	"github.com/terselink/terse/internal/nodes"
	"github.com/terselink/terse/internal/redirect"
	"github.com/terselink/terse/internal/redisbus"
	"github.com/terselink/terse/internal/storecopy"
)

// ErrDiskFailed ends Run when the store's disk has failed in a way that only a new
// start can mend. The process exits with ExitDiskFailed.
var ErrDiskFailed = errors.New("the disk of the store has failed")

// ExitDiskFailed is the exit code after ErrDiskFailed (EX_IOERR of sysexits.h).
const ExitDiskFailed = 74

// Options are what the command line adds to the configuration.
type Options struct {
	Version string
	Stdout  io.Writer // where the owner key is shown, once
	Log     *slog.Logger
	// AnalyticsExe is the program whose "analytics-child" command is the analytics
	// process; "": this one.
	AnalyticsExe string
}

// The names of what lies in the data folder.
const (
	storeDir   = "store"
	spoolDir   = "spool"
	exportsDir = "exports"
	saltsFile  = "salts.json"
)

// Run serves until ctx ends, then stops in order. It returns nil after an orderly stop.
func Run(ctx context.Context, cfg *config.Config, o Options) error {
	useProcessors()
	collectEarly()
	s := &server{cfg: forShipping(forEdge(cfg)), o: o, log: o.Log, streams: newClickStreams()}
	err := s.start(ctx)
	switch {
	case err == nil:
		err = s.wait(ctx)
	case ctx.Err() != nil && endedByStop(err):
		s.log.Info("stopping") // while it waited for its database
		err = nil
	}
	// The stop has its own deadline: the context that ended the run is over.
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.ShutdownTimeout)
	defer cancel()
	return errors.Join(err, s.stop(stopCtx))
}

// endedByStop reports whether a start failed with what a database says whose caller has gone. An outcome that is not
// known is no loss: what a start writes, the next one finds or writes again.
func endedByStop(err error) bool {
	return errors.Is(err, terse.ErrUnavailable) || errors.Is(err, terse.ErrUnknownOutcome) || errors.Is(err, context.Canceled)
}

// useProcessors lets Go run on two threads more than there are processors, unless the
// environment says otherwise. Beside other busy processes a redirect then waits less for a
// thread that the kernel has set aside: on two processors with a load generator beside it, 87 k
// instead of 75 k redirects a second and a p99 of 5.4 instead of 5.9 ms (docs/adr/0008-processors.md).
func useProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2)
	}
}

// collectEarly lets garbage grow to 70 % of what is in use, not to all of it, unless the environment says otherwise.
// What is reserved for clicks and cached links, 160 MB and more, counts as in use before anything is in it; the garbage
// that it would stand for is real memory: 332 MB while a body of 1 GB streams in, 254 MB at 70. Less is no better: at a third
// collections are so frequent that visitors wait for them, p99 at 12,000 redirects a second 5 to 23 ms instead of 2.
func collectEarly() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(70)
	}
}

// server is a running instance. Its parts are closed in the reverse order of closers.
type server struct {
	cfg *config.Config
	o   Options
	log *slog.Logger

	clock                 func() terse.Millis
	redirectLn, controlLn net.Listener
	// What answers on a listener without a plane yet; nil: nothing does.
	redirectRoom, controlRoom *waitingRoom

	store       terse.Store
	late        bool // the store is networked: it may be away, at the start too
	engine      storeEngine
	domains     *domains.Registry
	campaigns   *campaigns.Registry
	purger      *campaigns.Purger
	recorder    *clicks.Recorder
	places      *geo.DB
	auth        atomic.Pointer[auth.Service] // nil while the store has not answered
	analytics   analyticsEngine              // nil: none
	redirect    *redirect.Server
	redirecting bool                            // the plane serves
	hub         atomic.Pointer[changes.Hub]     // nil: there are no other nodes, or nobody has heard of them yet
	linkCache   atomic.Pointer[linkcache.Cache] // nil: there is none
	api         atomic.Pointer[api.Server]      // nil: the control plane does not serve yet
	control     *http.Server
	live        *live.Hub
	exports     *exports.Manager
	schedules   *exports.Scheduler
	jobs        *jobs.Manager
	chunks      *redisbus.Queue // nil: no other node takes part in jobs
	nodes       *nodes.Registry
	locks       *fence.Keeper
	edge        *edge.Store   // nil: this is no edge node
	shipper     *edge.Shipper // nil: as edge, or there are no clicks
	streams     *clickStreams // of clicks through Redis
	inbox       *inbox.Inbox  // of clicks of edge nodes; nil: this process takes none
	salts       *clicks.FileSalts
	registry    *prometheus.Registry

	background sync.WaitGroup
	failed     chan error // a plane or a loop that ended by itself
	closers    []closer
}

type closer struct {
	name  string
	close func(context.Context) error
}

func (s *server) onStop(name string, f func(context.Context) error) {
	s.closers = append(s.closers, closer{name, f})
}

// stop closes everything that was opened, in reverse, whatever fails on the way.
func (s *server) stop(ctx context.Context) error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		c := s.closers[i]
		if err := c.close(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", c.name, err))
		}
	}
	return errors.Join(errs...)
}

func (s *server) start(ctx context.Context) error {
	began := time.Now()
	if err := os.MkdirAll(s.cfg.Data, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	s.registry = prometheus.NewRegistry()
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.failed = make(chan error, 4)
	s.onStop("stream of clicks", func(context.Context) error { s.streams.close(); return nil })

	s.clock = func() terse.Millis { return terse.MillisOf(time.Now()) }
	if err := s.listen(); err != nil {
		return err
	}
	if s.cfg.Upstream != "" {
		return s.startEdge(ctx, began)
	}
	// When this returns, the redirect plane may be serving from what was kept on disk. The steps below find
	// what it has opened for that.
	if err := s.openStore(ctx); err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	if err := s.patiently(ctx, func() error { return storecopy.Unfinished(ctx, s.store) }); err != nil {
		return err
	}
	// Before anything is read that another node may change.
	if err := s.patiently(ctx, func() error { return s.openChanges(ctx) }); err != nil {
		return err
	}
	if err := s.patiently(ctx, func() error { return s.openDomains(ctx) }); err != nil {
		return err
	}
	var key string
	var created bool
	var authService *auth.Service
	if err := s.patiently(ctx, func() (err error) { key, created, authService, err = s.openAuth(ctx); return err }); err != nil {
		return err
	}
	var cookies []byte
	if err := s.patiently(ctx, func() (err error) { cookies, err = cookieKey(ctx, s.store); return err }); err != nil {
		return err
	}
	if err := s.openNodes(); err != nil {
		return err
	}
	if err := s.openClicks(ctx); err != nil {
		return err
	}
	s.shareSalts(ctx)
	if err := s.patiently(ctx, func() error { return s.openClickStreams(ctx) }); err != nil {
		return err
	}
	if err := s.patiently(ctx, func() error { return s.openLive(ctx) }); err != nil {
		return err
	}
	s.openCampaigns()
	if err := s.openRedirect(); err != nil {
		return err
	}
	if s.redirect != nil {
		s.redirect.SetCookieKey(cookies)
	}
	s.auth.Store(authService)
	s.followChanges()
	s.startRedirect(nil)
	linkService := links.New(links.Options{
		Store: s.store, Domains: s.domains, Campaigns: s.campaigns, Workspaces: authService.Settings, Clock: s.clock, Log: s.log, MaxBulkBytes: int64(s.cfg.Bulk.MaxBytes),
		Visitors: s.visitors, CatchUp: s.catchUp, Apart: apart(&s.cfg.Store),
		OnChange: func(c links.Change) {
			s.engine.saw(c)
			s.invalidate(redirect.Invalidation{
				Domain: c.Domain, Code: c.Code, Number: c.Number, Version: c.Version, Created: c.Created, Deleted: c.Deleted,
			})
			s.tellLink(c)
		},
	})
	worker := s.cfg.Has(config.RoleWorker)
	if worker {
		s.exclusively(dutyPurge, s.purger.Run)
		if err := s.patiently(ctx, func() error { return s.openJobs(ctx, authService, linkService) }); err != nil {
			return err
		}
	}
	if err := s.openExports(authService); err != nil {
		return err
	}
	if err := s.startControl(ctx, authService, linkService); err != nil {
		return err
	}
	if worker {
		s.startJobs(linkService, authService)
		s.startFacts()
	}
	s.warnOfEdges()
	s.startExports()
	s.startRetention(authService)
	if s.live != nil { // before the planes: its streams would hold them open
		s.onStop("live view", func(context.Context) error { s.live.Close(); return nil })
	}
	s.announce(key, created, began)
	return nil
}

// listen opens the listeners, before anything else: an address that is taken is found out at once.
func (s *server) listen() (err error) {
	if s.cfg.Has(config.RoleRedirect) {
		if s.redirectLn, err = net.Listen("tcp", s.cfg.RedirectAddr); err != nil {
			return fmt.Errorf("listen for visitors: %w", err)
		}
		s.onStop("redirect listener", func(context.Context) error { return ignoreClosed(s.redirectLn.Close()) })
	}
	// Without the API it has health and metrics.
	if s.controlLn, err = net.Listen("tcp", s.cfg.ControlAddr); err != nil {
		return fmt.Errorf("listen for the control plane: %w", err)
	}
	s.onStop("control listener", func(context.Context) error { return ignoreClosed(s.controlLn.Close()) })
	return nil
}

func (s *server) domainOptions() domains.Options {
	return domains.Options{Store: s.store, Clock: s.clock, Log: s.log, Shared: s.shares() || s.edge != nil}
}

// useDomains makes the registry of domains that of the server.
func (s *server) useDomains(d *domains.Registry) {
	s.domains = d
	s.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "terse_code_collisions_total", Help: "Random and snowflake codes that were drawn although they existed, and drawn again.",
	}, func() float64 { return float64(d.Collisions()) }))
	s.onStop("domains", func(context.Context) error { d.Close(); return nil })
}

// openDomains reads all domains from the store, and makes the default one on the first start.
func (s *server) openDomains(ctx context.Context) error {
	if s.domains != nil { // those that were kept
		if err := s.domains.Reload(ctx); err != nil {
			return err
		}
	} else {
		d, err := domains.Open(ctx, s.domainOptions())
		if err != nil {
			return err
		}
		s.useDomains(d)
	}
	port, err := s.redirectPort()
	if err != nil {
		return err
	}
	host := "localhost"
	if port != "80" {
		host += ":" + port
	}
	if _, err := s.domains.EnsureDefault(ctx, host, "http"); err != nil {
		return fmt.Errorf("make default domain: %w", err)
	}
	s.domains.SetLoopback(port)
	return nil
}

// openAuth settles the owner key and opens the keys.
func (s *server) openAuth(ctx context.Context) (key string, created bool, a *auth.Service, err error) {
	key, created, err = auth.Bootstrap(ctx, auth.BootstrapOptions{Store: s.store, Clock: s.clock, Dir: s.cfg.Data, Key: s.cfg.BootstrapKey.Reveal()})
	if err != nil {
		return "", false, nil, fmt.Errorf("owner key: %w", err)
	}
	if a, err = auth.Open(ctx, auth.Options{Store: s.store, Clock: s.clock}); err != nil {
		return "", false, nil, fmt.Errorf("open keys: %w", err)
	}
	return key, created, a, nil
}

// openCampaigns makes the registry of campaigns and the purger of those that were deleted, which does not run yet.
func (s *server) openCampaigns() {
	if s.campaigns != nil {
		return
	}
	s.purger = campaigns.NewPurger(campaigns.PurgeOptions{Store: s.store, Clock: s.clock, Log: s.log})
	s.registry.MustRegister(s.purger)
	s.campaigns = campaigns.New(campaigns.Options{Store: s.store, Clock: s.clock, OnDelete: s.purger.Wake})
}

// openClicks opens the spool and starts the analytics process that reads it. Neither needs the store.
func (s *server) openClicks(ctx context.Context) error {
	if !s.cfg.Clicks.Enabled || s.recorder != nil {
		return nil
	}
	if !s.cfg.Has(config.RoleRedirect) { // others write clicks, which this one asks for
		if !s.cfg.Analytics.Enabled || s.analytics != nil {
			return nil
		}
		if s.cfg.Analytics.Engine == config.EngineDuckDB && !s.cfg.Has(config.RoleControl) { // nobody would ask it
			return nil
		}
		if err := s.startAnalytics(ctx, ""); err != nil {
			return err
		}
		s.onStop("analytics", s.analytics.Stop)
		return nil
	}
	if err := s.openPlaces(); err != nil {
		return err
	}
	var err error
	s.salts, err = clicks.OpenSalts(filepath.Join(s.cfg.Data, saltsFile), nil)
	if err != nil { // a full disk, say: the salts are usable, and redirects matter more
		s.log.Error("visitor salts cannot be kept: after a restart visitors of today count once more", "error", err)
	}
	s.adoptSalts(ctx)
	durability := clicks.DurabilityInterval
	if s.cfg.Clicks.Durability == "batch" {
		durability = clicks.DurabilityBatch
	}
	spool := filepath.Join(s.cfg.Data, spoolDir)
	s.recorder, err = clicks.Open(clicks.Options{
		Dir: spool, Node: clicks.NodeName(s.nodeName("")), BufferBytes: int(s.cfg.Clicks.BufferBytes), SyncEvery: s.cfg.Clicks.SyncEvery, Durability: durability,
		MaxBytes: int64(s.cfg.Clicks.MaxBytes), Geo: s.places, Salts: s.salts, Kept: s.kept, Own: s.own, Log: s.log,
	})
	if err != nil {
		return fmt.Errorf("open click spool: %w", err)
	}
	s.registry.MustRegister(s.recorder)
	s.live = live.New(live.Options{Log: s.log, Tags: &facts.Lookup{Store: s.store, Code: s.codeOf}, Open: func() (live.Tail, error) { return clicks.OpenTail(spool, s.recorder.Position(), enrichSettings(s.cfg)) }})
	if s.cfg.Redis.ClickStreams {
		if err := s.spoolIntoStreams(ctx, spool); err != nil {
			return err
		}
	} else if s.cfg.Analytics.Enabled {
		if err := s.startAnalytics(ctx, spool); err != nil {
			return err
		}
		s.onStop("analytics", s.analytics.Stop)
		s.every(time.Minute, "trim click spool", func(context.Context) error {
			// Before the engine has reported nothing may go.
			_, err := clicks.Trim(clicks.TrimOptions{
				Dir: spool, Committed: s.analytics.Stored(), Early: s.analytics.Recorded(), Keep: s.cfg.Clicks.KeepSegments, MaxBytes: int64(s.cfg.Clicks.MaxBytes), Now: time.Now(),
			})
			return err
		})
	}
	if err := s.openInbox(ctx); err != nil {
		return errors.Join(err, s.recorder.Close())
	}
	if err := s.openShipper(); err != nil {
		return errors.Join(err, s.recorder.Close())
	}
	// Closed before the analytics process stops, so that it can read the last clicks.
	s.onStop("click spool", func(context.Context) error { return s.recorder.Close() })
	return nil
}

// keptWithin is how long ago a node may last have heard of what others change to keep what its workspaces want kept of visitors:
// somebody may have switched that off since.
const keptWithin = 5 * time.Minute

// hearer tells whether all that others had changed some time ago is in force here: *edge.Store and *changes.Hub.
type hearer interface {
	HeardWithin(time.Duration) bool
}

// own tells whether a workspace can make links on the domain that serves a host.
func (s *server) own(w terse.WorkspaceID, host []byte) bool {
	d := s.domains.ByHost(host)
	return d != nil && d.Usable(w)
}

// kept tells what a workspace keeps of its visitors. While its settings are not known that is nothing.
func (s *server) kept(w terse.WorkspaceID) clicks.Kept {
	a := s.auth.Load()
	if a == nil {
		return clicks.Kept{}
	}
	var from hearer
	if hub := s.hub.Load(); s.edge != nil {
		from = s.edge
	} else if hub != nil {
		from = hub
	}
	return keptOf(a.Settings(w), from)
}

// keptOf tells what settings keep that others may change, of whom from hears; nil: nobody else does.
func keptOf(set terse.WorkspaceSettings, from hearer) clicks.Kept {
	if from != nil && !from.HeardWithin(keptWithin) {
		return clicks.Kept{}
	}
	return clicks.Kept{UserAgent: set.StoreUA, Network: set.StoreIP == terse.StoreIPTruncated}
}

// runUntilStop runs f, which ends with its context, until the server stops.
func (s *server) runUntilStop(name string, f func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	s.onStop(name, func(context.Context) error { cancel(); <-done; return nil })
}

// every runs f at an interval until the server stops.
func (s *server) every(d time.Duration, name string, f func(context.Context) error) {
	s.runUntilStop(name, func(ctx context.Context) { s.repeat(ctx, d, name, f) })
}

// repeat runs f at an interval until ctx ends. Errors are logged once per change.
func (s *server) repeat(ctx context.Context, d time.Duration, name string, f func(context.Context) error) {
	t := time.NewTicker(d)
	defer t.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := f(ctx); err != nil && ctx.Err() == nil {
			if err.Error() != last {
				s.log.Error(name, "error", err)
			}
			last = err.Error()
		} else {
			last = ""
		}
	}
}

// wait returns when the server should stop: asked to, or because a part has failed.
func (s *server) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		s.log.Info("stopping")
		return nil
	case err := <-s.failed:
		return err
	case <-s.engine.failed:
	}
	// Redirects go on from what can be read, and writes are refused with 503, while
	// whoever balances the load finds out that this node is not ready.
	s.log.Error("the disk of the store failed: no more writes, stopping soon", "error", s.engine.failure(), "in", diskFailedDrain)
	t := time.NewTimer(diskFailedDrain)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return fmt.Errorf("%w: %w", ErrDiskFailed, s.engine.failure())
}

// diskFailedDrain is how long a server goes on redirecting after its disk has failed.
const diskFailedDrain = 5 * time.Second

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
