package storetest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/terselink/terse"
)

// portable returns the store as one that can be copied, which every engine is.
func portable(t tb, s terse.Store) terse.Portable {
	t.Helper()
	p, ok := s.(terse.Portable)
	if !ok {
		t.Fatalf("%T is no terse.Portable", s)
	}
	return p
}

// dump returns all that a dump says, in an order of the suite's own.
func (c *scope) dump(s terse.Portable, limit int) terse.Part {
	c.Helper()
	var all terse.Part
	after := ""
	for range maxCalls {
		p, err := s.Dump(c.ctx, after, limit)
		if err != nil {
			c.Fatalf("Dump: %v", err)
		}
		if n := len(p.Documents) + len(p.Counters) + len(p.Reserved) + len(p.Retired); n > limit {
			c.Fatalf("Dump returned %d things, the limit is %d", n, limit)
		}
		all.Documents = append(all.Documents, p.Documents...)
		all.Counters = append(all.Counters, p.Counters...)
		all.Reserved = append(all.Reserved, p.Reserved...)
		all.Retired = append(all.Retired, p.Retired...)
		if p.Next == "" {
			slices.SortFunc(all.Documents, func(a, b terse.Document) int {
				return cmp.Or(cmp.Compare(a.Workspace, b.Workspace), strings.Compare(string(a.Kind), string(b.Kind)), strings.Compare(a.ID, b.ID))
			})
			slices.SortFunc(all.Counters, func(a, b terse.Counter) int {
				return cmp.Or(cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.Space, b.Space))
			})
			slices.Sort(all.Reserved)
			slices.SortFunc(all.Retired, func(a, b terse.RetiredCode) int { return cmp.Compare(a.Number, b.Number) })
			return all
		}
		if p.Next == after {
			c.Fatalf("Dump returned the cursor %q that it was given", after)
		}
		after = p.Next
	}
	c.Fatalf("Dump: no end after %d parts", maxCalls)
	return all
}

// dumpLinks returns the links of a workspace, and calls visit with each page.
func (c *scope) dumpLinks(s terse.Portable, w terse.WorkspaceID, limit int, visit func([]terse.Link)) []terse.Link {
	c.Helper()
	var all []terse.Link
	after := ""
	for range maxCalls {
		p, err := s.DumpLinks(c.ctx, w, after, limit)
		if err != nil {
			c.Fatalf("DumpLinks: %v", err)
		}
		if len(p.Links) > limit {
			c.Fatalf("DumpLinks returned %d links, the limit is %d", len(p.Links), limit)
		}
		all = append(all, p.Links...)
		if visit != nil {
			visit(p.Links)
		}
		if p.Next == "" {
			return all
		}
		if p.Next == after {
			c.Fatalf("DumpLinks returned the cursor %q that it was given", after)
		}
		after = p.Next
	}
	c.Fatalf("DumpLinks: no end after %d pages", maxCalls)
	return nil
}

// wantDumped waits until DumpLinks returns the links, in any order, and checks that the order is that of
// a listing, turned round.
func (c *scope) wantDumped(limit int, want ...terse.Link) {
	c.Helper()
	p := portable(c, c.store)
	c.eventually(func() string {
		got := c.dumpLinks(p, c.w, limit, nil)
		slices.Reverse(got)
		if d := diffList(got, want); d != "" {
			return "DumpLinks, turned round: " + d
		}
		listed := c.list(terse.ListQuery{Limit: 1000}, nil)
		for i := range got {
			if i >= len(listed) || got[i].Number != listed[i].Number {
				return fmt.Sprintf("DumpLinks has %s where ListLinks, from its end, has another link", got[i].Number)
			}
		}
		byNumber := map[terse.LinkNumber]terse.Link{}
		for _, l := range want {
			byNumber[l.Number] = l
		}
		for _, l := range got {
			if d := diffLink(l, byNumber[l.Number]); d != "" {
				return "DumpLinks: " + d
			}
		}
		return ""
	})
}

// filled is a workspace with everything that a store can hold, and what a copy must have of it.
type filled struct {
	*scope
	links   []terse.Link // that live
	gone    []terse.Link // that were deleted, of every kind
	retired []terse.Link // of them, those whose codes are never used again
	docs    []terse.Document
}

