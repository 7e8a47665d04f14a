package auth_test

import (
	"context"
	"reflect"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/store/faultstore"
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

// TestKeepsNothing: settings that cannot be read or decoded keep nothing of visitors, whatever they said before. The others stay.
func TestKeepsNothing(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := setup(t)
	store := faultstore.New(b.store)
	s, err := auth.OpenSettings(ctx, auth.Options{Store: store, Clock: b.clock})
	if err != nil {
		t.Fatal(err)
	}
	var ids []terse.WorkspaceID
	for range 2 {
		w, err := b.auth.CreateWorkspace(ctx, &b.owner, auth.NewWorkspace{Name: "w"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.auth.UpdateWorkspace(ctx, &b.owner, w.ID, auth.WorkspacePatch{Interstitials: new(true), StoreUA: new(true), StoreIP: new("truncated")}); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, w.ID)
	}
	check := func(when string, want ...terse.WorkspaceSettings) {
		t.Helper()
		for i, id := range ids {
			if got := s.Settings(id); !reflect.DeepEqual(got, want[i]) {
				t.Errorf("%s: workspace %d has %+v, want %+v", when, i, got, want[i])
			}
		}
	}
	all := terse.WorkspaceSettings{Interstitials: true, StoreUA: true, StoreIP: terse.StoreIPTruncated}
	closed, none := terse.WorkspaceSettings{Interstitials: true}, terse.WorkspaceSettings{}
	refresh := func() {
		t.Helper()
		if err := s.RefreshAll(ctx); err != nil {
			t.Fatal(err)
		}
		check("after everything was read", all, all)
	}
	refresh()
	up := store.Down()
	if err := s.RefreshWorkspace(ctx, ids[0]); err == nil {
		t.Error("it was read while the store is down")
	}
	check("one could not be read", closed, all)
	if err := s.RefreshAll(ctx); err == nil {
		t.Error("all were read while the store is down")
	}
	check("none could be read", closed, closed)
	up()
	if err := s.RefreshWorkspace(ctx, ids[0]); err != nil {
		t.Error(err)
	}
	check("one could be read again", all, closed)
	refresh()
	doc, err := b.store.GetDocument(ctx, 0, terse.KindWorkspace, ids[0].String())
	if err != nil {
		t.Fatal(err)
	}
	doc.Version, doc.Data = doc.Version+1, []byte(`{"settings`)
	if err := b.store.PutDocument(ctx, doc); err != nil {
		t.Fatal(err)
	}
	if err := s.RefreshWorkspace(ctx, ids[0]); err == nil {
		t.Error("it was decoded")
	}
	check("one cannot be decoded", closed, all)
	if err := s.RefreshAll(ctx); err == nil {
		t.Error("all were decoded")
	}
	check("one cannot be decoded among all", none, all)
}
