//go:build linux

package redirect

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"testing"
	"time"
)

// TestAwayGoroutines: of the goroutines that a flood of first visits needs a bounded number is kept, those answer the next one, and
// none outlives the server (see TestMain).
func TestAwayGoroutines(t *testing.T) {
	w := newWorld(t, quiet)
	w.listen()
	loops := max(1, min(runtime.NumCPU(), runtime.GOMAXPROCS(0)))
	each := min(idleAways+64, 1000/loops) // the store is asked by 1024 at once at most
	visits := loops * each
	for i := range visits {
		w.link("go.example.com", fmt.Sprint("a", i), "https://example.com/")
		w.link("go.example.com", fmt.Sprint("b", i), "https://example.com/")
	}
	idle := func() (n int64) {
		for _, l := range w.server.loops {
			n += l.idleAways.Load()
		}
		return n
	}
	var conns []*rawConn
	for range visits {
		conns = append(conns, dial(t, w))
	}
	flood := func(prefix string) {
		t.Helper()
		hold := make(chan struct{})
		w.reader.mu.Lock()
		w.reader.hold = hold
		w.reader.mu.Unlock()
		before := w.reader.count()
		for i, c := range conns {
			_, _ = fmt.Fprintf(c.nc, "GET /%s%d HTTP/1.1\r\nHost: go.example.com\r\n\r\n", prefix, i)
		}
		await(t, "all are at the store", func() bool { return w.reader.count()-before == visits })
		close(hold)
		for _, c := range conns {
			res, err := http.ReadResponse(c.br, nil)
			if err != nil || res.StatusCode != 302 {
				t.Fatalf("%v, %v", res, err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
		}
		await(t, "as many are kept as may be", func() bool { return idle() == int64(loops*min(each, idleAways)) })
	}
	flood("a")
	flood("b")
}

// await waits for a condition.
func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for by := time.Now().Add(time.Minute); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(by) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
