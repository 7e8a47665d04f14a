package jobs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/failpoint"
	"github.com/terselink/terse/internal/links"
	"github.com/terselink/terse/internal/outbound"
	"github.com/terselink/terse/internal/webhook"
)

const (
	// Prefix begins the ids of jobs.
	Prefix = "job_"
	// historyKeep is how long a job and its results are kept after its end.
	historyKeep = 30 * 24 * 60 * 60 * 1000 // milliseconds
	// ledgerUse is how long after its start a job may still rely on its ledger, a day
	// less than the ledger is kept.
	ledgerUse = links.LedgerKeep - 24*60*60*1000 // milliseconds
	// maxJobs bounds the history of one workspace, and so the memory of the list.
	maxJobs = 10_000
)

// Linker makes and deletes links; *links.Service is one.
type Linker interface {
	Bulk(ctx context.Context, a links.Actor, o links.BulkOptions, body io.Reader, w io.Writer) (links.BulkSummary, error)
	Rollback(ctx context.Context, a links.Actor, ledger string, progress func(deleted uint64)) (uint64, error)
}

// Sender sends callbacks; *outbound.Client is one.
type Sender interface {
	Check(url string) error
	Post(ctx context.Context, url string, header http.Header, body []byte) (*outbound.Response, error)
}

// Options configures a Manager. Every field but Node is required.
type Options struct {
	Store terse.Store
	Links Linker
	Send  Sender
	// Workspaces returns at most limit ids of workspaces after the given one, ascending.
	Workspaces func(ctx context.Context, after terse.WorkspaceID, limit int) ([]terse.WorkspaceID, error)
	Dir        string // the data folder: uploads/ and jobs/ are made in it
	// Node names the data folder where other nodes with jobs of their own use the store, too: this one leaves theirs
	// alone. "": all jobs are its.
	Node      string
	Clock     func() terse.Millis
	Log       *slog.Logger
	Workers   int
	MaxUpload int64 // bytes
	// Body renders a job as its callback carries it; set by package api before Start.
	Body func(*Snapshot) ([]byte, error)
}

// Manager keeps jobs and runs them.
type Manager struct {
	o       Options
	Uploads *Uploads
	results string
	ctx     context.Context
	cancel  context.CancelFunc
	wake    chan struct{}
	ring    chan struct{} // a callback is due
	wg      sync.WaitGroup

	mu       sync.Mutex
	jobs     map[string]*entry
	running  int
	turn     map[terse.WorkspaceID]uint64 // when a workspace last had a turn
	turns    uint64
	sending  map[string]bool
	stopped  bool
	revision atomic.Uint64
}

// entry is one job in memory.
type entry struct {
	id        string // never changes
	workspace terse.WorkspaceID
	write     sync.Mutex // held during a transition

	mu      sync.Mutex
	doc     Job
	version uint64
	rev     uint64             // of what a Snapshot shows
	run     context.CancelFunc // of the run under way
	active  bool               // a run has not ended yet
	gone    bool

	live progress
}

