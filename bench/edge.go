//go:build linux

package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/e2e/proc"
)

// edge measures the redirects of an edge, in turns with those of its control plane, which is a whole node: first for links
// that the edge has never seen, then for links that it has. All clicks are captured at both; those of the edge go to the
// control plane meanwhile, on the same cores.
func (b *bench) edge(ctx context.Context) (err error) {
	rows := pick(b, uint64(100_000), 10_000)
	each := pick(b, 5*time.Second, 2*time.Second)
	w, err := b.findWrk()
	if err != nil {
		return err
	}
	if w == nil {
		b.report.note("redirects of an edge were SKIPPED: wrk is not installed (scripts/bench-deps installs it)")
		return nil
	}
	up, err := b.start(ctx, "upstream")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.remove("upstream"), b.remove("edge")) }()
	defer stop(up, &err)
	codes, err := fill(ctx, up, rows)
	if err != nil {
		return err
	}
	c, err := client.New(client.Options{Server: up.URL(""), Key: proc.Key})
	if err != nil {
		return err
	}
	k, err := c.CreateKey(ctx, client.NewKey{Name: "edge", Scopes: []string{"edge:use"}})
	if err != nil {
		return err
	}
	edge, err := proc.Start(ctx, proc.Options{
		Bin: b.bin, Data: filepath.Join(b.dir, "edge"), Args: []string{"--role", "redirect", "--upstream", up.URL("")},
		Env: []string{"TERSE_UPSTREAM_KEY=" + k.Secret, "TERSE_REDIRECT_DRAIN_WAIT=0s", "TERSE_LOG_LEVEL=warn"},
	})
	if err != nil {
		return err
	}
	defer stop(edge, &err)
	r := rand.New(rand.NewPCG(1, 2))
	if err := checkSample(ctx, edge, up.Host, codes, r); err != nil {
		return err
	}
	r.Shuffle(len(codes), func(i, j int) { codes[i], codes[j] = codes[j], codes[i] })
	file, err := b.writeCodes("edge.codes", codes)
	if err != nil {
		return err
	}
	load := func(what string, s *proc.Server, d time.Duration) (float64, error) {
		got, err := w.run(ctx, s.RedirectAddr, file, up.Host, d)
		if err != nil {
			return 0, err
		}
		if wrong := got.broken + got.status; wrong > 0 {
			b.report.note("%s: %d requests of wrk failed, %d answers were errors", what, got.broken, got.status)
		}
		b.say("edge: %-28s %s", what, amount(got.rate, "req/s"))
		return got.rate, nil
	}
	first, err := load("links it has never seen", edge, pick(b, 20*time.Second, 5*time.Second))
	if err != nil {
		return err
	}
	if _, err := load("the control plane, warming", up, each); err != nil {
		return err
	}
	var ours, theirs []float64
	for range pick(b, 3, 1) {
		for _, turn := range []struct {
			to   *[]float64
			what string
			s    *proc.Server
		}{{&theirs, "the control plane", up}, {&ours, "the edge", edge}} {
			rate, err := load(turn.what, turn.s, each)
			if err != nil {
				return err
			}
			*turn.to = append(*turn.to, rate)
		}
	}
	b.report.detail("edge", "links that it has", "%s median, %.2f x its control plane (%s), in turns", amount(median(ours), "req/s"), ratio(ours, theirs), amount(median(theirs), "req/s"))
	b.report.detail("edge", "from the start, every link asked of the control plane once", "%s, %d links", amount(first, "req/s"), rows)
	return nil
}
