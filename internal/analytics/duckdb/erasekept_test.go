package duckdb

import (
	"bytes"
	"database/sql"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/terselink/terse/internal/analytics/enginetest"
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