// Open finds the jobs of the workspaces and the files that an earlier process left.
func Open(ctx context.Context, o Options) (*Manager, error) {
	m := &Manager{
		o: o, results: filepath.Join(o.Dir, "jobs"), wake: make(chan struct{}, 1), ring: make(chan struct{}, 1),
		jobs: map[string]*entry{}, turn: map[terse.WorkspaceID]uint64{}, sending: map[string]bool{},
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	// What a process before this one called a revision must not be one of now: whoever
	// resumes the events of a job would miss its end.
	m.revision.Store(rand.Uint64() >> 1)
	var err error
	if m.Uploads, err = openUploads(filepath.Join(o.Dir, "uploads"), o.MaxUpload, o.Clock, o.Log); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(m.results, 0o700); err != nil {
		return nil, fmt.Errorf("make jobs folder: %w", err)
	}
	if left, err := filepath.Glob(filepath.Join(m.results, "repeats-*.tmp")); err == nil { // of dry runs that were cut
		for _, path := range left {
			if err := os.RemoveAll(path); err != nil {
				o.Log.Warn("remove what a dry run left", "error", err)
			}
		}
	}
	for after := terse.WorkspaceID(0); ; {
		list, err := o.Workspaces(ctx, after, 500)
		if err != nil {
			return nil, fmt.Errorf("open jobs: %w", err)
		}
		if len(list) == 0 {
			break
		}
		for _, w := range list {
			if err := m.load(ctx, w); err != nil {
				return nil, fmt.Errorf("open jobs: %w", err)
			}
			after = w
		}
	}
	return m, nil
}

func (m *Manager) load(ctx context.Context, w terse.WorkspaceID) error {
	for after := ""; ; {
		docs, err := m.o.Store.ListDocuments(ctx, w, terse.KindJob, after, 500)
		if err != nil || len(docs) == 0 {
			return err
		}
		for _, d := range docs {
			after = d.ID
			e := &entry{id: d.ID, workspace: w, version: d.Version, rev: m.revision.Add(1)}
			if err := json.Unmarshal(d.Data, &e.doc); err != nil {
				return fmt.Errorf("job %s: %w", d.ID, err)
			}
			if !m.mine(&e.doc) {
				continue
			}
			if e.doc.State == Running { // the process ended in the middle of it
				e.doc.State = Queued
			}
			e.live.set(e.doc.Counts, 0, 0)
			m.jobs[d.ID] = e
			m.Uploads.mu.Lock()
			if u := m.Uploads.list[e.doc.Spec.Upload]; u != nil {
				u.sealed = true
			}
			m.Uploads.mu.Unlock()
		}
	}
}

// mine reports whether a stored job is this node's. One from before there were several is that of the node which has its upload.
func (m *Manager) mine(j *Job) bool {
	if m.o.Node == "" || j.Node == m.o.Node {
		return true
	}
	m.Uploads.mu.Lock()
	defer m.Uploads.mu.Unlock()
	return j.Node == "" && m.Uploads.list[j.Spec.Upload] != nil
}

// SetBody says how callbacks show a job. It is called once, before Start.
func (m *Manager) SetBody(f func(*Snapshot) ([]byte, error)) { m.o.Body = f }

// Start begins to run jobs, those that were interrupted first.
func (m *Manager) Start() {
	m.wg.Go(m.schedule)
	m.wg.Go(m.callbacks)
	m.wg.Go(func() { m.tidy(time.Hour) })
}

// Stop interrupts what runs, which goes on after the next start, and waits for it.
// A Manager that was never started, or was stopped before, is fine.
func (m *Manager) Stop(ctx context.Context) error {
	m.mu.Lock()
	m.stopped = true
	m.mu.Unlock()
	m.cancel()
	done := make(chan struct{})
	go func() { m.wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop jobs: %w", ctx.Err())
	}
}

// Stopping is closed when Stop is called.
func (m *Manager) Stopping() <-chan struct{} { return m.ctx.Done() }

// Create makes a job of an upload. What also returns for it goes into the same atomic
// write; nil: nothing. Returns an error of code invalid, or conflict if the upload is not
// complete.
func (m *Manager) Create(ctx context.Context, w terse.WorkspaceID, by string, spec Spec, callback *Callback, also func(*Snapshot) ([]terse.Document, error)) (Snapshot, error) {
	if err := m.checkSpec(&spec); err != nil {
		return Snapshot{}, err
	}
	if callback != nil {
		if err := m.o.Send.Check(callback.URL); err != nil {
			return Snapshot{}, inField("callback.url", err)
		}
		if callback.Secret == "" {
			callback.Secret = webhook.NewSecret()
		}
		if _, err := webhook.ParseSecret(callback.Secret); err != nil {
			return Snapshot{}, inField("callback.secret", err)
		}
	}
	n := 0
	m.mu.Lock()
	for _, e := range m.jobs {
		if e.workspace == w {
			n++
		}
	}
	m.mu.Unlock()
	if n >= maxJobs {
		return Snapshot{}, &terse.Error{Code: terse.CodeRateLimited, Reason: "too_many_jobs", Message: fmt.Sprintf("the workspace has %d jobs; delete old ones", n)}
	}
	u, err := m.Uploads.Get(w, spec.Upload)
	if err == nil {
		// Before the upload is sealed, which a refused request must not do.
		if err := completeSpec(&spec, &u); err != nil {
			return Snapshot{}, err
		}
		u, err = m.Uploads.seal(w, spec.Upload)
	}
	if errors.Is(err, terse.ErrNotFound) {
		return Snapshot{}, &terse.Error{Code: terse.CodeNotFound, Field: "source.upload_id", Message: "there is no such upload"}
	}
	if err != nil {
		return Snapshot{}, err
	}
	now := m.o.Clock()
	id := newID(Prefix, now)
	e := &entry{id: id, workspace: w, doc: Job{
		ID: id, Workspace: w, By: by, Node: m.o.Node, Spec: spec, State: Queued, Bytes: u.Offset, Callback: callback, CreatedAt: now, UpdatedAt: now,
	}}
	if err := m.insert(ctx, e, also); err != nil {
		return Snapshot{}, err
	}
	m.add(e)
	return e.snapshot(), nil
}

// completeSpec fills in what the upload tells.
func completeSpec(spec *Spec, u *Upload) error {
	if spec.Format == "" {
		spec.Format = formatOf(u.ContentType, u.Filename)
	}
	if spec.Format == "" {
		return terse.Invalid("format", "is not told by the upload's content_type or filename; wants ndjson, csv or json")
	}
	if spec.ResultFormat == "" {
		spec.ResultFormat = "ndjson"
	}
	if len(spec.Columns) > 0 && spec.Format != "csv" {
		return terse.Invalid("columns", "are for CSV rows")
	}
	return nil
}

// add makes a job known that is stored.
func (m *Manager) add(e *entry) {
	e.rev = m.revision.Add(1)
	m.mu.Lock()
	m.jobs[e.id] = e
	m.mu.Unlock()
	m.poke()
}

// insert stores a new job and what goes with it. If nobody can say whether it was stored,
// the caller gets an error, and the job runs as soon as the store tells that it was: its
// idempotency record may be there already.
func (m *Manager) insert(ctx context.Context, e *entry, also func(*Snapshot) ([]terse.Document, error)) error {
	doc, err := document(&e.doc, 1)
	if err != nil {
		return err
	}
	docs := []terse.Document{doc}
	if also != nil {
		s := e.snapshot()
		more, err := also(&s)
		if err != nil {
			return err
		}
		docs = append(docs, more...)
	}
	e.version = doc.Version
	err = m.o.Store.InsertLinks(ctx, &terse.Chunk{Documents: docs})
	failpoint.Hit(failpoint.JobStored)
	if !errors.Is(err, terse.ErrUnknownOutcome) {
		if err != nil {
			err = fmt.Errorf("write job: %w", err)
		}
		return err
	}
	switch _, gerr := m.o.Store.GetDocument(ctx, e.workspace, terse.KindJob, e.id); {
	case gerr == nil:
		return nil
	case errors.Is(gerr, terse.ErrNotFound):
		return fmt.Errorf("write job: %w", terse.ErrUnavailable)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.stopped { // else the next start finds it
		m.wg.Go(func() { m.adopt(e) })
	}
	return fmt.Errorf("write job: %w", err)
}

// adopt asks the store for a job whose creation ended unknown until it answers.
func (m *Manager) adopt(e *entry) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-t.C:
		}
		_, err := m.o.Store.GetDocument(m.ctx, e.workspace, terse.KindJob, e.id)
		if err == nil {
			m.add(e)
		}
		if err == nil || errors.Is(err, terse.ErrNotFound) {
			return
		}
	}
}

