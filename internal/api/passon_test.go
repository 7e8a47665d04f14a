package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/nodes"
	"github.com/terselink/terse/internal/peers"
	"github.com/terselink/terse/internal/store/memstore"
)

// directory is the list of nodes of a test.
type directory struct {
	mu    sync.Mutex
	nodes map[string]nodes.Seen
	asked int
}

func (d *directory) set(n nodes.Seen) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nodes[n.ID] = n
}

// change changes what is listed of a node; a nil change takes it off the list.
func (d *directory) change(id string, f func(*nodes.Seen)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.nodes[id]
	if f == nil {
		delete(d.nodes, id)
		return
	}
	f(&n)
	d.nodes[id] = n
}

func (d *directory) List(context.Context) (list []nodes.Seen, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.nodes {
		list = append(list, n)
	}
	return list, nil
}

func (d *directory) Find(_ context.Context, id string) (nodes.Seen, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	n, ok := d.nodes[id]
	if !ok {
		return n, terse.ErrNotFound
	}
	return n, nil
}

// several are nodes on one store: front has nothing, back has everything, hall runs no jobs.
type several struct {
	front, back, hall *bench
	list              *directory
}

func setupSeveral(t *testing.T) *several {
	s := &several{list: &directory{nodes: map[string]nodes.Seen{}}}
	now := terse.MillisOf(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	store := memstore.New(func() terse.Millis { return now })
	s.back = setup(t, options{node: "back", store: store, others: s.list})
	s.front = setup(t, options{node: "front", store: store, others: s.list})
	s.hall = setup(t, options{node: "hall", store: store, others: s.list, noJobs: true})
	return s
}

// upload makes an upload of back and returns its id.
func (s *several) upload(body string) string {
	id := s.back.want(201, request{method: "POST", path: "/api/v1/uploads", body: fmt.Sprintf(`{"filename":"a.ndjson","size":%d}`, len(body))}).text(s.back.t, "id")
	if body != "" {
		s.front.want(200, piece(id, 0, body))
	}
	return id
}

func piece(id string, offset int, body string) request {
	return request{method: "PATCH", path: "/api/v1/uploads/" + id, body: body, header: map[string]string{"Upload-Offset": fmt.Sprint(offset), "Content-Type": "application/octet-stream"}}
}

func newJob(upload, key string) request {
	return request{method: "POST", path: "/api/v1/jobs", body: `{"kind":"bulk","source":{"upload_id":"` + upload + `"}}`, header: map[string]string{"Idempotency-Key": key}}
}

// TestPassOn: whatever is asked about a job and its upload, another node answers as the one that has them.
func TestPassOn(t *testing.T) {
	t.Parallel()
	s := setupSeveral(t)
	f := s.front
	body := rows(300) + "bad\n"
	id := s.back.want(201, request{method: "POST", path: "/api/v1/uploads", body: fmt.Sprintf(`{"filename":"a.ndjson","size":%d}`, len(body))}).text(t, "id")
	if !strings.HasSuffix(id, "_back") {
		t.Fatalf("the upload %s does not name its node", id)
	}
	// The upload, in pieces.
	f.want(200, piece(id, 0, body[:100]))
	if a := f.wantProblem(409, "offset_mismatch", piece(id, 7, body[:100])); a.header.Get("Upload-Offset") != "100" {
		t.Errorf("a wrong offset: %v", a.header)
	}
	if a := f.want(200, request{method: "HEAD", path: "/api/v1/uploads/" + id}); a.header.Get("Upload-Offset") != "100" {
		t.Errorf("HEAD: %v", a.header)
	}
	f.wantProblem(409, "upload_incomplete", newJob(id, "k0"))
	f.want(200, piece(id, 100, body[100:]))
	if a := f.want(200, request{method: "GET", path: "/api/v1/uploads/" + id}); a.field(t, "complete") != true {
		t.Errorf("%s", a.body)
	}
	// The job: made once, whoever is asked.
	f.wantProblem(422, "invalid", request{method: "POST", path: "/api/v1/jobs", body: `{"kind":"bulk","format":"x","source":{"upload_id":"` + id + `"}}`})
	made := f.want(201, newJob(id, "k1"))
	job := made.text(t, "id")
	if made.header.Get("Location") != "/api/v1/jobs/"+job || len(made.header["X-Request-Id"]) != 1 || made.header.Get("X-Request-Id") != "test" {
		t.Errorf("%v", made.header)
	}
	for _, b := range []*bench{f, s.back, s.hall} {
		if a := b.want(201, newJob(id, "k1")); string(a.body) != string(made.body) || a.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("a repetition: %v %s", a.header, a.body)
		}
	}
	f.wantProblem(422, "idempotency_mismatch", newJob(id+"x", "k1"))
	f.wantProblem(409, "upload_in_use", request{method: "DELETE", path: "/api/v1/uploads/" + id})
	path := "/api/v1/jobs/" + job
	for _, b := range []*bench{f, s.hall, s.back} {
		if a := b.want(200, request{method: "GET", path: path}); a.text(t, "id") != job || a.text(t, "state") != "queued" {
			t.Errorf("%s", a.body)
		}
		if a := b.want(200, request{method: "GET", path: "/api/v1/jobs"}); strings.Count(string(a.body), job) != 1 {
			t.Errorf("list: %s", a.body)
		}
	}
	for _, do := range []string{"pause", "resume"} {
		f.want(200, request{method: "POST", path: path + "/" + do})
	}
	f.wantProblem(409, "no_result", request{method: "GET", path: path + "/result"})
	e := f.follow(t, job, "")
	ev, ok := e.next()
	if !ok || ev.job.State != "queued" {
		t.Fatalf("the first event: %+v", ev)
	}
	s.back.jobs.Start()
	for ok {
		last := ev
		if ev, ok = e.next(); !ok {
			ev = last
		}
	}
	if ev.job.State != "done" || ev.job.Done != 301 {
		t.Fatalf("the last event: %+v", ev)
	}
	if e := f.follow(t, job, ev.id); e.resp.StatusCode != 204 {
		t.Errorf("who has seen the end gets %d", e.resp.StatusCode)
	}
	// Its files.
	for _, what := range []string{"/result", "/errors"} {
		want := s.back.want(200, request{method: "GET", path: path + what})
		for _, b := range []*bench{f, s.hall} {
			got := b.want(200, request{method: "GET", path: path + what})
			if string(got.body) != string(want.body) || len(got.body) == 0 || got.header.Get("Etag") != want.header.Get("Etag") || got.header.Get("Content-Length") == "" {
				t.Errorf("%s: %v, %d bytes", what, got.header, len(got.body))
			}
			part := b.want(206, request{method: "GET", path: path + what, header: map[string]string{"Range": "bytes=1-4"}})
			if string(part.body) != string(want.body[1:5]) || part.header.Get("Content-Range") == "" {
				t.Errorf("%s: %v %q", what, part.header, part.body)
			}
			b.want(304, request{method: "GET", path: path + what, header: map[string]string{"If-None-Match": want.header.Get("Etag")}})
		}
	}
	f.want(200, request{method: "POST", path: path + "/rollback"})
	until := time.NewTicker(2 * time.Millisecond)
	defer until.Stop()
	for f.want(200, request{method: "GET", path: path}).text(t, "state") != "rolled_back" {
		<-until.C
	}
	f.want(204, request{method: "DELETE", path: path})
	f.wantProblem(404, "not_found", request{method: "GET", path: path})
	f.want(204, request{method: "DELETE", path: "/api/v1/uploads/" + id})
	f.wantProblem(404, "not_found", request{method: "GET", path: "/api/v1/uploads/" + id})
}

// TestPassOnAway: what is on a node that cannot be asked is not said to be missing.
func TestPassOnAway(t *testing.T) {
	t.Parallel()
	s := setupSeveral(t)
	upload := s.upload("x\n")
	made, second := s.front.want(201, newJob(upload, "k1")), s.front.want(201, newJob(upload, "k3"))
	id3 := s.front.want(201, newJob(upload, "k5")).text(t, "id")
	job := "/api/v1/jobs/" + made.text(t, "id")
	asks := []request{
		{method: "GET", path: job}, {method: "GET", path: job + "/events"}, {method: "GET", path: job + "/result"}, {method: "POST", path: job + "/pause"}, {method: "DELETE", path: job},
		{method: "GET", path: "/api/v1/uploads/" + upload}, piece(upload, 2, "y"), {method: "DELETE", path: "/api/v1/uploads/" + upload}, newJob(upload, "k2"),
	}
	wantAll := func(why string, status int, code string, header map[string]string, says string) {
		t.Helper()
		for _, q := range asks {
			q.header = map[string]string{"Upload-Offset": q.header["Upload-Offset"]}
			for k, v := range header {
				q.header[k] = v
			}
			a := s.front.wantProblem(status, code, q)
			if !strings.Contains(a.text(t, "detail"), says) || (status == 503) != (a.header.Get("Retry-After") != "") {
				t.Errorf("%s: %s %s: %v %s", why, q.method, q.path, a.header, a.body)
			}
		}
	}
	wantAll("a second hop", 409, "other_node", map[string]string{peers.Hop: "anybody"}, "node back")
	url := ""
	s.list.change("back", func(n *nodes.Seen) { url, n.URL = n.URL, "" })
	wantAll("nowhere to ask", 409, "other_node", nil, "node back")
	s.list.change("back", func(n *nodes.Seen) { n.URL, n.State = url, nodes.Dead })
	wantAll("dead", 503, "node_unavailable", nil, "node name of back")
	if a := s.front.wantProblem(503, "node_unavailable", request{method: "GET", path: job}); !strings.Contains(a.text(t, "detail"), "no sign of life since") || !strings.Contains(a.text(t, "detail"), "cancel the job at any node") {
		t.Errorf("what is to be done: %s", a.body)
	}
	if a := s.hall.want(200, request{method: "GET", path: "/api/v1/jobs"}); !strings.Contains(string(a.body), "no sign of life since") {
		t.Errorf("the list says nothing of the node: %s", a.body)
	}
	// A job can be ended by any node, also by way of one that runs none.
	third := "/api/v1/jobs/" + id3
	s.front.wantProblem(409, "wrong_state", request{method: "POST", path: third + "/rollback"})
	for _, b := range []*bench{s.hall, s.front} {
		if a := b.want(200, request{method: "POST", path: third + "/cancel"}); a.text(t, "state") != "cancelled" {
			t.Errorf("cancelled: %s", a.body)
		}
	}
	s.hall.want(200, request{method: "POST", path: third + "/rollback"})
	s.hall.want(200, request{method: "GET", path: third})
	s.list.change("back", func(n *nodes.Seen) { n.URL, n.State = "http://127.0.0.1:1", nodes.Alive })
	wantAll("nobody listens", 503, "node_unavailable", nil, "node name of back")
	lost := "/api/v1/jobs/" + second.text(t, "id")
	s.front.wantProblem(503, "node_unavailable", request{method: "DELETE", path: lost})
	s.list.change("back", nil)
	asks = slices.DeleteFunc(asks, func(q request) bool { return q.method == "DELETE" && q.path == job })
	wantAll("gone", 503, "node_unavailable", nil, "node back, which is not on the list")
	// Its jobs can be forgotten, by any node.
	s.front.wantProblem(409, "other_node", request{method: "DELETE", path: lost, header: map[string]string{peers.Hop: "anybody"}})
	s.hall.want(204, request{method: "DELETE", path: lost})
	s.front.wantProblem(404, "not_found", request{method: "GET", path: lost})
	s.front.wantProblem(404, "not_found", request{method: "DELETE", path: lost})
	if a := s.hall.want(200, request{method: "GET", path: "/api/v1/jobs"}); strings.Contains(string(a.body), second.text(t, "id")) {
		t.Errorf("list: %s", a.body)
	}
	// An upload of a node that nobody knows may be there, unless no upload is of that time.
	random := upload[len("upl_0123456789"):strings.Index(upload, "_back")]
	s.front.wantProblem(503, "node_unavailable", request{method: "GET", path: "/api/v1/uploads/" + strings.Replace(upload, "_back", "_typo", 1)})
	for _, at := range []string{"0000000000", "7zzzzzzzzz"} {
		id := "upl_" + at + random + "_back"
		s.front.wantProblem(404, "not_found", request{method: "GET", path: "/api/v1/uploads/" + id})
		s.front.wantProblem(404, "not_found", piece(id, 0, "x"))
		if a := s.front.wantProblem(404, "not_found", newJob(id, "k4")); !strings.Contains(a.text(t, "detail"), "source.upload_id") {
			t.Errorf("a job of an upload that is not: %s", a.body)
		}
	}
	// What the store knows is answered all the same.
	if a := s.front.want(201, newJob(upload, "k1")); string(a.body) != string(made.body) {
		t.Errorf("a repetition: %s", a.body)
	}
	if a := s.front.want(200, request{method: "GET", path: "/api/v1/jobs"}); !strings.Contains(string(a.body), made.text(t, "id")) {
		t.Errorf("list: %s", a.body)
	}
	s.front.wantProblem(404, "not_found", request{method: "GET", path: "/api/v1/jobs/job_00000000000000000000000000"})
	s.front.wantProblem(404, "not_found", request{method: "GET", path: "/api/v1/uploads/upl_00000000000000000000000000"})
	s.list.change("back", func(n *nodes.Seen) { *n = nodes.Seen{Node: nodes.Node{ID: "back", URL: url}, State: nodes.Alive} })
	s.front.want(200, request{method: "GET", path: job})
	s.back.wantProblem(404, "not_found", request{method: "POST", path: lost + "/pause"}) // the node learns that it was deleted
	s.back.wantProblem(404, "not_found", request{method: "GET", path: lost})
}

// TestPassOnCut: a visitor whose body ends early is told so as on one node, what came is kept, and it is no failure of the server.
func TestPassOnCut(t *testing.T) {
	t.Parallel()
	s := setupSeveral(t)
	id := s.back.want(201, request{method: "POST", path: "/api/v1/uploads", body: `{"filename":"a.ndjson","size":100}`}).text(t, "id")
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.front.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "PATCH /api/v1/uploads/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nUpload-Offset: 0\r\nContent-Length: 100\r\n\r\nhalf", id, ownerKey)
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 400 || !strings.Contains(string(b), "ended before it was complete") {
		t.Errorf("%d %s", resp.StatusCode, b)
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for s.front.want(200, request{method: "HEAD", path: "/api/v1/uploads/" + id}).header.Get("Upload-Offset") != "4" { // it is on its way
		<-tick.C
	}
	if log := s.front.log.String(); strings.Contains(log, `"level":"ERROR"`) {
		t.Errorf("logged: %s", log)
	}
}

// TestPassOnKeys: the first node lets nobody through who may not ask, and the other one shows nothing of another workspace.
func TestPassOnKeys(t *testing.T) {
	t.Parallel()
	s := setupSeveral(t)
	upload := s.upload("x\n")
	job := "/api/v1/jobs/" + s.front.want(201, newJob(upload, "k1")).text(t, "id")
	ws := s.front.want(201, request{method: "POST", path: "/api/v1/workspaces", body: `{"name":"Acme"}`}).text(t, "id")
	key := func(scope, workspace string) string {
		return s.front.want(201, request{method: "POST", path: "/api/v1/keys", body: `{"name":"x","workspace_id":"` + workspace + `","scopes":["` + scope + `"]}`}).text(t, "key")
	}
	asked := s.list.asked
	for _, path := range []string{job, "/api/v1/uploads/" + upload} {
		s.front.wantProblem(401, "unauthorized", request{method: "GET", path: path, key: "-"})
		s.front.wantProblem(403, "forbidden", request{method: "GET", path: path, key: key("domains:read", "ws_0000000000001")})
		s.front.wantProblem(403, "forbidden", request{method: "DELETE", path: path, key: key("links:read", "ws_0000000000001")})
	}
	if s.list.asked != asked {
		t.Error("another node was looked for before the key was checked")
	}
	mine, other := key("links:read", "ws_0000000000001"), key("links:read", ws)
	for _, path := range []string{job, job + "/result", job + "/events", "/api/v1/uploads/" + upload} {
		s.front.wantProblem(404, "not_found", request{method: "GET", path: path, key: other})
		s.front.wantProblem(404, "not_found", request{method: "GET", path: path, header: map[string]string{"Terse-Workspace": ws}})
	}
	for _, path := range []string{job, "/api/v1/uploads/" + upload} {
		s.front.want(200, request{method: "GET", path: path, key: mine})
	}
	if a := s.front.want(200, request{method: "GET", path: "/api/v1/jobs", key: other}); strings.Contains(string(a.body), "job_") {
		t.Errorf("list of another workspace: %s", a.body)
	}
}

// TestPassOnHall: a node that runs no jobs has others take uploads, once for a key.
func TestPassOnHall(t *testing.T) {
	t.Parallel()
	s := setupSeveral(t)
	s.list.change("front", func(n *nodes.Seen) { n.State = nodes.Dead })
	create := request{method: "POST", path: "/api/v1/uploads", body: `{"filename":"a.ndjson"}`, header: map[string]string{"Idempotency-Key": "u"}}
	a := s.hall.want(201, create)
	id := a.text(t, "id")
	if !strings.HasSuffix(id, "_back") || a.header.Get("Location") != "/api/v1/uploads/"+id {
		t.Errorf("%v %s", a.header, a.body)
	}
	for _, b := range []*bench{s.hall, s.front, s.back} {
		if again := b.want(201, create); string(again.body) != string(a.body) {
			t.Errorf("a repetition: %s", again.body)
		}
	}
	s.hall.want(200, piece(id, 0, rows(1)))
	s.hall.want(201, newJob(id, "k"))
	s.list.change("back", func(n *nodes.Seen) { n.State = nodes.Dead })
	s.hall.wantProblem(503, "jobs_disabled", request{method: "POST", path: "/api/v1/uploads", body: `{}`})
}

// TestPassOnProgress: a list shows how far a job is that runs on another node; if that does not answer, what is stored.
func TestPassOnProgress(t *testing.T) {
	t.Parallel()
	gate := &turnstile{Store: memstore.New(func() terse.Millis { return 1 }), first: make(chan struct{}), rest: make(chan struct{})}
	close(gate.first)
	list := &directory{nodes: map[string]nodes.Seen{}}
	s := &several{list: list, back: setup(t, options{node: "back", store: gate, others: list}), front: setup(t, options{node: "front", store: gate, others: list})}
	var body strings.Builder // of two batches, the second of which waits
	for i := range 150 {
		fmt.Fprintf(&body, `{"destination":"https://example.com/%s","external_id":"r%d"}`+"\n", strings.Repeat("a", 4000), i)
	}
	s.front.want(201, newJob(s.upload(body.String()), "k"))
	s.back.jobs.Start()
	var page struct {
		Data []struct {
			State string `json:"state"`
			Done  int    `json:"done"`
		} `json:"data"`
	}
	look := func() {
		t.Helper()
		if err := json.Unmarshal(s.front.want(200, request{method: "GET", path: "/api/v1/jobs"}).body, &page); err != nil || len(page.Data) != 1 {
			t.Fatalf("%v, %+v", err, page)
		}
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for look(); page.Data[0].Done == 0; look() {
		<-tick.C
	}
	list.change("back", func(n *nodes.Seen) { n.State = nodes.Dead })
	if look(); page.Data[0].State != "running" || page.Data[0].Done != 0 {
		t.Errorf("as it is stored: %+v", page)
	}
	close(gate.rest)
}

// TestPassOnExport: the file of an export is fetched from any node.
func TestPassOnExport(t *testing.T) {
	t.Parallel()
	s := setupSeveral(t)
	id := s.front.want(201, request{method: "POST", path: "/api/v1/exports", body: `{"format":"csv"}`}).text(t, "id")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.back.exports.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	get := request{method: "GET", path: "/api/v1/exports/" + id}
	for s.front.want(200, get).text(t, "state") != "done" {
		<-tick.C
	}
	path := s.front.want(200, get).text(t, "file_url")
	want := s.back.want(200, request{method: "GET", path: path, key: "-"})
	got := s.front.want(200, request{method: "GET", path: path, key: "-"})
	if string(got.body) != string(want.body) || got.header.Get("Content-Disposition") != want.header.Get("Content-Disposition") || got.header.Get("X-Robots-Tag") == "" {
		t.Errorf("%v, %s", got.header, got.body)
	}
	if part := s.front.want(206, request{method: "GET", path: path, key: "-", header: map[string]string{"Range": "bytes=3-5"}}); string(part.body) != "ts," {
		t.Errorf("%s", part.body)
	}
	s.front.wantProblem(404, "not_found", request{method: "GET", path: path + "x", key: "-"})
	s.front.wantProblem(409, "other_node", request{method: "GET", path: path, key: "-", header: map[string]string{peers.Hop: "x"}})
	s.list.change("back", func(n *nodes.Seen) { n.State = nodes.Dead })
	s.front.wantProblem(503, "node_unavailable", request{method: "GET", path: path, key: "-"})
}
