package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/testengine"
)

// crew is a node that has the API and runs jobs, and nodes that only work.
type crew struct {
	env     []string
	data    string // of the node with the API
	home    *proc.Server
	api     *api
	workers []*proc.Server
}

func newCrew(t *testing.T, redis string, workers int) *crew {
	t.Helper()
	c := &crew{data: filepath.Join(t.TempDir(), "home")}
	c.env = append(append(onPostgres(newDatabase(t)), "TERSE_REDIS_URL="+redis, fmt.Sprintf("TERSE_REDIS_PREFIX=e2e%x", rand.Uint64()), "TERSE_ANALYTICS_ENABLED=false"), quick...)
	c.startHome(t)
	for range workers {
		c.workers = append(c.workers, c.startWorker(t))
	}
	until(t, time.Minute, "every node is listed", func() bool {
		return strings.Count(nodesOf(t, newClient(t, c.home)), " alive ") == workers+1
	})
	return c
}

func (c *crew) startHome(t *testing.T) {
	t.Helper()
	c.home = start(t, proc.Options{Data: c.data, Env: append([]string{"TERSE_NODE_NAME=home", "TERSE_ROLE=control,worker"}, c.env...), NoWait: true})
	c.api = newAPI(t, c.home)
	c.api.http.Timeout = 2 * time.Minute
	until(t, 2*time.Minute, "the control plane answers", func() bool {
		got, err := c.api.do(t.Context(), "GET", "/readyz", nil)
		return err == nil && got.status == 200
	})
}

func (c *crew) startWorker(t *testing.T) *proc.Server {
	t.Helper()
	return start(t, proc.Options{Env: append([]string{"TERSE_NODE_NAME=hand", "TERSE_ROLE=worker"}, c.env...), NoWait: true})
}

// job uploads a file and makes a job of it.
func (c *crew) job(t *testing.T, name string, body []byte, more map[string]any) string {
	t.Helper()
	id := c.api.upload(t, name, body)
	if got := c.api.append(t, id, 0, body); got.status != 200 {
		t.Fatalf("append: %d %s", got.status, got.body)
	}
	in := map[string]any{"kind": "bulk", "source": map[string]string{"upload_id": id}}
	for k, v := range more {
		in[k] = v
	}
	var j jobView
	if got, err := c.api.json(t.Context(), "POST", "/api/v1/jobs", in, &j); err != nil || got.status != 201 {
		t.Fatalf("create job: %v, %+v", err, got)
	}
	return j.ID
}

// look returns a job; false while the node does not answer.
func (c *crew) look(t *testing.T, id string, j any) bool {
	got, err := c.api.json(t.Context(), "GET", "/api/v1/jobs/"+id, nil, j)
	return err == nil && got.status == 200
}

func (c *crew) done(t *testing.T, id string) (j jobView) {
	t.Helper()
	until(t, 10*time.Minute, "the job is done", func() bool { return c.look(t, id, &j) && j.State != "queued" && j.State != "running" })
	if j.State != "done" {
		t.Fatalf("the job ended as %+v", j)
	}
	return j
}

func (c *crew) file(t *testing.T, id, what string) []byte {
	t.Helper()
	got, err := c.api.do(t.Context(), "GET", "/api/v1/jobs/"+id+"/"+what, nil)
	if err != nil || got.status != 200 {
		t.Fatalf("%s: %v, %+v", what, err, got)
	}
	return got.body
}

// helped returns how many chunks other nodes ran for the node with the API, since its start.
func (c *crew) helped(t *testing.T) float64 {
	return metrics(t, c.home)[`terse_job_chunks_total{result="answered"}`]
}

// links counts the links of the workspace, each of which must be in codes.
func (c *crew) links(t *testing.T, codes map[string]bool) (n int) {
	t.Helper()
	for cursor := ""; ; {
		var page struct {
			Data []struct {
				Code string `json:"code"`
			} `json:"data"`
			NextCursor *string `json:"next_cursor"`
		}
		if got, err := c.api.json(t.Context(), "GET", "/api/v1/links?limit=1000&cursor="+cursor, nil, &page); err != nil || got.status != 200 {
			t.Fatalf("list: %v, %+v", err, got)
		}
		for _, l := range page.Data {
			if !codes[l.Code] {
				t.Fatalf("link %s is no result of the job", l.Code)
			}
			n++
		}
		if page.NextCursor == nil {
			return n
		}
		cursor = *page.NextCursor
	}
}