func inField(field string, err error) error {
	if e, ok := errors.AsType[*terse.Error](err); ok {
		c := *e
		c.Field = field
		return &c
	}
	return err
}

func (m *Manager) checkSpec(s *Spec) error {
	switch {
	case s.Upload == "":
		return terse.Invalid("source.upload_id", "is required")
	case !slices.Contains([]string{"", "ndjson", "csv", "json"}, s.Format):
		return terse.Invalid("format", "is ndjson, csv or json")
	case !slices.Contains([]string{"", "ndjson", "csv", "parquet"}, s.ResultFormat):
		return terse.Invalid("result_format", "is ndjson, csv or parquet")
	case len(s.Columns) > 200:
		return terse.Invalid("columns", "are more than 200")
	}
	for from, to := range s.Columns {
		if from == "" || len(from) > 255 || len(to) > 255 {
			return terse.Invalid("columns", "hold a column without a name, or a name longer than 255 bytes")
		}
	}
	return nil
}

// document is a job as it is stored.
func document(j *Job, version uint64) (terse.Document, error) {
	data, err := json.Marshal(j, json.Deterministic(true))
	if err != nil {
		return terse.Document{}, fmt.Errorf("encode job: %w", err)
	}
	return terse.Document{Workspace: j.Workspace, Kind: terse.KindJob, ID: j.ID, Version: version, Data: data}, nil
}

