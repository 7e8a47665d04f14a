package auth

import (
	"context"
	"errors"
	"fmt"

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
func (s *Service) RefreshWorkspace(ctx context.Context, id terse.WorkspaceID) error {
	doc, err := s.o.Store.GetDocument(ctx, 0, terse.KindWorkspace, id.String())
	if errors.Is(err, terse.ErrNotFound) {
		return nil // workspaces are not deleted
	}
	if err != nil {
		return fmt.Errorf("refresh workspace: %w", err)
	}
	var w terse.Workspace
	if err := decode(doc, &w); err != nil {
		return err
	}
	w.Version = doc.Version
	s.publish(w)
	return nil
}

// RefreshAll forgets every key and reads what all workspaces have switched on.
func (s *Service) RefreshAll(ctx context.Context) error {
	s.mu.Lock()
	s.revocation++
	clear(s.keys)
	clear(s.workspaces)
	s.mu.Unlock()
	return s.loadSettings(ctx)
}
