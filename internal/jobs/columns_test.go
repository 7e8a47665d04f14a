package jobs

import (
	"encoding/csv"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/links"
)

func renamed(in string, columns map[string]string) (string, error) {
	h, rest, err := links.ReadHeader(strings.NewReader(in))
	if err != nil {
		return "", err
	}
	header, err := renameColumns(h.Names, columns)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(rest)
	return header + string(b), err
}

func TestRenameColumns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, out, code string }{
		{"a,b\n1,2\n", "\"X\",\"b\"\n1,2\n", ""},
		{"\xef\xbb\xbfa,b\r\n1,2\r\n", "\"X\",\"b\"\n1,2\r\n", ""},
		{"\n\r\n a ,\"b,\nc\"\n", "\"X\",\"b,\nc\"\n", ""},
		{"a", "\"X\"\n", ""},
		{"b\n1\n", "", "unknown_column"},
		{"", "", "invalid_csv"},
		{"a\"b,c\n", "", "invalid_csv"},
		{strings.Repeat("a", 300<<10), "", "row_too_large"},
	} {
		got, err := renamed(c.in, map[string]string{"a": "X"})
		if c.code != "" {
			wantCode(t, err, c.code)
			continue
		}
		if err != nil || got != c.out {
			t.Errorf("%q becomes %q, %v; want %q", c.in, got, err, c.out)
		}
	}
	if got, err := renamed("a,b\n", map[string]string{"a": ""}); err != nil || got != "\"terse_ignored\",\"b\"\n" {
		t.Errorf("a column without a field: %q, %v", got, err)
	}
}

func FuzzRenameColumns(f *testing.F) {
	for _, s := range []string{"a,b\n1,2\n", "\"a\"\"\",a\n", "\xef\xbb\xbfa\r\n\"", "\n\na", "a\"", `"a`} {
		f.Add(s, "a", "x")
	}
	f.Fuzz(func(t *testing.T, in, from, to string) {
		out, err := renamed(in, map[string]string{from: to})
		if err != nil {
			if e, ok := errors.AsType[*terse.Error](err); !ok || e.Code != terse.CodeInvalid {
				t.Fatalf("%v", err)
			}
			return
		}
		if to == "" {
			to = links.IgnoredColumn
		}
		// A reader of CSV takes a line break of CR LF for LF, also within quotes.
		names, err := csv.NewReader(strings.NewReader(out)).Read()
		if err != nil || !slices.Contains(names, strings.ReplaceAll(to, "\r\n", "\n")) {
			t.Fatalf("%q has the header %q, %v", in, names, err)
		}
	})
}
