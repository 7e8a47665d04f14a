package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/terselink/terse"
)

// testRetry checks that a write whose answer was lost can be repeated: it is
// applied once, and the repetition gets the error that a second writer would.
func testRetry(t *testing.T, s *suite) {
	c := s.scope(t)
	doc := c.doc(terse.KindIdempotency, "once", 1)
	links := append(c.links(10), c.alias("once"), c.reserving(terse.NewLinkNumber(c.d, 5, 3)))
	rows := make([]int, len(links))
	for i := range rows {
		rows[i] = i
	}
	chunk := terse.Chunk{Links: links, Documents: []terse.Document{doc}}
	after := c.tail()
	wantErr(t, "InsertLinks", s.store.InsertLinks(c.ctx, &chunk), nil)
	wantRows(t, s.store.InsertLinks(c.ctx, &chunk), rows...)
	wantErr(t, "PutDocument", s.store.PutDocument(c.ctx, doc), terse.ErrExists)

	v2 := c.next(links[0])
	wantErr(t, "UpdateLink", s.store.UpdateLink(c.ctx, &v2, 1), nil)
	wantErr(t, "UpdateLink again", s.store.UpdateLink(c.ctx, &v2, 1), terse.ErrVersion)
	wantRows(t, s.store.InsertLinks(c.ctx, &chunk), rows...)

	key := terse.LinkKey{Number: links[1].Number, Code: links[1].Code}
	wantErr(t, "DeleteLink", s.store.DeleteLink(c.ctx, key, 1), nil)
	wantErr(t, "DeleteLink again", s.store.DeleteLink(c.ctx, key, 1), terse.ErrNotFound)
	aliasKey := terse.LinkKey{Number: links[10].Number, Code: links[10].Code}
	wantErr(t, "DeleteLink of the alias", s.store.DeleteLink(c.ctx, aliasKey, 1), nil)
	wantRows(t, s.store.InsertLinks(c.ctx, &chunk), rows...) // nothing rises from the dead
	c.wantAbsent(links[1], links[10])
	c.wantAliasFree("once")

	doc2 := c.doc(terse.KindIdempotency, "once", 2)
	wantErr(t, "PutDocument", s.store.PutDocument(c.ctx, doc2), nil)
	wantErr(t, "PutDocument again", s.store.PutDocument(c.ctx, doc2), terse.ErrVersion)

	left := append([]terse.Link{v2}, links[2:10]...)
	c.wantStored(append(left, links[11])...)
	c.wantDoc(doc2)
	known := func(w terse.WorkspaceID, n terse.LinkNumber) bool {
		return w == c.w && slices.ContainsFunc(links, func(l terse.Link) bool { return l.Number == n })
	}
	const writes = 12 + 1 + 1 + 2 + 1 // links, document, update, deletions, document
	c.eventually(func() string {
		if got := of(events(c.changes(after, 1000), known), c.w); len(got) != writes {
			return fmt.Sprintf("%d events, want %d: the failed writes left some: %v", len(got), writes, got)
		}
		return ""
	})
}

// testLifecycle checks Ping, Close and what comes after.
func testLifecycle(t *testing.T, s *suite) {
	c := s.scope(t)
	links := append(c.links(3), c.alias("alias"))
	doc, newDoc := c.doc(terse.KindJob, "there", 1), c.doc(terse.KindJob, "new", 1)
	c.mustInsert(links[0], links[1], links[3])
	wantErr(t, "PutDocument", s.store.PutDocument(c.ctx, doc), nil)
	wantErr(t, "Ping", s.store.Ping(c.ctx), nil)

	// Calls under way while the store closes finish or fail.
	var wg sync.WaitGroup
	start := make(chan struct{})
	for g := range 8 {
		more := c.links(1)
		wg.Go(func() {
			<-start
			var err error
			if g%2 == 0 {
				err = c.insert(more...)
			} else {
				_, err = s.store.ListLinks(c.ctx, c.w, terse.ListQuery{Limit: 10})
			}
			if err != nil && !errors.Is(err, terse.ErrUnavailable) && !errors.Is(err, terse.ErrUnknownOutcome) {
				t.Errorf("a call during Close: %v", err)
			}
		})
	}
	close(start)
	wantErr(t, "Close", s.store.Close(), nil)
	wg.Wait()
	wantErr(t, "Close again", s.store.Close(), nil)

	reads, writes := c.calls(links[0], links[1], links[2], doc, newDoc)
	for _, call := range append(reads, writes...) {
		if err := call.do(c.ctx, s.store); !errors.Is(err, terse.ErrUnavailable) {
			t.Errorf("%s after Close: got error %v, want ErrUnavailable", call.name, err)
		}
	}
	wantErr(t, "Close once more", s.store.Close(), nil)
}

