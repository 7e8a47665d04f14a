package redirect

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/domains"
)

// shape is what the small parser made of the bytes of a connection.
type shape uint8

const (
	partial shape = iota // the head of the request is not complete yet
	whole                // a plain request
	unusual              // for fasthttp to read: right or wrong, it is not plain
)

// maxPlainHead keeps clear of the exact size at which fasthttp refuses a head.
const maxPlainHead = maxHead - 1024

// parse reads the plain request that raw begins with, n bytes long. Plain is what
// programs send that visit links: GET or HEAD in HTTP/1.1 of a path, one host, no body,
// nothing that could be read in two ways. All else is unusual, so this parser decides no
// question of protocol; FuzzParse holds it to what fasthttp and read make of the
// same bytes.
//
// Hot path: 0 allocs/op, see TestPlainAllocs.
func (r *request) parse(raw []byte) (n int, p shape) {
	r.reset()
	r.closes = false
	n, ok := r.parseHead(raw)
	switch {
	case ok && n <= maxPlainHead:
		return n, whole
	case !ok && !bytes.Contains(raw, []byte("\r\n\r\n")):
		return 0, incomplete(raw)
	}
	return 0, unusual
}

// parseHead goes through a head line by line, each byte once. It gives up at the first thing that is not plain,
// be it that the head ends too early.
func (r *request) parseHead(raw []byte) (n int, ok bool) {
	n = bytes.IndexByte(raw, '\n') + 1
	if !r.parseFirst(raw[:n]) {
		return 0, false
	}
	hosts := 0
	for count := 0; ; count++ {
		head := raw[n:]
		colon := nameSize(head)
		if colon == 0 { // the empty line at the end
			return n + 2, hosts == 1 && len(head) >= 2 && head[0] == '\r' && head[1] == '\n'
		}
		if colon >= len(head) || head[colon] != ':' || count >= maxHeaders {
			return 0, false
		}
		end := colon + textSize(head[colon:])
		if end+1 >= len(head) || head[end] != '\r' || head[end+1] != '\n' {
			return 0, false
		}
		n += end + 2
		line := head[:end]
		switch name := line[:colon]; colon {
		case 4:
			if equalFold(name, "host") {
				if hosts++; hosts > 1 || !r.parseHost(value(line, colon)) {
					return 0, false
				}
			}
		case 6:
			if equalFold(name, "expect") {
				return 0, false
			}
		case 7:
			if equalFold(name, "trailer") || equalFold(name, "upgrade") {
				return 0, false
			}
		case 10:
			if equalFold(name, "connection") {
				switch v := value(line, colon); {
				case equalFold(v, "keep-alive"):
				case equalFold(v, "close"):
					r.closes = true
				default:
					return 0, false
				}
			}
		}
		if r.field(line, colon) != fieldOther {
			return 0, false // a body, or something that claims one
		}
	}
}

// incomplete looks at the beginning of a head. What cannot become a plain request
// is not waited for: fasthttp may have an answer already.
func incomplete(raw []byte) shape {
	if len(raw) > maxPlainHead {
		return unusual
	}
	for i, method := range []string{"GET /", "HEAD /"} {
		k := min(len(raw), len(method))
		if string(raw[:k]) == method[:k] {
			break
		}
		if i == 1 {
			return unusual
		}
	}
	first := true
	for {
		end := bytes.IndexByte(raw, '\n')
		if end < 0 {
			return partial
		}
		if end == 0 || raw[end-1] != '\r' || first && !bytes.HasSuffix(raw[:end-1], []byte(" HTTP/1.1")) {
			return unusual
		}
		raw, first = raw[end+1:], false
	}
}

// endsBare reports whether raw begins with a head that its client has ended with bare line feeds: 400 as any bare line feed
// between headers, but fasthttp would wait for an end with CRLF, which does not come, and say that the client is slow.
func endsBare(raw []byte) bool {
	if bytes.Contains(raw, []byte("\r\n\r\n")) {
		return false // it has an end: fasthttp decides
	}
	line, block, ok := bytes.Cut(raw, []byte{'\n'})
	line = bytes.TrimSuffix(line, []byte{'\r'})
	if !ok || len(line) == 0 || !bytes.HasSuffix(line[:len(line)-1], []byte(" HTTP/1.")) || bytes.HasPrefix(block, []byte("\r\n")) {
		return false
	}
	return bytes.HasPrefix(block, []byte{'\n'}) || bytes.Contains(block, []byte("\n\n")) || bytes.Contains(block, []byte("\n\r\n"))
}

// parseFirst reads a request line, its end included.
func (r *request) parseFirst(line []byte) bool {
	rest, ok := bytes.CutSuffix(line, []byte(" HTTP/1.1\r\n"))
	if !ok {
		return false
	}
	switch {
	case bytes.HasPrefix(rest, []byte("GET /")):
		r.method, rest = get, rest[4:]
	case bytes.HasPrefix(rest, []byte("HEAD /")):
		r.method, r.flags, rest = head, clicks.FlagHead, rest[5:]
	default:
		return false
	}
	if len(rest) > maxTarget || len(rest) > 1 && rest[1] == '/' {
		return false
	}
	for _, c := range rest {
		if c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	r.path, r.query, _ = bytes.Cut(rest, []byte{'?'})
	return true
}

// parseHost takes a host of letters, digits, hyphens and dots, with or without a port. Most requests
// name the same one as the request before.
func (r *request) parseHost(host []byte) bool {
	if len(host) > 0 && bytes.Equal(host, r.lastHost) {
		r.host = r.lastName
		return true
	}
	name, port, hasPort := bytes.Cut(host, []byte{':'})
	if len(name) == 0 || hasPort && len(port) == 0 {
		return false
	}
	for _, c := range name {
		if nameBytes[c] == 0 || c == '_' {
			if c != '.' {
				return false
			}
		}
	}
	for _, c := range port {
		if c < '0' || c > '9' {
			return false
		}
	}
	var ok bool
	if r.host, ok = domains.AppendHost(r.hostBuf[:0], host); ok {
		r.lastHost, r.lastName = append(r.lastHost[:0], host...), append(r.lastName[:0], r.host...)
	}
	return true
}

// nameBytes are the bytes of header names that are in use: letters, digits, - and _.
var nameBytes = func() (t [256]byte) {
	for c := range t {
		if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == '-' || c == '_' {
			t[c] = 1
		}
	}
	return t
}()

// nameSize returns how many bytes of a header name b begins with.
func nameSize(b []byte) int {
	for i, c := range b {
		if nameBytes[c] == 0 {
			return i
		}
	}
	return len(b)
}

// textSize returns how many bytes b begins with that are no control bytes. It takes eight bytes at once.
func textSize(b []byte) (n int) {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	for ; len(b)-n >= 8; n += 8 {
		w := binary.LittleEndian.Uint64(b[n:])
		del := w ^ ones*0x7f
		// Borrows reach bytes behind the first that is found, so the lowest bit is right.
		if found := ((w-ones*0x20)&^w | (del-ones)&^del) & high; found != 0 {
			return n + bits.TrailingZeros64(found)/8
		}
	}
	for ; n < len(b); n++ {
		if b[n] < ' ' || b[n] == 0x7f {
			break
		}
	}
	return n
}
