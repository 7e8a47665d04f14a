package e2e

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/sleep"
)

// rowSet is the body of a request or a job, and what must come of it.
type rowSet struct {
	body  []byte
	ids   []string // external ids; "" for a row that is refused
	wants []string // destinations
}

const (
	setRows = 300
	badRow  = 100 // every so many rows one is refused
)

// rows makes long rows, so that a few hundred fill several batches.
func (c *torture) rows(values bool) *rowSet {
	s := &rowSet{}
	var b bytes.Buffer
	for i := range setRows {
		n := strconv.FormatUint(c.serial.Add(1), 10)
		id, pad := "e-"+n, strings.Repeat("x", 1000)
		var dest, row string
		if values {
			dest = "https://shop.example.com/c/" + n + "?p=" + pad + "&q=" + pad
			row = `{"sku":"` + n + `","p":"` + pad + `","q":"` + pad + `","external_id":"` + id + `"}`
			if i%badRow == 7 {
				id, row = "", `{"sku":"`+n+`"}`
			}
		} else {
			dest = "https://shop.example.com/t/" + n + "?pad=" + strings.Repeat(pad, 6)
			row = `{"destination":"` + dest + `","external_id":"` + id + `"}`
			if i%badRow == 7 {
				id, row = "", `{"destination":"no `+pad+`"}`
			}
		}
		s.ids, s.wants = append(s.ids, id), append(s.wants, dest)
		b.WriteString(row + "\n")
	}
	s.body = b.Bytes()
	return s
}

// acknowledge notes that every good row has its link.
func (c *torture) acknowledge(s *rowSet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, id := range s.ids {
		if id != "" {
			c.want[id] = s.wants[i]
		}
	}
}

// checkResult holds one line of results against the row.
func (c *torture) checkResult(s *rowSet, i int, line []byte) (ok bool) {
	var r struct {
		Index      int       `json:"index"`
		Code       string    `json:"code"`
		ExternalID string    `json:"external_id"`
		Error      *struct{} `json:"error"`
	}
	if err := json.Unmarshal(line, &r); err != nil || i >= len(s.ids) || r.Index != i || (r.Error != nil) != (s.ids[i] == "") || r.ExternalID != s.ids[i] || (r.Code == "") != (r.Error != nil) {
		c.fault("result %d of the row %q: %.200s: %v", i, s.ids[min(i, len(s.ids)-1)], line, err)
		return false
	}
	return true
}

// campaignWork makes a campaign once.
type campaignWork struct {
	c   *torture
	key string
	id  string
}

func (c *torture) newCampaign() *campaignWork { return &campaignWork{c: c, key: c.key()} }

func (w *campaignWork) step(ctx context.Context) bool {
	if w == nil || w.id != "" {
		return true
	}
	var made struct {
		ID string `json:"id"`
	}
	in := map[string]any{"name": w.key, "destination": "https://shop.example.com/c/{sku}?p={p}&q={q}"}
	got, err := w.c.api.json(ctx, "POST", "/api/v1/campaigns", in, &made, "Idempotency-Key", w.key)
	if err != nil {
		return false
	}
	if got.status != 201 {
		w.c.fault("campaign: %d %.300s", got.status, got.body)
		return false
	}
	w.id = made.ID
	w.c.count("campaigns")
	return true
}

// bulkWork is a bulk request that is repeated until it was answered to its end.
type bulkWork struct {
	c        *torture
	rows     *rowSet
	key      string
	campaign *campaignWork // nil: rows are links
	seen     []string      // results that were read, by whatever attempt
	cut      bool
}

