package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/proxyproto"
)

// The plane on Linux: one event loop a processor, each with its own epoll set, its own
// scratch memory and a share of the connections (docs/adr/0015-event-loops.md). A loop reads, answers
// plain requests (plain.go) and writes; it never waits for anything but its connections.
//
//   - A request whose answer may have to wait (a cache miss, a password) goes to a goroutine that
//     has it read and answered by fasthttp, and the connection comes back when it is done.
//   - A connection on which something unusual comes goes to fasthttp for good, with the bytes read so far.
//
// A connection belongs to its loop, or while it is away to that one goroutine; it has no
// lock. Sizes and timeouts are those of the other path; deadlines fire up to one
// interval of the tracker late, as there.

// loop is one event loop.
type loop struct {
	s     *Server
	p     *plainer
	epoll int
	wake  int // eventfd: something is in the inbox
	conns []*loopConn
	count atomic.Int64 // connections, for dealing them out
	read  []byte       // scratch
	holds bool         // may keep its processor during a brief wait: as many are left to all that is no loop
	busy  bool         // the last wait brought something

	aways     chan awayRequest // to goroutines that have nothing to do
	idleAways atomic.Int64     // these

	mu      sync.Mutex
	inbox   []*loopConn // new ones, and those that come back
	ended   bool        // nobody empties the inbox any more
	sweep   atomic.Bool // look for deadlines now
	cutting atomic.Bool // close everything and end
	done    chan struct{}
}

// state is what a connection of a loop waits for.
type state uint8

const (
	reading   state = iota // a request
	writing                // room for the rest of an answer
	away                   // the goroutine that answers a request
	lingering              // the client's end
)

// loopConn is a connection of a loop.
type loopConn struct {
	fd     int
	shard  uint32
	ip     netip.Addr     // as it was admitted
	peer   netip.AddrPort // who it is: the same, unless a proxy said otherwise
	state  state
	headed bool // a header of the PROXY protocol comes first
	armed  bool // is in the epoll set
	wants  uint32
	used   bool // has had an answer
	last   bool // closes when its answers are written
	rude   bool // and something may come that is not to be read as a request

	in      []byte // the beginning of a request, or what came while it was away
	out     []byte // answers not written yet
	by      int64  // deadline, nanoseconds since 1970
	drained int    // bytes thrown away while lingering
}

const (
	// What a client makes a loop keep when it asks and does not read: the requests of one read, and
	// the answers of one write and the one that fills it.
	readSize  = maxHead
	writeSize = 16 << 10

	maxEvents   = 256
	briefWait   = 1 // milliseconds
	acceptBatch = 64
	sendFlags   = syscall.MSG_NOSIGNAL | syscall.MSG_DONTWAIT
)

// startLoops makes the loops of a server; the first call counts.
func (s *Server) startLoops() error {
	s.serving.Lock()
	defer s.serving.Unlock()
	if s.loops != nil || s.stopping.Load() {
		return nil
	}
	loops := max(1, min(runtime.NumCPU(), runtime.GOMAXPROCS(0)))
	for range loops {
		l, err := newLoop(s)
		if err != nil {
			return fmt.Errorf("make event loop: %w", err)
		}
		l.holds = 2*loops <= runtime.GOMAXPROCS(0)
		s.loops = append(s.loops, l)
		go l.run()
	}
	return nil
}

// newLoop makes a loop that does not run yet.
func newLoop(s *Server) (*loop, error) {
	l := &loop{s: s, p: newPlainer(s), read: make([]byte, 2*readSize), aways: make(chan awayRequest), done: make(chan struct{})}
	var err error
	if l.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	wake, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return nil, errors.Join(errno, syscall.Close(l.epoll))
	}
	l.wake = int(wake)
	ev := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(l.wake)}
	if err := syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, l.wake, &ev); err != nil {
		return nil, errors.Join(err, syscall.Close(l.epoll), syscall.Close(l.wake))
	}
	return l, nil
}

