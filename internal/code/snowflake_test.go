package code

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/faultstore"
	"github.com/terselink/terse/internal/store/memstore"
)

const testEpoch terse.Millis = 1_790_000_000_000

// testClock is a clock that tests set; it does not move by itself.
type testClock struct {
	mu  sync.Mutex
	now terse.Millis
}

func (c *testClock) read() terse.Millis {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) add(ms terse.Millis) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += ms
}

func realClock() terse.Millis { return terse.MillisOf(time.Now()) }

func TestSnowflakeFormat(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		code      string
		ms        int64
		node, seq int
		ok        bool
	}{
		{"00000000000", 0, 0, 0, true},
		{"00000000001", 0, 0, 1, true},
		{string(appendSnowflake(nil, 1<<12)), 0, 1, 0, true},
		{"AzL8n0Y58m7", 1<<41 - 1, 1023, 4095, true},
		{"AzL8n0Y58m8", 0, 0, 0, false}, // 2^63
		{"zzzzzzzzzzz", 0, 0, 0, false},
		{"0000000000", 0, 0, 0, false},
		{"000000000000", 0, 0, 0, false},
		{"0000000000-", 0, 0, 0, false},
	} {
		ms, node, seq, ok := ParseSnowflake([]byte(tc.code))
		if ok != tc.ok || ok && (ms != tc.ms || node != tc.node || seq != tc.seq) {
			t.Errorf("%s: %d %d %d %v; want %+v", tc.code, ms, node, seq, ok, tc)
		}
	}
}

func FuzzParseSnowflake(f *testing.F) {
	f.Add("AzL8n0Y58m7")
	f.Add("AzL8n0Y58m8")
	f.Add("00000000000")
	f.Fuzz(func(t *testing.T, s string) {
		ms, node, seq, ok := ParseSnowflake([]byte(s))
		if !ok {
			return
		}
		if got := string(appendSnowflake(nil, uint64(ms)<<22|uint64(node)<<12|uint64(seq))); got != s {
			t.Fatalf("%q is read as %q", s, got)
		}
	})
}

