package analytics

import (
	"fmt"
	"testing"
	"time"

	"github.com/terselink/terse"
)

// zones are those whose clocks do unusual things: quarter hours, a shift of 30
// minutes, midnights that do not exist or come twice, a day that was skipped.
var zones = []string{
	"UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Asia/Kolkata", "America/St_Johns", "Australia/Lord_Howe",
	"Pacific/Chatham", "Pacific/Apia", "America/Havana", "America/Sao_Paulo", "Africa/Cairo", "Asia/Beirut", "America/Asuncion",
	"Africa/Casablanca", "Atlantic/Azores", "Asia/Pyongyang", "Asia/Tehran", "America/Nuuk", "America/Scoresbysund",
}

func location(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// TestBucketsAgainstScan compares Buckets with a scan of the local clock in
// steps of 15 minutes, over every clock change of 26 years in every zone.
func TestBucketsAgainstScan(t *testing.T) {
	for _, name := range zones {
		loc := location(t, name)
		at := time.Date(2000, 3, 1, 0, 0, 0, 0, time.UTC)
		for at.Year() < 2026 {
			_, change := at.In(loc).ZoneBounds()
			if change.IsZero() {
				break
			}
			at = change.Add(time.Minute)
			if change.Unix()%900 != 0 { // St John's changed at 00:01 until 2011: the scan cannot see that
				continue
			}
			for _, iv := range []Interval{Hour, Day, Week, Month} {
				q := Query{Zone: loc, Interval: iv, From: terse.MillisOf(change.Add(-50 * time.Hour)), To: terse.MillisOf(change.Add(75 * time.Hour))}
				if got, want := q.Buckets(), scan(q); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Fatalf("%s, %s around %s:\n got %v\nwant %v", name, iv, change.In(loc), times(got, loc), times(want, loc))
				}
			}
		}
	}
}

// scan finds the starts of buckets by walking: a bucket starts where the label of the
// local clock changes, or for hours also where the clock itself does.
func scan(q Query) []terse.Millis {
	const step = 15 * time.Minute
	label := func(t time.Time) string {
		t = t.In(q.Zone)
		switch q.Interval {
		case Hour:
			_, offset := t.Zone()
			return fmt.Sprint(t.Format("2006-01-02 15"), offset)
		case Day:
			return t.Format("2006-01-02")
		case Week:
			y, w := t.ISOWeek()
			return fmt.Sprint(y, w)
		}
		return t.Format("2006-01")
	}
	seen := map[string]bool{}
	var starts []terse.Millis
	first := q.From.Time().Truncate(step).Add(-33 * 24 * time.Hour)
	for t := first; t.Before(q.To.Time()); t = t.Add(step) {
		l := label(t)
		if seen[l] { // an hour of the clock that comes twice has two labels, a date does not come back
			continue
		}
		seen[l] = true
		if m := terse.MillisOf(t); m <= q.From {
			starts = []terse.Millis{m}
		} else {
			starts = append(starts, m)
		}
	}
	return starts
}

func times(ms []terse.Millis, loc *time.Location) (s []string) {
	for _, m := range ms {
		s = append(s, m.Time().In(loc).Format(time.RFC3339))
	}
	return s
}

func TestBuckets(t *testing.T) {
	tests := []struct {
		name     string
		zone     string
		interval Interval
		from, to string
		want     []string
	}{
		{"23 hours", "Europe/Berlin", Day, "2026-03-28T23:00:00Z", "2026-03-30T22:00:00Z",
			[]string{"2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"}},
		{"25 hours", "Europe/Berlin", Day, "2026-10-24T22:00:00Z", "2026-10-26T00:00:00Z",
			[]string{"2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"}},
		{"the hour that comes twice", "Europe/Berlin", Hour, "2026-10-25T00:00:00Z", "2026-10-25T02:30:00Z",
			[]string{"2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00"}},
		{"half an hour in Lord Howe", "Australia/Lord_Howe", Hour, "2026-04-04T14:00:00Z", "2026-04-04T16:00:00Z",
			[]string{"2026-04-05T01:00:00+11:00", "2026-04-05T01:30:00+10:30", "2026-04-05T02:00:00+10:30"}},
		{"quarter hours", "Asia/Kathmandu", Hour, "2026-11-03T00:00:00Z", "2026-11-03T01:30:00Z",
			[]string{"2026-11-03T05:00:00+05:45", "2026-11-03T06:00:00+05:45", "2026-11-03T07:00:00+05:45"}},
		{"week starts on Monday", "UTC", Week, "2026-11-03T10:00:00Z", "2026-11-10T00:00:00Z",
			[]string{"2026-11-02T00:00:00Z", "2026-11-09T00:00:00Z"}},
		{"months", "America/New_York", Month, "2026-01-31T12:00:00Z", "2026-03-01T05:00:01Z",
			[]string{"2026-01-01T00:00:00-05:00", "2026-02-01T00:00:00-05:00", "2026-03-01T00:00:00-05:00"}},
		{"minutes", "Asia/Kathmandu", Minute, "2026-11-03T00:00:30Z", "2026-11-03T00:02:00.001Z",
			[]string{"2026-11-03T05:45:00+05:45", "2026-11-03T05:46:00+05:45", "2026-11-03T05:47:00+05:45"}},
		{"no midnight", "Asia/Beirut", Day, "2022-03-26T12:00:00Z", "2022-03-27T22:00:00Z",
			[]string{"2022-03-26T00:00:00+02:00", "2022-03-27T01:00:00+03:00", "2022-03-28T00:00:00+03:00"}},
		{"no such day", "Pacific/Apia", Day, "2011-12-30T00:00:00Z", "2011-12-31T12:00:00Z",
			[]string{"2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00", "2012-01-01T00:00:00+14:00"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			loc := location(t, tt.zone)
			q := Query{Zone: loc, Interval: tt.interval, From: millis(t, tt.from), To: millis(t, tt.to)}
			if got := times(q.Buckets(), loc); fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("got %v\nwant %v", got, tt.want)
			}
		})
	}
}

