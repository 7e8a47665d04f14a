package background

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// crowd runs n functions that take d each at once and returns how many ran at a time.
func crowd(p *Pool, n int, d time.Duration) int64 {
	var at, most atomic.Int64
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			p.Do(func() {
				now := at.Add(1)
				for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
				}
				<-time.After(d)
				at.Add(-1)
			})
		})
	}
	wg.Wait()
	return most.Load()
}

func TestPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var visitors atomic.Uint64
		p := &Pool{Foreground: visitors.Load}
		all := int64(runtime.NumCPU() + 2)
		began := time.Now()
		if most := crowd(p, 100, 10*time.Millisecond); most != all {
			t.Errorf("%d at a time without visitors, want %d", most, all)
		}
		if d, want := time.Since(began), time.Duration((100+all-1)/all)*10*time.Millisecond; d != want {
			t.Errorf("100 times 10 ms took %v, want %v", d, want)
		}

		come := time.NewTicker(time.Millisecond) // 1,000 visitors a second
		gone := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-come.C:
					visitors.Add(1)
				case <-gone:
					return
				}
			}
		})
		<-time.After(time.Second)
		crowd(p, 1, 0) // notices
		began = time.Now()
		if most := crowd(p, 20, 10*time.Millisecond); most != 1 {
			t.Errorf("%d at a time with visitors, want 1", most)
		}
		if d := time.Since(began); d < 380*time.Millisecond || d > 420*time.Millisecond {
			t.Errorf("20 times 10 ms took %v, want twice the work", d)
		}
		close(gone)
		wg.Wait()
		come.Stop()
		<-time.After(time.Second)
		crowd(p, 1, 0)
		if most := crowd(p, 100, 10*time.Millisecond); most != all {
			t.Errorf("%d at a time when they are gone, want %d", most, all)
		}
	})
}

// TestApart: so many functions wait for somebody else without a turn, and no more than those and one for each turn at a time.
func TestApart(t *testing.T) {
	for name, c := range map[string]struct {
		mostApart int
		visitors  uint64 // a look
		want      int64
	}{
		"none":          {0, 0, 4},
		"three":         {3, 0, 7},
		"with visitors": {3, 1000, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var seen uint64
				p := &Pool{Processors: 2, MostApart: c.mostApart, Foreground: func() uint64 { seen += c.visitors; return seen }}
				p.Do(func() {})
				<-time.After(2 * look) // so that the next notices who came
				for range 2 {          // what was apart comes back
					var at, most atomic.Int64
					var wg sync.WaitGroup
					for range 50 {
						wg.Go(func() {
							p.Do(func() {
								p.Apart(func() {
									now := at.Add(1)
									for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
									}
									<-time.After(10 * time.Millisecond)
									at.Add(-1)
								})
							})
						})
					}
					wg.Wait()
					if most.Load() != c.want {
						t.Errorf("%d at a time, want %d", most.Load(), c.want)
					}
				}
				p.mu.Lock()
				defer p.mu.Unlock()
				if p.apart != 0 || p.running != 0 || len(p.queue) != 0 {
					t.Errorf("%d apart, %d running, %d waiting when all have ended", p.apart, p.running, len(p.queue))
				}
			})
		})
	}
}

func TestPoolZero(t *testing.T) {
	var p Pool
	var n atomic.Int64
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for range 100 {
				p.Do(func() { n.Add(1) })
			}
		})
	}
	wg.Wait()
	if n.Load() != 10_000 {
		t.Errorf("%d of 10,000 were run", n.Load())
	}
}

func BenchmarkDo(b *testing.B) {
	var p Pool
	for b.Loop() {
		p.Do(func() {})
	}
}