// fill fills a scope.
func fill(c *scope) *filled {
	c.Helper()
	f := &filled{scope: c}
	must := func(what string, err error) {
		c.Helper()
		wantErr(c, what, err, nil)
	}
	campaign := terse.CampaignID(uint64(c.w)<<32 | 1)
	bulk := c.links(300)
	for i := range bulk {
		if i >= 100 {
			bulk[i].Campaign, bulk[i].Values, bulk[i].Destination = campaign, fmt.Sprintf("v%d\x1fü", i), ""
		}
	}
	c.mustInsert(bulk...)
	// A second insert whose numbers lie below those of the first one's, as an alias's do.
	full := c.fullLink()
	reserving := c.reserving(terse.NewLinkNumber(c.d, genSpace, 5_000))
	lost := c.reserving(terse.NewLinkNumber(c.d, genSpace, 5_001))
	free := c.alias("free again")
	named := c.named("rAnd0m1", "rAnd0m2", "rAnd0m3", "secret of 22 characters")
	named[3].Campaign = campaign
	for _, l := range []terse.Link{full, reserving, lost, free, named[0], named[1], named[2]} {
		c.mustInsert(l)
	}
	c.mustInsert(named[3])
	remove := func(l terse.Link) {
		c.Helper()
		must("DeleteLink", c.store.DeleteLink(c.ctx, terse.LinkKey{Number: l.Number, Code: l.Code}, 0))
		f.gone = append(f.gone, l)
	}
	remove(lost)
	remove(free)
	remove(named[1])
	remove(bulk[3])
	f.retired = []terse.Link{named[1]}
	update := func(l *terse.Link, change func(*terse.Link)) {
		c.Helper()
		l.Version += 2
		l.UpdatedAt = c.now()
		change(l)
		must("UpdateLink", c.store.UpdateLink(c.ctx, l, l.Version-2))
	}
	update(&bulk[7], func(l *terse.Link) { l.ExternalID, l.RedirectStatus, l.Status = "edited", 307, terse.StatusDisabled })
	update(&bulk[150], func(l *terse.Link) { l.Campaign = 0 })
	update(&full, func(l *terse.Link) {
		l.Status = terse.StatusBlocked
		l.Settings = &terse.LinkSettings{Block: &terse.Block{By: "owner", Owner: true, Reason: "why"}, Tags: []string{"a", "b"}, MaxClicks: 3}
	})
	for i := range bulk {
		if i != 3 {
			f.links = append(f.links, bulk[i])
		}
	}
	f.links = append(f.links, full, reserving, named[0], named[2], named[3])
	for _, d := range []terse.Document{c.doc(terse.KindCampaign, "one", 1), c.doc(terse.KindClicks, "two", 1), c.doc(terse.KindClicks, " ü%_", 1), c.doc(terse.KindKey, "gone", 1)} {
		must("PutDocument", c.store.PutDocument(c.ctx, d))
		if d.ID == "two" {
			for d.Version < 4 {
				d.Version++
				d.Data = fmt.Appendf(nil, `{"n":%d}`, d.Version)
				must("PutDocument", c.store.PutDocument(c.ctx, d))
			}
		}
		f.docs = append(f.docs, d)
	}
	last := f.docs[len(f.docs)-1]
	must("DeleteDocument", c.store.DeleteDocument(c.ctx, last.Workspace, last.Kind, last.ID, 0))
	f.docs = f.docs[:len(f.docs)-1]
	c.numbers(9, 3) // leased, and never used
	return f
}

