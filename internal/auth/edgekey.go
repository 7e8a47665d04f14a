package auth

import (
	"context"
	"fmt"
	"slices"

	"github.com/terselink/terse"
)

// lister is what EdgeKey needs of a store.
type lister interface {
	ListDocuments(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, after string, limit int) ([]terse.Document, error)
}

// edgePage is how many documents EdgeKey reads at once.
const edgePage = 500

// EdgeKey finds a key of an edge node that is valid at a time. Returns ErrNotFound if there is none. It reads the keys of all workspaces, so it is
// not for every request.
func EdgeKey(ctx context.Context, store lister, now terse.Millis) (found Key, err error) {
	err = eachDocument(ctx, store, 0, terse.KindWorkspace, func(doc terse.Document) (done bool, err error) {
		var w terse.Workspace
		if err := decode(doc, &w); err != nil {
			return false, err
		}
		err = eachDocument(ctx, store, w.ID, terse.KindKey, func(doc terse.Document) (bool, error) {
			var k Key
			if err := decode(doc, &k); err != nil {
				return false, err
			}
			if slices.Contains(k.Scopes, ScopeEdgeUse) && (k.ExpiresAt == 0 || k.ExpiresAt > now) {
				found = k
			}
			return found.ID != "", nil
		})
		return found.ID != "", err
	})
	if err == nil && found.ID == "" {
		err = terse.ErrNotFound
	}
	return found, err
}

// eachDocument calls f for every document of a kind until it is done or fails.
func eachDocument(ctx context.Context, store lister, w terse.WorkspaceID, kind terse.Kind, f func(terse.Document) (done bool, err error)) error {
	for after := ""; ; {
		docs, err := store.ListDocuments(ctx, w, kind, after, edgePage)
		if err != nil {
			return fmt.Errorf("list documents of kind %s: %w", kind, err)
		}
		for i := range docs {
			after = docs[i].ID
			if done, err := f(docs[i]); done || err != nil {
				return err
			}
		}
		if len(docs) < edgePage {
			return nil
		}
	}
}
