package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/compress"
	"github.com/terselink/terse/internal/inflate"
	"github.com/terselink/terse/internal/jobs"
)

// Job is a job as the API shows it.
type Job struct {
	ID            string            `json:"id" example:"job_01kaq3v3s8x6m9c2f4h7j0n5pq"`
	Kind          string            `json:"kind" doc:"bulk."`
	State         string            `json:"state" doc:"queued, running, paused, done, failed, cancelled or rolled_back."`
	RollingBack   bool              `json:"rolling_back" doc:"What is queued or running is the rollback."`
	CampaignID    *string           `json:"campaign_id"`
	Domain        *string           `json:"domain"`
	DryRun        bool              `json:"dry_run"`
	Format        string            `json:"format"`
	ResultFormat  string            `json:"result_format"`
	Columns       map[string]string `json:"columns"`
	Source        JobSource         `json:"source"`
	Rows          *uint64           `json:"rows" doc:"Of the file; null until it was read to its end."`
	Done          uint64            `json:"done" doc:"Rows that have a result."`
	Failed        uint64            `json:"failed" doc:"Rows without a link."`
	Created       uint64            `json:"created" doc:"Links that were made; in a dry run those that could be."`
	Reused        uint64            `json:"reused"`
	RolledBack    uint64            `json:"rolled_back" doc:"Links that the rollback has deleted so far."`
	Progress      float64           `json:"progress" doc:"The part of the file whose rows have a result, 0 to 1; after a restart it counts anew. In a rollback the part of the links that is gone."`
	Nodes         []JobNode         `json:"nodes" doc:"The nodes that made the results since the job last began, that of the job first; empty while it was that one alone. What was done before a restart counts for the node of the job."`
	RowsPerSecond float64           `json:"rows_per_second" doc:"Over the last two seconds; 0 unless it runs."`
	ETASeconds    *float64          `json:"eta_seconds" doc:"null if it is not known."`
	ResultURL     *string           `json:"result_url" doc:"One result a row, in the order of the rows; null before the end."`
	ErrorURL      *string           `json:"error_url" doc:"The bad rows as they were sent, each with a terse_error; mend and send them as they are. null before the end."`
	Report        *JobReport        `json:"report" doc:"null before the end."`
	Error         *JobError         `json:"error" doc:"Why it failed, or waits to try again; in a list also node_unavailable, if its node is not there."`
	Callback      *JobCallback      `json:"callback"`
	CreatedBy     string            `json:"created_by" doc:"The id of the key that made it, or owner."`
	CreatedAt     time.Time         `json:"created_at"`
	StartedAt     *time.Time        `json:"started_at"`
	EndedAt       *time.Time        `json:"ended_at"`
	UpdatedAt     time.Time         `json:"updated_at"`
}

// JobNode is how much of a job a node did.
type JobNode struct {
	Name string `json:"name"`
	Rows uint64 `json:"rows" doc:"That it made the results of."`
}

// JobSource says where the rows come from.
type JobSource struct {
	UploadID string `json:"upload_id"`
}

// JobReport sums up the rows of a job.
type JobReport struct {
	Valid         uint64            `json:"valid"`
	Duplicates    uint64            `json:"duplicates" doc:"Rows with the external_id of an earlier row; counted by dry runs."`
	DuplicateRows []uint64          `json:"duplicate_rows" doc:"The first 100 of them."`
	Conflicts     uint64            `json:"conflicts" doc:"Rows whose code is taken, by a link or by an earlier row."`
	Invalid       map[string]uint64 `json:"invalid" doc:"Other bad rows, by error code."`
}

// JobError says why a job failed.
type JobError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// JobCallback is what is told of the message at the end.
type JobCallback struct {
	URL       string     `json:"url"`
	Secret    string     `json:"secret,omitempty" doc:"Only in the answer to the creation."`
	Delivery  *string    `json:"delivery" doc:"pending, delivered or failed; null before the end."`
	Attempts  int        `json:"attempts"`
	NextAt    *time.Time `json:"next_at"`
	LastError *string    `json:"last_error"`
}

