package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/terselink/terse"
)

// call is one operation of the store, with arguments that a scope makes valid.
type call struct {
	name string
	do   func(ctx context.Context, s terse.Store) error
}

// calls returns one call of every method but Close. The writes are of things
// that are there (updated, deleted) or free (fresh).
func (c *scope) calls(updated, deleted, fresh terse.Link, doc, newDoc terse.Document) (reads, writes []call) {
	key := terse.LinkKey{Number: updated.Number, Code: updated.Code}
	reads = []call{
		{"Next", func(ctx context.Context, s terse.Store) error { _, err := s.Next(ctx, c.d, genSpace); return err }},
		{"Reservations", func(ctx context.Context, s terse.Store) error {
			_, err := s.Reservations(ctx, c.d, genSpace, 0, 10)
			return err
		}},
		{"GetLinks", func(ctx context.Context, s terse.Store) error {
			return s.GetLinks(ctx, []terse.LinkKey{key}, make([]terse.Link, 1))
		}},
		{"GetAlias", func(ctx context.Context, s terse.Store) error { _, err := s.GetAlias(ctx, c.d, "alias"); return err }},
		{"FindPlain", func(ctx context.Context, s terse.Store) error {
			_, err := s.FindPlain(ctx, c.w, c.d, updated.Destination, epoch)
			return err
		}},
		{"ListLinks", func(ctx context.Context, s terse.Store) error {
			_, err := s.ListLinks(ctx, c.w, terse.ListQuery{Limit: 10})
			return err
		}},
		{"CountLinks", func(ctx context.Context, s terse.Store) error { _, err := s.CountLinks(ctx, c.w, 1); return err }},
		{"GetDocument", func(ctx context.Context, s terse.Store) error {
			_, err := s.GetDocument(ctx, c.w, doc.Kind, doc.ID)
			return err
		}},
		{"ListDocuments", func(ctx context.Context, s terse.Store) error {
			_, err := s.ListDocuments(ctx, c.w, doc.Kind, "", 10)
			return err
		}},
		{"Changes", func(ctx context.Context, s terse.Store) error { _, err := s.Changes(ctx, 0, 10); return err }},
		{"Ping", func(ctx context.Context, s terse.Store) error { return s.Ping(ctx) }},
	}
	changed := updated
	changed.Version, changed.Destination = updated.Version+1, "https://example.com/changed"
	writes = []call{
		{"Lease", func(ctx context.Context, s terse.Store) error {
			_, err := s.Lease(ctx, terse.LeaseRequest{Domain: c.d, Space: 6, Count: 5})
			return err
		}},
		{"InsertLinks", func(ctx context.Context, s terse.Store) error {
			return s.InsertLinks(ctx, &terse.Chunk{Links: []terse.Link{fresh}})
		}},
		{"UpdateLink", func(ctx context.Context, s terse.Store) error { return s.UpdateLink(ctx, &changed, updated.Version) }},
		{"DeleteLink", func(ctx context.Context, s terse.Store) error {
			return s.DeleteLink(ctx, terse.LinkKey{Number: deleted.Number, Code: deleted.Code}, 0)
		}},
		{"PurgeLinks", func(ctx context.Context, s terse.Store) error { _, err := s.PurgeLinks(ctx, c.w, 1, 10); return err }},
		{"PutDocument", func(ctx context.Context, s terse.Store) error { return s.PutDocument(ctx, newDoc) }},
		{"DeleteDocument", func(ctx context.Context, s terse.Store) error {
			return s.DeleteDocument(ctx, c.w, doc.Kind, doc.ID, doc.Version)
		}},
	}
	return reads, writes
}

// testContext checks that a cancelled context ends every call with its error,
// and that a write which says that it was not applied was not.
func testContext(t *testing.T, s *suite) {
	t.Run("cancelled before the call", func(t *testing.T) {
		c := s.scope(t)
		links := append(c.links(3), c.alias("alias"))
		fresh, doc, newDoc := links[2], c.doc(terse.KindJob, "there", 1), c.doc(terse.KindJob, "new", 1)
		c.mustInsert(links[0], links[1], links[3])
		wantErr(t, "PutDocument", s.store.PutDocument(c.ctx, doc), nil)
		wantNext(c, 6, 0)
		reads, writes := c.calls(links[0], links[1], fresh, doc, newDoc)
		for _, call := range append(reads, writes...) {
			for name, end := range map[string]func() (context.Context, context.CancelFunc, error){
				"cancelled": func() (context.Context, context.CancelFunc, error) {
					ctx, cancel := context.WithCancel(c.ctx)
					cancel()
					return ctx, cancel, context.Canceled
				},
				"past its deadline": func() (context.Context, context.CancelFunc, error) {
					ctx, cancel := context.WithTimeout(c.ctx, 0)
					return ctx, cancel, context.DeadlineExceeded
				},
			} {
				ctx, cancel, want := end()
				err := call.do(ctx, s.store)
				cancel()
				if !errors.Is(err, want) {
					t.Errorf("%s with a context that is %s: got error %v, want %v", call.name, name, err, want)
				}
				if errors.Is(err, terse.ErrUnknownOutcome) {
					t.Errorf("%s with a context that is %s: it cannot have been sent, got %v", call.name, name, err)
				}
			}
		}
		wantNext(c, 6, 0)
		c.wantStored(links[0], links[1], links[3])
		c.wantAbsent(fresh)
		c.wantDoc(doc)
		c.wantNoDoc(newDoc.Kind, newDoc.ID)
	})

	t.Run("cancelled during the call", func(t *testing.T) {
		c := s.scope(t)
		for round := range 30 {
			links := c.links(c.chunkSize(50))
			doc := c.doc(terse.KindIdempotency, fmt.Sprint(round), 1)
			n := len(links) - 1 // room for the document
			ctx, cancel := context.WithCancel(c.ctx)
			done := make(chan error)
			go func() {
				done <- s.store.InsertLinks(ctx, &terse.Chunk{Links: links[:n], Documents: []terse.Document{doc}})
			}()
			for range round * 20 { // later and later
				_ = ctx.Err()
			}
			cancel()
			err := <-done
			applied := c.get(links[0])[0].Number != 0
			switch {
			case err == nil && !applied:
				t.Fatal("InsertLinks returned nil and did nothing")
			case err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, terse.ErrUnknownOutcome):
				t.Fatalf("InsertLinks: got error %v, want that of the context", err)
			case err != nil && !errors.Is(err, terse.ErrUnknownOutcome) && applied:
				t.Fatalf("InsertLinks was applied and returned %v", err)
			}
			if applied {
				c.wantStored(links[:n]...)
				c.wantDoc(doc)
			} else if !errors.Is(err, terse.ErrUnknownOutcome) {
				c.wantAbsent(links[:n]...)
				c.wantNoDoc(doc.Kind, doc.ID)
			}
		}
	})
}
