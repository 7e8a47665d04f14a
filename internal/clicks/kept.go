package clicks

import (
	"encoding/binary"
	"net/netip"
)

// Kept says what a workspace keeps of its visitors beyond what every click has. The zero value is nothing.
type Kept struct {
	UserAgent bool // whole, in the events
	Network   bool // the address cut to its network: the only form of an address that is ever written
}

// Sizes of a network in bytes: /24 of IPv4, /48 of IPv6.
const (
	network4 = 3
	network6 = 6
)

// appendNetwork appends the network that an address is in; nothing for no address. A 6to4 address holds an IPv4 address in
// its first 48 bits, of which the last 8 are cut too.
func appendNetwork(dst []byte, ip netip.Addr) []byte {
	switch {
	case ip.Is4():
		a := ip.As4()
		return append(dst, a[:network4]...)
	case ip.Is6():
		a := ip.As16()
		if is6to4(a[:]) {
			a[network6-1] = 0
		}
		return append(dst, a[:network6]...)
	}
	return dst
}

func is6to4(b []byte) bool { return b[0] == 0x20 && b[1] == 0x02 }

// networkText returns a network of appendNetwork as text: "203.0.113.0/24". "" for anything else.
func networkText(b []byte) string {
	switch len(b) {
	case network4:
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{b[0], b[1], b[2]}), 8*network4).String()
	case network6:
		var a [16]byte
		copy(a[:], b)
		bits := 8 * network6
		if is6to4(b) {
			bits -= 8
		}
		return netip.PrefixFrom(netip.AddrFrom16(a), bits).String()
	}
	return ""
}

// keep is the part of the IP step that cuts addresses. Of those who are not to be followed nothing is kept.
func (w *writer) keep(rec *record) {
	if rec.flags&flagsAnonymous != 0 {
		return
	}
	if rec.workspace != w.keptOf {
		w.keptOf, w.kept = rec.workspace, w.r.o.Kept(rec.workspace)
	}
	rec.keepAgent = w.kept.UserAgent
	if w.kept.Network {
		w.network = appendNetwork(w.network[:0], rec.ip)
		rec.network = w.network
	}
}

// What records keep is a list in an entry of the dictionary that no record refers to, the last one, of groups whose run has the
// bit keptBit. Builds that do not know it read the clicks and leave out what is kept (docs/format/spool.md).
const keptBit = 1 << 63

// The bits of an item of the list.
const (
	keptAgent = 1 << iota
	kept4     // a network of IPv4 follows
	kept6     // a network of IPv6 follows
)

// keptList builds the list of a group.
type keptList struct {
	b    []byte
	next int // the record after that of the last item
}

// add adds what record number i keeps, if anything.
func (l *keptList) add(i int, r *record) {
	var what uint8
	if r.keepAgent {
		what |= keptAgent
	}
	switch len(r.network) {
	case network4:
		what |= kept4
	case network6:
		what |= kept6
	}
	if what == 0 {
		return
	}
	l.b = binary.AppendUvarint(l.b, uint64(i-l.next))
	l.b = append(append(l.b, what), r.network...)
	l.next = i + 1
}

// keptReader reads a list beside the records of its group.
type keptReader struct {
	d    decoder
	skip uint64 // records before the next item
	more bool
}

func newKeptReader(b []byte) keptReader {
	k := keptReader{d: decoder{b: b}}
	k.forward()
	return k
}

func (k *keptReader) forward() {
	if k.more = len(k.d.b) > 0; k.more {
		k.skip = k.d.uvarint()
	}
}

// next tells what the next record keeps, if there is more.
func (k *keptReader) next(r *Raw) {
	if k.skip > 0 {
		k.skip--
		return
	}
	what := k.d.byte()
	r.KeepsAgent = what&keptAgent != 0
	switch what &^ keptAgent {
	case 0:
		k.d.bad = k.d.bad || what == 0
	case kept4:
		r.Network = k.d.take(network4)
	case kept6:
		r.Network = k.d.take(network6)
	default:
		k.d.fail()
	}
	k.forward()
}
