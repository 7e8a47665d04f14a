package jobs

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
)

// OtherNodeError says that another node has a job or an upload. It is an error of code conflict.
type OtherNodeError struct {
	What string // job or upload
	Node string // id
}

// Error implements error.
func (e *OtherNodeError) Error() string {
	return "the " + e.What + " is on the node " + e.Node + "; ask there"
}

// Unwrap gives the error its code.
func (e *OtherNodeError) Unwrap() error {
	return &terse.Error{Code: terse.CodeConflict, Reason: "other_node", Message: e.Error()}
}

// Getter is what Owner needs of a terse.Store.
type Getter interface {
	GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error)
}

// Owner returns the node that has a job; "" if the job is from before there were several. Returns ErrNotFound.
func Owner(ctx context.Context, store Getter, w terse.WorkspaceID, id string) (node string, err error) {
	j, err := stored(ctx, store, w, id)
	return j.Node, err
}

// stored reads a job. Returns ErrNotFound.
func stored(ctx context.Context, store Getter, w terse.WorkspaceID, id string) (j Job, err error) {
	if !isID(Prefix, id) {
		return j, terse.ErrNotFound
	}
	doc, err := store.GetDocument(ctx, w, terse.KindJob, id)
	if err != nil {
		return j, fmt.Errorf("find job: %w", err)
	}
	if err := json.Unmarshal(doc.Data, &j); err != nil {
		return j, fmt.Errorf("job %s: %w", id, err)
	}
	return j, nil
}

// Deleter is what DeleteLost needs of a terse.Store.
type Deleter interface {
	Getter
	DeleteDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string, ifVersion uint64) error
}

// DeleteLost forgets a job, in whatever state it is, whose node is not there to do it. Its results stay on the
// disk of that node until it starts more than 30 days after the job was made.
// Returns ErrNotFound, or an error of code conflict if the job changes meanwhile: its node is back.
func DeleteLost(ctx context.Context, store Deleter, w terse.WorkspaceID, id string) error {
	doc, err := store.GetDocument(ctx, w, terse.KindJob, id)
	if err == nil {
		err = store.DeleteDocument(ctx, w, terse.KindJob, id, doc.Version)
	}
	if errors.Is(err, terse.ErrVersion) {
		return &terse.Error{Code: terse.CodeConflict, Reason: "wrong_state", Message: "the node of the job is back and goes on with it", Err: err}
	}
	if err != nil {
		return fmt.Errorf("delete job: %w", err)
	}
	return nil
}

// UploadMayBe reports whether an upload of an id is worth waiting for at a time, on a node of which nothing is known: not if it
// is from the future, clocks of nodes being within a day of each other, nor after the time for which the history of jobs is
// kept. Without a job it has been deleted long before then, and a job that needs it can no longer go on.
func UploadMayBe(id string, now terse.Millis) bool {
	const (
		keep  = historyKeep
		ahead = 24 * 60 * 60 * 1000 // milliseconds
	)
	at := idTime(UploadPrefix, id[:min(len(id), len(UploadPrefix)+idLen)], -1)
	return at >= now-keep && at <= now+ahead
}

// idLen is the length of what newID makes, without its prefix.
const idLen = 26

// The id of an upload ends with the id of the node that has it, where there are several: nothing about an upload is in the
// store. An id that is not fit for a URL and the name of a file is written in hexadecimal.
const (
	ownerMark  = "_"
	hexMark    = "~"
	maxOwnerID = 200 // bytes
)

func newUploadID(node string, at terse.Millis) string {
	id := newID(UploadPrefix, at)
	switch {
	case node == "":
		return id
	case plainOwner(node):
		return id + ownerMark + node
	}
	return id + ownerMark + hexMark + hex.EncodeToString([]byte(node))
}

// UploadOwner returns the node that an id of an upload names; "" if it names none.
func UploadOwner(id string) string {
	const head = len(UploadPrefix) + idLen
	if len(id) <= head || !isID(UploadPrefix, id[:head]) {
		return ""
	}
	node, ok := strings.CutPrefix(id[head:], ownerMark)
	if coded, isHex := strings.CutPrefix(node, hexMark); ok && isHex {
		b, err := hex.DecodeString(coded)
		if node = string(b); err != nil || plainOwner(node) || hex.EncodeToString(b) != coded { // one spelling for each node
			return ""
		}
	} else if !ok || !plainOwner(node) {
		return ""
	}
	// A store may be asked for it.
	if len(node) > maxOwnerID || !utf8.ValidString(node) || strings.ContainsFunc(node, unicode.IsControl) {
		return ""
	}
	return node
}

// plainOwner reports whether an id of a node may stand in a URL and in the name of a file as it is.
func plainOwner(node string) bool {
	return node != "" && !strings.ContainsFunc(node, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	})
}
