package duckdb

import (
	"fmt"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
)

// believable returns n clicks spread over days, in which somebody's place and program are the same all day, as they are in life.
func believable(n, days int) []clicks.Event {
	events := enginetest.Events(9, n)
	for i := range events {
		ev := &events[i]
		ev.At = enginetest.SpanFrom + terse.Millis(int64(i)*int64(days)*dayMillis/int64(n))
		if ev.Visitor == 0 || ev.Bot != clicks.Human {
			continue
		}
		who := &events[i-i%3] // three clicks of each
		ev.Visitor = uint64(i-i%3+1) * 0x9e3779b97f4a7c15
		ev.Country, ev.Region, ev.City, ev.Language, ev.ASN = who.Country, who.Region, who.City, who.Language, who.ASN
		ev.Device, ev.OS, ev.OSVersion, ev.Browser, ev.BrowserVer = who.Device, who.OS, who.OSVersion, who.Browser, who.BrowserVer
	}
	return events
}

// BenchmarkCloseDay measures the processor time of closing days: many with few clicks, which is what tests and small servers have, one
// of a million clicks a month, and a larger one.
func BenchmarkCloseDay(b *testing.B) {
	for _, size := range []struct{ days, clicks int }{{18, 300}, {1, 33_000}, {1, 200_000}} {
		b.Run(fmt.Sprintf("days=%d/clicks=%d", size.days, size.clicks), func(b *testing.B) {
			events := believable(size.days*size.clicks, size.days)
			var cpu time.Duration
			for b.Loop() {
				b.StopTimer()
				d := open(b, Options{Dir: b.TempDir(), Clock: time.Now})
				ingest(b, d, &sliceSource{events: events})
				before := processorTime(b)
				b.StartTimer()
				var list []change
				for _, day := range d.tables() {
					list = append(list, d.closing(day, ""))
				}
				if err := d.replaceDays(b.Context(), list...); err != nil {
					b.Fatal(err)
				}
				cpu += processorTime(b) - before
			}
			b.ReportMetric(float64(cpu.Milliseconds())/float64(b.N*size.days), "cpu-ms/day")
		})
	}
}
