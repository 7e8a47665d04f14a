package storetest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/terselink/terse"
)

// maxCalls ends a listing that never says that it is done.
const maxCalls = 100_000

// page returns one page.
func (c *scope) page(q terse.ListQuery) terse.LinkPage {
	c.Helper()
	p, err := c.store.ListLinks(c.ctx, c.w, q)
	if err != nil {
		c.Fatalf("ListLinks %+v: %v", q, err)
	}
	if len(p.Links) > q.Limit {
		c.Fatalf("ListLinks returned %d links, the limit is %d", len(p.Links), q.Limit)
	}
	return p
}

// list returns all pages of a query. visit, if not nil, is called between pages.
func (c *scope) list(q terse.ListQuery, visit func(page int)) []terse.Link {
	c.Helper()
	var out []terse.Link
	for i := range maxCalls {
		p := c.page(q)
		out = append(out, p.Links...)
		if p.Next == "" {
			return out
		}
		if p.Next == q.Cursor {
			c.Fatalf("ListLinks returned the cursor %q that it was given", p.Next)
		}
		q.Cursor = p.Next
		if visit != nil {
			visit(i)
		}
	}
	c.Fatalf("ListLinks %+v: no end after %d pages", q, maxCalls)
	return nil
}

// newestFirst orders links as a listing does, as far as the suite defines it.
func newestFirst(links []terse.Link) []terse.Link {
	out := slices.Clone(links)
	slices.SortFunc(out, func(a, b terse.Link) int {
		if a.CreatedAt != b.CreatedAt {
			return int(b.CreatedAt - a.CreatedAt)
		}
		return int(b.Number) - int(a.Number)
	})
	return out
}

// diffList says how a listing differs from the links that it should hold, "" if
// it does not.
func diffList(got, want []terse.Link) string {
	for i := 1; i < len(got); i++ {
		a, b := &got[i-1], &got[i]
		if a.CreatedAt < b.CreatedAt {
			return fmt.Sprintf("link %s, made at %d, comes before %s, made at %d", a.Number, a.CreatedAt, b.Number, b.CreatedAt)
		}
		sameSpace := a.Number>>terse.IndexBits == b.Number>>terse.IndexBits
		if a.CreatedAt == b.CreatedAt && sameSpace && a.Number < b.Number {
			return fmt.Sprintf("link %s comes before %s of the same chunk", a.Number, b.Number)
		}
	}
	got, want = newestFirst(got), newestFirst(want)
	for i := range min(len(got), len(want)) {
		if got[i].Number != want[i].Number {
			return fmt.Sprintf("link %d of %d: got %s, want %s (of %d)", i, len(got), got[i].Number, want[i].Number, len(want))
		}
		if d := diffLink(got[i], want[i]); d != "" {
			return d
		}
	}
	if len(got) != len(want) {
		return fmt.Sprintf("%d links, want %d", len(got), len(want))
	}
	return ""
}

// wantList fails the test unless the query selects exactly the links, whatever the page size.
func (c *scope) wantList(q terse.ListQuery, want ...terse.Link) {
	c.Helper()
	limits := []int{1, 3, 10_000}
	if len(want) > 50 {
		limits = []int{97, 10_000}
	}
	for _, limit := range limits {
		q.Limit = limit
		c.eventually(func() string {
			if d := diffList(c.list(q, nil), want); d != "" {
				return fmt.Sprintf("ListLinks %+v: %s", q, d)
			}
			return ""
		})
	}
}

