package template

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/terselink/terse"
)

func TestText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text   string
		fields []string // given
		want   []string
		values string
		out    string // or a part of the error, after "!"
	}{
		{"For {name}", nil, []string{"name"}, "Zoë <b>", "For Zoë <b>"},
		{"{b} and {a} and {b}", []string{"a", "b"}, []string{"a", "b"}, "1\x1f2", "2 and 1 and 2"},
		{"no field", nil, nil, "x", "no field"},
		{"", nil, nil, "x", ""},
		{"{ name } {} {1a} {a-b} { {x}", nil, []string{"x"}, "v", "{ name } {} {1a} {a-b} { v"},
		{"{{x}} }", nil, []string{"x"}, "v", "{v} }"},
		{"{x", nil, nil, "v", "{x"},
		{"{a}{b}", nil, []string{"a", "b"}, "only", "only"},
		{"{c}", []string{"a"}, nil, "", "!not one of the campaign's fields"},
		{"{c}", []string{}, nil, "", "!not one of the campaign's fields"},
		{"{code}", nil, nil, "", "!something else"},
		{"{" + strings.Repeat("a", 65) + "}", nil, nil, "", "!64"},
		{manyFields(33), nil, nil, "", "!32"},
	} {
		tx, err := ParseText("title", c.text, c.fields)
		if part, refused := strings.CutPrefix(c.out, "!"); refused {
			if terse.ErrorCode(err) != terse.CodeInvalid || !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), "title") {
				t.Errorf("%q: error %v, want one with %q", c.text, err, part)
			}
			continue
		}
		if err != nil || !slices.Equal(tx.Fields(), c.want) || tx.Expand(c.values) != c.out || tx.Literal() != (tx.Expand("§") == c.text && tx.Expand("") == c.text) {
			t.Errorf("%q: fields %q, %q, error %v", c.text, tx.Fields(), tx.Expand(c.values), err)
		}
	}
	long, err := ParseText("title", strings.Repeat("{x}", 50), nil)
	if err != nil {
		t.Fatal(err)
	}
	if out := long.Expand(strings.Repeat("é", 500)); len(out) > MaxText || len(out) < MaxText-4 || !utf8.ValidString(out) {
		t.Errorf("%d bytes", len(out))
	}
}

// TestRendered: in the URL of an app, too, a placeholder stands behind the host only.
func TestRendered(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"myapp://item/{x}?y={x}": "myapp://item/a%2Fb?y=a%2Fb", "myapp:///{x}": "myapp:///a%2Fb", "myapp://item": "myapp://item",
		"myapp://{x}": "!behind the host", "my{x}://item/": "!behind the host", "myapp://item{x}/": "!behind the host", "myapp://item/{x": "!without a }",
	} {
		tm, err := Rendered("ios_destination", url, []string{"x"})
		if part, refused := strings.CutPrefix(want, "!"); refused {
			if terse.ErrorCode(err) != terse.CodeInvalid || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: error %v, want one with %q", url, err, part)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if out, ok := tm.Append(nil, "a/b"); !ok || string(out) != want || tm.Literal() == strings.Contains(url, "{") {
			t.Errorf("%s: %s, %v", url, out, ok)
		}
	}
}

// FuzzText: a text without placeholders is itself, and whatever the values, a text becomes no longer than it may.
func FuzzText(f *testing.F) {
	f.Add("For {name}", "Zoë")
	f.Add("{a}{b} {", "1\x1f2")
	f.Add("{}{ x }{1}", "")
	f.Fuzz(func(t *testing.T, text, values string) {
		tx, err := ParseText("f", text, nil)
		if err != nil {
			return
		}
		out := tx.Expand(values)
		if tx.Literal() && len(text) <= MaxText && out != text {
			t.Fatalf("%q becomes %q", text, out)
		}
		if len(out) > MaxText {
			t.Fatalf("%d bytes", len(out))
		}
		for _, name := range tx.Fields() {
			if CheckName(name) != nil || !strings.Contains(text, "{"+name+"}") {
				t.Fatalf("field %q of %q", name, text)
			}
		}
	})
}
