package clicks

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Stats are counters since Open. Captured + Appended = Spooled + the sum of Dropped + what
// is in memory, at any moment without captures.
type Stats struct {
	Captured     uint64 // clicks handed to Capture and CaptureSync
	Appended     uint64 // clicks of other recorders, handed to Append
	Dropped      DropStats
	Spooled      uint64 // clicks written to the spool
	Held         uint64 // in memory, counted by link until there is room in the spool
	Groups       uint64 // group commits
	Bytes        uint64 // written to the spool
	Segments     uint64 // segments begun
	DirBytes     int64  // size of all segments on disk, measured at every SyncEvery
	Syncs        uint64
	WriteErrors  uint64
	SyncErrors   uint64
	SyncTimeouts uint64 // CaptureSync returned before the fsync
}

// DropStats are clicks not recorded, by reason.
type DropStats struct {
	BufferFull uint64 // the buffer of the shard was full: the disk is slow, full or failing
	SpoolFull  uint64 // the spool was at its cap, and the click of no link or of too many
	Totals     uint64 // the same: represented by the weight of a row for its link
	Bots       uint64 // spool above 80 % of its cap: bots are not recorded
	Sampled    uint64 // spool above 95 %: represented by the weight of others
	Disk       uint64 // the disk refused them until Close
	Closed     uint64 // captured after Close
}

// Sum returns all clicks not recorded.
func (d DropStats) Sum() uint64 {
	return d.BufferFull + d.SpoolFull + d.Bots + d.Sampled + d.Totals + d.Disk + d.Closed
}

// counters are written by the writer and the syncer; those of Capture are in the shards.
type counters struct {
	spoolFull, bots, sampled, disk   atomic.Uint64
	totals, held                     atomic.Uint64
	spooled, groups, bytes, segments atomic.Uint64
	syncs, writeErrors, syncErrors   atomic.Uint64
	syncTimeouts, appended           atomic.Uint64
}

// Stats returns the counters.
func (r *Recorder) Stats() Stats {
	c := &r.stats
	s := Stats{
		Dropped: DropStats{
			SpoolFull: c.spoolFull.Load(), Bots: c.bots.Load(), Sampled: c.sampled.Load(), Totals: c.totals.Load(), Disk: c.disk.Load(),
		},
		Spooled: c.spooled.Load(), Held: c.held.Load(), Groups: c.groups.Load(), Bytes: c.bytes.Load(), Segments: c.segments.Load(),
		DirBytes: r.dirBytes.Load(), Syncs: c.syncs.Load(), WriteErrors: c.writeErrors.Load(), SyncErrors: c.syncErrors.Load(),
		SyncTimeouts: c.syncTimeouts.Load(), Appended: c.appended.Load(),
	}
	for i := range r.shards {
		sh := &r.shards[i]
		sh.mu.Lock()
		s.Captured += sh.captured
		s.Dropped.BufferFull += sh.full
		s.Dropped.Closed += sh.late
		sh.mu.Unlock()
	}
	return s
}

var (
	descCaptured = prometheus.NewDesc("terse_clicks_captured_total", "Redirect decisions handed to the click recorder.", nil, nil)
	descAppended = prometheus.NewDesc("terse_clicks_appended_total", "Clicks of edge nodes, added to the spool of this one.", nil, nil)
	descDropped  = prometheus.NewDesc("terse_clicks_dropped_total", "Clicks not recorded, by reason.", []string{"reason"}, nil)
	descSpooled  = prometheus.NewDesc("terse_clicks_spooled_total", "Clicks written to the spool.", nil, nil)
	descHeld     = prometheus.NewDesc("terse_clicks_held", "Clicks counted by link in memory until the spool has room.", nil, nil)
	descGroups   = prometheus.NewDesc("terse_spool_groups_total", "Group commits.", nil, nil)
	descBytes    = prometheus.NewDesc("terse_spool_written_bytes_total", "Bytes written to the spool.", nil, nil)
	descDir      = prometheus.NewDesc("terse_spool_bytes", "Size of the spool on disk.", nil, nil)
	descSyncs    = prometheus.NewDesc("terse_spool_syncs_total", "Fsyncs of the spool.", nil, nil)
	descErrors   = prometheus.NewDesc("terse_spool_errors_total", "Failed writes and fsyncs of the spool.", []string{"op"}, nil)
	descTimeouts = prometheus.NewDesc("terse_spool_sync_timeouts_total", "Redirects answered before the fsync of their click.", nil, nil)
)

var _ prometheus.Collector = (*Recorder)(nil)

// Describe implements prometheus.Collector.
func (r *Recorder) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descCaptured, descAppended, descDropped, descSpooled, descHeld, descGroups, descBytes, descDir, descSyncs, descErrors, descTimeouts} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (r *Recorder) Collect(ch chan<- prometheus.Metric) {
	s := r.Stats()
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	count(descCaptured, s.Captured)
	count(descAppended, s.Appended)
	count(descDropped, s.Dropped.BufferFull, "buffer_full")
	count(descDropped, s.Dropped.SpoolFull, "spool_full")
	count(descDropped, s.Dropped.Bots, "bots")
	count(descDropped, s.Dropped.Sampled, "sampled")
	count(descDropped, s.Dropped.Totals, "totals")
	count(descDropped, s.Dropped.Disk, "disk")
	count(descDropped, s.Dropped.Closed, "closed")
	count(descSpooled, s.Spooled)
	ch <- prometheus.MustNewConstMetric(descHeld, prometheus.GaugeValue, float64(s.Held))
	count(descGroups, s.Groups)
	count(descBytes, s.Bytes)
	ch <- prometheus.MustNewConstMetric(descDir, prometheus.GaugeValue, float64(s.DirBytes))
	count(descSyncs, s.Syncs)
	count(descErrors, s.WriteErrors, "write")
	count(descErrors, s.SyncErrors, "sync")
	count(descTimeouts, s.SyncTimeouts)
}
