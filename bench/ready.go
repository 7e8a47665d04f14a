//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// ready fills a store once and measures what it takes on disk and how soon a server is ready on it:
// after a kill in the middle of everything, and after orderly stops.
func (b *bench) ready(ctx context.Context) (err error) {
	rows := pick(b, uint64(10_000_000), 1_000_000)
	const name = "ready"
	s, err := b.start(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.remove(name)) }()
	defer func() { stop(s, &err) }()
	body := &rowReader{f: &ndjson, length: longDestination, rows: rows}
	took, err := sendBulk(ctx, s, &ndjson, body, -1, rows, nil)
	if err != nil {
		return err
	}
	b.say("ready: %d links in %.1f s", rows, took.Seconds())
	if err := s.Kill(); err != nil {
		return err
	}
	if s, err = b.start(ctx, name); err != nil {
		return err
	}
	killed := s.Ready
	b.say("ready: after a kill: %.3f s", killed.Seconds())
	var orderly []time.Duration
	for range pick(b, 5, 2) {
		if err := s.Stop(); err != nil {
			return err
		}
		if s, err = b.start(ctx, name); err != nil {
			return err
		}
		orderly = append(orderly, s.Ready)
	}
	if err := s.Stop(); err != nil {
		return err
	}
	used, err := diskUse(filepath.Join(b.dir, name, "store"))
	if err != nil {
		return err
	}
	if s, err = b.start(ctx, name); err != nil {
		return err
	}
	orderly = append(orderly, s.Ready)
	worst := max(killed, slices.Max(orderly))
	b.report.measured("ready", worst.Seconds(), "with %s: after kill -9 %.3f s, after orderly stops %.3f to %.3f s",
		amount(float64(rows), "links"), killed.Seconds(), slices.Min(orderly).Seconds(), slices.Max(orderly).Seconds())
	b.report.measured("disk", float64(used)/float64(rows), "%s hold %.0f MB, logs and all; the destinations alone are %.0f MB",
		amount(float64(rows), "links"), float64(used)/1e6, float64(rows)*longDestination/1e6)
	return nil
}

// diskUse returns the disk space of a folder, as du counts it.
func diskUse(dir string) (used int64, err error) {
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		used += st.Blocks * 512
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("measure disk use: %w", err)
	}
	return used, nil
}
