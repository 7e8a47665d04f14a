package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/terselink/terse"
)

// fullLink returns a link with every field set that a generated link can have.
func (c *scope) fullLink() terse.Link {
	c.Helper()
	l := c.links(1)[0]
	yes := true
	l.Campaign = 1<<63 - 1
	l.Version = 7
	l.UpdatedAt += 5
	l.ExpiresAt = l.CreatedAt + 1_000_000
	l.Destination = ""
	l.Values = `{"sku":"A17","u":"9f3 ü"}`
	l.ExternalID = "order-77/é"
	l.Status = terse.StatusDisabled
	l.DefaultExpiry = true
	l.RedirectStatus = 308
	l.Settings = &terse.LinkSettings{
		Title: "Sommer \u00fc \"quoted\" \U0001f33b", Tags: []string{"a", "sms"},
		Metadata:           map[string]string{"k": "v", "": "empty key", "empty": ""},
		StartsAt:           l.CreatedAt - 1,
		ExpiredDestination: "https://example.com/gone",
		MaxClicks:          1<<63 - 1,
		PasswordHash:       "$argon2id$v=19$m=65536",
		ForwardQuery:       &yes,
		ForwardPath:        true,
		CreatedBy:          "key_1",
		Web: &terse.LinkWeb{
			NoIndex: &yes, ReferrerPolicy: "no-referrer", NotStartedDestination: "https://example.com/soon", LimitDestination: "https://example.com/full",
			QueryMode: terse.QueryStoredFirst, Sticky: terse.StickyCookie,
			IOSDestination: "app://x", IOSStore: "https://apps.example.com/", AndroidDestination: "https://example.com/a", AndroidStore: "https://play.example.com/",
			OGTitle: "Ü <b>", OGDescription: "d", OGImage: "https://example.com/i.png", Pixels: []terse.Pixel{{Provider: "meta", ID: "12345"}}, Cloak: true,
			UTM: &terse.UTM{Source: "sms", Medium: "text", Campaign: "bf & co", Term: "ü", Content: "<x>"},
		},
		Block: &terse.Block{Reason: "phishing", By: "owner", Owner: true},
		Rules: []terse.Rule{{
			Conditions:  []terse.Condition{{Type: "query", Key: "lang", Not: true, Values: []string{"de", "<&>"}}},
			Destination: "https://example.com/de",
		}, {
			Conditions: []terse.Condition{{Type: "country", Values: []string{"AT"}}},
			Variants:   []terse.Variant{{Destination: "https://example.com/a", Weight: 1}, {Destination: "https://example.com/b", Weight: 1<<32 - 1}},
		}},
	}
	return l
}

