package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/terselink/terse"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source is a store of one value per code, with versions.
type source struct {
	mu    sync.Mutex
	rows  map[string]row
	loads int
	err   error
	slow  func(context.Context) // called before a row is returned, after it was read
}

type row struct {
	number  terse.LinkNumber
	version uint64
	value   string
}

func (s *source) load(ctx context.Context, d terse.DomainID, code []byte) (Loaded[string], error) {
	s.mu.Lock()
	s.loads++
	r, ok := s.rows[string(code)]
	err, slow := s.err, s.slow
	s.mu.Unlock()
	if slow != nil {
		slow(ctx)
	}
	switch {
	case err != nil:
		return Loaded[string]{}, err
	case ctx.Err() != nil:
		return Loaded[string]{}, ctx.Err()
	case !ok:
		return Loaded[string]{}, fmt.Errorf("read: %w", terse.ErrNotFound)
	}
	return Loaded[string]{Value: r.value, Number: r.number, Version: r.version, Bytes: len(r.value)}, nil
}

func (s *source) set(code string, r row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows[code] = r
}

func (s *source) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loads
}

func (s *source) with(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func newTestCache(t testing.TB, s *source, set ...func(*Options[string])) *Cache[string] {
	t.Helper()
	if s.rows == nil {
		s.rows = map[string]row{}
	}
	o := Options[string]{Load: s.load, MaxBytes: 1 << 20, NegativeBytes: 64 << 10,
		Clock: func() terse.Millis { return terse.Millis(time.Now().UnixMilli()) }}
	for _, f := range set {
		f(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func key(code string) []byte { return AppendKey(nil, 7, code) }

// look is what the redirect plane does: get, else fetch.
func look(c *Cache[string], code string) (string, error) {
	k := key(code)
	if v := c.Get(k, c.o.Clock()); v != nil {
		return *v, nil
	}
	v, err := c.Fetch(k)
	if err != nil {
		return "", err
	}
	return *v, nil
}

func want(t *testing.T, c *Cache[string], code, value string) {
	t.Helper()
	if got, err := look(c, code); err != nil || got != value {
		t.Fatalf("%s: %q, %v; want %q", code, got, err, value)
	}
}

func wantErr(t *testing.T, c *Cache[string], code string, target error) {
	t.Helper()
	if got, err := look(c, code); !errors.Is(err, target) {
		t.Fatalf("%s: %q, %v; want error %v", code, got, err, target)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	load := (&source{}).load
	clock := func() terse.Millis { return 0 }
	for name, o := range map[string]Options[string]{
		"no loader":         {Clock: clock},
		"no clock":          {Load: load},
		"negative bytes":    {Load: load, Clock: clock, MaxBytes: -1},
		"long negative TTL": {Load: load, Clock: clock, NegativeTTL: 6 * time.Second},
		"negative age":      {Load: load, Clock: clock, MaxAge: -1},
	} {
		if _, err := New(o); terse.ErrorCode(err) != terse.CodeInvalid {
			t.Errorf("%s: error %v, want invalid", name, err)
		}
	}
}

func TestOneLoadForManyClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{rows: map[string]row{"a": {1, 1, "one"}}, slow: func(context.Context) { time.Sleep(100 * time.Millisecond) }}
		c := newTestCache(t, s)
		var wg sync.WaitGroup
		for range 10_000 {
			wg.Go(func() {
				if v, err := look(c, "a"); err != nil || v != "one" {
					t.Errorf("%q, %v", v, err)
				}
			})
		}
		wg.Wait()
		if n := s.count(); n != 1 {
			t.Errorf("%d loads for 10,000 clients of one cold code, want 1", n)
		}
	})
}

func TestWaitersGiveUpAtTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{rows: map[string]row{"a": {1, 1, "one"}}, slow: func(ctx context.Context) { <-ctx.Done() }}
		c := newTestCache(t, s)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				start := time.Now()
				_, err := look(c, "a")
				if err == nil || errors.Is(err, terse.ErrNotFound) {
					t.Errorf("error %v, want a failure that is not not_found", err)
				}
				if d := time.Since(start); d != 250*time.Millisecond {
					t.Errorf("waited %v, want 250 ms", d)
				}
			})
		}
		wg.Wait()
		s.with(func() { s.slow = nil })
		want(t, c, "a", "one") // no memory of the failure
	})
}

func TestLoadsAreLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		s := &source{slow: func(context.Context) {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(10 * time.Millisecond)
			now.Add(-1)
		}}
		c := newTestCache(t, s, func(o *Options[string]) { o.MaxLoads = 4 })
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				if _, err := look(c, fmt.Sprint(i)); !errors.Is(err, terse.ErrNotFound) {
					t.Errorf("error %v, want not found", err)
				}
			})
		}
		wg.Wait()
		if most.Load() != 4 {
			t.Errorf("%d loads at once, want 4", most.Load())
		}
	})
}

