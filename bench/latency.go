//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/terselink/terse/bench/openloop"
	"github.com/terselink/terse/client"
	"github.com/terselink/terse/e2e/proc"
)

// latency measures redirects at a fixed rate of 12,000 a second over 64 connections, with every click captured,
// and nginx at the same rate.
func (b *bench) latency(ctx context.Context) (err error) {
	const rate = 12_000
	d := pick(b, 20*time.Second, 4*time.Second)
	s, err := b.start(ctx, "latency")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.remove("latency")) }()
	defer stop(s, &err)
	codes, err := fill(ctx, s, pick(b, uint64(1_000_000), 100_000))
	if err != nil {
		return err
	}
	targets := linkTargets(s.Host, codes, rand.New(rand.NewPCG(3, 4)), 200_000)
	measure := func(name, addr string, targets []openloop.Target) (*openloop.Result, error) {
		o := openloop.Options{Addr: addr, Rate: rate, Duration: 2 * time.Second, Target: func(i uint64) *openloop.Target { return &targets[i%uint64(len(targets))] }}
		if _, err := openloop.Run(ctx, o); err != nil { // warm
			return nil, err
		}
		o.Duration = d
		res, err := openloop.Run(ctx, o)
		if err != nil {
			return nil, err
		}
		text := fmt.Sprintf("p50 %s, p90 %s, p99 %s, p99.9 %s, max %s; %d errors of %d", millis(res.Latency.Quantile(0.5)), millis(res.Latency.Quantile(0.9)),
			millis(res.Latency.Quantile(0.99)), millis(res.Latency.Quantile(0.999)), millis(res.Latency.Max()), res.Errors(), res.Offered)
		b.say("latency: %s: %s", name, text)
		b.report.detail("latency", name+", from the moment a request was due", "%s", text)
		b.report.detail("latency", name+", from the moment it was written", "p50 %s, p99 %s, max %s",
			millis(res.Service.Quantile(0.5)), millis(res.Service.Quantile(0.99)), millis(res.Service.Max()))
		for _, f := range res.Faults {
			b.report.note("latency, %s: %s", name, f)
		}
		return res, nil
	}
	ours, err := measure("terse", s.RedirectAddr, targets)
	if err != nil {
		return err
	}
	beside := "nginx is not installed"
	if path := findNginx(); path != "" {
		peer, err := b.startNginx(path)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, peer.stop(), b.remove("nginx")) }()
		plain := slices.Clone(targets)
		for i := range plain {
			plain[i].Location = []byte(nginxDestination())
		}
		theirs, err := measure("nginx", peer.addr, plain)
		if err != nil {
			return err
		}
		beside = fmt.Sprintf("nginx %s", millis(theirs.Latency.Quantile(0.99)))
	}
	b.report.measured("latency", ours.Latency.Quantile(0.99).Seconds()*1e3, "%s; terse p50 %s, max %s, %d errors", beside,
		millis(ours.Latency.Quantile(0.5)), millis(ours.Latency.Max()), ours.Errors())
	return nil
}

// busy measures redirects at 12,000 a second on a server that does nothing else, and then while one bulk request
// follows another.
func (b *bench) busy(ctx context.Context) (err error) {
	const rate = 12_000
	d := pick(b, 10*time.Second, 4*time.Second)
	s, err := b.start(ctx, "busy")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.remove("busy")) }()
	defer stop(s, &err)
	codes, err := fill(ctx, s, pick(b, uint64(1_000_000), 100_000))
	if err != nil {
		return err
	}
	targets := linkTargets(s.Host, codes, rand.New(rand.NewPCG(7, 8)), 200_000)
	measure := func(d time.Duration) (*openloop.Result, error) {
		return openloop.Run(ctx, openloop.Options{Addr: s.RedirectAddr, Rate: rate, Duration: d, Target: func(i uint64) *openloop.Target { return &targets[i%uint64(len(targets))] }})
	}
	if _, err := measure(2 * time.Second); err != nil { // warm
		return err
	}
	before, err := measure(d)
	if err != nil {
		return err
	}
	const rows = 200_000
	body := ndjson.body(rows, shortDestination)
	bulkCtx, end := context.WithCancel(ctx)
	defer end()
	var links atomic.Uint64
	var bulkErr error
	var wg sync.WaitGroup
	wg.Go(func() {
		for bulkCtx.Err() == nil {
			if _, err := sendBulk(bulkCtx, s, &ndjson, bytes.NewReader(body), int64(len(body)), rows, nil); err != nil && bulkCtx.Err() == nil {
				bulkErr = err
				return
			}
			links.Add(rows)
		}
	})
	began := time.Now()
	during, err := measure(d)
	made := float64(links.Load()) / time.Since(began).Seconds()
	end()
	wg.Wait()
	if err = errors.Join(err, bulkErr); err != nil {
		return err
	}
	was, is := before.Latency.Quantile(0.99), during.Latency.Quantile(0.99)
	b.say("busy: p99 %s alone, %s beside %s", millis(was), millis(is), amount(made, "links/s"))
	b.report.measured("busy", is.Seconds()/was.Seconds(), "p99 %s alone, %s beside a bulk of %s; %d errors", millis(was), millis(is), amount(made, "links/s"), during.Errors())
	for what, res := range map[string]*openloop.Result{"alone": before, "beside bulk": during} {
		b.report.detail("busy", what, "p50 %s, p90 %s, p99 %s, p99.9 %s, max %s; %d errors of %d", millis(res.Latency.Quantile(0.5)), millis(res.Latency.Quantile(0.9)),
			millis(res.Latency.Quantile(0.99)), millis(res.Latency.Quantile(0.999)), millis(res.Latency.Max()), res.Errors(), res.Offered)
	}
	return nil
}

