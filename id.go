package terse

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// WorkspaceID is the number of a workspace (tenant). 0 is the instance itself:
// documents that belong to no workspace, such as domains by host. Analytics
// stores it as a signed 32-bit number, so it stays below 2^31.
type WorkspaceID uint32

// DomainID is the number of a domain, 1 to 2^20-1. 0 is the instance itself:
// its spaces are the counters that number workspaces and domains.
type DomainID uint32

// SpaceID is the number of a code space of a domain, 0 to 31. Space 0 numbers
// the links with an alias; every other space holds the generated codes of
// exactly that many characters, so a domain has one space per length for ever
// (docs/adr/0002-link-numbers.md).
type SpaceID uint8

// AliasSpace is the space that numbers links with an alias.
const AliasSpace SpaceID = 0

// SecretSpace is the least of the spaces whose codes are of the class secret: 22 characters
// or more, which no strategy of a domain uses.
const SecretSpace SpaceID = 22

// CampaignID is the number of a campaign, below 2^63. 0 means none.
type CampaignID uint64

// Widths of the three parts of a LinkNumber. They add up to 63, so a number is
// also a positive signed 64-bit integer in every engine.
const (
	DomainBits = 20
	SpaceBits  = 5
	IndexBits  = 38

	MaxDomain = DomainID(1)<<DomainBits - 1
	MaxSpace  = SpaceID(1)<<SpaceBits - 1
	// MaxIndex is the largest index of any space. A space is full there even
	// if its density cap is higher; the domain then grows by one character.
	MaxIndex = uint64(1)<<IndexBits - 1
)

// LinkNumber names a link for ever: domain, space and index packed into 63
// bits, so its byte order is (domain, space, issue order). 0 is no link.
type LinkNumber uint64

// NewLinkNumber packs the parts. It panics if one is out of range: callers take
// them from a lease, which cannot be.
func NewLinkNumber(d DomainID, s SpaceID, index uint64) LinkNumber {
	if d > MaxDomain || s > MaxSpace || index > MaxIndex {
		panic(fmt.Sprintf("terse: link number out of range: domain %d, space %d, index %d", d, s, index))
	}
	return LinkNumber(uint64(d)<<(SpaceBits+IndexBits) | uint64(s)<<IndexBits | index)
}

// Domain returns the number of the domain that the link belongs to.
func (n LinkNumber) Domain() DomainID { return DomainID(n >> (SpaceBits + IndexBits)) }

// Space returns the code space of the link.
func (n LinkNumber) Space() SpaceID { return SpaceID(n>>IndexBits) & MaxSpace }

// Index returns the position of the link within its space.
func (n LinkNumber) Index() uint64 { return uint64(n) & MaxIndex }

// String returns the id that the API shows: "link_" and 13 characters.
func (n LinkNumber) String() string { return string(n.AppendText(nil)) }

// AppendText appends the API id of the link to dst.
func (n LinkNumber) AppendText(dst []byte) []byte {
	return appendBase32(append(dst, LinkPrefix...), uint64(n))
}

// String returns the id that the API shows: "ws_" and 13 characters.
func (w WorkspaceID) String() string {
	return string(appendBase32([]byte(WorkspacePrefix), uint64(w)))
}

// String returns the id that the API shows: "camp_" and 13 characters.
func (c CampaignID) String() string { return string(appendBase32([]byte(CampaignPrefix), uint64(c))) }

// Prefixes of the ids that are numbers.
const (
	LinkPrefix      = "link_"
	WorkspacePrefix = "ws_"
	CampaignPrefix  = "camp_"
	ClickPrefix     = "click_"
)

// ClickID names one click for ever: a UUIDv7, whose first 48 bits are the time
// of the click in Unix ms. The zero ClickID is none.
type ClickID [16]byte

// Time returns the time of the click.
func (c ClickID) Time() Millis {
	return Millis(binary.BigEndian.Uint64(c[:8]) >> 16)
}

