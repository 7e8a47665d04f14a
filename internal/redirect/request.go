package redirect

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/valyala/fasthttp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/geo"
	"github.com/terselink/terse/internal/rules"
)

// Limits of a request beside fasthttp's own (server.go).
const (
	maxHead    = 16 << 10 // request line and headers
	maxHeaders = 100
	maxTarget  = 8 << 10
	maxProxies = 16 // lines of X-Forwarded-For and of Forwarded each
)

// request is the scratch memory of one request. Its slices point into fasthttp's
// buffers or its own; all die with the handler.
type request struct {
	host   []byte // canonical; empty if there is none or it cannot be one
	path   []byte // raw, starts with a slash
	query  []byte // raw, without the question mark
	method method
	shard  uint32
	now    terse.Millis
	peer   netip.Addr // the other end of the connection

	mayWait bool // a goroutine of its own answers it
	waits   bool // it cannot be answered without waiting, and was not
	closes  bool // the client asks for the end of the connection; set by parse alone

	userAgent, referrer, language, platform, cookie, proto []byte
	flags                                                  clicks.Flag
	cookieBuf                                              []byte   // of a request with several Cookie lines
	crossSite                                              bool     // a page of another site leads here, as the browser says
	optsOut                                                bool     // asks not to be followed: Global Privacy Control, or Do Not Track
	xff, forwarded                                         []string // borrowed bytes
	country                                                []byte   // of the header countryName; nil: there is none

	countryName string // of the header that tells a country, in lower case; "": none does. It stays
	hostBuf     [260]byte
	lastHost    []byte // a host as parse read it
	lastName    []byte // and its canonical form
	key         []byte
	location    []byte
	named       []byte // a location with the id of the click
	expanded    []byte // the destination of a campaign's link
	link        link   // what that link is under its campaign
	xffBuf      [maxProxies]string
	forwardedBf [maxProxies]string
	click       clicks.Click
	facts       rules.Facts // of a link with rules
	place       geo.Place
	keys        []uint64 // scratch of queries that become one
	variant     uint8    // target to keep in a cookie; 0: none
	glue        uint64   // of that cookie: for which rules it counts
	app         *phone   // whose app is to be opened; nil: none
	web         string   // where the visit leads without that app
}

// mustWait reports that the answer has to wait for something and that the caller must
// return: on an event loop nothing may wait. The request is then answered anew by a
// goroutine, so nothing may have been counted or written before.
func (r *request) mustWait() bool {
	if !r.mayWait {
		r.waits = true
	}
	return r.waits
}

type method uint8

const (
	get method = iota
	head
	options
	otherMethod
	post
)

func parseMethod(m []byte) method {
	switch string(m) {
	case "GET":
		return get
	case "HEAD":
		return head
	case "OPTIONS":
		return options
	case "POST":
		return post
	}
	return otherMethod
}

// refusal says why a request is not looked at any further.
type refusal uint8

const (
	accepted refusal = iota
	malformed
	tooManyHeaders
	targetTooLong
)

// reset forgets the headers of the request before, and what was decided for it.
func (r *request) reset() {
	r.userAgent, r.referrer, r.language, r.platform, r.cookie, r.proto, r.flags = nil, nil, nil, nil, nil, nil, 0
	r.cookieBuf = r.cookieBuf[:0]
	r.xff, r.forwarded, r.variant = r.xffBuf[:0], r.forwardedBf[:0], 0
	r.app, r.web, r.optsOut, r.crossSite, r.country = nil, "", false, false, nil
}

