package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/terselink/terse"
)

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
	active, version := e.active, e.version
	e.mu.Unlock()
	if active || !s.State.Ended() && s.State != Paused {
		return errState(s.State, "deleted")
	}
	err = m.o.Store.DeleteDocument(ctx, w, terse.KindJob, id, version)
	if errors.Is(err, terse.ErrVersion) {
		err = m.deleteChanged(ctx, e, &s.Job)
	}
	if err != nil && !errors.Is(err, terse.ErrNotFound) {
		return fmt.Errorf("delete job: %w", err)
	}
	e.mu.Lock()
	e.gone = true
	e.mu.Unlock()
	m.mu.Lock()
	delete(m.jobs, id)
	m.mu.Unlock()
	m.removeFiles(&s.Job)
	return nil
}

// deleteChanged removes what is stored of a job that has another version there: an earlier write was applied after all, or
// another node has ended the job, which is dropped then. That is *OtherNodeError.
func (m *Manager) deleteChanged(ctx context.Context, e *entry, mine *Job) error {
	doc, err := m.o.Store.GetDocument(ctx, e.workspace, terse.KindJob, e.id)
	if err != nil {
		return err
	}
	if err := taken(&doc, mine); err != nil {
		m.drop(e, err)
		return m.elsewhere(e.workspace, e.id)
	}
	return m.o.Store.DeleteDocument(ctx, e.workspace, terse.KindJob, e.id, doc.Version)
}

// DeleteUpload removes an upload that no job needs any more. Returns ErrNotFound, or an
// error of code conflict.
func (m *Manager) DeleteUpload(w terse.WorkspaceID, id string) error {
	if _, needed := m.uploadUse()[id]; needed {
		for _, s := range m.Own(w, "", maxJobs) {
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