// testList checks listings: order, filters, cursors, and what happens meanwhile.
func testList(t *testing.T, s *suite) {
	t.Run("of a new workspace is empty", func(t *testing.T) {
		s.scope(t).wantList(terse.ListQuery{})
	})

	t.Run("newest first", func(t *testing.T) {
		c := s.scope(t)
		var all []terse.Link
		for i := range 7 {
			links := c.links(1 + i%3)
			c.mustInsert(links...)
			all = append(all, links...)
			a := c.alias(fmt.Sprintf("a%d", i))
			c.mustInsert(a)
			all = append(all, a)
		}
		c.wantList(terse.ListQuery{}, all...)
	})

	t.Run("a workspace sees its own", func(t *testing.T) {
		c := s.scope(t)
		o := c.other()
		links := c.links(40)
		var mine, theirs []terse.Link
		for i := range links {
			if i%2 == 0 {
				links[i].Workspace = o.w
				theirs = append(theirs, links[i])
			} else {
				mine = append(mine, links[i])
			}
		}
		c.mustInsert(links...)
		c.wantList(terse.ListQuery{}, mine...)
		c.wantList(terse.ListQuery{Domain: c.d}, mine...)
		o.wantList(terse.ListQuery{}, theirs...)
		o.wantList(terse.ListQuery{Domain: o.d})
		next := c.page(terse.ListQuery{Limit: 1}).Next
		if p, err := s.store.ListLinks(c.ctx, o.w, terse.ListQuery{Limit: 100, Cursor: next}); err == nil {
			for _, l := range p.Links {
				if l.Workspace != o.w {
					t.Fatalf("with the cursor of another workspace its link %s is listed", l.Number)
				}
			}
		}
	})

	t.Run("filters", func(t *testing.T) { testListFilters(t, s) })

	t.Run("follows updates and deletions", func(t *testing.T) {
		c := s.scope(t)
		links := append(c.links(70), c.alias("listed"))
		for i := range links {
			links[i].ExternalID, links[i].Settings = "old", &terse.LinkSettings{Tags: []string{"old"}}
		}
		c.stamp(links)
		c.mustInsert(links...)
		c.wantList(terse.ListQuery{Tag: "old"}, links...)
		for _, i := range []int{0, 69, 70} {
			links[i] = c.next(links[i])
			links[i].ExternalID, links[i].Settings = "new", &terse.LinkSettings{Tags: []string{"new"}}
			wantErr(t, "UpdateLink", s.store.UpdateLink(c.ctx, &links[i], 1), nil)
		}
		kept := slices.Clone(links[1:69])
		c.wantList(terse.ListQuery{}, links...)
		c.wantList(terse.ListQuery{Tag: "old"}, kept...)
		c.wantList(terse.ListQuery{ExternalID: "old"}, kept...)
		changed := []terse.Link{links[0], links[69], links[70]}
		c.wantList(terse.ListQuery{Tag: "new"}, changed...)
		c.wantList(terse.ListQuery{ExternalID: "new"}, changed...)
		for _, l := range []terse.Link{links[0], links[5], links[70]} {
			wantErr(t, "DeleteLink", s.store.DeleteLink(c.ctx, terse.LinkKey{Number: l.Number, Code: l.Code}, 0), nil)
		}
		left := slices.Delete(slices.Clone(links[1:70]), 4, 5)
		c.wantList(terse.ListQuery{}, left...)
		c.wantList(terse.ListQuery{ExternalID: "new"}, links[69])
		c.wantList(terse.ListQuery{Tag: "old"}, slices.Delete(kept, 4, 5)...)
	})

	t.Run("cursors", func(t *testing.T) { testListCursors(t, s) })

	t.Run("a large chunk", func(t *testing.T) {
		if s.o.SkipLarge {
			t.Skip("large chunks are skipped")
		}
		c := s.scope(t)
		first := c.links(5)
		c.mustInsert(first...)
		links := c.links(largeChunk)
		for i := range links {
			if i%1000 == 999 {
				links[i].ExternalID = "rare"
			}
		}
		c.mustInsert(links...)
		last := c.links(5)
		c.mustInsert(last...)
		c.wantList(terse.ListQuery{}, slices.Concat(first, links, last)...)
		var rare []terse.Link
		for i := 999; i < len(links); i += 1000 {
			rare = append(rare, links[i])
		}
		c.wantList(terse.ListQuery{ExternalID: "rare"}, rare...)
	})
}

