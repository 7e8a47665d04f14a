package e2e

import (
	"bufio"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/sleep"
)

// stream sends bulk requests whose rows come in bursts, and notes every result as it is read.
// Every 40th row has an alias, so that its path is known without an answer.
func (c *crash) stream(ctx context.Context, r *rand.Rand, _ int) {
	for ctx.Err() == nil {
		c.streamOnce(ctx, r)
	}
}

func (c *crash) streamOnce(ctx context.Context, r *rand.Rand) {
	var mu sync.Mutex
	var rows []newLink // sent
	body, w := io.Pipe()
	seed1, seed2, bursts := r.Uint64(), r.Uint64(), 1+r.IntN(40)
	var wg sync.WaitGroup
	wg.Go(func() {
		r := rand.New(rand.NewPCG(seed1, seed2))
		for range bursts {
			var buf []byte
			mu.Lock()
			for range 1 + r.IntN(700) {
				n := newLink{Destination: c.destination("bulk"), ExternalID: "r-" + strconv.Itoa(len(rows))}
				if len(rows)%40 == 0 {
					n.Code = "bulk-" + strconv.FormatUint(c.serial.Add(1), 10)
				}
				rows = append(rows, n)
				buf = append(mustJSON(buf, n), '\n')
			}
			mu.Unlock()
			if _, err := w.Write(buf); err != nil {
				return
			}
			if sleep.For(ctx, time.Duration(r.IntN(20))*time.Millisecond) != nil {
				break
			}
		}
		_ = w.Close() // never fails
	})
	defer func() {
		_ = body.CloseWithError(io.ErrClosedPipe) // ends the writer
		wg.Wait()
	}()
	answered := 0
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, n := range rows[min(answered, len(rows)):] {
			if n.Code != "" {
				c.inStreams = append(c.inStreams, aliasRow{"/" + n.Code, n.Destination})
			}
		}
	}()
	req, err := http.NewRequestWithContext(ctx, "POST", c.server.URL("/api/v1/links/bulk"), body)
	if err != nil {
		c.ledger.fault("bulk: %v", err)
		return
	}
	req.Header.Set("Authorization", "Bearer "+proc.Key)
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := c.api.http.Do(req)
	if err != nil {
		_ = sleep.For(ctx, 5*time.Millisecond)
		return // the server is down
	}
	defer func() { _ = resp.Body.Close() }()
	if c.busy(resp.StatusCode) {
		_ = sleep.For(ctx, 5*time.Millisecond)
		return
	}
	if resp.StatusCode != 200 {
		c.ledger.fault("bulk: status %d", resp.StatusCode)
		return
	}
	lines := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return // cut: the rest is not acknowledged
		}
		var res struct {
			Index    int    `json:"index"`
			Done     bool   `json:"done"`
			ShortURL string `json:"short_url"`
			ID       string `json:"id"`
			External string `json:"external_id"`
			Error    struct {
				Code string `json:"code"`
			} `json:"error"`
		}
		if err := json.Unmarshal(line, &res); err != nil {
			c.ledger.fault("bulk: result %q: %v", line, err)
			return
		}
		if res.Done {
			return
		}
		if c.networked && (res.Error.Code == "unavailable" || res.Error.Code == "unknown_outcome") {
			return // the database was too slow: this row and the rest are not acknowledged
		}
		mu.Lock()
		if res.Index != answered || answered >= len(rows) || res.ShortURL == "" || res.External != rows[answered].ExternalID {
			mu.Unlock()
			c.ledger.fault("bulk: result %q where row %d was due", line, answered)
			return
		}
		n := rows[answered]
		answered++
		mu.Unlock()
		c.ledger.created(pathOf(res.ShortURL), res.ID, n.Destination)
	}
}

// atomic sends bulk requests that are all or nothing, of rows with an alias.
func (c *crash) atomic(ctx context.Context, r *rand.Rand, _ int) {
	for ctx.Err() == nil {
		var a atomicRequest
		var body strings.Builder
		for range []int{2, 300, 3000}[r.IntN(3)] {
			n := newLink{Destination: c.destination("atomic"), Code: "atomic-" + strconv.FormatUint(c.serial.Add(1), 10)}
			a.aliases = append(a.aliases, "/"+n.Code)
			a.destinations = append(a.destinations, n.Destination)
			body.Write(append(mustJSON(nil, n), '\n'))
		}
		got, err := c.api.do(ctx, "POST", "/api/v1/links/bulk?atomic=true", strings.NewReader(body.String()), "Content-Type", "application/x-ndjson")
		switch {
		case err != nil || c.busy(got.status):
			c.mu.Lock()
			c.cut = append(c.cut, a)
			c.mu.Unlock()
			_ = sleep.For(ctx, 5*time.Millisecond)
			continue
		case got.status != 200 || !strings.Contains(string(got.body), `"done":true,"created":`+strconv.Itoa(len(a.aliases))):
			c.ledger.fault("atomic bulk: status %d, %.300s", got.status, got.body)
			return
		}
		for i, path := range a.aliases {
			c.ledger.created(path, "", a.destinations[i])
		}
		_ = sleep.For(ctx, time.Duration(r.IntN(20))*time.Millisecond)
	}
}

