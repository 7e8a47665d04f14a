package app

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/terselink/terse/internal/analytics/clickhouse"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/clickstream"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/redisbus"
)

// clickStreams are what this process has to do with clicks that go through Redis. Until the store has answered nobody knows the name
// of the instance, and so of the stream: clicks wait in the spool.
type clickStreams struct {
	counters *clickstream.Counters
	remote   *redisbus.Clicks // set before opened is closed; nil: there is none
	opened   chan struct{}
	sender   atomic.Pointer[clickstream.Sender] // nil: not open yet, or this node records no clicks
	stop     func()                             // ends the sender's Run; of the goroutine that starts and stops
}

func newClickStreams() *clickStreams {
	return &clickStreams{counters: clickstream.NewCounters(), opened: make(chan struct{})}
}

// trouble says why the clicks of this node do not arrive; "" if they do.
func (c *clickStreams) trouble() string {
	if s := c.sender.Load(); s != nil {
		return s.Trouble()
	}
	return ""
}

// stored returns the place in the spool up to which clicks are with the engine.
func (c *clickStreams) stored() clicks.Position {
	if s := c.sender.Load(); s != nil {
		return s.Stored()
	}
	return clicks.Position{}
}

// close ends the connection to the stream, which who uses it has left by then.
func (c *clickStreams) close() {
	if c.remote != nil {
		c.remote.Close()
	}
}

// forShipping returns the configuration of a node that sends its clicks through Redis and answers no questions.
func forShipping(cfg *config.Config) *config.Config {
	if !cfg.ShipsClicks() {
		return cfg
	}
	c := *cfg
	c.Analytics.Enabled = false
	return &c
}

// spoolIntoStreams prepares a node that records clicks: another one, or another part of this one, counts them.
func (s *server) spoolIntoStreams(ctx context.Context, spool string) error {
	if s.cfg.Analytics.Enabled {
		if err := s.startAnalytics(ctx, ""); err != nil {
			return err
		}
		s.onStop("analytics", s.analytics.Stop)
	}
	// After the spool was closed, so that the last clicks go, too.
	s.onStop("last clicks", func(stop context.Context) error {
		sender := s.streams.sender.Load()
		if sender == nil {
			return nil
		}
		s.streams.stop()
		stop, cancel := context.WithTimeout(stop, lastClicksWithin)
		defer cancel()
		if err := sender.Finish(stop); err != nil {
			s.log.Warn("the last clicks were not sent: the next start sends them", "error", err)
		}
		return nil
	})
	s.every(time.Minute, "trim click spool", func(context.Context) error {
		_, err := clicks.Trim(clicks.TrimOptions{
			Dir: spool, Committed: s.streams.stored(), Keep: s.cfg.Clicks.KeepSegments, MaxBytes: int64(s.cfg.Clicks.MaxBytes), Now: time.Now(),
		})
		return err
	})
	return nil
}

// leastAside is for how long a copy of an entry that was set aside is kept at least: people have to see it.
const leastAside = 24 * time.Hour

// openClickStreams connects what records clicks and what counts them with the stream of the instance.
func (s *server) openClickStreams(ctx context.Context) error {
	if !s.cfg.Redis.ClickStreams {
		return nil
	}
	bus, secret, err := s.signedBus(ctx)
	if err != nil {
		return err
	}
	remote, err := redisbus.NewClicks(redisbus.ClicksOptions{
		Options: bus, Secret: secret, KeepAside: max(s.cfg.Clicks.KeepSegments, leastAside), Log: s.log,
	})
	if err != nil {
		return err
	}
	monitor := clickstream.NewMonitor(remote)
	s.registry.MustRegister(monitor, s.streams.counters, remote.Refused())
	s.runUntilStop("look at the stream of clicks", monitor.Run)
	if s.recorder != nil {
		name, err := spoolName(filepath.Join(s.cfg.Data, spoolNameFile))
		if err != nil {
			return err
		}
		sender := clickstream.NewSender(clickstream.SenderOptions{Remote: remote, Dir: filepath.Join(s.cfg.Data, spoolDir), Spool: name, Log: s.log})
		s.registry.MustRegister(sender)
		run, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); sender.Run(run) }()
		s.streams.stop = func() { cancel(); <-done }
		s.streams.sender.Store(sender)
	}
	s.streams.remote = remote
	close(s.streams.opened)
	return nil
}

// receiverClosesWithin bounds the last words of a receiver.
const receiverClosesWithin = 2 * time.Second

// countStreams hands the clicks of all nodes to the engine while no other process does.
func (s *server) countStreams(ctx context.Context, e *clickhouse.Engine) error {
	select {
	case <-s.streams.opened:
	case <-ctx.Done():
		return nil
	}
	for ctx.Err() == nil {
		held, err := s.locks.Acquire(ctx, dutyClicks)
		if err != nil { // ctx has ended
			return nil
		}
		err = s.countHeld(held.Context(), e)
		held.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// countHeld does so until ctx ends.
func (s *server) countHeld(ctx context.Context, e *clickhouse.Engine) error {
	r, err := clickstream.NewReceiver(clickstream.ReceiverOptions{Remote: s.streams.remote, Place: e.Place, Counters: s.streams.counters, Log: s.log, Enrich: enrichSettings(s.cfg)})
	if err != nil {
		return fmt.Errorf("read the stream of clicks: %w", err)
	}
	err = e.IngestFeed(ctx, r)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), receiverClosesWithin)
	defer cancel()
	r.Close(last)
	return err
}
