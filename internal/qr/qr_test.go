package qr

import (
	"bytes"
	"errors"
	"fmt"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/terselink/terse"
)

// TestMain looks for goroutines: the library makes some for every code.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mustStyle(t testing.TB, size, margin, fg, bg string) Style {
	t.Helper()
	s, err := NewStyle(size, margin, fg, bg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func draw(t testing.TB, content string, level Level, f Format, s Style) []byte {
	t.Helper()
	m, err := New(content, level)
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.Draw(f, s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// scan reads a drawing with zbar, which knows nothing of how it was made.
func scan(t testing.TB, f Format, drawing []byte) string {
	t.Helper()
	need := map[Format][]string{PNG: {"zbarimg"}, SVG: {"zbarimg", "rsvg-convert"}, PDF: {"zbarimg", "pdftoppm"}}
	for _, name := range need[f] {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%s is missing", name)
			}
			t.Skipf("%s is missing: Debian packages zbar-tools, librsvg2-bin, poppler-utils", name)
		}
	}
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in."+string(f)), filepath.Join(dir, "out.png")
	if err := os.WriteFile(in, drawing, 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	var said []byte
	switch f {
	case PNG:
		out = in
	case SVG:
		said, err = exec.CommandContext(t.Context(), "rsvg-convert", "-o", out, in).CombinedOutput()
	case PDF:
		said, err = exec.CommandContext(t.Context(), "pdftoppm", "-png", "-singlefile", "-r", "72", in, strings.TrimSuffix(out, ".png")).CombinedOutput()
	}
	if err != nil {
		t.Fatalf("rasterise: %v: %s", err, said)
	}
	text, err := exec.CommandContext(t.Context(), "zbarimg", "-q", "--raw", "-Sdisable", "-Sqrcode.enable", out).Output()
	if err != nil {
		t.Fatalf("zbar cannot read the %s: %v", f, err)
	}
	return strings.TrimSuffix(string(text), "\n")
}

func TestScan(t *testing.T) {
	t.Parallel()
	const short = "https://go.example.com/aB3dE5g" + ScanMark
	for i, tc := range []struct {
		content              string
		level                Level
		size, margin, fg, bg string
	}{
		{short, Medium, "", "", "", ""},
		{short, Low, "200", "", "", ""},
		{short, Quartile, "", "", "", ""},
		{short, High, "1024", "10", "", ""},
		{short, Medium, "333", "4", "1b1f24", "#f6f7f9"},
		{short, Medium, "400", "", "7a7a7a", ""}, // just enough contrast
		{short, Medium, "400", "", "00f", "ff0"},
		{"http://localhost:8080/x" + ScanMark, Medium, "64", "", "", ""},
		{"HTTPS://GO.EXAMPLE.COM/9K2M4T7A", Medium, "", "", "", ""},
		{"https://go.example.com/caf%C3%A9-" + strings.Repeat("lang-", 30) + ScanMark, Quartile, "800", "", "", ""},
		{"https://xn--bcher-kva.example:8443/" + strings.Repeat("a", 128) + ScanMark, High, "1000", "", "", ""},
	} {
		for _, f := range []Format{PNG, SVG, PDF} {
			t.Run(fmt.Sprintf("%d/%s", i, f), func(t *testing.T) {
				t.Parallel()
				if got := scan(t, f, draw(t, tc.content, tc.level, f, mustStyle(t, tc.size, tc.margin, tc.fg, tc.bg))); got != tc.content {
					t.Errorf("read %q; want %q", got, tc.content)
				}
			})
		}
	}
}

// TestAlphanumericIsSmaller: upper case alone makes a smaller code.
func TestAlphanumericIsSmaller(t *testing.T) {
	t.Parallel()
	upper, err := New("HTTPS://GO.EXAMPLE.COM/9K2M4T7A", Medium)
	if err != nil {
		t.Fatal(err)
	}
	lower, err := New("https://go.example.com/9k2m4t7a", Medium)
	if err != nil {
		t.Fatal(err)
	}
	if upper.Side() != 25 || lower.Side() != 29 {
		t.Errorf("%d and %d modules", upper.Side(), lower.Side())
	}
}

// TestText reads the half blocks back.
func TestText(t *testing.T) {
	t.Parallel()
	m, err := New("https://go.example.com/aB3dE5g"+ScanMark, Medium)
	if err != nil {
		t.Fatal(err)
	}
	for _, colors := range []bool{false, true} {
		const margin = 2
		lines := strings.Split(strings.TrimSuffix(m.Text(margin, colors), "\n"), "\n")
		if want := (m.Side() + 2*margin + 1) / 2; len(lines) != want {
			t.Fatalf("%d lines; want %d", len(lines), want)
		}
		for i, line := range lines {
			bare := strings.TrimSuffix(strings.TrimPrefix(line, "\x1b[97;40m"), "\x1b[0m")
			if (bare != line) != colors {
				t.Fatalf("line %q with colors %v", line, colors)
			}
			cells := []rune(bare)
			if len(cells) != m.Side()+2*margin {
				t.Fatalf("line %d has %d cells", i, len(cells))
			}
			for x, c := range cells {
				y := 2*i - margin
				if top := c == '█' || c == '▀'; top == m.Dark(x-margin, y) {
					t.Fatalf("module %d,%d", x-margin, y)
				}
				if bottom := c == '█' || c == '▄'; y+1 < m.Side()+margin && bottom == m.Dark(x-margin, y+1) {
					t.Fatalf("module %d,%d", x-margin, y+1)
				}
			}
		}
	}
}

func TestSizeIsExact(t *testing.T) {
	t.Parallel()
	for _, size := range []string{"64", "333", "2048"} {
		img, err := png.DecodeConfig(bytes.NewReader(draw(t, "http://a.b/c", Low, PNG, mustStyle(t, size, "", "", ""))))
		if err != nil || fmt.Sprint(img.Width, img.Height) != size+" "+size {
			t.Errorf("size %s: %dx%d, %v", size, img.Width, img.Height, err)
		}
	}
}

func TestEqualBytes(t *testing.T) {
	t.Parallel()
	for _, f := range []Format{SVG, PNG, PDF} {
		s := mustStyle(t, "", "", "", "")
		if !bytes.Equal(draw(t, "http://a.b/c", Low, f, s), draw(t, "http://a.b/c", Low, f, s)) {
			t.Errorf("%s differs from itself", f)
		}
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ size, margin, fg, bg, field string }{
		{"31", "", "", "", "size"},
		{"2049", "", "", "", "size"},
		{"1e3", "", "", "", "size"},
		{"-1", "", "", "", "size"},
		{"", "-1", "", "", "margin"},
		{"", "33", "", "", "margin"},
		{"", "", "red", "", "fg"},
		{"", "", "12345", "", "fg"},
		{"", "", "+12345", "", "fg"},
		{"", "", "", "#fffffff", "bg"},
		{"", "", "", "\"/><script>", "bg"},
		{"", "", "ffffff", "000000", "fg"},
		{"", "", "ffffff", "ffffff", "fg"},
		{"", "", "ff0000", "", "fg"}, // 3.998
		{"", "", "808080", "", "fg"}, // 3.95
	} {
		_, err := NewStyle(tc.size, tc.margin, tc.fg, tc.bg)
		wantField(t, err, tc.field)
	}
	_, err := ParseLevel("X", false)
	wantField(t, err, "ecc")
	_, err = ParseFormat("gif")
	wantField(t, err, "format")
	_, err = New("https://go.example.com/"+strings.Repeat("a", 3000), High)
	wantField(t, err, "ecc")
	m, err := New("https://go.example.com/aB3dE5g", High)
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.Draw(PNG, mustStyle(t, "32", "", "", ""))
	wantField(t, err, "size")
}

func wantField(t *testing.T, err error, field string) {
	t.Helper()
	if e, ok := errors.AsType[*terse.Error](err); !ok || e.Code != terse.CodeInvalid || e.Field != field {
		t.Errorf("error %v; want invalid %s", err, field)
	}
}

func FuzzNewStyle(f *testing.F) {
	f.Add("512", "4", "000000", "#fff")
	f.Add("", "", "", "")
	f.Add("2048", "0", "é", "1b1f2")
	m, err := New("http://a.b/c", Low)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, size, margin, fg, bg string) {
		s, err := NewStyle(size, margin, fg, bg)
		if err != nil {
			return
		}
		if b := m.svg(s); bytes.Count(b, []byte("<")) != 4 {
			t.Fatalf("a parameter became markup: %s", b)
		}
	})
}

func BenchmarkDraw(b *testing.B) {
	for _, f := range []Format{SVG, PNG, PDF} {
		b.Run(string(f), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				draw(b, "https://go.example.com/aB3dE5g"+ScanMark, Medium, f, mustStyle(b, "", "", "", ""))
			}
		})
	}
}
