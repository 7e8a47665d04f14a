package clicks

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse"
)

func addr16(b [16]byte) netip.Addr { return netip.AddrFrom16(b) }

// TestConcurrentCapture counts: captured = spooled + dropped, and every click
// that was taken is read once.
func TestConcurrentCapture(t *testing.T) {
	t.Parallel()
	o := testOptions(t, vfs.NewMem())
	o.BufferBytes = 0
	o.Shards = 3 // becomes 4
	o.BufferBytes = 4 * minShardBytes
	r := open(t, o)
	clicks := makeClicks(1000, 1)
	var taken atomic.Uint64
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 5000 {
				c := clicks[i%1000]
				if r.Capture(uint32(w*7+i), &c) {
					taken.Add(1)
				}
				if i%1000 == 999 {
					if err := r.Flush(context.Background()); err != nil {
						t.Error(err)
					}
					_ = r.Stats()
				}
			}
		})
	}
	wg.Wait()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal("second close:", err)
	}
	if r.Capture(1, &clicks[0]) {
		t.Error("captured after close")
	}
	s := r.Stats()
	if s.Captured != 40_001 || s.Captured != s.Spooled+s.Dropped.Sum() || s.Spooled != taken.Load() || s.Dropped.Closed != 1 {
		t.Fatalf("taken %d, %+v", taken.Load(), s)
	}
	if got, _ := readAll(t, o, Position{}); uint64(len(got)) != taken.Load() {
		t.Fatalf("read %d of %d", len(got), taken.Load())
	}
	if err := r.Flush(t.Context()); terse.ErrorCode(err) != terse.CodeUnavailable {
		t.Error("flush after close:", err)
	}
}

// TestFlushBound: a click is in the file FlushEvery after Capture, also after the
// writer has gone to sleep, and synced within SyncEvery.
func TestFlushBound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t, vfs.NewMem())
		o.Clock = time.Now
		r := open(t, o)
		clicks := makeClicks(100, 1)
		for i := range clicks {
			if i%3 == 0 {
				time.Sleep(2 * time.Second) // the writer sleeps
			}
			r.Capture(uint32(i), &clicks[i])
			time.Sleep(5*time.Millisecond + 1)
			synctest.Wait()
			if s := r.Stats(); s.Spooled != uint64(i+1) {
				t.Fatalf("click %d: %+v", i, s)
			}
		}
		before := r.Stats().Syncs
		time.Sleep(time.Second)
		synctest.Wait()
		if r.Stats().Syncs == before {
			t.Error("not synced within a second")
		}
		// Nothing to do: no group and no fsync.
		before = r.Stats().Syncs
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := r.Stats(); s.Syncs > before+1 {
			t.Errorf("%d syncs of an idle spool", s.Syncs-before)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestCaptureSync(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		fs := &failing{vfs.NewMem(), func(op string) error {
			if op == "sync" && broken.Load() {
				return errDisk
			}
			return nil
		}}
		o := testOptions(t, fs)
		o.Durability = DurabilityBatch
		o.SyncEvery = time.Hour
		r := open(t, o)
		clicks := makeClicks(200, 1)
		var wg sync.WaitGroup
		for i := range clicks {
			wg.Go(func() {
				if err := r.CaptureSync(t.Context(), uint32(i), &clicks[i]); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if s := r.Stats(); s.Spooled != 200 || s.Syncs == 0 || s.Syncs > 50 {
			t.Errorf("syncs are not shared: %+v", s)
		}
		broken.Store(true)
		if err := r.CaptureSync(t.Context(), 1, &clicks[0]); terse.ErrorCode(err) != terse.CodeUnknownOutcome || !errors.Is(err, errDisk) {
			t.Errorf("failed sync: %v", err)
		}
		broken.Store(false)
		if err := r.CaptureSync(t.Context(), 1, &clicks[1]); err != nil {
			t.Errorf("after the failure: %v", err)
		}
		if s := r.Stats(); s.Segments != 2 || s.SyncErrors != 1 {
			t.Errorf("a segment whose sync failed must be given up: %+v", s)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if err := r.CaptureSync(t.Context(), 1, &clicks[1]); !errors.Is(err, terse.ErrUnavailable) {
			t.Errorf("closed: %v", err)
		}
		if got, _ := readAll(t, o, Position{}); len(got) != 202 {
			t.Errorf("read %d", len(got))
		}
	})
}

// TestSyncWait: a stalled disk delays a redirect by SyncWait at most, and not at
// all with DurabilityInterval.
func TestSyncWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		fs := &failing{vfs.NewMem(), func(op string) error {
			if op == "sync" {
				<-gate
			}
			return nil
		}}
		o := testOptions(t, fs)
		o.Durability = DurabilityBatch
		r := open(t, o)
		c := makeClicks(1, 1)[0]
		start := time.Now()
		if err := r.CaptureSync(t.Context(), 1, &c); !errors.Is(err, terse.ErrUnknownOutcome) {
			t.Error(err)
		}
		if d := time.Since(start); d != 250*time.Millisecond {
			t.Errorf("waited %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := r.CaptureSync(ctx, 1, &c); !errors.Is(err, terse.ErrUnknownOutcome) {
			t.Error(err)
		}
		if s := r.Stats(); s.SyncTimeouts != 2 || s.Spooled != 2 {
			t.Errorf("%+v", s)
		}
		close(gate)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		o.Durability, o.FS = DurabilityInterval, vfs.NewMem()
		r = open(t, o)
		if err := r.CaptureSync(t.Context(), 1, &c); err != nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestFullDisk: while the disk refuses, captures go on until memory is full,
// never block, and everything taken is written once it recovers.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"write", "create"} {
		synctest.Test(t, func(t *testing.T) {
			var full atomic.Bool
			fs := &failing{vfs.NewMem(), func(o string) error {
				if o == op && full.Load() {
					return errDisk
				}
				return nil
			}}
			o := testOptions(t, fs)
			o.Shards, o.BufferBytes, o.SegmentBytes = 1, 2*minShardBytes, 4<<10
			r := open(t, o)
			clicks := makeClicks(1000, 1)
			capture := func() {
				for i := range clicks {
					r.Capture(0, &clicks[i])
					if i%20 == 0 {
						time.Sleep(6 * time.Millisecond)
					}
				}
			}
			capture()
			full.Store(true)
			capture()
			if s := r.Stats(); s.Dropped.BufferFull == 0 || s.WriteErrors == 0 {
				t.Fatalf("%s: %+v", op, s)
			}
			full.Store(false)
			time.Sleep(2 * time.Second)
			capture()
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			s := r.Stats()
			got, rd := readAll(t, o, Position{})
			if s.Captured != 3000 || s.Captured != s.Spooled+s.Dropped.Sum() || uint64(len(got)) != s.Spooled || rd.Stats().Quarantined != 0 {
				t.Fatalf("%s: read %d, %+v, %+v", op, len(got), s, rd.Stats())
			}
			ids, err := listSegments(fs, o.Dir)
			if err != nil || uint64(len(ids)) > s.Segments {
				t.Fatalf("%s: empty segments pile up: %d of %d", op, len(ids), s.Segments)
			}
			_ = rd.Close()
		})
	}
}

// TestCloseOnDeadDisk ends, says so, and counts the rest as dropped.
func TestCloseOnDeadDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t, &failing{vfs.NewMem(), func(op string) error {
			if op == "write" {
				return errDisk
			}
			return nil
		}})
		r := open(t, o)
		for _, c := range makeClicks(10, 1) {
			r.Capture(0, &c)
		}
		if err := r.Close(); !errors.Is(err, errDisk) {
			t.Errorf("close: %v", err)
		}
		if s := r.Stats(); s.Dropped.Disk != 10 || s.Captured != 10 {
			t.Errorf("%+v", s)
		}
	})
}