// copyTo copies the whole store of the scope into another, as the procedure of storecopy does.
func (c *scope) copyTo(dst terse.Portable, workspaces ...terse.WorkspaceID) {
	c.Helper()
	src := portable(c, c.store)
	part := c.dump(src, 7)
	wantErr(c, "Load", dst.Load(c.ctx, &part), nil)
	for _, n := range part.Counters {
		if _, err := dst.Lease(c.ctx, terse.LeaseRequest{Domain: n.Domain, Space: n.Space, Count: n.Next, Cap: n.Next}); err != nil {
			c.Fatalf("Lease: %v", err)
		}
	}
	for _, w := range workspaces {
		c.dumpLinks(src, w, 90, func(links []terse.Link) {
			for len(links) > 0 {
				// As long as the numbers rise the order of the copy is that of the source.
				n := 1
				for n < len(links) && links[n].Number > links[n-1].Number {
					n++
				}
				for i := range links[:n] {
					if l := &links[i]; l.Code == "" {
						l.Code = codeOf(l.Number.Space(), l.Number.Index())
					}
				}
				if err := dst.InsertLinks(c.ctx, &terse.Chunk{Links: links[:n]}); err != nil {
					c.Fatalf("InsertLinks: %v", err)
				}
				links = links[n:]
			}
		})
	}
}

