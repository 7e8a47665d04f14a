package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/terselink/terse/client"
)

// TestEdgeKeeps: an edge hears what a workspace wants to keep of its visitors, and that it does not any more. Their networks
// arrive at the control plane, their addresses are nowhere.
func TestEdgeKeeps(t *testing.T) {
	uo := fixedAddrs(t)
	up := start(t, uo)
	eo := edgeOptions(t, up)
	eo.Env = append(eo.Env, "TERSE_TRUSTED_PROXIES=127.0.0.1,::1")
	edge := start(t, eo)
	c := newClient(t, up)
	w := ""
	for ws, err := range c.Workspaces(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		w = ws.ID // the only one
	}
	link, err := c.CreateLink(t.Context(), client.NewLink{Destination: "https://example.com/kept"})
	if err != nil {
		t.Fatal(err)
	}
	path := pathOf(link.ShortURL)
	var seen []netip.Addr
	var shown netip.Addr // in a network that is kept
	// kept visits the edge from a network of its own and returns what the click has when it has arrived.
	kept := func() (network, ip, agent string) {
		t.Helper()
		a := netip.AddrFrom4([4]byte{45, 137, byte(100 + len(seen)), 94})
		network = netip.PrefixFrom(a, 24).Masked().String()
		seen = append(seen, a)
		v := newVisitor(edge, "User-Agent", fmt.Sprintf("%s visit-%d", agentDesktop, len(seen)), "X-Forwarded-For", a.String())
		defer v.close()
		until(t, time.Minute, "the edge redirects", func() bool {
			status, _, err := v.look("GET", path)
			return err == nil && status == 302
		})
		until(t, 3*time.Minute, "the click of the edge has arrived", func() bool {
			n := 0
			for ev, err := range c.Clicks(t.Context(), client.Query{Period: "24h", LinkID: link.ID, Bots: "include"}) {
				if err != nil {
					return false
				}
				if n++; n == 1 {
					ip, agent = ev.IP, ev.UserAgent
				}
			}
			return n == len(seen)
		})
		return network, ip, agent
	}
	set := func(ua bool, ip string) {
		t.Helper()
		if _, err := c.UpdateWorkspace(t.Context(), w, client.WorkspacePatch{StoreUA: client.Set(ua), StoreIP: client.Set(ip)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, ip, agent := kept(); ip != "" || agent != "" {
		t.Fatalf("nobody asked for %q, %q", ip, agent)
	}
	set(true, "truncated")
	// A look takes up to the four minutes of kept.
	until(t, 5*time.Minute, "the edge keeps networks", func() bool {
		network, ip, agent := kept()
		shown = seen[len(seen)-1]
		return ip == network && agent == fmt.Sprintf("%s visit-%d", agentDesktop, len(seen))
	})
	set(false, "no")
	until(t, 5*time.Minute, "the edge keeps nothing any more", func() bool {
		_, ip, agent := kept()
		return ip == "" && agent == ""
	})
	for _, s := range []interface{ Stop() error }{edge, up} {
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	found := false
	for _, data := range []string{eo.Data, uo.Data} {
		err := filepath.WalkDir(data, func(p string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			content, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			for _, b := range append(spoolPayloads(t, content), content) {
				all := 0
				for _, a := range seen {
					if bytes.Contains(b, []byte(a.String())) {
						t.Errorf("%s holds %v", p, a)
					}
					if bytes.Contains(b, a.AsSlice()) {
						all++
					}
				}
				if all == len(seen) { // four bytes alone turn up by chance
					t.Errorf("%s holds the bytes of all addresses", p)
				}
				found = found || bytes.Contains(b, shown.AsSlice()[:3])
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if !found {
		t.Error("the search found nothing at all")
	}
}
