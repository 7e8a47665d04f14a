//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/terselink/terse/bench/openloop"
	"github.com/terselink/terse/e2e/proc"
)

// fill makes links by bulk and returns their codes in the order of rows.
func fill(ctx context.Context, s *proc.Server, rows uint64) ([][]byte, error) {
	codes := make([][]byte, 0, rows)
	var line []byte
	marker := []byte(`"code":"`)
	body := &rowReader{f: &ndjson, length: longDestination, rows: rows}
	_, err := sendBulk(ctx, s, &ndjson, body, -1, rows, func(p []byte) {
		for len(p) > 0 {
			end := bytes.IndexByte(p, '\n')
			if end < 0 {
				line = append(line, p...)
				return
			}
			line = append(line, p[:end]...)
			if _, rest, ok := bytes.Cut(line, marker); ok {
				c, _, _ := bytes.Cut(rest, []byte{'"'})
				codes = append(codes, bytes.Clone(c))
			}
			line, p = line[:0], p[end+1:]
		}
	})
	if err == nil && uint64(len(codes)) != rows {
		err = fmt.Errorf("%d codes in the answer for %d rows", len(codes), rows)
	}
	return codes, err
}

// writeCodes writes codes to a file for wrk.
func (b *bench) writeCodes(name string, codes [][]byte) (string, error) {
	path := filepath.Join(b.dir, name)
	return path, os.WriteFile(path, append(bytes.Join(codes, []byte{'\n'}), '\n'), 0o600)
}

