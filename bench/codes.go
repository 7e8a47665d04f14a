//go:build linux

package main

import (
	"context"
	"slices"
	"time"

	"github.com/terselink/terse/internal/code"
)

// codes measures how fast one core makes and reads codes.
func (b *bench) codes(context.Context) error {
	alphabet, err := code.Lookup("base62")
	if err != nil {
		return err
	}
	p, err := code.NewPermutation(slices.Repeat([]byte{7}, 32), alphabet, 7)
	if err != nil {
		return err
	}
	enough := pick(b, 2*time.Second, 200*time.Millisecond)
	e := p.NewEncoder()
	indexes := make([]uint64, 1024)
	buf := make([]byte, 0, len(indexes)*p.Length())
	rate := repeat(enough, len(indexes), func(n uint64) {
		for i := range indexes {
			indexes[i] = n*1024 + uint64(i)
		}
		buf = e.AppendAll(buf[:0], indexes)
	})
	b.report.detail("codes", "made in batches, one core", "%s", amount(rate, "codes/s"))
	rate = repeat(enough, 1, func(n uint64) { buf = p.AppendCode(buf[:0], n) })
	b.report.detail("codes", "made one by one, one core", "%s", amount(rate, "codes/s"))
	one := p.AppendCode(nil, 123_456_789)
	rate = repeat(enough, 1, func(uint64) { _, _ = p.Index(one) })
	b.report.detail("codes", "read, one core", "%s", amount(rate, "codes/s"))
	return nil
}

// repeat calls f for about d and returns how many things, per each a call, it did in a second.
func repeat(d time.Duration, per int, f func(n uint64)) float64 {
	began := time.Now()
	for n := uint64(0); ; n++ {
		f(n)
		if n%256 == 255 {
			if spent := time.Since(began); spent >= d {
				return float64(n+1) * float64(per) / spent.Seconds()
			}
		}
	}
}
