package cli

import (
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/creack/pty"
)

// screen is a terminal, and what was written to it.
type screen struct {
	terminal *os.File

	mu  sync.Mutex
	got strings.Builder
}

func newScreen(t *testing.T, columns uint16) *screen {
	t.Helper()
	master, terminal, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(terminal, &pty.Winsize{Rows: 24, Cols: columns}); err != nil {
		t.Fatal(err)
	}
	s := &screen{terminal: terminal}
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(s, master) }) // it ends with an error when the terminal is closed
	t.Cleanup(func() {
		terminal.Close()
		master.Close()
		reading.Wait()
	})
	return s
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got.Write(p)
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got.String()
}

// until waits for a text on the screen.
func (s *screen) until(t *testing.T, text string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !strings.Contains(s.text(), text); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("the screen does not say %q: %.500q", text, s.text())
		}
	}
}

// moves are the sequences that move the cursor and clear what is below it; colours are not among them.
var moves = regexp.MustCompile("\x1b\\[[0-9;?]*[A-HJKfhl]")

// TestBarOnTerminal: a terminal gets a bar that stays on one line however narrow it is, is taken away at the end, and has no
// colour.
func TestBarOnTerminal(t *testing.T) {
	for _, columns := range []uint16{120, 80, 40, 20} {
		for _, what := range []string{"rows", "meter"} {
			s := newScreen(t, columns)
			run := &session{Options: Options{Stdout: io.Discard, Stderr: s.terminal, Now: time.Now}}
			if what == "rows" {
				in := &bulkInput{size: 1_000_000}
				in.read.Store(250_000)
				p := (&rowFlags{}).progress(run, in)
				for range 1234 {
					p.row(false)
				}
				s.until(t, "\x1b[") // drawn twice
				p.stop()
			} else {
				m := run.meter(false)
				m.show(0.25, "250 of 1,000 rows, 12,345 rows/s, ETA 3s", false)
				s.until(t, "\x1b[") // drawn twice
				m.stop()
			}
			if _, err := io.WriteString(s.terminal, "over"); err != nil {
				t.Fatal(err)
			}
			s.until(t, "over")
			got := moves.ReplaceAllString(s.text(), "\n")
			if strings.Contains(got, "\x1b") {
				t.Errorf("%s, %d columns: colours, or what else? %q", what, columns, got)
			}
			for line := range strings.FieldsFuncSeq(got, func(r rune) bool { return r == '\r' || r == '\n' }) {
				if n := utf8.RuneCountInString(line); n > int(columns) {
					t.Errorf("%s, %d columns: a line of %d: %q", what, columns, n, line)
				}
			}
			if columns >= 80 && (!strings.Contains(got, "rows/s") || !strings.Contains(got, "[=") || !strings.Contains(got, "ETA")) {
				t.Errorf("%s, %d columns: no bar, rate and ETA: %q", what, columns, got)
			}
		}
	}
}

// TestNoBar: what is no terminal gets no bar, and neither does a terminal that the results go to.
func TestNoBar(t *testing.T) {
	t.Parallel()
	s := newScreen(t, 80)
	var lines strings.Builder
	for _, o := range []Options{{Stdout: io.Discard, Stderr: &lines}, {Stdout: s.terminal, Stderr: s.terminal}} {
		o.Now = time.Now
		p := (&rowFlags{}).progress(&session{Options: o}, &bulkInput{size: 10})
		p.row(false)
		p.stop()
	}
	if _, err := io.WriteString(s.terminal, "over"); err != nil {
		t.Fatal(err)
	}
	s.until(t, "over")
	if got := s.text() + lines.String(); got != "over" {
		t.Errorf("%q", got)
	}
}
