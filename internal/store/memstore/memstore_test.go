package memstore_test

import (
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/memstore"
	"github.com/terselink/terse/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func opts() storetest.Opts {
	return storetest.Opts{
		New:    func(testing.TB) terse.Store { return memstore.New(nil) },
		Reopen: func(_ testing.TB, s terse.Store) terse.Store { return s.(*memstore.Store).Reopen() },
		Forget: func(_ testing.TB, s terse.Store) { s.(*memstore.Store).ForgetChanges() },
	}
}

func TestStore(t *testing.T) { storetest.Run(t, opts()) }

func TestModel(t *testing.T) { storetest.RunModel(t, opts()) }

func BenchmarkStore(b *testing.B) { storetest.Bench(b, opts()) }

// insert leases a number and stores a link of workspace 1 under it.
func insert(t *testing.T, s *memstore.Store) terse.Link {
	t.Helper()
	lease, err := s.Lease(t.Context(), terse.LeaseRequest{Domain: 1, Space: 7, Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	l := terse.Link{Number: terse.NewLinkNumber(1, 7, lease.Start), Workspace: 1, Version: 1, Code: "abcdefg", Destination: "https://example.com/"}
	if err := s.InsertLinks(t.Context(), &terse.Chunk{Links: []terse.Link{l}}); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestWrongCodeIsNeverAnswered(t *testing.T) {
	s := memstore.New(nil)
	l := insert(t, s)
	dst := make([]terse.Link, 1)
	err := s.GetLinks(t.Context(), []terse.LinkKey{{Number: l.Number, Code: "gfedcba"}}, dst)
	if terse.ErrorCode(err) != terse.CodeInternal || dst[0].Number != 0 {
		t.Fatalf("got %v and link %+v, want an internal error and none", err, dst[0])
	}
}

func TestUpdateStaysInItsWorkspace(t *testing.T) {
	s := memstore.New(nil)
	l := insert(t, s)
	l.Workspace, l.Version = 2, 2
	if err := s.UpdateLink(t.Context(), &l, 1); !errors.Is(err, terse.ErrNotFound) {
		t.Fatalf("got %v, want ErrNotFound", err)
	}
}

func TestChangesHaveTheTimeOfTheClock(t *testing.T) {
	now := terse.Millis(1_790_000_000_000)
	s := memstore.New(func() terse.Millis { now++; return now })
	insert(t, s)
	insert(t, s)
	list, err := s.Changes(t.Context(), 0, 10)
	if err != nil || len(list) != 2 || list[0].At != 1_790_000_000_001 || list[1].At != 1_790_000_000_002 {
		t.Fatalf("got %+v, %v", list, err)
	}
}
