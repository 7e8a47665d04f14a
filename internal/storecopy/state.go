package storecopy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/facts"
)

// StateID is the document of KindMeta, of the instance, that a store has while it is being filled.
const StateID = "copy"

// state is what it says.
type state struct {
	Digest string `json:"digest"` // of the content of the source
	Links  uint64 `json:"links"`  // that were copied
	// Part is where the dump goes on; Loaded says that it is done, with the counters.
	Part   string `json:"part,omitempty"`
	Loaded bool   `json:"loaded,omitempty"`
	// Workspace is the one whose links are being copied, Cursor where they go on.
	Workspace terse.WorkspaceID `json:"workspace,omitempty"`
	Cursor    string            `json:"cursor,omitempty"`
	Copied    bool              `json:"copied,omitempty"` // all links are
}

func isState(d *terse.Document) bool {
	return d.Workspace == 0 && d.Kind == terse.KindMeta && d.ID == StateID
}

// InstanceID is the document of KindMeta, of the instance, with the name under which its nodes meet. A copy has another one: its
// feed counts anew, and the nodes of the two must not believe each other.
const InstanceID = "instance"

// isOwn: each copy has its own. Salts have to be gone within 48 hours, which nobody sees to in a copy.
func isOwn(d *terse.Document) bool {
	return d.Workspace == 0 && (d.Kind == terse.KindMeta && (d.ID == facts.FeedID || d.ID == InstanceID) || d.Kind == terse.KindSalt)
}

// Unfinished returns an error if the store is a copy that was not finished: what is missing in it is not known, so it
// must not be served.
func Unfinished(ctx context.Context, s terse.Store) error {
	_, err := s.GetDocument(ctx, 0, terse.KindMeta, StateID)
	switch {
	case errors.Is(err, terse.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("look for an unfinished copy: %w", err)
	}
	return &terse.Error{Code: terse.CodeConflict, Message: "the store is a copy that was not finished: repeat the terse copy that made it, or empty it"}
}

// begin takes the target for the copy: it is empty, or holds a part of the same one.
func (c *copier) begin(ctx context.Context, digest string) error {
	var doc terse.Document
	err := again(ctx, func() (err error) { doc, err = c.o.To.GetDocument(ctx, 0, terse.KindMeta, StateID); return err })
	if err == nil {
		if err := json.Unmarshal(doc.Data, &c.state); err != nil {
			return fmt.Errorf("read the state of the copy: %w", err)
		}
		if c.state.Digest != digest {
			return &terse.Error{Code: terse.CodeConflict, Field: "to", Message: "holds an unfinished copy of something else, or the source has changed since it was begun: empty the target and begin again"}
		}
		c.version, c.report.Resumed = doc.Version, true
		return nil
	}
	if !errors.Is(err, terse.ErrNotFound) {
		return err
	}
	if err := eachPart(ctx, c.o.To, "", func(p *terse.Part) error {
		if len(p.Documents)+len(p.Counters)+len(p.Reserved)+len(p.Retired) > 0 {
			return &terse.Error{Code: terse.CodeConflict, Field: "to", Message: "is not empty: a copy is made into an empty store"}
		}
		return nil
	}); err != nil {
		return err
	}
	c.state = state{Digest: digest}
	return c.save(ctx)
}

// save notes how far the copy is.
func (c *copier) save(ctx context.Context) error {
	data, err := json.Marshal(&c.state)
	if err != nil {
		return fmt.Errorf("write the state of the copy: %w", err)
	}
	doc := terse.Document{Kind: terse.KindMeta, ID: StateID, Version: c.version + 1, Data: data}
	err = again(ctx, func() error {
		err := c.o.To.PutDocument(ctx, doc)
		if errors.Is(err, terse.ErrExists) || errors.Is(err, terse.ErrVersion) {
			// An earlier try may have been applied.
			if have, getErr := c.o.To.GetDocument(ctx, 0, terse.KindMeta, StateID); getErr == nil && have.Version == doc.Version && string(have.Data) == string(data) {
				return nil
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("note how far the copy is: %w", err)
	}
	c.version++
	c.unsaved = 0
	return nil
}

// finish ends the copy. The numbers of the target's changes are other ones than those of the source: analytics that
// followed the source are told everything again.
func (c *copier) finish(ctx context.Context) error {
	if err := again(ctx, func() error { return facts.NewFeed(ctx, c.o.To) }); err != nil {
		return err
	}
	return again(ctx, func() error {
		if err := c.o.To.DeleteDocument(ctx, 0, terse.KindMeta, StateID, 0); !errors.Is(err, terse.ErrNotFound) {
			return err
		}
		return nil
	})
}

// pauses are those between tries of a call that a store did not answer, or not for sure.
var pauses = []time.Duration{100 * time.Millisecond, 300 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second}

// again repeats a call that may be repeated while the store does not answer it.
func again(ctx context.Context, f func() error) error {
	for _, pause := range pauses {
		err := f()
		code := terse.ErrorCode(err)
		if err == nil || ctx.Err() != nil || !slices.Contains([]terse.Code{terse.CodeUnavailable, terse.CodeUnknownOutcome}, code) {
			return err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
	return f()
}
