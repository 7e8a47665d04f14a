package live_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/live"
)

// tagTable knows the tags of link 5 and of campaign 7.
type tagTable struct {
	asked atomic.Int64
	fail  atomic.Bool
	moved atomic.Bool // link 5 has another tag by now
}

func (s *tagTable) LinkTags(_ context.Context, w terse.WorkspaceID, l terse.LinkNumber) ([]string, error) {
	s.asked.Add(1)
	switch {
	case s.fail.Load():
		return nil, errors.New("away")
	case w != 1 || l != 5:
		return nil, nil
	case s.moved.Load():
		return []string{"vip"}, nil
	}
	return []string{"sms", "spring"}, nil
}

func (s *tagTable) CampaignTags(_ context.Context, _ terse.WorkspaceID, c terse.CampaignID) ([]string, error) {
	if c == 7 {
		return []string{"sms"}, nil
	}
	return nil, nil
}

// TestTagScope: the view of a tag shows clicks on what has the tag now, and says when it does not know.
func TestTagScope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, tags := &pipe{c: make(chan clicks.Event, 10_000)}, &tagTable{}
		h := live.New(live.Options{Open: func() (live.Tail, error) { return p, nil }, Tags: tags})
		defer h.Close()
		all := watch(t, h, analytics.Scope{}, "")
		p.put(5, nil)
		pass(1100 * time.Millisecond)
		synctest.Wait()
		if n := tags.asked.Load(); n != 0 {
			t.Errorf("%d look-ups though nobody watches a tag", n)
		}
		sms, vip := watch(t, h, analytics.Scope{Tag: "sms"}, ""), watch(t, h, analytics.Scope{Tag: "vip"}, "")
		seconds := func() (int64, int64) {
			t.Helper()
			pass(2100 * time.Millisecond)
			synctest.Wait()
			a, open1 := drain(sms)
			b, open2 := drain(vip)
			if !open1 || !open2 {
				t.Fatal("a watcher was dropped")
			}
			s, _ := sum(t, a)
			v, _ := sum(t, b)
			return s.Total, v.Total
		}
		p.put(100, nil)
		p.put(3, func(ev *clicks.Event) { ev.Link, ev.Campaign = 6, 7 })
		p.put(2, func(ev *clicks.Event) { ev.Link = 6 })
		p.put(4, func(ev *clicks.Event) { ev.Link, ev.Code = 0, "unknown" })
		p.put(9, func(ev *clicks.Event) { ev.Workspace = 2 })
		if s, v := seconds(); s != 103 || v != 0 || tags.asked.Load() > 6 {
			t.Errorf("%d and %d clicks with %d look-ups, want 103 and 0 with few", s, v, tags.asked.Load())
		}
		tags.moved.Store(true)
		p.put(8, nil)
		if s, v := seconds(); s != 0 || v != 8 {
			t.Errorf("after the link got another tag: %d and %d clicks, want 0 and 8", s, v)
		}
		tags.fail.Store(true)
		p.put(6, nil)
		pass(1100 * time.Millisecond)
		synctest.Wait()
		list, open := drain(sms)
		gaps := 0
		for _, m := range list {
			if m.Event == live.EventGap {
				gaps++
			}
		}
		if got, _ := sum(t, list); gaps != 1 || got.Total != 0 || !open {
			t.Errorf("while the store is away: %d gaps, %d clicks, open %v", gaps, got.Total, open)
		}
		list, _ = drain(all)
		if got, _ := sum(t, list); got.Total != 5+100+3+2+4+8+6 {
			t.Errorf("the view of the workspace has %d clicks", got.Total)
		}
		sms.Leave()
		vip.Leave()
	})
	h := hub(&pipe{c: make(chan clicks.Event)})
	defer h.Close()
	if _, err := h.Watch(1, analytics.Scope{Tag: "sms"}, ""); terse.ErrorCode(err) != terse.CodeUnavailable {
		t.Errorf("a tag on a server that knows none: %v", err)
	}
}
