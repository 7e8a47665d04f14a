package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/e2e/proc"
)

// TestStopUnderLoad stops a server in order while visitors keep it busy. Visitors act as
// a load balancer does: when an answer says Connection: close they take it and do not come back.
// None of their requests may go without an answer, and every click is counted exactly once. The pause is so long that
// each has its next answer within it on any machine.
func TestStopUnderLoad(t *testing.T) {
	s := start(t, proc.Options{Env: []string{"TERSE_REDIRECT_DRAIN_WAIT=10s"}})
	l, err := newClient(t, s).CreateLink(t.Context(), client.NewLink{Destination: "https://example.com/"})
	if err != nil {
		t.Fatal(err)
	}
	var answered, closed atomic.Int64
	var wg sync.WaitGroup
	warm := make(chan struct{})
	for range 16 {
		wg.Go(func() {
			v := newVisitor(s, "User-Agent", agentDesktop)
			defer v.close()
			for {
				status, _, err := v.visit("GET", pathOf(l.ShortURL))
				if err != nil || status != 302 {
					t.Errorf("a visitor got status %d, %v", status, err)
					return
				}
				if answered.Add(1) == 2000 {
					close(warm)
				}
				if v.resp.Close {
					closed.Add(1)
					return
				}
			}
		})
	}
	<-warm
	began := time.Now()
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	took := time.Since(began)
	wg.Wait()
	if closed.Load() != 16 {
		t.Errorf("%d of 16 visitors were told to close", closed.Load())
	}
	t.Logf("%d visits, stopped in %v", answered.Load(), took.Round(time.Millisecond))

	s = start(t, proc.Options{Data: s.Data, RedirectAddr: s.RedirectAddr, ControlAddr: s.ControlAddr, Env: quick})
	waitClicks(t, newClient(t, s), l.ID, answered.Load())
}

// TestStopByDefault stops a server that has served in order, within the time that a server has which nobody has configured.
func TestStopByDefault(t *testing.T) {
	s := start(t, proc.Options{Env: append([]string{"TERSE_SHUTDOWN_TIMEOUT="}, quick...)})
	l, err := newClient(t, s).CreateLink(t.Context(), client.NewLink{Destination: "https://example.com/"})
	if err != nil {
		t.Fatal(err)
	}
	v := newVisitor(s, "User-Agent", agentDesktop) // stays connected
	defer v.close()
	if status, _, err := v.look("GET", pathOf(l.ShortURL)); err != nil || status != 302 {
		t.Fatalf("visit: %d, %v", status, err)
	}
	if err := s.Stop(); err != nil { // a part that does not end in time is an error and makes the exit code 1
		t.Fatal(err)
	}
	if log := s.Log(); !strings.Contains(log, "stopping") || strings.Contains(log, "deadline exceeded") {
		t.Errorf("it did not end in order:\n%s", log)
	}
	s = start(t, proc.Options{Data: s.Data, RedirectAddr: s.RedirectAddr, ControlAddr: s.ControlAddr, Env: quick})
	waitClicks(t, newClient(t, s), l.ID, 1)
}

// waitClicks waits until the clicks of a link are counted, and a moment longer to see whether
// there are too many.
func waitClicks(t *testing.T, c *client.Client, id string, want int64) {
	t.Helper()
	var got int64
	var reached time.Time
	until(t, 3*time.Minute, "the clicks are counted", func() bool {
		sum, err := c.Summary(t.Context(), client.Query{LinkID: id})
		if err != nil {
			return false
		}
		if got = sum.Total; got < want {
			return false
		}
		if reached.IsZero() {
			reached = time.Now()
		}
		return got > want || time.Since(reached) > 1500*time.Millisecond
	})
	if got != want {
		t.Errorf("%d clicks are counted, %d were answered", got, want)
	}
}

// TestSecondSignal ends a server at once that is still draining.
func TestSecondSignal(t *testing.T) {
	s := start(t, proc.Options{Env: []string{"TERSE_REDIRECT_DRAIN_WAIT=5m", "TERSE_SHUTDOWN_TIMEOUT=10m"}})
	if err := s.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	v := newVisitor(s)
	defer v.close()
	until(t, 3*time.Minute, "the server says that it is not ready", func() bool {
		status, _, err := v.visit("GET", "/readyz")
		return err == nil && status == 503
	})
	if err := s.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, err := s.Wait(proc.EndWithin); err != nil || code == 0 {
		t.Errorf("exit code %d, %v", code, err)
	}
}

