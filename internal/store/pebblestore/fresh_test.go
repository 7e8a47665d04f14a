package pebblestore

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/terselink/terse"
)

// TestFresh: what is known without reading is what the database says, after chunks in any order, with gaps,
// twice, refused, and after a new start.
func TestFresh(t *testing.T) {
	fsys := vfs.NewMem()
	s := openTest(t, fsys)
	r := rand.New(rand.NewPCG(3, 4))
	known, taken := 0, 0
	next := [3]uint64{100, 64, 0} // what the spaces have issued
	var late []terse.Chunk        // chunks that are inserted after those behind them
	for round := range 400 {
		space := r.IntN(len(next))
		n := 1 + r.IntN(300)
		links := make([]terse.Link, 0, n)
		at := next[space]
		next[space] += uint64(n)
		for i := range uint64(n) {
			if r.IntN(40) > 0 { // else a gap
				links = append(links, terse.Link{
					Number: terse.NewLinkNumber(terse.DomainID(space+1), 7, at+i), Workspace: 1, Version: 1, Destination: "https://example.com/", Code: "abcdefg",
				})
			}
		}
		chunk := terse.Chunk{Links: links}
		if r.IntN(3) == 0 {
			late = append(late, chunk)
			continue
		}
		chunks := append([]terse.Chunk{chunk}, late...)
		if r.IntN(8) == 0 {
			chunks = append(chunks, chunk) // refused: every number of it is in use
		}
		late = late[:0]
		for i := range chunks {
			err := s.InsertLinks(context.Background(), &chunks[i])
			if _, conflict := errors.AsType[*terse.AliasConflictError](err); err != nil && !conflict {
				t.Fatal(err)
			}
			if err != nil {
				taken++
			}
		}
		for range 50 {
			first := terse.NewLinkNumber(terse.DomainID(space+1), 7, uint64(r.Int64N(int64(next[space])+200)))
			sp := span{first, first + terse.LinkNumber(r.IntN(100))}
			free, ok := s.fresh.free(sp)
			if !ok {
				continue
			}
			known++
			f, err := s.readFree([]span{sp})
			if err != nil {
				t.Fatal(err)
			}
			if f[0] != free {
				t.Fatalf("round %d: numbers %d to %d: free %t without reading, %t by reading", round, sp.first, sp.last, free, f[0])
			}
		}
		if round == 200 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openTest(t, fsys)
		}
	}
	if known < 1000 || taken == 0 {
		t.Errorf("%d spans were known, %d chunks refused", known, taken)
	}
}

// TestFreshForgets: lists stay short, and what is forgotten is asked of the database.
func TestFreshForgets(t *testing.T) {
	var f fresh
	base := terse.NewLinkNumber(1, 7, 0)
	f.begin(span{base, base + 9})
	for i := range terse.LinkNumber(3 * maxFresh) {
		f.add(&insertState{rows: []rowRef{{number: base + blockSize + 2*i}}})
	}
	sf := f.spaces[spaceOf(base)]
	if len(sf.rows) > maxFresh {
		t.Errorf("%d spans", len(sf.rows))
	}
	if _, known := f.free(span{base + blockSize, base + blockSize}); known {
		t.Error("what was forgotten is known")
	}
	last := base + blockSize + 2*(3*maxFresh-1)
	if free, known := f.free(span{last, last}); free || !known {
		t.Errorf("the last number: free %t, known %t", free, known)
	}
	if free, known := f.free(span{last + 1, last + 9}); !free || !known {
		t.Errorf("behind it: free %t, known %t", free, known)
	}
}

// TestFreshTotal: many spaces together stay bounded, and are learned of again.
func TestFreshTotal(t *testing.T) {
	var f fresh
	forgot := 0
	for d := range 3 * maxFreshTotal / maxFresh {
		base := terse.NewLinkNumber(terse.DomainID(d+1), 7, 0)
		before := f.size
		f.begin(span{base, base + 9})
		for i := range terse.LinkNumber(maxFresh - 1) {
			f.add(&insertState{rows: []rowRef{{number: base + blockSize + 2*i}}})
		}
		size := len(f.spaces)
		for _, sf := range f.spaces {
			size += len(sf.rows) + len(sf.blocks)
		}
		if size != f.size || size > maxFreshTotal {
			t.Fatalf("space %d: %d spaces and spans, counted as %d", d, size, f.size)
		}
		if f.size < before {
			forgot++
			if _, known := f.free(span{base + blockSize, base + blockSize}); known {
				t.Errorf("space %d: what was forgotten is known", d)
			}
			last := base + 4*maxFresh + 2*blockSize
			f.begin(span{last, last})
			if free, known := f.free(span{last + blockSize, last + blockSize}); !free || !known {
				t.Errorf("space %d, learned of again: free %t, known %t", d, free, known)
			}
		}
	}
	if forgot == 0 {
		t.Error("nothing was forgotten")
	}
}

func TestAddSpan(t *testing.T) {
	var list []span
	for _, sp := range []span{{10, 20}, {30, 40}, {50, 60}, {21, 22}, {5, 9}, {25, 70}, {100, 100}, {72, 80}, {71, 71}} {
		list = addSpan(list, sp)
	}
	if want := []span{{5, 22}, {25, 80}, {100, 100}}; !slices.Equal(list, want) {
		t.Errorf("%v, want %v", list, want)
	}
	for sp, want := range map[span]bool{{1, 4}: false, {1, 5}: true, {23, 24}: false, {22, 24}: true, {81, 99}: false, {90, 200}: true, {101, 102}: false} {
		if meets(list, sp) != want {
			t.Errorf("%v meets: %t", sp, !want)
		}
	}
}
