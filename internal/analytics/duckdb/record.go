package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/terselink/terse/internal/clicks"
)

// The record is a folder of Parquet files (docs/format/record.md): clicks by day and hour
// of their time, and the rollups of closed days. A file is written under another name, synced, and only then
// renamed; it is never changed. One of clicks is read back and compared before it is renamed.
const (
	clicksFolder  = "clicks"
	rollupsFolder = "rollups"
	asideFolder   = "aside" // files that nothing refers to
	tmpSuffix     = ".tmp"  // files being written
	wholeDay      = 24      // the hour of files that hold a whole day
	rowGroup      = 122_880 // rows that a reader can skip at once
	keepAsideFor  = 30 * 24 * time.Hour
)

// file is one file of clicks in the record.
type file struct {
	name    string // within the record, with slashes
	day     int64
	hour    int // 0 to 23, or wholeDay
	rows    int64
	bytes   int64
	origin  string          // of a file that was adopted: the one that its rollups were made of, if not this one
	through clicks.Position // every click of its hour or day before this place of the spool is in this file or an older one
}

func (f file) path(root string) string { return filepath.Join(root, filepath.FromSlash(f.name)) }

// partition returns the folder of a day and hour: "clicks/dt=2026-11-03/hour=07".
func partition(day int64, hour int) string {
	return fmt.Sprintf("%s/dt=%s/hour=%02d", clicksFolder, date(day), hour)
}

func date(day int64) string { return time.Unix(day*86_400, 0).UTC().Format(time.DateOnly) }

// parseDate is the inverse of date.
func parseDate(s string) (day int64, ok bool) {
	t, err := time.Parse(time.DateOnly, s)
	return t.Unix() / 86_400, err == nil
}

// parsePartition is the inverse of partition.
func parsePartition(folder string) (day int64, hour int, ok bool) {
	parts := strings.Split(folder, "/")
	if len(parts) != 3 || parts[0] != clicksFolder {
		return 0, 0, false
	}
	day, ok = parseDate(strings.TrimPrefix(parts[1], "dt="))
	hour, err := strconv.Atoi(strings.TrimPrefix(parts[2], "hour="))
	if !ok || err != nil || hour < 0 || hour > wholeDay {
		return 0, 0, false
	}
	return day, hour, partition(day, hour) == folder
}

// content is what a set of clicks is known by when it is compared before and after it was written.
type content struct {
	rows, weight int64
	all          string // hash of every column of every click
	first, last  string // event id
	node         string
}

// contentOf reads it from a source of clicks in the form of a hot table, but that outcome is an expression of the number; cond may
// be empty.
func (d *DB) contentOf(ctx context.Context, from, cond, outcome string) (c content, err error) {
	if cond != "" {
		from += " WHERE " + cond
	}
	list := make([]string, len(columns))
	for i, col := range columns { // types of files are wider, and a hash depends on the type
		switch {
		case col.name == "event_id":
			list[i] = "event_id::VARCHAR"
		case col.name == "ts":
			list[i] = "epoch_ms(ts)"
		case col.name == "outcome":
			list[i] = outcome + "::BIGINT"
		case col.text == nil:
			list[i] = fmt.Sprintf("%q::BIGINT", col.name)
		default:
			list[i] = fmt.Sprintf("%q", col.name)
		}
	}
	err = d.scan(ctx, "SELECT count(*), coalesce(sum(weight), 0)::BIGINT, coalesce(bit_xor(hash("+strings.Join(list, ", ")+")), 0)::VARCHAR, "+
		"coalesce(min(event_id::VARCHAR), ''), coalesce(max(event_id::VARCHAR), ''), coalesce(min(node), '') FROM "+from,
		func(r *sql.Rows) error { return r.Scan(&c.rows, &c.weight, &c.all, &c.first, &c.last, &c.node) })
	return c, err
}

// writing says what a file is to hold.
type writing struct {
	day        int64
	hour       int
	from, cond string // the clicks, in the form of a hot table; cond may be empty
	through    clicks.Position
	mark       string // at the end of the name
	origin     string // the file that the rollups of the day were made of, if not this one
}

// writeFile writes clicks into the record and returns the file once it reads back right and is durable, false if there are no
// clicks. The file is not in the tables yet.
func (d *DB) writeFile(ctx context.Context, w writing) (f file, any bool, err error) {
	want, err := d.contentOf(ctx, w.from, w.cond, "outcome")
	if err != nil || want.rows == 0 {
		return file{}, false, err
	}
	folder := partition(w.day, w.hour)
	if err := os.MkdirAll(filepath.Join(d.o.Record, filepath.FromSlash(folder)), 0o700); err != nil {
		return file{}, false, fmt.Errorf("record: %w", err)
	}
	name := fmt.Sprintf("%s/%s-%s-%s%s%s", folder, nodeName(want.node), want.first, want.last, w.mark, packedSuffix)
	f = file{name: name, day: w.day, hour: w.hour, rows: want.rows, through: w.through}
	keys := map[string]string{"terse_schema": recordVersion, "terse_source": d.o.Source, "terse_through": w.through.String(), "terse_origin": w.origin}
	path := f.path(d.o.Record)
	if err := d.copyTmp(ctx, d.readers, packedFrom(w.from, w.cond), path, keys); err != nil {
		return file{}, false, err
	}
	got, err := d.contentOf(ctx, readPacked(path+tmpSuffix), "", outcomeNumber)
	if err == nil && got != want {
		err = fmt.Errorf("record: %s reads back as %+v, %+v was written", name, got, want)
	}
	if err != nil {
		return file{}, false, errors.Join(err, os.Remove(path+tmpSuffix))
	}
	if err := renameTmp(path); err != nil {
		return file{}, false, err
	}
	f.bytes = fileSize(path)
	return f, true, nil
}

// execer is a pool of connections or one of them.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// copyTo writes the rows of a query as a Parquet file, synced and under its final name. Empty keys are left out.
func (d *DB) copyTo(ctx context.Context, on execer, query, path string, keys map[string]string) error {
	if err := d.copyTmp(ctx, on, query, path, keys); err != nil {
		return err
	}
	return renameTmp(path)
}

// copyTmp is copyTo without the final name: renameTmp gives it.
func (d *DB) copyTmp(ctx context.Context, on execer, query, path string, keys map[string]string) error {
	tmp := path + tmpSuffix
	meta := make([]string, 0, len(keys))
	for k, v := range keys {
		if v != "" {
			meta = append(meta, k+": "+quote(v))
		}
	}
	options := "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 12, PARQUET_VERSION v2, ROW_GROUP_SIZE " + strconv.Itoa(rowGroup)
	if len(meta) > 0 {
		options += ", KV_METADATA {" + strings.Join(meta, ", ") + "}"
	}
	if _, err := on.ExecContext(ctx, "COPY ("+query+") TO "+quote(tmp)+" ("+options+")"); err != nil {
		_ = os.Remove(tmp) // what is left is removed at the next start
		return fmt.Errorf("record: %w", err)
	}
	return syncFile(tmp)
}

func renameTmp(path string) error {
	if err := os.Rename(path+tmpSuffix, path); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	// The folders may be new too.
	return errors.Join(syncDir(filepath.Dir(path)), syncDir(filepath.Dir(filepath.Dir(path))))
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return errors.Join(f.Sync(), f.Close())
}

// nodeName returns the name of a node as a part of a file's name.
func nodeName(s string) string {
	ok := func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' || r == '_' {
			return r
		}
		return '_' // also for '-', which divides the parts
	}
	if s = strings.Map(ok, s); s == "" || s[0] == '.' {
		return "node" + s
	}
	return s
}
