package duckdb

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// Erasure is analytics.Erasure.
type Erasure = analytics.Erasure

// erasureCond returns the condition of the clicks, in the types of the tables and the record.
func erasureCond(e Erasure) string {
	c := "workspace_id = " + number(e.Workspace)
	if e.Link != 0 {
		c += " AND link_id = " + number(e.Link)
	}
	if e.Visitor != 0 {
		c += fmt.Sprintf(" AND visitor IN (%d, %d)", int64(e.Visitor), int64(clicks.ShortVisitor(e.Visitor)))
	}
	return c
}

// Erase removes the clicks for good: from the hot tables, the files of the record and the
// rollups, and returns how many there were. It rewrites the days that have some, one after another: an erasure that is
// cut off goes on where it was when it is asked for again. The erasure is first
// noted in the record, so that clicks before it are left out too when they are read from the spool
// later: those on their way, and those of a spool that is read again. Nothing of them is left in tables, and their blocks, once free, are
// overwritten (scrub); numbers of rollups that were replaced, and pieces in blocks that other tables share, may stay in bytes until those
// are written anew. The spool itself loses them with its segments. Of a day of which retention has taken clicks, the numbers of other workspaces stay; those of
// this one become what its clicks that are left say.
func (d *DB) Erase(ctx context.Context, e Erasure) (n int64, err error) {
	if err := e.Check(); err != nil {
		return 0, err
	}
	d.maintaining.Lock()
	unlock := sync.OnceFunc(d.maintaining.Unlock)
	defer unlock()
	if err := d.noteErasure(e, terse.MillisOf(d.o.Clock())); err != nil {
		return 0, err
	}
	d.writing.Lock()   // what was being appended is committed now
	d.writing.Unlock() //nolint:staticcheck // an empty section on purpose
	days, _ := d.view()
	for _, v := range rawDays(days) {
		here, err := d.erasable(ctx, v, e)
		if err != nil {
			return 0, fmt.Errorf("erase: %w", err)
		}
		if here == 0 {
			continue
		}
		n += here
		if v.hot {
			if err := d.eraseHot(ctx, v.day, e); err != nil {
				return 0, fmt.Errorf("erase: %w", err)
			}
		}
		if len(v.cold) == 0 {
			continue
		}
		if v.hot { // closed again with its late clicks, once it is known which of them are sweeps
			if err := d.sweepDay(ctx, v.day); err != nil {
				return 0, fmt.Errorf("erase: %w", err)
			}
		}
		left := d.coldView(v.day, v.hot)
		left.without = erasureCond(e)
		c := d.rewriting(v.day, "")
		c.from = left.filesAsHot()
		if v.hot {
			c = d.closing(v.day, "")
			c.from = left.source().from
		}
		c.erased = e.Workspace
		if err := d.replaceDays(ctx, c); err != nil {
			return 0, fmt.Errorf("erase: %w", err)
		}
	}
	if err := d.forgetSweeper(ctx, e); err != nil {
		return 0, fmt.Errorf("erase: %w", err)
	}
	if err := d.remakeSweeps(ctx); err != nil {
		return 0, fmt.Errorf("erase: %w", err)
	}
	number := d.scrubbing.committed() // also if nothing was found: an erasure before this one may have been cut off here
	err = errors.Join(d.collect(ctx), d.forgetAside())
	unlock() // clicks need not wait for the network, or for long answers
	var away error
	if d.mirror != nil {
		away = d.mirror.pass(ctx)
	}
	err = errors.Join(err, d.scrubFor(ctx, number))
	if err == nil { // the files that an answer has kept until now
		err = d.collectAll(ctx)
	}
	if err != nil {
		return n, fmt.Errorf("erase: %w", errors.Join(err, away))
	}
	if away != nil {
		d.o.Log.Error("erased clicks are still in the record store", "store", d.mirror.store.Name(), "error", away)
		return n, &terse.Error{Code: terse.CodeUnavailable, Reason: "record_store_unavailable", Op: "erase", Err: away,
			Message: "the clicks are erased on this server; their copies in the record store go when it can be reached: ask again to be sure"}
	}
	return n, nil
}

// erasuresFile lists the erasures, one JSON object a line.
const erasuresFile = "erasures.jsonl"

// erasureNote is a line of it: clicks before At are erased.
type erasureNote struct {
	At        terse.Millis      `json:"at"`
	Workspace terse.WorkspaceID `json:"workspace"`
	Link      terse.LinkNumber  `json:"link,omitzero"`
	Visitor   uint64            `json:"visitor,omitzero"`
}

// erased knows what was erased, by all that was named.
type erased map[Erasure]terse.Millis

