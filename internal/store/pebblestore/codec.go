package pebblestore

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/cespare/xxhash/v2"
	"github.com/go-json-experiment/json"
	jsonv1 "github.com/go-json-experiment/json/v1"

	"github.com/terselink/terse"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum covers a value and the number it is stored under, so that a value
// at a wrong key is found as surely as a flipped bit. The number is mixed in by a
// multiplication, because a buffer for its bytes would be an allocation for every value.
func checksum(n terse.LinkNumber, value []byte) uint32 {
	return crc32.Checksum(value, castagnoli) ^ uint32(uint64(n)*0x9e3779b97f4a7c15>>32)
}

// errDamaged is the error of every codec: what the database holds is not what was written.
func errDamaged(what string, n terse.LinkNumber, why string) error {
	return &terse.Error{
		Code: terse.CodeInternal, Message: "the store holds damaged data", Op: "read " + what,
		Err: fmt.Errorf("number %d: %s", uint64(n), why),
	}
}

// codeTag is the 16 bits of a generated code that are stored with its link. A
// wrong permutation key shows as a difference before it misleads anybody.
func codeTag(code string) uint16 { return uint16(xxhash.Sum64String(code)) }

// settingsOptions make the encoding of settings exact: what is decoded equals what
// was encoded, but for empty lists and maps that the tags leave out.
var settingsOptions = json.JoinOptions(
	json.Deterministic(true), json.FormatNilSliceAsNull(true), jsonv1.OmitEmptyWithLegacySemantics(true),
	json.RejectUnknownMembers(true), // to leave out a setting that is not known could send people where the owner did not want them
)

func encodeSettings(s *terse.LinkSettings) ([]byte, error) {
	b, err := json.Marshal(s, settingsOptions)
	if err != nil {
		return nil, &terse.Error{Code: terse.CodeInvalid, Field: "settings", Message: "cannot be stored as JSON", Err: err}
	}
	return b, nil
}

func decodeSettings(n terse.LinkNumber, b []byte) (*terse.LinkSettings, error) {
	s := new(terse.LinkSettings)
	if err := json.Unmarshal(b, s, settingsOptions); err != nil {
		return nil, errDamaged("settings", n, err.Error())
	}
	return s, nil
}

func zigzag(v int64) uint64   { return uint64(v)<<1 ^ uint64(v>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// decoder reads the parts of a value; the first part that is missing or too
// long sets bad, after which everything reads as zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 { return unzigzag(d.uvarint()) }

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if v := d.bytes(1); v != nil {
		return v[0]
	}
	return 0
}

func (d *decoder) uint16() uint16 {
	if v := d.bytes(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (d *decoder) text() []byte { return d.bytes(d.uvarint()) }