// NewJob is the body of a creation.
type NewJob struct {
	Kind       string `json:"kind" enum:"bulk" doc:"bulk: a link of every row."`
	CampaignID string `json:"campaign_id,omitempty" nullable:"true" doc:"The campaign that the links join."`
	Domain     string `json:"domain,omitempty" nullable:"true" doc:"The host for rows that name none; without it the workspace's default."`
	DryRun     bool   `json:"dry_run,omitempty" nullable:"true" doc:"Validates every row, finds repetitions, and creates nothing."`
	Format     string `json:"format,omitempty" nullable:"true" doc:"ndjson, csv or json; told by the upload's content_type or filename if absent."`
	// ResultFormat stands beside Format in the documentation.
	ResultFormat string            `json:"result_format,omitempty" nullable:"true" doc:"ndjson (default), csv or parquet."`
	Columns      map[string]string `json:"columns,omitempty" nullable:"true" doc:"The field that a column of a CSV file holds, by the column's name; an empty one leaves the column out."`
	Source       JobSource         `json:"source"`
	Callback     *NewCallback      `json:"callback,omitempty" doc:"Where to POST the end of the job, signed per Standard Webhooks."`
}

// NewCallback names the receiver of a callback.
type NewCallback struct {
	URL    string `json:"url" doc:"A public http or https URL."`
	Secret string `json:"secret,omitempty" nullable:"true" doc:"whsec_ and 24 to 64 bytes in base 64; made by the server if absent."`
}

type jobOutput struct {
	Location string `header:"Location"`
	Body     *Job
}

