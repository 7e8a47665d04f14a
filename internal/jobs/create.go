package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/failpoint"
	"github.com/terselink/terse/internal/webhook"
)

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
	e := &entry{id: id, home: m.o.Name, workspace: w, doc: Job{
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