func TestNegativeEntries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		c := newTestCache(t, s)
		for range 10 {
			wantErr(t, c, "a", terse.ErrNotFound)
		}
		if n := s.count(); n != 1 {
			t.Fatalf("%d loads of an unknown code, want 1", n)
		}
		time.Sleep(5 * time.Second)
		wantErr(t, c, "a", terse.ErrNotFound)
		if n := s.count(); n != 2 {
			t.Fatalf("%d loads after 5 s, want 2", n)
		}
		s.set("a", row{1, 1, "one"})
		c.Invalidate(Invalidation{Domain: 7, Code: "a", Number: 1, Version: 1, Created: true})
		want(t, c, "a", "one")

		wantErr(t, c, "b", terse.ErrNotFound)
		s.set("b", row{2, 1, "two"})
		c.Invalidate(Invalidation{Domain: 7}) // many were created
		want(t, c, "b", "two")
		if n := c.Stats().NegativeHits; n != 9 {
			t.Errorf("%d negative hits, want 9", n)
		}
	})
}

func TestFailureIsNeverNotFound(t *testing.T) {
	t.Parallel()
	s := &source{err: errors.New("disk on fire")}
	c := newTestCache(t, s)
	for range 3 {
		if _, err := look(c, "a"); err == nil || errors.Is(err, terse.ErrNotFound) {
			t.Fatalf("error %v", err)
		}
	}
	if n := s.count(); n != 3 {
		t.Errorf("%d loads, want 3: a failure is not remembered", n)
	}
}

func TestPanicOfTheLoader(t *testing.T) {
	t.Parallel()
	c := newTestCache(t, &source{slow: func(context.Context) { panic("boom") }})
	if _, err := look(c, "a"); terse.ErrorCode(err) != terse.CodeInternal {
		t.Errorf("error %v, want internal", err)
	}
}

func TestUpdatesAndDeletes(t *testing.T) {
	t.Parallel()
	s := &source{rows: map[string]row{"a": {1, 1, "one"}}}
	c := newTestCache(t, s)
	want(t, c, "a", "one")

	s.set("a", row{1, 2, "two"})
	c.Invalidate(Invalidation{Domain: 7, Code: "a", Number: 1, Version: 2})
	want(t, c, "a", "two")
	n := s.count()
	c.Invalidate(Invalidation{Domain: 7, Code: "a", Number: 1, Version: 2}) // again
	c.Invalidate(Invalidation{Domain: 7, Code: "a", Number: 1, Version: 1}) // late
	want(t, c, "a", "two")
	if s.count() != n {
		t.Error("repeated and late news made a current value load again")
	}

	s.with(func() { delete(s.rows, "a") })
	c.Invalidate(Invalidation{Domain: 7, Code: "a", Number: 1, Version: 2, Deleted: true})
	wantErr(t, c, "a", terse.ErrNotFound)

	s.set("a", row{9, 1, "new"}) // the alias again, another link
	c.Invalidate(Invalidation{Domain: 7, Code: "a", Number: 9, Version: 1, Created: true})
	want(t, c, "a", "new")
}

func TestLaggingReplica(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{rows: map[string]row{"a": {1, 1, "old"}}}
		c := newTestCache(t, s)
		want(t, c, "a", "old")
		c.Invalidate(Invalidation{Domain: 7, Code: "a", Number: 1, Version: 2})
		go func() {
			time.Sleep(20 * time.Millisecond)
			s.set("a", row{1, 2, "new"})
		}()
		want(t, c, "a", "new") // waited for the replica

		c.Invalidate(Invalidation{Domain: 7, Code: "a", Number: 1, Version: 3})
		wantErr(t, c, "a", errTimeout) // it never catches up: not known, rather than wrong

		c.Invalidate(Invalidation{Domain: 7, Code: "a", Number: 1, Version: 3, Deleted: true})
		wantErr(t, c, "a", errTimeout)
		s.with(func() { delete(s.rows, "a") })
		wantErr(t, c, "a", terse.ErrNotFound)
	})
}

