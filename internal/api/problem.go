package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"github.com/terselink/terse"
)

// statusOf is the one table from error codes to HTTP status.
var statusOf = map[terse.Code]int{
	terse.CodeInvalid:        http.StatusUnprocessableEntity,
	terse.CodeNotFound:       http.StatusNotFound,
	terse.CodeConflict:       http.StatusConflict,
	terse.CodeGone:           http.StatusGone,
	terse.CodeUnauthorized:   http.StatusUnauthorized,
	terse.CodeForbidden:      http.StatusForbidden,
	terse.CodeRateLimited:    http.StatusTooManyRequests,
	terse.CodeTooLarge:       http.StatusRequestEntityTooLarge,
	terse.CodePrecondition:   http.StatusPreconditionFailed,
	terse.CodeUnavailable:    http.StatusServiceUnavailable,
	terse.CodeUnknownOutcome: http.StatusServiceUnavailable,
	terse.CodeInternal:       http.StatusInternalServerError,
}

// codeOf names the errors of HTTP itself, which no layer below knows.
var codeOf = map[int]string{
	http.StatusBadRequest:           "malformed",
	http.StatusNotFound:             string(terse.CodeNotFound),
	http.StatusMethodNotAllowed:     "method_not_allowed",
	http.StatusRequestTimeout:       "timeout",
	http.StatusUnsupportedMediaType: "unsupported_media_type",
	http.StatusUnprocessableEntity:  string(terse.CodeInvalid),
	http.StatusInternalServerError:  string(terse.CodeInternal),
}

// retryAfter is what 503 answers ask clients to wait.
const retryAfter = time.Second

// Problem is the error answer of every operation (RFC 9457).
type Problem struct {
	Type      string         `json:"type" doc:"Always about:blank: code says what happened." example:"about:blank"`
	Title     string         `json:"title" doc:"The HTTP status in words." example:"Unprocessable Entity"`
	Status    int            `json:"status" doc:"The HTTP status." example:"422"`
	Detail    string         `json:"detail" doc:"What went wrong, for people." example:"destination: only http and https URLs can be shortened"`
	Code      string         `json:"code" doc:"What went wrong, for programs." example:"invalid_destination"`
	Errors    []ProblemField `json:"errors" doc:"The parts of the request that are at fault; empty if it is none in particular."`
	RequestID string         `json:"request_id" doc:"Also in the header X-Request-Id and in the server's log."`

	headers http.Header
	cause   error // for the log of 5xx answers
}

// ProblemField is one part of the request that is at fault.
type ProblemField struct {
	Location string `json:"location" doc:"Where it is." example:"body.destination"`
	Message  string `json:"message" doc:"What is wrong with it."`
}

// Error implements error.
func (p *Problem) Error() string { return p.Detail }

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.cause }

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders implements huma.HeadersError.
func (p *Problem) GetHeaders() http.Header { return p.headers }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// newProblem returns a problem of HTTP itself.
func newProblem(status int, detail string) *Problem {
	code, ok := codeOf[status]
	if !ok {
		code = strings.ReplaceAll(strings.ToLower(http.StatusText(status)), " ", "_")
	}
	return &Problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, Code: code,
		Errors: []ProblemField{},
	}
}

// at adds the part of the request that is at fault.
func (p *Problem) at(location, message string) *Problem {
	p.Errors = append(p.Errors, ProblemField{Location: location, Message: message})
	return p
}

// header adds a response header.
func (p *Problem) header(name, value string) *Problem {
	if p.headers == nil {
		p.headers = http.Header{}
	}
	p.headers.Set(name, value)
	return p
}

// toProblem translates the error of any layer. op says where its Field is found.
func toProblem(op *operation, err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		err = &terse.Error{Code: terse.CodeUnavailable, Reason: "timeout", Message: "the answer took too long", Err: err}
	case errors.Is(err, context.Canceled):
		err = &terse.Error{Code: terse.CodeUnavailable, Message: "the request was given up", Err: err}
	}
	e, ok := errors.AsType[*terse.Error](err)
	if !ok || e.Code == terse.CodeInternal {
		p := newProblem(http.StatusInternalServerError, "an internal error; the server's log has it under the request id")
		p.cause = err
		return p
	}
	p := newProblem(statusOf[e.Code], e.Message)
	p.Code = e.PublicCode()
	if e.Field != "" {
		p.Detail = e.Field + ": " + e.Message
		p.at(op.locate(e.Field), e.Message)
	}
	switch e.Code {
	case terse.CodeUnauthorized:
		p.header("WWW-Authenticate", `Bearer realm="terse"`)
	case terse.CodeUnavailable, terse.CodeUnknownOutcome:
		p.header("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
		p.cause = err
	}
	return p
}

// fieldCodes are the public codes of fields whose absence or wrong type huma
// notices before the rule that owns the code does.
var fieldCodes = map[string]string{
	"body.destination": "invalid_destination",
	"body.scopes":      "invalid_scope",
}

// fromHuma makes the problem for what huma itself refuses.
func fromHuma(ctx context.Context, status int, detail string, errs []error) *Problem {
	p := newProblem(status, detail)
	for _, err := range errs {
		d, ok := err.(huma.ErrorDetailer)
		if !ok {
			if err != nil {
				p.cause = err
			}
			continue
		}
		// The value at fault is left out on purpose: it may be a secret.
		f := ProblemField{Location: d.ErrorDetail().Location, Message: d.ErrorDetail().Message}
		if name, missing := missingProperty(f.Message); missing {
			f = ProblemField{Location: f.Location + "." + name, Message: "is required"}
		}
		if location, message, found := strings.Cut(f.Message, locationSeparator); found {
			f = ProblemField{Location: location, Message: message}
		}
		p.Errors = append(p.Errors, f)
	}
	slices.SortFunc(p.Errors, func(a, b ProblemField) int { return strings.Compare(a.Location, b.Location) })
	if len(p.Errors) > 0 && status < 500 {
		first := p.Errors[0]
		p.Detail = strings.TrimPrefix(first.Location, "body.") + ": " + first.Message
		if code, ok := fieldCodes[first.Location]; ok && len(p.Errors) == 1 {
			p.Code = code
		}
	}
	if c := callOf(ctx); c != nil {
		p.RequestID = c.requestID
	}
	return p
}

// missingProperty extracts the name from huma's message about a required property.
func missingProperty(message string) (string, bool) {
	before, after, _ := strings.Cut(validation.MsgExpectedRequiredProperty, "%s")
	name, ok := strings.CutPrefix(message, before)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(name, after)
}

// send writes the problem.
func (p *Problem) send(w http.ResponseWriter, requestID string) {
	p.RequestID = requestID
	h := w.Header()
	for name, values := range p.headers {
		h[name] = values
	}
	h.Set("Content-Type", p.ContentType(""))
	b := mustMarshal(p)
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(p.Status)
	_, _ = w.Write(b) // the client is gone: there is nobody to tell
}
