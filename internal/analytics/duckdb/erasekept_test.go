package duckdb

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
)

// traces returns the files below folders that hold a text, by text: in their bytes, or in a row of a Parquet file, whose bytes are
// packed.
func traces(t *testing.T, d *DB, texts []string, dirs ...string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	look := func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		in, cols, dst := make([]bool, len(texts)), make([]string, len(texts)), make([]any, len(texts))
		for i, text := range texts {
			cols[i], dst[i] = "coalesce(bool_or(contains(s, "+quote(text)+")), false)", &in[i]
		}
		if strings.HasSuffix(path, ".parquet") {
			q := "SELECT " + strings.Join(cols, ", ") + " FROM (SELECT t::VARCHAR AS s FROM " + parquet(quote(path)) + " t)"
			if err := d.scan(t.Context(), q, func(r *sql.Rows) error { return r.Scan(dst...) }); err != nil {
				return err
			}
		}
		for i, text := range texts {
			if in[i] || bytes.Contains(data, []byte(text)) {
				found[text] = append(found[text], filepath.Base(path))
			}
		}
		return nil
	}
	for _, dir := range dirs {
		if err := filepath.WalkDir(dir, look); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// TestEraseKept: what a workspace kept of visitors goes with an erasure from every file below the data folder: the database with its
// write-ahead log, and the record, whose copy in a bucket is the same (TestMirror).
func TestEraseKept(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"hot.duckdb.wal", "hot.duckdb"} {
		eraseKept(t, file)
	}
}

