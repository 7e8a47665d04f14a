package duckdb

import (
	"bytes"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
)

// TestPending: a conversion counts when its click comes. One whose click is not there makes nobody read an unchanged
// day twice, and a day that cannot be read keeps neither facts nor clicks from coming in.
func TestPending(t *testing.T) {
	var logged bytes.Buffer
	events := enginetest.Events(42, 2000)
	d := closed(t, Options{Log: slog.New(slog.NewTextHandler(&logged, nil))}, events)
	today := dayOf(terse.MillisOf(inSpan))
	i := slices.IndexFunc(events, func(ev clicks.Event) bool { return ev.Workspace == enginetest.Workspace && dayOf(ev.At) < today })
	unread, late := events[i], events[i]
	late.At = terse.MillisOf(inSpan)
	for i := range 6 {
		late.ID[i] = byte(late.At >> (40 - 8*i))
	}
	lost := d.coldFiles(dayOf(unread.At))
	if len(lost) == 0 {
		t.Fatal("the day has no file")
	}
	for _, f := range lost {
		if err := os.Truncate(f.path(d.o.Record), 10); err != nil {
			t.Fatal(err)
		}
	}
	sale := func(id string, click clicks.Event) analytics.Conversion {
		return analytics.Conversion{ID: id, Workspace: enginetest.Workspace, At: late.At + 1, Kind: analytics.Sale, Click: terse.ClickID(click.ID)}
	}
	for _, b := range []analytics.FactBatch{
		{Reset: true, Partial: true, At: 9},
		{Partial: true, From: 9, At: 9, Conversions: []analytics.Conversion{sale("conv_1", unread)}},
		{From: 9, At: 1},
		{From: 1, At: 2, Conversions: []analytics.Conversion{sale("conv_2", late)}},
	} {
		if err := d.PutFacts(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	funnel := func(sales, pending int64) {
		t.Helper()
		q := analytics.Query{Workspace: enginetest.Workspace, From: enginetest.SpanFrom, To: enginetest.SpanTo, Bots: analytics.BotsInclude, Every: true}
		if f, err := d.Funnel(t.Context(), q); err != nil || f.Sales != sales || f.Pending != pending {
			t.Errorf("%d sales, %d pending, %v; want %d and %d", f.Sales, f.Pending, err, sales, pending)
		}
	}
	funnel(0, 2)
	src := &sliceSource{events: events, at: len(events)}
	for range 3 {
		src.events = append(slices.Clip(src.events), late)
		late.ID[15]++
		d.joinNext = time.Time{} // however long the last look took
		ingest(t, d, src)
	}
	funnel(1, 1)
	if n := strings.Count(logged.String(), "cannot find their clicks"); n != 1 {
		t.Errorf("an unchanged day was read %d times:\n%s", n, &logged)
	}
}
