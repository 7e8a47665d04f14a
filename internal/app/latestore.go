package app

import (
	"context"
	"sync/atomic"

	"github.com/terselink/terse"
)

// lateStore stands for a store that is opened later, or never: a plane that serves from what was kept on
// disk works with it as with any other that cannot be reached. Until open is called every call
// returns ErrUnavailable at once; after that it is passed on.
type lateStore struct {
	inner atomic.Pointer[terse.Store]
}

var _ terse.Store = (*lateStore)(nil)

// errNotOpen is what a store says that has not answered yet.
var errNotOpen = &terse.Error{Code: terse.CodeUnavailable, Message: "the database has not answered since the start"}

// open passes all calls from now on to s.
func (l *lateStore) open(s terse.Store) { l.inner.Store(&s) }

func (l *lateStore) store() (terse.Store, error) {
	if s := l.inner.Load(); s != nil {
		return *s, nil
	}
	return nil, errNotOpen
}

// ask passes a call on that returns something.
func ask[T any](l *lateStore, call func(terse.Store) (T, error)) (T, error) {
	s, err := l.store()
	if err != nil {
		var none T
		return none, err
	}
	return call(s)
}

// tell passes a call on that returns nothing but an error.
func tell(l *lateStore, call func(terse.Store) error) error {
	s, err := l.store()
	if err != nil {
		return err
	}
	return call(s)
}

// Lease implements terse.Store.
func (l *lateStore) Lease(ctx context.Context, req terse.LeaseRequest) (terse.Lease, error) {
	return ask(l, func(s terse.Store) (terse.Lease, error) { return s.Lease(ctx, req) })
}

// Next implements terse.Store.
func (l *lateStore) Next(ctx context.Context, d terse.DomainID, sp terse.SpaceID) (uint64, error) {
	return ask(l, func(s terse.Store) (uint64, error) { return s.Next(ctx, d, sp) })
}

// Reservations implements terse.Store.
func (l *lateStore) Reservations(ctx context.Context, d terse.DomainID, sp terse.SpaceID, from uint64, limit int) ([]uint64, error) {
	return ask(l, func(s terse.Store) ([]uint64, error) { return s.Reservations(ctx, d, sp, from, limit) })
}

// InsertLinks implements terse.Store.
func (l *lateStore) InsertLinks(ctx context.Context, chunk *terse.Chunk) error {
	return tell(l, func(s terse.Store) error { return s.InsertLinks(ctx, chunk) })
}

// GetLinks implements terse.Store.
func (l *lateStore) GetLinks(ctx context.Context, keys []terse.LinkKey, dst []terse.Link) error {
	return tell(l, func(s terse.Store) error { return s.GetLinks(ctx, keys, dst) })
}

// GetAlias implements terse.Store.
func (l *lateStore) GetAlias(ctx context.Context, d terse.DomainID, alias string) (terse.Link, error) {
	return ask(l, func(s terse.Store) (terse.Link, error) { return s.GetAlias(ctx, d, alias) })
}

// FindPlain implements terse.Store.
func (l *lateStore) FindPlain(ctx context.Context, w terse.WorkspaceID, d terse.DomainID, destination string, at terse.Millis) (terse.Link, error) {
	return ask(l, func(s terse.Store) (terse.Link, error) { return s.FindPlain(ctx, w, d, destination, at) })
}

// UpdateLink implements terse.Store.
func (l *lateStore) UpdateLink(ctx context.Context, link *terse.Link, ifVersion uint64) error {
	return tell(l, func(s terse.Store) error { return s.UpdateLink(ctx, link, ifVersion) })
}

// DeleteLink implements terse.Store.
func (l *lateStore) DeleteLink(ctx context.Context, key terse.LinkKey, ifVersion uint64) error {
	return tell(l, func(s terse.Store) error { return s.DeleteLink(ctx, key, ifVersion) })
}

// ListLinks implements terse.Store.
func (l *lateStore) ListLinks(ctx context.Context, w terse.WorkspaceID, q terse.ListQuery) (terse.LinkPage, error) {
	return ask(l, func(s terse.Store) (terse.LinkPage, error) { return s.ListLinks(ctx, w, q) })
}

// CountLinks implements terse.Store.
func (l *lateStore) CountLinks(ctx context.Context, w terse.WorkspaceID, c terse.CampaignID) (uint64, error) {
	return ask(l, func(s terse.Store) (uint64, error) { return s.CountLinks(ctx, w, c) })
}

// PurgeLinks implements terse.Store.
func (l *lateStore) PurgeLinks(ctx context.Context, w terse.WorkspaceID, c terse.CampaignID, limit int) (int, error) {
	return ask(l, func(s terse.Store) (int, error) { return s.PurgeLinks(ctx, w, c, limit) })
}

// GetDocument implements terse.Store.
func (l *lateStore) GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error) {
	return ask(l, func(s terse.Store) (terse.Document, error) { return s.GetDocument(ctx, w, kind, id) })
}

// PutDocument implements terse.Store.
func (l *lateStore) PutDocument(ctx context.Context, doc terse.Document) error {
	return tell(l, func(s terse.Store) error { return s.PutDocument(ctx, doc) })
}

// DeleteDocument implements terse.Store.
func (l *lateStore) DeleteDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string, ifVersion uint64) error {
	return tell(l, func(s terse.Store) error { return s.DeleteDocument(ctx, w, kind, id, ifVersion) })
}

// ListDocuments implements terse.Store.
func (l *lateStore) ListDocuments(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, after string, limit int) ([]terse.Document, error) {
	return ask(l, func(s terse.Store) ([]terse.Document, error) { return s.ListDocuments(ctx, w, kind, after, limit) })
}

// Changes implements terse.Store.
func (l *lateStore) Changes(ctx context.Context, after uint64, limit int) ([]terse.Change, error) {
	return ask(l, func(s terse.Store) ([]terse.Change, error) { return s.Changes(ctx, after, limit) })
}

// Ping implements terse.Store.
func (l *lateStore) Ping(ctx context.Context) error {
	return tell(l, func(s terse.Store) error { return s.Ping(ctx) })
}

// Close implements terse.Store. A store that was never opened needs none.
func (l *lateStore) Close() error {
	if s, err := l.store(); err == nil {
		return s.Close()
	}
	return nil
}
