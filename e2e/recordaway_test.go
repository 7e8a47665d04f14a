package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/bucket/buckettest"
)

// TestRecordStoreAway: the bucket of the record goes away, and days of clicks come in while the server is killed again and
// again. Nothing is dropped, no segment of the spool is given up, and every number is right meanwhile. When the bucket is back
// it gets everything, each click once: a server that lost the rest answers from it as before.
func TestRecordStoreAway(t *testing.T) {
	place := buckettest.New(t)
	b := buckettest.Open(t, place)
	proxy, through := buckettest.Behind(t, place)
	o := fixedAddrs(t)
	o.Env = recordIn(t, through)
	const seeded, live, rounds = 3000, 150, 3
	segments := func() int {
		list, _ := filepath.Glob(filepath.Join(o.Data, "spool", "*.seg"))
		return len(list)
	}
	q := client.Query{Period: "30d", By: "country", All: true, Limit: 500}
	counted := func(s *proc.Server, want int) (*client.Breakdown, bool) {
		got, err := newClient(t, s).Breakdown(t.Context(), q)
		return got, err == nil && got.Total == int64(want)
	}
	s := start(t, o) // the bucket is made this server's
	path := makeLinks(t, s, 1)[0]
	until(t, 3*time.Minute, "the bucket is claimed", func() bool { return len(buckettest.Names(t, b)) > 0 })

	proxy.Refuse()
	proxy.Drop()
	want := 0
	for round := range rounds {
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		seed := exec.CommandContext(ctx, bin, "seed", "--data", o.Data, "--links", "50", "--clicks", strconv.Itoa(seeded), "--days", "3", "--conversions", "0", "--seed", strconv.Itoa(round+1))
		seed.Env = proc.Environ()
		out, err := seed.CombinedOutput()
		cancel()
		if err != nil {
			t.Fatalf("seed: %v\n%s", err, out)
		}
		before := segments()
		s = start(t, o)
		v := newVisitor(s, "User-Agent", agentPhone)
		for range live {
			if status, _, err := v.look("GET", path); err != nil || status != 302 {
				t.Fatalf("visit: status %d, %v", status, err)
			}
		}
		v.close()
		want += seeded + live
		until(t, 3*time.Minute, "every click is counted without the bucket", func() bool { _, ok := counted(s, want); return ok })
		if m := clickMetricsOf(t, s); m.lost() > 0 || !m.settled() || segments() <= before {
			t.Errorf("round %d: %+v, %d segments, %d before", round, m, segments(), before)
		}
		if round < rounds-1 {
			if err := s.Kill(); err != nil {
				t.Fatal(err)
			}
			s = start(t, o)
		}
	}
	// Days are closed on the local disk.
	until(t, 5*time.Minute, "files wait for the bucket", func() bool {
		m := metrics(t, s)
		return m["terse_record_store_pending_files"] > 0 && m["terse_record_store_failures"] > 0
	})
	reference, ok := counted(s, want)
	if !ok {
		t.Fatalf("%+v, want %d clicks", reference, want)
	}

	proxy.Pass()
	until(t, 5*time.Minute, "the bucket has everything", func() bool {
		// The day before yesterday is closed at any time of this one.
		closed := "clicks/dt=" + time.Now().UTC().AddDate(0, 0, -2).Format(time.DateOnly) + "/hour=24/"
		m := metrics(t, s)
		return slices.ContainsFunc(buckettest.Names(t, b), func(n string) bool { return strings.HasPrefix(n, closed) }) &&
			m["terse_record_store_pending_files"] == 0 && m["terse_record_store_equal_timestamp_seconds"] > 0 && m["terse_record_store_failing_seconds"] == 0
	})
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"record", "analytics"} { // the hours that are not over are in the spool alone
		if err := os.RemoveAll(filepath.Join(o.Data, folder)); err != nil {
			t.Fatal(err)
		}
	}
	s = start(t, o)
	until(t, 5*time.Minute, "the numbers are those of before", func() bool {
		got, ok := counted(s, want)
		return ok && slices.Equal(got.Data, reference.Data)
	})
	if m := clickMetricsOf(t, s); m.lost() > 0 {
		t.Errorf("%+v", m)
	}
}
