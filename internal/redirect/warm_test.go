package redirect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/campaigns"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/store/faultstore"
	"github.com/terselink/terse/internal/warm"
)

// node is a redirect plane with its registries, on a store that other nodes use, too.
type node struct {
	*world
	warmer *Warmer
	stop   func()
}

// bubble runs a test in a bubble of time. fasthttp keeps the date by a goroutine of its own, which must begin
// outside.
func bubble(t *testing.T, f func(*testing.T)) {
	_ = new(fasthttp.Response).String()
	synctest.Test(t, f)
}

func wall() terse.Millis { return terse.MillisOf(time.Now()) }

// startNode starts as a server on a networked store does: with the domains that were kept if the store does
// not answer.
func startNode(t *testing.T, inner *world, store terse.Store, path string) *node {
	t.Helper()
	c, err := warm.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	o := domains.Options{Store: store, Clock: wall, Log: slog.New(slog.DiscardHandler), Shared: true}
	n := &node{world: &world{t: t, store: inner.store, clicks: &recorder{}, now: wall}}
	n.domains, err = domains.Open(t.Context(), o)
	if errors.Is(err, terse.ErrUnavailable) {
		n.domains, err = domains.OpenKept(t.Context(), o, c.Domains, c.DefaultHost)
	}
	if err != nil {
		t.Fatal(err)
	}
	n.campaigns = campaigns.New(campaigns.Options{Store: store, Clock: wall})
	n.server, err = New(Options{Domains: n.domains, Campaigns: n.campaigns, Store: store, Recorder: n.clicks, Clock: wall})
	if err != nil {
		t.Fatal(err)
	}
	n.warmer = NewWarmer(WarmOptions{Path: path, Server: n.server, Domains: n.domains, Campaigns: n.campaigns})
	n.warmer.Load(c)
	n.stop = func() {
		if err := n.server.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		n.domains.Close()
	}
	return n
}

// warmWorld has links of every kind, of which a first node has visited all but one.
type warmWorld struct {
	*world
	faults *faultstore.Store
	path   string
	camp   *campaigns.Campaign
	plain  terse.Link
}

func newWarmWorld(t *testing.T) *warmWorld {
	w := &warmWorld{world: newWorld(t), path: filepath.Join(t.TempDir(), warm.FileName)}
	w.now = wall
	w.faults = faultstore.New(w.store)
	w.camp = w.campaign("https://shop.example/p/{sku}", "sku")
	w.change(w.camp, func(c *terse.Campaign) {
		c.Settings.Rules = []terse.Rule{to("https://rule.example/{sku}", on("query", "v", "1"))}
		c.Settings.Web = &terse.LinkWeb{UTM: &terse.UTM{Source: "{sku}"}}
	})
	w.plain = w.link("go.example.com", "", "https://example.com/plain")
	w.link("go.example.com", "alias", "https://example.com/alias")
	w.link("go.example.com", "shared", "", func(l *terse.Link) { l.Campaign, l.Values = w.camp.ID, "A 17" })
	w.link("go.example.com", "cold", "https://example.com/cold")
	return w
}

func (n *node) wantAll(w *warmWorld) {
	n.t.Helper()
	n.want("/"+w.plain.Code, 302, "https://example.com/plain")
	n.want("/alias", 302, "https://example.com/alias")
	n.want("/shared", 302, "https://shop.example/p/A%2017?utm_source=A%2017")
	n.want("/shared?v=1", 302, "https://rule.example/A%2017?utm_source=A%2017")
}

