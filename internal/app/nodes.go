package app

import (
	"context"
	"os"

	"github.com/terselink/terse/internal/fence"
	"github.com/terselink/terse/internal/nodes"
)

// Duties that one process at a time carries out, of all that use a store: the names of their locks. What each does is
// harmless if two do it for a moment, see docs/cluster.md.
const (
	dutyPurge     = "campaign-purge"
	dutyLedgers   = "ledgers"
	dutyExports   = "exports"
	dutySchedules = "export-schedules"
	dutyFacts     = "facts"
)

// openNodes puts this process on the list of nodes, and prepares its locks. A process that has its store for itself
// needs neither.
func (s *server) openNodes() error {
	id, err := nodeName(s.cfg.Data)
	if err != nil {
		return err
	}
	name := s.cfg.NodeName
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			name = id
		}
	}
	self := nodes.Node{ID: id, Name: name, Roles: s.cfg.Role, Version: s.o.Version, StartedAt: s.clock()}
	if s.redirectLn != nil {
		self.RedirectAddr = s.redirectLn.Addr().String()
	}
	if s.controlLn != nil {
		self.ControlAddr = s.controlLn.Addr().String()
	}
	o := nodes.Options{Self: self, Clock: s.clock, Log: s.log}
	alone := !s.shares()
	if !alone {
		o.Store = s.store
	}
	s.nodes = nodes.New(o)
	s.locks = fence.New(fence.Options{Store: s.store, Alone: alone, Holder: id, Log: s.log})
	s.registry.MustRegister(s.nodes, s.locks)
	s.runUntilStop("heartbeats", s.nodes.Run)
	return nil
}

// exclusively runs f until the server stops, while no other process that uses the store does. f ends with its
// context, which ends when another one may take over.
func (s *server) exclusively(duty string, f func(context.Context)) {
	s.runUntilStop(duty, func(ctx context.Context) {
		s.locks.Run(ctx, duty, func(ctx context.Context, _ *fence.Held) { f(ctx) })
	})
}
