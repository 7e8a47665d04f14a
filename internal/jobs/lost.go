package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
)

// A job whose node does not come back can be ended by any other node: the job becomes that one's, by a write that names the
// version which was read. The node that had it may only have been paused. It learns that the job is no longer its own when it
// looks, every lookEvery, or next writes the job, and stops. If the job was rolled back, it rolls back what it made meanwhile.

// lookEvery is how often a node looks whether the jobs that it runs are still its own.
const lookEvery = 10 * time.Second

// CancelLost is Cancel for a job of another node, which is not there to do it. The job is this node's from then on, without
// its upload and results. Returns ErrNotFound, or an error of code conflict, also if the node of the job is back.
func (m *Manager) CancelLost(ctx context.Context, w terse.WorkspaceID, id string) (Snapshot, error) {
	return m.take(ctx, w, id, m.cancelled)
}

// RollbackLost is Rollback for such a job.
func (m *Manager) RollbackLost(ctx context.Context, w terse.WorkspaceID, id string) (Snapshot, error) {
	return m.take(ctx, w, id, m.rollingBack)
}

// take makes a job of another node this one's, changed.
func (m *Manager) take(ctx context.Context, w terse.WorkspaceID, id string, change func(*Job) error) (Snapshot, error) {
	doc, err := m.o.Store.GetDocument(ctx, w, terse.KindJob, id)
	if err != nil {
		return Snapshot{}, fmt.Errorf("find job: %w", err)
	}
	var j Job
	if err := json.Unmarshal(doc.Data, &j); err != nil {
		return Snapshot{}, fmt.Errorf("job %s: %w", id, err)
	}
	if m.entry(w, id) != nil || j.Node == m.o.Node {
		return Snapshot{}, errBack(nil)
	}
	if err := change(&j); err != nil {
		return Snapshot{}, err
	}
	j.LostBy, j.Node, j.UpdatedAt = j.Node, m.o.Node, m.o.Clock()
	next, err := document(&j, doc.Version+1)
	if err != nil {
		return Snapshot{}, err
	}
	err = m.o.Store.PutDocument(ctx, next)
	if errors.Is(err, terse.ErrUnknownOutcome) {
		if there, gerr := m.o.Store.GetDocument(ctx, w, terse.KindJob, id); gerr == nil && bytes.Equal(there.Data, next.Data) {
			err = nil
		}
	}
	if errors.Is(err, terse.ErrVersion) {
		return Snapshot{}, errBack(err)
	}
	if err != nil {
		return Snapshot{}, fmt.Errorf("take over job: %w", err)
	}
	e := &entry{id: id, home: m.o.Name, workspace: w, doc: j, version: next.Version}
	e.live.set(j.Counts, 0, 0)
	m.add(e)
	m.o.Log.Warn("a job of a node that is gone was ended", "job", id, "node", j.LostBy, "state", string(j.State))
	return e.snapshot(), nil
}

func errBack(err error) error {
	return &terse.Error{Code: terse.CodeConflict, Reason: "wrong_state", Message: "the node of the job is back and goes on with it", Err: err}
}

// takenError says that a job is another node's now. It is ErrNotFound to who asks.
type takenError struct{ undone bool }

func (*takenError) Error() string { return "another node has ended the job" }
func (*takenError) Unwrap() error { return terse.ErrNotFound }

// taken returns an error if a stored job is no longer that of the node which an entry is of.
func taken(doc *terse.Document, mine *Job) error {
	var j Job
	if err := json.Unmarshal(doc.Data, &j); err != nil || j.Node == mine.Node || mine.Node == "" {
		return nil
	}
	return &takenError{undone: j.State == RolledBack || j.RollingBack}
}

// drop forgets a job that is no longer this node's, and stops its run.
func (m *Manager) drop(e *entry, why error) {
	e.mu.Lock()
	e.gone = true
	if t, ok := errors.AsType[*takenError](why); ok && t.undone {
		e.undone = true
	}
	if e.run != nil {
		e.run()
	}
	e.mu.Unlock()
	m.mu.Lock()
	delete(m.jobs, e.id)
	m.mu.Unlock()
}

// look drops the jobs that another node has ended, or deleted, while this one was silent and still runs them.
func (m *Manager) look() {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-t.C:
		}
		m.mu.Lock()
		var running []*entry
		for _, e := range m.jobs {
			e.mu.Lock()
			if e.active {
				running = append(running, e)
			}
			e.mu.Unlock()
		}
		m.mu.Unlock()
		for _, e := range running {
			e.mu.Lock()
			mine := e.doc
			e.mu.Unlock()
			doc, err := m.o.Store.GetDocument(m.ctx, e.workspace, terse.KindJob, e.id)
			if err == nil {
				err = taken(&doc, &mine)
			}
			if errors.Is(err, terse.ErrNotFound) {
				m.o.Log.Warn("a job that runs here was ended by another node", "job", e.id)
				m.drop(e, err)
			}
		}
	}
}

// undo rolls back what a run made after another node had taken its job and rolled it back.
func (m *Manager) undo(e *entry) {
	e.mu.Lock()
	undone, j := e.undone, e.doc
	e.mu.Unlock()
	if !undone || j.Spec.DryRun {
		return
	}
	if _, err := m.o.Links.Rollback(m.ctx, m.actor(&j), j.ID, nil); err != nil {
		m.o.Log.Error("links stay that were made after the rollback of a job by another node; roll it back there again", "job", j.ID, "error", err)
	}
}
