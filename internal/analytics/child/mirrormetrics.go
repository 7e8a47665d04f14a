package child

import (
	"github.com/prometheus/client_golang/prometheus"
)

// mirrorMetrics show how far the record store is behind the record on the local disk.
type mirrorMetrics struct {
	s        *Supervisor
	pending  *prometheus.Desc
	bytes    *prometheus.Desc
	uploads  *prometheus.Desc
	deletes  *prometheus.Desc
	failures *prometheus.Desc
	down     *prometheus.Desc
	equal    *prometheus.Desc
}

// RecordMetrics returns what the supervisor shows of the record store, if there is one.
func (s *Supervisor) RecordMetrics() prometheus.Collector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("terse_record_store_"+name, help, nil, nil)
	}
	return &mirrorMetrics{
		s:        s,
		pending:  desc("pending_files", "Files of the record that are still to be sent to the record store, or deleted there."),
		bytes:    desc("pending_bytes", "Bytes that are still to be sent to the record store."),
		uploads:  desc("uploads", "Files sent to the record store since the analytics process started."),
		deletes:  desc("deletes", "Files deleted in the record store since the analytics process started."),
		failures: desc("failures", "Rounds of the record store that failed since the analytics process started."),
		down:     desc("failing_seconds", "For how long every round of the record store has failed; 0: the last one did not."),
		equal:    desc("equal_timestamp_seconds", "When the record store last had everything that the record has."),
	}
}

// Describe implements prometheus.Collector.
func (m *mirrorMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.pending, m.bytes, m.uploads, m.deletes, m.failures, m.down, m.equal} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *mirrorMetrics) Collect(ch chan<- prometheus.Metric) {
	st := m.s.Mirrored()
	show := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	show(m.pending, float64(st.Pending))
	show(m.bytes, float64(st.PendingBytes))
	show(m.uploads, float64(st.Uploads))
	show(m.deletes, float64(st.Deletes))
	show(m.failures, float64(st.Failures))
	down := 0.0
	if st.Since != 0 {
		down = m.s.o.Clock().Sub(st.Since.Time()).Seconds()
	}
	show(m.down, down)
	show(m.equal, float64(st.Equal)/1000)
}
