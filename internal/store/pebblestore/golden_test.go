package pebblestore

import (
	"bytes"
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
)

var update = flag.Bool("update", false, "write the golden files")

func goldenChanges() []terse.Change {
	return []terse.Change{
		{Seq: 9, Kind: terse.ChangeInserted, Workspace: 1, At: testNow, Version: 1, Runs: []terse.Run{{First: 64, Count: 3}, {First: 70, Count: 1}}},
		{Seq: 9, Kind: terse.ChangeUpdated, Workspace: 1, At: testNow, Version: 2, Runs: []terse.Run{{First: 64, Count: 1}}},
		{Seq: 9, Kind: terse.ChangeDeleted, Workspace: 1, At: testNow, Version: 2, Runs: []terse.Run{{First: 64, Count: 1}}},
		{Seq: 9, Kind: terse.ChangeDocument, Workspace: 1, At: testNow, Version: 1, DocKind: terse.KindJob, DocID: "j"},
	}
}

// goldenStore makes one of everything that docs/format/pebble.md describes.
func goldenStore(t *testing.T) *Store {
	t.Helper()
	s, ctx := openTest(t, vfs.NewMem()), context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Lease(ctx, terse.LeaseRequest{Domain: 1, Space: 7, Count: 256})
	must(err)
	// A block whose columns S2 cannot shrink, in three of the ways a column is stored: its bytes are
	// the same on every processor, which those of the compressor need not be.
	r := rand.New(rand.NewPCG(1, 2))
	chunk := testLinks(0, 256)[64:129]
	for i := range chunk {
		chunk[i].Campaign = 2
		chunk[i].Destination = randomText(r, 1+r.IntN(20), 62)
		chunk[i].ExternalID = randomText(r, 1+r.IntN(6), 62)
	}
	must(s.InsertLinks(ctx, &terse.Chunk{Links: chunk, Documents: []terse.Document{
		{Workspace: 1, Kind: terse.KindJob, ID: "j", Version: 1, Data: []byte(`{"a":1}`)},
	}}))
	plain := testLink(1)
	rich := testLink(2)
	rich.UpdatedAt, rich.ExpiresAt, rich.DefaultExpiry, rich.Campaign = testNow+5, testNow+1000, true, 3
	rich.Status, rich.RedirectStatus, rich.Values, rich.ExternalID = terse.StatusDisabled, 301, `{"u":"9"}`, "r-1"
	rich.Settings = &terse.LinkSettings{Title: "t", Tags: []string{"x"}}
	alias := testLink(0)
	alias.Number, alias.Code = terse.NewLinkNumber(1, terse.AliasSpace, 0), "spring"
	alias.Reserves = terse.NewLinkNumber(1, 6, 77)
	for _, l := range []terse.Link{plain, rich, alias} {
		mustInsert(t, s, l)
	}
	rich.Version, rich.Campaign = 2, 2
	must(s.UpdateLink(ctx, &rich, 1))
	must(s.DeleteLink(ctx, terse.LinkKey{Number: plain.Number}, 1))
	return s
}

// TestGoldenKeysAndValues compares every byte of a small store with testdata. A difference means that
// existing data directories would be read wrongly: it needs a new format version.
func TestGoldenKeysAndValues(t *testing.T) {
	t.Parallel()
	s := goldenStore(t)
	var got strings.Builder
	for _, family := range []byte{
		famAlias, famBlock, famChange, famDocument, famCampaign, famHint, famList, famMeta, famCounter, famQueue, famRow, famReservation, famLeft,
	} {
		pairs := dump(t, s, family)
		if len(pairs) == 0 {
			t.Errorf("the golden store has no key of family %c", family)
		}
		for _, p := range pairs {
			if family == famBlock && p.value[1]&blockCompressed != 0 {
				t.Error("the golden block is compressed")
			}
			fmt.Fprintf(&got, "%c %s\n  %s\n", family, hex.EncodeToString(p.key[1:]), hex.EncodeToString(p.value))
		}
	}
	golden(t, "testdata/keys.golden", got.String())
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// TestGoldenCompressedBlock reads a compressed block that an earlier version wrote.
func TestGoldenCompressedBlock(t *testing.T) {
	t.Parallel()
	links := testLinks(64, 64)
	rows := make([]blockRow, len(links))
	for i := range links {
		rows[i].link = &links[i]
	}
	const path = "testdata/block-s2.golden"
	if *update {
		var e blockEncoder
		value, _, _ := e.append(nil, rows, true)
		if err := os.WriteFile(path, []byte(hex.EncodeToString(value)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	value, err := hex.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil {
		t.Fatal(err)
	}
	if value[1] != blockCompressed|blockTags {
		t.Fatalf("flags are %d", value[1])
	}
	var b block
	if err := b.load(links[0].Number, value); err != nil {
		t.Fatal(err)
	}
	for _, want := range links {
		var r row
		b.row(want.Number, &r)
		got, err := r.link(want.Code)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// TestGoldenCursor fixes the bytes of a cursor: clients keep them across an upgrade.
func TestGoldenCursor(t *testing.T) {
	t.Parallel()
	q := terse.ListQuery{Domain: 1, Campaign: 2, Tag: "x", ExternalID: "y", CreatedFrom: 3, CreatedTo: 4}
	p := &position{5, 6}
	golden(t, "testdata/cursor.golden", p.text(queryPrint(7, &q))+"\n")
	for name, other := range map[string]func(*terse.ListQuery){
		"domain":   func(q *terse.ListQuery) { q.Domain++ },
		"campaign": func(q *terse.ListQuery) { q.Campaign++ },
		"tag":      func(q *terse.ListQuery) { q.Tag, q.ExternalID = "xy", "" },
		"from":     func(q *terse.ListQuery) { q.CreatedFrom++ },
		"to":       func(q *terse.ListQuery) { q.CreatedTo++ },
	} {
		o := q
		other(&o)
		if _, err := parseCursor(p.text(queryPrint(7, &q)), queryPrint(7, &o)); terse.ErrorCode(err) != terse.CodeInvalid {
			t.Errorf("a cursor of another %s: got error %v", name, err)
		}
	}
	if _, err := parseCursor(p.text(queryPrint(7, &q)), queryPrint(8, &q)); terse.ErrorCode(err) != terse.CodeInvalid {
		t.Errorf("a cursor of another workspace: got error %v", err)
	}
}
