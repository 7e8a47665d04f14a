package auth

import (
	"context"
	"errors"
	"fmt"

	"github.com/terselink/terse"
)

// DefaultWorkspace is the workspace that Bootstrap makes.
const DefaultWorkspace terse.WorkspaceID = 1

// workspaceCounter is the space of the instance that numbers workspaces. Indexes
// up to DefaultWorkspace are skipped, so a workspace's number is its index.
const workspaceCounter terse.SpaceID = 1

// maxWorkspace keeps numbers within the signed 32 bits that analytics stores.
const maxWorkspace = 1<<31 - 1

// NewWorkspace describes a workspace to make.
type NewWorkspace struct {
	Name          string // 1 to 200 bytes
	DefaultDomain string // host; "" the instance's default
}

// CreateWorkspace makes a workspace. Only the owner may: anybody else gets an error of
// code forbidden. The documents that also returns are put in the same atomic
// write; also may be nil.
func (s *Service) CreateWorkspace(ctx context.Context, maker *Identity, n NewWorkspace, also func(terse.Workspace) ([]terse.Document, error)) (terse.Workspace, error) {
	if !maker.Owner {
		return terse.Workspace{}, &terse.Error{Code: terse.CodeForbidden, Reason: "owner_required", Message: "only the owner key makes workspaces"}
	}
	if err := checkName(n.Name); err != nil {
		return terse.Workspace{}, err
	}
	var id terse.WorkspaceID
	for id <= DefaultWorkspace {
		l, err := s.o.Store.Lease(ctx, terse.LeaseRequest{Space: workspaceCounter, Count: 1, Cap: maxWorkspace + 1})
		if err != nil {
			return terse.Workspace{}, fmt.Errorf("number workspace: %w", err)
		}
		id = terse.WorkspaceID(l.Start)
	}
	w := terse.Workspace{ID: id, Name: n.Name, DefaultDomain: n.DefaultDomain, CreatedAt: s.o.Clock(), Version: 1}
	doc, err := document(0, terse.KindWorkspace, id.String(), 1, &w)
	if err != nil {
		return terse.Workspace{}, err
	}
	docs := []terse.Document{doc}
	if also != nil {
		more, err := also(w)
		if err != nil {
			return terse.Workspace{}, err
		}
		docs = append(docs, more...)
	}
	if err := s.o.Store.InsertLinks(ctx, &terse.Chunk{Documents: docs}); err != nil {
		return terse.Workspace{}, fmt.Errorf("create workspace: %w", err)
	}
	return w, nil
}

// GetWorkspace returns a workspace that the identity may act for. Returns
// ErrNotFound, for every other workspace too.
func (s *Service) GetWorkspace(ctx context.Context, who *Identity, id terse.WorkspaceID) (terse.Workspace, error) {
	if id == 0 || !who.Owner && who.Workspace != id {
		return terse.Workspace{}, terse.ErrNotFound
	}
	s.mu.Lock()
	w, ok := s.workspaces[id]
	s.mu.Unlock()
	if ok {
		return w, nil
	}
	doc, err := s.o.Store.GetDocument(ctx, 0, terse.KindWorkspace, id.String())
	if err != nil {
		if errors.Is(err, terse.ErrNotFound) {
			return terse.Workspace{}, terse.ErrNotFound
		}
		return terse.Workspace{}, fmt.Errorf("get workspace: %w", err)
	}
	if err := decode(doc, &w); err != nil {
		return terse.Workspace{}, err
	}
	w.Version = doc.Version
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.workspaces[id]; ok && known.Version > w.Version {
		return known, nil // it was changed meanwhile
	}
	makeRoom(s.workspaces)
	s.workspaces[id] = w
	return w, nil
}

// ListWorkspaces returns at most limit workspaces that the identity may act for, in
// order of number, those after the given one.
func (s *Service) ListWorkspaces(ctx context.Context, who *Identity, after terse.WorkspaceID, limit int) ([]terse.Workspace, error) {
	if !who.Owner {
		if after >= who.Workspace {
			return nil, nil
		}
		w, err := s.GetWorkspace(ctx, who, who.Workspace)
		if err != nil {
			return nil, err
		}
		return []terse.Workspace{w}, nil
	}
	afterID := ""
	if after != 0 {
		afterID = after.String()
	}
	docs, err := s.o.Store.ListDocuments(ctx, 0, terse.KindWorkspace, afterID, limit)
	if err != nil {
		return nil, fmt.Errorf("list workspaces: %w", err)
	}
	list := make([]terse.Workspace, len(docs))
	for i, doc := range docs {
		if err := decode(doc, &list[i]); err != nil {
			return nil, fmt.Errorf("list workspaces: %w", err)
		}
	}
	return list, nil
}
