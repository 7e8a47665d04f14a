package app

import (
	"context"
	"fmt"
	"time"

	"github.com/terselink/terse/internal/rate"
	"github.com/terselink/terse/internal/redisbus"
)

// ratedKeys bounds the keys that a node remembers while it counts alone.
const ratedKeys = 100_000

// openRates returns what holds keys to api.requests_per_second, over all nodes if there may be others; nil if keys have no limit. It may
// be called again after an error.
func (s *server) openRates(ctx context.Context) (func(ctx context.Context, key string) time.Duration, error) {
	if s.cfg.API.RequestsPerSecond == 0 {
		return nil, nil
	}
	var all rate.Counter
	if s.shares() {
		instance, err := instanceID(ctx, s.store)
		if err != nil {
			return nil, err
		}
		rates, err := redisbus.NewRates(busOptions(s.cfg, instance))
		if err != nil {
			return nil, fmt.Errorf("rates of keys: %w", err)
		}
		s.onStop("rates of keys", func(context.Context) error { rates.Close(); return nil })
		all = rates
	}
	l := rate.NewLimiter(rate.Limit{PerSecond: s.cfg.API.RequestsPerSecond, Burst: s.cfg.API.RequestBurst}, all, rate.NewTable(ratedKeys, time.Now), s.log)
	s.registry.MustRegister(l)
	return l.Take, nil
}
