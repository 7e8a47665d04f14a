package pebblestore

import (
	"encoding/binary"
	"math/bits"

	"github.com/klauspost/compress/s2"

	"github.com/terselink/terse"
)

const (
	blockFormat = 1

	blockCompressed = 1 << 0 // the columns are S2
	blockTags       = 1 << 1 // a codeTag for every row

	// blockHeader is format, flags and bitmap.
	blockHeader = 1 + 1 + 8

	// maxBlockColumns bounds the columns before compression. Links that need more are
	// stored as rows, so a reader never has to make more room than this.
	maxBlockColumns = 1 << 20
)

// The numeric columns, in the order in which they are stored.
const (
	colCreated = iota // zigzag milliseconds
	colUpdated        // zigzag distance from created
	colExpires        // zigzag milliseconds
	colCampaign
	colVersion
	colAttributes // status | default expiry<<8 | redirect status<<16
	numberColumns
)

// The text columns, in the order in which they are stored.
const (
	colDestination = iota
	colValues
	colExternalID
	colSettings
	textColumns
)

// How a text column is stored: two bits of the mask each.
const (
	textAbsent   = 0
	textConstant = 1
	textPerRow   = 2
)

// blockEncoder makes the values of blocks. Its buffers grow to the largest
// block and are used again. Hot path: 0 allocs/op, see TestInsertAllocs.
type blockEncoder struct {
	columns    []byte
	compressed []byte
	settings   settingsCache
}

// settingsCache encodes settings that many links of a chunk share once.
type settingsCache struct {
	last *terse.LinkSettings
	json []byte
}

func (c *settingsCache) encode(s *terse.LinkSettings) ([]byte, error) {
	if s == nil {
		return nil, nil
	}
	if s != c.last {
		b, err := encodeSettings(s)
		if err != nil {
			return nil, err
		}
		c.last, c.json = s, b
	}
	return c.json, nil
}

// blockRow is what a block holds of one link: the link and its settings as JSON.
type blockRow struct {
	link     *terse.Link
	settings []byte
}

func (b *blockRow) number(column int) uint64 {
	l := b.link
	switch column {
	case colCreated:
		return zigzag(int64(l.CreatedAt))
	case colUpdated:
		return zigzag(int64(l.UpdatedAt - l.CreatedAt))
	case colExpires:
		return zigzag(int64(l.ExpiresAt))
	case colCampaign:
		return uint64(l.Campaign)
	case colVersion:
		return l.Version
	default:
		a := uint64(l.Status) | uint64(l.RedirectStatus)<<16
		if l.DefaultExpiry {
			a |= 1 << 8
		}
		return a
	}
}

func appendText(dst []byte, b *blockRow, column int) []byte {
	switch column {
	case colDestination:
		return append(dst, b.link.Destination...)
	case colValues:
		return append(dst, b.link.Values...)
	case colExternalID:
		return append(dst, b.link.ExternalID...)
	default:
		return append(dst, b.settings...)
	}
}

func (b *blockRow) textLen(column int) int {
	switch column {
	case colDestination:
		return len(b.link.Destination)
	case colValues:
		return len(b.link.Values)
	case colExternalID:
		return len(b.link.ExternalID)
	default:
		return len(b.settings)
	}
}

func sameText(a, b *blockRow, column int) bool {
	switch column {
	case colDestination:
		return a.link.Destination == b.link.Destination
	case colValues:
		return a.link.Values == b.link.Values
	case colExternalID:
		return a.link.ExternalID == b.link.ExternalID
	default:
		return string(a.settings) == string(b.settings)
	}
}

