package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/terselink/terse/internal/config"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"terse": func() { os.Exit(Main(context.Background(), testOptions())) }})
}

// testOptions are those of the real program, with a server that only says what it was told.
func testOptions() Options {
	o := OSOptions()
	o.Version = "1.2.3-test"
	o.Doctor = func(_ context.Context, cfg *config.Config) []Finding {
		list := []Finding{{What: "data folder", State: "ok"}, {What: "disk", State: "warning", Text: "5 % of the disk of " + cfg.Data + " is free"}}
		if cfg.RedirectAddr == "127.0.0.1:77" {
			list = append(list, Finding{What: "redirect_addr", State: "problem", Text: "cannot be listened on"})
		}
		return list
	}
	o.Serve = func(ctx context.Context, cfg *config.Config, log *slog.Logger) error {
		log.Info("serving", "redirect", cfg.RedirectAddr)
		fmt.Fprintf(o.Stdout, "data %s, redirect %s, control %s, cache %v\n", cfg.Data, cfg.RedirectAddr, cfg.ControlAddr, cfg.Cache.Bytes)
		switch cfg.RedirectAddr {
		case "127.0.0.1:74":
			return &ExitError{Code: 74, Err: io.ErrUnexpectedEOF}
		case "127.0.0.1:75": // stops in order at the first signal
			return errors.Join(syscall.Kill(os.Getpid(), syscall.SIGTERM), waitFor(ctx))
		case "127.0.0.1:76": // hangs: only a second signal ends it
			syscall.Kill(os.Getpid(), syscall.SIGTERM)
			<-ctx.Done()
			for range 1_000_000 {
				syscall.Kill(os.Getpid(), syscall.SIGTERM)
				runtime.Gosched()
			}
		}
		return nil
	}
	o.Bench = func(_ context.Context, cfg *config.Config, _ *slog.Logger, b BenchOptions) (BenchReport, error) {
		if b.Links == 13 {
			return BenchReport{}, io.ErrUnexpectedEOF
		}
		b.Progress("links", b.Links, b.Links)
		r := BenchReport{Engine: cfg.Store.Engine, Links: b.Links, LinksPerSecond: 1234.5, VisitsPerSecond: 5678, HotPerSecond: 9e6, ClicksPerSecond: 4321}
		if b.Shared {
			r.Links, r.Removed, r.WriteUnits, r.UnitsPerLink, r.CostPerMillion = 999, 999, 3000, 3, 1.875
		}
		return r, nil
	}
	o.DynamoDB = DynamoDB{
		CreateTable: func(_ context.Context, t TableOptions) error {
			if t.Region == "nowhere" {
				return io.ErrUnexpectedEOF
			}
			fmt.Fprintf(o.Stdout, "create %s in %s at %s\n", t.Table, t.Region, t.Endpoint)
			return nil
		},
		CloudFormation: func(table string) string { return "template of " + table + "\n" },
	}
	o.AnalyticsChild = func(_ io.Reader, stdout, _ io.Writer) int {
		fmt.Fprintln(stdout, "child")
		return 9
	}
	return o
}

// waitFor returns nil when the context has ended.
func waitFor(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// TestScripts runs testdata/script: the command line as a person sees it, against a
// fake control plane at $SERVER.
func TestScripts(t *testing.T) {
	countryMMDB, err := filepath.Abs("../geo/data/country.mmdb")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:             filepath.Join("testdata", "script"),
		UpdateScripts:   *update,
		ContinueOnError: true,
		Setup: func(e *testscript.Env) error {
			plane := newFakePlane()
			e.Defer(plane.Close)
			e.Values["plane"] = plane
			e.Setenv("GORACE", "atexit_sleep_ms=0") // else every command takes a second under -race
			e.Setenv("SERVER", plane.URL)
			e.Setenv("PLANE_PORT", plane.URL[strings.LastIndexByte(plane.URL, ':')+1:])
			e.Setenv("COUNTRY_MMDB", countryMMDB)
			e.Setenv("OWNER_KEY", ownerKey)
			e.Setenv("TERSE_SERVER", plane.URL)
			e.Setenv("TERSE_KEY", ownerKey)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// cut-after N [CODE]: the next bulk answers are cut after N rows, with an error of that code.
			"cut-after": func(ts *testscript.TestScript, _ bool, args []string) {
				n, err := strconv.Atoi(args[0])
				ts.Check(err)
				plane := ts.Value("plane").(*fakePlane)
				plane.mu.Lock()
				plane.cutAt, plane.cutWhy = n, strings.Join(args[1:], "")
				plane.mu.Unlock()
			},
			// server-note FOLDER: leaves the note of a running server in a data folder.
			"server-note": func(ts *testscript.TestScript, _ bool, args []string) {
				dir := ts.MkAbs(args[0])
				ts.Check(os.MkdirAll(dir, 0o700))
				ts.Check(config.WriteServerInfo(dir, config.ServerInfo{ControlURL: ts.Getenv("SERVER"), PID: 1}))
			},
			// exits CODE COMMAND…: runs terse and checks its exit code.
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec("terse", args[1:]...)
				got := 0
				if err != nil {
					exit, ok := err.(interface{ ExitCode() int })
					if !ok {
						ts.Fatalf("run: %v", err)
					}
					got = exit.ExitCode()
				}
				if strconv.Itoa(got) != args[0] {
					ts.Fatalf("exit code %d, want %s", got, args[0])
				}
			},
		},
	})
}

