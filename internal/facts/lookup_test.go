package facts_test

import (
	"slices"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/facts"
)

// TestLookup: tags are those that the store has, and of no other workspace.
func TestLookup(t *testing.T) {
	w := newWorld(t)
	l := &facts.Lookup{Store: w.store}
	for len(w.made) < 100 {
		w.act()
	}
	tagged := 0
	for n, want := range w.wantLinks() {
		for id := range terse.WorkspaceID(3) {
			got, err := l.LinkTags(t.Context(), id, n)
			w.check(err)
			if len(got) > 0 {
				tagged++
			}
			i := slices.IndexFunc(w.made, func(m terse.Link) bool { return m.Number == n })
			if w.made[i].Workspace == id != slices.Equal(got, want) && len(want) > 0 {
				t.Errorf("link %s has the tags %q for workspace %d, want %q", n, got, id, want)
			}
		}
	}
	if tagged < 20 {
		t.Errorf("%d links with tags: the test proves little", tagged)
	}
	if got, err := l.LinkTags(t.Context(), 1, terse.NewLinkNumber(1, 7, 1<<30)); err != nil || len(got) != 0 {
		t.Errorf("a link that is none: %q, %v", got, err)
	}
	c := terse.Campaign{ID: 77, Workspace: 1, Settings: terse.LinkSettings{Tags: []string{"spring"}}}
	w.put(terse.KindCampaign, c.ID.String(), c)
	for id, want := range map[terse.WorkspaceID][]string{1: {"spring"}, 2: nil} {
		if got, err := l.CampaignTags(t.Context(), id, c.ID); err != nil || !slices.Equal(got, want) {
			t.Errorf("the campaign has the tags %q for workspace %d, %v; want %q", got, id, err, want)
		}
	}
}
