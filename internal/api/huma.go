package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// huma's hooks are variables of its package. They are set once, here, before any
// API exists, and never again; nothing else in this program uses huma.
func init() {
	huma.ValidateStrictCasing = true
	huma.NewError = func(status int, detail string, errs ...error) huma.StatusError {
		return fromHuma(context.Background(), status, detail, errs)
	}
	huma.NewErrorWithContext = func(ctx huma.Context, status int, detail string, errs ...error) huma.StatusError {
		return fromHuma(ctx.Context(), status, detail, errs)
	}
}

// jsonFormat is JSON as the v2 semantics have it: names are case-sensitive and
// unknown ones refused.
var jsonFormat = huma.Format{Marshal: marshalTo, Unmarshal: unmarshal}

// marshalTo writes v and a line feed. What it writes for equal values is equal.
func marshalTo(w io.Writer, v any) error {
	b, err := marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

func marshal(v any) ([]byte, error) {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// mustMarshal is marshal for types that cannot fail.
func mustMarshal(v any) []byte {
	b, err := marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// locationSeparator stands between location and message in a bodyError, because
// huma keeps nothing of an error but its text.
const locationSeparator = "\x00"

// bodyError is a value that does not fit its type. fromHuma takes it apart.
type bodyError struct{ location, message string }

func (e *bodyError) Error() string { return e.location + locationSeparator + e.message }

func unmarshal(data []byte, v any) error {
	err := json.Unmarshal(data, v, json.RejectUnknownMembers(true))
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		message := "not a valid value"
		if errors.Is(e.Err, json.ErrUnknownName) {
			message = "unexpected property"
		}
		return &bodyError{location: location(e.JSONPointer), message: message}
	}
	return err
}

// location turns a JSON pointer such as /tags/3 into body.tags[3].
func location(p jsontext.Pointer) string {
	var b strings.Builder
	b.WriteString("body")
	for token := range p.Tokens() {
		if token != "" && strings.Trim(token, "0123456789") == "" {
			b.WriteString("[" + token + "]")
		} else {
			b.WriteString("." + token)
		}
	}
	return b.String()
}

// adapter mounts huma's operations behind Server.mount, so that every operation,
// also one that huma does not serve, goes through the same checks.
type adapter struct{ s *Server }

// Handle implements huma.Adapter.
func (a adapter) Handle(op *huma.Operation, h func(huma.Context)) {
	a.s.mount(a.s.operations[op.OperationID], func(w http.ResponseWriter, r *http.Request) {
		c := callOf(r.Context())
		if p := repeated(op, c.query); p != nil {
			a.s.refuse(w, c, p)
			return
		}
		h(humago.NewContext(op, r, w))
	})
}

// repeated refuses a query that gives a parameter more than once, unless it is a list: huma would take the first.
func repeated(op *huma.Operation, query url.Values) *Problem {
	for _, name := range slices.Sorted(maps.Keys(query)) {
		list := slices.ContainsFunc(op.Parameters, func(p *huma.Param) bool {
			return p.In == "query" && p.Name == name && p.Schema != nil && p.Schema.Type == huma.TypeArray
		})
		if len(query[name]) > 1 && !list {
			const message = "is given more than once"
			return newProblem(http.StatusUnprocessableEntity, "query."+name+": "+message).at("query."+name, message)
		}
	}
	return nil
}

// ServeHTTP implements huma.Adapter.
func (a adapter) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.s.ServeHTTP(w, r) }

// Optional is a field of a PATCH body: absent (unchanged), null (cleared) or a value.
type Optional[T any] struct {
	Set   bool
	Null  bool
	Value T
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (o *Optional[T]) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	o.Set, o.Null = true, d.PeekKind() == 'n'
	return json.UnmarshalDecode(d, &o.Value)
}

// Schema implements huma.SchemaProvider.
func (o Optional[T]) Schema(r huma.Registry) *huma.Schema {
	s := *huma.SchemaFromType(r, reflect.TypeFor[T]())
	s.Nullable = true
	return &s
}

// isJSON reports whether a Content-Type is that of a JSON body; none counts as JSON.
func isJSON(contentType string) bool {
	mediaType, _, _ := strings.Cut(contentType, ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	return mediaType == "" || mediaType == "application/json"
}

// maxDepth is how deep a body may nest.
const maxDepth = 32

// checkJSON refuses, before anything is decoded, what is not one JSON text (400),
// and what no operation can want: repeated names and deep nesting (422).
func checkJSON(body []byte) *Problem {
	d := jsontext.NewDecoder(bytes.NewReader(body))
	for {
		_, err := d.ReadToken()
		switch {
		case err == nil && d.StackDepth() > maxDepth:
			return newProblem(http.StatusUnprocessableEntity, "the body nests too deep").at("body", "nests deeper than 32 levels")
		case err == nil && d.StackDepth() == 0:
			if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
				return newProblem(http.StatusBadRequest, "the body is not one JSON value").at("body", "something follows the JSON value")
			}
			return nil
		case errors.Is(err, io.EOF):
			return newProblem(http.StatusBadRequest, "a JSON body is required").at("body", "is empty")
		case errors.Is(err, jsontext.ErrDuplicateName):
			where := "body"
			if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
				where = location(e.JSONPointer)
			}
			return newProblem(http.StatusUnprocessableEntity, "the body has a name twice").at(where, "is there twice")
		case err != nil:
			p := newProblem(http.StatusBadRequest, "the body is not valid JSON")
			if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
				p.at(location(e.JSONPointer), syntaxMessage(e))
			}
			return p
		}
	}
}

// syntaxMessage says what is wrong without repeating the input.
func syntaxMessage(e *jsontext.SyntacticError) string {
	text := "not valid JSON"
	switch {
	case errors.Is(e.Err, io.ErrUnexpectedEOF):
		text = "the JSON ends too early"
	case strings.Contains(e.Error(), "UTF-8"):
		text = "not valid UTF-8"
	}
	return text + " at byte " + itoa(e.ByteOffset)
}
