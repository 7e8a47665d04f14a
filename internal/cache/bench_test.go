package cache

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/terselink/terse"
)

// BenchmarkGetUniform reads a million keys at random from all cores: the cost of a
// hit with its cache misses and with what the eviction policy does behind it.
func BenchmarkGetUniform(b *testing.B) {
	const n = 1 << 20
	c, err := New(Options[[4]uint64]{Clock: func() terse.Millis { return 0 }, MaxBytes: 1 << 30,
		Load: func(context.Context, terse.DomainID, []byte) (Loaded[[4]uint64], error) {
			return Loaded[[4]uint64]{Number: 1, Version: 1, Bytes: 64}, nil
		}})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	keys := make([][]byte, n)
	for i := range keys {
		keys[i] = AppendKey(nil, 1, fmt.Sprintf("%07x", i))
		if _, err := c.Fetch(keys[i]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if c.Get(keys[rand.Uint32()%n], 0) == nil {
				b.Error("not cached")
			}
		}
	})
}
