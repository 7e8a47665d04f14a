package redirect

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/alexedwards/argon2id"
	"github.com/valyala/fasthttp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/code"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/limit"
)

const (
	cookieName = "terse_pw"
	// unlockedFor is how long a visitor need not enter the password again.
	unlockedFor = 12 * time.Hour
	// maxPassword is the longest password in bytes, as package links has it.
	maxPassword = 200
	// maxHashes bounds the passwords that are hashed at once, at 19 MiB each.
	maxHashes = 2
	macBytes  = 16
)

// gate slows the guessing of passwords down, and bounds what hashing costs.
type gate struct {
	key       atomic.Pointer[[]byte] // of cookies; nil: not known
	hashes    chan struct{}
	addresses *limit.Table
	links     *limit.Table // by linkAddress
}

func newGate(key []byte, clock func() terse.Millis, tell func(table string, client netip.Prefix)) *gate {
	share := func(table string) func(netip.Prefix) {
		if tell == nil {
			return nil
		}
		return func(client netip.Prefix) { tell(table, client) }
	}
	now := func() time.Time { return clock().Time() }
	g := &gate{
		hashes:    make(chan struct{}, maxHashes),
		addresses: limit.New(limit.Options{Every: 10 * time.Second, Burst: 10, Max: 1 << 16, Clock: now, Tell: share(passwordsOfAddresses)}),
		links:     limit.New(limit.Options{Every: 2 * time.Second, Burst: 100, Max: 1 << 14, Clock: now, Tell: share(passwordsOfLinks)}),
	}
	if len(key) > 0 {
		g.key.Store(&key)
	}
	return g
}

// The names of the tables, for other nodes.
const (
	passwordsOfAddresses = "password_address"
	passwordsOfLinks     = "password_link"
)

// HeardFailure counts a wrong password that was tried at another node; it reports whether the table is one of this plane.
func (s *Server) HeardFailure(table string, client netip.Prefix) bool {
	switch table {
	case passwordsOfAddresses:
		s.gate.addresses.Heard(client)
	case passwordsOfLinks:
		s.gate.links.Heard(client)
	default:
		return false
	}
	return true
}

// SetCookieKey gives the plane the key that signs cookies of links with a password. A plane that starts while its
// store is down has none until then, and these links are 503.
func (s *Server) SetCookieKey(key []byte) {
	if len(key) > 0 {
		s.gate.key.Store(&key)
	}
}

// linkAddress makes a key of a table of addresses out of a link: the first 64 bits count there.
func linkAddress(n terse.LinkNumber) netip.Addr {
	var a [16]byte
	binary.BigEndian.PutUint64(a[:], uint64(n)|1<<63) // never looks like an IPv4 address
	return netip.AddrFrom16(a)
}

