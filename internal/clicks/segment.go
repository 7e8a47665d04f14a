package clicks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Names. A boot id is 15 digits of milliseconds, '-', 12 hexadecimal digits; a
// segment is called boot-number.seg, so that names sort in the order of writing.
const (
	bootDigits     = 15
	bootLen        = bootDigits + 1 + 12
	segmentDigits  = 8
	segmentSuffix  = ".seg"
	lockName       = "LOCK"
	quarantineName = "quarantine"
)

// spoolCategory labels the writes for file systems that account for them.
const spoolCategory = vfs.WriteCategoryUnspecified

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newBoot(ms int64, random uint64) string {
	return fmt.Sprintf("%0*d-%012x", bootDigits, ms, random&(1<<48-1))
}

func validBoot(s string) bool {
	if len(s) != bootLen || s[bootDigits] != '-' {
		return false
	}
	return strings.Trim(s[:bootDigits], "0123456789") == "" && strings.Trim(s[bootDigits+1:], "0123456789abcdef") == ""
}

// bootMillis returns the time in a boot id, which must be valid.
func bootMillis(boot string) int64 {
	ms, _ := strconv.ParseInt(boot[:bootDigits], 10, 64)
	return ms
}

// segmentID names a segment.
type segmentID struct {
	boot   string
	number uint64
}

func (id segmentID) name() string {
	return fmt.Sprintf("%s-%0*d%s", id.boot, segmentDigits, id.number, segmentSuffix)
}

func (id segmentID) at(offset int64) Position { return Position{id.boot, id.number, offset} }

func (p Position) segment() segmentID { return segmentID{p.Boot, p.Segment} }

func parseSegmentName(name string) (segmentID, bool) {
	base, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(base) < bootLen+2 || base[bootLen] != '-' || !validBoot(base[:bootLen]) {
		return segmentID{}, false
	}
	n, err := strconv.ParseUint(base[bootLen+1:], 10, 64)
	id := segmentID{base[:bootLen], n}
	return id, err == nil && id.name() == name
}

// listSegments returns the segments of a directory in order.
func listSegments(fs vfs.FS, dir string) ([]segmentID, error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list spool: %w", err)
	}
	ids := make([]segmentID, 0, len(names))
	for _, name := range names {
		if id, ok := parseSegmentName(name); ok {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b segmentID) int { return a.at(0).Compare(b.at(0)) })
	return ids, nil
}

// Segment header, little-endian: magic, u16 version, u16 size of the whole header, i64 created
// (ms), u8 size of the node name, node name, u32 CRC-32C of all before it.
const (
	segmentMagic   = "TERSECLK"
	segmentVersion = 1
	segmentFixed   = 8 + 2 + 2 + 8 + 1
	maxNode        = 64
	maxSegHeader   = segmentFixed + maxNode + 4
)

func appendSegmentHeader(dst []byte, created int64, node string) []byte {
	start := len(dst)
	dst = append(dst, segmentMagic...)
	dst = binary.LittleEndian.AppendUint16(dst, segmentVersion)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(segmentFixed+len(node)+4))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(created))
	dst = append(dst, uint8(len(node)))
	dst = append(dst, node...)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

type segmentHeader struct {
	size    int
	created int64
	node    string
}

var (
	errShort   = errors.New("incomplete")
	errDamaged = errors.New("damaged")
)

// parseSegmentHeader returns errShort if b may be the beginning of a header and
// errDamaged if it cannot be.
func parseSegmentHeader(b []byte) (segmentHeader, error) {
	if n := min(len(b), len(segmentMagic)); string(b[:n]) != segmentMagic[:n] {
		return segmentHeader{}, errDamaged
	}
	if len(b) < segmentFixed {
		return segmentHeader{}, errShort
	}
	le := binary.LittleEndian
	size, node := int(le.Uint16(b[10:])), int(b[20])
	if le.Uint16(b[8:]) != segmentVersion || node > maxNode || size != segmentFixed+node+4 {
		return segmentHeader{}, errDamaged
	}
	if len(b) < size {
		return segmentHeader{}, errShort
	}
	if crc32.Checksum(b[:size-4], castagnoli) != le.Uint32(b[size-4:]) {
		return segmentHeader{}, errDamaged
	}
	return segmentHeader{size, int64(le.Uint64(b[12:])), string(b[segmentFixed : segmentFixed+node])}, nil
}

