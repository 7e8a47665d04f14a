package clicks

// idCounter numbers the clicks of one recorder within their millisecond, so that an id is the
// time, this number and 62 bits that are the same for the whole run: ids that differ in what is
// in the click anyway cost next to nothing where millions of them are kept (docs/format/record.md),
// random ones cost eight bytes each whatever the codec.
//
// No two clicks of a run get the same time and number: a cell of the ring belongs to the
// milliseconds of one residue, and only ever moves on to a later one.
type idCounter struct {
	run   uint64   // 62 bits: 61 random ones, and one that is set, so that it is not 0
	cells []uint64 // time<<13 | clicks of it so far
}

// A click that is older by more than the ring is long (65 s), and comes after another of the
// same residue, cannot be numbered any more.
const idCells = 1 << 16

func newIDCounter() *idCounter { return &idCounter{cells: make([]uint64, idCells)} }

// next returns the number of a click at a time in ms; false if it cannot be numbered and needs random bits.
//
// Hot path: 0 allocs/op, see TestWriterAllocs.
func (c *idCounter) next(at int64) (seq uint64, ok bool) {
	if at <= 0 || at >= 1<<48 {
		return 0, false
	}
	cell := &c.cells[at&(idCells-1)]
	switch was := int64(*cell >> 13); {
	case was < at:
		*cell = uint64(at)<<13 | 1
		return 0, true
	case was > at:
		return 0, false
	}
	n := *cell & (1<<13 - 1)
	if n > 0xfff { // 4 million a second
		return 0, false
	}
	*cell++
	return n, true
}