// testListFilters checks every filter alone and all of them together.
func testListFilters(t *testing.T, s *suite) {
	c := s.scope(t)
	o := c.other()
	o.w = c.w // a second domain of the workspace
	var all []terse.Link
	for i := range 60 {
		on := c
		if i%3 == 0 {
			on = o
		}
		l := on.links(1)[0]
		if i%10 == 9 {
			l = on.alias(fmt.Sprintf("filtered-%d", i))
		}
		if i%2 == 0 {
			l.Campaign = 1<<62 + terse.CampaignID(c.w)
		}
		if i%4 == 0 {
			l.Settings = &terse.LinkSettings{Tags: []string{"newsletter", "sms"}}
		}
		if i%5 == 0 {
			l.ExternalID = "order-77"
		}
		if i%6 == 0 {
			l.ExternalID = "Order-77"
		}
		all = append(all, l)
	}
	for i := 0; i < len(all); {
		n := min(1+i%7, len(all)-i) // chunks of several sizes
		c.stamp(all[i : i+n])
		c.mustInsert(all[i : i+n]...)
		i += n
	}
	queries := []terse.ListQuery{
		{},
		{Domain: c.d}, {Domain: o.d}, {Domain: c.other().d},
		{Campaign: 1<<62 + terse.CampaignID(c.w)}, {Campaign: 1},
		{Tag: "sms"}, {Tag: "newsletter"}, {Tag: "SMS"}, {Tag: "sm"}, {Tag: "newsletter,sms"},
		{ExternalID: "order-77"}, {ExternalID: "Order-77"}, {ExternalID: "order-7"}, {ExternalID: "order-77 "},
		{CreatedFrom: all[20].CreatedAt}, {CreatedTo: all[20].CreatedAt},
		{CreatedFrom: all[20].CreatedAt, CreatedTo: all[20].CreatedAt},
		{CreatedFrom: all[20].CreatedAt, CreatedTo: all[20].CreatedAt + 1},
		{CreatedFrom: all[40].CreatedAt, CreatedTo: all[20].CreatedAt},
		{Domain: o.d, Campaign: 1<<62 + terse.CampaignID(c.w), Tag: "sms"},
		{Domain: c.d, ExternalID: "order-77", CreatedFrom: all[5].CreatedAt, CreatedTo: all[55].CreatedAt},
		{Domain: o.d, Campaign: 1<<62 + terse.CampaignID(c.w), Tag: "sms", ExternalID: "Order-77", CreatedFrom: 1, CreatedTo: all[59].CreatedAt + 1},
	}
	for _, q := range queries {
		var want []terse.Link
		for _, l := range all {
			if selects(q, l) {
				want = append(want, l)
			}
		}
		c.wantList(q, want...)
	}
}

// selects reports whether the link passes every filter of the query.
func selects(q terse.ListQuery, l terse.Link) bool {
	switch {
	case q.Domain != 0 && l.Number.Domain() != q.Domain,
		q.Campaign != 0 && l.Campaign != q.Campaign,
		q.ExternalID != "" && l.ExternalID != q.ExternalID,
		q.Tag != "" && (l.Settings == nil || !slices.Contains(l.Settings.Tags, q.Tag)),
		q.CreatedFrom != 0 && l.CreatedAt < q.CreatedFrom,
		q.CreatedTo != 0 && l.CreatedAt >= q.CreatedTo:
		return false
	}
	return true
}

