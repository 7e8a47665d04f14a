package exports_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/export"
	"github.com/terselink/terse/internal/exports"
	"github.com/terselink/terse/internal/store/memstore"
)

// source is an engine that can stop in the middle.
type source struct {
	export.Source
	block atomic.Pointer[chan struct{}]
	slow  atomic.Bool // queries of domain "slow" take too long
	err   error
}

func (s *source) Clicks(ctx context.Context, q analytics.Query, p analytics.Page) ([]clicks.Event, error) {
	if c := s.block.Load(); c != nil && p.After != (terse.ClickID{}) {
		select {
		case <-*c:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if s.err != nil {
		return nil, s.err
	}
	if s.slow.Load() && q.Scope.Domain == "slow" {
		return nil, &terse.Error{Code: terse.CodeUnavailable, Reason: "query_timeout", Message: "the query took too long"}
	}
	return s.Source.Clicks(ctx, q, p)
}

type world struct {
	t     *testing.T
	now   atomic.Int64
	store terse.Store
	src   *source
	dir   string
	node  string
	m     *exports.Manager
	stop  func()

	rawDays int  // that clicks are kept; 0: for ever
	noTerms bool // how long cannot be read
}

// keeps returns the terms of every workspace.
func keeps(t analytics.Terms) func(context.Context, terse.WorkspaceID) (analytics.Terms, error) {
	return func(context.Context, terse.WorkspaceID) (analytics.Terms, error) { return t, nil }
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, src: &source{Source: enginetest.NewReference(enginetest.Events(4, 12_000))}, dir: filepath.Join(t.TempDir(), "exports")}
	w.now.Store(1_795_000_000_000)
	w.store = memstore.New(w.clock)
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) terms() analytics.TermsFunc {
	if w.noTerms {
		return func(context.Context, terse.WorkspaceID) (analytics.Terms, error) {
			return analytics.Terms{}, terse.ErrUnavailable
		}
	}
	return keeps(analytics.Terms{Raw: w.rawDays})
}

func (w *world) clock() terse.Millis { return terse.Millis(w.now.Load()) }

func (w *world) start() {
	w.t.Helper()
	m, err := exports.Open(exports.Options{
		Node: w.node, Store: w.store, Source: w.src, Dir: w.dir, Clock: w.clock, Log: slog.New(slog.DiscardHandler), Terms: w.terms(),
		Workspaces: func(_ context.Context, after terse.WorkspaceID, _ int) ([]terse.WorkspaceID, error) {
			if after < enginetest.Workspace {
				return []terse.WorkspaceID{enginetest.Workspace}, nil
			}
			return nil, nil
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	w.m = m
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		w.stop = func() {}
	}
}

func (w *world) create(f export.Format) exports.Export {
	w.t.Helper()
	e, err := w.m.Create(w.t.Context(), enginetest.Workspace, "me", exports.NewExport{Format: f, Query: analytics.Query{From: enginetest.SpanFrom, To: enginetest.SpanTo, Bots: analytics.BotsInclude, Every: true}}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

// until polls the export until it is as wanted.
func (w *world) until(id string, ok func(exports.Export) bool) exports.Export {
	w.t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		e, err := w.m.Get(w.t.Context(), enginetest.Workspace, id)
		if err == nil && ok(e) {
			return e
		}
		select {
		case <-tick.C:
		case <-limit.C:
			w.t.Fatalf("%+v, %v", e, err)
		}
	}
}

func ended(e exports.Export) bool { return e.EndedAt != 0 }

func (w *world) read(e exports.Export) []byte {
	w.t.Helper()
	f, _, err := w.m.File(w.t.Context(), e.Workspace, e.ID, e.Token)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// TestExport makes a file, opens it with its token only, and deletes it.
func TestExport(t *testing.T) {
	w := newWorld(t)
	e := w.until(w.create(export.NDJSON).ID, ended)
	b := w.read(e)
	if e.State != exports.Done || e.Rows < 6000 || int64(bytes.Count(b, []byte("\n"))) != e.Rows || int64(len(b)) != e.Bytes {
		t.Errorf("%+v of %d bytes", e, len(b))
	}
	for _, token := range []string{"", "x", strings.ToLower(e.Token)} {
		if _, _, err := w.m.File(t.Context(), e.Workspace, e.ID, token); terse.ErrorCode(err) != terse.CodeNotFound {
			t.Errorf("token %q: %v", token, err)
		}
	}
	if _, err := w.m.Get(t.Context(), 1, e.ID); terse.ErrorCode(err) != terse.CodeNotFound {
		t.Errorf("of another workspace: %v", err)
	}
	if list, err := w.m.List(t.Context(), e.Workspace); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	if err := w.m.Delete(t.Context(), e.Workspace, e.ID); err != nil {
		t.Error(err)
	}
	if files, _ := os.ReadDir(w.dir); len(files) != 0 {
		t.Errorf("%v is left", files)
	}
}

// TestOtherNode: a node that has no file says which one has it.
func TestOtherNode(t *testing.T) {
	w := newWorld(t)
	w.stop()
	w.node = "one"
	w.start()
	e := w.until(w.create(export.NDJSON).ID, ended)
	w.stop()
	w.node, w.dir = "two", filepath.Join(t.TempDir(), "exports")
	w.start()
	_, _, err := w.m.File(t.Context(), e.Workspace, e.ID, e.Token)
	if terse.ErrorCode(err) != terse.CodeConflict || !strings.Contains(err.Error(), "node one") {
		t.Errorf("file on another node: %v", err)
	}
}

// TestRestart: an export that was interrupted begins again and is whole.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	gate := make(chan struct{})
	w.src.block.Store(&gate)
	e := w.create(export.CSV)
	w.until(e.ID, func(e exports.Export) bool { return e.State == exports.Running && e.Rows > 0 })
	w.stop()
	w.src.block.Store(nil)
	w.start()
	e = w.until(e.ID, ended)
	if got := int64(bytes.Count(w.read(e), []byte("\n"))); e.State != exports.Done || got != e.Rows+1 {
		t.Errorf("%+v, %d lines", e, got)
	}
	if parts, _ := filepath.Glob(filepath.Join(w.dir, "*.part")); len(parts) != 0 {
		t.Errorf("%v is left", parts)
	}
}

// TestDeleteRunning: one that is deleted while it runs leaves nothing.
func TestDeleteRunning(t *testing.T) {
	w := newWorld(t)
	gate := make(chan struct{})
	w.src.block.Store(&gate)
	e := w.create(export.CSV)
	w.until(e.ID, func(e exports.Export) bool { return e.Rows > 0 })
	if err := w.m.Delete(t.Context(), e.Workspace, e.ID); err != nil {
		t.Fatal(err)
	}
	close(gate)
	next := w.until(w.create(export.Parquet).ID, ended)
	if next.State != exports.Done {
		t.Errorf("%+v", next)
	}
	if files, _ := os.ReadDir(w.dir); len(files) != 1 {
		t.Errorf("%v is left", files)
	}
}

// TestTidy: what another node has deleted goes from the folder of the node that made it; the rest stays.
func TestTidy(t *testing.T) {
	w := newWorld(t)
	kept, deleted := w.until(w.create(export.CSV).ID, ended), w.until(w.create(export.Parquet).ID, ended)
	other, err := exports.Open(exports.Options{
		Node: "other", Store: w.store, Source: w.src, Dir: t.TempDir(), Clock: w.clock, Log: slog.New(slog.DiscardHandler), Terms: keeps(analytics.Terms{Raw: w.rawDays}),
		Workspaces: func(context.Context, terse.WorkspaceID, int) ([]terse.WorkspaceID, error) { return nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	// Neither is of an export that was asked for.
	for _, name := range []string{"exps_1.csv", "exp_1.csv.part"} {
		if err := os.WriteFile(filepath.Join(w.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := other.Delete(t.Context(), deleted.Workspace, deleted.ID); err != nil {
		t.Fatal(err)
	}
	path := func(e exports.Export) string { return filepath.Join(w.dir, e.ID+"."+string(e.Format)) }
	if _, err := os.Stat(path(deleted)); err != nil {
		t.Fatalf("the file of the other node: %v", err)
	}
	for range 2 {
		if err := w.m.Tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(path(deleted)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file of a deleted export: %v", err)
	}
	if files, _ := os.ReadDir(w.dir); len(files) != 3 {
		t.Errorf("left: %v", files)
	}
	if len(w.read(kept)) == 0 {
		t.Error("an export that is there cannot be read")
	}
	// While the store does not answer nothing is known to be gone.
	failing, err := exports.Open(exports.Options{
		Store: w.store, Source: w.src, Dir: w.dir, Clock: w.clock, Log: slog.New(slog.DiscardHandler), Terms: keeps(analytics.Terms{Raw: w.rawDays}),
		Workspaces: func(context.Context, terse.WorkspaceID, int) ([]terse.WorkspaceID, error) {
			return nil, terse.ErrUnavailable
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := failing.Tidy(t.Context()); !errors.Is(err, terse.ErrUnavailable) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(path(kept)); err != nil {
		t.Error(err)
	}
}

// TestEnds: what cannot be made fails and says so, what is old goes.
func TestEnds(t *testing.T) {
	w := newWorld(t)
	w.src.err = terse.Invalid("from", "is bad")
	e := w.until(w.create(export.CSV).ID, ended)
	if e.State != exports.Failed || e.Fault == "" {
		t.Errorf("%+v", e)
	}
	w.now.Add(exports.Keep.Milliseconds() + 1)
	w.src.err = nil
	next := w.create(export.CSV)
	w.until(next.ID, ended)
	if _, err := w.m.Get(t.Context(), e.Workspace, e.ID); terse.ErrorCode(err) != terse.CodeNotFound {
		t.Errorf("an old one is still there: %v", err)
	}
}

// TestSlow: an export whose queries take too long, and one that cannot be read, keep nobody waiting. The first fails in the end.
func TestSlow(t *testing.T) {
	w := newWorld(t)
	w.src.slow.Store(true)
	bad := terse.Document{Workspace: enginetest.Workspace, Kind: terse.KindExport, ID: exports.Prefix + "0", Version: 1, Data: []byte("{")}
	if err := w.store.PutDocument(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	slow, err := w.m.Create(t.Context(), enginetest.Workspace, "me", exports.NewExport{Format: export.CSV, Query: analytics.Query{
		Scope: analytics.Scope{Domain: "slow"}, From: enginetest.SpanFrom, To: enginetest.SpanTo, Bots: analytics.BotsInclude,
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n < exports.MaxTimeouts; n++ {
		if e := w.until(slow.ID, func(e exports.Export) bool { return e.Attempts == n && e.State == exports.Queued }); ended(e) {
			t.Fatalf("%+v", e)
		}
		// Another one is made meanwhile; the slow one has its next turn after a pause.
		next := w.until(w.create(export.NDJSON).ID, ended)
		if e, err := w.m.Get(t.Context(), enginetest.Workspace, slow.ID); next.State != exports.Done || err != nil || e.Attempts != n {
			t.Fatalf("%+v, %+v, %v", next, e, err)
		}
		w.now.Add(time.Hour.Milliseconds())
		w.create(export.NDJSON) // wakes the manager
	}
	if e := w.until(slow.ID, ended); e.State != exports.Failed || !strings.Contains(e.Fault, "too long") {
		t.Errorf("%+v", e)
	}
}
