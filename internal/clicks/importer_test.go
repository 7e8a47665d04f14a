package clicks

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/terselink/terse"
)

// TestImporter: what is imported is read back as written, after what was there, with the ids that were returned.
func TestImporter(t *testing.T) {
	t.Parallel()
	for _, fs := range []vfs.FS{nil, vfs.NewMem()} {
		o := testOptions(t, fs)
		r := open(t, o)
		before := makeClicks(10, 1)
		for i := range before {
			r.Capture(0, &before[i])
		}
		if _, err := OpenImporter(ImporterOptions{Dir: o.Dir, FS: o.FS}); terse.ErrorCode(err) != terse.CodeConflict {
			t.Fatalf("beside a recorder: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		write := func(dir string) (ids []terse.ClickID) {
			im, err := OpenImporter(ImporterOptions{Dir: dir, FS: o.FS, Seed: 7, SegmentBytes: 1 << 20, Clock: noonClock})
			if err != nil {
				t.Fatal(err)
			}
			client := AppendClient(nil, "Mozilla/5.0", "de-DE", `"Android"`)
			for i, c := range makeClicks(30_000, 2) {
				id, err := im.Write(&Imported{Click: c, Client: client, Visitor: uint64(i), Country: "DE", Region: "DE-BY", City: "München"})
				if err != nil {
					t.Fatal(err)
				}
				ids = append(ids, id)
			}
			if err := im.Close(); err != nil {
				t.Fatal(err)
			}
			return ids
		}
		ids := write(o.Dir)
		all, _ := readAll(t, o, Position{})
		if len(all) != len(before)+len(ids) {
			t.Fatalf("%d records, want %d", len(all), len(before)+len(ids))
		}
		all = all[len(before):]
		want := makeClicks(30_000, 2)
		for i := range all {
			got, c := &all[i], &want[i]
			if terse.ClickID(got.ID) != ids[i] || got.At != c.At || got.Link != c.Link || string(got.Code) != string(c.Code) || got.Visitor != uint64(i) || got.Outcome != c.Outcome ||
				string(got.Country) != "DE" || string(got.City) != "München" || string(got.UserAgent) != "Mozilla/5.0" || string(got.Language) != "de-DE" || string(got.Domain) != c.Domain {
				t.Fatalf("record %d is %+v, want %+v", i, got, c)
			}
		}
		// The same seed makes the same ids in an empty spool, and others behind what is there.
		first, again, behind := write(o.Dir+"2"), write(o.Dir+"3"), write(o.Dir+"3")
		for i := range first {
			if again[i] != first[i] || behind[i] == first[i] || ids[i] == first[i] {
				t.Fatalf("id %d is %s, %s again, %s and %s behind others", i, first[i], again[i], behind[i], ids[i])
			}
		}
	}
}

func BenchmarkImporter(b *testing.B) {
	im, err := OpenImporter(ImporterOptions{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	client := AppendClient(nil, "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36", "de-DE", "")
	list := makeClicks(10_000, 3)
	n := 0
	for b.Loop() {
		if _, err := im.Write(&Imported{Click: list[n%len(list)], Client: client, Visitor: uint64(n), Country: "DE"}); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64(im.Bytes())/float64(n), "B/click")
	if err := im.Close(); err != nil {
		b.Fatal(err)
	}
}