// testInsert checks what one insert writes, and that it writes all or nothing.
func testInsert(t *testing.T, s *suite) {
	t.Run("one link", func(t *testing.T) {
		c := s.scope(t)
		l := c.links(1)
		c.wantAbsent(l...)
		c.mustInsert(l...)
		c.wantStored(l...)
	})

	t.Run("every field", func(t *testing.T) {
		c := s.scope(t)
		no := false
		l := c.fullLink()
		empty := c.links(1)[0]
		empty.Settings = &terse.LinkSettings{}
		forward := c.links(1)[0]
		forward.Settings = &terse.LinkSettings{ForwardQuery: &no}
		a := c.alias("ünïcode")
		a.Settings = l.Settings
		c.mustInsert(l, empty, forward, a)
		c.wantStored(l, empty, forward, a)
	})

	t.Run("large fields", func(t *testing.T) {
		c := s.scope(t)
		links := c.links(3)
		links[0].Destination = "https://example.com/" + strings.Repeat("x", 8<<10-20)
		links[1].Settings = &terse.LinkSettings{Metadata: map[string]string{"k": strings.Repeat("ü", 8<<10)}}
		links[2].ExternalID = strings.Repeat("e", 255)
		c.mustInsert(links...)
		c.wantStored(links...)
	})

	t.Run("empty chunk", func(t *testing.T) {
		c := s.scope(t)
		wantErr(t, "InsertLinks", c.insert(), nil)
	})

	t.Run("arguments stay the caller's", func(t *testing.T) {
		c := s.scope(t)
		buf := []byte("https://example.com/first")
		l := c.fullLink()
		want := l
		given := *l.Settings
		given.Tags = slices.Clone(l.Settings.Tags)
		given.Metadata = map[string]string{"k": "v"}
		want.Settings = new(given)
		want.Settings.Tags = slices.Clone(given.Tags)
		want.Settings.Metadata = map[string]string{"k": "v"}
		l.Settings = &given
		chunk := terse.Chunk{
			Links:     []terse.Link{l},
			Documents: []terse.Document{{Workspace: c.w, Kind: terse.KindJob, ID: "mine", Version: 1, Data: buf}},
		}
		wantErr(t, "InsertLinks", s.store.InsertLinks(c.ctx, &chunk), nil)
		chunk.Links[0].Destination = "https://example.com/changed"
		given.Tags[0], given.Metadata["k"], given.Title = "changed", "changed", "changed"
		copy(buf, "HTTPS")
		c.wantStored(want)
		c.wantDoc(terse.Document{Workspace: c.w, Kind: terse.KindJob, ID: "mine", Version: 1, Data: []byte("https://example.com/first")})

		got := c.get(want)
		got[0].Settings.Tags[0] = "changed"
		got[0].Settings.Metadata["k"] = "changed"
		c.wantStored(want)
	})

	t.Run("mixed domains, spaces and workspaces", func(t *testing.T) {
		c := s.scope(t)
		o := c.other()
		links := slices.Concat(c.links(3), o.links(3))
		links = append(links, c.alias("same"), o.alias("same"))
		long := c.links(1)[0]
		long.Number = c.numbers(9, 1)[0]
		long.Code = codeOf(9, 0)
		links = append(links, long)
		links[1].Workspace = o.w // a shared domain
		c.mustInsert(links...)
		c.wantStored(links...)
	})

	t.Run("numbers in any order and with holes", func(t *testing.T) {
		c := s.scope(t)
		all := c.links(300)
		var some []terse.Link
		for i, l := range all {
			if i%7 != 3 {
				some = append(some, l)
			}
		}
		slices.Reverse(some)
		some[0], some[100] = some[100], some[0]
		c.mustInsert(some...)
		c.wantStored(some...)
		var holes []terse.Link
		for i, l := range all {
			if i%7 == 3 {
				holes = append(holes, l)
			}
		}
		c.wantAbsent(holes...)
		c.mustInsert(holes...)
		c.wantStored(all...)
	})

	t.Run("over the limits of a backend", func(t *testing.T) {
		if s.o.SkipLarge {
			t.Skip("large chunks are skipped")
		}
		c := s.scope(t)
		n := c.chunkSize(largeChunk)
		links := c.links(n)
		for i := range links {
			if i%3 == 0 {
				links[i].ExternalID = fmt.Sprintf("row-%d", i)
			}
			if i%50 == 0 {
				links[i].Settings = &terse.LinkSettings{Tags: []string{"sms"}, Title: fmt.Sprint(i)}
			}
		}
		wantErr(t, "InsertLinks", c.insert(links...), nil)
		c.wantStored(links...)
	})

	t.Run("one conflict leaves nothing", func(t *testing.T) {
		c := s.scope(t)
		c.mustInsert(c.alias("taken"))
		n := c.chunkSize(largeChunk)
		if s.o.SkipLarge || testing.Short() {
			n = c.chunkSize(200)
		}
		links := c.links(n - 2)
		free := c.alias("free")
		links = append(links, free, c.alias("taken"))
		wantRows(t, c.insert(links...), len(links)-1)
		c.wantAbsent(links...)
		c.wantAliasFree("free")
		c.mustInsert(links[:len(links)-1]...)
		c.wantStored(links[:len(links)-1]...)
	})

	t.Run("every conflict is named", func(t *testing.T) {
		c := s.scope(t)
		old := c.links(2)
		c.mustInsert(old...)
		c.mustInsert(c.alias("one"), c.alias("two"))
		issued := c.reserving(c.numbers(5, 1)[0])
		links := c.links(20)
		links[0] = c.alias("one")
		links[5].Number, links[5].Code = old[1].Number, old[1].Code
		links[6] = issued
		links[19] = c.alias("two")
		wantRows(t, c.insert(links...), 0, 5, 6, 19)
		c.wantStored(old...)
		links = slices.Delete(links[1:19], 4, 6)
		c.mustInsert(links...)
		c.wantStored(links...)
	})

	t.Run("a number in use is never overwritten", func(t *testing.T) {
		c := s.scope(t)
		old := c.links(130) // more than one storage block of any engine we know
		c.mustInsert(old...)
		again := slices.Clone(old[64:66])
		again[0].Destination, again[1].Destination = "https://example.com/x", "https://example.com/y"
		wantRows(t, c.insert(again...), 0, 1)
		c.wantStored(old...)
		a := c.alias("first")
		c.mustInsert(a)
		b := a
		b.Code = "second"
		wantRows(t, c.insert(b), 0)
		c.wantStored(a)
		c.wantAliasFree("second")
	})

	t.Run("a number or alias twice in a chunk", func(t *testing.T) {
		c := s.scope(t)
		links := c.links(4)
		links[3].Number, links[3].Code = links[1].Number, links[1].Code
		wantRows(t, c.insert(links...), 3)
		c.wantAbsent(links...)
		aliases := []terse.Link{c.alias("x"), c.alias("y"), c.alias("x"), c.alias("x")}
		wantRows(t, c.insert(aliases...), 2, 3)
		c.wantAliasFree("x")
		c.wantAliasFree("y")
	})

	t.Run("the number of a deleted link stays used", func(t *testing.T) {
		c := s.scope(t)
		links := append(c.links(70), c.alias("gone"))
		c.mustInsert(links...)
		for _, i := range []int{0, 69, 70} {
			wantErr(t, "DeleteLink", s.store.DeleteLink(c.ctx, terse.LinkKey{Number: links[i].Number, Code: links[i].Code}, 0), nil)
			wantRows(t, c.insert(links[i]), 0)
			c.wantAbsent(links[i])
		}
		c.wantStored(links[1:69]...)
	})

	t.Run("documents in the chunk", func(t *testing.T) { testChunkDocuments(t, s) })
	t.Run("bad links", func(t *testing.T) { testBadLinks(t, s) })
}