func (s *Server) registerJobs() {
	register(s, operation{
		ID: "createJob", Method: http.MethodPost, Path: "/api/v1/jobs", Tag: "Jobs", Scope: auth.ScopeLinksWrite, Status: http.StatusCreated,
		Summary: "Make a job of an upload", Description: "It runs by itself, also over restarts of the server. Follow it with GET or its events.", Errors: []int{409}, owner: ownerOfNewJob,
	}, s.createJob)
	register(s, operation{
		ID: "listJobs", Method: http.MethodGet, Path: "/api/v1/jobs", Tag: "Jobs", Scope: auth.ScopeLinksRead, Status: http.StatusOK,
		Summary: "List jobs, the newest first", Description: "Those of all nodes. The progress of one that runs on a node which does not answer is as it was when the job began.",
	}, s.listJobs)
	register(s, operation{
		ID: "getJob", Method: http.MethodGet, Path: "/api/v1/jobs/{id}", Tag: "Jobs", Scope: auth.ScopeLinksRead, Status: http.StatusOK,
		Summary: "Get a job", Errors: []int{409}, owner: ownerOfJob,
	}, s.getJob)
	register(s, operation{
		ID: "deleteJob", Method: http.MethodDelete, Path: "/api/v1/jobs/{id}", Tag: "Jobs", Scope: auth.ScopeLinksWrite, Status: http.StatusNoContent,
		Summary: "Delete a job that does not run, with its results", Description: "Its links stay. A job of a node that is not on the list of nodes can be deleted in any state.", Errors: []int{409}, owner: ownerOfJobToDelete,
	}, s.deleteJob)
	type action func(*jobs.Manager, context.Context, terse.WorkspaceID, string) (jobs.Snapshot, error)
	for _, a := range []struct {
		name, summary, description string
		do                         action
		lost                       action // for a job whose node is not there; nil: there is nothing to be done
	}{
		{"pause", "Pause a job", "What is under way is finished.", (*jobs.Manager).Pause, nil},
		{"resume", "Let a paused job go on", "Within six days of its start.", (*jobs.Manager).Resume, nil},
		{"cancel", "End a job", "Links that it made stay. Also if its node is not there.", (*jobs.Manager).Cancel, (*jobs.Manager).CancelLost},
		{"rollback", "Delete every link that a job made", "Also after its end, within six days of its start, and if its node is not there. Links that it reused stay.", (*jobs.Manager).Rollback, (*jobs.Manager).RollbackLost},
	} {
		owner := ownerOfJob
		if a.lost != nil {
			owner = ownerOfJobToEnd
		}
		register(s, operation{
			ID: a.name + "Job", Method: http.MethodPost, Path: "/api/v1/jobs/{id}/" + a.name, Tag: "Jobs", Scope: auth.ScopeLinksWrite, Status: http.StatusOK,
			Summary: a.summary, Description: a.description, Errors: []int{409, 410}, owner: owner,
		}, func(ctx context.Context, c *call, in *idPath) (*jobOutput, error) {
			m, err := s.jobManager()
			if err != nil {
				return nil, err
			}
			j, err := a.do(m, ctx, c.workspace, in.ID)
			if err != nil && a.lost != nil {
				j, err = s.endLost(ctx, c, in.ID, err, func(ctx context.Context, w terse.WorkspaceID, id string) (jobs.Snapshot, error) {
					return a.lost(m, ctx, w, id)
				})
			}
			if err != nil {
				return nil, err
			}
			return &jobOutput{Body: showJob(&j)}, nil
		})
	}
	for _, f := range []struct {
		name, summary string
		errors        bool
	}{
		{"result", "Get the results of a job", false},
		{"errors", "Get the bad rows of a job, as they were sent, with reasons", true},
	} {
		doc := s.mountRaw(operation{
			ID: "getJob" + map[bool]string{false: "Result", true: "Errors"}[f.errors], Method: http.MethodGet, Path: "/api/v1/jobs/{id}/" + f.name, Tag: "Jobs",
			Scope: auth.ScopeLinksRead, Status: http.StatusOK, Summary: f.summary, Description: "Understands Range. Without it Accept-Encoding zstd or gzip compresses the answer.", Errors: []int{409}, owner: ownerOfJob, stream: true,
		}, func(w http.ResponseWriter, r *http.Request) error { return s.jobFile(w, r, f.errors) })
		text := &huma.Schema{Type: huma.TypeString}
		doc.Responses["200"] = &huma.Response{Description: "One result a row", Content: map[string]*huma.MediaType{typeNDJSON: {Schema: text}, typeCSV: {Schema: text}}}
		if !f.errors {
			doc.Responses["200"].Content[typeParquet] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}
		}
		s.huma.OpenAPI().AddOperation(doc)
	}
	doc := s.mountRaw(operation{
		ID: "jobEvents", Method: http.MethodGet, Path: "/api/v1/jobs/{id}/events", Tag: "Jobs", Scope: auth.ScopeLinksRead, Status: http.StatusOK,
		Summary:     "Follow a job",
		Description: "Server-sent events named job, each the whole job: at once, then at most every 500 ms when it has changed. The stream ends after the event of its end. With Last-Event-ID, what that event said is not said again; 204 if it was that of the end.", Errors: []int{409}, owner: ownerOfJob, stream: true,
	}, s.jobEvents)
	doc.Responses["200"] = &huma.Response{Description: "Events", Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}}}
	s.huma.OpenAPI().AddOperation(doc)
	if s.o.Jobs != nil {
		s.o.Jobs.SetBody(func(j *jobs.Snapshot) ([]byte, error) {
			return marshal(struct {
				Type      string    `json:"type"`
				Timestamp time.Time `json:"timestamp"`
				Data      *Job      `json:"data"`
			}{"job." + string(j.State), j.EndedAt.Time(), showJob(j)})
		})
	}
}

