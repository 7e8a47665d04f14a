package storetest

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/terselink/terse"
)

// byteOrderTraps returns distinct strings that collations, normal forms, case
// folding, trimming and patterns would confuse or order otherwise.
func byteOrderTraps() []string {
	return []string{
		"a", "A", "b", "B", "Z", "z", "aa", "ab", "a b", "a-b", "a_b", "a.b", "a/b", "a|b", "a:b", "a#b", "a%b", "a%25b",
		"0", "00", "10", "9", "_", "-", "~", " a", "a ", "a  ", "a\t", "%", "a%", "a_",
		"é", "e\u0301", "É", "e", "ß", "ss", "SS", "ı", "i", "I", "İ", "ü", "u", "Ω", "\u2126", "ﬁ", "fi", "ａ",
		"日本", "日本語", "\u00ad", "a\u00adb", "a\u200bb", "🌻", "🌻\ufe0f", "\u202ea", `a"b`, "a'b", `a\b`, "a;b", "null", "NULL",
	}
}

// testText checks that strings are compared by their bytes and given back as they are.
func testText(t *testing.T, s *suite) {
	t.Run("aliases", func(t *testing.T) {
		c := s.scope(t)
		var links []terse.Link
		for _, code := range append(byteOrderTraps(), strings.Repeat("l", 255), strings.Repeat("l", 254)) {
			links = append(links, c.alias(code))
		}
		c.mustInsert(links[:20]...)
		for _, l := range links[20:] {
			c.mustInsert(l)
		}
		c.wantStored(links...)
		for _, l := range links {
			wantRows(t, c.insert(c.alias(l.Code)), 0)
		}
		for _, missing := range []string{"", "c", "AA", "a\u0301", "a\x01", "ÉÉ"} {
			c.wantAliasFree(missing)
		}
	})

	t.Run("external ids and tags", func(t *testing.T) {
		c := s.scope(t)
		traps := byteOrderTraps()
		links := c.links(len(traps))
		for i := range links {
			links[i].ExternalID = traps[i]
			links[i].Settings = &terse.LinkSettings{Tags: []string{traps[i]}, Title: traps[i], Metadata: map[string]string{traps[i]: traps[i]}}
		}
		c.mustInsert(links...)
		c.wantStored(links...)
		for _, l := range links {
			for _, q := range []terse.ListQuery{{ExternalID: l.ExternalID}, {Tag: l.ExternalID}} {
				q.Limit = 10
				c.eventually(func() string { return diffList(c.list(q, nil), []terse.Link{l}) })
			}
		}
	})

	t.Run("values", func(t *testing.T) {
		c := s.scope(t)
		links := c.links(3)
		for i, v := range []string{`{}`, `{"a":"<&> \\ \" ü 🌻","b":"1"}`, `{"long":"` + strings.Repeat("v", 5000) + `"}`} {
			links[i].Destination, links[i].Values, links[i].Campaign = "", v, 5
		}
		c.mustInsert(links...)
		c.wantStored(links...)
	})

	t.Run("document ids", func(t *testing.T) {
		c := s.scope(t)
		traps := byteOrderTraps()
		for _, id := range traps {
			wantErr(t, "PutDocument of "+id, s.store.PutDocument(c.ctx, c.doc(terse.KindDomain, id, 1)), nil)
		}
		for i, id := range traps {
			c.wantDoc(c.doc(terse.KindDomain, id, 1))
			if i%2 == 0 {
				wantErr(t, "DeleteDocument of "+id, s.store.DeleteDocument(c.ctx, c.w, terse.KindDomain, id, 1), nil)
			}
		}
		for i, id := range traps {
			_, err := s.store.GetDocument(c.ctx, c.w, terse.KindDomain, id)
			if gone := errors.Is(err, terse.ErrNotFound); gone != (i%2 == 0) {
				t.Fatalf("document %q: %v after every second one was deleted", id, err)
			}
		}
		docs, err := s.store.ListDocuments(c.ctx, c.w, terse.KindDomain, "", 1000)
		wantErr(t, "ListDocuments", err, nil)
		if !slices.IsSortedFunc(docs, func(a, b terse.Document) int { return strings.Compare(a.ID, b.ID) }) || len(docs) != len(traps)/2 {
			t.Fatalf("ListDocuments: %d documents, want %d in byte order", len(docs), len(traps)/2)
		}
	})
}
