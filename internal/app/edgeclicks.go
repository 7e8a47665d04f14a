package app

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/nodes"
)

// takesNoEdges says why this process, which has the API, takes no clicks of edge nodes; "" if it does, or has no API.
func takesNoEdges(cfg *config.Config) string {
	switch {
	case cfg.Upstream != "" || !cfg.Has(config.RoleControl):
		return ""
	case !cfg.Clicks.Enabled:
		return "clicks.enabled is false"
	case !cfg.Has(config.RoleRedirect):
		return "it has the role control without redirect"
	}
	return ""
}

// takesEdges reports whether a node lives that has the roles for it.
func takesEdges(n nodes.Seen) bool {
	return n.State == nodes.Alive && slices.Contains(n.Roles, config.RoleRedirect) && slices.Contains(n.Roles, config.RoleControl)
}

// noEdgeClicks says what follows for an edge whose key there is, in words for a log and the doctor. Another living node that takes clicks is
// named, if there is one: then all depends on where edges send them.
func noEdgeClicks(why string, k *auth.Key, list []nodes.Seen) string {
	text := fmt.Sprintf("there is a key for an edge node (%q), and this node takes no clicks of edges: %s. ", k.Name, why)
	i := slices.IndexFunc(list, takesEdges)
	if i < 0 {
		return text + "Clicks wait on the disk of the edge until it is full: give one node the roles redirect and control, with clicks.enabled (docs/edge.md)"
	}
	return text + fmt.Sprintf("Requests under /api/v1/edge/clicks have to reach %s, or another node with the roles redirect and control (docs/edge.md)", list[i].Name)
}

// warnOfEdges says in the log, once at the start, that there is an edge whose clicks would wait for ever. A key that is made later is noticed when
// its edge sends some.
func (s *server) warnOfEdges() {
	why := takesNoEdges(s.cfg)
	if why == "" {
		return
	}
	s.runUntilStop("keys of edges", func(ctx context.Context) {
		k, err := auth.EdgeKey(ctx, s.store, s.clock())
		if err != nil {
			if !errors.Is(err, terse.ErrNotFound) && ctx.Err() == nil {
				s.log.Warn("whether there are edge nodes whose clicks would have to be taken cannot be seen", "error", err)
			}
			return
		}
		list, err := s.nodes.List(ctx)
		if err != nil {
			list = nil // the heartbeats say it
		}
		s.log.Warn(noEdgeClicks(why, &k, list))
	})
}
