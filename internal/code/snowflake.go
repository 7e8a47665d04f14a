package code

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/terselink/terse"
)

// Widths of the parts of a snowflake: milliseconds since the epoch of its space,
// the node that made it, a number within the millisecond. Together 63 bits.
const (
	snowflakeTimeBits = 41 // 69 years
	snowflakeNodeBits = 10
	snowflakeSeqBits  = 12

	// MaxNodes is how many nodes can issue snowflakes at a time.
	MaxNodes = 1 << snowflakeNodeBits
	// SnowflakeLength is the length of a snowflake in base62: 62^10 < 2^63 < 62^11.
	SnowflakeLength = 11

	perMilli = 1 << snowflakeSeqBits
	// maxClockWait is how long an Issue waits for a clock that was set back.
	maxClockWait = 1000 // milliseconds
)

// Snowflakes makes codes from time: 41 bits of milliseconds since the epoch of the space,
// 10 bits of the node, 12 bits of sequence, as 11 characters of base62, leading zeros
// kept. They sort by time and show when they were made and how many there are; choose
// them where that is wanted.
//
// No (millisecond, sequence) is used twice on a node, and the Node owns the millisecond: a
// clock that was set back is waited for up to a second and refused after that, never
// run ahead of. Safe for many goroutines.
type Snowflakes struct {
	node  *Node
	clock func() terse.Millis

	mu   sync.Mutex
	last terse.Millis // of the last snowflake
	seq  int          // the next sequence number in it
	id   int          // the node that last was made on
}

// NewSnowflakes returns a generator; nothing is claimed until the first Issue.
func NewSnowflakes(node *Node, clock func() terse.Millis) *Snowflakes {
	return &Snowflakes{node: node, clock: clock}
}

// errClockBehind refuses to issue while the clock shows a time that was used up.
func errClockBehind(by terse.Millis) error {
	return &terse.Error{
		Code: terse.CodeUnavailable, Reason: "clock_behind", Op: "issue snowflakes",
		Message: "the clock of the server was set back; no codes are made until it has caught up",
		Err:     fmt.Errorf("the clock is %d ms behind", by),
	}
}

// Issue appends n snowflakes of a space that began at epoch, SnowflakeLength bytes each,
// without those that Blocked refuses. On an error dst returns as it came.
//
// Returns an error of code unavailable if the clock is more than a second behind or no
// node id can be claimed, of code conflict when the 69 years of the space are over, and
// one that wraps ctx.Err().
func (s *Snowflakes) Issue(ctx context.Context, epoch terse.Millis, n int, dst []byte) ([]byte, error) {
	start := len(dst)
	for n > 0 {
		at, id, seq, count, err := s.take(ctx, epoch, n)
		if err != nil {
			return dst[:start], err
		}
		for i := range count {
			v := uint64(at-epoch)<<(snowflakeNodeBits+snowflakeSeqBits) | uint64(id)<<snowflakeSeqBits | uint64(seq+i)
			first := len(dst)
			dst = appendSnowflake(dst, v)
			if Blocked(dst[first:]) {
				dst = dst[:first]
				continue
			}
			n--
		}
	}
	return dst, nil
}

// take reserves 1 to n sequence numbers of one millisecond.
func (s *Snowflakes) take(ctx context.Context, epoch terse.Millis, n int) (at terse.Millis, id, seq, count int, err error) {
	waited := terse.Millis(0)
	for {
		at, id, seq, count, wait, err := s.tryTake(ctx, epoch, n)
		if err != nil || count > 0 {
			return at, id, seq, count, err
		}
		if waited+wait > maxClockWait {
			return 0, 0, 0, 0, errClockBehind(wait)
		}
		if wait > 1 { // more than the rest of a full millisecond: the clock is behind
			waited += wait
		}
		t := time.NewTimer(time.Duration(wait) * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return 0, 0, 0, 0, fmt.Errorf("issue snowflakes: %w", ctx.Err())
		}
	}
}

// tryTake is take without waiting: count 0 asks to wait so many milliseconds.
func (s *Snowflakes) tryTake(ctx context.Context, epoch terse.Millis, n int) (at terse.Millis, id, seq, count int, wait terse.Millis, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock()
	if now < s.last {
		return 0, 0, 0, 0, s.last - now, nil
	}
	if now < epoch {
		return 0, 0, 0, 0, epoch - now, nil
	}
	if now-epoch >= 1<<snowflakeTimeBits {
		return 0, 0, 0, 0, 0, terse.ErrSpaceFull
	}
	// The node is asked for every millisecond: it may have lost its claim.
	if id, err = s.node.Own(ctx, now); err != nil {
		return 0, 0, 0, 0, 0, err
	}
	if now > s.last || id != s.id {
		s.last, s.seq, s.id = now, 0, id
	}
	if s.seq == perMilli {
		return 0, 0, 0, 0, 1, nil
	}
	seq, count = s.seq, min(n, perMilli-s.seq)
	s.seq += count
	return now, id, seq, count, 0, nil
}

// base62 is the alphabet of snowflakes, whatever the domain's.
var base62 = alphabets[0]

func appendSnowflake(dst []byte, v uint64) []byte {
	var b [SnowflakeLength]byte
	for i := SnowflakeLength - 1; i >= 0; i-- {
		b[i] = base62.digits[v%62]
		v /= 62
	}
	return append(dst, b[:]...)
}

// ParseSnowflake returns the parts of a code that has the form of a snowflake: 11
// characters of base62 below 2^63. The time is since the epoch of its space.
func ParseSnowflake(code []byte) (milli int64, node, seq int, ok bool) {
	if len(code) != SnowflakeLength || !base62.Fits(code) {
		return 0, 0, 0, false
	}
	var v uint64
	for i, c := range code {
		// 62^10 < 2^60, so only the last step can pass 2^63.
		if i == SnowflakeLength-1 && v > (1<<63-1)/62 {
			return 0, 0, 0, false
		}
		v = v*62 + uint64(base62.value[c])
	}
	if v >= 1<<63 {
		return 0, 0, 0, false
	}
	return int64(v >> (snowflakeNodeBits + snowflakeSeqBits)), int(v >> snowflakeSeqBits & (MaxNodes - 1)), int(v & (perMilli - 1)), true
}
