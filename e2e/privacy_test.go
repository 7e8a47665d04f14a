package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/e2e/proc"
)

// TestNoAddressOnDisk searches everything that a server keeps for the addresses of its visitors, in every form that a
// program would write them in, and for salts that are older than 48 hours. One workspace keeps networks of addresses: of its
// visitors these are there, and the whole addresses are not.
func TestNoAddressOnDisk(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	// Salts as a server that was off for a while would find them.
	old, today := bytes.Repeat([]byte{0xa5, 0x3c, 0x77, 0x19}, 4), bytes.Repeat([]byte{0x5b, 0xc1, 0x08, 0xee}, 4)
	now := time.Now().UTC()
	salts := fmt.Sprintf(`{"version":1,"salts":{%q:%q,%q:%q}}`,
		now.AddDate(0, 0, -3).Format(time.DateOnly), hex.EncodeToString(old), now.Format(time.DateOnly), hex.EncodeToString(today))
	if err := os.WriteFile(filepath.Join(data, "salts.json"), []byte(salts), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, proc.Options{Data: data, Env: append([]string{"TERSE_TRUSTED_PROXIES=127.0.0.1,::1", "TERSE_LOG_LEVEL=debug"}, quick...)})
	c := newClient(t, s)
	link, err := c.CreateLink(t.Context(), client.NewLink{Destination: "https://example.com/privacy"})
	if err != nil {
		t.Fatal(err)
	}

	// Four bytes turn up by chance in some files, the bytes of several addresses do not.
	v4 := []string{"45.137.201.94", "91.203.177.66", "187.54.219.133", "62.249.158.201", "109.173.86.214", "151.237.98.175"}
	v6 := []string{"2001:db8:85a3:8d3:1319:8a2e:370:7348", "2001:db8:77b2:9c51:a1f:33d7:64e9:5b0c"}
	const control = "privacy-control-7d1f" // is in the spool: what shows that the search finds something
	clicks := 0
	visit := func(path string, header ...string) {
		t.Helper()
		v := newVisitor(s, append([]string{"User-Agent", agentPhone + " " + control}, header...)...)
		defer v.close()
		if _, _, err := v.look("GET", path); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range append(append([]string{}, v4...), v6...) {
		forwarded := a
		if strings.Contains(a, ":") {
			forwarded = `"[` + a + `]:4711"`
		}
		path := pathOf(link.ShortURL)
		visit("/nothing-here", "X-Forwarded-For", a)
		clicks += 4
		visit(path, "X-Forwarded-For", a)
		visit(path, "X-Forwarded-For", "198.51.100.7, "+a)
		visit(path, "Forwarded", "for="+forwarded+";proto=https")
		visit(path+"?x=1&utm_source=mail", "X-Forwarded-For", a, "X-Real-IP", a, "CF-Connecting-IP", a, "True-Client-IP", a, "Referer", "https://news.example/?from=a")
	}
	until(t, 3*time.Minute, "every click is counted", func() bool {
		sum, err := c.Summary(t.Context(), client.Query{Period: "24h", All: true, Bots: "include"})
		return err == nil && sum.Total == int64(clicks)
	})
	sum, err := c.Summary(t.Context(), client.Query{Period: "24h", All: true})
	if err != nil || sum.Visitors < int64(len(v4)+len(v6)) {
		t.Errorf("%d visitors, %v: the server did not see the addresses", sum.Visitors, err)
	}
	cut := visitKept(t, s, c)
	v4, v6 = append(v4, cut.v4...), append(v6, cut.v6...)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}

	text, bytes4, bytes16 := map[string][]byte{"a salt of three days ago, in hexadecimal": []byte(hex.EncodeToString(old)), "a salt of three days ago": old,
		"a salt of three days ago, in base64": []byte(base64.StdEncoding.EncodeToString(old))}, map[string][][]byte{}, map[string][]byte{}
	for _, a := range v4 {
		b := netip.MustParseAddr(a).As4()
		text[a] = []byte(a)
		bytes4["bytes"] = append(bytes4["bytes"], b[:])
		bytes4["bytes backwards"] = append(bytes4["bytes backwards"], []byte{b[3], b[2], b[1], b[0]})
		bytes16[a+" as IPv6"] = append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, b[:]...)
		text[a+" in hexadecimal"] = []byte(hex.EncodeToString(b[:]))
	}
	for _, a := range v6 {
		b := netip.MustParseAddr(a).As16()
		text[a] = []byte(a)
		text[a+" in full"] = []byte(netip.MustParseAddr(a).StringExpanded())
		text[a+", its network"] = []byte(strings.Join(strings.Split(a, ":")[:4], ":"))
		bytes16[a] = b[:]
		bytes16[a+", its network"] = b[:8]
	}
	for _, network := range cut.off {
		text[network+", which nobody keeps any more"] = []byte(network)
	}
	found, files, networks := false, 0, false
	search := func(name string, content []byte) {
		for _, list := range []map[string][]byte{text, bytes16} {
			for what, b := range list {
				if bytes.Contains(content, b) {
					t.Errorf("%s holds %s", name, what)
				}
			}
		}
		for what, list := range bytes4 {
			n := 0
			for _, b := range list {
				if bytes.Contains(content, b) {
					n++
				}
			}
			if n >= 3 {
				t.Errorf("%s holds the %s of %d addresses", name, what, n)
			}
		}
	}
	err = filepath.WalkDir(data, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		files++
		for _, payload := range spoolPayloads(t, content) {
			found = found || bytes.Contains(payload, []byte(control))
			networks = networks || bytes.Contains(payload, cut.inSpool)
			search(strings.TrimPrefix(p, data)+", decompressed", payload)
		}
		if filepath.Base(p) == "salts.json" && !bytes.Contains(content, []byte(hex.EncodeToString(today))) {
			t.Error("the salt of today was not kept: the file that was read is another one")
		}
		search(strings.TrimPrefix(p, data), content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	search("the log", []byte(s.Log()))
	for _, must := range []string{"spool", "analytics/hot.duckdb", "salts.json", "warm.bin", "store"} {
		if _, err := os.Stat(filepath.Join(data, filepath.FromSlash(must))); err != nil {
			t.Errorf("was not searched: %v", err)
		}
	}
	if !networks {
		t.Error("the network that a workspace keeps was not found in the spool")
	}
	if !found {
		t.Errorf("the search found nothing at all in %d files", files)
	}
}

// keptVisits are visits to a link of a workspace that keeps User-Agents and networks for a while.
type keptVisits struct {
	v4, v6  []string // whole addresses, which must be nowhere
	off     []string // networks of visitors who came after it was switched off, which must be nowhere
	inSpool []byte   // of the network of a visitor who came before
}

// visitKept makes a workspace, lets it keep what can be kept, and sends visitors before, while and after.
func visitKept(t *testing.T, s *proc.Server, c *client.Client) keptVisits {
	t.Helper()
	w, err := c.CreateWorkspace(t.Context(), "keeps networks")
	if err != nil {
		t.Fatal(err)
	}
	c, err = client.New(client.Options{Server: s.URL(""), Key: proc.Key, Workspace: w.ID})
	if err != nil {
		t.Fatal(err)
	}
	link, err := c.CreateLink(t.Context(), client.NewLink{Destination: "https://example.com/kept"})
	if err != nil {
		t.Fatal(err)
	}
	const agent = agentPhone + " privacy-kept-5a2c"
	visits, events := 0, []*client.Click{}
	visit := func(addresses ...string) {
		t.Helper()
		for _, a := range addresses {
			v := newVisitor(s, "User-Agent", agent, "X-Forwarded-For", a)
			_, _, err := v.look("GET", pathOf(link.ShortURL))
			v.close()
			if err != nil {
				t.Fatal(err)
			}
			visits++
		}
		// So the writer has seen them before the setting changes.
		until(t, 3*time.Minute, "the visits of the workspace are there", func() bool {
			events = events[:0]
			for ev, err := range c.Clicks(t.Context(), client.Query{Period: "24h", All: true, Bots: "include"}) {
				if err != nil {
					return false
				}
				events = append(events, ev)
			}
			return len(events) == visits
		})
	}
	set := func(ua bool, ip string) {
		t.Helper()
		if _, err := c.UpdateWorkspace(t.Context(), w.ID, client.WorkspacePatch{StoreUA: client.Set(ua), StoreIP: client.Set(ip)}); err != nil {
			t.Fatal(err)
		}
	}
	before, after := []string{"83.171.246.51", "178.92.163.207"}, []string{"94.217.138.166", "212.83.179.245"}
	out := keptVisits{
		v4:      []string{"77.188.231.59", "146.52.97.204", "203.194.61.118"},
		v6:      []string{"2001:db8:41e7:b05c:93d2:6f1a:c8e4:2b97"},
		off:     []string{"83.171.246.0", "178.92.163.0", "94.217.138.0", "212.83.179.0"},
		inSpool: []byte{77, 188, 231},
	}
	visit(before...)
	set(true, "truncated")
	visit(append(append([]string{}, out.v4...), out.v6...)...)
	set(false, "no")
	visit(after...)
	got := map[[2]string]int{}
	for _, ev := range events {
		got[[2]string{ev.UserAgent, ev.IP}]++
	}
	want := map[[2]string]int{
		{}: 4, {agent, "77.188.231.0/24"}: 1, {agent, "146.52.97.0/24"}: 1, {agent, "203.194.61.0/24"}: 1, {agent, "2001:db8:41e7::/48"}: 1,
	}
	if !maps.Equal(got, want) {
		t.Errorf("the clicks have %v, want %v", got, want)
	}
	out.v4 = append(append(out.v4, before...), after...)
	return out
}

// spoolPayloads returns what the groups of a segment of the spool hold, decompressed (docs/format/spool.md);
// nothing for any other file.
func spoolPayloads(t *testing.T, content []byte) (payloads [][]byte) {
	t.Helper()
	const header = 20 + 4
	if !bytes.HasPrefix(content, []byte("TERSECLK")) {
		return nil
	}
	for {
		i := bytes.Index(content, []byte("TGv1"))
		if i < 0 || len(content) < i+header {
			return payloads
		}
		head, rest := content[i:i+header], content[i+header:]
		size, codec := binary.LittleEndian.Uint32(head[4:]), head[14]
		if uint64(size) > uint64(len(rest)) {
			t.Fatalf("a group of %d bytes in the last %d of a segment", size, len(rest))
		}
		payload := rest[:size]
		if codec == 1 {
			var err error
			if payload, err = s2.Decode(nil, payload); err != nil {
				t.Fatal(err)
			}
		}
		payloads, content = append(payloads, payload), rest[size:]
	}
}
