package pgstore

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Collector returns the store's metrics for Prometheus.
func (s *Store) Collector() prometheus.Collector { return &collector{s} }

type collector struct{ s *Store }

func describe(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("terse_store_postgres_"+name, help, nil, nil)
}

var (
	descLinks   = describe("links_inserted_total", "Links inserted.")
	descCommits = describe("commits_total", "Transactions that were committed.")
	descRetried = describe("retried_total", "Transactions that were run again after they met another.")
	descUnknown = describe("unknown_outcomes_total", "Writes whose connection was lost while they committed.")
	descConns   = describe("connections", "Open connections to the primary.")
	descBusy    = describe("connections_busy", "Connections to the primary that are in use.")
	descWaits   = describe("connection_waits_total", "Calls that had to wait for a connection.")
	descReplica = describe("replica_usable", "1 if redirects read from the replica now.")
	descBehind  = describe("replica_behind_seconds", "For how long the replica may not have what was committed on the primary, as measured every second; absent while nothing is known of it.")
	descServed  = describe("replica_reads_total", "Reads that the replica answered; the primary was asked for all others.")
	descMissed  = describe("replica_unanswered_total", "Reads that the replica did not answer within a third of their time, or with an error; the primary was asked then.")
	descHeld    = describe("feed_held_seconds", "For how long the oldest open transaction of the server that has written is known to hold up the feed of changes; 0 if there is none. Measured every 5 s.")
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descLinks, descCommits, descRetried, descUnknown, descConns, descBusy, descWaits, descReplica, descBehind, descServed, descMissed, descHeld} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. What is not known is left out.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, v uint64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	count(descLinks, c.s.inserted.Load())
	count(descCommits, c.s.commits.Load())
	count(descRetried, c.s.retried.Load())
	count(descUnknown, c.s.unknown.Load())
	st := c.s.pool.Stat()
	gauge(descConns, float64(st.TotalConns()))
	gauge(descBusy, float64(st.AcquiredConns()))
	count(descWaits, uint64(st.EmptyAcquireCount()))
	if r := c.s.replica; r != nil {
		usable := 0.0
		now := time.Now()
		if r.usable(now) {
			usable = 1
		}
		gauge(descReplica, usable)
		if behind, known := r.behind(now); known {
			gauge(descBehind, behind.Seconds())
		}
		count(descServed, r.served.Load())
		count(descMissed, r.unanswered.Load())
	}
	if held, known := c.s.held.measured(); known {
		gauge(descHeld, held.Seconds())
	}
}
