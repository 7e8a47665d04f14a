package faultstore

import (
	"context"

	"github.com/terselink/terse"
)

// result runs a call that returns a value; a call that fails returns the zero value.
func result[T any](ctx context.Context, s *Store, op Op, call func() (T, error)) (T, error) {
	var v T
	err := s.do(ctx, op, func() (err error) {
		v, err = call()
		return err
	})
	if err != nil {
		var zero T
		return zero, err
	}
	return v, nil
}

// Lease implements terse.Store.
func (s *Store) Lease(ctx context.Context, req terse.LeaseRequest) (terse.Lease, error) {
	return result(ctx, s, Lease, func() (terse.Lease, error) { return s.inner.Lease(ctx, req) })
}

// Next implements terse.Store.
func (s *Store) Next(ctx context.Context, d terse.DomainID, sp terse.SpaceID) (uint64, error) {
	return result(ctx, s, Next, func() (uint64, error) { return s.inner.Next(ctx, d, sp) })
}

// Reservations implements terse.Store.
func (s *Store) Reservations(ctx context.Context, d terse.DomainID, sp terse.SpaceID, from uint64, limit int) ([]uint64, error) {
	return result(ctx, s, Reservations, func() ([]uint64, error) { return s.inner.Reservations(ctx, d, sp, from, limit) })
}

// InsertLinks implements terse.Store.
func (s *Store) InsertLinks(ctx context.Context, chunk *terse.Chunk) error {
	return s.do(ctx, InsertLinks, func() error { return s.inner.InsertLinks(ctx, chunk) })
}

// GetLinks implements terse.Store. A call that fails may have changed dst, as with any store.
func (s *Store) GetLinks(ctx context.Context, keys []terse.LinkKey, dst []terse.Link) error {
	return s.do(ctx, GetLinks, func() error { return s.inner.GetLinks(ctx, keys, dst) })
}

// GetAlias implements terse.Store.
func (s *Store) GetAlias(ctx context.Context, d terse.DomainID, alias string) (terse.Link, error) {
	return result(ctx, s, GetAlias, func() (terse.Link, error) { return s.inner.GetAlias(ctx, d, alias) })
}

// FindPlain implements terse.Store.
func (s *Store) FindPlain(ctx context.Context, w terse.WorkspaceID, d terse.DomainID, destination string, at terse.Millis) (terse.Link, error) {
	return result(ctx, s, FindPlain, func() (terse.Link, error) { return s.inner.FindPlain(ctx, w, d, destination, at) })
}

// UpdateLink implements terse.Store.
func (s *Store) UpdateLink(ctx context.Context, link *terse.Link, ifVersion uint64) error {
	return s.do(ctx, UpdateLink, func() error { return s.inner.UpdateLink(ctx, link, ifVersion) })
}

// DeleteLink implements terse.Store.
func (s *Store) DeleteLink(ctx context.Context, key terse.LinkKey, ifVersion uint64) error {
	return s.do(ctx, DeleteLink, func() error { return s.inner.DeleteLink(ctx, key, ifVersion) })
}

// ListLinks implements terse.Store.
func (s *Store) ListLinks(ctx context.Context, w terse.WorkspaceID, q terse.ListQuery) (terse.LinkPage, error) {
	return result(ctx, s, ListLinks, func() (terse.LinkPage, error) { return s.inner.ListLinks(ctx, w, q) })
}

// CountLinks implements terse.Store.
func (s *Store) CountLinks(ctx context.Context, w terse.WorkspaceID, c terse.CampaignID) (uint64, error) {
	return result(ctx, s, CountLinks, func() (uint64, error) { return s.inner.CountLinks(ctx, w, c) })
}

// PurgeLinks implements terse.Store.
func (s *Store) PurgeLinks(ctx context.Context, w terse.WorkspaceID, c terse.CampaignID, limit int) (int, error) {
	return result(ctx, s, PurgeLinks, func() (int, error) { return s.inner.PurgeLinks(ctx, w, c, limit) })
}

// GetDocument implements terse.Store.
func (s *Store) GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error) {
	return result(ctx, s, GetDocument, func() (terse.Document, error) { return s.inner.GetDocument(ctx, w, kind, id) })
}

// PutDocument implements terse.Store.
func (s *Store) PutDocument(ctx context.Context, doc terse.Document) error {
	return s.do(ctx, PutDocument, func() error { return s.inner.PutDocument(ctx, doc) })
}

// DeleteDocument implements terse.Store.
func (s *Store) DeleteDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string, ifVersion uint64) error {
	return s.do(ctx, DeleteDocument, func() error { return s.inner.DeleteDocument(ctx, w, kind, id, ifVersion) })
}

// ListDocuments implements terse.Store.
func (s *Store) ListDocuments(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, after string, limit int) ([]terse.Document, error) {
	return result(ctx, s, ListDocuments, func() ([]terse.Document, error) {
		return s.inner.ListDocuments(ctx, w, kind, after, limit)
	})
}

// Changes implements terse.Store.
func (s *Store) Changes(ctx context.Context, after uint64, limit int) ([]terse.Change, error) {
	return result(ctx, s, Changes, func() ([]terse.Change, error) { return s.inner.Changes(ctx, after, limit) })
}

// Ping implements terse.Store.
func (s *Store) Ping(ctx context.Context) error {
	return s.do(ctx, Ping, func() error { return s.inner.Ping(ctx) })
}

// Close implements terse.Store.
func (s *Store) Close() error {
	return s.do(context.Background(), Close, s.inner.Close)
}
