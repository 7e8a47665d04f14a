package client

import (
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
)

// maxErrorBody is how much of an answer that is an error is read, in bytes.
const maxErrorBody = 64 << 10

// Error is an answer of the server that is not a success: problem+json (RFC 9457), or what
// something between here and the server answered in its place.
type Error struct {
	Status     int           // HTTP status
	Code       string        // what programs test, such as "alias_taken"; "" if the answer was not from Terse
	Title      string        // the status in words
	Detail     string        // what happened, for people
	Fields     []FieldError  // what is wrong with which part of the request
	RequestID  string        // names the request in the server's log
	RetryAfter time.Duration // how long the server asks to wait; 0: it does not say
}

// FieldError is one fault of a request.
type FieldError struct {
	Location string `json:"location"` // such as "body.destination"
	Message  string `json:"message"`
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Detail)
	if e.Detail == "" {
		b.WriteString(e.Title)
	}
	for i, f := range e.Fields {
		// The detail of most answers is the message of their only fault.
		if f.Message == e.Detail || strings.HasSuffix(e.Detail, ": "+f.Message) {
			continue
		}
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		b.WriteString(sep + strings.TrimPrefix(f.Location, "body.") + ": " + f.Message)
	}
	code := e.Code
	if code == "" {
		code = "status " + strconv.Itoa(e.Status)
	}
	fmt.Fprintf(&b, " (%s)", code)
	return b.String()
}

// temporary reports whether the same request may succeed later.
func (e *Error) temporary() bool {
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	case http.StatusConflict:
		return e.Code == "idempotency_in_progress"
	}
	return false
}

// problem is the body of problem+json.
type problem struct {
	Title     string       `json:"title"`
	Detail    string       `json:"detail"`
	Code      string       `json:"code"`
	Errors    []FieldError `json:"errors"`
	RequestID string       `json:"request_id"`
}

// readError makes an Error of an answer.
func readError(resp *http.Response) *Error {
	e := &Error{Status: resp.StatusCode, Title: http.StatusText(resp.StatusCode), RequestID: resp.Header.Get("X-Request-Id")}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 && s < 1<<30 {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil {
		e.Detail = "the answer was cut: " + err.Error()
		return e
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	var p problem
	if (kind == "application/problem+json" || kind == "application/json") && json.Unmarshal(body, &p) == nil {
		e.Code, e.Detail, e.Fields = p.Code, p.Detail, p.Errors
		if p.Title != "" {
			e.Title = p.Title
		}
		if p.RequestID != "" {
			e.RequestID = p.RequestID
		}
		return e
	}
	e.Detail = fmt.Sprintf("answered %s, but not as a Terse control plane does", resp.Status)
	if to := resp.Header.Get("Location"); to != "" {
		e.Detail += " (a redirect to " + to + ")"
	} else if text := excerpt(body); text != "" && !strings.HasPrefix(text, "<") {
		e.Detail += ": " + text
	}
	return e
}

// excerpt returns the first line of a body if it is text.
func excerpt(body []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	if !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' }) {
		return ""
	}
	if len(line) > 200 {
		line = strings.ToValidUTF8(line[:200], "") + "…"
	}
	return line
}
