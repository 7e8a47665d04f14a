//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/terselink/terse/bench/openloop"
	"github.com/terselink/terse/e2e/proc"
)

const browser = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"

// visitor is a connection of somebody who asks now and then.
type visitor struct {
	nc net.Conn
	br *bufio.Reader
}

// openVisitors opens n connections, some at a time.
func openVisitors(ctx context.Context, addr string, n int) (list []visitor, err error) {
	list = make([]visitor, n)
	var wg sync.WaitGroup
	errs := make([]error, 64)
	for w := range errs {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += len(errs) {
				var nc net.Conn
				if nc, errs[w] = (&net.Dialer{Timeout: time.Minute}).DialContext(ctx, "tcp", addr); errs[w] == nil {
					list[i] = visitor{nc, bufio.NewReaderSize(nc, 512)}
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		closeVisitors(list)
		return nil, fmt.Errorf("open %d connections: %w", n, err)
	}
	return list, nil
}

func closeVisitors(list []visitor) {
	for _, v := range list {
		if v.nc != nil {
			_ = v.nc.Close() // the run is over
		}
	}
}

// ask sends a request and reads the whole answer.
func (v *visitor) ask(request []byte) (status int, location string, err error) {
	_ = v.nc.SetDeadline(time.Now().Add(2 * time.Minute)) // fails on a closed connection only, which the next line tells
	if _, err := v.nc.Write(request); err != nil {
		return 0, "", err
	}
	resp, err := http.ReadResponse(v.br, nil)
	if err != nil {
		return 0, "", err
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0, "", err
	}
	return resp.StatusCode, resp.Header.Get("Location"), resp.Body.Close()
}

// askPatiently is ask, again while the answer is 503 (lateTries).
func (v *visitor) askPatiently(request []byte) (status int, location string, err error) {
	for try := 0; ; try++ {
		status, location, err = v.ask(request)
		if err != nil || status != http.StatusServiceUnavailable || try == lateTries {
			return status, location, err
		}
		<-time.After(latePause)
	}
}

func request(method, code, host string) []byte {
	return fmt.Appendf(nil, "%s /%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s\r\n\r\n", method, code, host, browser)
}

// once lets 1,000 visitors come at the same moment to a link that allows one click, again and again with a new one.
func (b *bench) once(ctx context.Context) (err error) {
	const visitors = 1000
	rounds := pick(b, 200, 20)
	s, err := b.start(ctx, "once")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.remove("once")) }()
	defer stop(s, &err)
	list, err := openVisitors(ctx, s.RedirectAddr, visitors)
	if err != nil {
		return err
	}
	defer func() { closeVisitors(list) }()
	exact, most, slowest := 0, int64(0), time.Duration(0)
	for round := range rounds {
		var link struct {
			Code string `json:"code"`
		}
		in := map[string]any{"destination": fmt.Sprintf("https://example.com/once/%d", round), "max_clicks": 1}
		if _, err := call(ctx, s, "POST", "/api/v1/links", in, &link); err != nil {
			return err
		}
		ask := request("GET", link.Code, s.Host)
		var through, refused atomic.Int64
		errs := make([]error, visitors)
		gate, took := make(chan struct{}), make([]time.Duration, visitors)
		var wg sync.WaitGroup
		for i := range list {
			wg.Go(func() {
				<-gate
				began := time.Now()
				status, location, err := list[i].ask(ask)
				took[i] = time.Since(began)
				switch {
				case err != nil:
					errs[i] = err
				case status == 302 && location == in["destination"]:
					through.Add(1)
				case status == 410:
					refused.Add(1)
				case status == http.StatusServiceUnavailable: // not known in time: the round is not exact
				default:
					errs[i] = fmt.Errorf("status %d to %q", status, location)
				}
			})
		}
		close(gate)
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if through.Load() == 1 && refused.Load() == visitors-1 {
			exact++
		}
		most = max(most, through.Load())
		for _, d := range took {
			slowest = max(slowest, d)
		}
	}
	b.say("once: %d of %d rounds let exactly one visitor through, at most %d", exact, rounds, most)
	b.report.measured("once", 100*float64(exact)/float64(rounds), "%d of %d rounds; at most %d redirects in one, slowest answer %s", exact, rounds, most, millis(slowest))
	return nil
}

