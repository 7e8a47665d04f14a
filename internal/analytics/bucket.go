package analytics

import (
	"sort"
	"time"

	// Zones must be there on machines without a zone database.
	_ "time/tzdata"

	"github.com/terselink/terse"
)

// Interval is the width of the points of a time series, on the local clock.
type Interval string

// The intervals. A week starts on Monday.
const (
	Auto   Interval = "auto"
	Minute Interval = "minute"
	Hour   Interval = "hour"
	Day    Interval = "day"
	Week   Interval = "week"
	Month  Interval = "month"
)

const (
	minuteMillis terse.Millis = 60_000
	hourMillis                = 60 * minuteMillis
	dayMillis                 = 24 * hourMillis
)

// AutoInterval returns the interval for a range: up to 2 hours minute, up to 2
// days hour, up to 180 days day, else month. An hour is added to the limits that a
// clock change may exceed.
func AutoInterval(from, to terse.Millis) Interval {
	switch d := to - from; {
	case d <= 2*hourMillis+minuteMillis:
		return Minute
	case d <= 2*dayMillis+hourMillis:
		return Hour
	case d <= 180*dayMillis+hourMillis:
		return Day
	}
	return Month
}

func (i Interval) valid() bool { return i.atLeast() != 0 }

// atLeast returns a length that no whole bucket of the interval is shorter than,
// clock changes aside; 0 for no interval.
func (i Interval) atLeast() terse.Millis {
	switch i {
	case Minute:
		return minuteMillis
	case Hour:
		return hourMillis
	case Day:
		return 23 * hourMillis
	case Week:
		return 7*dayMillis - hourMillis
	case Month:
		return 28*dayMillis - hourMillis
	}
	return 0
}

// Buckets returns the starts of the points of a time series: ascending instants,
// the first at or before From, the last before To. Point i covers the clicks of
// [From, To) from its start up to the next one's. The days of a clock change have
// 23 or 25 hours (in Lord Howe 23.5 or 24.5), a day that a zone skipped is absent.
//
// The query must have passed Normalize.
func (q Query) Buckets() []terse.Millis {
	var starts []terse.Millis
	to := q.To.Time()
	for t := q.Interval.floor(q.From.Time().In(q.Zone)); t.Before(to); t = q.Interval.next(t) {
		starts = append(starts, terse.MillisOf(t))
	}
	return starts
}

// BucketOf returns the index of the bucket that t falls into, -1 if it lies before all.
func BucketOf(starts []terse.Millis, t terse.Millis) int {
	return sort.Search(len(starts), func(i int) bool { return starts[i] > t }) - 1
}

// floor returns the start of the interval that t lies in, on t's own clock.
func (i Interval) floor(t time.Time) time.Time {
	switch i {
	case Minute:
		return t.Truncate(time.Minute)
	case Hour:
		start := startOfHour(t)
		if change, ok := lastChange(t, start); ok {
			return change
		}
		return start
	case Week:
		y, m, d := t.Date()
		return startOfDate(y, m, d-(int(t.Weekday())+6)%7, t.Location())
	case Month:
		y, m, _ := t.Date()
		return startOfDate(y, m, 1, t.Location())
	}
	return startOfDay(t)
}

// next returns the start of the interval after the one that starts at t. It is
// always later than t.
func (i Interval) next(t time.Time) time.Time {
	switch i {
	case Minute:
		return t.Add(time.Minute)
	case Hour:
		end := startOfHour(t).Add(time.Hour)
		if change, ok := firstChange(t, end); ok {
			return change
		}
		return end
	}
	y, m, d := t.Date()
	for step := 1; ; step++ { // more than once only where a zone skipped whole days
		var n time.Time
		switch i {
		case Week:
			n = startOfDate(y, m, d-(int(t.Weekday())+6)%7+7*step, t.Location())
		case Month:
			n = startOfDate(y, m+time.Month(step), 1, t.Location())
		default:
			n = startOfDate(y, m, d+step, t.Location())
		}
		if n.After(t) {
			return n
		}
	}
}

// startOfHour returns the instant of the last full hour on the clock that is in
// force at t.
func startOfHour(t time.Time) time.Time {
	_, offset := t.Zone()
	local := t.Unix() + int64(offset)
	return time.Unix(local-local%3600-int64(offset), 0).In(t.Location()) // after 1970: no negative remainder
}

// firstChange returns the first instant in (t, end) at which the clock changes.
func firstChange(t, end time.Time) (time.Time, bool) {
	_, offset := t.Zone()
	for at := t; ; {
		_, change := at.ZoneBounds()
		if change.IsZero() || !change.Before(end) {
			return time.Time{}, false
		}
		if _, o := change.Zone(); o != offset {
			return change, true
		}
		at = change // only the name of the zone changed
	}
}

// lastChange returns the last instant in (start, t] at which the clock changed.
func lastChange(t, start time.Time) (time.Time, bool) {
	_, offset := t.Zone()
	for at := t; ; {
		change, _ := at.ZoneBounds()
		if change.IsZero() || !change.After(start) {
			return time.Time{}, false
		}
		at = change.Add(-time.Nanosecond)
		if _, o := at.Zone(); o != offset {
			return change, true
		}
	}
}

// startOfDay returns the first instant of the local day of t.
func startOfDay(t time.Time) time.Time {
	y, m, d := t.Date()
	return startOfDate(y, m, d, t.Location())
}

// startOfDate returns the first instant at which the local date is y-m-d or, if
// the zone skipped that date, later. Midnight may not exist (a clock change skips it)
// or be there twice; time.Date says of neither case which one it returns.
func startOfDate(y int, m time.Month, d int, loc *time.Location) time.Time {
	t := time.Date(y, m, d, 0, 0, 0, 0, loc)
	civil := time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	if civilDate(t).Before(civil) { // in the gap, by the clock after it
		_, t = t.ZoneBounds()
		return t
	}
	if change, _ := t.ZoneBounds(); !change.IsZero() {
		before := change.Add(-time.Nanosecond)
		if civilDate(before).Equal(civil) { // the day began on the clock before
			_, offset := before.Zone()
			return civil.Add(-time.Duration(offset) * time.Second).In(loc)
		}
		if t.After(change) && !civilDate(change).Before(civil) { // midnight was skipped
			return change
		}
	}
	return t
}

// civilDate returns the local date of t as midnight UTC.
func civilDate(t time.Time) time.Time {
	y, m, d := t.Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}
