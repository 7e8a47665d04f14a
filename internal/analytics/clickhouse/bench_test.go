package clickhouse

import (
	"slices"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/testengine"
)

const benchRows = 200_000

// BenchmarkIngest is the whole way from events to the table and the position, a batch after another.
func BenchmarkIngest(b *testing.B) {
	testengine.Address(b, testengine.ClickHouse)
	events := enginetest.Events(1, benchRows)
	e := open(b, Options{})
	n := 0
	for b.Loop() {
		ingest(b, e, &sliceSource{events: events})
		e.position = clicks.Position{}
		n += benchRows
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkRaw is the same rows in the same batches, as columns that are ready: what the driver and the server take.
func BenchmarkRaw(b *testing.B) {
	testengine.Address(b, testengine.ClickHouse)
	events := enginetest.Events(1, benchRows)
	e := open(b, Options{})
	var columnsOf [][]any
	for at := 0; at < len(events); at += e.o.MaxRows {
		part := events[at:min(at+e.o.MaxRows, len(events))]
		var cols capture
		if err := e.fill(&cols, part); err != nil {
			b.Fatal(err)
		}
		columnsOf = append(columnsOf, cols.values)
	}
	n := 0
	for b.Loop() {
		for _, cols := range columnsOf {
			batch, err := e.conn.PrepareBatch(e.with(b.Context(), "", nil), clicksInto)
			if err != nil {
				b.Fatal(err)
			}
			for i, c := range cols {
				if err := batch.Column(i).Append(c); err != nil {
					b.Fatal(err)
				}
			}
			if err := batch.Send(); err != nil {
				b.Fatal(err)
			}
		}
		n += benchRows
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
}

// capture is a batch that keeps copies of the columns that are appended.
type capture struct {
	driver.Batch
	values []any
}

func (c *capture) Column(int) driver.BatchColumn { return captureColumn{c} }

type captureColumn struct{ c *capture }

func (captureColumn) AppendRow(any) error { return nil }

func (c captureColumn) Append(v any) error {
	c.c.values = append(c.c.values, cloneColumn(v))
	return nil
}

// BenchmarkPanels asks what a dashboard asks, over a million clicks, of clicks and of rollups.
func BenchmarkPanels(b *testing.B) {
	testengine.Address(b, testengine.ClickHouse)
	e := open(b, Options{Clock: afterSpan(1)})
	ingest(b, e, &sliceSource{events: enginetest.Events(1, 1_000_000)})
	q := whole
	panels := map[string]func() error{
		"summary":    func() error { _, err := e.Summary(b.Context(), q); return err },
		"timeseries": func() error { _, err := e.Timeseries(b.Context(), q); return err },
		"breakdown":  func() error { _, err := e.Breakdown(b.Context(), q); return err },
		"crossed": func() error {
			q := q
			q.Filters = []analytics.Filter{{Dim: analytics.Device, Values: []string{"mobile"}}, {Dim: analytics.OS, Values: []string{"iOS"}}}
			_, err := e.Breakdown(b.Context(), q)
			return err
		},
		"clicks": func() error { _, err := e.Clicks(b.Context(), q, analytics.Page{Limit: 50}); return err },
	}
	for _, from := range []string{"clicks", "rollups"} {
		if from == "rollups" {
			began := time.Now()
			if err := e.Tidy(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.Logf("rollups of 53 days with a million clicks took %v", time.Since(began))
		}
		for name, panel := range panels {
			b.Run(name+"/"+from, func(b *testing.B) {
				for b.Loop() {
					if err := panel(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// cloneColumn copies a column: its memory is used again for the next one.
func cloneColumn(v any) any {
	switch v := v.(type) {
	case []string:
		return slices.Clone(v)
	case []int64:
		return slices.Clone(v)
	case []uint64:
		return slices.Clone(v)
	case []uint32:
		return slices.Clone(v)
	case []uint16:
		return slices.Clone(v)
	case []uint8:
		return slices.Clone(v)
	case []uuid.UUID:
		return slices.Clone(v)
	}
	return v
}
