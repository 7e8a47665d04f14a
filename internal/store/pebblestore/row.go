package pebblestore

import (
	"encoding/binary"
	"strings"

	"github.com/terselink/terse"
)

// The first byte of a row.
const (
	rowLive      = 1
	rowTombstone = 2
)

// Flags of a live row: which parts follow.
const (
	rowUpdated = 1 << iota // UpdatedAt differs from CreatedAt
	rowExpires
	rowDefaultExpiry
	rowCampaign
	rowStatus
	rowRedirect
	rowDestination
	rowValues
	rowExternalID
	rowSettings
	rowCode
	rowTag
	rowMoved
)

// row is a link as it is stored. Its slices are parts of the value they were
// decoded from and die with it.
type row struct {
	number        terse.LinkNumber
	workspace     terse.WorkspaceID
	campaign      terse.CampaignID
	version       uint64
	created       terse.Millis
	updated       terse.Millis
	expires       terse.Millis
	status        terse.Status
	defaultExpiry bool
	redirect      uint16
	destination   []byte
	values        []byte
	externalID    []byte
	settings      []byte // JSON; nil if none
	code          []byte // of a link that is Named
	hasTag        bool   // tag is the codeTag of the generated code
	tag           uint16
	moved         uint64 // the version in which the link came to its campaign; 0: it was created there
}

// rowExtra is what a row holds beside the link.
type rowExtra struct {
	settings []byte
	hasTag   bool
	tag      uint16
	moved    uint64
}

// appendRow appends the value of a live row.
// Hot path: 0 allocs/op, see TestInsertAllocs.
func appendRow(dst []byte, l *terse.Link, x rowExtra) []byte {
	start := len(dst)
	var flags uint64
	set := func(cond bool, flag uint64) {
		if cond {
			flags |= flag
		}
	}
	named := l.Named()
	set(l.UpdatedAt != l.CreatedAt, rowUpdated)
	set(l.ExpiresAt != 0, rowExpires)
	set(l.DefaultExpiry, rowDefaultExpiry)
	set(l.Campaign != 0, rowCampaign)
	set(l.Status != 0, rowStatus)
	set(l.RedirectStatus != 0, rowRedirect)
	set(l.Destination != "", rowDestination)
	set(l.Values != "", rowValues)
	set(l.ExternalID != "", rowExternalID)
	set(x.settings != nil, rowSettings)
	set(named, rowCode)
	set(x.hasTag && !named, rowTag)
	set(x.moved != 0, rowMoved)

	dst = append(dst, rowLive)
	dst = binary.AppendUvarint(dst, flags)
	dst = binary.AppendUvarint(dst, uint64(l.Workspace))
	dst = binary.AppendUvarint(dst, l.Version)
	dst = binary.AppendUvarint(dst, zigzag(int64(l.CreatedAt)))
	if flags&rowUpdated != 0 {
		dst = binary.AppendUvarint(dst, zigzag(int64(l.UpdatedAt-l.CreatedAt)))
	}
	if flags&rowExpires != 0 {
		dst = binary.AppendUvarint(dst, zigzag(int64(l.ExpiresAt)))
	}
	if flags&rowCampaign != 0 {
		dst = binary.AppendUvarint(dst, uint64(l.Campaign))
	}
	if flags&rowStatus != 0 {
		dst = append(dst, byte(l.Status))
	}
	if flags&rowRedirect != 0 {
		dst = binary.AppendUvarint(dst, uint64(l.RedirectStatus))
	}
	if flags&rowTag != 0 {
		dst = binary.BigEndian.AppendUint16(dst, x.tag)
	}
	if flags&rowMoved != 0 {
		dst = binary.AppendUvarint(dst, x.moved)
	}
	if flags&rowDestination != 0 {
		dst = append(binary.AppendUvarint(dst, uint64(len(l.Destination))), l.Destination...)
	}
	if flags&rowValues != 0 {
		dst = append(binary.AppendUvarint(dst, uint64(len(l.Values))), l.Values...)
	}
	if flags&rowExternalID != 0 {
		dst = append(binary.AppendUvarint(dst, uint64(len(l.ExternalID))), l.ExternalID...)
	}
	if flags&rowCode != 0 {
		dst = append(binary.AppendUvarint(dst, uint64(len(l.Code))), l.Code...)
	}
	if flags&rowSettings != 0 {
		dst = append(binary.AppendUvarint(dst, uint64(len(x.settings))), x.settings...)
	}
	return binary.BigEndian.AppendUint32(dst, checksum(l.Number, dst[start:]))
}

