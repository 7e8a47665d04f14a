package redisbus

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/sleep"
)

// TestSeal: signatures are the bytes of docs/redis.md, and every part of what they are of counts.
func TestSeal(t *testing.T) {
	t.Parallel()
	secret := make([]byte, 32)
	for i := range secret {
		secret[i] = byte(i)
	}
	const queue = "terse:{i:jobs:1.0.0}:"
	s, err := newSealer(secret, queue)
	if err != nil {
		t.Fatal(err)
	}
	mac := s.sign(sealedChunk, queue+"replies:R", "1", "packed")
	if got := fmt.Sprintf("%x", mac); got != goldenMAC {
		t.Errorf("the signature is %s, want %s", got, goldenMAC)
	}
	if !s.verify(mac, sealedChunk, queue+"replies:R", "1", "packed") {
		t.Error("its own signature is refused")
	}
	for _, c := range [][5]string{
		{mac, sealedOutcome, queue + "replies:R", "1", "packed"},
		{mac, sealedChunk, queue + "replies:S", "1", "packed"},
		{mac, sealedChunk, queue + "replies:R", "2", "packed"},
		{mac, sealedChunk, queue + "replies:R", "1", "packet"},
		{mac, sealedChunk, queue + "replies:R", "", "1packed"},
		{mac[1:], sealedChunk, queue + "replies:R", "1", "packed"},
		{"", sealedChunk, queue + "replies:R", "1", "packed"},
	} {
		if s.verify(c[0], c[1], c[2], c[3], c[4]) {
			t.Errorf("taken: %q", c)
		}
	}
	other, err := newSealer(secret, "terse:{j:jobs:1.0.0}:")
	if err != nil {
		t.Fatal(err)
	}
	if other.verify(mac, sealedChunk, queue+"replies:R", "1", "packed") {
		t.Error("the signature of another queue is taken")
	}
	if _, err := NewQueue(QueueOptions{Options: Options{URL: "redis://127.0.0.1:1", Prefix: "p", Instance: "i"}, Secret: secret[:31]}); terse.ErrorCode(err) != terse.CodeInvalid {
		t.Errorf("a short secret: %v", err)
	}
}

// goldenMAC was made by another program (hmac and hashlib of Python).
const goldenMAC = "52d0f43e9c296f2fbf573ef396b1da9539e9bab9c9f9f8fb7ae0dd651dbd3497"

// TestRefusals: what is refused is counted, and said once for many.
func TestRefusals(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := newRefusals(slog.New(slog.NewTextHandler(&out, nil)))
	for range 100 {
		r.add(sealedChunk)
	}
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
	if n := value(t, r.count.WithLabelValues(sealedChunk)); n != 100 {
		t.Errorf("%v are counted", n)
	}
}

// TestForged: a chunk that no node has signed is not run and does not stay, and an outcome of nobody's is not believed.
func TestForged(t *testing.T) {
	prefix := newPrefix()
	home, away := newQueue(t, prefix, "home"), newQueue(t, prefix, "away")
	c, err := home.connect()
	if err != nil {
		t.Fatal(err)
	}
	r := home.Open()
	defer r.Close()
	forge := func() {
		insistOn(t, func() error {
			return c.Do(t.Context(), c.B().Xadd().Key(home.stream).Id("*").FieldValue().FieldValue(fieldReplies, r.replies).FieldValue(fieldNumber, "1").
				FieldValue(fieldChunk, pack([]byte("forged"))).FieldValue(fieldMAC, strings.Repeat("x", macSize)).Build()).Error()
		})
	}
	forge()
	stop := work(t, away, func(ctx context.Context, chunk []byte) []byte {
		if string(chunk) == "forged" {
			t.Error("a forged chunk was run")
		}
		// An outcome that comes before that of the node.
		for _, forged := range []string{"1 " + pack([]byte("lie")), "1 " + strings.Repeat("x", macSize) + pack([]byte("lie")), "1", "", "x y"} {
			insistOn(t, func() error {
				return c.Do(context.WithoutCancel(ctx), c.B().Rpush().Key(r.replies).Element(forged).Build()).Error()
			})
		}
		return double(ctx, chunk)
	})
	until(t, "the forged chunk is refused", func() bool { return value(t, away.bad.count.WithLabelValues(sealedChunk)) > 0 })
	until(t, "it is gone", func() bool {
		n, err := c.Do(t.Context(), c.B().Xlen().Key(home.stream).Build()).AsInt64()
		return err == nil && n == 0
	})
	hasRoom(t, r)
	if got, err := insist(t.Context(), r, "y"); err != nil || got != "yy" {
		t.Errorf("%q, %v", got, err)
	}
	if n := value(t, home.bad.count.WithLabelValues(sealedOutcome)); n == 0 {
		t.Error("no forged outcome is counted")
	}
	// Nor is one taken over from a node that is silent.
	stop()
	forge()
	insistOn(t, func() error {
		return c.Do(t.Context(), c.B().Xreadgroup().Group(group, "silent").Count(1).Streams().Key(home.stream).Id(">").Build()).Error()
	})
	heir := newQueue(t, prefix, "heir")
	heir.waits.claim = time.Millisecond
	w := &worker{q: heir, cursor: "0-0", tasks: map[string]bool{}}
	until(t, "the next forged chunk is refused", func() bool {
		if got, err := w.take(t.Context()); err == nil && got != nil {
			t.Errorf("taken over: %+v", got)
		}
		w.claimAt = time.Time{} // look again at once
		return value(t, heir.bad.count.WithLabelValues(sealedChunk)) == 1
	})
}

// insistOn repeats a request that a server without a processor refuses.
func insistOn(t *testing.T, f func() error) {
	t.Helper()
	var err error
	for range 1000 {
		if err = f(); err == nil {
			return
		}
		_ = sleep.For(context.Background(), 10*time.Millisecond)
	}
	t.Error(err)
}

// value returns what a counter says.
func value(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%d families of metrics, %v", len(families), err)
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}
