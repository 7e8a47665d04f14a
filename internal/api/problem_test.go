package api

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/terselink/terse"
)

// codes returns the codes that the root package declares, read from its source so that
// a new one cannot be forgotten here.
func codes(t *testing.T) []terse.Code {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../../error.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var list []terse.Code
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := v.Type.(*ast.Ident); ok && name.Name == "Code" && len(v.Values) == 1 {
			s, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, terse.Code(s))
		}
		return true
	})
	if len(list) < 12 {
		t.Fatalf("found %d codes in error.go", len(list))
	}
	return list
}

func TestStatusOfEveryCode(t *testing.T) {
	t.Parallel()
	op := &operation{Path: "/x/{id}", jsonBody: true}
	for _, code := range codes(t) {
		status, ok := statusOf[code]
		if !ok {
			t.Errorf("code %s has no status", code)
			continue
		}
		p := toProblem(op, fmt.Errorf("wrapped: %w", &terse.Error{Code: code, Reason: "because", Message: "text", Field: "tags[2]"}))
		if p.Status != status || p.Title != http.StatusText(status) {
			t.Errorf("%s: status %d %q, want %d", code, p.Status, p.Title, status)
		}
		if code == terse.CodeInternal {
			if strings.Contains(p.Detail, "text") || p.Code != "internal" || p.cause == nil {
				t.Errorf("an internal error shows %+v", p)
			}
			continue
		}
		if p.Code != "because" || len(p.Errors) != 1 || p.Errors[0].Location != "body.tags[2]" {
			t.Errorf("%s: %+v", code, p)
		}
		if retry := p.headers.Get("Retry-After") != ""; retry != (status == 503) {
			t.Errorf("%s: Retry-After is %v", code, retry)
		}
		if (p.headers.Get("WWW-Authenticate") != "") != (status == 401) {
			t.Errorf("%s: WWW-Authenticate %q", code, p.headers.Get("WWW-Authenticate"))
		}
	}
	if len(statusOf) != len(codes(t)) {
		t.Errorf("the table has %d codes, the root package %d", len(statusOf), len(codes(t)))
	}
}

func TestToProblem(t *testing.T) {
	t.Parallel()
	query := &operation{Path: "/api/v1/links"}
	path := &operation{Path: "/api/v1/domains/{host}", jsonBody: true}
	tests := []struct {
		name     string
		op       *operation
		err      error
		status   int
		code     string
		location string
	}{
		{"foreign error", query, errors.New("disk on fire"), 500, "internal", ""},
		{"deadline", query, fmt.Errorf("read: %w", context.DeadlineExceeded), 503, "timeout", ""},
		{"client gone", query, context.Canceled, 503, "unavailable", ""},
		{"query", query, terse.Invalid("limit", "x"), 422, "invalid", "query.limit"},
		{"path", path, terse.Invalid("host", "x"), 422, "invalid", "path.host"},
		{"body", path, terse.Invalid("scheme", "x"), 422, "invalid", "body.scheme"},
		{"own problem", path, newProblem(406, "x"), 406, "not_acceptable", ""},
		{"alias", path, terse.ErrAliasTaken, 409, "alias_taken", ""},
	}
	for _, tt := range tests {
		p := toProblem(tt.op, tt.err)
		location := ""
		if len(p.Errors) > 0 {
			location = p.Errors[0].Location
		}
		if p.Status != tt.status || p.Code != tt.code || location != tt.location {
			t.Errorf("%s: %d %s at %q, want %d %s at %q", tt.name, p.Status, p.Code, location, tt.status, tt.code, tt.location)
		}
		if strings.Contains(p.Detail, "fire") {
			t.Errorf("%s: the cause is shown: %s", tt.name, p.Detail)
		}
	}
}

func TestFormatTTL(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "1s", "1m30s", "5m", "1h0m1s", "1h30m", "4380h"} {
		d, err := parseTTL(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := formatTTL(d); got != s {
			t.Errorf("formatTTL(%q) = %q", s, got)
		}
	}
}

func TestCheckJSON(t *testing.T) {
	t.Parallel()
	nest := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for in, want := range map[string]int{
		`{}`: 0, ` [1, "a", null] `: 0, `7`: 0, nest(32): 0,
		nest(33): 422, `{"a":1,"a":2}`: 422, `{"a":{"b":1,"b":2}}`: 422,
		``: 400, ` `: 400, `{`: 400, `{}{}`: 400, `{} x`: 400, "{\"a\":\"\xff\"}": 400, `{'a':1}`: 400, `{"a":1,}`: 400, `NaN`: 400, "\xef\xbb\xbf{}": 400,
		`{"a":"\ud800"}`: 400,
	} {
		got := 0
		if p := checkJSON([]byte(in)); p != nil {
			got = p.Status
		}
		if got != want {
			t.Errorf("checkJSON(%.40q) = %d, want %d", in, got, want)
		}
	}
}
