package limit_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/terselink/terse/internal/limit"
)

type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func newTable(maxAddrs int) (*limit.Table, *clock) {
	c := &clock{t: time.Unix(1_000_000, 0)}
	return limit.New(limit.Options{Every: time.Second, Burst: 3, Max: maxAddrs, Clock: c.now}), c
}

func TestBlocked(t *testing.T) {
	t.Parallel()
	tab, c := newTable(10)
	a := netip.MustParseAddr("192.0.2.1")
	for i := range 3 {
		if d := tab.Blocked(a); d != 0 {
			t.Fatalf("blocked for %v after %d failures, want a burst of 3", d, i)
		}
		tab.Fail(a)
	}
	if d := tab.Blocked(a); d != time.Second {
		t.Fatalf("after the burst: wait %v, want 1s", d)
	}
	if d := tab.Blocked(netip.MustParseAddr("192.0.2.2")); d != 0 {
		t.Fatalf("another address waits %v, want 0", d)
	}
	c.t = c.t.Add(time.Second)
	if d := tab.Blocked(a); d != 0 {
		t.Fatalf("a second later: wait %v, want 0", d)
	}
	tab.Fail(a)
	if d := tab.Blocked(a); d != time.Second {
		t.Fatalf("after one more failure: wait %v, want 1s", d)
	}
	c.t = c.t.Add(time.Hour)
	for range 3 {
		tab.Fail(a)
	}
	if d := tab.Blocked(a); d != time.Second {
		t.Fatalf("a long pause must not buy more than the burst: wait %v, want 1s", d)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, a, b string
		want       bool // b shares the count of a
	}{
		{"same", "192.0.2.1", "192.0.2.1", true},
		{"neighbour", "192.0.2.1", "192.0.2.2", false},
		{"mapped", "192.0.2.1", "::ffff:192.0.2.1", true},
		{"same /64", "2001:db8::1", "2001:db8::ffff:1", true},
		{"other /64", "2001:db8::1", "2001:db8:0:1::1", false},
		{"zone", "fe80::1%eth0", "fe80::1%eth1", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tab, _ := newTable(10)
			for range 3 {
				tab.Fail(netip.MustParseAddr(tt.a))
			}
			if got := tab.Blocked(netip.MustParseAddr(tt.b)) != 0; got != tt.want {
				t.Errorf("%s blocks %s: %v, want %v", tt.a, tt.b, got, tt.want)
			}
		})
	}
}

func TestUnknownAddress(t *testing.T) {
	t.Parallel()
	tab, _ := newTable(10)
	for range 3 {
		tab.Fail(netip.Addr{})
	}
	if tab.Blocked(netip.Addr{}) == 0 {
		t.Error("clients without an address are never blocked")
	}
}

// A flood of addresses drops old counts but always counts the newest.
func TestBound(t *testing.T) {
	t.Parallel()
	tab, _ := newTable(4)
	for i := range 1000 {
		a := netip.MustParseAddr(fmt.Sprintf("10.0.%d.%d", i/250, i%250))
		for range 3 {
			tab.Fail(a)
		}
		if tab.Blocked(a) == 0 {
			t.Fatalf("address %d of a flood is not blocked", i)
		}
	}
	if n := tab.Len(); n > 4 {
		t.Errorf("the table holds %d addresses, want at most 4", n)
	}
}

// TestNodes: tables that tell each other of failures count them together, and each alone when nobody tells.
func TestNodes(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	var a, b *limit.Table
	connected := true
	options := func(other **limit.Table) limit.Options {
		return limit.Options{Every: time.Second, Burst: 4, Max: 10, Clock: func() time.Time { return now }, Tell: func(client netip.Prefix) {
			if connected {
				(*other).Heard(client)
			}
		}}
	}
	a, b = limit.New(options(&b)), limit.New(options(&a))
	guesser, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.9")
	for i := range 2 {
		a.Fail(guesser)
		b.Fail(netip.MustParseAddr("2001:db8::2")) // of the same customer
		if i == 0 && (a.Blocked(guesser) != 0 || b.Blocked(guesser) != 0) {
			t.Fatal("blocked after two of four failures")
		}
	}
	if a.Blocked(guesser) != time.Second || b.Blocked(guesser) != time.Second {
		t.Errorf("after two failures at each of two nodes: wait %v and %v, want 1s", a.Blocked(guesser), b.Blocked(guesser))
	}
	if a.Blocked(other) != 0 || b.Blocked(other) != 0 {
		t.Error("somebody else is blocked")
	}
	connected = false
	for range 4 {
		a.Fail(other)
	}
	if a.Blocked(other) != time.Second || b.Blocked(other) != 0 {
		t.Errorf("alone: wait %v and %v, want 1s and 0", a.Blocked(other), b.Blocked(other))
	}
}