// TestSecondProcess proves that one data folder has one server.
func TestSecondProcess(t *testing.T) {
	s := start(t, proc.Options{Env: quick})
	second, err := proc.Start(t.Context(), proc.Options{Bin: bin, Data: s.Data})
	if err == nil {
		t.Fatal(errors.Join(errors.New("a second server runs on the same data folder"), second.Kill()))
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() <= 0 || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("the second server's end is not clear: %v", err)
	}
	if strings.Contains(err.Error(), "goroutine ") {
		t.Errorf("the second server panicked: %v", err)
	}
	// The first one is unharmed, and still the one that the command line finds.
	if out, errs, code := terse(t, s, "shorten", "https://example.com/"); code != 0 || !strings.Contains(out, s.Host) {
		t.Errorf("after that: exit %d, %s%s", code, out, errs)
	}
}

// traced reports whether a tracer holds every thread of a process.
func traced(pid, tracer int) bool {
	tasks, err := filepath.Glob("/proc/" + itoa(pid) + "/task/*/status")
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil || !strings.Contains(string(b), "TracerPid:\t"+itoa(tracer)+"\n") {
			return false
		}
	}
	return err == nil && len(tasks) > 0
}

// TestDiskFails makes every fsync of a running server fail, by strace. Nothing may be acknowledged
// from then on, links in the cache redirect until the server ends by itself, its exit code
// names the disk, and a new start has everything that was acknowledged before.
func TestDiskFails(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("SKIPPED: strace is not installed (scripts/bench-deps)")
	}
	s := start(t, proc.Options{Env: []string{"TERSE_REDIRECT_DRAIN_WAIT=5s"}})
	a := newAPI(t, s)
	create := func(destination string) (madeLink, *answer, error) {
		var l madeLink
		got, err := a.json(t.Context(), "POST", "/api/v1/links", newLink{Destination: destination}, &l)
		return l, got, err
	}
	cached, got, err := create("https://example.com/cached")
	if err != nil || got.status != 201 {
		t.Fatalf("create: %v, %+v", err, got)
	}
	v := newVisitor(s)
	defer v.close()
	visit := func() error {
		status, location, err := v.visit("GET", pathOf(cached.ShortURL))
		if err == nil && (status != 302 || location != "https://example.com/cached") {
			t.Errorf("the cached link answers %d to %q", status, location)
		}
		return err
	}
	if err := visit(); err != nil {
		t.Fatal(err)
	}

	log := filepath.Join(t.TempDir(), "strace.log")
	inject := exec.Command(strace, "-f", "-q", "-o", log, "-p", itoa(s.PID()), "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO")
	var complaint strings.Builder
	inject.Stderr = &complaint
	if err := inject.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = inject.Wait() // it ends with the server
		close(ended)
	}()
	t.Cleanup(func() {
		_ = inject.Process.Kill() // it may have ended
		<-ended
	})
	until(t, 3*time.Minute, "strace holds the server: "+complaint.String(), func() bool {
		select {
		case <-ended:
			t.Skipf("SKIPPED: strace cannot attach here: %s", complaint.String())
		default:
		}
		return traced(s.PID(), inject.Process.Pid)
	})

	_, got, err = create("https://example.com/never")
	if err == nil && got.status < 500 {
		t.Errorf("a creation was answered with %d after its fsync had failed: %s", got.status, got.body)
	}
	if err == nil && (got.status != 503 || got.header.Get("Retry-After") == "" || got.header.Get("Content-Type") != "application/problem+json") {
		t.Errorf("the refusal is %d, %v, %s; want 503 with Retry-After", got.status, got.header, got.body)
	}
	// Until the end, no visitor sees anything but the redirect.
	after := 0
	for visit() == nil {
		after++
		if v.resp.Close {
			break
		}
	}
	if after == 0 {
		t.Error("the cached link stopped redirecting with the disk")
	}
	code, err := s.Wait(proc.EndWithin)
	if err != nil || code != 74 {
		t.Errorf("exit code %d, want 74: %v", code, err)
	}
	if b, err := os.ReadFile(log); err != nil || !strings.Contains(string(b), "EIO") {
		t.Errorf("no fsync failed: %v, %s", err, b)
	}

	s = start(t, proc.Options{Data: s.Data, RedirectAddr: s.RedirectAddr, ControlAddr: s.ControlAddr, Env: quick})
	v.close()
	if err := visit(); err != nil {
		t.Errorf("after a new start: %v", err)
	}
}
