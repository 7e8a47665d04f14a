package child

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/duckdb"
	"github.com/terselink/terse/internal/clicks"
)

// The test binary is also the child, in several characters.
const (
	envMode   = "TERSE_TEST_CHILD"
	envEvents = "TERSE_TEST_EVENTS"
	envDir    = "TERSE_TEST_DIR"
)

func TestMain(m *testing.M) {
	switch os.Getenv(envMode) {
	case "":
		goleak.VerifyTestMain(m)
	case "spool":
		os.Exit(Main(os.Stdin, os.Stdout, os.Stderr))
	case "fake":
		os.Exit(run(os.Stdin, os.Stdout, os.Stderr, openFake))
	case "unusable":
		os.Exit(exitUnusable)
	case "parent":
		os.Exit(beParent())
	}
}

// fakeSpool is a spool of numbered events without files: the position is the number.
type fakeSpool struct {
	at, end int64
}

func openFake(_ config, from clicks.Position) (spool, error) {
	end, err := strconv.ParseInt(os.Getenv(envEvents), 10, 64)
	return &fakeSpool{at: from.Offset, end: end}, err
}

// fakeEvent is event number i: its id is its number, and it lies on one of three days.
func fakeEvent(i int64, ev *clicks.Event) {
	*ev = clicks.Event{At: terse.Millis(1_793_000_000_000 + i*300), Workspace: 1, Link: terse.LinkNumber(1 + i%50), Domain: "go.example.com",
		Code: strconv.FormatInt(i%50, 36), Destination: "https://example.com/some/long/destination", Trigger: "link", Visitor: uint64(i%1000 + 1),
		Country: "DE", Device: "mobile", OS: "iOS", Browser: "Safari", Weight: 1}
	binary.BigEndian.PutUint64(ev.ID[8:], uint64(i))
}

func (f *fakeSpool) Next(_ context.Context, most int, fn func(*clicks.Event) error) (int, error) {
	var ev clicks.Event
	n := 0
	for ; n < min(most, 4096) && f.at < f.end; n++ {
		fakeEvent(f.at, &ev)
		if err := fn(&ev); err != nil {
			return n, err
		}
		f.at++
	}
	return n, nil
}

func (f *fakeSpool) Position() clicks.Position {
	return clicks.Position{Boot: "fake", Segment: 1, Offset: f.at}
}

func (f *fakeSpool) Wait(ctx context.Context) error {
	t := time.NewTimer(5 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fakeSpool) Close() error       { return nil }
func (f *fakeSpool) Quarantined() int64 { return 0 }

// logs is a log that a failed test shows.
func logs(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func start(t *testing.T, o Options, env ...string) *Supervisor {
	t.Helper()
	if o.Exe == "" {
		o.Exe = os.Args[0]
	}
	o.Args = []string{"-test.run=^$"}
	o.Env, o.Log, o.MemoryLimit = env, logs(t), 512<<20
	if o.MinDelay == 0 {
		o.MinDelay, o.MaxDelay = 10*time.Millisecond, 50*time.Millisecond
	}
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

// until polls a condition of another process, for at most three minutes.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(3 * time.Minute)
	defer limit.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("waited three minutes until %s", what)
		}
	}
}

func everything() analytics.Query {
	return analytics.Query{Workspace: 1, From: 1_767_225_600_000, To: 1_830_297_600_000, By: analytics.Link}
}