// TestHelp holds the help of every command against testdata/help.
func TestHelp(t *testing.T) {
	t.Parallel()
	g := &grammar{}
	g.Serve.Settings = kong.Plugins{newSettings()}
	g.Config.Settings = kong.Plugins{newSettings()}
	g.Doctor.Settings = kong.Plugins{newSettings()}
	g.Geo.Status.Settings = kong.Plugins{newSettings()}
	g.Geo.Update.Settings = kong.Plugins{newSettings()}
	parser, err := kong.New(g, kong.Name("terse"))
	if err != nil {
		t.Fatal(err)
	}
	commands := [][]string{{}}
	for _, leaf := range parser.Model.Leaves(false) {
		var words []string
		for n := leaf; n.Parent != nil; n = n.Parent {
			words = append([]string{n.Name}, words...)
		}
		commands = append(commands, words)
	}
	if len(commands) < 20 {
		t.Fatalf("only %d commands were found", len(commands))
	}
	for _, words := range commands {
		name := strings.Join(append([]string{"terse"}, words...), "-")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			o := Options{Args: append(slices.Clone(words), "--help"), Stdout: &stdout, Stderr: &stderr, Now: time.Now}
			if code := Main(t.Context(), o); code != ExitOK || stderr.Len() > 0 {
				t.Fatalf("exit code %d, standard error %q", code, stderr.String())
			}
			golden(t, filepath.Join("testdata", "help", name+".txt"), stdout.Bytes())
		})
	}
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got), -update rewrites it:\n%s", path, diff)
	}
}

// TestSettings checks that every key but secrets can be set by a flag.
func TestSettings(t *testing.T) {
	t.Parallel()
	plugins := kong.Plugins{newSettings()}
	var g struct {
		Settings kong.Plugins `embed:""`
	}
	g.Settings = plugins
	parser, err := kong.New(&g)
	if err != nil {
		t.Fatal(err)
	}
	var args []string
	want := map[string]string{}
	for _, f := range config.Fields() {
		if !f.Secret && f.Key != "data" {
			args = append(args, "--"+f.Flag(), "v-"+f.Key)
			want[f.Key] = "v-" + f.Key
		}
	}
	if _, err := parser.Parse(args); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, settingsOf(plugins)); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	if len(want) < 20 {
		t.Errorf("only %d settings", len(want))
	}
}

func TestWhen(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 10, 30, 15, 7, time.UTC)
	s := &session{Options: Options{Now: func() time.Time { return now }}}
	for in, want := range map[string]string{
		"":                          "0001-01-01T00:00:00Z",
		"2027-01-31T18:00:00Z":      "2027-01-31T18:00:00Z",
		"2027-01-31T18:00:00+02:00": "2027-01-31T18:00:00+02:00",
		"2027-01-31T18:00:00":       "2027-01-31T18:00:00Z",
		"2027-01-31 18:00":          "2027-01-31T18:00:00Z",
		"2027-01-31":                "2027-01-31T00:00:00Z",
		"90m":                       "2026-11-23T12:00:15Z",
		"30d":                       "2026-12-23T10:30:15Z",
		"2w":                        "2026-12-07T10:30:15Z",
	} {
		got, err := s.when("expires", in)
		if err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("when(%q) = %v, %v; want %s", in, got.Format(time.RFC3339), err, want)
		}
	}
	for in, want := range map[string]string{"": "0001-01-01T00:00:00Z", "2026-11-01": "2026-11-01T00:00:00Z", "90m": "2026-11-23T09:00:15Z", "7d": "2026-11-16T10:30:15Z"} {
		if got, err := s.past("at", in); err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("past(%q) = %v, %v; want %s", in, got.Format(time.RFC3339), err, want)
		}
	}
	for _, in := range []string{"tomorrow", "-1h", "0d", "d", "9999999d", "2027-13-01", "1h30"} {
		if got, err := s.when("expires", in); err == nil {
			t.Errorf("when(%q) = %v, want an error", in, got)
		}
	}
}

