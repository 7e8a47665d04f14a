package changes

import (
	"encoding/binary"
	"errors"

	"github.com/terselink/terse"
)

// Kind says what an Event is about.
type Kind uint8

// The kinds of events.
const (
	KindLink     Kind = 1 // one link, whose code is known, was created, changed or deleted
	KindLinks    Kind = 2 // many links with generated codes were created
	KindDocument Kind = 3 // a document was put or deleted
	KindFailure  Kind = 4 // a client's attempt failed that all nodes count together
)

// Event is what one node tells the others.
type Event struct {
	Kind    Kind
	Deleted bool
	Created bool
	// Number, Code and Version are of a link; the version of a deleted link is the last one it had.
	Number terse.LinkNumber
	Code   string // canonical
	// Version is also that of a document.
	Version   uint64
	Workspace terse.WorkspaceID // of a document
	DocKind   terse.Kind        // of a document; the name of the count of a failure
	DocID     string            // of a document; the client of a failure
}

// message is what a Transport carries: events of one sender, or none (a heartbeat).
//
//	'T' format sender:8 number count {event}
//
// Numbers are unsigned varints and texts follow their length. It never lies on a disk and lives for milliseconds; nodes of
// another format ignore it, hear the gap and read the feed.
type message struct {
	sender uint64
	number uint64 // of the sender's last message with events: its own if it has some
	events []Event
}

const (
	messageMark   = 'T'
	messageFormat = 1
	messageHead   = 10 // mark, format, sender
	// maxEvents bounds a message, on both sides.
	maxEvents = 1000
	// maxText bounds a code or an id in an event.
	maxText = 1024
)

const (
	flagDeleted = 1 << iota
	flagCreated
)

func appendMessage(dst []byte, m *message) []byte {
	dst = append(dst, messageMark, messageFormat)
	dst = binary.BigEndian.AppendUint64(dst, m.sender)
	dst = binary.AppendUvarint(dst, m.number)
	dst = binary.AppendUvarint(dst, uint64(len(m.events)))
	for i := range m.events {
		dst = appendEvent(dst, &m.events[i])
	}
	return dst
}

func appendEvent(dst []byte, e *Event) []byte {
	var flags byte
	if e.Deleted {
		flags |= flagDeleted
	}
	if e.Created {
		flags |= flagCreated
	}
	dst = append(dst, byte(e.Kind), flags)
	switch e.Kind {
	case KindLink:
		dst = binary.AppendUvarint(dst, uint64(e.Number))
		dst = binary.AppendUvarint(dst, e.Version)
		dst = appendText(dst, e.Code)
	case KindDocument:
		dst = binary.AppendUvarint(dst, uint64(e.Workspace))
		dst = binary.AppendUvarint(dst, e.Version)
		dst = appendText(dst, string(e.DocKind))
		dst = appendText(dst, e.DocID)
	case KindFailure:
		dst = appendText(dst, string(e.DocKind))
		dst = appendText(dst, e.DocID)
	}
	return dst
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

var errMessage = errors.New("the message is damaged or of another version")

// parseMessage returns an error for anything that appendMessage did not make. Texts are copied.
func parseMessage(b []byte) (m message, err error) {
	if len(b) < messageHead || b[0] != messageMark || b[1] != messageFormat {
		return m, errMessage
	}
	r := reader{b: b[messageHead:]}
	m.sender = binary.BigEndian.Uint64(b[2:])
	m.number = r.uvarint()
	count := r.uvarint()
	if r.bad || count > maxEvents {
		return m, errMessage
	}
	for range count {
		e := Event{Kind: Kind(r.byte())}
		flags := r.byte()
		e.Deleted, e.Created = flags&flagDeleted != 0, flags&flagCreated != 0
		switch e.Kind {
		case KindLink:
			e.Number, e.Version, e.Code = terse.LinkNumber(r.uvarint()), r.uvarint(), r.text()
		case KindLinks:
		case KindDocument:
			w := r.uvarint()
			e.Workspace, e.Version = terse.WorkspaceID(w), r.uvarint()
			e.DocKind, e.DocID = terse.Kind(r.text()), r.text()
			r.bad = r.bad || uint64(e.Workspace) != w
		case KindFailure:
			e.DocKind, e.DocID = terse.Kind(r.text()), r.text()
		default:
			r.bad = true
		}
		if r.bad || flags > flagDeleted|flagCreated {
			return m, errMessage
		}
		m.events = append(m.events, e)
	}
	if len(r.b) > 0 {
		return m, errMessage
	}
	return m, nil
}

// reader takes a message apart; bad says that something was not there.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) text() string {
	n := r.uvarint()
	if n > maxText || n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}
