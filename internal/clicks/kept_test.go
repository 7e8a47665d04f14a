package clicks

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
)

// keptClicks are four clicks: of a workspace that keeps everything (3) and of one that keeps nothing (4).
func keptClicks() []Click {
	return []Click{
		{Workspace: 3, Domain: "go.test", IP: netip.MustParseAddr("141.20.7.77"), UserAgent: []byte("UA/1")},
		{Workspace: 4, Domain: "go.test", IP: netip.MustParseAddr("141.20.8.78"), UserAgent: []byte("UA/2")},
		{Workspace: 3, Domain: "go.test", IP: netip.MustParseAddr("2001:db8:85a3:8d3:1319:8a2e:370:7348"), UserAgent: []byte("UA/3\xff\x1f!"), Flags: FlagHead},
		{Workspace: 3, Domain: "go.test", IP: netip.MustParseAddr("141.20.9.79"), UserAgent: []byte("UA/4"), Flags: FlagNoTrack},
	}
}

func keepsAll(w terse.WorkspaceID) Kept { return Kept{UserAgent: w == 3, Network: w == 3} }

// slotsOf returns clicks as a shard has them.
func slotsOf(list []Click) (slots []byte) {
	for i := range list {
		b := make([]byte, slotSize(&list[i]))
		putSlot(b, &list[i])
		slots = append(slots, b...)
	}
	return slots
}

// keptSegment is a segment of keptClicks with fixed randomness.
func keptSegment(tb testing.TB) []byte {
	tb.Helper()
	return append(appendSegmentHeader(nil, noon.UnixMilli(), "n1"), keptGroup(tb, keptClicks(), keepsAll)...)
}

// keptGroup is a group of clicks with fixed randomness.
func keptGroup(tb testing.TB, list []Click, kept func(terse.WorkspaceID) Kept) []byte {
	tb.Helper()
	o := testOptions(tb, vfs.NewMem())
	o.Kept, o.Salts, o.Geo = kept, nil, nil
	if err := o.setDefaults(); err != nil {
		tb.Fatal(err)
	}
	w := newWriter(&Recorder{o: o})
	w.group.fill = func(b []byte) { copy(b, "0123456789abcdef") }
	w.encode(slotsOf(list), noon.UnixMilli(), rungAll)
	w.endGroup()
	return w.pending
}

