package clicks

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"hash/crc32"
	"hash/maphash"

	"github.com/dchest/siphash"
	"github.com/klauspost/compress/s2"

	"github.com/terselink/terse"
)

// MaxGroup is the most records one group holds.
const MaxGroup = 4096

// Group header, little-endian: magic, u32 stored size, u32 raw size, u16 records,
// u8 codec, u8 ids, u32 CRC-32C of the stored payload, u32 CRC-32C of the 20 bytes before.
const (
	groupMagic    = "TGv1"
	groupHeader   = 24
	maxGroupBytes = 8 << 20 // of a payload; a group is closed long before, see groupSoftBytes

	codecNone = 0
	codecS2   = 1

	idsHashed  = 0 // of the index under the salt of the group: what groups had before
	idsCounted = 1 // idCounter

	// groupSoftBytes closes a group: the records of one more slot still fit maxGroupBytes.
	groupSoftBytes = 1 << 20
	// compressAbove: smaller payloads are left as they are.
	compressAbove = 256
)

// Meta bits of a record: which optional parts follow.
const (
	metaOutcome  = 0x0f
	metaRule     = 1 << 4
	metaWeight   = 1 << 5
	metaCampaign = 1 << 6
	metaPlace    = 1 << 7
)

// record is what the writer knows about a click beyond its slot.
type record struct {
	*slot
	visitor     uint64
	country     string // 2 bytes or ""
	place       []byte // appendPlace, or empty
	weight      uint16
	destination []byte // cut
	referrer    []byte // cut
	query       []byte // cut
	keepAgent   bool
	network     []byte // appendNetwork, or empty
}

// groupBuilder encodes one group after the other. The texts of a group that
// repeat are written once, in its dictionary.
type groupBuilder struct {
	seed maphash.Seed
	// table is an open-addressed hash table of dictionary entries; a cell is
	// of the current group if its generation says so, so it is never cleared.
	table      []dictCell
	generation uint32
	entries    int
	dict       []byte // uvarint size, bytes, and so on
	records    []byte
	kept       keptList
	n          int
	base       terse.Millis
	lastLink   terse.LinkNumber
	ids        *idCounter
	fill       func([]byte) // makes what is random of ids; rand.Read but for tests of the format
	scratch    [8]byte
	raw        []byte // the payload before compression
}

type dictCell struct {
	generation uint32
	index      uint32 // entry number + 1
	hash       uint32
	start, end uint32 // in dict
}

const dictCells = 1 << 15 // > 5 entries per record of a full group

func newGroupBuilder() *groupBuilder {
	random := func(b []byte) { _, _ = rand.Read(b) } // never fails, see crypto/rand
	return &groupBuilder{seed: maphash.MakeSeed(), table: make([]dictCell, dictCells), ids: newIDCounter(), fill: random}
}

// full reports whether the group must be finished before the next record.
func (g *groupBuilder) full() bool {
	return g.n == MaxGroup || len(g.dict)+len(g.records) >= groupSoftBytes
}

// add adds a record and returns its id.
func (g *groupBuilder) add(r *record) (id [16]byte) {
	if g.n == 0 {
		g.generation++
		g.dict, g.records = g.dict[:0], g.records[:0]
		g.entries, g.lastLink, g.base = 0, 0, r.at
		g.kept = keptList{b: g.kept.b[:0]}
	}
	g.kept.add(g.n, r)
	g.n++
	id, flags, seq := g.identify(r)
	meta := uint8(r.outcome) & metaOutcome
	if r.rule != 0 {
		meta |= metaRule
	}
	if r.weight != 1 {
		meta |= metaWeight
	}
	if r.campaign != 0 {
		meta |= metaCampaign
	}
	if len(r.place) > 0 {
		meta |= metaPlace
	}
	b := g.records
	b = append(b, meta, uint8(flags))
	b = binary.AppendVarint(b, int64(r.at-g.base))
	b = binary.AppendUvarint(b, uint64(r.workspace))
	b = binary.AppendVarint(b, int64(r.link-g.lastLink))
	g.lastLink = r.link
	b = binary.LittleEndian.AppendUint64(b, r.visitor)
	if len(r.country) == 2 {
		b = append(b, r.country...)
	} else {
		b = append(b, 0, 0)
	}
	b = append(b, uint8(len(r.code)))
	b = append(b, r.code...)
	b = binary.AppendUvarint(b, g.intern(r.domain))
	b = binary.AppendUvarint(b, g.intern(r.destination))
	b = binary.AppendUvarint(b, g.intern(r.client))
	b = binary.AppendUvarint(b, g.intern(r.referrer))
	b = binary.AppendUvarint(b, g.intern(r.query))
	if meta&metaRule != 0 {
		b = append(b, r.rule)
	}
	if meta&metaWeight != 0 {
		b = binary.AppendUvarint(b, uint64(r.weight))
	}
	if meta&metaCampaign != 0 {
		b = binary.AppendUvarint(b, uint64(r.campaign))
	}
	if meta&metaPlace != 0 {
		b = binary.AppendUvarint(b, g.intern(r.place))
	}
	switch {
	case flags&flagID != 0:
		b = append(b, id[6:]...) // its time is that of the record
	case flags&flagSeq != 0:
		b = binary.AppendUvarint(b, seq)
	}
	g.records = b
	return id
}

