package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
)

// Upload is a file on the server, whole or on its way.
type Upload struct {
	ID          string    `json:"id"`
	Filename    string    `json:"filename"`
	ContentType string    `json:"content_type"`
	Encoding    string    `json:"content_encoding"` // gzip or zstd; "": not compressed
	Size        *int64    `json:"size"`             // nil: not announced
	Offset      int64     `json:"offset"`           // bytes that are on the server's disk
	Complete    bool      `json:"complete"`
	CreatedAt   time.Time `json:"created_at"`
	ExpiresAt   time.Time `json:"expires_at"` // zero while a job needs it
}

// NewUpload describes an upload.
type NewUpload struct {
	Filename    string `json:"filename,omitzero"`
	ContentType string `json:"content_type,omitzero"`
	// Encoding is gzip, zstd or identity: what the bytes are compressed with; "": what the
	// filename says.
	Encoding string `json:"content_encoding,omitzero"`
	Size     *int64 `json:"size,omitzero"`
}

// Job is work that goes on after its request has ended.
type Job struct {
	ID            string            `json:"id"`
	Kind          string            `json:"kind"`
	State         string            `json:"state"` // queued, running, paused, done, failed, cancelled or rolled_back
	RollingBack   bool              `json:"rolling_back"`
	CampaignID    string            `json:"campaign_id"`
	Domain        string            `json:"domain"`
	DryRun        bool              `json:"dry_run"`
	Format        string            `json:"format"`
	ResultFormat  string            `json:"result_format"`
	Columns       map[string]string `json:"columns"`
	Source        JobSource         `json:"source"`
	Rows          uint64            `json:"rows"` // 0 until the file was read to its end
	Done          uint64            `json:"done"`
	Failed        uint64            `json:"failed"`
	Created       uint64            `json:"created"`
	Reused        uint64            `json:"reused"`
	RolledBack    uint64            `json:"rolled_back"`
	Progress      float64           `json:"progress"` // part of the file whose rows have a result, 0 to 1
	Nodes         []JobNode         `json:"nodes"`    // that took part, the node of the job first; none if it was that one alone
	RowsPerSecond float64           `json:"rows_per_second"`
	ETASeconds    *float64          `json:"eta_seconds"`
	ResultURL     string            `json:"result_url"`
	ErrorURL      string            `json:"error_url"`
	Report        *JobReport        `json:"report"`
	Error         *JobError         `json:"error"`
	Callback      *JobCallback      `json:"callback"`
	CreatedBy     string            `json:"created_by"`
	CreatedAt     time.Time         `json:"created_at"`
	StartedAt     time.Time         `json:"started_at"`
	EndedAt       time.Time         `json:"ended_at"`
	UpdatedAt     time.Time         `json:"updated_at"`
}

// JobNode is how many rows of a job a node made the results of.
type JobNode struct {
	Name string `json:"name"`
	Rows uint64 `json:"rows"`
}

// Ended reports whether nothing more happens by itself.
func (j *Job) Ended() bool {
	switch j.State {
	case "done", "failed", "cancelled", "rolled_back":
		return true
	}
	return false
}

// JobSource says where the rows of a job come from.
type JobSource struct {
	UploadID string `json:"upload_id"`
}

// JobReport sums up the rows of a job.
type JobReport struct {
	Valid         uint64            `json:"valid"`
	Duplicates    uint64            `json:"duplicates"`
	DuplicateRows []uint64          `json:"duplicate_rows"`
	Conflicts     uint64            `json:"conflicts"`
	Invalid       map[string]uint64 `json:"invalid"`
}

// JobError says why a job failed, or waits to try again.
type JobError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// JobCallback is the message at the end of a job. Secret is only there in the answer to
// the creation.
type JobCallback struct {
	URL       string    `json:"url"`
	Secret    string    `json:"secret,omitzero"`
	Delivery  string    `json:"delivery,omitzero"`
	Attempts  int       `json:"attempts,omitzero"`
	NextAt    time.Time `json:"next_at,omitzero"`
	LastError string    `json:"last_error,omitzero"`
}

// NewJob describes a job.
type NewJob struct {
	Kind         string            `json:"kind"` // "bulk"
	CampaignID   string            `json:"campaign_id,omitzero"`
	Domain       string            `json:"domain,omitzero"`
	DryRun       bool              `json:"dry_run,omitzero"`
	Format       string            `json:"format,omitzero"`        // ndjson, csv or json; "" is told by the upload
	ResultFormat string            `json:"result_format,omitzero"` // ndjson, csv or parquet; "" is ndjson
	Columns      map[string]string `json:"columns,omitzero"`       // of a CSV file: its name -> the field, "" to leave it out
	Source       JobSource         `json:"source"`
	Callback     *JobCallback      `json:"callback,omitzero"` // URL and, if it is known, Secret
	// IdempotencyKey makes a repetition return the same job, for 24 hours. "" is a new key for every call.
	IdempotencyKey string `json:"-"`
}

