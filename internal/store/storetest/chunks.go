package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/terselink/terse"
)

// testChunks checks chunks that are written at once by several, or read while
// they are written.
func testChunks(t *testing.T, s *suite) {
	t.Run("readers see all of it or nothing", func(t *testing.T) {
		c := s.scope(t)
		for round := range 20 {
			links := append(c.links(c.chunkSize(300)-2), c.alias(fmt.Sprintf("whole-%d", round)))
			doc := c.doc(terse.KindIdempotency, fmt.Sprint(round), 1)
			done := make(chan error)
			go func() {
				done <- s.store.InsertLinks(c.ctx, &terse.Chunk{Links: links, Documents: []terse.Document{doc}})
			}()
			// Whatever part is seen first, all the others must be there from then on.
			for seen := false; !seen; {
				switch round % 3 {
				case 0:
					seen = c.get(links[len(links)/2])[0].Number != 0
				case 1:
					_, err := s.store.GetAlias(c.ctx, c.d, links[len(links)-1].Code)
					seen = err == nil
				case 2:
					_, err := s.store.GetDocument(c.ctx, c.w, doc.Kind, doc.ID)
					seen = err == nil
				}
				select {
				case err := <-done:
					wantErr(t, "InsertLinks", err, nil)
					seen = true
					done = nil
				default:
				}
			}
			c.wantStored(links...)
			c.wantDoc(doc)
			if done != nil {
				wantErr(t, "InsertLinks", <-done, nil)
			}
		}
	})

	t.Run("of chunks that overlap one wins", func(t *testing.T) {
		// The aliases come in another order in every chunk and lie on several
		// domains: whoever locks them one by one meets another who does.
		c := s.scope(t)
		scopes := []*scope{c, c.other(), c.other()}
		r := rand.New(rand.NewPCG(3, 4))
		for round := range 5 {
			const goroutines, aliases = 8, 12
			chunks := make([][]terse.Link, goroutines)
			for g := range chunks {
				for i := range aliases {
					on := scopes[i%len(scopes)]
					l := on.alias(fmt.Sprintf("both-%d-%d", round, i))
					l.Destination = fmt.Sprintf("https://example.com/%d", g)
					chunks[g] = append(chunks[g], l)
				}
				chunks[g] = append(chunks[g], c.links(3)...)
				r.Shuffle(aliases, func(i, j int) { chunks[g][i], chunks[g][j] = chunks[g][j], chunks[g][i] })
			}
			all := make([]int, aliases)
			for i := range all {
				all[i] = i
			}
			errs := make([]error, goroutines)
			var wg sync.WaitGroup
			start := make(chan struct{})
			for g := range chunks {
				wg.Go(func() {
					<-start
					errs[g] = c.insert(chunks[g]...)
				})
			}
			close(start)
			wg.Wait()
			winner := slices.Index(errs, nil)
			if winner < 0 {
				t.Fatalf("nobody won: %v", errs[0])
			}
			c.wantStored(chunks[winner]...)
			for g, err := range errs {
				if g != winner {
					wantRows(t, err, all...)
					c.wantAbsent(chunks[g]...)
				}
			}
		}
	})

	t.Run("many writers", func(t *testing.T) {
		c := s.scope(t)
		const goroutines, each = 8, 4
		n := c.chunkSize(200)
		links := c.links(goroutines * each * n)
		var wg sync.WaitGroup
		for g := range goroutines {
			wg.Go(func() {
				// The numbers of the goroutines lie between one another.
				for i := range each {
					chunk := make([]terse.Link, 0, n)
					for j := range n {
						chunk = append(chunk, links[(i*n+j)*goroutines+g])
					}
					if err := c.insert(chunk...); err != nil {
						t.Errorf("InsertLinks: %v", err)
					}
				}
			})
		}
		wg.Wait()
		c.wantStored(links...)
	})

	t.Run("the ends of a space", func(t *testing.T) {
		c := s.scope(t)
		const space terse.SpaceID = 9
		l, err := s.store.Lease(c.ctx, terse.LeaseRequest{Domain: c.d, Space: space, Count: terse.MaxIndex + 1})
		wantErr(t, "Lease", err, nil)
		wantLease(t, l, terse.Lease{Domain: c.d, Space: space, End: terse.MaxIndex + 1})
		links := c.links(140)
		for i := range links {
			index := uint64(i)
			if i >= 70 {
				index = terse.MaxIndex - uint64(139-i)
			}
			links[i].Number, links[i].Code = terse.NewLinkNumber(c.d, space, index), codeOf(space, index)
			links[i].Destination = fmt.Sprintf("https://example.com/end/%d", index)
		}
		links[1].Workspace = 1<<31 - 1 // the largest
		c.mustInsert(links...)
		c.wantStored(links...)
		mine := slices.Delete(slices.Clone(links), 1, 2)
		c.wantList(terse.ListQuery{}, mine...)
		for _, i := range []int{0, 139} {
			wantErr(t, "DeleteLink", s.store.DeleteLink(c.ctx, terse.LinkKey{Number: links[i].Number, Code: links[i].Code}, 1), nil)
			c.wantAbsent(links[i])
			wantRows(t, c.insert(links[i]), 0)
		}
		c.wantFound(links[138].Destination, epoch, links[138])
		if _, err := s.store.FindPlain(c.ctx, c.w, c.d, links[139].Destination, epoch); !errors.Is(err, terse.ErrNotFound) {
			t.Fatalf("FindPlain of the deleted last link: %v", err)
		}
	})
}
