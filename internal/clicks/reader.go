package clicks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/terselink/terse"
)

// Raw is one decoded spool record: a Click without its address, of which its network is there if the workspace keeps that. Its slices are
// borrowed: they are valid until the function they were given to returns.
type Raw struct {
	ID          [16]byte // UUIDv7
	At          terse.Millis
	Workspace   terse.WorkspaceID
	Link        terse.LinkNumber
	Campaign    terse.CampaignID
	Rule        uint8
	Outcome     Outcome
	Flags       Flag
	Weight      uint16
	Visitor     uint64
	ASN         uint32
	Country     []byte // ISO 3166-1 alpha-2, or empty
	Region      []byte
	City        []byte
	Domain      []byte
	Code        []byte
	Destination []byte // its query holds tracking parameters only
	UserAgent   []byte
	Language    []byte // Accept-Language
	Platform    []byte // Sec-CH-UA-Platform
	Referrer    []byte // without query and fragment
	Query       []byte // tracking parameters only
	KeepsAgent  bool   // the workspace keeps the User-Agent in its events
	Network     []byte // 3 bytes of an IPv4 address or 6 of an IPv6, or empty
	Node        string // name of the node that recorded it
}

// ReaderOptions configure a Reader.
type ReaderOptions struct {
	Dir  string       // the spool directory of one node; required
	From Position     // where to begin; zero: the beginning
	FS   vfs.FS       // default vfs.Default
	Log  *slog.Logger // default: discarded
}

// ReaderStats are counters of a Reader since it was opened.
type ReaderStats struct {
	Records          uint64
	Groups           uint64
	TornBytes        uint64 // unfinished ends of segments that a dead process left
	Quarantined      uint64 // damaged places, copied to the directory "quarantine" of the spool
	QuarantinedBytes uint64
}

// Reader reads the spool of one node in order, also while it is being written,
// also from another process. It is not safe for concurrent use.
type Reader struct {
	o     ReaderOptions
	pos   Position
	stats ReaderStats

	file    vfs.File // the segment of pos; nil: not open
	header  segmentHeader
	started bool // header was read
	buf     []byte
	have    []byte // unread part of buf; begins at pos.Offset
	group   groupReader
	raw     Raw
	backoff time.Duration
}

const (
	readChunk   = 1 << 20
	waitFirst   = 5 * time.Millisecond
	waitLongest = 50 * time.Millisecond
)

// OpenReader returns a reader of the spool in dir that begins at from; the zero
// Position is the beginning. from may lie in a segment that has been deleted:
// the reader goes on with the next one. The directory need not exist yet.
func OpenReader(dir string, from Position) (*Reader, error) {
	return NewReader(ReaderOptions{Dir: dir, From: from})
}

// NewReader is OpenReader with all options.
func NewReader(o ReaderOptions) (*Reader, error) {
	if o.Dir == "" {
		return nil, terse.Invalid("dir", "the spool needs a directory")
	}
	if o.From != (Position{}) && (!validBoot(o.From.Boot) || o.From.Offset < 0) {
		return nil, terse.Invalid("position", "not a position of a spool")
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Reader{o: o, pos: o.From, backoff: waitFirst}, nil
}

// Position returns the place after the last group that was handed out whole.
// Store it in one transaction with what was made of the records.
func (r *Reader) Position() Position { return r.pos }

// Stats returns what the reader met.
func (r *Reader) Stats() ReaderStats { return r.stats }

// Close releases the open segment.
func (r *Reader) Close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	return err
}

// Next hands records to fn in the order they were written. It hands out whole
// groups (at most MaxGroup records each) until at least max records were handed
// out, or everything written so far was: then n < max and err is nil. If fn
// returns an error, Next returns it at once; n does not count the group it
// happened in, and the next call hands that group out again, from its first
// record. The unfinished end that a dead process left is skipped and counted;
// damage is copied to the directory "quarantine", counted, and skipped.
func (r *Reader) Next(ctx context.Context, max int, fn func(*Raw) error) (n int, err error) {
	for n < max {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		k, err := r.step(fn)
		n += k
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		if k > 0 {
			r.backoff = waitFirst
		}
	}
	return n, nil
}

// Wait returns when there may be more to read, or with the error of ctx. It
// polls, every 5 ms after there was something and every 50 ms later on.
func (r *Reader) Wait(ctx context.Context) error {
	timer := time.NewTimer(r.backoff)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		r.backoff = min(2*r.backoff, waitLongest)
		if r.more() {
			return nil
		}
		timer.Reset(r.backoff)
	}
}

