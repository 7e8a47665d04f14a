package pebblestore

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
)

// TestBitFlipInTable flips bits of table files: every link is then read as it was or not at all.
func TestBitFlipInTable(t *testing.T) {
	t.Parallel()
	flips := 300
	if testing.Short() {
		flips = 60
	}
	mem := vfs.NewMem()
	s, err := Open("store", memOptions(mem))
	if err != nil {
		t.Fatal(err)
	}
	links := testLinks(0, 2000)
	mustInsert(t, s, links...)
	for i := range uint64(50) {
		mustInsert(t, s, testLink(3000+i))
		links = append(links, testLink(3000+i))
	}
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	found := 0
	for range flips {
		path, data := randomFile(t, r, mem, ".sst")
		i, bit := r.IntN(len(data)), byte(1)<<r.IntN(8)
		data[i] ^= bit
		writeFile(t, mem, path, data)
		if damagedRead(t, mem, links) {
			found++
		}
		data[i] ^= bit
		writeFile(t, mem, path, data)
	}
	if found < flips/2 {
		t.Errorf("%d of %d flips were found: the test reads too little", found, flips)
	}
	if damagedRead(t, mem, links) {
		t.Error("all bits are back and something is still damaged")
	}
}

// TestBitFlipInLog flips bits of the write-ahead log that a crash left. The next start refuses the log, or has all
// that was acknowledged; only what Pebble takes for the end of the log (see BUG in the package's doc) may cost
// the last writes, and never one in between.
func TestBitFlipInLog(t *testing.T) {
	t.Parallel()
	const logBlock = 32 << 10
	flips := 200
	if testing.Short() {
		flips = 50
	}
	mem := vfs.NewCrashableMem()
	s := openTest(t, mem)
	links := testLinks(0, 700)
	for _, l := range links {
		mustInsert(t, s, l)
	}
	r := rand.New(rand.NewPCG(1, 2))
	refused := 0
	for range flips {
		after := mem.CrashClone(vfs.CrashCloneCfg{})
		path, data := randomFile(t, r, after, ".log")
		at := r.IntN(len(data))
		// A chunk with the number of the next log marks the end of this one, checksum or not.
		number, err := strconv.Atoi(strings.TrimSuffix(mem.PathBase(path), ".log"))
		if err != nil {
			t.Fatal(err)
		}
		endMark := data[at] == byte(number)
		data[at] ^= 1 << r.IntN(8)
		endMark = endMark && data[at] == byte(number+1)
		writeFile(t, after, path, data)
		kept, err := keptPrefix(t, after, links)
		if err != nil {
			refused++
			continue
		}
		if last := (len(data) - 1) / logBlock * logBlock; kept < len(links) && at < last && !endMark {
			t.Fatalf("a flip at %d of %d: %d of %d links are left, and nobody is told", at, len(data), kept, len(links))
		}
	}
	if refused < flips/4 {
		t.Errorf("%d of %d flips were refused: the test damages too little", refused, flips)
	}
}

// keptPrefix returns how many links a store has, of which none may be wrong and none missing before
// the last, or the error with which it does not open.
func keptPrefix(t *testing.T, mem *vfs.MemFS, links []terse.Link) (kept int, err error) {
	t.Helper()
	s, err := Open("store", memOptions(mem))
	if err != nil {
		return 0, err
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}()
	for i, want := range links {
		got, err := one(context.Background(), s, want.Number, want.Code)
		if err != nil {
			t.Fatal(err)
		}
		if got.Number == 0 {
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" || kept != i {
			t.Fatalf("link %d after %d (-want +got):\n%s", i, kept, diff)
		}
		kept++
	}
	return kept, nil
}

// damagedRead reads all links and reports whether there was an error. It fails the test if a link
// is wrong or missing without one.
func damagedRead(t *testing.T, mem *vfs.MemFS, links []terse.Link) (found bool) {
	t.Helper()
	ctx := context.Background()
	s, err := Open("store", memOptions(mem))
	if err != nil {
		if terse.ErrorCode(err) != terse.CodeInternal && terse.ErrorCode(err) != terse.CodeUnavailable {
			t.Fatalf("open: not a clean error: %v", err)
		}
		return true
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}()
	errs := 0
	for _, want := range links {
		got, err := one(ctx, s, want.Number, want.Code)
		if err != nil {
			// Pebble looks for the bit that would mend a table block each time it is read, which takes a
			// tenth of a second: two are enough.
			if errs++; errs == 2 {
				return true
			}
			found = true
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("a wrong link (-want +got):\n%s", diff)
		}
	}
	return found
}

func randomFile(t *testing.T, r *rand.Rand, mem *vfs.MemFS, suffix string) (path string, data []byte) {
	t.Helper()
	names, err := mem.List("store")
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, n := range names {
		if strings.HasSuffix(n, suffix) {
			files = append(files, n)
		}
	}
	path = mem.PathJoin("store", files[r.IntN(len(files))])
	f, err := mem.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if data, err = io.ReadAll(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path, data
}

func writeFile(t *testing.T, mem *vfs.MemFS, path string, data []byte) {
	t.Helper()
	f, err := mem.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(bytes.Clone(data)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedValues flips every bit of values that hold links: the checksum of the store itself finds it, as
// it would if memory were at fault.
func TestDamagedValues(t *testing.T) {
	t.Parallel()
	s := openTest(t, vfs.NewMem())
	links := testLinks(0, 65)
	mustInsert(t, s, links...)
	for _, c := range []struct {
		family byte
		link   terse.Link
	}{{famBlock, links[9]}, {famRow, links[64]}} {
		p := dump(t, s, c.family)[0]
		for i := range len(p.value) * 8 {
			bad := bytes.Clone(p.value)
			bad[i/8] ^= 1 << (i % 8)
			if err := s.db.Set(p.key, bad, pebble.NoSync); err != nil {
				t.Fatal(err)
			}
			// A reader of its own: those of the store keep blocks, which never change.
			r := &reader{s: s}
			var row row
			if _, err := r.get(c.link.Number, &row); terse.ErrorCode(err) != terse.CodeInternal {
				t.Fatalf("family %c, bit %d: got error %v", c.family, i, err)
			}
		}
		// The right value at a wrong key is found, too.
		n := c.link.Number + 10*blockSize
		if err := s.db.Set(appendNumberKey(nil, c.family, n), p.value, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		if c.family == famBlock {
			if err := s.db.Set(appendNumberKey(nil, famBlock, blockOf(n)), p.value, pebble.NoSync); err != nil {
				t.Fatal(err)
			}
		}
		r := &reader{s: s}
		var row row
		if _, err := r.get(n, &row); terse.ErrorCode(err) != terse.CodeInternal {
			t.Fatalf("family %c at a wrong key: got error %v", c.family, err)
		}
	}
}
