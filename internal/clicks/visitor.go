package clicks

import (
	"encoding/binary"

	"github.com/dchest/siphash"
)

const dayMillis = 24 * 60 * 60 * 1000

// visitorHash makes visitors: SipHash-2-4 under the salt of the click's UTC day
// over the address (of IPv6 the /64), 0, User-Agent, 0, workspace.
type visitorHash struct {
	salts SaltSource
	day   int64 // of k0 and k1; 0: none
	have  bool
	k0    uint64
	k1    uint64
	buf   []byte
}

// refresh forgets the salt kept from the round before: it may have been
// deleted, or made since.
func (v *visitorHash) refresh() { v.day = 0 }

// of returns the visitor of s, 0 if there is no address or no salt.
func (v *visitorHash) of(s *slot) uint64 {
	if v.salts == nil || !s.ip.IsValid() {
		return 0
	}
	if day := int64(s.at) / dayMillis; day != v.day || v.day == 0 {
		var salt [16]byte
		salt, v.have = v.salts.Salt(day)
		v.day, v.k0, v.k1 = day, binary.LittleEndian.Uint64(salt[:]), binary.LittleEndian.Uint64(salt[8:])
	}
	if !v.have {
		return 0
	}
	agent, _, _, _ := splitClient(s.client)
	b := v.buf[:0]
	if s.ip.Is4() {
		a := s.ip.As4()
		b = append(b, a[:]...)
	} else {
		a := s.ip.As16()
		b = append(b, a[:8]...)
	}
	b = append(b, 0)
	b = append(b, agent...)
	b = append(b, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(s.workspace))
	v.buf = b
	// 0 means none; one in 2^64 visitors becomes 1.
	return max(siphash.Hash(v.k0, v.k1, b), 1)
}
