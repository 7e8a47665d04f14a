package auth

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/terselink/terse"
)

// Several nodes may write to one store. What the others write to keys and workspaces comes here.

// ForgetKey makes the service read a key again that another node has made or revoked.
func (s *Service) ForgetKey(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revocation++
	delete(s.keys, id)
}

// RefreshWorkspace reads a workspace that another node has made or changed. An older version never replaces a newer one.
// While it cannot be read nothing is kept of its visitors: somebody may have switched that off.
func (s *Service) RefreshWorkspace(ctx context.Context, id terse.WorkspaceID) error {
	doc, err := s.o.Store.GetDocument(ctx, 0, terse.KindWorkspace, id.String())
	if errors.Is(err, terse.ErrNotFound) {
		return nil // workspaces are not deleted
	}
	if err != nil {
		s.keepNothing(func(w terse.WorkspaceID) bool { return w == id })
		return fmt.Errorf("refresh workspace: %w", err)
	}
	var w terse.Workspace
	if err := decode(doc, &w); err != nil {
		s.keepNothing(func(w terse.WorkspaceID) bool { return w == id })
		return err
	}
	w.Version = doc.Version
	s.publish(w)
	return nil
}

// keepNothing forgets what workspaces want kept of their visitors, until they are read again.
func (s *Service) keepNothing(of func(terse.WorkspaceID) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := maps.Clone(*s.settings.Load())
	for w, set := range next {
		if !of(w) {
			continue
		}
		if set.StoreUA, set.StoreIP = false, ""; set.IsZero() {
			delete(next, w)
		} else {
			next[w] = set
		}
	}
	s.settings.Store(&next)
}

// RefreshAll forgets every key and reads what all workspaces have switched on. A workspace that cannot be decoded has nothing
// switched on; while they cannot be read, nothing is kept of visitors.
func (s *Service) RefreshAll(ctx context.Context) error {
	s.mu.Lock()
	s.revocation++
	clear(s.keys)
	clear(s.workspaces)
	s.mu.Unlock()
	err := s.loadSettings(ctx)
	if err != nil && !errors.Is(err, errUndecoded) {
		s.keepNothing(func(terse.WorkspaceID) bool { return true })
	}
	return err
}
