package storetest

import (
	"testing"

	"github.com/terselink/terse"
)

// testPurge checks that a purge removes the links of one campaign and nothing else, that
// none of them comes back, and that it can be cut into calls of any size.
func testPurge(t *testing.T, s *suite) {
	const a, b = terse.CampaignID(1) << 61, terse.CampaignID(1)<<61 + 1
	// inA makes links of campaign a, of every kind that a campaign can have.
	inA := func(c *scope) []terse.Link {
		links := c.links(c.chunkSize(300) - 2)
		for i := range links {
			links[i].Campaign, links[i].Destination, links[i].Values = a, "", "v"
			if i%3 == 0 {
				links[i].ExternalID = "row"
			}
		}
		alias := c.alias("purged")
		alias.Campaign = a
		secret := c.named("secretsecret")[0]
		secret.Campaign = a
		links = append(links, alias, secret)
		c.mustInsert(links...)
		return links
	}
	purge := func(c *scope, limit int) (total int) {
		c.Helper()
		for {
			n, err := c.store.PurgeLinks(c.ctx, c.w, a, limit)
			if err != nil {
				c.Fatalf("PurgeLinks: %v", err)
			}
			if total += n; n == 0 {
				return total
			}
		}
	}

	t.Run("one campaign", func(t *testing.T) {
		c := s.scope(t)
		before := c.links(100)
		c.mustInsert(before...)
		gone := inA(c)
		// A link that was edited, one that was deleted, one that left and one that came.
		edited := gone[70]
		update := func(l terse.Link) terse.Link {
			t.Helper()
			l.Version++
			wantErr(t, "UpdateLink", c.store.UpdateLink(c.ctx, &l, l.Version-1), nil)
			return l
		}
		edited.ExternalID = "edited"
		update(edited)
		wantErr(t, "DeleteLink", c.store.DeleteLink(c.ctx, terse.LinkKey{Number: gone[71].Number, Code: gone[71].Code}, 0), nil)
		left := gone[72]
		left.Campaign, left.ExternalID = b, "left"
		left = update(left)
		came := before[5]
		came.Campaign = a
		came = update(came)
		stay := c.links(100)
		for i := range stay {
			stay[i].Campaign = b
		}
		c.mustInsert(stay...)
		foreign := c.other()
		foreignLinks := inA(foreign)
		c.wantStored(gone[0], gone[200%len(gone)])

		if n, want := purge(c, 64), len(gone)-2+1; n != want {
			t.Errorf("purged %d links, want %d", n, want)
		}
		gone = append(gone[:72], gone[73:]...)
		c.wantAbsent(append(gone, came)...)
		c.wantAliasFree("purged")
		if _, err := c.store.GetAlias(c.ctx, c.d, "secretsecret"); terse.ErrorCode(err) != terse.CodeNotFound {
			t.Errorf("GetAlias of a purged secret code: %v", err)
		}
		c.wantCount(a, 0)
		c.wantCount(b, 101)
		c.wantList(terse.ListQuery{Campaign: a})
		c.wantList(terse.ListQuery{ExternalID: "row"})
		c.wantList(terse.ListQuery{ExternalID: "left"}, left)
		kept := append(append(append([]terse.Link{}, before[:5]...), before[6:]...), left)
		kept = append(kept, stay...)
		c.wantStored(kept...)
		foreign.wantStored(foreignLinks...)
		foreign.wantCount(a, uint64(len(foreignLinks)))
		deletions := 0
		for _, ch := range c.changes(0, 10_000) {
			if ch.Workspace == c.w && ch.Kind == terse.ChangeDeleted {
				deletions++
			}
		}
		if deletions > 1 {
			t.Errorf("a purge leaves changes: %d deletions, want that of DeleteLink", deletions)
		}
		if n := purge(c, 10_000); n != 0 {
			t.Errorf("a second purge removes %d links", n)
		}

		// A code by which a purged link was found is never given to another; an alias is free.
		again := c.named("secretsecret")
		wantRows(t, c.insert(again...), 0)
		c.mustInsert(c.alias("purged"))
		// Numbers go on where they were.
		more := c.links(64)
		for i := range more {
			more[i].Campaign = b
		}
		c.mustInsert(more...)
		c.wantStored(more...)
	})

	// What was blocked for abuse leaves a campaign before that is purged (package campaigns): nothing of it may go.
	t.Run("blocked links stay", func(t *testing.T) {
		c := s.scope(t)
		gone := inA(c)
		block := func(l terse.Link) terse.Link {
			t.Helper()
			l.Status, l.Campaign, l.Values, l.Destination = terse.StatusBlocked, 0, "", "https://blocked.example/"
			l.Settings = &terse.LinkSettings{Block: &terse.Block{By: "owner", Owner: true, Reason: "phishing"}}
			l.Version++
			wantErr(t, "UpdateLink", c.store.UpdateLink(c.ctx, &l, l.Version-1), nil)
			return l
		}
		n := len(gone)
		plain, alias, secret := block(gone[10]), block(gone[n-2]), block(gone[n-1])
		if got := purge(c, 64); got != n-3 {
			t.Errorf("purged %d links, want %d", got, n-3)
		}
		c.wantStored(plain, alias, secret)
		c.wantAbsent(append(append([]terse.Link{}, gone[:10]...), gone[11:n-2]...)...)
		wantRows(t, c.insert(c.alias("purged")), 0) // its alias is still taken
		c.wantStored(alias)
		c.wantCount(a, 0)
		c.wantList(terse.ListQuery{Campaign: a})
	})

	t.Run("reopen", func(t *testing.T) {
		if s.o.Reopen == nil {
			t.Skip("the store is not durable")
		}
		c := s.scope(t)
		keep := c.links(70)
		c.mustInsert(keep...)
		gone := inA(c)
		if _, err := s.store.PurgeLinks(c.ctx, c.w, a, 128); err != nil {
			t.Fatal(err)
		}
		s.store = s.o.Reopen(t, s.store)
		purge(c, 128)
		s.store = s.o.Reopen(t, s.store)
		c.wantAbsent(gone...)
		c.wantStored(keep...)
		c.wantCount(a, 0)
	})

	t.Run("arguments", func(t *testing.T) {
		c := s.scope(t)
		for _, call := range []struct {
			campaign terse.CampaignID
			limit    int
		}{{a, 0}, {a, -1}, {a, 10_001}, {0, 10}} {
			if _, err := c.store.PurgeLinks(c.ctx, c.w, call.campaign, call.limit); terse.ErrorCode(err) != terse.CodeInvalid {
				t.Errorf("PurgeLinks of campaign %d, limit %d: got error %v, want invalid", call.campaign, call.limit, err)
			}
		}
	})
}