// redirect measures throughput with every click captured, in turns with nginx and with a server that captures
// none, on the same cores; then one link only, and codes that do not exist.
func (b *bench) redirect(ctx context.Context) (err error) {
	rows := pick(b, uint64(1_000_000), 100_000)
	rounds := pick(b, 5, 2)
	each := pick(b, 5*time.Second, 2*time.Second)
	w, err := b.findWrk()
	if err != nil {
		return err
	}
	if w == nil {
		b.report.note("redirect throughput was SKIPPED: wrk is not installed (scripts/bench-deps installs it)")
		return nil
	}
	s, err := b.start(ctx, "redirect")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.remove("redirect"), b.remove("silent")) }()
	codes, err := fill(ctx, s, rows)
	if err != nil {
		return errors.Join(err, s.Stop())
	}
	host := s.Host
	ruled, err := fillRuled(ctx, s, 1000)
	if err != nil {
		return errors.Join(err, s.Stop())
	}
	// The server without capture works on a copy.
	if err := s.Stop(); err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(b.dir, "silent"), os.DirFS(filepath.Join(b.dir, "redirect"))); err != nil {
		return err
	}
	if s, err = proc.Start(ctx, proc.Options{Bin: b.bin, Data: filepath.Join(b.dir, "redirect"), RedirectAddr: s.RedirectAddr, ControlAddr: s.ControlAddr,
		Env: []string{"TERSE_REDIRECT_DRAIN_WAIT=0s", "TERSE_LOG_LEVEL=warn"}}); err != nil {
		return err
	}
	defer stop(s, &err)
	silent, err := b.start(ctx, "silent", "TERSE_CLICKS_ENABLED=false", "TERSE_ANALYTICS_ENABLED=false")
	if err != nil {
		return err
	}
	defer stop(silent, &err)

	r := rand.New(rand.NewPCG(1, 2))
	uniform := slices.Clone(codes)
	r.Shuffle(len(uniform), func(i, j int) { uniform[i], uniform[j] = uniform[j], uniform[i] })
	backwards := slices.Clone(uniform)
	slices.Reverse(backwards)
	files := map[string]string{}
	for name, list := range map[string][][]byte{"uniform": uniform, "backwards": backwards, "hot": codes[:2], "ruled": ruled, "unknown": unknownCodes(r, pick(b, 500_000, 100_000))} {
		if files[name], err = b.writeCodes(name+".codes", list); err != nil {
			return err
		}
	}
	behind, err := newPending(ctx, s)
	if err != nil {
		return err
	}
	if err := checkSample(ctx, s, host, codes, r); err != nil {
		return err
	}
	var peer *nginx
	if path := findNginx(); path == "" {
		b.report.note("the comparison with nginx was SKIPPED: it is not installed (scripts/bench-deps installs it)")
	} else {
		if peer, err = b.startNginx(path); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, peer.stop(), b.remove("nginx")) }()
	}

	cost := map[string][]float64{} // microseconds of processor time an answer
	load := func(what, addr, codes string, d time.Duration) (float64, error) {
		var pids []int
		switch {
		case addr == s.RedirectAddr:
			pids = []int{s.PID()}
		case addr == silent.RedirectAddr:
			pids = []int{silent.PID()}
		default:
			pids = proc.Children(peer.cmd.Process.Pid)
		}
		before, err := processorSeconds(pids)
		if err != nil {
			return 0, err
		}
		got, err := w.run(ctx, addr, files[codes], host, d)
		if err != nil {
			return 0, err
		}
		after, err := processorSeconds(pids)
		if err != nil {
			return 0, err
		}
		cost[what] = append(cost[what], (after-before)*1e6/got.answers)
		if wrong := got.broken + got.status; wrong > 0 && codes != "unknown" {
			b.report.note("%s: %d requests of wrk failed, %d answers were errors", what, got.broken, got.status)
		}
		b.say("redirect: %-24s %s", what, amount(got.rate, "req/s"))
		return got.rate, nil
	}
	// The analytics process still works on the clicks when a load has ended; the next one waits for it,
	// lest nginx pays for our clicks. During the loads it competes for the cores as in use.
	settle := func() error { return b.settle(ctx, behind) }

	// Until every link was asked for once, some of the time goes into reading the store. Every load begins with the first
	// link of its file: a second one from the end reaches those that the first has not.
	first := pick(b, 25*time.Second, 5*time.Second)
	cold, err := load("every link for the first time", s.RedirectAddr, "uniform", first)
	if err != nil {
		return err
	}
	if _, err := load("the same, no capture", silent.RedirectAddr, "uniform", first); err != nil {
		return err
	}
	for what, server := range map[string]*proc.Server{"the rest of them": s, "the rest, no capture": silent} {
		err := warm(ctx, server, func() error {
			_, err := load(what, server.RedirectAddr, "backwards", first)
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := settle(); err != nil {
		return err
	}
	var ours, theirs, quiet, hot, unknown, rules []float64
	var scanned, reads, scanGrowth float64 // requests for unknown codes, reads of the store for them, bytes
	take := func(to *[]float64, what, addr, codes string) error {
		rate, err := load(what, addr, codes, each)
		if err != nil {
			return err
		}
		*to = append(*to, rate)
		return settle()
	}
	for round := range rounds {
		if peer != nil {
			if err := take(&theirs, "nginx", peer.addr, "uniform"); err != nil {
				return err
			}
		}
		if err := take(&ours, "terse", s.RedirectAddr, "uniform"); err != nil {
			return err
		}
		if err := take(&quiet, "terse, no capture", silent.RedirectAddr, "uniform"); err != nil {
			return err
		}
		if round < 2 {
			if err := take(&hot, "terse, one link a thread", s.RedirectAddr, "hot"); err != nil {
				return err
			}
			before, err := metrics(ctx, s)
			if err != nil {
				return err
			}
			rss, err := s.Memory()
			if err != nil {
				return err
			}
			if err := take(&unknown, "terse, unknown codes", s.RedirectAddr, "unknown"); err != nil {
				return err
			}
			after, err := metrics(ctx, s)
			if err != nil {
				return err
			}
			grown, err := s.Memory()
			if err != nil {
				return err
			}
			scanned += after["terse_redirect_requests_total"] - before["terse_redirect_requests_total"]
			reads += after["terse_redirect_loads_total"] - before["terse_redirect_loads_total"]
			scanGrowth = max(scanGrowth, float64(grown.Resident-rss.Resident))
			if err := take(&rules, "terse, links with 10 rules", s.RedirectAddr, "ruled"); err != nil {
				return err
			}
		}
	}
	if peer != nil {
		b.report.measured("redirect", ratio(ours, theirs), "terse %s, nginx %s (%d rounds in turns, medians; the ratio of each round)",
			amount(median(ours), "req/s"), amount(median(theirs), "req/s"), rounds)
	}
	b.report.measured("capture", ratio(ours, quiet), "without capture %s", amount(median(quiet), "req/s"))
	b.report.detail("redirect", fmt.Sprintf("%d links, uniform, warm", rows), "%s median, %s to %s", amount(median(ours), "req/s"), amount(slices.Min(ours), "req/s"), amount(slices.Max(ours), "req/s"))
	b.report.detail("redirect", "the same, first time for every link", "%s", amount(cold, "req/s"))
	b.report.detail("redirect", "one link a thread gets everything", "%s, %.2f x uniform (bar 0.9 x)", amount(median(hot), "req/s"), ratio(hot, ours))
	b.report.detail("redirect", "codes that do not exist (404)", "%s; %.0f of them: %.3f reads of the store per 1,000 (bar 1), memory %+.0f MB", amount(median(unknown), "req/s"), scanned, reads/scanned*1000, scanGrowth/1e6)
	b.report.detail("redirect", "1000 links with 10 rules each", "%s, %s nginx (bar 0.7 x)", amount(median(rules), "req/s"), beside(rules, theirs))
	for _, what := range []string{"nginx", "terse", "terse, no capture", "terse, one link a thread", "terse, unknown codes", "terse, links with 10 rules"} {
		if len(cost[what]) > 0 {
			b.report.detail("redirect", "processor time of an answer, "+what, "%.1f µs, without wrk and the analytics process", median(cost[what]))
		}
	}
	return nil
}

// warm repeats a load until it reads nearly nothing from the store, a few times at most.
func warm(ctx context.Context, s *proc.Server, load func() error) error {
	for range 4 {
		before, err := metrics(ctx, s)
		if err != nil {
			return err
		}
		if err := load(); err != nil {
			return err
		}
		after, err := metrics(ctx, s)
		if err != nil {
			return err
		}
		grown := func(name string) float64 { return after[name] - before[name] }
		if grown("terse_redirect_loads_total") < grown("terse_redirect_requests_total")/100 {
			return nil
		}
	}
	return nil
}

// beside returns the ratio to a peer that may be absent.
func beside(ours, theirs []float64) string {
	if len(theirs) == 0 {
		return "without"
	}
	return fmt.Sprintf("%.2f x", ratio(ours, theirs))
}

// ratio returns the median of a round's ratios: rounds that are next to each other had the same machine. Of the
// longer list only the first rounds count.
func ratio(a, b []float64) float64 {
	r := make([]float64, min(len(a), len(b)))
	for i := range r {
		r[i] = a[i] / b[i]
	}
	return median(r)
}

// processorSeconds adds up the processor time of some processes.
func processorSeconds(pids []int) (sum float64, err error) {
	for _, pid := range pids {
		v, err := proc.ProcessorSeconds(pid)
		if err != nil {
			return 0, err
		}
		sum += v
	}
	return sum, nil
}

// pending is how far the count of clicks is behind their capture.
type pending struct {
	s    *proc.Server
	base float64 // clicks that were counted before this process captured any
}

func newPending(ctx context.Context, s *proc.Server) (*pending, error) {
	m, err := metrics(ctx, s)
	return &pending{s: s, base: m["terse_analytics_clicks"] - m["terse_clicks_captured_total"]}, err
}

// settle waits until the analytics process has counted what was captured, and notes what was not.
func (b *bench) settle(ctx context.Context, p *pending) error {
	began := time.Now()
	for {
		m, err := metrics(ctx, p.s)
		if err != nil {
			return err
		}
		dropped := m["terse_clicks_dropped_total"]
		left := m["terse_clicks_captured_total"] - dropped - (m["terse_analytics_clicks"] - p.base)
		if left <= 0 {
			if dropped > 0 {
				b.report.note("%.0f clicks were dropped so far", dropped)
			}
			return nil
		}
		if time.Since(began) > time.Minute {
			b.report.note("a minute after a load %.0f clicks were not counted", left)
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// metrics reads the metrics of a server, those with labels added up.
func metrics(ctx context.Context, s *proc.Server) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", s.URL("/metrics"), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	m := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		name, _, _ = strings.Cut(name, "{")
		v, err := strconv.ParseFloat(value[strings.LastIndexByte(value, ' ')+1:], 64)
		if err != nil {
			continue // a label with a space: none of those that are looked at
		}
		m[name] += v
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	return m, nil
}

// unknownCodes returns codes of the generated shape, of which one in millions may exist.
func unknownCodes(r *rand.Rand, n int) [][]byte {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	codes := make([][]byte, n)
	for i := range codes {
		codes[i] = make([]byte, 7)
		for j := range codes[i] {
			codes[i][j] = digits[r.IntN(len(digits))]
		}
	}
	return codes
}

// checkSample proves that the server redirects right before it is timed.
func checkSample(ctx context.Context, s *proc.Server, host string, codes [][]byte, r *rand.Rand) error {
	targets := linkTargets(host, codes, r, 2000)
	list, err := openVisitors(ctx, s.RedirectAddr, 1)
	if err != nil {
		return err
	}
	defer closeVisitors(list)
	for i := range targets {
		t := &targets[i]
		status, location, err := list[0].askPatiently(t.Request)
		if err != nil || status != t.Status || location != string(t.Location) {
			return errors.Join(fmt.Errorf("redirect %d: %d to %q, want %d to %q", i, status, location, t.Status, t.Location), err)
		}
	}
	return nil
}

// linkTargets prepares requests for n random links; they know where each leads.
func linkTargets(host string, codes [][]byte, r *rand.Rand, n int) []openloop.Target {
	targets := make([]openloop.Target, n)
	for i := range targets {
		row := r.IntN(len(codes))
		targets[i] = openloop.Target{
			Request: fmt.Appendf(nil, "GET /%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "+
				"Chrome/130.0.0.0 Safari/537.36\r\nAccept: text/html\r\nAccept-Language: de-DE,de;q=0.9\r\n\r\n", codes[row], host),
			Status: 302, Location: appendDestination(nil, uint64(row), longDestination),
		}
	}
	return targets
}
