//go:build !linux

package redirect

import "net"

// loop is the event loop of Linux; elsewhere fasthttp serves every connection.
type loop struct{}

func (*loop) cut()       {}
func (*loop) closeIdle() {}

// serveLoops reports false: no listener is for loops.
func (s *Server) serveLoops(net.Listener) (ok bool, err error) { return false, nil }
