package facts

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/terselink/terse"
)

// FeedID is the document of KindMeta, of the instance, that a store has whose content came from another store: where the
// numbers of its changes begin for an engine. They begin at 1 in every store, so an engine that has followed the first
// store would take its place in there for one in the second, and wait for changes that have other numbers. A store
// without the document begins at 0.
const FeedID = "feed"

// feedSize is the largest number of a change of one feed: positions of different feeds are in different blocks of so many.
// PostgreSQL makes the numbers of its transactions a million times as large.
const feedSize = 1 << 52

// Documents is what NewFeed needs of a terse.Store.
type Documents interface {
	GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error)
	PutDocument(ctx context.Context, doc terse.Document) error
}

// NewFeed gives the feed of a store another beginning, chosen at random: engines that followed another store, whatever
// they know of it, are told everything again. It may be repeated. Durable on return. Returns ErrVersion if somebody else does the same.
func NewFeed(ctx context.Context, s Documents) error {
	doc, err := s.GetDocument(ctx, 0, terse.KindMeta, FeedID)
	if err != nil && !errors.Is(err, terse.ErrNotFound) {
		return fmt.Errorf("read the beginning of the feed: %w", err)
	}
	base := (1 + rand.Uint64N(1<<10-1)) * feedSize // also as a signed number
	doc = terse.Document{Kind: terse.KindMeta, ID: FeedID, Version: doc.Version + 1, Data: strconv.AppendUint(nil, base, 10)}
	if err := s.PutDocument(ctx, doc); err != nil {
		return fmt.Errorf("note the beginning of the feed: %w", err)
	}
	return nil
}

// readBase reads where the numbers of changes begin.
func (f *Feeder) readBase(ctx context.Context) error {
	doc, err := f.o.Store.GetDocument(ctx, 0, terse.KindMeta, FeedID)
	switch {
	case errors.Is(err, terse.ErrNotFound):
		f.base = 0
		return nil
	case err != nil:
		return fmt.Errorf("read the beginning of the feed: %w", err)
	}
	if f.base, err = strconv.ParseUint(string(doc.Data), 10, 64); err != nil {
		return fmt.Errorf("read the beginning of the feed: %w", err)
	}
	return nil
}

// place asks the engine up to which change of this feed it knows the facts; false if it has to be told everything.
func (f *Feeder) place(ctx context.Context) (seq uint64, known bool, err error) {
	at, known, err := f.o.Sink.FactsAt(ctx)
	if err != nil || !known || at < f.base || at-f.base >= feedSize {
		return 0, false, err
	}
	return at - f.base, true, nil
}
