package storetest

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/terselink/terse"
)

// tail returns where the change feed ends now.
func (c *scope) tail() uint64 {
	c.Helper()
	var last uint64
	for {
		list := c.changes(last, 1000)
		if len(list) == 0 {
			return last
		}
		last = list[len(list)-1].Seq
	}
}

// changes returns one page of the feed and checks its order.
func (c *scope) changes(after uint64, limit int) []terse.Change {
	c.Helper()
	list, err := c.store.Changes(c.ctx, after, limit)
	if err != nil {
		c.Fatalf("Changes after %d: %v", after, err)
	}
	if len(list) > limit {
		c.Fatalf("Changes after %d: %d of them, the limit is %d", after, len(list), limit)
	}
	last := after
	for _, ch := range list {
		if ch.Seq <= last {
			c.Fatalf("Changes after %d: %d comes after %d", after, ch.Seq, last)
		}
		last = ch.Seq
	}
	return list
}

// event is one change of one thing: what a Change says, taken apart.
type event struct {
	Kind      terse.ChangeKind
	Workspace terse.WorkspaceID
	Number    terse.LinkNumber
	Version   uint64 // of an insertion 0
	DocKind   terse.Kind
	DocID     string
}

func compareEvents(a, b event) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Workspace, b.Workspace), cmp.Compare(a.Number, b.Number),
		cmp.Compare(a.Version, b.Version), cmp.Compare(a.DocKind, b.DocKind), cmp.Compare(a.DocID, b.DocID))
}

// events takes changes apart. Runs may cover numbers that do not exist, so of
// an insertion only the numbers that are known count.
func events(changes []terse.Change, known func(terse.WorkspaceID, terse.LinkNumber) bool) []event {
	var out []event
	for _, ch := range changes {
		if ch.Kind == terse.ChangeDocument {
			out = append(out, event{Kind: ch.Kind, Workspace: ch.Workspace, Version: ch.Version, DocKind: ch.DocKind, DocID: ch.DocID})
			continue
		}
		version := ch.Version
		if ch.Kind == terse.ChangeInserted {
			version = 0
		}
		for _, r := range ch.Runs {
			for i := range r.Count {
				n := r.First + terse.LinkNumber(i)
				if ch.Kind != terse.ChangeInserted || known(ch.Workspace, n) {
					out = append(out, event{Kind: ch.Kind, Workspace: ch.Workspace, Number: n, Version: version})
				}
			}
		}
	}
	return out
}

// of keeps the events of the workspaces. A feed that lags may still bring those
// of earlier tests.
func of(list []event, workspaces ...terse.WorkspaceID) []event {
	return slices.DeleteFunc(list, func(e event) bool { return !slices.Contains(workspaces, e.Workspace) })
}

