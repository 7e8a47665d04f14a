package pebblestore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/terselink/terse"
)

// faultEnv marks the child process of a fault test. A store that has failed leaves goroutines
// of Pebble parked until the process ends, so these tests end theirs; and a panic
// or an exit that the store should have caught shows as a failed child.
const faultEnv = "TERSE_PEBBLESTORE_FAULT_TEST"

// inChild runs the test that calls it in a child process and reports whether this is the child.
func inChild(t *testing.T) bool {
	t.Helper()
	if os.Getenv(faultEnv) != "" {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v=true"}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), faultEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("child: %v\n%s", err, out)
	}
	return false
}

// within fails if f takes long: a call on a failing disk must not hang.
func within(what string, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(2 * time.Minute):
		return fmt.Errorf("%s hangs", what)
	}
}

// TestNthFault makes the first operation on the file system fail, then the second, and so on until
// the work is done without a fault. Every call ends with a clean error, and the next start finds all that
// was acknowledged.
func TestNthFault(t *testing.T) {
	t.Parallel()
	if !inChild(t) {
		return
	}
	step := int32(1)
	if testing.Short() {
		step = 7
	}
	if raceEnabled {
		step = 29
	}
	failed, n := 0, int32(0)
	for ; ; n += step {
		injected, bad, err := faultAt(n)
		if err != nil {
			t.Fatalf("fault at operation %d: %v", n, err)
		}
		if bad {
			failed++
		}
		if !injected {
			break
		}
	}
	t.Logf("%d operations, %d faults ended the store", n, failed)
	if n < 100 || failed == 0 {
		t.Errorf("the work had %d operations, and %d faults ended the store: too few to mean anything", n, failed)
	}
}

func faultAt(n int32) (injected, failed bool, err error) {
	ctx := context.Background()
	mem := vfs.NewCrashableMem()
	inj := &errorfs.Counter{Injector: errorfs.OnIndex(n)}
	l := newLedger()
	var s *Store
	err = within("Open", func() (err error) {
		s, err = Open("store", memOptions(errorfs.Wrap(mem, inj)))
		return err
	})
	switch {
	case err == nil:
		if err := faultyWork(ctx, s, l); err != nil {
			return true, false, err
		}
		failed = s.Err() != nil
		if err := within("Close", s.Close); err != nil && inj.Load() == 0 {
			return false, false, err
		}
	case !errors.Is(err, terse.ErrUnavailable) && terse.ErrorCode(err) != terse.CodeInternal:
		return true, false, fmt.Errorf("open: not a clean error: %w", err)
	}
	for _, percent := range []int{0, 100} {
		clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(n), 2))})
		s, err := Open("store", memOptions(clone))
		if err != nil {
			return true, failed, fmt.Errorf("next start: %w", err)
		}
		if err := l.clone().check(ctx, s); err != nil { // nobody writes any more
			return true, failed, err
		}
		if err := s.Close(); err != nil {
			return true, failed, err
		}
	}
	return inj.Load() > 0, failed, nil
}

// faultyWork writes until it is done or the store has failed.
func faultyWork(ctx context.Context, s *Store, l *ledger) error {
	w := &writer{r: rand.New(rand.NewPCG(1, 1)), s: s, l: l}
	for i := range 40 {
		err := within("a call", func() error { return w.step(ctx) })
		switch {
		case err == nil:
		case errors.Is(err, terse.ErrUnknownOutcome):
			return nil // this writer does not know where it stands
		case errors.Is(err, terse.ErrUnavailable):
		default:
			return fmt.Errorf("step %d: not a clean error: %w", i, err)
		}
		if i%10 == 9 && s.Err() == nil {
			// A flush, and with it a compaction. Its faults show in the background, if at all: Pebble
			// tries again, or parks with the locks that AsyncFlush waits for.
			done := make(chan struct{})
			go func() {
				if flushed, err := s.db.AsyncFlush(); err == nil {
					<-flushed
				}
				close(done)
			}()
			select {
			case <-done:
			case <-s.Failed():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}

// TestFailedSync checks what a failed sync of the write-ahead log leads to.
func TestFailedSync(t *testing.T) {
	t.Parallel()
	if !inChild(t) {
		return
	}
	ctx := context.Background()
	toggle := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
			if strings.HasSuffix(op.Path, ".log") {
				return errorfs.ErrInjected
			}
		}
		return nil
	})}
	s, err := Open("store", memOptions(errorfs.Wrap(vfs.NewMem(), toggle)))
	if err != nil {
		t.Fatal(err)
	}
	kept := testLink(0)
	mustInsert(t, s, kept)
	select {
	case <-s.Failed():
		t.Fatal("failed before the fault")
	default:
	}
	toggle.On()
	if err := s.InsertLinks(ctx, &terse.Chunk{Links: testLinks(1, 1)}); !errors.Is(err, terse.ErrUnknownOutcome) {
		t.Errorf("insert at the failing sync: got error %v, want unknown outcome", err)
	}
	<-s.Failed()
	toggle.Off() // it never recovers by itself
	if !errors.Is(s.Err(), errorfs.ErrInjected) {
		t.Errorf("Err is %v, want the cause", s.Err())
	}
	for what, err := range map[string]error{
		"InsertLinks": s.InsertLinks(ctx, &terse.Chunk{Links: testLinks(2, 1)}),
		"PutDocument": s.PutDocument(ctx, terse.Document{Kind: terse.KindJob, ID: "x", Version: 1}),
		"DeleteLink":  s.DeleteLink(ctx, terse.LinkKey{Number: kept.Number}, 0),
		"Ping":        s.Ping(ctx),
		"Checkpoint":  s.Checkpoint("copy"),
	} {
		if !errors.Is(err, terse.ErrUnavailable) {
			t.Errorf("%s: got error %v, want unavailable", what, err)
		}
	}
	if _, err := s.Lease(ctx, terse.LeaseRequest{Domain: 1, Space: 7, Count: 1}); !errors.Is(err, terse.ErrUnavailable) {
		t.Errorf("Lease: got error %v, want unavailable", err)
	}
	wantLinks(t, s, kept) // redirects go on
	if err := within("Close", s.Close); !errors.Is(err, terse.ErrUnavailable) {
		t.Errorf("Close: got error %v, want unavailable", err)
	}
}
