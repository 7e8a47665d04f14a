package redisbus

import (
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/linkcache"
	"github.com/terselink/terse/internal/testengine"
)

// BenchmarkLinksGet reads an entry of some 300 bytes from a server, one look-up after the other.
func BenchmarkLinksGet(b *testing.B) {
	l, err := newLinks(testengine.Address(b, testengine.Redis), newPrefix())
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	ctx := b.Context()
	if _, _, err := l.State(ctx); err != nil {
		b.Fatal(err)
	}
	epoch := strings.Repeat("e", epochBytes)
	if err := l.Begin(ctx, "", linkcache.State{Epoch: epoch, Position: 7}); err != nil {
		b.Fatal(err)
	}
	n := terse.NewLinkNumber(1, 1, 5)
	entry := linkcache.Entry{Number: n, Version: 3, Link: []byte(strings.Repeat("x", 300)), For: time.Minute, Read: 7}
	if took, err := l.Put(ctx, epoch, []linkcache.Entry{entry}); err != nil || took != 1 {
		b.Fatal(took, err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, link, ok, err := l.Get(ctx, n); err != nil || !ok || len(link) != 300 {
			b.Fatal(len(link), ok, err)
		}
	}
}
