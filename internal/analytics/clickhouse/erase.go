package clickhouse

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// erasures knows what was erased and until when, by all that was named.
type erasures struct {
	m atomic.Pointer[map[analytics.Erasure]terse.Millis]
}

// covers reports whether a click was erased before it was read.
func (s *erasures) covers(ev *clicks.Event) bool {
	m := s.m.Load()
	if m == nil || len(*m) == 0 {
		return false
	}
	byLink := analytics.Erasure{Workspace: ev.Workspace, Link: ev.Link}
	byVisitor := analytics.Erasure{Workspace: ev.Workspace, Visitor: ev.Visitor}
	both := analytics.Erasure{Workspace: ev.Workspace, Link: ev.Link, Visitor: ev.Visitor}
	return ev.Link != 0 && ev.At < (*m)[byLink] || ev.Visitor != 0 && (ev.At < (*m)[byVisitor] || ev.At < (*m)[both])
}

// add notes an erasure.
func (s *erasures) add(er analytics.Erasure, at terse.Millis) {
	m := map[analytics.Erasure]terse.Millis{}
	if old := s.m.Load(); old != nil {
		m = maps.Clone(*old)
	}
	noteBoth(m, er, at)
	s.m.Store(&m)
}

// noteBoth notes an erasure. A visitor that was noted whole, before visitors were cut, is that of the bits that are kept.
func noteBoth(m map[analytics.Erasure]terse.Millis, er analytics.Erasure, at terse.Millis) {
	m[er] = max(m[er], at)
	er.Visitor = clicks.ShortVisitor(er.Visitor)
	m[er] = max(m[er], at)
}

// readErasures reads those of all processes.
func (e *Engine) readErasures(ctx context.Context) error {
	m := map[analytics.Erasure]terse.Millis{}
	err := e.scan(ctx, "SELECT workspace_id, link_id, visitor, max(at) FROM erasures GROUP BY workspace_id, link_id, visitor", func(r row) error {
		var w uint32
		var link, visitor uint64
		var at int64
		err := r.Scan(&w, &link, &visitor, &at)
		noteBoth(m, analytics.Erasure{Workspace: terse.WorkspaceID(w), Link: terse.LinkNumber(link), Visitor: visitor}, terse.Millis(at))
		return err
	})
	if err != nil {
		return fmt.Errorf("read erasures: %w", err)
	}
	e.erasing.Lock()
	defer e.erasing.Unlock()
	if old := e.erased.m.Load(); old != nil { // noted here meanwhile
		for er, at := range *old {
			m[er] = max(m[er], at)
		}
	}
	e.erased.m.Store(&m)
	return nil
}

// erasureCond returns the condition of the clicks.
func erasureCond(er analytics.Erasure) string {
	c := "workspace_id = " + number(er.Workspace)
	if er.Link != 0 {
		c += " AND link_id = " + number(er.Link)
	}
	if er.Visitor != 0 {
		c += " AND visitor IN (" + number(er.Visitor) + ", " + number(clicks.ShortVisitor(er.Visitor)) + ")"
	}
	return c
}

// Erase implements analytics.Eraser. The erasure is first noted, so that clicks before it are left out too when
// they come later, on this node and, after its next look, on every other. Days whose clicks are there are
// rolled up again, only for the workspace where clicks of others are gone; of a link that is erased the rollups go for
// all days.
func (e *Engine) Erase(ctx context.Context, er analytics.Erasure) (n int64, err error) {
	if err := er.Check(); err != nil {
		return 0, err
	}
	if e.dialect.Load() == nil {
		return 0, errDown
	}
	n, err = e.erase(ctx, er)
	if err != nil {
		if ctx.Err() != nil {
			return 0, fmt.Errorf("erase: %w", err)
		}
		return 0, &terse.Error{Code: terse.CodeUnavailable, Message: "some clicks may be left: ask for the erasure again", Op: "erase", Err: err}
	}
	return n, nil
}

