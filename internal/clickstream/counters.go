package clickstream

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Counters are what receivers of a process, one after another, have met. It is a prometheus.Collector.
type Counters struct {
	stored, repeated, lost, held, dead, failures atomic.Uint64

	// excuse: deliveries were counted for which no process ended; they are to be forgotten before more is read, but those of entries that are at
	// fault, by id. Both are of the receiver that there is and outlive it.
	excuse bool
	fault  map[string]bool
	// copied are entries, by id, of which there is a copy and that were counted as dead, until the place after them is written and they are done.
	// It outlives a receiver as the two above do: the next one meets the entry again if the place was not written, and is to know it.
	copied map[string]bool

	mu     sync.Mutex
	spools map[string]string // that are held: the node of each, by name
}

// NewCounters returns counters that have met nothing.
func NewCounters() *Counters {
	return &Counters{fault: map[string]bool{}, copied: map[string]bool{}, spools: map[string]string{}}
}

// hold says that a spool of a node is held, and letGo that it is not any more.
func (c *Counters) hold(spool, node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spools[spool] = node
}

func (c *Counters) letGo(spool string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.spools, spool)
}

// letAllGo says that this process holds none, because it does not receive.
func (c *Counters) letAllGo() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.spools)
}

var (
	descReceived = prometheus.NewDesc("terse_click_stream_received_total",
		"What this node has met in the stream: clicks that were stored; entries that came again and are stored already (repeated), that did not arrive and are sent again (lost), that are sent again when their spool is not held any more (held), or were set aside (dead); and failed calls (failed).", []string{"result"}, nil)
	descHeld = prometheus.NewDesc("terse_click_stream_held",
		"1 for each spool whose clicks wait because an entry with which processes ended cannot be copied aside; of the node that counts.", []string{"spool", "node"}, nil)
)

// Describe implements prometheus.Collector.
func (c *Counters) Describe(ch chan<- *prometheus.Desc) {
	ch <- descReceived
	ch <- descHeld
}

// Collect implements prometheus.Collector.
func (c *Counters) Collect(ch chan<- prometheus.Metric) {
	for name, n := range map[string]*atomic.Uint64{
		"stored": &c.stored, "repeated": &c.repeated, "lost": &c.lost, "held": &c.held, "dead": &c.dead, "failed": &c.failures,
	} {
		ch <- prometheus.MustNewConstMetric(descReceived, prometheus.CounterValue, float64(n.Load()), name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for spool, node := range c.spools {
		ch <- prometheus.MustNewConstMetric(descHeld, prometheus.GaugeValue, 1, spool, node)
	}
}
