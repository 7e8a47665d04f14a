package pebblestore

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
)

const testNow terse.Millis = 1_790_000_000_000

func fixedClock() terse.Millis { return testNow }

// memOptions are for a store on fsys without background work.
func memOptions(fsys vfs.FS) Options {
	return Options{FS: fsys, Clock: fixedClock, MaintainEvery: -1, MemTableBytes: 1 << 20, CacheBytes: 1 << 20}
}

func openTest(t testing.TB, fsys vfs.FS) *Store {
	t.Helper()
	s, err := Open("store", memOptions(fsys))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// testLink is a generated link of domain 1, space 7.
func testLink(index uint64) terse.Link {
	return terse.Link{
		Number: terse.NewLinkNumber(1, 7, index), Workspace: 1, Version: 1, CreatedAt: testNow, UpdatedAt: testNow,
		Code: fmt.Sprintf("c%06d", index), Destination: fmt.Sprintf("https://example.com/%d", index),
	}
}

func testLinks(first, n uint64) []terse.Link {
	links := make([]terse.Link, n)
	for i := range links {
		links[i] = testLink(first + uint64(i))
	}
	return links
}

func mustInsert(t testing.TB, s *Store, links ...terse.Link) {
	t.Helper()
	if err := s.InsertLinks(context.Background(), &terse.Chunk{Links: links}); err != nil {
		t.Fatalf("InsertLinks: %v", err)
	}
}

// wantLinks checks what GetLinks returns for the links.
func wantLinks(t testing.TB, s *Store, want ...terse.Link) {
	t.Helper()
	keys, got := make([]terse.LinkKey, len(want)), make([]terse.Link, len(want))
	for i, l := range want {
		keys[i] = terse.LinkKey{Number: l.Number, Code: l.Code}
	}
	if err := s.GetLinks(context.Background(), keys, got); err != nil {
		t.Fatalf("GetLinks: %v", err)
	}
	for i := range want {
		want[i].Reserves = 0
		if diff := cmp.Diff(want[i], got[i]); diff != "" {
			t.Fatalf("link %d (-want +got):\n%s", want[i].Number.Index(), diff)
		}
	}
}

func wantAbsent(t testing.TB, s *Store, numbers ...terse.LinkNumber) {
	t.Helper()
	got := make([]terse.Link, 1)
	for _, n := range numbers {
		if err := s.GetLinks(context.Background(), []terse.LinkKey{{Number: n}}, got); err != nil || got[0].Number != 0 {
			t.Fatalf("GetLinks(%d): got %v, error %v, want none", n.Index(), got[0].Number, err)
		}
	}
}

// list returns the numbers of a whole listing.
func list(t testing.TB, s *Store, w terse.WorkspaceID, q terse.ListQuery) (numbers []terse.LinkNumber) {
	t.Helper()
	for {
		page, err := s.ListLinks(context.Background(), w, q)
		if err != nil {
			t.Fatalf("ListLinks: %v", err)
		}
		for _, l := range page.Links {
			numbers = append(numbers, l.Number)
		}
		if page.Next == "" {
			return numbers
		}
		q.Cursor = page.Next
	}
}

// countKeys counts the keys of a family.
func countKeys(t testing.TB, s *Store, family byte) (n int) {
	t.Helper()
	for range dump(t, s, family) {
		n++
	}
	return n
}

type pair struct{ key, value []byte }

// dump returns all keys and values of a family.
func dump(t testing.TB, s *Store, family byte) (out []pair) {
	t.Helper()
	it, err := s.db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for ok := it.SeekGE([]byte{family}); ok && it.Key()[0] == family; ok = it.Next() {
		out = append(out, pair{slices.Clone(it.Key()), slices.Clone(it.Value())})
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}
