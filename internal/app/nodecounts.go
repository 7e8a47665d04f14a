package app

import (
	"context"
	"slices"
	"time"

	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/nodes"
	"github.com/terselink/terse/internal/sleep"
)

// engineOf is what a node says of its analytics engine; "": it has none.
func engineOf(cfg *config.Config) string {
	switch {
	case !cfg.Clicks.Enabled || !cfg.Analytics.Enabled:
		return ""
	case cfg.Analytics.Engine == config.EngineDuckDB && !cfg.Has(config.RoleRedirect) && !cfg.Has(config.RoleControl):
		return "" // openClicks
	}
	return cfg.Analytics.Engine
}

// countsApart says that this node, as it is configured, and the living ones of others answer with different numbers (nodes.CountsApart).
func countsApart(self *nodes.Node, others []nodes.Seen) string {
	living := []nodes.Node{*self}
	for i := range others {
		if others[i].State == nodes.Alive {
			living = append(living, others[i].Node)
		}
	}
	return nodes.CountsApart(living)
}

// countsEvery is how often a node looks whether others count clicks apart from it.
const countsEvery = time.Minute

// warnOfCounts logs, at the start and when it changes, that nodes count clicks apart. It is not refused: which nodes there will be is not known
// at a start, and one that takes the place of another is there beside it for a moment.
func (s *server) warnOfCounts(self nodes.Node) {
	if self.Analytics != config.EngineDuckDB {
		return // the one that counts apart says so
	}
	s.runUntilStop("nodes that count apart", func(ctx context.Context) {
		last := ""
		for {
			list, err := s.nodes.List(ctx)
			if err == nil { // else the heartbeats say it
				list = slices.DeleteFunc(list, func(n nodes.Seen) bool { return n.Self })
				if text := countsApart(&self, list); text != last {
					last = text
					if text != "" {
						s.log.Warn(text)
					}
				}
			}
			if sleep.For(ctx, countsEvery) != nil {
				return
			}
		}
	})
}
