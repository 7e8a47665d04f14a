package redisbus

import (
	"context"
	"crypto/tls"
	"net"
	"sync"

	"github.com/redis/rueidis"
)

// sockets are the connections of a client that are open. The client library forgets one that was being made while it was closed
// (rueidis 1.0.79: a multiplexed connection is stored over the mark that says closed), so whoever closes the client
// closes what is left here after it.
type sockets struct {
	mu     sync.Mutex
	open   map[*socket]struct{}
	closed bool
}

// socket is a connection that is struck off when it is closed.
type socket struct {
	net.Conn
	of *sockets
}

func (s *socket) Close() error {
	s.of.mu.Lock()
	delete(s.of.open, s)
	s.of.mu.Unlock()
	return s.Conn.Close()
}

// keep makes every connection of a client that is made with the option one of these.
func (s *sockets) keep(option *rueidis.ClientOption) {
	dial := option.DialCtxFn // of addresses that are no TCP
	if dial == nil {
		dial = dialTCP
	}
	option.DialCtxFn = func(ctx context.Context, address string, d *net.Dialer, secure *tls.Config) (net.Conn, error) {
		c, err := dial(ctx, address, d, secure)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			_ = c.Close() // nothing was sent on it
			return nil, errClosed
		}
		if s.open == nil {
			s.open = make(map[*socket]struct{})
		}
		n := &socket{Conn: c, of: s}
		s.open[n] = struct{}{}
		return n, nil
	}
}

func dialTCP(ctx context.Context, address string, d *net.Dialer, secure *tls.Config) (net.Conn, error) {
	if secure == nil {
		return d.DialContext(ctx, "tcp", address)
	}
	return (&tls.Dialer{NetDialer: d, Config: secure}).DialContext(ctx, "tcp", address)
}

// close ends every connection, and every one that is being made.
func (s *sockets) close() {
	s.mu.Lock()
	s.closed = true
	left := s.open
	s.open = nil
	s.mu.Unlock()
	for c := range left {
		_ = c.Conn.Close() // calls that wait on it get the error
	}
}