// eraseKept does it with the clicks of the open day in one of the files of the database.
func eraseKept(t *testing.T, file string) {
	m := enginetest.Mark(threeDays())
	d := closed(t, Options{Dir: t.TempDir(), Record: t.TempDir()}, m.Events)
	if file == "hot.duckdb" {
		d.writing.Lock()
		_, err := d.checkpoint(t.Context())
		d.writing.Unlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	aside := filepath.Join(d.o.Record, asideFolder)
	if err := os.MkdirAll(aside, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{d.path + ".bad-20261001T000000.000", filepath.Join(aside, "1-left.tmp")} {
		if err := os.WriteFile(path, []byte(enginetest.OfLink), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	gone := []string{enginetest.OfLink, enginetest.OfVisitor, enginetest.LinkNet, enginetest.VisitorNet}
	look := func() map[string][]string {
		return traces(t, d, append(slices.Clone(gone), enginetest.OfOthers), d.o.Dir, d.o.Record)
	}
	before := look()
	for _, text := range append(slices.Clone(gone), enginetest.OfOthers) {
		isRecord := func(name string) bool { return strings.HasSuffix(name, packedSuffix) }
		if !slices.ContainsFunc(before[text], isRecord) || !slices.Contains(before[text], file) {
			t.Fatalf("%s is only in %q: the search does not find it in %s", text, before[text], file)
		}
	}
	for _, e := range []Erasure{{Workspace: enginetest.Workspace, Link: m.Link}, {Workspace: enginetest.Workspace, Visitor: m.Visitor}} {
		if n, err := d.Erase(t.Context(), e); err != nil || n == 0 {
			t.Fatalf("%d erased, %v", n, err)
		}
	}
	after := look()
	for _, text := range gone {
		if len(after[text]) > 0 {
			t.Errorf("from %s: %s is still in %q", file, text, after[text])
		}
	}
	if len(after[enginetest.OfOthers]) == 0 {
		t.Error("nothing is left of others")
	}
}

// TestEraseKeptOfSweep: nor is anything left in the bytes of what is known of a sweep, though other sweeps, and the clicks of other
// days in other tables, stay.
func TestEraseKeptOfSweep(t *testing.T) {
	t.Parallel()
	today := dayOf(terse.MillisOf(inSpan))
	events := without(enginetest.Sweeping(1, 40_000), func(ev *clicks.Event) bool { return dayOf(ev.At) < today-2 || ev.At >= terse.MillisOf(inSpan) })
	const gone, stays = "x-gone-with-its-visitor", "x-stays-with-others"
	e := Erasure{Workspace: enginetest.Workspace, Visitor: sweeper}
	for i := range events {
		ev := &events[i]
		switch {
		case ev.Workspace == e.Workspace && ev.Visitor == sweeper:
			ev.Language, ev.UserAgent = fmt.Sprintf("%s-%d", gone, i), fmt.Sprintf("%s %d (%x)", gone, i, ev.ID)
		case ev.Language != "": // without one they may be a sweep of their network
			ev.Language = fmt.Sprintf("%s-%d", stays, i%1000)
		}
	}
	d := open(t, Options{Dir: t.TempDir(), Record: t.TempDir(), Clock: leapsFrom(inSpan), MemoryLimit: 512 << 20})
	ingest(t, d, &sliceSource{events: events})
	sweepAll(t, d)
	if _, err := d.checkpointNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	count := func(cond string) (n int64) {
		t.Helper()
		if err := d.scan(t.Context(), "SELECT count(*) FROM swept_clicks WHERE "+cond, func(r *sql.Rows) error { return r.Scan(&n) }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	others := count("NOT (" + erasureCond(e) + ")")
	if mine := count(erasureCond(e)); mine == 0 || others == 0 || len(d.tables()) < 2 {
		t.Fatalf("%d clicks in the sweep, %d in others, days %v: the test proves little", mine, others, d.tables())
	}
	if found := traces(t, d, []string{gone}, d.o.Dir); !slices.Contains(found[gone], "hot.duckdb") {
		t.Fatalf("the search does not find it: %v", found)
	}
	if n, err := d.Erase(t.Context(), e); err != nil || n == 0 {
		t.Fatalf("%d erased, %v", n, err)
	}
	found := traces(t, d, []string{gone, stays}, d.o.Dir, d.o.Record)
	if len(found[gone]) > 0 || len(found[stays]) == 0 || count("true") != others {
		t.Errorf("after the erasure: %v, %d swept clicks of others, before %d", found, count("true"), others)
	}
}

// TestEraseBesideReader: an answer that began before the clicks went still has their blocks; the erasure waits for it before it
// overwrites what is free. One whose caller goes away meanwhile leaves the space to others.
func TestEraseBesideReader(t *testing.T) {
	t.Parallel()
	m := enginetest.Mark(threeDays())
	d := closed(t, Options{Dir: t.TempDir(), Record: t.TempDir()}, m.Events)
	if _, err := d.checkpointNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	day := d.tables()[len(d.tables())-1]
	reading, release, read := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := d.look(context.WithoutCancel(t.Context()), func(ctx context.Context, at *snapshot) error {
			count := func() (n int64, err error) {
				q := "SELECT count(*) FROM " + tableName(day) + " WHERE contains(user_agent, " + quote(enginetest.OfLink) + ")"
				err = at.scan(ctx, q, func(r *sql.Rows) error { return r.Scan(&n) })
				return n, err
			}
			before, err := count()
			close(reading)
			<-release
			after, err2 := count()
			if err := errors.Join(err, err2); err != nil {
				return err
			}
			if before == 0 || before != after {
				return fmt.Errorf("the answer saw %d clicks, then %d", before, after)
			}
			return nil
		})
		read <- err
	}()
	<-reading
	e := Erasure{Workspace: enginetest.Workspace, Link: m.Link}
	gone, goAway := context.WithCancel(t.Context())
	erased := make(chan error, 4)
	erase := func(ctx context.Context) {
		_, err := d.Erase(ctx, e)
		erased <- err
	}
	committed := func() int64 {
		d.scrubbing.mu.Lock()
		defer d.scrubbing.mu.Unlock()
		return d.scrubbing.erased
	}
	go erase(gone)
	await(t, func() bool { return committed() == 1 })
	goAway()
	if err := <-erased; !errors.Is(err, context.Canceled) || errors.Is(err, errWriter) {
		t.Errorf("an erasure whose caller went away: %v", err)
	}
	for range 3 {
		go erase(t.Context())
	}
	await(t, func() bool { return committed() == 4 })
	if len(erased) > 0 {
		t.Errorf("erased beside the answer: %v", <-erased)
	}
	close(release)
	if err := <-read; err != nil {
		t.Error(err)
	}
	for range 3 {
		if err := <-erased; err != nil {
			t.Error(err)
		}
	}
	// The one that was cut off, the first of the others, and one for those that came while that waited.
	if n := d.scrubbing.passes; n > 3 {
		t.Errorf("%d scrubs of four erasures", n)
	}
	found := traces(t, d, []string{enginetest.OfLink, enginetest.OfOthers}, d.o.Dir, d.o.Record)
	if len(found[enginetest.OfLink]) > 0 || len(found[enginetest.OfOthers]) == 0 {
		t.Errorf("after the answer ended: %v", found)
	}
}
