package clicks

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"hash/crc32"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/dchest/siphash"

	"github.com/terselink/terse"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// goldenSegment builds a segment of one small group with fixed randomness.
func goldenSegment(tb testing.TB) []byte {
	o := testOptions(tb, vfs.NewMem())
	if err := o.setDefaults(); err != nil {
		tb.Fatal(err)
	}
	w := newWriter(&Recorder{o: o})
	w.group.fill = func(b []byte) { copy(b, "0123456789abcdef") }
	at := terse.MillisOf(noon)
	var slots []byte
	for _, c := range []Click{
		{
			At: at, Workspace: 1, Link: terse.NewLinkNumber(1, 7, 5), Campaign: 2, Domain: "go.test", Code: []byte("aB3xY9z"),
			Destination: "https://a.test/p?u=1&utm_term=t#f", IP: netip.MustParseAddr("141.20.1.1"), UserAgent: []byte("UA/1"),
			Referrer: []byte("https://r.test/x?secret"), Language: []byte("de"), Platform: []byte(`"Linux"`), Query: []byte("id=7&ref=x"),
		},
		{At: at - 2, Workspace: 1, Link: terse.NewLinkNumber(1, 7, 4), Rule: 3, Outcome: OutcomeExpired, Flags: FlagQR, Domain: "go.test", UserAgent: []byte("UA/1")},
	} {
		b := make([]byte, slotSize(&c))
		putSlot(b, &c)
		slots = append(slots, b...)
	}
	w.encode(slots, 0, rungAll)
	w.endGroup()
	return append(appendSegmentHeader(nil, int64(at), "n1"), w.pending...)
}

