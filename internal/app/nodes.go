package app

import (
	"context"
	"net/netip"
	"os"
	"strings"

	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/fence"
	"github.com/terselink/terse/internal/nodes"
	"github.com/terselink/terse/internal/peers"
)

// Duties that one process at a time carries out, of all that use a store: the names of their locks. What each does is
// harmless if two do it for a moment, see docs/cluster.md.
const (
	dutyPurge     = "campaign-purge"
	dutyLedgers   = "ledgers"
	dutyExports   = "exports"
	dutySchedules = "export-schedules"
	dutyFacts     = "facts"
	dutyClicks    = "click-streams"
)

// nodeName returns what people call this process: node_name, else the name of the machine.
func (s *server) nodeName(otherwise string) string {
	if s.cfg.NodeName != "" {
		return s.cfg.NodeName
	}
	if host, err := os.Hostname(); err == nil && host != "" {
		return host
	}
	return otherwise
}

// openNodes puts this process on the list of nodes, and prepares its locks. A process that has its store for itself
// needs neither.
func (s *server) openNodes() error {
	id, err := nodeID(s.cfg.Data)
	if err != nil {
		return err
	}
	self := nodes.Node{ID: id, Name: s.nodeName(id), Roles: s.cfg.Role, Analytics: engineOf(s.cfg), Version: s.o.Version, StartedAt: s.clock()}
	if s.redirectLn != nil {
		self.RedirectAddr = s.redirectLn.Addr().String()
	}
	if s.cfg.Has(config.RoleControl) {
		self.ControlAddr = s.controlLn.Addr().String()
		self.URL = nodeURL(s.cfg.NodeURL, self.ControlAddr)
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
	if !alone {
		s.warnOfCounts(self)
	}
	if self.ControlAddr != "" && !alone && self.URL == "" {
		s.log.Warn("other nodes cannot ask this one for its jobs and files: node_url is not set, and control_addr is no address of a network", "control_addr", self.ControlAddr)
	}
	if !alone && inClear(s.cfg.NodeURL, self.URL) {
		s.log.Info("other nodes pass requests on to this one over http, with the keys of their users: node_url is not set and follows from control_addr; name an https address where the network is not your own", "node_url", self.URL)
	}
	return nil
}

// nodeURL returns where other nodes reach a control plane that listens at addr: what is configured, else addr if it can be
// that of another machine; "" is nowhere.
func nodeURL(configured, addr string) string {
	if configured != "" {
		return strings.TrimSuffix(configured, "/")
	}
	ap, err := netip.ParseAddrPort(addr)
	if ip := ap.Addr().Unmap(); err != nil || ip.Zone() != "" || ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() {
		return ""
	}
	return "http://" + addr
}

// inClear reports whether keys travel to a node without encryption, and nobody has chosen so.
func inClear(configured, u string) bool { return configured == "" && strings.HasPrefix(u, "http://") }

// openPeers prepares to ask other nodes for what they have; the caller closes it. A process that has its store for itself asks nobody.
func (s *server) openPeers() (*peers.Client, error) {
	node, err := s.sharedNode()
	if err != nil || node == "" {
		return nil, err
	}
	c := peers.New(peers.Options{Nodes: s.nodes, Self: node})
	s.registry.MustRegister(c)
	return c, nil
}

// exclusively runs f until the server stops, while no other process that uses the store does. f ends with its
// context, which ends when another one may take over.
func (s *server) exclusively(duty string, f func(context.Context)) {
	s.runUntilStop(duty, func(ctx context.Context) {
		s.locks.Run(ctx, duty, func(ctx context.Context, _ *fence.Held) { f(ctx) })
	})
}
