package app

import (
	"context"
	"slices"

	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/facts"
	"github.com/terselink/terse/internal/live"
	"github.com/terselink/terse/internal/nodes"
	"github.com/terselink/terse/internal/redisbus"
)

// openLive lets the live view show the clicks of all nodes, if there are others. A node of the control plane that records no
// clicks itself shows those of others.
func (s *server) openLive(ctx context.Context) error {
	if !s.shares() || !s.cfg.Clicks.Enabled || s.live == nil && !s.cfg.Has(config.RoleControl) {
		return nil
	}
	options, secret, err := s.signedBus(ctx)
	if err != nil {
		return err
	}
	bus, err := redisbus.NewLive(redisbus.LiveOptions{Options: options, Secret: secret, Log: s.log})
	if err != nil {
		return err
	}
	s.registry.MustRegister(bus.Refused())
	if s.live == nil {
		s.live = live.New(live.Options{Log: s.log, Tags: &facts.Lookup{Store: s.store, Code: s.codeOf}})
	}
	s.live.Join(live.JoinOptions{Transport: bus, Nodes: s.recordingNodes})
	s.onStop("live views of other nodes", func(context.Context) error {
		s.live.Close()
		bus.Close()
		return nil
	})
	return nil
}

// recordingNodes counts the living nodes that record clicks.
func (s *server) recordingNodes(ctx context.Context) (n int, err error) {
	list, err := s.nodes.List(ctx)
	for i := range list {
		if list[i].State == nodes.Alive && slices.Contains(list[i].Roles, config.RoleRedirect) {
			n++
		}
	}
	return n, err
}
