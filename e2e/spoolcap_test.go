package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/terselink/terse/client"
)

// TestSpoolCap takes a server up the ladder of docs/clicks.md and down again. At every step: served = recorded + dropped by
// reason, and the reasons are those of the step. In the end what was recorded is counted, people and bots apart.
func TestSpoolCap(t *testing.T) {
	const people, bots, heads = 100, 50, 50
	o := fixedAddrs(t)
	env := o.Env
	// Nobody reads the spool, so it stays as large as it is made.
	o.Env = append(env, "TERSE_ANALYTICS_ENABLED=false", "TERSE_CLICKS_MAX_BYTES=64MiB", "TERSE_CLICKS_SYNC_EVERY=10ms")
	s := start(t, o)
	path := makeLinks(t, s, 1)[0]
	backlog := filepath.Join(o.Data, "spool", "000000000000001-000000000000-00000001.seg") // of an earlier process, as it were
	send := func(n int, method, agent string) {
		t.Helper()
		v := newVisitor(s, "User-Agent", agent)
		defer v.close()
		for range n {
			if status, _, err := v.visit(method, path); err != nil || status != 302 {
				t.Fatalf("%s: status %d, %v", method, status, err)
			}
		}
	}
	served, rows, weights := 0, map[bool]int{}, 0 // rows by whether they are of bots
	now := clickMetricsOf(t, s)
	for _, step := range []struct {
		name    string
		size    int64 // MiB
		dropped map[string]int
		sampled bool
		held    bool // people are counted by link
	}{
		{name: "78 %", size: 50},
		{name: "81 %", size: 52, dropped: map[string]int{"bots": bots + heads}},
		{name: "95 %", size: 61, dropped: map[string]int{"bots": bots + heads}, sampled: true},
		{name: "full", size: 64, dropped: map[string]int{"bots": bots + heads}, held: true},
		{name: "readers have caught up", size: 1},
	} {
		if err := os.WriteFile(backlog, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(backlog, step.size<<20); err != nil {
			t.Fatal(err)
		}
		until(t, 3*time.Minute, "the server knows how large the spool is", func() bool {
			size := int64(clickMetricsOf(t, s).size)
			return size >= step.size<<20 && size < (step.size+1)<<20
		})
		before := now // at the end of the step before: what was counted at the cap is written as soon as there is room
		send(people, "GET", agentDesktop)
		send(bots, "GET", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)")
		send(heads, "HEAD", agentDesktop)
		served += people + bots + heads
		until(t, 3*time.Minute, "every click is written or dropped", func() bool {
			now = clickMetricsOf(t, s)
			return now.captured == served && now.settled() && (now.held == 0 || step.held)
		})
		got := map[string]int{}
		for reason, n := range now.dropped {
			if n -= before.dropped[reason]; n > 0 {
				got[reason] = n
			}
		}
		wrote := now.spooled - before.spooled
		if step.sampled {
			if wrote+got["sampled"] != people {
				t.Errorf("%s: %d people are recorded and %d stand for others, of %d", step.name, wrote, got["sampled"], people)
			}
			rows[false] += wrote
			weights += 10 * wrote
			delete(got, "sampled")
		} else if step.held { // a minute may have passed in the step: then they are written already
			if stand := wrote + got["totals"] + now.held; stand != people || now.held == 0 && wrote == 0 {
				t.Errorf("%s: %d of %d people are counted", step.name, stand, people)
			}
			rows[false] += wrote
			weights += wrote + got["totals"]
			delete(got, "totals")
		} else {
			b := bots + heads - got["bots"]
			rows[true] += b
			rows[false] += wrote - b
			weights += wrote + got["totals"] // those that were counted at the cap
			delete(got, "totals")
		}
		if !maps.Equal(got, step.dropped) {
			t.Errorf("%s: dropped %v, want %v", step.name, got, step.dropped)
		}
	}
	all := clickMetricsOf(t, s)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(backlog); err != nil {
		t.Fatal(err)
	}
	o.Env = env
	s = start(t, o)
	c, q := newClient(t, s), client.Query{Period: "2d", All: true}
	var sum *client.Summary
	until(t, 3*time.Minute, "the spool is counted", func() bool {
		var err error
		sum, err = c.Summary(t.Context(), q)
		return err == nil && sum.Total >= int64(weights)
	})
	counted := map[bool]int{}
	for row, err := range c.Clicks(t.Context(), q) {
		if err != nil {
			t.Fatal(err)
		}
		counted[row.Bot != "human"]++
	}
	if sum.Total != int64(weights) || !maps.Equal(counted, rows) || served != counted[false]+counted[true]+all.lost() {
		t.Errorf("%d clicks served, %d rows of people, %d of bots, %v dropped, %d by weight; want %v rows and %d", served, counted[false], counted[true], all.dropped, sum.Total, rows, weights)
	}
	t.Logf("%d served = %d people + %d bots + dropped %v", served, counted[false], counted[true], all.dropped)
}