// TestKill kills the child at random moments while it appends, commits and writes checkpoints: in the
// end every event is there, once.
func TestKill(t *testing.T) {
	kills, events := 12, int64(700_000)
	if testing.Short() {
		kills, events = 3, 60_000
	}
	dir := t.TempDir()
	s := start(t, Options{DataDir: dir, walBytes: 4 << 20}, envMode+"=fake", fmt.Sprintf("%s=%d", envEvents, events))
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1)) // moments are random anyway
	for range kills {
		until(t, "the child is open", s.isOpen)
		// Half of the kills come at a random time, half right after some progress.
		if r.IntN(2) == 0 {
			pause := time.NewTimer(time.Duration(r.IntN(400)) * time.Millisecond)
			<-pause.C
		} else {
			before := s.Status(t.Context()).Position.Offset
			until(t, "the child gets on", func() bool {
				at := s.Status(t.Context()).Position.Offset
				return at > before || at == events
			})
		}
		restarts := s.Restarts()
		s.kill()
		until(t, "the child is gone", func() bool { return !s.isOpen() || s.Restarts() > restarts })
	}
	until(t, "everything is read", func() bool {
		st := s.Status(t.Context())
		return st.Position.Offset == events && st.State == analytics.StateReady
	})
	if got := s.Restarts(); got < int64(kills) {
		t.Errorf("%d restarts after %d kills", got, kills)
	}
	sum, err := s.Summary(t.Context(), everything())
	if err != nil || sum.Clicks != events {
		t.Errorf("%d clicks, want %d; %v", sum.Clicks, events, err)
	}
	b, err := s.Breakdown(t.Context(), everything())
	if err != nil || b.Total != events || b.Values != 50 {
		t.Errorf("%+v, %v", b, err)
	}
	if st := s.Status(t.Context()); st.Rows != events {
		t.Errorf("%+v", st)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, distinct, ids, err := duckdb.Audit(t.Context(), duckdb.Options{Dir: filepath.Join(dir, "analytics"), Record: filepath.Join(dir, "record")})
	if want := events * (events - 1) / 2; err != nil || rows != events || distinct != events || ids != want {
		t.Errorf("%d rows, %d ids, sum %d; want %d and %d; %v", rows, distinct, ids, events, want, err)
	}
}

// TestSpool goes the whole way: captured clicks, the spool on disk, the real child, the numbers.
func TestSpool(t *testing.T) {
	dir := t.TempDir()
	rec, err := clicks.Open(clicks.Options{Dir: filepath.Join(dir, "spool"), Log: logs(t)})
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, Options{DataDir: dir, Enrich: clicks.EnrichSettings{RefPath: true}}, envMode+"=spool")
	at := terse.MillisOf(time.Now())
	for i := range 10 {
		c := clicks.Click{At: at, Workspace: 1, Link: 7, Domain: "go.example.com", Code: []byte("summer"), Destination: "https://example.com/a", Referrer: []byte("https://blog.test/post?of=me"),
			IP: netip.MustParseAddr("203.0.113.9"), UserAgent: []byte("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36")}
		if i >= 7 {
			c.UserAgent = []byte("Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)")
		}
		if !rec.Capture(0, &c) {
			t.Fatal("not captured")
		}
	}
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	var sum analytics.Summary
	until(t, "the clicks are counted", func() bool {
		sum, err = s.Summary(t.Context(), everything())
		return err == nil && sum.Total == 10
	})
	if sum.Clicks != 7 || sum.Bots != 3 {
		t.Errorf("%+v", sum)
	}
	q := everything()
	q.By = analytics.Browser
	b, err := s.Breakdown(t.Context(), q)
	if err != nil || len(b.Data) != 1 || b.Data[0].Value != "Chrome" || b.Data[0].Clicks != 7 {
		t.Errorf("%+v, %v", b, err)
	}
	list, err := s.Clicks(t.Context(), everything(), analytics.Page{Limit: 1})
	if err != nil || len(list) != 1 || list[0].RefHost != "blog.test" || list[0].RefPath != "/post" {
		t.Errorf("the process is not told of the settings: %+v, %v", list, err)
	}
	if s.Position() == (clicks.Position{}) && s.Status(t.Context()).Position == (clicks.Position{}) {
		t.Error("the position did not move")
	}
	info, err := os.Stat(s.socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v", info, err)
	}
	metrics, err := registry(t, s).Gather()
	if err != nil || len(metrics) < 9 {
		t.Errorf("%d metrics, %v", len(metrics), err)
	}
}

// TestCorrupt: a file that cannot be opened is set aside after two tries and rebuilt.
func TestCorrupt(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "analytics", duckdb.FileName)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Repeat("no database", 5000)), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, Options{DataDir: dir}, envMode+"=fake", envEvents+"=5000")
	until(t, "the file is rebuilt", func() bool {
		st := s.Status(t.Context())
		return st.State == analytics.StateReady && st.Rows == 5000
	})
	if bad, _ := filepath.Glob(file + ".bad-*"); len(bad) != 1 || s.Restarts() != failedOpens {
		t.Errorf("%v set aside, %d restarts", bad, s.Restarts())
	}
}

