package clicks

import (
	"encoding/binary"
	"net/netip"

	"github.com/terselink/terse"
)

// Longest forms of the texts of a click, in bytes. Longer ones are cut: a click
// is evidence, not a copy of the request.
const (
	maxDomain      = 253
	maxCode        = 128
	maxDestination = 2048
	maxUserAgent   = 512
	maxLanguage    = 64
	maxPlatform    = 32
	maxReferrer    = 512
	maxQuery       = 1024
)

// A slot is a click in a shard's memory, in this order, little-endian:
//
//	 0 u32 size of the slot      28 u32 size of the query
//	 4 i64 at                    32 u8  rule
//	12 u64 link                  33 u8  outcome
//	20 u32 workspace             34 u8  the lower flags
//	24 u16 destination size      35 u8  address size: 0, 4 or 16
//	26 u16 referrer size         36 u64 campaign
//	44 u8 domain size, 45 u8 code size
//	46 [16] address
//	62 u8 the flags above: FlagOptOut
//	63 [2] the country that was told
//	65 the id, 16 bytes, if flagID is set
//	   domain, code, destination, referrer, query, client
//
// The client (User-Agent, language, platform) is the very byte string that the
// writer interns, so it need not be put together there.
const slotHeader = 65

// clientHeader precedes the three texts of a client: u16 User-Agent size, u8 language size.
const clientHeader = 3

// slotSize returns the size of c as a slot.
func slotSize(c *Click) int {
	n := slotHeader
	if c.ID != (terse.ClickID{}) {
		n += len(c.ID)
	}
	return n + min(len(c.Domain), maxDomain) + min(len(c.Code), maxCode) +
		min(len(c.Destination), maxDestination) + min(len(c.Referrer), maxReferrer) + min(len(c.Query), maxQuery) +
		clientHeader + min(len(c.UserAgent), maxUserAgent) + min(len(c.Language), maxLanguage) + min(len(c.Platform), maxPlatform)
}

// putSlot writes c into b, which is exactly slotSize(c) long.
func putSlot(b []byte, c *Click) {
	domain := c.Domain[:min(len(c.Domain), maxDomain)]
	code := c.Code[:min(len(c.Code), maxCode)]
	destination := c.Destination[:min(len(c.Destination), maxDestination)]
	referrer := c.Referrer[:min(len(c.Referrer), maxReferrer)]
	query := c.Query[:min(len(c.Query), maxQuery)]
	agent := c.UserAgent[:min(len(c.UserAgent), maxUserAgent)]
	language := c.Language[:min(len(c.Language), maxLanguage)]
	platform := c.Platform[:min(len(c.Platform), maxPlatform)]

	h := b[:slotHeader]
	le := binary.LittleEndian
	le.PutUint32(h, uint32(len(b)))
	le.PutUint64(h[4:], uint64(c.At))
	le.PutUint64(h[12:], uint64(c.Link))
	le.PutUint32(h[20:], uint32(c.Workspace))
	le.PutUint16(h[24:], uint16(len(destination)))
	le.PutUint16(h[26:], uint16(len(referrer)))
	le.PutUint32(h[28:], uint32(len(query)))
	h[32], h[33], h[34], h[62] = c.Rule, uint8(c.Outcome), uint8(c.Flags&^(flagID|flagTotal)), uint8(c.Flags>>8)
	h[63], h[64] = c.Country[0], c.Country[1]
	switch ip := c.IP.Unmap(); {
	case ip.Is4():
		a := ip.As4()
		h[35] = 4
		copy(h[46:], a[:])
	case ip.Is6():
		a := ip.As16()
		h[35] = 16
		copy(h[46:], a[:])
	default:
		h[35] = 0
	}
	le.PutUint64(h[36:], uint64(c.Campaign))
	h[44], h[45] = uint8(len(domain)), uint8(len(code))
	n := slotHeader
	if c.ID != (terse.ClickID{}) {
		h[34] |= uint8(flagID)
		n += copy(b[n:], c.ID[:])
	}
	n += copy(b[n:], domain)
	n += copy(b[n:], code)
	n += copy(b[n:], destination)
	n += copy(b[n:], referrer)
	n += copy(b[n:], query)
	le.PutUint16(b[n:], uint16(len(agent)))
	b[n+2] = uint8(len(language))
	n += clientHeader
	n += copy(b[n:], agent)
	n += copy(b[n:], language)
	copy(b[n:], platform)
}

// slot is a decoded slot; its slices borrow the shard's memory.
type slot struct {
	id                                         [16]byte // if flagID is set
	at                                         terse.Millis
	link                                       terse.LinkNumber
	workspace                                  terse.WorkspaceID
	campaign                                   terse.CampaignID
	rule                                       uint8
	outcome                                    Outcome
	flags                                      Flag
	ip                                         netip.Addr
	country                                    [2]byte // that was told; zeros: none
	domain, code, destination, referrer, query []byte
	client                                     []byte
}

// get decodes the first slot of b and returns the rest. b comes from putSlot.
func (s *slot) get(b []byte) []byte {
	le := binary.LittleEndian
	size := le.Uint32(b)
	rest := b[size:]
	b = b[:size]
	s.at = terse.Millis(le.Uint64(b[4:]))
	s.link = terse.LinkNumber(le.Uint64(b[12:]))
	s.workspace = terse.WorkspaceID(le.Uint32(b[20:]))
	destination, referrer, query := int(le.Uint16(b[24:])), int(le.Uint16(b[26:])), int(le.Uint32(b[28:]))
	s.rule, s.outcome, s.flags = b[32], Outcome(b[33]), Flag(b[34])|Flag(b[62])<<8
	s.country = [2]byte(b[63:65])
	switch b[35] {
	case 4:
		s.ip = netip.AddrFrom4([4]byte(b[46:50]))
	case 16:
		s.ip = netip.AddrFrom16([16]byte(b[46:62]))
	default:
		s.ip = netip.Addr{}
	}
	s.campaign = terse.CampaignID(le.Uint64(b[36:]))
	domain, code := int(b[44]), int(b[45])
	b = b[slotHeader:]
	if s.flags&flagID != 0 {
		s.id, b = [16]byte(b), b[16:]
	}
	s.domain, b = b[:domain], b[domain:]
	s.code, b = b[:code], b[code:]
	s.destination, b = b[:destination], b[destination:]
	s.referrer, b = b[:referrer], b[referrer:]
	s.query, s.client = b[:query], b[query:]
	return rest
}

// splitClient takes a client apart; ok is false if it is damaged.
func splitClient(b []byte) (agent, language, platform []byte, ok bool) {
	if len(b) < clientHeader {
		return nil, nil, nil, false
	}
	a, l := int(binary.LittleEndian.Uint16(b)), int(b[2])
	b = b[clientHeader:]
	if a+l > len(b) {
		return nil, nil, nil, false
	}
	return b[:a], b[a : a+l], b[a+l:], true
}