// askHost returns the status of a visit of any host.
func (n *node) askHost(host, path string) int {
	ctx := newCtx(n.t, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
	n.server.handle(ctx)
	return ctx.Response.StatusCode()
}

func (n *node) save() {
	n.t.Helper()
	if err := n.warmer.Save(context.Background()); err != nil {
		n.t.Fatal(err)
	}
}

// outage makes every call of the store fail until the function it returns is called.
func (w *warmWorld) outage() (end func()) {
	return w.faults.Inject(faultstore.Fault{Op: faultstore.Any, Times: faultstore.Forever, Err: terse.ErrUnavailable})
}

// TestWarmRestartDuringOutage is FAILURES 16: a plane that starts while the store is down serves what was hot,
// says 503 of what it does not know, and does as the store says when it is back.
func TestWarmRestartDuringOutage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWarmWorld(t)
		first := startNode(t, w.world, w.faults, w.path)
		first.wantAll(w)
		first.save()
		first.stop()

		end := w.outage()
		second := startNode(t, w.world, w.faults, w.path)
		second.wantAll(w)
		second.want("/cold", 503, "")
		second.want("/nobody", 503, "")
		if status := second.askHost("new.example.com", "/x"); status != 503 {
			t.Errorf("a domain that may be new is %d, want 503", status)
		}
		if err := second.warmer.Save(t.Context()); !errors.Is(err, terse.ErrUnavailable) {
			t.Errorf("the file is written without the store: %v", err)
		}
		for range 100 { // an hour
			time.Sleep(36 * time.Second)
			second.wantAll(w)
		}

		// Meanwhile, through a node that reaches the store:
		ctx := t.Context()
		if err := w.store.DeleteLink(ctx, terse.LinkKey{Number: w.plain.Number, Code: w.plain.Code}, 0); err != nil {
			t.Fatal(err)
		}
		w.change(w.camp, func(c *terse.Campaign) { c.Destination, c.Settings.Rules = "https://new.example/{sku}", nil })

		end()
		if err := second.domains.Reload(ctx); err != nil {
			t.Fatal(err)
		}
		if status := second.askHost("new.example.com", "/x"); status != 404 {
			t.Errorf("a domain that is known not to exist is %d, want 404", status)
		}
		time.Sleep(2 * time.Second)
		second.ask("/alias") // the visit that finds out
		synctest.Wait()
		second.want("/"+w.plain.Code, 404, "")
		second.want("/alias", 302, "https://example.com/alias")
		second.want("/shared?v=1", 302, "https://new.example/A%2017?utm_source=A%2017")
		second.want("/cold", 302, "https://example.com/cold")
		second.want("/nobody", 404, "")
		second.save()
		second.stop()

		third := startNode(t, w.world, w.faults, w.path)
		defer third.stop()
		defer w.outage()()
		third.want("/alias", 302, "https://example.com/alias")
		third.want("/cold", 302, "https://example.com/cold")
		third.want("/shared", 302, "https://new.example/A%2017?utm_source=A%2017")
		third.want("/"+w.plain.Code, 503, "") // not kept, and nobody can be asked
	})
}

// TestWarmStoreAnswers: what was kept never goes before a store that answers, from the first visit on.
func TestWarmStoreAnswers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWarmWorld(t)
		first := startNode(t, w.world, w.faults, w.path)
		first.wantAll(w)
		first.save()
		first.stop()
		if err := w.store.DeleteLink(t.Context(), terse.LinkKey{Number: w.plain.Number, Code: w.plain.Code}, 0); err != nil {
			t.Fatal(err)
		}
		if err := w.campaigns.Delete(t.Context(), 1, w.camp.ID, 0); err != nil {
			t.Fatal(err)
		}
		second := startNode(t, w.world, w.faults, w.path)
		defer second.stop()
		second.want("/"+w.plain.Code, 404, "")
		second.want("/shared", 404, "")
		second.want("/alias", 302, "https://example.com/alias")
		// And then it goes down: what the store said, and only that, holds.
		defer w.outage()()
		second.want("/alias", 302, "https://example.com/alias")
		if status, _ := second.ask("/" + w.plain.Code); status == 302 {
			t.Error("a deleted link redirects during an outage after the store had said that it is gone")
		}
		if status, _ := second.ask("/shared"); status == 302 {
			t.Error("a link of a deleted campaign redirects")
		}
	})
}

// TestWarmNews: what a node hears of a write before it has asked the store goes before what was kept.
func TestWarmNews(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWarmWorld(t)
		first := startNode(t, w.world, w.faults, w.path)
		first.wantAll(w)
		first.save()
		first.stop()
		end := w.outage()
		second := startNode(t, w.world, w.faults, w.path)
		defer second.stop()
		second.want("/"+w.plain.Code, 302, "https://example.com/plain")
		second.server.OnChange(Invalidation{Domain: w.plain.Number.Domain(), Code: w.plain.Code, Number: w.plain.Number, Version: 1, Deleted: true})
		second.want("/"+w.plain.Code, 503, "")
		end()
	})
}