// String returns the id that the API shows: "click_" and 26 characters, whose order is
// that of the times.
func (c ClickID) String() string {
	return string(c.AppendText(make([]byte, 0, len(ClickPrefix)+clickLen)))
}

// AppendText appends the API id of the click to dst.
func (c ClickID) AppendText(dst []byte) []byte {
	dst = append(dst, ClickPrefix...)
	hi, lo := binary.BigEndian.Uint64(c[:8]), binary.BigEndian.Uint64(c[8:])
	for i := clickLen - 1; i >= 0; i-- {
		shift := uint(5 * i)
		var v uint64
		switch {
		case shift >= 64:
			v = hi >> (shift - 64)
		case shift > 59:
			v = hi<<(64-shift) | lo>>shift
		default:
			v = lo >> shift
		}
		dst = append(dst, idDigits[v&31])
	}
	return dst
}

// clickLen digits of 5 bits hold 128 bits; the first digit is below 8.
const clickLen = 26

// ParseClickID reads the text form of a click's id. Every id has exactly one text
// form. Returns an error of code invalid if s is none.
func ParseClickID(s string) (ClickID, error) {
	var c ClickID
	digits, ok := strings.CutPrefix(s, ClickPrefix)
	if !ok || len(digits) != clickLen || uint8(idValues[digits[0]]) > 7 {
		return c, errBadID(ClickPrefix)
	}
	var hi, lo uint64
	for i := range clickLen {
		v := idValues[digits[i]]
		if v < 0 {
			return c, errBadID(ClickPrefix)
		}
		hi, lo = hi<<5|lo>>59, lo<<5|uint64(v)
	}
	binary.BigEndian.PutUint64(c[:8], hi)
	binary.BigEndian.PutUint64(c[8:], lo)
	return c, nil
}

// ParseLinkNumber reads the text form of a link id. Every number has exactly
// one text form. Returns an error of code invalid if s is none.
func ParseLinkNumber(s string) (LinkNumber, error) {
	n, err := parseID(s, LinkPrefix)
	if err != nil {
		return 0, err
	}
	return LinkNumber(n), nil
}

// ParseWorkspaceID reads the text form of a workspace id. Returns an error of
// code invalid if s is none.
func ParseWorkspaceID(s string) (WorkspaceID, error) {
	n, err := parseID(s, WorkspacePrefix)
	if err != nil || n > 1<<31-1 {
		return 0, errBadID(WorkspacePrefix)
	}
	return WorkspaceID(n), nil
}

// ParseCampaignID reads the text form of a campaign id. Returns an error of
// code invalid if s is none.
func ParseCampaignID(s string) (CampaignID, error) {
	n, err := parseID(s, CampaignPrefix)
	if err != nil {
		return 0, err
	}
	return CampaignID(n), nil
}

// idDigits is Crockford's base 32 in lower case: its byte order is its numeric
// order, so ids sort as their numbers do.
const idDigits = "0123456789abcdefghjkmnpqrstvwxyz"

const idLen = 13 // 13 digits of 5 bits hold 63 bits

var idValues = func() (t [256]int8) {
	for i := range t {
		t[i] = -1
	}
	for i := range len(idDigits) {
		t[idDigits[i]] = int8(i)
	}
	return t
}()

func appendBase32(dst []byte, n uint64) []byte {
	var b [idLen]byte
	for i := idLen - 1; i >= 0; i-- {
		b[i] = idDigits[n&31]
		n >>= 5
	}
	return append(dst, b[:]...)
}

func parseID(s, prefix string) (uint64, error) {
	digits, ok := strings.CutPrefix(s, prefix)
	if !ok || len(digits) != idLen || idValues[digits[0]] > 7 {
		return 0, errBadID(prefix)
	}
	var n uint64
	for i := range idLen {
		v := idValues[digits[i]]
		if v < 0 {
			return 0, errBadID(prefix)
		}
		n = n<<5 | uint64(v)
	}
	return n, nil
}

func errBadID(prefix string) error {
	return &Error{Code: CodeInvalid, Field: "id", Message: "not an id of the form " + prefix + "…"}
}
