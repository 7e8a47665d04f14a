package e2e

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse/internal/sleep"
)

// inspector returns a visitor who looks where paths lead.
func (c *crash) inspector() *visitor {
	v := newVisitor(c.server)
	v.networked = c.networked
	return v
}

// check holds entries against the running server and settles what was not known. It asks by
// HEAD, which is no visit.
func (c *crash) check(n int, entries []*entry) {
	began := time.Now()
	const workers = 4
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			v := c.inspector()
			defer v.close()
			for i := w; i < len(entries); i += workers {
				status, location, err := v.look("HEAD", entries[i].path)
				if err != nil {
					c.ledger.fault("check after kill %d: %v", n, err)
					return
				}
				c.ledger.saw(entries[i], status, location)
			}
		})
	}
	wg.Wait()
	c.checkAtomic(n)
	c.checkStreams(n)
	c.repeat(n)
	c.t.Logf("kill %d: ready after %v, %d entries checked in %v", n, c.server.Ready.Round(time.Millisecond), len(entries), time.Since(began).Round(time.Millisecond))
}

// busy reports whether an answer says that the database is too slow or away, and to come again: it is no
// statement about a link. Only a database of its own, which shares the machine with the load, may say so.
func (c *crash) busy(status int) bool {
	return c.networked && status == http.StatusServiceUnavailable
}

// checkAtomic proves that an atomic request without an answer is there whole or not at all.
func (c *crash) checkAtomic(n int) {
	v := c.inspector()
	defer v.close()
	for _, a := range c.cut {
		there := 0
		for i, path := range a.aliases {
			switch status, location, err := v.look("HEAD", path); {
			case err != nil:
				c.ledger.fault("check after kill %d: %v", n, err)
			case status == 302 && location == a.destinations[i]:
				there++
			case status != 404:
				c.ledger.fault("kill %d: %s answers %d to %q, want %q or 404", n, path, status, location, a.destinations[i])
			}
		}
		c.atomicCut++
		switch there {
		case 0:
		case len(a.aliases):
			c.atomicApplied++
			for i, path := range a.aliases { // it stays
				c.ledger.created(path, "", a.destinations[i])
			}
		default:
			c.ledger.fault("kill %d: %d of the %d rows of an atomic request are there", n, there, len(a.aliases))
		}
	}
	c.cut = nil
}

// checkStreams proves that a row that was not answered is whole or not there.
func (c *crash) checkStreams(n int) {
	v := c.inspector()
	defer v.close()
	for _, a := range c.inStreams {
		status, location, err := v.look("HEAD", a.path)
		if err != nil || status != 404 && (status != 302 || location != a.destination) {
			c.ledger.fault("kill %d: %s of a cut stream answers %d to %q, want %q or 404: %v", n, a.path, status, location, a.destination, err)
		}
	}
	c.inStreams = nil
}

// repeat sends creations without an answer again, with the same Idempotency-Key: each ends
// in one link, whether or not the first attempt was applied.
func (c *crash) repeat(n int) {
	for _, r := range c.retries {
		c.repeated++
		made := c.createOnce(c.t.Context(), r)
		for try := 0; c.networked && !made && try < busyTries; try++ {
			_ = sleep.For(c.t.Context(), time.Second)
			made = c.createOnce(c.t.Context(), r)
		}
		if !made {
			c.ledger.fault("kill %d: no answer to a repeated creation", n)
		}
	}
	c.retries = nil
}

// checkClicks stops the server in order, so that what it has in memory is on disk, starts it
// again and waits until every click that is sure is counted. More than were sent must not be.
func (c *crash) checkClicks() {
	if err := c.server.Stop(); err != nil {
		c.t.Fatal(err)
	}
	c.server = start(c.t, c.options)
	c.api.s = c.server
	var sure, sent, counted int
	last := -1
	var quietSince time.Time
	// The count has to stand still: a click counted twice may come late.
	until(c.t, 5*time.Minute, "the count of clicks reaches what is sure and stands still", func() bool {
		sure, sent, counted = 0, 0, 0
		for i, l := range c.stable {
			n := c.clicks(c.ids[i])
			sure, sent, counted = sure+l.sure, sent+l.sent, counted+n
		}
		if counted != last {
			last, quietSince = counted, time.Now()
		}
		return time.Since(quietSince) > 2*time.Second && (counted >= sure || time.Since(quietSince) > 2*time.Minute)
	})
	for i, l := range c.stable {
		if n := c.clicks(c.ids[i]); n < l.sure || n > l.sent {
			c.ledger.fault("%s: %d clicks are counted; %d were written before a kill, %d were sent", c.paths[i], n, l.sure, l.sent)
		}
	}
	if sure == 0 {
		c.ledger.fault("no click was known to be written before a kill: nothing is proven")
	}
	c.t.Logf("clicks: %d sent, %d sure, %d counted", sent, sure, counted)
}

// clicks returns the count of a link, people and bots.
func (c *crash) clicks(id string) int {
	var sum struct {
		Total int `json:"total"`
	}
	got, err := c.api.json(c.t.Context(), "GET", "/api/v1/analytics/summary?bots=include&link_id="+id, nil, &sum)
	if err != nil {
		c.t.Fatalf("summary: %v", err)
	}
	if got.status != 200 {
		return 0 // analytics is starting
	}
	return sum.Total
}

func itoa(n int) string { return strconv.Itoa(n) }

func mustJSON(dst []byte, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return append(dst, b...)
}
