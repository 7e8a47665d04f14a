package memstore

import (
	"testing"

	"github.com/terselink/terse"
)

// FuzzParseCursor: a cursor that is accepted is the only text of its place.
func FuzzParseCursor(f *testing.F) {
	for _, s := range []string{
		"", "mem1_", "mem1_00000000000000010000000000000002", "mem1_0000000000000001000000000000000A",
		"mem2_00000000000000010000000000000002", "mem1_000000000000000100000000000000020", "x", "mem1_zz",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := parseCursor(s)
		if err != nil {
			if terse.ErrorCode(err) != terse.CodeInvalid {
				t.Fatalf("%q: %v, want an error of code invalid", s, err)
			}
			return
		}
		if s != "" && formatCursor(e) != s {
			t.Fatalf("%q is read as %+v, which is written %q", s, e, formatCursor(e))
		}
	})
}

func TestCursorRoundTrip(t *testing.T) {
	for _, want := range []entry{{}, {seq: 1, number: 2}, {seq: 1<<64 - 1, number: 1<<63 - 1}} {
		got, err := parseCursor(formatCursor(want))
		if err != nil || got != want {
			t.Errorf("%+v becomes %+v, %v", want, got, err)
		}
	}
}
