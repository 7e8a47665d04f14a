package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/sleep"
)

// A job whose node does not come back can be ended by any other node: the job becomes that one's, by a write that names the
// version which was read. The node that had it may only have been paused. It learns that the job is no longer its own when it
// looks, every lookEvery, or next writes the job, and stops. If the job was rolled back, it rolls back what it made meanwhile.

const (
	// lookEvery is how often a node looks whether the jobs that it runs are still its own.
	lookEvery = 5 * time.Second
	// silence is how long after the last look this node may have been silent for so long that others took it for gone, which
	// they do after 10 seconds without a heartbeat; there is one every 3 seconds.
	silence terse.Millis = 6000
	// maxUndoWait bounds the wait between attempts to undo what was made of a job that is another node's.
	maxUndoWait = time.Minute
)

// CancelLost is Cancel for a job of another node, which is not there to do it. The job is this node's from then on, without
// its upload and results; one that was cancelled before stays as it is. Returns ErrNotFound, or an error of code conflict, also
// if the node of the job is back.
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
	before := j.State
	if err := change(&j); err != nil {
		return Snapshot{}, err
	}
	if before.Ended() && j.State == before { // nothing is to be done, and its node still has the results
		return storedSnapshot(j), nil
	}
	if j.State == Running { // a rollback that its node was in the middle of: it is for this one now
		j.State = Queued
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

// drop forgets a job that is no longer this node's, stops its run, and removes its files.
func (m *Manager) drop(e *entry, why error) {
	e.mu.Lock()
	e.gone = true
	if t, ok := errors.AsType[*takenError](why); ok {
		e.taken, e.undone = true, e.undone || t.undone
	}
	if e.run != nil {
		e.run()
	}
	runs, j := e.active, e.doc
	e.mu.Unlock()
	m.mu.Lock()
	if m.jobs[e.id] == e { // it may have come back as another one
		delete(m.jobs, e.id)
	}
	m.mu.Unlock()
	if !runs { // otherwise the end of its run does it, which may make its files only now
		m.removeFiles(&j)
	}
}

// look drops the jobs that another node has ended, or deleted, while this one was silent: of those that run here it looks at
// each, and at all others when it may have been silent since it last looked, because the process stood still or the store was
// out of reach.
func (m *Manager) look() {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	last, all := m.o.Clock(), false
	heard := func() {
		now := m.o.Clock()
		all, last = all || now-last > silence, now
	}
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-t.C:
		}
		err := m.o.Store.Ping(m.ctx)
		heard()
		if err != nil {
			all = true
			continue
		}
		list := m.toLookAt(all)
		all = false
		for _, e := range list {
			err := m.lookAt(e)
			heard()
			if err != nil { // the next look begins anew
				all = true
				break
			}
		}
	}
}

// toLookAt returns the jobs that run here, or all of this node.
func (m *Manager) toLookAt(all bool) (list []*entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.jobs {
		e.mu.Lock()
		if all || e.active {
			list = append(list, e)
		}
		e.mu.Unlock()
	}
	return list
}

// lookAt drops a job if it is no longer this node's. An error says that the store could not tell.
func (m *Manager) lookAt(e *entry) error {
	e.mu.Lock()
	mine, gone := e.doc, e.gone
	e.mu.Unlock()
	if gone {
		return nil
	}
	doc, err := m.o.Store.GetDocument(m.ctx, e.workspace, terse.KindJob, e.id)
	if err == nil {
		err = taken(&doc, &mine)
	}
	if errors.Is(err, terse.ErrNotFound) {
		m.o.Log.Warn("a job of this node was ended by another one", "job", e.id)
		m.drop(e, err)
		return nil
	}
	return err
}

// undo rolls back what a run made of a job that another node has taken and rolled back. It is called after the run has ended:
// a rollback that begins later than that finds all of it, one that began before, also after the job was dropped, is seen here.
// It tries until it is done, or the manager stops.
func (m *Manager) undo(e *entry) {
	e.mu.Lock()
	mine, undone, j := !e.taken, e.undone, e.doc
	e.mu.Unlock()
	if mine || j.Spec.DryRun {
		return
	}
	for wait := time.Second; ; wait = min(2*wait, maxUndoWait) {
		err := m.undoOnce(&j, undone)
		if err == nil || m.ctx.Err() != nil {
			return
		}
		m.o.Log.Warn("links may stay that were made after the rollback of a job by another node; trying again", "job", j.ID, "error", err)
		if sleep.For(m.ctx, wait) != nil {
			return
		}
	}
}

// undoOnce rolls back if the job was rolled back: as it is stored, or undone if it is no longer.
func (m *Manager) undoOnce(mine *Job, undone bool) error {
	doc, err := m.o.Store.GetDocument(m.ctx, mine.Workspace, terse.KindJob, mine.ID)
	switch {
	case err == nil:
		t, ok := errors.AsType[*takenError](taken(&doc, mine))
		undone = undone || ok && t.undone
	case !errors.Is(err, terse.ErrNotFound):
		return err
	}
	if !undone {
		return nil
	}
	_, err = m.o.Links.Rollback(m.ctx, m.actor(mine), mine.ID, nil)
	return err
}
