package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/terselink/terse"
)

// next returns the link with its next version and another destination.
func (c *scope) next(l terse.Link) terse.Link {
	l.Version++
	l.UpdatedAt = c.now()
	l.Destination = fmt.Sprintf("https://example.com/version/%d", l.Version)
	l.Values = ""
	return l
}

// testVersions checks updates and deletions against the version the caller saw.
func testVersions(t *testing.T, s *suite) {
	key := func(l terse.Link) terse.LinkKey { return terse.LinkKey{Number: l.Number, Code: l.Code} }

	t.Run("update replaces every field", func(t *testing.T) {
		c := s.scope(t)
		links := append(c.links(130), c.fullLink(), c.alias("changed"))
		c.mustInsert(links...)
		for _, i := range []int{0, 64, 129, 130, 131} {
			old := links[i]
			links[i] = c.fullLink() // for its fields
			links[i].Number, links[i].Code, links[i].CreatedAt, links[i].Version = old.Number, old.Code, old.CreatedAt, old.Version+1
			wantErr(t, "UpdateLink to everything", s.store.UpdateLink(c.ctx, &links[i], old.Version), nil)
			c.wantStored(links...)
			bare := old
			bare.Version, bare.Settings, bare.Campaign = old.Version+2, nil, 0
			links[i] = c.next(bare)
			wantErr(t, "UpdateLink to nothing", s.store.UpdateLink(c.ctx, &links[i], old.Version+1), nil)
			c.wantStored(links...)
		}
	})

	t.Run("a version may be skipped", func(t *testing.T) {
		c := s.scope(t)
		l := c.links(1)[0]
		c.mustInsert(l)
		l.Version = 40
		wantErr(t, "UpdateLink", s.store.UpdateLink(c.ctx, &l, 1), nil)
		c.wantStored(l)
	})

	t.Run("update with another version changes nothing", func(t *testing.T) {
		c := s.scope(t)
		l := c.links(1)[0]
		l.Version = 3
		c.mustInsert(l)
		for _, seen := range []uint64{0, 1, 2, 4, 1 << 62} {
			changed := c.next(l)
			changed.Version = seen + 1
			wantErr(t, fmt.Sprintf("UpdateLink of version 3 that saw %d", seen), s.store.UpdateLink(c.ctx, &changed, seen), terse.ErrVersion)
			c.wantStored(l)
		}
		for _, version := range []uint64{0, 2, 3} {
			changed := c.next(l)
			changed.Version = version
			wantInvalid(t, "UpdateLink to a version that is not larger", s.store.UpdateLink(c.ctx, &changed, 3), "version")
			c.wantStored(l)
		}
	})

	t.Run("delete checks the version", func(t *testing.T) {
		c := s.scope(t)
		links := append(c.links(3), c.alias("deleted"))
		c.mustInsert(links...)
		for _, l := range links[1:] {
			wantErr(t, "DeleteLink", s.store.DeleteLink(c.ctx, key(l), 2), terse.ErrVersion)
			c.wantStored(l)
			wantErr(t, "DeleteLink", s.store.DeleteLink(c.ctx, key(l), 1), nil)
			c.wantAbsent(l)
			for _, version := range []uint64{0, 1, 2} {
				wantErr(t, "DeleteLink again", s.store.DeleteLink(c.ctx, key(l), version), terse.ErrNotFound)
			}
			changed := c.next(l)
			wantErr(t, "UpdateLink of a deleted link", s.store.UpdateLink(c.ctx, &changed, 1), terse.ErrNotFound)
			c.wantAbsent(l)
		}
		c.wantAliasFree("deleted")
		c.wantStored(links[0])
	})

	t.Run("delete after an update", func(t *testing.T) {
		c := s.scope(t)
		links := c.links(70)
		c.mustInsert(links...)
		v2 := c.next(links[10])
		wantErr(t, "UpdateLink", s.store.UpdateLink(c.ctx, &v2, 1), nil)
		wantErr(t, "DeleteLink of the old version", s.store.DeleteLink(c.ctx, key(v2), 1), terse.ErrVersion)
		c.wantStored(v2)
		wantErr(t, "DeleteLink", s.store.DeleteLink(c.ctx, key(v2), 2), nil)
		c.wantAbsent(v2)
		c.wantStored(links[9], links[11])
	})

	t.Run("what never was is not found", func(t *testing.T) {
		c := s.scope(t)
		c.mustInsert(c.links(1)...)
		ghost := c.links(1)[0]
		ghost.Version = 2
		wantErr(t, "UpdateLink", s.store.UpdateLink(c.ctx, &ghost, 1), terse.ErrNotFound)
		wantErr(t, "DeleteLink", s.store.DeleteLink(c.ctx, key(ghost), 0), terse.ErrNotFound)
		c.wantAbsent(ghost)
		c.mustInsert(ghost) // its number is still free
		c.wantStored(ghost)
	})

	t.Run("of many updates one wins", func(t *testing.T) {
		c := s.scope(t)
		l := c.links(100)[50]
		c.mustInsert(l)
		for round := range 5 {
			const goroutines = 16
			next := make([]terse.Link, goroutines)
			errs := make([]error, goroutines)
			var wg sync.WaitGroup
			for i := range next {
				next[i] = c.next(l)
				next[i].Destination = fmt.Sprintf("https://example.com/%d/%d", round, i)
				wg.Go(func() { errs[i] = s.store.UpdateLink(c.ctx, &next[i], l.Version) })
			}
			wg.Wait()
			l = next[oneWinner(t, errs, terse.ErrVersion)]
			c.wantStored(l)
		}
	})

	t.Run("of update and delete one wins", func(t *testing.T) {
		c := s.scope(t)
		for round := range 20 {
			l := c.alias(fmt.Sprintf("contested-%d", round))
			c.mustInsert(l)
			changed := c.next(l)
			var update, del error
			var wg sync.WaitGroup
			wg.Go(func() { update = s.store.UpdateLink(c.ctx, &changed, 1) })
			wg.Go(func() { del = s.store.DeleteLink(c.ctx, key(l), 1) })
			wg.Wait()
			switch {
			case update == nil && errors.Is(del, terse.ErrVersion):
				c.wantStored(changed)
			case del == nil && errors.Is(update, terse.ErrNotFound):
				c.wantAbsent(l)
				c.wantAliasFree(l.Code)
			default:
				t.Fatalf("update: %v, delete: %v", update, del)
			}
		}
	})

	t.Run("counted updates are not lost", func(t *testing.T) {
		c := s.scope(t)
		l := c.alias("counter")
		c.mustInsert(l)
		const goroutines, each = 8, 5
		var wg sync.WaitGroup
		for range goroutines {
			wg.Go(func() {
				for done := 0; done < each; {
					cur, err := s.store.GetAlias(c.ctx, c.d, l.Code)
					if err != nil {
						t.Errorf("GetAlias: %v", err)
						return
					}
					seen := cur.Version
					cur.Version++
					switch err := s.store.UpdateLink(c.ctx, &cur, seen); {
					case err == nil:
						done++
					case !errors.Is(err, terse.ErrVersion):
						t.Errorf("UpdateLink: %v", err)
						return
					}
				}
			})
		}
		wg.Wait()
		if got := c.get(l)[0].Version; got != 1+goroutines*each {
			t.Fatalf("version %d after %d updates of version 1", got, goroutines*each)
		}
	})
}

// oneWinner returns the index of the only nil error; every other must be loser.
func oneWinner(t tb, errs []error, loser error) int {
	t.Helper()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			t.Fatalf("both %d and %d won", winner, i)
		case err == nil:
			winner = i
		case !errors.Is(err, loser):
			t.Fatalf("call %d: got error %v, want %v", i, err, loser)
		}
	}
	if winner < 0 {
		t.Fatal("nobody won")
	}
	return winner
}
