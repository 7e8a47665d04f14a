package clickhouse

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse"
)

// metrics are those of one engine. What every engine has is named terse_analytics_, the rest terse_clickhouse_.
type metrics struct {
	queries     *prometheus.HistogramVec
	failed      *prometheus.CounterVec
	clicks      prometheus.Counter
	inserts     prometheus.Histogram
	doubted     prometheus.Counter
	twice       prometheus.Counter
	swept       prometheus.Counter
	restarts    prometheus.Counter
	maintenance prometheus.Counter
	gauges      []prometheus.Collector
}

func newMetrics(e *Engine) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "terse_clickhouse_" + name, Help: help})
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	return &metrics{
		queries: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "terse_analytics_query_seconds", Help: "Duration of queries.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}, []string{"op"}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "terse_analytics_query_failures_total", Help: "Queries that were not answered, by error code."}, []string{"op", "code"}),
		clicks: counter("clicks_total", "Clicks that were written."),
		inserts: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "terse_clickhouse_insert_seconds", Help: "Time of inserts of clicks.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}}),
		doubted:     counter("clicks_found_total", "Clicks of inserts with an unknown outcome that were found written."),
		twice:       counter("clicks_twice_total", "Clicks that an audit found stored twice and took out."),
		swept:       counter("swept_clicks_total", "Clicks that had passed for people and turned out to be of sweeps."),
		restarts:    counter("restarts_total", "How often work with the server ended with an error and was begun again."),
		maintenance: counter("maintenance_errors_total", "Maintenance of the tables that failed and is tried again."),
		gauges: []prometheus.Collector{
			gauge("terse_analytics_lag_seconds", "Clicks older than this can be queried.", func() float64 { return float64(e.lag()) / 1000 }),
			gauge("terse_analytics_up", "1 while the ClickHouse server is in use.", func() float64 {
				e.mu.RLock()
				defer e.mu.RUnlock()
				if e.detail == "" {
					return 1
				}
				return 0
			}),
			gauge("terse_analytics_rejected_clicks", "Clicks that no table could hold, since the process started.", func() float64 { return float64(e.Rejected()) }),
		},
	}
}

func (m *metrics) asked(op string, took time.Duration, err error) {
	m.queries.WithLabelValues(op).Observe(took.Seconds())
	if err != nil {
		m.failed.WithLabelValues(op, string(terse.ErrorCode(err))).Inc()
	}
}

func (m *metrics) inserted(n int, took time.Duration) {
	m.clicks.Add(float64(n))
	m.inserts.Observe(took.Seconds())
}

func (m *metrics) all() []prometheus.Collector {
	return append([]prometheus.Collector{m.queries, m.failed, m.clicks, m.inserts, m.doubted, m.twice, m.swept, m.restarts, m.maintenance}, m.gauges...)
}

// Describe implements prometheus.Collector.
func (e *Engine) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range e.metrics.all() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (e *Engine) Collect(ch chan<- prometheus.Metric) {
	for _, c := range e.metrics.all() {
		c.Collect(ch)
	}
}
