package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
)

// state is what facts_state holds: where the facts are.
type state struct {
	ver   uint64
	epoch uint64 // that is being told
	shown uint64 // that questions see
	at    uint64
	known bool
}

// stateRow is the one name in facts_state.
const stateRow = "facts"

func (e *Engine) readState(ctx context.Context) (s state, err error) {
	var known uint8
	err = e.scan(ctx, "SELECT ver, epoch, shown, at, known FROM facts_state WHERE name = '"+stateRow+"' ORDER BY ver DESC LIMIT 1", func(r row) error {
		return r.Scan(&s.ver, &s.epoch, &s.shown, &s.at, &known)
	})
	s.known = known != 0
	return s, err
}

func (e *Engine) writeState(ctx context.Context, s state) error {
	return e.rows(ctx, "facts_state (name, ver, epoch, shown, at, known)", [][]any{{stateRow, s.ver, s.epoch, s.shown, s.at, uint8(bit(s.known))}})
}

// FactsAt implements analytics.FactSink.
func (e *Engine) FactsAt(ctx context.Context) (seq uint64, known bool, err error) {
	err = e.ask(ctx, "facts_at", func(ctx context.Context) error {
		s, err := e.readState(ctx)
		seq, known = s.at, s.known
		return err
	})
	return seq, known, err
}

// PutFacts implements analytics.FactSink. Rows come first and the position last; each row replaces what is known of
// its link, campaign or conversion, so a batch that was cut off in the middle is finished by telling it again. What is
// told from the beginning gets an epoch of its own, and is seen when it is whole.
func (e *Engine) PutFacts(ctx context.Context, b analytics.FactBatch) error {
	if e.dialect.Load() == nil {
		return errDown
	}
	e.putting.Lock()
	defer e.putting.Unlock()
	ctx = context.WithoutCancel(ctx) // what began is worth finishing
	fail := func(err error) error {
		down := *errDown
		down.Op, down.Err = "put facts", err
		return &down
	}
	s, err := e.readState(ctx)
	if err != nil {
		return fail(err)
	}
	if !b.Follows(s.at, s.known) {
		return &terse.Error{Code: terse.CodePrecondition, Message: fmt.Sprintf("the engine's facts are of change %d (known: %v), not of %d", s.at, s.known, b.From)}
	}
	was := s
	// A conversion that finds its click is written with the version after its own (pending.go).
	s.ver += 2
	if b.Reset {
		s.epoch = s.ver
	}
	if s.at, s.known = b.At, !b.Partial; s.known {
		s.shown = s.epoch
	}
	if err := e.putRows(ctx, &s, &b); err != nil {
		return fail(err)
	}
	if err := e.writeState(ctx, s); err != nil {
		return fail(err)
	}
	if !s.known {
		return nil
	}
	if was.shown != s.shown {
		if err := e.dropEpochs(ctx, s.shown); err != nil {
			e.o.Log.Warn("facts that were told again leave the old ones behind; tried again at the next start", "error", err)
		}
	}
	if len(b.Conversions) > 0 || !was.known {
		if err := e.join(ctx); err != nil {
			e.o.Log.Warn("conversions cannot look for their clicks; tried again", "error", err)
		}
	}
	return nil
}

func (e *Engine) putRows(ctx context.Context, s *state, b *analytics.FactBatch) error {
	links := make([][]any, 0, len(b.Links))
	for _, l := range b.Links {
		if !l.New || len(l.Tags) > 0 {
			links = append(links, []any{s.epoch, uint32(l.Workspace), uint64(l.Link), s.ver, validTags(l.Tags)})
		}
	}
	if err := e.rows(ctx, "link_tags (epoch, workspace_id, link_id, ver, tags)", links); err != nil {
		return err
	}
	campaigns := make([][]any, 0, len(b.Campaigns))
	for _, c := range b.Campaigns {
		campaigns = append(campaigns, []any{s.epoch, uint32(c.Workspace), uint64(c.Campaign), s.ver, validTags(c.Tags)})
	}
	if err := e.rows(ctx, "campaign_tags (epoch, workspace_id, campaign_id, ver, tags)", campaigns); err != nil {
		return err
	}
	// Told twice in one batch, the last one holds: rows of one version are not told apart.
	last := map[string]int{}
	for i := range b.Conversions {
		last[number(b.Conversions[i].Workspace)+"/"+b.Conversions[i].ID] = i
	}
	conversions := make([][]any, 0, len(b.Conversions))
	for i := range b.Conversions {
		if c := &b.Conversions[i]; last[number(c.Workspace)+"/"+c.ID] == i {
			conversions = append(conversions, conversionRow(s, c))
		}
	}
	return e.rows(ctx, "conversions ("+conversionHead+", link_id, campaign_id, domain, code)", conversions)
}

// rows inserts a few rows as one block. An INSERT with values in its text will not do: 18.16 waits for a block.
func (e *Engine) rows(ctx context.Context, into string, rows [][]any) error {
	if len(rows) == 0 {
		return nil
	}
	ctx, cancel := e.within(ctx)
	defer cancel()
	b, err := e.conn.PrepareBatch(e.with(ctx, "", nil), "INSERT INTO "+into)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := b.Append(r...); err != nil {
			return errors.Join(err, b.Abort())
		}
	}
	return b.Send()
}

func validTags(tags []string) []string {
	valid := make([]string, len(tags))
	for i, s := range tags {
		valid[i] = strings.ToValidUTF8(s, "\uFFFD")
	}
	return valid
}

// dropEpochs removes what was told before the epoch.
func (e *Engine) dropEpochs(ctx context.Context, shown uint64) error {
	for _, table := range []string{"link_tags", "campaign_tags", "conversions"} {
		var old []string
		text := "SELECT DISTINCT partition FROM system.parts WHERE database = currentDatabase() AND table = '" + table + "' AND active"
		if err := e.scan(ctx, text, func(r row) error {
			var p string
			err := r.Scan(&p)
			if n, bad := strconv.ParseUint(p, 10, 64); bad == nil && n < shown {
				old = append(old, p)
			}
			return err
		}); err != nil {
			return err
		}
		for _, p := range old {
			if err := e.exec(ctx, "ALTER TABLE "+table+" DROP PARTITION "+p); err != nil {
				return err
			}
		}
	}
	return nil
}
