package redirect

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/terselink/terse/internal/proxyproto"
)

// listener survives failing accepts, which fasthttp would end the server for, refuses
// connections over the limits, and keeps track of open ones so that Shutdown can cut them.
type listener struct {
	net.Listener
	s *Server
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for pause := time.Duration(0); ; {
		c, err := l.Listener.Accept()
		if err == nil {
			pause = 0
			ip := peerAddr(c.RemoteAddr())
			if why := l.s.admission.admit(ip); why != nil {
				_ = c.SetWriteDeadline(time.Now().Add(time.Second)) // a small answer into an empty buffer does not wait
				_, _ = c.Write(why)
				_ = c.Close()
				continue
			}
			return l.s.conns.add(&conn{Conn: c, s: l.s, ip: ip, headed: l.s.headed(ip)}), nil
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if !l.s.acceptFailed(err, &pause) {
			return nil, net.ErrClosed
		}
	}
}

// acceptFailed waits after a failed accept: EMFILE and its like pass when connections
// close. It reports false if the server stops.
func (s *Server) acceptFailed(err error, pause *time.Duration) bool {
	s.metrics.acceptErrs.Add(1)
	if *pause == 0 {
		s.o.Log.Warn("cannot accept connections", "error", err)
	}
	*pause = min(max(2**pause, 5*time.Millisecond), time.Second)
	t := time.NewTimer(*pause)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.closing:
		return false
	}
}

// admission counts open connections, in all and of each address.
type admission struct {
	max, perIP int64
	open       atomic.Int64

	mu   sync.Mutex
	byIP map[netip.Addr]int64 // only if perIP is set
}

var (
	tooMany      = overLimit("503 Service Unavailable", "too many connections\n")
	tooManyOfOne = overLimit("429 Too Many Requests", "too many connections of this address\n")
)

func overLimit(status, text string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"+
		"Cache-Control: no-store\r\nRetry-After: 1\r\nConnection: close\r\n\r\n%s", status, len(text), text)
}

// admit counts a connection, or returns the answer for one that is too many.
func (a *admission) admit(ip netip.Addr) (refusal []byte) {
	if a.open.Add(1) > a.max {
		a.open.Add(-1)
		return tooMany
	}
	if a.perIP == 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.byIP[ip] >= a.perIP {
		a.open.Add(-1)
		return tooManyOfOne
	}
	a.byIP[ip]++
	return nil
}

// release counts the end of an admitted connection.
func (a *admission) release(ip netip.Addr) {
	a.open.Add(-1)
	if a.perIP == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.byIP[ip]--; a.byIP[ip] <= 0 {
		delete(a.byIP, ip)
	}
}

// tracker knows the open connections and keeps their deadlines.
//
// fasthttp sets three deadlines a request. Each is a lock and a timer in the
// runtime's poller, together 5 % of a redirect. Here a deadline is one store; a
// look at all connections a few times per timeout finds those that have passed
// theirs and only then tells the poller. So a deadline fires up to one interval late.
type tracker struct {
	interval time.Duration

	mu      sync.Mutex
	open    map[*conn]struct{} // nil after close
	stop    chan struct{}      // nil before the first Serve
	stopped sync.WaitGroup
}

func (t *tracker) init(timeouts ...time.Duration) {
	t.open = make(map[*conn]struct{})
	t.interval = min(max(slices.Min(timeouts)/5, 10*time.Millisecond), time.Second)
}

// start begins to watch deadlines; the first call counts.
func (t *tracker) start() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stop != nil || t.open == nil {
		return
	}
	stop := make(chan struct{})
	t.stop = stop
	t.stopped.Go(func() {
		tick := time.NewTicker(t.interval)
		defer tick.Stop()
		for {
			select {
			case now := <-tick.C:
				t.expire(now.UnixNano())
			case <-stop:
				return
			}
		}
	})
}

// expire ends the reads and writes that have passed their deadline.
func (t *tracker) expire(now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.open {
		if by := c.readBy.Load(); by != 0 && by <= now && !c.readFired.Swap(true) {
			_ = c.Conn.SetReadDeadline(longAgo) // fails on a closed connection only
		}
		if by := c.writeBy.Load(); by != 0 && by <= now && !c.writeFired.Swap(true) {
			_ = c.Conn.SetWriteDeadline(longAgo)
		}
	}
}

var longAgo = time.Unix(1, 0)

func (t *tracker) add(c *conn) *conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		_ = c.Conn.Close() // too late: the server has stopped
		return c
	}
	t.open[c] = struct{}{}
	return c
}

