package nodes

import (
	"context"
	"fmt"
	"time"

	"github.com/terselink/terse"
)

// listPage is how many documents are read at once.
const listPage = 500

// List returns every node in the order of their ids, this process among them, as this process sees them now.
func (r *Registry) List(ctx context.Context) ([]Seen, error) {
	if r.o.Store == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		return []Seen{{Node: r.self.Node, State: Alive, SeenAt: r.o.Clock(), Self: true}}, nil
	}
	var list []Seen
	there := map[string]bool{}
	for after := ""; ; {
		docs, err := r.o.Store.ListDocuments(ctx, 0, terse.KindProcess, after, listPage)
		if err != nil {
			return nil, fmt.Errorf("list nodes: %w", err)
		}
		for i := range docs {
			after = docs[i].ID
			rec, err := decode(&docs[i])
			if err != nil {
				r.o.Log.Error("a node cannot be listed", "error", err)
				continue
			}
			there[rec.ID] = true
			list = append(list, r.see(&rec, docs[i].Version))
		}
		if len(docs) < listPage {
			break
		}
	}
	r.count(list, there)
	return list, nil
}

// Find returns the node with an id, as this process sees it now. Returns ErrNotFound if none is listed: it has stopped in
// order, or died a day ago.
func (r *Registry) Find(ctx context.Context, id string) (Seen, error) {
	if r.o.Store == nil {
		if list, err := r.List(ctx); err != nil || list[0].ID == id {
			return list[0], err
		}
		return Seen{}, terse.ErrNotFound
	}
	doc, err := r.o.Store.GetDocument(ctx, 0, terse.KindProcess, id)
	if err != nil {
		return Seen{}, fmt.Errorf("find node %s: %w", id, err)
	}
	rec, err := decode(&doc)
	if err != nil {
		return Seen{}, err
	}
	return r.see(&rec, doc.Version), nil
}

// see judges a node by what was seen of it before and now.
func (r *Registry) see(rec *record, version uint64) Seen {
	now := time.Now()
	s := Seen{Node: rec.Node, State: Alive, SeenAt: rec.SeenAt}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Self = rec.Boot == r.self.Boot
	w, known := r.watched[rec.ID]
	if !known || w.boot != rec.Boot || w.version != version {
		w = watch{boot: rec.Boot, version: version, since: now, changed: known}
		r.watched[rec.ID] = w
	}
	still := now.Sub(w.since)
	if !w.changed { // nobody has watched it for long: its clock says more
		still = max(still, time.Duration(r.o.Clock()-rec.SeenAt)*time.Millisecond)
	}
	if still >= DeadAfter && !s.Self {
		s.State = Dead
	}
	return s
}

// count forgets who is gone and sets the gauges.
func (r *Registry) count(list []Seen, there map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.watched {
		if !there[id] {
			delete(r.watched, id)
		}
	}
	alive, dead := 0, 0
	for i := range list {
		if list[i].State == Alive {
			alive++
		} else {
			dead++
		}
	}
	r.alive.Set(float64(alive))
	r.dead.Set(float64(dead))
}