// identify returns the id of a record and how it is stored: with flagID whole, with flagSeq its number within the
// millisecond, else that is 0.
func (g *groupBuilder) identify(r *record) (id [16]byte, flags Flag, seq uint64) {
	flags = r.flags &^ flagSeq
	if flags&flagID != 0 {
		return r.id, flags, 0
	}
	if g.ids.run == 0 {
		g.ids.run = g.random() | 1
	}
	seq, ok := g.ids.next(int64(r.at))
	if !ok {
		return newID(int64(r.at), g.random(), g.random()), flags | flagID, 0
	}
	if seq != 0 {
		flags |= flagSeq
	}
	return newID(int64(r.at), seq, g.ids.run), flags, seq
}

func (g *groupBuilder) random() uint64 {
	g.fill(g.scratch[:])
	return binary.LittleEndian.Uint64(g.scratch[:]) & (1<<62 - 1)
}

// intern returns the number of s in the dictionary of the group; 0 is the empty text.
func (g *groupBuilder) intern(s []byte) uint64 {
	if len(s) == 0 {
		return 0
	}
	h := maphash.Bytes(g.seed, s)
	for i := h; ; i++ {
		cell := &g.table[i&(dictCells-1)]
		if cell.generation != g.generation {
			g.entries++
			g.dict = binary.AppendUvarint(g.dict, uint64(len(s)))
			start := len(g.dict)
			g.dict = append(g.dict, s...)
			*cell = dictCell{g.generation, uint32(g.entries), uint32(h >> 32), uint32(start), uint32(len(g.dict))}
			return uint64(g.entries)
		}
		if cell.hash == uint32(h>>32) && bytes.Equal(g.dict[cell.start:cell.end], s) {
			return uint64(cell.index)
		}
	}
}

// appendGroup finishes the group and appends it to dst.
func (g *groupBuilder) appendGroup(dst []byte) []byte {
	run := g.ids.run
	if len(g.kept.b) > 0 {
		run |= keptBit
		g.entries++
		g.dict = binary.AppendUvarint(g.dict, uint64(len(g.kept.b)))
		g.dict = append(g.dict, g.kept.b...)
	}
	raw := binary.LittleEndian.AppendUint64(g.raw[:0], run)
	raw = binary.AppendUvarint(raw, uint64(g.base))
	raw = binary.AppendUvarint(raw, uint64(g.entries))
	raw = binary.AppendUvarint(raw, uint64(len(g.dict)))
	raw = append(raw, g.dict...)
	raw = append(raw, g.records...)
	g.raw = raw
	dst = appendPayload(dst, raw, g.n)
	g.n = 0
	return dst
}

