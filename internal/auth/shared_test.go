package auth_test

import (
	"context"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
)

// TestOtherNodes: what another node makes of keys and workspaces is in force once this one has been told.
func TestOtherNodes(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	other, err := auth.Open(ctx, auth.Options{Store: b.store, Clock: b.clock})
	if err != nil {
		t.Fatal(err)
	}
	w, err := other.CreateWorkspace(ctx, &b.owner, auth.NewWorkspace{Name: "w"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.auth.GetWorkspace(ctx, &b.owner, w.ID); err != nil {
		t.Fatal(err)
	}
	on := true
	if _, err := other.UpdateWorkspace(ctx, &b.owner, w.ID, auth.WorkspacePatch{Interstitials: &on}); err != nil {
		t.Fatal(err)
	}
	if err := b.auth.RefreshWorkspace(ctx, w.ID); err != nil {
		t.Fatal(err)
	}
	if !b.auth.Settings(w.ID).Interstitials {
		t.Error("a setting of the other node is not in force")
	}
	if got, err := b.auth.GetWorkspace(ctx, &b.owner, w.ID); err != nil || got.Version != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	if err := b.auth.RefreshWorkspace(ctx, w.ID+1000); err != nil {
		t.Errorf("a workspace that there is not: %v", err)
	}

	key, token, err := other.CreateKey(ctx, &b.owner, auth.NewKey{Workspace: w.ID, Name: "k", Scopes: []auth.Scope{auth.ScopeAll}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.auth.Authenticate(ctx, token); err != nil {
		t.Fatal(err)
	}
	if err := other.DeleteKey(ctx, w.ID, key.ID); err != nil {
		t.Fatal(err)
	}
	b.auth.ForgetKey(key.ID)
	if _, err := b.auth.Authenticate(ctx, token); terse.ErrorCode(err) != terse.CodeUnauthorized {
		t.Errorf("a key that was revoked elsewhere: %v", err)
	}
	if err := b.auth.RefreshAll(ctx); err != nil || !b.auth.Settings(w.ID).Interstitials {
		t.Errorf("after everything was read again: %v", err)
	}
}
