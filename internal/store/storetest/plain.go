package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/terselink/terse"
)

// find returns the number of a plain link with the destination, 0 if there is none.
func (c *scope) find(destination string, at terse.Millis) terse.LinkNumber {
	c.Helper()
	l, err := c.store.FindPlain(c.ctx, c.w, c.d, destination, at)
	if errors.Is(err, terse.ErrNotFound) {
		return 0
	}
	if err != nil {
		c.Fatalf("FindPlain of %q: %v", destination, err)
	}
	if l.Destination != destination || l.Workspace != c.w || l.Number.Domain() != c.d || !l.Plain() || l.ExpiredAt(at) {
		c.Fatalf("FindPlain of %q at %d: got %+v", destination, at, l)
	}
	return l.Number
}

// wantFound fails the test unless FindPlain finds the link; the zero Link means none.
func (c *scope) wantFound(destination string, at terse.Millis, want terse.Link) {
	c.Helper()
	if got := c.find(destination, at); got != want.Number {
		c.Fatalf("FindPlain of %q at %d: got %v, want %v", destination, at, got, want.Number)
	}
}

// testPlain checks that FindPlain sees every plain link at once, and no other.
func testPlain(t *testing.T, s *suite) {
	t.Run("at once after one insert", func(t *testing.T) {
		c := s.scope(t)
		for i := range 50 {
			l := c.links(1)[0]
			l.Destination = fmt.Sprintf("https://example.com/single/%d", i)
			c.wantFound(l.Destination, epoch, terse.Link{})
			c.mustInsert(l)
			c.wantFound(l.Destination, epoch, l)
		}
	})

	t.Run("at once after a bulk insert", func(t *testing.T) {
		c := s.scope(t)
		n := largeChunk
		if s.o.SkipLarge || testing.Short() {
			n = 500
		}
		links := c.links(n)
		c.mustInsert(links...)
		for i := 0; i < n; i += 1 + n/40 {
			c.wantFound(links[i].Destination, epoch, links[i])
		}
		c.wantFound(links[n-1].Destination, epoch, links[n-1])
		later := c.links(200)
		c.mustInsert(later...)
		c.wantFound(later[0].Destination, epoch, later[0])
		c.wantFound(later[199].Destination, epoch, later[199])
	})

	t.Run("at once while others insert", func(t *testing.T) {
		c := s.scope(t)
		const goroutines, each = 8, 10
		links := c.links(goroutines * each)
		var wg sync.WaitGroup
		for g := range goroutines {
			wg.Go(func() {
				for _, l := range links[g*each : (g+1)*each] {
					if err := c.insert(l); err != nil {
						t.Errorf("InsertLinks: %v", err)
						return
					}
					if got, err := s.store.FindPlain(c.ctx, c.w, c.d, l.Destination, epoch); err != nil || got.Number != l.Number {
						t.Errorf("FindPlain after the insert of %s: %s, %v", l.Number, got.Number, err)
					}
				}
			})
		}
		wg.Wait()
	})

	t.Run("only plain links", func(t *testing.T) {
		yes := true
		for name, change := range map[string]func(l *terse.Link){
			"campaign":            func(l *terse.Link) { l.Campaign = 9 },
			"external id":         func(l *terse.Link) { l.ExternalID = "x" },
			"blocked":             func(l *terse.Link) { l.Status = terse.StatusBlocked },
			"web":                 func(l *terse.Link) { l.Settings = &terse.LinkSettings{Web: &terse.LinkWeb{Sticky: terse.StickyHash}} },
			"disabled":            func(l *terse.Link) { l.Status = terse.StatusDisabled },
			"redirect status":     func(l *terse.Link) { l.RedirectStatus = 301 },
			"expiry":              func(l *terse.Link) { l.ExpiresAt = epoch * 2 },
			"title":               func(l *terse.Link) { l.Settings = &terse.LinkSettings{Title: "t"} },
			"tags":                func(l *terse.Link) { l.Settings = &terse.LinkSettings{Tags: []string{"t"}} },
			"metadata":            func(l *terse.Link) { l.Settings = &terse.LinkSettings{Metadata: map[string]string{"k": "v"}} },
			"start":               func(l *terse.Link) { l.Settings = &terse.LinkSettings{StartsAt: 1} },
			"expired destination": func(l *terse.Link) { l.Settings = &terse.LinkSettings{ExpiredDestination: "https://example.com/"} },
			"click limit":         func(l *terse.Link) { l.Settings = &terse.LinkSettings{MaxClicks: 1} },
			"password":            func(l *terse.Link) { l.Settings = &terse.LinkSettings{PasswordHash: "h"} },
			"query":               func(l *terse.Link) { l.Settings = &terse.LinkSettings{ForwardQuery: &yes} },
			"path":                func(l *terse.Link) { l.Settings = &terse.LinkSettings{ForwardPath: true} },
			"rules": func(l *terse.Link) {
				l.Settings = &terse.LinkSettings{Rules: []terse.Rule{{Destination: "https://example.com/"}}}
			},
		} {
			t.Run(name, func(t *testing.T) {
				c := s.scope(t)
				links := c.links(130)
				change(&links[5])
				c.mustInsert(links...)
				c.wantFound(links[5].Destination, epoch, terse.Link{})
				c.wantFound(links[6].Destination, epoch, links[6])
				single := c.links(1)[0]
				change(&single)
				c.mustInsert(single)
				c.wantFound(single.Destination, epoch, terse.Link{})
			})
		}
		t.Run("alias", func(t *testing.T) {
			c := s.scope(t)
			a := c.alias("plain")
			c.mustInsert(a)
			c.wantFound(a.Destination, epoch, terse.Link{})
		})
	})

	t.Run("with what is no setting", func(t *testing.T) {
		c := s.scope(t)
		l := c.links(1)[0]
		l.Settings = &terse.LinkSettings{CreatedBy: "key_1"}
		c.mustInsert(l)
		c.wantFound(l.Destination, epoch, l)
	})

	t.Run("of its workspace and domain", func(t *testing.T) {
		c := s.scope(t)
		o := c.other()
		l := c.links(1)[0]
		c.mustInsert(l)
		for _, pair := range []scope{{w: c.w, d: o.d}, {w: o.w, d: c.d}, {w: o.w, d: o.d}} {
			_, err := s.store.FindPlain(c.ctx, pair.w, pair.d, l.Destination, epoch)
			wantErr(t, "FindPlain elsewhere", err, terse.ErrNotFound)
		}
	})

	t.Run("by all its bytes", func(t *testing.T) {
		c := s.scope(t)
		long := "https://example.com/" + strings.Repeat("p", 8<<10-24)
		dests := []string{
			"https://example.com/A", "https://example.com/a", "https://example.com/a/", "https://example.com/a?", "https://example.com/a#",
			"https://example.com/%C3%BC", "https://example.com/%c3%bc", "https://example.com/%75",
			"https://example.com/%", "https://example.com/_", "https://example.com/'\"\\", "http://example.com/a",
			long + "aaaa", long + "aaab", long,
		}
		links := c.links(len(dests))
		for i := range links {
			links[i].Destination = dests[i]
		}
		c.mustInsert(links...)
		for _, l := range links {
			c.wantFound(l.Destination, epoch, l)
		}
		for _, d := range []string{"", "https://example.com/", "https://example.com/aa", "HTTPS://example.com/a", long[:len(long)-1]} {
			c.wantFound(d, epoch, terse.Link{})
		}
	})

	t.Run("follows updates and deletions", func(t *testing.T) {
		c := s.scope(t)
		links := c.links(130)
		c.mustInsert(links...)
		for _, i := range []int{0, 64, 129} {
			v1 := links[i]
			v2 := c.next(v1)
			v2.Destination = fmt.Sprintf("https://example.com/moved/%d", i)
			v3 := v2
			v3.Version, v3.ExternalID = 3, "no longer plain"
			v4 := v1
			v4.Version = 4
			for _, step := range []struct {
				from, to terse.Link
				found    bool
			}{{v1, v2, true}, {v2, v3, false}, {v3, v4, true}} {
				wantErr(t, "UpdateLink", s.store.UpdateLink(c.ctx, &step.to, step.from.Version), nil)
				if step.from.Destination != step.to.Destination {
					c.wantFound(step.from.Destination, epoch, terse.Link{})
				}
				if step.found {
					c.wantFound(step.to.Destination, epoch, step.to)
				} else {
					c.wantFound(step.to.Destination, epoch, terse.Link{})
				}
			}
			wantErr(t, "DeleteLink", s.store.DeleteLink(c.ctx, terse.LinkKey{Number: v1.Number, Code: v1.Code}, 4), nil)
			c.wantFound(v1.Destination, epoch, terse.Link{})
		}
		c.wantFound(links[1].Destination, epoch, links[1])
	})

	t.Run("one of several", func(t *testing.T) {
		c := s.scope(t)
		links := c.links(70)
		for i := range links {
			links[i].Destination = "https://example.com/same"
		}
		c.mustInsert(links...)
		for len(links) > 60 {
			n := c.find("https://example.com/same", epoch)
			i := slices.IndexFunc(links, func(l terse.Link) bool { return l.Number == n })
			if i < 0 {
				t.Fatalf("FindPlain found %v, which is not there", n)
			}
			wantErr(t, "DeleteLink", s.store.DeleteLink(c.ctx, terse.LinkKey{Number: n, Code: links[i].Code}, 0), nil)
			links = slices.Delete(links, i, i+1)
		}
	})

	t.Run("expiry", func(t *testing.T) {
		c := s.scope(t)
		links := c.links(4)
		at := epoch + 1_000_000
		for i := range links {
			links[i].Destination = "https://example.com/ends"
		}
		links[0].ExpiresAt, links[0].DefaultExpiry = at, true
		links[1].ExpiresAt, links[1].DefaultExpiry = at+10, true
		links[2].ExpiresAt = at + 50 // its own expiry: not plain
		links[3].Destination = "https://example.com/stays"
		c.mustInsert(links...)
		if n := c.find("https://example.com/ends", at-1); n == 0 {
			t.Fatal("FindPlain finds nothing before the links end")
		}
		c.wantFound("https://example.com/ends", at, links[1])
		c.wantFound("https://example.com/ends", at+9, links[1])
		c.wantFound("https://example.com/ends", at+10, terse.Link{})
		c.wantFound("https://example.com/stays", 1<<53, links[3])
		c.wantStored(links...)                  // what has ended is still there
		c.wantList(terse.ListQuery{}, links...) // and listed
	})
}