// appendPayload appends a group of counted ids that has a payload and so many records.
func appendPayload(dst, raw []byte, records int) []byte {
	start := len(dst)
	var header [groupHeader]byte
	dst = append(dst, header[:]...)
	codec := uint8(codecNone)
	if len(raw) > compressAbove {
		codec = codecS2
		bound := s2.MaxEncodedLen(len(raw))
		if cap(dst)-len(dst) < bound {
			dst = append(make([]byte, 0, 2*(len(dst)+bound)), dst...)
		}
		// Encode writes into the spare capacity of dst.
		packed := s2.Encode(dst[len(dst):len(dst)+bound], raw)
		dst = dst[:len(dst)+len(packed)]
	} else {
		dst = append(dst, raw...)
	}
	h, stored := dst[start:start+groupHeader], dst[start+groupHeader:]
	le := binary.LittleEndian
	copy(h, groupMagic)
	le.PutUint32(h[4:], uint32(len(stored)))
	le.PutUint32(h[8:], uint32(len(raw)))
	le.PutUint16(h[12:], uint16(records))
	h[14], h[15] = codec, idsCounted
	le.PutUint32(h[16:], crc32.Checksum(stored, castagnoli))
	le.PutUint32(h[20:], crc32.Checksum(h[:20], castagnoli))
	return dst
}

// groupInfo is a decoded group header.
type groupInfo struct {
	stored, raw, records int
	codec, ids           uint8
	sum                  uint32
}

// size returns the size of the whole group in the file.
func (i groupInfo) size() int { return groupHeader + i.stored }

// parseGroupHeader returns errShort if b may be the beginning of a header and
// errDamaged if it cannot be.
func parseGroupHeader(b []byte) (groupInfo, error) {
	if n := min(len(b), len(groupMagic)); string(b[:n]) != groupMagic[:n] {
		return groupInfo{}, errDamaged
	}
	if len(b) < groupHeader {
		return groupInfo{}, errShort
	}
	le := binary.LittleEndian
	if crc32.Checksum(b[:20], castagnoli) != le.Uint32(b[20:]) {
		return groupInfo{}, errDamaged
	}
	i := groupInfo{
		stored:  int(le.Uint32(b[4:])),
		raw:     int(le.Uint32(b[8:])),
		records: int(le.Uint16(b[12:])),
		codec:   b[14],
		ids:     b[15],
		sum:     le.Uint32(b[16:]),
	}
	ok := i.stored <= maxGroupBytes && i.raw <= maxGroupBytes && i.records > 0 && i.records <= MaxGroup &&
		(i.codec == codecNone && i.raw == i.stored || i.codec == codecS2) && i.ids <= idsCounted
	if !ok {
		return groupInfo{}, errDamaged
	}
	return i, nil
}

// groupReader decodes the records of one group.
type groupReader struct {
	buf      []byte // of decompression, kept
	spans    [][]byte
	records  []byte
	left     int
	ids      uint8
	run      uint64 // of idsCounted
	index    uint64 // of idsHashed
	k0, k1   uint64
	kept     keptReader
	base     int64
	lastLink uint64
	buf8     [8]byte // scratch of the id hash
}

// reset checks and opens a group. stored stays borrowed until the group is read.
func (g *groupReader) reset(info groupInfo, stored []byte) error {
	if crc32.Checksum(stored, castagnoli) != info.sum {
		return errDamaged
	}
	raw := stored
	if info.codec == codecS2 {
		if n, err := s2.DecodedLen(stored); err != nil || n != info.raw {
			return errDamaged
		}
		if cap(g.buf) < info.raw {
			g.buf = make([]byte, max(info.raw, 64<<10))
		}
		var err error
		if raw, err = s2.Decode(g.buf[:info.raw], stored); err != nil {
			return errDamaged
		}
	}
	d := decoder{b: raw}
	if g.ids = info.ids; g.ids == idsCounted {
		g.run = d.uint64()
	} else {
		g.k0, g.k1 = d.uint64(), d.uint64()
	}
	base, entries, size := d.uvarint(), d.uvarint(), d.uvarint()
	dict := decoder{b: d.take(size)}
	if d.bad || entries > size {
		return errDamaged
	}
	g.spans = g.spans[:0]
	for range entries {
		g.spans = append(g.spans, dict.take(dict.uvarint()))
	}
	if dict.bad || len(dict.b) != 0 {
		return errDamaged
	}
	g.kept = keptReader{}
	if g.ids == idsCounted && g.run&keptBit != 0 {
		last := len(g.spans) - 1
		if last < 0 {
			return errDamaged
		}
		g.run &^= keptBit
		g.kept, g.spans = newKeptReader(g.spans[last]), g.spans[:last]
	}
	g.base, g.lastLink, g.index = int64(base), 0, 0
	g.records, g.left = d.b, info.records
	return nil
}

