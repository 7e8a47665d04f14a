package clicks

import (
	"log/slog"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/geo"
)

// Durability says when a click counts as recorded.
type Durability uint8

// The durabilities.
const (
	// DurabilityInterval means written at each group commit (FlushEvery) and
	// synced every SyncEvery. CaptureSync does not wait.
	DurabilityInterval Durability = iota
	// DurabilityBatch means that CaptureSync returns after the fsync of the
	// click's group. It is the only mode in which a redirect waits for a disk.
	DurabilityBatch
)

// Options configure a Recorder. Zero values mean the defaults named.
type Options struct {
	Dir          string           // the spool directory of this node, made if missing (mode 0700); required
	Node         string           // name of this node, 1 to 64 bytes; default "node"
	Shards       int              // independent buffers, rounded up to a power of two; default 4 per processor, at most 256
	BufferBytes  int              // memory of all buffers together, at least 64 KiB a shard; default 64 MiB. Pages never filled cost nothing
	SegmentBytes int64            // a new segment begins above this size; default 64 MiB
	FlushEvery   time.Duration    // longest time a click stays in memory; default and most 5 ms
	SyncEvery    time.Duration    // longest time between fsyncs; default 1 s
	SyncWait     time.Duration    // longest wait of CaptureSync; default 250 ms
	Durability   Durability       // default DurabilityInterval
	MaxBytes     int64            // cap of all segments; default 10 GB
	FS           vfs.FS           // default vfs.Default
	Clock        func() time.Time // default time.Now
	Geo          *geo.DB          // nil: no countries
	Salts        SaltSource       // nil: every visitor is 0
	// Kept tells, from memory and without waiting, what a workspace keeps of its visitors; it is asked for clicks as they
	// are written, from many goroutines. nil: nothing.
	Kept func(terse.WorkspaceID) Kept
	// Own tells, from memory and without waiting, whether a host is a domain of links of a workspace: referrals from it are
	// direct, and are written without the referrer. The host is in lower case, perhaps with a port, and borrowed. It is asked for
	// clicks as they are written. nil: only a click's own domain is known, to those who read.
	Own func(w terse.WorkspaceID, host []byte) bool
	Log *slog.Logger // default: discarded
}

// NodeName returns as much of a name as Options.Node takes, in whole characters.
func NodeName(s string) string {
	s = strings.ToValidUTF8(s, "")
	for len(s) > maxNode {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}

// SaltSource holds one random salt per UTC day, the same on every node. All
// methods are safe for concurrent use.
type SaltSource interface {
	// Salt returns the salt of a day (days since 1970-01-01 UTC), or false if
	// there is none, yet or any more. It answers from memory.
	Salt(day int64) (salt [16]byte, ok bool)
	// Maintain makes the salts of today and tomorrow if they are missing, and
	// deletes those whose time is over. The recorder calls it about once a
	// minute, off the hot path.
	Maintain() error
}

const (
	maxFlushEvery = 5 * time.Millisecond
	minShardBytes = 64 << 10
)

func (o *Options) setDefaults() error {
	if o.Dir == "" {
		return terse.Invalid("dir", "the spool needs a directory")
	}
	if o.Node == "" {
		o.Node = "node"
	}
	if len(o.Node) > maxNode {
		return terse.Invalid("node", "at most %d bytes", maxNode)
	}
	if o.Shards <= 0 {
		o.Shards = 4 * runtime.GOMAXPROCS(0)
	}
	n := 1
	for n < o.Shards && n < 256 {
		n *= 2
	}
	o.Shards = n
	defaultTo(&o.BufferBytes, 64<<20)
	o.BufferBytes = max(o.BufferBytes, o.Shards*minShardBytes)
	defaultTo(&o.SegmentBytes, 64<<20)
	defaultTo(&o.FlushEvery, maxFlushEvery)
	o.FlushEvery = min(o.FlushEvery, maxFlushEvery)
	defaultTo(&o.SyncEvery, time.Second)
	defaultTo(&o.SyncWait, 250*time.Millisecond)
	defaultTo(&o.MaxBytes, 10_000_000_000)
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

func defaultTo[T int | int64 | time.Duration](p *T, v T) {
	if *p <= 0 {
		*p = v
	}
}
