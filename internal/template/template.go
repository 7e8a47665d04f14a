// Package template expands the destination of a campaign for one of its links:
// "https://shop.example/p/{sku}?u={u}" with the values A17 and 9f3 is
// "https://shop.example/p/A17?u=9f3".
//
// It knows no campaigns and no store. Invariants, whatever the values are:
//
//   - scheme, host and port of an expanded URL are those of the template: a placeholder
//     stands only behind the authority, and of a value only the unreserved characters
//     of RFC 3986 are written as they are;
//   - an expanded URL consists of the bytes 0x21 to 0x7e, so it can be written as
//     the value of a header;
//   - no value makes a segment . or .. of the path: Append then refuses.
package template

import (
	"fmt"
	"slices"
	"strings"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/destination"
)

// Limits of templates and of what is filled in.
const (
	MaxFields = 32
	MaxName   = 64      // bytes of the name of a field
	MaxValue  = 1 << 10 // bytes of one value
)

// Template is a compiled template. It is immutable.
type Template struct {
	text     string
	field    string // what it is the value of: destination, or a setting
	fields   []string
	parts    []part
	tail     string // the literal behind the last placeholder
	literals int    // bytes of all literals
	uses     int    // how often the most used field stands
	pathFrom int    // where the path begins in an expanded URL
	dotted   bool   // values alone may make a segment of the path . or ..
	inPath   uint64 // fields that stand in the path, by bit
}

// part is a placeholder and the literal before it.
type part struct {
	literal string
	field   int
}

// Parse compiles a template for the given fields, of which it may use any. With nil
// fields it takes those that the template names, in their order. serves tells which
// hosts are our own (destination.Parse). Errors have code invalid, reason
// invalid_destination and the field "destination".
func Parse(text string, fields []string, serves func(host string) bool) (*Template, error) {
	rendered, err := destination.Parse("destination", text, serves)
	if err != nil {
		return nil, err
	}
	return Rendered("destination", rendered, fields)
}

// Rendered is Parse for a URL of the web or of an app that was rendered by package destination. Errors name
// the given field.
func Rendered(field, rendered string, fields []string) (*Template, error) {
	bad := func(message string) error { return bad(field, message) }
	t := &Template{text: rendered, field: field, fields: fields}
	// A rendered destination has no user information.
	authority := strings.Index(rendered, "://") + len("://")
	t.pathFrom = len(rendered)
	if i := strings.IndexAny(rendered[authority:], "/?#"); i >= 0 {
		t.pathFrom = authority + i
	}
	if strings.ContainsAny(rendered[:t.pathFrom], "{}") { // of an app: those of the web have none
		return nil, bad("a placeholder stands behind the host only")
	}
	inPath := true
	var uses [MaxFields]int
	rest := rendered
	for {
		i := strings.IndexAny(rest, "{}")
		if i < 0 {
			break
		}
		if rest[i] == '}' {
			return nil, bad("a } without a {; write %7D for the character itself")
		}
		end := strings.IndexByte(rest[i:], '}')
		if end < 0 {
			return nil, bad("a { without a }; write %7B for the character itself")
		}
		name := rest[i+1 : i+end]
		if err := CheckName(name); err != nil {
			return nil, bad("{" + clip(name) + "} is no placeholder: " + err.Error())
		}
		n := slices.Index(t.fields, name)
		if n < 0 {
			if fields != nil {
				return nil, bad("{" + name + "} is not one of the campaign's fields, which never change: " + strings.Join(fields, ", "))
			}
			n = len(t.fields)
			if t.fields = append(t.fields, name); len(t.fields) > MaxFields {
				return nil, bad(fmt.Sprintf("more than %d fields", MaxFields))
			}
		}
		literal := rest[:i]
		inPath = inPath && !strings.ContainsAny(literal, "?#")
		if inPath {
			t.inPath |= 1 << n
		}
		t.parts = append(t.parts, part{literal, n})
		uses[n]++
		t.uses = max(t.uses, uses[n])
		t.literals += len(literal)
		rest = rest[i+end+1:]
	}
	t.tail = rest
	t.literals += len(rest)
	t.dotted = t.mayDot()
	if len(t.parts) > 0 {
		filled := strings.NewReplacer("{", "x", "}", "x").Replace(rendered[t.pathFrom:])
		if climbs([]byte(filled)) {
			return nil, bad("the path of a template has no segments . and ..")
		}
	}
	return t, nil
}

// CheckName returns why a name cannot be that of a field, nil if it can.
func CheckName(name string) error {
	if name == "" || len(name) > MaxName {
		return fmt.Errorf("a name has 1 to %d characters", MaxName)
	}
	if !isName(name) {
		return fmt.Errorf("a name consists of letters, digits and _, and does not begin with a digit")
	}
	switch name {
	case "external_id", "code", "domain":
		return fmt.Errorf("%s means something else in a row", name)
	}
	return nil
}

// isName reports whether s consists of letters, digits and _, and does not begin with a digit.
func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || i > 0 && '0' <= c && c <= '9') {
			return false
		}
	}
	return s != ""
}

func bad(field, message string) error {
	return &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_destination", Field: field, Message: message}
}

func clip(s string) string { return s[:min(len(s), 40)] }

// Literal reports whether the template has no placeholder.
func (t *Template) Literal() bool { return len(t.parts) == 0 }

// String returns the rendered template.
func (t *Template) String() string { return t.text }

// Fields returns the names of the values, in their order. The caller does not modify it.
func (t *Template) Fields() []string { return t.fields }