func (w *bulkWork) step(ctx context.Context) bool {
	if !w.campaign.step(ctx) {
		return false
	}
	path := "/api/v1/links/bulk"
	if w.campaign != nil {
		path = "/api/v1/campaigns/" + w.campaign.id + "/links"
	}
	req, err := http.NewRequestWithContext(ctx, "POST", w.c.api.s.URL(path), bytes.NewReader(w.rows.body))
	if err != nil {
		w.c.fault("bulk: %v", err)
		return false
	}
	req.Header.Set("Authorization", "Bearer "+proc.Key)
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set("Idempotency-Key", w.key)
	resp, err := w.c.api.http.Do(req)
	if err != nil {
		w.cut = true
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != 200 {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		if ctx.Err() == nil {
			w.c.fault("bulk: status %d, %s", resp.StatusCode, body)
		}
		return false
	}
	lines := bufio.NewReader(resp.Body)
	for i := 0; ; i++ {
		line, err := lines.ReadBytes('\n')
		switch {
		case err != nil:
			w.cut = true
			return false
		case bytes.HasPrefix(line, []byte(`{"done":true`)):
			if i != len(w.rows.ids) {
				w.c.fault("bulk: %d results, want %d", i, len(w.rows.ids))
			}
			w.c.acknowledge(w.rows)
			w.c.count("bulk requests")
			if w.cut {
				w.c.count("of them repeated")
			}
			return true
		case !w.c.checkResult(w.rows, i, line):
			return false
		case i == len(w.seen):
			w.seen = append(w.seen, string(line))
		case w.seen[i] != string(line) && w.rows.ids[i] != "":
			w.c.fault("a repetition answers %s, and before the kill %s", line, w.seen[i])
			return false
		}
	}
}

// jobWork is an upload, a job over it, and half of the time its rollback.
type jobWork struct {
	c            *torture
	rows         *rowSet
	campaign     *campaignWork // nil: rows are links
	upKey, key   string
	upload, id   string
	offset       int
	rollBack     bool
	asked, ended bool
}

func (c *torture) newJob(values bool) work {
	w := &jobWork{c: c, rows: c.rows(values), upKey: c.key(), key: c.key(), rollBack: c.serial.Add(1)%2 == 0}
	if values {
		w.campaign = c.newCampaign()
	}
	return w
}

func (w *jobWork) step(ctx context.Context) bool {
	for _, f := range []func(context.Context) bool{w.campaign.step, w.send, w.create, w.await, w.undo} {
		if !f(ctx) {
			return false
		}
	}
	if !w.rollBack {
		w.c.acknowledge(w.rows)
	}
	return true
}

// send uploads the rows in three pieces, from where the server says it is.
func (w *jobWork) send(ctx context.Context) bool {
	var u struct {
		ID     string `json:"id"`
		Offset int    `json:"offset"`
	}
	if w.upload == "" {
		in := map[string]any{"filename": "rows.ndjson", "size": len(w.rows.body)}
		got, err := w.c.api.json(ctx, "POST", "/api/v1/uploads", in, &u, "Idempotency-Key", w.upKey)
		if err != nil || got.status != 201 {
			return w.trouble("upload", got, err)
		}
		w.upload = u.ID
	}
	for w.offset < len(w.rows.body) {
		piece := w.rows.body[w.offset:min(w.offset+len(w.rows.body)/3+1, len(w.rows.body))]
		got, err := w.c.api.do(ctx, "PATCH", "/api/v1/uploads/"+w.upload, bytes.NewReader(piece), "Upload-Offset", strconv.Itoa(w.offset), "Content-Type", "application/octet-stream")
		if err == nil && got.status == 200 {
			w.offset += len(piece)
			continue
		}
		acknowledged := w.offset
		if got, err := w.c.api.json(ctx, "GET", "/api/v1/uploads/"+w.upload, nil, &u); err != nil || got.status != 200 {
			return w.trouble("look at the upload", got, err)
		}
		if w.offset = u.Offset; w.offset < acknowledged {
			w.c.fault("upload: %d bytes were acknowledged, %d are there", acknowledged, w.offset)
			return false
		}
	}
	return true
}

// trouble reports an answer that must not be; no answer is none.
func (w *jobWork) trouble(what string, got *answer, err error) bool {
	if err == nil {
		w.c.fault("%s: %d %.300s", what, got.status, got.body)
	}
	return false
}

func (w *jobWork) create(ctx context.Context) bool {
	if w.id != "" {
		return true
	}
	in := map[string]any{"kind": "bulk", "source": map[string]string{"upload_id": w.upload}, "callback": map[string]string{"url": w.c.hook}}
	if w.campaign != nil {
		in["campaign_id"] = w.campaign.id
	}
	var j struct {
		ID       string `json:"id"`
		Callback struct {
			Secret string `json:"secret"`
		} `json:"callback"`
	}
	got, err := w.c.api.json(ctx, "POST", "/api/v1/jobs", in, &j, "Idempotency-Key", w.key)
	if err != nil || got.status != 201 {
		return w.trouble("create job", got, err)
	}
	w.id = j.ID
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	w.c.secrets[strings.TrimPrefix(j.ID, "job_")] = j.Callback.Secret
	return true
}

// until waits for a state of the job.
func (w *jobWork) until(ctx context.Context, state string) bool {
	for {
		var j jobView
		got, err := w.c.api.json(ctx, "GET", "/api/v1/jobs/"+w.id, nil, &j)
		switch {
		case err != nil || got.status != 200:
			return w.trouble("job "+w.id, got, err)
		case j.State == state:
			return true
		case j.State != "queued" && j.State != "running" && j.State != "done":
			w.c.fault("job %s is %s: %.500s", w.id, j.State, got.body)
			return false
		}
		if sleep.For(ctx, 10*time.Millisecond) != nil {
			return false
		}
	}
}

// await waits for the end and reads the whole result.
func (w *jobWork) await(ctx context.Context) bool {
	if w.ended {
		return true
	}
	if !w.until(ctx, "done") {
		return false
	}
	got, err := w.c.api.do(ctx, "GET", "/api/v1/jobs/"+w.id+"/result", nil)
	if err != nil || got.status != 200 {
		return w.trouble("result", got, err)
	}
	lines := bytes.Split(bytes.TrimSpace(got.body), []byte{'\n'})
	if len(lines) != len(w.rows.ids)+1 {
		w.c.fault("job %s has %d results, want %d", w.id, len(lines)-1, len(w.rows.ids))
		return false
	}
	for i, line := range lines[:len(lines)-1] {
		if !w.c.checkResult(w.rows, i, line) {
			return false
		}
	}
	if got, err = w.c.api.do(ctx, "GET", "/api/v1/jobs/"+w.id+"/errors", nil); err != nil || bytes.Count(got.body, []byte("\n")) != setRows/badRow {
		return w.trouble("errors", got, err)
	}
	w.ended = true
	w.c.count("jobs")
	return true
}

func (w *jobWork) undo(ctx context.Context) bool {
	if !w.rollBack {
		return true
	}
	if !w.asked {
		got, err := w.c.api.do(ctx, "POST", "/api/v1/jobs/"+w.id+"/rollback", nil)
		if err != nil || got.status != 200 {
			return w.trouble("rollback", got, err)
		}
		w.asked = true
	}
	if !w.until(ctx, "rolled_back") {
		return false
	}
	w.c.count("of them rolled back")
	return true
}

// receive takes callbacks, as a receiver with the library of Standard Webhooks does.
func (c *torture) receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	id := r.Header.Get("webhook-id")
	job, _, _ := strings.Cut(strings.TrimPrefix(id, "msg_"), "_")
	c.mu.Lock()
	secret := c.secrets[job]
	c.mu.Unlock()
	if err != nil || secret == "" { // the answer to the creation was cut: it comes again
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	hook, err := standardwebhooks.NewWebhook(secret)
	if err == nil {
		err = hook.Verify(body, r.Header)
	}
	if err != nil {
		c.fault("callback %s: %v", id, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.received[job]++
}

// checkCallbacks waits until every job that is at its end was told of. One whose answer was
// cut is tried again after 5 and 30 seconds.
func (c *torture) checkCallbacks() {
	until(c.t, 5*time.Minute, "every callback comes", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for job := range c.secrets {
			if c.received[job] == 0 {
				return false
			}
		}
		return true
	})
}
