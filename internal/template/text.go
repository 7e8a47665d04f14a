package template

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/terselink/terse"
)

// MaxText is the longest that a text becomes with its values, in bytes: what is longer is cut.
const MaxText = 4 << 10

// Text is a compiled text for people, such as the title of a link preview, in which {name} stands for a
// value as it is: who shows it escapes it. Braces around anything but a name stand for themselves. It is
// immutable.
type Text struct {
	fields []string
	parts  []part
	tail   string
}

// ParseText compiles a text for the given fields, of which it may use any; with nil fields it takes those
// that the text names, in their order. Errors have code invalid and the given field.
func ParseText(field, text string, fields []string) (*Text, error) {
	t := &Text{fields: fields}
	from := 0 // of the literal before the next placeholder
	for at := 0; ; {
		i := strings.IndexByte(text[at:], '{')
		if i < 0 {
			t.tail = text[from:]
			return t, nil
		}
		open := at + i
		end := strings.IndexByte(text[open:], '}')
		if end < 0 || !isName(text[open+1:open+end]) {
			at = open + 1
			continue
		}
		name := text[open+1 : open+end]
		n := slices.Index(t.fields, name)
		if n < 0 {
			if err := CheckName(name); err != nil {
				return nil, terse.Invalid(field, "{%s} is no placeholder: %s", name, err.Error())
			}
			if fields != nil {
				return nil, terse.Invalid(field, "{%s} is not one of the campaign's fields, which never change: %s", name, strings.Join(fields, ", "))
			}
			n = len(t.fields)
			if t.fields = append(t.fields, name); n == MaxFields {
				return nil, terse.Invalid(field, "more than %d fields", MaxFields)
			}
		}
		t.parts = append(t.parts, part{text[from:open], n})
		at = open + end + 1
		from = at
	}
}

// Fields returns the names of the values, in their order. The caller does not modify it.
func (t *Text) Fields() []string { return t.fields }

// Literal reports whether the text has no placeholder.
func (t *Text) Literal() bool { return len(t.parts) == 0 }

// Expand returns the text for the values of a link, joined as for Append; a value that is missing is empty.
func (t *Text) Expand(values string) string {
	list := strings.Split(values, separator)
	var b strings.Builder
	for _, p := range t.parts {
		b.WriteString(p.literal)
		if p.field < len(list) {
			b.WriteString(list[p.field])
		}
	}
	b.WriteString(t.tail)
	out := b.String()
	if len(out) <= MaxText {
		return out
	}
	end := MaxText
	for end > 0 && !utf8.RuneStart(out[end]) {
		end--
	}
	return out[:end]
}