// testReopen checks that everything survives a clean stop, twice.
func testReopen(t *testing.T, s *suite) {
	if s.o.Reopen == nil {
		t.Skip("the store is not durable")
	}
	c := s.scope(t)
	o := c.other()
	links := append(c.links(200), c.fullLink(), c.alias("kept"), c.alias("dropped"), c.reserving(terse.NewLinkNumber(c.d, 5, 4)))
	c.stamp(links)
	c.mustInsert(links...)
	foreign := o.links(3)
	c.mustInsert(foreign...)
	c.numbers(6, 17)
	drop := []int{202, 64, 0}
	for _, i := range drop {
		wantErr(t, "DeleteLink", s.store.DeleteLink(c.ctx, terse.LinkKey{Number: links[i].Number, Code: links[i].Code}, 0), nil)
	}
	links[70] = c.next(links[70])
	wantErr(t, "UpdateLink", s.store.UpdateLink(c.ctx, &links[70], 1), nil)
	docs := []terse.Document{c.doc(terse.KindKey, "a", 1), c.doc(terse.KindKey, "b", 1)}
	for _, d := range docs {
		wantErr(t, "PutDocument", s.store.PutDocument(c.ctx, d), nil)
	}
	docs[1] = c.doc(terse.KindKey, "b", 2)
	wantErr(t, "PutDocument", s.store.PutDocument(c.ctx, docs[1]), nil)

	kept, dropped := slices.Clone(links), []terse.Link(nil)
	for _, i := range drop {
		dropped = append(dropped, links[i])
		kept = slices.Delete(kept, i, i+1)
	}
	c.wantList(terse.ListQuery{}, kept...)
	c.eventually(func() string {
		if len(c.changes(0, 10_000)) < 9 {
			return "the change feed is not complete"
		}
		return ""
	})
	changes := c.changes(0, 10_000)
	next, err := s.store.Next(c.ctx, c.d, genSpace)
	wantErr(t, "Next", err, nil)

	for round := range uint64(2) {
		s.store = s.o.Reopen(t, s.store)
		wantErr(t, "Ping", s.store.Ping(c.ctx), nil)
		c.wantStored(kept...)
		c.wantStored(foreign...)
		c.wantAbsent(dropped...)
		c.wantAliasFree("dropped")
		c.wantList(terse.ListQuery{}, kept...)
		c.wantList(terse.ListQuery{ExternalID: kept[198].ExternalID}, kept[198])
		c.wantFound(links[70].Destination, epoch, links[70])
		c.wantFound(links[71].Destination, epoch, links[71])
		c.wantFound(links[64].Destination, epoch, terse.Link{})
		c.wantDocs(terse.KindKey, "", docs...)
		wantNext(c, genSpace, next)
		wantNext(c, 6, 17)
		wantNext(c, 5, 0)
		wantRows(t, c.insert(links[64], kept[10]), 0, 1)
		if got := c.changes(0, 10_000); len(got) < len(changes) || got[0].Seq != changes[0].Seq ||
			got[len(changes)-1].Seq != changes[len(changes)-1].Seq {
			t.Fatalf("the change feed has changed: %d changes, %d before", len(got), len(changes))
		}
		// It goes on from where it was.
		after := c.tail()
		d := c.doc(terse.KindMeta, fmt.Sprint(round), 1)
		wantErr(t, "PutDocument", s.store.PutDocument(context.Background(), d), nil)
		c.eventually(func() string {
			if got := c.changes(after, 10_000); len(got) == 0 || got[len(got)-1].DocID != d.ID {
				return fmt.Sprintf("the changes after the last one: %+v", got)
			}
			return ""
		})
	}
	l, err := s.store.Lease(c.ctx, terse.LeaseRequest{Domain: c.d, Space: 5, Count: 5})
	wantErr(t, "Lease", err, nil)
	wantLease(t, l, terse.Lease{Domain: c.d, Space: 5, Start: 0, End: 5, Reserved: []uint64{4}})
	fresh := c.links(1)
	c.mustInsert(fresh...)
	c.wantList(terse.ListQuery{}, append(kept, fresh...)...)
}
