package redirect

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/valyala/fasthttp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/clientip"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/rules"
)

// Where the address and the scheme of a visitor come from.
const (
	fromConnection = "connection"
	fromXFF        = "x-forwarded-for"
	fromXFProto    = "x-forwarded-proto"
	fromForwarded  = "forwarded"
)

// Seen is what the plane sees of a visitor. It is for whoever sets up the proxies in front.
type Seen struct {
	Client      string `json:"client"`       // address that counts for clicks, rules and limits
	ClientFrom  string `json:"client_from"`  // connection, x-forwarded-for or forwarded
	Peer        string `json:"peer"`         // the other end of the connection, or what its PROXY header says
	PeerTrusted bool   `json:"peer_trusted"` // it is in trusted_proxies
	// ProxyProtocol says that connections of trusted proxies begin with a PROXY header.
	ProxyProtocol bool `json:"proxy_protocol"`

	XForwardedFor   []string `json:"x_forwarded_for"` // lines as they came
	Forwarded       []string `json:"forwarded"`
	XForwardedProto string   `json:"x_forwarded_proto"`
	// HeadersIgnored says why lines that are there do not count: untrusted_peer, conflict or unreadable.
	HeadersIgnored string `json:"headers_ignored,omitzero"`

	Scheme     string `json:"scheme"`      // http or https
	SchemeFrom string `json:"scheme_from"` // connection, x-forwarded-proto or forwarded
	Host       string `json:"host"`        // canonical
	Domain     string `json:"domain"`      // that serves the host; "": none
	BaseURL    string `json:"base_url"`    // of its short URLs

	Country  string `json:"country"`
	Region   string `json:"region"`
	Device   string `json:"device"`
	OS       string `json:"os"`
	Browser  string `json:"browser"`
	Bot      string `json:"bot"` // "": a person
	Language string `json:"language"`
	OptsOut  bool   `json:"opts_out"` // Sec-GPC or DNT
}

// whoamiPath is where a visitor with a ticket is shown what is seen of them.
const whoamiPath = "/_/whoami"

// WhoamiTTL is how long a ticket is good for.
const WhoamiTTL = 10 * time.Minute

// WhoamiTicket returns the path and query at which any domain of the plane shows, until the time that is returned, what it
// sees of the request. It is for administrators: addresses of proxies are nobody else's business. Returns
// ErrUnavailable for a plane that has no key of cookies yet.
func (s *Server) WhoamiTicket() (path string, until terse.Millis, err error) {
	if s.gate.key.Load() == nil {
		return "", 0, &terse.Error{Code: terse.CodeUnavailable, Op: "make ticket", Message: "the redirect plane has no key yet"}
	}
	until = s.o.Clock() + terse.Millis(WhoamiTTL.Milliseconds())
	return whoamiPath + "?ticket=" + s.gate.ticket(until), until, nil
}

func (g *gate) ticket(until terse.Millis) string {
	var b [8 + macBytes]byte
	binary.BigEndian.PutUint64(b[:], uint64(until))
	h := hmac.New(sha256.New, *g.key.Load())
	h.Write([]byte("whoami\x00"))
	h.Write(b[:8])
	copy(b[8:], h.Sum(nil))
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// ticketOpens reports whether a query is that of a ticket that is still good.
func (g *gate) ticketOpens(query []byte, now terse.Millis) bool {
	ticket, ok := strings.CutPrefix(string(query), "ticket=")
	if !ok || g.key.Load() == nil {
		return false
	}
	b, err := base64.RawURLEncoding.DecodeString(ticket)
	if err != nil || len(b) != 8+macBytes {
		return false
	}
	until := terse.Millis(binary.BigEndian.Uint64(b))
	return hmac.Equal([]byte(ticket), []byte(g.ticket(until))) && now < until
}

// answerWhoami shows what is seen of a request with a ticket; others get what every system path gets.
func (s *Server) answerWhoami(ctx *fasthttp.RequestCtx, r *request, d *domains.Domain) {
	if !s.gate.ticketOpens(r.query, r.now) {
		s.answerText(ctx, http.StatusNotFound, "not found\n")
		return
	}
	body, err := json.Marshal(s.see(r, d))
	if err != nil { // of strings and bools: cannot fail
		panic(err)
	}
	s.answerText(ctx, http.StatusOK, string(body)+"\n")
	ctx.Response.Header.SetContentType("application/json")
}

// see gathers what decisions and clicks would be made of.
func (s *Server) see(r *request, d *domains.Domain) *Seen {
	out := &Seen{
		Peer: r.peer.Unmap().WithZone("").String(), PeerTrusted: s.clients.Trusted(r.peer), ProxyProtocol: s.o.ProxyProtocol, XForwardedFor: []string{}, Forwarded: []string{}, XForwardedProto: text(r.proto),
		Host: text(r.host), Domain: d.Host, BaseURL: d.Base(), Language: text(r.language), OptsOut: r.optsOut,
	}
	for _, l := range r.xff {
		out.XForwardedFor = append(out.XForwardedFor, text([]byte(l)))
	}
	for _, l := range r.forwarded {
		out.Forwarded = append(out.Forwarded, text([]byte(l)))
	}
	ip := s.clients.Resolve(r.peer, r.xff, r.forwarded)
	out.Client = ip.String()
	out.ClientFrom, out.HeadersIgnored = s.whence(r, ip)
	out.Scheme, out.SchemeFrom = "http", fromConnection
	if out.PeerTrusted {
		if p, ok := clientip.KnownScheme(text(r.proto)); ok {
			out.Scheme, out.SchemeFrom = p, fromXFProto
		} else if n := len(r.forwarded); n > 0 {
			if p, ok := clientip.ForwardedScheme(r.forwarded[n-1]); ok {
				out.Scheme, out.SchemeFrom = p, fromForwarded
			}
		}
	}
	country, region := s.placeOf(r, ip, true)
	out.Country, out.Region = strings.Clone(country), region
	info := s.parsers.parse(r.shard, r.userAgent, r.platform, r.flags&clicks.FlagMobile != 0)
	out.Device, out.OS, out.Browser, out.Bot = info.Device, info.OS, info.Browser, rules.BotName(info.Bot)
	switch {
	case r.flags&clicks.FlagPrefetch != 0:
		out.Bot = "prefetch"
	case r.method == head && out.Bot == "":
		out.Bot = "head"
	}
	return out
}

// whence says where the address of a visitor comes from, and why headers that are there do not count.
func (s *Server) whence(r *request, ip netip.Addr) (from, ignored string) {
	from = fromConnection
	peer := r.peer.Unmap().WithZone("")
	switch {
	case len(r.xff)+len(r.forwarded) == 0:
		return from, ""
	case !s.clients.Trusted(peer):
		return from, "untrusted_peer"
	case len(r.xff) > 0 && len(r.forwarded) > 0 && s.clients.Resolve(peer, r.xff, nil) != s.clients.Resolve(peer, nil, r.forwarded):
		return from, "conflict"
	case ip == peer:
		return from, "unreadable"
	case len(r.xff) > 0:
		return fromXFF, ""
	}
	return fromForwarded, ""
}

// text returns borrowed bytes as a string that is valid UTF-8 and of bounded length.
func text(b []byte) string {
	return strings.ToValidUTF8(string(b[:min(len(b), 1024)]), "\ufffd")
}
