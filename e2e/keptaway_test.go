package e2e

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/e2e/proc"
)

// TestEdgeKeepsNoMore: what lies at an edge of visitors whose workspace has switched that off, while the edge could not hear of it,
// does not get into the control plane; and an edge that has not heard its control plane since its start keeps nothing.
func TestEdgeKeepsNoMore(t *testing.T) {
	uo := fixedAddrs(t)
	up := start(t, uo)
	eo := edgeOptions(t, up)
	eo.Env = append(eo.Env, "TERSE_TRUSTED_PROXIES=127.0.0.1,::1")
	edge := start(t, eo)
	link, err := newClient(t, up).CreateLink(t.Context(), client.NewLink{Destination: "https://example.com/kept"})
	if err != nil {
		t.Fatal(err)
	}
	set := func(ua bool, ip string) {
		t.Helper()
		c := newClient(t, up)
		for ws, err := range c.Workspaces(t.Context()) {
			if err == nil {
				_, err = c.UpdateWorkspace(t.Context(), ws.ID, client.WorkspacePatch{StoreUA: client.Set(ua), StoreIP: client.Set(ip)})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	visits := 0
	visit := func() netip.Addr {
		t.Helper()
		visits++
		a := netip.AddrFrom4([4]byte{45, 137, byte(100 + visits), 94})
		v := newVisitor(edge, "User-Agent", fmt.Sprintf("%s visit-%d", agentDesktop, visits), "X-Forwarded-For", a.String())
		defer v.close()
		until(t, time.Minute, "the edge redirects", func() bool {
			status, _, err := v.look("GET", pathOf(link.ShortURL))
			return err == nil && status == 302
		})
		return a
	}
	// arrived waits until all clicks are at the control plane, and returns what it has of the last. A request of a visit that was
	// cut may have been counted and repeated.
	arrived := func() (ip, agent string) {
		t.Helper()
		until(t, 3*time.Minute, "the clicks have arrived", func() bool {
			n := 0
			for ev, err := range newClient(t, up).Clicks(t.Context(), client.Query{Period: "24h", LinkID: link.ID, Bots: "include"}) {
				if err != nil {
					return false
				}
				if n++; n == 1 { // the newest first
					ip, agent = ev.IP, ev.UserAgent
				}
			}
			return n >= visits
		})
		return ip, agent
	}
	spooled := func(data string, a netip.Addr) bool {
		t.Helper()
		segments, err := filepath.Glob(filepath.Join(data, "spool", "*.seg"))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range segments {
			content, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range spoolPayloads(t, content) {
				if bytes.Contains(b, a.AsSlice()[:3]) {
					return true
				}
			}
		}
		return false
	}
	stop := func(s *proc.Server) {
		t.Helper()
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	keeps := func() {
		t.Helper()
		set(true, "truncated")
		until(t, 5*time.Minute, "the edge keeps networks", func() bool {
			network := netip.PrefixFrom(visit(), 24).Masked()
			ip, _ := arrived()
			return ip == network.String()
		})
	}

	keeps()
	stop(up)
	late := visit()
	until(t, time.Minute, "the click is on the disk of the edge, with its network", func() bool { return spooled(eo.Data, late) })
	hidden := uo
	if hidden.ControlAddr, err = proc.FreeAddr(); err != nil { // where the edge does not look
		t.Fatal(err)
	}
	up = start(t, hidden)
	set(false, "no")
	stop(up)
	up = start(t, uo)
	if ip, agent := arrived(); ip != "" || agent != "" {
		t.Errorf("a click that was late has %q, %q", ip, agent)
	}
	if spooled(uo.Data, late) {
		t.Error("its network is in the spool of the control plane")
	}

	keeps()
	stop(up)
	stop(edge)
	edge = start(t, eo)
	alone := visit()
	up = start(t, uo)
	if ip, agent := arrived(); ip != "" || agent != "" {
		t.Errorf("a click at an edge that had heard nothing has %q, %q", ip, agent)
	}
	for _, data := range []string{eo.Data, uo.Data} {
		if spooled(data, alone) {
			t.Errorf("its network is in the spool of %s", data)
		}
	}
	keeps() // once it hears again
}
