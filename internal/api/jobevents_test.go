package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse"
)

// turnstile holds chunks of links back until a channel is closed: first is for the chunk with
// the first row.
type turnstile struct {
	terse.Store
	first, rest chan struct{}
}

func (s *turnstile) InsertLinks(ctx context.Context, c *terse.Chunk) error {
	if len(c.Links) > 0 {
		pass := s.rest
		if c.Links[0].ExternalID == "r0" {
			pass = s.first
		}
		select {
		case <-pass:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.Store.InsertLinks(ctx, c)
}

// event is one server-sent event about a job.
type event struct {
	id, name string
	job      struct {
		State         string   `json:"state"`
		Done          uint64   `json:"done"`
		Created       uint64   `json:"created"`
		RowsPerSecond float64  `json:"rows_per_second"`
		ETASeconds    *float64 `json:"eta_seconds"`
		ResultURL     *string  `json:"result_url"`
	}
}

// events follows a stream until it is closed.
type events struct {
	t      *testing.T
	resp   *http.Response
	lines  *bufio.Scanner
	cancel context.CancelFunc
}

func (b *bench) follow(t *testing.T, id, last string) *events {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	r, err := http.NewRequestWithContext(ctx, "GET", b.url+"/api/v1/jobs/"+id+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+ownerKey)
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	resp, err := b.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	e := &events{t, resp, bufio.NewScanner(resp.Body), cancel}
	t.Cleanup(e.close)
	return e
}

func (e *events) close() {
	e.cancel()
	_ = e.resp.Body.Close() // nobody reads it any more
}

// next returns the next event; false at the end of the stream.
func (e *events) next() (ev event, ok bool) {
	e.t.Helper()
	for e.lines.Scan() {
		name, value, _ := strings.Cut(e.lines.Text(), ": ")
		switch name {
		case "id":
			ev.id = value
		case "event":
			ev.name = value
		case "data":
			if err := json.Unmarshal([]byte(value), &ev.job); err != nil {
				e.t.Fatalf("%s: %v", value, err)
			}
		case "":
			if ev.name != "" {
				return ev, true
			}
		}
	}
	if err := e.lines.Err(); err != nil {
		e.t.Fatal(err)
	}
	return ev, false
}

// TestJobFiles: the files of a job are compressed for who asks for that, but not Parquet and not parts of them, and are the same
// in every form.
func TestJobFiles(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	upload := b.want(201, request{method: "POST", path: "/api/v1/uploads", body: `{"filename":"a.ndjson"}`}).text(t, "id")
	b.want(200, request{method: "PATCH", path: "/api/v1/uploads/" + upload, body: rows(300) + "bad\n", header: map[string]string{"Upload-Offset": "0", "Content-Type": "application/octet-stream"}})
	made := map[string]string{}
	for _, format := range []string{"ndjson", "parquet"} {
		made[format] = b.want(201, request{method: "POST", path: "/api/v1/jobs", body: `{"kind":"bulk","result_format":"` + format + `","source":{"upload_id":"` + upload + `"}}`}).text(t, "id")
	}
	b.jobs.Start()
	for _, id := range made {
		e := b.follow(t, id, "")
		for ev, ok := e.next(); ok && ev.job.State != "done"; ev, ok = e.next() {
		}
	}
	get := func(path string, header map[string]string) answer {
		t.Helper()
		a := b.do(request{method: "GET", path: path, header: header})
		if a.header.Get("Vary") != "Accept-Encoding" || a.header.Get("Etag") == "" {
			t.Errorf("%s %v: %d %v", path, header, a.status, a.header)
		}
		return a
	}
	for _, path := range []string{"/api/v1/jobs/" + made["ndjson"] + "/result", "/api/v1/jobs/" + made["ndjson"] + "/errors"} {
		plain := get(path, nil)
		if plain.status != 200 || plain.header.Get("Content-Encoding") != "" || plain.header.Get("Content-Length") == "" || len(plain.body) == 0 {
			t.Fatalf("%s: %d %v", path, plain.status, plain.header)
		}
		for _, encoding := range []string{"gzip", "zstd"} {
			a := get(path, map[string]string{"Accept-Encoding": encoding})
			got, err := io.ReadAll(decoder(t, encoding, bytes.NewReader(a.body)))
			if a.status != 200 || a.header.Get("Content-Encoding") != encoding || err != nil || !bytes.Equal(got, plain.body) || a.header.Get("Etag") == plain.header.Get("Etag") {
				t.Errorf("%s as %s: %d %v, %d bytes for %d, %v", path, encoding, a.status, a.header, len(got), len(plain.body), err)
			}
			if again := get(path, map[string]string{"Accept-Encoding": encoding, "If-None-Match": a.header.Get("Etag")}); again.status != 304 || len(again.body) != 0 {
				t.Errorf("%s as %s again: %d, %d bytes", path, encoding, again.status, len(again.body))
			}
			if part := get(path, map[string]string{"Accept-Encoding": encoding, "Range": "bytes=0-9"}); part.status != 206 || string(part.body) != string(plain.body[:10]) || part.header.Get("Content-Encoding") != "" {
				t.Errorf("a part of %s as %s: %d %q %v", path, encoding, part.status, part.body, part.header)
			}
		}
	}
	if a := get("/api/v1/jobs/"+made["parquet"]+"/result", map[string]string{"Accept-Encoding": "zstd"}); a.status != 200 || a.header.Get("Content-Encoding") != "" || !strings.HasPrefix(string(a.body), "PAR1") {
		t.Errorf("Parquet: %d %v", a.status, a.header)
	}
}

// TestJobEvents follows a job to its end over HTTP, leaves in between and comes back.
func TestJobEvents(t *testing.T) {
	t.Parallel()
	gate := &turnstile{first: make(chan struct{}), rest: make(chan struct{})}
	b := setup(t, options{wrap: func(s terse.Store) terse.Store { gate.Store = s; return gate }})
	var body strings.Builder // of two batches: the first is what comes at once
	for i := range 150 {
		fmt.Fprintf(&body, `{"destination":"https://example.com/%s","external_id":"r%d"}`+"\n", strings.Repeat("a", 4000), i)
	}
	upload := b.want(201, request{method: "POST", path: "/api/v1/uploads", body: `{"filename":"a.ndjson"}`}).text(t, "id")
	b.want(200, request{method: "PATCH", path: "/api/v1/uploads/" + upload, body: body.String(), header: map[string]string{"Upload-Offset": "0", "Content-Type": "application/octet-stream"}})
	id := b.want(201, request{method: "POST", path: "/api/v1/jobs", body: `{"kind":"bulk","source":{"upload_id":"` + upload + `"}}`}).text(t, "id")

	e := b.follow(t, id, "")
	if h := e.resp.Header; e.resp.StatusCode != 200 || h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d, %v", e.resp.StatusCode, h)
	}
	ev, ok := e.next()
	if !ok || ev.id == "" || ev.name != "job" || ev.job.State != "queued" || ev.job.Done != 0 {
		t.Fatalf("the first event: %+v", ev)
	}
	b.jobs.Start()
	for ev.job.State != "running" {
		if ev, ok = e.next(); !ok {
			t.Fatal("the stream ended before the job ran")
		}
	}
	b.now.Add(1000)
	close(gate.first)
	for ev.job.Done == 0 {
		if ev, ok = e.next(); !ok {
			t.Fatal("the stream ended before there was progress")
		}
	}
	if ev.job.Done >= 150 || ev.job.RowsPerSecond != float64(ev.job.Done) || ev.job.ETASeconds == nil {
		t.Errorf("progress after a second: %+v", ev.job)
	}
	e.close() // the client leaves; goleak sees that nobody stays behind

	e = b.follow(t, id, ev.id)
	close(gate.rest)
	last := ev
	for {
		ev, ok := e.next()
		if !ok {
			break
		}
		if ev.id == last.id {
			t.Errorf("the event %s comes twice", ev.id)
		}
		last = ev
	}
	if last.job.State != "done" || last.job.Created != 150 || last.job.ResultURL == nil || last.job.ETASeconds != nil || last.job.RowsPerSecond != 0 {
		t.Errorf("the last event: %+v", last.job)
	}
	if e := b.follow(t, id, last.id); e.resp.StatusCode != 204 {
		t.Errorf("who has seen the end gets %d, want 204", e.resp.StatusCode)
	}
	e = b.follow(t, id, "1-1")
	if ev, ok := e.next(); !ok || ev.job.State != "done" || ev.id != last.id {
		t.Errorf("after the end: %+v", ev)
	}
	if _, ok := e.next(); ok {
		t.Error("the stream goes on after the end")
	}
	b.want(404, request{method: "GET", path: "/api/v1/jobs/job_none/events"})
}
