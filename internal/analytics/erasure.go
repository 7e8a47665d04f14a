package analytics

import (
	"context"

	"github.com/terselink/terse"
)

// Erasure names clicks of one workspace whose history is to be erased: all of a link, or all of a visitor.
type Erasure struct {
	Workspace terse.WorkspaceID
	Link      terse.LinkNumber // 0: not by link
	Visitor   uint64           // 0: not by visitor; a visitor lives for one UTC day
}

// Check returns an error of code invalid if nothing is named.
func (e Erasure) Check() error {
	switch {
	case e.Workspace == 0 || e.Workspace > 1<<31-1:
		return terse.Invalid("workspace", "is missing")
	case e.Link == 0 && e.Visitor == 0:
		return terse.Invalid("link_id", "name a link or a visitor")
	case e.Link > 1<<63-1:
		return terse.Invalid("link_id", "is no link")
	}
	return nil
}

// Eraser is implemented by engines that can forget clicks.
type Eraser interface {
	// Erase removes clicks from everything the engine keeps and returns how many there were. Clicks
	// of the same link or visitor that were made before the call and come later are left out
	// too. When it returns the files are rewritten; after an error some clicks may be left, and
	// the same call finishes the work.
	Erase(ctx context.Context, e Erasure) (int64, error)
}
