package clickstream

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse/internal/sleep"
)

// State is how much the stream holds.
type State struct {
	Entries int64 // in the stream, those that are done and not trimmed yet too
	Lag     int64 // not handed out yet; 0 where the server does not know
	Pending int64 // handed out and not stored
	Aside   int64 // set aside
}

// Watched is what a Monitor asks.
type Watched interface {
	State(ctx context.Context) (State, error)
}

// watchEvery is how often a Monitor asks.
const watchEvery = 5 * time.Second

// Monitor tells the metrics what the stream holds. It is a prometheus.Collector.
type Monitor struct {
	w    Watched
	last atomic.Pointer[State] // nil: not known
}

// NewMonitor returns a Monitor that knows nothing yet.
func NewMonitor(w Watched) *Monitor { return &Monitor{w: w} }

// Run asks until ctx ends.
func (m *Monitor) Run(ctx context.Context) {
	for {
		if st, err := m.w.State(ctx); err == nil {
			m.last.Store(&st)
		} else {
			m.last.Store(nil)
		}
		if sleep.For(ctx, watchEvery) != nil {
			return
		}
	}
}

var (
	descEntries = prometheus.NewDesc("terse_click_stream_entries", "Entries in the stream of clicks, those of a second before their trimming too. Every node says the same.", nil, nil)
	descLag     = prometheus.NewDesc("terse_click_stream_lag", "Entries that were not handed to the node that counts yet (Redis 7).", nil, nil)
	descPending = prometheus.NewDesc("terse_click_stream_pending", "Entries that were handed out and are not stored.", nil, nil)
	descAside   = prometheus.NewDesc("terse_click_stream_aside", "Entries that were set aside.", nil, nil)
)

// Describe implements prometheus.Collector.
func (m *Monitor) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descEntries, descLag, descPending, descAside} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. What is not known is left out.
func (m *Monitor) Collect(ch chan<- prometheus.Metric) {
	st := m.last.Load()
	if st == nil {
		return
	}
	for d, n := range map[*prometheus.Desc]int64{descEntries: st.Entries, descLag: st.Lag, descPending: st.Pending, descAside: st.Aside} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n))
	}
}
