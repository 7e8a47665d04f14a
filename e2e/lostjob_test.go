package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/failpoint"
	"github.com/terselink/terse/internal/testengine"
)

// pair is two nodes with the API that run jobs, of one database.
type pair struct {
	bin           string // ends or stops at failpoints
	env           []string
	data          string // of first
	first, second *proc.Server
	a, b          *api // of first and second
}

// newPair starts both, with more settings of the first one.
func newPair(t *testing.T, more ...string) *pair {
	t.Helper()
	p := &pair{data: filepath.Join(t.TempDir(), "first")}
	var err error
	if p.bin, err = buildKillable(); err != nil {
		t.Fatal(err)
	}
	p.env = append(append(onPostgres(newDatabase(t)), "TERSE_REDIS_URL="+testengine.Address(t, testengine.Redis), fmt.Sprintf("TERSE_REDIS_PREFIX=e2e%x", rand.Uint64()), "TERSE_ANALYTICS_ENABLED=false"), quick...)
	p.second, p.b = p.start(t, "second", filepath.Join(t.TempDir(), "second"))
	p.startFirst(t, more...)
	return p
}

func (p *pair) start(t *testing.T, name, data string, more ...string) (*proc.Server, *api) {
	t.Helper()
	addr, err := proc.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	env := slices.Concat([]string{"TERSE_NODE_NAME=" + name, "TERSE_NODE_URL=http://" + addr, "TERSE_ROLE=control,worker"}, p.env, more)
	s := start(t, proc.Options{Bin: p.bin, Data: data, ControlAddr: addr, Env: env, NoWait: true})
	a := newAPI(t, s)
	until(t, 3*time.Minute, name+" is ready", func() bool {
		got, err := a.do(t.Context(), "GET", "/readyz", nil)
		return err == nil && got.status == 200
	})
	return s, a
}

// startFirst starts the first node on its folder, and waits until both know of it.
func (p *pair) startFirst(t *testing.T, more ...string) {
	t.Helper()
	p.first, p.a = p.start(t, "first", p.data, more...)
	for _, s := range []*proc.Server{p.first, p.second} {
		until(t, 3*time.Minute, "each knows of the other", func() bool {
			now := nodesOf(t, newClient(t, s))
			return strings.Contains(now, "first alive") && strings.Contains(now, "second alive")
		})
	}
}

// job makes a job at a node of rows with destinations of about 300 bytes.
func (p *pair) job(t *testing.T, a *api, rows int) string {
	t.Helper()
	var body bytes.Buffer
	for i := range rows {
		fmt.Fprintf(&body, "{\"destination\":\"https://shop.example.com/lost/%d/%s\"}\n", i, strings.Repeat("x", 250))
	}
	id := a.upload(t, "rows.ndjson", body.Bytes())
	if got := a.append(t, id, 0, body.Bytes()); got.status != 200 {
		t.Fatalf("append: %d %s", got.status, got.body)
	}
	var j jobView
	in := map[string]any{"kind": "bulk", "source": map[string]string{"upload_id": id}}
	if got, err := a.json(t.Context(), "POST", "/api/v1/jobs", in, &j); err != nil || got.status != 201 {
		t.Fatalf("create job: %v, %+v", err, got)
	}
	return j.ID
}

func (p *pair) state(t *testing.T, a *api, path, want string) {
	t.Helper()
	var j jobView
	until(t, 3*time.Minute, "the job is "+want, func() bool {
		got, err := a.json(t.Context(), "GET", path, nil, &j)
		return err == nil && got.status == 200 && j.State == want
	})
}

// count counts the links of the workspace.
func (p *pair) count(t *testing.T) (n int) {
	t.Helper()
	for cursor := ""; ; {
		var page struct {
			Data       []struct{ Code string } `json:"data"`
			NextCursor *string                 `json:"next_cursor"`
		}
		if got, err := p.b.json(t.Context(), "GET", "/api/v1/links?limit=1000&cursor="+cursor, nil, &page); err != nil || got.status != 200 {
			t.Fatalf("list: %v, %+v", err, got)
		}
		n += len(page.Data)
		if page.NextCursor == nil {
			return n
		}
		cursor = *page.NextCursor
	}
}

// files are those of results in the data folder of the first node.
func (p *pair) files(t *testing.T) (names []string) {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(p.data, "jobs"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		names = append(names, f.Name())
	}
	return names
}

