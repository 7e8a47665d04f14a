package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/terselink/terse/client"
)

// Times between looks at the counters: of a bar, and of lines where there is no terminal.
const (
	barEvery  = 100 * time.Millisecond
	lineEvery = 5 * time.Second
)

// progress shows how far a bulk command is: a bar on a terminal, a line now and then elsewhere.
type progress struct {
	w      io.Writer
	now    func() time.Time
	start  time.Time
	in     *bulkInput
	rows   atomic.Uint64
	failed atomic.Uint64
	done   chan struct{}
	wg     sync.WaitGroup
	ended  time.Duration
}

// progress begins to show.
func (c *rowFlags) progress(s *session, in *bulkInput) *progress {
	p := &progress{w: s.Stderr, now: s.Now, start: s.Now(), in: in, done: make(chan struct{})}
	// Results on the same terminal would tear the bar apart.
	resultsShown := c.Output == "" && isTerminal(s.Stdout)
	switch {
	case c.Quiet || resultsShown:
	case isTerminal(s.Stderr):
		p.wg.Go(func() { p.drawBar(barEvery) })
	default:
		p.wg.Go(func() { p.printLines(lineEvery) })
	}
	return p
}

// row counts one result.
func (p *progress) row(failed bool) {
	p.rows.Add(1)
	if p.in.links {
		p.in.read.Add(1)
	}
	if failed {
		p.failed.Add(1)
	}
}

// stop ends showing and keeps the time.
func (p *progress) stop() {
	p.ended = p.now().Sub(p.start)
	close(p.done)
	p.wg.Wait()
}

func (p *progress) drawBar(every time.Duration) {
	container := mpb.New(mpb.WithOutput(p.w), mpb.WithWidth(40))
	bar := container.New(max(p.in.size, 1), mpb.BarStyle().Rbound("]"),
		mpb.BarRemoveOnComplete(),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + p.state(p.now().Sub(p.start)) })),
	)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			// Never quite full: what was sent is not answered yet.
			bar.SetCurrent(min(p.in.read.Load(), max(p.in.size, 1)*99/100))
		case <-p.done:
			bar.Abort(true)
			container.Wait()
			return
		}
	}
}

func (p *progress) printLines(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			fmt.Fprintln(p.w, p.state(p.now().Sub(p.start)))
		case <-p.done:
			return
		}
	}
}

// state is the counters in words.
func (p *progress) state(elapsed time.Duration) string {
	rows := p.rows.Load()
	parts := []string{count(rows) + " rows", count(perSecond(rows, elapsed)) + " rows/s"}
	if n := p.failed.Load(); n > 0 {
		parts = append(parts, count(n)+" failed")
	}
	if read := p.in.read.Load(); p.in.size > 0 && read > 0 && read < p.in.size {
		left := time.Duration(float64(elapsed) * float64(p.in.size-read) / float64(read))
		parts = append(parts, "ETA "+left.Round(time.Second).String())
	}
	return strings.Join(parts, ", ")
}

// summary prints what became of the rows.
func (p *progress) summary(sum client.BulkSummary) {
	rows := p.rows.Load()
	fmt.Fprintf(p.w, "%s rows in %.1f s (%s rows/s): %s created, %s reused, %s failed\n", count(rows), p.ended.Seconds(), count(perSecond(rows, p.ended)),
		count(sum.Created), count(sum.Reused), count(sum.Failed))
}

func perSecond(rows uint64, elapsed time.Duration) uint64 {
	return uint64(float64(rows) / max(elapsed.Seconds(), 1e-3))
}
