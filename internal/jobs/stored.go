package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
)

// document is a job as it is stored.
func document(j *Job, version uint64) (terse.Document, error) {
	data, err := json.Marshal(j, json.Deterministic(true))
	if err != nil {
		return terse.Document{}, fmt.Errorf("encode job: %w", err)
	}
	return terse.Document{Workspace: j.Workspace, Kind: terse.KindJob, ID: j.ID, Version: version, Data: data}, nil
}

// put writes a document and learns its version. A write of unknown outcome is settled by
// reading: nobody else writes it, but who takes a lost job.
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
		case gerr == nil && taken(&found, j) != nil:
			err = taken(&found, j)
		case gerr == nil: // an earlier write was applied after all
			doc.Version = found.Version + 1
			err = m.o.Store.PutDocument(ctx, doc)
		case errors.Is(gerr, terse.ErrNotFound): // another node took this one for lost, and deleted the job
			err = gerr
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
	if errors.Is(err, terse.ErrNotFound) {
		m.drop(e, err)
	}
	if err != nil {
		return err
	}
	e.mu.Lock()
	e.doc, e.version, e.rev = next, version, m.revision.Add(1)
	then()
	e.mu.Unlock()
	return nil
}
