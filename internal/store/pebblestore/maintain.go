package pebblestore

import (
	"context"
	"time"
)

// maintainLoop does the work that nobody waits for. An error is logged and the work tried
// again at the next tick.
func (s *Store) maintainLoop(tick <-chan time.Time) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-s.stop:
		case <-s.failed:
		case <-done:
		}
		cancel()
	}()
	lists := s.lists.Load()
	for {
		select {
		case <-tick:
		case <-ctx.Done():
			return
		}
		now := s.lists.Load()
		idle := now == lists
		lists = now
		if err := s.maintain(ctx, idle); err != nil && ctx.Err() == nil {
			s.opts.Log.Error("store: background work failed", "err", err)
		}
	}
}

// maintain does one round; idle says that no bulk was inserted since the last.
func (s *Store) maintain(ctx context.Context, idle bool) error {
	if err := s.trimFeed(ctx); err != nil {
		return err
	}
	if !idle {
		return nil
	}
	if err := s.catchUp(ctx); err != nil {
		return err
	}
	return s.reclaim(ctx)
}