func showJob(j *jobs.Snapshot) *Job {
	out := &Job{
		ID: j.ID, Kind: "bulk", State: string(j.State), RollingBack: j.RollingBack && j.State != jobs.RolledBack, Domain: orNull(j.Spec.Domain),
		DryRun: j.Spec.DryRun, Format: j.Spec.Format, ResultFormat: j.Spec.ResultFormat, Columns: j.Spec.Columns, Source: JobSource{j.Spec.Upload},
		Done: j.Counts.Done, Failed: j.Counts.Failed, Created: j.Counts.Created, Reused: j.Counts.Reused, RolledBack: j.Counts.RolledBack,
		Progress: j.Part, RowsPerSecond: j.RowsPerSecond, CreatedBy: j.By, CreatedAt: j.CreatedAt.Time(), StartedAt: timeOrNull(j.StartedAt), EndedAt: timeOrNull(j.EndedAt), UpdatedAt: j.UpdatedAt.Time(),
	}
	out.Nodes = make([]JobNode, 0, len(j.Nodes))
	for _, n := range j.Nodes {
		out.Nodes = append(out.Nodes, JobNode(n))
	}
	if out.Columns == nil {
		out.Columns = map[string]string{}
	}
	if j.Spec.Campaign != 0 {
		out.CampaignID = orNull(j.Spec.Campaign.String())
	}
	if j.Report != nil {
		rows := j.Counts.Rows
		out.Rows = &rows
		out.Report = &JobReport{
			Valid: j.Report.Valid, Duplicates: j.Report.Duplicates, DuplicateRows: j.Report.DuplicateRows, Conflicts: j.Report.Conflicts, Invalid: j.Report.Invalid,
		}
		if out.Report.DuplicateRows == nil {
			out.Report.DuplicateRows = []uint64{}
		}
	}
	if j.ETA >= 0 && j.State == jobs.Running {
		eta := j.ETA.Seconds()
		out.ETASeconds = &eta
	}
	if j.HasResult() {
		out.ResultURL, out.ErrorURL = orNull("/api/v1/jobs/"+j.ID+"/result"), orNull("/api/v1/jobs/"+j.ID+"/errors")
	}
	if j.Fault != nil {
		out.Error = &JobError{j.Fault.Code, j.Fault.Message}
	}
	if c := j.Callback; c != nil {
		out.Callback = &JobCallback{URL: c.URL, Delivery: orNull(c.Delivery), Attempts: c.Attempts, LastError: orNull(c.LastError)}
		if c.Delivery == "pending" {
			out.Callback.NextAt = timeOrNull(c.NextAt)
		}
	}
	return out
}

func (s *Server) createJob(ctx context.Context, c *call, in *struct{ Body NewJob }) (*jobOutput, error) {
	m, err := s.jobManager()
	if err != nil {
		return nil, err
	}
	b := &in.Body
	spec := jobs.Spec{Upload: b.Source.UploadID, Format: b.Format, ResultFormat: b.ResultFormat, DryRun: b.DryRun, Columns: b.Columns}
	if b.CampaignID != "" {
		if spec.Campaign, err = terse.ParseCampaignID(b.CampaignID); err == nil {
			err = s.o.Links.CheckCampaign(ctx, c.actor(), spec.Campaign)
		}
		if terse.ErrorCode(err) == terse.CodeNotFound || terse.ErrorCode(err) == terse.CodeInvalid {
			err = &terse.Error{Code: terse.CodeNotFound, Field: "campaign_id", Message: "there is no such campaign"}
		}
		if err != nil {
			return nil, err
		}
	}
	if b.Domain != "" {
		d, err := s.visibleDomain(c, b.Domain)
		if err != nil {
			return nil, &terse.Error{Code: terse.CodeInvalid, Reason: "unknown_domain", Field: "domain", Message: "there is no such domain"}
		}
		spec.Domain = d.Host
	}
	var callback *jobs.Callback
	if b.Callback != nil {
		callback = &jobs.Callback{URL: b.Callback.URL, Secret: b.Callback.Secret}
	}
	show := func(j *jobs.Snapshot) *Job {
		out := showJob(j)
		if out.Callback != nil {
			out.Callback.Secret = callback.Secret
		}
		return out
	}
	location := func(j *jobs.Snapshot) string { return "/api/v1/jobs/" + j.ID }
	j, err := m.Create(ctx, c.workspace, c.who.Subject, spec, callback, answerWith(c.idem, func(j *jobs.Snapshot) (int, map[string]string, any, error) {
		return http.StatusCreated, map[string]string{"Location": location(j)}, show(j), nil
	}))
	if err != nil {
		return nil, err
	}
	return &jobOutput{Location: location(&j), Body: show(&j)}, nil
}

func (s *Server) getJob(_ context.Context, c *call, in *idPath) (*jobOutput, error) {
	m, err := s.jobManager()
	if err != nil {
		return nil, err
	}
	j, err := m.Get(c.workspace, in.ID)
	if err != nil {
		return nil, err
	}
	return &jobOutput{Body: showJob(&j)}, nil
}

func (s *Server) deleteJob(ctx context.Context, c *call, in *idPath) (*struct{}, error) {
	if lost, err := s.deleteLost(ctx, c, in.ID); lost || err != nil {
		return nil, err
	}
	m, err := s.jobManager()
	if err != nil {
		return nil, err
	}
	return nil, m.Delete(ctx, c.workspace, in.ID)
}

