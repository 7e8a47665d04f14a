package campaigns

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/faultstore"
	"github.com/terselink/terse/internal/store/memstore"
)

// purgeWorld is a store with a campaign of workspace 1 and a purger, in a bubble of time.
type purgeWorld struct {
	t      *testing.T
	store  *memstore.Store
	faults *faultstore.Store
	reg    *Registry
	next   uint64
}

func wall() terse.Millis { return terse.MillisOf(time.Now()) }

func newPurgeWorld(t *testing.T) *purgeWorld {
	w := &purgeWorld{t: t, store: memstore.New(wall)}
	w.faults = faultstore.New(w.store)
	w.reg = New(Options{Store: w.faults, Clock: wall})
	return w
}

func (w *purgeWorld) campaign() *Campaign {
	w.t.Helper()
	c, err := w.reg.Create(w.t.Context(), terse.Campaign{Workspace: 1, Name: "c", Destination: "https://shop.example/{a}", Fields: []string{"a"}}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *purgeWorld) links(c *Campaign, n int) {
	w.t.Helper()
	list := make([]terse.Link, n)
	for i := range list {
		list[i] = terse.Link{Number: terse.NewLinkNumber(1, 7, w.next), Workspace: 1, Campaign: c.ID, Version: 1, CreatedAt: wall(), UpdatedAt: wall(), Code: fmt.Sprintf("c%06d", w.next), Values: "v"}
		w.next++
	}
	if err := w.store.InsertLinks(w.t.Context(), &terse.Chunk{Links: list}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *purgeWorld) count(c *Campaign) uint64 {
	w.t.Helper()
	n, err := w.store.CountLinks(w.t.Context(), 1, c.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *purgeWorld) notes() int {
	w.t.Helper()
	docs, err := w.store.ListDocuments(w.t.Context(), 0, terse.KindPurge, "", 10)
	if err != nil {
		w.t.Fatal(err)
	}
	return len(docs)
}

// run starts a purger and returns how to stop it.
func (w *purgeWorld) run(o PurgeOptions) (stop func()) {
	o.Store, o.Clock = w.faults, wall
	p := NewPurger(o)
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.Run(ctx) }()
	return func() { cancel(); <-done }
}

// TestPurge: the links of a deleted campaign go at no more than the rate, over a restart,
// those that come late too, and then the note. Others stay.
func TestPurge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPurgeWorld(t)
		gone, stays := w.campaign(), w.campaign()
		w.links(gone, 20_000)
		w.links(stays, 100)
		if err := w.reg.Delete(t.Context(), 1, gone.ID, 0); err != nil {
			t.Fatal(err)
		}
		if w.count(gone) != 20_000 || w.notes() != 1 {
			t.Fatalf("%d links, %d notes after the deletion", w.count(gone), w.notes())
		}
		o := PurgeOptions{Rate: 1000, Every: time.Minute, Grace: 10 * time.Minute}
		stop := w.run(o)
		time.Sleep(settle - time.Millisecond) // in the bubble: takes no time
		synctest.Wait()
		if n := w.count(gone); n != 20_000 {
			t.Errorf("%d of 20,000 links just before the campaign has been gone for %v", n, settle)
		}
		time.Sleep(10*time.Second + 2*time.Millisecond)
		synctest.Wait()
		if n := w.count(gone); n < 8000 || n > 10_000 {
			t.Errorf("%d of 20,000 links after 10 s at 1,000 a second", n)
		}
		stop()
		stop = w.run(o)
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if n := w.count(gone); n != 0 || w.notes() != 1 {
			t.Errorf("%d links and %d notes after a restart and 15 s", n, w.notes())
		}
		w.links(gone, 50) // of a request that was on its way
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := w.count(gone); n != 0 {
			t.Errorf("%d links that came late are left", n)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		stop()
		if w.notes() != 0 || w.count(stays) != 100 {
			t.Errorf("%d notes, %d links of the other campaign", w.notes(), w.count(stays))
		}
	})
}

