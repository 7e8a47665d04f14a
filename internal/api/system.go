package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/terselink/terse/internal/auth"
)

// State of a dependency.
type State string

// The states.
const (
	OK       State = "ok"
	Degraded State = "degraded" // works, but not as it should; the server stays ready
	Down     State = "down"     // the server is not ready
)

// Check is the state of one dependency.
type Check struct {
	Name   string // lower case, no spaces: "store"
	State  State
	Detail string // for people, one line; "" if there is nothing to say
}

func (s *Server) registerSystem() {
	register(s, operation{
		ID: "getSystem", Method: http.MethodGet, Path: "/api/v1/system", Tag: "System", Scope: auth.ScopeSystemRead, Status: http.StatusOK,
		Summary: "Version and shape of the instance",
	}, func(_ context.Context, _ *call, _ *struct{}) (*struct{ Body System }, error) {
		return &struct{ Body System }{s.o.System}, nil
	})
}

// serveHealth says that the process is alive, and whether it is the node that is asked for by its id.
func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	switch r.URL.Query().Get("node") {
	case "":
		fmt.Fprintln(w, "ok")
	case s.o.Node:
		fmt.Fprintln(w, "ok this node")
	default:
		w.WriteHeader(http.StatusMisdirectedRequest)
		fmt.Fprintln(w, "another node")
	}
}

// serveReady says whether the server can serve, with one line for each dependency.
func (s *Server) serveReady(w http.ResponseWriter, _ *http.Request) {
	var b strings.Builder
	status := http.StatusOK
	for _, c := range s.o.Ready() {
		if c.State == Down {
			status = http.StatusServiceUnavailable
		}
		fmt.Fprintf(&b, "%s: %s", c.Name, c.State)
		if c.Detail != "" {
			// One line a dependency, whatever an error message holds.
			fmt.Fprintf(&b, " (%s)", strings.Join(strings.Fields(c.Detail), " "))
		}
		b.WriteByte('\n')
	}
	if b.Len() == 0 {
		b.WriteString("ok\n")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprint(w, b.String())
}

// guardMetrics lets programs on this machine read metrics, and others with a key of
// scope system:read. A request that a proxy forwarded is not from this machine.
func (s *Server) guardMetrics(h http.Handler) http.Handler {
	op := &operation{ID: noOperation, Path: "/metrics", Scope: auth.ScopeSystemRead}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		forwarded := r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != ""
		if forwarded || !peerOf(r).IsLoopback() {
			c := callOf(r.Context())
			c.op = op
			if err := s.admit(c, r); err != nil {
				s.refuse(w, c, toProblem(op, err))
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}