// closeIdle closes the connections that wait for a request.
func (t *tracker) closeIdle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.open {
		if c.idle.Load() {
			_ = c.Conn.Close() // its reader sees the end
		}
	}
}

// close cuts every connection and ends the watch.
func (t *tracker) close() {
	t.mu.Lock()
	open := t.open
	t.open = nil
	if t.stop != nil {
		close(t.stop)
	}
	t.mu.Unlock()
	for c := range open {
		_ = c.Conn.Close() // cut on purpose: nothing can be done about an error
	}
	t.stopped.Wait()
}

// conn is a connection that the tracker knows.
type conn struct {
	net.Conn
	s                     *Server
	ip                    netip.Addr   // as it was admitted
	peer                  net.Addr     // who it is in truth, if a proxy said so
	prefix                []byte       // read before Conn is
	headed                bool         // a header of the PROXY protocol comes first
	readBy, writeBy       atomic.Int64 // nanoseconds since 1970; 0: no deadline
	readFired, writeFired atomic.Bool  // the poller has been told
	idle                  atomic.Bool  // between requests
	ended                 bool         // a read failed or saw the end
	closed                atomic.Bool
}

// headed reports whether the connections of a peer begin with a header of the PROXY protocol.
func (s *Server) headed(ip netip.Addr) bool { return s.o.ProxyProtocol && s.clients.Trusted(ip) }

// readHeader reads the header of a trusted proxy and notes who the client is. What is no
// header ends the connection: who it is would be anybody's guess.
func (c *conn) readHeader() error {
	var buf []byte
	for {
		if cap(buf)-len(buf) < 512 {
			buf = slices.Grow(buf, 512)
		}
		n, err := c.Conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch n, client, what := proxyproto.Parse(buf); what {
		case proxyproto.Done:
			c.headed = false
			if client.IsValid() {
				c.peer = addr{client}
			}
			c.prefix = buf[n:]
			return nil
		case proxyproto.Bad:
			c.s.metrics.add(0, countMalformed)
			return net.ErrClosed // fasthttp answers nothing then
		}
		if err != nil {
			return net.ErrClosed
		}
	}
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	if c.headed {
		if err := c.readHeader(); err != nil {
			c.ended = true
			return 0, err
		}
	}
	if len(c.prefix) > 0 {
		n := copy(b, c.prefix)
		if c.prefix = c.prefix[n:]; len(c.prefix) == 0 {
			c.prefix = nil
		}
		return n, nil
	}
	n, err := c.Conn.Read(b)
	c.ended = err != nil
	return n, err
}

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr {
	if c.peer != nil {
		return c.peer
	}
	return c.Conn.RemoteAddr()
}

// addr is the address of a peer.
type addr struct{ netip.AddrPort }

// Network implements net.Addr.
func (addr) Network() string { return "tcp" }

// SetReadDeadline implements net.Conn, with the precision of the tracker.
func (c *conn) SetReadDeadline(by time.Time) error {
	c.readBy.Store(nanos(by))
	if c.readFired.Load() && c.readFired.Swap(false) {
		return c.Conn.SetReadDeadline(time.Time{})
	}
	return nil
}

// SetWriteDeadline implements net.Conn, with the precision of the tracker.
func (c *conn) SetWriteDeadline(by time.Time) error {
	c.writeBy.Store(nanos(by))
	if c.writeFired.Load() && c.writeFired.Swap(false) {
		return c.Conn.SetWriteDeadline(time.Time{})
	}
	return nil
}

// SetDeadline implements net.Conn, with the precision of the tracker.
func (c *conn) SetDeadline(by time.Time) error {
	return errors.Join(c.SetReadDeadline(by), c.SetWriteDeadline(by))
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// Limits of a lingering close.
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 256 << 10
)

// Close implements net.Conn. A connection that the server ends lingers: the end is announced,
// and what the client still sends is read and thrown away, in bounds. A socket closed
// with bytes unread is reset, and the reset may overtake the answer.
func (c *conn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && !c.ended && half.CloseWrite() == nil {
		_ = c.SetReadDeadline(time.Now().Add(min(lingerTime, c.s.o.ReadTimeout)))
		var scratch [4096]byte
		for n := 0; n < lingerBytes; {
			k, err := c.Conn.Read(scratch[:])
			if n += k; err != nil {
				break
			}
		}
	}
	c.s.conns.mu.Lock()
	delete(c.s.conns.open, c)
	c.s.conns.mu.Unlock()
	c.s.admission.release(c.ip)
	return c.Conn.Close()
}