func (e *Engine) erase(ctx context.Context, er analytics.Erasure) (n int64, err error) {
	e.maintaining.Lock()
	defer e.maintaining.Unlock()
	ctx, cancel := context.WithTimeout(ctx, maintenanceTime)
	defer cancel()
	at := terse.MillisOf(e.o.Clock())
	if err := e.rows(ctx, "erasures (at, workspace_id, link_id, visitor)", [][]any{{int64(at), uint32(er.Workspace), uint64(er.Link), er.Visitor}}); err != nil {
		return 0, err
	}
	e.erasing.Lock()
	e.erased.add(er, at)
	e.erasing.Unlock()
	e.writing.Lock()   // what was being written is there now
	e.writing.Unlock() //nolint:staticcheck // an empty section on purpose
	cond := erasureCond(er)
	if swept, err := e.sweptOf(ctx, er); err != nil {
		return 0, err
	} else if swept != "" {
		cond = "(" + cond + " OR " + swept + ")"
	}
	days := map[int64]bool{}
	if err := e.scan(ctx, "SELECT toUInt16(day), toInt64(count()) FROM clicks WHERE "+cond+" GROUP BY day", func(r row) error {
		var day uint16
		var here int64
		err := r.Scan(&day, &here)
		days[int64(day)] = true
		n += here
		return err
	}); err != nil {
		return 0, err
	}
	known, _, err := e.readClosed(ctx)
	if err != nil {
		return 0, err
	}
	if n > 0 {
		if err := e.markDirty(ctx, days); err != nil {
			return 0, err
		}
		// First, so that clicks which are left after a failure lead here again.
		if err := e.rollWorkspace(ctx, er.Workspace, cond, days, known); err != nil {
			return 0, err
		}
		if err := e.mutate(ctx, "clicks", "DELETE WHERE "+cond); err != nil {
			return 0, err
		}
	}
	if err := e.mutate(ctx, "swept_clicks", "DELETE WHERE "+erasureCond(er)); err != nil {
		return 0, err
	}
	if er.Link != 0 && er.Visitor == 0 {
		if err := e.eraseRollups(ctx, er); err != nil {
			return 0, err
		}
	}
	if n == 0 {
		return 0, nil
	}
	// Its numbers go too before this returns, where there are days that were closed.
	var again []int64
	for _, day := range keys(days) {
		if c, ok := known[day]; ok && c.raw && !c.partly() {
			again = append(again, day)
		}
	}
	return n, e.rollAgain(ctx, again, known)
}

// rollAgain computes the rollups of days again and removes those of before.
func (e *Engine) rollAgain(ctx context.Context, days []int64, known map[int64]closed) error {
	for days := range slices.Chunk(days, batchDays) {
		before := e.now() // not the generation of a day: one whose clicks changed meanwhile has none
		counts, err := e.countDays(ctx, "WHERE "+dayIn(days))
		if err != nil {
			return err
		}
		if _, err := e.closeDays(ctx, days, known, counts); err != nil {
			return err
		}
		if err := e.removeBefore(ctx, days, before); err != nil {
			return err
		}
	}
	return nil
}

// partly reports whether clicks of the day were removed for their age and others are there.
func (c closed) partly() bool { return c.raw && c.pruned != "" && c.gen != 0 }

// rollWorkspace computes the rollups of one workspace again, without the clicks of cond, which are about to be erased, for those days
// of which only some clicks are left; the rows of the others are kept.
func (e *Engine) rollWorkspace(ctx context.Context, w terse.WorkspaceID, cond string, days map[int64]bool, known map[int64]closed) error {
	partly := slices.DeleteFunc(keys(days), func(day int64) bool { return !known[day].partly() })
	for days := range slices.Chunk(partly, batchDays) {
		gen := e.now()
		if err := e.rollUp(ctx, days, gen, "workspace_id = "+number(w)+" AND NOT ("+cond+")"); err != nil {
			return err
		}
		shown := list(days, func(day int64) string { return fmt.Sprintf("(%s, %d)", date(day), known[day].gen) })
		done := map[int64]closed{}
		for _, day := range days {
			c := known[day]
			c.gen = gen
			done[day] = c
		}
		for _, table := range rollupTables {
			if err := e.exec(ctx, fmt.Sprintf("INSERT INTO %s SELECT day, toUInt64(%d), %s FROM %s WHERE %s AND workspace_id != %d AND (day, gen) IN (%s)",
				table, gen, rollupColumns(table), table, dayIn(days), w, shown)); err != nil {
				return err
			}
		}
		if err := e.writeClosed(ctx, done); err != nil {
			return err
		}
		if err := e.removeBefore(ctx, days, gen); err != nil {
			return err
		}
	}
	return nil
}

// removeBefore removes the rollups of days that were computed before a generation.
func (e *Engine) removeBefore(ctx context.Context, days []int64, gen uint64) error {
	for _, table := range rollupTables {
		if err := e.mutate(ctx, table, fmt.Sprintf("DELETE WHERE %s AND gen < %d", dayIn(days), gen)); err != nil {
			return err
		}
	}
	return nil
}

// eraseRollups removes the rows of a link.
func (e *Engine) eraseRollups(ctx context.Context, er analytics.Erasure) error {
	link := fmt.Sprintf("workspace_id = %d AND scope = %d AND id = %d", er.Workspace, scopeLink, er.Link)
	own := fmt.Sprintf("workspace_id = %d AND dim = 'link' AND num = %d", er.Workspace, er.Link)
	for table, cond := range map[string]string{"rday": link, "r15": link, "rdim": "(" + link + ") OR (" + own + ")", "rlink": fmt.Sprintf("workspace_id = %d AND link_id = %d", er.Workspace, er.Link)} {
		if err := e.mutate(ctx, table, "DELETE WHERE "+cond); err != nil {
			return err
		}
	}
	return nil
}