// read takes the request apart. It reads the header block once, as it came over
// the wire, because fasthttp accepts what the rest of the chain may understand
// differently: bare line feeds, folded lines, a length beside chunks.
//
// Hot path: 0 allocs/op, see TestHitAllocs.
func (r *request) read(h *fasthttp.RequestHeader) refusal {
	r.reset()
	r.method = parseMethod(h.Method())
	if r.method == head {
		r.flags = clicks.FlagHead
	}
	if !h.IsHTTP11() && string(h.Protocol()) != "HTTP/1.0" {
		return malformed
	}
	target := h.RequestURI()
	if len(target) > maxTarget {
		return targetTooLong
	}
	host := h.Host()
	switch {
	case target[0] == '/':
	case r.method == otherMethod || r.method == options && len(target) == 1:
		r.host, r.path, r.query = nil, nil, nil
		return r.readHeaders(h.RawHeaders()) // CONNECT, OPTIONS *: answered by method alone
	default: // absolute form: its authority replaces the Host header (RFC 9112, 3.2.2)
		var ok bool
		if host, target, ok = splitAbsolute(target); !ok {
			return malformed
		}
	}
	r.host, _ = domains.AppendHost(r.hostBuf[:0], host)
	r.path, r.query = splitTarget(target)
	return r.readHeaders(h.RawHeaders())
}

// splitTarget cuts an origin-form target into path and query. A fragment does not
// belong in a request; what follows a # is ignored.
func splitTarget(target []byte) (path, query []byte) {
	if i := bytes.IndexByte(target, '#'); i >= 0 {
		target = target[:i]
	}
	path, query, _ = bytes.Cut(target, []byte{'?'})
	return path, query
}

// splitAbsolute cuts "http://host/path?query" into host and the rest.
func splitAbsolute(target []byte) (host, rest []byte, ok bool) {
	scheme, after, ok := bytes.Cut(target, []byte("://"))
	if !ok || !bytes.EqualFold(scheme, []byte("http")) && !bytes.EqualFold(scheme, []byte("https")) {
		return nil, nil, false
	}
	end := bytes.IndexAny(after, "/?#")
	if end < 0 {
		return after, []byte{'/'}, len(after) > 0
	}
	if host, rest = after[:end], after[end:]; rest[0] != '/' {
		rest = append([]byte{'/'}, rest...) // "http://host?query", which nobody sends
	}
	return host, rest, len(host) > 0
}

// readHeaders goes through the raw header block.
func (r *request) readHeaders(raw []byte) refusal {
	count, length, chunked := 0, false, false
	for len(raw) > 0 {
		end := bytes.IndexByte(raw, '\n')
		if end <= 0 || raw[end-1] != '\r' {
			return malformed // a bare line feed ends a line for some and not for others
		}
		line := raw[:end-1]
		raw = raw[end+1:]
		if len(line) == 0 {
			break
		}
		if line[0] == ' ' || line[0] == '\t' {
			return malformed // obs-fold (RFC 9112, 5.2)
		}
		if count++; count > maxHeaders {
			return tooManyHeaders
		}
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 {
			return malformed
		}
		switch r.field(line, colon) {
		case fieldLength:
			length = true
		case fieldCoding:
			chunked = true
		}
	}
	if length && chunked {
		return malformed // request smuggling (RFC 9112, 6.3)
	}
	return accepted
}

// field is what a header line means for the framing of a request.
type field uint8

const (
	fieldOther  field = iota
	fieldLength       // Content-Length
	fieldCoding       // Transfer-Encoding
)

