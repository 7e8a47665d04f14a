package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/sleep"
)

// clickBook is what visitors know of every single click: each request has a number, which the record keeps as
// utm_content. It decides which clicks are lost and which are there twice.
type clickBook struct {
	mu     sync.Mutex
	visits []bookedVisit // by number
	shares unavailable
	faults []string
}

// bookedVisit is one request.
type bookedVisit struct {
	answered time.Time     // zero: no redirect was received
	took     time.Duration // from the request to its answer
	killed   time.Time     // of the kill that came next; zero: an orderly end, or none yet
	counted  int           // how often it is in the record
}

// send books a request and returns its number.
func (b *clickBook) send() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.visits = append(b.visits, bookedVisit{})
	return len(b.visits) - 1
}

// answer notes that the redirect of a request was received.
func (b *clickBook) answer(n int, at time.Time, took time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.visits[n].answered, b.visits[n].took = at, took
}

// status notes what a visit was answered with.
func (b *clickBook) status(status int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shares.count(status)
}

// served fails the test if visits of a server with an embedded store were 503 other than by accident.
func (b *clickBook) served(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	t.Logf("%d of %d answers were 503", b.shares.late, b.shares.visits)
	if b.shares.tooMany() {
		t.Errorf("%d of %d answers were 503", b.shares.late, b.shares.visits)
	}
}

// killed notes that the server was killed at a time, after the visits booked from number from on.
func (b *clickBook) killed(from int, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.visits[from:] {
		b.visits[from+i].killed = at
	}
}

// size returns how many requests are booked.
func (b *clickBook) size() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.visits)
}

// answers returns how many requests were answered of those that are booked from a number on.
func (b *clickBook) answers(from int) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.visits[from:] {
		if !b.visits[from+i].answered.IsZero() {
			n++
		}
	}
	return n
}

func (b *clickBook) fault(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.faults) < 20 {
		b.faults = append(b.faults, fmt.Sprintf(format, args...))
	}
}

// count notes a row of the record.
func (b *clickBook) count(utmContent string) {
	n, err := strconv.Atoi(strings.TrimPrefix(utmContent, "n"))
	if err != nil || n < 0 || n >= b.size() {
		b.fault("a row of the record has utm_content %q, which nobody sent", utmContent)
		return
	}
	b.mu.Lock()
	b.visits[n].counted++
	b.mu.Unlock()
}

// verdict sums up what became of the clicks.
type verdict struct {
	sent, answered, counted, twice int
	lost                           int           // answered, and not counted
	oldest                         time.Duration // between the answer of a lost click and the kill, the longest
	late                           int           // of lost: answered more than clicksBound before the kill
	stray                          int           // of lost: no kill followed them
	prompt                         int           // of lost: their answers came within the wait for the disk
}

// judge compares what was answered with what is counted. Within promptly a redirect whose click waits for the disk
// is never answered before it is synced.
func (b *clickBook) judge(promptly time.Duration) (v verdict) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.visits {
		c := &b.visits[i]
		v.sent++
		v.counted += c.counted
		if c.counted > 1 {
			v.twice++
		}
		if c.answered.IsZero() {
			continue
		}
		v.answered++
		if c.counted > 0 {
			continue
		}
		v.lost++
		if c.took < promptly {
			v.prompt++
		}
		if c.killed.IsZero() {
			v.stray++
			continue
		}
		age := c.killed.Sub(c.answered)
		v.oldest = max(v.oldest, age)
		if age > clicksBound {
			v.late++
		}
	}
	return v
}

func (v verdict) String() string {
	return fmt.Sprintf("%d clicks sent, %d answered, %d counted, %d twice, %d lost (the oldest was answered %v before its kill, %d more than %v)",
		v.sent, v.answered, v.counted, v.twice, v.lost, v.oldest.Round(100*time.Microsecond), v.late, clicksBound)
}

// crowd lets visitors follow links until ctx ends, each at most every pace, and books every click.
func (b *clickBook) crowd(ctx context.Context, s *proc.Server, paths []string, visitors int, pace time.Duration) *sync.WaitGroup {
	var wg sync.WaitGroup
	for w := range visitors {
		wg.Go(func() {
			v := newVisitor(s, "User-Agent", agentDesktop)
			defer v.close()
			tick := time.NewTicker(pace)
			defer tick.Stop()
			for i := w; ctx.Err() == nil; i++ {
				n, sent := b.send(), time.Now()
				status, _, err := v.visit("GET", paths[i%len(paths)]+"?utm_content=n"+strconv.Itoa(n))
				at := time.Now()
				if err == nil {
					b.status(status)
				}
				switch {
				case err != nil || status == http.StatusServiceUnavailable: // the server is down, or late with its store
					_ = sleep.For(ctx, 2*time.Millisecond)
				case status != 302:
					b.fault("visit of %s: status %d", paths[i%len(paths)], status)
					return
				default:
					b.answer(n, at, at.Sub(sent))
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	return &wg
}

// readRecord counts every row of the record, once all that was in the spool before the call is there.
func (b *clickBook) readRecord(t *testing.T, s *proc.Server) {
	t.Helper()
	c, began := newClient(t, s), time.Now()
	until(t, 5*time.Minute, "the spool is counted", func() bool {
		sum, err := c.Summary(t.Context(), client.Query{Period: "2d", All: true})
		// Clicks older than the lag are counted; 0: nothing was read yet.
		return err == nil && sum.LagMS > 0 && sum.LagMS < time.Since(began).Milliseconds()
	})
	if err := b.export(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// export reads all rows of clicks.
func (b *clickBook) export(ctx context.Context, s *proc.Server) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL("/api/v1/clicks?all=true&period=2d&format=ndjson"), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+proc.Key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("export of clicks: %s", resp.Status)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var row struct {
			UTMContent string `json:"utm_content"`
		}
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			return fmt.Errorf("export of clicks: %w", err)
		}
		b.count(row.UTMContent)
	}
	return lines.Err()
}

// TestClickBook proves that the judge can say guilty.
func TestClickBook(t *testing.T) {
	var b clickBook
	at := time.Now()
	for _, c := range []struct {
		before  time.Duration // answered before the kill; 0: not answered
		counted int
	}{{time.Second, 1}, {time.Second, 0}, {9 * time.Millisecond, 0}, {9 * time.Millisecond, 2}, {0, 0}, {0, 1}} {
		n := b.send()
		if c.before > 0 {
			b.answer(n, at.Add(-c.before), time.Millisecond)
		}
		for range c.counted {
			b.count("n" + strconv.Itoa(n))
		}
	}
	b.killed(0, at)
	b.answer(b.send(), at, time.Second) // nobody killed the server after it, and it is not there
	b.count("n7")
	b.count("other")
	want := verdict{sent: 7, answered: 5, counted: 4, twice: 1, lost: 3, oldest: time.Second, late: 1, stray: 1, prompt: 2}
	if got := b.judge(250 * time.Millisecond); got != want || len(b.faults) != 2 {
		t.Errorf("%+v, faults %q; want %+v and two faults", got, b.faults, want)
	}
}
