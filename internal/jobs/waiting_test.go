package jobs

import (
	"fmt"
	"maps"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/memstore"
)

// TestWaitingByNode: jobs that need their node are counted over all workspaces and pages; those that have ended, are paused or name no node are not.
func TestWaitingByNode(t *testing.T) {
	t.Parallel()
	store := memstore.New(func() terse.Millis { return 0 })
	put := func(doc terse.Document, v any) {
		t.Helper()
		var err error
		if doc.Data, err = json.Marshal(v); err != nil {
			t.Fatal(err)
		}
		doc.Version = 1
		if err := store.PutDocument(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
	}
	made := 0
	job := func(w terse.WorkspaceID, node string, state State, rollingBack bool) string {
		t.Helper()
		made++
		id := newID(Prefix, terse.Millis(made)*1000)
		put(terse.Document{Workspace: w, Kind: terse.KindJob, ID: id}, Job{ID: id, Workspace: w, Node: node, State: state, RollingBack: rollingBack})
		return id
	}
	const last = 3
	for w := terse.WorkspaceID(1); w <= last; w++ {
		put(terse.Document{Kind: terse.KindWorkspace, ID: w.String()}, terse.Workspace{ID: w, Name: fmt.Sprint(w)})
	}
	if got, err := WaitingByNode(t.Context(), store); err != nil || len(got) != 0 {
		t.Errorf("%+v, %v without jobs", got, err)
	}
	for _, state := range []State{Paused, Done, Failed, Cancelled, RolledBack} {
		job(1, "a", state, false)
	}
	job(1, "", Queued, false)
	oldest := job(last, "b", Running, true)
	job(1, "b", Queued, false)
	first := job(2, "a", Queued, false)
	for range listPage + 1 {
		job(2, "a", Running, false)
	}
	want := map[string]Waiting{"a": {listPage + 2, first, 2}, "b": {2, oldest, last}}
	if got, err := WaitingByNode(t.Context(), store); err != nil || !maps.Equal(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}
