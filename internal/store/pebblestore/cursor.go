package pebblestore

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"

	"github.com/cespare/xxhash/v2"

	"github.com/terselink/terse"
)

// position says that a page goes on below (major, number): major is the sequence number of
// a list entry, or the time part of a hint.
type position struct {
	major  uint64
	number terse.LinkNumber
}

const (
	cursorFormat = 1
	// cursorLen is format, print of the query, position, checksum.
	cursorLen = 1 + 4 + 16 + 4
)

// queryPrint is a short hash of the workspace and of all that selects links, so that a cursor
// goes on only with the query it came from.
func queryPrint(w terse.WorkspaceID, q *terse.ListQuery) uint32 {
	b := binary.BigEndian.AppendUint32(nil, uint32(w))
	b = binary.BigEndian.AppendUint32(b, uint32(q.Domain))
	b = binary.BigEndian.AppendUint64(b, uint64(q.Campaign))
	b = binary.BigEndian.AppendUint64(b, uint64(q.CreatedFrom))
	b = binary.BigEndian.AppendUint64(b, uint64(q.CreatedTo))
	b = binary.BigEndian.AppendUint32(b, uint32(len(q.Tag)))
	b = append(append(b, q.Tag...), q.ExternalID...)
	return uint32(xxhash.Sum64(b))
}

// text returns the cursor that callers see.
func (p *position) text(print uint32) string {
	b := make([]byte, 0, cursorLen)
	b = binary.BigEndian.AppendUint32(append(b, cursorFormat), print)
	b = binary.BigEndian.AppendUint64(b, p.major)
	b = binary.BigEndian.AppendUint64(b, uint64(p.number))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return base64.RawURLEncoding.EncodeToString(b)
}

// parseCursor reads a cursor; "" is nil, the start.
func parseCursor(text string, print uint32) (*position, error) {
	if text == "" {
		return nil, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != cursorLen || b[0] != cursorFormat ||
		crc32.Checksum(b[:cursorLen-4], castagnoli) != binary.BigEndian.Uint32(b[cursorLen-4:]) {
		return nil, terse.Invalid("cursor", "not a cursor of this store")
	}
	if binary.BigEndian.Uint32(b[1:]) != print {
		return nil, terse.Invalid("cursor", "belongs to another query")
	}
	return &position{binary.BigEndian.Uint64(b[5:]), terse.LinkNumber(binary.BigEndian.Uint64(b[13:]))}, nil
}
