package storetest_test

import (
	"context"
	"sync"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/memstore"
	"github.com/terselink/terse/internal/store/storetest"
)

// TestLatitude shows that the suite leaves engines the freedom that Opts states:
// a store that uses all of it passes.
func TestLatitude(t *testing.T) {
	o := storetest.Opts{
		New:            func(testing.TB) terse.Store { return newLiberal(memstore.New(nil), 100) },
		Retry:          func(attempt int) bool { return attempt < 5 },
		MaxAtomicChunk: 100,
	}
	t.Run("Run", func(t *testing.T) { storetest.Run(t, o) })
	t.Run("RunModel", func(t *testing.T) { storetest.RunModel(t, o) })
}

// liberal takes small chunks only, forgets the codes of generated links, and has
// an index for listings and a change feed that come later.
type liberal struct {
	*memstore.Store
	maxChunk int // 0: no limit

	mu      sync.Mutex
	calls   int
	index   *memstore.Store
	pending []func()
	visible uint64
}

func newLiberal(s *memstore.Store, maxChunk int) *liberal {
	return &liberal{Store: s, maxChunk: maxChunk, index: memstore.New(nil)}
}

func (s *liberal) InsertLinks(ctx context.Context, chunk *terse.Chunk) error {
	if s.maxChunk > 0 && len(chunk.Links)+len(chunk.Documents) > s.maxChunk {
		return &terse.Error{Code: terse.CodeTooLarge, Message: "the chunk is too large"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	stored := terse.Chunk{Links: make([]terse.Link, len(chunk.Links)), Documents: chunk.Documents}
	for i, l := range chunk.Links {
		if l.Number != 0 && !l.Named() {
			l.Code = ""
		}
		stored.Links[i] = l
	}
	err := s.Store.InsertLinks(ctx, &stored)
	if err == nil {
		keys := make([]terse.LinkKey, len(stored.Links))
		for i := range keys {
			keys[i].Number = stored.Links[i].Number
		}
		own := make([]terse.Link, len(keys))
		// The links are in: a context that ends now must not make the insert look as if it were not.
		if err := s.GetLinks(context.WithoutCancel(ctx), keys, own); err != nil {
			return err
		}
		s.pending = append(s.pending, func() { must(s.index.InsertLinks(context.Background(), &terse.Chunk{Links: own})) })
	}
	return err
}

func (s *liberal) UpdateLink(ctx context.Context, l *terse.Link, ifVersion uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.Store.UpdateLink(ctx, l, ifVersion)
	if err == nil {
		own := *l
		s.pending = append(s.pending, func() { must(s.index.UpdateLink(context.Background(), &own, ifVersion)) })
	}
	return err
}

func (s *liberal) DeleteLink(ctx context.Context, key terse.LinkKey, ifVersion uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.Store.DeleteLink(ctx, key, ifVersion)
	if err == nil {
		s.pending = append(s.pending, func() { must(s.index.DeleteLink(context.Background(), key, 0)) })
	}
	return err
}

// catchUp brings index and feed up to date at every third call.
func (s *liberal) catchUp() {
	s.calls++
	if s.calls%3 != 0 {
		return
	}
	for _, apply := range s.pending {
		apply()
	}
	s.pending = nil
	list, err := s.Store.Changes(context.Background(), s.visible, 1<<30)
	if err == nil && len(list) > 0 {
		s.visible = list[len(list)-1].Seq
	}
}

func (s *liberal) ListLinks(ctx context.Context, w terse.WorkspaceID, q terse.ListQuery) (terse.LinkPage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.Ping(ctx); err != nil {
		return terse.LinkPage{}, err
	}
	s.catchUp()
	return s.index.ListLinks(ctx, w, q)
}

func (s *liberal) CountLinks(ctx context.Context, w terse.WorkspaceID, c terse.CampaignID) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Store.CountLinks(ctx, w, c)
}

func (s *liberal) PurgeLinks(ctx context.Context, w terse.WorkspaceID, c terse.CampaignID, limit int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if limit <= 10_000 {
		limit = min(limit, 7) // less than asked for
	}
	n, err := s.Store.PurgeLinks(ctx, w, c, limit)
	s.pending = append(s.pending, func() {
		if n > 0 {
			_, err := s.index.PurgeLinks(context.Background(), w, c, n)
			must(err)
		}
	})
	return n, err
}

func (s *liberal) Changes(ctx context.Context, after uint64, limit int) ([]terse.Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.catchUp()
	list, err := s.Store.Changes(ctx, after, limit)
	for i := range list {
		if list[i].Seq > s.visible {
			return list[:i], err
		}
	}
	return list, err
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
