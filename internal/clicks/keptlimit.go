package clicks

import (
	"encoding/binary"

	"github.com/terselink/terse"
)

// keptLimit takes from groups of another spool what their workspaces do not want kept of visitors: an edge node writes what was
// wanted when it last heard of it, and sends it later.
type keptLimit struct {
	wanted func(terse.WorkspaceID) Kept // nil: nothing is
	of     terse.WorkspaceID            // whose now is; 0: of nobody
	now    Kept
	group  groupReader
	raw    Raw
	list   keptList
}

// appendGroup appends a group that EachGroup found whole, without what is not wanted. Its clicks and their ids stay as they are.
// Returns an error of code invalid if it cannot be read to its end: nobody knows what it keeps then.
func (l *keptLimit) appendGroup(dst, group []byte) ([]byte, error) {
	info, err := parseGroupHeader(group)
	if err == nil {
		err = l.group.reset(info, group[groupHeader:])
	}
	changed := false
	l.list = keptList{b: l.list.b[:0]}
	for i := 0; err == nil && i < info.records; i++ {
		if err = l.group.next(&l.raw); err == nil {
			changed = l.keep(i) || changed
		}
	}
	if err != nil {
		return dst, errGroups
	}
	if !changed {
		return append(dst, group...), nil
	}
	payload := group[groupHeader:]
	if info.codec == codecS2 {
		payload = l.group.buf[:info.raw]
	}
	return appendPayload(dst, withKept(payload, l.list.b), info.records), nil
}

// keep puts what record i is to keep into the list, and reports whether it had more.
func (l *keptLimit) keep(i int) (less bool) {
	if l.raw.Workspace != l.of {
		l.of, l.now = l.raw.Workspace, Kept{}
		if l.of != 0 && l.wanted != nil {
			l.now = l.wanted(l.of)
		}
	}
	r := record{keepAgent: l.raw.KeepsAgent && l.now.UserAgent}
	if l.now.Network {
		r.network = l.raw.Network
	}
	l.list.add(i, &r)
	return r.keepAgent != l.raw.KeepsAgent || len(r.network) != len(l.raw.Network)
}

// withKept returns a payload that has a list of what records keep with another one in its place.
func withKept(payload, list []byte) []byte {
	d := decoder{b: payload}
	run, base, entries := d.uint64()&^keptBit, d.uvarint(), d.uvarint()
	dict := d.take(d.uvarint())
	rest := decoder{b: dict}
	for range entries - 1 { // the last entry is the list
		rest.take(rest.uvarint())
	}
	dict, entries = dict[:len(dict)-len(rest.b)], entries-1
	records := d.b
	entry := []byte(nil)
	if len(list) > 0 {
		run, entries = run|keptBit, entries+1
		entry = append(binary.AppendUvarint(nil, uint64(len(list))), list...)
	}
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, len(payload)), run)
	b = binary.AppendUvarint(b, base)
	b = binary.AppendUvarint(b, entries)
	b = binary.AppendUvarint(b, uint64(len(dict)+len(entry)))
	b = append(append(b, dict...), entry...)
	return append(b, records...)
}
