package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	core "github.com/terselink/terse"
	"github.com/terselink/terse/internal/fence"
	"github.com/terselink/terse/internal/store/pgstore"
)

const (
	fenceChildEnv = "TERSE_E2E_FENCE_CHILD" // the address of the database: this process is one of those that want a lock
	fenceLease    = 3 * time.Second
)

// fenceChild wants a lock until it is killed. While it has it, it writes documents whose names begin with the token, as
// fast as it can, and says so: "token N" for the lock and "." for every document. On SIGUSR1 it stops between two of them,
// as one that the machine does not run for a while.
func fenceChild(ctx context.Context, url string) error {
	// A renewal may be in the middle of a transaction when the process stops: so long the database waits for it.
	store, err := pgstore.Open(ctx, pgstore.Options{URL: url, MaxConns: 4, CallTimeout: 5 * time.Second})
	if err != nil {
		return err
	}
	pauses := make(chan os.Signal, 1)
	signal.Notify(pauses, syscall.SIGUSR1)
	k := fence.New(fence.Options{Store: store, Holder: strconv.Itoa(os.Getpid()), Lease: fenceLease})
	k.Run(ctx, "e2e", func(_ context.Context, h *fence.Held) {
		token := h.Token()
		if _, err = fmt.Println("token", token); err != nil {
			return
		}
		// It does not look at the context: who was paused goes on as if nothing had happened, until a write is refused.
		for n := 0; ; n++ {
			doc := core.Document{Kind: core.KindMeta, ID: fmt.Sprintf("fenced/%d/%d/%d", token, os.Getpid(), n), Version: 1, Data: []byte("1")}
			if err := h.Write(ctx, &core.Chunk{Documents: []core.Document{doc}}); errors.Is(err, fence.ErrLost) {
				return
			} else if err != nil {
				continue
			}
			if _, err = fmt.Println("."); err != nil {
				return
			}
			select {
			case <-pauses:
				if err = syscall.Kill(os.Getpid(), syscall.SIGSTOP); err != nil {
					return
				}
			default:
			}
		}
	})
	return errors.Join(err, store.Close())
}

// fenceProcess is a child; said has what it says.
type fenceProcess struct {
	cmd  *exec.Cmd
	said chan string
}

func startFenceProcess(t *testing.T, url string) *fenceProcess {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &fenceProcess{cmd: exec.Command(exe), said: make(chan string, 1<<20)}
	p.cmd.Env = append(os.Environ(), fenceChildEnv+"="+url)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.said)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.said <- lines.Text()
		}
	}()
	return p
}

func (p *fenceProcess) kill() {
	_ = p.cmd.Process.Kill()
	for range p.said { // until the pipe ends, which Wait would cut
	}
	_ = p.cmd.Wait() // killed
}

// TestFenceProcesses: of processes that want one lock, and are killed and paused while they write under it, none writes
// anything after the next holder has written.
func TestFenceProcesses(t *testing.T) {
	waits(t)
	url := newDatabase(t)
	all := make([]*fenceProcess, 3)
	for i := range all {
		all[i] = startFenceProcess(t, url)
	}
	var paused *fenceProcess
	defer func() {
		for _, p := range all {
			p.kill()
		}
	}()
	const (
		turns  = 4
		writes = 30 // of a holder before it is interrupted
	)
	// Whoever says a larger token is the next holder; on a busy machine one may lose the lock without our doing.
	newest, holder, n := uint64(0), -1, 0
	listen := func() {
		for i, p := range all {
			for more := p != paused; more; {
				select {
				case line, ok := <-p.said:
					if !ok {
						t.Fatalf("process %d ended by itself", i)
					}
					token, err := strconv.ParseUint(strings.TrimPrefix(line, "token "), 10, 64)
					switch {
					case err == nil && token > newest:
						holder, newest, n = i, token, 0
					case err != nil && i == holder:
						n++
					}
				default:
					more = false
				}
			}
		}
	}
	for turn := range turns {
		before := newest
		until(t, 5*time.Minute, "the next process has the lock and writes", func() bool {
			listen()
			return newest > before && n >= writes
		})
		if paused != nil { // it wakes up and believes that it has the lock
			if err := paused.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			paused = nil
		}
		if turn%2 == 1 {
			paused = all[holder]
			if err := paused.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
				t.Fatal(err)
			}
			continue
		}
		all[holder].kill()
		all[holder] = startFenceProcess(t, url)
	}
	for _, p := range all {
		p.kill()
	}
	store, err := pgstore.Open(t.Context(), pgstore.Options{URL: url, MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	// The feed has every write in the order in which they were applied.
	began, seq, last, count, holders := time.Now(), uint64(0), uint64(0), 0, 0
	for {
		changes, err := store.Changes(t.Context(), seq, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(changes) == 0 {
			// A transaction of a killed process may hold up the feed for a moment.
			if holders >= turns || time.Since(began) > 3*time.Minute {
				break
			}
			<-time.After(50 * time.Millisecond)
		}
		for _, c := range changes {
			seq = c.Seq
			name, ok := strings.CutPrefix(c.DocID, "fenced/")
			if !ok {
				continue
			}
			count++
			token, err := strconv.ParseUint(strings.Split(name, "/")[0], 10, 64)
			if err != nil {
				t.Fatalf("document %q", c.DocID)
			}
			if token < last {
				t.Fatalf("token %d wrote after token %d had", token, last)
			}
			if token > last {
				last = token
				holders++
			}
		}
	}
	t.Logf("%d writes of %d holders", count, holders)
	if holders < turns || count < turns*writes/2 {
		t.Errorf("only %d writes of %d holders", count, holders)
	}
}

// fenceMain runs a child in place of the tests.
func fenceMain(url string) int {
	if err := fenceChild(context.Background(), url); err != nil {
		fmt.Fprintln(os.Stderr, "fence:", err)
		return 1
	}
	return 0
}
