//go:build linux

// Command bench measures Terse against the budgets of its design, and prints them
// as one table: the bar, the goal, what this run measured, and beside it what a peer or the raw
// engine did in the same run on the same cores.
//
//	go run ./bench            everything, about thirteen minutes
//	go run ./bench -quick     the same with less of everything, about five: a smoke test
//	go run ./bench -only bulk,ready
//
// The server is the real program in a process of its own, reached over loopback; generators and peers share
// its cores, so figures are lower than on a machine of its own. Throughput comes from closed loops (wrk),
// latency from an open one (package openloop). Nothing here passes or fails a build: a benchmark
// is read, not obeyed.
//
// It listens and connects on 127.0.0.1 only, writes below a temporary folder and bench/out, and ends only the
// processes that it started.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/terselink/terse/e2e/proc"
)

// bench is a run.
type bench struct {
	quick       bool
	panelClicks int    // clicks of the part panels in a full run
	panelDir    string // keeps them for the next run; "": made anew and removed
	bin         string
	dir         string
	report      *report
	log         io.Writer
	began       time.Time
}

// part is a group of measurements that share a set-up.
type part struct {
	name, what string
	run        func(*bench, context.Context) error
}

var parts = []part{
	{"codes", "short codes", (*bench).codes},
	{"bulk", "bulk requests, beside raw Pebble", (*bench).bulk},
	{"postgres", "bulk requests on PostgreSQL, beside raw COPY", (*bench).postgres},
	{"campaign", "rows of values, repointing", (*bench).campaign},
	{"domains", "links over 300 domains", (*bench).manyDomains},
	{"job300", "a job over 300 domains", (*bench).job300},
	{"workers", "a job over one, two and four processes", (*bench).workers},
	{"dynamodb", "the DynamoDB store, beside its price", (*bench).dynamodb},
	{"memory", "memory while a long body streams in", (*bench).memory},
	{"ready", "disk and start with many links", (*bench).ready},
	{"redirect", "redirect throughput, beside nginx", (*bench).redirect},
	{"edge", "redirects of an edge, beside its control plane", (*bench).edge},
	{"latency", "redirect latency, open loop", (*bench).latency},
	{"idle", "10,000 idle connections beside the busy ones", (*bench).idle},
	{"once", "1,000 visitors at once for one click", (*bench).once},
	{"unknown", "a flood of codes that do not exist", (*bench).unknown},
	{"busy", "redirect latency while a bulk runs", (*bench).busy},
	{"clicks", "time from click to report", (*bench).clicks},
	{"panels", "what a dashboard asks, beside plain DuckDB", (*bench).panels},
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	quick := flag.Bool("quick", false, "less of everything: a smoke test of about five minutes")
	only := flag.String("only", "", "parts to run, separated by commas: "+strings.Join(names, ", "))
	panelClicks := flag.Int("panel-clicks", 10_000_000, "clicks of the part panels in a full run; 100,000,000 take about half an hour to make")
	panelDir := flag.String("panel-dir", "", "folder that keeps the clicks of the part panels: a later run with the same number asks again without making them")
	out := flag.String("out", "bench/out", "folder for the results as JSON")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	chosen := names
	if *only != "" {
		chosen = strings.Split(*only, ",")
		for _, name := range chosen {
			if !slices.Contains(names, name) {
				return fmt.Errorf("there is no part %q; there are %s", name, strings.Join(names, ", "))
			}
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// One more than the cores: the pacer of the open loop sleeps in the kernel and must not wait for a
	// processor of the Go scheduler when it wakes.
	runtime.GOMAXPROCS(runtime.NumCPU() + 1)

	b := &bench{quick: *quick, panelClicks: *panelClicks, panelDir: *panelDir, report: newReport(*quick), log: os.Stderr, began: time.Now()}
	if b.dir, err = os.MkdirTemp("", "terse-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	b.say("building terse")
	if b.bin, err = proc.Build(ctx, b.dir); err != nil {
		return err
	}
	var failed []error
	for _, p := range parts {
		if !slices.Contains(chosen, p.name) {
			continue
		}
		b.say("%s: %s", p.name, p.what)
		if err := p.run(b, ctx); err != nil {
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			b.say("%s failed: %v", p.name, err)
			b.report.note("%s failed: %v", p.name, err)
			failed = append(failed, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	b.report.Seconds = time.Since(b.began).Seconds()
	b.report.print(os.Stdout)
	path, err := b.report.save(*out)
	if err != nil {
		return err
	}
	b.say("results in %s", path)
	return errors.Join(failed...)
}

// say prints a line of progress.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.log, "%6.1fs  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

// pick returns the first number in a full run, the second in a quick one.
func pick[T any](b *bench, full, quick T) T {
	if b.quick {
		return quick
	}
	return full
}

// start starts a server on a folder below the run's own.
func (b *bench) start(ctx context.Context, name string, env ...string) (*proc.Server, error) {
	// All load comes from one address with one User-Agent: one visitor on many links, so every click would be a sweep's.
	always := []string{"TERSE_REDIRECT_DRAIN_WAIT=0s", "TERSE_LOG_LEVEL=warn", "TERSE_ANALYTICS_SWEEP_LINKS=0"}
	return proc.Start(ctx, proc.Options{
		Bin: b.bin, Data: filepath.Join(b.dir, name), Env: append(always, env...),
	})
}

// stop stops a server at the end of a part and joins its error.
func stop(s *proc.Server, err *error) {
	select {
	case <-s.Done():
		*err = errors.Join(*err, fmt.Errorf("the server ended by itself\n%s", s.Log()))
	default:
		*err = errors.Join(*err, s.Stop())
	}
}

// remove deletes a folder of the run that is not needed any more.
func (b *bench) remove(name string) error { return os.RemoveAll(filepath.Join(b.dir, name)) }
