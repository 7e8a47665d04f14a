package duckdb

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/terselink/terse/internal/clicks"
)

// reconcile brings the tables and the record together when the database is opened: a new
// database takes over what the record holds; files that nothing refers to, left by a
// crash or brought back by a torn write-ahead log, go aside.
func (d *DB) reconcile(ctx context.Context, fresh bool) error {
	found, err := d.scanRecord(ctx)
	if err != nil {
		return err
	}
	if fresh {
		// An adoption that was cut off left some of this.
		clear(d.files)
		clear(d.cold)
		clear(d.rolled)
		clear(d.outdated)
		d.coldRows.Store(0)
		return d.adopt(ctx, found)
	}
	var missing []file
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		if f := d.files[name]; !slices.ContainsFunc(found, func(g file) bool { return g.name == name }) {
			missing = append(missing, f)
		}
	}
	for _, f := range found {
		if _, known := d.files[f.name]; !known {
			if err := d.putAside(f); err != nil {
				return err
			}
		}
	}
	for _, f := range missing {
		if err := d.forget(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// forget drops what the tables say of a file that is gone. The clicks of one that repeats a hot
// table are exported again; those of a cold one are lost, and counted no more.
func (d *DB) forget(ctx context.Context, f file) error {
	cold := slices.ContainsFunc(d.cold[f.day], func(c file) bool { return c.name == f.name })
	if cold {
		d.o.Log.Error("a file of the record is gone, and the clicks in it with it", "file", f.name, "clicks", f.rows)
	}
	err := d.write(ctx, func(ctx context.Context) error {
		if err := d.exec(ctx, "DELETE FROM files WHERE name = $1", f.name); err != nil {
			return err
		}
		return d.exec(ctx, fmt.Sprintf("DELETE FROM exported WHERE day = %d AND hour = %d", f.day, f.hour))
	})
	if err != nil {
		return err
	}
	delete(d.files, f.name)
	delete(d.exported, dayHour{f.day, f.hour})
	if cold {
		d.coldRows.Add(-f.rows)
		d.cold[f.day] = slices.DeleteFunc(slices.Clone(d.cold[f.day]), func(c file) bool { return c.name == f.name })
		if len(d.cold[f.day]) == 0 {
			delete(d.cold, f.day)
		}
	}
	return nil
}

// scanRecord lists the files of clicks in the record, and removes what was being written when a process died.
func (d *DB) scanRecord(ctx context.Context) ([]file, error) {
	var found []file
	err := filepath.WalkDir(d.o.Record, func(p string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, os.ErrNotExist):
			return nil
		case err != nil:
			return err
		}
		rel, err := filepath.Rel(d.o.Record, p)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		if e.IsDir() {
			if name == asideFolder {
				return filepath.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(name, tmpSuffix) {
			return os.Remove(p)
		}
		if day, hour, ok := parsePartition(path.Dir(name)); ok && path.Ext(name) == ".parquet" {
			found = append(found, file{name: name, day: day, hour: hour, bytes: fileSize(p)})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	return found, ctx.Err()
}

// adopt takes the files over into a database that has none of their clicks. What the spool still holds of them is
// skipped by their place in it (Ingest).
func (d *DB) adopt(ctx context.Context, found []file) error {
	var good []file
	for _, f := range found {
		err := d.describe(ctx, &f)
		if err != nil && ctx.Err() == nil {
			again, ferr := d.mirror.restore(ctx, f.name)
			if ferr != nil {
				return ferr
			}
			if again {
				err = d.describe(ctx, &f)
				f.bytes = fileSize(f.path(d.o.Record))
			}
		}
		if err != nil {
			d.o.Log.Error("a file of the record cannot be read and goes aside", "file", f.name, "error", err)
			if err := d.putAside(f); err != nil {
				return err
			}
			continue
		}
		good = append(good, f)
	}
	// A crash may have left files beside the one that took their place: that of a whole day in its
	// last generation holds all that was known when it was made.
	whole := map[int64]file{}
	for _, f := range good {
		if w, ok := whole[f.day]; f.hour == wholeDay && (!ok || generationOf(f.name) > generationOf(w.name)) {
			whole[f.day] = f
		}
	}
	var keep []file
	for _, f := range good {
		if w, ok := whole[f.day]; ok && f.name != w.name && (f.hour == wholeDay || f.through.Compare(w.through) <= 0) {
			if err := d.putAside(f); err != nil {
				return err
			}
			continue
		}
		keep = append(keep, f)
	}
	if err := d.write(ctx, func(ctx context.Context) error {
		if err := d.exec(ctx, "DELETE FROM files"); err != nil { // an adoption that was cut off left some
			return err
		}
		for _, f := range keep {
			if err := d.insertFile(ctx, f, true); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for _, f := range keep {
		d.files[f.name] = f
		d.cold[f.day] = append(d.cold[f.day], f)
		d.coldRows.Add(f.rows)
		d.noteThrough(f)
	}
	if len(keep) > 0 {
		d.o.Log.Info("analytics begin again with the record", "files", len(keep), "clicks", d.coldRows.Load())
	}
	if err := d.adoptRollups(ctx, whole); err != nil {
		return err
	}
	return d.write(ctx, func(ctx context.Context) error {
		return d.exec(ctx, `DELETE FROM meta WHERE "key" = '`+adoptingKey+`'`)
	})
}

// adoptRollups loads the rollups of the record: of days whose clicks are the ones that they were made of, and of
// days whose clicks have been removed since.
func (d *DB) adoptRollups(ctx context.Context, whole map[int64]file) error {
	entries, err := os.ReadDir(filepath.Join(d.o.Record, rollupsFolder))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	for _, e := range entries {
		day, ok := parseDate(strings.TrimPrefix(e.Name(), "dt="))
		if !ok {
			continue
		}
		version, match := d.rollupsMatch(ctx, day, cmp.Or(whole[day].origin, whole[day].name))
		load := append(forgetRollups(day), d.loadRollups(day, version)...)
		if !match {
			if len(d.cold[day]) > 0 || fileSize(d.rollupFile(day, "rday")) > 0 || fileSize(d.rollupFile(day, "rlink")) == 0 {
				continue // made again when the day is closed
			}
			load = append(forgetRollups(day), d.loadRollup(day, "rlink")) // all that is left of a day long ago
		}
		err := d.write(ctx, func(ctx context.Context) error {
			for _, q := range load {
				if err := d.exec(ctx, q); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if match {
			d.noteRolled(day, version)
		}
	}
	return nil
}

// rollupsMatch reports whether the files of the rollups of a day are there and of the clicks in the
// file of that name, and their version; "" are clicks that have been removed. A process that died while it renewed a day may have left
// one file of cubes of a version and the other of another, and the numbers of their cells are not the same: such a day counts as one
// of version 1, which has no cubes, and is renewed.
func (d *DB) rollupsMatch(ctx context.Context, day int64, name string) (version int64, match bool) {
	ofCubes := ""
	for _, t := range rollupTables {
		if version != 0 && !inVersion(t, version) {
			continue
		}
		keys, err := d.parquetKeys(ctx, d.rollupFile(day, t))
		if err != nil || name != "" && keys["terse_of"] != name {
			return 0, false
		}
		if slices.Contains(cubeTables, t) {
			if ofCubes = cmp.Or(ofCubes, keys[rollupVersionKey]); ofCubes != keys[rollupVersionKey] {
				version = 1
				break
			}
		}
		if t != "rday" { // which is written last: the others are of its version or a later one
			continue
		}
		if version, err = strconv.ParseInt(cmp.Or(keys[rollupVersionKey], "1"), 10, 64); err != nil || version > rollupVersion {
			return 0, false
		}
	}
	return version, name != "" || len(d.cold[day]) == 0
}

// describe reads the rows of a file and the place of the spool it goes up to.
func (d *DB) describe(ctx context.Context, f *file) error {
	p := f.path(d.o.Record)
	if err := d.scan(ctx, "SELECT num_rows FROM parquet_file_metadata("+quote(p)+")", func(r *sql.Rows) error { return r.Scan(&f.rows) }); err != nil {
		return err
	}
	keys, err := d.parquetKeys(ctx, p)
	if err != nil {
		return err
	}
	if packed := keys["terse_schema"] == recordVersion; packed != f.packed() {
		return fmt.Errorf("a file of version %q has the name of another", keys["terse_schema"])
	}
	f.origin = keys["terse_origin"]
	if keys["terse_source"] == d.o.Source { // the places of another spool mean nothing here
		f.through, err = clicks.ParsePosition(keys["terse_through"])
	}
	return err
}

// parquetKeys returns the notes in the footer of a file.
func (d *DB) parquetKeys(ctx context.Context, p string) (map[string]string, error) {
	keys := map[string]string{}
	err := d.scan(ctx, "SELECT decode(key), decode(value) FROM parquet_kv_metadata("+quote(p)+")", func(r *sql.Rows) error {
		var k, v string
		err := r.Scan(&k, &v)
		keys[k] = v
		return err
	})
	return keys, err
}

// putAside moves a file out of the record; it is kept for a month.
func (d *DB) putAside(f file) error {
	to := filepath.Join(d.o.Record, asideFolder, strings.ReplaceAll(f.name, "/", "_"))
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	if err := os.Rename(f.path(d.o.Record), to); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	removeEmptyFolders(d.o.Record, f.name)
	now := d.o.Clock()
	if err := os.Chtimes(to, now, now); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	old, _ := filepath.Glob(filepath.Join(d.o.Record, asideFolder, "*.parquet")) // the pattern is well formed
	for _, p := range old {
		if info, err := os.Stat(p); err == nil && now.Sub(info.ModTime()) > keepAsideFor {
			_ = os.Remove(p) // costs only space
		}
	}
	return nil
}
