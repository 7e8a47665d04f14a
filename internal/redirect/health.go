package redirect

import (
	"bytes"
	"net"
	"net/netip"
	"strings"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
)

// Check is the state of one dependency, for a line of /readyz.
type Check struct {
	Name   string
	State  State
	Detail string // optional, safe to show to anybody
}

// State is how well a dependency does.
type State string

// The states. Only StateDown takes the plane out of rotation: a store that cannot
// be reached is degraded here, because cached links are served without it.
const (
	StateOK       State = "ok"
	StateDegraded State = "degraded"
	StateDown     State = "down"
)

// readiness renders the body of /readyz and says whether the plane is ready.
func (s *Server) readiness() (body []byte, ready bool) {
	ready = true
	var b strings.Builder
	if s.draining.Load() {
		ready = false
		b.WriteString("redirect: down (stopping)\n")
	} else {
		b.WriteString("redirect: ok\n")
	}
	if s.o.Ready != nil {
		for _, c := range s.o.Ready() {
			ready = ready && c.State != StateDown
			b.WriteString(c.Name + ": " + string(c.State))
			if c.Detail != "" {
				b.WriteString(" (" + c.Detail + ")")
			}
			b.WriteByte('\n')
		}
	}
	return []byte(b.String()), ready
}

// setListenHost takes the listen address apart.
func (s *Server) setListenHost(addr string) error {
	if addr == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return terse.Invalid("redirect_addr", "%q is not an address such as 127.0.0.1:8080", addr)
	}
	s.listenPort = ":" + port
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		return nil
	}
	var ok bool
	if s.listenHost, ok = domains.AppendHost(nil, []byte(addr)); !ok {
		return terse.Invalid("redirect_addr", "%q is not an address such as 127.0.0.1:8080", addr)
	}
	return nil
}

// isListenHost reports whether a canonical host names the listen address itself: as
// it was configured, or as a name of this machine with the same port.
func (s *Server) isListenHost(host []byte) bool {
	if len(host) == 0 || s.listenPort == "" {
		return false
	}
	if bytes.Equal(host, s.listenHost) {
		return true
	}
	name, ok := bytes.CutSuffix(host, stringBytes(s.listenPort))
	if !ok {
		return false
	}
	switch string(name) {
	case "localhost", "127.0.0.1", "[::1]":
		return true
	}
	return false
}
