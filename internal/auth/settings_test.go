package auth_test

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
)

func TestUpdateWorkspace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	other, err := b.auth.CreateWorkspace(t.Context(), &b.owner, auth.NewWorkspace{Name: "other"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	on, schemes, name := true, []string{"ZAP", "myapp", "zap"}, "renamed"
	_, token := b.key(t, auth.NewKey{Workspace: other.ID, Scopes: []auth.Scope{auth.ScopeAll}})
	who, err := b.auth.Authenticate(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.auth.Settings(other.ID); got.Interstitials || got.AppSchemes != nil {
		t.Errorf("a new workspace has %+v", got)
	}
	w, err := b.auth.UpdateWorkspace(t.Context(), &who, other.ID, auth.WorkspacePatch{Name: &name, Interstitials: &on, AppSchemes: &schemes})
	if err != nil || w.Name != name || w.Version != 2 || !w.Interstitials || !slices.Equal(w.AppSchemes, []string{"myapp", "zap"}) {
		t.Fatalf("%+v, %v", w, err)
	}
	again, err := auth.Open(t.Context(), auth.Options{Store: b.store, Clock: b.clock})
	if err != nil {
		t.Fatal(err)
	}
	for what, s := range map[string]*auth.Service{"this service": b.auth, "after a start": again} {
		if got := s.Settings(other.ID); !got.Interstitials || !slices.Equal(got.AppSchemes, []string{"myapp", "zap"}) {
			t.Errorf("%s: %+v", what, got)
		}
		if got, err := s.GetWorkspace(t.Context(), &b.owner, other.ID); err != nil || got.Name != name || got.CreatedAt != other.CreatedAt {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
		if got := s.Settings(auth.DefaultWorkspace); got.Interstitials {
			t.Errorf("%s: another workspace has %+v", what, got)
		}
	}
	for what, id := range map[string]terse.WorkspaceID{"a foreign workspace": auth.DefaultWorkspace, "none": 0, "one that is not there": 999} {
		if _, err := b.auth.UpdateWorkspace(t.Context(), &who, id, auth.WorkspacePatch{Name: &name}); !errors.Is(err, terse.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	bad, blank := []string{"javascript"}, " "
	for field, p := range map[string]auth.WorkspacePatch{"app_schemes[0]": {AppSchemes: &bad}, "name": {Name: &blank}} {
		var e *terse.Error
		if _, err := b.auth.UpdateWorkspace(t.Context(), &who, other.ID, p); !errors.As(err, &e) || e.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	off, none := false, []string{}
	if w, err = b.auth.UpdateWorkspace(t.Context(), &b.owner, other.ID, auth.WorkspacePatch{Interstitials: &off, AppSchemes: &none}); err != nil || w.Name != name {
		t.Errorf("%+v, %v", w, err)
	}
	if got := b.auth.Settings(other.ID); got.Interstitials || got.AppSchemes != nil {
		t.Errorf("switched off: %+v", got)
	}
}

// TestStoreSettings: what a workspace keeps of visitors is nothing unless somebody of it has said so.
func TestStoreSettings(t *testing.T) {
	t.Parallel()
	b := setup(t)
	on, off := true, false
	for _, step := range []struct {
		patch auth.WorkspacePatch
		want  terse.WorkspaceSettings
		bad   string
	}{
		{auth.WorkspacePatch{StoreUA: &on}, terse.WorkspaceSettings{StoreUA: true}, ""},
		{auth.WorkspacePatch{StoreIP: new("truncated")}, terse.WorkspaceSettings{StoreUA: true, StoreIP: terse.StoreIPTruncated}, ""},
		{auth.WorkspacePatch{StoreIP: new("full")}, terse.WorkspaceSettings{StoreUA: true, StoreIP: terse.StoreIPTruncated}, "store_ip"},
		{auth.WorkspacePatch{StoreIP: new("")}, terse.WorkspaceSettings{StoreUA: true, StoreIP: terse.StoreIPTruncated}, "store_ip"},
		{auth.WorkspacePatch{StoreUA: &off}, terse.WorkspaceSettings{StoreIP: terse.StoreIPTruncated}, ""},
		{auth.WorkspacePatch{StoreIP: new("no")}, terse.WorkspaceSettings{}, ""},
	} {
		_, err := b.auth.UpdateWorkspace(t.Context(), &b.owner, auth.DefaultWorkspace, step.patch)
		var e *terse.Error
		if errors.As(err, &e) != (step.bad != "") || step.bad != "" && (e.Field != step.bad || e.Code != terse.CodeInvalid) {
			t.Errorf("%+v: %v", step.patch, err)
		}
		again, err := auth.OpenSettings(t.Context(), auth.Options{Store: b.store, Clock: b.clock}) // as an edge has them
		if err != nil {
			t.Fatal(err)
		}
		for what, s := range map[string]*auth.Service{"this service": b.auth, "after a start": again} {
			if got := s.Settings(auth.DefaultWorkspace); got.StoreUA != step.want.StoreUA || got.StoreIP != step.want.StoreIP {
				t.Errorf("%s: %+v, want %+v", what, got, step.want)
			}
		}
	}
}

// TestUpdateWorkspaceRace: changes of different fields at once are all there afterwards.
func TestUpdateWorkspaceRace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var wg sync.WaitGroup
	on, schemes, name := true, []string{"myapp"}, "renamed"
	for _, p := range []auth.WorkspacePatch{{Name: &name}, {Interstitials: &on}, {AppSchemes: &schemes}} {
		wg.Go(func() {
			if _, err := b.auth.UpdateWorkspace(t.Context(), &b.owner, auth.DefaultWorkspace, p); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	w, err := b.auth.GetWorkspace(t.Context(), &b.owner, auth.DefaultWorkspace)
	if err != nil || w.Name != name || !w.Interstitials || len(w.AppSchemes) != 1 || w.Version != 4 {
		t.Errorf("%+v, %v", w, err)
	}
	if got := b.auth.Settings(auth.DefaultWorkspace); !got.Interstitials || len(got.AppSchemes) != 1 {
		t.Errorf("in memory: %+v", got)
	}
}