// append appends the value of the block of rows: links of one workspace, in
// ascending order of number, within one aligned run. tags says that every link
// has a code. ok is false if the rows are too large for a block.
func (e *blockEncoder) append(dst []byte, rows []blockRow, tags bool) (out []byte, bitmap uint64, ok bool) {
	first := blockOf(rows[0].link.Number)
	total := 0
	for i := range rows {
		bitmap |= 1 << (rows[i].link.Number - first)
		for c := range textColumns {
			total += rows[i].textLen(c)
		}
	}
	// 64 rows of 6 numbers and 4 lengths are below 8 KiB.
	if total > maxBlockColumns-8<<10 {
		return dst, 0, false
	}

	col := e.columns[:0]
	col = binary.AppendUvarint(col, uint64(rows[0].link.Workspace))
	masks := len(col)
	col = append(col, 0, 0)
	for c := range numberColumns {
		base := rows[0].number(c)
		constant := true
		for i := 1; i < len(rows) && constant; i++ {
			constant = rows[i].number(c) == base
		}
		col = binary.AppendUvarint(col, base)
		if constant {
			col[masks] |= 1 << c
			continue
		}
		for i := 1; i < len(rows); i++ {
			v := rows[i].number(c)
			col = binary.AppendUvarint(col, zigzag(int64(v-base)))
			base = v
		}
	}
	for c := range textColumns {
		constant := true
		for i := 1; i < len(rows) && constant; i++ {
			constant = sameText(&rows[i], &rows[0], c)
		}
		switch {
		case constant && rows[0].textLen(c) == 0:
		case constant:
			col[masks+1] |= textConstant << (2 * c)
			col = binary.AppendUvarint(col, uint64(rows[0].textLen(c)))
			col = appendText(col, &rows[0], c)
		default:
			col[masks+1] |= textPerRow << (2 * c)
			for i := range rows {
				col = binary.AppendUvarint(col, uint64(rows[i].textLen(c)))
			}
			for i := range rows {
				col = appendText(col, &rows[i], c)
			}
		}
	}
	e.columns = col

	if n := s2.MaxEncodedLen(len(col)); cap(e.compressed) < n {
		e.compressed = make([]byte, n)
	}
	packed := s2.Encode(e.compressed[:cap(e.compressed)], col)

	start := len(dst)
	dst = append(dst, blockFormat, 0)
	dst = binary.BigEndian.AppendUint64(dst, bitmap)
	if tags {
		dst[start+1] |= blockTags
		for i := range rows {
			dst = binary.BigEndian.AppendUint16(dst, codeTag(rows[i].link.Code))
		}
	}
	if len(packed) < len(col) {
		dst[start+1] |= blockCompressed
		dst = append(dst, packed...)
	} else {
		dst = append(dst, col...)
	}
	return binary.BigEndian.AppendUint32(dst, checksum(first, dst[start:])), bitmap, true
}

// blockBitmap reads which numbers a block holds (bit i: first+i) without reading more.
func blockBitmap(first terse.LinkNumber, value []byte) (uint64, error) {
	if len(value) < blockHeader+4 {
		return 0, errDamaged("block", first, "too short")
	}
	if value[0] != blockFormat {
		return 0, errDamaged("block", first, "unknown format")
	}
	return binary.BigEndian.Uint64(value[2:]), nil
}

// block is one decoded block: the positions of its columns, not its links. It is
// large and used again; see reader.
type block struct {
	first     terse.LinkNumber
	loaded    bool
	value     []byte // a copy of the value
	columns   []byte // decompressed, or a part of value
	buf       []byte // room for columns
	bitmap    uint64
	tags      []byte
	workspace terse.WorkspaceID
	numbers   [numberColumns]struct {
		constant bool
		v        [blockSize]uint64
	}
	texts [textColumns]struct {
		kind byte
		data []byte
		end  [blockSize]uint32 // where the text of a row ends in data
	}
}

