package child

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
)

// metrics are what the supervisor shows to Prometheus.
type metrics struct {
	s        *Supervisor
	up       *prometheus.Desc
	rebuilt  *prometheus.Desc
	restarts *prometheus.Desc
	aside    *prometheus.Desc
	lag      *prometheus.Desc
	rows     *prometheus.Desc
	rejected *prometheus.Desc
	damaged  *prometheus.Desc
	record   *prometheus.Desc
	sweeps   *prometheus.Desc
	seconds  *prometheus.HistogramVec
	failures *prometheus.CounterVec
}

func newMetrics(s *Supervisor) *metrics {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("terse_analytics_"+name, help, nil, nil)
	}
	m := &metrics{
		s:        s,
		up:       desc("up", "1 if the analytics process answers."),
		rebuilt:  desc("rebuilding", "1 while a new analytics file is filled from the recorded clicks."),
		restarts: desc("restarts_total", "How often the analytics process was started again."),
		aside:    desc("set_aside_total", "How often the analytics file was set aside as unusable."),
		lag:      desc("lag_seconds", "Age of the newest click that can be queried, while there are newer ones."),
		rows:     desc("clicks", "Clicks stored."),
		rejected: desc("rejected_clicks", "Clicks that no table could hold, since the process started."),
		record:   desc("record_failures_total", "Failed attempts to move clicks into the record, since the process started."),
		sweeps:   desc("sweeps", "Sweeps found among clicks that had passed for people, since the process started."),
		damaged:  desc("spool_quarantined", "Damaged places met in the spool, since the process started."),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "terse_analytics_query_seconds", Help: "Duration of queries.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}, []string{"op"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "terse_analytics_query_failures_total",
			Help: "Queries that were not answered, by error code."}, []string{"op", "code"}),
	}
	for _, op := range []string{"summary", "timeseries", "breakdown", "slots", "clicks", "funnel", "conversions", "put_facts", "link_totals", "erase"} {
		m.seconds.WithLabelValues(op)
	}
	return m
}

// observe runs one query of the child and measures it.
func observe[T any](s *Supervisor, op string, fn func() (T, error)) (r T, err error) {
	start := s.o.Clock()
	if err = s.ready(); err == nil {
		r, err = fn()
	}
	s.metrics.seconds.WithLabelValues(op).Observe(s.o.Clock().Sub(start).Seconds())
	if err != nil {
		s.metrics.failures.WithLabelValues(op, string(terse.ErrorCode(err))).Inc()
	}
	return r, err
}

// Describe implements prometheus.Collector.
func (s *Supervisor) Describe(ch chan<- *prometheus.Desc) {
	m := s.metrics
	for _, d := range []*prometheus.Desc{m.up, m.rebuilt, m.restarts, m.aside, m.lag, m.rows, m.rejected, m.damaged, m.record, m.sweeps} {
		ch <- d
	}
	m.seconds.Describe(ch)
	m.failures.Describe(ch)
}

// Collect implements prometheus.Collector. It tells what was last heard and asks nobody.
func (s *Supervisor) Collect(ch chan<- prometheus.Metric) {
	m, st := s.metrics, s.status(s.isOpen())
	s.mu.Lock()
	restarts, aside, last := s.restarts, s.aside, s.last
	s.mu.Unlock()
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	counter := func(d *prometheus.Desc, v int64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
	gauge(m.up, oneIf(st.State != analytics.StateDown))
	gauge(m.rebuilt, oneIf(st.State == analytics.StateRebuilding))
	counter(m.restarts, restarts)
	counter(m.aside, aside)
	gauge(m.lag, float64(st.LagMs)/1000)
	gauge(m.rows, float64(st.Rows))
	gauge(m.rejected, float64(last.Rejected))
	gauge(m.damaged, float64(last.Quarantined))
	gauge(m.record, float64(last.RecordErrors))
	gauge(m.sweeps, float64(last.Sweeps))
	m.seconds.Collect(ch)
	m.failures.Collect(ch)
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