// segmentBytes returns the size of all segments of a directory.
func segmentBytes(fs vfs.FS, dir string, ids []segmentID) (total int64) {
	for _, id := range ids {
		if info, err := fs.Stat(fs.PathJoin(dir, id.name())); err == nil { // else: trimmed meanwhile
			total += info.Size()
		}
	}
	return total
}

// SyncSegments makes what lies between two places of a spool durable: a process that was killed may have left it to the
// kernel. Segments that were deleted are passed over.
func SyncSegments(dir string, from, to Position) error {
	ids, err := listSegments(vfs.Default, dir)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if id.at(0).Compare(from.segment().at(0)) < 0 || id.at(0).Compare(to) >= 0 {
			continue
		}
		f, err := vfs.Default.Open(vfs.Default.PathJoin(dir, id.name()))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = errors.Join(f.Sync(), f.Close())
		}
		if err != nil {
			return fmt.Errorf("sync spool: %w", err)
		}
	}
	return syncDir(vfs.Default, dir)
}

// BytesAfter returns how many bytes of groups the segments of a spool have after a place; those of a segment that is deleted meanwhile are
// left out.
func BytesAfter(dir string, p Position) (n int64, err error) {
	ids, err := listSegments(vfs.Default, dir)
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		if id.at(0).Compare(p) < 0 && id != p.segment() {
			continue
		}
		info, err := vfs.Default.Stat(vfs.Default.PathJoin(dir, id.name()))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("size of spool: %w", err)
		}
		size := info.Size()
		switch {
		case id == p.segment():
			size -= p.Offset
		case size <= maxSegHeader: // nothing is in it yet
			size = 0
		}
		n += max(size, 0)
	}
	return n, nil
}

// TrimOptions configure Trim.
type TrimOptions struct {
	Dir       string        // the spool directory
	Committed Position      // every reader has durably handled everything before it
	Keep      time.Duration // committed segments are kept this long after their last write, for replay
	MaxBytes  int64         // cap of the spool: above 3/4 of it, committed segments go before Keep is over; 0: no cap
	Early     Position      // above 3/4 of MaxBytes segments before it go too, though a reader is not done with them; zero: none do
	FS        vfs.FS        // default vfs.Default
	Now       time.Time     // required if Keep is set
}

// Trim deletes segments that lie wholly before Committed, oldest first, and
// never the newest one. It may run beside a recorder and readers, in any
// process. Returns how many it deleted, also with an error.
func Trim(o TrimOptions) (removed int, err error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	ids, err := listSegments(o.FS, o.Dir)
	if err != nil {
		return 0, err
	}
	total := segmentBytes(o.FS, o.Dir, ids)
	for i, id := range ids {
		full := o.MaxBytes > 0 && total > o.MaxBytes/4*3
		before := o.Committed
		if full && o.Early.Compare(before) > 0 {
			before = o.Early
		}
		if i == len(ids)-1 || id.at(0).Compare(before.segment().at(0)) >= 0 {
			break
		}
		path := o.FS.PathJoin(o.Dir, id.name())
		info, err := o.FS.Stat(path)
		if err != nil {
			return removed, fmt.Errorf("trim spool: %w", err)
		}
		if !full && o.Now.Sub(info.ModTime()) < o.Keep {
			break // the others are younger
		}
		if err := o.FS.Remove(path); err != nil {
			return removed, fmt.Errorf("trim spool: %w", err)
		}
		total -= info.Size()
		removed++
	}
	return removed, nil
}
