package app

import (
	"context"
	"path/filepath"
	"time"

	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/redirect"
	"github.com/terselink/terse/internal/warm"
)

// warmTimeout bounds what the last look at hot links adds to a stop.
const warmTimeout = 5 * time.Second

// serveKept starts the redirect plane with the domains and the hot links that were kept on disk, while the store does not
// answer. False: nothing was kept that can be used. What else a plane needs is on disk, too: clicks go into the
// spool and are counted. What is not kept is 503: links with a limit or a password, all others, unknown hosts.
func (s *server) serveKept(ctx context.Context) (bool, error) {
	if s.cfg.Cache.WarmBytes == 0 || !s.cfg.Has(config.RoleRedirect) {
		return false, nil
	}
	c, err := warm.Load(filepath.Join(s.cfg.Data, warm.FileName))
	if err != nil {
		s.log.Warn("the warm links cannot be used, and are set aside", "error", err)
		return false, nil
	}
	if len(c.Domains) == 0 || !c.Usable(s.clock()) {
		s.log.Warn("nothing was kept on disk that visitors could be served from", "domains", len(c.Domains), "saved", c.Saved.Time())
		return false, nil
	}
	port, err := s.redirectPort()
	if err != nil {
		return false, err
	}
	d, err := domains.OpenKept(ctx, s.domainOptions(), c.Domains, c.DefaultHost)
	if err != nil {
		s.log.Warn("the domains that were kept cannot be used", "error", err)
		return false, nil
	}
	s.useDomains(d)
	d.SetLoopback(port)
	if err := s.openClicks(ctx); err != nil {
		return false, err
	}
	s.openCampaigns()
	if err := s.openRedirect(); err != nil {
		return false, err
	}
	s.startRedirect(c)
	return true, nil
}

// startWarm gives the redirect plane the links that were hot before the last stop, for as long as the store does
// not answer, and keeps those that are hot now. kept is what the file holds if it was read.
func (s *server) startWarm(kept *warm.Content) {
	if s.cfg.Cache.WarmBytes == 0 {
		return
	}
	path := filepath.Join(s.cfg.Data, warm.FileName)
	w := redirect.NewWarmer(redirect.WarmOptions{
		Path: path, Bytes: int(s.cfg.Cache.WarmBytes), Server: s.redirect, Domains: s.domains, Campaigns: s.campaigns, Log: s.log,
	})
	if kept != nil {
		s.log.Warn("redirects are served from what was kept on disk", "links", w.Load(kept), "domains", len(kept.Domains), "saved", kept.Saved.Time())
	}
	s.runUntilStop("warm links", func(ctx context.Context) {
		if kept == nil { // the store is open, so nobody waits for the file
			c, err := warm.Load(path)
			if err != nil {
				s.log.Warn("the warm links cannot be used, and are set aside", "error", err)
			}
			w.Load(c)
		}
		w.Run(ctx)
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), warmTimeout)
		defer cancel()
		if err := w.Save(last); err != nil {
			s.log.Warn("the warm links cannot be kept: those kept before stay", "error", err)
		}
	})
}