// TestInvalidationOvertakesLoad holds a load between its read and its return while
// the link is written: what was read must not be served afterwards.
func TestInvalidationOvertakesLoad(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		before, after row
		news          Invalidation
	}{
		"update":      {row{1, 1, "old"}, row{1, 2, "new"}, Invalidation{Domain: 7, Code: "a", Number: 1, Version: 2}},
		"delete":      {row{1, 1, "old"}, row{}, Invalidation{Domain: 7, Code: "a", Number: 1, Version: 1, Deleted: true}},
		"create":      {row{}, row{1, 1, "new"}, Invalidation{Domain: 7, Code: "a", Number: 1, Version: 1, Created: true}},
		"bulk create": {row{}, row{1, 1, "new"}, Invalidation{Domain: 7}},
		"recreate":    {row{1, 5, "old"}, row{2, 1, "new"}, Invalidation{Domain: 7, Code: "a", Number: 2, Version: 1, Created: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &source{rows: map[string]row{}}
			put := func(r row) {
				s.with(func() {
					if delete(s.rows, "a"); r.number != 0 {
						s.rows["a"] = r
					}
				})
			}
			put(test.before)
			read, goOn := make(chan struct{}), make(chan struct{})
			var once sync.Once
			s.slow = func(context.Context) { once.Do(func() { close(read); <-goOn }) }
			c := newTestCache(t, s)
			done := make(chan string)
			go func() {
				v, err := look(c, "a")
				if err != nil {
					v = err.Error()
				}
				done <- v
			}()
			<-read
			put(test.after)
			c.Invalidate(test.news)
			close(goOn)
			wantValue := test.after.value
			if wantValue == "" {
				wantValue = "not found"
			}
			if got := <-done; got != wantValue {
				t.Errorf("the load under way answered %q, want %q", got, wantValue)
			}
			got, err := look(c, "a")
			if err != nil {
				got = err.Error()
			}
			if got != wantValue {
				t.Errorf("the next look answered %q, want %q", got, wantValue)
			}
		})
	}
}

func TestMaxAgeServesWhileItReadsAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{rows: map[string]row{"a": {1, 1, "one"}}}
		c := newTestCache(t, s, func(o *Options[string]) { o.MaxAge = 10 * time.Second })
		want(t, c, "a", "one")
		s.set("a", row{1, 2, "two"}) // nobody tells
		time.Sleep(9 * time.Second)
		want(t, c, "a", "one")
		time.Sleep(time.Second)
		want(t, c, "a", "one") // old, and read again behind it
		synctest.Wait()
		want(t, c, "a", "two")

		s.with(func() { s.err = terse.ErrUnavailable })
		time.Sleep(time.Hour)
		n := s.count()
		for range 100 {
			want(t, c, "a", "two") // the store is down: old is better than nothing
			synctest.Wait()
		}
		if d := s.count() - n; d != 1 {
			t.Errorf("%d reads of a failing store within a second, want 1", d)
		}

		s.with(func() { s.err = nil; delete(s.rows, "a") })
		time.Sleep(time.Second)
		want(t, c, "a", "two")
		synctest.Wait()
		wantErr(t, c, "a", terse.ErrNotFound)
	})
}

func TestCloseEndsLoads(t *testing.T) {
	t.Parallel()
	s := &source{rows: map[string]row{"a": {1, 1, "one"}, "b": {2, 1, "two"}}}
	c := newTestCache(t, s)
	want(t, c, "a", "one")
	started := make(chan struct{})
	s.with(func() { s.slow = func(ctx context.Context) { close(started); <-ctx.Done() } })
	done := make(chan error)
	go func() { _, err := look(c, "b"); done <- err }()
	<-started
	c.Close()
	if err := <-done; err == nil || errors.Is(err, terse.ErrNotFound) {
		t.Errorf("error of a load that was cut: %v", err)
	}
	want(t, c, "a", "one")
	wantErr(t, c, "c", terse.ErrUnavailable)
	c.Close()
}

