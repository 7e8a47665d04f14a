package changes

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type counters struct {
	sent, lost, dropped, sendErrors, received, badMessages, gaps, subscriptions, polls, pollErrors, applied, applyErrors atomic.Uint64
}

// Stats are counts since New and the state now.
type Stats struct {
	Sent        uint64 // events that were published
	Lost        uint64 // events whose message could not be published
	Dropped     uint64 // events that did not fit before they could be published
	SendErrors  uint64 // messages, heartbeats too, that could not be published
	Received    uint64 // events of other nodes
	BadMessages uint64 // messages that could not be read
	Gaps        uint64 // times that a message of another node was missing, or its first was heard
	Subscribed  uint64 // times that listening began
	Polls       uint64 // reads of the feed to its end
	PollErrors  uint64 // reads of the feed that failed
	Applied     uint64 // changes that the feed had and no message had told of
	ApplyErrors uint64 // changes that could not be applied at the first try
	Position    uint64 // in the feed
	// Connected says that messages of this node come back to it.
	Connected bool
	// Behind is how long ago the feed was read to its end.
	Behind time.Duration
}

// Stats returns the counters.
func (h *Hub) Stats() Stats {
	now := time.Now()
	heard := h.heard.Load()
	return Stats{
		Sent: h.stats.sent.Load(), Lost: h.stats.lost.Load(), Dropped: h.stats.dropped.Load(), SendErrors: h.stats.sendErrors.Load(),
		Received: h.stats.received.Load(), BadMessages: h.stats.badMessages.Load(), Gaps: h.stats.gaps.Load(), Subscribed: h.stats.subscriptions.Load(),
		Polls: h.stats.polls.Load(), PollErrors: h.stats.pollErrors.Load(), Applied: h.stats.applied.Load(), ApplyErrors: h.stats.applyErrors.Load(),
		Position: h.position.Load(), Connected: heard != 0 && now.Sub(time.UnixMilli(heard)) < deafAfter, Behind: now.Sub(time.UnixMilli(h.polled.Load())),
	}
}

var (
	descEvents = prometheus.NewDesc("terse_changes_events_total",
		"Events between nodes: sent, lost (could not be published), dropped (too many waited), received.", []string{"result"}, nil)
	descSendErrors = prometheus.NewDesc("terse_changes_send_errors_total", "Messages, heartbeats too, that could not be published.", nil, nil)
	descBad        = prometheus.NewDesc("terse_changes_bad_messages_total", "Messages that could not be read.", nil, nil)
	descGaps       = prometheus.NewDesc("terse_changes_gaps_total", "Times that a message of another node was missing, or its first was heard; the feed is read then.", nil, nil)
	descSubscribed = prometheus.NewDesc("terse_changes_subscriptions_total", "Times that this node began to listen.", nil, nil)
	descPolls      = prometheus.NewDesc("terse_changes_feed_reads_total", "Reads of the feed of the store.", []string{"result"}, nil)
	descApplied    = prometheus.NewDesc("terse_changes_feed_applied_total", "Changes that came by the feed alone.", nil, nil)
	descErrors     = prometheus.NewDesc("terse_changes_apply_errors_total", "Changes that could not be applied at the first try.", nil, nil)
	descConnected  = prometheus.NewDesc("terse_changes_connected", "1 if this node hears its own messages.", nil, nil)
	descBehind     = prometheus.NewDesc("terse_changes_feed_behind_seconds", "Time since the feed was last read to its end.", nil, nil)
)

// Describe implements prometheus.Collector.
func (h *Hub) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descEvents, descSendErrors, descBad, descGaps, descSubscribed, descPolls, descApplied, descErrors, descConnected, descBehind,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (h *Hub) Collect(ch chan<- prometheus.Metric) {
	s := h.Stats()
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	count(descEvents, s.Sent, "sent")
	count(descEvents, s.Lost, "lost")
	count(descEvents, s.Dropped, "dropped")
	count(descEvents, s.Received, "received")
	count(descSendErrors, s.SendErrors)
	count(descBad, s.BadMessages)
	count(descGaps, s.Gaps)
	count(descSubscribed, s.Subscribed)
	count(descPolls, s.Polls, "ok")
	count(descPolls, s.PollErrors, "error")
	count(descApplied, s.Applied)
	count(descErrors, s.ApplyErrors)
	connected := 0.0
	if s.Connected {
		connected = 1
	}
	gauge(descConnected, connected)
	gauge(descBehind, s.Behind.Seconds())
}
