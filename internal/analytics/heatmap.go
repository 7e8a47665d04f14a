package analytics

import (
	"time"

	"github.com/terselink/terse"
)

// slotMillis is the length of a Slot: no clock of today differs from UTC by other
// than whole quarters of an hour.
const slotMillis = 15 * minuteMillis

// Heatmap is the clicks of a range by day of the week and hour of the local clock.
type Heatmap struct {
	Clicks [7][24]int64 // Monday first
	Total  int64        // = Summary.Clicks of the same query
}

// CheckSlots returns an error of code invalid if the range is too long for Slots. The
// query must have passed Normalize.
func (q Query) CheckSlots() error {
	if q.To-q.From > MaxSlotDays*dayMillis {
		return terse.Invalid("from", "a heat map has at most %d days", MaxSlotDays)
	}
	return nil
}

// HeatmapOf folds the slots of a query into the weeks of its zone. An hour that a clock
// change repeats counts twice as long, one that it skips has no clicks on that day.
func (q Query) HeatmapOf(slots []Slot) Heatmap {
	zone := q.Zone
	if zone == nil {
		zone = time.UTC
	}
	var h Heatmap
	for _, s := range slots {
		t := s.T.Time().In(zone)
		h.Clicks[(int(t.Weekday())+6)%7][t.Hour()] += s.Clicks
		h.Total += s.Clicks
	}
	return h
}

// SlotOf returns the start of the quarter of an hour that t lies in.
func SlotOf(t terse.Millis) terse.Millis { return t - t%slotMillis }
