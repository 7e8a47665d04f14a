package openloop

import (
	"math/bits"
	"time"
)

// A Histogram counts durations in buckets that grow with them: 128 to each power of two,
// so that a quantile is at most 0.8 % above what was recorded. It holds durations
// to 18 minutes; longer ones count as that. The zero value is empty. It belongs to one
// goroutine at a time.
type Histogram struct {
	counts [buckets]uint64
	n      uint64
	sum    float64
	max    time.Duration
}

const (
	subBits = 7
	maxBits = 40 // of the longest duration, in nanoseconds
	buckets = (maxBits-subBits)<<subBits + 1<<subBits
)

// bucketOf returns the bucket of a duration in nanoseconds. The first 128 buckets are one
// nanosecond wide, the next 128 too, the next 128 two, and so on.
func bucketOf(ns uint64) int {
	if ns < 1<<subBits {
		return int(ns)
	}
	shift := bits.Len64(ns) - subBits - 1
	return (shift+1)<<subBits | int(ns>>shift)&(1<<subBits-1)
}

// upperBound returns the longest duration of a bucket, in nanoseconds.
func upperBound(bucket int) uint64 {
	if bucket < 1<<subBits {
		return uint64(bucket)
	}
	shift := bucket>>subBits - 1
	return (uint64(bucket&(1<<subBits-1)|1<<subBits)+1)<<shift - 1
}

// Record counts a duration; a negative one counts as 0.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	h.counts[bucketOf(uint64(min(d, 1<<maxBits-1)))]++
	h.n++
	h.sum += float64(d)
	h.max = max(h.max, d)
}

// Add counts what other has counted.
func (h *Histogram) Add(other *Histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.n += other.n
	h.sum += other.sum
	h.max = max(h.max, other.max)
}

// Count returns how many durations were recorded.
func (h *Histogram) Count() uint64 { return h.n }

// Max returns the longest duration, exactly.
func (h *Histogram) Max() time.Duration { return h.max }

// Mean returns the mean, 0 of nothing.
func (h *Histogram) Mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return time.Duration(h.sum / float64(h.n))
}

// Quantile returns the duration that a share q (0 to 1) of all does not exceed, rounded up to
// its bucket; 0 of nothing.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := uint64(q * float64(h.n))
	if float64(rank) < q*float64(h.n) {
		rank++
	}
	rank = min(max(rank, 1), h.n)
	var seen uint64
	for i, n := range h.counts {
		if seen += n; seen >= rank {
			return min(time.Duration(upperBound(i)), h.max)
		}
	}
	return h.max
}
