package auth_test

import (
	"errors"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
)

// TestEdgeKey: the key of an edge is found among others, in whichever workspace it is and for as long as it is valid.
func TestEdgeKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	now := b.clock()
	b.key(t, auth.NewKey{Workspace: auth.DefaultWorkspace, Scopes: []auth.Scope{auth.ScopeAll}})
	if k, err := auth.EdgeKey(t.Context(), b.store, now); !errors.Is(err, terse.ErrNotFound) {
		t.Errorf("a key of another scope: %+v, %v", k, err)
	}
	w, err := b.auth.CreateWorkspace(t.Context(), &b.owner, auth.NewWorkspace{Name: "second"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	made, _ := b.key(t, auth.NewKey{Workspace: w.ID, Name: "frankfurt", Scopes: []auth.Scope{auth.ScopeEdgeUse}, ExpiresAt: b.clock() + 1000})
	if k, err := auth.EdgeKey(t.Context(), b.store, now); err != nil || k.ID != made.ID || k.Name != "frankfurt" {
		t.Errorf("got %+v, %v", k, err)
	}
	if k, err := auth.EdgeKey(t.Context(), b.store, made.ExpiresAt); !errors.Is(err, terse.ErrNotFound) {
		t.Errorf("a key that has expired: %+v, %v", k, err)
	}
}
