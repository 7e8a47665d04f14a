package storetest

import (
	"fmt"
	"testing"

	"github.com/terselink/terse"
)

// wantCount fails the test unless the campaign has n links.
func (c *scope) wantCount(campaign terse.CampaignID, n uint64) {
	c.Helper()
	c.eventually(func() string {
		got, err := c.store.CountLinks(c.ctx, c.w, campaign)
		if err != nil || got != n {
			return fmt.Sprintf("CountLinks of campaign %d: got %d, error %v, want %d", campaign, got, err, n)
		}
		return ""
	})
}

// testCount checks that the count of a campaign follows every way in and out of it.
func testCount(t *testing.T, s *suite) {
	c := s.scope(t)
	const a, b = terse.CampaignID(1) << 62, terse.CampaignID(1)<<62 + 1
	c.wantCount(a, 0)
	links := c.links(150)
	for i := range links {
		switch {
		case i < 100:
			links[i].Campaign = a
		case i < 130:
			links[i].Campaign = b
		}
	}
	c.mustInsert(links[:100]...)
	c.mustInsert(links[100:]...)
	alias := c.alias("counted")
	alias.Campaign = a
	c.mustInsert(alias)
	c.wantCount(a, 101)
	c.wantCount(b, 30)

	remove := func(l terse.Link) {
		t.Helper()
		if err := c.store.DeleteLink(c.ctx, terse.LinkKey{Number: l.Number, Code: l.Code}, 0); err != nil {
			t.Fatal(err)
		}
	}
	update := func(l terse.Link) terse.Link {
		t.Helper()
		l.Version++
		if err := c.store.UpdateLink(c.ctx, &l, l.Version-1); err != nil {
			t.Fatal(err)
		}
		return l
	}
	remove(links[0])
	remove(alias)
	c.wantCount(a, 99)
	l := links[1]
	l.ExternalID = "edited"
	l = update(l) // an edit changes nothing
	c.wantCount(a, 99)
	l.Campaign = b
	l = update(l)
	c.wantCount(a, 98)
	c.wantCount(b, 31)
	l.Campaign = a
	l = update(l) // and back
	c.wantCount(a, 99)
	c.wantCount(b, 30)
	l.Campaign = 0
	l = update(l)
	remove(l) // of no campaign any more
	c.wantCount(a, 98)
	o := c.other()
	o.wantCount(a, 0)
}
