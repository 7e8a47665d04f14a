package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/terselink/terse/internal/code"
	"github.com/terselink/terse/internal/store/pgstore"
)

const (
	leaseChildEnv = "TERSE_E2E_LEASE_CHILD" // the address of the database: this process is one of those that lease
	leaseLength   = 7
)

// leasePermutation is the one that all processes share, as nodes share that of a domain.
func leasePermutation() (*code.Permutation, error) {
	alphabet, err := code.Lookup("base62")
	if err != nil {
		return nil, err
	}
	return code.NewPermutation(bytes.Repeat([]byte{7}, 32), alphabet, leaseLength)
}

// leaseChild issues codes from leases of a database, in batches of random size, and writes them to standard output
// until nobody reads them.
func leaseChild(ctx context.Context, url string) error {
	store, err := pgstore.Open(ctx, pgstore.Options{URL: url, MaxConns: 4})
	if err != nil {
		return err
	}
	p, err := leasePermutation()
	if err != nil {
		return errors.Join(err, store.Close())
	}
	a := code.NewAllocator(store, 1, leaseLength, 0, p, code.AllocatorOptions{})
	var indexes []uint64
	var codes []byte
	for {
		if indexes, codes, err = a.Issue(ctx, 1+rand.IntN(5000), indexes[:0], codes[:0]); err != nil {
			break
		}
		if _, err = os.Stdout.Write(codes); err != nil {
			break
		}
	}
	a.Close()
	return errors.Join(err, store.Close())
}

// leaseProcess is a child and what it writes.
type leaseProcess struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

func startLeaseProcess(t *testing.T, url string) *leaseProcess {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &leaseProcess{cmd: exec.Command(exe)}
	p.cmd.Env = append(os.Environ(), leaseChildEnv+"="+url)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReaderSize(out, 1<<20)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// kill ends the process in the middle of whatever it does.
func (p *leaseProcess) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // killed, or ended because nobody reads
}

// TestLeaseProcesses: of the codes that processes issue from one database, while they are killed and started again, none
// is issued twice. TERSE_LEASE_CODES and TERSE_LEASE_PROCESSES make it larger; make leases does.
func TestLeaseProcesses(t *testing.T) {
	url := newDatabase(t)
	number := func(name string, otherwise int) int {
		n, err := strconv.Atoi(os.Getenv(name))
		if err != nil {
			return otherwise
		}
		return n
	}
	want, processes := number("TERSE_LEASE_CODES", 200_000), number("TERSE_LEASE_PROCESSES", 4)
	perm, err := leasePermutation()
	if err != nil {
		t.Fatal(err)
	}
	all := make([]*leaseProcess, processes)
	for i := range all {
		all[i] = startLeaseProcess(t, url)
	}
	defer func() {
		for _, p := range all {
			p.kill()
		}
	}()
	const (
		turn  = 1000 // codes that are read from one process before the next has its turn
		every = 24   // a kill after about so many turns of the process
	)
	seen := map[uint64]*[1024]uint64{} // bits, by index
	got, twice, kills, top := 0, 0, 0, uint64(0)
	buf := make([]byte, leaseLength)
	for got < want {
		for i, p := range all {
			for range turn {
				if _, err := io.ReadFull(p.out, buf); err != nil {
					t.Fatalf("process %d ended by itself: %v", i, err)
				}
				x, ok := perm.Index(buf)
				if !ok {
					t.Fatalf("%q is no code", buf)
				}
				page := seen[x>>16]
				if page == nil {
					page = new([1024]uint64)
					seen[x>>16] = page
				}
				if word, bit := &page[x>>6&1023], uint64(1)<<(x&63); *word&bit != 0 {
					twice++
				} else {
					*word |= bit
				}
				top = max(top, x)
				got++
			}
			if rand.IntN(every) == 0 {
				p.kill()
				kills++
				all[i] = startLeaseProcess(t, url)
			}
		}
	}
	t.Logf("%d codes of %d processes, %d kills: %d issued twice; the highest index is %d", got, processes, kills, twice, top)
	if twice != 0 {
		t.Errorf("%d codes were issued twice", twice)
	}
}

// leaseMain runs a child in place of the tests.
func leaseMain(url string) int {
	if err := leaseChild(context.Background(), url); err != nil {
		fmt.Fprintln(os.Stderr, "lease:", err)
		return 1
	}
	return 0
}
