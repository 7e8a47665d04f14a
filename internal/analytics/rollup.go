package analytics

import "github.com/terselink/terse"

// Engines keep, of a UTC day that is over, numbers by quarters of an hour. What follows is the arithmetic by which
// points of any zone are made of them, the same in all engines.

// Segment is the part of a UTC day that falls into one bucket of a time series.
type Segment struct {
	Bucket   int
	From, To terse.Millis // within the day, from its start
}

// SlotRow is what an engine keeps of a quarter of an hour of one scope.
type SlotRow struct {
	Slot                     int64 // of the day, from 0
	Clicks, Bots, QR, BotsQR int64 // Clicks and QR are of people
	V15, V60                 int64 // visitors of the quarter, and of the hour that begins with it
	Firsts, Lasts            int64 // visitors whose first click of the day is in the quarter; whose last one is
}

// DaySegments cuts a day, in days since 1970, at the bounds of the buckets and of the range.
func (q Query) DaySegments(starts []terse.Millis, day int64) []Segment {
	start := terse.Millis(day) * dayMillis
	at, end := max(start, q.From), min(start+dayMillis, q.To)
	var list []Segment
	for i := BucketOf(starts, at); at < end; i++ {
		next := end
		if i+1 < len(starts) {
			next = min(next, starts[i+1])
		}
		list = append(list, Segment{i, at - start, next - start})
		at = next
	}
	return list
}

// Known reports whether rows of slots have the visitors of a segment.
func (g Segment) Known() bool {
	n := g.To - g.From
	return g.From%slotMillis == 0 && g.To%slotMillis == 0 && (g.From == 0 || g.To == dayMillis || n == slotMillis || n == 4*slotMillis)
}

// AtEnd reports whether the segment begins or ends with the day, as those of days, weeks and months of a zone do, so that
// Firsts and Lasts of rows of slots have its visitors.
func (g Segment) AtEnd() bool {
	return g.From%slotMillis == 0 && g.To%slotMillis == 0 && (g.From == 0 || g.To == dayMillis)
}

// Add counts a row of the segment's day and slots into the point of its bucket. Where bots are counted
// alone they must have no visitors.
func (g Segment) Add(p *Point, r *SlotRow, bots Bots) {
	clicks, qr := r.Clicks, r.QR
	switch bots {
	case BotsInclude:
		clicks, qr = clicks+r.Bots, qr+r.BotsQR
	case BotsOnly:
		clicks, qr = r.Bots, r.BotsQR
	}
	p.Clicks += clicks
	p.QR += qr
	p.Bots += r.Bots
	if bots == BotsOnly {
		return
	}
	switch {
	case g.From == 0:
		p.Visitors += r.Firsts
	case g.To == dayMillis:
		p.Visitors += r.Lasts
	case g.To-g.From == 4*slotMillis:
		if r.Slot == int64(g.From/slotMillis) {
			p.Visitors += r.V60
		}
	default:
		p.Visitors += r.V15
	}
}
