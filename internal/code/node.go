package code

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/terselink/terse"
)

const (
	// nodeStep is how far ahead of the clock a claim is persisted: one write for so many
	// milliseconds in which snowflakes are made.
	nodeStep = 10_000
	// nodeRest is how long after the last millisecond of a claim another process may
	// take the id over: clocks of nodes differ.
	nodeRest = 60_000
	// nodePrefix begins the ids of the documents of claims.
	nodePrefix = "snowflake-"
)

// Documents is what a Node needs of terse.Store.
type Documents interface {
	PutDocument(ctx context.Context, doc terse.Document) error
	ListDocuments(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, after string, limit int) ([]terse.Document, error)
}

// Node holds the claim of this process on one of MaxNodes node ids. A claim is a document
// whose version fences it: whoever takes the id over or extends the claim raises the version,
// and the write of anybody who saw an older one fails. LastMS is persisted ahead of the
// clock, so that what a process used before it was killed is below it.
//
// Not safe for many goroutines: Snowflakes calls it under its lock.
type Node struct {
	store Documents

	held    bool
	id      int
	version uint64
	until   terse.Millis // LastMS: no millisecond at or above it is ours
}

// claim is the document of a node id.
type claim struct {
	LastMS   terse.Millis `json:"last_ms"`            // no snowflake of the holder is as late
	Released bool         `json:"released,omitempty"` // the holder has stopped for good
}

// NewNode returns a node without a claim.
func NewNode(store Documents) *Node { return &Node{store: store} }

// Own returns the node id that this process may use in the millisecond now, which never is
// earlier than one of an earlier call. It writes when the claim does not reach so far.
// Returns an error of code unavailable if no id is free or the store does not write.
func (n *Node) Own(ctx context.Context, now terse.Millis) (int, error) {
	if n.held && now < n.until {
		return n.id, nil
	}
	if n.held {
		err := n.put(ctx, n.id, n.version+1, claim{LastMS: now + nodeStep})
		if err == nil {
			return n.id, nil
		}
		switch terse.ErrorCode(err) {
		case terse.CodePrecondition, terse.CodeConflict, terse.CodeUnknownOutcome:
			n.held = false // taken over after a long pause, or not known: another id will do
		default:
			return 0, fmt.Errorf("extend snowflake node %d: %w", n.id, err)
		}
	}
	return n.claim(ctx, now)
}

// claim takes an id that nobody holds.
func (n *Node) claim(ctx context.Context, now terse.Millis) (int, error) {
	docs, err := n.store.ListDocuments(ctx, 0, terse.KindNode, "", MaxNodes)
	if err != nil {
		return 0, fmt.Errorf("list snowflake nodes: %w", err)
	}
	versions := make(map[string]uint64, len(docs))
	busy := make(map[string]bool, len(docs))
	for _, doc := range docs {
		var c claim
		if err := json.Unmarshal(doc.Data, &c); err != nil {
			return 0, fmt.Errorf("read snowflake node %s: %w", doc.ID, err)
		}
		versions[doc.ID] = doc.Version
		rest := terse.Millis(nodeRest)
		if c.Released {
			rest = 0 // the holder said that it has stopped, but clocks may still be set back
		}
		busy[doc.ID] = now <= c.LastMS+rest
	}
	for id := range MaxNodes {
		name := nodeName(id)
		if busy[name] {
			continue
		}
		err := n.put(ctx, id, versions[name]+1, claim{LastMS: now + nodeStep})
		switch {
		case err == nil:
			return id, nil
		case errors.Is(err, terse.ErrExists), errors.Is(err, terse.ErrVersion), terse.ErrorCode(err) == terse.CodeUnknownOutcome:
			continue // another process was faster, or nobody knows: the next id will do
		}
		return 0, fmt.Errorf("claim snowflake node: %w", err)
	}
	return 0, &terse.Error{
		Code: terse.CodeUnavailable, Reason: "no_node", Op: "claim snowflake node",
		Message: "every node id is in use; ids of processes that were killed are free after a minute",
	}
}

// Release gives the id back: no snowflake was made after last.
func (n *Node) Release(ctx context.Context, last terse.Millis) error {
	if !n.held {
		return nil
	}
	err := n.put(ctx, n.id, n.version+1, claim{LastMS: last, Released: true})
	n.held = false // whatever the outcome: nothing is made with the id any more
	if err != nil {
		return fmt.Errorf("release snowflake node: %w", err)
	}
	return nil
}

func (n *Node) put(ctx context.Context, id int, version uint64, c claim) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	err = n.store.PutDocument(ctx, terse.Document{Kind: terse.KindNode, ID: nodeName(id), Version: version, Data: data})
	if err == nil {
		n.held, n.id, n.version, n.until = true, id, version, c.LastMS
	}
	return err
}

func nodeName(id int) string { return nodePrefix + strconv.Itoa(id) }

// Close releases the node id.
func (s *Snowflakes) Close(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node.Release(ctx, s.last)
}
