package api

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/terselink/terse"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// isBareConflict reports whether err is terse.ErrExists itself, wrapped or not, rather than
// one of the conflicts that have a reason.
func isBareConflict(err error) bool {
	e, ok := errors.AsType[*terse.Error](err)
	return ok && e.Code == terse.CodeConflict && e.Reason == ""
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	c := &call{requestID: requestID(r), request: r}
	sw := &statusWriter{ResponseWriter: w}
	h := w.Header()
	h.Set("X-Request-Id", c.requestID)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	s.metrics.inFlight.Inc()
	defer func() {
		s.metrics.inFlight.Dec()
		cut := s.recovered(sw, c, recover())
		s.finished(sw, r, c, time.Since(start))
		if cut {
			panic(http.ErrAbortHandler) // net/http then breaks the connection off
		}
	}()
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
	if err := s.origins.Check(r); err != nil {
		p := newProblem(http.StatusForbidden, "a browser sent this from another site")
		p.Code = "cross_origin"
		s.refuse(sw, c, p)
		return
	}
	s.route(sw, r, c)
}

// route calls the handler of the request, or answers what ServeMux would answer in
// plain text.
func (s *Server) route(w http.ResponseWriter, r *http.Request, c *call) {
	h, pattern := s.mux.Handler(r)
	if pattern != "" {
		if cleaned(r.URL.Path) {
			s.mux.ServeHTTP(w, r)
			return
		}
		// ServeMux would redirect to the clean path, which turns a POST into a GET.
		s.refuse(w, c, newProblem(http.StatusNotFound, s.nothing))
		return
	}
	probe := &probeWriter{header: http.Header{}}
	h.ServeHTTP(probe, r)
	if probe.status == http.StatusMethodNotAllowed {
		allow := probe.header.Get("Allow")
		s.refuse(w, c, newProblem(http.StatusMethodNotAllowed, "this path takes "+allow).header("Allow", allow))
		return
	}
	s.refuse(w, c, newProblem(http.StatusNotFound, s.nothing))
}

// cleaned reports whether ServeMux would take the path as it is.
func cleaned(path string) bool {
	return path != "" && path[0] == '/' && !strings.Contains(path, "//") && !strings.Contains(path, "/./") && !strings.Contains(path, "/../") &&
		!strings.HasSuffix(path, "/.") && !strings.HasSuffix(path, "/..")
}

// probeWriter learns what ServeMux's own handlers say.
type probeWriter struct {
	header http.Header
	status int
}

func (p *probeWriter) Header() http.Header         { return p.header }
func (p *probeWriter) WriteHeader(status int)      { p.status = status }
func (p *probeWriter) Write(b []byte) (int, error) { return len(b), nil }

// requestID takes over a sane id of the caller or makes one.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	ok := len(id) >= 1 && len(id) <= 64
	for i := range len(id) {
		ch := id[i]
		ok = ok && ('a' <= ch && ch <= 'z' || 'A' <= ch && ch <= 'Z' || '0' <= ch && ch <= '9' || ch == '-' || ch == '_' || ch == '.')
	}
	if ok {
		return id
	}
	return rand.Text()
}

// recovered turns a panic into an answer if that is still possible. It returns true if
// the connection has to be broken off.
func (s *Server) recovered(w *statusWriter, c *call, v any) bool {
	if v == nil {
		return false
	}
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		return true
	}
	s.metrics.panics.Inc()
	c.cause = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
	if w.status != 0 {
		return true
	}
	newProblem(http.StatusInternalServerError, "an internal error; the server's log has it under the request id").send(w, c.requestID)
	return false
}

// finished counts and logs an answer.
func (s *Server) finished(w *statusWriter, r *http.Request, c *call, took time.Duration) {
	status := w.status
	if status == 0 {
		status = http.StatusOK
	}
	id := ""
	if c.op != nil {
		id = c.op.ID
	}
	s.metrics.observe(id, status, took)
	if status >= 500 {
		s.o.Log.Error("request failed", "request_id", c.requestID, "operation", id, "status", status, "took", took, "error", c.cause)
		return
	}
	if s.requests.Add(1)%s.o.AccessEvery == 0 {
		s.o.Log.Debug("request", "request_id", c.requestID, "method", r.Method, "path", r.URL.Path, "operation", id,
			"status", status, "bytes", w.bytes, "took", took, "subject", c.who.Subject)
	}
}

// statusWriter remembers what was answered.
type statusWriter struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
