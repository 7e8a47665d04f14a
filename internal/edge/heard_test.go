package edge

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/edge/wire"
)

// TestHeard: soon after the feed was last read the edge no longer counts as told of all domains.
func TestHeard(t *testing.T) {
	t.Parallel()
	s := newUpstream(t).open(t.TempDir(), now)
	s.heard.Store(time.Now().Add(-5 * time.Second).UnixMilli())
	if err := s.Ping(t.Context()); !errors.Is(err, terse.ErrUnavailable) {
		t.Errorf("error %v", err)
	}
	for ago, want := range map[time.Duration]bool{0: true, 4 * time.Minute: true, 6 * time.Minute: false, -time.Hour: false} {
		s.heard.Store(time.Now().Add(-ago).UnixMilli())
		if got := s.HeardWithin(5 * time.Minute); got != want {
			t.Errorf("heard %v ago: %t", ago, got)
		}
	}
	s.heard.Store(0)
	if s.HeardWithin(365 * 24 * time.Hour) {
		t.Error("what was never heard counts as heard")
	}
}

// TestHeardToItsEnd: with a backlog of more than a page the edge has heard nothing before the last one, also from a control plane
// that does not say which that is; and what is told while the answer is on its way is not heard.
func TestHeardToItsEnd(t *testing.T) {
	t.Parallel()
	for _, old := range []bool{false, true} {
		u, to := newUpstream(t), &target{}
		u.unmarked.Store(old)
		s := u.open(t.TempDir(), now)
		began := time.Now().UnixMilli()
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := s.heard.Load(); got < began {
			t.Errorf("heard at %d, began at %d", got, began)
		}
		for i := range wire.PageChanges + 10 {
			if err := u.store.PutDocument(t.Context(), terse.Document{Workspace: 1, Kind: terse.KindJob, ID: fmt.Sprint("j", i), Version: 1, Data: []byte(`{}`)}); err != nil {
				t.Fatal(err)
			}
		}
		at := *s.copy.state.Load()
		s.heard.Store(1)
		if err := s.follow(t.Context(), &at, to); err != nil {
			t.Fatal(err)
		}
		if got := s.heard.Load(); got != 1 {
			t.Errorf("old: %t: after the first page it has heard at %d", old, got)
		}
		before := time.Now().UnixMilli()
		if err := s.follow(t.Context(), &at, to); err != nil {
			t.Fatal(err)
		}
		if got := s.heard.Load(); got < before {
			t.Errorf("old: %t: after the last page it has heard at %d, not at %d", old, got, before)
		}
		before = time.Now().UnixMilli()
		if err := s.follow(t.Context(), &at, to); err != nil { // waits for wire.MaxWait
			t.Fatal(err)
		}
		if waited, got := time.Now().UnixMilli(), s.heard.Load(); got < before || got > waited-wire.MaxWait.Milliseconds() {
			t.Errorf("old: %t: asked at %d and answered at %d it has heard at %d", old, before, waited, got)
		}
	}
}

// TestLastPage: an old control plane says nothing of more; a page that bytes may have cut is not the last.
func TestLastPage(t *testing.T) {
	t.Parallel()
	big := []wire.EdgeDocument{{Data: make([]byte, wire.PageBytes)}}
	for _, c := range []struct {
		page wire.EdgeChanges
		want bool
	}{
		{wire.EdgeChanges{Position: 10, More: new(false), Documents: big}, true},
		{wire.EdgeChanges{Position: 10, More: new(true)}, false},
		{wire.EdgeChanges{Position: 10}, true},
		{wire.EdgeChanges{Position: 10, Documents: big}, false},
		{wire.EdgeChanges{Position: 10, Links: []json.RawMessage{make([]byte, wire.PageBytes)}}, false},
		{wire.EdgeChanges{Position: 9 + wire.PageChanges}, false},
	} {
		if got := lastPage(&c.page, 9); got != c.want {
			t.Errorf("position %d, more %v: %t", c.page.Position, c.page.More, got)
		}
	}
}

// TestEverythingNotInForce: what cannot be applied at all does not keep the edge from going on.
func TestEverythingNotInForce(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	s := u.open(t.TempDir(), now)
	for _, c := range []struct {
		err   error
		again bool
	}{{errors.New("it cannot be decoded"), false}, {errors.Join(errors.New("it cannot be decoded"), terse.ErrUnavailable), true}} {
		s.heard.Store(0)
		var at state
		err := s.startOver(t.Context(), &at, &target{err: c.err}, "a test")
		if (err != nil) != c.again || (s.heard.Load() == 0) != c.again {
			t.Errorf("%v: %v, heard at %d", c.err, err, s.heard.Load())
		}
	}
}
