package clicks

import (
	"math/rand/v2"
	"testing"

	"github.com/terselink/terse"
)

func TestIDCounter(t *testing.T) {
	t.Parallel()
	c := newIDCounter()
	for i, want := range []struct {
		at  int64
		seq uint64
		ok  bool
	}{
		{1000, 0, true}, {1000, 1, true}, {1001, 0, true}, {1000, 2, true}, {999, 0, true},
		{1000 + idCells, 0, true}, {1000, 0, false}, {1000 + idCells, 1, true}, {0, 0, false}, {-1, 0, false}, {1 << 48, 0, false},
	} {
		if seq, ok := c.next(want.at); seq != want.seq || ok != want.ok {
			t.Errorf("%d: %d %v, want %d %v", i, seq, ok, want.seq, want.ok)
		}
	}
	for i := range uint64(4096) {
		if seq, ok := c.next(5); seq != i || !ok {
			t.Fatal(i, seq, ok)
		}
	}
	if _, ok := c.next(5); ok {
		t.Error("a number of more than 12 bits")
	}
}

// TestIDsUnique: whatever the clock does, no id is given twice, and the reader finds the ones that were given.
func TestIDsUnique(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	gb := newGroupBuilder()
	seen := map[[16]byte]bool{}
	at := int64(1_700_000_000_000)
	for range 50 {
		var want [][16]byte
		for range 1 + r.IntN(MaxGroup) {
			switch r.IntN(1000) {
			case 0:
				at -= r.Int64N(200_000)
			case 1:
				at += r.Int64N(200_000)
			case 2, 3, 4, 5, 6, 7, 8, 9:
				at += r.Int64N(3)
			}
			id := gb.add(&record{slot: &slot{at: terse.Millis(at), client: AppendClient(nil, "", "", "")}, weight: 1})
			if seen[id] || terse.ClickID(id).Time() != terse.Millis(at) {
				t.Fatalf("%x of %d", id, at)
			}
			seen[id] = true
			want = append(want, id)
		}
		out := gb.appendGroup(nil)
		info, err := parseGroupHeader(out)
		if err != nil {
			t.Fatal(err)
		}
		var g groupReader
		if err := g.reset(info, out[groupHeader:]); err != nil {
			t.Fatal(err)
		}
		var raw Raw
		for i, id := range want {
			if err := g.next(&raw); err != nil || raw.ID != id || raw.Flags != 0 {
				t.Fatal(i, err, raw)
			}
		}
	}
}
