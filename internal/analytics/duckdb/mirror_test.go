package duckdb

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	objects "github.com/terselink/terse/internal/bucket"
	"github.com/terselink/terse/internal/bucket/buckettest"
	"github.com/terselink/terse/internal/clicks"
)

var _ RecordStore = (*objects.Bucket)(nil)

// threeDays returns some events of the two days before inSpan and of its own. They are in no order, so that the second half
// of them has late clicks of every hour.
func threeDays() []clicks.Event {
	from := terse.MillisOf(inSpan.Truncate(24*time.Hour).AddDate(0, 0, -2))
	list := without(enginetest.Events(42, 8000), func(ev *clicks.Event) bool { return ev.At < from || ev.At >= terse.MillisOf(inSpan) })
	var even, odd []clicks.Event
	for i := range list {
		if i%2 == 0 {
			even = append(even, list[i])
		} else {
			odd = append(odd, list[i])
		}
	}
	return append(even, odd...)
}

func pass(t *testing.T, d *DB) {
	t.Helper()
	if err := d.mirror.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// equal checks that the store has what the folder has, byte for byte, and that it is known.
func equal(t *testing.T, d *DB, b *objects.Bucket) []string {
	t.Helper()
	local, err := walkRecord(d.o.Record)
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Sorted(maps.Keys(local))
	got := slices.DeleteFunc(buckettest.Names(t, b), func(name string) bool { return name == ownerObject })
	if !slices.Equal(want, got) {
		t.Fatalf("the folder and the store differ: %s", cmp.Diff(want, got))
	}
	path := filepath.Join(t.TempDir(), "object")
	for _, name := range want {
		if err := b.Get(t.Context(), name, path); err != nil {
			t.Fatal(err)
		}
		here, err1 := os.ReadFile(filepath.Join(d.o.Record, filepath.FromSlash(name)))
		there, err2 := os.ReadFile(path)
		if err1 != nil || err2 != nil || !slices.Equal(here, there) {
			t.Errorf("%s has another content in the store: %v %v", name, err1, err2)
		}
	}
	st := d.Mirrored()
	if st.Pending != 0 || st.PendingBytes != 0 || st.Error != "" || st.Equal == 0 || d.Stored() != d.settledAt() {
		t.Errorf("status %+v, stored %v of %v", st, d.Stored(), d.settledAt())
	}
	return want
}

// TestMirror follows a record through everything that changes files: the store has the same ones each time.
func TestMirror(t *testing.T) {
	b := buckettest.Open(t, buckettest.New(t))
	events := threeDays()
	d := closed(t, Options{Store: b}, events[:len(events)/2])
	if d.Stored() != (clicks.Position{}) {
		t.Errorf("stored before anything was: %v", d.Stored())
	}
	pass(t, d)
	first := equal(t, d, b)
	if len(first) < 2*5+5 || d.Stored() != d.Recorded() || d.Stored() == (clicks.Position{}) {
		t.Errorf("%d files, stored %v, recorded %v", len(first), d.Stored(), d.Recorded())
	}
	sent := d.Mirrored().Uploads
	pass(t, d)
	if st := d.Mirrored(); st.Uploads != sent || st.Deletes != 0 {
		t.Errorf("a round without changes: %+v", st)
	}
	late(t, d, events) // days are closed again: other names
	maintain(t, d)
	pass(t, d)
	if equal(t, d, b); d.Mirrored().Deletes == 0 {
		t.Error("files that were replaced are not deleted")
	}
	n, err := d.Erase(t.Context(), Erasure{Workspace: enginetest.Workspace, Link: events[0].Link})
	if err != nil || n == 0 {
		t.Fatalf("%d erased, %v", n, err)
	}
	before := equal(t, d, b) // without another round
	if !slices.Contains(before, erasuresFile) {
		t.Error("the store does not know what was erased")
	}
	d.SetRetention(Retention{Default: Terms{Raw: 1}, Rollups: 1})
	maintain(t, d)
	pass(t, d)
	if names := equal(t, d, b); len(names) >= len(before) {
		t.Errorf("%d files after retention, %d before", len(names), len(before))
	}
}

// TestConformanceRecordStore: a server that lost its disk answers from the bucket and the spool as before.
func TestConformanceRecordStore(t *testing.T) {
	enginetest.Run(t, enginetest.Options{Events: 800, Queries: 20, New: func(t *testing.T, events []clicks.Event) analytics.Engine {
		b := buckettest.Open(t, buckettest.New(t))
		before := closed(t, Options{Store: b}, events)
		pass(t, before)
		o := Options{Dir: t.TempDir(), Record: t.TempDir(), Store: b, Clock: leapsFrom(inSpan), scopeRows: 20}
		d := open(t, o)
		if len(events) > 500 && (d.Status(t.Context()).Rows < int64(len(events)/4) || len(d.rolled) < 15) {
			t.Errorf("the store gave %d of %d clicks and %d days", d.Status(t.Context()).Rows, len(events), len(d.rolled))
		}
		ingest(t, d, &sliceSource{events: events}) // the whole spool again
		maintain(t, d)
		pass(t, d)
		equal(t, d, b)
		if err := before.mirror.pass(t.Context()); terse.ErrorCode(err) != terse.CodePrecondition {
			t.Errorf("the server that was replaced: %v", err)
		}
		return d
	}})
}

// TestMirrorOutage: while the store is away everything waits, and is counted; then it catches up. A request
// that was cut off, before or after it was carried out, is made again.
func TestMirrorOutage(t *testing.T) {
	good := buckettest.New(t)
	proxy, o := buckettest.Behind(t, good)
	o.Attempts = 1
	events := threeDays()
	d := closed(t, Options{Store: buckettest.Open(t, o)}, events[:len(events)/2])
	pass(t, d)
	stored := d.Stored()
	late(t, d, events)
	maintain(t, d)
	proxy.Refuse()
	for n := range int64(3) {
		if err := d.mirror.pass(t.Context()); terse.ErrorCode(err) != terse.CodeUnavailable {
			t.Fatalf("while the store is away: %v", err)
		}
		if st := d.Mirrored(); st.Failures != n+1 || st.Pending == 0 || st.PendingBytes == 0 || st.Error == "" || st.Since == 0 || st.Refused {
			t.Errorf("status %+v", st)
		}
	}
	since := d.Mirrored().Since
	if d.Stored() != stored || d.Recorded().Compare(stored) < 0 {
		t.Errorf("stored %v, before %v, recorded %v", d.Stored(), stored, d.Recorded())
	}
	if got, err := d.Summary(t.Context(), everything()); err != nil || got.Total == 0 {
		t.Errorf("queries without the store: %+v, %v", got, err)
	}
	if _, err := d.Erase(t.Context(), Erasure{Workspace: enginetest.Workspace, Link: events[0].Link}); terse.ErrorCode(err) != terse.CodeUnavailable {
		t.Errorf("an erasure that does not reach the store: %v", err)
	}
	if d.Mirrored().Since != since {
		t.Error("the outage began anew")
	}
	proxy.Pass()
	for i, at := range []string{"PUT /", "PUT /", "DELETE /", "DELETE /"} {
		proxy.Cut(at, i%2 == 1)
		if err := d.mirror.pass(t.Context()); err != nil && terse.ErrorCode(err) != terse.CodeUnavailable {
			t.Errorf("cut at %s: %v", at, err)
		}
	}
	pass(t, d)
	proxy.Pass() // what was not reached is not cut any more
	equal(t, d, buckettest.Open(t, good))
}

// TestMirrorLoop: the loop sends by itself, says when it fails, and ends with its context.
func TestMirrorLoop(t *testing.T) {
	good := buckettest.New(t)
	proxy, o := buckettest.Behind(t, good)
	o.Attempts = 1
	d := closed(t, Options{Store: buckettest.Open(t, o)}, threeDays())
	proxy.Refuse()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Mirror(ctx) }()
	await(t, func() bool { return d.Mirrored().Failures > 0 })
	proxy.Pass()
	await(t, func() bool { return d.Stored() == d.Recorded() && d.Mirrored().Error == "" })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	equal(t, d, buckettest.Open(t, good))
}

