package pebblestore

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/terselink/terse"
)

const digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

func randomText(r *rand.Rand, n, base int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = digits[r.IntN(base)]
	}
	return string(b)
}

// personal returns n destinations of 103 bytes of which 26 are random: 8 and 10
// hexadecimal digits and a signature of 8 base62 digits.
func personal(r *rand.Rand, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = "https://shop.example.com/c/spring/p/" + randomText(r, 8, 16) + "?uid=" + randomText(r, 10, 16) +
			"&utm_source=sms&utm_medium=text&sig=" + randomText(r, 8, 62)
	}
	return out
}

// templated returns n destinations of 104 bytes that differ in a customer number.
func templated(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("https://shop.example.com/c/spring-sale-2026/confirm?utm_source=sms&utm_medium=text&customer=%08d&ok=1", 10_000_000+i)
	}
	return out
}

// fill makes a chunk of links that start at an index.
func fill(links []terse.Link, destinations []string, index uint64) {
	for i := range links {
		n := terse.NewLinkNumber(1, 7, index+uint64(i))
		links[i] = terse.Link{
			Number: n, Workspace: 1, Version: 1, CreatedAt: 1_790_000_000_000, UpdatedAt: 1_790_000_000_000,
			Code: benchCode(n), Destination: destinations[(index+uint64(i))%uint64(len(destinations))],
		}
	}
}

// benchCodes stand for generated codes: what counts is that their tags do not repeat.
var benchCodes = func() (codes [1 << 16]string) {
	r := rand.New(rand.NewPCG(5, 6))
	for i := range codes {
		codes[i] = randomText(r, 7, 62)
	}
	return codes
}()

func benchCode(n terse.LinkNumber) string { return benchCodes[uint64(n)%uint64(len(benchCodes))] }

func benchStore(b *testing.B, o Options) (*Store, string) {
	b.Helper()
	dir := b.TempDir()
	o.MaintainEvery = -1
	s, err := Open(dir, o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s, dir
}

const benchChunk = 8192

// BenchmarkInsertChunk inserts durable chunks of 8,192 links with distinct destinations of about 100 bytes.
// "raw" is Pebble with the same options and the same synced batches, one Set for each
// link under its number with the destination as its value, and no checks.
func BenchmarkInsertChunk(b *testing.B) {
	destinations := personal(rand.New(rand.NewPCG(1, 2)), 1<<17)
	for _, workers := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("store/workers=%d", workers), func(b *testing.B) {
			s, _ := benchStore(b, Options{})
			benchChunks(b, workers, destinations, func(links []terse.Link) error {
				return s.InsertLinks(context.Background(), &terse.Chunk{Links: links})
			})
		})
		b.Run(fmt.Sprintf("raw/workers=%d", workers), func(b *testing.B) {
			s, _ := benchStore(b, Options{})
			benchChunks(b, workers, destinations, func(links []terse.Link) error {
				batch := s.db.NewBatch()
				defer batch.Close()
				var key [9]byte
				for i := range links {
					if err := batch.Set(appendNumberKey(key[:0], famRow, links[i].Number), []byte(links[i].Destination), nil); err != nil {
						return err
					}
				}
				return batch.Commit(pebble.Sync)
			})
		})
	}
}

func benchChunks(b *testing.B, workers int, destinations []string, insert func([]terse.Link) error) {
	var next atomic.Uint64
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			links := make([]terse.Link, benchChunk)
			for left.Add(-1) >= 0 {
				fill(links, destinations, next.Add(benchChunk)-benchChunk)
				if err := insert(links); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)*benchChunk/b.Elapsed().Seconds()/1e6, "Mlinks/s")
}

// BenchmarkEncodeChunk is what a caller of InsertLinks does before the committer.
func BenchmarkEncodeChunk(b *testing.B) {
	s, _ := benchStore(b, Options{})
	links := make([]terse.Link, benchChunk)
	fill(links, personal(rand.New(rand.NewPCG(1, 2)), benchChunk), 0)
	chunk := &terse.Chunk{Links: links}
	b.ReportAllocs()
	for b.Loop() {
		o := s.newChunkOp()
		if err := s.encodeInsert(o, chunk, nil); err != nil {
			b.Fatal(err)
		}
		s.free(o)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchChunk, "ns/link")
}