// TestWarmSave: the file follows what is hot, is written only when that changes, and leaves out what is gone.
func TestWarmSave(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWarmWorld(t)
		n := startNode(t, w.world, w.faults, w.path)
		defer n.stop()
		content := func() *warm.Content {
			t.Helper()
			c, err := warm.Load(w.path)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		n.wantAll(w)
		n.save()
		c := content()
		if c.Generation != 1 || len(c.Links) != 3 || len(c.Campaigns) != 1 || len(c.Domains) != 1 {
			t.Fatalf("generation %d, %d links, %d campaigns, %d domains", c.Generation, len(c.Links), len(c.Campaigns), len(c.Domains))
		}
		reads := w.faults.Calls(faultstore.GetLinks) + w.faults.Calls(faultstore.GetAlias)
		n.wantAll(w)
		n.save()
		if got := content().Generation; got != 1 {
			t.Errorf("nothing changed, and generation %d was written", got)
		}
		if now := w.faults.Calls(faultstore.GetLinks) + w.faults.Calls(faultstore.GetAlias); now != reads {
			t.Errorf("%d reads of links that were known", now-reads)
		}
		n.want("/cold", 302, "https://example.com/cold")
		n.save()
		if c := content(); c.Generation != 2 || len(c.Links) != 4 {
			t.Errorf("generation %d, %d links after one more is hot", c.Generation, len(c.Links))
		}
		if err := w.store.DeleteLink(t.Context(), terse.LinkKey{Number: w.plain.Number, Code: w.plain.Code}, 0); err != nil {
			t.Fatal(err)
		}
		n.server.OnChange(Invalidation{Domain: w.plain.Number.Domain(), Code: w.plain.Code, Number: w.plain.Number, Version: 1, Deleted: true})
		n.save()
		if c := content(); c.Generation != 3 || len(c.Links) != 3 {
			t.Errorf("generation %d, %d links after one was deleted", c.Generation, len(c.Links))
		}
		// A file of another process is not written over.
		c = content()
		c.Generation = 9
		if _, err := warm.Save(w.path, c, 1<<20); err != nil {
			t.Fatal(err)
		}
		n.change(w.camp, func(c *terse.Campaign) { c.Name = "other" })
		if err := n.warmer.Save(t.Context()); !errors.Is(err, warm.ErrOlder) {
			t.Errorf("over a file of another process: %v", err)
		}
	})
}

// TestWarmCampaignBytes: campaigns take half of the file at most, whatever is hot; links whose campaign did not fit stay
// out with it, and all others are kept.
func TestWarmCampaignBytes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const limit, camps = 64 << 10, 40
		w := newWarmWorld(t)
		for i := range camps {
			c := w.campaign(fmt.Sprintf("https://shop.example/%d/{sku}", i), "sku")
			w.change(c, func(c *terse.Campaign) { c.Name = strings.Repeat("n", 4<<10) })
			w.link("go.example.com", fmt.Sprintf("big%d", i), "", func(l *terse.Link) { l.Campaign, l.Values = c.ID, "v" })
		}
		first := startNode(t, w.world, w.faults, w.path)
		first.warmer.o.Bytes = limit
		first.wantAll(w)
		for i := range camps {
			first.want(fmt.Sprintf("/big%d", i), 302, fmt.Sprintf("https://shop.example/%d/v", i))
		}
		first.save()
		first.stop()
		info, err := os.Stat(w.path)
		if err != nil {
			t.Fatal(err)
		}
		c, err := warm.Load(w.path)
		if err != nil {
			t.Fatal(err)
		}
		bytes, kept := 0, map[terse.CampaignID]bool{}
		for _, doc := range c.Campaigns {
			id, err := terse.ParseCampaignID(doc.ID)
			if err != nil {
				t.Fatal(err)
			}
			kept[id] = true
			bytes += len(doc.Data)
		}
		if info.Size() > limit || bytes > limit/2 || bytes < limit/4 {
			t.Errorf("%d bytes of %d campaigns in a file of %d, want at most %d in %d", bytes, len(kept), info.Size(), limit/2, limit)
		}
		shared := 0
		for i := range c.Links {
			if id := c.Links[i].Campaign; id != 0 {
				shared++
				if !kept[id] {
					t.Errorf("link %s is kept without its campaign", c.Links[i].Code)
				}
			}
		}
		if want := len(kept) + 2; shared != len(kept) || len(c.Links) != want {
			t.Errorf("%d links, %d of them of %d campaigns; want %d", len(c.Links), shared, len(kept), want)
		}

		defer w.outage()()
		second := startNode(t, w.world, w.faults, w.path)
		defer second.stop()
		second.want("/"+w.plain.Code, 302, "https://example.com/plain")
		redirected := 0
		for i := range camps {
			switch status, to := second.ask(fmt.Sprintf("/big%d", i)); {
			case status == 302 && to == fmt.Sprintf("https://shop.example/%d/v", i):
				redirected++
			case status != 503:
				t.Errorf("link %d without the store: %d to %q", i, status, to)
			}
		}
		if redirected < len(kept)-1 { // one of them may be w.camp
			t.Errorf("%d links of campaigns redirect, %d campaigns are kept", redirected, len(kept))
		}
	})
}

// TestWarmOld: a node that was off for more than a day does not go by what it knew before.
func TestWarmOld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWarmWorld(t)
		first := startNode(t, w.world, w.faults, w.path)
		first.wantAll(w)
		first.save()
		first.stop()
		end := w.outage()
		time.Sleep(23 * time.Hour)
		second := startNode(t, w.world, w.faults, w.path)
		second.wantAll(w)
		second.stop()
		time.Sleep(time.Hour + time.Minute)
		third := startNode(t, w.world, w.faults, w.path)
		third.want("/alias", 503, "")
		end()
		third.stop()
	})
}