// more reports whether the segment has grown or has a successor.
func (r *Reader) more() bool {
	if r.file != nil {
		if info, err := r.file.Stat(); err != nil || info.Size() > r.pos.Offset+int64(len(r.have)) {
			return true
		}
	}
	_, ok, err := r.successor()
	return ok || err != nil
}

// step hands out the records of at most one group, see stepGroup.
func (r *Reader) step(fn func(*Raw) error) (int, error) {
	return r.stepGroup(func(info groupInfo, group []byte) (int, bool, error) { return r.decode(info, group[groupHeader:], fn) })
}

// stepGroup hands out at most one group, or moves on by one place of another kind
// (header, damage, next segment). io.EOF: nothing more for now. take returns how many records it took, or that the
// group is damaged.
func (r *Reader) stepGroup(take func(info groupInfo, group []byte) (n int, bad bool, err error)) (int, error) {
	if r.file == nil {
		if err := r.open(); err != nil {
			return 0, err
		}
	}
	if !r.started {
		return 0, r.readHeader()
	}
	head, err := r.peek(groupHeader)
	if err != nil {
		return 0, err
	}
	if len(head) == 0 {
		return 0, r.atEnd()
	}
	info, err := parseGroupHeader(head)
	if err == nil {
		var b []byte
		if b, err = r.peek(info.size()); err != nil {
			return 0, err
		}
		if len(b) < info.size() {
			return 0, r.atEnd()
		}
		if n, bad, err := take(info, b[:info.size()]); !bad {
			if err == nil {
				r.skip(info.size())
			}
			return n, err
		}
		return 0, r.damage(info.size())
	}
	if errors.Is(err, errShort) {
		return 0, r.atEnd()
	}
	return 0, r.damage(1)
}

// decode hands out one group. bad: its bytes are damaged, nothing was handed out.
func (r *Reader) decode(info groupInfo, stored []byte, fn func(*Raw) error) (n int, bad bool, err error) {
	// All records are checked before the first is handed out, so that damage
	// behind a right checksum (a defect of ours) cannot hand out half a group.
	if err := r.check(info, stored); err != nil {
		return 0, true, nil
	}
	if err := r.group.reset(info, stored); err != nil {
		return 0, true, nil
	}
	r.raw.Node = r.header.node
	for range info.records {
		if err := r.group.next(&r.raw); err != nil {
			return 0, true, nil
		}
		if err := fn(&r.raw); err != nil {
			return 0, false, err
		}
		n++
	}
	r.stats.Records += uint64(n)
	r.stats.Groups++
	return n, false, nil
}

func (r *Reader) check(info groupInfo, stored []byte) error {
	if err := r.group.reset(info, stored); err != nil {
		return err
	}
	for range info.records {
		if err := r.group.next(&r.raw); err != nil {
			return err
		}
	}
	if len(r.group.records) != 0 || r.group.kept.more {
		return errDamaged
	}
	return nil
}

// open opens the segment of pos, or the first after it.
func (r *Reader) open() error {
	ids, err := listSegments(r.o.FS, r.o.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return io.EOF // not recorded yet
	}
	if err != nil {
		return err
	}
	for _, id := range ids {
		switch id.at(0).Compare(r.pos.segment().at(0)) {
		case -1:
			continue
		case 1:
			r.pos = id.at(0)
		}
		f, err := r.o.FS.Open(r.o.FS.PathJoin(r.o.Dir, id.name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // trimmed since it was listed
		}
		if err != nil {
			return fmt.Errorf("open segment: %w", err)
		}
		r.file, r.started, r.have = f, false, nil
		return nil
	}
	return io.EOF
}

// readHeader reads the header of the open segment, then goes to pos.
func (r *Reader) readHeader() error {
	b := make([]byte, maxSegHeader)
	n, err := r.file.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read segment: %w", err)
	}
	h, err := parseSegmentHeader(b[:n])
	switch {
	case err == nil:
		r.header, r.started = h, true
		r.pos.Offset = max(r.pos.Offset, int64(h.size))
		return nil
	case errors.Is(err, errShort):
		return r.atEnd()
	}
	// Groups are self-contained: without its header a segment loses the name of
	// its node, no click.
	r.header, r.started = segmentHeader{}, true
	if r.pos.Offset == 0 {
		return r.damage(1)
	}
	return nil
}

// peek returns the next n unread bytes, or fewer at the end of the file.
func (r *Reader) peek(n int) ([]byte, error) {
	if len(r.have) >= n {
		return r.have, nil
	}
	size := max(n, readChunk)
	if cap(r.buf) < size {
		r.buf = make([]byte, size)
	}
	r.buf = r.buf[:cap(r.buf)]
	got := copy(r.buf, r.have)
	k, err := r.file.ReadAt(r.buf[got:], r.pos.Offset+int64(got))
	r.have = r.buf[:got+k]
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read segment: %w", err)
	}
	return r.have, nil
}

