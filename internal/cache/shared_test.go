package cache

import (
	"context"
	"fmt"
	"testing"

	"github.com/terselink/terse"
)

// TestForget: a link whose deletion came without its code is gone, others are untouched, and no load that began before brings
// it back.
func TestForget(t *testing.T) {
	t.Parallel()
	s := &source{}
	c := newTestCache(t, s)
	const n = 100
	for i := range n {
		s.set(fmt.Sprint(i), row{number: terse.LinkNumber(i + 1), version: 3, value: "v"})
		want(t, c, fmt.Sprint(i), "v")
	}
	deleted := map[terse.LinkNumber]uint64{}
	for i := range n {
		if i%2 == 0 {
			s.with(func() { delete(s.rows, fmt.Sprint(i)) })
			deleted[terse.LinkNumber(i+1)] = 3
		}
	}
	loads := s.count()
	c.Forget(deleted)
	for i := range n {
		if i%2 == 0 {
			wantErr(t, c, fmt.Sprint(i), terse.ErrNotFound)
		} else {
			want(t, c, fmt.Sprint(i), "v")
		}
	}
	if got := s.count() - loads; got != n/2 {
		t.Errorf("%d loads, want %d: only what was deleted is read again", got, n/2)
	}

	// A load that has read the link before it was deleted.
	s.set("late", row{number: 1000, version: 1, value: "old"})
	read, proceed := make(chan struct{}), make(chan struct{})
	s.with(func() {
		s.slow = func(context.Context) { close(read); <-proceed }
	})
	got := make(chan error)
	go func() { _, err := look(c, "late"); got <- err }()
	<-read
	s.with(func() { s.slow = nil; delete(s.rows, "late") })
	c.Forget(map[terse.LinkNumber]uint64{1000: 1})
	close(proceed)
	if err := <-got; terse.ErrorCode(err) != terse.CodeNotFound {
		t.Errorf("a load that began before: %v", err)
	}
}

// TestDoubt: everything is read again on its next use, serves while the store is away, and nothing counts as absent.
func TestDoubt(t *testing.T) {
	t.Parallel()
	s := &source{}
	c := newTestCache(t, s)
	s.set("a", row{number: 1, version: 1, value: "old"})
	s.set("b", row{number: 2, version: 1, value: "old"})
	want(t, c, "a", "old")
	want(t, c, "b", "old")
	wantErr(t, c, "new", terse.ErrNotFound)
	s.set("a", row{number: 1, version: 2, value: "new"})
	s.set("new", row{number: 3, version: 1, value: "new"})
	c.Doubt()
	s.with(func() { s.err = terse.ErrUnavailable })
	want(t, c, "a", "old") // better than nothing
	wantErr(t, c, "new", terse.ErrUnavailable)
	s.with(func() { s.err = nil })
	c.Doubt()
	c.answered(true)
	want(t, c, "a", "new")
	want(t, c, "b", "old")
	want(t, c, "new", "new")
}
