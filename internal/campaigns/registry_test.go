package campaigns

import (
	"context"
	"sync"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/memstore"
)

func clock() terse.Millis { return 1_800_000_000_000 }

// TestRegistry: one handle for everybody, which follows changes and deletion.
func TestRegistry(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	store := memstore.New(clock)
	r := New(Options{Store: store, Clock: clock})
	c, err := r.Create(ctx, terse.Campaign{Workspace: 1, Name: "c", Destination: "https://a.example/{x}", Fields: []string{"x"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	handles := make([]*Handle, 8)
	fresh := New(Options{Store: store, Clock: clock}) // as after a restart
	var wg sync.WaitGroup
	for i := range handles {
		wg.Go(func() { handles[i], _ = fresh.Handle(ctx, 1, c.ID) })
	}
	wg.Wait()
	for _, h := range handles {
		if h == nil || h != handles[0] {
			t.Fatal("handles differ")
		}
	}
	for range 50 {
		wg.Go(func() {
			if _, err := fresh.Update(ctx, 1, c.ID, 0, func(c *terse.Campaign) error { c.Name += "+"; return nil }); err != nil && terse.ErrorCode(err) != terse.CodePrecondition {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	doc, err := store.GetDocument(ctx, 1, terse.KindCampaign, c.ID.String())
	if err != nil {
		t.Fatal(err)
	}
	if got := handles[0].Load(); got.Version != doc.Version || len(got.Name) != int(doc.Version) {
		t.Errorf("the handle has version %d %q, the store %d", got.Version, got.Name, doc.Version)
	}
	if _, err := fresh.Update(ctx, 1, c.ID, 1, func(*terse.Campaign) error { return nil }); terse.ErrorCode(err) != terse.CodePrecondition {
		t.Errorf("an old version: %v", err)
	}
	if _, err := fresh.Get(ctx, 2, c.ID); terse.ErrorCode(err) != terse.CodeNotFound {
		t.Errorf("another workspace: %v", err)
	}
	if err := fresh.Delete(ctx, 1, c.ID, 0); err != nil || !handles[0].Load().Deleted {
		t.Errorf("deleted: %v", err)
	}
	if _, err := fresh.Handle(ctx, 1, c.ID); terse.ErrorCode(err) != terse.CodeNotFound {
		t.Errorf("a deleted campaign: %v", err)
	}
}

// TestUnread: what cannot be read is not "does not exist".
func TestUnread(t *testing.T) {
	t.Parallel()
	inner := memstore.New(clock)
	c, err := New(Options{Store: inner, Clock: clock}).Create(context.Background(), terse.Campaign{Workspace: 1, Destination: "https://a.example/"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := New(Options{Store: brokenStore{inner}, Clock: clock})
	if _, err := r.Handle(context.Background(), 1, c.ID); terse.ErrorCode(err) != terse.CodeUnavailable {
		t.Errorf("error %v", err)
	}
}

type brokenStore struct{ terse.Store }

func (brokenStore) GetDocument(context.Context, terse.WorkspaceID, terse.Kind, string) (terse.Document, error) {
	return terse.Document{}, terse.ErrUnavailable
}
