package duckdb

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
)

// BenchmarkIngest measures rows/s of the whole write path with the full schema, commits and
// checkpoints included, and the bytes of a row on disk. The texts are random, so real
// clicks of one link are smaller. Workspaces keep no User-Agents and networks, or some of the clicks have them.
func BenchmarkIngest(b *testing.B) {
	b.Run("plain", func(b *testing.B) { benchIngest(b, false) })
	b.Run("kept", func(b *testing.B) { benchIngest(b, true) })
}

func benchIngest(b *testing.B, kept bool) {
	events := enginetest.Events(6, 491_520)
	for i := range events { // all on one day, as they come
		events[i].At = enginetest.SpanFrom + terse.Millis(i)*100
		if !kept {
			events[i].UserAgent, events[i].IP = "", ""
		}
	}
	d := open(b, Options{Dir: b.TempDir(), Clock: time.Now})
	rows := 0
	cpu := processorTime(b)
	for b.Loop() {
		ingest(b, d, &sliceSource{events: events})
		rows += len(events)
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64((processorTime(b)-cpu).Nanoseconds())/float64(rows), "cpu-ns/row")
	if _, err := d.checkpoint(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(fileSize(d.path))/float64(d.events.Load()), "B/row")
}

// BenchmarkQueries measures what a dashboard asks, over 6 million clicks of one workspace in 30 days.
func BenchmarkQueries(b *testing.B) {
	const days, copies = 30, 12
	events := enginetest.Events(8, 500_000)
	from := enginetest.SpanFrom
	for i := range events {
		events[i].At = from + terse.Millis(int64(i)*days*dayMillis/int64(len(events)))
		events[i].Workspace = enginetest.Workspace
	}
	d := open(b, Options{Dir: b.TempDir(), Clock: time.Now})
	ingest(b, d, &sliceSource{events: events})
	for _, day := range d.days { // the same clicks of other people
		t := tableName(day)
		for i := 1; i < copies; i++ {
			q := fmt.Sprintf("INSERT INTO %s SELECT * REPLACE (CASE WHEN visitor = 0 THEN 0 ELSE hash(visitor + %d) END AS visitor) FROM %s LIMIT %d", t, i, t, d.rows[day])
			if err := d.exec(b.Context(), q); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := d.exec(b.Context(), "CHECKPOINT"); err != nil {
		b.Fatal(err)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		b.Fatal(err)
	}
	month := analytics.Query{Workspace: enginetest.Workspace, Zone: berlin, From: from, To: from + days*dayMillis, Interval: analytics.Day}
	by := func(dim analytics.Dimension) func(context.Context) error {
		return func(ctx context.Context) error {
			q := month
			q.By = dim
			_, err := d.Breakdown(ctx, q)
			return err
		}
	}
	panels := map[string]func(context.Context) error{
		"summary":    func(ctx context.Context) error { _, err := d.Summary(ctx, month); return err },
		"timeseries": func(ctx context.Context) error { _, err := d.Timeseries(ctx, month); return err },
		"hours": func(ctx context.Context) error {
			q := month
			q.Interval = analytics.Hour
			_, err := d.Timeseries(ctx, q)
			return err
		},
		"country": by(analytics.Country), "referrer": by(analytics.Referrer), "link": by(analytics.Link),
		"one link": func(ctx context.Context) error {
			q := month
			q.Scope.Link = events[0].Link
			_, err := d.Summary(ctx, q)
			return err
		},
		"totals of 100 links": func(ctx context.Context) error {
			var links []terse.LinkNumber
			for i := range 100 {
				links = append(links, events[i*1000].Link)
			}
			_, err := d.LinkTotals(ctx, enginetest.Workspace, links)
			return err
		},
	}
	for _, name := range slices.Sorted(maps.Keys(panels)) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := panels[name](b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// processorTime returns what the process has used, DuckDB's threads included.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
