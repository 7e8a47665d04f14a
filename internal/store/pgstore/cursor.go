package pgstore

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"strings"

	"github.com/terselink/terse"
)

// place is a place in a listing: after it come the links of smaller positions, and of
// the same position those with smaller numbers.
type place struct{ position, number int64 }

// start is before everything.
var start = place{math.MaxInt64, math.MaxInt64}

// cursorPrefix tells the cursors of this engine from those of others.
const cursorPrefix = "pg1_"

func (p place) String() string {
	b := binary.BigEndian.AppendUint64(nil, uint64(p.position))
	b = binary.BigEndian.AppendUint64(b, uint64(p.number))
	return cursorPrefix + hex.EncodeToString(b)
}

// parseCursor accepts exactly what String makes, and "" for the start.
func parseCursor(s string) (place, error) {
	if s == "" {
		return start, nil
	}
	digits, ok := strings.CutPrefix(s, cursorPrefix)
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != 16 || strings.ToLower(digits) != digits || b[0] > 0x7f || b[8] > 0x7f {
		return place{}, terse.Invalid("cursor", "not a cursor of this store")
	}
	return place{int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:]))}, nil
}