// testListCursors checks bad cursors and limits, and that a listing survives
// whatever is written while it goes on.
func testListCursors(t *testing.T, s *suite) {
	t.Run("bad cursor", func(t *testing.T) {
		c := s.scope(t)
		links := c.links(10)
		c.mustInsert(links...)
		c.wantList(terse.ListQuery{}, links...)
		next := c.page(terse.ListQuery{Limit: 2}).Next
		bad := []string{"x", "0", " ", "\x00", "ü", "mem1_", strings.Repeat("A", 1000), next + "A", next + "=", next[:len(next)-1], " " + next}
		for _, cursor := range bad {
			_, err := s.store.ListLinks(c.ctx, c.w, terse.ListQuery{Limit: 2, Cursor: cursor})
			wantInvalid(t, fmt.Sprintf("ListLinks with cursor %q (%q is right)", cursor, next), err, "cursor")
		}
	})

	t.Run("limits", func(t *testing.T) {
		c := s.scope(t)
		for _, limit := range []int{-1, 0, 10_001, 1 << 40} {
			_, err := s.store.ListLinks(c.ctx, c.w, terse.ListQuery{Limit: limit})
			wantInvalid(t, fmt.Sprintf("ListLinks with limit %d", limit), err, "limit")
		}
	})

	t.Run("a cursor can be used again", func(t *testing.T) {
		c := s.scope(t)
		links := c.links(30)
		c.mustInsert(links...)
		c.wantList(terse.ListQuery{}, links...) // all of them are visible from here on
		first := c.page(terse.ListQuery{Limit: 10})
		for range 2 {
			rest := c.list(terse.ListQuery{Limit: 7, Cursor: first.Next}, nil)
			if d := diffList(slices.Concat(first.Links, rest), links); d != "" {
				t.Fatal(d)
			}
		}
	})

	for _, filter := range []terse.ListQuery{{Limit: 5}, {Limit: 5, Tag: "steady"}, {Limit: 5, ExternalID: "steady"}} {
		t.Run(fmt.Sprintf("writes between pages/tag=%s,external_id=%s", filter.Tag, filter.ExternalID), func(t *testing.T) {
			c := s.scope(t)
			stable, doomed, changed := c.links(90), c.links(10), c.links(20)
			for _, list := range [][]terse.Link{stable, doomed, changed} {
				for i := range list {
					list[i].ExternalID, list[i].Settings = "steady", &terse.LinkSettings{Tags: []string{"steady"}}
				}
			}
			for _, chunk := range [][]terse.Link{stable[:40], doomed[:5], changed[:10], stable[40:], doomed[5:], changed[10:]} {
				c.stamp(chunk)
				c.mustInsert(chunk...)
			}
			all := slices.Concat(stable, doomed, changed)
			c.wantList(filter, all...)
			seen := map[terse.LinkNumber]int{}
			got := c.list(filter, func(page int) {
				fresh := c.links(3)
				for i := range fresh {
					fresh[i].ExternalID, fresh[i].Settings = "steady", stable[0].Settings
				}
				c.mustInsert(fresh...)
				if page < len(doomed) {
					l := doomed[page]
					wantErr(t, "DeleteLink", s.store.DeleteLink(c.ctx, terse.LinkKey{Number: l.Number, Code: l.Code}, 0), nil)
				}
				if page < len(changed) {
					l := c.next(changed[page])
					wantErr(t, "UpdateLink", s.store.UpdateLink(c.ctx, &l, 1), nil)
				}
			})
			for _, l := range got {
				seen[l.Number]++
			}
			for _, l := range slices.Concat(stable, changed) {
				if seen[l.Number] != 1 {
					t.Errorf("link %s was there all the time and was listed %d times", l.Number, seen[l.Number])
				}
			}
			for _, l := range doomed {
				if seen[l.Number] > 1 {
					t.Errorf("link %s was listed %d times", l.Number, seen[l.Number])
				}
			}
		})
	}

	t.Run("inserts all the time", func(t *testing.T) {
		c := s.scope(t)
		stable := c.links(200)
		c.mustInsert(stable...)
		c.wantList(terse.ListQuery{}, stable...)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		defer wg.Wait()
		defer close(stop)
		for range 2 {
			wg.Go(func() {
				for range 300 { // bounded, or a fast store grows faster than it is listed
					select {
					case <-stop:
						return
					default:
					}
					l, err := s.store.Lease(c.ctx, terse.LeaseRequest{Domain: c.d, Space: genSpace, Count: 3})
					if err != nil {
						t.Errorf("Lease: %v", err)
						return
					}
					at := c.now()
					var chunk terse.Chunk
					for _, n := range usable(l) {
						chunk.Links = append(chunk.Links, terse.Link{Number: n, Workspace: c.w, Version: 1, CreatedAt: at, UpdatedAt: at,
							Code: codeOf(genSpace, n.Index()), Destination: "https://example.com/fresh"})
					}
					if err := s.store.InsertLinks(c.ctx, &chunk); err != nil {
						t.Errorf("InsertLinks: %v", err)
						return
					}
				}
			})
		}
		for range 10 {
			seen := map[terse.LinkNumber]int{}
			for _, l := range c.list(terse.ListQuery{Limit: 11}, nil) {
				seen[l.Number]++
			}
			for n, times := range seen {
				if times != 1 {
					t.Errorf("link %s was listed %d times", n, times)
				}
			}
			for _, l := range stable {
				if seen[l.Number] != 1 {
					t.Errorf("link %s was there all the time and was listed %d times", l.Number, seen[l.Number])
				}
			}
		}
	})
}