// TestGoldenKept holds the bytes on disk to docs/format/spool.md, and the addresses in them to their networks.
func TestGoldenKept(t *testing.T) {
	t.Parallel()
	const path = "testdata/spool-v1-kept.hex"
	got := keptSegment(t)
	if *update {
		if err := os.WriteFile(path, []byte(hexLines(got)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/format/spool.md")
	if err != nil {
		t.Fatal(err)
	}
	if hexLines(got) != string(want) || !strings.Contains(string(doc), string(want)) {
		t.Errorf("got\n%swant\n%sand docs/format/spool.md is to show it", hexLines(got), want)
	}
	for _, c := range keptClicks() {
		if b := c.IP.AsSlice(); bytes.Contains(got, b) || len(b) == 16 && bytes.Contains(got, b[:8]) {
			t.Errorf("%v is in %x", c.IP, got)
		}
	}
}

// kept returns what the events of a segment have.
func keptIn(t *testing.T, segment []byte) (out [][2]string) {
	t.Helper()
	o := Options{Dir: t.TempDir()}
	if err := os.WriteFile(o.Dir+"/"+segmentID{newBoot(1, 1), 1}.name(), segment, 0o600); err != nil {
		t.Fatal(err)
	}
	raws, rd := readAll(t, o, Position{})
	if rd.Stats().Quarantined != 0 {
		t.Errorf("%+v", rd.Stats())
	}
	e := enricher(t, EnricherOptions{})
	var ev Event
	for i := range raws {
		e.Enrich(&raws[i], &ev)
		out = append(out, [2]string{ev.UserAgent, ev.IP})
	}
	return out
}

// TestKept: events have what their workspace keeps and no more; a build that does not know the list reads all clicks.
func TestKept(t *testing.T) {
	t.Parallel()
	segment := keptSegment(t)
	want := [][2]string{{"UA/1", "141.20.7.0/24"}, {}, {"UA/3!", "2001:db8:85a3::/48"}, {}}
	if diff := cmp.Diff(want, keptIn(t, segment)); diff != "" {
		t.Error(diff)
	}
	// Without the bit the list is an entry of the dictionary that nothing refers to.
	h, err := parseSegmentHeader(segment)
	if err != nil {
		t.Fatal(err)
	}
	group := segment[h.size:]
	if group[14] != codecNone {
		t.Fatal("the group is compressed")
	}
	group[groupHeader+7] &^= 0x80
	binary.LittleEndian.PutUint32(group[16:], crc32.Checksum(group[groupHeader:], castagnoli))
	binary.LittleEndian.PutUint32(group[20:], crc32.Checksum(group[:20], castagnoli))
	if diff := cmp.Diff(make([][2]string, 4), keptIn(t, segment)); diff != "" {
		t.Error(diff)
	}
}

// TestKeptOfNobody: a click of no workspace, as of an unknown code, keeps nothing, whoever clicked before it.
func TestKeptOfNobody(t *testing.T) {
	t.Parallel()
	o := testOptions(t, vfs.NewMem())
	o.Shards = 1
	o.Kept = func(w terse.WorkspaceID) Kept { return Kept{UserAgent: w != 0, Network: w != 0} }
	r := open(t, o)
	for range 2 {
		for _, nobody := range []bool{false, true} { // each in a round of its own
			c := keptClicks()[0]
			if nobody {
				c.Workspace = 0
			}
			if !r.Capture(0, &c) {
				t.Fatal("dropped")
			}
			if err := r.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	raws, _ := readAll(t, o, Position{})
	if len(raws) != 4 {
		t.Fatalf("%d clicks, want 4", len(raws))
	}
	for _, raw := range raws {
		if kept := raw.KeepsAgent && len(raw.Network) > 0; kept != (raw.Workspace != 0) || !kept && (raw.KeepsAgent || len(raw.Network) > 0) {
			t.Errorf("a click of workspace %d keeps %v, %x", raw.Workspace, raw.KeepsAgent, raw.Network)
		}
	}
}

// TestKeptSwitched: what is switched on or off counts for the clicks after it, and nothing at all changes the bytes of those who
// keep nothing.
func TestKeptSwitched(t *testing.T) {
	t.Parallel()
	o := testOptions(t, vfs.NewMem())
	o.Shards = 1
	var on atomic.Bool
	o.Kept = func(terse.WorkspaceID) Kept { return Kept{Network: on.Load()} }
	r := open(t, o)
	var want []string
	for i := range 3 {
		on.Store(i == 1)
		for n := range 5000 { // more than a group
			c := keptClicks()[0]
			c.Link = terse.LinkNumber(n + 1)
			if !r.Capture(0, &c) {
				t.Fatal("dropped")
			}
			want = append(want, []string{"", "141.20.7.0/24", ""}[i])
		}
		if err := r.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	raws, _ := readAll(t, o, Position{})
	var got []string
	for i := range raws {
		got = append(got, networkText(raws[i].Network))
		if raws[i].KeepsAgent {
			t.Fatal("a User-Agent is kept that nobody asked for")
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	a, slots := benchWriter(t, 500)
	b, _ := benchWriter(t, 500)
	b.r.o.Kept = func(terse.WorkspaceID) Kept { return Kept{} }
	for _, w := range []*writer{a, b} {
		w.group.fill = func(b []byte) { copy(b, "0123456789abcdef") }
		w.encode(slots, noon.UnixMilli(), rungAll)
		w.endGroup()
	}
	if !bytes.Equal(a.pending, b.pending) {
		t.Error("the bytes of a workspace that keeps nothing have changed")
	}
}

func TestNetworkText(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"203.0.113.77": "203.0.113.0/24", "255.255.255.255": "255.255.255.0/24", "2001:db8:1:2:3:4:5:6": "2001:db8:1::/48", "::1": "::/48",
		"2002:cb00:714d::1": "2002:cb00:7100::/40", // 203.0.113.77 over 6to4
	} {
		if got := networkText(appendNetwork(nil, netip.MustParseAddr(in))); got != want {
			t.Errorf("%s is in %s, want %s", in, got, want)
		}
	}
	if got := appendNetwork(nil, netip.Addr{}); len(got) != 0 || networkText([]byte("four")) != "" {
		t.Errorf("no address is in %x", got)
	}
}

// FuzzKept reads any bytes as the list of a group.
func FuzzKept(f *testing.F) {
	for _, s := range []string{"", "0003148d1407", "010104", "0005", "ffffffffffffffffff0101"} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k := newKeptReader(b)
		var r Raw
		for range MaxGroup {
			if !k.more {
				return
			}
			r.Network = nil
			k.next(&r)
			if n := len(r.Network); n != 0 && n != network4 && n != network6 {
				t.Fatalf("a network of %d bytes", n)
			}
		}
	})
}