// load decodes value, of which it keeps a copy.
func (b *block) load(first terse.LinkNumber, value []byte) error {
	b.loaded = false
	b.first = first
	b.value = append(b.value[:0], value...)
	value = b.value
	bitmap, err := blockBitmap(first, value)
	if err != nil {
		return err
	}
	b.bitmap = bitmap
	n := bits.OnesCount64(bitmap)
	body, sum := value[:len(value)-4], binary.BigEndian.Uint32(value[len(value)-4:])
	if checksum(first, body) != sum {
		return errDamaged("block", first, "checksum differs")
	}
	flags := body[1]
	if n == 0 || flags&^(blockCompressed|blockTags) != 0 {
		return errDamaged("block", first, "unknown flags or no rows")
	}
	d := decoder{b: body[blockHeader:]}
	b.tags = nil
	if flags&blockTags != 0 {
		b.tags = d.bytes(uint64(2 * n))
	}
	b.columns = d.b
	if flags&blockCompressed != 0 {
		size, err := s2.DecodedLen(d.b)
		if err != nil || size > maxBlockColumns {
			return errDamaged("block", first, "compressed columns")
		}
		if cap(b.buf) < size {
			b.buf = make([]byte, size)
		}
		if b.columns, err = s2.Decode(b.buf[:cap(b.buf)], d.b); err != nil {
			return errDamaged("block", first, "compressed columns")
		}
	}
	if d.bad || !b.parse(n) {
		return errDamaged("block", first, "columns are cut or too long")
	}
	b.loaded = true
	return nil
}

// parse finds the columns of n rows.
func (b *block) parse(n int) bool {
	d := decoder{b: b.columns}
	b.workspace = terse.WorkspaceID(d.uvarint())
	constant, kinds := d.byte(), d.byte()
	if constant>>numberColumns != 0 {
		return false
	}
	for c := range b.numbers {
		col := &b.numbers[c]
		col.constant = constant&(1<<c) != 0
		v := d.uvarint()
		col.v[0] = v
		if col.constant {
			continue
		}
		for i := 1; i < n; i++ {
			v += uint64(d.varint())
			col.v[i] = v
		}
	}
	for c := range b.texts {
		col := &b.texts[c]
		col.kind = kinds >> (2 * c) & 3
		col.data = nil
		switch col.kind {
		case textAbsent:
		case textConstant:
			col.data = d.text()
		case textPerRow:
			end := uint64(0)
			for i := range n {
				size := d.uvarint()
				if size > maxBlockColumns {
					return false
				}
				end += size
				col.end[i] = uint32(end)
			}
			col.data = d.bytes(end)
		default:
			return false
		}
	}
	return !d.bad && len(d.b) == 0
}

// has reports whether the block holds the number, which is within its run.
func (b *block) has(n terse.LinkNumber) bool { return b.bitmap&(1<<(n-b.first)) != 0 }

// row fills r with the link of a number that the block has.
func (b *block) row(n terse.LinkNumber, r *row) {
	i := bits.OnesCount64(b.bitmap & (1<<(n-b.first) - 1))
	number := func(c int) uint64 {
		if b.numbers[c].constant {
			return b.numbers[c].v[0]
		}
		return b.numbers[c].v[i]
	}
	text := func(c int) []byte {
		col := &b.texts[c]
		if col.kind != textPerRow {
			return col.data
		}
		start := uint32(0)
		if i > 0 {
			start = col.end[i-1]
		}
		return col.data[start:col.end[i]]
	}
	*r = row{number: n, workspace: b.workspace}
	r.created = terse.Millis(unzigzag(number(colCreated)))
	r.updated = r.created + terse.Millis(unzigzag(number(colUpdated)))
	r.expires = terse.Millis(unzigzag(number(colExpires)))
	r.campaign = terse.CampaignID(number(colCampaign))
	r.version = number(colVersion)
	attributes := number(colAttributes)
	r.status = terse.Status(attributes)
	r.defaultExpiry = attributes&(1<<8) != 0
	r.redirect = uint16(attributes >> 16)
	r.destination, r.values, r.externalID = text(colDestination), text(colValues), text(colExternalID)
	if s := text(colSettings); len(s) > 0 {
		r.settings = s
	}
	if b.tags != nil {
		r.hasTag, r.tag = true, binary.BigEndian.Uint16(b.tags[2*i:])
	}
}
