package pebblestore

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
)

func TestInsertLayout(t *testing.T) {
	t.Parallel()
	without := func(links []terse.Link, drop ...uint64) []terse.Link {
		return slices.DeleteFunc(links, func(l terse.Link) bool { return slices.Contains(drop, l.Number.Index()) })
	}
	for _, tc := range []struct {
		name         string
		links        []terse.Link
		blocks, rows int
	}{
		{"one link", testLinks(0, 1), 0, 1},
		{"a whole run", testLinks(64, 64), 1, 0},
		{"a run that another chunk may complete", testLinks(0, 63), 0, 63},
		{"three runs", testLinks(128, 192), 3, 0},
		{"both edges are rows", testLinks(60, 200), 3, 8},
		{"holes within", without(testLinks(0, 192), 63, 64, 100, 127, 128), 3, 0},
		{"too few for a block", append(append(testLinks(0, 64), testLinks(70, 3)...), testLinks(128, 64)...), 2, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := openTest(t, vfs.NewMem())
			rand.New(rand.NewPCG(1, 2)).Shuffle(len(tc.links), func(i, j int) { tc.links[i], tc.links[j] = tc.links[j], tc.links[i] })
			mustInsert(t, s, tc.links...)
			if b, r := countKeys(t, s, famBlock), countKeys(t, s, famRow); b != tc.blocks || r != tc.rows {
				t.Errorf("got %d blocks and %d rows, want %d and %d", b, r, tc.blocks, tc.rows)
			}
			wantLinks(t, s, tc.links...)
			slices.SortFunc(tc.links, func(a, b terse.Link) int { return int(b.Number) - int(a.Number) })
			var want []terse.LinkNumber
			for _, l := range tc.links {
				want = append(want, l.Number)
			}
			if diff := cmp.Diff(want, list(t, s, 1, terse.ListQuery{Limit: 7})); diff != "" {
				t.Errorf("listing (-want +got):\n%s", diff)
			}
		})
	}
}