// put writes a document and learns its version. A write of unknown outcome is settled by
// reading: nobody else writes it.
func (m *Manager) put(ctx context.Context, j *Job, version *uint64) error {
	doc, err := document(j, *version+1)
	if err != nil {
		return err
	}
	data := doc.Data
	err = m.o.Store.PutDocument(ctx, doc)
	if errors.Is(err, terse.ErrVersion) || errors.Is(err, terse.ErrExists) || errors.Is(err, terse.ErrUnknownOutcome) {
		found, gerr := m.o.Store.GetDocument(ctx, j.Workspace, terse.KindJob, j.ID)
		switch {
		case gerr == nil && bytes.Equal(found.Data, data):
			*version = found.Version
			return nil
		case gerr == nil: // an earlier write was applied after all
			doc.Version = found.Version + 1
			err = m.o.Store.PutDocument(ctx, doc)
		}
	}
	if err != nil {
		return fmt.Errorf("write job: %w", err)
	}
	*version = doc.Version
	return nil
}

// transition changes a job durably. change returns an error to leave it as it is.
func (m *Manager) transition(ctx context.Context, e *entry, change func(*Job) error) error {
	return m.transitionThen(ctx, e, change, func() {})
}

// transitionThen is transition, and then is called before anybody sees the change, with
// e.mu held.
func (m *Manager) transitionThen(ctx context.Context, e *entry, change func(*Job) error, then func()) error {
	e.write.Lock()
	defer e.write.Unlock()
	e.mu.Lock()
	next, version, gone := e.doc, e.version, e.gone
	e.mu.Unlock()
	if gone {
		return terse.ErrNotFound
	}
	if next.Callback != nil {
		c := *next.Callback
		next.Callback = &c
	}
	if err := change(&next); err != nil {
		return err
	}
	next.UpdatedAt = m.o.Clock()
	err := m.put(ctx, &next, &version)
	if err != nil {
		return err
	}
	e.mu.Lock()
	e.doc, e.version, e.rev = next, version, m.revision.Add(1)
	then()
	e.mu.Unlock()
	return nil
}

func (m *Manager) find(w terse.WorkspaceID, id string) (*entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.jobs[id]
	if e == nil || e.workspace != w {
		return nil, terse.ErrNotFound
	}
	return e, nil
}

// Get returns a job. Returns ErrNotFound.
func (m *Manager) Get(w terse.WorkspaceID, id string) (Snapshot, error) {
	e, err := m.find(w, id)
	if err != nil {
		return Snapshot{}, err
	}
	return e.snapshot(), nil
}

// List returns at most limit jobs of a workspace, the newest first, from those made before
// the job of the given id; "" is all.
func (m *Manager) List(w terse.WorkspaceID, before string, limit int) []Snapshot {
	m.mu.Lock()
	var list []*entry
	for id, e := range m.jobs {
		if e.workspace == w && (before == "" || id < before) {
			list = append(list, e)
		}
	}
	m.mu.Unlock()
	slices.SortFunc(list, func(a, b *entry) int { return cmp.Compare(b.id, a.id) })
	var out []Snapshot
	for _, e := range list[:min(limit, len(list))] {
		out = append(out, e.snapshot())
	}
	return out
}

func errState(s State, what string) error {
	return &terse.Error{Code: terse.CodeConflict, Reason: "wrong_state", Message: fmt.Sprintf("a job that is %s cannot be %s", s, what)}
}

// Pause stops a job after the batches that are under way; Resume lets it go on.
func (m *Manager) Pause(ctx context.Context, w terse.WorkspaceID, id string) (Snapshot, error) {
	return m.act(ctx, w, id, func(j *Job) error {
		if j.State == Paused {
			return nil
		}
		if j.State != Queued && j.State != Running {
			return errState(j.State, "paused")
		}
		j.State = Paused
		return nil
	})
}

