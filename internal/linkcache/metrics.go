package linkcache

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

type counters struct {
	hits, misses, behind, old, errors, skipped atomic.Uint64
	kept, refused, dropped, begun, stepErrors  atomic.Uint64
}

var (
	descLookups = prometheus.NewDesc("terse_link_cache_lookups_total",
		"Look-ups in the link cache of Redis: hit, miss, behind (it had not followed the feed as far as this node), old (this node knew of a newer version), error, skipped (it had just failed, or was too busy). All but hits ask the database.",
		[]string{"result"}, nil)
	descPuts = prometheus.NewDesc("terse_link_cache_puts_total",
		"Links that were read from the database, for the link cache of Redis: kept, refused (they might have been old), dropped.", []string{"result"}, nil)
	descBegun  = prometheus.NewDesc("terse_link_cache_begun_total", "Times that this node had the link cache begin empty.", nil, nil)
	descErrors = prometheus.NewDesc("terse_link_cache_errors_total", "Times that this node could not have the link cache follow the feed.", nil, nil)
	descUsed   = prometheus.NewDesc("terse_link_cache_used", "1 if the link cache of Redis is used.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *Cache) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descLookups, descPuts, descBegun, descErrors, descUsed} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Cache) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, v *atomic.Uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v.Load()), labels...)
	}
	count(descLookups, &c.stats.hits, "hit")
	count(descLookups, &c.stats.misses, "miss")
	count(descLookups, &c.stats.behind, "behind")
	count(descLookups, &c.stats.old, "old")
	count(descLookups, &c.stats.errors, "error")
	count(descLookups, &c.stats.skipped, "skipped")
	count(descPuts, &c.stats.kept, "kept")
	count(descPuts, &c.stats.refused, "refused")
	count(descPuts, &c.stats.dropped, "dropped")
	count(descBegun, &c.stats.begun)
	count(descErrors, &c.stats.stepErrors)
	used := 0.0
	if c.epoch.Load() != nil {
		used = 1
	}
	ch <- prometheus.MustNewConstMetric(descUsed, prometheus.GaugeValue, used)
}
