package redirect

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse/internal/clicks"
)

// counter names one number that the plane counts. The first eight are clicks.Outcome.
type counter uint8

const (
	countRedirect     = counter(clicks.OutcomeRedirect)
	countExpired      = counter(clicks.OutcomeExpired)
	countDisabled     = counter(clicks.OutcomeDisabled)
	countNotFound     = counter(clicks.OutcomeNotFound)
	countLimit        = counter(clicks.OutcomeLimit)
	countPassword     = counter(clicks.OutcomePassword)
	countBlocked      = counter(clicks.OutcomeBlocked)
	countPreview      = counter(clicks.OutcomePreview)
	countRoot         = counter(8)
	countSystem       = counter(9)
	countHealth       = counter(10)
	countUnknownHost  = counter(11)
	countMethod       = counter(12)
	countMalformed    = counter(13)
	countUnavailable  = counter(14)
	countPanic        = counter(15)
	countCacheHit     = counter(16)
	countCacheMiss    = counter(17)
	countClickDropped = counter(18)
	countRefused      = counter(19)
	countAhead        = counter(20)
	counterCount      = 24 // three cache lines
)

// answers names the counters that are answers to requests; each request is exactly one of them.
var answers = [...]struct {
	counter counter
	label   string
}{
	{countRedirect, "redirect"}, {countExpired, "expired"}, {countDisabled, "disabled"}, {countNotFound, "not_found"},
	{countLimit, "limit"}, {countBlocked, "blocked"}, {countPassword, "password"}, {countPreview, "preview"}, {countRoot, "root"}, {countSystem, "system"}, {countHealth, "health"},
	{countUnknownHost, "unknown_host"}, {countMethod, "method"}, {countMalformed, "malformed"},
	{countUnavailable, "unavailable"}, {countAhead, "ahead"}, {countPanic, "panic"},
}

const metricShards = 32

// metrics counts without a shared cache line: a connection counts into its own
// shard, a scrape adds the shards up.
type metrics struct {
	shards     [metricShards][counterCount]atomic.Uint64
	acceptErrs atomic.Uint64
}

func (m *metrics) add(shard uint32, c counter) { m.shards[shard%metricShards][c].Add(1) }

func (m *metrics) sum(c counter) (n uint64) {
	for i := range m.shards {
		n += m.shards[i][c].Load()
	}
	return n
}

// Visitors returns how many requests were redirected since the start.
func (s *Server) Visitors() uint64 { return s.metrics.sum(countRedirect) }

var (
	descRequests   = prometheus.NewDesc("terse_redirect_requests_total", "Requests answered by the redirect plane, by outcome.", []string{"outcome"}, nil)
	descCache      = prometheus.NewDesc("terse_redirect_cache_total", "Look-ups of links, by result.", []string{"result"}, nil)
	descLoads      = prometheus.NewDesc("terse_redirect_loads_total", "Reads of links from the store, by result.", []string{"result"}, nil)
	descStale      = prometheus.NewDesc("terse_redirect_stale_total", "Answers from links that were kept before the start, because the store did not answer.", nil, nil)
	descTimeouts   = prometheus.NewDesc("terse_redirect_load_timeouts_total", "Requests that gave up waiting for a read.", nil, nil)
	descEntries    = prometheus.NewDesc("terse_redirect_cache_entries", "Entries of the link cache, by kind.", []string{"kind"}, nil)
	descBytes      = prometheus.NewDesc("terse_redirect_cache_bytes", "Estimated memory of the link cache.", nil, nil)
	descConns      = prometheus.NewDesc("terse_redirect_connections", "Open connections.", nil, nil)
	descDropped    = prometheus.NewDesc("terse_redirect_clicks_dropped_total", "Clicks that the recorder did not take.", nil, nil)
	descAcceptErrs = prometheus.NewDesc("terse_redirect_accept_errors_total", "Failed accepts, such as for want of file descriptors.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *Server) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descRequests, descCache, descLoads, descStale, descTimeouts, descEntries, descBytes, descConns, descDropped, descAcceptErrs} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, n float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, labels...)
	}
	for _, a := range answers {
		count(descRequests, s.metrics.sum(a.counter), a.label)
	}
	c := s.cache.Stats()
	count(descCache, s.metrics.sum(countCacheHit), "hit")
	count(descCache, s.metrics.sum(countCacheMiss), "miss")
	count(descCache, c.NegativeHits, "negative")
	count(descCache, s.metrics.sum(countRefused), "refused")
	count(descLoads, c.Loads-c.LoadErrors, "ok")
	count(descLoads, c.LoadErrors, "error")
	count(descStale, c.StaleServed)
	count(descTimeouts, c.Timeouts)
	gauge(descEntries, float64(c.Entries), "link")
	gauge(descEntries, float64(c.Negatives), "negative")
	gauge(descBytes, float64(c.Bytes))
	gauge(descConns, float64(s.admission.open.Load()))
	count(descDropped, s.metrics.sum(countClickDropped))
	count(descAcceptErrs, s.metrics.acceptErrs.Load())
}
