// Package metricstore wraps a store and measures its calls for Prometheus: how
// long each operation takes, how it ends, and how many links were inserted. It
// changes no call and no answer.
//
// Labels are fixed sets; all children are made by New, so a call costs two
// readings of the clock and a few atomic additions.
package metricstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse"
)

// The operations, as they are labelled.
const (
	opLease = iota
	opNext
	opReservations
	opInsertLinks
	opGetLinks
	opGetAlias
	opFindPlain
	opUpdateLink
	opDeleteLink
	opListLinks
	opCountLinks
	opPurgeLinks
	opGetDocument
	opPutDocument
	opDeleteDocument
	opListDocuments
	opChanges
	opPing
	numOps
)

var opNames = [numOps]string{
	"lease", "next", "reservations", "insert_links", "get_links", "get_alias", "find_plain", "update_link", "delete_link",
	"list_links", "count_links", "purge_links", "get_document", "put_document", "delete_document", "list_documents", "changes", "ping",
}

// The ways a call ends. Refused is a proper answer: not found, a conflict, a
// version, bad input. The rest but ok are worth an alarm.
const (
	ok = iota
	refused
	cancelled
	unavailable
	unknown
	internal
	numOutcomes
)

var outcomeNames = [numOutcomes]string{"ok", "refused", "cancelled", "unavailable", "unknown_outcome", "internal"}

// Store measures the calls of another store. Make one with New.
type Store struct {
	inner    terse.Store
	now      func() time.Time
	seconds  [numOps]prometheus.Observer
	calls    [numOps][numOutcomes]prometheus.Counter
	inserted prometheus.Counter
}

var _ terse.Store = (*Store)(nil)

// New returns a store that passes every call on to inner and registers its
// metrics with reg: the histogram terse_store_seconds{op}, and the counters
// terse_store_calls_total{op,outcome} and terse_store_links_inserted_total. The
// clock measures the calls. Returns an error if reg refuses a metric, as it does
// if another store is registered there.
func New(inner terse.Store, reg prometheus.Registerer, now func() time.Time) (*Store, error) {
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "terse_store_seconds",
		Help: "Duration of store operations in seconds.",
		// From a read out of memory to a stalled fsync: 10 µs to 10 s in steps of about 3.
		Buckets: []float64{10e-6, 30e-6, 100e-6, 300e-6, 1e-3, 3e-3, 10e-3, 30e-3, 100e-3, 300e-3, 1, 3, 10},
	}, []string{"op"})
	calls := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "terse_store_calls_total",
		Help: "Store operations by how they ended.",
	}, []string{"op", "outcome"})
	inserted := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "terse_store_links_inserted_total",
		Help: "Links of the inserts that returned without error.",
	})
	for _, c := range []prometheus.Collector{seconds, calls, inserted} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register store metrics: %w", err)
		}
	}
	s := &Store{inner: inner, now: now, inserted: inserted}
	for op, name := range opNames {
		s.seconds[op] = seconds.WithLabelValues(name)
		for outcome, end := range outcomeNames {
			s.calls[op][outcome] = calls.WithLabelValues(name, end)
		}
	}
	return s, nil
}

// observe counts a call that began at the given time and returns its error.
func (s *Store) observe(op int, begin time.Time, err error) error {
	s.seconds[op].Observe(s.now().Sub(begin).Seconds())
	s.calls[op][outcomeOf(err)].Inc()
	return err
}

// outcomeOf says how a call ended. An unknown outcome is reported as such even
// if a cancelled context was the cause.
func outcomeOf(err error) int {
	switch {
	case err == nil:
		return ok
	case errors.Is(err, terse.ErrUnknownOutcome):
		return unknown
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return cancelled
	case errors.Is(err, terse.ErrAliasTaken):
		return refused
	}
	switch terse.ErrorCode(err) {
	case terse.CodeUnavailable:
		return unavailable
	case terse.CodeInternal:
		return internal
	}
	return refused
}

// Lease implements terse.Store.
func (s *Store) Lease(ctx context.Context, req terse.LeaseRequest) (terse.Lease, error) {
	begin := s.now()
	l, err := s.inner.Lease(ctx, req)
	return l, s.observe(opLease, begin, err)
}

// Next implements terse.Store.
func (s *Store) Next(ctx context.Context, d terse.DomainID, sp terse.SpaceID) (uint64, error) {
	begin := s.now()
	n, err := s.inner.Next(ctx, d, sp)
	return n, s.observe(opNext, begin, err)
}

