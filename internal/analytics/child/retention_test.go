package child

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics/duckdb"
)

// TestRetentionBeforeOpen: rules that are set while the child still opens reach it when it has, and a child that was
// told none keeps everything.
func TestRetentionBeforeOpen(t *testing.T) {
	dir, err := os.MkdirTemp("", "terse-") // a short name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "child.sock")
	var got atomic.Pointer[duckdb.Retention]
	mux := http.NewServeMux()
	mux.HandleFunc("POST /retention", answer(func(_ context.Context, r duckdb.Retention) (any, error) {
		got.Store(&r)
		return struct{}{}, nil
	}))
	stop, err := listen(socket, mux)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	s := &Supervisor{o: Options{Clock: time.Now, Log: logs(t)}, client: newClient(socket), detail: "starting"}
	t.Cleanup(s.client.close)
	if r, _ := s.retention(); r.Default != (duckdb.Terms{}) || r.Workspaces != nil || r.Rollups != 0 {
		t.Errorf("a child is configured with %+v before anybody has set rules", r)
	}
	want := duckdb.Retention{Default: duckdb.Terms{Raw: 30}, Workspaces: map[terse.WorkspaceID]duckdb.Terms{7: {Raw: 900}}}
	if err := s.SetRetention(t.Context(), want); terse.ErrorCode(err) != terse.CodeUnavailable || got.Load() != nil {
		t.Fatalf("before the child is open: %v, %+v", err, got.Load())
	}
	s.mu.Lock()
	s.opened = true
	s.mu.Unlock()
	ended, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); s.watch(ended) }()
	until(t, "the child is told", func() bool { return got.Load() != nil })
	close(ended)
	<-done
	if d := cmp.Diff(want, *got.Load()); d != "" {
		t.Error(d)
	}
}
