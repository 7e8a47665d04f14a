package pebblestore

import (
	"slices"

	"github.com/terselink/terse"
)

// fresh knows which numbers are in use at the upper end of every space, so that a chunk of new numbers, which is what
// nearly every chunk is, is checked without reading. A chunk over hundreds of domains would seek hundreds of
// places, and fill Pebble's cache with them. It learns of a space when a chunk comes above all that the database has of
// it; from then on nothing is written there but what the committer tells it. It belongs to the committer.
type fresh struct {
	spaces map[terse.LinkNumber]*freshSpace // by the number of index 0, shifted down
	size   int                              // spaces, and spans of them
}

// freshSpace is what is known of one space. Spans are ascending and do not touch.
type freshSpace struct {
	from   terse.LinkNumber // below it the database must be asked; the first number of a block
	rows   []span           // numbers of rows
	blocks []span           // all numbers of the runs that have a block
}

// maxFresh is how many spans a list may have; beyond it the older half is forgotten.
const maxFresh = 4096

// maxFreshTotal is how many spaces and spans there may be in all, at most some 30 MB; beyond it all are forgotten.
const maxFreshTotal = 1 << 18

func spaceOf(n terse.LinkNumber) terse.LinkNumber { return n >> terse.IndexBits }

// free reports whether no row has a number of the span and no block is near, as spansFree asks. known is false if
// only the database can tell.
func (f *fresh) free(sp span) (free, known bool) {
	sf := f.spaces[spaceOf(sp.first)]
	first := blockOf(sp.first)
	if sf == nil || first < sf.from || spaceOf(sp.last) != spaceOf(sp.first) {
		return false, false
	}
	return !meets(sf.rows, sp) && !meets(sf.blocks, span{first, sp.last}), true
}

// begin learns of a space that has no row from sp.first on and no block from its block on.
func (f *fresh) begin(sp span) {
	if f.spaces == nil {
		f.spaces = map[terse.LinkNumber]*freshSpace{}
	}
	if space := spaceOf(sp.first); f.spaces[space] == nil {
		f.spaces[space] = &freshSpace{from: blockOf(sp.first) + blockSize}
		f.size++
	}
}

// add learns of what is about to be written. If the write fails the numbers count as used all the same: then the
// precise check decides.
func (f *fresh) add(in *insertState) {
	for at := 0; at < len(in.rows); {
		end := at + 1
		for end < len(in.rows) && in.rows[end].number == in.rows[end-1].number+1 {
			end++
		}
		if sf := f.spaces[spaceOf(in.rows[at].number)]; sf != nil {
			f.size -= len(sf.rows) + len(sf.blocks)
			sf.rows = addSpan(sf.rows, span{in.rows[at].number, in.rows[end-1].number})
			sf.trim()
			f.size += len(sf.rows) + len(sf.blocks)
		}
		at = end
	}
	for _, b := range in.blocks {
		if sf := f.spaces[spaceOf(b.first)]; sf != nil {
			f.size -= len(sf.rows) + len(sf.blocks)
			sf.blocks = addSpan(sf.blocks, span{b.first, b.first + blockSize - 1})
			sf.trim()
			f.size += len(sf.rows) + len(sf.blocks)
		}
	}
	// A space is learned of again when the next chunk comes above what the database has: the committer checks that chunk
	// after it has written this one.
	if f.size > maxFreshTotal {
		f.spaces, f.size = nil, 0
	}
}

// trim forgets the lower half of what has become too long.
func (sf *freshSpace) trim() {
	for _, list := range [][]span{sf.rows, sf.blocks} {
		if len(list) > maxFresh {
			sf.from = max(sf.from, blockOf(list[len(list)/2].last)+blockSize)
		}
	}
	if len(sf.rows) > maxFresh || len(sf.blocks) > maxFresh {
		below := func(sp span) bool { return sp.last < sf.from }
		sf.rows, sf.blocks = slices.DeleteFunc(sf.rows, below), slices.DeleteFunc(sf.blocks, below)
	}
}

// meets reports whether one of the spans has a number of sp.
func meets(list []span, sp span) bool {
	i := firstEndingFrom(list, sp.first)
	return i < len(list) && list[i].first <= sp.last
}

// firstEndingFrom returns the first of the spans that ends at n or behind it.
func firstEndingFrom(list []span, n terse.LinkNumber) int {
	i, _ := slices.BinarySearchFunc(list, n, func(sp span, n terse.LinkNumber) int {
		if sp.last < n {
			return -1
		}
		return 1
	})
	return i
}

// addSpan adds a span to a list and joins what touches.
func addSpan(list []span, sp span) []span {
	i := firstEndingFrom(list, sp.first-1) // 0 is no number
	j := i
	for ; j < len(list) && list[j].first <= sp.last+1; j++ {
		sp.first, sp.last = min(sp.first, list[j].first), max(sp.last, list[j].last)
	}
	return slices.Replace(list, i, j, sp)
}
