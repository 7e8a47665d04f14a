package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// tinyDisk mounts an empty file system of its own on a folder. It skips the test where that is not allowed.
func tinyDisk(t *testing.T, dir, size string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		t.Skipf("SKIPPED: a disk that gets full has to be mounted, which only root may, outside of most containers: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// fillDisk fills the disk of a folder and returns a function that makes room again.
func fillDisk(t *testing.T, dir string) (release func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for size := 1 << 20; size > 0; size /= 2 { // to the last byte
		b := make([]byte, size)
		for err = nil; err == nil; {
			_, err = f.Write(b)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("fill the disk: %v", err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// TestDiskFull lets the disk of the spool get full under clicks, twice. Redirects go on. The first time there is room
// again before the memory for clicks is full, and nothing is lost; the second time it is not, and what has no
// room is dropped and counted. Everything else is counted once.
func TestDiskFull(t *testing.T) {
	o := fixedAddrs(t, "TERSE_CLICKS_BUFFER_BYTES=1MiB", "GOMAXPROCS=2") // 8 shards of 128 KiB, 300 clicks each at the least
	spool := filepath.Join(o.Data, "spool")
	tinyDisk(t, spool, "8m")
	s := start(t, o)
	path := makeLinks(t, s, 1)[0]
	var book clickBook
	v := newVisitor(s, "User-Agent", agentDesktop)
	defer v.close()
	visit := func(n int) {
		t.Helper()
		for range n {
			n, sent := book.send(), time.Now()
			if status, _, err := v.visit("GET", path+"?utm_content=n"+strconv.Itoa(n)); err != nil || status != 302 {
				t.Fatalf("visit %d: status %d, %v", n, status, err)
			}
			book.answer(n, time.Now(), time.Since(sent))
		}
	}
	visit(100)
	until(t, 3*time.Minute, "the first clicks are written", func() bool { return clickMetricsOf(t, s).settled() })

	release := fillDisk(t, spool)
	until(t, 3*time.Minute, "a write fails", func() bool {
		visit(1)
		return clickMetricsOf(t, s).failures > 0
	})
	visit(100)
	if m := clickMetricsOf(t, s); m.lost() > 0 || m.spooled >= m.captured {
		t.Errorf("%+v: want clicks in memory, and none dropped", m)
	}
	release()
	until(t, 3*time.Minute, "clicks are written again", func() bool { return clickMetricsOf(t, s).settled() })
	if m := clickMetricsOf(t, s); m.lost() > 0 || m.captured != book.size() {
		t.Errorf("%+v after %d visits: want none dropped", m, book.size())
	}

	release = fillDisk(t, spool)
	until(t, 3*time.Minute, "the memory is full", func() bool {
		visit(100)
		return clickMetricsOf(t, s).dropped["buffer_full"] > 0
	})
	visit(300)
	release()
	until(t, 3*time.Minute, "clicks are written again", func() bool { return clickMetricsOf(t, s).settled() })
	before := clickMetricsOf(t, s)
	visit(100)
	until(t, 3*time.Minute, "clicks are written", func() bool { return clickMetricsOf(t, s).settled() })
	m := clickMetricsOf(t, s)
	if m.lost() != before.lost() || m.dropped["buffer_full"] != m.lost() || m.lost() < 300 || m.captured != book.size() {
		t.Errorf("%+v after %d visits, before the last hundred %+v: want some hundred dropped for buffer_full alone, and none since", m, book.size(), before)
	}
	book.readRecord(t, s)
	got := book.judge(0)
	t.Logf("%v; %+v", got, m)
	if got.counted != m.spooled || got.twice > 0 || got.lost != m.lost() {
		t.Errorf("%v: want %d clicks, each once, and %d lost", got, m.spooled, m.lost())
	}
	for _, f := range book.faults {
		t.Error(f)
	}
}