func TestInsertAroundBlocks(t *testing.T) {
	t.Parallel()
	s := openTest(t, vfs.NewMem())
	all := testLinks(0, 192)
	var even, odd []terse.Link
	for i, l := range all {
		if i%2 == 0 {
			even = append(even, l)
		} else {
			odd = append(odd, l)
		}
	}
	mustInsert(t, s, even...) // the run in the middle is a block with every second number
	mustInsert(t, s, odd...)  // and may not be set again
	wantLinks(t, s, all...)
	if got := list(t, s, 1, terse.ListQuery{Limit: 1000}); len(got) != len(all) {
		t.Errorf("listed %d links, want %d", len(got), len(all))
	}

	// All that exists is in the way, whether in rows or in blocks, and nothing else is.
	chunk := append(testLinks(100, 30), testLinks(200, 100)...)
	chunk = append(chunk, testLinks(10, 1)...)
	err := s.InsertLinks(context.Background(), &terse.Chunk{Links: chunk})
	conflict, ok := errors.AsType[*terse.AliasConflictError](err)
	if !ok {
		t.Fatalf("got error %v, want a conflict", err)
	}
	var want []int
	for i := range 30 {
		want = append(want, i)
	}
	if diff := cmp.Diff(append(want, 130), conflict.Rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	wantAbsent(t, s, chunk[50].Number)
}

func TestChangesOverBlocks(t *testing.T) {
	t.Parallel()
	s, ctx := openTest(t, vfs.NewMem()), context.Background()
	links := testLinks(0, 256)
	mustInsert(t, s, links...)
	links[70].Version, links[70].Destination = 2, "https://example.com/new"
	if err := s.UpdateLink(ctx, &links[70], 1); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteLink(ctx, terse.LinkKey{Number: links[71].Number}, 1); err != nil {
		t.Fatal(err)
	}
	wantAbsent(t, s, links[71].Number)
	if err := s.InsertLinks(ctx, &terse.Chunk{Links: links[71:72]}); !errors.Is(err, terse.ErrAliasTaken) {
		t.Errorf("insert of a deleted number: got error %v", err)
	}
	links[71].Version = 2
	if err := s.UpdateLink(ctx, &links[71], 1); !errors.Is(err, terse.ErrNotFound) {
		t.Errorf("update of a deleted link: got error %v", err)
	}
	links = slices.Delete(links, 71, 72)
	wantLinks(t, s, links...)
	if got := list(t, s, 1, terse.ListQuery{Limit: 1000}); len(got) != 255 {
		t.Errorf("listed %d links, want 255", len(got))
	}
	// The catch-up indexes the state of now.
	if got, err := s.FindPlain(ctx, 1, 1, "https://example.com/new", testNow); err != nil || got.Number != links[70].Number {
		t.Errorf("FindPlain: got %v, error %v", got.Number, err)
	}
	for _, gone := range []string{"https://example.com/70", "https://example.com/71"} {
		if _, err := s.FindPlain(ctx, 1, 1, gone, testNow); !errors.Is(err, terse.ErrNotFound) {
			t.Errorf("FindPlain(%s): got error %v", gone, err)
		}
	}
}

func TestWrongCode(t *testing.T) {
	t.Parallel()
	s, ctx := openTest(t, vfs.NewMem()), context.Background()
	links := testLinks(0, 65) // a block and a row
	mustInsert(t, s, links...)
	for _, i := range []int{5, 64} {
		got := make([]terse.Link, 1)
		err := s.GetLinks(ctx, []terse.LinkKey{{Number: links[i].Number, Code: "another"}}, got)
		if terse.ErrorCode(err) != terse.CodeInternal || got[0].Number != 0 {
			t.Errorf("link %d by another code: got %v, error %v", i, got[0].Number, err)
		}
		wrong := links[i]
		wrong.Code, wrong.Version = "another", 2
		if err := s.UpdateLink(ctx, &wrong, 1); terse.ErrorCode(err) != terse.CodeInternal {
			t.Errorf("update by another code: got error %v", err)
		}
		if err := s.DeleteLink(ctx, terse.LinkKey{Number: wrong.Number, Code: "another"}, 0); terse.ErrorCode(err) != terse.CodeInternal {
			t.Errorf("delete by another code: got error %v", err)
		}
	}
	wantLinks(t, s, links...)
}

func TestLinksTooLargeForBlock(t *testing.T) {
	t.Parallel()
	s := openTest(t, vfs.NewMem())
	links := testLinks(0, 64)
	for i := range links {
		links[i].Values = strings.Repeat("x", maxBlockColumns/64)
	}
	mustInsert(t, s, links...)
	if n := countKeys(t, s, famBlock); n != 0 {
		t.Errorf("got %d blocks, want none", n)
	}
	wantLinks(t, s, links...)
}

func TestCampaignMoves(t *testing.T) {
	t.Parallel()
	s, ctx := openTest(t, vfs.NewMem()), context.Background()
	links := testLinks(0, 70)
	for i := range links {
		links[i].Campaign = 1
	}
	mustInsert(t, s, links...)
	moving := links[30]
	for _, campaign := range []terse.CampaignID{2, 1, 0, 1, 2} {
		moving.Campaign = campaign
		moving.Version++
		if err := s.UpdateLink(ctx, &moving, moving.Version-1); err != nil {
			t.Fatal(err)
		}
		for c, others := range map[terse.CampaignID]int{1: 69, 2: 0} {
			got := list(t, s, 1, terse.ListQuery{Limit: 10, Campaign: c})
			want := 0
			if c == campaign {
				want = 1
			}
			if n := len(slices.DeleteFunc(slices.Clone(got), func(n terse.LinkNumber) bool { return n != moving.Number })); n != want {
				t.Errorf("campaign %d lists the link %d times, want %d (it is in %d)", c, n, want, campaign)
			}
			if len(got) != others+want {
				t.Errorf("campaign %d lists %d links, want %d", c, len(got), others+want)
			}
		}
	}
}

func TestInsertAllocs(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	links := make([]terse.Link, benchChunk)
	fill(links, personal(rand.New(rand.NewPCG(1, 2)), benchChunk), 3) // rows at both edges
	chunk := &terse.Chunk{Links: links}
	if got := testing.AllocsPerRun(20, func() {
		o := s.newChunkOp()
		if err := s.encodeInsert(o, chunk, nil); err != nil {
			t.Fatal(err)
		}
		s.free(o)
	}); got > 64 { // the pool forgets at random under the race detector
		t.Errorf("a chunk of %d links allocates %.0f times, want at most 64", benchChunk, got)
	}
}

// TestBlocksOfSeveralLeases: a chunk that comes of two leases makes no block of a run whose other part may
// be another chunk's: that one would have to be checked number by number.
func TestBlocksOfSeveralLeases(t *testing.T) {
	t.Parallel()
	s := openTest(t, vfs.NewMem())
	mustInsert(t, s, append(testLinks(64, 90), testLinks(1000, 200)...)...) // 64 to 153, 1000 to 1199
	for first, want := range map[uint64]bool{64: true, 128: false, 960: false, 1024: true, 1088: true, 1152: false} {
		if _, exists, err := s.bitmap(terse.NewLinkNumber(1, 7, first)); err != nil || exists != want {
			t.Errorf("block of %d exists: %t, error %v, want %t", first, exists, err, want)
		}
	}
	mustInsert(t, s, testLinks(154, 846)...)
	wantLinks(t, s, append(testLinks(64, 100), testLinks(990, 210)...)...)
}
