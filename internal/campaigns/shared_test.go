package campaigns

import (
	"context"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/memstore"
)

// TestRefresh: what another node makes of a campaign is in force after Refresh, in the handles that links hold.
func TestRefresh(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	store := memstore.New(clock)
	a, b := New(Options{Store: store, Clock: clock}), New(Options{Store: store, Clock: clock})
	rename := func(c *terse.Campaign) error { c.Name += "+"; return nil }
	c, err := a.Create(ctx, terse.Campaign{Workspace: 1, Name: "c", Destination: "https://a.example/{x}", Fields: []string{"x"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Refresh(ctx, 1, c.ID); err != nil { // it has nothing of it
		t.Fatal(err)
	}
	h, err := b.Handle(ctx, 1, c.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Update(ctx, 1, c.ID, 0, rename); err != nil {
		t.Fatal(err)
	}
	// Before the message: whoever has the version of the other node is not refused.
	if _, err := b.Update(ctx, 1, c.ID, 2, rename); err != nil || h.Load().Version != 3 {
		t.Errorf("with the version of the other node: %v", err)
	}
	if _, err := b.Update(ctx, 1, c.ID, 2, rename); terse.ErrorCode(err) != terse.CodePrecondition {
		t.Errorf("with an old version: %v", err)
	}
	if err := a.Refresh(ctx, 1, c.ID); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Get(ctx, 1, c.ID); err != nil || got.Name != "c++" {
		t.Errorf("refreshed: %+v, %v", got, err)
	}
	if err := a.Delete(ctx, 1, c.ID, 0); err != nil {
		t.Fatal(err)
	}
	if err := b.RefreshAll(ctx); err != nil || !h.Load().Deleted {
		t.Errorf("deleted elsewhere: %+v, %v", h.Load(), err)
	}
}
