package clickstream

import (
	"sync"
	"testing"
	"testing/synctest"

	"github.com/terselink/terse/internal/clicks"
)

// TestTotals: what was only counted, for the spool was full, arrives with its weight and as clicks of people.
func TestTotals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		remote, e := newFake(), newEngine()
		var mu sync.Mutex
		weights := map[int]int{} // rows by weight
		e.meets = func(ev *clicks.Event) error {
			mu.Lock()
			defer mu.Unlock()
			weights[int(ev.Weight)]++
			if ev.Weight > 1 && (ev.Bot != clicks.Human || ev.Visitor != 0 || ev.Device != "" || ev.Link != 7 || ev.Node != "a") {
				t.Errorf("%+v", *ev)
			}
			return nil
		}
		dir := t.TempDir()
		full, err := clicks.Open(clicks.Options{Dir: dir, Node: "a", MaxBytes: 1}) // the first segment is more
		if err != nil {
			t.Fatal(err)
		}
		c := clicks.Click{Workspace: 1, Link: 7, Domain: "go.test", Code: []byte("abc"), UserAgent: []byte("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")}
		for i := range 70_000 {
			if !full.Capture(0, &c) {
				t.Fatal("the buffer is full")
			}
			if i%1_000 == 0 {
				if err := full.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := full.Close(); err != nil {
			t.Fatal(err)
		}
		a := &node{name: "a", dir: dir}
		a.open(t, remote, 0)
		t.Cleanup(func() { a.close(t) })
		serve(t, e, remote, never)
		a.visit(t, 3)
		until(t, "all are counted", func() bool { return e.check(t) == 5 })
		mu.Lock()
		defer mu.Unlock()
		if weights[65_535] != 1 || weights[4_465] != 1 || weights[1] != 3 {
			t.Errorf("rows by weight: %v", weights)
		}
	})
}
