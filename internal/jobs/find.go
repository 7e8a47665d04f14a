package jobs

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
)

// find returns a job of this node. Returns ErrNotFound, or *OtherNodeError.
func (m *Manager) find(w terse.WorkspaceID, id string) (*entry, error) {
	if e := m.entry(w, id); e != nil {
		return e, nil
	}
	return nil, m.elsewhere(w, id)
}

// entry returns a job of this node; nil if there is none.
func (m *Manager) entry(w terse.WorkspaceID, id string) *entry {
	m.mu.Lock()
	e := m.jobs[id]
	m.mu.Unlock()
	if e == nil || e.workspace != w {
		return nil
	}
	return e
}

// Has reports whether a job is on this node.
func (m *Manager) Has(w terse.WorkspaceID, id string) bool { return m.entry(w, id) != nil }

// elsewhereWithin bounds the search for the node that has a job.
const elsewhereWithin = 5 * time.Second

// elsewhere says why this node does not have a job.
func (m *Manager) elsewhere(w terse.WorkspaceID, id string) error {
	if m.o.Node == "" {
		return terse.ErrNotFound
	}
	ctx, cancel := context.WithTimeout(m.ctx, elsewhereWithin)
	defer cancel()
	j, err := stored(ctx, m.o.Store, w, id)
	if err != nil {
		return err
	}
	if j.Node == "" || m.mine(&j) { // it is being made, or deleted
		return terse.ErrNotFound
	}
	return &OtherNodeError{What: "job", Node: j.Node}
}

// Get returns a job. Returns ErrNotFound, or *OtherNodeError.
func (m *Manager) Get(w terse.WorkspaceID, id string) (Snapshot, error) {
	e, err := m.find(w, id)
	if err != nil {
		return Snapshot{}, err
	}
	return e.snapshot(), nil
}

// Own returns at most limit jobs of a workspace that are on this node, the newest first, from those made before the job of
// the given id; "" is all.
func (m *Manager) Own(w terse.WorkspaceID, before string, limit int) []Snapshot {
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

// List is Own for the jobs of all nodes: those of others as they are stored.
func (m *Manager) List(ctx context.Context, w terse.WorkspaceID, before string, limit int) ([]Snapshot, error) {
	if m.o.Node == "" {
		return m.Own(w, before, limit), nil
	}
	list, err := ListStored(ctx, m.o.Store, w, before, limit, m.o.Clock())
	for i := range list {
		if e := m.entry(w, list[i].ID); e != nil {
			list[i] = e.snapshot()
		}
	}
	return list, err
}

// Lister is what ListStored needs of a terse.Store.
type Lister interface {
	ListDocuments(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, after string, limit int) ([]terse.Document, error)
}

// storedSnapshot is a job as one who has only read it shows it.
func storedSnapshot(j Job) Snapshot {
	s := Snapshot{Job: j, ETA: -1, Part: j.Reached}
	if s.State == Done || s.State == RolledBack {
		s.Part = 1
	}
	return s
}

// listPage is how many jobs are read at once.
const listPage = 500

// ListStored returns at most limit jobs of a workspace as they are stored, the newest first, from those made before the job
// of the given id; "" is all. Progress since a job began or was paused is known to its node alone.
//
// A store lists in the order of ids, which is that of time: so it is asked for the last day first, and for more if that was
// not enough.
func ListStored(ctx context.Context, store Lister, w terse.WorkspaceID, before string, limit int, now terse.Millis) ([]Snapshot, error) {
	const day terse.Millis = 24 * 60 * 60 * 1000
	end := now
	if before != "" {
		end = idTime(Prefix, before, now)
	}
	for _, back := range []terse.Millis{day, 8 * day, 64 * day, end} {
		after := ""
		if start := end - back; start > 0 {
			after = firstID(Prefix, start)
		}
		list, err := listAfter(ctx, store, w, after, before, limit)
		if err != nil || len(list) >= limit || after == "" {
			return list, err
		}
	}
	return nil, nil // not reached: the last one has no start
}

// listAfter returns the newest jobs between two ids.
func listAfter(ctx context.Context, store Lister, w terse.WorkspaceID, after, before string, limit int) (list []Snapshot, err error) {
	keep := func() {
		if n := len(list) - limit; n > 0 {
			list = slices.Delete(list, 0, n)
		}
	}
	for more := true; more; {
		docs, err := store.ListDocuments(ctx, w, terse.KindJob, after, listPage)
		if err != nil {
			return nil, fmt.Errorf("list jobs: %w", err)
		}
		more = len(docs) == listPage
		for i := range docs {
			after = docs[i].ID
			if before != "" && after >= before {
				more = false
				break
			}
			var j Job
			if err := json.Unmarshal(docs[i].Data, &j); err != nil {
				return nil, fmt.Errorf("job %s: %w", after, err)
			}
			list = append(list, storedSnapshot(j))
		}
		keep()
	}
	slices.Reverse(list)
	return list, nil
}