// TestLostJob: the node of a running job dies, or stands still, and another node ends the job. The first one comes back on its
// disk, or wakes up: it does not go on with the job, makes no link of it that stays, removes its files, and both say the same of it.
func TestLostJob(t *testing.T) {
	for name, c := range map[string]struct{ kill, rollback bool }{
		"killed, cancelled":      {kill: true},
		"killed, rolled back":    {kill: true, rollback: true},
		"paused, cancelled":      {},
		"paused and rolled back": {rollback: true},
	} {
		t.Run(name, func(t *testing.T) { lostJob(t, c.kill, c.rollback) })
	}
}

func lostJob(t *testing.T, kill, rollback bool) {
	// It ends or stops itself in the middle of the job, however fast it is.
	place := "FAILPOINT=" + failpoint.ResultFileWritten + ":2"
	if !kill {
		place += ":stop"
	}
	p := newPair(t, place)
	const rows = 100_000
	t.Cleanup(func() { _ = p.first.Signal(syscall.SIGCONT) }) // or its stop waits for ever
	id := p.job(t, p.a, rows)
	path := "/api/v1/jobs/" + id
	until(t, 3*time.Minute, "the first node is in the middle of the job", func() bool {
		return kill && !proc.Alive(p.first.PID()) || !kill && proc.Stopped(p.first.PID())
	})
	if got := p.files(t); len(got) != 2 {
		t.Fatalf("the first node left the files %q, want results and bad rows", got)
	}

	// Its node is gone.
	do := func(method, path string) (*answer, problem) {
		t.Helper()
		got, err := p.b.do(t.Context(), method, path, nil)
		if err != nil {
			t.Fatal(err)
		}
		var said problem
		if got.status >= 400 {
			if err := json.Unmarshal(got.body, &said); err != nil {
				t.Fatal(err)
			}
		}
		return got, said
	}
	until(t, 3*time.Minute, "the job says that its node is gone", func() bool {
		got, said := do("GET", path)
		if got.status != 503 || kill && said.Code != "node_unavailable" { // one that stands still takes connections
			t.Fatalf("the job of a node that is gone: %d %s", got.status, got.body)
		}
		return said.Code == "node_unavailable" && strings.Contains(said.Detail, "first")
	})
	// One that stands still may hold a lock on a row until the database ends its transaction.
	until(t, 3*time.Minute, "the node is silent for long enough", func() bool {
		got, said := do("POST", path+"/cancel")
		if got.status != 200 && said.Code != "node_unavailable" {
			t.Fatalf("cancel: %d %s", got.status, got.body)
		}
		return got.status == 200
	})
	want := "cancelled"
	if rollback {
		if got, _ := do("POST", path+"/rollback"); got.status != 200 {
			t.Fatalf("roll back: %d %s", got.status, got.body)
		}
		want = "rolled_back"
	}
	p.state(t, p.b, path, want)
	// Chunks that the second node had taken of it may still end; a job of its own goes after them.
	p.state(t, p.b, "/api/v1/jobs/"+p.job(t, p.b, 1), "done")
	before := p.count(t)
	if rollback && before != 1 || !rollback && (before < 2 || before > rows) {
		t.Fatalf("%d links after the end of the job", before)
	}

	if kill {
		p.startFirst(t)
	} else if err := p.first.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	until(t, 3*time.Minute, "the files are removed", func() bool { return len(p.files(t)) == 0 })
	// One job runs at a time, and the oldest goes first: the first node has no other now.
	p.state(t, p.a, "/api/v1/jobs/"+p.job(t, p.a, 1), "done")
	after := p.count(t) - 1
	switch {
	case kill && after != before, rollback && after != before:
		t.Errorf("%d links, want the %d from before the first node came back", after, before)
	case after >= rows: // what was under way when it was paused may end
		t.Errorf("%d links: the first node went on to the end", after)
	}
	here, _ := do("GET", path)
	there, err := p.a.do(t.Context(), "GET", path, nil)
	if err != nil || there.status != 200 || !bytes.Equal(here.body, there.body) || !strings.Contains(string(here.body), want) {
		t.Errorf("the second node says %s, the first one %v, %s", here.body, err, there.body)
	}
	for _, what := range []string{"/result", "/errors"} {
		for _, a := range []*api{p.a, p.b} {
			if got, err := a.do(t.Context(), "GET", path+what, nil); err != nil || got.status != 409 {
				t.Errorf("%s: %v, %+v, want 409", what, err, got)
			}
		}
	}
}
