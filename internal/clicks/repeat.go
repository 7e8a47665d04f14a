package clicks

import "hash/maphash"

// repeatTable knows which visitor clicked which link lately, in bounded
// memory: a set-associative table of four cells a set in which the oldest
// gives way. So a repeat may be missed under load, and none is invented but by
// a collision of 64 keyed bits. It is empty after a restart.
type repeatTable struct {
	seed   maphash.Seed
	window int64 // ms
	sets   []repeatSet
}

type repeatSet [4]struct {
	key uint64
	at  int64 // 0: free
}

func newRepeatTable(bytes int, window int64) *repeatTable {
	n := 1
	for n*2*64 <= bytes {
		n *= 2
	}
	return &repeatTable{seed: maphash.MakeSeed(), window: window, sets: make([]repeatSet, n)}
}

// seen reports whether the visitor clicked the link in the window before at, and
// otherwise remembers it. The window begins at the last click that was no
// repeat, as in Dub, so that a click every half hour counts once an hour.
func (t *repeatTable) seen(visitor, link uint64, at int64) bool {
	key := maphash.Comparable(t.seed, [2]uint64{visitor, link})
	set := &t.sets[key&uint64(len(t.sets)-1)]
	oldest := 0
	for i := range set {
		cell := &set[i]
		if cell.key == key && cell.at != 0 {
			if d := at - cell.at; d > -t.window && d < t.window { // records are nearly in order
				return true
			}
			cell.at = at
			return false
		}
		if cell.at < set[oldest].at {
			oldest = i
		}
	}
	set[oldest].key, set[oldest].at = key, at
	return false
}
