package clicks

import (
	"context"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/terselink/terse"
)

// capture takes clicks in portions that fit the buffers.
func capture(t *testing.T, r *Recorder, n int, c Click) {
	t.Helper()
	for i := range n {
		for !r.Capture(uint32(i), &c) {
			t.Fatal("dropped before the writer saw it")
		}
		if i%5_000 == 4_999 {
			flush(t, r)
		}
	}
	flush(t, r)
}

func flush(t *testing.T, r *Recorder) {
	t.Helper()
	if err := r.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// TestTotals: at the cap nothing of a person is written but how many clicks a link had, by hour, outcome, trigger and
// objection; it comes as soon as there is room, and every click is accounted for.
func TestTotals(t *testing.T) {
	t.Parallel()
	o := testOptions(t, vfs.NewMem())
	o.MaxBytes, o.SyncEvery = 1_000_000_000, time.Hour
	r := open(t, o)
	r.dirBytes.Store(o.MaxBytes)
	c := makeClicks(1, 1)[0]
	hot := c
	hot.Link++
	capture(t, r, 3, c)
	capture(t, r, 70_000, hot)
	later := c
	later.At += terse.Millis(2 * time.Hour / time.Millisecond)
	capture(t, r, 2, later)
	qr := c
	qr.Flags = FlagQR | FlagMobile
	capture(t, r, 4, qr)
	expired := c
	expired.Outcome, expired.At = OutcomeExpired, 0
	capture(t, r, 5, expired)
	objects := c
	objects.Flags = FlagNoTrack
	capture(t, r, 6, objects)
	bot := c
	bot.UserAgent = []byte("curl/8.0")
	capture(t, r, 7, bot)
	unknown := c
	unknown.Link, unknown.Outcome = 0, OutcomeNotFound
	capture(t, r, 8, unknown)
	const held = 3 + 70_000 + 2 + 4 + 5 + 6
	if s := r.Stats(); s.Held != held || s.Spooled != 0 || s.Dropped != (DropStats{Bots: 7, SpoolFull: 8}) {
		t.Fatalf("at the cap: %+v", s)
	}
	if got, _ := readAll(t, o, Position{}); len(got) != 0 {
		t.Fatalf("%d clicks were written", len(got))
	}
	r.dirBytes.Store(0) // readers have caught up; no click comes
	for r.Stats().Held > 0 {
		flush(t, r)
	}
	flush(t, r)
	got, _ := readAll(t, o, Position{})
	if s := r.Stats(); s.Spooled != 7 || s.Dropped.Totals != held-7 || s.Captured != s.Spooled+s.Dropped.Sum() {
		t.Errorf("%+v", s)
	}
	type row struct {
		link    terse.LinkNumber
		at      terse.Millis
		outcome Outcome
		trigger string
		bot     BotClass
	}
	weights := map[row]int{}
	e, err := NewEnricher(EnricherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		var ev Event
		e.Enrich(&got[i], &ev)
		weights[row{ev.Link, ev.At, ev.Outcome, ev.Trigger, ev.Bot}] += int(ev.Weight)
		if ev.Workspace != c.Workspace || ev.Campaign != c.Campaign || ev.Domain != c.Domain || ev.Code != string(c.Code) {
			t.Errorf("%+v", ev)
		}
		if ev.Visitor != 0 || ev.Country != "" || ev.Device != "" || ev.Browser != "" || ev.Language != "" || ev.Source != "" || ev.BotName != "" || ev.Destination != "" || ev.Repeat {
			t.Errorf("says more than it knows: %+v", ev)
		}
	}
	for want, n := range map[row]int{
		{c.Link, c.At, OutcomeRedirect, "link", Human}:                3,
		{hot.Link, c.At, OutcomeRedirect, "link", Human}:              70_000,
		{c.Link, later.At, OutcomeRedirect, "link", Human}:            2,
		{c.Link, c.At, OutcomeRedirect, "qr", Human}:                  4,
		{c.Link, terse.MillisOf(noon), OutcomeExpired, "link", Human}: 5,
		{c.Link, c.At, OutcomeRedirect, "link", BotSelf}:              6,
	} {
		if weights[want] != n {
			t.Errorf("%+v: %d, want %d", want, weights[want], n)
		}
		delete(weights, want)
	}
	if len(weights) > 0 {
		t.Errorf("more: %v", weights)
	}
	capture(t, r, 1, c) // and clicks are recorded again
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if got, _ := readAll(t, o, Position{}); len(got) != 8 || got[7].Visitor == 0 || got[7].Weight != 1 {
		t.Errorf("%d clicks", len(got))
	}
}

// TestTotalsWhileFull: totals are written every minute as long as that takes a fiftieth of the cap, then at the end.
func TestTotalsWhileFull(t *testing.T) {
	t.Parallel()
	o := testOptions(t, vfs.NewMem())
	o.MaxBytes, o.SyncEvery = 1_000_000_000, time.Hour
	var now atomic.Int64
	now.Store(noon.UnixMilli())
	o.Clock = func() time.Time { return time.UnixMilli(now.Load()) }
	r := open(t, o)
	r.dirBytes.Store(o.MaxBytes)
	c := makeClicks(1, 1)[0]
	rows := func(want int, weight uint16) {
		t.Helper()
		got, _ := readAll(t, o, Position{})
		if len(got) != want || want > 0 && got[want-1].Weight != weight {
			t.Fatalf("%d rows, want %d, the last of %d", len(got), want, weight)
		}
	}
	capture(t, r, 10, c)
	now.Add(59_000)
	capture(t, r, 10, c)
	rows(0, 0)
	now.Add(1_000)
	capture(t, r, 5, c) // what is written is what was there before
	rows(1, 20)
	if s := r.Stats(); s.Held != 5 || s.Dropped.Totals != 19 {
		t.Errorf("%+v", s)
	}
	r.dirBytes.Store(o.MaxBytes + o.MaxBytes/totalsReserve)
	now.Add(600_000)
	capture(t, r, 5, c)
	rows(1, 20)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	rows(2, 10)
	if s := r.Stats(); s.Held != 0 || s.Captured != s.Spooled+s.Dropped.Sum() {
		t.Errorf("%+v", s)
	}
}

// TestTotalsMemory: links beyond the memory for totals are dropped as before; those that are counted go on.
func TestTotalsMemory(t *testing.T) {
	t.Parallel()
	var all totals
	s := slot{at: 1, domain: make([]byte, maxDomain), code: make([]byte, maxCode)}
	n := 0
	for s.link = 1; all.add(&s, 1); s.link++ {
		n++
	}
	if most := totalsBytes / (totalOverall + maxDomain + maxCode); n != most || all.bytes > totalsBytes || len(all.byKey) != most {
		t.Errorf("%d links of %d bytes", n, all.bytes)
	}
	if s.link = 1; !all.add(&s, 1) || all.held != uint64(n+1) {
		t.Errorf("a link that is counted is counted no more: %d", all.held)
	}
}

// TestTotalsRows: rows carry 16 bits of weight, and are counted with those they stand for.
func TestTotalsRows(t *testing.T) {
	t.Parallel()
	o := testOptions(t, vfs.NewMem())
	o.SyncEvery = time.Hour
	w := newWriter(open(t, o))
	t.Cleanup(func() {
		if err := w.r.Close(); err != nil {
			t.Error(err)
		}
	})
	s := slot{at: 1, link: 5, client: make([]byte, clientHeader)}
	for range totalMost + 10 {
		w.totals.add(&s, 1)
	}
	w.writeTotals()
	if len(w.counts) != 1 || w.counts[0] != 2 || w.stood != totalMost+8 || w.totals.held != 0 {
		t.Errorf("%v rows that stand for %d more", w.counts, w.stood)
	}
}

// TestGoldenTotals holds rows of totals to docs/format/spool.md, and reads them from there.
func TestGoldenTotals(t *testing.T) {
	t.Parallel()
	const path = "testdata/spool-v1-totals.hex"
	o := testOptions(t, vfs.NewMem())
	if err := o.setDefaults(); err != nil {
		t.Fatal(err)
	}
	w := newWriter(&Recorder{o: o})
	w.group.fill = func(b []byte) { copy(b, "0123456789abcdef") }
	s := slot{at: terse.MillisOf(noon), workspace: 1, link: terse.NewLinkNumber(1, 7, 5), campaign: 2, flags: FlagQR | FlagMobile, domain: []byte("go.test"), code: []byte("aB3xY9z")}
	for range 70_000 {
		w.totals.add(&s, int64(s.at))
	}
	w.writeTotals()
	got := hexLines(append(appendSegmentHeader(nil, noon.UnixMilli(), "n1"), w.pending...))
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || got != string(want) {
		t.Fatalf("%v; got\n%swant\n%s", err, got, want)
	}
	page, err := os.ReadFile("../../docs/format/spool.md")
	if err != nil || !strings.Contains(string(page), got) {
		t.Errorf("docs/format/spool.md does not show these bytes (%v)", err)
	}
	data, err := hex.DecodeString(strings.ReplaceAll(string(want), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	disk := Options{Dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(disk.Dir, segmentID{newBoot(1, 1), 1}.name()), data, 0o600); err != nil {
		t.Fatal(err)
	}
	rows, _ := readAll(t, disk, Position{})
	if len(rows) != 2 || rows[0].Weight != totalMost || rows[1].Weight != 70_000-totalMost || rows[1].Flags != FlagQR|flagTotal || rows[0].ID == rows[1].ID {
		t.Errorf("%+v", rows)
	}
}
