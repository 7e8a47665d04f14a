package app

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/changes"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/edge"
	"github.com/terselink/terse/internal/store/memstore"
)

// heardAgo last heard of changes that long ago.
type heardAgo time.Duration

func (h heardAgo) HeardWithin(d time.Duration) bool { return time.Duration(h) < d }

var keepsBoth = clicks.Kept{UserAgent: true, Network: true}

// TestKeptOf: what a workspace wants kept is kept for five minutes after others were last heard of.
func TestKeptOf(t *testing.T) {
	t.Parallel()
	set := terse.WorkspaceSettings{StoreUA: true, StoreIP: terse.StoreIPTruncated}
	for _, c := range []struct {
		from hearer
		want clicks.Kept
	}{{nil, keepsBoth}, {heardAgo(4 * time.Minute), keepsBoth}, {heardAgo(6 * time.Minute), clicks.Kept{}}} {
		if got := keptOf(set, c.from); got != c.want {
			t.Errorf("heard %v ago: %+v", c.from, got)
		}
	}
	if got := keptOf(terse.WorkspaceSettings{StoreIP: "no"}, nil); got != (clicks.Kept{}) {
		t.Errorf("what nobody wants is kept: %+v", got)
	}
}

// TestKept: a node that has no others goes on for ever, one that was cut off from their store for five minutes, and an edge that
// has heard nothing not at all.
func TestKept(t *testing.T) {
	t.Parallel()
	store := memstore.New(func() terse.Millis { return 1 })
	defer store.Close()
	err := store.PutDocument(t.Context(), terse.Document{
		Kind: terse.KindWorkspace, ID: terse.WorkspaceID(1).String(), Version: 1, Data: []byte(`{"id":1,"store_ua":true,"store_ip":"truncated"}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	settings, err := auth.OpenSettings(t.Context(), auth.Options{Store: store, Clock: func() terse.Millis { return 1 }})
	if err != nil {
		t.Fatal(err)
	}
	var s server
	check := func(when string, want clicks.Kept) {
		t.Helper()
		if got := s.kept(1); got != want {
			t.Errorf("%s: %+v, want %+v", when, got, want)
		}
	}
	check("before the settings are known", clicks.Kept{})
	s.auth.Store(settings)
	check("alone", keepsBoth)

	client, err := edge.NewClient("http://127.0.0.1:1", "key")
	if err != nil {
		t.Fatal(err)
	}
	if s.edge, err = edge.Open(edge.Options{Client: client, Dir: t.TempDir(), Bytes: 1 << 20, Clock: func() terse.Millis { return 1 }}); err != nil {
		t.Fatal(err)
	}
	check("an edge that has heard nothing", clicks.Kept{})
	if err := s.edge.Close(); err != nil {
		t.Error(err)
	}
	s.edge = nil

	synctest.Test(t, func(t *testing.T) {
		hub, err := changes.New(t.Context(), changes.Options{
			Feed: noFeed{}, Target: changeTarget{&s}, Transport: noTransport{}, Follows: follows,
		})
		if err != nil {
			t.Fatal(err)
		}
		s.hub.Store(hub)
		<-time.After(4 * time.Minute)
		check("four minutes after the store was last read", keepsBoth)
		<-time.After(2 * time.Minute)
		check("after six", clicks.Kept{})
		if err := hub.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		check("and once it was read again", keepsBoth)
	})
}

// noFeed is a feed of a store in which nothing is written.
type noFeed struct{}

func (noFeed) Changes(context.Context, uint64, int) ([]terse.Change, error) { return nil, nil }
func (noFeed) FeedHead(context.Context) (uint64, error)                     { return 0, nil }

// noTransport carries nothing.
type noTransport struct{ changes.Transport }