// unknown asks for random codes of the generated shape, as somebody does who looks for links, and counts what the store is
// asked and how memory grows. HEAD, as such programs do: with pages the loopback interface would be measured.
func (b *bench) unknown(ctx context.Context) (err error) {
	const conns, depth = 32, 64
	total := pick(b, 10_000_000, 200_000)
	s, err := b.start(ctx, "unknown")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.remove("unknown")) }()
	defer stop(s, &err)
	if _, err := fill(ctx, s, pick(b, uint64(1_000_000), 100_000)); err != nil {
		return err
	}
	before, err := metrics(ctx, s)
	if err != nil {
		return err
	}
	var asked, known atomic.Int64
	sampleCtx, end := context.WithCancel(ctx)
	defer end()
	var base, peak int64
	var sampling sync.WaitGroup
	sampling.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-sampleCtx.Done():
				return
			}
			m, err := s.Memory()
			if err != nil {
				return
			}
			// The first tenth fills what is bounded: buffers, and the cache of codes that do not exist.
			if int(asked.Load()) < total/10 {
				base = max(base, m.Anon)
			} else {
				peak = max(peak, m.Anon)
			}
		}
	})
	began := time.Now()
	errs := make([]error, conns)
	var wg sync.WaitGroup
	for w := range conns {
		wg.Go(func() {
			errs[w] = probe(ctx, s, rand.New(rand.NewPCG(uint64(w), 9)), total/conns, depth, &asked, &known)
		})
	}
	wg.Wait()
	took := time.Since(began)
	end()
	sampling.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	after, err := metrics(ctx, s)
	if err != nil {
		return err
	}
	n := float64(asked.Load())
	reads := after["terse_redirect_loads_total"] - before["terse_redirect_loads_total"]
	grown := float64(max(peak-base, 0)) / 1e6
	b.say("unknown: %s codes at %s, %.0f reads of the store, %d exist, memory %.0f MB and %.1f MB more", amount(n, ""), amount(n/took.Seconds(), "req/s"), reads, known.Load(), float64(base)/1e6, grown)
	b.report.measured("unknown", 1000*reads/n, "%.0f reads for %.0f codes at %s (HEAD, pipelined); %d of them exist", reads, n, amount(n/took.Seconds(), "req/s"), known.Load())
	b.report.measured("unknownmem", grown, "%.0f MB after the first tenth", float64(base)/1e6)
	return nil
}

// probe asks for n random codes over one connection, depth at a time.
func probe(ctx context.Context, s *proc.Server, r *rand.Rand, n, depth int, asked, known *atomic.Int64) error {
	list, err := openVisitors(ctx, s.RedirectAddr, 1)
	if err != nil {
		return err
	}
	defer closeVisitors(list)
	nc, br := list[0].nc, bufio.NewReaderSize(list[0].nc, 64<<10)
	var batch []byte
	for n > 0 && ctx.Err() == nil {
		m := min(n, depth)
		batch = batch[:0]
		for _, code := range unknownCodes(r, m) {
			batch = append(batch, request("HEAD", string(code), s.Host)...)
		}
		_ = nc.SetDeadline(time.Now().Add(2 * time.Minute)) // as in ask
		if _, err := nc.Write(batch); err != nil {
			return err
		}
		for range m {
			line, err := br.ReadSlice('\n')
			if err != nil {
				return fmt.Errorf("read an answer: %w", err)
			}
			switch status := string(line[9:12]); status {
			case "404", "503": // 503: not known in time
			case "302":
				known.Add(1)
			default:
				return fmt.Errorf("an unknown code is answered with %s", status)
			}
			for len(line) > 2 {
				if line, err = br.ReadSlice('\n'); err != nil {
					return fmt.Errorf("read an answer: %w", err)
				}
			}
		}
		asked.Add(int64(m))
		n -= m
	}
	return ctx.Err()
}

// idle opens 10,000 connections that have asked once and are kept open, and measures what each takes and redirects
// at 12,000 a second beside them. At the end all of them are asked again: none was dropped.
func (b *bench) idle(ctx context.Context) (err error) {
	const rate = 12_000
	n := pick(b, 10_000, 2_000)
	s, err := b.start(ctx, "idle")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.remove("idle")) }()
	defer stop(s, &err)
	codes, err := fill(ctx, s, 100_000)
	if err != nil {
		return err
	}
	targets := linkTargets(s.Host, codes, rand.New(rand.NewPCG(11, 12)), 100_000)
	load := func(d time.Duration) (*openloop.Result, error) {
		return openloop.Run(ctx, openloop.Options{Addr: s.RedirectAddr, Rate: rate, Duration: d, Target: func(i uint64) *openloop.Target { return &targets[i%uint64(len(targets))] }})
	}
	// Memory has come to rest before the connections come.
	if _, err := load(pick(b, 10*time.Second, 2*time.Second)); err != nil {
		return err
	}
	before, err := atRest(ctx, s)
	if err != nil {
		return err
	}
	list, err := openVisitors(ctx, s.RedirectAddr, n)
	if err != nil {
		return err
	}
	defer func() { closeVisitors(list) }()
	askAll := func() (right int) {
		ask := request("GET", string(codes[0]), s.Host)
		for i := range list {
			if status, _, err := list[i].ask(ask); err == nil && status == 302 {
				right++
			}
		}
		return right
	}
	askAll()
	after, err := atRest(ctx, s)
	if err != nil {
		return err
	}
	each := float64(max(after-before, 0)) / float64(n)
	res, err := load(pick(b, 15*time.Second, 4*time.Second))
	if err != nil {
		return err
	}
	right := askAll()
	p99 := res.Latency.Quantile(0.99)
	b.say("idle: %d connections, %.0f B each; p99 %s beside them; %d answer afterwards", n, each, millis(p99), right)
	b.report.measured("idle", each, "%d connections that have asked once: %.0f MB before, %.0f MB with them; %d of them answer afterwards", n, float64(before)/1e6, float64(after)/1e6, right)
	b.report.measured("idlep99", p99.Seconds()*1e3, "p50 %s, max %s, %d errors of %d", millis(res.Latency.Quantile(0.5)), millis(res.Latency.Max()), res.Errors(), res.Offered)
	return nil
}

// atRest returns the least memory that the server has within three seconds without requests.
func atRest(ctx context.Context, s *proc.Server) (least int64, err error) {
	for i := range 12 {
		m, err := s.Memory()
		if err != nil {
			return 0, err
		}
		if i == 0 || m.Anon < least {
			least = m.Anon
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
	return least, nil
}
