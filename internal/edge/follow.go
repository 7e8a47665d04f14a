package edge

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/changes"
	"github.com/terselink/terse/internal/edge/wire"
	"github.com/terselink/terse/internal/linkjson"
)

const (
	// forgottenAfter is how long the feed may not have been followed before changes may have been forgotten: stores keep
	// them for a day.
	forgottenAfter = terse.Millis(20 * time.Hour / time.Millisecond)
	// noteEvery is how often the copy is told that there was nothing new.
	noteEvery = terse.Millis(time.Minute / time.Millisecond)
	// pauseFirst and pauseMost are the pauses after failures.
	pauseFirst = 100 * time.Millisecond
	pauseMost  = time.Second
)

// Run follows the feed until ctx ends: it applies what has changed to the copy, and then tells target. Whatever fails is tried again.
func (s *Store) Run(ctx context.Context, target changes.Target) {
	pause, away := pauseFirst, false
	at := *s.copy.state.Load()
	for ctx.Err() == nil {
		err := s.follow(ctx, &at, target)
		switch {
		case err == nil:
			if away {
				s.o.Log.Info("the changes of the upstream control plane are followed again")
			}
			pause, away = pauseFirst, false
			continue
		case ctx.Err() != nil:
			return
		case !away:
			s.o.Log.Warn("the changes of the upstream control plane cannot be followed: redirects go on from the copy", "error", err)
		}
		away = true
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, pauseMost)
	}
}

// follow reads the feed once. at is how far it was read, also if the copy cannot be written any more.
func (s *Store) follow(ctx context.Context, at *state, target changes.Target) error {
	if s.o.Clock()-at.FollowedAt > forgottenAfter {
		return s.startOver(ctx, at, target, "it was out of reach for so long that changes may have been forgotten")
	}
	asked := time.Now()
	page, err := s.o.Client.changes(ctx, at.Position, at.Mark)
	if err != nil {
		return err
	}
	if page.Epoch != at.Epoch && page.Epoch != "" { // an older version says none
		return s.startOver(ctx, at, target, "its feed is another one")
	}
	if page.Reset {
		return s.startOver(ctx, at, target, "it has forgotten changes that this edge node has not heard of, or has another feed")
	}
	if err := s.apply(ctx, page, target); err != nil {
		return err
	}
	last := lastPage(page, at.Position)
	at.Position, at.Mark, at.FollowedAt = page.Position, page.Mark, s.o.Clock()
	if last { // else what was switched off may be on a later one
		s.heard.Store(asked.UnixMilli())
	}
	return nil
}

// lastPage reports whether a page, asked for after a position, is all that there was. A control plane of an older version does
// not say so: it is if the page cannot be full.
func lastPage(page *wire.EdgeChanges, after uint64) bool {
	if page.More != nil {
		return !*page.More
	}
	size := 0
	for _, l := range page.Links {
		size += len(l)
	}
	for i := range page.Documents {
		size += len(page.Documents[i].Data)
	}
	// Not all changes are in the page. Half: what is sent may be written in fewer bytes than what was counted.
	return page.Position-after < wire.PageChanges && size < wire.PageBytes/2
}

// startOver reads again what Sync reads, and doubts the rest.
func (s *Store) startOver(ctx context.Context, at *state, target changes.Target, why string) error {
	asked := time.Now()
	next, err := s.readAgain(ctx)
	if err != nil && !errors.Is(err, errCopy) { // a copy that cannot be written stays in doubt
		return err
	}
	s.o.Log.Warn("everything is read again from the upstream control plane", "because", why)
	if err := s.settle(target.Everything(ctx)); err != nil {
		return err
	}
	*at = next
	s.heard.Store(asked.UnixMilli())
	return nil
}

// apply applies a page to the copy, as a whole, and then has the target apply it.
func (s *Store) apply(ctx context.Context, page *wire.EdgeChanges, target changes.Target) error {
	var inserted []terse.Run
	updated, deleted := map[terse.LinkNumber]uint64{}, map[terse.LinkNumber]uint64{}
	for _, c := range page.Changes {
		for _, r := range c.Runs {
			switch c.Kind {
			case terse.ChangeInserted:
				inserted = append(inserted, terse.Run{First: r.First, Count: r.Count})
			case terse.ChangeUpdated:
				updated[r.First] = c.Version
			case terse.ChangeDeleted:
				deleted[r.First] = c.Version
			}
		}
	}
	if err := s.applyToCopy(ctx, page, updated, deleted); err != nil && !errors.Is(err, errCopy) {
		return err // with a copy out of service the plane goes on
	}
	// Documents first: a domain may say what codes the links have.
	for i := range page.Documents {
		d := &page.Documents[i]
		if err := s.settle(target.Document(ctx, d.Workspace, d.Kind, d.ID)); err != nil {
			return err
		}
	}
	if len(inserted)+len(updated)+len(deleted) == 0 {
		return nil
	}
	s.stats.changes.Add(uint64(len(updated) + len(deleted)))
	return s.settle(target.Feed(ctx, inserted, updated, deleted))
}

// settle returns an error of the target if the change has to come again, and logs any other: one that can never be applied, such
// as a document that cannot be decoded, does not keep all later ones away. What visitors want kept ends with it (package auth).
func (s *Store) settle(err error) error {
	if err == nil || errors.Is(err, terse.ErrUnavailable) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	s.o.Log.Error("a change is not in force on this edge node", "error", err)
	return nil
}

// applyToCopy writes what a page says, and its position, in one batch.
func (s *Store) applyToCopy(ctx context.Context, page *wire.EdgeChanges, updated, deleted map[terse.LinkNumber]uint64) error {
	c := s.copy
	next := *c.state.Load()
	if next.Position == page.Position && next.Mark == page.Mark && s.o.Clock()-next.FollowedAt < noteEvery {
		return nil // nothing new, as every second
	}
	next.Position, next.Mark, next.FollowedAt = page.Position, page.Mark, s.o.Clock()
	now := make(map[terse.LinkNumber]terse.Link, len(page.Links))
	for _, payload := range page.Links {
		l, err := linkjson.Unmarshal(payload)
		if err != nil {
			return unavailable("the upstream control plane answers something else", err)
		}
		now[l.Number] = l
	}
	err := c.now(ctx, func(b *pebble.Batch) error {
		for n, version := range updated {
			l, ok := now[n]
			if !ok { // it was deleted since
				c.recent.note(n, version)
				if err := c.dropLink(b, n); err != nil {
					return err
				}
				continue
			}
			c.recent.note(n, l.Version)
			if err := c.putLink(b, &l, next.Generation, false); err != nil {
				return err
			}
		}
		for n := range deleted {
			c.recent.note(n, deletedVersion)
			if err := c.dropLink(b, n); err != nil {
				return err
			}
		}
		if len(page.Documents) > 0 {
			c.docs.Add(1)
		}
		for i := range page.Documents {
			d := page.Documents[i].Stored()
			var err error
			if d.Version == 0 {
				err = b.Delete(documentKey(d.Workspace, d.Kind, d.ID), nil)
			} else {
				err = c.putDocument(b, &d, next.Generation)
			}
			if err != nil {
				return err
			}
		}
		return setState(b, &next)
	})
	if err == nil {
		c.state.Store(&next)
	}
	return err
}