// TestDamagedWAL: a byte of the write-ahead log that changed is noticed. Whatever DuckDB makes of it
// (an error, or the torn end that it discards), the spool brings the rows back.
func TestDamagedWAL(t *testing.T) {
	dir := t.TempDir()
	// No other child comes after the one that is killed: it would close the file in order.
	s := start(t, Options{DataDir: dir, MinDelay: time.Hour, MaxDelay: time.Hour}, envMode+"=fake", envEvents+"=20000")
	until(t, "everything is read", func() bool { return s.Status(t.Context()).Rows == 20_000 })
	s.kill() // leaves a write-ahead log
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	wal := filepath.Join(dir, "analytics", duckdb.FileName+".wal")
	data, err := os.ReadFile(wal)
	if err != nil || len(data) < 1000 {
		t.Fatalf("no log of %d bytes to damage: %v", len(data), err)
	}
	data[len(data)/2] ^= 0xff
	if err := os.WriteFile(wal, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s = start(t, Options{DataDir: dir}, envMode+"=fake", envEvents+"=20000")
	until(t, "the file is right again", func() bool {
		st := s.Status(t.Context())
		return st.State == analytics.StateReady && st.Rows == 20_000
	})
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, distinct, _, err := duckdb.Audit(t.Context(), duckdb.Options{Dir: filepath.Join(dir, "analytics"), Record: filepath.Join(dir, "record")})
	if err != nil || rows != 20_000 || distinct != rows {
		t.Errorf("%d rows, %d ids, %v", rows, distinct, err)
	}
}

// TestDown: without a child the answers are errors at once, and the state says why.
func TestDown(t *testing.T) {
	s := start(t, Options{DataDir: t.TempDir(), Exe: "/nonexistent/terse"})
	_, err := s.Summary(t.Context(), everything())
	if e, ok := errors.AsType[*terse.Error](err); !ok || e.Code != terse.CodeUnavailable || e.Reason != "analytics_down" {
		t.Errorf("got %v", err)
	}
	until(t, "a restart", func() bool { return s.Restarts() > 0 })
	if st := s.Status(t.Context()); st.State != analytics.StateDown || !strings.Contains(st.Detail, "nonexistent") {
		t.Errorf("%+v", st)
	}
}

// TestParentDies: the child of a parent that was killed lets go of the database.
func TestParentDies(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envMode+"=parent", envDir+"="+dir)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("open\n"))
	if _, err := io.ReadFull(out, line); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "analytics")
	if _, err := duckdb.Open(t.Context(), duckdb.Options{Dir: folder, LockWait: time.Nanosecond}); !errors.Is(err, error(duckdb.ErrLocked)) {
		t.Errorf("while the child has the file: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // says that it was killed
	db, err := duckdb.Open(t.Context(), duckdb.Options{Dir: folder, LockWait: 2 * time.Minute})
	if err != nil {
		t.Fatalf("the child outlived its parent: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// beParent is a parent that waits to be killed.
func beParent() int {
	s, err := Start(context.Background(), Options{DataDir: os.Getenv(envDir), Args: []string{"child"}, Env: []string{envMode + "=fake", envEvents + "=10"},
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return 1
	}
	for !s.isOpen() {
		<-time.After(5 * time.Millisecond)
	}
	fmt.Println("open")
	select {}
}

// TestLongPath: a data folder whose socket name would be too long works all the same.
func TestLongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	s := start(t, Options{DataDir: dir}, envMode+"=fake", envEvents+"=10")
	until(t, "it answers", func() bool { return s.Status(t.Context()).Rows == 10 })
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(s.socket)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's folder is left behind: %v", err)
	}
}

func TestStartRefuses(t *testing.T) {
	if _, err := Start(t.Context(), Options{}); terse.ErrorCode(err) != terse.CodeInvalid {
		t.Errorf("got %v", err)
	}
}
