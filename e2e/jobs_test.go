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
)

type jobView struct {
	ID      string `json:"id"`
	State   string `json:"state"`
	Done    uint64 `json:"done"`
	Failed  uint64 `json:"failed"`
	Created uint64 `json:"created"`
	Error   *struct{ Code, Message string }
}

// upload begins an upload of a body and returns its id.
func (a *api) upload(t *testing.T, name string, body []byte) string {
	t.Helper()
	var u struct {
		ID string `json:"id"`
	}
	if got, err := a.json(t.Context(), "POST", "/api/v1/uploads", map[string]any{"filename": name, "size": len(body)}, &u); err != nil || got.status != 201 {
		t.Fatalf("create upload: %v, %+v", err, got)
	}
	return u.ID
}

func (a *api) append(t *testing.T, id string, offset int, piece []byte) *answer {
	t.Helper()
	got, err := a.do(t.Context(), "PATCH", "/api/v1/uploads/"+id, bytes.NewReader(piece), "Upload-Offset", strconv.Itoa(offset), "Content-Type", "application/octet-stream")
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestJobSurvivesKills kills the server ten times while a job runs. The job goes on by
// itself; at the end every good row has one link that leads where the row says, and there
// is no other link.
func TestJobSurvivesKills(t *testing.T) {
	rows, kills := 2_000_000, 10
	if testing.Short() {
		rows = 500_000
	}
	var body bytes.Buffer
	bad := 0
	for i := range rows {
		dest := "https://shop.example.com/job/" + strconv.Itoa(i)
		if i%10_000 == 7 {
			dest = "not a url"
			bad++
		}
		fmt.Fprintf(&body, "{\"destination\":%q,\"external_id\":\"r-%d\"}\n", dest, i)
	}
	redirectAddr, err := proc.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	controlAddr, err := proc.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	o := proc.Options{Data: filepath.Join(t.TempDir(), "data"), RedirectAddr: redirectAddr, ControlAddr: controlAddr, Env: quick}
	s := start(t, o)
	a := newAPI(t, s)
	a.http.Timeout = 10 * time.Minute

	// The upload: a kill between two pieces costs nothing that was acknowledged.
	id := a.upload(t, "rows.ndjson", body.Bytes())
	half := body.Len() / 2
	if got := a.append(t, id, 0, body.Bytes()[:half]); got.status != 200 {
		t.Fatalf("append: %d %s", got.status, got.body)
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	s = start(t, o)
	a.s = s
	if got := a.append(t, id, 0, body.Bytes()[:10]); got.status != 409 || got.header.Get("Upload-Offset") != strconv.Itoa(half) {
		t.Fatalf("append at a wrong offset: %d, Upload-Offset %s, want 409, %d", got.status, got.header.Get("Upload-Offset"), half)
	}
	if got := a.append(t, id, half, body.Bytes()[half:]); got.status != 200 {
		t.Fatalf("append: %d %s", got.status, got.body)
	}

	var j jobView
	in := map[string]any{"kind": "bulk", "source": map[string]string{"upload_id": id}}
	if got, err := a.json(t.Context(), "POST", "/api/v1/jobs", in, &j); err != nil || got.status != 201 {
		t.Fatalf("create job: %v, %+v", err, got)
	}
	path := "/api/v1/jobs/" + j.ID
	get := func() bool {
		got, err := a.json(t.Context(), "GET", path, nil, &j)
		return err == nil && got.status == 200
	}
	midway := 0
	for n := range kills {
		// A little later every time, so that every part of the run is hit.
		wait := time.NewTimer(time.Duration(20+n*25+rand.IntN(120)) * time.Millisecond)
		<-wait.C
		if get() && j.State == "running" && j.Done > 0 {
			midway++
		}
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
		s = start(t, o)
		a.s = s
	}
	until(t, 10*time.Minute, "the job is done", func() bool { return get() && j.State != "queued" && j.State != "running" })
	if j.State != "done" || j.Done != uint64(rows) || j.Failed != uint64(bad) || j.Created != uint64(rows-bad) {
		t.Fatalf("the job ended as %+v, want %d done, %d failed", j, rows, bad)
	}
	t.Logf("%d kills, %d of them seen in the middle of the run", kills, midway)

	got, err := a.do(t.Context(), "GET", path+"/result", nil)
	if err != nil || got.status != 200 {
		t.Fatalf("result: %v, %+v", err, got)
	}
	type row struct {
		Index      int    `json:"index"`
		ID         string `json:"id"`
		Code       string `json:"code"`
		ShortURL   string `json:"short_url"`
		ExternalID string `json:"external_id"`
	}
	codes := make(map[string]bool, rows)
	n := 0
	var sample []row
	lines := bufio.NewScanner(bytes.NewReader(got.body))
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), `{"done":true`) {
			continue
		}
		var r row
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("result line %d: %v: %s", n, err, lines.Text())
		}
		if r.Index != n || (r.Code == "") != (n%10_000 == 7) || r.Code != "" && codes[r.Code] {
			t.Fatalf("result line %d is wrong or repeats a code: %s", n, lines.Text())
		}
		codes[r.Code] = true
		if n%(rows/200) == 0 {
			sample = append(sample, r)
		}
		n++
	}
	if n != rows {
		t.Fatalf("the result has %d rows, want %d", n, rows)
	}
	for _, r := range sample {
		if r.Code == "" {
			continue
		}
		resp := visit(t, s, "/"+r.Code)
		if want := "https://shop.example.com/job/" + strconv.Itoa(r.Index); resp != want {
			t.Errorf("row %d leads to %q, want %q", r.Index, resp, want)
		}
	}
	// No row has two links: the whole workspace lists exactly one of each. Without analytics, which would be asked for the clicks of
	// every page.
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	o.Env = append(slices.Clone(o.Env), "TERSE_ANALYTICS_ENABLED=false")
	s = start(t, o)
	a.s = s
	total := 0
	for cursor := ""; ; {
		var page struct {
			Data []struct {
				Code string `json:"code"`
			} `json:"data"`
			NextCursor *string `json:"next_cursor"`
		}
		if got, err := a.json(t.Context(), "GET", "/api/v1/links?limit=1000&cursor="+cursor, nil, &page); err != nil || got.status != 200 {
			t.Fatalf("list: %v, %+v", err, got)
		}
		for _, l := range page.Data {
			if !codes[l.Code] {
				t.Fatalf("link %s is no result of the job", l.Code)
			}
			total++
		}
		if page.NextCursor == nil || total > rows {
			break
		}
		cursor = *page.NextCursor
	}
	if total != rows-bad {
		t.Errorf("there are %d links, want %d", total, rows-bad)
	}
	// Errors and ranges.
	if got, err = a.do(t.Context(), "GET", path+"/errors", nil); err != nil || bytes.Count(got.body, []byte("\n")) != bad {
		t.Errorf("errors: %v, %d lines, want %d", err, bytes.Count(got.body, []byte("\n")), bad)
	}
	if got, err = a.do(t.Context(), "GET", path+"/result", nil, "Range", "bytes=0-9"); err != nil || got.status != http.StatusPartialContent || string(got.body) != `{"index":0` {
		t.Errorf("range: %v, %+v", err, got)
	}
}

// visit returns where a path of the redirect plane leads.
func visit(t *testing.T, s *proc.Server, path string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+s.RedirectAddr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = s.Host
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.Header.Get("Location")
}
