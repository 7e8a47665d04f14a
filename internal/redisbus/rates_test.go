package redisbus

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/terselink/terse/internal/rate"
	"github.com/terselink/terse/internal/testengine"
)

// newRates is a node that counts requests.
func newRates(t *testing.T, url, prefix string) *Rates {
	t.Helper()
	r, err := NewRates(Options{URL: url, Prefix: prefix, Instance: "i"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	until(t, "a node counts", func() bool {
		_, err := r.Take(t.Context(), "somebody else", rate.Limit{PerSecond: 1_000_000, Burst: 1000})
		return err == nil
	})
	return r
}

// TestRates: two nodes that ask at once let as many through as one would, and what they keep ends by itself.
func TestRates(t *testing.T) {
	t.Parallel()
	url, prefix := testengine.Address(t, testengine.Redis), newPrefix()
	nodes := []*Rates{newRates(t, url, prefix), newRates(t, url, prefix)}
	l := rate.Limit{PerSecond: 1, Burst: 20}
	began := time.Now()
	var let atomic.Int64
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 25 {
				wait, err := nodes[i%2].Take(t.Context(), "a", l)
				switch {
				case err != nil:
					t.Error(err)
				case wait == 0:
					let.Add(1)
				case wait > time.Second:
					t.Errorf("wait %v, of an interval of one second", wait)
				}
			}
		})
	}
	wg.Wait()
	if n, most := let.Load(), int64(time.Since(began)/time.Second)+21; n < 20 || n > most {
		t.Errorf("%d of 200 requests were let through, want 20 to %d", n, most)
	}
	// What a server with another clock has left, or a limit of before, holds nobody up for longer than a burst.
	c, err := nodes[0].connected()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Do(t.Context(), c.B().Set().Key(nodes[0].base+"late").Value("4102444800000000").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if wait, err := nodes[0].Take(t.Context(), "late", l); wait <= 0 || wait > time.Second || err != nil {
		t.Errorf("a client of 2100: wait %v, %v", wait, err)
	}
	until(t, "it goes on", func() bool { wait, err := nodes[0].Take(t.Context(), "late", l); return wait == 0 && err == nil })
	if wait, err := nodes[0].Take(t.Context(), "b", l); wait != 0 || err != nil {
		t.Errorf("another client: %v, %v", wait, err)
	}
	left, err := c.Do(t.Context(), c.B().Pttl().Key(nodes[0].base+"a").Build()).AsInt64()
	if err != nil || left <= 0 || left > 21_000 {
		t.Errorf("the key lives for %d ms more, want at most 21,000: %v", left, err)
	}
}

// TestRatesWithoutRedis: a node that cannot ask says so at once.
func TestRatesWithoutRedis(t *testing.T) {
	t.Parallel()
	r, err := NewRates(Options{URL: "redis://127.0.0.1:1", Prefix: newPrefix(), Instance: "i"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 3 {
		if _, err := r.Take(t.Context(), "a", rate.Limit{PerSecond: 1, Burst: 1}); err == nil {
			t.Error("no error")
		}
	}
}