// TestJobOverWorkers runs a job over three workers, of which one after the other is killed or paused, while Redis is killed,
// emptied, full and silent in turn, and the node that has the job is killed once. Every row has one link, and the results are whole.
func TestJobOverWorkers(t *testing.T) {
	redis := testengine.NewRedis(t)
	c := newCrew(t, redis.URL, 3)
	rows, bad := 200_000, 0
	if testing.Short() {
		rows = 60_000
	}
	var body bytes.Buffer
	for i := range rows {
		dest := fmt.Sprintf("https://shop.example.com/job/%d/%s", i, strings.Repeat("x", 150))
		if i%10_000 == 7 {
			dest = "not a url"
			bad++
		}
		fmt.Fprintf(&body, "{\"destination\":%q,\"external_id\":\"r-%d\"}\n", dest, i)
	}
	until(t, 10*time.Minute, "other nodes take part", func() bool {
		c.done(t, c.job(t, "rows.ndjson", body.Bytes(), map[string]any{"dry_run": true}))
		return c.helped(t) > 0
	})
	before := c.helped(t)
	id := c.job(t, "rows.ndjson", body.Bytes(), nil)
	var paused *proc.Server
	kill := func() {
		i := rand.IntN(len(c.workers))
		if c.workers[i] == paused {
			paused = nil
		}
		if err := c.workers[i].Kill(); err != nil {
			t.Fatal(err)
		}
		c.workers[i] = c.startWorker(t)
	}
	pause := func() {
		paused = c.workers[rand.IntN(len(c.workers))]
		if err := paused.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	goOn := func() {
		if paused != nil {
			if err := paused.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			paused = nil
		}
	}
	t.Cleanup(goOn)
	helped := 0.0
	events := []func(){
		kill, pause, kill, func() { redis.Do("FLUSHALL") }, goOn,
		func() {
			helped = c.helped(t) - before
			if err := c.home.Kill(); err != nil {
				t.Fatal(err)
			}
			c.startHome(t)
		},
		kill, redis.Kill, redis.Start, func() { redis.Do("CONFIG", "SET", "maxmemory", "1") }, kill,
		func() { redis.Do("CONFIG", "SET", "maxmemory", "0") }, redis.Pause, kill, redis.Resume, kill,
	}
	var j jobView
	happened, first := 0, 0 // rows that were done when the first event happened; the others are spread over the rest
	until(t, 10*time.Minute, "the job is done", func() bool {
		if !c.look(t, id, &j) {
			return false
		}
		if j.State != "queued" && j.State != "running" {
			return true
		}
		if happened == 0 {
			if c.helped(t) == before && j.Done < uint64(rows/2) { // others have not taken part yet
				return false
			}
			first = int(j.Done)
		}
		if happened < len(events) && int(j.Done) >= first+(rows-first)*happened/len(events) {
			events[happened]()
			happened++
		}
		return false
	})
	goOn()
	t.Logf("%d of %d events, at least %.0f chunks run by other nodes", happened, len(events), helped+c.helped(t))
	if j.State != "done" || j.Done != uint64(rows) || j.Failed != uint64(bad) || j.Created != uint64(rows-bad) {
		t.Fatalf("the job ended as %+v, want %d done, %d failed", j, rows, bad)
	}
	var who struct {
		Progress float64 `json:"progress"`
		Nodes    []struct {
			Name string `json:"name"`
			Rows uint64 `json:"rows"`
		} `json:"nodes"`
	}
	if !c.look(t, id, &who) {
		t.Fatal("the job cannot be looked at")
	}
	sum := uint64(0)
	for i, n := range who.Nodes {
		if sum += n.Rows; i > 1 || n.Name != []string{"home", "hand"}[i] {
			t.Errorf("the job was done by %+v, want home and hand", who.Nodes)
		}
	}
	if who.Progress != 1 || len(who.Nodes) > 0 && sum != j.Done {
		t.Errorf("the job was done by %+v of %d rows, progress %v", who.Nodes, j.Done, who.Progress)
	}
	codes := make(map[string]bool, rows)
	n := 0
	for line := range bytes.Lines(c.file(t, id, "result")) {
		if bytes.HasPrefix(line, []byte(`{"done":true`)) {
			continue
		}
		var r struct {
			Index      int    `json:"index"`
			Code       string `json:"code"`
			ExternalID string `json:"external_id"`
		}
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("result line %d: %v: %s", n, err, line)
		}
		if r.Index != n || (r.Code == "") != (n%10_000 == 7) || r.Code != "" && codes[r.Code] || r.ExternalID != "r-"+strconv.Itoa(n) {
			t.Fatalf("result line %d is wrong or repeats a code: %s", n, line)
		}
		codes[r.Code] = true
		n++
	}
	if n != rows {
		t.Fatalf("the result has %d rows, want %d", n, rows)
	}
	if got := bytes.Count(c.file(t, id, "errors"), []byte("\n")); got != bad {
		t.Errorf("%d bad rows, want %d", got, bad)
	}
	if got := c.links(t, codes); got != rows-bad {
		t.Errorf("there are %d links, want %d", got, rows-bad)
	}
}

// outcomes are the results of a job without what was drawn.
func outcomes(t *testing.T, result []byte) (list []map[string]any) {
	t.Helper()
	for line := range bytes.Lines(result) {
		var r map[string]any
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("result: %v: %s", err, line)
		}
		delete(r, "id")
		if code, _ := r["code"].(string); !strings.HasPrefix(code, "alias-") {
			delete(r, "code")
			delete(r, "short_url")
		}
		list = append(list, r)
	}
	return list
}