// serveLoops accepts the connections of a listener and deals them out to the loops, until
// the listener is closed. It reports false if that listener is not for loops.
func (s *Server) serveLoops(ln net.Listener) (ok bool, err error) {
	tcp, ok := ln.(*net.TCPListener)
	if !ok || s.o.RecorderWaits {
		return false, nil
	}
	raw, err := s.acceptor(tcp)
	if err != nil {
		return true, fmt.Errorf("serve redirects: %w", err)
	}
	if err := s.startLoops(); err != nil {
		return true, err
	}
	for pause := time.Duration(0); ; {
		var fault error
		err := raw.Read(func(fd uintptr) bool {
			var n int
			if n, fault = s.acceptSome(int(fd)); n > 0 {
				pause = 0
			}
			if errors.Is(fault, syscall.EAGAIN) {
				fault = nil
				return false
			}
			return true
		})
		if err != nil { // closed
			return true, nil
		}
		if fault != nil && !s.acceptFailed(fault, &pause) {
			return true, nil
		}
	}
}

// acceptSome deals out connections that wait to be accepted, acceptBatch at most: closing the
// listener waits for a call to end, and a flood must not keep it from that. The error is EAGAIN when none waits.
func (s *Server) acceptSome(fd int) (n int, err error) {
	for range acceptBatch {
		nfd, from, err := syscall.Accept4(fd, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		switch {
		case err == nil:
			s.deal(nfd, sockaddr(from))
			n++
		case errors.Is(err, syscall.EINTR), errors.Is(err, syscall.ECONNABORTED):
		default:
			return n, err
		}
	}
	return n, nil
}

// acceptor returns the socket of a listener for accepts of our own: net's would put each
// connection into the runtime's poller, from where it had to be taken again. It is another
// descriptor of the same socket, which net does not let us wait on.
func (s *Server) acceptor(ln *net.TCPListener) (syscall.RawConn, error) {
	control, err := ln.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("get socket: %w", err)
	}
	var dup uintptr
	var errno syscall.Errno
	err = control.Control(func(fd uintptr) {
		// Accepted sockets inherit these, which net would set on each.
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
		_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1)
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 15)
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 15)
		dup, _, errno = syscall.RawSyscall(syscall.SYS_FCNTL, fd, syscall.F_DUPFD_CLOEXEC, 0)
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("get socket: %w", err)
	case errno != 0:
		return nil, fmt.Errorf("duplicate socket: %w", errno)
	}
	f := os.NewFile(dup, "redirect listener") // it does not block, so the runtime's poller takes it
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("get socket: %w", err), f.Close())
	}
	s.serving.Lock()
	defer s.serving.Unlock()
	if s.stopping.Load() {
		_ = f.Close() // the first read fails
	}
	s.listeners = append(s.listeners, f)
	return raw, nil
}

func sockaddr(sa syscall.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// deal gives a new connection to the loop with the fewest.
func (s *Server) deal(fd int, peer netip.AddrPort) {
	if why := s.admission.admit(peer.Addr()); why != nil {
		refuse(fd, why)
		_ = syscall.Close(fd)
		return
	}
	at := 0
	for i := range s.loops {
		if s.loops[i].count.Load() < s.loops[at].count.Load() {
			at = i
		}
	}
	l := s.loops[at]
	l.count.Add(1)
	// No two loops share a shard if the number of shards is a multiple of theirs.
	l.post(&loopConn{fd: fd, ip: peer.Addr(), peer: peer, headed: s.headed(peer.Addr()), shard: uint32(fd*len(s.loops) + at)})
}

// refuse sends a last answer on a connection that is about to be closed, and waits for nothing.
func refuse(fd int, answer []byte) {
	_ = send(fd, answer)
	_ = syscall.Shutdown(fd, syscall.SHUT_WR)
	var scratch [2048]byte
	_, _, _ = syscall.Recvfrom(fd, scratch[:], syscall.MSG_DONTWAIT) // closing with bytes unread would take the answer back
}

// post puts a connection into the inbox. A loop that has ended cannot take it.
func (l *loop) post(c *loopConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		l.close(c)
		return
	}
	if l.inbox = append(l.inbox, c); len(l.inbox) == 1 {
		l.rouseLocked()
	}
}

func (l *loop) rouseLocked() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = syscall.Write(l.wake, one[:])
}

// closeIdle makes the loop look for connections that wait for a request and close them, if the server stops.
func (l *loop) closeIdle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.sweep.Store(true)
		l.rouseLocked()
	}
}