// token is the value of the cookie: when it ends and a MAC over that, the link and its
// version, so that it opens no other link and ends with every change of this one.
func (g *gate) token(n terse.LinkNumber, version uint64, until terse.Millis) string {
	var b [8 + macBytes]byte
	binary.BigEndian.PutUint64(b[:], uint64(until))
	copy(b[8:], g.mac(n, version, until))
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func (g *gate) mac(n terse.LinkNumber, version uint64, until terse.Millis) []byte {
	var b [24]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	binary.BigEndian.PutUint64(b[8:], version)
	binary.BigEndian.PutUint64(b[16:], uint64(until))
	h := hmac.New(sha256.New, *g.key.Load())
	h.Write([]byte("password\x00"))
	h.Write(b[:])
	return h.Sum(nil)[:macBytes]
}

// opens reports whether a Cookie header has a token for the link. A browser may send
// several cookies of the name: one that opens is enough, and only the first 8 count.
func (g *gate) opens(header []byte, n terse.LinkNumber, version uint64, now terse.Millis) bool {
	tries := 0
	for part := range strings.SplitSeq(bytesString(header), ";") {
		name, v, _ := strings.Cut(strings.TrimSpace(part), "=")
		if name != cookieName {
			continue
		}
		if tries++; tries > 8 {
			return false
		}
		var b [8 + macBytes]byte
		if len(v) != base64.RawURLEncoding.EncodedLen(len(b)) {
			continue
		}
		if _, err := base64.RawURLEncoding.Decode(b[:], []byte(v)); err != nil {
			continue
		}
		until := terse.Millis(binary.BigEndian.Uint64(b[:]))
		if hmac.Equal(b[8:], g.mac(n, version, until)) && now < until {
			return true
		}
	}
	return false
}

// checkPassword lets a visitor with the cookie through (done false), and one who has just
// entered the password, then with the cookies to set. Everybody else is answered: with the form.
func (s *Server) checkPassword(ctx *fasthttp.RequestCtx, r *request, d *domains.Domain, l *link, asked []byte, preview bool) (cookies []string, done bool) {
	if s.gate.key.Load() == nil {
		s.answerUnavailable(ctx, r, d)
		return nil, true
	}
	if r.method != post {
		if s.gate.opens(r.cookie, l.number, l.special.version, r.now) {
			return nil, false
		}
		s.answerForm(ctx, r, d, l, asked, http.StatusOK, pagePassword, preview)
		return nil, true
	}
	ip := s.clients.Resolve(r.peer, r.xff, r.forwarded)
	wait := max(s.gate.addresses.Blocked(ip), s.gate.links.Blocked(linkAddress(l.number)))
	if wait == 0 {
		select {
		case s.gate.hashes <- struct{}{}:
		default:
			wait = time.Second
		}
	}
	if wait > 0 {
		s.answerForm(ctx, r, d, l, asked, http.StatusTooManyRequests, pageSlow, preview)
		ctx.Response.Header.Set("Retry-After", strconv.Itoa(int(wait.Seconds())+1))
		return nil, true
	}
	entered := string(ctx.PostArgs().Peek("password"))
	ok := false
	if entered != "" && len(entered) <= maxPassword {
		var err error
		if ok, err = argon2id.ComparePasswordAndHash(entered, l.special.password); err != nil {
			s.o.Log.Error("the password of a link cannot be compared", "link", l.number.String(), "error", err)
		}
	}
	<-s.gate.hashes
	if !ok {
		s.gate.addresses.Fail(ip)
		s.gate.links.Fail(linkAddress(l.number))
		s.answerForm(ctx, r, d, l, asked, http.StatusForbidden, pageWrong, preview)
		return nil, true
	}
	path := cookieName + "=" + s.gate.token(l.number, l.special.version, r.now+terse.Millis(unlockedFor.Milliseconds())) +
		"; Path=" + string(appendCookiePath(nil, r.path, asked))
	attributes := "; Max-Age=" + strconv.Itoa(int(unlockedFor.Seconds())) + "; HttpOnly; SameSite=Lax"
	if d.Scheme == "https" {
		attributes += "; Secure"
	}
	// To a browser /code+ is not below /code: one for each.
	return []string{path + attributes, path + "+" + attributes}, false
}

// appendCookiePath appends the path of a cookie for one link, asked in its canonical form: as the browser wrote
// it, because it compares byte for byte (RFC 6265, 5.1.4) and a code has several spellings; without the plus of /code+.
func appendCookiePath(dst, path, asked []byte) []byte {
	segment, _, _ := bytes.Cut(path[1:], []byte{'/'})
	segment = bytes.TrimSuffix(segment, []byte{'+'})
	for _, c := range segment {
		if c <= ' ' || c >= 0x7f || c == ';' { // would not stand in the header as it is
			return code.AppendPath(append(dst, '/'), string(asked))
		}
	}
	return append(append(dst, '/'), segment...)
}

// answerForm asks for the password. What is recorded is that it was asked for.
func (s *Server) answerForm(ctx *fasthttp.RequestCtx, r *request, d *domains.Domain, l *link, asked []byte, status int, p page, preview bool) {
	v := decision{outcome: clicks.OutcomePassword, status: status}
	r.click.Rule = 0
	if !preview {
		s.capture(r, d, l, &v, asked)
	}
	s.count(r, counter(v.outcome))
	lang, k := preferredLanguage(r.language), s.skins.of(d)
	ctx.Response.SetBodyRaw(k.get(p, lang))
	ctx.Response.SetStatusCode(status)
	ctx.Response.Header.SetCanonical(k.form, stringBytes(languages[lang]))
	ctx.Response.Header.SetContentType("text/html; charset=utf-8")
}
