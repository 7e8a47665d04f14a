package storetest

import (
	"fmt"
	"testing"

	"github.com/terselink/terse"
)

// namedSpace is the space of the links with ByCode.
const namedSpace terse.SpaceID = 11

// named returns links with ByCode, not yet inserted, one for each code.
func (c *scope) named(codes ...string) []terse.Link {
	c.Helper()
	at := c.now()
	out := make([]terse.Link, len(codes))
	for i, number := range c.numbers(namedSpace, len(codes)) {
		out[i] = terse.Link{
			Number: number, Workspace: c.w, Version: 1, CreatedAt: at, UpdatedAt: at, ByCode: true,
			Code: codes[i], Destination: fmt.Sprintf("https://example.com/%s", codes[i]),
		}
	}
	return out
}

// testByCode checks links of a numbered space that are found by their code: random
// codes, secret ones and snowflakes.
func testByCode(t *testing.T, s *suite) {
	t.Run("is found by number and by code", func(t *testing.T) {
		c := s.scope(t)
		l := c.named("rAnd0m1", "rAnd0m2")
		c.mustInsert(l...)
		c.wantStored(l...)
		dst := make([]terse.Link, 1)
		wantErr(t, "GetLinks", s.store.GetLinks(c.ctx, []terse.LinkKey{{Number: l[1].Number}}, dst), nil)
		if d := diffLink(dst[0], l[1]); d != "" {
			t.Fatal(d)
		}
		c.wantAliasFree("rAnd0m3")
	})

	t.Run("conflicts with the names of its domain only", func(t *testing.T) {
		c := s.scope(t)
		o := c.other()
		c.mustInsert(c.alias("taken"))
		first := c.named("code-1")
		c.mustInsert(first...)
		wantRows(t, c.insert(c.named("free-1", "taken", "code-1", "free-2")...), 1, 2)
		c.wantAliasFree("free-1")
		wantRows(t, c.insert(c.named("twin", "twin")...), 1)
		c.wantAliasFree("twin")
		wantRows(t, c.insert(c.alias("code-1")), 0)
		o.mustInsert(o.named("code-1", "taken")...)
		c.wantStored(first...)
	})

	t.Run("needs a code and reserves nothing", func(t *testing.T) {
		c := s.scope(t)
		l := c.named("x")
		l[0].Code = ""
		wantInvalid(t, "InsertLinks without a code", c.insert(l...), "code")
		l[0].Code, l[0].Reserves = "x", terse.NewLinkNumber(c.d, 5, 1)
		wantInvalid(t, "InsertLinks that reserves", c.insert(l...), "reserves")
	})

	t.Run("keeps its code when it changes, and after its end", func(t *testing.T) {
		c := s.scope(t)
		l := c.named("for-ever")
		c.mustInsert(l...)
		now := l[0]
		now.Version, now.Destination, now.Code, now.ByCode = 2, "https://example.com/moved", "", false
		wantErr(t, "UpdateLink", s.store.UpdateLink(c.ctx, &now, 1), nil)
		now.Code, now.ByCode = "for-ever", true
		c.wantStored(now)
		wantErr(t, "DeleteLink", s.store.DeleteLink(c.ctx, terse.LinkKey{Number: now.Number}, 2), nil)
		c.wantAbsent(now)
		c.wantAliasFree("for-ever") // leads nowhere,
		wantRows(t, c.insert(c.named("for-ever")...), 0)
		wantRows(t, c.insert(c.alias("for-ever")), 0) // and is nobody's again
	})

	t.Run("comes in large chunks among other links", func(t *testing.T) {
		c := s.scope(t)
		codes := make([]string, c.chunkSize(300)/2)
		for i := range codes {
			codes[i] = fmt.Sprintf("c%05d", i)
		}
		l := append(c.named(codes...), c.links(len(codes))...)
		c.stamp(l)
		c.mustInsert(l...)
		c.wantStored(l...)
		plain, err := s.store.FindPlain(c.ctx, c.w, c.d, l[7].Destination, l[7].CreatedAt)
		wantErr(t, "FindPlain", err, nil)
		if d := diffLink(plain, l[7]); d != "" {
			t.Fatal(d)
		}
	})
}