// cut makes the loop close all its connections and end. What is away ends with its goroutine.
func (l *loop) cut() {
	l.cutting.Store(true)
	l.closeIdle()
	<-l.done
}

func (l *loop) run() {
	defer close(l.done)
	interval := l.s.conns.interval
	events := make([]syscall.EpollEvent, maxEvents)
	next := time.Now().Add(interval)
	for {
		n := l.poll(events, time.Until(next))
		now := time.Now()
		clock := l.s.o.Clock()
		for _, ev := range events[:n] {
			if int(ev.Fd) == l.wake {
				l.open(now)
				continue
			}
			if c := l.conns[ev.Fd]; c != nil {
				l.event(c, ev.Events, now.UnixNano(), clock)
			}
		}
		if l.cutting.Load() {
			l.end()
			return
		}
		if l.sweep.Swap(false) || !now.Before(next) {
			l.expire(now.UnixNano())
			next = now.Add(interval)
		}
	}
}

// poll waits for events. While requests come it waits for the next without telling the scheduler, which
// would otherwise give the loop's processor away and find it another each time: on a loaded server that
// was half a switch of threads an answer. What wants the loop to stop, a collection of garbage or a
// goroutine whose turn it is, interrupts the wait by a signal, as the runtime does for any code that runs long.
func (l *loop) poll(events []syscall.EpollEvent, wait time.Duration) int {
	brief := 0
	if l.holds && l.busy {
		brief = briefWait
	}
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(brief), 0, 0)
	if errno != 0 { // EINTR
		return 0
	}
	if l.busy = n > 0; l.busy {
		return int(n)
	}
	got, err := syscall.EpollWait(l.epoll, events, max(int(wait.Milliseconds())+1, 1))
	if err != nil { // EINTR
		return 0
	}
	l.busy = got > 0
	return got
}

// open takes the connections from the inbox.
func (l *loop) open(now time.Time) {
	var count [8]byte
	_, _ = syscall.Read(l.wake, count[:])
	l.mu.Lock()
	list := l.inbox
	l.inbox = nil
	l.mu.Unlock()
	clock := l.s.o.Clock()
	for _, c := range list {
		if c.state == away {
			l.back(c, now.UnixNano(), clock)
			continue
		}
		for c.fd >= len(l.conns) {
			l.conns = append(l.conns, make([]*loopConn, max(64, len(l.conns)))...)
		}
		l.conns[c.fd] = c
		c.by = now.Add(l.s.o.ReadTimeout).UnixNano()
		l.want(c, syscall.EPOLLIN)
	}
}

// want sets the events that a connection waits for.
func (l *loop) want(c *loopConn, events uint32) {
	if c.armed && c.wants == events {
		return
	}
	op := syscall.EPOLL_CTL_MOD
	if !c.armed {
		op = syscall.EPOLL_CTL_ADD
	}
	ev := syscall.EpollEvent{Events: events, Fd: int32(c.fd)}
	if err := syscall.EpollCtl(l.epoll, op, c.fd, &ev); err != nil { // no memory for it
		l.close(c)
		return
	}
	c.armed, c.wants = true, events
}

// leave takes a connection out of the epoll set.
func (l *loop) leave(c *loopConn) {
	if c.armed {
		c.armed = false
		_ = syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_DEL, c.fd, nil)
	}
}

func (l *loop) event(c *loopConn, events uint32, now int64, clock terse.Millis) {
	switch c.state {
	case away: // it will be looked at when it comes back
		l.leave(c)
	case writing:
		if l.flush(c, now) && !c.last {
			c.state = reading
			if l.want(c, syscall.EPOLLIN); len(c.in) > 0 && l.conns[c.fd] == c { // not closed for want of memory
				l.take(c, l.gather(c, 0), now, clock)
			}
		}
	case lingering:
		n, err := syscall.Read(c.fd, l.read)
		if c.drained += max(n, 0); n == 0 || err != nil && !temporary(err) || c.drained > lingerBytes {
			l.close(c)
		}
	case reading:
		have := len(c.in)
		buf := l.gather(c, readSize)
		n, errno := rawRead(c.fd, buf[have:have+readSize])
		switch {
		case errno != 0:
			if !temporary(errno) {
				l.close(c)
			}
		case n > 0:
			l.take(c, buf[:have+n], now, clock)
		case have > 0 && !c.headed: // the client has ended in the middle of a request
			l.serve(c, nil, io.EOF)
		default:
			l.close(c)
		}
	}
}