// BenchmarkDisk inserts 2 M links and reports bytes of table files for each, after a full compaction,
// before and after they were indexed for FindPlain.
func BenchmarkDisk(b *testing.B) {
	const n = 1 << 21
	sets := map[string][]string{
		"personal":  personal(rand.New(rand.NewPCG(1, 2)), n),
		"templated": templated(n),
	}
	for _, name := range []string{"personal", "templated"} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				s, _ := benchStore(b, Options{})
				links := make([]terse.Link, benchChunk)
				for at := uint64(0); at < n; at += benchChunk {
					fill(links, sets[name], at)
					if err := s.InsertLinks(context.Background(), &terse.Chunk{Links: links}); err != nil {
						b.Fatal(err)
					}
				}
				compact := func() float64 {
					if err := s.db.Compact(context.Background(), []byte{0}, []byte{0xff}, false); err != nil {
						b.Fatal(err)
					}
					m := s.db.Metrics()
					total := m.Total()
					return float64(total.TablesSize) / n
				}
				b.ReportMetric(compact(), "B/link")
				start := b.Elapsed()
				if err := s.catchUp(context.Background()); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64((b.Elapsed()-start).Nanoseconds())/n, "ns/link-indexed")
				b.ReportMetric(compact(), "B/link-indexed")
			}
		})
	}
}

// BenchmarkGet reads random links of 2 M. Warm: everything is in the block cache. Cold: a
// cache of 1 MiB, so that nearly every read loads a table block from the page cache of the system.
func BenchmarkGet(b *testing.B) {
	const n = 1 << 21
	destinations := personal(rand.New(rand.NewPCG(1, 2)), 1<<17)
	for _, c := range []struct {
		name  string
		cache int64
	}{{"warm", 512 << 20}, {"cold", 1 << 20}} {
		b.Run(c.name, func(b *testing.B) {
			s, _ := benchStore(b, Options{CacheBytes: c.cache})
			links := make([]terse.Link, benchChunk)
			for at := uint64(0); at < n; at += benchChunk {
				fill(links, destinations, at)
				if err := s.InsertLinks(context.Background(), &terse.Chunk{Links: links}); err != nil {
					b.Fatal(err)
				}
			}
			if err := s.db.Flush(); err != nil {
				b.Fatal(err)
			}
			r := rand.New(rand.NewPCG(3, 4))
			keys, dst := make([]terse.LinkKey, 1), make([]terse.Link, 1)
			get := func() {
				number := terse.NewLinkNumber(1, 7, r.Uint64N(n))
				keys[0] = terse.LinkKey{Number: number, Code: benchCode(number)}
				if err := s.GetLinks(context.Background(), keys, dst); err != nil || dst[0].Number == 0 {
					b.Fatal(err, dst[0].Number)
				}
			}
			if c.name == "warm" {
				for range 100_000 {
					get()
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				get()
			}
		})
	}
}

// BenchmarkAlias inserts single links with an alias from many goroutines: the committer
// checks each of them, one after the other.
func BenchmarkAlias(b *testing.B) {
	for _, workers := range []int{1, 64} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			s, _ := benchStore(b, Options{})
			var next, left atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			var wg sync.WaitGroup
			for range workers {
				wg.Go(func() {
					links := make([]terse.Link, 1)
					for left.Add(-1) >= 0 {
						i := uint64(next.Add(1))
						var alias [8]byte
						binary.BigEndian.PutUint64(alias[:], i*0x9e3779b97f4a7c15)
						links[0] = terse.Link{
							Number: terse.NewLinkNumber(1, terse.AliasSpace, i), Workspace: 1, Version: 1, CreatedAt: 1, UpdatedAt: 1,
							Code: fmt.Sprintf("%x", alias), Destination: "https://example.com/",
						}
						if err := s.InsertLinks(context.Background(), &terse.Chunk{Links: links}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "links/s")
		})
	}
}