// Resume queues a paused job again.
func (m *Manager) Resume(ctx context.Context, w terse.WorkspaceID, id string) (Snapshot, error) {
	return m.act(ctx, w, id, func(j *Job) error {
		switch j.State {
		case Queued, Running:
			return nil
		case Paused:
		default:
			return errState(j.State, "resumed")
		}
		if m.tooOld(j) {
			return errTooOld()
		}
		j.State, j.NotBefore, j.Attempts, j.Fault = Queued, 0, 0, nil
		return nil
	})
}

// tooOld reports whether the ledger of the job may be gone, so that nothing can be told
// of what the job did.
func (m *Manager) tooOld(j *Job) bool {
	return !j.Spec.DryRun && j.StartedAt != 0 && m.o.Clock()-j.StartedAt > ledgerUse
}

func errTooOld() error {
	return &terse.Error{Code: terse.CodeGone, Reason: "ledger_expired", Message: "the job began more than six days ago: what it did is no longer recorded row by row"}
}

// Cancel ends a job. Links that it made stay.
func (m *Manager) Cancel(ctx context.Context, w terse.WorkspaceID, id string) (Snapshot, error) {
	return m.act(ctx, w, id, func(j *Job) error {
		switch j.State {
		case Cancelled:
			return nil
		case Queued, Running, Paused:
		default:
			return errState(j.State, "cancelled")
		}
		m.end(j, Cancelled)
		return nil
	})
}

// Rollback deletes every link that a job made.
func (m *Manager) Rollback(ctx context.Context, w terse.WorkspaceID, id string) (Snapshot, error) {
	return m.act(ctx, w, id, func(j *Job) error {
		switch {
		case j.State == RolledBack || j.RollingBack && (j.State == Queued || j.State == Running):
			return nil
		case j.State == Queued || j.State == Running:
			return &terse.Error{Code: terse.CodeConflict, Reason: "wrong_state", Message: "pause or cancel the job before it is rolled back"}
		case j.Spec.DryRun:
			return &terse.Error{Code: terse.CodeConflict, Reason: "wrong_state", Message: "a dry run made no links"}
		case m.tooOld(j):
			return errTooOld()
		}
		j.State, j.RollingBack, j.NotBefore, j.Attempts, j.Fault, j.EndedAt = Queued, true, 0, 0, nil, 0
		return nil
	})
}

// end marks the end of a job, and its callback as due.
func (m *Manager) end(j *Job, s State) {
	now := m.o.Clock()
	j.State, j.EndedAt, j.NotBefore, j.Attempts = s, now, 0, 0
	if j.Callback != nil {
		j.Callback.Delivery, j.Callback.Attempts, j.Callback.NextAt, j.Callback.LastError = "pending", 0, now, ""
	}
}

func (m *Manager) act(ctx context.Context, w terse.WorkspaceID, id string, change func(*Job) error) (Snapshot, error) {
	e, err := m.find(w, id)
	if err != nil {
		return Snapshot{}, err
	}
	err = m.transition(ctx, e, func(j *Job) error {
		if err := change(j); err != nil {
			return err
		}
		if j.State != Queued && j.State != Running && !j.RollingBack {
			j.Counts = e.live.counts(j.Counts)
		}
		return nil
	})
	if err != nil {
		return Snapshot{}, err
	}
	e.mu.Lock()
	if e.run != nil && e.doc.State != Running {
		e.run()
	}
	e.mu.Unlock()
	m.poke()
	return e.snapshot(), nil
}

// Delete removes a job that does not run, its results, and its place in the history. Its
// links stay.
func (m *Manager) Delete(ctx context.Context, w terse.WorkspaceID, id string) error {
	e, err := m.find(w, id)
	if err != nil {
		return err
	}
	e.write.Lock()
	defer e.write.Unlock()
	e.mu.Lock()
	s := e.snapshotLocked()
	active := e.active
	e.mu.Unlock()
	if active || !s.State.Ended() && s.State != Paused {
		return errState(s.State, "deleted")
	}
	err = m.o.Store.DeleteDocument(ctx, w, terse.KindJob, id, 0)
	if err != nil && !errors.Is(err, terse.ErrNotFound) {
		return fmt.Errorf("delete job: %w", err)
	}
	e.mu.Lock()
	e.gone = true
	e.mu.Unlock()
	m.mu.Lock()
	delete(m.jobs, id)
	m.mu.Unlock()
	for _, path := range []string{m.resultPath(&s.Job), m.errorPath(&s.Job)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			m.o.Log.Warn("remove the results of a job", "job", id, "error", err)
		}
	}
	return nil
}