// add notes an erasure. A visitor that was noted whole, before visitors were cut, is that of the bits that are kept.
func (m erased) add(e Erasure, at terse.Millis) {
	m[e] = max(m[e], at)
	e.Visitor = clicks.ShortVisitor(e.Visitor)
	m[e] = max(m[e], at)
}

// covers reports whether a click was erased before it was read.
func (m erased) covers(ev *clicks.Event) bool {
	if len(m) == 0 {
		return false
	}
	byLink := Erasure{Workspace: ev.Workspace, Link: ev.Link}
	byVisitor := Erasure{Workspace: ev.Workspace, Visitor: ev.Visitor}
	both := Erasure{Workspace: ev.Workspace, Link: ev.Link, Visitor: ev.Visitor}
	return ev.Link != 0 && ev.At < m[byLink] || ev.Visitor != 0 && (ev.At < m[byVisitor] || ev.At < m[both])
}

// noteErasure writes the note, synced, and lets Ingest know.
func (d *DB) noteErasure(e Erasure, at terse.Millis) (err error) {
	line, err := json.Marshal(erasureNote{at, e.Workspace, e.Link, e.Visitor})
	if err != nil {
		return fmt.Errorf("note erasure: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(d.o.Record, erasuresFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("note erasure: %w", err)
	}
	_, err = f.Write(append(line, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close(), syncDir(d.o.Record)); err != nil {
		return fmt.Errorf("note erasure: %w", err)
	}
	m := maps.Clone(*d.erased.Load())
	m.add(e, at)
	d.erased.Store(&m)
	return nil
}

// readErasures reads the notes. The torn last line of a dead process was never acknowledged.
func (d *DB) readErasures() error {
	data, err := os.ReadFile(filepath.Join(d.o.Record, erasuresFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read erasures: %w", err)
	}
	m := erased{}
	for line := range bytes.Lines(data) {
		var n erasureNote
		if json.Unmarshal(line, &n) == nil {
			m.add(Erasure{Workspace: n.Workspace, Link: n.Link, Visitor: n.Visitor}, n.At)
		}
	}
	d.erased.Store(&m)
	return nil
}

// hoursOf returns the hours of a day of which the hot table has clicks.
func (d *DB) hoursOf(ctx context.Context, day int64) (hours []dayHour, err error) {
	q := fmt.Sprintf("SELECT DISTINCT epoch_ms(ts) %% %d // %d FROM %s", dayMillis, hourMillis, tableName(day))
	err = d.scan(ctx, q, func(r *sql.Rows) error {
		k := dayHour{day: day}
		err := r.Scan(&k.hour)
		hours = append(hours, k)
		return err
	})
	return hours, err
}

// eraseHot makes a hot table again without the clicks; its exported hours are exported again.
func (d *DB) eraseHot(ctx context.Context, day int64, e Erasure) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	table, cond := tableName(day), hotErasureCond(day, e)
	var gone int64
	if err := d.scan(ctx, "SELECT count(*) FROM "+table+" WHERE "+cond, func(r *sql.Rows) error { return r.Scan(&gone) }); err != nil {
		return err
	}
	if gone == 0 {
		return nil
	}
	var old []file
	d.mu.RLock()
	for _, f := range d.files {
		if f.day == day && !isCold(d.cold[day], f) {
			old = append(old, f)
		}
	}
	d.mu.RUnlock()
	err := d.writeLocked(ctx, func(ctx context.Context) error {
		list := []string{
			"ALTER TABLE " + table + " RENAME TO erasing", createDay(day), "INSERT INTO " + table + " SELECT * FROM erasing WHERE NOT (" + cond + ")", "DROP TABLE erasing",
			fmt.Sprintf("UPDATE ingest_offsets SET events = events - %d WHERE source = %s", gone, quote(d.o.Source)),
			fmt.Sprintf("DELETE FROM swept_clicks WHERE day = %d AND %s", day, erasureCond(e)),
			fmt.Sprintf("DELETE FROM exported WHERE day = %d", day),
			fmt.Sprintf("DELETE FROM files WHERE day = %d AND NOT cold", day),
		}
		for _, q := range list {
			if err := d.exec(ctx, q); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	hours, err := d.hoursOf(ctx, day)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.rows[day] -= gone
	d.dirty[day] = true
	for _, f := range old {
		delete(d.files, f.name)
	}
	for _, k := range hours { // exported again; where the clicks of a file lay in the spool is not known any more
		_, exported := d.exported[k]
		if _, known := d.unrecorded[k]; exported || !known {
			d.unrecorded[k] = clicks.Position{}
		}
	}
	d.generation++
	d.mu.Unlock()
	d.swept[day] = 0 // rows have other numbers now
	d.events.Add(-gone)
	d.forgetExports(day)
	d.discard(old)
	return nil
}