func millis(d time.Duration) string { return fmt.Sprintf("%.2f ms", d.Seconds()*1e3) }

// clicks measures how long a click takes until a query counts it: one on an idle server, and while
// 50,000 come in a second for two minutes.
func (b *bench) clicks(ctx context.Context) (err error) {
	const rate = 50_000
	d := pick(b, 2*time.Minute, 4*time.Second)
	s, err := b.start(ctx, "clicks")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.remove("clicks")) }()
	defer stop(s, &err)
	c, err := client.New(client.Options{Server: s.URL(""), Key: proc.Key})
	if err != nil {
		return err
	}
	codes, err := fill(ctx, s, 100_000)
	if err != nil {
		return err
	}
	targets := linkTargets(s.Host, codes, rand.New(rand.NewPCG(5, 6)), 100_000)
	target := func(i uint64) *openloop.Target { return &targets[i%uint64(len(targets))] }
	count := func() (uint64, error) {
		sum, err := c.Summary(ctx, client.Query{Period: "24h"})
		if err != nil {
			return 0, err
		}
		return uint64(sum.Total), nil
	}
	// waitFor returns when n clicks are counted, and how many are.
	waitFor := func(n uint64, atMost time.Duration) (uint64, error) {
		for began := time.Now(); ; {
			got, err := count()
			if err != nil {
				return 0, err
			}
			if got >= n || time.Since(began) > atMost {
				return got, nil
			}
			select {
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	base := uint64(0)
	var alone []float64
	for range pick(b, 5, 2) {
		res, err := openloop.Run(ctx, openloop.Options{Addr: s.RedirectAddr, Rate: 100, Duration: 10 * time.Millisecond, Conns: 1, Target: target})
		if err != nil {
			return err
		}
		began := time.Now()
		base += res.Right
		got, err := waitFor(base, time.Minute)
		if err != nil {
			return err
		}
		if res.Right != 1 || got != base {
			b.report.note("clicks: one visit had %d right answers, and after a minute %d clicks are counted of %d", res.Right, got, base)
			continue
		}
		alone = append(alone, time.Since(began).Seconds())
	}
	b.report.detail("clicks", "one click on an idle server until it is counted", "%.2f s median, %.2f s at most", median(alone), slices.Max(append(alone, 0)))

	// While the load runs, one goroutine notes how many answers there were at a time, another how many are
	// counted. The age of a count is how long ago there were as many answers.
	type sample struct {
		at time.Time
		n  uint64
	}
	var progress openloop.Progress
	var mu sync.Mutex
	answered := []sample{{time.Now(), 0}}
	loadCtx, loadEnd := context.WithCancel(ctx)
	defer loadEnd()
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for loadCtx.Err() == nil {
			mu.Lock()
			answered = append(answered, sample{time.Now(), progress.Answered.Load()})
			mu.Unlock()
			select {
			case <-tick.C:
			case <-loadCtx.Done():
			}
		}
	})
	var ages []float64
	var countErr error
	wg.Go(func() {
		tick := time.NewTicker(pick(b, time.Second, 250*time.Millisecond)) // a count looks at every click so far
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-loadCtx.Done():
				return
			}
			n, err := count()
			if err != nil {
				countErr = err
				continue
			}
			now := time.Now()
			mu.Lock()
			i, _ := slices.BinarySearchFunc(answered, n-base, func(s sample, n uint64) int {
				if s.n > n {
					return 1
				}
				return -1 // the last moment with no more answers than are counted
			})
			at := answered[max(i-1, 0)].at
			mu.Unlock()
			ages = append(ages, now.Sub(at).Seconds())
		}
	})
	res, err := openloop.Run(ctx, openloop.Options{Addr: s.RedirectAddr, Rate: rate, Duration: d, Conns: 128, Progress: &progress, Target: target})
	loadEnd()
	wg.Wait()
	if err != nil {
		return err
	}
	began := time.Now()
	total, err := waitFor(base+res.Right, 30*time.Second)
	if err != nil {
		return err
	}
	drained := time.Since(began)
	if countErr != nil {
		b.report.note("clicks: a count failed during the load: %v", countErr)
	}
	got := float64(res.Right) / res.Elapsed.Seconds()
	m, err := metrics(ctx, s)
	if err != nil {
		return err
	}
	dropped := m["terse_clicks_dropped_total"]
	if total != base+res.Right {
		b.report.note("clicks: %d redirects were answered, %d are counted", base+res.Right, total)
	}
	if got < rate*0.98 {
		b.report.note("clicks: generator and server together managed %s of the %s offered; the lag is of that rate", amount(got, "req/s"), amount(rate, "req/s"))
	}
	b.say("clicks: %s, age of the count %.2f s median, %.2f s at most, all counted %.2f s after the last", amount(got, "req/s"), median(ages), slices.Max(append(ages, 0)), drained.Seconds())
	b.report.measured("lag", slices.Max(append(ages, drained.Seconds())), "at most, at %s; median %.2f s; p99 of redirects meanwhile %s",
		amount(got, "clicks/s"), median(ages), millis(res.Latency.Quantile(0.99)))
	b.report.detail("clicks", fmt.Sprintf("%.0f s at %s", res.Elapsed.Seconds(), amount(got, "clicks/s")), "%d answered, %d counted, %.0f dropped; p50 of redirects %s", base+res.Right, total, dropped,
		millis(res.Latency.Quantile(0.5)))
	b.report.detail("clicks", "the last of them counted after", "%.2f s", drained.Seconds())
	return nil
}
