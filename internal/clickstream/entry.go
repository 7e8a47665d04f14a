package clickstream

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
)

// Format of an entry, version 1; docs/format/clickstream.md.
const (
	entryMagic  = "TCE1"
	entryHeader = 8 // the magic and the sum
	// maxName bounds the names in an entry.
	maxName = 255
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// entry is what one message of the stream says: groups of a spool that follow each other, of one segment. Without groups it is a
// question: up to where has the spool arrived?
type entry struct {
	run    uint64 // of the sender: a number for each time that it began
	spool  string
	node   string
	from   clicks.Position // everything of the run before it was sent in entries before
	groups []group
}

// group is a group of a spool and the place after it.
type group struct {
	end  clicks.Position
	data []byte
}

// to returns the place after the entry.
func (e *entry) to() clicks.Position {
	if len(e.groups) == 0 {
		return e.from
	}
	return e.groups[len(e.groups)-1].end
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// append encodes the entry.
func (e *entry) append(b []byte) []byte {
	begin := len(b)
	b = append(b, entryMagic...)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, e.run)
	b = appendText(b, e.spool)
	b = appendText(b, e.node)
	b = appendText(b, e.from.String())
	b = appendText(b, e.to().InSegment(0).String())
	b = binary.AppendUvarint(b, uint64(len(e.groups)))
	for _, g := range e.groups {
		b = binary.AppendUvarint(b, uint64(g.end.Offset))
		b = binary.AppendUvarint(b, uint64(len(g.data)))
		b = append(b, g.data...)
	}
	binary.LittleEndian.PutUint32(b[begin+4:], crc32.Checksum(b[begin+entryHeader:], castagnoli))
	return b
}

var errEntry = &terse.Error{Code: terse.CodeInvalid, Message: "not an entry of a stream of clicks, or a damaged one"}

// parseEntry decodes what append has made. The groups borrow from b and are not looked into.
func parseEntry(b []byte) (*entry, error) {
	if len(b) < entryHeader+8 || string(b[:4]) != entryMagic || binary.LittleEndian.Uint32(b[4:]) != crc32.Checksum(b[entryHeader:], castagnoli) {
		return nil, errEntry
	}
	d := decoder{b: b[entryHeader+8:]}
	e := &entry{run: binary.LittleEndian.Uint64(b[entryHeader:])}
	e.spool, e.node = d.text(), d.text()
	e.from = d.position()
	segment := d.position()
	count := d.number()
	last := e.from
	d.bad = d.bad || count > 0 && segment == (clicks.Position{})
	for ; count > 0 && d.ok(); count-- {
		g := group{end: segment.InSegment(int64(d.number()))}
		g.data = d.bytes(d.number())
		if g.end.Compare(last) <= 0 {
			d.bad = true
		}
		last = g.end
		e.groups = append(e.groups, g)
	}
	if !d.ok() || len(d.b) != 0 || e.spool == "" {
		return nil, errEntry
	}
	return e, nil
}

// decoder reads fields; after the first that is not whole nothing is.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) ok() bool { return !d.bad }

func (d *decoder) number() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > 1<<62 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes(n uint64) []byte {
	if d.bad || n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) text() string {
	n := d.number()
	if n > maxName {
		d.bad = true
	}
	return string(d.bytes(n))
}

func (d *decoder) position() clicks.Position {
	p, err := clicks.ParsePosition(d.text())
	if err != nil {
		d.bad = true
	}
	return p
}

// mark is what the receiver says of a spool, where its sender finds it.
type mark struct {
	run    uint64          // of the sender whom it answers
	stored clicks.Position // every click before it is with the engine
	lost   bool            // an entry of this run did not arrive: what follows it is of no use
}

func (m mark) String() string {
	state := "ok"
	if m.lost {
		state = "lost"
	}
	return fmt.Sprintf("%016x %s %s", m.run, state, m.stored)
}

// parseMark reads what String has made; false: it is something else, or nothing.
func parseMark(s string) (m mark, ok bool) {
	parts := strings.Split(s, " ")
	if len(parts) != 3 || parts[1] != "ok" && parts[1] != "lost" {
		return mark{}, false
	}
	run, err1 := strconv.ParseUint(parts[0], 16, 64)
	stored, err2 := clicks.ParsePosition(parts[2])
	if err1 != nil || err2 != nil {
		return mark{}, false
	}
	return mark{run: run, stored: stored, lost: parts[1] == "lost"}, true
}
