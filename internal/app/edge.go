package app

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/api"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/edge"
	"github.com/terselink/terse/internal/inbox"
)

// An edge node is a redirect plane whose store is a control plane elsewhere and a copy on its disk (package edge). The
// other half of this file is what a control plane has for its edges.

const (
	edgeDir = "edge" // the copy, in the data folder
	// receiverFile holds where the clicks of an edge go, beside the name of its spool.
	receiverFile = "spool-receiver"
	// shippedFile holds up to where they have arrived.
	shippedFile = "spool-shipped"
	inboxFile   = "edges.json" // the ledger of what edges have sent
	// edgeLoadTimeout is how long a visitor of an edge waits for a link: the control plane may be an ocean away.
	edgeLoadTimeout = 2 * time.Second
	// edgeMaxAge is how long a link in the memory of an edge is used without a look into its copy, which so learns which links are in use.
	edgeMaxAge = 10 * time.Minute
	// lastClicksWithin is what the last clicks add to a stop.
	lastClicksWithin = 3 * time.Second
)

// forEdge returns the configuration that an edge node works with: it counts no clicks itself, and its copy is warm.
func forEdge(cfg *config.Config) *config.Config {
	if cfg.Upstream == "" {
		return cfg
	}
	c := *cfg
	c.Analytics.Enabled, c.Cache.WarmBytes = false, 0
	return &c
}

// startEdge starts an edge node. With a copy from before it serves at once, whether its control plane answers or not.
func (s *server) startEdge(ctx context.Context, began time.Time) error {
	client, err := edge.NewClient(s.cfg.Upstream, s.cfg.UpstreamKey.Reveal())
	if err != nil {
		return err
	}
	if s.edge, err = edge.Open(edge.Options{
		Client: client, Dir: filepath.Join(s.cfg.Data, edgeDir), Bytes: int64(s.cfg.UpstreamBytes), Clock: s.clock, Log: s.log,
	}); err != nil {
		return fmt.Errorf("open the copy of the upstream control plane: %w", err)
	}
	s.onStop("copy", func(context.Context) error { return s.edge.Close() })
	s.registry.MustRegister(s.edge)
	s.store, s.late = s.edge, true
	s.engine = storeEngine{shape: "edge", reads: s.edge, whenDown: api.Degraded, saw: noLink, missed: func() {}}
	if err := s.edge.Sync(ctx); errors.Is(err, terse.ErrUnavailable) {
		s.log.Warn("this edge node has nothing yet and the upstream control plane does not answer: waiting for it", "error", err)
		s.openRooms(false)
		err = s.patiently(ctx, func() error { return s.edge.Sync(ctx) })
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	d, err := domains.Open(ctx, s.domainOptions())
	if err != nil {
		return err
	}
	s.useDomains(d)
	port, err := s.redirectPort()
	if err != nil {
		return err
	}
	d.SetLoopback(port)
	settings, err := auth.OpenSettings(ctx, auth.Options{Store: s.store, Clock: s.clock})
	if err != nil {
		return err
	}
	s.auth.Store(settings)
	cookies, err := cookieKey(ctx, s.store)
	if err != nil {
		return err
	}
	if err := s.openClicks(ctx); err != nil {
		return err
	}
	s.openCampaigns()
	if err := s.openRedirect(); err != nil {
		return err
	}
	s.redirect.SetCookieKey(cookies)
	s.startRedirect(nil)
	s.serveEdgeMetrics()
	s.runUntilStop("changes of the upstream control plane", func(ctx context.Context) { s.edge.Run(ctx, changeTarget{s}) })
	s.announce("", false, began)
	return nil
}

// serveEdgeMetrics answers on the control address of an edge node, which has no control plane: /metrics to those on this machine or with
// the key that the edge has for its control plane, and /readyz to all.
func (s *server) serveEdgeMetrics() {
	mux := http.NewServeMux()
	metrics := promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, ErrorHandling: promhttp.ContinueOnError})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		here := err == nil && peer.Addr().Unmap().IsLoopback() && r.Header.Get("X-Forwarded-For") == "" && r.Header.Get("Forwarded") == ""
		if want := "Bearer " + s.cfg.UpstreamKey.Reveal(); !here && subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte(want)) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="terse"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		metrics.ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		for _, c := range s.checks() {
			fmt.Fprintf(w, "%s: %s (%s)\n", c.Name, c.State, c.Detail)
		}
	})
	srv := api.NewHTTPServer(mux, s.log)
	srv.ReadTimeout = 5 * time.Second
	s.controlRoom.close()
	s.background.Go(func() {
		if err := srv.Serve(s.controlLn); err != nil && !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("metrics: %w", err)
		}
	})
	s.onStop("metrics", srv.Shutdown)
}

