package clicks

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/terselink/terse"
)

// Position is a place in the spool of one node: everything before it has been
// read. The zero Position is the beginning. Positions are totally ordered, also
// across boots and after the segments they name have been deleted.
type Position struct {
	Boot    string // id of the process that wrote the segment: its start in ms, zero-padded, and random; sorts by age
	Segment uint64 // number within the boot, from 1
	Offset  int64  // bytes into the segment; always the start of a group, or 0
}

// Compare orders positions of one node: -1, 0 or 1.
func (p Position) Compare(q Position) int {
	return cmp.Or(strings.Compare(p.Boot, q.Boot), cmp.Compare(p.Segment, q.Segment), cmp.Compare(p.Offset, q.Offset))
}

// String returns "boot/segment/offset", which sorts as Compare does and which
// ParsePosition reads; "" for the zero Position.
func (p Position) String() string {
	if p == (Position{}) {
		return ""
	}
	return fmt.Sprintf("%s/%08d/%012d", p.Boot, p.Segment, p.Offset)
}

// ParsePosition reads what String writes. Returns an error of code invalid if s is none.
func ParsePosition(s string) (Position, error) {
	if s == "" {
		return Position{}, nil
	}
	boot, rest, ok1 := strings.Cut(s, "/")
	segment, offset, ok2 := strings.Cut(rest, "/")
	p := Position{Boot: boot}
	var err1, err2 error
	p.Segment, err1 = strconv.ParseUint(segment, 10, 64)
	p.Offset, err2 = strconv.ParseInt(offset, 10, 64)
	if !ok1 || !ok2 || err1 != nil || err2 != nil || p.Offset < 0 || !validBoot(boot) {
		return Position{}, terse.Invalid("position", "not of the form boot/segment/offset")
	}
	return p, nil
}
