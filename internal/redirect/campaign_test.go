package redirect

import (
	"context"
	"strings"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/campaigns"
	"github.com/terselink/terse/internal/clicks"
)

// campaign stores a campaign of workspace 1.
func (w *world) campaign(template string, fields ...string) *campaigns.Campaign {
	w.t.Helper()
	c, err := w.campaigns.Create(context.Background(), terse.Campaign{Workspace: 1, Name: "c", Destination: template, Fields: fields}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// change changes a campaign; the plane is not told.
func (w *world) change(c *campaigns.Campaign, f func(*terse.Campaign)) {
	w.t.Helper()
	if _, err := w.campaigns.Update(context.Background(), 1, c.ID, 0, func(c *terse.Campaign) error { f(c); return nil }); err != nil {
		w.t.Fatal(err)
	}
}

// TestCampaign: what a campaign says holds for its cached links with the next visit.
func TestCampaign(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.campaign("https://shop.example/p/{sku}?u={u}", "sku", "u")
	in := func(values string, set ...func(*terse.Link)) func(*terse.Link) {
		return func(l *terse.Link) {
			l.Campaign, l.Values = c.ID, values
			for _, f := range set {
				f(l)
			}
		}
	}
	w.link("go.example.com", "one", "", in("A 17\x1f9&3"))
	w.link("go.example.com", "two", "", in("b\x1f2"))
	w.link("go.example.com", "own", "https://own.example/", in("c\x1f3"))
	w.link("go.example.com", "dots", "", in("..\x1f.."))
	ends := w.link("go.example.com", "ends", "", in("e\x1f5", func(l *terse.Link) { l.ExpiresAt, l.DefaultExpiry = testNow-1, true }))
	w.link("go.example.com", "lost", "", func(l *terse.Link) { l.Campaign, l.Values = 77, "x" })

	stop := func(l *terse.Link) {
		l.Status, l.Settings = terse.StatusBlocked, &terse.LinkSettings{Block: &terse.Block{By: "owner"}}
	}
	w.link("go.example.com", "bad", "", in("f\x1f6", stop))
	w.link("go.example.com", "worse", "", in("g\x1f7", stop))

	w.want("/bad", 451, "")
	w.want("/one", 302, "https://shop.example/p/A%2017?u=9%263")
	w.want("/two", 302, "https://shop.example/p/b?u=2")
	w.want("/own", 302, "https://own.example/")
	w.want("/dots", 404, "")
	w.want("/lost", 404, "")
	w.want("/ends", 410, "")

	w.change(c, func(c *terse.Campaign) { c.Destination, c.RedirectStatus = "https://new.example/{u}#{sku}", 307 })
	w.want("/one", 307, "https://new.example/9%263#A%2017")
	w.want("/two", 307, "https://new.example/2#b")
	w.want("/own", 307, "https://own.example/")

	yes := true
	w.change(c, func(c *terse.Campaign) { c.Settings.ForwardQuery = &yes })
	w.want("/two?a=1", 307, "https://new.example/2?a=1#b")

	w.change(c, func(c *terse.Campaign) { c.ExpiresAt = testNow + 1000 })
	w.want("/"+ends.Code, 307, "https://new.example/5#e") // the campaign's expiry goes before the domain's default
	w.change(c, func(c *terse.Campaign) { c.ExpiresAt, c.Settings.ExpiredDestination = testNow, "https://over.example/" })
	w.want("/two", 302, "https://over.example/")
	w.want("/own", 302, "https://over.example/")
	w.change(c, func(c *terse.Campaign) { c.ExpiresAt, c.Settings.StartsAt = 0, testNow+1 })
	w.want("/two", 404, "")
	w.change(c, func(c *terse.Campaign) { c.Settings.StartsAt, c.Status = 0, terse.StatusDisabled })
	w.want("/two", 410, "")
	if err := w.campaigns.Delete(context.Background(), 1, c.ID, 0); err != nil {
		t.Fatal(err)
	}
	w.want("/two", 404, "")
	w.want("/bad", 451, "")   // in the cache
	w.want("/worse", 451, "") // not in the cache
	w.want("/own", 404, "")
}

// TestCampaignUnknown: a campaign that cannot be read is no reason to say that a link does
// not exist.
func TestCampaignUnknown(t *testing.T) {
	t.Parallel()
	down := downCampaigns{}
	w := newWorld(t, func(o *Options) { o.Campaigns = down })
	w.link("go.example.com", "one", "", func(l *terse.Link) { l.Campaign, l.Values = 77, "x" })
	w.want("/one", 503, "")
}

type downCampaigns struct{}

func (downCampaigns) Handle(context.Context, terse.WorkspaceID, terse.CampaignID) (*campaigns.Handle, error) {
	return nil, terse.ErrUnavailable
}

// TestCampaignAllocs: a visit of a cached link of a campaign allocates nothing.
func TestCampaignAllocs(t *testing.T) {
	w := newWorld(t)
	c := w.campaign("https://shop.example/p/{sku}?u={u}", "sku", "u")
	l := w.link("go.example.com", "one", "", func(l *terse.Link) { l.Campaign, l.Values = c.ID, "A17\x1f9f3" })
	loaded, err := w.server.compileShared(context.Background(), &l)
	if err != nil {
		t.Fatal(err)
	}
	d := w.domains.ByName("go.example.com")
	r := &request{}
	var v decision
	visit := func() {
		under, _ := loaded.Value.under(&r.link, &r.expanded)
		v = decide(&r.location, d, under, &facts{now: testNow})
	}
	visit()
	if n := testing.AllocsPerRun(100, visit); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if v.outcome != clicks.OutcomeRedirect || !strings.HasSuffix(string(v.location), "/A17?u=9f3") {
		t.Errorf("%+v", v)
	}
}

// TestCampaignRules: the rules of a campaign decide for all its links but those that say
// something themselves, with the visit after the change.
func TestCampaignRules(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.campaign("https://shop.example/p/{sku}?u={u}", "sku", "u")
	in := func(values string, set ...func(*terse.Link)) func(*terse.Link) {
		return func(l *terse.Link) {
			l.Campaign, l.Values = c.ID, values
			for _, f := range set {
				f(l)
			}
		}
	}
	w.link("go.example.com", "one", "", in("A 17\x1f9&3"))
	w.link("go.example.com", "own", "https://own.example/", in("c\x1f3"))
	w.link("go.example.com", "ruled", "", in("d\x1f4", settings(terse.LinkSettings{Rules: []terse.Rule{to("https://mine.example/", on("query", "v", "1"))}})))
	w.link("go.example.com", "dots", "", in("x\x1f.."))
	w.link("go.example.com", "titled", "", in("t\x1f6", settings(terse.LinkSettings{Title: "t"})))
	w.want("/one?v=1", 302, "https://shop.example/p/A%2017?u=9%263")
	w.clicks.take()

	w.change(c, func(c *terse.Campaign) {
		c.Settings.Rules = []terse.Rule{
			to("https://v1.example/{u}/{sku}", on("query", "v", "1")),
			{Conditions: []terse.Condition{on("query", "v", "2")}, Variants: []terse.Variant{{Destination: "https://a.example/{sku}", Weight: 1}, {Destination: "https://b.example/{sku}", Weight: 0}}},
		}
	})
	for _, visit := range []struct {
		path, location string
		status         int
		rule           uint8
	}{
		{"/one", "https://shop.example/p/A%2017?u=9%263", 302, 0},
		{"/one?v=1", "https://v1.example/9%263/A%2017", 302, 1},
		{"/one?v=2", "https://a.example/A%2017", 302, 2},
		{"/titled?v=1", "https://v1.example/6/t", 302, 1},
		{"/own?v=1", "https://own.example/", 302, 0},
		{"/ruled?v=1", "https://mine.example/", 302, 1},
		{"/ruled?v=2", "https://shop.example/p/d?u=4", 302, 0},
		{"/dots?v=2", "https://a.example/x", 302, 2},
		{"/dots?v=1", "", 404, 0}, // the values make no path of this target
	} {
		w.want(visit.path, visit.status, visit.location)
		if got := w.clicks.take(); len(got) != 1 || got[0].Rule != visit.rule {
			t.Errorf("%s: clicks %+v, want rule %d", visit.path, got, visit.rule)
		}
	}
	yes := true
	w.change(c, func(c *terse.Campaign) { c.Settings.ForwardQuery = &yes })
	w.want("/one?v=1&x=y", 302, "https://v1.example/9%263/A%2017?v=1&x=y")
	w.change(c, func(c *terse.Campaign) { c.Settings.Rules = nil })
	w.want("/one?v=1", 302, "https://shop.example/p/A%2017?u=9%263&v=1")
}

// TestCampaignRuleAllocs: a visit that a rule of the campaign decides allocates nothing.
func TestCampaignRuleAllocs(t *testing.T) {
	w := newWorld(t)
	c := w.campaign("https://shop.example/p/{sku}?u={u}", "sku", "u")
	w.change(c, func(c *terse.Campaign) {
		c.Settings.Rules = []terse.Rule{to("https://v2.example/", on("query", "v", "2")), to("https://v1.example/{u}/{sku}", on("query", "v", "1"))}
	})
	l := w.link("go.example.com", "one", "", func(l *terse.Link) { l.Campaign, l.Values = c.ID, "A17\x1f9f3" })
	loaded, err := w.server.compileShared(context.Background(), &l)
	if err != nil {
		t.Fatal(err)
	}
	d := w.domains.ByName("go.example.com")
	r := &request{query: []byte("a=b&v=1")}
	var v decision
	visit := func() {
		l, _ := loaded.Value.under(&r.link, &r.expanded)
		v = decide(&r.location, d, w.server.route(r, l, &r.link), &facts{now: testNow})
	}
	visit()
	if n := testing.AllocsPerRun(100, visit); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if string(v.location) != "https://v1.example/9f3/A17" || !v.private {
		t.Errorf("%+v", v)
	}
}
