package dynamostore_test

import (
	"fmt"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/dynamostore"
)

// TestFeedHead: whoever begins at the head misses no change that it does not show.
func TestFeedHead(t *testing.T) {
	t.Parallel()
	s := open(t, newTable(t))
	put := func(id string) {
		t.Helper()
		if err := s.PutDocument(t.Context(), terse.Document{Workspace: 1, Kind: terse.KindCampaign, ID: id, Version: 1, Data: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		head, err := s.FeedHead(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		put(fmt.Sprint("c", i))
		list, err := s.Changes(t.Context(), head, 100)
		if err != nil || len(list) != 1 || list[0].DocID != fmt.Sprint("c", i) {
			t.Fatalf("after the head %d: %+v, %v", head, list, err)
		}
	}
}

// TestClaimShared: nodes that tell each other what they write have the table together, and never beside one that has it for
// itself.
func TestClaimShared(t *testing.T) {
	t.Parallel()
	o := newTable(t)
	a, b, alone := open(t, o), open(t, o), open(t, o)
	for range 2 { // a restart too
		for _, s := range []*dynamostore.Store{a, b} {
			if err := s.Claim(t.Context(), dynamostore.SharedOwner, 0); err != nil {
				t.Fatal(err)
			}
		}
		b = open(t, o)
	}
	if err := alone.Claim(t.Context(), "alone", 0); terse.ErrorCode(err) != terse.CodeConflict {
		t.Fatalf("a node that shares nothing claims the table: %v", err)
	}
	for _, s := range []*dynamostore.Store{a, b} {
		select {
		case <-s.Lost():
			t.Error("a node that shares the table has lost it")
		default:
		}
	}
}