func TestRangeEnd(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 10, 30, 15, 7, time.UTC)
	s := &session{Options: Options{Now: func() time.Time { return now }}}
	for _, tc := range []struct{ in, zone, date, t string }{
		{"", "UTC", "", "0001-01-01T00:00:00Z"},
		{"2026-10-31", "Europe/Berlin", "2026-10-31", "0001-01-01T00:00:00Z"}, // the server knows where that day ends
		{"2026-10-31", "Only/TheServerKnows", "2026-10-31", "0001-01-01T00:00:00Z"},
		{"2026-10-31T12:00:00", "Europe/Berlin", "", "2026-10-31T11:00:00Z"},
		{"2026-07-01 12:00", "America/New_York", "", "2026-07-01T16:00:00Z"},
		{"2026-10-31T12:00:00Z", "Europe/Berlin", "", "2026-10-31T12:00:00Z"},
		{"7d", "Europe/Berlin", "", "2026-11-16T10:30:15Z"},
		{"36h", "UTC", "", "2026-11-21T22:30:15Z"},
	} {
		date, at, err := s.rangeEnd("from", tc.in, tc.zone)
		if err != nil || date != tc.date || at.UTC().Format(time.RFC3339) != tc.t {
			t.Errorf("rangeEnd(%q, %s) = %q, %v, %v; want %q, %s", tc.in, tc.zone, date, at, err, tc.date, tc.t)
		}
	}
	for _, tc := range [][2]string{{"yesterday", "UTC"}, {"2026-02-30", "UTC"}, {"-7d", "UTC"}, {"2026-10-31 12:00", "Nowhere/Land"}, {"2026-10-31 12:00", "Local"}} {
		if date, at, err := s.rangeEnd("from", tc[0], tc[1]); err == nil {
			t.Errorf("rangeEnd(%q, %s) = %q, %v, want an error", tc[0], tc[1], date, at)
		}
	}
}

func TestPrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain äöü 日本": "plain äöü 日本",
		"a\x1b[31mred": `a\u{1b}[31mred`,
		"a\u202eb":     `a\u{202e}b`,
		"two\nlines":   "two\nlines",
		"nul\x00tab\t": `nul\u{0}tab\u{9}`,
		"\xff":         "\xff",
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0", 12: "12", 123: "123", 1234: "1,234", 123456: "123,456", 1234567: "1,234,567", -123456: "-123,456", -1234: "-1,234"} {
		if got := count(n); got != want {
			t.Errorf("count(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestCharts(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		values []int64
		want   string
	}{
		{nil, ""},
		{[]int64{0, 0}, "··"},
		{[]int64{1, 2, 3, 4, 5, 6, 7, 8, 0}, "▁▂▃▄▅▆▇█·"},
		{[]int64{1, 1_000_000}, "▁█"},
		{[]int64{5, 5}, "██"},
	} {
		if got := sparkline(tc.values, slices.Max(append(tc.values, 0))); got != tc.want {
			t.Errorf("sparkline(%v) = %s, want %s", tc.values, got, tc.want)
		}
	}
	if each := perColumn(5, 2); each != 3 || perColumn(0, 60) != 1 || perColumn(60, 60) != 1 || perColumn(61, 60) != 2 {
		t.Errorf("perColumn(5, 2) = %d", each)
	}
	if got := sumsOf([]int64{1, 2, 3, 4, 5}, 3); !cmp.Equal(got, []int64{6, 9}) {
		t.Errorf("sumsOf = %v", got)
	}
	for n, want := range map[int64]string{0: "", 1: "▏", 50: "████████████", 100: strings.Repeat("█", 24)} {
		if got := bar(n, 100); got != want {
			t.Errorf("bar(%d of 100) = %s, want %s", n, got, want)
		}
	}
}

func TestServerLog(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	log := newLog(config.Log{Level: "warn", Format: "auto"}, &b)
	log.Info("quiet")
	log.Warn("loud")
	var line struct {
		Msg   string `json:"msg"`
		Level string `json:"level"`
	}
	if err := json.Unmarshal(b.Bytes(), &line); err != nil || line.Msg != "loud" || line.Level != "WARN" {
		t.Errorf("log %q, %v", b.String(), err)
	}
	b.Reset()
	newLog(config.Log{Level: "debug", Format: "text"}, &b).Debug("x")
	if !strings.Contains(b.String(), "level=DEBUG msg=x") {
		t.Errorf("log %q", b.String())
	}
}

// TestManual checks that docs/cli.md names every command and exit code.
func TestManual(t *testing.T) {
	t.Parallel()
	manual, err := os.ReadFile(filepath.Join("..", "..", "docs", "cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	parser, err := kong.New(&grammar{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range parser.Model.Children {
		if !n.Hidden && !strings.Contains(string(manual), n.Name) {
			t.Errorf("docs/cli.md does not mention the command %s", n.Name)
		}
	}
	for _, code := range []int{ExitOK, ExitFailed, ExitUsage, ExitRows, ExitDiffers} {
		if !strings.Contains(string(manual), fmt.Sprintf("\n| %d | ", code)) {
			t.Errorf("docs/cli.md does not explain exit code %d", code)
		}
	}
}
