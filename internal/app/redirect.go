package app

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicklimit"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/redirect"
	"github.com/terselink/terse/internal/warm"
)

// openRedirect makes the redirect plane, which does not serve yet and has no key of cookies.
func (s *server) openRedirect() error {
	if s.redirect != nil || !s.cfg.Has(config.RoleRedirect) {
		return nil
	}
	if err := s.openPlaces(); err != nil {
		return err
	}
	counter := clicklimit.New(s.store)
	s.onStop("click limits", counter.Close)
	o := redirect.Options{
		Domains: s.domains, Store: s.engine.reads, Campaigns: s.campaigns, Clock: s.clock, Log: s.log, ListenHost: s.cfg.RedirectAddr,
		IgnoreOptOut: !s.cfg.Clicks.HonourOptOut, Places: s.places, Limiter: counter, TellFailure: s.tellFailure(),
		TrustedProxies: s.cfg.TrustedProxies, CountryHeader: s.cfg.Redirect.CountryHeader, ProxyProtocol: s.cfg.Redirect.ProxyProtocol, CacheBytes: int64(s.cfg.Cache.Bytes),
		MaxConnsPerIP: s.cfg.Redirect.MaxConnsPerIP, DrainDelay: s.cfg.Redirect.DrainWait,
		Interstitials: func(w terse.WorkspaceID) bool {
			a := s.auth.Load()
			return a != nil && a.Settings(w).Interstitials
		},
		Ready: func() []redirect.Check {
			var list []redirect.Check
			for _, c := range s.checks() {
				list = append(list, redirect.Check{Name: c.Name, State: redirect.State(c.State), Detail: c.Detail})
			}
			return list
		},
	}
	if s.edge != nil {
		o.Domains = edgeDomains{s.domains, s.edge}
		o.LoadTimeout, o.MaxAge = edgeLoadTimeout, edgeMaxAge
	}
	if s.recorder != nil {
		o.Recorder = s.recorder
		if s.cfg.Clicks.Durability == "batch" {
			o.Recorder, o.RecorderWaits = syncRecorder{s.recorder}, true
		}
	}
	var err error
	if s.redirect, err = redirect.New(o); err != nil {
		return fmt.Errorf("redirect plane: %w", err)
	}
	s.registry.MustRegister(s.redirect)
	return nil
}

// startRedirect lets visitors in, if they are not yet. kept are the links that the plane has while the store does
// not answer; nil: they are read from the disk beside the visits.
func (s *server) startRedirect(kept *warm.Content) {
	if s.redirecting || s.redirect == nil {
		return
	}
	s.redirecting = true
	s.startWarm(kept)
	s.redirectRoom.close()
	s.background.Go(func() {
		if err := s.redirect.Serve(s.redirectLn); err != nil {
			s.failed <- fmt.Errorf("redirect plane: %w", err)
		}
	})
	s.onStop("redirect plane", s.redirect.Shutdown) // for a stop before there are two planes
}

// syncRecorder waits for the fsync of a click's group: with durability=batch a redirect is
// answered after it, or after the recorder's bounded wait.
type syncRecorder struct{ *clicks.Recorder }

// Capture implements redirect.Recorder.
func (r syncRecorder) Capture(shard uint32, c *clicks.Click) bool {
	err := r.CaptureSync(context.Background(), shard, c)
	return err == nil || errors.Is(err, terse.ErrUnknownOutcome) // unknown: spooled, not yet synced
}

// visitors returns how many visits the redirect plane of this process has answered.
func (s *server) visitors() uint64 {
	if s.redirect == nil {
		return 0
	}
	return s.redirect.Visitors()
}

// invalidate makes a write known to the redirect plane of this process, if it has one.
func (s *server) invalidate(i redirect.Invalidation) {
	if s.redirect != nil {
		s.redirect.OnChange(i)
	}
}

func (s *server) redirectPort() (string, error) {
	addr := s.cfg.RedirectAddr
	if s.redirectLn != nil { // port 0 became another one
		addr = s.redirectLn.Addr().String()
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("read redirect address: %w", err)
	}
	return port, nil
}