// create makes links one by one, half of them with an alias.
func (c *crash) create(ctx context.Context, r *rand.Rand, _ int) {
	for ctx.Err() == nil {
		n := creation{key: "key-" + strconv.FormatUint(c.serial.Add(1), 10), destination: c.destination("single")}
		if r.IntN(2) == 0 {
			n.alias = "single-" + strconv.FormatUint(c.serial.Add(1), 10)
		}
		if !c.createOnce(ctx, n) {
			c.mu.Lock()
			c.retries = append(c.retries, n)
			c.mu.Unlock()
			_ = sleep.For(ctx, 5*time.Millisecond)
		}
	}
}

// createOnce reports false if there was no answer.
func (c *crash) createOnce(ctx context.Context, n creation) bool {
	var l madeLink
	got, err := c.api.json(ctx, "POST", "/api/v1/links", newLink{Destination: n.destination, Code: n.alias}, &l, "Idempotency-Key", n.key)
	switch {
	case err != nil || c.busy(got.status):
		return false
	case got.status != 201 || n.alias != "" && pathOf(l.ShortURL) != "/"+n.alias:
		c.ledger.fault("create %+v: status %d, %.300s", n, got.status, got.body)
	default:
		c.ledger.created(pathOf(l.ShortURL), l.ID, n.destination)
	}
	return true
}

// edit changes destinations, and now and then deletes a link and makes another.
func (c *crash) edit(ctx context.Context, r *rand.Rand, worker int) {
	links := c.mutable[worker]
	for ctx.Err() == nil {
		i := r.IntN(len(links))
		e := links[i]
		if e.want == "" || len(e.may) > 0 || e.mayGone {
			// Deleted, or not known: a later write would hide what this one did.
			if !anyEditable(links) {
				return
			}
			if e.want != "" {
				continue
			}
			d := c.destination("edited")
			var l madeLink
			got, err := c.api.json(ctx, "POST", "/api/v1/links", newLink{Destination: d}, &l)
			if err != nil || c.busy(got.status) {
				_ = sleep.For(ctx, 5*time.Millisecond)
				continue // a link may exist that nobody knows
			}
			if got.status != 201 {
				c.ledger.fault("create: status %d, %.300s", got.status, got.body)
				return
			}
			links[i] = c.ledger.created(pathOf(l.ShortURL), l.ID, d)
			continue
		}
		var d string
		var got *answer
		var err error
		want := 200
		if r.IntN(10) == 0 {
			want = 204
			got, err = c.api.do(ctx, "DELETE", "/api/v1/links/"+e.id, nil)
		} else {
			d = c.destination("edited")
			got, err = c.api.json(ctx, "PATCH", "/api/v1/links/"+e.id, map[string]string{"destination": d}, nil)
		}
		switch {
		case err != nil || c.busy(got.status):
			c.ledger.unknown(e, d)
		case got.status != want:
			c.ledger.fault("change of %s: status %d, %.300s", e.path, got.status, got.body)
			return
		default:
			c.ledger.changed(e, d)
		}
	}
}

// anyEditable reports whether a link can still be edited in this round.
func anyEditable(links []*entry) bool {
	for _, e := range links {
		if e.want == "" || len(e.may) == 0 && !e.mayGone {
			return true
		}
	}
	return false
}

// visit follows the stable links, at a moderate pace, and keeps books.
func (c *crash) visit(ctx context.Context, r *rand.Rand, _ int) {
	v := newVisitor(c.server, "User-Agent", agentDesktop, "Referer", "https://news.example.com/")
	defer v.close()
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		i := r.IntN(len(c.paths))
		c.visiting.RLock()
		c.stable[i].send()
		status, _, err := v.visit("GET", c.paths[i])
		if err == nil && status == 302 {
			c.stable[i].answer()
		}
		c.visiting.RUnlock()
		if err == nil {
			c.mu.Lock()
			c.shares.count(status)
			c.mu.Unlock()
		}
		switch {
		case err != nil || status == http.StatusServiceUnavailable:
			_ = sleep.For(ctx, 2*time.Millisecond)
		case status != 302:
			c.ledger.fault("visit of %s: status %d", c.paths[i], status)
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// secure lets the visitors wait now and then until the server says that all their clicks are written: those must be counted
// after whatever kill. It closes secured when that is so of one.
func (c *crash) secure(ctx context.Context, secured chan<- struct{}) {
	once := sync.OnceFunc(func() { close(secured) })
	for sleep.For(ctx, 50*time.Millisecond) == nil {
		c.visiting.Lock()
		for ctx.Err() == nil {
			m, err := readClickMetrics(ctx, c.api)
			if err != nil {
				break // the server is down
			}
			if m.settled() {
				for _, l := range c.stable {
					if l.secure() > 0 {
						once()
					}
				}
				break
			}
			_ = sleep.For(ctx, 2*time.Millisecond)
		}
		c.visiting.Unlock()
	}
}
