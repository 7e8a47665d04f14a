package api

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse/internal/links"
)

// metrics of the control plane. Every child is resolved when the server is made: no
// label comes from a request.
type metrics struct {
	inFlight prometheus.Gauge
	panics   prometheus.Counter
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	rows     *prometheus.CounterVec

	operations               map[string]*operationMetrics // never changes after New
	created, reused, rowsBad prometheus.Counter
}

type operationMetrics struct {
	status  [6]prometheus.Counter // by class: status[4] counts 4xx
	seconds prometheus.Observer
}

// noOperation counts what is no operation: health, documents, unknown paths.
const noOperation = "other"

func newMetrics() *metrics {
	m := &metrics{
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "terse_api_requests_in_flight", Help: "Requests of the control plane under way."}),
		panics:   prometheus.NewCounter(prometheus.CounterOpts{Name: "terse_api_panics_total", Help: "Handlers of the control plane that ended in a panic."}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "terse_api_requests_total", Help: "Answers of the control plane."}, []string{"operation", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "terse_api_request_seconds", Help: "Time to answer, without bulk requests.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}, []string{"operation"}),
		rows:       prometheus.NewCounterVec(prometheus.CounterOpts{Name: "terse_bulk_rows_total", Help: "Rows of bulk requests that ended."}, []string{"result"}),
		operations: map[string]*operationMetrics{},
	}
	m.created, m.reused, m.rowsBad = m.rows.WithLabelValues("created"), m.rows.WithLabelValues("reused"), m.rows.WithLabelValues("failed")
	m.add(noOperation)
	return m
}

// add resolves the children of an operation.
func (m *metrics) add(id string) {
	o := &operationMetrics{seconds: m.seconds.WithLabelValues(id)}
	for class := 1; class < len(o.status); class++ {
		o.status[class] = m.requests.WithLabelValues(id, strconv.Itoa(class)+"xx")
	}
	m.operations[id] = o
}

func (m *metrics) observe(id string, status int, took time.Duration) {
	o, ok := m.operations[id]
	if !ok {
		o = m.operations[noOperation]
	}
	if class := status / 100; class > 0 && class < len(o.status) {
		o.status[class].Inc()
	}
	if id != bulkOperation.ID {
		o.seconds.Observe(took.Seconds())
	}
}

func (m *metrics) bulk(sum links.BulkSummary) {
	m.created.Add(float64(sum.Created))
	m.reused.Add(float64(sum.Reused))
	m.rowsBad.Add(float64(sum.Failed))
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.inFlight, m.panics, m.requests, m.seconds, m.rows}
}

// Describe implements prometheus.Collector.
func (s *Server) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range s.metrics.all() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	for _, c := range s.metrics.all() {
		c.Collect(ch)
	}
}
