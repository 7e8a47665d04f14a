package cache

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/terselink/terse"
)

func (s *source) fail(err error) { s.with(func() { s.err = err }) }

// TestStale: a preloaded value is served while loads fail and not before, one load a second is tried
// meanwhile, and what a load finds then holds.
func TestStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		c := newTestCache(t, s)
		preload := func(code, value string, version uint64) {
			c.Preload(key(code), Loaded[string]{Value: value, Number: 1, Version: version, Bytes: len(value)})
		}
		preload("same", "old", 5)
		preload("gone", "old", 5)
		preload("back", "old", 5)
		s.set("same", row{1, 6, "new"})
		want(t, c, "same", "new") // the store answers: it is right
		if n := c.Stats().StaleServed; n != 0 {
			t.Errorf("%d stale answers while the store answers", n)
		}

		s.fail(terse.ErrUnavailable)
		want(t, c, "gone", "old")
		want(t, c, "same", "new")
		wantErr(t, c, "cold", terse.ErrUnavailable)
		loads := s.count()
		for range 1000 {
			want(t, c, "gone", "old")
			want(t, c, "back", "old")
		}
		synctest.Wait()
		if n := s.count() - loads; n > 1 {
			t.Errorf("%d loads for 2,000 visits during an outage", n)
		}
		for range 10 {
			time.Sleep(time.Second)
			want(t, c, "gone", "old")
			synctest.Wait()
		}
		if n := s.count() - loads; n < 9 || n > 12 {
			t.Errorf("%d loads in ten seconds of an outage, want one a second", n)
		}

		// The store is back, without one of them and with an older version of the other: it is right.
		s.fail(nil)
		s.set("back", row{1, 4, "restored"})
		time.Sleep(time.Second)
		want(t, c, "gone", "old") // the visit that starts the load
		synctest.Wait()
		wantErr(t, c, "gone", terse.ErrNotFound)
		want(t, c, "back", "restored")
		s.fail(terse.ErrUnavailable)
		want(t, c, "back", "restored")
		time.Sleep(10 * time.Second)
		wantErr(t, c, "gone", terse.ErrUnavailable)
	})
}

// TestStaleSlowStore: a store that hangs costs one visitor the time of a load, others nothing.
func TestStaleSlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{slow: func(ctx context.Context) { <-ctx.Done() }}
		c := newTestCache(t, s)
		for _, code := range []string{"a", "b"} {
			c.Preload(key(code), Loaded[string]{Value: "old", Number: 1, Version: 1})
		}
		begin := time.Now()
		want(t, c, "a", "old")
		if took := time.Since(begin); took > 250*time.Millisecond {
			t.Errorf("the first visit took %v", took)
		}
		for range 5 {
			begin = time.Now()
			want(t, c, "a", "old")
			want(t, c, "b", "old")
			if took := time.Since(begin); took != 0 {
				t.Errorf("a later visit took %v", took)
			}
			time.Sleep(time.Second)
		}
	})
}

// TestStaleInvalidated: news of a write goes before what was preloaded, whichever comes first, and a
// damaged row is no outage.
func TestStaleInvalidated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		c := newTestCache(t, s)
		old := Loaded[string]{Value: "old", Number: 1, Version: 1}
		c.Preload(key("a"), old)
		c.Invalidate(Invalidation{Domain: 7, Code: "a", Number: 1, Version: 1, Deleted: true})
		c.Invalidate(Invalidation{Domain: 7, Code: "b", Number: 1, Version: 2})
		c.Preload(key("b"), old)
		c.Preload(key("c"), old)
		s.fail(terse.ErrUnavailable)
		wantErr(t, c, "a", terse.ErrUnavailable)
		wantErr(t, c, "b", terse.ErrUnavailable)
		want(t, c, "c", "old")
		c.Invalidate(Invalidation{Domain: 7, Code: "c", Number: 1, Version: 2})
		wantErr(t, c, "c", terse.ErrUnavailable)

		s.fail(nil)
		c.Preload(key("d"), old)
		s.set("e", row{2, 1, "e"})
		want(t, c, "e", "e") // the outage is over
		damaged := &terse.Error{Code: terse.CodeInternal, Message: "damaged"}
		s.fail(damaged)
		wantErr(t, c, "d", damaged)
	})
}

// TestStaleLoad: a value of which a part could not be read is stale, too.
func TestStaleLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stale, loads := true, 0
		var err error
		c, nerr := New(Options[string]{
			Clock: func() terse.Millis { return terse.Millis(time.Now().UnixMilli()) },
			Load: func(context.Context, terse.DomainID, []byte) (Loaded[string], error) {
				loads++
				return Loaded[string]{Value: "v", Number: 1, Version: 1, Stale: stale}, err
			},
		})
		if nerr != nil {
			t.Fatal(nerr)
		}
		defer c.Close()
		want(t, c, "a", "v")
		want(t, c, "a", "v")
		if loads != 2 {
			t.Errorf("%d loads for two visits of a stale value while the store answers", loads)
		}
		err = terse.ErrUnavailable
		want(t, c, "a", "v")
		err, stale = nil, false
		time.Sleep(2 * time.Second)
		want(t, c, "a", "v")
		synctest.Wait()
		loads = 0
		want(t, c, "a", "v")
		want(t, c, "a", "v")
		if loads != 0 {
			t.Errorf("%d loads of a value that is not stale", loads)
		}
	})
}

// TestHottest: what is asked for often comes within the limit, marks do not come.
func TestHottest(t *testing.T) {
	s := &source{rows: map[string]row{}}
	c := newTestCache(t, s)
	for _, code := range []string{"a", "b", "c", "d"} {
		s.set(code, row{1, 3, "0123456789"})
		want(t, c, code, "0123456789")
	}
	for range 100 {
		want(t, c, "d", "0123456789")
	}
	c.Invalidate(Invalidation{Domain: 7, Code: "b", Number: 1, Version: 4})
	var codes []string
	for _, h := range c.Hottest(3*15, func(v *string) int { return len(*v) }) {
		codes = append(codes, string(Code([]byte(h.Key))))
		if Domain(h.Key) != 7 || h.Number != 1 || h.Version != 3 || h.Stale {
			t.Errorf("%+v", h)
		}
	}
	if len(codes) != 3 || !slices.Contains(codes, "d") || slices.Contains(codes, "b") {
		t.Errorf("hottest: %q", codes)
	}
	if got := c.Hottest(15, func(v *string) int { return len(*v) }); len(got) != 1 {
		t.Errorf("%d keys in the bytes of one", len(got))
	}
}

// TestSettle: what the store confirmed is served like any other value, what it did not is not there any more.
func TestSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		c := newTestCache(t, s)
		for _, code := range []string{"same", "newer", "gone", "other", "unknown"} {
			c.Preload(key(code), Loaded[string]{Value: "old", Number: 1, Version: 5, Bytes: 3})
		}
		c.Settle(string(key("same")), 1, 5)
		c.Settle(string(key("newer")), 1, 6)
		c.Settle(string(key("gone")), 0, 0)
		c.Settle(string(key("other")), 2, 5)
		c.Settle(string(key("never")), 1, 5)
		s.fail(terse.ErrUnavailable)
		want(t, c, "same", "old")
		want(t, c, "unknown", "old")
		for _, code := range []string{"newer", "gone", "other", "never"} {
			wantErr(t, c, code, terse.ErrUnavailable)
		}
		if n := c.Stale(); n != 1 {
			t.Errorf("%d stale values, want that of the unknown one", n)
		}
	})
}
