package openloop

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(path string) []byte { return []byte("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n") }

// serve starts a server whose handler sees requests one by one on each connection.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestRun(t *testing.T) {
	var seen atomic.Uint64
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		w.Header().Set("Location", "/to"+r.URL.Path)
		w.WriteHeader(302)
	})
	targets := []*Target{
		{Request: get("/a"), Status: 302, Location: []byte("/to/a")},
		{Request: get("/b"), Status: 302, Location: []byte("/to/a")}, // wrong place
		{Request: get("/c"), Status: 404},                            // wrong status
		{Request: get("/d"), Status: 302},
	}
	var p Progress
	res, err := Run(t.Context(), Options{
		Addr: addr, Rate: 2000, Duration: 500 * time.Millisecond, Conns: 8, Timeout: time.Minute, Progress: &p,
		Target: func(i uint64) *Target { return targets[i%4] },
	})
	if err != nil {
		t.Fatal(err)
	}
	if res.Offered != 1000 || res.Right != 500 || res.Wrong != 500 || res.Failed != 0 || res.Unsent != 0 || seen.Load() != 1000 {
		t.Errorf("server saw %d: %+v", seen.Load(), res.Faults)
		t.Errorf("offered %d, right %d, wrong %d, failed %d, unsent %d", res.Offered, res.Right, res.Wrong, res.Failed, res.Unsent)
	}
	if res.Latency.Count() != 500 || res.Service.Count() != 500 || res.Latency.Quantile(1) < res.Service.Quantile(0) {
		t.Errorf("latency of %d, service of %d", res.Latency.Count(), res.Service.Count())
	}
	if res.Errors() != 500 || len(res.Faults) != maxFaults || p.Sent.Load() != 1000 || p.Answered.Load() != 500 {
		t.Errorf("%d errors, %d faults, %d sent, %d answered", res.Errors(), len(res.Faults), p.Sent.Load(), p.Answered.Load())
	}
	// The schedule is kept: 1,000 requests at 2,000 a second take no less than the last one's due time.
	if res.Elapsed < 499*time.Millisecond {
		t.Errorf("took %v", res.Elapsed)
	}
}

// TestStall proves that requests that were due while the server stood still count as slow,
// although they were not even sent then.
func TestStall(t *testing.T) {
	const stall = 300 * time.Millisecond
	released := make(chan struct{})
	var once sync.Once
	addr := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		once.Do(func() { time.AfterFunc(stall, func() { close(released) }) })
		<-released
	})
	target := &Target{Request: get("/"), Status: 200}
	res, err := Run(t.Context(), Options{
		Addr: addr, Rate: 1000, Duration: 400 * time.Millisecond, Conns: 2, Timeout: time.Minute, Target: func(uint64) *Target { return target },
	})
	if err != nil {
		t.Fatal(err)
	}
	if res.Right != 400 {
		t.Fatalf("right %d, %v", res.Right, res.Faults)
	}
	if res.Latency.Max() < stall-time.Millisecond {
		t.Errorf("the longest latency is %v, the server stood still for %v", res.Latency.Max(), stall)
	}
	// Of 300 requests due meanwhile at least half waited for half of it; only two were on their way.
	if got := res.Latency.Quantile(0.6); got < stall/4 {
		t.Errorf("the 60th percentile is %v: the stall is omitted", got)
	}
}

// TestBroken proves that every request is accounted for when the server closes, cuts and
// refuses connections.
func TestBroken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var n atomic.Uint64
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				for r := bufio.NewReader(c); ; {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					switch n.Add(1) % 10 {
					case 3: // cut instead of an answer
						return
					case 6: // an honest end
						fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
						return
					case 9: // an end that was not announced
						fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
						return
					}
					fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			})
		}
	})
	target := &Target{Request: get("/"), Status: 200}
	res, err := Run(t.Context(), Options{
		Addr: ln.Addr().String(), Rate: 2000, Duration: 500 * time.Millisecond, Conns: 16, Timeout: time.Minute,
		Target: func(uint64) *Target { return target },
	})
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	wg.Wait()
	if res.Right+res.Failed+res.Unsent != res.Offered || res.Wrong != 0 || res.Failed < 50 || res.Right < 500 {
		t.Errorf("offered %d, right %d, wrong %d, failed %d, unsent %d: %v", res.Offered, res.Right, res.Wrong, res.Failed, res.Unsent, res.Faults)
	}
	if _, err := Run(t.Context(), Options{Addr: ln.Addr().String(), Rate: 1, Duration: time.Second, Target: func(uint64) *Target { return target }}); err == nil {
		t.Error("a run against nobody began")
	}
}

// TestSlow proves that a request without an answer is given up, and that the run ends.
func TestSlow(t *testing.T) {
	hang := make(chan struct{})
	addr := serve(t, func(http.ResponseWriter, *http.Request) { <-hang })
	t.Cleanup(func() { close(hang) })
	target := &Target{Request: get("/"), Status: 200}
	o := Options{Addr: addr, Rate: 100, Duration: 100 * time.Millisecond, Conns: 2, Timeout: 100 * time.Millisecond, Target: func(uint64) *Target { return target }}
	res, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if res.Right != 0 || res.Errors() != 10 {
		t.Errorf("right %d, errors %d", res.Right, res.Errors())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if res, err = Run(ctx, o); err != nil || res.Right != 0 || res.Errors() != 10 {
		t.Errorf("cancelled: %v", err)
	}
}

func TestOptions(t *testing.T) {
	if _, err := Run(t.Context(), Options{Addr: "127.0.0.1:1"}); err == nil {
		t.Error("a run without rate, duration and target began")
	}
}