// typeParquet is the registered type of Apache Parquet.
const typeParquet = "application/vnd.apache.parquet"

// jobFile serves the results of a job.
func (s *Server) jobFile(w http.ResponseWriter, r *http.Request, onlyErrors bool) error {
	m, err := s.jobManager()
	if err != nil {
		return err
	}
	f, j, err := m.File(callOf(r.Context()).workspace, r.PathValue("id"), onlyErrors)
	if err != nil {
		return err
	}
	defer f.Close()
	h := w.Header()
	format := j.Spec.ResultFormat
	name := j.ID + "." + format
	if onlyErrors {
		format = j.Spec.ErrorFormat()
		name = j.ID + "-errors." + format
	}
	h.Set("Content-Type", map[string]string{"csv": "text/csv; charset=utf-8; header=present", "ndjson": typeNDJSON, "parquet": typeParquet}[format])
	h.Set("Content-Disposition", `attachment; filename="`+name+`"`)
	h.Set("Vary", "Accept-Encoding")
	tag := fmt.Sprintf("%s-%d", j.ID, j.StartedAt) // the file of a job that has ended never changes
	encoding := compress.Accepted(strings.Join(r.Header.Values("Accept-Encoding"), ","))
	if encoding == inflate.Identity || format == "parquet" || r.Header.Get("Range") != "" {
		h.Set("ETag", `"`+tag+`"`)
		http.ServeContent(w, r, "", time.Time{}, f)
		return nil
	}
	serveCompressed(w, r, encoding, tag+"-"+encoding, f)
	return nil
}

// serveCompressed answers with a file that has the tag in this encoding. It understands If-None-Match, and breaks the
// connection off if the file cannot be read to its end.
func serveCompressed(w http.ResponseWriter, r *http.Request, encoding, tag string, f io.Reader) {
	h := w.Header()
	h.Set("ETag", `"`+tag+`"`)
	if match := r.Header.Get("If-None-Match"); match == "*" || strings.Contains(match, `"`+tag+`"`) {
		h.Del("Content-Type")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Encoding", encoding)
	if r.Method == http.MethodHead {
		return
	}
	z := compress.New(encoding, w)
	_, err := io.Copy(z, f)
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		panic(http.ErrAbortHandler) // a file without its end must not pass for the whole
	}
}

// eventEvery is how often events look for a change.
const eventEvery = 500 * time.Millisecond

// jobEvents serves the events of a job until it has ended, the client goes or the server
// stops.
func (s *Server) jobEvents(w http.ResponseWriter, r *http.Request) error {
	m, err := s.jobManager()
	if err != nil {
		return err
	}
	c := callOf(r.Context())
	id := r.PathValue("id")
	j, err := m.Get(c.workspace, id)
	if err != nil {
		return err
	}
	last := r.Header.Get("Last-Event-ID")
	if j.State.Ended() && j.Revision == last {
		w.WriteHeader(http.StatusNoContent) // tells an EventSource, which has seen the end, to stay away
		return nil
	}
	rc := http.NewResponseController(w)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	if err := rc.Flush(); err != nil { // else who resumes waits for the header until something changes
		return nil
	}
	tick := time.NewTicker(eventEvery)
	defer tick.Stop()
	heartbeat := time.NewTicker(s.o.Heartbeat)
	defer heartbeat.Stop()
	send := func(text string) bool {
		_ = rc.SetWriteDeadline(time.Now().Add(callTimeout)) // writers without deadlines are fine
		_, err := w.Write([]byte(text))
		return err == nil && rc.Flush() == nil
	}
	for {
		j, err := m.Get(c.workspace, id)
		if err != nil { // deleted meanwhile
			send("event: gone\ndata: {}\n\n")
			return nil
		}
		if j.Revision != last {
			last = j.Revision
			if !send("id: " + last + "\nevent: job\ndata: " + string(mustMarshal(showJob(&j))) + "\n\n") {
				return nil
			}
		}
		if j.State.Ended() {
			return nil
		}
		select {
		case <-tick.C:
		case <-heartbeat.C:
			if !s.stillAdmitted(r, c) || !send(": still there\n\n") {
				return nil
			}
		case <-r.Context().Done():
			return nil
		case <-m.Stopping():
			return nil
		}
	}
}
