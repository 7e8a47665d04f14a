package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/terselink/terse"
)

// doc returns a document of the scope.
func (c *scope) doc(kind terse.Kind, id string, version uint64) terse.Document {
	return terse.Document{Workspace: c.w, Kind: kind, ID: id, Version: version, Data: fmt.Appendf(nil, `{"id": %q, "v":%d}`, id, version)}
}

// wantDoc fails the test unless the document is stored as it is.
func (c *scope) wantDoc(want terse.Document) {
	c.Helper()
	got, err := c.store.GetDocument(c.ctx, want.Workspace, want.Kind, want.ID)
	if err != nil {
		c.Fatalf("GetDocument of %s %q: %v", want.Kind, want.ID, err)
	}
	if d := cmp.Diff(want, got); d != "" {
		c.Fatalf("GetDocument (-want +got):\n%s", d)
	}
}

// wantNoDoc fails the test if the workspace has the document.
func (c *scope) wantNoDoc(kind terse.Kind, id string) {
	c.Helper()
	if d, err := c.store.GetDocument(c.ctx, c.w, kind, id); !errors.Is(err, terse.ErrNotFound) {
		c.Fatalf("GetDocument of %s %q: got %+v, %v; want ErrNotFound", kind, id, d, err)
	}
}

// wantDocs fails the test unless the workspace has exactly these documents of the
// kind after the id, in this order, whatever the page size.
func (c *scope) wantDocs(kind terse.Kind, after string, want ...terse.Document) {
	c.Helper()
	for _, limit := range []int{1, 2, len(want) + 1, 10_000} {
		var got []terse.Document
		for from := after; ; {
			page, err := c.store.ListDocuments(c.ctx, c.w, kind, from, limit)
			if err != nil {
				c.Fatalf("ListDocuments after %q: %v", from, err)
			}
			if len(page) > limit {
				c.Fatalf("ListDocuments after %q: %d documents, the limit is %d", from, len(page), limit)
			}
			got = append(got, page...)
			if len(page) < limit {
				break
			}
			from = page[len(page)-1].ID
		}
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
			c.Fatalf("ListDocuments after %q, %d at a time (-want +got):\n%s", after, limit, d)
		}
	}
}