// Append appends the URL for the values of a link, joined by terse.FieldSeparator in
// the order of the fields; a value that is missing is empty. It reports false, and what
// it appended means nothing, if the URL is longer than destination.MaxLen or if the values
// make a segment of its path . or .. .
//
// Hot path: 0 allocs/op if dst has room, see TestAppendAllocs.
func (t *Template) Append(dst []byte, values string) ([]byte, bool) {
	start := len(dst)
	// Placeholders mostly come in the order of the fields: then the values are walked once.
	at, rest := 0, values
	for i := range t.parts {
		p := &t.parts[i]
		dst = append(dst, p.literal...)
		if p.field < at {
			at, rest = 0, values
		}
		for ; at < p.field; at++ {
			_, rest, _ = strings.Cut(rest, separator)
		}
		v := rest
		if end := strings.IndexByte(rest, terse.FieldSeparator); end >= 0 {
			v = rest[:end]
		}
		dst = appendEscaped(dst, v)
	}
	dst = append(dst, t.tail...)
	if len(dst)-start > destination.MaxLen {
		return dst, false
	}
	return dst, !t.dotted || !climbs(dst[start+t.pathFrom:])
}

const separator = string(terse.FieldSeparator)

// unreserved are the characters that never need an escape (RFC 3986, section 2.3).
var unreserved = func() (t [256]bool) {
	for c := range t {
		b := byte(c)
		t[c] = 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b == '-' || b == '.' || b == '_' || b == '~'
	}
	return t
}()

func appendEscaped(dst []byte, v string) []byte {
	const hex = "0123456789ABCDEF"
	plain := 0 // v[plain:i] needs no escape and is not written yet
	for i := range len(v) {
		c := v[i]
		if unreserved[c] {
			continue
		}
		dst = append(dst, v[plain:i]...)
		dst = append(dst, '%', hex[c>>4], hex[c&15])
		plain = i + 1
	}
	return append(dst, v[plain:]...)
}

// mayDot reports whether a segment of the path consists of placeholders and dots alone,
// so that values decide whether it climbs.
func (t *Template) mayDot() bool {
	path := strings.ReplaceAll(t.text[t.pathFrom:], `\`, "/") // as browsers read it
	if i := strings.IndexAny(path, "?#"); i >= 0 {
		path = path[:i]
	}
	for segment := range strings.SplitSeq(path, "/") {
		placeholder := false
		for {
			i := strings.IndexByte(segment, '{')
			if i < 0 {
				break
			}
			end := strings.IndexByte(segment, '}') // Parse has found it
			segment = segment[:i] + segment[end+1:]
			placeholder = true
		}
		if placeholder && strings.Trim(unescapeDots(segment), ".") == "" {
			return true
		}
	}
	return false
}

// unescapeDots makes %2e a dot, as browsers do (WHATWG URL, "double-dot URL path segment").
func unescapeDots(s string) string {
	return strings.NewReplacer("%2e", ".", "%2E", ".").Replace(s)
}

// climbs reports whether a path, followed by anything, has a segment . or .. .
func climbs(path []byte) bool {
	dots, other := 0, false
	for i := 0; ; i++ {
		c := byte('/')
		if i < len(path) && path[i] != '?' && path[i] != '#' {
			c = path[i]
			if c == '%' && i+2 < len(path) && path[i+1] == '2' && path[i+2]|0x20 == 'e' {
				c = '.'
				i += 2
			}
		}
		switch c {
		case '.':
			dots++
		case '/', '\\':
			if !other && (dots == 1 || dots == 2) {
				return true
			}
			dots, other = 0, false
		default:
			other = true
		}
		if i >= len(path) || path[i] == '?' || path[i] == '#' {
			return false
		}
	}
}

// anyDots reports whether a value may consist of dots alone, by its first character.
func anyDots(values [][]byte) bool {
	for _, v := range values {
		if len(v) == 0 || v[0] == '.' {
			return true
		}
	}
	return false
}

// place names the URL for people.
func (t *Template) place() string {
	if t.field == "destination" {
		return "the destination"
	}
	return t.field
}

// Check returns why a link cannot have the values, nil if it can: what Append
// promises for this template, and that no value of the path is empty. joined are the values with
// separators between them; scratch is memory for an expansion, returned as it has grown.
func (t *Template) Check(values [][]byte, joined string, scratch []byte) (grown []byte, err error) {
	for i, v := range values {
		if len(v) > MaxValue {
			return scratch, terse.Invalid(t.fields[i], "the value is longer than %d bytes", MaxValue)
		}
		if len(v) == 0 && t.inPath&(1<<i) != 0 {
			return scratch, terse.Invalid(t.fields[i], "the value is empty, and it stands in the path of %s", t.place())
		}
	}
	// A short link needs no expansion: three bytes for each is the most there can be. A segment that may climb
	// consists of values and dots alone, so it does not if every value has a character that is none.
	if t.literals+3*len(joined)*t.uses <= destination.MaxLen && (!t.dotted || !anyDots(values)) {
		return scratch, nil
	}
	out, ok := t.Append(scratch[:0], joined)
	if !ok && len(out) > destination.MaxLen {
		return out, terse.Invalid("destination", "%s with these values is longer than %d bytes", t.place(), destination.MaxLen)
	}
	if !ok {
		return out, terse.Invalid("destination", "the values make a segment . or .. of the path of %s", t.place())
	}
	return out, nil
}