// CreateUpload begins an upload.
func (c *Client) CreateUpload(ctx context.Context, n NewUpload) (*Upload, error) {
	var u Upload
	return &u, c.do(ctx, &call{method: http.MethodPost, path: "/uploads", in: n, out: &u})
}

// GetUpload returns an upload: where it goes on.
func (c *Client) GetUpload(ctx context.Context, id string) (*Upload, error) {
	var u Upload
	return &u, c.do(ctx, &call{method: http.MethodGet, path: "/uploads/" + url.PathEscape(id), out: &u})
}

// DeleteUpload deletes an upload that no job needs.
func (c *Client) DeleteUpload(ctx context.Context, id string) error {
	return c.do(ctx, &call{method: http.MethodDelete, path: "/uploads/" + url.PathEscape(id)})
}

// AppendUpload sends one piece of an upload, which begins at offset. It is not repeated by
// itself; after an error GetUpload says where to go on.
func (c *Client) AppendUpload(ctx context.Context, id string, offset int64, piece []byte) (*Upload, error) {
	req, err := c.request(ctx, http.MethodPatch, "/uploads/"+url.PathEscape(id), nil, bytes.NewReader(piece))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("Upload-Offset", strconv.FormatInt(offset, 10))
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, trimURL(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, readError(resp)
	}
	var u Upload
	if err := json.UnmarshalRead(io.LimitReader(resp.Body, maxErrorBody), &u); err != nil {
		return nil, fmt.Errorf("read the answer to an upload: %w", err)
	}
	return &u, nil
}

// CreateJob makes a job.
func (c *Client) CreateJob(ctx context.Context, n NewJob) (*Job, error) {
	var j Job
	return &j, c.do(ctx, &call{method: http.MethodPost, path: "/jobs", in: n, out: &j, key: n.IdempotencyKey})
}

// GetJob returns a job.
func (c *Client) GetJob(ctx context.Context, id string) (*Job, error) {
	var j Job
	return &j, c.do(ctx, &call{method: http.MethodGet, path: "/jobs/" + url.PathEscape(id), out: &j})
}

// Jobs yields the jobs of the workspace, the newest first. An error ends it.
func (c *Client) Jobs(ctx context.Context) iter.Seq2[*Job, error] {
	return pages[Job](ctx, c, "/jobs", url.Values{})
}

// DeleteJob deletes a job that does not run, with its results; its links stay.
func (c *Client) DeleteJob(ctx context.Context, id string) error {
	return c.do(ctx, &call{method: http.MethodDelete, path: "/jobs/" + url.PathEscape(id)})
}

// PauseJob stops a job after its current batch. Like ResumeJob, CancelJob and RollbackJob it returns the job.
func (c *Client) PauseJob(ctx context.Context, id string) (*Job, error) {
	return c.jobAction(ctx, id, "pause")
}

// ResumeJob lets a paused job go on.
func (c *Client) ResumeJob(ctx context.Context, id string) (*Job, error) {
	return c.jobAction(ctx, id, "resume")
}

// CancelJob ends a job; links that it made stay.
func (c *Client) CancelJob(ctx context.Context, id string) (*Job, error) {
	return c.jobAction(ctx, id, "cancel")
}

// RollbackJob deletes every link that a job made.
func (c *Client) RollbackJob(ctx context.Context, id string) (*Job, error) {
	return c.jobAction(ctx, id, "rollback")
}

func (c *Client) jobAction(ctx context.Context, id, action string) (*Job, error) {
	var j Job
	return &j, c.do(ctx, &call{method: http.MethodPost, path: "/jobs/" + url.PathEscape(id) + "/" + action, out: &j})
}

// JobResult returns the results of a job that is done, or only its bad rows as they were
// sent, each with a terse_error. The caller closes it.
func (c *Client) JobResult(ctx context.Context, id string, onlyErrors bool) (io.ReadCloser, error) {
	path := "/jobs/" + url.PathEscape(id) + "/result"
	if onlyErrors {
		path = "/jobs/" + url.PathEscape(id) + "/errors"
	}
	// Results by the million: the transport would ask for gzip by itself.
	return c.stream(ctx, path, nil, map[string]string{"Accept-Encoding": "identity"})
}

// stream opens an answer of any length; the caller closes it.
func (c *Client) stream(ctx context.Context, path string, query url.Values, header map[string]string) (io.ReadCloser, error) {
	req, err := c.request(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return nil, err
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, trimURL(err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, readError(resp)
	}
	return resp.Body, nil
}

// JobEvents calls f with the job as it is, and whenever it has changed, until it has ended
// or f returns false. Returns an error if the connection breaks before; the caller may call again.
func (c *Client) JobEvents(ctx context.Context, id string, f func(*Job) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, err := c.stream(ctx, "/jobs/"+url.PathEscape(id)+"/events", nil, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			continue
		}
		var j Job
		if err := json.Unmarshal(data, &j); err != nil {
			return fmt.Errorf("read the event of a job: %w", err)
		}
		if j.ID == "" {
			return errors.New("the job was deleted")
		}
		if !f(&j) || j.Ended() {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}