// Reservations implements terse.Store.
func (s *Store) Reservations(ctx context.Context, d terse.DomainID, sp terse.SpaceID, from uint64, limit int) ([]uint64, error) {
	begin := s.now()
	list, err := s.inner.Reservations(ctx, d, sp, from, limit)
	return list, s.observe(opReservations, begin, err)
}

// InsertLinks implements terse.Store.
func (s *Store) InsertLinks(ctx context.Context, chunk *terse.Chunk) error {
	begin := s.now()
	err := s.inner.InsertLinks(ctx, chunk)
	if err == nil {
		s.inserted.Add(float64(len(chunk.Links)))
	}
	return s.observe(opInsertLinks, begin, err)
}

// GetLinks implements terse.Store.
func (s *Store) GetLinks(ctx context.Context, keys []terse.LinkKey, dst []terse.Link) error {
	begin := s.now()
	return s.observe(opGetLinks, begin, s.inner.GetLinks(ctx, keys, dst))
}

// GetAlias implements terse.Store.
func (s *Store) GetAlias(ctx context.Context, d terse.DomainID, alias string) (terse.Link, error) {
	begin := s.now()
	l, err := s.inner.GetAlias(ctx, d, alias)
	return l, s.observe(opGetAlias, begin, err)
}

// FindPlain implements terse.Store.
func (s *Store) FindPlain(ctx context.Context, w terse.WorkspaceID, d terse.DomainID, destination string, at terse.Millis) (terse.Link, error) {
	begin := s.now()
	l, err := s.inner.FindPlain(ctx, w, d, destination, at)
	return l, s.observe(opFindPlain, begin, err)
}

// UpdateLink implements terse.Store.
func (s *Store) UpdateLink(ctx context.Context, link *terse.Link, ifVersion uint64) error {
	begin := s.now()
	return s.observe(opUpdateLink, begin, s.inner.UpdateLink(ctx, link, ifVersion))
}

// DeleteLink implements terse.Store.
func (s *Store) DeleteLink(ctx context.Context, key terse.LinkKey, ifVersion uint64) error {
	begin := s.now()
	return s.observe(opDeleteLink, begin, s.inner.DeleteLink(ctx, key, ifVersion))
}

// ListLinks implements terse.Store.
func (s *Store) ListLinks(ctx context.Context, w terse.WorkspaceID, q terse.ListQuery) (terse.LinkPage, error) {
	begin := s.now()
	p, err := s.inner.ListLinks(ctx, w, q)
	return p, s.observe(opListLinks, begin, err)
}

// CountLinks implements terse.Store.
func (s *Store) CountLinks(ctx context.Context, w terse.WorkspaceID, c terse.CampaignID) (uint64, error) {
	begin := s.now()
	n, err := s.inner.CountLinks(ctx, w, c)
	return n, s.observe(opCountLinks, begin, err)
}

// PurgeLinks implements terse.Store.
func (s *Store) PurgeLinks(ctx context.Context, w terse.WorkspaceID, c terse.CampaignID, limit int) (int, error) {
	begin := s.now()
	n, err := s.inner.PurgeLinks(ctx, w, c, limit)
	return n, s.observe(opPurgeLinks, begin, err)
}

// GetDocument implements terse.Store.
func (s *Store) GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error) {
	begin := s.now()
	d, err := s.inner.GetDocument(ctx, w, kind, id)
	return d, s.observe(opGetDocument, begin, err)
}

// PutDocument implements terse.Store.
func (s *Store) PutDocument(ctx context.Context, doc terse.Document) error {
	begin := s.now()
	return s.observe(opPutDocument, begin, s.inner.PutDocument(ctx, doc))
}

// DeleteDocument implements terse.Store.
func (s *Store) DeleteDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string, ifVersion uint64) error {
	begin := s.now()
	return s.observe(opDeleteDocument, begin, s.inner.DeleteDocument(ctx, w, kind, id, ifVersion))
}

// ListDocuments implements terse.Store.
func (s *Store) ListDocuments(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, after string, limit int) ([]terse.Document, error) {
	begin := s.now()
	list, err := s.inner.ListDocuments(ctx, w, kind, after, limit)
	return list, s.observe(opListDocuments, begin, err)
}

// Changes implements terse.Store.
func (s *Store) Changes(ctx context.Context, after uint64, limit int) ([]terse.Change, error) {
	begin := s.now()
	list, err := s.inner.Changes(ctx, after, limit)
	return list, s.observe(opChanges, begin, err)
}

// Ping implements terse.Store.
func (s *Store) Ping(ctx context.Context) error {
	begin := s.now()
	return s.observe(opPing, begin, s.inner.Ping(ctx))
}

// Close implements terse.Store. It is not measured.
func (s *Store) Close() error { return s.inner.Close() }
