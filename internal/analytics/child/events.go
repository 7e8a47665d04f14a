package child

import (
	"encoding/binary"
	"errors"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
)

// Clicks cross the socket in a form of their own: as JSON, encoding and decoding took most of the time of an
// export. A number of events, then each with its fields in the order of fields, numbers as uvarints, texts
// with their size before them. Both sides are the same binary: there are no versions.

// numbers and texts list the fields of an event but the id, time and repeat.
func numbers(ev *clicks.Event) [10]uint64 {
	repeat := uint64(0)
	if ev.Repeat {
		repeat = 1
	}
	return [...]uint64{
		uint64(ev.Workspace), uint64(ev.Link), uint64(ev.Campaign), uint64(ev.Rule), uint64(ev.Outcome), ev.Visitor, repeat, uint64(ev.Bot), uint64(ev.ASN), uint64(ev.Weight),
	}
}

func texts(ev *clicks.Event) [25]*string {
	return [...]*string{
		&ev.Domain, &ev.Code, &ev.Destination, &ev.Trigger, &ev.BotName, &ev.Country, &ev.Region, &ev.City, &ev.Device, &ev.OS, &ev.OSVersion, &ev.Browser, &ev.BrowserVer,
		&ev.Language, &ev.RefHost, &ev.RefPath, &ev.Source, &ev.UTMSource, &ev.UTMMedium, &ev.UTMCampaign, &ev.UTMTerm, &ev.UTMContent, &ev.Node,
		&ev.UserAgent, &ev.IP,
	}
}

// appendEvents appends the events to dst.
func appendEvents(dst []byte, events []clicks.Event) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(events)))
	for i := range events {
		ev := &events[i]
		dst = append(dst, ev.ID[:]...)
		dst = binary.AppendVarint(dst, int64(ev.At))
		for _, n := range numbers(ev) {
			dst = binary.AppendUvarint(dst, n)
		}
		for _, s := range texts(ev) {
			dst = binary.AppendUvarint(dst, uint64(len(*s)))
			dst = append(dst, *s...)
		}
	}
	return dst
}

var errEvents = errors.New("not a list of clicks")

// readEvents is the inverse of appendEvents. Texts that repeat share their memory.
func readEvents(b []byte) ([]clicks.Event, error) {
	r := eventReader{b: b, seen: map[string]string{}}
	n := r.uvarint()
	if n > uint64(len(b)) { // each takes more than a byte
		return nil, errEvents
	}
	events := make([]clicks.Event, n)
	for i := range events {
		ev := &events[i]
		copy(ev.ID[:], r.take(16))
		ev.At = terse.Millis(r.varint())
		var v [10]uint64
		for j := range v {
			v[j] = r.uvarint()
		}
		ev.Workspace, ev.Link, ev.Campaign, ev.Rule, ev.Outcome = terse.WorkspaceID(v[0]), terse.LinkNumber(v[1]), terse.CampaignID(v[2]), uint8(v[3]), clicks.Outcome(v[4])
		ev.Visitor, ev.Repeat, ev.Bot, ev.ASN, ev.Weight = v[5], v[6] != 0, clicks.BotClass(v[7]), uint32(v[8]), uint16(v[9])
		for _, s := range texts(ev) {
			*s = r.text()
		}
		if r.bad {
			return nil, errEvents
		}
	}
	if len(r.b) != 0 {
		return nil, errEvents
	}
	return events, nil
}

// eventReader reads from b; the first failure sets bad and everything after is zero.
type eventReader struct {
	b    []byte
	bad  bool
	seen map[string]string
}

func (r *eventReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *eventReader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *eventReader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *eventReader) text() string {
	b := r.take(r.uvarint())
	if len(b) == 0 {
		return ""
	}
	s, ok := r.seen[string(b)]
	if !ok {
		s = string(b)
		r.seen[s] = s
	}
	return s
}
