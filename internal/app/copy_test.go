package app

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/store/pebblestore"
	"github.com/terselink/terse/internal/storecopy"
	"github.com/terselink/terse/internal/testengine"
)

func copyConfig(t *testing.T, data string) *config.Config {
	t.Helper()
	l, err := config.Load(config.Sources{Flags: map[string]string{"data": data}})
	if err != nil {
		t.Fatal(err)
	}
	return l.Config
}

// seeded returns a data folder with links and documents of many kinds.
func seeded(t *testing.T, links int) string {
	t.Helper()
	dir := t.TempDir()
	to := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	if err := Seed(t.Context(), copyConfig(t, dir), SeedOptions{
		Links: links, Clicks: 2_000, Days: 7, Conversions: 100, Seed: 5, To: to, Log: slog.New(slog.DiscardHandler), Progress: func(string, int, int) {},
	}); err != nil {
		t.Fatal(err)
	}
	s, err := pebblestore.Open(filepath.Join(dir, storeDir), pebblestore.Options{MaintainEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := terse.MillisOf(to)
	l, err := s.Lease(t.Context(), terse.LeaseRequest{Domain: 1, Space: terse.AliasSpace, Count: 2})
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Lease(t.Context(), terse.LeaseRequest{Domain: 1, Space: terse.SecretSpace, Count: 2})
	if err != nil {
		t.Fatal(err)
	}
	named := []terse.Link{
		{Number: terse.NewLinkNumber(1, terse.AliasSpace, l.Start), Code: "summer", Reserves: terse.NewLinkNumber(1, 6, 1<<30)},
		{Number: terse.NewLinkNumber(1, terse.AliasSpace, l.Start+1), Code: "gone", Reserves: terse.NewLinkNumber(1, 6, 1<<30+1)},
		{Number: terse.NewLinkNumber(1, terse.SecretSpace, r.Start), Code: "secret-of-22-characters", ByCode: true},
		{Number: terse.NewLinkNumber(1, terse.SecretSpace, r.Start+1), Code: "never-used-again-secret", ByCode: true},
	}
	for i := range named {
		named[i].Workspace, named[i].Version, named[i].CreatedAt, named[i].UpdatedAt, named[i].Destination = 1, 1, at, at, "https://example.com/"
	}
	named[0].Settings = &terse.LinkSettings{Title: "ü", Tags: []string{"a"}, MaxClicks: 5, Rules: []terse.Rule{{Conditions: []terse.Condition{{Type: "country", Values: []string{"DE"}}}, Destination: "https://example.com/de"}}}
	if err := s.InsertLinks(t.Context(), &terse.Chunk{Links: named}); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{1, 3} {
		if err := s.DeleteLink(t.Context(), terse.LinkKey{Number: named[i].Number, Code: named[i].Code}, 0); err != nil {
			t.Fatal(err)
		}
	}
	blocked := named[0]
	blocked.Version, blocked.Status = 4, terse.StatusBlocked
	if err := s.UpdateLink(t.Context(), &blocked, 1); err != nil {
		t.Fatal(err)
	}
	return dir
}

// emptyDatabase makes a database on the test server and returns its place.
func emptyDatabase(t *testing.T) string {
	t.Helper()
	server := testengine.Address(t, testengine.Postgres)
	name := fmt.Sprintf("terse_copy_%x", rand.Uint64())
	run := func(sql string) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		conn, err := pgx.Connect(ctx, server)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	run("create database " + name)
	t.Cleanup(func() { run("drop database if exists " + name + " with (force)") })
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// emptyTable makes a table on the test server and returns its place.
func emptyTable(t *testing.T) string {
	t.Helper()
	endpoint := testengine.Address(t, testengine.DynamoDB)
	t.Setenv("AWS_ACCESS_KEY_ID", "local")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "local")
	table := fmt.Sprintf("copy-%x", rand.Uint64())
	if err := CreateTable(t.Context(), TableOptions{Table: table, Region: "us-east-1", Endpoint: endpoint}); err != nil {
		t.Fatal(err)
	}
	return "dynamodb:" + table + "?" + url.Values{"region": {"us-east-1"}, "endpoint": {endpoint}}.Encode()
}

func copyStore(t *testing.T, from, to string) storecopy.Report {
	t.Helper()
	r, err := Copy(t.Context(), copyConfig(t, t.TempDir()), CopyOptions{From: from, To: to, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("copy %s to %s: %v", from, to, err)
	}
	return r
}

var ignoreRest = cmpopts.IgnoreUnexported(storecopy.Survey{})

// TestCopyRound copies a store through every engine and back: each copy is verified against its
// source, and the last is what the first was.
func TestCopyRound(t *testing.T) {
	first := "pebble:" + seeded(t, 1_500)
	places := []string{first, emptyDatabase(t), emptyTable(t), emptyDatabase(t), "pebble:" + t.TempDir(), emptyTable(t), "pebble:" + t.TempDir()}
	var was *storecopy.Survey
	for i := range places[1:] {
		r := copyStore(t, places[i], places[i+1])
		if was == nil {
			was = r.Source
		}
		if d := cmp.Diff(was, r.Source, ignoreRest); d != "" {
			t.Fatalf("%s holds something else than %s:\n%s", places[i], first, d)
		}
		if r.Resumed || r.Sampled != 1_000 || r.Source.LinkCount() < 1_500 {
			t.Errorf("report %+v", r)
		}
	}
	// The last copy is served as the first was: the name that was retired stays so, the counters go on.
	s, err := pebblestore.Open(filepath.Join(strings.TrimPrefix(places[len(places)-1], "pebble:"), storeDir), pebblestore.Options{MaintainEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l, err := s.GetAlias(t.Context(), 1, "summer")
	if err != nil || l.Version != 4 || l.Status != terse.StatusBlocked || l.Settings == nil || l.Settings.MaxClicks != 5 {
		t.Errorf("alias: %+v, %v", l, err)
	}
	if got, err := s.Reservations(t.Context(), 1, 6, 0, 10); err != nil || !cmp.Equal(got, []uint64{1 << 30, 1<<30 + 1}) {
		t.Errorf("reservations %d, %v", got, err)
	}
	if err := storecopy.Unfinished(t.Context(), s); err != nil {
		t.Error(err)
	}
}

const copyChild = "TERSE_TEST_COPY"

// TestCopyChild is the process that TestCopyKilled kills.
func TestCopyChild(t *testing.T) {
	from, to, ok := strings.Cut(os.Getenv(copyChild), "\n")
	if !ok {
		t.Skip("only runs as a child of TestCopyKilled")
	}
	pages := 0
	_, err := Copy(context.Background(), copyConfig(t, t.TempDir()), CopyOptions{From: from, To: to, Log: slog.New(slog.DiscardHandler), Progress: func(p storecopy.Progress) {
		if p.Phase == storecopy.PhaseCopying {
			if pages++; pages == 2 {
				fmt.Println("HALF")
				select {}
			}
		}
	}})
	t.Fatalf("nobody killed the copy: %v", err)
}

// TestCopyKilled kills a copy in its middle, for each engine, and repeats it.
func TestCopyKilled(t *testing.T) {
	first := "pebble:" + seeded(t, 10_500)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	from := first
	for _, to := range []string{emptyDatabase(t), emptyTable(t), "pebble:" + t.TempDir()} {
		cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestCopyChild$")
		cmd.Env = append(os.Environ(), copyChild+"="+from+"\n"+to)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		half := false
		for lines := bufio.NewScanner(out); !half && lines.Scan(); {
			half = lines.Text() == "HALF"
			if !half {
				t.Log(lines.Text())
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
		if !half {
			t.Fatalf("the copy to %s ended by itself", to)
		}
		if r := copyStore(t, from, to); !r.Resumed {
			t.Errorf("the copy to %s began again", to)
		}
		from = to
	}
}

// TestCopyRefuses: what is no place, what is in use, what is not empty.
func TestCopyRefuses(t *testing.T) {
	dir, other := seeded(t, 100), seeded(t, 100)
	cfg := copyConfig(t, t.TempDir())
	try := func(from, to string) error {
		_, err := Copy(t.Context(), cfg, CopyOptions{From: from, To: to, Log: slog.New(slog.DiscardHandler)})
		return err
	}
	want := func(err error, code terse.Code, text string) {
		t.Helper()
		if terse.ErrorCode(err) != code || !strings.Contains(fmt.Sprint(err), text) {
			t.Errorf("got %v, want an error of code %s with %q", err, code, text)
		}
	}
	empty := "pebble:" + t.TempDir()
	want(try("memory:", empty), terse.CodeInvalid, "memory keeps nothing")
	want(try("pebble", empty), terse.CodeInvalid, "is not of the form")
	want(try("mysql:x", empty), terse.CodeInvalid, "is no engine")
	want(try("postgres:", empty), terse.CodeInvalid, "needs a URL")
	want(try("dynamodb:x?color=red", empty), terse.CodeInvalid, "knows region and endpoint")
	want(try("pebble:"+dir, "pebble:"+dir+"/."), terse.CodeInvalid, "is where the copy comes from")
	want(try(empty, "pebble:"+dir), terse.CodeInvalid, "is no data folder")
	want(try("pebble:"+dir, "pebble:"+other), terse.CodeConflict, "is not empty")
	s, err := pebblestore.Open(filepath.Join(dir, storeDir), pebblestore.Options{MaintainEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want(try("pebble:"+dir, empty), terse.CodeUnavailable, "in use by another process")
}
