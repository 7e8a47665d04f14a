package jobs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/terselink/terse"
)

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
