package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/sleep"
)

// An insert whose answer did not come may have been applied, or may be applied in a moment. So nothing is
// written for a spool while the server still works on an insert of it; then the clicks that follow
// the position, as many as a batch holds, are looked up by their ids, and only those that
// are not there are written.

const (
	// settleKill is how long an insert of before may go on until it is killed.
	settleKill = 10 * time.Second
	settlePoll = 100 * time.Millisecond
	// lookUp is how many ids one statement asks for.
	lookUp = 5000
)

// insertID returns the id of the next insert. The server shows it as long as it works on it.
func (e *Engine) insertID() string {
	e.insertSeq++
	return fmt.Sprintf("%s%d-%d", e.inserting, e.boot, e.insertSeq)
}

// insertPrefix is what the ids of the inserts of a spool begin with.
func insertPrefix(source string) string { return "terse-clicks-" + source + "-" }

// settle returns when the server works on no insert with an id of this prefix any more.
func (e *Engine) settle(ctx context.Context, prefix string) error {
	cond := "startsWith(query_id, " + literal(prefix) + ")"
	began := time.Now()
	killed := false
	for {
		n, err := e.number(ctx, "SELECT count() FROM system.processes WHERE "+cond)
		if err != nil || n == 0 {
			return err
		}
		if !killed && time.Since(began) > settleKill {
			killed = true
			if err := e.exec(ctx, "KILL QUERY WHERE "+cond+" ASYNC"); err != nil {
				e.o.Log.Warn("an insert of before cannot be killed; waiting for its end", "error", err)
			}
		}
		if err := sleep.For(ctx, settlePoll); err != nil {
			return err
		}
	}
}

// missing returns the events that are not in the table, in memory of its own.
func (e *Engine) missing(ctx context.Context, events []clicks.Event) ([]clicks.Event, error) {
	there := map[[16]byte]bool{}
	for chunk := range slices.Chunk(events, lookUp) {
		if err := e.present(ctx, chunk, there); err != nil {
			return nil, err
		}
	}
	if len(there) == 0 {
		return events, nil
	}
	left := make([]clicks.Event, 0, len(events))
	for i := range events {
		if !there[events[i].ID] {
			left = append(left, events[i])
		}
	}
	e.metrics.doubted.Add(float64(len(events) - len(left)))
	return left, nil
}

// present adds the ids of the events that are in the table.
func (e *Engine) present(ctx context.Context, events []clicks.Event, there map[[16]byte]bool) error {
	ctx, cancel := context.WithTimeout(ctx, e.o.InsertTimeout)
	defer cancel()
	days, workspaces := map[int64]bool{}, map[terse.WorkspaceID]bool{}
	first, last := events[0].At, events[0].At
	for i := range events {
		ev := &events[i]
		days[dayOf(ev.At)], workspaces[ev.Workspace] = true, true
		first, last = min(first, ev.At), max(last, ev.At)
	}
	text := fmt.Sprintf("SELECT event_id FROM clicks PREWHERE workspace_id IN (%s) AND %s AND ts_ms >= %d AND ts_ms <= %d WHERE toString(event_id) IN (%s)",
		list(keys(workspaces), number[terse.WorkspaceID]), dayIn(keys(days)), first, last,
		list(events, func(ev clicks.Event) string { return "'" + uuid.UUID(ev.ID).String() + "'" }))
	return e.scan(ctx, text, func(r row) error {
		var id uuid.UUID
		err := r.Scan(&id)
		there[id] = true
		return err
	})
}