// testChanges checks the feed: everything is in it, once, in order.
func testChanges(t *testing.T, s *suite) {
	t.Run("every write", func(t *testing.T) {
		c := s.scope(t)
		o := c.other()
		after := c.tail()

		links := append(c.links(60), c.alias("in-the-feed"))
		links[10].Workspace = o.w
		exists := map[terse.LinkNumber]terse.WorkspaceID{}
		var want []event
		for i, l := range links {
			if i == 20 {
				continue // a hole in the run
			}
			exists[l.Number] = l.Workspace
			want = append(want, event{Kind: terse.ChangeInserted, Workspace: l.Workspace, Number: l.Number})
		}
		chunk := &terse.Chunk{Links: slices.Delete(slices.Clone(links), 20, 21), Documents: []terse.Document{c.doc(terse.KindJob, "j", 1)}}
		wantErr(t, "InsertLinks", s.store.InsertLinks(c.ctx, chunk), nil)
		want = append(want, event{Kind: terse.ChangeDocument, Workspace: c.w, Version: 1, DocKind: terse.KindJob, DocID: "j"})
		changed := c.next(links[0])
		changed.Version = 5
		wantErr(t, "UpdateLink", s.store.UpdateLink(c.ctx, &changed, 1), nil)
		want = append(want, event{Kind: terse.ChangeUpdated, Workspace: c.w, Number: links[0].Number, Version: 5})
		for _, l := range []terse.Link{changed, links[60]} {
			wantErr(t, "DeleteLink", s.store.DeleteLink(c.ctx, terse.LinkKey{Number: l.Number, Code: l.Code}, 0), nil)
			want = append(want, event{Kind: terse.ChangeDeleted, Workspace: c.w, Number: l.Number, Version: l.Version})
		}
		wantErr(t, "PutDocument", s.store.PutDocument(c.ctx, c.doc(terse.KindJob, "j", 2)), nil)
		wantErr(t, "DeleteDocument", s.store.DeleteDocument(c.ctx, c.w, terse.KindJob, "j", 0), nil)
		for range 2 {
			want = append(want, event{Kind: terse.ChangeDocument, Workspace: c.w, Version: 2, DocKind: terse.KindJob, DocID: "j"})
		}
		// What fails changes nothing.
		wantErr(t, "UpdateLink", s.store.UpdateLink(c.ctx, &changed, 1), terse.ErrNotFound)
		wantErr(t, "PutDocument", s.store.PutDocument(c.ctx, c.doc(terse.KindJob, "j", 9)), terse.ErrVersion)
		wantRows(t, c.insert(links[1]), 0)

		slices.SortFunc(want, compareEvents)
		known := func(w terse.WorkspaceID, n terse.LinkNumber) bool { return exists[n] == w }
		for _, limit := range []int{1, 2, 1000} {
			c.eventually(func() string {
				var all []terse.Change
				for from := after; ; {
					list := c.changes(from, limit)
					if len(list) == 0 {
						break
					}
					all = append(all, list...)
					from = list[len(list)-1].Seq
				}
				got := of(events(all, known), c.w, o.w)
				slices.SortFunc(got, compareEvents)
				if !slices.Equal(got, want) {
					return fmt.Sprintf("Changes, %d at a time: got %d events, want %d:\n%v\n%v", limit, len(got), len(want), got, want)
				}
				return ""
			})
		}
		for _, ch := range c.changes(after, 1000) {
			if ch.At <= 0 {
				t.Errorf("change %d has no time", ch.Seq)
			}
		}
	})

	t.Run("in the order of the writes", func(t *testing.T) {
		c := s.scope(t)
		after := c.tail()
		l := c.links(1)[0]
		c.mustInsert(l)
		key := terse.LinkKey{Number: l.Number, Code: l.Code}
		for range 5 {
			l = c.next(l)
			wantErr(t, "UpdateLink", s.store.UpdateLink(c.ctx, &l, l.Version-1), nil)
		}
		wantErr(t, "DeleteLink", s.store.DeleteLink(c.ctx, key, 6), nil)
		want := []event{{Kind: terse.ChangeInserted, Workspace: c.w, Number: l.Number}}
		for v := uint64(2); v <= 6; v++ {
			want = append(want, event{Kind: terse.ChangeUpdated, Workspace: c.w, Number: l.Number, Version: v})
		}
		want = append(want, event{Kind: terse.ChangeDeleted, Workspace: c.w, Number: l.Number, Version: 6})
		c.eventually(func() string {
			got := of(events(c.changes(after, 1000), func(terse.WorkspaceID, terse.LinkNumber) bool { return true }), c.w)
			if !slices.Equal(got, want) {
				return fmt.Sprintf("got %v, want %v", got, want)
			}
			return ""
		})
	})

	t.Run("nothing new is nothing", func(t *testing.T) {
		c := s.scope(t)
		for _, after := range []uint64{1 << 62, 1<<63 - 1} {
			if list := c.changes(after, 10); len(list) != 0 {
				t.Fatalf("%d changes after the last one", len(list))
			}
		}
		last := c.tail()
		if _, err := s.store.Changes(c.ctx, last, 0); err == nil {
			t.Fatal("Changes with limit 0 is no error")
		}
	})

	t.Run("no gap under concurrency", func(t *testing.T) {
		c := s.scope(t)
		after := c.tail()
		const writers, each, perChunk = 8, 20, 3
		links := c.links(writers * each * perChunk)
		done := make(chan struct{})
		var wg sync.WaitGroup
		for g := range writers {
			wg.Go(func() {
				for i := range each {
					from := (g*each + i) * perChunk
					if err := c.insert(links[from : from+perChunk]...); err != nil {
						t.Errorf("InsertLinks: %v", err)
					}
				}
			})
		}
		go func() { wg.Wait(); close(done) }()

		// A reader that always resumes after the last change it saw must see all:
		// a change that became visible below its position would be lost to it.
		seen := map[terse.LinkNumber]int{}
		from := after
		read := func() {
			for {
				list := c.changes(from, 7)
				if len(list) == 0 {
					return
				}
				from = list[len(list)-1].Seq
				for _, e := range events(list, func(w terse.WorkspaceID, _ terse.LinkNumber) bool { return w == c.w }) {
					seen[e.Number]++
				}
			}
		}
		for running := true; running; {
			read()
			select {
			case <-done:
				running = false
			default:
			}
		}
		c.eventually(func() string {
			read()
			for _, l := range links {
				if seen[l.Number] == 0 {
					return fmt.Sprintf("the insertion of %s was never seen", l.Number)
				}
			}
			return ""
		})
	})
}