// next decodes one record into r. It returns errDamaged if the bytes are not
// those of a record, although their checksum is right.
func (g *groupReader) next(r *Raw) error {
	d := decoder{b: g.records}
	meta := d.byte()
	r.Outcome, r.Flags = Outcome(meta&metaOutcome), Flag(d.byte())
	at := g.base + d.varint()
	r.At = terse.Millis(at)
	workspace := d.uvarint()
	r.Workspace = terse.WorkspaceID(workspace)
	g.lastLink += uint64(d.varint())
	r.Link = terse.LinkNumber(g.lastLink)
	r.Visitor = d.uint64()
	r.Country = d.take(2)
	if !d.bad && r.Country[0] == 0 {
		r.Country = nil
	}
	r.Code = d.take(uint64(d.byte()))
	r.Domain = g.span(&d)
	r.Destination = g.span(&d)
	client := g.span(&d)
	r.Referrer = g.span(&d)
	r.Query = g.span(&d)
	r.Rule, r.Weight, r.Campaign = 0, 1, 0
	if meta&metaRule != 0 {
		r.Rule = d.byte()
	}
	if meta&metaWeight != 0 {
		w := d.uvarint()
		r.Weight = uint16(w)
		d.bad = d.bad || w > 1<<16-1
	}
	if meta&metaCampaign != 0 {
		r.Campaign = terse.CampaignID(d.uvarint())
	}
	r.Region, r.City, r.ASN = nil, nil, 0
	if meta&metaPlace != 0 {
		place := decoder{b: g.span(&d)}
		asn := place.uvarint()
		r.ASN = uint32(asn)
		r.Region = place.take(place.uvarint())
		r.City = place.b
		d.bad = d.bad || place.bad || asn > 1<<32-1
	}
	var id [16]byte
	switch {
	case r.Flags&flagID != 0:
		id = newID(at, 0, 0)
		copy(id[6:], d.take(10))
	case g.ids == idsHashed:
		id = newID(at, g.index, siphash.Hash(g.k0, g.k1, binary.LittleEndian.AppendUint64(g.buf8[:0], g.index)))
	case r.Flags&flagSeq != 0:
		id = newID(at, d.uvarint(), g.run)
	default:
		id = newID(at, 0, g.run)
	}
	r.Flags &^= flagID | flagSeq
	var ok bool
	r.UserAgent, r.Language, r.Platform, ok = splitClient(client)
	r.KeepsAgent, r.Network = false, nil
	if g.kept.more {
		g.kept.next(r)
	}
	if d.bad || g.kept.d.bad || !ok || at < 0 || workspace > 1<<31-1 || r.Link >= 1<<63 {
		return errDamaged
	}
	r.ID = id
	g.records = d.b
	g.index++
	g.left--
	return nil
}

func (g *groupReader) span(d *decoder) []byte {
	i := d.uvarint()
	if i == 0 || d.bad {
		return nil
	}
	if i > uint64(len(g.spans)) {
		d.bad = true
		return nil
	}
	return g.spans[i-1]
}

// newID returns the UUIDv7 (RFC 9562) of a record: its time, a number in the 12 bits
// that follow, and 62 random bits. Ids sort by millisecond and, within one of a
// recorder, by arrival.
func newID(at int64, index, random uint64) (id [16]byte) {
	binary.BigEndian.PutUint64(id[:8], uint64(at)<<16|0x7000|index&0xfff)
	binary.BigEndian.PutUint64(id[8:], random&(1<<62-1)|1<<63)
	return id
}

// appendPlace encodes region, city and ASN as one dictionary entry.
func appendPlace(dst []byte, asn uint32, region, city string) []byte {
	dst = binary.AppendUvarint(dst, uint64(asn))
	dst = binary.AppendUvarint(dst, uint64(len(region)))
	dst = append(dst, region...)
	return append(dst, city...)
}

// decoder reads from b; the first failure sets bad and everything after is zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) byte() uint8 {
	if len(d.b) == 0 {
		d.bad = true
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) uint64() uint64 {
	if len(d.b) < 8 {
		d.bad = true
		return 0
	}
	v := binary.LittleEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) take(n uint64) []byte {
	if d.bad || n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) fail() { d.b, d.bad = nil, true }
