package clicks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// recorded writes n clicks in many groups and segments of one boot and returns
// them in the order of the spool.
func recorded(t *testing.T, o Options, n int, seed uint64) {
	t.Helper()
	r := open(t, o)
	for i, c := range makeClicks(n, seed) {
		if !r.Capture(uint32(i), &c) {
			t.Fatal("dropped")
		}
		if i%50 == 49 {
			if err := r.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func segmentFiles(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func sameID(a, b []Raw) error {
	if len(a) != len(b) {
		return fmt.Errorf("%d records, want %d", len(a), len(b))
	}
	for i := range a {
		if a[i].ID != b[i].ID {
			return fmt.Errorf("record %d differs", i)
		}
	}
	return nil
}

// TestTruncation cuts the last segment of a dead process at every kind of place:
// the reader must hand out all groups that are whole, nothing twice, and go on
// with the next boot.
func TestTruncation(t *testing.T) {
	t.Parallel()
	o := testOptions(t, nil)
	o.SegmentBytes = 8 << 10
	recorded(t, o, 1000, 1)
	all, _ := readAll(t, o, Position{})
	files := segmentFiles(t, o.Dir)
	if len(files) < 3 || len(all) != 1000 {
		t.Fatalf("%d segments, %d records", len(files), len(all))
	}
	last, err := os.ReadFile(files[len(files)-1])
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 300 {
		cut := rnd.IntN(len(last))
		if i < maxSegHeader {
			cut = i
		}
		c := Options{Dir: t.TempDir(), Node: "n1", Clock: noonClock}
		for _, f := range files[:len(files)-1] {
			if err := os.Link(f, filepath.Join(c.Dir, filepath.Base(f))); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(c.Dir, filepath.Base(files[len(files)-1])), last[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		// While nothing follows, the cut end is a write in progress.
		got, rd := readAll(t, c, Position{})
		if err := sameID(got, all[:len(got)]); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if rd.Stats().TornBytes != 0 {
			t.Fatalf("cut at %d: gave up too early: %+v", cut, rd.Stats())
		}
		// A new boot ends it.
		recorded(t, c, 10, 2)
		more := drain(t, rd)
		if len(more) != 10 {
			t.Fatalf("cut at %d: %d records of the new boot", cut, len(more))
		}
		whole, before := 0, 0
		for at := 0; ; {
			if at == 0 {
				h, err := parseSegmentHeader(last[:cut])
				if err != nil {
					break
				}
				at = h.size
			}
			info, err := parseGroupHeader(last[at:cut])
			if err != nil || at+info.size() > cut {
				if s := rd.Stats(); s.TornBytes+s.QuarantinedBytes != uint64(cut-at) {
					t.Fatalf("cut at %d: %d bytes left, %+v", cut, cut-at, s)
				}
				break
			}
			at += info.size()
			whole += info.records
		}
		ids, _ := listSegments(vfs.Default, c.Dir)
		if len(ids) < len(files)+1 {
			t.Fatal("no new segment")
		}
		fresh, _ := readAll(t, c, Position{})
		if len(fresh) != len(got)+10 {
			t.Fatalf("cut at %d: a fresh reader finds %d, the old one %d", cut, len(fresh), len(got)+10)
		}
		for _, f := range files[:len(files)-1] {
			before += groupRecords(t, f)
		}
		if len(got) != before+whole {
			t.Fatalf("cut at %d: %d records, %d are whole", cut, len(got), before+whole)
		}
	}
}

// groupRecords counts the records of an intact segment by its group headers.
func groupRecords(t *testing.T, file string) (n int) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	h, err := parseSegmentHeader(data)
	if err != nil {
		t.Fatal(err)
	}
	for data = data[h.size:]; len(data) > 0; {
		info, err := parseGroupHeader(data)
		if err != nil {
			t.Fatal(err)
		}
		n += info.records
		data = data[info.size():]
	}
	return n
}

// TestDamage flips bytes: only the group hit is lost, it is copied aside, and
// what follows is read.
func TestDamage(t *testing.T) {
	t.Parallel()
	o := testOptions(t, nil)
	recorded(t, o, 2000, 1)
	all, _ := readAll(t, o, Position{})
	file := segmentFiles(t, o.Dir)[0]
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range 200 {
		at := rnd.IntN(len(good))
		if i < 60 {
			at = i // headers of the segment and the first group
		}
		bad := bytes.Clone(good)
		bad[at] ^= 1 << rnd.IntN(8)
		c := Options{Dir: t.TempDir()}
		if err := os.WriteFile(filepath.Join(c.Dir, filepath.Base(file)), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		next := segmentID{"999999999999999-000000000000", 1}.name()
		if err := os.WriteFile(filepath.Join(c.Dir, next), appendSegmentHeader(nil, 1, "n"), 0o600); err != nil {
			t.Fatal(err)
		}
		got, rd := readAll(t, c, Position{})
		s := rd.Stats()
		if lost := len(all) - len(got); lost > 50 || s.Quarantined+s.TornBytes == 0 {
			t.Fatalf("byte %d: %d records lost, %+v", at, lost, s)
		}
		seen := map[[16]byte]bool{}
		for _, g := range all {
			seen[g.ID] = true
		}
		for _, g := range got {
			if !seen[g.ID] {
				t.Fatalf("byte %d: a record twice, or one that never was", at)
			}
			delete(seen, g.ID)
		}
		if s.Quarantined > 0 {
			aside, err := os.ReadDir(filepath.Join(c.Dir, quarantineName))
			if err != nil || len(aside) != int(s.Quarantined) {
				t.Fatalf("byte %d: quarantine %v %v", at, aside, err)
			}
		}
	}
}

// TestPowerCut clones a file system without a part of its unsynced data: what
// was synced is there, and the reader takes what it finds.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	for seed := range int64(40) {
		fs := vfs.NewCrashableMem()
		o := testOptions(t, fs)
		o.SegmentBytes = 16 << 10
		o.Durability = DurabilityBatch
		o.SyncWait = time.Minute // a busy machine may be slow
		o.SyncEvery = 1 << 40    // only who waits syncs
		r := open(t, o)
		clicks := makeClicks(400, uint64(seed))
		acknowledged := map[string]bool{}
		for i := range clicks {
			if i%40 == 0 {
				if err := r.CaptureSync(t.Context(), uint32(i), &clicks[i]); err != nil {
					t.Fatal(err)
				}
				acknowledged[string(clicks[i].Code)] = true
			} else {
				r.Capture(uint32(i), &clicks[i])
			}
		}
		crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: int(seed % 3 * 50), RNG: rand.New(rand.NewPCG(uint64(seed), 1))})
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		o.FS = crashed
		recorded(t, o, 5, 99) // the next boot
		got, rd := readAll(t, o, Position{})
		seen := map[[16]byte]bool{}
		for _, g := range got {
			delete(acknowledged, string(g.Code))
			if seen[g.ID] {
				t.Fatal("a record twice")
			}
			seen[g.ID] = true
		}
		if len(acknowledged) > 0 {
			t.Fatalf("seed %d: %d acknowledged clicks lost, %+v", seed, len(acknowledged), rd.Stats())
		}
		_ = rd.Close()
	}
}

// TestReaderError: a group is handed out again from its start after an error,
// and a position in the middle continues without loss or repetition.
func TestReaderError(t *testing.T) {
	t.Parallel()
	o := testOptions(t, vfs.NewMem())
	o.SegmentBytes = 8 << 10
	recorded(t, o, 1000, 1)
	all, _ := readAll(t, o, Position{})
	rd, err := NewReader(ReaderOptions{Dir: o.Dir, FS: o.FS})
	if err != nil {
		t.Fatal(err)
	}
	var got []Raw
	boom := errors.New("boom")
	for round := 0; ; round++ {
		start := len(got)
		n, err := rd.Next(t.Context(), 70, func(r *Raw) error {
			if round%3 == 1 && len(got) == start+60 {
				return boom
			}
			got = append(got, copied(r))
			return nil
		})
		if round%3 == 1 && err != nil {
			if !errors.Is(err, boom) {
				t.Fatal(err)
			}
		} else if err != nil {
			t.Fatal(err)
		}
		got = got[:start+n]
		if n == 0 && err == nil {
			break
		}
		// A new reader, as after a restart with the stored position.
		p, err := ParsePosition(rd.Position().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = rd.Close()
		if rd, err = NewReader(ReaderOptions{Dir: o.Dir, FS: o.FS, From: p}); err != nil {
			t.Fatal(err)
		}
	}
	_ = rd.Close()
	if err := sameID(got, all); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	rd, _ = NewReader(ReaderOptions{Dir: o.Dir, FS: o.FS})
	if _, err := rd.Next(ctx, 1, func(*Raw) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	_ = rd.Close()
}

// TestNoAddressOnDisk searches every byte the recorder leaves behind.
func TestNoAddressOnDisk(t *testing.T) {
	t.Parallel()
	o := testOptions(t, nil)
	clicks := makeClicks(3000, 7)
	for i := range clicks {
		if i%3 == 0 {
			a := clicks[i].IP.As4()
			clicks[i].IP = clicks[i].IP.WithZone("")
			b := [16]byte{0x2a, 0x01, a[0], a[1], a[2], a[3], 0x12, 0x34, 0x99, a[3], a[2], 7, 8, 9, 10, 11}
			clicks[i].IP = addr16(b)
		}
	}
	r := open(t, o)
	for i := range clicks {
		r.Capture(uint32(i), &clicks[i])
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	rawGroups := decompressed(t, o)
	err := filepath.WalkDir(o.Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		rawGroups = append(rawGroups, data...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(rawGroups) < 100_000 {
		t.Fatalf("only %d bytes searched", len(rawGroups))
	}
	found4 := 0
	for i := range clicks {
		if ip := clicks[i].IP; bytes.Contains(rawGroups, []byte(ip.String())) || ip.Is6() && bytes.Contains(rawGroups, ip.AsSlice()[:8]) {
			t.Fatalf("%s is in the spool", ip)
		} else if ip.Is4() && bytes.Contains(rawGroups, ip.AsSlice()) {
			found4++ // four bytes also occur by chance, about 10^-4 times an address in this much data
		}
	}
	if found4 > 5 {
		t.Fatalf("%d IPv4 addresses are in the spool", found4)
	}
}

// decompressed returns the payloads of all groups.
func decompressed(t *testing.T, o Options) (out []byte) {
	for _, f := range segmentFiles(t, o.Dir) {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		h, err := parseSegmentHeader(data)
		if err != nil {
			t.Fatal(err)
		}
		for data = data[h.size:]; len(data) > 0; {
			info, err := parseGroupHeader(data)
			if err != nil {
				t.Fatal(err)
			}
			var g groupReader
			if err := g.reset(info, data[groupHeader:info.size()]); err != nil {
				t.Fatal(err)
			}
			for _, s := range g.spans {
				out = append(out, s...)
			}
			out = append(out, g.records...)
			data = data[info.size():]
		}
	}
	return out
}

// TestTailing reads in another goroutine while clicks are captured.
func TestTailing(t *testing.T) {
	t.Parallel()
	o := testOptions(t, nil)
	o.SegmentBytes = 32 << 10
	rd, err := OpenReader(filepath.Join(o.Dir, "later", "spool"), Position{}) // does not exist yet
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	o.Dir = filepath.Join(o.Dir, "later", "spool")
	const total = 20_000
	done := make(chan map[string]int)
	go func() {
		seen := map[string]int{}
		for n := 0; n < total; {
			k, err := rd.Next(context.Background(), 500, func(r *Raw) error { seen[string(r.Code)]++; return nil })
			if err != nil {
				t.Error(err)
				break
			}
			if n += k; k == 0 {
				if err := rd.Wait(context.Background()); err != nil {
					t.Error(err)
				}
			}
		}
		done <- seen
	}()
	r := open(t, o)
	for i, c := range makeClicks(total, 3) {
		c.Code = fmt.Appendf(nil, "c%d", i)
		if !r.Capture(uint32(i), &c) {
			t.Fatal("dropped")
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
	seen := <-done
	for code, n := range seen {
		if n != 1 {
			t.Fatalf("%s seen %d times", code, n)
		}
	}
	if len(seen) != total {
		t.Fatalf("%d seen", len(seen))
	}
	if s := rd.Stats(); s.TornBytes != 0 || s.Quarantined != 0 {
		t.Fatalf("%+v", s)
	}
}

var errDisk = errors.New("no space left on device")

// failing is a file system whose writes and syncs of segments can be made to fail.
type failing struct {
	vfs.FS
	fail func(op string) error
}

func (f *failing) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.fail("create"); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(name, c)
	if err == nil && strings.HasSuffix(name, segmentSuffix) {
		file = &failingFile{file, f}
	}
	return file, err
}

type failingFile struct {
	vfs.File
	fs *failing
}

func (f *failingFile) Write(p []byte) (int, error) {
	if err := f.fs.fail("write"); err != nil {
		n, _ := f.File.Write(p[:len(p)/2]) // a full disk takes a part
		return n, err
	}
	return f.File.Write(p)
}

func (f *failingFile) Sync() error {
	if err := f.fs.fail("sync"); err != nil {
		return err
	}
	return f.File.Sync()
}

var _ io.Writer = (*failingFile)(nil)
