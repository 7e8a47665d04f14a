package app

import (
	"context"
	"time"

	"github.com/terselink/terse/internal/config"
)

const (
	// saltsWithin is how long the start of a node waits for the salts of others.
	saltsWithin = 2 * time.Second
	// saltsEvery is how often a node looks for them; that of tomorrow is made at noon.
	saltsEvery = time.Minute
)

// adoptSalts makes visitors of an edge those that they are at its control plane.
func (s *server) adoptSalts(ctx context.Context) {
	if s.edge == nil {
		return
	}
	s.followSalts(ctx, "salts of the upstream control plane", func(ctx context.Context) error {
		days, err := s.edge.Salts(ctx)
		if err != nil {
			return err
		}
		return s.salts.Adopt(days)
	})
}

// shareSalts makes visitors of a node those that they are at all nodes of its database. An embedded store has one process, and would
// keep on disk what it deletes.
func (s *server) shareSalts(ctx context.Context) {
	if s.salts == nil || s.cfg.Store.Engine == config.EnginePebble {
		return
	}
	s.followSalts(ctx, "salts of all nodes", func(ctx context.Context) error { return s.salts.Share(ctx, s.store) })
}

// followSalts has a node know the visitors that others know, now if it can and from then on. What cannot be had now comes later.
func (s *server) followSalts(ctx context.Context, whose string, follow func(context.Context) error) {
	soon, cancel := context.WithTimeout(ctx, saltsWithin)
	defer cancel()
	if err := follow(soon); err != nil {
		s.log.Warn("visitors of this node are told apart by salts of its own for now", "missing", whose, "error", err)
	}
	s.every(saltsEvery, whose, follow)
}
