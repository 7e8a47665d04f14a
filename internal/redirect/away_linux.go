package redirect

import (
	"io"
	"net"
	"syscall"
	"time"
)

// awayRequest is a request that may have to wait, on its way to a goroutine.
type awayRequest struct {
	c   *loopConn
	raw []byte // the beginning of c.in
	end error  // of the connection; nil: the request is complete
}

// idleAways bounds the goroutines of a loop that wait for such a request.
const idleAways = 128

// serve sends a request to a goroutine. With an error it is the rest of
// a connection that ends so.
func (l *loop) serve(c *loopConn, raw []byte, end error) {
	c.state = away
	if end != nil {
		raw = c.in
		c.last = true
	}
	r := awayRequest{c, raw, end}
	select {
	case l.aways <- r:
	default:
		l.s.goroutines.Go(func() { l.answerAway(r) })
	}
}

// answerAway answers a request, and others after it until the server stops. The goroutine is kept for its stack: to grow that of a
// new one to the depth of a read of the store took a fifth of the server's time while every link was visited for the first time.
func (l *loop) answerAway(r awayRequest) {
	for {
		a := &awayConn{c: r.c, rest: r.raw, end: r.end}
		_ = l.s.fast.ServeConn(a) // its error is about the connection
		if r.c.in = r.c.in[len(r.raw):]; !a.again {
			r.c.last, r.c.rude = true, true
		}
		l.post(r.c)
		if l.idleAways.Add(1) > idleAways {
			l.idleAways.Add(-1)
			return
		}
		select {
		case r = <-l.aways:
			l.idleAways.Add(-1)
		case <-l.s.closing:
			return
		}
	}
}

// awayConn is what fasthttp sees of a connection of a loop: the bytes of one request, and
// then that nothing more has come.
type awayConn struct {
	c     *loopConn
	rest  []byte
	end   error // nil: the request is complete
	again bool  // fasthttp asked for the next request
}

// Read implements net.Conn.
func (a *awayConn) Read(b []byte) (int, error) {
	if len(a.rest) == 0 {
		if a.end != nil {
			return 0, a.end
		}
		a.again = true
		return 0, io.EOF
	}
	n := copy(b, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Write implements net.Conn: what the socket has no room for is left to the loop.
func (a *awayConn) Write(b []byte) (int, error) {
	n := 0
	if len(a.c.out) == 0 {
		if n = send(a.c.fd, b); n < 0 {
			return 0, syscall.EPIPE
		}
	}
	a.c.out = append(a.c.out, b[n:]...)
	return len(b), nil
}

// Close implements net.Conn; the loop closes.
func (a *awayConn) Close() error { return nil }

// LocalAddr implements net.Conn.
func (a *awayConn) LocalAddr() net.Addr { return addr{} }

// RemoteAddr implements net.Conn.
func (a *awayConn) RemoteAddr() net.Addr { return addr{a.c.peer} }

// SetDeadline implements net.Conn: nothing here waits.
func (a *awayConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (a *awayConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (a *awayConn) SetWriteDeadline(time.Time) error { return nil }