// field takes what the plane needs of a header line.
func (r *request) field(line []byte, colon int) field {
	if colon == len(r.countryName) && equalFold(line[:colon], r.countryName) {
		if r.country != nil { // of two nobody knows which is the proxy's
			r.country = r.country[:0]
		} else {
			r.country = value(line, colon)
		}
	}
	switch name := line[:colon]; colon {
	case 3:
		r.optsOut = r.optsOut || equalFold(name, "dnt") && string(value(line, colon)) == "1"
	case 5:
		if equalFold(name, "x-moz") {
			r.prefetch(line[colon+1:])
		}
	case 6:
		if equalFold(name, "cookie") {
			r.addCookies(value(line, colon))
		}
	case 7:
		switch {
		case equalFold(name, "referer"):
			r.referrer = value(line, colon)
		case equalFold(name, "purpose"):
			r.prefetch(line[colon+1:])
		case equalFold(name, "sec-gpc"):
			r.optsOut = r.optsOut || string(value(line, colon)) == "1"
		}
	case 9:
		switch {
		case equalFold(name, "x-purpose"):
			r.prefetch(line[colon+1:])
		case equalFold(name, "forwarded") && len(r.forwarded) < maxProxies:
			r.forwarded = append(r.forwarded, bytesString(value(line, colon)))
		}
	case 10:
		if equalFold(name, "user-agent") {
			r.userAgent = value(line, colon)
		}
	case 11:
		if equalFold(name, "sec-purpose") {
			r.prefetch(line[colon+1:])
		}
	case 14:
		switch {
		case equalFold(name, "content-length"):
			return fieldLength
		case equalFold(name, "sec-fetch-site"):
			r.crossSite = r.crossSite || string(value(line, colon)) == "cross-site"
		}
	case 15:
		switch {
		case equalFold(name, "accept-language"):
			r.language = value(line, colon)
		case equalFold(name, "x-forwarded-for") && len(r.xff) < maxProxies:
			r.xff = append(r.xff, bytesString(value(line, colon)))
		}
	case 16:
		if equalFold(name, "sec-ch-ua-mobile") && string(value(line, colon)) == "?1" {
			r.flags |= clicks.FlagMobile
		}
	case 17:
		switch {
		case equalFold(name, "transfer-encoding"):
			return fieldCoding
		case equalFold(name, "x-forwarded-proto"):
			r.proto = value(line, colon)
		}
	case 18:
		if equalFold(name, "sec-ch-ua-platform") {
			r.platform = value(line, colon)
		}
	}
	return fieldOther
}

// addCookies takes a Cookie line. HTTP/2 may split cookies over several, which are one with "; " between them (RFC 9113, 8.2.3);
// not every proxy joins them.
func (r *request) addCookies(v []byte) {
	if r.cookie == nil {
		r.cookie = v
		return
	}
	if len(r.cookieBuf) == 0 { // the second line
		r.cookieBuf = append(r.cookieBuf, r.cookie...)
	}
	r.cookieBuf = append(append(r.cookieBuf, "; "...), v...)
	r.cookie = r.cookieBuf
}

// prefetch notes that a header of purpose says that nobody has seen the page yet.
func (r *request) prefetch(v []byte) {
	for _, word := range []string{"prefetch", "preview", "prerender"} {
		for i := 0; i+len(word) <= len(v); i++ {
			if equalFold(v[i:i+len(word)], word) {
				r.flags |= clicks.FlagPrefetch
				return
			}
		}
	}
}

// value returns the value of a header line without the spaces around it.
func value(line []byte, colon int) []byte {
	v := line[colon+1:]
	for len(v) > 0 && (v[0] == ' ' || v[0] == '\t') {
		v = v[1:]
	}
	for len(v) > 0 && (v[len(v)-1] == ' ' || v[len(v)-1] == '\t') {
		v = v[:len(v)-1]
	}
	return v
}

// equalFold compares with a word of lower-case ASCII letters, digits and hyphens. It takes eight bytes at once.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	i := 0
	for ; len(b)-i >= 8; i += 8 {
		if !equalFold8(binary.LittleEndian.Uint64(b[i:]), binary.LittleEndian.Uint64(stringBytes(lower)[i:])) {
			return false
		}
	}
	if i > 0 && i < len(b) { // the last eight, some of them for the second time
		i = len(b) - 8
		return equalFold8(binary.LittleEndian.Uint64(b[i:]), binary.LittleEndian.Uint64(stringBytes(lower)[i:]))
	}
	for ; i < len(lower); i++ {
		c := b[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// equalFold8 compares eight bytes: they may differ in the bit of the case where the byte is a letter, which are those
// with the bit above it.
func equalFold8(w, lower uint64) bool {
	const letterCase = 0x2020202020202020
	d := w ^ lower
	return d&^letterCase == 0 && d<<1&^w == 0
}

// peerAddr returns the address of the other end of the connection.
func peerAddr(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.AddrPort().Addr()
	case addr:
		return a.Addr()
	}
	p, _ := netip.ParseAddrPort(a.String())
	return p.Addr()
}
