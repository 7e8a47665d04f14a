package links

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/terselink/terse"
)

// maxDepth is how deep a JSON row may nest.
const maxDepth = 32

// parseRow reads one row into n, whose strings may point into row and, for values of a
// campaign, into v.
func (p *pipeline) parseRow(v *valueParser, row []byte, n *NewLink) error {
	if p.campaign != nil {
		return p.campaign.parse(v, p.o.In, p.header, row, n)
	}
	if p.o.In == CSV {
		*n = NewLink{}
		return p.header.parse(row, n)
	}
	return parseJSON(row, n)
}

// parseJSON reads a link object. Rows of a few plain strings take a scan; everything
// else goes to the full parser, which decides the same for them (FuzzParseJSON).
func parseJSON(row []byte, n *NewLink) error {
	*n = NewLink{}
	if parsePlainJSON(row, n) {
		return nil
	}
	*n = NewLink{}
	return parseFullJSON(row, n)
}

// plainByte marks the bytes of a JSON string that stand for themselves.
var plainByte = func() (t [256]bool) {
	for c := 0x20; c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// parsePlainJSON reads an object whose members are distinct plain strings of the
// fields that rows usually have. It reports false for anything else.
func parsePlainJSON(row []byte, n *NewLink) bool {
	i := skipSpace(row, 0)
	if i >= len(row) || row[i] != '{' {
		return false
	}
	i = skipSpace(row, i+1)
	var seen uint8
	for {
		var key, value []byte
		if key, i = plainString(row, i); i < 0 {
			return false
		}
		i = skipSpace(row, i)
		if i >= len(row) || row[i] != ':' {
			return false
		}
		if value, i = plainString(row, skipSpace(row, i+1)); i < 0 {
			return false
		}
		var bit uint8
		switch string(key) {
		case "destination":
			bit, n.Destination = 1, view(value)
		case "external_id":
			bit, n.ExternalID = 2, view(value)
		case "domain":
			bit, n.Domain = 4, view(value)
		case "code":
			bit, n.Code = 8, view(value)
		default:
			return false
		}
		if seen&bit != 0 {
			return false
		}
		seen |= bit
		i = skipSpace(row, i)
		if i >= len(row) {
			return false
		}
		switch row[i] {
		case ',':
			i = skipSpace(row, i+1)
		case '}':
			return skipSpace(row, i+1) == len(row)
		default:
			return false
		}
	}
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}

// plainString reads the string that begins at b[i] and returns what follows it; -1 if
// there is none or it has anything that needs decoding.
func plainString(b []byte, i int) (s []byte, next int) {
	if i >= len(b) || b[i] != '"' {
		return nil, -1
	}
	i++
	for j := i; j < len(b); j++ {
		if !plainByte[b[j]] {
			if b[j] != '"' {
				return nil, -1
			}
			return b[i:j], j + 1
		}
	}
	return nil, -1
}

// rowJSON is a link object as docs/api.md describes it.
type rowJSON struct {
	Destination        string            `json:"destination"`
	Domain             string            `json:"domain"`
	Code               string            `json:"code"`
	Class              string            `json:"class"`
	Title              string            `json:"title"`
	ExternalID         string            `json:"external_id"`
	ExpiredDestination string            `json:"expired_destination"`
	IfExists           string            `json:"if_exists"`
	Password           string            `json:"password"`
	Tags               []string          `json:"tags"`
	ExpiresAt          *time.Time        `json:"expires_at"`
	StartsAt           *time.Time        `json:"starts_at"`
	MaxClicks          uint64            `json:"max_clicks"`
	RedirectStatus     int               `json:"redirect_status"`
	ForwardQuery       *bool             `json:"forward_query"`
	ForwardPath        bool              `json:"forward_path"`
	Rules              []terse.Rule      `json:"rules"`
	Metadata           map[string]string `json:"metadata"`
	terse.LinkWeb
	// Error is what a file of bad rows says about the row (ErrorColumn); nobody reads it.
	Error jsontext.Value `json:"terse_error"`
}

var strict = json.JoinOptions(json.RejectUnknownMembers(true))

// parseFullJSON reads any link object: unknown and repeated members, values of
// another type, invalid UTF-8 and deep nesting are errors that name the field.
func parseFullJSON(row []byte, n *NewLink) error {
	if err := checkDepth(row); err != nil {
		return err
	}
	var r rowJSON
	if err := json.Unmarshal(row, &r, strict); err != nil {
		return jsonError(err)
	}
	if row[skipSpace(row, 0)] != '{' { // null is no object, though it decodes to an empty one
		return &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_json", Message: "a row is a JSON object"}
	}
	var err error
	*n = NewLink{
		Destination: r.Destination, Domain: r.Domain, Code: r.Code, Class: r.Class, Title: r.Title, ExternalID: r.ExternalID,
		ExpiredDestination: r.ExpiredDestination, IfExists: r.IfExists, Password: r.Password, Tags: r.Tags,
		MaxClicks: r.MaxClicks, RedirectStatus: r.RedirectStatus, ForwardQuery: r.ForwardQuery, ForwardPath: r.ForwardPath,
		Rules: r.Rules, Metadata: r.Metadata,
	}
	if !r.LinkWeb.IsZero() {
		n.Web = new(r.LinkWeb)
	}
	if n.ExpiresAt, err = Moment("expires_at", r.ExpiresAt); err != nil {
		return err
	}
	n.StartsAt, err = Moment("starts_at", r.StartsAt)
	return err
}

// Moment converts a time of the API; nil is 0. Times before 1970 are refused.
func Moment(field string, t *time.Time) (terse.Millis, error) {
	if t == nil {
		return 0, nil
	}
	ms := t.UnixMilli()
	if ms <= 0 || terse.Millis(ms) > latestTime {
		return 0, terse.Invalid(field, "not a time that can be kept")
	}
	return terse.Millis(ms), nil
}

// checkDepth refuses nesting that costs more to parse than any link needs.
func checkDepth(b []byte) error {
	depth, inString := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString:
			if c == '\\' {
				i++
			} else if c == '"' {
				inString = false
			}
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_json", Message: fmt.Sprintf("nested deeper than %d levels", maxDepth)}
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// jsonError says in the caller's terms what is wrong with a row.
func jsonError(err error) error {
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		if e.JSONPointer == "" {
			return &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_json", Message: "a row is a JSON object", Err: err}
		}
		field := strings.ReplaceAll(strings.TrimPrefix(string(e.JSONPointer), "/"), "/", ".")
		message := "the value is not of the type that the field takes"
		if errors.Is(e.Err, json.ErrUnknownName) {
			message = "unknown field"
		}
		return &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_field", Field: clip(field), Message: message, Err: err}
	}
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		field := strings.ReplaceAll(strings.TrimPrefix(string(e.JSONPointer), "/"), "/", ".")
		message := fmt.Sprintf("not valid JSON at byte %d", e.ByteOffset)
		if errors.Is(e.Err, jsontext.ErrDuplicateName) {
			message = "the field is there twice"
		}
		return &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_json", Field: clip(field), Message: message, Err: err}
	}
	return &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_json", Message: "not valid JSON", Err: err}
}