// gather returns what a connection has sent so far in the scratch memory, with room for
// more bytes behind it.
func (l *loop) gather(c *loopConn, room int) []byte {
	if len(c.in)+room > len(l.read) {
		l.read = make([]byte, len(c.in)+2*room)
	}
	return l.read[:copy(l.read, c.in)]
}

// take answers the requests in buf, which is scratch memory.
func (l *loop) take(c *loopConn, buf []byte, now int64, clock terse.Millis) {
	if c.headed {
		n, client, what := proxyproto.Parse(buf)
		switch what {
		case proxyproto.More:
			c.in = append(c.in[:0], buf...)
			return
		case proxyproto.Bad: // who it is would be anybody's guess
			l.s.metrics.add(c.shard, countMalformed)
			l.close(c)
			return
		}
		if c.headed, c.in = false, nil; client.IsValid() {
			c.peer = client
		}
		buf = buf[n:]
	}
	p := l.p
	p.out = p.out[:0]
	fresh := len(c.in) == 0 // the request that buf begins with began now
	for {
		n, next := 0, stepMore
		if len(buf) > 0 {
			n, next = p.answer(buf, c.peer.Addr(), c.shard, clock)
		}
		switch next {
		case stepNext:
			buf, fresh = buf[n:], true
			c.used = true
			if len(p.out) < writeSize {
				continue
			}
			c.in = append(c.in[:0], buf...)
			if !l.write(c, p.out, now) {
				return // goes on when there is room
			}
			p.out = p.out[:0]
			continue
		case stepClose, stepBroken:
			c.last, c.rude = true, next == stepBroken || n < len(buf)
			c.in = nil
			l.write(c, p.out, now)
			return
		case stepMore:
			if len(buf) == 0 {
				c.in = nil
			} else {
				c.in = append(c.in[:0], buf...) // may be its own memory: append copes
			}
			switch {
			case len(buf) == 0 && c.used:
				c.by = now + int64(l.s.o.IdleTimeout)
			case c.used && fresh:
				c.by = now + int64(l.s.o.ReadTimeout)
			}
			if len(p.out) > 0 {
				l.write(c, p.out, now)
			}
			return
		case stepWait:
			c.in = append([]byte(nil), buf...)
			c.out = append(c.out, p.out...)
			l.serve(c, c.in[:n:n], nil)
			return
		default: // stepHand
			c.in = append([]byte(nil), buf...)
			c.out = append(c.out, p.out...)
			l.hand(c)
			return
		}
	}
}

// write sends answers, and keeps what the socket has no room for. It reports whether the
// connection can go on reading.
func (l *loop) write(c *loopConn, b []byte, now int64) bool {
	n := send(c.fd, b)
	switch {
	case n < 0:
		l.close(c)
		return false
	case n == len(b):
		if c.last {
			l.finish(c, now)
			return false
		}
		return true
	}
	c.out = append(c.out, b[n:]...)
	c.state, c.by = writing, now+int64(l.s.o.WriteTimeout)
	l.want(c, syscall.EPOLLOUT)
	return false
}

// flush goes on with the answers of a connection. It reports whether all are written.
func (l *loop) flush(c *loopConn, now int64) bool {
	n := send(c.fd, c.out)
	if n < 0 {
		l.close(c)
		return false
	}
	if c.out = c.out[n:]; len(c.out) > 0 {
		return false
	}
	c.out = nil
	if c.last {
		l.finish(c, now)
		return false
	}
	c.by = now + int64(l.s.o.IdleTimeout)
	return true
}

// finish closes a connection whose last answer is written; if more may come, it lingers (conn.Close).
func (l *loop) finish(c *loopConn, now int64) {
	if !c.rude || syscall.Shutdown(c.fd, syscall.SHUT_WR) != nil {
		l.close(c)
		return
	}
	c.state, c.by, c.in, c.out = lingering, now+int64(min(lingerTime, l.s.o.ReadTimeout)), nil, nil
	l.want(c, syscall.EPOLLIN)
}

