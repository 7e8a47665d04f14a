package storetest

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/terselink/terse"
)

// testForget checks that nobody misses changes that were forgotten without being told so.
func testForget(t *testing.T, s *suite) {
	if s.o.Forget == nil {
		t.Skip("the store never forgets a change")
	}
	c := s.scope(t)
	// put writes versions of a document and returns the changes that it waits for, and the position after them.
	version := uint64(0)
	put := func(after uint64, n int) (got []event, at uint64) {
		var want []event
		for range n {
			version++
			wantErr(t, "PutDocument", s.store.PutDocument(c.ctx, c.doc(terse.KindJob, "j", version)), nil)
			want = append(want, event{Kind: terse.ChangeDocument, Workspace: c.w, Version: version, DocKind: terse.KindJob, DocID: "j"})
		}
		c.eventually(func() string {
			list := c.changes(after, 1000)
			got = of(events(list, func(terse.WorkspaceID, terse.LinkNumber) bool { return true }), c.w)
			if !slices.Equal(got, want) {
				return fmt.Sprintf("Changes after %d: got %v, want %v", after, got, want)
			}
			at = list[len(list)-1].Seq
			return ""
		})
		return got, at
	}
	told := func(after uint64) uint64 {
		t.Helper()
		for _, limit := range []int{1, 1000} {
			list, err := s.store.Changes(c.ctx, after, limit)
			e, ok := errors.AsType[*terse.ForgottenError](err)
			if !ok || len(list) != 0 || e.Floor <= after {
				t.Fatalf("Changes after %d, which was forgotten: %d of them, error %v", after, len(list), err)
			}
			if limit > 1 {
				return e.Floor
			}
		}
		return 0
	}

	old := c.tail()
	_, seen := put(old, 8)
	s.o.Forget(t, s.store)
	floor := told(old)
	if floor > seen {
		t.Fatalf("the feed is whole after %d, and its last change was %d", floor, seen)
	}
	told(floor - 1)
	c.changes(floor, 1000)
	if list := c.changes(seen, 1000); len(list) != 0 {
		t.Fatalf("%d changes after the last", len(list))
	}
	// Who had seen everything misses nothing of what comes.
	_, next := put(seen, 3)
	if list := c.changes(floor, 1000); len(list) == 0 || list[len(list)-1].Seq != next {
		t.Fatalf("the feed from its floor ends with %+v, want %d", list, next)
	}
	told(old)
	if s.o.Reopen != nil {
		s.store = s.o.Reopen(t, s.store)
		if again := told(old); again > seen {
			t.Fatalf("after a restart the feed is whole after %d, before it was after %d", again, floor)
		}
		put(next, 1)
	}
}
