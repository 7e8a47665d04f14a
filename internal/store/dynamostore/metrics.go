package dynamostore

import (
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/prometheus/client_golang/prometheus"
)

// counters are what the store counts by itself. Units are in tenths.
type counters struct {
	links, transactions                                  atomic.Uint64
	requests, retries, throttled, contended, unprocessed atomic.Uint64
	abandoned, sealed                                    atomic.Uint64
	readTenths, writeTenths                              atomic.Uint64
}

func (c *counters) read(u *types.ConsumedCapacity)  { addTenths(&c.readTenths, u) }
func (c *counters) write(u *types.ConsumedCapacity) { addTenths(&c.writeTenths, u) }

func addTenths(c *atomic.Uint64, u *types.ConsumedCapacity) {
	if u != nil && u.CapacityUnits != nil && *u.CapacityUnits > 0 {
		c.Add(uint64(*u.CapacityUnits*10 + 0.5))
	}
}

// Usage is what the store has asked of DynamoDB since it was opened, as DynamoDB counted it.
type Usage struct {
	Links        uint64 // inserted
	Transactions uint64 // TransactWriteItems, attempts of one counted once
	Requests     uint64 // of any kind, repetitions counted
	Throttled    uint64
	ReadUnits    float64
	WriteUnits   float64
}

// Usage returns what the store has used.
func (s *Store) Usage() Usage {
	c := &s.counters
	return Usage{
		Links: c.links.Load(), Transactions: c.transactions.Load(), Requests: c.requests.Load(), Throttled: c.throttled.Load(),
		ReadUnits: float64(c.readTenths.Load()) / 10, WriteUnits: float64(c.writeTenths.Load()) / 10,
	}
}

// Prices of a million request units of an on-demand table in US dollars: US East (N. Virginia), 2026.
const (
	PricePerMillionWrites = 0.625
	PricePerMillionReads  = 0.125
)

// Cost is the price of the units in US dollars.
func (u Usage) Cost() float64 {
	return (u.WriteUnits*PricePerMillionWrites + u.ReadUnits*PricePerMillionReads) / 1e6
}

// Collector returns the store's metrics for Prometheus.
func (s *Store) Collector() prometheus.Collector { return &collector{s} }

type collector struct{ s *Store }

type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(s *Store) float64
}

func describe(name, help string, kind prometheus.ValueType, value func(s *Store) float64) metric {
	return metric{prometheus.NewDesc("terse_store_dynamodb_"+name, help, nil, nil), kind, value}
}

func counted(name, help string, c func(c *counters) *atomic.Uint64) metric {
	return describe(name, help, prometheus.CounterValue, func(s *Store) float64 { return float64(c(&s.counters).Load()) })
}

var metrics = []metric{
	counted("links_inserted_total", "Links inserted.", func(c *counters) *atomic.Uint64 { return &c.links }),
	counted("transactions_total", "Transactions.", func(c *counters) *atomic.Uint64 { return &c.transactions }),
	counted("requests_total", "Requests, repetitions too.", func(c *counters) *atomic.Uint64 { return &c.requests }),
	counted("retries_total", "Requests that were repeated.", func(c *counters) *atomic.Uint64 { return &c.retries }),
	counted("throttled_total", "Requests over the capacity of the table.", func(c *counters) *atomic.Uint64 { return &c.throttled }),
	counted("conflicts_total", "Requests that met another transaction.", func(c *counters) *atomic.Uint64 { return &c.contended }),
	counted("unprocessed_total", "Batches of which DynamoDB left something over.", func(c *counters) *atomic.Uint64 { return &c.unprocessed }),
	counted("abandoned_chunks_total", "Bulk inserts of dead or slow processes that were given up.", func(c *counters) *atomic.Uint64 { return &c.abandoned }),
	counted("sealed_changes_total", "Numbers of the change feed that no write had used in time.", func(c *counters) *atomic.Uint64 { return &c.sealed }),
	describe("write_units_total", "Write request units, as DynamoDB counts them.", prometheus.CounterValue, func(s *Store) float64 { return s.Usage().WriteUnits }),
	describe("read_units_total", "Read request units, as DynamoDB counts them.", prometheus.CounterValue, func(s *Store) float64 { return s.Usage().ReadUnits }),
	describe("cost_dollars_total", "Price of the units in US dollars, on demand in US East (N. Virginia).", prometheus.CounterValue, func(s *Store) float64 { return s.Usage().Cost() }),
	describe("concurrency_limit", "Requests that may be under way at once now.", prometheus.GaugeValue, func(s *Store) float64 { return float64(s.limit.current()) }),
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range metrics {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	for _, m := range metrics {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(c.s))
	}
}
