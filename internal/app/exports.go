package app

import (
	"context"
	"path/filepath"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/exports"
	"github.com/terselink/terse/internal/facts"
)

// openExports finds the exports of earlier runs. Nothing runs yet.
func (s *server) openExports(a *auth.Service) (err error) {
	if s.analytics == nil || !s.cfg.Has(config.RoleControl) {
		return nil
	}
	node, err := s.sharedNode()
	if err != nil {
		return err
	}
	s.exports, err = exports.Open(exports.Options{
		Node: node, Store: s.store, Source: s.analytics, Dir: filepath.Join(s.cfg.Data, exportsDir), Workspaces: workspaces(a), Terms: s.termsOf(a), Clock: s.clock, Log: s.log,
	})
	if err != nil {
		return err
	}
	return s.openSchedules(a)
}

// tidyExportsEvery is how long a file may stay at a node whose export was deleted through another one.
const tidyExportsEvery = 5 * time.Minute

// startExports lets exports run, if this is a worker. Files of exports are tidied where they are: a worker that became none has some.
func (s *server) startExports() {
	if s.exports == nil {
		return
	}
	// Deleting an export elsewhere leaves its file here; a node that was away then finds out now.
	s.runUntilStop("tidy exports", func(ctx context.Context) {
		if err := s.exports.Tidy(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("tidy exports", "error", err)
		}
		s.repeat(ctx, tidyExportsEvery, "tidy exports", s.exports.Tidy)
	})
	if !s.cfg.Has(config.RoleWorker) {
		return
	}
	// Both return nil.
	s.exclusively(dutyExports, func(ctx context.Context) { _ = s.exports.Run(ctx) })
	s.exclusively(dutySchedules, func(ctx context.Context) { _ = s.schedules.Run(ctx) })
}

// codeOf returns the code of a link that has it by its number, else "": DynamoDB finds generated links by it alone.
func (s *server) codeOf(n terse.LinkNumber) string {
	c, _ := s.domains.CodeOf(n)
	return c
}

// startFacts lets the analytics process learn of tags and conversions.
func (s *server) startFacts() {
	if s.analytics == nil {
		return
	}
	feeder := facts.New(facts.Options{Store: s.store, Sink: s.analytics, Code: s.codeOf, Log: s.log})
	run := func(ctx context.Context) { _ = feeder.Run(ctx) } // it returns nil
	if s.cfg.Analytics.Engine == config.EngineClickHouse {
		s.exclusively(dutyFacts, run)
	} else { // this process tells an engine of its own
		s.runUntilStop("facts", run)
	}
}
