//go:build linux

package redirect

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// These tests turn a loop by hand, over pairs of sockets, to meet moments that a running one is seldom seen in.

// stillLoop returns a loop of a world with the link /a, which does not run.
func stillLoop(t *testing.T, w *world) *loop {
	t.Helper()
	w.link("go.example.com", "a", "https://example.com/")
	w.want("/a", 302, "https://example.com/") // cached
	w.clicks.take()
	l, err := newLoop(w.server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !l.ended {
			l.end()
		}
	})
	return l
}

// join gives a loop one end of a new connection and returns the other. Neither end blocks.
func join(t *testing.T, l *loop) (c *loopConn, client int) {
	t.Helper()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(pair[1]) })
	peer := netip.MustParseAddrPort("127.0.0.1:4711")
	if why := l.s.admission.admit(peer.Addr()); why != nil {
		t.Fatalf("not admitted: %s", why)
	}
	l.count.Add(1)
	c = &loopConn{fd: pair[0], ip: peer.Addr(), peer: peer}
	l.post(c)
	l.open(time.Now())
	return c, pair[1]
}

func (l *loop) step(c *loopConn, events uint32) { l.event(c, events, time.Now().UnixNano(), testNow) }

// received reads what has come on a socket that does not block.
func received(t *testing.T, fd int) (got []byte, end bool) {
	t.Helper()
	var buf [16 << 10]byte
	for {
		n, err := syscall.Read(fd, buf[:])
		switch {
		case errors.Is(err, syscall.EAGAIN):
			return got, false
		case err != nil:
			t.Fatal(err)
		case n == 0:
			return got, true
		}
		got = append(got, buf[:n]...)
	}
}

const askA = "GET /a HTTP/1.1\r\nHost: go.example.com\r\n\r\n"

// TestClientsThatDoNotRead keep little memory, whatever they send, and lose no answer when they read at last.
func TestClientsThatDoNotRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	l := stillLoop(t, w)
	c, client := join(t, l)
	asked, most := 0, 0 // bytes
	requests := []byte(strings.Repeat(askA, 4000))
	for c.state == reading {
		for {
			n, err := syscall.Write(client, requests[asked%len(askA):])
			if errors.Is(err, syscall.EAGAIN) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			asked += n
		}
		l.step(c, syscall.EPOLLIN)
		most = max(most, cap(c.in)+cap(c.out))
	}
	if c.state != writing {
		t.Fatalf("state %d, want writing", c.state)
	}
	if limit := readSize + writeSize + 8<<10; most > limit {
		t.Errorf("%d bytes kept for a client that does not read, want at most %d", most, limit)
	}
	var all []byte
	for silent := 0; silent < 2; silent++ {
		got, _ := received(t, client)
		if all = append(all, got...); len(got) > 0 {
			silent = 0
		}
		if c.state == writing {
			l.step(c, syscall.EPOLLOUT)
		} else {
			l.step(c, syscall.EPOLLIN)
		}
	}
	if n := bytes.Count(all, []byte("Location: https://example.com/\r\n")); n != asked/len(askA) {
		t.Errorf("%d answers to %d requests", n, asked/len(askA))
	}
}

// TestClosedWhileWriting: the kernel may refuse to watch a connection whose answers have just been written.
// It is closed, and what it has asked is not answered to whoever has its descriptor then.
func TestClosedWhileWriting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := stillLoop(t, w)
	c, _ := join(t, l)
	c.state, c.out, c.in = writing, []byte("the end of an answer"), []byte(askA)
	l.want(c, syscall.EPOLLOUT)
	_ = syscall.Close(l.epoll)
	l.epoll = -1
	l.step(c, syscall.EPOLLOUT)
	if got := w.clicks.take(); len(got) > 0 {
		t.Errorf("%d clicks on a closed connection", len(got))
	}
	if open := w.server.admission.open.Load(); open != 0 || l.conns[c.fd] == c {
		t.Errorf("%d connections counted, want 0", open)
		w.server.admission.open.Store(0) // Shutdown waits for it
	}
}

// TestAnswersComeBackAtTheEnd: a connection that comes back while the loop ends is closed after it: its
// descriptor must not be free for another use while the loop still goes through them.
func TestAnswersComeBackAtTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet, func(o *Options) { o.MaxConnsPerIP = 10 })
	l := stillLoop(t, w)
	join(t, l)
	c, _ := join(t, l)
	c.state = away
	var all sync.WaitGroup
	w.server.admission.mu.Lock() // holds the loop while it closes the other one
	all.Go(l.end)
	for l.count.Load() == 2 {
		runtime.Gosched()
	}
	if l.mu.TryLock() {
		l.mu.Unlock()
		t.Error("a connection could come back in the middle of the end")
	}
	all.Go(func() { l.post(c) })
	w.server.admission.mu.Unlock()
	all.Wait()
	if open := w.server.admission.open.Load(); open != 0 {
		t.Errorf("%d connections still open", open)
	}
}

// TestNoDescriptorToHandOver: a connection that fasthttp should take when the process may open no more files
// gets the answers that it has coming, and a 503.
func TestNoDescriptorToHandOver(t *testing.T) { // not parallel: the limit is the process's
	w := newWorld(t, quiet)
	l := stillLoop(t, w)
	c, client := join(t, l)
	if _, err := syscall.Write(client, []byte(askA+"POST /a HTTP/1.1\r\nHost: go.example.com\r\nContent-Length: 3\r\n\r\nabc")); err != nil {
		t.Fatal(err)
	}
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	var fill []int
	defer func() {
		for _, fd := range fill {
			_ = syscall.Close(fd)
		}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
			t.Fatal(err)
		}
	}()
	for {
		fd, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if errors.Is(err, syscall.EMFILE) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if fill = append(fill, fd); len(fill) == 1 {
			few := was
			few.Cur = uint64(fd) + 1
			if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.step(c, syscall.EPOLLIN)
	got, end := received(t, client)
	if !end || !bytes.HasPrefix(got, []byte("HTTP/1.1 302 ")) || bytes.Count(got, []byte("HTTP/1.1 503 ")) != 1 {
		t.Errorf("got %q (end: %v), want the 302, a 503 and the end", got, end)
	}
	if open := w.server.admission.open.Load(); open != 0 {
		t.Errorf("%d connections counted, want 0", open)
	}
}

// TestFloodDoesNotHoldTheListener: accepting pauses while more connections wait, so that closing the listener, which
// waits for that, comes to its turn.
func TestFloodDoesNotHoldTheListener(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quiet)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	raw, err := w.server.acceptor(ln.(*net.TCPListener))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.server.startLoops(); err != nil {
		t.Fatal(err)
	}
	for range acceptBatch + 20 {
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
	}
	for _, want := range []int{acceptBatch, 20} {
		var n int
		var fault error
		if err := raw.Control(func(fd uintptr) { n, fault = w.server.acceptSome(int(fd)) }); err != nil {
			t.Fatal(err)
		}
		if n != want || (fault == nil) != (want == acceptBatch) || fault != nil && !errors.Is(fault, syscall.EAGAIN) {
			t.Errorf("%d connections accepted, %v; want %d", n, fault, want)
		}
	}
}
