package clickstream

import (
	"context"
	"log/slog"
	"sync"

	"github.com/terselink/terse"
)

// Remote is the stream, its one consumer group, and a table of marks. It may lose all of it at any time. Its methods may be called from
// many goroutines; they return an error soon when the server cannot be reached.
type Remote interface {
	// Add appends an entry. After an error it may have been appended. Nothing is dropped for it: a full server returns an error.
	Add(ctx context.Context, entry []byte) error
	// Read hands out entries that were not handed out yet, in order; none: there are none now.
	Read(ctx context.Context, most int) ([]Message, error)
	// Unfinished hands out again, in order, what was handed out and is not done; after is the id of the last one, "" for the first.
	Unfinished(ctx context.Context, after string, most int) ([]Message, error)
	// Pending says, in order, how often what Unfinished would hand out was handed out before, and hands out nothing.
	Pending(ctx context.Context, after string, most int) ([]Pending, error)
	// Done says that messages need not be handed out again, and gives back the memory of what nobody needs, also behind a message that is not
	// done, now or in a later call, which may be for no messages. A full server takes it.
	Done(ctx context.Context, ids []string) error
	// Excuse begins to count anew how often what is not done was handed out, but for messages with these ids.
	Excuse(ctx context.Context, not map[string]bool) error
	// Tell writes marks of spools, Told reads one; "" if there is none that a node has written.
	Tell(ctx context.Context, marks map[string]string) error
	Told(ctx context.Context, spool string) (string, error)
	// Flush gives back now what Done left for a later call, and lets the Done of whoever receives next look for what is left behind. Whoever
	// receives calls it at its end.
	Flush(ctx context.Context) error
	// SetAside keeps a copy of a message where people find it, and not a second one if it was kept not long ago. An error: perhaps there is none;
	// certainly not if it is ErrNoRoom.
	SetAside(ctx context.Context, m Message, why string) error
}

// ErrNoRoom is why a copy is not kept by a server that answers.
var ErrNoRoom = &terse.Error{Code: terse.CodeUnavailable, Message: "there is no room for a copy"}

// Message is an entry in the stream.
type Message struct {
	ID         string
	Entry      []byte // nil: it is gone
	Unsigned   bool   // no node has written it, or it is damaged
	Deliveries int64  // how often it was handed out before; a Remote does not say it
}

// Pending is an entry that was handed out and is not done.
type Pending struct {
	ID         string
	Deliveries int64 // how often it was handed out
}

// trouble remembers what is wrong, and logs it when that changes.
type trouble struct {
	log  *slog.Logger
	text string // logged with it

	mu   sync.Mutex
	last string
}

// note takes the outcome of a call.
func (t *trouble) note(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil:
		t.last = ""
	case t.last != err.Error():
		t.last = err.Error()
		t.log.Warn(t.text, "error", err)
	}
}

func (t *trouble) get() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}
