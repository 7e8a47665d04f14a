package clicks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/terselink/terse"
)

// Imported is a click that comes from elsewhere: what a Click is, with what the recorder would have
// made of its address. IP, UserAgent, Language and Platform of the Click are not read.
type Imported struct {
	Click
	Client  []byte // AppendClient
	Visitor uint64 // 0: none
	Country string // 2 letters or ""
	Region  string
	City    string
}

// AppendClient appends what a browser says of itself as the spool stores it.
func AppendClient(dst []byte, agent, language, platform string) []byte {
	agent, language, platform = agent[:min(len(agent), maxUserAgent)], language[:min(len(language), maxLanguage)], platform[:min(len(platform), maxPlatform)]
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(agent)))
	dst = append(dst, uint8(len(language)))
	return append(append(append(dst, agent...), language...), platform...)
}

// ImporterOptions configure an Importer. Zero values mean the defaults named.
type ImporterOptions struct {
	Dir          string // the spool directory, made if missing; required
	Node         string // default "node"
	SegmentBytes int64  // default 64 MiB
	Seed         uint64 // of the ids: the same clicks with the same seed have the same, in a spool that was empty
	FS           vfs.FS // default vfs.Default
	Clock        func() time.Time
}

// Importer writes clicks into a spool that no recorder uses, in a boot of its own after all that
// is there. The analytics engine reads them as any others. They are durable after Close; what an
// importer that did not come so far has written is read, too. Not safe for concurrent use.
type Importer struct {
	o       ImporterOptions
	boot    string
	lock    io.Closer
	group   *groupBuilder
	file    vfs.File
	number  uint64
	size    int64
	bytes   int64
	pending []byte
	place   []byte
	slot    slot
}

// OpenImporter locks the spool. Returns an error of code conflict if a server records into it.
func OpenImporter(o ImporterOptions) (*Importer, error) {
	if o.Dir == "" {
		return nil, terse.Invalid("dir", "the spool needs a directory")
	}
	if o.Node == "" {
		o.Node = "node"
	}
	if len(o.Node) > maxNode {
		return nil, terse.Invalid("node", "at most %d bytes", maxNode)
	}
	defaultTo(&o.SegmentBytes, 64<<20)
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if err := makeDir(o.FS, o.Dir); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	lock, err := o.FS.Lock(o.FS.PathJoin(o.Dir, lockName))
	if err != nil {
		return nil, &terse.Error{Code: terse.CodeConflict, Op: "open spool", Message: "a server records into this data folder", Err: err}
	}
	ids, err := listSegments(o.FS, o.Dir)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	ms := o.Clock().UnixMilli()
	stream := uint64(0)
	if len(ids) > 0 { // another import with the same seed has other ids
		ms = max(ms, bootMillis(ids[len(ids)-1].boot)+1)
		stream = uint64(ms)
	}
	random := rand.New(rand.NewPCG(o.Seed, stream))
	i := &Importer{o: o, boot: newBoot(ms, random.Uint64()), lock: lock, group: newGroupBuilder()}
	i.group.fill = func(b []byte) {
		for j := range b {
			b[j] = byte(random.Uint32())
		}
	}
	return i, nil
}

// Write adds a click and returns its id.
func (i *Importer) Write(c *Imported) (terse.ClickID, error) {
	if i.group.full() {
		if err := i.endGroup(); err != nil {
			return terse.ClickID{}, err
		}
	}
	s := &i.slot
	*s = slot{
		at: c.At, link: c.Link, workspace: c.Workspace, campaign: c.Campaign, rule: c.Rule, outcome: c.Outcome, flags: c.Flags & flagsKnown,
		domain: append(s.domain[:0], c.Domain[:min(len(c.Domain), maxDomain)]...), code: c.Code[:min(len(c.Code), maxCode)],
		destination: append(s.destination[:0], c.Destination[:min(len(c.Destination), maxDestination)]...),
		referrer:    c.Referrer[:min(len(c.Referrer), maxReferrer)], query: c.Query[:min(len(c.Query), maxQuery)], client: c.Client,
	}
	rec := record{slot: s, visitor: c.Visitor, country: c.Country, weight: 1, destination: s.destination, referrer: s.referrer, query: s.query}
	if c.Region != "" || c.City != "" {
		i.place = appendPlace(i.place[:0], 0, c.Region, c.City)
		rec.place = i.place
	}
	return i.group.add(&rec), nil
}

// Bytes returns how much was written so far.
func (i *Importer) Bytes() int64 { return i.bytes }

func (i *Importer) endGroup() error {
	if i.group.n == 0 {
		return nil
	}
	if i.pending = i.group.appendGroup(i.pending); len(i.pending) < 1<<20 {
		return nil
	}
	return i.flush()
}

// flush writes the groups that are pending, in a new segment if the current one is full.
func (i *Importer) flush() error {
	if len(i.pending) == 0 {
		return nil
	}
	if i.file != nil && i.size >= i.o.SegmentBytes {
		if err := i.closeSegment(); err != nil {
			return err
		}
	}
	if i.file == nil {
		i.number++
		f, err := i.o.FS.Create(i.o.FS.PathJoin(i.o.Dir, segmentID{i.boot, i.number}.name()), spoolCategory)
		if err != nil {
			return fmt.Errorf("create segment: %w", err)
		}
		header := appendSegmentHeader(nil, i.o.Clock().UnixMilli(), i.o.Node)
		if _, err := f.Write(header); err != nil {
			return errors.Join(fmt.Errorf("create segment: %w", err), f.Close())
		}
		i.file, i.size = f, int64(len(header))
	}
	n := int64(len(i.pending))
	if _, err := i.file.Write(i.pending); err != nil {
		return fmt.Errorf("write segment: %w", err)
	}
	i.pending = i.pending[:0]
	i.size += n
	i.bytes += n
	return nil
}

func (i *Importer) closeSegment() error {
	f := i.file
	i.file = nil
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("close segment: %w", err)
	}
	return nil
}

// Close writes and syncs what is left and gives the spool free.
func (i *Importer) Close() error {
	err := errors.Join(i.endGroup(), i.flush())
	if i.file != nil {
		err = errors.Join(err, i.closeSegment())
	}
	if dir, e := i.o.FS.OpenDir(i.o.Dir); e == nil {
		err = errors.Join(err, dir.Sync(), dir.Close())
	}
	return errors.Join(err, i.lock.Close())
}