// TestGolden holds the bytes on disk to docs/format/spool.md. If it fails, old
// spools cannot be read any more: make a new version beside this one instead.
func TestGolden(t *testing.T) {
	t.Parallel()
	const path = "testdata/spool-v1-counted.hex"
	got := goldenSegment(t)
	if *update {
		if err := os.WriteFile(path, []byte(hexLines(got)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if hexLines(got) != string(want) {
		t.Errorf("got\n%swant\n%s", hexLines(got), want)
	}
	doc, err := os.ReadFile("../../docs/format/spool.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), string(want)) {
		t.Error("docs/format/spool.md does not show testdata/spool-v1-counted.hex")
	}
}

// TestGoldenHashed reads a segment of the builds that made ids by a hash: they are what they were.
func TestGoldenHashed(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/spool-v1.hex")
	if err != nil {
		t.Fatal(err)
	}
	data, err := hex.DecodeString(strings.ReplaceAll(string(text), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(o.Dir, segmentID{newBoot(1, 1), 1}.name()), data, 0o600); err != nil {
		t.Fatal(err)
	}
	got, _ := readAll(t, o, Position{})
	if len(got) != 2 || got[0].Flags != 0 || got[1].Flags != FlagQR {
		t.Fatalf("%+v", got)
	}
	for i, r := range got {
		hash := siphash.Hash(0x3736353433323130, 0x6665646362613938, binary.LittleEndian.AppendUint64(nil, uint64(i)))
		if r.ID != newID(int64(r.At), uint64(i), hash) {
			t.Errorf("click %d has the id %x", i, r.ID)
		}
	}
}

// TestGoldenCompressed reads a segment written by an earlier build: another
// version of the compressor may write other bytes, but must read these.
func TestGoldenCompressed(t *testing.T) {
	t.Parallel()
	const path = "testdata/spool-v1-s2.seg"
	if *update {
		w, buf := benchWriter(t, 200)
		w.group.fill = func(b []byte) { copy(b, "0123456789abcdef") }
		w.encode(buf, 0, rungAll)
		w.endGroup()
		if err := os.WriteFile(path, append(appendSegmentHeader(nil, 1, "n1"), w.pending...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(o.Dir, segmentID{newBoot(1, 1), 1}.name()), data, 0o600); err != nil {
		t.Fatal(err)
	}
	got, _ := readAll(t, o, Position{})
	clicks := makeClicks(200, 1)
	if len(got) != 200 || !bytes.Equal(got[199].Code, clicks[199].Code) || got[0].At != clicks[0].At || string(got[5].UserAgent) != string(clicks[5].UserAgent) {
		t.Fatalf("%d records", len(got))
	}
}

func hexLines(b []byte) string {
	var s strings.Builder
	for len(b) > 0 {
		n := min(len(b), 32)
		s.WriteString(hex.EncodeToString(b[:n]) + "\n")
		b = b[n:]
	}
	return s.String()
}

// TestGroupLimits: the largest clicks, and more of them than a group holds.
func TestGroupLimits(t *testing.T) {
	t.Parallel()
	o := testOptions(t, vfs.NewMem())
	o.BufferBytes = 256 << 20
	r := open(t, o)
	long := bytes.Repeat([]byte("x"), 5000)
	for i := range 2 * MaxGroup {
		c := Click{At: 1, Domain: string(long), Code: long, Destination: string(long), UserAgent: long, Referrer: long, Language: long, Platform: long, Query: append([]byte("utm_term="), long...)}
		if i%2 == 0 {
			c.UserAgent = append([]byte{byte(i), byte(i >> 8)}, long...) // no two groups of texts alike
		}
		if !r.Capture(0, &c) {
			t.Fatal("dropped")
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	rd, err := NewReader(ReaderOptions{Dir: o.Dir, FS: o.FS})
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	n, err := rd.Next(t.Context(), 1<<30, func(r *Raw) error {
		if len(r.Domain) != maxDomain || len(r.Code) != maxCode || len(r.Destination) != maxDestination || len(r.UserAgent) != maxUserAgent ||
			len(r.Referrer) != maxReferrer || len(r.Language) != maxLanguage || len(r.Platform) != maxPlatform || len(r.Query) != maxQuery {
			t.Fatalf("%+v", r)
		}
		return nil
	})
	if n != 2*MaxGroup || err != nil {
		t.Fatal(n, err)
	}
	if g := rd.Stats().Groups; g < 3 {
		t.Errorf("%d groups", g)
	}
}

// FuzzReader reads any bytes as a segment: no panic, no endless loop, and what
// it hands out is within bounds.
func FuzzReader(f *testing.F) {
	golden := goldenSegment(f)
	f.Add(golden)
	f.Add(golden[:len(golden)-3])
	f.Add(append(bytes.Clone(golden), golden[27:]...))
	f.Add([]byte(segmentMagic))
	f.Add([]byte{})
	f.Add([]byte(strings.Repeat(groupMagic, 50)))
	f.Fuzz(func(t *testing.T, data []byte) {
		fs := vfs.NewMem()
		for i, b := range [][]byte{data, golden} {
			file, err := fs.Create("/"+segmentID{newBoot(1, 1), uint64(i + 1)}.name(), spoolCategory)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = file.Write(bytes.Clone(b)) // it may change what it is given
			_ = file.Close()
		}
		rd, err := NewReader(ReaderOptions{Dir: "/", FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		defer rd.Close()
		last := ""
		_, err = rd.Next(context.Background(), 1<<30, func(r *Raw) error { last = string(r.Code) + r.Node; return nil })
		if err != nil || rd.Position().Segment != 2 || last != "n1" {
			t.Fatalf("%v %v %q", err, rd.Position(), last)
		}
	})
}

// FuzzGroup decodes any payload behind a right checksum.
func FuzzGroup(f *testing.F) {
	golden := goldenSegment(f)
	h, err := parseSegmentHeader(golden)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden[h.size+groupHeader:], uint16(2))
	f.Add([]byte("0123456789abcdef\x01\x01\x01\x01"), uint16(1))
	f.Fuzz(func(t *testing.T, payload []byte, records uint16) {
		var g groupReader
		info := groupInfo{stored: len(payload), raw: len(payload), records: int(records), sum: crc32.Checksum(payload, castagnoli)}
		if g.reset(info, payload) != nil {
			return
		}
		var r Raw
		for range min(info.records, MaxGroup) {
			if g.next(&r) != nil {
				return
			}
			if r.Link >= 1<<63 || r.At < 0 || r.Weight == 0 && len(payload) == 0 {
				t.Fatalf("%+v", r)
			}
		}
	})
}

// FuzzRoundTrip: whatever a request says comes back, cut to the limits.
func FuzzRoundTrip(f *testing.F) {
	f.Add("go.test", []byte("c"), "https://a/?utm_term=x", []byte(chromeUA), []byte("https://r/"), []byte("de"), []byte("p"), []byte("ref=1"), int64(1), uint64(5), uint8(1), uint8(2))
	f.Add("", []byte{}, "", []byte{0xff}, []byte{0}, []byte{}, []byte{}, []byte{}, int64(1<<62), uint64(1<<63-1), uint8(255), uint8(255))
	f.Fuzz(func(t *testing.T, domain string, code []byte, dest string, ua, ref, lang, platform, query []byte, at int64, link uint64, rule, flags uint8) {
		c := Click{
			At: terse.Millis(at & (1<<47 - 1)), Workspace: terse.WorkspaceID(link & (1<<31 - 1)), Link: terse.LinkNumber(link & (1<<63 - 1)), Campaign: terse.CampaignID(link >> 1), Domain: domain, Code: code,
			Destination: dest, Rule: rule, Outcome: Outcome(rule & 7), Flags: Flag(flags) &^ (flagID | flagSeq), UserAgent: ua, Referrer: ref, Language: lang, Platform: platform, Query: query,
		}
		if rule&1 == 1 {
			c.ID = NewClickID(c.At, link, link*7)
		}
		b := make([]byte, slotSize(&c))
		putSlot(b, &c)
		var s slot
		if rest := s.get(b); len(rest) != 0 {
			t.Fatal("slot")
		}
		gb := newGroupBuilder()
		gb.add(&record{slot: &s, weight: 3, destination: s.destination, referrer: s.referrer, query: s.query, visitor: link})
		out := gb.appendGroup(nil)
		info, err := parseGroupHeader(out)
		if err != nil {
			t.Fatal(err)
		}
		var g groupReader
		var r Raw
		if err := g.reset(info, out[groupHeader:]); err != nil {
			t.Fatal(err)
		}
		if err := g.next(&r); err != nil {
			t.Fatal(err)
		}
		cut := func(b []byte, n int) string { return string(b[:min(len(b), n)]) }
		if rule&1 == 1 && c.ID != (terse.ClickID{}) && terse.ClickID(r.ID) != c.ID {
			t.Fatalf("id %x, want %x", r.ID, c.ID)
		}
		if r.At != c.At || r.Link != c.Link || r.Workspace != c.Workspace || r.Campaign != c.Campaign || r.Rule != rule || r.Flags != c.Flags&^flagTotal || r.Outcome != c.Outcome ||
			r.Weight != 3 || r.Visitor != link || string(r.Domain) != cut([]byte(domain), maxDomain) || string(r.Code) != cut(code, maxCode) ||
			string(r.Destination) != cut([]byte(dest), maxDestination) || string(r.UserAgent) != cut(ua, maxUserAgent) || string(r.Referrer) != cut(ref, maxReferrer) ||
			string(r.Language) != cut(lang, maxLanguage) || string(r.Platform) != cut(platform, maxPlatform) || string(r.Query) != cut(query, maxQuery) {
			t.Fatalf("%+v\n%+v", c, r)
		}
	})
}
