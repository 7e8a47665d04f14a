package pebblestore

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// counters are what the store counts by itself.
type counters struct {
	links, commits                        atomic.Uint64
	backgroundErrors, corruptions, stalls atomic.Uint64
}

// Collector returns the store's metrics for Prometheus. A store that has failed or is closed
// reports its own counters only.
func (s *Store) Collector() prometheus.Collector { return &collector{s} }

type collector struct{ s *Store }

type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func describe(name, help string, kind prometheus.ValueType) metric {
	return metric{prometheus.NewDesc("terse_store_pebble_"+name, help, nil, nil), kind}
}

var (
	metricFailed      = describe("failed", "1 after an error of the disk that only a new start can mend.", prometheus.GaugeValue)
	metricLinks       = describe("links_inserted_total", "Links inserted.", prometheus.CounterValue)
	metricCommits     = describe("commits_total", "Synced write operations.", prometheus.CounterValue)
	metricQueue       = describe("index_queue", "Bulk inserts that are not indexed yet.", prometheus.GaugeValue)
	metricBackground  = describe("background_errors_total", "Failed flushes and compactions, which are tried again.", prometheus.CounterValue)
	metricCorruptions = describe("corruptions_total", "Damaged files found.", prometheus.CounterValue)
	metricStalls      = describe("write_stalls_total", "Times that writes waited for flushes or compactions.", prometheus.CounterValue)
	metricDisk        = describe("disk_bytes", "Bytes on disk.", prometheus.GaugeValue)
	metricWAL         = describe("wal_bytes", "Bytes of the write-ahead log on disk.", prometheus.GaugeValue)
	metricMem         = describe("memtable_bytes", "Bytes of tables in memory.", prometheus.GaugeValue)
	metricReadAmp     = describe("read_amplification", "Tables that a read of a missing key may touch.", prometheus.GaugeValue)
	metricDebt        = describe("compaction_debt_bytes", "Bytes that compactions are behind.", prometheus.GaugeValue)
	metricCacheHits   = describe("block_cache_hits_total", "Block cache hits.", prometheus.CounterValue)
	metricCacheMisses = describe("block_cache_misses_total", "Block cache misses.", prometheus.CounterValue)
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range []metric{
		metricFailed, metricLinks, metricCommits, metricQueue, metricBackground, metricCorruptions, metricStalls,
		metricDisk, metricWAL, metricMem, metricReadAmp, metricDebt, metricCacheHits, metricCacheMisses,
	} {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.s
	send := func(m metric, v float64) { ch <- prometheus.MustNewConstMetric(m.desc, m.kind, v) }
	failed := 0.0
	if s.Err() != nil {
		failed = 1
	}
	send(metricFailed, failed)
	send(metricLinks, float64(s.counters.links.Load()))
	send(metricCommits, float64(s.counters.commits.Load()))
	send(metricQueue, float64(s.queued.Load()))
	send(metricBackground, float64(s.counters.backgroundErrors.Load()))
	send(metricCorruptions, float64(s.counters.corruptions.Load()))
	send(metricStalls, float64(s.counters.stalls.Load()))
	// A failed Pebble may hold its lock for ever, and a scrape must not hang on it.
	if failed != 0 || !s.calls.TryRLock() {
		return
	}
	defer s.calls.RUnlock()
	if s.closed.Load() {
		return
	}
	m := s.db.Metrics()
	send(metricDisk, float64(m.DiskSpaceUsage()))
	send(metricWAL, float64(m.WAL.PhysicalSize))
	send(metricMem, float64(m.MemTable.Size))
	send(metricReadAmp, float64(m.ReadAmp()))
	send(metricDebt, float64(m.Compact.EstimatedDebt))
	send(metricCacheHits, float64(m.BlockCache.Hits))
	send(metricCacheMisses, float64(m.BlockCache.Misses))
}
