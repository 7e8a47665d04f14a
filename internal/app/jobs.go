package app

import (
	"context"
	"crypto/rand"
	"fmt"
	"runtime"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/jobs"
	"github.com/terselink/terse/internal/links"
	"github.com/terselink/terse/internal/outbound"
	"github.com/terselink/terse/internal/redisbus"
)

// openJobs finds the jobs and uploads of earlier runs. Nothing runs yet: a job goes on when
// the planes answer.
func (s *server) openJobs(ctx context.Context, a *auth.Service, l *links.Service) error {
	client := outbound.New(outbound.Options{
		Allow: s.cfg.Outbound.Networks(), Ports: s.cfg.Outbound.PortNumbers(), UserAgent: "Terse/" + s.o.Version,
	})
	node, err := s.sharedNode()
	if err != nil {
		return err
	}
	if s.chunks == nil {
		if err := s.openChunks(ctx, node); err != nil {
			return err
		}
	}
	var spread func() jobs.Spread
	if s.chunks != nil {
		spread = func() jobs.Spread { return s.chunks.Open() }
	}
	s.jobs, err = jobs.Open(ctx, jobs.Options{
		Store: s.store, Links: l, Send: client, Workspaces: workspaces(a), Dir: s.cfg.Data, Node: node, Name: s.nodeName(node), Spread: spread, Clock: s.clock, Log: s.log,
		Workers: s.cfg.Jobs.Workers, MaxUpload: int64(s.cfg.Jobs.MaxUploadBytes),
	})
	if err != nil {
		return fmt.Errorf("open jobs: %w", err)
	}
	s.onStop("callbacks", func(context.Context) error { client.Close(); return nil })
	return nil
}

// openChunks prepares the queue by which nodes take part in each other's jobs; nothing if this is the only node.
func (s *server) openChunks(ctx context.Context, node string) error {
	if !s.shares() {
		return nil
	}
	bus, secret, err := s.signedBus(ctx)
	if err != nil {
		return err
	}
	s.chunks, err = redisbus.NewQueue(redisbus.QueueOptions{
		Options: bus, Secret: secret, Version: s.o.Version, Slots: slots(), Log: s.log, Label: s.nodeName(node),
		Name: node + "-" + rand.Text()[:8], // a data folder may be copied
	})
	if err != nil {
		return err
	}
	s.registry.MustRegister(s.chunks)
	s.onStop("queue of chunks", func(context.Context) error { s.chunks.Close(); return nil })
	return nil
}

// slots is how many chunks of other nodes this one has at a time: as many as it runs batches of its own, and half as many again,
// because what a chunk needs before its rows, its place in the ledger, waits for the store too.
func slots() int { return (runtime.NumCPU() + 2) * 3 / 2 }

// apart is how many batches wait for the store without a turn: half of the connections, which look-ups of links use too. A store
// without a pool of connections gets as many as half of the default of one, and the store of this process none.
func apart(c *config.Store) int {
	switch c.Engine {
	case config.EnginePebble:
		return 0
	case config.EnginePostgres:
		return c.Postgres.MaxConns / 2
	}
	return 8
}

// catchUp learns what other nodes have written so far.
func (s *server) catchUp(ctx context.Context) error {
	if hub := s.hub.Load(); hub != nil {
		return hub.CatchUp(ctx)
	}
	return nil
}

// workspaces lists the ids of every workspace, page by page.
func workspaces(a *auth.Service) func(context.Context, terse.WorkspaceID, int) ([]terse.WorkspaceID, error) {
	owner := auth.Identity{Owner: true}
	return func(ctx context.Context, after terse.WorkspaceID, limit int) ([]terse.WorkspaceID, error) {
		list, err := a.ListWorkspaces(ctx, &owner, after, limit)
		ids := make([]terse.WorkspaceID, len(list))
		for i := range list {
			ids[i] = list[i].ID
		}
		return ids, err
	}
}

// startJobs lets jobs run. They stop before the planes drain, so that a stream of their
// events ends and the drain need not wait for it.
func (s *server) startJobs(l *links.Service, a *auth.Service) {
	s.jobs.Start()
	s.onStop("jobs", s.jobs.Stop)
	if s.chunks != nil {
		s.runUntilStop("chunks of jobs", func(ctx context.Context) { s.chunks.Work(ctx, l.RunChunk) })
	}
	page := workspaces(a)
	prune := func(ctx context.Context) error {
		for after := terse.WorkspaceID(0); ; {
			list, err := page(ctx, after, 500)
			if err != nil || len(list) == 0 {
				return err
			}
			for _, w := range list {
				if err := l.PruneLedgers(ctx, w); err != nil {
					return err
				}
				after = w
			}
		}
	}
	s.exclusively(dutyLedgers, func(ctx context.Context) { s.repeat(ctx, time.Hour, "prune ledgers", prune) })
}

// sharedNode names the data folder where other nodes use the store, too; "" if this is the only one.
func (s *server) sharedNode() (string, error) {
	if !s.shares() {
		return "", nil
	}
	return nodeID(s.cfg.Data)
}
