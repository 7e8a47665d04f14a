package rate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"
)

// TestTable: a burst at once, then one for each interval, by client; a pause gives the burst back.
func TestTable(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	table := NewTable(100, func() time.Time { return now })
	l := Limit{PerSecond: 10, Burst: 3}
	take := func(client string, want time.Duration) {
		t.Helper()
		if got := table.Take(client, l); got != want {
			t.Errorf("%s at %v: wait %v, want %v", client, now, got, want)
		}
	}
	for range 3 {
		take("a", 0)
	}
	take("a", 100*time.Millisecond)
	take("a", 100*time.Millisecond) // a refusal costs nothing
	take("b", 0)
	now = now.Add(60 * time.Millisecond)
	take("a", 40*time.Millisecond)
	now = now.Add(40 * time.Millisecond)
	take("a", 0)
	take("a", 100*time.Millisecond)
	now = now.Add(time.Hour)
	for range 3 {
		take("a", 0)
	}
	take("a", 100*time.Millisecond)
	now = now.Add(-24 * time.Hour) // the clock was wrong
	take("a", 100*time.Millisecond)
	now = now.Add(100 * time.Millisecond)
	take("a", 0)
}

// TestTableIsBounded: a flood of clients makes no table grow, and who has to wait is forgotten last.
func TestTableIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	table := NewTable(10, func() time.Time { return now })
	l := Limit{PerSecond: 1, Burst: 2}
	for i := range 1000 {
		table.Take(fmt.Sprint(i), l)
		if len(table.free) > 10 {
			t.Fatalf("%d clients", len(table.free))
		}
	}
	now = now.Add(time.Minute)
	table.Take("a", l)
	table.Take("a", l)
	for i := range 9 { // those of a minute ago make room
		table.Take(fmt.Sprint("new", i), l)
	}
	if table.Take("a", l) == 0 {
		t.Error("a client that has to wait was forgotten before those that have not")
	}
}

// remote answers as it is told.
type remote struct {
	asked int
	wait  time.Duration
	err   error
}

func (r *remote) Take(context.Context, string, Limit) (time.Duration, error) {
	r.asked++
	return r.wait, r.err
}

// TestLimiter: what all nodes count holds while it can be asked, and the node's own count else.
func TestLimiter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	r := &remote{}
	l := NewLimiter(Limit{PerSecond: 1, Burst: 1}, r, NewTable(10, func() time.Time { return now }), slog.New(slog.DiscardHandler))
	check := func(what string, want time.Duration) {
		t.Helper()
		if got := l.Take(t.Context(), "a"); got != want {
			t.Errorf("%s: wait %v, want %v", what, got, want)
		}
	}
	check("the others allow it", 0)
	check("and again", 0)
	r.wait = time.Minute
	check("the others do not", time.Minute)
	r.err = errors.New("no answer")
	check("nobody answers", 0)
	check("nobody answers, and the node has seen one", time.Second)
	asked := r.asked
	now = now.Add(900 * time.Millisecond)
	check("nobody is asked for a second", 100*time.Millisecond)
	if r.asked != asked {
		t.Error("a count that does not answer was asked again at once")
	}
	r.err = nil
	now = now.Add(200 * time.Millisecond)
	check("it answers again", time.Minute)
	r.wait = 0
	check("and goes on to", 0)
	l.remote = nil
	check("there is nobody", 0)
	check("there is nobody, and the node has seen one", time.Second)
}
