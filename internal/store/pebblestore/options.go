package pebblestore

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/terselink/terse"
)

// Options configure a Store. The zero value is ready for use.
type Options struct {
	// ReadOnly opens a directory that exists and leaves its data as it is: every write is
	// refused, and there is no background work. The directory is locked as ever. A
	// directory of an older format is read as it is.
	ReadOnly bool
	// FS is the file system; nil means the operating system's.
	FS vfs.FS
	// CacheBytes bounds the cache of uncompressed table blocks. 0 means 64 MiB.
	CacheBytes int64
	// MemTableBytes is the size of one table in memory, of which up to four exist
	// while the disk is behind. 0 means 32 MiB.
	MemTableBytes uint64
	// Clock dates changes. nil means the system's clock.
	Clock func() terse.Millis
	// Log receives what happens in the background. nil discards it.
	Log *slog.Logger
	// FeedMaxAge is how long changes are kept. 0 means 24 hours.
	FeedMaxAge time.Duration
	// FeedMaxEntries bounds how many changes are kept. 0 means 1,000,000.
	FeedMaxEntries uint64
	// MaintainEvery is the pause between rounds of background work: forgetting old
	// changes, and indexing bulk links once no bulk has been inserted for a whole
	// pause. 0 means one minute; negative means no background work, so that
	// queries by tag, external id or destination do the indexing.
	MaintainEvery time.Duration
}

// scanLimit bounds how many links one call of ListLinks looks at.
const scanLimit = 20_000

func (o *Options) setDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 64 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 32 << 20
	}
	if o.Clock == nil {
		o.Clock = func() terse.Millis { return terse.MillisOf(time.Now()) }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.FeedMaxAge == 0 {
		o.FeedMaxAge = 24 * time.Hour
	}
	if o.FeedMaxEntries == 0 {
		o.FeedMaxEntries = 1_000_000
	}
	if o.MaintainEvery == 0 {
		o.MaintainEvery = time.Minute
	}
	if o.ReadOnly {
		o.MaintainEvery = -1
	}
}

// pebbleOptions is every choice about Pebble in one place.
func (s *Store) pebbleOptions() *pebble.Options {
	o := &pebble.Options{
		FS: &storeFS{FS: s.opts.FS, fail: s.failAndPark},
		// One-way: raising it makes the directory unreadable for older binaries. This one has
		// checksums in table footers and tells a torn WAL from a damaged one.
		FormatMajorVersion: pebble.FormatTableFormatV6,
		ReadOnly:           s.opts.ReadOnly,
		CacheSize:          s.opts.CacheBytes,
		Logger:             &logger{s},
		EventListener:      s.eventListener(),

		// Four tables in memory absorb a compaction; batches stay far below half of one,
		// from where Pebble treats them as tables of their own.
		MemTableSize:                s.opts.MemTableBytes,
		MemTableStopWritesThreshold: 4,
		// The WAL is synced by every commit; this keeps the last sync of a large batch short.
		WALBytesPerSync: 512 << 10,
		BytesPerSync:    512 << 10,

		// Bulk flushes tables that do not overlap. They must not stop writes while one
		// compaction is behind: 1,000 is CockroachDB's limit, too.
		L0CompactionThreshold:     4,
		L0CompactionFileThreshold: 500,
		L0StopWritesThreshold:     1000,
		LBaseMaxBytes:             64 << 20,
		FlushSplitBytes:           16 << 20,
		// One compaction beside the writer, a second one if they fall behind.
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
		MaxOpenFiles:               1000,
	}
	o.TargetFileSizes[0] = 8 << 20
	for i := range o.Levels {
		l := &o.Levels[i]
		// 16 KiB is read and decompressed by a cold point read; see BenchmarkGet.
		l.BlockSize = 16 << 10
		l.IndexBlockSize = 64 << 10
		// Also at the bottom: most look-ups of a row miss, because the link is in a block.
		l.FilterPolicy = bloom.FilterPolicy(10)
	}
	// Link blocks are compressed already; Pebble keeps what does not shrink as it is.
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionFastest })
	// Reads never start compactions: a scan by a visitor must not cost writes.
	o.Experimental.ReadSamplingMultiplier = -1
	return o
}

// logger passes Pebble's messages on. Pebble calls Fatalf when it cannot go on and
// expects it not to return; ending the process there would cut off redirects
// that need no disk at all.
type logger struct{ s *Store }

// Infof implements pebble.Logger.
func (l *logger) Infof(format string, args ...any) {
	l.s.opts.Log.Debug("pebble", "message", fmt.Sprintf(format, args...))
}

// Errorf implements pebble.Logger.
func (l *logger) Errorf(format string, args ...any) {
	l.s.opts.Log.Error("pebble", "message", fmt.Sprintf(format, args...))
}

// Fatalf marks the store as failed and parks the goroutine, with the locks it holds.
func (l *logger) Fatalf(format string, args ...any) {
	l.s.failAndPark(fmt.Errorf(format, args...))
}

func (s *Store) eventListener() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) {
			s.counters.backgroundErrors.Add(1)
			s.opts.Log.Error("store: background work failed and is tried again", "err", err)
		},
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			s.counters.corruptions.Add(1)
			s.opts.Log.Error("store: damaged file", "path", info.Path, "err", info.Details)
		},
		WriteStallBegin: func(info pebble.WriteStallBeginInfo) {
			s.counters.stalls.Add(1)
			s.opts.Log.Warn("store: writes wait for the disk", "reason", info.Reason)
		},
	}
}