// appendTombstone appends the value of a row whose link was deleted.
func appendTombstone(dst []byte, n terse.LinkNumber) []byte {
	start := len(dst)
	dst = append(dst, rowTombstone)
	return binary.BigEndian.AppendUint32(dst, checksum(n, dst[start:]))
}

// decode reads a row; live is false for a tombstone.
func (r *row) decode(n terse.LinkNumber, value []byte) (live bool, err error) {
	*r = row{number: n}
	if len(value) < 5 {
		return false, errDamaged("row", n, "too short")
	}
	body, sum := value[:len(value)-4], binary.BigEndian.Uint32(value[len(value)-4:])
	if checksum(n, body) != sum {
		return false, errDamaged("row", n, "checksum differs")
	}
	d := decoder{b: body}
	switch d.byte() {
	case rowTombstone:
		if len(d.b) != 0 {
			return false, errDamaged("row", n, "bytes after a tombstone")
		}
		return false, nil
	case rowLive:
	default:
		return false, errDamaged("row", n, "unknown format")
	}
	flags := d.uvarint()
	if flags >= rowMoved<<1 {
		return false, errDamaged("row", n, "unknown flags")
	}
	r.workspace = terse.WorkspaceID(d.uvarint())
	r.version = d.uvarint()
	r.created = terse.Millis(d.varint())
	r.updated = r.created
	if flags&rowUpdated != 0 {
		r.updated += terse.Millis(d.varint())
	}
	if flags&rowExpires != 0 {
		r.expires = terse.Millis(d.varint())
	}
	r.defaultExpiry = flags&rowDefaultExpiry != 0
	if flags&rowCampaign != 0 {
		r.campaign = terse.CampaignID(d.uvarint())
	}
	if flags&rowStatus != 0 {
		r.status = terse.Status(d.byte())
	}
	if flags&rowRedirect != 0 {
		r.redirect = uint16(d.uvarint())
	}
	if flags&rowTag != 0 {
		r.hasTag, r.tag = true, d.uint16()
	}
	if flags&rowMoved != 0 {
		r.moved = d.uvarint()
	}
	if flags&rowDestination != 0 {
		r.destination = d.text()
	}
	if flags&rowValues != 0 {
		r.values = d.text()
	}
	if flags&rowExternalID != 0 {
		r.externalID = d.text()
	}
	if flags&rowCode != 0 {
		r.code = d.text()
	}
	if flags&rowSettings != 0 {
		r.settings = d.text()
	}
	if d.bad || len(d.b) != 0 {
		return false, errDamaged("row", n, "cut or too long")
	}
	return true, nil
}

// link returns the link with strings of its own. code is the one the caller knows
// the link by, "" if none; a generated code that is not the link's is an
// error, never another link's destination (invariant I8).
func (r *row) link(code string) (terse.Link, error) {
	if len(r.code) == 0 && code != "" && r.hasTag && codeTag(code) != r.tag {
		return terse.Link{}, r.errCode()
	}
	l := terse.Link{
		Number: r.number, Workspace: r.workspace, Campaign: r.campaign, Version: r.version,
		CreatedAt: r.created, UpdatedAt: r.updated, ExpiresAt: r.expires, Code: code,
		Status: r.status, DefaultExpiry: r.defaultExpiry, RedirectStatus: r.redirect,
	}
	// One allocation for all text of a link.
	var text strings.Builder
	text.Grow(len(r.destination) + len(r.values) + len(r.externalID) + len(r.code))
	text.Write(r.destination)
	text.Write(r.values)
	text.Write(r.externalID)
	text.Write(r.code)
	s := text.String()
	take := func(n int) (part string) {
		part, s = s[:n], s[n:]
		return part
	}
	l.Destination, l.Values, l.ExternalID = take(len(r.destination)), take(len(r.values)), take(len(r.externalID))
	if len(r.code) > 0 {
		l.Code, l.ByCode = s, r.number.Space() != terse.AliasSpace
	}
	if r.settings != nil {
		var err error
		if l.Settings, err = decodeSettings(r.number, r.settings); err != nil {
			return terse.Link{}, err
		}
	}
	return l, nil
}

func (r *row) errCode() error {
	return errDamaged("link", r.number, "the code is not the link's own: is the permutation key of the domain right?")
}
