package pebblestore

import (
	"context"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/terselink/terse"
)

func purgeAll(t testing.TB, s *Store, c terse.CampaignID) (total int) {
	t.Helper()
	for {
		n, err := s.PurgeLinks(context.Background(), 1, c, 10_000)
		if err != nil {
			t.Fatal(err)
		}
		if total += n; n == 0 {
			return total
		}
	}
}

// campaignLinks are generated links of a campaign with values and an external id.
func campaignLinks(first, n uint64, c terse.CampaignID) []terse.Link {
	links := testLinks(first, n)
	for i := range links {
		l := &links[i]
		l.Campaign, l.Destination, l.Values, l.ExternalID = c, "", fmt.Sprintf("sku-%d\x1f%x", i, l.Number.Index()*2654435761), fmt.Sprintf("r-%d", i)
	}
	return links
}

// TestPurgeSharedBlock: a block that holds links of another campaign stays for them.
func TestPurgeSharedBlock(t *testing.T) {
	t.Parallel()
	s := openTest(t, vfs.NewMem())
	links := append(campaignLinks(0, 100, 7), campaignLinks(100, 220, 8)...)
	mustInsert(t, s, links...)
	edited := links[70] // in the block that both share
	edited.Version, edited.ExternalID = 2, "edited"
	if err := s.UpdateLink(context.Background(), &edited, 1); err != nil {
		t.Fatal(err)
	}
	wantLinks(t, s, links[3], edited, links[100], links[300])
	if n := purgeAll(t, s, 7); n != 100 {
		t.Errorf("purged %d links, want 100", n)
	}
	wantAbsent(t, s, links[0].Number, links[63].Number, links[64].Number, edited.Number, links[99].Number)
	wantLinks(t, s, links[100:]...)
	if got := list(t, s, 1, terse.ListQuery{Limit: 1000}); len(got) != 220 {
		t.Errorf("the workspace lists %d links, want 220", len(got))
	}
	if n := purgeAll(t, s, 8); n != 220 {
		t.Errorf("purged %d links, want 220", n)
	}
	for _, family := range []byte{famBlock, famRow, famCampaign, famHint, famQueue, famLeft} {
		if n := keysOf(t, s, []byte{family}); family == famRow && n != 36 || family != famRow && n != 0 {
			t.Errorf("%d keys of family %q are left", n, family) // rows: the tombstones of 64 to 99
		}
	}
}

func keysOf(t testing.TB, s *Store, prefix []byte) (n int) {
	t.Helper()
	if err := eachKey(context.Background(), s.db, prefix, func(_, _ []byte) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestPurgeSpace: the disk space of a purged campaign comes back, whatever was made around it.
func TestPurgeSpace(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 400,000 links")
	}
	t.Parallel()
	s := openTest(t, vfs.NewMem())
	const chunk, chunks = 20_000, 10
	for i := range uint64(chunks) {
		mustInsert(t, s, campaignLinks(2*i*chunk, chunk, 7)...)
		mustInsert(t, s, campaignLinks((2*i+1)*chunk, chunk, 8)...)
	}
	size := func() uint64 {
		if err := s.db.Flush(); err != nil {
			t.Fatal(err)
		}
		return s.db.Metrics().Table.Local.LiveSize // files that are replaced go when their deleter comes to it
	}
	if err := s.catchUp(context.Background()); err != nil {
		t.Fatal(err)
	}
	before := size()
	if n := purgeAll(t, s, 7); n != chunk*chunks {
		t.Errorf("purged %d links, want %d", n, chunk*chunks)
	}
	if err := s.reclaim(context.Background()); err != nil {
		t.Fatal(err)
	}
	after := size()
	t.Logf("%d bytes before, %d after", before, after)
	if after > before*6/10 {
		t.Errorf("%d bytes before the purge of half of all links, %d after", before, after)
	}
	if got, err := s.CountLinks(context.Background(), 1, 8); err != nil || got != chunk*chunks {
		t.Errorf("the other campaign has %d links, error %v", got, err)
	}
}

// TestReaderForgets: a reader that kept a block does not take it up again after a purge, however
// often it is asked. It did the second time.
func TestReaderForgets(t *testing.T) {
	t.Parallel()
	s := openTest(t, vfs.NewMem())
	links := campaignLinks(0, 128, 7)
	mustInsert(t, s, links...)
	r := s.reader()
	defer s.readers.Put(r)
	var row row
	if found, err := r.get(links[3].Number, &row); err != nil || !found {
		t.Fatalf("before the purge: found %t, %v", found, err)
	}
	if n := purgeAll(t, s, 7); n != 128 {
		t.Fatalf("purged %d links, want 128", n)
	}
	for i := range 3 {
		if found, err := r.get(links[3].Number, &row); err != nil || found {
			t.Errorf("look-up %d after the purge: found %t, %v", i, found, err)
		}
	}
}