// TestLadder fills a small spool step by step.
func TestLadder(t *testing.T) {
	t.Parallel()
	bot := []byte("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)")
	for _, tt := range []struct {
		name               string
		percent            int64
		people, bots, head int // rows of 1000, 100, 100
	}{
		{"below", 79, 1000, 100, 100},
		{"80 %", 81, 1000, 0, 0},
		{"95 %", 96, 100, 0, 0},
		{"full", 101, 1000, 0, 0}, // of a weight each, for every click is of a link of its own
	} {
		o := testOptions(t, vfs.NewMem())
		o.MaxBytes, o.SyncEvery = 1_000_000_000, time.Hour
		r := open(t, o)
		r.dirBytes.Store(o.MaxBytes / 100 * tt.percent)
		clicks := makeClicks(1200, 1)
		for i := range clicks {
			switch c := &clicks[i]; {
			case i < 100:
				c.UserAgent = bot
			case i < 200:
				c.Flags = FlagHead
			}
			r.Capture(0, &clicks[i])
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		got, _ := readAll(t, o, Position{})
		people, weight, bots, head := 0, 0, 0, 0
		for _, g := range got {
			switch {
			case g.Flags&FlagHead != 0:
				head++
			case strings.Contains(string(g.UserAgent), "Googlebot"):
				bots++
			default:
				people++
				weight += int(g.Weight)
			}
		}
		near := func(a, b int) bool { return a*2 >= b && a <= b*2 }
		if bots != tt.bots || head != tt.head || !near(people, tt.people) || tt.people > 0 && !near(weight, 1000) {
			t.Errorf("%s: %d people of weight %d, %d bots, %d heads", tt.name, people, weight, bots, head)
		}
		if s := r.Stats(); s.Captured != s.Spooled+s.Dropped.Sum() {
			t.Errorf("%s: %+v", tt.name, s)
		}
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		o     Options
		field string
	}{
		{"no directory", Options{}, "dir"},
		{"long node", Options{Dir: "x", Node: strings.Repeat("n", 65)}, "node"},
	} {
		_, err := Open(tt.o)
		if e, ok := errors.AsType[*terse.Error](err); !ok || e.Code != terse.CodeInvalid || e.Field != tt.field {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	// One process at a time.
	o := testOptions(t, nil)
	r := open(t, o)
	if _, err := Open(o); terse.ErrorCode(err) != terse.CodeConflict {
		t.Errorf("second recorder: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	// A boot sorts after those before it, also when the clock went back.
	last := r.Boot()
	for i := range 3 {
		o.Clock = func() time.Time { return noon.Add(-time.Duration(i) * time.Hour) }
		r := open(t, o)
		if r.Boot() <= last {
			t.Errorf("boot %s after %s", r.Boot(), last)
		}
		last = r.Boot()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTrim(t *testing.T) {
	t.Parallel()
	o := testOptions(t, nil)
	o.SegmentBytes = 4 << 10
	recorded(t, o, 1000, 1)
	ids, err := listSegments(vfs.Default, o.Dir)
	if err != nil || len(ids) < 6 {
		t.Fatal(ids, err)
	}
	all, rd := readAll(t, o, Position{})
	end := rd.Position()
	trim := func(name string, want int, to TrimOptions) {
		t.Helper()
		to.Dir = o.Dir
		if n, err := Trim(to); n != want || err != nil {
			t.Fatalf("%s: %d %v, want %d", name, n, err, want)
		}
	}
	now := time.Now()
	trim("nothing committed", 0, TrimOptions{Now: now.Add(999 * time.Hour)})
	trim("kept for replay", 0, TrimOptions{Committed: end, Keep: time.Hour, Now: now})
	trim("only what lies wholly before", 1, TrimOptions{Committed: ids[1].at(100), Now: now})
	trim("a full spool does not wait", 1, TrimOptions{Committed: ids[2].at(0), Keep: time.Hour, Now: now, MaxBytes: 100})
	trim("a reader that is behind keeps them", 0, TrimOptions{Committed: ids[1].at(0), Early: end, Now: now.Add(999 * time.Hour)})
	trim("but not for ever", 1, TrimOptions{Committed: ids[1].at(0), Early: ids[3].at(0), Now: now, MaxBytes: 100})
	// Positions in deleted segments continue with the next.
	rest, _ := readAll(t, o, ids[0].at(0))
	if err := sameID(rest, all[len(all)-len(rest):]); err != nil || len(rest) == 0 {
		t.Fatal(err)
	}
	trim("never the newest", len(ids)-4, TrimOptions{Committed: Position{Boot: "999999999999999-000000000000"}, Now: now})
	if left, _ := readAll(t, o, end); len(left) != 0 {
		t.Fatal("read again")
	}
	if _, err := Trim(TrimOptions{Dir: o.Dir + "/none"}); err == nil {
		t.Error("no directory: no error")
	}
}

func TestPosition(t *testing.T) {
	t.Parallel()
	ordered := []Position{
		{},
		{"001764000000000-000000000001", 1, 0}, {"001764000000000-000000000001", 1, 77}, {"001764000000000-000000000001", 2, 5},
		{"001764000000000-000000000001", 10, 0}, {"001764000000001-000000000000", 1, 0},
	}
	for i, p := range ordered {
		back, err := ParsePosition(p.String())
		if err != nil || back != p {
			t.Errorf("%q: %+v %v", p, back, err)
		}
		for j, q := range ordered {
			if p.Compare(q) != compareInt(i, j) || strings.Compare(p.String(), q.String()) != compareInt(i, j) {
				t.Errorf("%v and %v are out of order", p, q)
			}
		}
	}
	for _, bad := range []string{"x", "a/b", "001764000000000-000000000001/1", "001764000000000-000000000001/1/-5", "001764000000000-00000000000g/1/5", "../../etc/1/1"} {
		if _, err := ParsePosition(bad); terse.ErrorCode(err) != terse.CodeInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := NewReader(ReaderOptions{Dir: "x", From: Position{Boot: "../x"}}); terse.ErrorCode(err) != terse.CodeInvalid {
		t.Error(err)
	}
	if _, err := OpenReader("", Position{}); terse.ErrorCode(err) != terse.CodeInvalid {
		t.Error(err)
	}
}

func compareInt(a, b int) int { return max(-1, min(1, a-b)) }

func TestCollector(t *testing.T) {
	t.Parallel()
	r := open(t, testOptions(t, vfs.NewMem()))
	defer r.Close()
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(r); err != nil {
		t.Fatal(err)
	}
	c := makeClicks(1, 1)[0]
	r.Capture(1, &c)
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		values[f.GetName()] += f.GetMetric()[0].GetCounter().GetValue()
	}
	if values["terse_clicks_captured_total"] != 1 || values["terse_clicks_spooled_total"] != 1 || len(families) != 11 {
		t.Errorf("%v", values)
	}
}

func TestNodeName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"":                            "",
		"berlin":                      "berlin",
		strings.Repeat("n", 64):       strings.Repeat("n", 64),
		strings.Repeat("n", 65):       strings.Repeat("n", 64),
		strings.Repeat("ü", 33):       strings.Repeat("ü", 32),
		"n" + strings.Repeat("ü", 32): "n" + strings.Repeat("ü", 31),
		"a\xffb":                      "ab",
	} {
		if got := NodeName(name); got != want {
			t.Errorf("NodeName(%q) = %q, want %q", name, got, want)
		}
	}
}
