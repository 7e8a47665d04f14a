package clicks

import (
	"bufio"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"
)

const (
	killEnv    = "TERSE_TEST_KILL_DIR"
	flushEvery = 512 // clicks
)

// TestKillChild is not a test: it is the process that TestKill kills. It tells
// each click it has captured on standard output.
func TestKillChild(t *testing.T) {
	dir := os.Getenv(killEnv)
	if dir == "" {
		t.Skip("run by TestKill")
	}
	o := testOptions(t, nil)
	o.Dir, o.Clock = dir, time.Now
	r, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	c := makeClicks(1, 1)[0]
	var line [16]byte
	for i := uint64(1); ; i++ {
		now := time.Now()
		c.Link, c.At = 0, 0
		c.Code = binary.BigEndian.AppendUint64(c.Code[:0], i)
		if !r.Capture(uint32(i), &c) {
			t.Fatal("dropped")
		}
		binary.BigEndian.PutUint64(line[:], i)
		binary.BigEndian.PutUint64(line[8:], uint64(now.UnixMicro()))
		if _, err := os.Stdout.Write(line[:]); err != nil {
			return
		}
		if i%16 == 0 {
			time.Sleep(time.Millisecond)
		}
		if i%flushEvery == 0 {
			if err := r.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			binary.BigEndian.PutUint64(line[:], 0) // what was told so far is written
			if _, err := os.Stdout.Write(line[:]); err != nil {
				return
			}
		}
	}
}

// TestKill kills a recording process with SIGKILL: of the clicks it has told, only those of the last moments may be missing,
// never one that it has flushed, and nothing is there twice. How long a moment is depends on the machine:
// make crash-clicks says it of one that has nothing else to do.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("kills 20 processes")
	}
	dir := t.TempDir()
	var worst time.Duration
	pos := Position{}
	for round := range 20 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKillChild$")
		cmd.Env = append(os.Environ(), killEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		told := map[uint64]int64{}
		in := bufio.NewReader(out)
		var timer *time.Timer
		var line [16]byte
		var last int64
		flushed := uint64(0) // up to this click
		for {
			if _, err := io.ReadFull(in, line[:]); err != nil {
				break
			}
			if timer == nil { // it has begun
				timer = time.AfterFunc(time.Duration(20+round*7)*time.Millisecond, func() { _ = cmd.Process.Kill() })
			}
			last = int64(binary.BigEndian.Uint64(line[8:]))
			if i := binary.BigEndian.Uint64(line[:]); i > 0 {
				told[i] = last
			} else {
				flushed = uint64(len(told))
			}
		}
		if timer == nil {
			t.Fatal("the child told nothing")
		}
		timer.Stop()
		_ = cmd.Wait() // killed
		rd, err := OpenReader(dir, pos)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[uint64]bool{}
		for _, g := range drain(t, rd) {
			i := binary.BigEndian.Uint64(g.Code)
			if seen[i] {
				t.Fatalf("click %d twice", i)
			}
			seen[i] = true
		}
		pos = rd.Position()
		_ = rd.Close()
		for i, at := range told {
			if !seen[i] {
				worst = max(worst, time.Duration(last-at)*time.Microsecond)
			}
			if !seen[i] && i <= flushed {
				t.Errorf("click %d of %d that were flushed is lost", i, flushed)
			}
		}
	}
	t.Logf("oldest lost click was captured %v before the kill", worst)
}