func (r *Reader) skip(n int) {
	r.have = r.have[n:]
	r.pos.Offset += int64(n)
}

// successor returns the segment after that of pos.
func (r *Reader) successor() (segmentID, bool, error) {
	ids, err := listSegments(r.o.FS, r.o.Dir)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return segmentID{}, false, err
	}
	for _, id := range ids {
		if id.at(0).Compare(r.pos.segment().at(0)) > 0 {
			return id, true, nil
		}
	}
	return segmentID{}, false, nil
}

// atEnd is called where the bytes stop, at or inside a group. While the segment
// is the newest, more may come. Once it has a successor it is complete, because
// the writer begins a segment only after it is done with the one before: what
// is left over is the torn end of a dead process.
func (r *Reader) atEnd() error {
	next, ok, err := r.successor()
	if err != nil {
		return err
	}
	if !ok {
		return io.EOF
	}
	// Something may have been written between our read and the listing.
	info, err := r.file.Stat()
	if err != nil {
		return fmt.Errorf("stat segment: %w", err)
	}
	left := info.Size() - r.pos.Offset
	if r.started && left > int64(len(r.have)) {
		r.have = nil
		return nil
	}
	if left > 0 {
		r.stats.TornBytes += uint64(left)
		r.o.Log.Warn("skipped the unfinished end of a spool segment", "segment", r.pos.segment().name(), "offset", r.pos.Offset, "bytes", left)
	}
	return r.advance(next)
}

func (r *Reader) advance(next segmentID) error {
	err := r.file.Close()
	r.file, r.have = nil, nil
	r.pos = next.at(0)
	if err != nil {
		return fmt.Errorf("close segment: %w", err)
	}
	return nil
}

// damage skips from pos to the next intact group header that is at least min
// bytes away. In the newest segment nothing is skipped unless such a header
// follows: the bytes may still be on their way.
func (r *Reader) damage(min int) error {
	info, err := r.file.Stat()
	if err != nil {
		return fmt.Errorf("stat segment: %w", err)
	}
	_, complete, err := r.successor()
	if err != nil {
		return err
	}
	size := info.Size()
	end, err := r.findGroup(r.pos.Offset+int64(min), size)
	if err != nil {
		return err
	}
	if end == size && !complete {
		return io.EOF
	}
	zeros, err := r.quarantine(r.pos.Offset, end)
	if err != nil {
		return err
	}
	if zeros { // a file that grew before its data reached the disk
		r.stats.TornBytes += uint64(end - r.pos.Offset)
	} else {
		r.stats.Quarantined++
		r.stats.QuarantinedBytes += uint64(end - r.pos.Offset)
	}
	r.o.Log.Error("damaged place in the spool", "segment", r.pos.segment().name(), "offset", r.pos.Offset, "bytes", end-r.pos.Offset, "zeros", zeros)
	r.pos.Offset, r.have = end, nil
	return nil
}

// findGroup returns the offset of the first group header in [from, size), or size.
func (r *Reader) findGroup(from, size int64) (int64, error) {
	buf := make([]byte, readChunk)
	for from < size {
		n, err := r.file.ReadAt(buf, from)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("read segment: %w", err)
		}
		if n < groupHeader {
			break
		}
		for i := 0; ; {
			k := bytes.Index(buf[i:n], []byte(groupMagic))
			if k < 0 || i+k+groupHeader > n {
				break
			}
			i += k
			if _, err := parseGroupHeader(buf[i:n]); err == nil {
				return from + int64(i), nil
			}
			i++
		}
		from += int64(n - groupHeader + 1)
	}
	return size, nil
}

// quarantine copies a damaged place aside, unless it is all zeros.
func (r *Reader) quarantine(from, end int64) (zeros bool, err error) {
	data := make([]byte, end-from)
	if n, err := r.file.ReadAt(data, from); err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read segment: %w", err)
	} else {
		data = data[:n]
	}
	if len(bytes.Trim(data, "\x00")) == 0 {
		return true, nil
	}
	fs := r.o.FS
	dir := fs.PathJoin(r.o.Dir, quarantineName)
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return false, fmt.Errorf("quarantine: %w", err)
	}
	name := fmt.Sprintf("%s-%012d.bad", r.pos.segment().name(), from)
	f, err := fs.Create(fs.PathJoin(dir, name), spoolCategory)
	if err != nil {
		return false, fmt.Errorf("quarantine: %w", err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return false, fmt.Errorf("quarantine: %w", err)
	}
	return false, nil
}
