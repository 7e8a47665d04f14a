package enginetest

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// Sweeping returns events with bursts in them: of visitors and of networks, too small, too slow and just enough, and
// several that run into each other.
func Sweeping(seed uint64, n int) []clicks.Event {
	events := Events(seed, n)
	r := rand.New(rand.NewPCG(seed, 5))
	for i := 0; i+12 < len(events); i += 10 + r.IntN(40) {
		burst := events[i : i+3+r.IntN(9)]
		if dayOfEvent(burst[0].At) != dayOfEvent(burst[len(burst)-1].At+5000) {
			continue
		}
		step, base := terse.Millis(r.IntN(700)), burst[0].At
		first := r.Uint64N(50)
		for j := range burst {
			ev := &burst[j]
			ev.At = base + terse.Millis(j)*step
			binary.BigEndian.PutUint64(ev.ID[:8], uint64(ev.At)<<16|7<<12) // ids begin with the time
			ev.Workspace, ev.Bot, ev.BotName = Workspace, clicks.Human, ""
			ev.Link = terse.NewLinkNumber(1, 7, first+uint64(j))
			ev.Visitor = 1<<63 + 77 // one that does not fit into a signed number
			if i%3 == 0 {
				ev.Visitor, ev.ASN, ev.Language = uint64(j+1), 64_500, ""
			}
		}
	}
	return events
}

// Reclassed returns the events as they are once the sweeps of each day are found: one by one, by definition.
func Reclassed(events []clicks.Event) (list []clicks.Event, n int) {
	type key struct {
		workspace terse.WorkspaceID
		day       int64
		visitor   uint64
		asn       uint32
	}
	keys := func(ev *clicks.Event) (list []key) {
		if ev.Bot != clicks.Human || ev.Link == 0 {
			return nil
		}
		k := key{workspace: ev.Workspace, day: dayOfEvent(ev.At)}
		if v := k; ev.Visitor != 0 {
			v.visitor = ev.Visitor
			list = append(list, v)
		}
		if v := k; ev.ASN != 0 && ev.Language == "" {
			v.asn = ev.ASN
			list = append(list, v)
		}
		return list
	}
	of := map[key][]*clicks.Event{}
	for i := range events {
		for _, k := range keys(&events[i]) {
			of[k] = append(of[k], &events[i])
		}
	}
	swept := map[*clicks.Event]bool{}
	for _, group := range of {
		for _, start := range group {
			links := map[terse.LinkNumber]bool{}
			var window []*clicks.Event
			for _, ev := range group {
				if ev.At >= start.At && ev.At <= start.At+analytics.SweepWindow {
					links[ev.Link] = true
					window = append(window, ev)
				}
			}
			for _, ev := range window {
				swept[ev] = swept[ev] || len(links) >= analytics.SweepLinks
			}
		}
	}
	list = slices.Clone(events)
	for i := range events {
		if swept[&events[i]] {
			ev := &list[i]
			ev.Bot, ev.BotName, ev.Visitor, ev.Repeat = clicks.BotScanner, analytics.SweepName, 0, false
			n++
		}
	}
	return list, n
}

func dayOfEvent(t terse.Millis) int64 { return int64(t) / (24 * 60 * 60 * 1000) }