// testPortable checks that a store can be read to the last thing, and that what is loaded is as
// if it had been written there.
func testPortable(t *testing.T, s *suite) {
	t.Run("is read to the last thing", func(t *testing.T) {
		c := s.scope(t)
		f := fill(c)
		c.wantDumped(1000, f.links...)
		c.wantDumped(13, f.links...)
		whole := c.dump(portable(t, c.store), 10_000)
		if d := gocmp.Diff(whole, c.dump(portable(t, c.store), 1)); d != "" {
			t.Fatalf("Dump one by one (-whole +one by one):\n%s", d)
		}
		for _, want := range f.docs {
			if !slices.ContainsFunc(whole.Documents, func(d terse.Document) bool { return gocmp.Equal(d, want) }) {
				t.Errorf("the dump has no document %s %q of version %d", want.Kind, want.ID, want.Version)
			}
		}
		for _, d := range whole.Documents {
			if d.Workspace == c.w && d.ID == "gone" {
				t.Error("the dump has a deleted document")
			}
		}
		for _, want := range []terse.Counter{{Domain: c.d, Space: 9, Next: 3}, {Domain: c.d, Space: terse.AliasSpace, Next: 3}} {
			if !slices.Contains(whole.Counters, want) {
				t.Errorf("the dump has no counter %+v, but %+v", want, whole.Counters)
			}
		}
		for _, i := range []uint64{5_000, 5_001} {
			if n := terse.NewLinkNumber(c.d, genSpace, i); !slices.Contains(whole.Reserved, n) {
				t.Errorf("the dump does not say that index %d is reserved", i)
			}
		}
		for _, l := range f.retired {
			if !slices.Contains(whole.Retired, terse.RetiredCode{Number: l.Number, Code: l.Code}) {
				t.Errorf("the dump does not say that %q is retired", l.Code)
			}
		}
		for _, l := range f.links {
			if slices.ContainsFunc(whole.Retired, func(r terse.RetiredCode) bool { return r.Number == l.Number }) {
				t.Errorf("the dump says that %q is retired, whose link lives", l.Code)
			}
		}
	})

	t.Run("is filled as if written there", func(t *testing.T) {
		c := s.scope(t)
		o := c.other()
		f, g := fill(c), fill(o)
		c.wantDumped(1000, f.links...)
		o.wantDumped(1000, g.links...)
		dst := portable(t, c.o.New(t))
		defer dst.Close()
		c.copyTo(dst, c.w, o.w)
		if d := gocmp.Diff(c.dump(portable(t, c.store), 1000), c.dump(dst, 1000), cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("the copy differs (-source +copy):\n%s", d)
		}
		for _, f := range []*filled{f, g} {
			at := *f.scope
			order := at.list(terse.ListQuery{Limit: 100}, nil)
			at.suite = &suite{o: c.o, store: dst}
			at.ticks.Store(c.ticks.Load())
			at.wantStored(f.links...)
			at.wantAbsent(f.gone...)
			at.wantDumped(1000, f.links...)
			copied := at.list(terse.ListQuery{Limit: 100}, nil)
			if !slices.EqualFunc(order, copied, func(a, b terse.Link) bool { return a.Number == b.Number }) {
				t.Error("the copy is listed in another order")
			}
			for _, d := range f.docs {
				at.wantDoc(d)
			}
			campaign := terse.CampaignID(uint64(at.w)<<32 | 1)
			n := uint64(0)
			for _, l := range f.links {
				if l.Campaign == campaign {
					n++
				}
			}
			at.wantCount(campaign, n)
			// What was used is used there, too.
			again := at.named("rAnd0m2")[0]
			wantRows(t, at.insert(again), 0)
			if n, err := dst.Next(at.ctx, at.d, genSpace); err != nil || n < uint64(len(f.links)-10) {
				t.Errorf("Next: %d, %v", n, err)
			}
			l, err := dst.Lease(at.ctx, terse.LeaseRequest{Domain: at.d, Space: genSpace, Count: 6_000})
			if err != nil || !slices.Equal(l.Reserved, []uint64{5_000, 5_001}) {
				t.Errorf("a lease of the copy has the reservations %d, error %v", l.Reserved, err)
			}
			free := at.alias("free again")
			at.mustInsert(free)
			update := f.links[0]
			update.Version++
			update.UpdatedAt = at.now()
			wantErr(t, "UpdateLink", dst.UpdateLink(at.ctx, &update, update.Version-1), nil)
			doc := f.docs[1]
			doc.Version++
			wantErr(t, "PutDocument", dst.PutDocument(at.ctx, doc), nil)
		}
	})

	t.Run("is loaded again without harm", func(t *testing.T) {
		c := s.scope(t)
		p := portable(t, c.store)
		live := c.named("liVe")[0]
		c.mustInsert(live)
		part := terse.Part{
			Documents: []terse.Document{c.doc(terse.KindJob, "seventh", 7)},
			Reserved:  []terse.LinkNumber{terse.NewLinkNumber(c.d, genSpace, 12)},
			Retired:   []terse.RetiredCode{{Number: terse.NewLinkNumber(c.d, namedSpace, 77), Code: "reTired"}},
		}
		for range 2 {
			wantErr(t, "Load", p.Load(c.ctx, &part), nil)
		}
		c.wantDoc(part.Documents[0])
		c.wantAliasFree("reTired")
		wantRows(t, c.insert(c.named("reTired")...), 0)
		for what, other := range map[string]terse.Part{
			"a document of another version": {Documents: []terse.Document{c.doc(terse.KindJob, "seventh", 8)}},
			"other data":                    {Documents: []terse.Document{{Workspace: c.w, Kind: terse.KindJob, ID: "seventh", Version: 7, Data: []byte(`{}`)}}},
			"the code of a link that lives": {Retired: []terse.RetiredCode{{Number: live.Number, Code: live.Code}}},
			"the code of another link":      {Retired: []terse.RetiredCode{{Number: terse.NewLinkNumber(c.d, namedSpace, 78), Code: "reTired"}}},
		} {
			if err := p.Load(c.ctx, &other); !errors.Is(err, terse.ErrExists) {
				t.Errorf("Load of %s: got error %v, want ErrExists", what, err)
			}
		}
		c.wantDoc(part.Documents[0])
		c.wantStored(live)
		wantErr(t, "Load of nothing", p.Load(c.ctx, &terse.Part{}), nil)
		wantInvalid(t, "Load", p.Load(c.ctx, &terse.Part{Documents: []terse.Document{{Workspace: c.w, Kind: terse.KindJob, ID: "x"}}}), "version")
	})

	t.Run("refuses what it did not say", func(t *testing.T) {
		c := s.scope(t)
		p := portable(t, c.store)
		for _, after := range []string{"zz", "no cursor", "7b7d", "=="} {
			_, err := p.Dump(c.ctx, after, 10)
			wantInvalid(t, "Dump after "+after, err, "after")
			_, err = p.DumpLinks(c.ctx, c.w, after, 10)
			wantInvalid(t, "DumpLinks after "+after, err, "cursor")
		}
		for _, limit := range []int{0, -1, 10_001} {
			_, err := p.Dump(c.ctx, "", limit)
			wantInvalid(t, "Dump", err, "limit")
			_, err = p.DumpLinks(c.ctx, c.w, "", limit)
			wantInvalid(t, "DumpLinks", err, "limit")
		}
		if got := c.dumpLinks(p, c.w, 10, nil); len(got) != 0 {
			t.Errorf("DumpLinks of an empty workspace returns %d links", len(got))
		}
	})
}
