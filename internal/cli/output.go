package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/terselink/terse/internal/compress"
	"github.com/terselink/terse/internal/inflate"
)

// printJSON prints one value and a line break.
func (s *session) printJSON(v any) error {
	if err := json.MarshalWrite(s.Stdout, v, json.Deterministic(true), jsontext.EscapeForHTML(false)); err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	_, err := io.WriteString(s.Stdout, "\n")
	return err
}

// writeFile copies r to a file, compressed if its name says so, or to standard output without a name or for "-".
func (s *session) writeFile(path string, r io.Reader) error {
	if path == "" || path == "-" {
		_, err := io.Copy(s.Stdout, r)
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return &ExitError{ExitUsage, fmt.Errorf("open the output: %w", err)}
	}
	return errors.Join(compressTo(f, path, r), f.Close())
}

// compressTo copies r to w, compressed if the name of the file ends in .gz or .zst.
func compressTo(w io.Writer, name string, r io.Reader) error {
	encoding, _ := inflate.ByName(name)
	z := compress.New(encoding, w)
	if _, err := io.Copy(z, r); err != nil {
		return err // without an end: nobody takes a part for the whole
	}
	return z.Close()
}

// table prints aligned columns. On a terminal long cells are cut; elsewhere a program may read them.
type table struct {
	w   *tabwriter.Writer
	cut bool
}

// maxCell is the width of a cell on a terminal, in characters.
const maxCell = 60

func (s *session) table(head ...string) *table {
	t := &table{w: tabwriter.NewWriter(s.Stdout, 0, 8, 2, ' ', 0), cut: isTerminal(s.Stdout)}
	t.row(head...)
	return t
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		c = printable(c)
		if n := utf8.RuneCountInString(c); t.cut && n > maxCell {
			c = string([]rune(c)[:maxCell-1]) + "…"
		}
		cells[i] = c
	}
	fmt.Fprintln(t.w, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
}

func (t *table) flush() error { return t.w.Flush() }

// printable makes text that came from outside safe for a terminal: what could move
// the cursor, colour or reorder the line is shown by its number.
func printable(s string) string {
	if !strings.ContainsFunc(s, hazardous) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if hazardous(r) {
			fmt.Fprintf(&b, `\u{%x}`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func hazardous(r rune) bool {
	return r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029')
}

// count writes a number with commas between thousands.
func count[T int | int64 | uint64](n T) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// date writes a time for people; the zero time is empty.
func date(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return dateIn(t, time.UTC)
}

// dateIn writes a time on the clock of a zone.
func dateIn(t time.Time, loc *time.Location) string { return t.In(loc).Format("2006-01-02 15:04") }

// style paints text on a terminal that wants it.
type style struct{ on bool }

func (s *session) style() style {
	_, no := s.env("NO_COLOR")
	name, _ := s.env("TERM")
	return style{on: !no && name != "dumb" && isTerminal(s.Stdout)}
}

func (p style) bold(text string) string { return p.paint("1", text) }
func (p style) dim(text string) string  { return p.paint("2", text) }
func (p style) bar(text string) string  { return p.paint("36", text) }

func (p style) paint(code, text string) string {
	if !p.on || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
