package geo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/oschwald/maxminddb-golang/v2"
)

// Options name the operator's own MMDB files. An empty path means none.
type Options struct {
	// CityPath is a country or city database: GeoLite2, GeoIP2, DB-IP or
	// ip-location-db. What it does not know, the embedded one answers.
	CityPath string
	// ASNPath is a database of networks.
	ASNPath string
	// MaxBytes is the largest file that is read; default 1 GiB. A file is held
	// in memory as a whole, so that replacing it in place can do no harm.
	MaxBytes int64
	Log      *slog.Logger // default: discarded
}

// MaxBytes is the largest database that is read unless an option says otherwise.
const MaxBytes = 1 << 30

// file is one of the operator's files as it was read.
type file struct {
	*source
	size    int64
	changed time.Time
	nodes   uint
}

// Open returns the embedded database with the operator's files on top. A file
// that cannot be used is an error here, so that a wrong path is noticed at
// start; later it is only logged, and the last good one stays.
func Open(o Options) (*DB, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = MaxBytes
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	db := Embedded()
	db.opts = o
	if err := db.Reload(); err != nil {
		return nil, err
	}
	return db, nil
}

// Reload reads the files that have changed since they were read last. It
// returns what is wrong with files it did not take over; lookups go on with the
// last good ones.
func (db *DB) Reload() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	return errors.Join(
		db.reload(db.opts.CityPath, &db.city, "city"),
		db.reload(db.opts.ASNPath, &db.asn, "asn"),
	)
}

// Watch calls Reload at an interval until ctx ends, and logs each new problem once.
func (db *DB) Watch(ctx context.Context, every time.Duration) {
	if db.opts.CityPath == "" && db.opts.ASNPath == "" {
		return
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := db.Reload()
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != "" && text != last {
			db.opts.Log.Error("geo database not taken over; the last good one stays", "err", err)
		}
		last = text
	}
}

func (db *DB) reload(path string, at *atomic.Pointer[file], kind string) error {
	if path == "" {
		return nil
	}
	old := at.Load()
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("read %s database: %w", kind, err)
	}
	if old != nil && info.Size() == old.size && info.ModTime().Equal(old.changed) {
		return nil
	}
	next, err := readFile(path, db.opts.MaxBytes)
	if err != nil {
		return fmt.Errorf("read %s database %s: %w", kind, path, err)
	}
	if old != nil && halved(next.nodes, old.nodes) {
		return fmt.Errorf("read %s database %s: %d nodes where the last had %d: half of it is missing", kind, path, next.nodes, old.nodes)
	}
	at.Store(next)
	db.opts.Log.Info("geo database read", "kind", kind, "path", path, "bytes", next.size, "built", next.reader.Metadata.BuildTime())
	return nil
}

// readFile reads and checks a whole file.
func readFile(path string, maxBytes int64) (*file, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	before, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if before.Size() > maxBytes {
		return nil, fmt.Errorf("%d bytes, more than the limit of %d", before.Size(), maxBytes)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, err
	}
	after, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != after.Size() || after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		return nil, errors.New("it changed while it was read")
	}
	s, err := newSource(data, placeMemo)
	if err != nil {
		return nil, err
	}
	if err := s.verify(); err != nil {
		return nil, err
	}
	if err := s.sane(); err != nil {
		return nil, err
	}
	return &file{source: s, size: after.Size(), changed: after.ModTime(), nodes: s.reader.Metadata.NodeCount}, nil
}

// verify walks the whole tree and reads every record once. The library's own
// Verify refuses files for details of their description, ours among them.
func (s *source) verify() error {
	seen := map[uintptr]struct{}{}
	for res := range s.reader.Networks(maxminddb.IncludeNetworksWithoutData()) {
		if err := res.Err(); err != nil {
			return err
		}
		if !res.Found() {
			continue
		}
		if _, ok := seen[res.Offset()]; ok {
			continue
		}
		seen[res.Offset()] = struct{}{}
		var rec record
		if err := res.Decode(&rec); err != nil {
			return err
		}
	}
	return nil
}
