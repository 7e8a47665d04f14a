package jobs

import (
	"context"
	"fmt"

	"github.com/terselink/terse"
)

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
	return m.act(ctx, w, id, m.cancelled)
}

func (m *Manager) cancelled(j *Job) error {
	switch j.State {
	case Cancelled:
		return nil
	case Queued, Running, Paused:
	default:
		return errState(j.State, "cancelled")
	}
	m.end(j, Cancelled)
	return nil
}

// Rollback deletes every link that a job made.
func (m *Manager) Rollback(ctx context.Context, w terse.WorkspaceID, id string) (Snapshot, error) {
	return m.act(ctx, w, id, m.rollingBack)
}

func (m *Manager) rollingBack(j *Job) error {
	switch {
	// One that was taken from another node may be rolled back again: that node may have made links later, and died with them.
	case j.State == RolledBack && j.LostBy == "" || j.RollingBack && (j.State == Queued || j.State == Running):
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
			e.live.keep(j, m.o.Name)
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
