//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/sleep"
)

// workersDelays are how far away the database of the part workers is, each way: as in another region, and four times as far, where
// the processors of this machine are not what ends the scaling.
var workersDelays = []time.Duration{40 * time.Millisecond, 160 * time.Millisecond}

// workers measures how a job speeds up with the processes that take its chunks, where the database is not the limit: it is
// as far away as workersDelays say, so that each process waits most of the time. All of them share the cores of
// this machine with the database, which ends the scaling earlier than machines of their own would.
func (b *bench) workers(ctx context.Context) (err error) {
	database, stopDatabase, err := b.startPostgres(ctx)
	if err != nil {
		b.report.note("workers was SKIPPED: %v", err)
		return nil
	}
	defer func() { err = errors.Join(err, stopDatabase()) }()
	redis, stopRedis, err := b.startEngine(ctx, "redis")
	if err != nil {
		b.report.note("workers was SKIPPED: %v", err)
		return nil
	}
	defer func() { err = errors.Join(err, stopRedis()) }()
	u, err := url.Parse(database)
	if err != nil {
		return err
	}
	far, err := newFarProxy(u.Host)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, far.close()) }()
	u.Host = far.ln.Addr().String()
	env := []string{"TERSE_STORE_ENGINE=postgres", "TERSE_STORE_POSTGRES_URL=" + u.String(), "TERSE_REDIS_URL=" + redis, "TERSE_REDIS_PREFIX=bench", "TERSE_ANALYTICS_ENABLED=false"}
	home, err := b.start(ctx, "workers", env...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.remove("workers")) }()
	defer stop(home, &err)
	c, err := client.New(client.Options{Server: home.URL(""), Key: proc.Key})
	if err != nil {
		return err
	}
	processes := 1
	first := map[time.Duration]float64{} // rates of one process
	for _, n := range []int{1, 2, 4} {
		for ; processes < n; processes++ {
			name := fmt.Sprint("workers", processes)
			s, startErr := proc.Start(ctx, proc.Options{ // err is what the deferred calls below add to
				Bin: b.bin, Data: filepath.Join(b.dir, name), NoWait: true, Env: append([]string{"TERSE_ROLE=worker", "TERSE_LOG_LEVEL=warn"}, env...),
			})
			if startErr != nil {
				return startErr
			}
			defer func() { err = errors.Join(err, b.remove(name)) }()
			defer stop(s, &err)
		}
		for _, delay := range workersDelays {
			far.delay.Store(int64(delay))
			rate, busy, err := b.runWorkers(ctx, c, n, delay)
			if err != nil {
				return err
			}
			if n == 1 {
				first[delay] = rate
			}
			b.say("workers: %d processes, database %v away: %s, %.2f times one; %.0f %% of the processors busy", n, 2*delay, amount(rate, "rows/s"), rate/first[delay], 100*busy)
			b.report.detail("workers", fmt.Sprintf("a job over %d processes, database %v away", n, 2*delay), "%s, %.2f times one, %.0f %% of the processors busy", amount(rate, "rows/s"), rate/first[delay], 100*busy)
		}
	}
	return nil
}

// runWorkers waits until so many processes are there and runs a job.
func (b *bench) runWorkers(ctx context.Context, c *client.Client, processes int, delay time.Duration) (rate, busy float64, err error) {
	for {
		n := 0
		for node, err := range c.Nodes(ctx) {
			if err != nil {
				return 0, 0, err
			}
			if node.State == "alive" {
				n++
			}
		}
		if n == processes {
			break
		}
		if err := sleep.For(ctx, 100*time.Millisecond); err != nil {
			return 0, 0, err
		}
	}
	for round := range 2 { // the first leases codes and meets the others
		rows := pick(b, uint64(1_500_000), 300_000)
		if delay > workersDelays[0] {
			rows = pick(b, uint64(750_000), 150_000)
		}
		if round == 0 {
			if delay > workersDelays[0] {
				continue
			}
			rows = 100_000
		}
		upload, _, err := sendUpload(ctx, c, &ndjson, bytes.NewReader(ndjson.body(rows, shortDestination)))
		if err != nil {
			return 0, 0, err
		}
		idle := idleSeconds()
		began := time.Now()
		j, err := c.CreateJob(ctx, client.NewJob{Kind: "bulk", Source: client.JobSource{UploadID: upload}})
		if err != nil {
			return 0, 0, err
		}
		err = c.JobEvents(ctx, j.ID, func(now *client.Job) bool { j = now; return true })
		if err != nil {
			return 0, 0, err
		}
		took := time.Since(began).Seconds()
		if j.State != "done" || j.Created != rows {
			return 0, 0, fmt.Errorf("the job is %s with %d links of %d rows: %+v", j.State, j.Created, rows, j.Error)
		}
		rate, busy = float64(rows)/took, 1-(idleSeconds()-idle)/(took*float64(runtime.NumCPU()))
	}
	return rate, busy, nil
}

// farProxy passes bytes on to an address after a while, as a long line does: what follows is not held up by what went before.
type farProxy struct {
	ln    net.Listener
	delay atomic.Int64 // each way, a time.Duration
	conns sync.Map
	wg    sync.WaitGroup
}

func newFarProxy(address string) (*farProxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &farProxy{ln: ln}
	p.wg.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", address)
			if err != nil {
				_ = near.Close()
				continue
			}
			p.conns.Store(near, nil)
			p.conns.Store(far, nil)
			p.wg.Go(func() { p.pass(far, near) })
			p.wg.Go(func() { p.pass(near, far) })
		}
	})
	return p, nil
}

// pass copies bytes until either connection ends, and ends both.
func (p *farProxy) pass(to, from net.Conn) {
	type piece struct {
		at   time.Time
		data []byte
	}
	line := make(chan piece, 4096)
	p.wg.Go(func() {
		for v := range line {
			t := time.NewTimer(time.Until(v.at))
			<-t.C
			if _, err := to.Write(v.data); err != nil {
				break
			}
		}
		_ = to.Close()
		_ = from.Close()
		p.conns.Delete(to)
		p.conns.Delete(from)
		for range line { // whoever reads must not hang
		}
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			line <- piece{time.Now().Add(time.Duration(p.delay.Load())), bytes.Clone(buf[:n])}
		}
		if err != nil {
			close(line)
			return
		}
	}
}

func (p *farProxy) close() error {
	err := p.ln.Close()
	p.conns.Range(func(c, _ any) bool { _ = c.(io.Closer).Close(); return true })
	p.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}

// idleSeconds returns how long the processors of this machine have had nothing to do, all together.
func idleSeconds() float64 {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	var name string
	var user, nice, system, idle float64
	if _, err := fmt.Sscan(string(stat), &name, &user, &nice, &system, &idle); err != nil {
		return 0
	}
	return idle / 100 // in ticks of a hundredth of a second
}
