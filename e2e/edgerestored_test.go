package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/e2e/proc"
)

// TestEdgeRestored: the control plane of an edge is put back to a backup of its folder and writes past the position of the edge before that
// asks again. What was undone is undone there, and what was written under positions that the edge had read is in force.
func TestEdgeRestored(t *testing.T) {
	uo := fixedAddrs(t)
	up := start(t, uo)
	eo := edgeOptions(t, up)
	link := func(name string) *client.Link {
		t.Helper()
		l, err := newClient(t, up).CreateLink(t.Context(), client.NewLink{Destination: "https://example.com/" + name})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	change := func(l *client.Link, to string) {
		t.Helper()
		to = "https://example.com/" + to
		if _, err := newClient(t, up).UpdateLink(t.Context(), l.ID, client.LinkPatch{Destination: client.Set(to)}); err != nil {
			t.Fatal(err)
		}
	}
	undone, later := link("undone"), link("later")
	stop := func(s *proc.Server) {
		t.Helper()
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	stop(up)
	backup := filepath.Join(t.TempDir(), "backup")
	if err := os.CopyFS(backup, os.DirFS(uo.Data)); err != nil {
		t.Fatal(err)
	}
	up = start(t, uo)
	edge := start(t, eo)
	leads := func(l *client.Link, to string) {
		t.Helper()
		v := newVisitor(edge, "User-Agent", agentDesktop)
		defer v.close()
		until(t, time.Minute, "a link leads to "+to, func() bool {
			status, location, err := v.visit("GET", pathOf(l.ShortURL))
			return err == nil && status == 302 && location == "https://example.com/"+to
		})
	}
	// The edge has both, so that it learns of the change from the feed, and its position is after it.
	leads(later, "later")
	leads(undone, "undone")
	change(undone, "lost")
	leads(undone, "lost")
	stop(edge)
	stop(up)
	if err := os.RemoveAll(uo.Data); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(uo.Data, os.DirFS(backup)); err != nil {
		t.Fatal(err)
	}
	up = start(t, uo)
	for range 20 { // the first of them where the lost change was
		change(later, "new")
		change(later, "newer")
	}
	other := link("other")
	edge = start(t, eo)
	leads(other, "other")
	leads(undone, "undone")
	leads(later, "newer")
}
