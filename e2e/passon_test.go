package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/failpoint"
	"github.com/terselink/terse/internal/testengine"
)

// TestAnyNodeAnswers sends every request about uploads and jobs to a node that has none of them: the bytes of an upload in
// pieces, the job, its events and results. The node that has them is killed in the middle, of the job when a part of its results
// is written: 503 until it is back, and then the job goes on.
func TestAnyNodeAnswers(t *testing.T) {
	waits(t)
	redis := testengine.Address(t, testengine.Redis)
	env := append(append(onPostgres(newDatabase(t)), "TERSE_REDIS_URL="+redis, fmt.Sprintf("TERSE_REDIS_PREFIX=e2e%x", rand.Uint64()), "TERSE_ANALYTICS_ENABLED=false"), quick...)
	data := map[string]string{"owner": filepath.Join(t.TempDir(), "owner"), "front": filepath.Join(t.TempDir(), "front")}
	killable, err := buildKillable()
	if err != nil {
		t.Fatal(err)
	}
	run := func(name string, more ...string) *proc.Server {
		t.Helper()
		addr, err := proc.FreeAddr()
		if err != nil {
			t.Fatal(err)
		}
		s := start(t, proc.Options{
			Bin: killable, Data: data[name], ControlAddr: addr, Env: slices.Concat([]string{"TERSE_NODE_NAME=" + name, "TERSE_NODE_URL=http://" + addr, "TERSE_ROLE=control,worker"}, env, more), NoWait: true,
		})
		a := newAPI(t, s)
		until(t, 3*time.Minute, name+" is ready", func() bool {
			got, err := a.do(t.Context(), "GET", "/readyz", nil)
			return err == nil && got.status == 200
		})
		return s
	}
	owner, front := run("owner"), run("front")
	atOwner, a := newAPI(t, owner), newAPI(t, front)
	a.http.Timeout = 10 * time.Minute
	until(t, 3*time.Minute, "each knows of the other", func() bool {
		return strings.Count(nodesOf(t, newClient(t, front)), " alive ") == 2 && strings.Count(nodesOf(t, newClient(t, owner)), " alive ") == 2
	})

	rows, bad := 80_000, 0
	if testing.Short() {
		rows = 30_000
	}
	var body bytes.Buffer
	for i := range rows {
		dest := "https://shop.example.com/any/" + strconv.Itoa(i)
		if i%10_000 == 7 {
			dest = "not a url"
			bad++
		}
		fmt.Fprintf(&body, "{\"destination\":%q,\"external_id\":\"r-%d\"}\n", dest, i)
	}
	file := body.Bytes()

	// The upload, begun at its node and sent in pieces by way of the other.
	id := atOwner.upload(t, "rows.ndjson", file)
	third := len(file) / 3
	if got := a.append(t, id, 0, file[:third]); got.status != 200 {
		t.Fatalf("append: %d %s", got.status, got.body)
	}
	if got := a.append(t, id, 5, file[:10]); got.status != 409 || got.header.Get("Upload-Offset") != strconv.Itoa(third) {
		t.Fatalf("append at a wrong offset: %d %v, want 409, %d", got.status, got.header, third)
	}
	away := func(method, path string) {
		t.Helper()
		got, err := a.do(t.Context(), method, path, nil)
		if err != nil {
			t.Fatal(err)
		}
		var p problem
		if err := json.Unmarshal(got.body, &p); err != nil || got.status != 503 || p.Code != "node_unavailable" || got.header.Get("Retry-After") == "" || !strings.Contains(p.Detail, "owner") {
			t.Errorf("%s %s: %d %v %s, want 503 node_unavailable and the name", method, path, got.status, got.header, got.body)
		}
	}
	back := func(path string, more ...string) {
		t.Helper()
		owner = run("owner", more...)
		until(t, 3*time.Minute, "the other node finds it again", func() bool {
			got, err := a.do(t.Context(), "GET", path, nil)
			return err == nil && got.status == 200
		})
	}
	upload := "/api/v1/uploads/" + id
	if err := owner.Kill(); err != nil {
		t.Fatal(err)
	}
	away("GET", upload)
	away("DELETE", upload)
	back(upload, "FAILPOINT="+failpoint.ResultFileWritten+":2") // it kills itself in the middle of the job
	if got, err := a.do(t.Context(), "HEAD", upload, nil); err != nil || got.header.Get("Upload-Offset") != strconv.Itoa(third) {
		t.Fatalf("after a kill the upload goes on at %v, %v, want %d", got.header, err, third)
	}
	for _, piece := range [][2]int{{third, 2 * third}, {2 * third, len(file)}} {
		if got := a.append(t, id, piece[0], file[piece[0]:piece[1]]); got.status != 200 {
			t.Fatalf("append: %d %s", got.status, got.body)
		}
	}

	// The job, made twice with one key.
	in := map[string]any{"kind": "bulk", "source": map[string]string{"upload_id": id}}
	var j, again jobView
	for _, out := range []*jobView{&j, &again} {
		until(t, 3*time.Minute, "the job is made", func() bool { // its node may be dead before it has answered
			got, err := a.json(t.Context(), "POST", "/api/v1/jobs", in, out, "Idempotency-Key", "once")
			if err != nil || got.status != 201 && got.status != 503 {
				t.Fatalf("create job: %v, %+v", err, got)
			}
			return got.status == 201
		})
	}
	if j.ID != again.ID {
		t.Fatalf("the repetition made the job %s, want %s", again.ID, j.ID)
	}
	path := "/api/v1/jobs/" + j.ID
	follow := func(last string) (id string, now jobView, cut bool) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", front.URL(path+"/events"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+proc.Key)
		req.Header.Set("Last-Event-ID", last)
		resp, err := a.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode == 503 { // its node is dead already
			return "", now, true
		}
		if resp.StatusCode != 200 {
			t.Fatalf("events: %+v", resp)
		}
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "id":
				id = value
			case "data":
				if err := json.Unmarshal([]byte(value), &now); err != nil {
					t.Fatalf("%s: %v", value, err)
				}
			}
		}
		return id, now, lines.Err() != nil
	}
	last, now, cut := follow("")
	if !cut {
		t.Fatalf("the job is %s with %d of %d rows, and its node was not killed", now.State, now.Done, rows)
	}
	if code, err := owner.Wait(3 * time.Minute); err != nil || code != -1 {
		t.Fatalf("the node of the job ended with %d, %v, want a kill", code, err)
	}
	away("GET", path)
	away("GET", path+"/events")
	away("GET", path+"/result")
	away("POST", path+"/pause")
	var list struct {
		Data []jobView `json:"data"`
	}
	if got, err := a.json(t.Context(), "GET", "/api/v1/jobs", nil, &list); err != nil || got.status != 200 || len(list.Data) != 1 || list.Data[0].ID != j.ID || list.Data[0].State != "running" {
		t.Errorf("the list while its node is away: %v, %+v, want the job, running", err, list)
	}
	if got, err := a.json(t.Context(), "POST", "/api/v1/jobs", in, &again, "Idempotency-Key", "once"); err != nil || got.status != 201 || again.ID != j.ID {
		t.Errorf("a repetition while its node is away: %v, %+v", err, got)
	}
	back(path)
	if _, j, cut = follow(last); cut || j.State != "done" || j.Done != uint64(rows) || j.Failed != uint64(bad) || j.Created != uint64(rows-bad) {
		t.Fatalf("the job ended as %+v, cut: %t, want %d done, %d failed", j, cut, rows, bad)
	}

	// Its results.
	got, err := a.do(t.Context(), "GET", path+"/result", nil)
	if err != nil || got.status != 200 || bytes.Count(got.body, []byte(`"index":`)) != rows {
		t.Fatalf("result: %v, %d rows", err, bytes.Count(got.body, []byte(`"index":`)))
	}
	tag, at := got.header.Get("Etag"), len(got.body)/2
	part, err := a.do(t.Context(), "GET", path+"/result", nil, "Range", fmt.Sprintf("bytes=%d-", at), "If-Range", tag)
	if err != nil || part.status != http.StatusPartialContent || !bytes.Equal(part.body, got.body[at:]) {
		t.Errorf("the second half: %v, %d, %d bytes, want %d", err, part.status, len(part.body), len(got.body)-at)
	}
	if got, err = a.do(t.Context(), "GET", path+"/errors", nil); err != nil || bytes.Count(got.body, []byte("\n")) != bad {
		t.Errorf("errors: %v, %d lines, want %d", err, bytes.Count(got.body, []byte("\n")), bad)
	}
	if got, err = a.do(t.Context(), "GET", path, nil, "Terse-Passed-On-By", "somebody"); err != nil || got.status != 409 {
		t.Errorf("a second hop: %v, %+v, want 409", err, got)
	}
	if got, err := a.do(t.Context(), "POST", path+"/rollback", nil); err != nil || got.status != 200 {
		t.Fatalf("roll back: %v, %+v", err, got)
	}
	until(t, 10*time.Minute, "the job is rolled back", func() bool {
		_, err := a.json(t.Context(), "GET", path, nil, &j)
		return err == nil && j.State == "rolled_back"
	})
	if m := metrics(t, front)[`terse_requests_passed_on_total{result="answered"}`]; m == 0 {
		t.Error("no request was passed on")
	}
}
