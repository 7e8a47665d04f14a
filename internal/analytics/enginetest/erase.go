package enginetest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// Marked are clicks whose User-Agents and networks say whose they are: of the link and of the visitor that are to be erased, which
// are of Workspace, or of others. An agent begins with one of the texts that begin with Of.
type Marked struct {
	Events  []clicks.Event
	Link    terse.LinkNumber
	Visitor uint64
}

// What the clicks of Marked have.
const (
	OfLink, OfVisitor, OfOthers       = "erased-by-link", "erased-by-visitor", "stays-here"
	LinkNet, VisitorNet, OtherNetwork = "198.18.7.0/24", "2001:db8:77::/48", "203.0.113.0/24"
)

// Mark marks events, which it changes. The link and the visitor are those of the last click of a person, on its own day.
func Mark(events []clicks.Event) Marked {
	m := Marked{Events: events}
	for i := range events {
		if ev := &events[i]; ev.Workspace == Workspace && ev.Link != 0 && ev.Visitor != 0 && ev.Bot == clicks.Human {
			m.Link, m.Visitor = ev.Link, ev.Visitor
		}
	}
	for i := range events {
		ev := &events[i]
		what, network := OfOthers, OtherNetwork
		switch {
		case ev.Workspace != Workspace: // has links and visitors of its own
		case ev.Link == m.Link:
			what, network = OfLink, LinkNet
		case ev.Visitor == m.Visitor:
			what, network = OfVisitor, VisitorNet
		}
		ev.UserAgent, ev.IP = fmt.Sprintf("%s/%d (%x)", what, i, ev.ID), network
	}
	return m
}

// testErase: an erasure takes the clicks with all that was kept of them, and no others.
func testErase(t *testing.T, o Options) {
	m := Mark(Events(21, min(o.Events, 2000)))
	e, ref, ctx := o.New(t, m.Events), NewReference(m.Events), t.Context()
	q := analytics.Query{Workspace: Workspace, From: SpanFrom, To: SpanTo, By: analytics.Country, Bots: analytics.BotsInclude, Every: true}
	p := analytics.Page{Limit: analytics.MaxClicks}
	for _, er := range []analytics.Erasure{{Workspace: Workspace, Link: m.Link}, {Workspace: Workspace, Visitor: m.Visitor}} {
		want, _ := ref.Erase(ctx, er)
		got, err := e.(analytics.Eraser).Erase(ctx, er)
		if check(t, "erased", err, want, got); want == 0 {
			t.Error("there is nothing to erase")
		}
	}
	list, err := e.Clicks(ctx, q, p)
	want, _ := ref.Clicks(ctx, q, p)
	if check(t, "clicks", err, len(want), len(list)); len(list) == 0 {
		t.Error("no clicks are left")
	}
	for i := range list {
		if !strings.HasPrefix(list[i].UserAgent, OfOthers) || list[i].IP != OtherNetwork {
			t.Errorf("a click that stays has %q, %q", list[i].UserAgent, list[i].IP)
		}
	}
	other := q
	other.Workspace = Workspace + 1
	want, _ = ref.Clicks(ctx, other, p)
	list, err = e.Clicks(ctx, other, p)
	if err != nil || len(list) != len(want) {
		t.Errorf("the other workspace has %d clicks, %v; want %d", len(list), err, len(want))
	}
	for i := range min(len(list), len(want)) {
		if list[i].UserAgent != want[i].UserAgent || list[i].IP != want[i].IP {
			t.Errorf("a click of the other workspace has %q, %q", list[i].UserAgent, list[i].IP)
		}
	}
	compare(t, e, ref, q)
}
