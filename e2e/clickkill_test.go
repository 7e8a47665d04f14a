package e2e

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/sleep"
)

const (
	// diskWait is how long a redirect waits for its click to be synced with clicks.durability=batch. An answer that took
	// longer may have come without.
	diskWait = 250 * time.Millisecond
	// stalled is how long a click may have been answered before a kill and be lost in the long runs of make crash-clicks, whose
	// machine has nothing else to do. Where the server gets a processor in time, clicksBound holds.
	stalled = 500 * time.Millisecond
)

// killCount is how often the tests of this file kill: TERSE_CLICK_KILLS (make crash-clicks: 200), else few.
func killCount(t *testing.T, few int) int {
	v := os.Getenv("TERSE_CLICK_KILLS")
	if v == "" {
		return few
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("TERSE_CLICK_KILLS: %q is no number of kills", v)
	}
	return n
}

// fixedAddrs returns options with addresses that stay: clients keep knocking while the server is down.
func fixedAddrs(t *testing.T, env ...string) proc.Options {
	t.Helper()
	o := proc.Options{Data: filepath.Join(t.TempDir(), "data"), Env: append(slices.Clone(quick), env...)}
	var err error
	if o.RedirectAddr, err = proc.FreeAddr(); err != nil {
		t.Fatal(err)
	}
	if o.ControlAddr, err = proc.FreeAddr(); err != nil {
		t.Fatal(err)
	}
	return o
}

// makeLinks makes n links and returns their paths.
func makeLinks(t *testing.T, s *proc.Server, n int) (paths []string) {
	t.Helper()
	c := newClient(t, s)
	for i := range n {
		l, err := c.CreateLink(t.Context(), client.NewLink{Destination: "https://shop.example.com/click/" + strconv.Itoa(i)})
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, pathOf(l.ShortURL))
	}
	return paths
}

// TestClickKills kills the whole server at random moments while visitors click. No click is counted twice. With
// durability interval those of the last 10 ms may be missing, with batch none that was answered after its fsync.
func TestClickKills(t *testing.T) {
	for _, durability := range []string{"interval", "batch"} {
		t.Run(durability, func(t *testing.T) {
			kills := killCount(t, 8)
			o := fixedAddrs(t, "TERSE_CLICKS_DURABILITY="+durability)
			s := start(t, o)
			paths := makeLinks(t, s, 4)
			var book clickBook
			for n := range kills {
				ctx, cancel := context.WithCancel(t.Context())
				from, children := book.size(), proc.Children(s.PID())
				crowd := book.crowd(ctx, s, paths, 6, 500*time.Microsecond)
				until(t, 3*time.Minute, "there is a load", func() bool { return book.answers(from) >= 2 })
				_ = sleep.For(t.Context(), time.Duration(rand.IntN(450))*time.Millisecond)
				at := time.Now()
				if err := s.Kill(); err != nil {
					t.Fatalf("kill %d: %v\n%s", n, err, s.Log())
				}
				cancel()
				crowd.Wait()
				book.killed(from, at)
				for _, pid := range children {
					until(t, 3*time.Minute, "the child of the killed server ends", func() bool { return !proc.Alive(pid) })
				}
				s = start(t, o)
			}
			book.served(t)
			book.readRecord(t, s)
			v := book.judge(diskWait)
			t.Logf("%d kills: %v", kills, v)
			for _, f := range book.faults {
				t.Error(f)
			}
			if v.twice > 0 || v.stray > 0 || v.answered < 2*kills {
				t.Errorf("%+v: want no click twice, none lost without a kill, and a load", v)
			}
			if durability == "batch" && v.prompt > 0 {
				t.Errorf("%d clicks are lost whose redirects waited for the disk", v.prompt)
			}
			if os.Getenv("TERSE_CLICK_KILLS") != "" && v.oldest > stalled {
				t.Errorf("a click is lost that was answered %v before the kill", v.oldest)
			}
		})
	}
}

// TestAnalyticsKills kills the analytics process at random moments, while it opens its file, counts, or classes sweeps
// again, while visitors click. No click is lost and none counted twice.
func TestAnalyticsKills(t *testing.T) {
	kills := killCount(t, 6)
	o := fixedAddrs(t)
	s := start(t, o)
	paths := makeLinks(t, s, 8) // more than analytics.sweep_links: everything is a sweep, and classed again
	var book clickBook
	// A process that ends often is started later and later: every few kills the server begins again.
	for n := 0; n < kills; {
		ctx, cancel := context.WithCancel(t.Context())
		crowd := book.crowd(ctx, s, paths, 4, 2*time.Millisecond)
		for range min(5, kills-n) {
			pid := 0
			until(t, 3*time.Minute, "an analytics process is killed", func() bool {
				for _, pid = range proc.Children(s.PID()) {
					if proc.Alive(pid) {
						_ = sleep.For(t.Context(), time.Duration(rand.IntN(700))*time.Millisecond)
						// One that does not answer on a busy machine is ended by its server.
						return proc.KillChild(s.PID(), pid) == nil
					}
				}
				return false
			})
			until(t, 3*time.Minute, "the analytics process ends", func() bool { return !proc.Alive(pid) })
			until(t, 3*time.Minute, "there is a load", func() bool { return book.answers(0) >= 2*(n+1) })
			n++
		}
		cancel()
		crowd.Wait()
		if n < kills {
			if err := s.Stop(); err != nil {
				t.Fatal(err)
			}
			s = start(t, o)
		}
	}
	book.served(t)
	book.readRecord(t, s)
	v := book.judge(0)
	t.Logf("%d kills: %v", kills, v)
	for _, f := range book.faults {
		t.Error(f)
	}
	if v.lost > 0 || v.twice > 0 || v.answered < 2*kills {
		t.Errorf("%+v: want no click lost and none twice, and a load", v)
	}
}
