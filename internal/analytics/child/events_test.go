package child

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
)

// TestEvents: every field of an event crosses the socket.
func TestEvents(t *testing.T) {
	events := enginetest.Events(3, 2000)
	for i := range events { // so that no field stays zero in all of them
		events[i].RefPath, events[i].OSVersion, events[i].Rule = "/x", "18", uint8(i)
	}
	got, err := readEvents(appendEvents(nil, events))
	if d := cmp.Diff(events, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	if got, err := readEvents(appendEvents(nil, nil)); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

func FuzzReadEvents(f *testing.F) {
	f.Add(appendEvents(nil, enginetest.Events(3, 3)))
	f.Add([]byte{})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		events, err := readEvents(b)
		if err != nil {
			return
		}
		again, err := readEvents(appendEvents(nil, events))
		if d := cmp.Diff(events, again); d != "" || err != nil {
			t.Errorf("%v\n%s", err, d)
		}
	})
}

func BenchmarkEvents(b *testing.B) {
	events := enginetest.Events(3, 5000)
	var buf []byte
	var got []clicks.Event
	for b.Loop() {
		buf = appendEvents(buf[:0], events)
		var err error
		if got, err = readEvents(buf); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*float64(len(got))/b.Elapsed().Seconds(), "events/s")
}
