package pebblestore

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// storeFS is the file system that Pebble works on. It adds two things.
//
// It does for marker files (which name the current MANIFEST and format) what Pebble
// 2.1.7 lacks, until a release has it:
//
//   - a marker is synced before it is used (Pebble 4e1e327d1);
//   - the directory is synced before a marker is made, so that a marker never
//     names a MANIFEST whose directory entry a power cut takes back (Pebble
//     79b311b81, 15b500fbd).
//
// And it stops Pebble where a failure would end the process: Pebble panics if it cannot
// make, write or close a write-ahead log or sync the directory, partly in goroutines
// of its own, partly with locks released twice, which nothing can recover. Here such
// an error never reaches Pebble: the store is marked as failed and the goroutine parked.
type storeFS struct {
	vfs.FS
	// fail marks the store as failed. It does not return: the goroutine may hold
	// locks of Pebble and must not go on with what was not written.
	fail func(error)
}

// Unwrap implements vfs.FS.
func (m *storeFS) Unwrap() vfs.FS { return m.FS }

// Create implements vfs.FS.
func (m *storeFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	switch base := m.PathBase(name); {
	case strings.HasPrefix(base, "marker."):
		if err := syncDir(m.FS, m.PathDir(name)); err != nil {
			return nil, err
		}
		f, err := m.FS.Create(name, c)
		if err != nil {
			return nil, err
		}
		return &markerFile{f}, nil
	case strings.HasSuffix(base, ".log"):
		return m.log(m.FS.Create(name, c))
	default:
		return m.FS.Create(name, c)
	}
}

// ReuseForWrite implements vfs.FS. Pebble reuses nothing but logs.
func (m *storeFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return m.log(m.FS.ReuseForWrite(oldname, newname, c))
}

func (m *storeFS) log(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		m.fail(fmt.Errorf("make write-ahead log: %w", err))
	}
	return &logFile{f, m.fail}, nil
}

// OpenDir implements vfs.FS.
func (m *storeFS) OpenDir(name string) (vfs.File, error) {
	d, err := m.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &dirFile{d, m.fail}, nil
}

// logFile is a write-ahead log that is written. No method returns an error.
type logFile struct {
	vfs.File
	fail func(error)
}

func (f *logFile) check(op string, err error) {
	if err != nil {
		f.fail(fmt.Errorf("%s write-ahead log: %w", op, err))
	}
}

// Write implements vfs.File.
func (f *logFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	f.check("write", err)
	return n, nil
}

// Sync implements vfs.File. A failed sync is never tried again: a second one may claim
// success for pages that the first one lost.
func (f *logFile) Sync() error {
	f.check("sync", f.File.Sync())
	return nil
}

// SyncData implements vfs.File.
func (f *logFile) SyncData() error {
	f.check("sync", f.File.SyncData())
	return nil
}

// SyncTo implements vfs.File.
func (f *logFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	f.check("sync", err)
	return full, nil
}

// Preallocate implements vfs.File. Pebble asks for the size of a full memtable for every log
// that it keeps to use again, which is more disk than a million links. The size of a log changes with
// every sync anyway, so reserving blocks saves no metadata.
func (*logFile) Preallocate(_, _ int64) error { return nil }

// Stat implements vfs.File.
func (f *logFile) Stat() (vfs.FileInfo, error) {
	info, err := f.File.Stat()
	f.check("stat", err)
	return info, nil
}

// Close implements vfs.File.
func (f *logFile) Close() error {
	f.check("close", f.File.Close())
	return nil
}

type markerFile struct{ vfs.File }

// Close syncs the marker first.
func (f *markerFile) Close() error {
	return errors.Join(f.File.Sync(), f.File.Close())
}

type dirFile struct {
	vfs.File
	fail func(error)
}

// Sync does not return if it fails.
func (f *dirFile) Sync() error {
	if err := f.File.Sync(); err != nil {
		f.fail(fmt.Errorf("sync directory: %w", err))
	}
	return nil
}

func syncDir(fsys vfs.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDir makes dir with mode 0700 and syncs every directory that got a new entry.
func makeDir(fsys vfs.FS, dir string) error {
	var parents []string
	for d := dir; ; {
		if _, err := fsys.Stat(d); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		parent := fsys.PathDir(d)
		parents = append(parents, parent)
		if parent == d {
			break
		}
		d = parent
	}
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, p := range parents {
		if err := syncDir(fsys, p); err != nil {
			return err
		}
	}
	return nil
}
