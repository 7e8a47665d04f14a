package jobs

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
)

// Waiting are jobs that need their node to go on.
type Waiting struct {
	Jobs int
	// Oldest is the one that was made first, with its workspace.
	Oldest    string
	Workspace terse.WorkspaceID
}

// WaitingByNode returns, by the id of the node that has them, the jobs of all workspaces that are queued or running, a rollback too. One that is
// paused waits for somebody who resumes it, and one from before there were several nodes names none: they are left out. Where a node is there
// its jobs wait for nothing.
func WaitingByNode(ctx context.Context, store Lister) (map[string]Waiting, error) {
	found := map[string]Waiting{}
	for after := ""; ; {
		docs, err := store.ListDocuments(ctx, 0, terse.KindWorkspace, after, listPage)
		if err != nil {
			return nil, fmt.Errorf("list workspaces: %w", err)
		}
		for i := range docs {
			after = docs[i].ID
			var w terse.Workspace
			if err := json.Unmarshal(docs[i].Data, &w); err != nil {
				return nil, fmt.Errorf("workspace %s: %w", after, err)
			}
			if err := waitingIn(ctx, store, w.ID, found); err != nil {
				return nil, err
			}
		}
		if len(docs) < listPage {
			return found, nil
		}
	}
}

// waitingIn adds the jobs of a workspace, which are listed in the order in which they were made.
func waitingIn(ctx context.Context, store Lister, w terse.WorkspaceID, found map[string]Waiting) error {
	for after := ""; ; {
		docs, err := store.ListDocuments(ctx, w, terse.KindJob, after, listPage)
		if err != nil {
			return fmt.Errorf("list jobs: %w", err)
		}
		for i := range docs {
			after = docs[i].ID
			var j Job
			if err := json.Unmarshal(docs[i].Data, &j); err != nil {
				return fmt.Errorf("job %s: %w", after, err)
			}
			if j.Node == "" || j.State != Queued && j.State != Running {
				continue
			}
			n := found[j.Node]
			if n.Jobs++; n.Oldest == "" || after < n.Oldest {
				n.Oldest, n.Workspace = after, w
			}
			found[j.Node] = n
		}
		if len(docs) < listPage {
			return nil
		}
	}
}