// close ends a connection.
func (l *loop) close(c *loopConn) {
	if c.fd < len(l.conns) && l.conns[c.fd] == c {
		l.conns[c.fd] = nil
	}
	l.count.Add(-1)
	_ = syscall.Close(c.fd) // leaves the epoll set
	l.s.admission.release(c.ip)
}

// back goes on with a connection whose request was answered.
func (l *loop) back(c *loopConn, now int64, clock terse.Millis) {
	c.state, c.used, c.by = reading, true, now+int64(l.s.o.IdleTimeout)
	if len(c.out) > 0 && !l.flush(c, now) {
		if l.conns[c.fd] == c && c.state == reading { // not closed, not lingering
			c.state, c.by = writing, now+int64(l.s.o.WriteTimeout)
			l.want(c, syscall.EPOLLOUT)
		}
		return
	}
	if c.last {
		l.finish(c, now)
		return
	}
	if l.want(c, syscall.EPOLLIN); len(c.in) > 0 && l.conns[c.fd] == c {
		buf := l.gather(c, 0)
		c.in = nil
		l.take(c, buf, now, clock)
	}
}

// hand gives a connection to fasthttp for good.
func (l *loop) hand(c *loopConn) {
	l.leave(c)
	l.conns[c.fd] = nil
	l.count.Add(-1)
	f := os.NewFile(uintptr(c.fd), "")
	nc, err := net.FileConn(f)
	if err != nil { // no descriptor is free
		refuse(c.fd, append(c.out, tooMany...))
		_ = f.Close()
		l.s.admission.release(c.ip)
		l.s.metrics.acceptErrs.Add(1)
		return
	}
	_ = f.Close() // nc has its own descriptor
	tc := l.s.conns.add(&conn{Conn: nc, s: l.s, ip: c.ip, peer: addr{c.peer}, prefix: c.in})
	out := c.out
	l.s.goroutines.Go(func() {
		if len(out) > 0 {
			_ = tc.SetWriteDeadline(time.Now().Add(l.s.o.WriteTimeout))
			if _, err := tc.Write(out); err != nil {
				tc.ended = true
				_ = tc.Close()
				return
			}
		}
		_ = l.s.fast.ServeConn(tc) // its error is about the connection
	})
}

// expire ends what has waited too long.
func (l *loop) expire(now int64) {
	stopping := l.s.stopping.Load()
	for _, c := range l.conns {
		if c == nil || c.state == away {
			continue
		}
		idle := c.state == reading && len(c.in) == 0
		switch {
		case stopping && idle && !pending(c.fd):
			l.close(c)
		case now < c.by:
		case c.state != reading || idle && c.used || c.headed:
			l.close(c)
		default:
			l.p.out = l.p.out[:0]
			l.p.tooSlow()
			c.last, c.rude = true, true
			l.write(c, l.p.out, now)
		}
	}
}

// end closes everything.
func (l *loop) end() {
	// Held to the end: post closes what comes back after it, and must not do so, and free the
	// descriptor for another use, while this looks at the connections.
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true // from here on nobody writes to wake
	list := l.inbox
	l.inbox = nil
	for _, c := range list {
		if c.fd >= len(l.conns) || l.conns[c.fd] != c {
			l.close(c) // new
		} else if c.state == away {
			c.state = reading
		}
	}
	for _, c := range l.conns {
		switch {
		case c == nil:
		case c.state == away:
			l.conns[c.fd] = nil
			_ = syscall.Shutdown(c.fd, syscall.SHUT_RDWR) // post closes it
		default:
			l.close(c)
		}
	}
	_ = syscall.Close(l.epoll)
	_ = syscall.Close(l.wake)
}

// pending reports whether a client has sent something that was not read yet: it is not idle.
func pending(fd int) bool {
	var b [1]byte
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
	return errno == 0 && n > 0
}

// temporary reports an error of a socket that is ready later.
func temporary(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR)
}

// rawRead reads without telling the scheduler: the socket does not block.
func rawRead(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), errno
}

// send writes what there is room for; -1 if the connection is broken.
func send(fd int, b []byte) int {
	for done := 0; done < len(b); {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[done])), uintptr(len(b)-done), sendFlags, 0, 0)
		switch {
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			return done
		case errno != 0:
			return -1
		default:
			done += int(n)
		}
	}
	return len(b)
}