// edgeDomains are the domains of an edge node. While nobody tells it of new ones there may be others.
type edgeDomains struct {
	*domains.Registry
	edge *edge.Store
}

// Kept implements redirect.Domains.
func (d edgeDomains) Kept() bool { return d.edge.Ping(context.Background()) != nil }

// openShipper begins to send the clicks of an edge to its control plane, and gives back the disk that they take.
func (s *server) openShipper() error {
	if s.edge == nil {
		return nil
	}
	id, err := spoolName(filepath.Join(s.cfg.Data, spoolNameFile))
	if err != nil {
		return err
	}
	spool := filepath.Join(s.cfg.Data, spoolDir)
	if s.shipper, err = edge.NewShipper(edge.ShipperOptions{
		Client: s.edge.Client(), Spool: spool, Edge: id, Receiver: filepath.Join(s.cfg.Data, receiverFile), Shipped: filepath.Join(s.cfg.Data, shippedFile), Write: writeDurably, Log: s.log,
	}); err != nil {
		return fmt.Errorf("send clicks: %w", err)
	}
	s.registry.MustRegister(s.shipper)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.shipper.Run(ctx) }()
	s.onStop("last clicks", func(stop context.Context) error {
		cancel()
		<-done
		stop, cancel := context.WithTimeout(stop, lastClicksWithin)
		defer cancel()
		if err := s.shipper.Finish(stop); err != nil {
			s.log.Warn("the last clicks were not sent: the next start sends them", "error", err)
		}
		return nil
	})
	s.every(time.Minute, "trim click spool", func(context.Context) error {
		_, err := clicks.Trim(clicks.TrimOptions{
			Dir: spool, Committed: s.shipper.Shipped(), Keep: s.cfg.Clicks.KeepSegments, MaxBytes: int64(s.cfg.Clicks.MaxBytes), Now: time.Now(),
		})
		return err
	})
	return nil
}

// openInbox prepares a control plane for the clicks of edge nodes.
func (s *server) openInbox(ctx context.Context) error {
	if s.edge != nil || !s.cfg.Has(config.RoleControl) {
		return nil
	}
	name, err := spoolName(filepath.Join(s.cfg.Data, spoolNameFile))
	if err != nil {
		return err
	}
	in, err := inbox.Open(ctx, inbox.Options{
		Path: filepath.Join(s.cfg.Data, inboxFile), Receiver: name, Spool: filepath.Join(s.cfg.Data, spoolDir), Recorder: s.recorder,
		Write: writeDurably, Clock: s.clock, Log: s.log,
	})
	if err != nil { // what this process does itself goes on
		s.log.Error("clicks of edge nodes are not taken: they wait there", "error", err)
		return nil
	}
	s.inbox = in
	s.runUntilStop("inbox of edge clicks", in.Run)
	return nil
}

// forEdges is what the control plane has for edge nodes.
func (s *server) forEdges(ctx context.Context) (api.Edge, error) {
	epoch, err := instanceID(ctx, s.store)
	if err != nil {
		return api.Edge{}, err
	}
	e := api.Edge{Head: s.engine.feed.FeedHead, Epoch: epoch, Inbox: s.inbox}
	if s.salts != nil {
		e.Salts = s.salts.Days
	}
	return e, nil
}
