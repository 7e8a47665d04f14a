package clicks

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/agent"
)

// TestCaptureAllocs holds the hot path of the redirect plane to its promise.
func TestCaptureAllocs(t *testing.T) {
	r := open(t, testOptions(t, vfs.NewMem()))
	defer r.Close()
	c := makeClicks(1, 1)[0]
	if n := testing.AllocsPerRun(2000, func() { r.Capture(1, &c) }); n >= 0.5 {
		t.Fatalf("%v allocations a capture", n)
	}
}

// TestWriterAllocs: the writer reuses everything.
func TestWriterAllocs(t *testing.T) {
	w, buf := benchWriter(t, 1000)
	asked := 0
	w.r.o.Own = func(terse.WorkspaceID, []byte) bool { asked++; return asked%2 == 0 }
	defer func() {
		if asked == 0 {
			t.Error("nobody has a referrer")
		}
	}()
	run := func() {
		w.encode(buf, noon.UnixMilli(), rungAll)
		w.endGroup()
		w.pending, w.counts = w.pending[:0], w.counts[:0]
	}
	run()
	if n := testing.AllocsPerRun(100, run); n > 1 { // of 1000 clicks
		t.Fatalf("%v allocations a group", n)
	}
}

// benchWriter returns a writer without a recorder's goroutines and n encoded clicks.
func benchWriter(tb testing.TB, n int) (*writer, []byte) {
	o := testOptions(tb, vfs.NewMem())
	if err := o.setDefaults(); err != nil {
		tb.Fatal(err)
	}
	w := newWriter(&Recorder{o: o})
	var buf []byte
	for _, c := range makeClicks(n, 1) {
		b := make([]byte, slotSize(&c))
		putSlot(b, &c)
		buf = append(buf, b...)
	}
	return w, buf
}

// BenchmarkCapture is what a redirect pays: every core into a shard of its own,
// no writer on the same two cores. The shard is emptied when it is nearly full.
func BenchmarkCapture(b *testing.B) {
	const size = 1 << 20
	r := &Recorder{shards: make([]shard, 64), mask: 63, wake: make(chan struct{}, 1)}
	for i := range r.shards {
		r.shards[i].buf, r.shards[i].half = make([]byte, 0, size), size/2
	}
	clicks := makeClicks(1024, 1)
	var shards atomic.Uint32
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		me := shards.Add(1)
		s := &r.shards[me&r.mask]
		for i := 0; pb.Next(); i++ {
			if !r.Capture(me, &clicks[i&1023]) {
				s.buf = s.buf[:0]
			}
		}
	})
}

// BenchmarkWriter encodes groups of the size that a load of 20,000 and 100,000
// clicks/s makes in 5 ms, and reports their size.
func BenchmarkWriter(b *testing.B) {
	for _, bb := range []struct {
		name string
		n    int
		kept func(terse.WorkspaceID) Kept
	}{
		{"100", 100, keepsAll}, {"500", 500, keepsAll}, {"4000", 4000, keepsAll}, // the clicks are of a workspace that keeps nothing
		{"4000-kept", 4000, func(terse.WorkspaceID) Kept { return Kept{UserAgent: true, Network: true} }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			w, buf := benchWriter(b, bb.n)
			w.r.o.Kept = bb.kept
			b.ReportAllocs()
			var bytes int
			rounds := 0
			for b.Loop() {
				w.visitor.refresh()
				w.encode(buf, noon.UnixMilli(), rungAll)
				w.endGroup()
				bytes += len(w.pending)
				rounds++
				w.pending, w.counts = w.pending[:0], w.counts[:0]
			}
			clicks := float64(rounds * bb.n)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/clicks, "ns/click")
			b.ReportMetric(float64(bytes)/clicks, "B/click")
		})
	}
}

func spoolOf(b testing.TB, n int) Options {
	o := testOptions(b, vfs.NewMem())
	r := open(b, o)
	clicks := makeClicks(n, 1)
	for i := range clicks {
		if !r.Capture(uint32(i), &clicks[i]) {
			b.Fatal("dropped")
		}
		if i%2000 == 0 {
			_ = r.Flush(context.Background())
		}
	}
	if err := r.Close(); err != nil {
		b.Fatal(err)
	}
	return o
}

func BenchmarkRead(b *testing.B) {
	o := spoolOf(b, 100_000)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		rd, err := NewReader(ReaderOptions{Dir: o.Dir, FS: o.FS})
		if err != nil {
			b.Fatal(err)
		}
		k, err := rd.Next(b.Context(), 1<<30, func(*Raw) error { return nil })
		if err != nil || k != 100_000 {
			b.Fatal(k, err)
		}
		n += k
		_ = rd.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/click")
}

func BenchmarkEnrich(b *testing.B) {
	o := spoolOf(b, 10_000)
	raws, _ := readAll(b, o, Position{})
	e, err := NewEnricher(EnricherOptions{Agents: agent.New(agent.Options{})})
	if err != nil {
		b.Fatal(err)
	}
	var ev Event
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		e.Enrich(&raws[i%len(raws)], &ev)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "clicks/s")
}
