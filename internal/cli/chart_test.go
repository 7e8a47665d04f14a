package cli

import (
	"testing"
	"time"

	"github.com/terselink/terse/client"
)

// TestTimeChartZone: the days and hours of a chart are those of the zone, although the server answers in UTC.
func TestTimeChartZone(t *testing.T) {
	t.Parallel()
	tokyo, err := location("Asia/Tokyo")
	if err != nil {
		t.Fatal(err)
	}
	day := func(month time.Month, day int, clicks int64) client.Point { // begins at 15:00 UTC of the day before
		return client.Point{T: time.Date(2026, month, day, 0, 0, 0, 0, tokyo).UTC(), Clicks: clicks}
	}
	ts := &client.Timeseries{Interval: "day", Data: []client.Point{day(11, 1, 5), day(11, 2, 2)}, Previous: []client.Point{day(10, 1, 1), day(10, 2, 1)}}
	if want := "  █▄\n  ▂▂  2026-10-01 to 2026-10-02\n  2026-11-01 to 2026-11-02, one day a column\n  most: 5 on 2026-11-01\n"; timeChart(style{}, tokyo, ts) != want {
		t.Errorf("days:\n%swant\n%s", timeChart(style{}, tokyo, ts), want)
	}
	ts = &client.Timeseries{Interval: "hour", Data: []client.Point{{T: time.Date(2026, 10, 31, 15, 0, 0, 0, time.UTC), Clicks: 1}}}
	if want := "  █\n  2026-11-01 00:00 to 2026-11-01 00:00, one hour a column\n  most: 1 on 2026-11-01 00:00\n"; timeChart(style{}, tokyo, ts) != want {
		t.Errorf("hours:\n%swant\n%s", timeChart(style{}, tokyo, ts), want)
	}
}
