package edge

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// counters are what a Store counts.
type counters struct {
	copied, asked, absent, stale, failed, changes atomic.Uint64
}

var (
	descReads   = prometheus.NewDesc("terse_edge_link_reads_total", "Links that were not in memory, by where they came from: copy, upstream, absent (upstream says so), stale (upstream is away), failed.", []string{"from"}, nil)
	descBehind  = prometheus.NewDesc("terse_edge_behind_seconds", "Time since the changes of the upstream control plane were read.", nil, nil)
	descBytes   = prometheus.NewDesc("terse_edge_copy_bytes", "What the links in the copy on disk take, about.", nil, nil)
	descEvicted = prometheus.NewDesc("terse_edge_evicted_total", "Links that the copy had no room for.", nil, nil)
	descChanges = prometheus.NewDesc("terse_edge_changes_total", "Changes and deletions of links that were applied.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *Store) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descReads, descBehind, descBytes, descEvicted, descChanges} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *Store) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	for from, n := range map[string]*atomic.Uint64{
		"copy": &s.stats.copied, "upstream": &s.stats.asked, "absent": &s.stats.absent, "stale": &s.stats.stale, "failed": &s.stats.failed,
	} {
		count(descReads, n.Load(), from)
	}
	at := s.heard.Load()
	if at == 0 {
		at = int64(s.copy.state.Load().FollowedAt)
	}
	gauge(descBehind, time.Since(time.UnixMilli(at)).Seconds())
	gauge(descBytes, float64(s.copy.bytes.Load()))
	count(descEvicted, s.copy.evicted.Load())
	count(descChanges, s.stats.changes.Load())
}