// testDocuments checks documents: versions, lists, sizes.
func testDocuments(t *testing.T, s *suite) {
	put := func(c *scope, d terse.Document) {
		c.Helper()
		if err := s.store.PutDocument(c.ctx, d); err != nil {
			c.Fatalf("PutDocument of version %d of %q: %v", d.Version, d.ID, err)
		}
	}

	t.Run("versions", func(t *testing.T) {
		c := s.scope(t)
		c.wantNoDoc(terse.KindKey, "k")
		wantErr(t, "version 2 of nothing", s.store.PutDocument(c.ctx, c.doc(terse.KindKey, "k", 2)), terse.ErrVersion)
		c.wantNoDoc(terse.KindKey, "k")
		put(c, c.doc(terse.KindKey, "k", 1))
		for version, want := range map[uint64]error{1: terse.ErrExists, 3: terse.ErrVersion, 1 << 40: terse.ErrVersion} {
			wantErr(t, fmt.Sprintf("version %d over 1", version), s.store.PutDocument(c.ctx, c.doc(terse.KindKey, "k", version)), want)
		}
		c.wantDoc(c.doc(terse.KindKey, "k", 1))
		put(c, c.doc(terse.KindKey, "k", 2))
		put(c, c.doc(terse.KindKey, "k", 3))
		wantErr(t, "version 2 over 3", s.store.PutDocument(c.ctx, c.doc(terse.KindKey, "k", 2)), terse.ErrVersion)
		wantErr(t, "version 3 over 3", s.store.PutDocument(c.ctx, c.doc(terse.KindKey, "k", 3)), terse.ErrVersion)
		c.wantDoc(c.doc(terse.KindKey, "k", 3))
		wantErr(t, "DeleteDocument of version 2", s.store.DeleteDocument(c.ctx, c.w, terse.KindKey, "k", 2), terse.ErrVersion)
		c.wantDoc(c.doc(terse.KindKey, "k", 3))
		wantErr(t, "DeleteDocument", s.store.DeleteDocument(c.ctx, c.w, terse.KindKey, "k", 3), nil)
		c.wantNoDoc(terse.KindKey, "k")
		wantErr(t, "DeleteDocument again", s.store.DeleteDocument(c.ctx, c.w, terse.KindKey, "k", 3), terse.ErrNotFound)
		wantErr(t, "version 4 of what is gone", s.store.PutDocument(c.ctx, c.doc(terse.KindKey, "k", 4)), terse.ErrVersion)
		put(c, c.doc(terse.KindKey, "k", 1))
		wantErr(t, "DeleteDocument of any version", s.store.DeleteDocument(c.ctx, c.w, terse.KindKey, "k", 0), nil)
		wantErr(t, "DeleteDocument of any version again", s.store.DeleteDocument(c.ctx, c.w, terse.KindKey, "k", 0), terse.ErrNotFound)
	})

	t.Run("bad documents", func(t *testing.T) {
		c := s.scope(t)
		for _, tc := range []struct {
			field string
			doc   terse.Document
		}{
			{"id", c.doc(terse.KindKey, "", 1)},
			{"id", c.doc(terse.KindKey, strings.Repeat("x", 256), 1)},
			{"version", c.doc(terse.KindKey, "k", 0)},
		} {
			wantInvalid(t, "PutDocument", s.store.PutDocument(c.ctx, tc.doc), tc.field)
			links := c.links(2)
			err := s.store.InsertLinks(c.ctx, &terse.Chunk{Links: links, Documents: []terse.Document{c.doc(terse.KindKey, "good", 1), tc.doc}})
			wantInvalid(t, "InsertLinks", err, tc.field)
			c.wantAbsent(links...)
		}
		c.wantDocs(terse.KindKey, "")
	})

	t.Run("workspaces and kinds are apart", func(t *testing.T) {
		c := s.scope(t)
		o := c.other()
		instance := scope{w: 0}
		id := fmt.Sprintf("same-%d", c.w)
		docs := []terse.Document{
			c.doc(terse.KindKey, id, 1), c.doc(terse.KindJob, id, 1), o.doc(terse.KindKey, id, 1), instance.doc(terse.KindKey, id, 1),
		}
		for i := range docs {
			docs[i].Data = fmt.Appendf(nil, "%d", i)
			put(c, docs[i])
		}
		for _, d := range docs {
			c.wantDoc(d)
		}
		c.wantDocs(terse.KindKey, "", docs[0])
		wantErr(t, "DeleteDocument", s.store.DeleteDocument(c.ctx, c.w, terse.KindKey, id, 0), nil)
		for _, d := range docs[1:] {
			c.wantDoc(d)
		}
		c.wantDocs(terse.KindKey, "")
		c.wantDocs(terse.KindJob, "", docs[1])
	})

	t.Run("list in byte order of id", func(t *testing.T) {
		c := s.scope(t)
		ids := append(byteOrderTraps(), "\x01", "\x7f", "a\x01", "\U0010ffff", strings.Repeat("z", 255), strings.Repeat("é", 127))
		var docs []terse.Document
		for _, id := range ids {
			d := c.doc(terse.KindIdempotency, id, 1)
			put(c, d)
			docs = append(docs, d)
		}
		slices.SortFunc(docs, func(a, b terse.Document) int { return strings.Compare(a.ID, b.ID) })
		c.wantDocs(terse.KindIdempotency, "", docs...)
		for i, d := range docs {
			got, err := s.store.ListDocuments(c.ctx, c.w, terse.KindIdempotency, d.ID, 3)
			wantErr(t, "ListDocuments", err, nil)
			if diff := cmp.Diff(docs[i+1:min(i+4, len(docs))], got, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("ListDocuments after %q (-want +got):\n%s", d.ID, diff)
			}
		}
		after, _ := slices.BinarySearchFunc(docs, "b-not-there", func(d terse.Document, id string) int { return strings.Compare(d.ID, id) })
		c.wantDocs(terse.KindIdempotency, "b-not-there", docs[after:]...)
	})

	t.Run("data as it is", func(t *testing.T) {
		c := s.scope(t)
		for id, data := range map[string]string{
			"space":  "{ \"b\" : 1,\n\t\"a\":1.0, \"a\":2 }",
			"number": "12345678901234567890.000",
			"text":   `"<&>é \u00e9 \ud83c\udf3b"`,
			"large":  `"` + strings.Repeat("0123456789abcde é", 14_000) + `"`, // 252,000 bytes and two quotes
		} {
			d := c.doc(terse.KindJob, id, 1)
			d.Data = []byte(data)
			put(c, d)
			c.wantDoc(d)
			d.Version, d.Data = 2, []byte("{}")
			put(c, d)
			c.wantDoc(d)
		}
	})

	t.Run("arguments stay the caller's", func(t *testing.T) {
		c := s.scope(t)
		d := c.doc(terse.KindJob, "mine", 1)
		want := d
		want.Data = slices.Clone(d.Data)
		put(c, d)
		clear(d.Data)
		c.wantDoc(want)
		got, err := s.store.GetDocument(c.ctx, c.w, terse.KindJob, "mine")
		wantErr(t, "GetDocument", err, nil)
		clear(got.Data)
		list, err := s.store.ListDocuments(c.ctx, c.w, terse.KindJob, "", 1)
		wantErr(t, "ListDocuments", err, nil)
		clear(list[0].Data)
		c.wantDoc(want)
	})

	t.Run("of many writers one wins", func(t *testing.T) {
		c := s.scope(t)
		const goroutines = 16
		for version := uint64(1); version <= 5; version++ {
			loser := terse.ErrVersion
			if version == 1 {
				loser = terse.ErrExists
			}
			docs := make([]terse.Document, goroutines)
			errs := make([]error, goroutines)
			var wg sync.WaitGroup
			for i := range docs {
				docs[i] = c.doc(terse.KindMeta, "lock", version)
				docs[i].Data = fmt.Appendf(nil, `{"writer":%d}`, i)
				wg.Go(func() {
					if i%2 == 0 {
						errs[i] = s.store.PutDocument(c.ctx, docs[i])
					} else {
						errs[i] = s.store.InsertLinks(c.ctx, &terse.Chunk{Documents: docs[i : i+1]})
					}
				})
			}
			wg.Wait()
			c.wantDoc(docs[oneWinner(t, errs, loser)])
		}
	})
}
