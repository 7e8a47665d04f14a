package code

import (
	"context"
	"testing"

	"github.com/terselink/terse"
)

func BenchmarkEncode(b *testing.B) {
	p := mustPerm(b, testKey(1), "base62", 7)
	report := func(b *testing.B, perOp int) {
		b.ReportMetric(float64(b.N)*float64(perOp)/b.Elapsed().Seconds(), "codes/s")
	}
	b.Run("AppendCode", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, 16)
		for i := uint64(0); b.Loop(); i++ {
			buf = p.AppendCode(buf[:0], i)
		}
		report(b, 1)
	})
	b.Run("Encoder", func(b *testing.B) {
		b.ReportAllocs()
		e := p.NewEncoder()
		buf := make([]byte, 0, 16)
		for i := uint64(0); b.Loop(); i++ {
			buf = e.Append(buf[:0], i)
		}
		report(b, 1)
	})
	b.Run("AppendAll", func(b *testing.B) {
		b.ReportAllocs()
		e := p.NewEncoder()
		indexes := make([]uint64, 1024)
		buf := make([]byte, 0, len(indexes)*p.Length())
		for i := uint64(0); b.Loop(); i++ {
			for j := range indexes {
				indexes[j] = i*1024 + uint64(j)
			}
			buf = e.AppendAll(buf[:0], indexes)
		}
		report(b, len(indexes))
	})
}

func BenchmarkDecode(b *testing.B) {
	p := mustPerm(b, testKey(1), "base62", 7)
	code := p.AppendCode(nil, 12345)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := p.Index(code); !ok {
			b.Fatal("not a code")
		}
	}
}

// BenchmarkIssue is what a bulk request pays for its codes: leases, encoding and
// the word list, in batches of 8192.
func BenchmarkIssue(b *testing.B) {
	const batch = 8192
	p := mustPerm(b, testKey(1), "base62", 7)
	run := func(b *testing.B, loop func(issue func(indexes []uint64, codes []byte))) {
		b.ReportAllocs()
		a := NewAllocator(&counter{}, 1, 7, 0, p, AllocatorOptions{})
		defer a.Close()
		loop(func(indexes []uint64, codes []byte) {
			if _, _, err := a.Issue(context.Background(), batch, indexes, codes); err != nil {
				b.Error(err)
			}
		})
		b.ReportMetric(float64(b.N)*batch/b.Elapsed().Seconds(), "codes/s")
	}
	b.Run("serial", func(b *testing.B) {
		run(b, func(issue func([]uint64, []byte)) {
			indexes, codes := make([]uint64, 0, batch), make([]byte, 0, batch*7)
			for b.Loop() {
				issue(indexes, codes)
			}
		})
	})
	b.Run("parallel", func(b *testing.B) {
		run(b, func(issue func([]uint64, []byte)) {
			b.RunParallel(func(pb *testing.PB) {
				indexes, codes := make([]uint64, 0, batch), make([]byte, 0, batch*7)
				for pb.Next() {
					issue(indexes, codes)
				}
			})
		})
	})
}

func BenchmarkBlocked(b *testing.B) {
	p := mustPerm(b, testKey(1), "base62", 7)
	codes := make([]byte, 0, 4096*7)
	for i := range uint64(4096) {
		codes = p.AppendCode(codes, i)
	}
	b.ReportAllocs()
	i, blocked := 0, 0
	for b.Loop() {
		if Blocked(codes[i : i+7]) {
			blocked++
		}
		if i += 7; i == len(codes) {
			i = 0
		}
	}
	b.ReportMetric(100*float64(blocked)/float64(b.N), "%blocked")
}

func BenchmarkCanonical(b *testing.B) {
	crockford := mustLookup(b, "crockford32")
	for _, bm := range []struct {
		name, path string
		fold       *Alphabet
	}{
		{"code", "aB3dE5g", nil},
		{"folded", "7K-3Q9-O1", crockford},
		{"encoded", "caf%C3%A9", nil},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			dst := make([]byte, 0, 64)
			for b.Loop() {
				if _, err := AppendCanonical(dst, []byte(bm.path), bm.fold); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// counter is a Leaser that never fails.
type counter struct{ next uint64 }

func (c *counter) Lease(_ context.Context, req terse.LeaseRequest) (terse.Lease, error) {
	start := c.next
	c.next += req.Count
	return terse.Lease{Domain: req.Domain, Space: req.Space, Start: start, End: c.next}, nil
}
