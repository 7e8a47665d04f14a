package pgstore

import (
	"testing"

	"github.com/terselink/terse"
)

func TestAppendLinkAllocs(t *testing.T) {
	l := terse.Link{Number: terse.NewLinkNumber(1, 7, 9), Workspace: 1, Version: 1, CreatedAt: 1, UpdatedAt: 1, Destination: "https://example.com/a"}
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { buf, _ = appendLink(buf[:0], &l, 5) }); n != 0 {
		t.Errorf("appendLink allocates %v times", n)
	}
}

func BenchmarkAppendLink(b *testing.B) {
	l := terse.Link{Number: terse.NewLinkNumber(1, 7, 9), Workspace: 1, Version: 1, CreatedAt: 1, UpdatedAt: 1,
		Destination: "https://shop.example.com/campaign/black-friday?sku=A001&u=abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuv"}
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = appendLink(buf[:0], &l, 5)
	}
}

// FuzzCursor checks that exactly the cursors of String are accepted.
func FuzzCursor(f *testing.F) {
	for _, s := range []string{"", place{1, 2}.String(), start.String(), "pg1_", "mem1_00", "pg1_8000000000000000ffffffffffffffff", "pg1_00000000000000010000000000000002 "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parseCursor(s)
		switch {
		case err != nil && terse.ErrorCode(err) != terse.CodeInvalid:
			t.Fatalf("%q: %v", s, err)
		case err == nil && s != "" && p.String() != s:
			t.Fatalf("%q was read as %q", s, p)
		}
	})
}