// TestJobSameOverWorkers: a job says the same of every row whether one node runs it or four do, and so does its dry run.
func TestJobSameOverWorkers(t *testing.T) {
	redis := testengine.NewRedis(t)
	var body bytes.Buffer
	body.WriteString("url,ref,code,domain,note\n")
	rows := 40_000
	for i := range rows {
		dest, alias, host := fmt.Sprintf("https://shop.example.com/%d/%s", i, strings.Repeat("x", 400)), "", ""
		switch i % 1000 {
		case 3:
			dest = "javascript:x"
		case 5:
			alias = fmt.Sprintf("alias-%d", i)
		case 6:
			alias = "taken"
		case 7:
			host = "second.example.com"
		case 8:
			host = "nowhere.example.com"
		}
		if i > 1000 && i < rows-1000 && i%1000 == 8 { // few are enough, and each is a chunk that stays at home
			host = ""
		}
		id := fmt.Sprintf("r-%d", i)
		if i%5000 == 9 {
			id = "r-9"
		}
		fmt.Fprintf(&body, "%s,\"%s\",%s,%s,\"a note\nof two lines\"\n", dest, id, alias, host)
	}
	spec := map[string]any{"columns": map[string]string{"url": "destination", "ref": "external_id", "note": "title"}}
	dry := map[string]any{"columns": spec["columns"], "dry_run": true}
	type view struct {
		State   string `json:"state"`
		Rows    uint64 `json:"rows"`
		Done    uint64 `json:"done"`
		Created uint64 `json:"created"`
		Failed  uint64 `json:"failed"`
		Reused  uint64 `json:"reused"`
		Report  any    `json:"report"`
	}
	type run struct {
		real, dry             view
		result, dryResult     []map[string]any
		errors, dryErrorsFile string
	}
	do := func(c *crew) (r run) {
		if got, err := c.api.json(t.Context(), "POST", "/api/v1/domains", map[string]string{"host": "second.example.com"}, nil); err != nil || got.status != 201 {
			t.Fatalf("make domain: %v, %+v", err, got)
		}
		if got, err := c.api.json(t.Context(), "POST", "/api/v1/links", map[string]string{"destination": "https://example.com/", "code": "taken"}, nil); err != nil || got.status != 201 {
			t.Fatalf("make link: %v, %+v", err, got)
		}
		until(t, 10*time.Minute, "other nodes take part", func() bool {
			id := c.job(t, "rows.csv", body.Bytes(), dry)
			c.done(t, id)
			if !c.look(t, id, &r.dry) {
				t.Fatal("the job cannot be looked at")
			}
			r.dryResult, r.dryErrorsFile = outcomes(t, c.file(t, id, "result")), string(c.file(t, id, "errors"))
			return len(c.workers) == 0 || c.helped(t) > 0
		})
		id := c.job(t, "rows.csv", body.Bytes(), spec)
		c.done(t, id)
		if !c.look(t, id, &r.real) {
			t.Fatal("the job cannot be looked at")
		}
		r.result, r.errors = outcomes(t, c.file(t, id, "result")), string(c.file(t, id, "errors"))
		if len(c.workers) == 0 {
			return r
		}
		// Nothing of a rolled back job stays, whoever had a part in it.
		if got, err := c.api.json(t.Context(), "POST", "/api/v1/jobs/"+id+"/rollback", nil, nil); err != nil || got.status/100 != 2 {
			t.Fatalf("roll back: %v, %+v", err, got)
		}
		var j jobView
		until(t, 10*time.Minute, "the job is rolled back", func() bool { return c.look(t, id, &j) && j.State == "rolled_back" })
		if got := c.links(t, map[string]bool{"taken": true}); got != 1 {
			t.Errorf("%d links, want one", got)
		}
		return r
	}
	alone, over := do(newCrew(t, redis.URL, 0)), do(newCrew(t, redis.URL, 3))
	if alone.real.Rows != uint64(rows) || alone.real.Failed == 0 || len(alone.result) <= rows {
		t.Fatalf("alone: %+v, %d results", alone.real, len(alone.result))
	}
	if !reflect.DeepEqual(alone.real, over.real) || !reflect.DeepEqual(alone.dry, over.dry) {
		t.Errorf("alone %+v and %+v, over workers %+v and %+v", alone.real, alone.dry, over.real, over.dry)
	}
	if alone.errors != over.errors || alone.dryErrorsFile != over.dryErrorsFile {
		t.Error("the files of bad rows differ")
	}
	same := func(a, b map[string]any) bool { return reflect.DeepEqual(a, b) }
	if !slices.EqualFunc(alone.result, over.result, same) || !slices.EqualFunc(alone.dryResult, over.dryResult, same) {
		t.Error("the results differ")
	}
}
