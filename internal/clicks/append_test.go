package clicks

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
)

// TestAppend: the groups of one spool come out of another as they went in, behind what is there, and durably.
func TestAppend(t *testing.T) {
	t.Parallel()
	from, to := testOptions(t, vfs.NewMem()), testOptions(t, vfs.NewCrashableMem())
	r := open(t, from)
	for i, c := range makeClicks(9000, 1) {
		if !r.Capture(0, &c) {
			t.Fatal("a click is dropped")
		}
		if i%1000 == 0 {
			if err := r.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	want, _ := readAll(t, from, Position{})
	rd, err := NewReader(ReaderOptions{Dir: from.Dir, FS: from.FS})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rd.Close() }()

	into := open(t, to)
	own := makeClicks(1, 2)[0]
	into.Capture(0, &own)
	if err := into.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	clicks, batches := 0, 0
	for {
		b, err := rd.NextGroups(t.Context(), nil, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) == 0 {
			break
		}
		seen := map[terse.ClickID]bool{}
		if err := EachGroup(b, func(first terse.ClickID, _ []byte, n int) {
			if seen[first] {
				t.Error("two groups begin with one id")
			}
			seen[first] = true
			clicks += n
		}); err != nil {
			t.Fatal(err)
		}
		if err := into.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		batches++
	}
	if clicks != len(want) || batches < 3 {
		t.Errorf("%d clicks in %d batches, want %d", clicks, batches, len(want))
	}
	crashed := to
	crashed.FS = to.FS.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{}) // what is not synced is gone
	if st := into.Stats(); st.Appended != uint64(len(want)) || st.Captured+st.Appended != st.Spooled {
		t.Errorf("stats %+v", st)
	}
	if err := into.Close(); err != nil {
		t.Fatal(err)
	}
	got, _ := readAll(t, crashed, Position{})
	if len(got) != 1+len(want) {
		t.Fatalf("%d clicks after a power cut, want %d", len(got), 1+len(want))
	}
	for i := range want {
		want[i].Node = got[i+1].Node // it is of the segment
	}
	if diff := cmp.Diff(want, got[1:]); diff != "" {
		t.Errorf("(-want +got):\n%.2000s", diff)
	}
}

// TestAppendRefuses: what is not whole groups changes nothing, and a closed recorder says so.
func TestAppendRefuses(t *testing.T) {
	t.Parallel()
	o := testOptions(t, vfs.NewMem())
	r := open(t, o)
	for _, c := range makeClicks(50, 1) {
		r.Capture(0, &c)
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	rd, err := NewReader(ReaderOptions{Dir: o.Dir, FS: o.FS})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rd.Close() }()
	b, err := rd.NextGroups(t.Context(), nil, 1)
	if err != nil || len(b) == 0 {
		t.Fatalf("%d bytes, error %v", len(b), err)
	}
	for i := range b {
		if i >= groupHeader && i%13 != 0 { // all of the header and some of the rest
			continue
		}
		if i > 0 {
			if err := r.Append(t.Context(), b[:i]); terse.ErrorCode(err) != terse.CodeInvalid {
				t.Fatalf("cut at %d: %v", i, err)
			}
		}
		bad := append([]byte(nil), b...)
		bad[i] ^= 1
		if err := r.Append(t.Context(), bad); terse.ErrorCode(err) != terse.CodeInvalid {
			t.Fatalf("wrong byte %d: %v", i, err)
		}
	}
	if n := r.Stats().Appended; n != 0 {
		t.Errorf("%d clicks were appended", n)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Append(t.Context(), b); !errors.Is(err, terse.ErrUnavailable) {
		t.Errorf("after Close: %v", err)
	}
}
