package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
)

const (
	// maxBody bounds JSON bodies; only bulk takes more.
	maxBody = 1 << 20
	// bodyTimeout is how long a JSON body may take to arrive.
	bodyTimeout = 10 * time.Second
	// callTimeout bounds the work of one operation other than bulk.
	callTimeout = 30 * time.Second
)

// workspaceHeader chooses the workspace that the owner acts for.
const workspaceHeader = "Terse-Workspace"

// operation describes one operation once: its route, who may call it, its metric and
// its entry in the OpenAPI document.
type operation struct {
	ID          string
	Method      string
	Path        string
	Tag         string
	Summary     string
	Description string
	Scope       auth.Scope // every operation demands exactly one
	Status      int        // of success
	Errors      []int      // beyond those that any operation may give

	owner    ownerFunc     // finds the node that has what a request is about; nil: any node will do
	limit    time.Duration // of the work; 0: callTimeout
	jsonBody bool
	stream   bool // bulk: the handler reads the body itself, without a deadline for the whole
}

// locate says where the field of an error is in a request of the operation.
func (op *operation) locate(field string) string {
	switch {
	case strings.Contains(op.Path, "{"+field+"}"):
		return "path." + field
	case op.jsonBody:
		return "body." + field
	}
	return "query." + field
}

// document returns the operation's entry in the OpenAPI document.
func (op *operation) document() huma.Operation {
	errs := append([]int{400, 401, 403, 404, 422, 429, 500, 503}, op.Errors...)
	if op.Method == http.MethodPost || op.Method == http.MethodPatch {
		errs = append(errs, 413, 415)
	}
	h := huma.Operation{
		OperationID: op.ID, Method: op.Method, Path: op.Path, Tags: []string{op.Tag},
		Summary: op.Summary, Description: op.Description, DefaultStatus: op.Status, Errors: errs,
		Security: []map[string][]string{{"bearer": {string(op.Scope)}}},
		// The body was read and limited before huma sees it; one more byte than it
		// can have, because huma refuses a body of exactly its limit.
		MaxBodyBytes: maxBody + 1, BodyReadTimeout: -1,
		Parameters: []*huma.Param{{
			Name: workspaceHeader, In: "header", Schema: &huma.Schema{Type: huma.TypeString},
			Description: "The workspace to act for. Only the owner key may name another than its own.",
		}},
	}
	if op.Method == http.MethodPost {
		kept := "24 hours gets the same answer and does nothing."
		if op.stream { // the ledger of a bulk request, not the record of an answer
			kept = "seven days gets the same links and makes no others, also if the first request was cut."
		}
		h.Parameters = append(h.Parameters, &huma.Param{
			Name: idempotencyHeader, In: "header", Schema: &huma.Schema{Type: huma.TypeString},
			Description: "1 to 255 printable characters. A repetition with the same key and body within " + kept,
		})
	}
	return h
}

// call is what is known about the request in hand. It belongs to its goroutine.
type call struct {
	requestID string
	request   *http.Request // for what it says of who sent it
	op        *operation
	who       auth.Identity
	workspace terse.WorkspaceID
	named     bool // the request named the workspace itself
	query     map[string][]string
	idem      *idemRequest // nil without an Idempotency-Key
	cause     error        // why the answer is a 5xx
}

type callKey struct{}

// callOf returns the call of a request's context, nil if it has none.
func callOf(ctx context.Context) *call {
	if ctx == nil {
		return nil
	}
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// register mounts an operation that huma serves. An input type has a field Body if
// the operation takes one.
func register[I, O any](s *Server, op operation, fn func(ctx context.Context, c *call, in *I) (*O, error)) {
	_, op.jsonBody = reflect.TypeFor[I]().FieldByName("Body")
	s.operations[op.ID] = &op
	huma.Register(s.huma, op.document(), func(ctx context.Context, in *I) (*O, error) {
		c := callOf(ctx)
		out, err := fn(ctx, c, in)
		if err != nil {
			p := toProblem(&op, err)
			p.RequestID, c.cause = c.requestID, p.cause
			return nil, p
		}
		return out, nil
	})
}

// mount routes an operation to h behind everything that is the same for all:
// authentication, scope, workspace, body limits, idempotency.
func (s *Server) mount(op *operation, h http.HandlerFunc) {
	s.metrics.add(op.ID)
	s.mux.HandleFunc(op.Method+" "+op.Path, func(w http.ResponseWriter, r *http.Request) {
		c := callOf(r.Context())
		c.op = op
		if err := s.admit(c, r); err != nil {
			s.refuse(w, c, toProblem(op, err))
			return
		}
		rc := http.NewResponseController(w)
		if op.stream {
			// The handler sets deadlines as it goes. A writer without deadlines, as in tests, is fine.
			_ = rc.SetWriteDeadline(time.Time{})
			s.nearest(c, r, nil, h)(w, r)
			return
		}
		limit := callTimeout
		if op.limit > 0 {
			limit = op.limit
			_ = rc.SetWriteDeadline(time.Now().Add(limit + 2*bodyTimeout))
		}
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		r = r.WithContext(ctx)
		if r.ContentLength != 0 {
			_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout))
		}
		c.query = r.URL.Query()
		h := h
		if op.jsonBody {
			body, p := readJSON(r)
			if p != nil {
				s.refuse(w, c, p)
				return
			}
			// A deadline that passes now would end the context of a slow operation.
			_ = rc.SetReadDeadline(time.Time{})
			r.Body = io.NopCloser(bytes.NewReader(body))
			h = s.nearest(c, r, body, h)
			if r.Header.Get(idempotencyHeader) != "" && op.Method == http.MethodPost {
				s.serveOnce(w, r, c, body, h)
				return
			}
		} else {
			h = s.nearest(c, r, nil, h)
		}
		h(w, r)
	})
}

