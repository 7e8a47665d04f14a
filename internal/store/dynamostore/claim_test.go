package dynamostore_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/dynamostore"
)

// patience is for the table of a busy machine, where the time that a node has for giving its claim back may not be enough.
const patience = 3 * time.Minute

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
	again.ReleaseFor(patience)
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
	// Without waiting: a claim that was not given back would lapse, too.
	if err := second.Claim(t.Context(), "second", 0); err != nil {
		t.Fatalf("after a clean stop: %v", err)
	}
	select {
	case <-second.Lost():
		t.Fatal("the owner has lost the table")
	default:
	}
}

// heldBeat holds back the first beat of a claim after it is armed, as a network does that delivers a request after
// its sender has gone.
type heldBeat struct {
	next  http.RoundTripper
	armed atomic.Bool
	held  chan *http.Request
}

func (h *heldBeat) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if !bytes.Contains(body, []byte("claim_beat = :n")) || !h.armed.CompareAndSwap(true, false) {
		return h.next.RoundTrip(r)
	}
	late := r.Clone(context.WithoutCancel(r.Context()))
	late.Body = io.NopCloser(bytes.NewReader(body))
	h.held <- late
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// TestClaimLateBeat: a beat that was on its way when the owner closed, and arrives after the claim was given back,
// does not take the table again.
func TestClaimLateBeat(t *testing.T) {
	t.Parallel()
	o := newTable(t)
	h := &heldBeat{held: make(chan *http.Request, 1)}
	slow := o
	slow.Config.HTTPClient = dynamostore.HTTPClient()
	hc := slow.Config.HTTPClient.(*http.Client)
	h.next, hc.Transport = hc.Transport, h
	t.Cleanup(h.next.(*http.Transport).CloseIdleConnections)
	first, second := open(t, slow), open(t, o)
	first.ReleaseFor(patience)
	if err := first.Claim(t.Context(), "first", 0); err != nil {
		t.Fatal(err)
	}
	h.armed.Store(true)
	late := <-h.held
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	answer, err := h.next.RoundTrip(late)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusBadRequest {
		t.Errorf("the late beat was answered with %d", answer.StatusCode)
	}
	if err := second.Claim(t.Context(), "second", 0); err != nil {
		t.Fatalf("after the late beat: %v", err)
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
