package pebblestore

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse"
)

func TestOpenMakesPrivateDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "store")
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, error %v, want 0700", info.Mode(), err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpenTwice(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem()
	s := openTest(t, fsys)
	_, err := Open("store", memOptions(fsys))
	if !errors.Is(err, terse.ErrUnavailable) || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("got error %v", err)
	}
	mustInsert(t, s, testLink(0)) // the first is not disturbed
}

func TestOpenNewerFormat(t *testing.T) {
	t.Parallel()
	for _, value := range [][]byte{binary.BigEndian.AppendUint32(nil, formatVersion+1), {1}} {
		fsys := vfs.NewMem()
		s, err := Open("store", memOptions(fsys))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.db.Set(formatKey, value, pebble.Sync); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Open("store", memOptions(fsys)); err == nil || !strings.Contains(err.Error(), "use a newer one") {
			t.Errorf("got error %v", err)
		}
		// A refused directory is left as it was, and unlocked.
		db, err := pebble.Open("store", &pebble.Options{FS: fsys, FormatMajorVersion: pebble.FormatTableFormatV6, Logger: quiet{}})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOpenOlderFormat: a directory of format 1 is read, and marked so that a binary of
// format 1 refuses it from then on.
func TestOpenOlderFormat(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem()
	s, err := Open("store", memOptions(fsys))
	if err != nil {
		t.Fatal(err)
	}
	l := testLink(1)
	mustInsert(t, s, l)
	if err := s.db.Set(formatKey, binary.BigEndian.AppendUint32(nil, 1), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open("store", memOptions(fsys)); err != nil {
		t.Fatal(err)
	}
	got := make([]terse.Link, 1)
	if err := s.GetLinks(t.Context(), []terse.LinkKey{{Number: l.Number, Code: l.Code}}, got); err != nil || got[0].Destination != l.Destination {
		t.Errorf("the link of before: %+v, %v", got[0], err)
	}
	v, closer, err := s.db.Get(formatKey)
	if err != nil || binary.BigEndian.Uint32(v) != formatVersion {
		t.Errorf("the format is %x, %v", v, err)
	}
	if err := errors.Join(closer.Close(), s.Close()); err != nil {
		t.Error(err)
	}
}

// TestUnknownSettings: a setting that this version does not know is an error, not nothing.
func TestUnknownSettings(t *testing.T) {
	t.Parallel()
	for _, b := range []string{`{"title":"t","later":true}`, `{"web":{"later":true}}`, `{"rules":[{"conditions":[],"later":1}]}`} {
		if s, err := decodeSettings(1, []byte(b)); err == nil {
			t.Errorf("%s is %+v", b, s)
		}
	}
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(string, ...any) { panic("fatal") }

func TestCheckpoint(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(filepath.Join(dir, "store"), Options{MaintainEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	links := testLinks(0, 200)
	mustInsert(t, s, links...)
	if err := s.Checkpoint(filepath.Join(dir, "copy")); err != nil {
		t.Fatal(err)
	}
	mustInsert(t, s, testLink(200))
	c, err := Open(filepath.Join(dir, "copy"), Options{MaintainEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	wantLinks(t, c, links...)
	wantAbsent(t, c, testLink(200).Number)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCollector(t *testing.T) {
	t.Parallel()
	s := openTest(t, vfs.NewMem())
	mustInsert(t, s, testLinks(0, 100)...)
	// A pedantic registry refuses what Collect and Describe do not agree on.
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(s.Collector()); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		m := f.GetMetric()[0]
		got[f.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	for name, want := range map[string]float64{"failed": 0, "links_inserted_total": 100, "commits_total": 1, "index_queue": 1} {
		if v, ok := got["terse_store_pebble_"+name]; !ok || v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
	if len(got) != 14 || got["terse_store_pebble_memtable_bytes"] == 0 {
		t.Errorf("got metrics %v, want 14 with the size of the memtable", got)
	}
}

// TestMaintain drives the background loop by its ticks. A send returns when the round before
// it has ended.
func TestMaintain(t *testing.T) {
	t.Parallel()
	s := openTest(t, vfs.NewMem())
	tick := make(chan time.Time)
	s.workers.Go(func() { s.maintainLoop(tick) })
	mustInsert(t, s, testLinks(0, 100)...)
	tick <- time.Time{} // bulk came since the loop began: not idle
	tick <- time.Time{} // idle; the round before is over
	tick <- time.Time{}
	if n := s.queued.Load(); n != 0 {
		t.Errorf("%d inserts are not indexed, want none", n)
	}
	if n := countKeys(t, s, famQueue); n != 0 {
		t.Errorf("the queue has %d entries, want none", n)
	}
	if n := countKeys(t, s, famHint); n != 100 {
		t.Errorf("got %d hints, want 100", n)
	}
}

func TestTrimFeed(t *testing.T) {
	t.Parallel()
	fsys, now := vfs.NewMem(), testNow
	o := memOptions(fsys)
	o.Clock = func() terse.Millis { return now }
	o.FeedMaxEntries = 5
	s, err := Open("store", o)
	if err != nil {
		t.Fatal(err)
	}
	feed := func() (seqs []uint64) {
		t.Helper()
		changes, err := s.Changes(context.Background(), 0, 100)
		if e, ok := errors.AsType[*terse.ForgottenError](err); ok {
			changes, err = s.Changes(context.Background(), e.Floor, 100)
			if err == nil && (len(changes) == 0 || changes[0].Seq != e.Floor+1) {
				t.Errorf("the floor is %d, and after it come %+v", e.Floor, changes)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			seqs = append(seqs, c.Seq)
		}
		return seqs
	}
	trim := func(want ...uint64) {
		t.Helper()
		if err := s.trimFeed(context.Background()); err != nil {
			t.Fatal(err)
		}
		got := feed()
		if len(got) != int(want[1]-want[0])+1 || got[0] != want[0] || got[len(got)-1] != want[1] {
			t.Errorf("the feed is %v, want %d to %d", got, want[0], want[1])
		}
	}
	for i := range uint64(10) {
		mustInsert(t, s, testLink(i))
	}
	trim(5, 10) // entries
	trim(5, 10)
	now += 24*3600*1000 - 1
	mustInsert(t, s, testLink(10))
	trim(6, 11)
	now += 2
	trim(11, 11) // age
	now += 48 * 3600 * 1000
	trim(11, 11) // the last one stays
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open("store", o); err != nil {
		t.Fatal(err)
	}
	mustInsert(t, s, testLink(11))
	if got := feed(); got[len(got)-1] != 12 {
		t.Errorf("after a new start the feed is %v, want it to end with 12", got)
	}
	if got := list(t, s, 1, terse.ListQuery{Limit: 100}); len(got) != 12 {
		t.Errorf("listed %d links, want 12: lists are never trimmed", len(got))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestScanLimit(t *testing.T) {
	t.Parallel()
	s := openTest(t, vfs.NewMem())
	wanted := testLink(0)
	wanted.Settings = &terse.LinkSettings{Tags: []string{"x"}}
	wanted.CreatedAt, wanted.UpdatedAt = testNow+1, testNow+1
	mustInsert(t, s, wanted)
	mustInsert(t, s, testLinks(1, scanLimit+5)...)
	q := terse.ListQuery{Limit: 10, CreatedFrom: testNow + 1, CreatedTo: testNow + 2}
	page, err := s.ListLinks(context.Background(), 1, q)
	if err != nil || len(page.Links) != 1 || page.Next != "" {
		t.Errorf("entries outside the range are not read: got %d links, next %q, error %v", len(page.Links), page.Next, err)
	}
	q = terse.ListQuery{Limit: 10, CreatedFrom: testNow, Campaign: 0, ExternalID: ""}
	q.CreatedFrom, q.CreatedTo = 0, 0
	q.Tag = "x"
	if page, err = s.ListLinks(context.Background(), 1, q); err != nil || len(page.Links) != 1 || page.Next != "" {
		t.Errorf("by tag: got %d links, next %q, error %v", len(page.Links), page.Next, err)
	}
	// A filter that only rows can answer takes more than one call.
	late := testLinks(scanLimit+10, scanLimit+5)
	late[0].CreatedAt, late[0].UpdatedAt = testNow+5, testNow+5
	mustInsert(t, s, late...)
	q = terse.ListQuery{Limit: 10, CreatedFrom: testNow + 5}
	if page, err = s.ListLinks(context.Background(), 1, q); err != nil || len(page.Links) != 0 || page.Next == "" {
		t.Errorf("first call: got %d links, next %q, error %v", len(page.Links), page.Next, err)
	}
	if got := list(t, s, 1, q); len(got) != 1 || got[0] != late[0].Number {
		t.Errorf("all calls: got %v", got)
	}
}