// TestSnowflakes has several processes, one after the other and at once, issue on one
// store: no code twice, in order of time, each process with a node of its own.
func TestSnowflakes(t *testing.T) {
	t.Parallel()
	store := memstore.New(realClock)
	seen := map[string]bool{}
	var mu sync.Mutex
	epoch := realClock() - 5
	for range 3 { // each of these is killed: nothing is released
		s := NewSnowflakes(NewNode(store), realClock)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				last := ""
				for range 5 {
					b, err := s.Issue(t.Context(), epoch, 3000, nil)
					if err != nil || len(b) != 3000*SnowflakeLength {
						t.Errorf("%d bytes, %v", len(b), err)
						return
					}
					mu.Lock()
					for i := 0; i < len(b); i += SnowflakeLength {
						c := string(b[i : i+SnowflakeLength])
						if seen[c] || c <= last {
							t.Errorf("%s after %s; seen %v", c, last, seen[c])
						}
						seen[c], last = true, c
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	}
	nodes := map[int]bool{}
	for c := range seen {
		_, node, _, ok := ParseSnowflake([]byte(c))
		if !ok {
			t.Fatalf("%s is no snowflake", c)
		}
		nodes[node] = true
	}
	if len(nodes) != 3 {
		t.Errorf("nodes %v; want three", nodes)
	}
}

func TestSnowflakeClock(t *testing.T) {
	t.Parallel()
	store := memstore.New(realClock)
	clock := &testClock{now: testEpoch + 100}
	s := NewSnowflakes(NewNode(store), clock.read)
	issue := func(n int) ([]byte, error) { return s.Issue(t.Context(), testEpoch, n, nil) }
	first, err := issue(1)
	if err != nil {
		t.Fatal(err)
	}
	clock.add(-5000)
	if b, err := issue(1); terse.ErrorCode(err) != terse.CodeUnavailable || b != nil {
		t.Errorf("5 s behind: %q, %v", b, err)
	}
	clock.add(5000)
	if b, err := issue(1); err != nil || string(b) <= string(first) {
		t.Errorf("after it caught up: %q, %v", b, err)
	}
	if _, err := s.Issue(t.Context(), testEpoch+5000, 1, nil); terse.ErrorCode(err) != terse.CodeUnavailable {
		t.Errorf("before the epoch: %v", err)
	}
	if _, err := s.Issue(t.Context(), testEpoch+100-1<<41, 1, nil); !errors.Is(err, terse.ErrSpaceFull) {
		t.Errorf("after 69 years: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	clock.add(-500)
	if _, err := s.Issue(ctx, testEpoch, 1, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled while it waits: %v", err)
	}
}

// TestSnowflakeWaits sets the clock back by less than a second: Issue waits for it.
func TestSnowflakeWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		back := terse.Millis(0)
		s := NewSnowflakes(NewNode(memstore.New(realClock)), func() terse.Millis { return realClock() - back })
		epoch := realClock() - 5000
		first, err := s.Issue(t.Context(), epoch, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		back = 900
		began := time.Now()
		b, err := s.Issue(t.Context(), epoch, 1, nil)
		if err != nil || string(b) <= string(first) || time.Since(began) != 900*time.Millisecond {
			t.Errorf("%q after %q in %v, %v", b, first, time.Since(began), err)
		}
		// More than a millisecond holds: the next one is waited for, not borrowed.
		began = time.Now()
		if _, err := s.Issue(t.Context(), epoch, 3*perMilli+1, nil); err != nil || time.Since(began) < 3*time.Millisecond {
			t.Errorf("in %v, %v", time.Since(began), err)
		}
	})
}

func TestNode(t *testing.T) {
	t.Parallel()
	store := memstore.New(realClock)
	own := func(n *Node, now terse.Millis) string {
		id, err := n.Own(t.Context(), now)
		if err != nil {
			return string(terse.ErrorCode(err))
		}
		return fmt.Sprint(id)
	}
	a, b, c, d := NewNode(store), NewNode(store), NewNode(store), NewNode(store)
	now := testEpoch
	for _, step := range []struct {
		n    *Node
		at   terse.Millis
		want string
	}{
		{a, 0, "0"},
		{b, 0, "1"},
		{a, nodeStep - 1, "0"},
		{a, nodeStep, "0"},                          // extended by a write
		{c, nodeStep + nodeRest, "2"},               // b is silent, but not for a minute yet
		{d, nodeStep + nodeRest + 1, "1"},           // now it is
		{b, nodeStep + nodeRest + 2, "3"},           // b wakes up and finds that it was replaced
		{a, 2*nodeStep + nodeRest + 1_000_000, "0"}, // a slept longer, but nobody took its id
	} {
		if got := own(step.n, now+step.at); got != step.want {
			t.Fatalf("at %d: %s; want %s", step.at, got, step.want)
		}
	}
	last := now + 2*nodeStep + nodeRest + 1_000_001
	if err := a.Release(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	e := NewNode(store)
	if got := own(e, last); got == "0" {
		t.Error("an id was given to another process for a millisecond that was used")
	}
	if got := own(NewNode(store), last+1); got != "0" {
		t.Errorf("a released id is not free: %s", got)
	}
}

func TestNodesRunOut(t *testing.T) {
	t.Parallel()
	store := memstore.New(realClock)
	for i := range MaxNodes {
		if id, err := NewNode(store).Own(t.Context(), testEpoch); err != nil || id != i {
			t.Fatalf("node %d: %d, %v", i, id, err)
		}
	}
	if _, err := NewNode(store).Own(t.Context(), testEpoch); terse.ErrorCode(err) != terse.CodeUnavailable {
		t.Errorf("node 1025: %v", err)
	}
}

// TestNodeFaults strikes every write of a claim: no id is held whose claim may belong to
// somebody else, and the next call goes on.
func TestNodeFaults(t *testing.T) {
	t.Parallel()
	for _, when := range []faultstore.When{faultstore.Before, faultstore.After} {
		store := faultstore.New(memstore.New(realClock))
		n := NewNode(store)
		for step := range terse.Millis(4) {
			f := faultstore.Fault{Op: faultstore.PutDocument, When: when}
			store.Inject(f)
			now := testEpoch + step*nodeStep
			id, err := n.Own(t.Context(), now)
			if err != nil {
				if id, err = n.Own(t.Context(), now); err != nil {
					t.Fatalf("when %v, step %d: %v", when, step, err)
				}
			}
			if other, err := NewNode(store).Own(t.Context(), now); err != nil || other == id {
				t.Fatalf("when %v, step %d: a second process has node %d too, %v", when, step, other, err)
			}
		}
	}
}

func TestRandomCodes(t *testing.T) { // counts allocations: not parallel
	const n = 20_000
	for _, name := range []string{"base62", "crockford32", "digits"} {
		a, err := Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		b := RandomCodes([]byte("x"), a, 7, n)
		if len(b) != 1+7*n || !a.Fits(b[1:]) && name != "digits" {
			t.Fatalf("%s: %d bytes", name, len(b))
		}
		var count [256]int
		for i := 1; i < len(b); i += 7 {
			if Blocked(b[i : i+7]) {
				t.Errorf("%s: %s is blocked", name, b[i:i+7])
			}
			for _, c := range b[i : i+7] {
				count[c]++
			}
		}
		want := 7 * n / a.Len()
		for i := range a.Len() { // words are few: every character is about as frequent
			if c := count[a.Digits()[i]]; c < want*85/100 || c > want*115/100 {
				t.Errorf("%s: %c is there %d times, want about %d", name, a.Digits()[i], c, want)
			}
		}
	}
	if !raceEnabled {
		a, dst := alphabets[0], make([]byte, 0, 7*100)
		if allocs := testing.AllocsPerRun(20, func() { RandomCodes(dst, a, 7, 100) }); allocs > 0 {
			t.Errorf("%v allocs", allocs)
		}
	}
}

// TestRandomCollisions draws as many codes as a space of five characters takes before the domain
// grows. Chance alone makes n*n/2N of them collide: 458 of 916,132, one in two thousand.
func TestRandomCollisions(t *testing.T) {
	t.Parallel()
	const space, n = 916_132_832, 916_132
	codes := RandomCodes(nil, base62, 5, n)
	seen := make(map[string]struct{}, n)
	for i := 0; i < len(codes); i += 5 {
		seen[string(codes[i:i+5])] = struct{}{}
	}
	collisions := n - len(seen)
	t.Logf("%d collisions among %d codes of %d", collisions, n, space)
	if collisions < 350 || collisions > 570 { // five standard deviations of 21
		t.Errorf("%d collisions; chance alone makes 458", collisions)
	}
}

func BenchmarkRandomCodes(b *testing.B) {
	for _, length := range []int{7, 22} {
		b.Run(fmt.Sprint(length), func(b *testing.B) {
			dst := make([]byte, 0, length*8192)
			for b.Loop() {
				RandomCodes(dst, base62, length, 8192)
			}
			b.ReportMetric(float64(b.N)*8192/b.Elapsed().Seconds(), "codes/s")
		})
	}
}

func BenchmarkSnowflakes(b *testing.B) {
	s := NewSnowflakes(NewNode(memstore.New(realClock)), realClock)
	epoch, dst := realClock(), make([]byte, 0, SnowflakeLength*8192)
	for b.Loop() {
		if _, err := s.Issue(b.Context(), epoch, 8192, dst); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*8192/b.Elapsed().Seconds(), "codes/s")
}
