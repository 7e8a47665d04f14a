// Package outbound makes requests to URLs that a customer chose, and to nothing that a
// customer must not reach: it is the only HTTP client for webhooks and the like.
//
// The address is checked when a connection is made, after the name was resolved, so a
// name that changes its mind between a check and its use gains nothing. Ports are 80 and
// 443 unless the operator says otherwise; redirects are not followed; proxies of the
// environment are ignored; time and size of an answer are bounded. It does not retry.
package outbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/terselink/terse"
)

// Options configures a Client.
type Options struct {
	// Allow lists networks that may be reached although they are not public.
	Allow []netip.Prefix
	// Ports that may be reached; none: 80 and 443.
	Ports []uint16
	// Timeout bounds one request and its answer; 0: 15 s.
	Timeout time.Duration
	// MaxBytes bounds how much of an answer is read; 0: 64 KiB.
	MaxBytes int64
	// Resolver finds the addresses of names; nil: that of the system.
	Resolver  *net.Resolver
	UserAgent string // "": "Terse"
}

// Client sends guarded requests. It may be used by many goroutines at once.
type Client struct {
	o    Options
	http *http.Client
}

// Response is an answer that was read.
type Response struct {
	Status int
	Header http.Header
	Body   []byte // the first MaxBytes of it
}

// errBlocked is the error of code forbidden for a place that must not be reached. It does
// not say what the name resolved to: that would map the inside of a network.
func errBlocked(what string) error {
	return &terse.Error{Code: terse.CodeForbidden, Reason: "blocked_destination", Field: "url", Message: what}
}

// New returns a client. Close frees its connections.
func New(o Options) *Client {
	if len(o.Ports) == 0 {
		o.Ports = []uint16{80, 443}
	}
	if o.Timeout == 0 {
		o.Timeout = 15 * time.Second
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 64 << 10
	}
	if o.UserAgent == "" {
		o.UserAgent = "Terse"
	}
	c := &Client{o: o}
	dialer := &net.Dialer{Timeout: o.Timeout, Resolver: o.Resolver, ControlContext: c.control}
	c.http = &http.Client{
		Transport: &http.Transport{
			Proxy:                  nil,
			DialContext:            dialer.DialContext,
			TLSHandshakeTimeout:    10 * time.Second,
			ResponseHeaderTimeout:  o.Timeout,
			MaxResponseHeaderBytes: 32 << 10,
			DisableCompression:     true,
			// A kept connection would be to an address that was checked long ago.
			DisableKeepAlives: true,
			ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// control is called with the address of every connection before it is made.
func (c *Client) control(_ context.Context, network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return errBlocked("only TCP is used")
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return errBlocked("the address cannot be read")
	}
	if !slices.Contains(c.o.Ports, ap.Port()) {
		return errBlocked(fmt.Sprintf("port %d is not allowed", ap.Port()))
	}
	if !c.allowed(ap.Addr()) {
		return errBlocked("the address is not a public one")
	}
	return nil
}

func (c *Client) allowed(a netip.Addr) bool {
	a = a.Unmap()
	for _, p := range c.o.Allow {
		if p.Contains(a) {
			return true
		}
	}
	return Public(a)
}

// Check refuses URLs that can never be reached: another scheme, credentials, a port that
// is not allowed, a literal address that is not public. A name is judged when it is used.
func (c *Client) Check(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "":
		return terse.Invalid("url", "not an absolute URL")
	case len(raw) > 2048:
		return terse.Invalid("url", "longer than 2048 bytes")
	case u.Scheme != "http" && u.Scheme != "https":
		return terse.Invalid("url", "only http and https are possible")
	case u.User != nil:
		return terse.Invalid("url", "holds credentials")
	case u.Fragment != "":
		return terse.Invalid("url", "holds a fragment")
	}
	port := map[string]uint16{"http": 80, "https": 443}[u.Scheme]
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return terse.Invalid("url", "not a port: %s", p)
		}
		port = uint16(n)
	}
	if !slices.Contains(c.o.Ports, port) {
		return terse.Invalid("url", "port %d is not allowed", port)
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil && !c.allowed(a) {
		return terse.Invalid("url", "the address is not a public one")
	}
	if host := strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")); host == "localhost" || strings.HasSuffix(host, ".localhost") {
		if !c.allowed(netip.MustParseAddr("127.0.0.1")) {
			return terse.Invalid("url", "the address is not a public one")
		}
	}
	return nil
}

// Post sends body to a URL and reads the answer, whatever its status. Returns an error of
// code invalid or forbidden if the URL or what it resolves to must not be reached, of
// code unavailable if there was no answer.
func (c *Client) Post(ctx context.Context, target string, header http.Header, body []byte) (*Response, error) {
	if err := c.Check(target); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(string(body)))
	if err != nil {
		return nil, terse.Invalid("url", "not an absolute URL")
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", c.o.UserAgent)
	resp, err := c.http.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*terse.Error](err); ok {
			return nil, e
		}
		return nil, &terse.Error{Code: terse.CodeUnavailable, Message: reason(err), Op: "post", Err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, c.o.MaxBytes))
	if err != nil {
		return nil, &terse.Error{Code: terse.CodeUnavailable, Message: "the answer broke off", Op: "post", Err: err}
	}
	return &Response{Status: resp.StatusCode, Header: resp.Header, Body: b}, nil
}

// reason is what may be told to the customer about a failure to connect.
func reason(err error) string {
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return "no answer in time"
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "the host is not known"
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return "the connection was refused"
	}
	return "the connection failed"
}

// Close frees idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }
