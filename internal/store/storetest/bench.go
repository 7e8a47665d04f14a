package storetest

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/terselink/terse"
)

const (
	benchChunk       = 8192 // links of a bulk insert
	benchDestination = 100  // bytes of a destination
	benchStored      = 20 * benchChunk
	benchWriters     = 32 // goroutines a processor, for what commits in groups
)

// Bench measures what engines are compared by: bulk inserts in chunks of 8,192
// links with distinct destinations of 100 bytes, one by one and two at a time,
// single inserts from many goroutines, and reads among 163,840 links. Inserts
// report links/s; the making of the links
// is left out where one goroutine inserts, and costs little elsewhere.
func Bench(b *testing.B, o Opts) {
	b.Run("InsertChunk", func(b *testing.B) {
		s := newSuite(b, o)
		f := newLinkFactory(s.scope(b), benchChunk)
		var spent time.Duration
		n := 0
		for b.Loop() {
			b.StopTimer()
			links := f.next(b)
			b.StartTimer()
			begin := time.Now()
			if err := s.store.InsertLinks(b.Context(), &terse.Chunk{Links: links}); err != nil {
				b.Fatal(err)
			}
			spent += time.Since(begin)
			n += len(links)
		}
		b.ReportMetric(float64(n)/spent.Seconds(), "links/s")
	})

	b.Run("InsertChunkParallel", func(b *testing.B) {
		s := newSuite(b, o)
		c := s.scope(b)
		var n atomic.Int64
		begin := time.Now()
		b.RunParallel(func(pb *testing.PB) {
			f := newLinkFactory(c, benchChunk)
			for pb.Next() {
				links := f.next(b)
				if err := s.store.InsertLinks(b.Context(), &terse.Chunk{Links: links}); err != nil {
					b.Error(err)
					return
				}
				n.Add(int64(len(links)))
			}
		})
		b.ReportMetric(float64(n.Load())/time.Since(begin).Seconds(), "links/s")
	})

	b.Run("InsertOneParallel", func(b *testing.B) {
		s := newSuite(b, o)
		c := s.scope(b)
		var n atomic.Int64
		b.SetParallelism(benchWriters)
		begin := time.Now()
		b.RunParallel(func(pb *testing.PB) {
			f := newLinkFactory(c, 1)
			for pb.Next() {
				if err := s.store.InsertLinks(b.Context(), &terse.Chunk{Links: f.next(b)}); err != nil {
					b.Error(err)
					return
				}
				n.Add(1)
			}
		})
		b.ReportMetric(float64(n.Load())/time.Since(begin).Seconds(), "links/s")
	})

	b.Run("Get", func(b *testing.B) { benchGet(b, newSuite(b, o)) })
}

// benchGet measures reads of links that are all there.
func benchGet(b *testing.B, s *suite) {
	c := s.scope(b)
	f := newLinkFactory(c, benchChunk)
	var keys []terse.LinkKey
	var dests []string
	for len(keys) < benchStored {
		links := f.next(b)
		c.mustInsert(links...)
		for _, l := range links {
			keys = append(keys, terse.LinkKey{Number: l.Number, Code: l.Code})
			dests = append(dests, l.Destination)
		}
	}
	random := func() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

	b.Run("One", func(b *testing.B) {
		r, dst := random(), make([]terse.Link, 1)
		for b.Loop() {
			i := r.IntN(len(keys))
			if err := s.store.GetLinks(b.Context(), keys[i:i+1], dst); err != nil || dst[0].Destination != dests[i] {
				b.Fatalf("link %d: %v, %+v", i, err, dst[0])
			}
		}
	})
	b.Run("OneParallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			r, dst := random(), make([]terse.Link, 1)
			for pb.Next() {
				i := r.IntN(len(keys))
				if err := s.store.GetLinks(b.Context(), keys[i:i+1], dst); err != nil || dst[0].Number != keys[i].Number {
					b.Errorf("link %d: %v, %+v", i, err, dst[0])
					return
				}
			}
		})
	})
	b.Run("Hundred", func(b *testing.B) {
		r, some, dst := random(), make([]terse.LinkKey, 100), make([]terse.Link, 100)
		for b.Loop() {
			for i := range some {
				some[i] = keys[r.IntN(len(keys))]
			}
			if err := s.store.GetLinks(b.Context(), some, dst); err != nil || dst[99].Number != some[99].Number {
				b.Fatalf("%v, %+v", err, dst[99])
			}
		}
	})
	b.Run("FindPlain", func(b *testing.B) {
		r := random()
		for b.Loop() {
			i := r.IntN(len(keys))
			if l, err := s.store.FindPlain(b.Context(), c.w, c.d, dests[i], epoch); err != nil || l.Number != keys[i].Number {
				b.Fatalf("link %d: %v, %+v", i, err, l)
			}
		}
	})
	b.Run("Page", func(b *testing.B) {
		for b.Loop() {
			if p, err := s.store.ListLinks(b.Context(), c.w, terse.ListQuery{Limit: 100}); err != nil || len(p.Links) == 0 {
				b.Fatalf("%d links, %v", len(p.Links), err)
			}
		}
	})
}

// linkFactory makes chunks of links for one goroutine, at a cost that is small
// beside that of inserting them.
type linkFactory struct {
	c     *scope
	links []terse.Link
	free  []terse.LinkNumber
	// text holds code and destination of every link of a chunk. The destinations
	// end in random characters, the last 16 of which are made anew for each chunk.
	text []byte
}

// factoryText is the room of one link in linkFactory.text.
const factoryText = int(genSpace) + benchDestination

func newLinkFactory(c *scope, chunk int) *linkFactory {
	chunk = c.chunkSize(chunk)
	f := &linkFactory{c: c, links: make([]terse.Link, chunk), text: make([]byte, 0, chunk*factoryText)}
	r := rand.New(rand.NewPCG(7, uint64(c.now())))
	for i := range chunk {
		f.text = append(f.text, make([]byte, genSpace)...)
		f.text = fmt.Appendf(f.text, "https://shop.example.com/campaign/black-friday?sku=A%03d&u=", i%1000)
		for len(f.text) < (i+1)*factoryText {
			f.text = append(f.text, "0123456789abcdefghijklmnopqrstuv"[r.Uint32()%32])
		}
	}
	return f
}

// next fills the chunk with new links, leased as a bulk insert does.
func (f *linkFactory) next(b *testing.B) []terse.Link {
	if len(f.free) < len(f.links) {
		l, err := f.c.store.Lease(b.Context(), terse.LeaseRequest{Domain: f.c.d, Space: genSpace, Count: uint64(max(1000, 16*len(f.links)))})
		if err != nil {
			b.Error(err)
			return nil
		}
		f.free = usable(l)
	}
	for i := range f.links {
		room := f.text[i*factoryText : (i+1)*factoryText]
		putDigits(room[:genSpace], f.free[i].Index(), 36)
		putDigits(room[len(room)-16:], uint64(f.free[i])*0x9e3779b97f4a7c15, 16) // odd, so distinct
	}
	text := string(f.text)
	at := f.c.now()
	for i := range f.links {
		room := text[i*factoryText : (i+1)*factoryText]
		f.links[i] = terse.Link{
			Number: f.free[i], Workspace: f.c.w, Version: 1, CreatedAt: at, UpdatedAt: at,
			Code: room[:genSpace], Destination: room[genSpace:],
		}
	}
	f.free = f.free[len(f.links):]
	return f.links
}
