package clickhouse

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/terselink/terse/internal/clicks"
)

// idleFeed is a feed without clicks.
type idleFeed struct{ current atomic.Bool }

func (*idleFeed) Next(ctx context.Context, _ int, _ func(*clicks.Event) error) (int, error) {
	return 0, ctx.Err()
}
func (*idleFeed) Places(func(string, clicks.Position, int)) {}
func (*idleFeed) Written(context.Context)                   {}
func (f *idleFeed) Current() bool                           { return f.current.Load() }
func (*idleFeed) Wait(ctx context.Context) error {
	select {
	case <-time.After(5 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestWatermarkOfOthers: a process that answers and does not count learns up to when clicks are counted from the one that counts, and neither
// says so while the feed is not current.
func TestWatermarkOfOthers(t *testing.T) {
	address := ownDatabase(t)
	feed := &idleFeed{}
	var idle atomic.Int64
	start := func(o Options) *Engine {
		o.URL, o.Log = address, slog.New(slog.DiscardHandler)
		e, err := Start(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := e.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		})
		return e
	}
	counts := start(Options{Source: "counts", Feed: func(ctx context.Context, e *Engine) error {
		idle.Add(1)
		return e.IngestFeed(ctx, feed)
	}})
	other := start(Options{Source: "other"})
	wait := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	wait("the feed is not read", func() bool { return idle.Load() > 0 && other.Status(t.Context()).State == "ready" })
	if counts.Status(t.Context()).LagKnown || other.Status(t.Context()).LagKnown {
		t.Error("the feed is not current, and the lag is known")
	}
	feed.current.Store(true)
	wait("the lag stays unknown", func() bool { return counts.Status(t.Context()).LagKnown && other.Status(t.Context()).LagKnown })
}