// DeleteUpload removes an upload that no job needs any more. Returns ErrNotFound, or an
// error of code conflict.
func (m *Manager) DeleteUpload(w terse.WorkspaceID, id string) error {
	if _, needed := m.uploadUse()[id]; needed {
		for _, s := range m.List(w, "", maxJobs) {
			if s.Spec.Upload == id && !s.State.Ended() {
				return &terse.Error{Code: terse.CodeConflict, Reason: "upload_in_use", Message: "the job " + s.ID + " needs the upload"}
			}
		}
	}
	return m.Uploads.remove(w, id)
}

// uploadUse returns for every upload with jobs when the last of them ended; 0 if one has
// not.
func (m *Manager) uploadUse() map[string]terse.Millis {
	m.mu.Lock()
	defer m.mu.Unlock()
	use := map[string]terse.Millis{}
	for _, e := range m.jobs {
		s := e.snapshot()
		at, known := use[s.Spec.Upload]
		switch {
		case !s.State.Ended():
			use[s.Spec.Upload] = 0
		case !known || at != 0:
			use[s.Spec.Upload] = max(at, s.EndedAt)
		}
	}
	return use
}

// UploadExpiry returns when an upload is deleted by itself; 0 while a job needs it.
func (m *Manager) UploadExpiry(u *Upload) terse.Millis {
	return expiry(m.uploadUse(), u)
}

func expiry(use map[string]terse.Millis, u *Upload) terse.Millis {
	at, used := use[u.ID]
	switch {
	case !used:
		return u.UpdatedAt + unusedKeep
	case at == 0:
		return 0
	}
	return at + usedKeep
}

// tidy removes what is too old, at once and then at an interval.
func (m *Manager) tidy(every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		m.Tidy(m.ctx)
		select {
		case <-m.ctx.Done():
			return
		case <-t.C:
		}
	}
}

// Tidy removes uploads and jobs that are too old.
func (m *Manager) Tidy(ctx context.Context) {
	now := m.o.Clock()
	use := m.uploadUse()
	for _, u := range m.Uploads.all() {
		if at := expiry(use, &u); at != 0 && at < now {
			if err := m.Uploads.remove(u.Workspace, u.ID); err != nil && !errors.Is(err, terse.ErrNotFound) {
				m.o.Log.Warn("remove an old upload", "upload", u.ID, "error", err)
			}
		}
	}
	m.mu.Lock()
	var old []Snapshot
	for _, e := range m.jobs {
		if s := e.snapshot(); s.State.Ended() && s.EndedAt+historyKeep < now {
			old = append(old, s)
		}
	}
	m.mu.Unlock()
	for _, s := range old {
		if err := m.Delete(ctx, s.Workspace, s.ID); err != nil && !errors.Is(err, terse.ErrNotFound) && ctx.Err() == nil {
			m.o.Log.Warn("delete an old job", "job", s.ID, "error", err)
		}
	}
}

func (m *Manager) resultPath(j *Job) string {
	return filepath.Join(m.results, j.ID+".result."+j.Spec.ResultFormat)
}

func (m *Manager) errorPath(j *Job) string {
	return filepath.Join(m.results, j.ID+".errors."+j.Spec.ErrorFormat())
}

// File opens the results of a job that has ended, or only its bad rows. Returns
// ErrNotFound, or an error of code conflict before the end.
func (m *Manager) File(w terse.WorkspaceID, id string, onlyErrors bool) (*os.File, Snapshot, error) {
	e, err := m.find(w, id)
	if err != nil {
		return nil, Snapshot{}, err
	}
	e.mu.Lock()
	s, active := e.snapshotLocked(), e.active
	e.mu.Unlock()
	if !s.HasResult() || active {
		return nil, s, &terse.Error{Code: terse.CodeConflict, Reason: "no_result", Message: fmt.Sprintf("a job that is %s has no results yet", s.State)}
	}
	path := m.resultPath(&s.Job)
	if onlyErrors {
		path = m.errorPath(&s.Job)
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, s, terse.ErrNotFound
	}
	if err != nil {
		return nil, s, fmt.Errorf("open results: %w", err)
	}
	return f, s, nil
}

func (m *Manager) poke() {
	for _, c := range []chan struct{}{m.wake, m.ring} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
