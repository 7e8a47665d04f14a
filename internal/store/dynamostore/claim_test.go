package dynamostore_test

import (
	"testing"
	"time"

	"github.com/terselink/terse"
)

// TestClaim: one node has the table; another gets it when that one stops, a restart at once, and one that
// died is succeeded by who waits.
func TestClaim(t *testing.T) {
	t.Parallel()
	o := newTable(t)
	first, second := open(t, o), open(t, o)
	if err := first.Claim(t.Context(), "first", 0); err != nil {
		t.Fatal(err)
	}
	if err := second.Claim(t.Context(), "second", 0); terse.ErrorCode(err) != terse.CodeConflict {
		t.Fatalf("a second node claims the table: %v", err)
	}
	again := open(t, o)
	if err := again.Claim(t.Context(), "first", 0); err != nil {
		t.Fatalf("a restart of the owner: %v", err)
	}
	select {
	case <-first.Lost(): // the restart is another process
	case <-time.After(2 * time.Minute):
		t.Fatal("a process that was succeeded does not know it")
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if err := second.Claim(t.Context(), "second", 0); err != nil {
		t.Fatalf("after a clean stop: %v", err)
	}
	select {
	case <-second.Lost():
		t.Fatal("the owner has lost the table")
	default:
	}
}

func TestClaimOfTheDead(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for a heartbeat to stand still for twelve seconds")
	}
	o := newTable(t)
	dead, heir := dying(t, o, 1<<40), open(t, o)
	if err := dead.Claim(t.Context(), "dead", 0); err != nil {
		t.Fatal(err)
	}
	kill(dead)
	if err := heir.Claim(t.Context(), "heir", 3*time.Minute); err != nil {
		t.Fatal(err)
	}
}