// TestPurgeNotDeleted: whatever fails around the deletion, links of a campaign that
// exists are never removed, and those of one that does not always are.
func TestPurgeNotDeleted(t *testing.T) {
	for _, fault := range []faultstore.Fault{
		{Op: faultstore.PutDocument, When: faultstore.Before, Err: terse.ErrUnavailable},
		{Op: faultstore.PutDocument, When: faultstore.After, Err: terse.ErrUnknownOutcome},
		{Op: faultstore.DeleteDocument, When: faultstore.Before, Err: terse.ErrUnavailable},
		{Op: faultstore.DeleteDocument, When: faultstore.After, Err: terse.ErrUnknownOutcome},
		{Op: faultstore.PurgeLinks, When: faultstore.Before, Err: terse.ErrUnavailable, Times: 3},
		{Op: faultstore.PurgeLinks, When: faultstore.After, Err: terse.ErrUnknownOutcome, Times: 3},
		{Op: faultstore.ListDocuments, When: faultstore.Before, Err: terse.ErrUnavailable, Times: 3},
		{Op: faultstore.GetDocument, When: faultstore.Before, Err: terse.ErrUnavailable, From: 1, Times: 3},
	} {
		t.Run(fmt.Sprintf("%s %d", fault.Op, fault.When), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newPurgeWorld(t)
				c := w.campaign()
				w.links(c, 5000)
				w.faults.Inject(fault)
				err := w.reg.Delete(t.Context(), 1, c.ID, 0)
				stop := w.run(PurgeOptions{Every: time.Minute})
				time.Sleep(20 * time.Minute)
				synctest.Wait()
				stop()
				_, gerr := w.store.GetDocument(t.Context(), 1, terse.KindCampaign, c.ID.String())
				exists := !errors.Is(gerr, terse.ErrNotFound)
				if exists == (err == nil) {
					t.Errorf("Delete: error %v, and the campaign exists: %t", err, exists)
				}
				want := uint64(0)
				if exists {
					want = 5000
				}
				if n := w.count(c); n != want {
					t.Errorf("%d links, want %d", n, want)
				}
			})
		})
	}
}

// TestDeleteUnknown: who deletes what does not exist leaves nothing behind.
func TestDeleteUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPurgeWorld(t)
		if err := w.reg.Delete(t.Context(), 1, 77, 0); !errors.Is(err, terse.ErrNotFound) {
			t.Errorf("error %v", err)
		}
		c := w.campaign()
		if err := w.reg.Delete(t.Context(), 2, c.ID, 0); !errors.Is(err, terse.ErrNotFound) {
			t.Errorf("another workspace: error %v", err)
		}
		if n := w.notes(); n != 0 {
			t.Errorf("%d notes", n)
		}
	})
}

// TestDeleteAgain: the grace begins with the deletion that succeeds, not with one that failed before.
func TestDeleteAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPurgeWorld(t)
		c := w.campaign()
		w.faults.Inject(faultstore.Fault{Op: faultstore.DeleteDocument, When: faultstore.Before, Err: terse.ErrUnavailable})
		if err := w.reg.Delete(t.Context(), 1, c.ID, 0); err == nil {
			t.Fatal("no error")
		}
		time.Sleep(time.Hour) // in the bubble: takes no time
		if err := w.reg.Delete(t.Context(), 1, c.ID, 0); err != nil {
			t.Fatal(err)
		}
		defer w.run(PurgeOptions{Every: time.Minute, Grace: 10 * time.Minute})()
		for _, want := range []int{1, 0} {
			time.Sleep(9 * time.Minute)
			synctest.Wait()
			if n := w.notes(); n != want {
				t.Errorf("%d notes, want %d", n, want)
			}
		}
	})
}