// testChunkDocuments checks that links and documents go in together or not at all.
func testChunkDocuments(t *testing.T, s *suite) {
	c := s.scope(t)
	doc := func(id string, version uint64) terse.Document {
		return terse.Document{Workspace: c.w, Kind: terse.KindIdempotency, ID: id, Version: version, Data: fmt.Appendf(nil, `{"v": %d}`, version)}
	}
	insert := func(links []terse.Link, docs ...terse.Document) error {
		return s.store.InsertLinks(c.ctx, &terse.Chunk{Links: links, Documents: docs})
	}

	first := c.links(10)
	wantErr(t, "links and new documents", insert(first, doc("a", 1), doc("b", 1)), nil)
	c.wantStored(first...)
	c.wantDoc(doc("a", 1))
	c.wantDoc(doc("b", 1))

	second := c.links(10)
	wantErr(t, "a document that exists", insert(second, doc("c", 1), doc("a", 1)), terse.ErrExists)
	// Two are in the way: the first of the chunk decides, whatever their names are.
	wantErr(t, "the first exists, another is missing", insert(second, doc("a", 1), doc("0", 3)), terse.ErrExists)
	wantErr(t, "the first is missing, another exists", insert(second, doc("z", 3), doc("a", 1)), terse.ErrVersion)
	wantErr(t, "a document of a wrong version", insert(second, doc("c", 1), doc("a", 3)), terse.ErrVersion)
	wantErr(t, "a later version of no document", insert(second, doc("c", 2)), terse.ErrVersion)
	c.wantAbsent(second...)
	c.wantNoDoc(terse.KindIdempotency, "c")
	c.wantDoc(doc("a", 1))

	conflict := append(slices.Clone(second), first[3])
	wantRows(t, insert(conflict, doc("c", 1), doc("b", 2)), 10)
	c.wantAbsent(second...)
	c.wantNoDoc(terse.KindIdempotency, "c")
	c.wantDoc(doc("b", 1))

	wantErr(t, "links and a next version", insert(second, doc("c", 1), doc("a", 2)), nil)
	c.wantStored(second...)
	c.wantDoc(doc("a", 2))
	c.wantDoc(doc("c", 1))

	wantErr(t, "documents alone", insert(nil, doc("a", 3), doc("d", 1)), nil)
	c.wantDoc(doc("a", 3))
	c.wantDoc(doc("d", 1))
}

// testBadLinks checks that what breaks the contract is refused, whole chunk and all.
func testBadLinks(t *testing.T, s *suite) {
	for _, tc := range []struct {
		name, field string
		spoil       func(c *scope, l *terse.Link)
	}{
		{"no number", "number", func(c *scope, l *terse.Link) { l.Number = 0 }},
		{"no alias", "code", func(c *scope, l *terse.Link) { *l = c.alias("") }},
		{"a generated link that reserves", "reserves", func(c *scope, l *terse.Link) { l.Reserves = terse.NewLinkNumber(c.d, 5, 9) }},
		{"an alias that reserves on another domain", "reserves", func(c *scope, l *terse.Link) {
			*l = c.reserving(terse.NewLinkNumber(c.other().d, 5, 9))
		}},
		{"an alias that reserves an alias number", "reserves", func(c *scope, l *terse.Link) {
			*l = c.alias("self")
			l.Reserves = l.Number + 100
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := s.scope(t)
			links := c.links(3)
			good := []terse.Link{links[0], links[2]}
			tc.spoil(c, &links[1])
			wantInvalid(t, "InsertLinks", c.insert(links...), tc.field)
			c.wantAbsent(good...)
			c.mustInsert(good...)
		})
	}
}
