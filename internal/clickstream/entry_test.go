package clickstream

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/terselink/terse/internal/clicks"
)

var update = flag.Bool("update", false, "rewrite the golden file")

func place(segment uint64, offset int64) clicks.Position {
	return clicks.Position{Boot: "001795778516213-25fd1d41f534", Segment: segment, Offset: offset}
}

func golden() *entry {
	return &entry{run: 0x0123456789abcdef, spool: "f689fc97c165d97f", node: "n1", from: place(1, 283), groups: []group{
		{end: place(2, 100), data: []byte("a group")}, {end: place(2, 300), data: []byte("another")},
	}}
}

// TestGolden holds the bytes to docs/format/clickstream.md: nodes of other versions read them.
func TestGolden(t *testing.T) {
	t.Parallel()
	const path = "testdata/entry-v1.hex"
	got := golden().append(nil)
	text := ""
	for b := got; len(b) > 0; b = b[min(32, len(b)):] {
		text += hex.EncodeToString(b[:min(32, len(b))]) + "\n"
	}
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != text {
		t.Errorf("%v; got\n%swant\n%s", err, text, want)
	}
	page, err := os.ReadFile("../../docs/format/clickstream.md")
	if err != nil || !strings.Contains(string(page), text) {
		t.Errorf("docs/format/clickstream.md does not have these bytes (%v)", err)
	}
}

// TestEntry: an entry comes back as it was; cut, changed or longer it is refused.
func TestEntry(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]*entry{
		"groups":   golden(),
		"question": {run: 1, spool: "s"},
		"probe":    {run: 2, spool: "s", from: place(7, 9)},
	} {
		b := e.append(nil)
		got, err := parseEntry(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got.run != e.run || got.spool != e.spool || got.node != e.node || got.from != e.from || got.to() != e.to() || len(got.groups) != len(e.groups) {
			t.Errorf("%s: got %+v, want %+v", name, got, e)
		}
		for i := range e.groups {
			if got.groups[i].end != e.groups[i].end || !bytes.Equal(got.groups[i].data, e.groups[i].data) {
				t.Errorf("%s: group %d is %+v", name, i, got.groups[i])
			}
		}
		for i := range b {
			if _, err := parseEntry(b[:i]); err == nil {
				t.Errorf("%s: %d of %d bytes are taken", name, i, len(b))
			}
			bad := bytes.Clone(b)
			bad[i] ^= 0x10
			if _, err := parseEntry(bad); err == nil {
				t.Errorf("%s: byte %d may be another", name, i)
			}
		}
		if _, err := parseEntry(append(bytes.Clone(b), 0)); err == nil {
			t.Errorf("%s: a byte too many is taken", name)
		}
	}
}

// TestMark: what a receiver says comes back, and anything else is nothing.
func TestMark(t *testing.T) {
	t.Parallel()
	for _, m := range []mark{{run: 1}, {run: 1 << 63, stored: place(3, 5), lost: true}} {
		if got, ok := parseMark(m.String()); !ok || got != m {
			t.Errorf("%q came back as %+v", m, got)
		}
	}
	for _, s := range []string{"", "x", "1 ok", "zz ok ", "1 maybe ", "1 ok 5", "1 ok  "} {
		if m, ok := parseMark(s); ok {
			t.Errorf("%q was taken as %+v", s, m)
		}
	}
}

// FuzzEntry: whatever a server hands out, nothing worse than an error comes of it, and what is taken says what it says.
func FuzzEntry(f *testing.F) {
	f.Add(golden().append(nil))
	f.Add((&entry{run: 1, spool: "s"}).append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEntry(b)
		if err != nil {
			return
		}
		again, err := parseEntry(e.append(nil))
		if err != nil || again.to() != e.to() || again.spool != e.spool {
			t.Errorf("%+v came back as %+v, %v", e, again, err)
		}
	})
}