// TestPurgeKeepsBlocked: a link that was blocked for abuse outlives its campaign, with its alias, blocked.
func TestPurgeKeepsBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPurgeWorld(t)
		c := w.campaign()
		w.links(c, 3000)
		block := func(l terse.Link) terse.Link {
			l.Workspace, l.Campaign, l.Version, l.CreatedAt, l.UpdatedAt, l.Status = 1, c.ID, 1, wall()-clockDrift, wall(), terse.StatusBlocked
			l.Settings = &terse.LinkSettings{Block: &terse.Block{By: "owner", Owner: true}}
			return l
		}
		shared := block(terse.Link{Number: terse.NewLinkNumber(1, terse.AliasSpace, 1), Code: "bad", Values: "v"})
		own := block(terse.Link{Number: terse.NewLinkNumber(1, 7, 1_000_000), Code: "c1000000", Destination: "https://own.example/", Values: "v", ExpiresAt: 5})
		odd := block(terse.Link{Number: terse.NewLinkNumber(1, terse.AliasSpace, 2), Code: "odd", Values: ".."}) // makes no destination
		if err := w.store.InsertLinks(t.Context(), &terse.Chunk{Links: []terse.Link{shared, own, odd}}); err != nil {
			t.Fatal(err)
		}
		deleted := wall()
		if err := w.reg.Delete(t.Context(), 1, c.ID, 0); err != nil {
			t.Fatal(err)
		}
		// A write that fails, and one of which nobody knows: nothing is removed before all are kept.
		ends := []func(){
			w.faults.Inject(faultstore.Fault{Op: faultstore.UpdateLink}),
			w.faults.Inject(faultstore.Fault{Op: faultstore.UpdateLink, When: faultstore.After, From: 3}),
		}
		stop := w.run(PurgeOptions{})
		defer stop()
		time.Sleep(settle + time.Second)
		synctest.Wait()
		if n := w.count(c); n != 3003 {
			t.Errorf("%d links left after a failed write, want 3003", n)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		for _, end := range ends {
			end()
		}
		if n := w.count(c); n != 0 {
			t.Errorf("%d links of the campaign are left", n)
		}
		for _, want := range []struct {
			link        terse.Link
			destination string
			expires     terse.Millis
		}{{shared, "https://shop.example/v", deleted}, {own, "https://own.example/", 5}, {odd, "", deleted}} {
			got := make([]terse.Link, 1)
			if err := w.store.GetLinks(t.Context(), []terse.LinkKey{{Number: want.link.Number, Code: want.link.Code}}, got); err != nil {
				t.Fatal(err)
			}
			l := got[0]
			if l.Number != want.link.Number || l.Status != terse.StatusBlocked || l.Campaign != 0 || l.Values != "" || l.Destination != want.destination ||
				l.ExpiresAt != want.expires || l.Version != 2 || l.Settings == nil || l.Settings.Block == nil || !l.Settings.Block.Owner {
				t.Errorf("link %s: %+v", want.link.Code, l)
			}
		}
		if l, err := w.store.GetAlias(t.Context(), 1, "bad"); err != nil || l.Number != shared.Number {
			t.Errorf("the alias of a blocked link: %+v, %v", l, err)
		}
	})
}

// TestPurgeKeepsBlockUnderWay: a block that is written soon after its campaign was deleted is kept, too.
func TestPurgeKeepsBlockUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPurgeWorld(t)
		c := w.campaign()
		w.links(c, 100)
		if err := w.reg.Delete(t.Context(), 1, c.ID, 0); err != nil {
			t.Fatal(err)
		}
		defer w.run(PurgeOptions{})()
		time.Sleep(settle - time.Millisecond) // in the bubble: takes no time
		synctest.Wait()
		get := func() terse.Link {
			t.Helper()
			got := make([]terse.Link, 1)
			if err := w.store.GetLinks(t.Context(), []terse.LinkKey{{Number: terse.NewLinkNumber(1, 7, 50), Code: "c000050"}}, got); err != nil {
				t.Fatal(err)
			}
			return got[0]
		}
		l := get()
		l.Status, l.Version = terse.StatusBlocked, l.Version+1
		if err := w.store.UpdateLink(t.Context(), &l, l.Version-1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(settle + 2*time.Second) // not as long as Every
		synctest.Wait()
		if n := w.count(c); n != 0 {
			t.Errorf("%d links of the campaign are left", n)
		}
		if l := get(); l.Status != terse.StatusBlocked || l.Campaign != 0 || l.Destination != "https://shop.example/v" {
			t.Errorf("the blocked link: %+v", l)
		}
	})
}
