package e2e

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse/internal/testengine"
)

// TestLinkCache: a node that has just started finds in Redis what another one has read, also while the database is away, and
// nothing old. TERSE_COLD_LINKS=100000 measures with so many links how many reads of the database that saves.
func TestLinkCache(t *testing.T) {
	count := 2000
	measure := os.Getenv("TERSE_COLD_LINKS") != ""
	if measure {
		n, err := strconv.Atoi(os.Getenv("TERSE_COLD_LINKS"))
		if err != nil || n < 1 {
			t.Fatalf("TERSE_COLD_LINKS=%q", os.Getenv("TERSE_COLD_LINKS"))
		}
		count = n
	}
	proxy, through := testengine.NewProxy(t, newDatabase(t))
	redis := testengine.Address(t, testengine.Redis)
	env := append(onPostgres(through), "TERSE_REDIS_LINK_CACHE=true", "TERSE_REDIS_LINK_CACHE_WAIT=1s") // the machine may be busy
	c := startCluster(t, env, redis)
	var rows bytes.Buffer
	for i := range count {
		fmt.Fprintf(&rows, "{\"destination\":%q}\n", destination("cold", i))
	}
	got, err := c.apis[0].do(t.Context(), "POST", "/api/v1/links/bulk", &rows, "Content-Type", ndjsonType)
	if err != nil || got.status != 200 {
		t.Fatalf("bulk: %v, %+v", err, got)
	}
	links := make([]madeLink, 0, count)
	for line := range bytes.Lines(got.body) {
		var l madeLink
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if l.ShortURL != "" {
			links = append(links, l)
		}
	}
	if len(links) != count {
		t.Fatalf("%d links of %d", len(links), count)
	}
	// visit visits a link until it is answered: a database on a busy machine may need its time.
	visit := func(v *visitor, i int) {
		for end := time.Now().Add(5 * time.Minute); ; {
			status, location, err := v.visit("GET", pathOf(links[i].ShortURL))
			if err == nil && status == 302 && location == destination("cold", i) {
				return
			}
			if err == nil && status != 503 || time.Now().After(end) {
				t.Errorf("link %d: %d to %q, %v", i, status, location, err)
				return
			}
		}
	}
	all := func(node int) time.Duration {
		began := time.Now()
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				v := newVisitor(c.nodes[node])
				v.host = c.nodes[0].Host
				defer v.close()
				for i := w; i < count; i += 8 {
					visit(v, i)
				}
			})
		}
		wg.Wait()
		return time.Since(began)
	}
	number := func(node int, series string) int {
		t.Helper()
		m, err := readMetrics(t.Context(), c.apis[node])
		if err != nil {
			t.Log(err) // it is asked again
			return -1
		}
		return int(m[series])
	}
	const hits, reads = `terse_link_cache_lookups_total{result="hit"}`, `terse_store_calls_total{op="get_links",outcome="ok"}`
	until(t, 5*time.Minute, "the first node uses redis", func() bool { return number(0, "terse_link_cache_used") == 1 })
	first := all(0)
	c.add(t, env, redis)
	until(t, 5*time.Minute, "the second node uses redis", func() bool { return number(1, "terse_link_cache_used") == 1 })
	if measure {
		before := number(1, reads)
		second := all(1)
		t.Logf("%d links: the first node read them in %v with %d reads of the database, kept %d; a cold node in %v with %d reads of the database, %d hits", count,
			first.Round(time.Millisecond), number(0, reads), number(0, `terse_link_cache_puts_total{result="kept"}`), second.Round(time.Millisecond), number(1, reads)-before, number(1, hits))
		return
	}
	v := newVisitor(c.nodes[1])
	v.host = c.nodes[0].Host
	defer v.close()
	next := 0
	until(t, 5*time.Minute, "a cold node finds a link in redis", func() bool {
		visit(v, next)
		next++
		return t.Failed() || number(1, hits) > 0
	})

	// What is changed is changed there, too: at a node that was there, and at one that comes.
	if got, err := c.apis[0].json(t.Context(), "PATCH", "/api/v1/links/"+links[count-1].ID, map[string]string{"destination": destination("changed", 1)}, nil); err != nil || got.status != 200 {
		t.Fatalf("change: %v, %+v", err, got)
	}
	c.add(t, env, redis)
	for node := range c.nodes {
		v := newVisitor(c.nodes[node])
		v.host = c.nodes[0].Host
		defer v.close()
		until(t, 5*time.Minute, "a node shows the change", func() bool {
			status, location, err := v.visit("GET", pathOf(links[count-1].ShortURL))
			if node == 2 && err == nil && status == 302 && location != destination("changed", 1) {
				t.Fatalf("a node that was started after the change shows %s", location)
			}
			return err == nil && status == 302 && location == destination("changed", 1)
		})
	}

	proxy.Refuse()
	found := false
	until(t, 5*time.Minute, "without the database a link that this node has not read redirects", func() bool {
		for ; next < count-1 && !found; next++ {
			status, location, err := v.visit("GET", pathOf(links[next].ShortURL))
			switch {
			case err == nil && status == 302 && location == destination("cold", next):
				found = true
			case err != nil || status != 503:
				t.Fatalf("link %d without the database: %d to %q, %v", next, status, location, err)
			default: // redis was slow, or does not have it
				next++
				return false
			}
		}
		return found
	})
	proxy.Pass()
	if strings.Contains(c.nodes[1].Log(), ": it begins anew") {
		t.Error("the link cache was begun anew")
	}
}