// admit authenticates the request and checks scope and workspace.
func (s *Server) admit(c *call, r *http.Request) error {
	token := bearer(r.Header.Get("Authorization"))
	who, known := s.o.Auth.Known(token)
	if !known {
		ip := s.clientIP(r)
		if wait := s.failures.Blocked(ip); wait > 0 && token != "" {
			return newRateLimited("too many wrong keys from this address", wait)
		}
		var err error
		if who, err = s.o.Auth.Authenticate(r.Context(), token); err != nil {
			if terse.ErrorCode(err) == terse.CodeUnauthorized && token != "" {
				s.failures.Fail(ip)
			}
			return err
		}
	}
	c.who, c.workspace = who, who.Workspace
	if s.o.Rate != nil && c.op.Scope != auth.ScopeEdgeUse { // an edge asks for its visitors, and is not to fail them
		if wait := s.o.Rate(r.Context(), who.Subject); wait > 0 {
			return newRateLimited("the key has made too many requests: see api.requests_per_second", wait)
		}
	}
	if !who.Allows(c.op.Scope) {
		return &terse.Error{Code: terse.CodeForbidden, Message: "the key lacks the scope " + string(c.op.Scope)}
	}
	name := r.Header.Get(workspaceHeader)
	if name == "" {
		return nil
	}
	id, err := terse.ParseWorkspaceID(name)
	if err == nil {
		_, err = s.o.Auth.GetWorkspace(r.Context(), &who, id)
	}
	switch terse.ErrorCode(err) {
	case terse.CodeInvalid, terse.CodeNotFound:
		return newProblem(http.StatusNotFound, "there is no such workspace").at("header."+workspaceHeader, "there is no such workspace")
	}
	if err != nil {
		return err
	}
	c.workspace, c.named = id, true
	return nil
}

// stillAdmitted reports whether the key of a stream may go on: it may have been revoked since, or have
// expired. While nobody can tell, it may.
func (s *Server) stillAdmitted(r *http.Request, c *call) bool {
	who, err := s.o.Auth.Authenticate(r.Context(), bearer(r.Header.Get("Authorization")))
	if err != nil {
		return terse.ErrorCode(err) != terse.CodeUnauthorized
	}
	return who.Allows(c.op.Scope)
}

// bearer returns the credential of an Authorization header, "" if it has none.
func bearer(header string) string {
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

func newRateLimited(why string, wait time.Duration) *Problem {
	p := newProblem(http.StatusTooManyRequests, why)
	p.Code = string(terse.CodeRateLimited)
	return p.header("Retry-After", itoa(int64((wait+time.Second-1)/time.Second)))
}

// clientIP returns the client's address; the zero Addr if it is not known.
func (s *Server) clientIP(r *http.Request) netip.Addr {
	peer := peerOf(r)
	if s.o.ClientIP == nil {
		return peer
	}
	return s.o.ClientIP.Resolve(peer, r.Header.Values("X-Forwarded-For"), r.Header.Values("Forwarded"))
}

func peerOf(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap()
}

// readJSON reads the body of an operation that takes JSON.
func readJSON(r *http.Request) ([]byte, *Problem) {
	if !isJSON(r.Header.Get("Content-Type")) {
		return nil, newProblem(http.StatusUnsupportedMediaType, "the body must be application/json").header("Accept", "application/json")
	}
	if r.Header.Get("Content-Encoding") != "" {
		return nil, newProblem(http.StatusUnsupportedMediaType, "only bulk bodies may be compressed")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			return nil, newProblem(http.StatusRequestTimeout, "the body took too long")
		}
		return nil, newProblem(http.StatusBadRequest, "the body could not be read")
	}
	if len(body) > maxBody {
		p := newProblem(http.StatusRequestEntityTooLarge, "a body has at most 1 MiB")
		p.Code = string(terse.CodeTooLarge)
		return nil, p
	}
	if p := checkJSON(body); p != nil {
		return nil, p
	}
	return body, nil
}

// refuse answers with a problem.
func (s *Server) refuse(w http.ResponseWriter, c *call, p *Problem) {
	c.cause = p.cause
	p.send(w, c.requestID)
}