// TestRaces lets writers and readers at a few keys and checks after every write
// that its writer sees nothing older than what it wrote.
func TestRaces(t *testing.T) {
	t.Parallel()
	s := &source{rows: map[string]row{}}
	c := newTestCache(t, s, func(o *Options[string]) { o.MaxBytes = 4 << 10; o.LoadTimeout = time.Minute })
	rounds := 2000
	if testing.Short() {
		rounds = 300
	}
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = look(c, fmt.Sprint(rand.IntN(4)))
				}
			}
		})
	}
	for w := range 4 { // one writer a key, so that each knows the truth
		writers.Go(func() {
			code := fmt.Sprint(w)
			number := terse.LinkNumber(w + 1)
			for i := range rounds {
				r := row{number, uint64(i%7 + 1), fmt.Sprintf("%s-%d", code, i)}
				switch {
				case r.version == 1:
					r.number = number + terse.LinkNumber(10*i)
					number = r.number
					s.set(code, r)
					c.Invalidate(Invalidation{Domain: 7, Code: code, Number: r.number, Version: 1, Created: true})
				case r.version == 7:
					s.with(func() { delete(s.rows, code) })
					c.Invalidate(Invalidation{Domain: 7, Code: code, Number: r.number, Version: 6, Deleted: true})
					if v, err := look(c, code); !errors.Is(err, terse.ErrNotFound) {
						t.Errorf("%s after its deletion: %q, %v", code, v, err)
						return
					}
					continue
				default:
					s.set(code, r)
					c.Invalidate(Invalidation{Domain: 7, Code: code, Number: r.number, Version: r.version})
				}
				if v, err := look(c, code); err != nil || v != r.value {
					t.Errorf("%s: %q, %v; want %q", code, v, err, r.value)
					return
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
}

// TestBoundedInBytes fills the cache well beyond its bound and compares with the heap.
func TestBoundedInBytes(t *testing.T) {
	const bound = 32 << 20
	s := &source{}
	for _, size := range []int{40, 8 << 10} {
		var before, after runtime.MemStats
		c := newTestCache(t, s, func(o *Options[string]) {
			o.MaxBytes = bound
			o.Load = func(_ context.Context, _ terse.DomainID, code []byte) (Loaded[string], error) {
				return Loaded[string]{Value: string(make([]byte, size)), Number: 1, Version: 1, Bytes: size}, nil
			}
		})
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range 3 * bound / (size + 250) {
			if _, err := c.Fetch(key(fmt.Sprintf("%07d", i))); err != nil {
				t.Fatal(err)
			}
		}
		c.entries.CleanUp()
		runtime.GC()
		runtime.ReadMemStats(&after)
		st, heap := c.Stats(), int64(after.HeapAlloc)-int64(before.HeapAlloc)
		t.Logf("%d bytes a value: %d entries, %d estimated, %d on the heap", size, st.Entries, st.Bytes, heap)
		if st.Bytes > bound || st.Bytes < bound/2 {
			t.Errorf("estimated %d bytes, want at most %d and not much less", st.Bytes, bound)
		}
		if heap > bound*11/10 {
			t.Errorf("%d bytes on the heap, want about %d", heap, bound)
		}
		runtime.KeepAlive(c)
		c.Close()
	}
}

// TestScanLeavesHotKeys reads a hundred thousand keys once each between reads of a
// few hot ones.
func TestScanLeavesHotKeys(t *testing.T) {
	s := &source{}
	c := newTestCache(t, s, func(o *Options[string]) {
		o.Load = func(_ context.Context, _ terse.DomainID, code []byte) (Loaded[string], error) {
			return Loaded[string]{Value: string(code), Number: 1, Version: 1, Bytes: len(code)}, nil
		}
	})
	hot := func(i int) string { return fmt.Sprintf("hot%04d", i%500) }
	for i := range 5000 {
		want(t, c, hot(i), hot(i))
	}
	hits := 0
	for i := range 100_000 {
		_, _ = look(c, fmt.Sprintf("%07d", i))
		if c.Get(key(hot(i)), 0) != nil {
			hits++
		}
		_, _ = look(c, hot(i))
	}
	if hits < 95_000 {
		t.Errorf("%d of 100,000 hot reads were hits during a scan, want at least 95,000", hits)
	}
}

// TestNegativesAreBounded floods the memory of unknown codes.
func TestNegativesAreBounded(t *testing.T) {
	c := newTestCache(t, &source{rows: map[string]row{"a": {1, 1, "one"}}})
	want(t, c, "a", "one")
	for i := range 20_000 {
		wantErr(t, c, fmt.Sprintf("%07d", i), terse.ErrNotFound)
	}
	c.negatives.CleanUp()
	if n := c.negatives.WeightedSize(); n > 64<<10 {
		t.Errorf("%d bytes of negative entries, want at most 64 KiB", n)
	}
	if c.Get(key("a"), 0) == nil {
		t.Error("unknown codes have driven out a link")
	}
}

func TestGetAllocs(t *testing.T) {
	c := newTestCache(t, &source{rows: map[string]row{"a": {1, 1, "one"}}})
	want(t, c, "a", "one")
	wantErr(t, c, "b", terse.ErrNotFound)
	a, b := key("a"), key("b")
	if n := testing.AllocsPerRun(1000, func() { c.Get(a, 0) }); n != 0 {
		t.Errorf("Get allocates %v times, want 0", n)
	}
	if n := testing.AllocsPerRun(1000, func() { _, _ = c.Fetch(b) }); n != 0 {
		t.Errorf("Fetch of a code known not to exist allocates %v times, want 0", n)
	}
}