func TestBucketOf(t *testing.T) {
	starts := []terse.Millis{10, 20, 30}
	for at, want := range map[terse.Millis]int{9: -1, 10: 0, 19: 0, 20: 1, 30: 2, 99: 2} {
		if got := BucketOf(starts, at); got != want {
			t.Errorf("BucketOf(%d) = %d, want %d", at, got, want)
		}
	}
}

func TestAutoInterval(t *testing.T) {
	for d, want := range map[time.Duration]Interval{
		time.Hour: Minute, 2 * time.Hour: Minute, 3 * time.Hour: Hour, 48 * time.Hour: Hour, 72 * time.Hour: Day,
		180 * 24 * time.Hour: Day, 182 * 24 * time.Hour: Month,
	} {
		if got := AutoInterval(0, terse.Millis(d.Milliseconds())); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}

func TestComparison(t *testing.T) {
	tests := []struct {
		name     string
		compare  Compare
		from, to string // local times in Berlin
		want     [2]string
	}{
		{"today so far: the same weekday, to the same time", ComparePrevious, "2026-11-04T00:00:00+01:00", "2026-11-04T15:20:00+01:00",
			[2]string{"2026-10-28T00:00:00+01:00", "2026-10-28T15:20:00+01:00"}},
		{"seven days", ComparePrevious, "2026-11-02T00:00:00+01:00", "2026-11-09T00:00:00+01:00",
			[2]string{"2026-10-26T00:00:00+01:00", "2026-11-02T00:00:00+01:00"}},
		{"thirty days are five weeks back, over a clock change", ComparePrevious, "2026-11-01T00:00:00+01:00", "2026-12-01T00:00:00+01:00",
			[2]string{"2026-09-27T00:00:00+02:00", "2026-10-27T00:00:00+01:00"}},
		{"a short range has its neighbour", ComparePrevious, "2026-11-04T13:00:00+01:00", "2026-11-04T15:00:00+01:00",
			[2]string{"2026-11-04T11:00:00+01:00", "2026-11-04T13:00:00+01:00"}},
		{"year", CompareYear, "2026-11-04T00:00:00+01:00", "2026-11-05T00:00:00+01:00",
			[2]string{"2025-11-05T00:00:00+01:00", "2025-11-06T00:00:00+01:00"}},
		{"an hour that was skipped a week before", ComparePrevious, "2026-04-05T00:00:00+02:00", "2026-04-05T02:30:00+02:00",
			[2]string{"2026-03-29T00:00:00+01:00", "2026-03-29T03:30:00+02:00"}},
	}
	berlin := location(t, "Europe/Berlin")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := Query{Zone: berlin, Compare: tt.compare, From: millis(t, tt.from), To: millis(t, tt.to)}
			p, ok := q.Comparison()
			got := [2]string{p.From.Time().In(berlin).Format(time.RFC3339), p.To.Time().In(berlin).Format(time.RFC3339)}
			if !ok || got != tt.want || p.Compare != CompareNone {
				t.Errorf("got %v %v, want %v", got, ok, tt.want)
			}
		})
	}
	if _, ok := (Query{}).Comparison(); ok {
		t.Error("a query without compare has no comparison")
	}
}

func millis(t *testing.T, s string) terse.Millis {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return terse.MillisOf(at)
}
