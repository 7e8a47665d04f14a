package clicks

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/terselink/terse"
)

// TestKeptLimit: groups of another spool come in as if nothing had ever been kept that their workspaces do not want now, to the
// byte, whether they are compressed or not. What nobody asked for is not added.
func TestKeptLimit(t *testing.T) {
	t.Parallel()
	many := make([]Click, 0, 400)
	for i := range 100 {
		for _, c := range keptClicks() {
			c.UserAgent = fmt.Appendf(nil, "%s %d", c.UserAgent, i)
			many = append(many, c)
		}
	}
	only := func(k Kept) func(terse.WorkspaceID) Kept {
		return func(w terse.WorkspaceID) Kept {
			if w == 3 {
				return k
			}
			return Kept{}
		}
	}
	wants := map[string]func(terse.WorkspaceID) Kept{
		"nothing": only(Kept{}), "no settings": nil, "User-Agents": only(Kept{UserAgent: true}), "networks": only(Kept{Network: true}), "both": keepsAll,
	}
	for size, list := range map[string][]Click{"few": keptClicks(), "many": many} {
		for was, kept := range map[string]func(terse.WorkspaceID) Kept{"both": keepsAll, "networks": wants["networks"], "nothing": nil} {
			group := keptGroup(t, list, kept)
			if packed := group[14] == codecS2; packed != (size == "many") {
				t.Fatalf("%s: compressed: %t", size, packed)
			}
			for now, wanted := range wants {
				both := func(w terse.WorkspaceID) (k Kept) { // what was kept and is wanted
					if kept != nil && wanted != nil {
						k = Kept{UserAgent: kept(w).UserAgent && wanted(w).UserAgent, Network: kept(w).Network && wanted(w).Network}
					}
					return k
				}
				l := keptLimit{wanted: wanted}
				for round := range 2 { // what it remembers of a group is not taken for the next
					got, err := l.appendGroup([]byte("before"), group)
					if want := append([]byte("before"), keptGroup(t, list, both)...); err != nil || !bytes.Equal(got, want) {
						t.Errorf("%s, kept %s, wanted %s, round %d: %v\n%x, want\n%x", size, was, now, round, err, got, want)
					}
				}
			}
		}
	}
}

// TestAppendKept: clicks that come from another spool lose what their workspace does not want kept when they come, and nothing else.
func TestAppendKept(t *testing.T) {
	t.Parallel()
	group := keptGroup(t, keptClicks(), keepsAll)
	for _, kept := range []func(terse.WorkspaceID) Kept{keepsAll, nil} {
		o := testOptions(t, vfs.NewMem())
		o.Kept = kept
		r := open(t, o)
		if err := r.Append(t.Context(), group); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		raws, _ := readAll(t, o, Position{})
		var agents, networks, ids int
		seen := map[terse.ClickID]bool{}
		for i := range raws {
			if raws[i].KeepsAgent {
				agents++
			}
			if len(raws[i].Network) > 0 {
				networks++
			}
			if !seen[raws[i].ID] {
				seen[raws[i].ID] = true
				ids++
			}
		}
		want := 0
		if kept != nil {
			want = 2
		}
		if len(raws) != 4 || ids != 4 || agents != want || networks != want {
			t.Errorf("%d clicks, %d ids, %d agents, %d networks", len(raws), ids, agents, networks)
		}
	}
}

// TestKeptLimitUnread: of a group that cannot be read to its end nobody knows what it keeps: it is refused, not taken as it is.
func TestKeptLimitUnread(t *testing.T) {
	t.Parallel()
	group := keptGroup(t, keptClicks(), keepsAll)
	binary.LittleEndian.PutUint16(group[12:], binary.LittleEndian.Uint16(group[12:])+1) // a click more than there is
	binary.LittleEndian.PutUint32(group[20:], crc32.Checksum(group[:20], castagnoli))
	l := keptLimit{wanted: keepsAll}
	if got, err := l.appendGroup([]byte("before"), group); terse.ErrorCode(err) != terse.CodeInvalid || string(got) != "before" {
		t.Errorf("%q, error %v", got, err)
	}
}
