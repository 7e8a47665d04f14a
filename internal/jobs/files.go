package jobs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/terselink/terse"
)

func (m *Manager) resultPath(j *Job) string {
	return filepath.Join(m.results, j.ID+".result."+j.Spec.ResultFormat)
}

func (m *Manager) errorPath(j *Job) string {
	return filepath.Join(m.results, j.ID+".errors."+j.Spec.ErrorFormat())
}

// removeFiles removes the results of a job that was deleted, or is no longer this node's.
func (m *Manager) removeFiles(j *Job) {
	for _, path := range []string{m.resultPath(j), m.errorPath(j)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			m.o.Log.Warn("remove the results of a job", "job", j.ID, "error", err)
		}
	}
}

// removeOrphans removes the results of jobs that another node has ended while this process did not run. elsewhere has the stored
// jobs that are not this node's; true says that they were ended so. It is called when all jobs have been loaded and none runs.
// What cannot be removed is tried again at the next start.
//
// A store that does not have a job is no proof that it was deleted: this may be a start on the wrong store, or on one that was
// restored from an older backup. Nor is a job that is another node's: this one may have lost its name. Results of such jobs stay
// until nothing would keep them any longer.
func (m *Manager) removeOrphans(elsewhere map[string]bool) error {
	files, err := os.ReadDir(m.results)
	if err != nil {
		return fmt.Errorf("read jobs folder: %w", err)
	}
	now := m.o.Clock()
	for _, f := range files {
		id, _, _ := strings.Cut(f.Name(), ".")
		ended, stored := elsewhere[id]
		why := "another node has ended the job"
		switch {
		case !isID(Prefix, id) || m.jobs[id] != nil:
			continue
		case ended:
		case !stored && now-idTime(Prefix, id, now) > historyKeep:
			why = "the job is not stored and too old to come back"
		default:
			continue
		}
		if err := os.Remove(filepath.Join(m.results, f.Name())); err != nil {
			m.o.Log.Warn("remove the results of a job", "job", id, "error", err)
			continue
		}
		m.o.Log.Info("results of a job were removed", "job", id, "file", f.Name(), "because", why)
	}
	return nil
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
