package redirect

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
)

// anyLink answers that every number is a link with a destination of 100 bytes.
type anyLink struct{ domains.Reader }

// GetLinks implements domains.Reader.
func (anyLink) GetLinks(_ context.Context, keys []terse.LinkKey, dst []terse.Link) error {
	destination := []byte("https://shop.example.com/offers/black-friday?utm_source=sms&utm_campaign=blackfriday&recipient=00000000")
	for i, k := range keys {
		for j, n := len(destination)-1, uint64(k.Number); j > len(destination)-9; j-- {
			destination[j], n = '0'+byte(n%10), n/10
		}
		dst[i] = terse.Link{Number: k.Number, Workspace: 1, Version: 1, Code: k.Code, Destination: string(destination)}
	}
	return nil
}

// BenchmarkPlainUniform is what a loop spends on a request beside the kernel when a million links
// get the visits at random, beside the same when one gets all: the difference is memory
// that no processor cache has.
func BenchmarkPlainUniform(b *testing.B) {
	const n = 1_000_000
	w := newWorld(b, quiet, func(o *Options) { o.Store, o.CacheBytes = anyLink{o.Store}, 1<<30 })
	var issued domains.Issued
	if err := w.domains.Issue(b.Context(), w.domains.ByName("go.example.com"), n, &issued); err != nil {
		b.Fatal(err)
	}
	size := issued.Length
	r := rand.New(rand.NewPCG(1, 2))
	codes := make([]byte, 0, len(issued.Codes))
	for _, i := range r.Perm(n) {
		codes = append(codes, issued.Codes[i*size:(i+1)*size]...)
	}
	d := w.domains.ByName("go.example.com")
	for i := range n {
		if _, err := w.server.cache.Fetch(append([]byte{byte(d.Number >> 24), byte(d.Number >> 16), byte(d.Number >> 8), byte(d.Number)}, codes[i*size:(i+1)*size]...)); err != nil {
			b.Fatal(err)
		}
	}
	raw := []byte("GET /" + string(codes[:size]) + " HTTP/1.1\r\n" + browserHeaders + "\r\n")
	p := newPlainer(w.server)
	run := func(b *testing.B, among int) {
		b.ReportAllocs()
		at := r.IntN(among)
		for b.Loop() {
			if at++; at >= among {
				at = 0
			}
			copy(raw[5:], codes[at*size:(at+1)*size])
			p.out = p.out[:0]
			if _, step := p.answer(raw, somePeer.Addr(), 1, testNow); step != stepNext {
				b.Fatal("not cached")
			}
		}
	}
	b.Run("million", func(b *testing.B) { run(b, n) })
	b.Run("one", func(b *testing.B) { run(b, 1) })
}
