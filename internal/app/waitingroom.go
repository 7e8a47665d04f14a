package app

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"
)

// waitingRoom answers on the listener of a plane while the server cannot start yet: 503 to
// visitors and programs, so that a load balancer sees a process that lives and is not ready. Close leaves the
// listener open for the plane.
type waitingRoom struct {
	server *http.Server
	ln     *net.TCPListener
	done   chan struct{}
	closed bool
}

// openRooms answers on the listeners that have no plane yet.
func (s *server) openRooms(redirecting bool) {
	text := "redirect: down\nstore: down (waiting for the database)\n"
	if redirecting {
		text = "redirect: ok (from what was kept on disk)\nstore: down (waiting for the database)\n"
	} else {
		s.redirectRoom = openWaitingRoom(s.redirectLn, text)
		s.onStop("waiting room of visitors", func(context.Context) error { s.redirectRoom.close(); return nil })
	}
	s.controlRoom = openWaitingRoom(s.controlLn, text)
	s.onStop("waiting room", func(context.Context) error { s.controlRoom.close(); return nil })
}

// openWaitingRoom serves on ln, with text as the body of /readyz; nil if ln is no TCP listener.
func openWaitingRoom(ln net.Listener, text string) *waitingRoom {
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return nil
	}
	w := &waitingRoom{ln: tcp, done: make(chan struct{}), server: &http.Server{
		Handler:           notReady(text),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, IdleTimeout: time.Second,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo),
	}}
	go func() {
		defer close(w.done)
		_ = w.server.Serve(lent{tcp}) // it ends when Accept is interrupted
	}()
	return w
}

// notReady answers as both planes do of a process that lives and cannot do anything yet.
func notReady(readyz string) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		h := rw.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Connection", "close")
		switch r.URL.Path {
		case "/livez":
			rw.WriteHeader(http.StatusNoContent)
			return
		case "/healthz":
			h.Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = io.WriteString(rw, "ok\n")
			return
		}
		h.Set("Retry-After", "5")
		if r.URL.Path == "/readyz" {
			h.Set("Content-Type", "text/plain; charset=utf-8")
			rw.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(rw, readyz)
			return
		}
		h.Set("Content-Type", "application/problem+json")
		rw.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(rw, `{"title":"Service Unavailable","status":503,"code":"unavailable","detail":"the server waits for its database"}`+"\n")
	})
}

// close ends the server and gives the listener back. A second call does nothing.
func (w *waitingRoom) close() {
	if w == nil || w.closed {
		return
	}
	w.closed = true
	_ = w.ln.SetDeadline(time.Unix(1, 0)) // interrupts Accept
	<-w.done
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	if w.server.Shutdown(ctx) != nil {
		_ = w.server.Close()
	}
	cancel()
	_ = w.ln.SetDeadline(time.Time{})
}

// lent is a listener that its server may use and not close. To the server it is closed once its
// deadline has passed: an http.Server tries again after any other error.
type lent struct{ *net.TCPListener }

// Accept implements net.Listener.
func (l lent) Accept() (net.Conn, error) {
	c, err := l.TCPListener.Accept()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = net.ErrClosed
	}
	return c, err
}

// Close implements net.Listener.
func (lent) Close() error { return nil }