// await waits for a condition that another goroutine makes true.
func await(t *testing.T, f func() bool) {
	t.Helper()
	deadline := time.NewTimer(3 * time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatal("it does not happen")
		}
	}
}

// TestMirrorOwner: a store holds one record, of one server.
func TestMirrorOwner(t *testing.T) {
	place := buckettest.New(t)
	b := buckettest.Open(t, place)
	events := threeDays()
	d := closed(t, Options{Store: b}, events)
	pass(t, d)
	names := equal(t, d, b)

	other := closed(t, Options{Store: b}, events[:0]) // its folder is empty: it takes the record over
	pass(t, other)
	if err := d.mirror.pass(t.Context()); terse.ErrorCode(err) != terse.CodePrecondition || !strings.Contains(err.Error(), "taken over") {
		t.Errorf("the first server: %v", err)
	}
	if !d.Mirrored().Refused {
		t.Error("the status does not say that it stays so")
	}
	if got := equal(t, other, b); !cmp.Equal(names, got) {
		t.Errorf("what was taken over differs: %s", cmp.Diff(names, got))
	}

	// One with a record of its own is refused.
	empty := buckettest.Open(t, buckettest.New(t))
	own := Options{Dir: t.TempDir(), Record: t.TempDir(), Store: empty}
	third := closed(t, own, events)
	third.mirror.store = b
	if err := third.mirror.pass(t.Context()); terse.ErrorCode(err) != terse.CodePrecondition || !strings.Contains(err.Error(), "another server") {
		t.Errorf("a server with another record: %v", err)
	}
	third.mirror.store = empty
	pass(t, third)
	equal(t, third, empty)

	// So are files of a record without a word of whose it is.
	if err := empty.Delete(t.Context(), ownerObject); err != nil {
		t.Fatal(err)
	}
	fourth := closed(t, Options{Store: empty, Record: t.TempDir()}, events)
	if err := fourth.mirror.pass(t.Context()); terse.ErrorCode(err) != terse.CodePrecondition || !strings.Contains(err.Error(), "no "+ownerObject) {
		t.Errorf("files of nobody: %v", err)
	}

	// A store that was emptied gets everything again, and so do objects that it lost.
	for _, name := range buckettest.Names(t, empty) {
		if err := empty.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	pass(t, third)
	equal(t, third, empty)
	lost := recordFiles(t, third.o.Record)[0]
	if err := empty.Delete(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	third.mirror.audited = time.Time{}
	pass(t, third)
	equal(t, third, empty)
}

// TestMirrorRestore: what the folder lost comes back when the database is opened, or while it is open; without
// the store nothing is begun that would be wrong.
func TestMirrorRestore(t *testing.T) {
	good := buckettest.New(t)
	proxy, o := buckettest.Behind(t, good)
	o.Attempts = 1
	b := buckettest.Open(t, o)
	events := threeDays()
	want, _ := enginetest.NewReference(events).Summary(t.Context(), everything())
	at := Options{Dir: t.TempDir(), Record: t.TempDir(), Store: b, Clock: leapsFrom(inSpan), scopeRows: 20, MemoryLimit: 512 << 20}
	check := func(what string, d *DB) {
		t.Helper()
		if got, err := d.Summary(t.Context(), everything()); err != nil || got.Total != want.Total || got.Visitors != want.Visitors {
			t.Errorf("%s: %d clicks, %d visitors, %v; want %d, %d", what, got.Total, got.Visitors, err, want.Total, want.Visitors)
		}
	}
	reopen := func(d *DB, between func()) *DB {
		t.Helper()
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		between()
		d, err := Open(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d, err := Open(t.Context(), at)
	must(err)
	ingest(t, d, &sliceSource{events: events})
	maintain(t, d)
	pass(t, d)
	names := equal(t, d, b)
	gone := filepath.Join(at.Record, filepath.FromSlash(d.cold[slices.Min(slices.Collect(maps.Keys(d.cold)))][0].name))

	must(os.Remove(gone)) // while it is open
	pass(t, d)
	equal(t, d, b)

	d = reopen(d, func() { must(os.Remove(gone)) })
	check("a file was gone", d)

	d = reopen(d, func() {
		must(SetAside(at.Dir, inSpan))
		must(os.WriteFile(gone, []byte("PAR1 no more"), 0o600))
	})
	ingest(t, d, &sliceSource{events: events})
	check("a file was spoilt, and the database lost", d)

	d = reopen(d, func() {
		proxy.Refuse()
		must(SetAside(at.Dir, inSpan))
	})
	ingest(t, d, &sliceSource{events: events})
	check("the database was lost while the store is away", d)

	// Everything is lost while the store is away.
	must(d.Close())
	must(SetAside(at.Dir, inSpan))
	must(os.RemoveAll(at.Record))
	for range 2 {
		if _, err := Open(t.Context(), at); !errors.Is(err, ErrRecordStore) || errors.Is(err, ErrUnusable) {
			t.Fatalf("an empty folder without the store: %v", err)
		}
	}
	proxy.Pass()
	proxy.Cut("/rday.parquet", false) // and it goes away again in the middle
	if _, err := Open(t.Context(), at); !errors.Is(err, ErrRecordStore) {
		t.Fatalf("a store that goes away in the middle: %v", err)
	}
	d, err = Open(t.Context(), at)
	must(err)
	ingest(t, d, &sliceSource{events: events})
	check("everything was lost", d)
	maintain(t, d)
	pass(t, d)
	if got := equal(t, d, b); len(got) != len(names) {
		t.Errorf("%d files, before %d", len(got), len(names))
	}
	must(d.Close())
}

// TestAdoptAgain: a process that dies while a new database takes the record over begins with it again.
func TestAdoptAgain(t *testing.T) {
	events := threeDays()
	from := closed(t, Options{Record: t.TempDir()}, events)
	at := Options{Dir: t.TempDir(), Record: from.o.Record, Clock: leapsFrom(inSpan), MemoryLimit: 512 << 20}
	var rows, total int64
	for range 2 {
		d, err := Open(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		if n := d.Status(t.Context()).Rows; n == 0 || rows != 0 && n != rows {
			t.Errorf("%d clicks, the first time %d", n, rows)
		} else {
			rows = n
		}
		got, err := d.Summary(t.Context(), everything())
		if err != nil || got.Total == 0 || total != 0 && got.Total != total {
			t.Errorf("the numbers add up to %d, the first time to %d: %v", got.Total, total, err)
		}
		total = got.Total
		if err := d.write(t.Context(), func(ctx context.Context) error {
			return d.exec(ctx, "INSERT INTO meta VALUES ('"+adoptingKey+"', '1')")
		}); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if aside, _ := filepath.Glob(filepath.Join(at.Record, asideFolder, "*")); len(aside) > 0 {
		t.Errorf("put aside: %v", aside)
	}
}

// quietSource is a spool to which nothing is added.
type quietSource struct{ sliceSource }

func (s *quietSource) Wait(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestIdle: the hours of a server that has no visitors end too: how far clicks are known moves on without any.
func TestIdle(t *testing.T) {
	d := open(t, Options{idleLook: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Ingest(ctx, &quietSource{sliceSource{events: threeDays()[:10]}}) }()
	await(t, func() bool { return d.events.Load() == 10 && d.watermark.Load() > 0 })
	first := d.watermark.Load()
	await(t, func() bool { return d.watermark.Load() > first+10_000 }) // the clock moves a second with every look
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
