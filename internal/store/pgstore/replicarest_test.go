package pgstore

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse"
)

// resting is a replica without a server that is usable at base, and what is logged of it.
func resting(t *testing.T) (r *Replica, base time.Time, log *bytes.Buffer) {
	t.Helper()
	log = &bytes.Buffer{}
	s := &Store{o: Options{Log: slog.New(slog.NewTextHandler(log, nil)), CallTimeout: time.Minute}}
	base = time.Now()
	r = newReplica(s, nil, nil, base.Add(-time.Second))
	r.has = base
	return r, base, log
}

// rest lets two reads one after the other miss, and returns when the rest ends.
func (r *Replica) rest(t *testing.T, base time.Time) time.Time {
	t.Helper()
	for i := range maxMisses {
		began := base.Add(time.Duration(i) * maxReplicaRead)
		r.answered(false, false, began, began.Add(maxReplicaRead))
	}
	end := base.Add(maxMisses*maxReplicaRead + replicaRest)
	if !r.restUntil.Equal(end) {
		t.Fatalf("after %d misses it rests until %v, want %v", maxMisses, r.restUntil.Sub(base), end.Sub(base))
	}
	r.has = end // the rest is as long as maxLag
	return end
}

// TestHiccup: one hiccup is one miss, however many reads it meets.
func TestHiccup(t *testing.T) {
	r, base, log := resting(t)
	for i := range 50 {
		after := time.Duration(i) * time.Millisecond
		r.answered(false, false, base.Add(after), base.Add(maxReplicaRead+after))
	}
	if !r.usable(base) {
		t.Fatal("50 reads at one time let it rest")
	}
	if may, trial := r.ask(base); !may || trial {
		t.Errorf("after a hiccup it may be asked: %t, as a trial: %t", may, trial)
	}
	r.answered(true, false, base.Add(2*maxReplicaRead), base.Add(2*maxReplicaRead))
	r.answered(false, false, base.Add(3*maxReplicaRead), base.Add(4*maxReplicaRead))
	if !r.usable(base) {
		t.Error("an answer between two hiccups does not count")
	}
	r.answered(false, false, base.Add(4*maxReplicaRead), base.Add(5*maxReplicaRead))
	if r.usable(base) {
		t.Error("two reads one after the other were not answered, and it does not rest")
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines of log, want 1:\n%s", n, log)
	}
}

// TestRest: what reads from before a rest find out does not end or lengthen it; the trial does.
func TestRest(t *testing.T) {
	r, base, log := resting(t)
	end := r.rest(t, base)
	for range 10 {
		r.answered(true, false, base, end.Add(-replicaRest))
		r.answered(false, false, base, end.Add(-replicaRest+time.Second))
	}
	if !r.restUntil.Equal(end) {
		t.Fatalf("reads from before the rest move its end by %v", r.restUntil.Sub(end))
	}
	if may, _ := r.ask(end.Add(-1)); may {
		t.Error("it is asked while it rests")
	}
	if may, trial := r.ask(end); !may || !trial {
		t.Fatalf("after the rest: asked %t, trial %t", may, trial)
	}
	if may, _ := r.ask(end); may {
		t.Error("a second read asks while the trial waits")
	}
	missed := end.Add(maxReplicaRead)
	r.answered(false, true, end, missed)
	if want := missed.Add(replicaRest); !r.restUntil.Equal(want) {
		t.Fatalf("after a trial in vain it rests %v too long", r.restUntil.Sub(want))
	}
	again := r.restUntil
	r.has = again
	if may, trial := r.ask(again); !may || !trial {
		t.Fatalf("after the second rest: asked %t, trial %t", may, trial)
	}
	r.answered(true, true, again, again)
	if may, trial := r.ask(again); !may || trial {
		t.Errorf("after a trial that was answered: asked %t, trial %t", may, trial)
	}
	if n := strings.Count(log.String(), "\n"); n != 2 {
		t.Errorf("%d lines of log, want that the rest begins and that it ends:\n%s", n, log)
	}
}

// TestTrialWithoutVerdict: a trial whose caller leaves, or had left before, is the next read's.
func TestTrialWithoutVerdict(t *testing.T) {
	r, base, _ := resting(t)
	r.rest(t, base)
	tried := 0
	try := func(ctx context.Context, leave context.CancelFunc) bool {
		r.has, r.restUntil = time.Now(), time.Now()
		was := r.restUntil
		counts := r.read(ctx, "get links", func(context.Context) (bool, error) {
			tried++
			leave()
			return true, nil
		})
		if !counts && r.restUntil.Sub(was) > replicaRest/2 {
			t.Errorf("after %d tries the replica rests for another %v", tried, r.restUntil.Sub(was))
		}
		return counts
	}
	ctx, leave := context.WithCancel(t.Context())
	if try(ctx, leave) || tried != 1 {
		t.Errorf("a caller who leaves: %d tries", tried)
	}
	if try(ctx, leave) || tried != 1 {
		t.Errorf("a caller who had left: %d tries", tried)
	}
	if !try(t.Context(), func() {}) || tried != 2 {
		t.Errorf("a caller who stays: %d tries", tried)
	}
	if !r.usable(time.Now()) {
		t.Error("a trial that was answered does not end the rest")
	}
	r.rest(t, time.Now().Add(-time.Hour))
	r.has, r.restUntil = time.Now(), time.Now()
	if r.read(t.Context(), "get links", func(context.Context) (bool, error) { return false, terse.ErrUnavailable }) {
		t.Error("no answer counts")
	}
	if left := time.Until(r.restUntil); left < replicaRest/2 {
		t.Errorf("after a trial in vain it rests for %v", left)
	}
}
