package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// Sweeps (analytics.Sweeps) are seen only once several of their clicks are there, so those are classed again, in the hot
// tables:
//
//	sweeps        what was found: whose clicks of which time
//	swept_clicks  the clicks as they were: a click that is classed again has no visitor any more, and
//	              those beside it that come later are judged by it, too
//
// What was found is first noted in the record (sweepFolder), so that files of hours that were written before say the same when
// the database is made again from them. When a day is closed its clicks have their final class in the file of the day, and
// all three are gone.
//
// A click is judged by those around it, never by when it was read: reading them in other portions, or all again, finds the
// same sweeps (TestSweepsAgree). Late clicks of a closed day are judged among themselves.
const (
	sweepFolder = "sweeps"
	sweepEvery  = 5 * time.Second
	sweepRows   = 500_000 // that are looked at together
)

// sweep is one that was found, a line of its note, and a row of the table sweeps.
type sweep struct {
	Workspace terse.WorkspaceID `json:"workspace"`
	// One of the two: the visitor, or the network whose requests without a language are meant.
	Visitor int64        `json:"visitor,omitzero"`
	ASN     uint32       `json:"asn,omitzero"`
	From    terse.Millis `json:"from"`
	To      terse.Millis `json:"to"` // within the sweep
}

// createSweeps makes the tables, in files of any age: they are about days that are not closed yet.
var createSweeps = []string{
	"CREATE TABLE IF NOT EXISTS sweeps (day BIGINT NOT NULL, workspace_id INTEGER NOT NULL, visitor BIGINT NOT NULL, asn BIGINT NOT NULL, since TIMESTAMP_MS NOT NULL, till TIMESTAMP_MS NOT NULL)",
	"CREATE TABLE IF NOT EXISTS swept_clicks (day BIGINT NOT NULL, event_id UUID NOT NULL, ts TIMESTAMP_MS NOT NULL, workspace_id INTEGER NOT NULL, link_id BIGINT NOT NULL, visitor BIGINT NOT NULL, asn BIGINT NOT NULL, lang VARCHAR NOT NULL)",
}

// inSweep is the condition of a click c that belongs to the sweep s: who is not known to be a program and follows a link.
const inSweep = "c.workspace_id = s.workspace_id AND c.ts >= s.since AND c.ts <= s.till AND c.bot = 0 AND c.link_id <> 0 AND " +
	"(s.visitor <> 0 AND c.visitor = s.visitor OR s.asn <> 0 AND c.asn = s.asn AND c.lang = '')"

// sweptColumns are what a click of a sweep says instead of what it said.
var sweptColumns = map[string]string{"bot": number(clicks.BotScanner), "bot_name": quote(analytics.SweepName), "visitor": "0", `"repeat"`: "0"}

// sweptFrom returns clicks of files with the class that the sweeps of the day give them.
func sweptFrom(from string, day int64) string {
	var replace []string
	for _, name := range []string{"bot", "bot_name", "visitor", `"repeat"`} {
		replace = append(replace, "CASE WHEN swept THEN "+sweptColumns[name]+" ELSE "+name+" END AS "+name)
	}
	return fmt.Sprintf("(SELECT * EXCLUDE (swept) REPLACE (%s) FROM (SELECT c.*, EXISTS (SELECT 1 FROM sweeps s WHERE s.day = %d AND %s) AS swept FROM %s c))",
		strings.Join(replace, ", "), day, inSweep, from)
}

// openSweeps makes the tables and reads which days have sweeps. A new database takes over what the record says.
func (d *DB) openSweeps(ctx context.Context, fresh bool) error {
	for _, q := range createSweeps {
		if err := d.exec(ctx, q); err != nil {
			return err
		}
	}
	if fresh {
		if err := d.adoptSweeps(ctx); err != nil {
			return err
		}
	}
	return d.scan(ctx, "SELECT DISTINCT day FROM sweeps", func(r *sql.Rows) error {
		var day int64
		err := r.Scan(&day)
		d.sweepDays[day] = true
		return err
	})
}

// adoptSweeps loads the notes of the record. The torn last line of a dead process was never acted upon.
func (d *DB) adoptSweeps(ctx context.Context) error {
	entries, err := os.ReadDir(filepath.Join(d.o.Record, sweepFolder))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read sweeps: %w", err)
	}
	for _, e := range entries {
		day, ok := parseDate(strings.TrimSuffix(e.Name(), ".jsonl"))
		if !ok {
			continue
		}
		data, err := os.ReadFile(d.sweepNote(day).path(d.o.Record))
		if err != nil {
			return fmt.Errorf("read sweeps: %w", err)
		}
		var list []sweep
		for line := range strings.Lines(string(data)) {
			var s sweep
			if json.Unmarshal([]byte(line), &s) == nil && !slices.Contains(list, s) {
				list = append(list, s)
			}
		}
		if len(list) == 0 {
			continue
		}
		if err := d.write(ctx, func(ctx context.Context) error { return d.exec(ctx, insertSweeps(day, list)) }); err != nil {
			return err
		}
	}
	return nil
}

// sweepNote is the file of the record that notes the sweeps of a day.
func (d *DB) sweepNote(day int64) file { return file{name: sweepFolder + "/" + date(day) + ".jsonl"} }

func insertSweeps(day int64, list []sweep) string {
	rows := make([]string, len(list))
	for i, s := range list {
		rows[i] = fmt.Sprintf("(%d, %s, %d, %s, %s, %s)", day, number(s.Workspace), s.Visitor, number(s.ASN), timestamp(s.From), timestamp(s.To))
	}
	return "INSERT INTO sweeps VALUES " + strings.Join(rows, ", ")
}

// sweepNow looks for sweeps, between the times that maintain does.
func (d *DB) sweepNow(ctx context.Context) error {
	d.maintaining.Lock()
	defer d.maintaining.Unlock()
	if enough, err := d.enoughSpace(); err != nil || !enough {
		return err
	}
	return d.sweep(ctx)
}

// sweep looks for sweeps in what came into the hot tables since it was called last. The caller holds maintaining.
func (d *DB) sweep(ctx context.Context) error {
	for _, day := range d.tables() {
		if err := d.sweepDay(ctx, day); err != nil {
			return fmt.Errorf("find sweeps: %w", err)
		}
	}
	return nil
}

// sweepDay looks at the rows of a hot table that have not been looked at.
func (d *DB) sweepDay(ctx context.Context, day int64) error {
	if d.o.SweepLinks < 0 {
		return nil
	}
	for {
		rows, _ := d.snapshot(day)
		from, to := d.swept[day], min(rows, d.swept[day]+sweepRows)
		if from >= to {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.sweepPart(ctx, day, from, to); err != nil {
			return err
		}
		d.swept[day] = to
	}
}

// isSwept reports whether all rows of a hot table have been looked at.
func (d *DB) isSwept(day, rows int64) bool { return d.o.SweepLinks < 0 || d.swept[day] >= rows }

// sweepPart looks at rows from up to to, and what lies around them in time.
func (d *DB) sweepPart(ctx context.Context, day, from, to int64) error {
	var lo, hi terse.Millis
	if err := d.scan(ctx, fmt.Sprintf("SELECT epoch_ms(min(ts)), epoch_ms(max(ts)) FROM %s WHERE rowid >= %d AND rowid < %d", tableName(day), from, to), func(r *sql.Rows) error {
		return r.Scan(&lo, &hi)
	}); err != nil {
		return err
	}
	lo, hi = lo-analytics.SweepWindow, hi+analytics.SweepWindow
	known, err := d.knownSweeps(ctx, day, lo, hi)
	if err != nil {
		return err
	}
	found, err := d.findSweeps(ctx, day, to, lo, hi)
	if err != nil {
		return err
	}
	found = slices.DeleteFunc(found, func(s sweep) bool { return slices.Contains(known, s) })
	if len(found) == 0 && len(known) == 0 {
		return nil
	}
	if err := d.noteSweeps(day, found); err != nil {
		return err
	}
	return d.reclass(ctx, day, to, lo, hi, found)
}

// knownSweeps returns those that touch a time.
func (d *DB) knownSweeps(ctx context.Context, day int64, lo, hi terse.Millis) (list []sweep, err error) {
	q := fmt.Sprintf("SELECT workspace_id, visitor, asn, epoch_ms(since), epoch_ms(till) FROM sweeps WHERE day = %d AND till >= %s AND since <= %s", day, timestamp(lo), timestamp(hi))
	err = d.scan(ctx, q, func(r *sql.Rows) error {
		var s sweep
		err := r.Scan(&s.Workspace, &s.Visitor, &s.ASN, &s.From, &s.To)
		list = append(list, s)
		return err
	})
	return list, err
}

// findSweeps looks at the clicks of a time, of the first rows of the table. Who has too few clicks in it is left out
// by DuckDB; the others are few, and are looked at one by one.
func (d *DB) findSweeps(ctx context.Context, day, rows int64, lo, hi terse.Millis) (list []sweep, err error) {
	within := fmt.Sprintf("link_id <> 0 AND ts >= %s AND ts <= %s", timestamp(lo), timestamp(hi))
	const cols = "workspace_id, link_id, ts, visitor, asn, lang"
	all := fmt.Sprintf("(SELECT %[1]s FROM %[2]s WHERE bot = 0 AND rowid < %[3]d AND %[4]s UNION ALL SELECT %[1]s FROM swept_clicks WHERE day = %[5]d AND %[4]s)", cols, tableName(day), rows, within, day)
	for _, who := range []struct{ column, cond string }{{"visitor", "visitor <> 0"}, {"asn", "asn <> 0 AND lang = ''"}} {
		keys := fmt.Sprintf("SELECT workspace_id, %[1]s FROM %[2]s WHERE %[3]s GROUP BY workspace_id, %[1]s HAVING count(*) >= %[4]d AND min(link_id) <> max(link_id)", who.column, all, who.cond, d.o.SweepLinks)
		q := fmt.Sprintf("SELECT workspace_id, %[1]s, epoch_ms(ts), link_id FROM %[2]s SEMI JOIN (%[3]s) USING (workspace_id, %[1]s) WHERE %[4]s ORDER BY workspace_id, %[1]s, ts", who.column, all, keys, who.cond)
		var one []analytics.SweepClick
		var workspace terse.WorkspaceID
		var key int64
		flush := func() {
			for _, span := range analytics.Sweeps(one, d.o.SweepLinks) {
				s := sweep{Workspace: workspace, From: span.From, To: span.To}
				if who.column == "visitor" {
					s.Visitor = key
				} else {
					s.ASN = uint32(key)
				}
				list = append(list, s)
			}
			one = one[:0]
		}
		if err := d.scan(ctx, q, func(r *sql.Rows) error {
			var w terse.WorkspaceID
			var k int64
			var c analytics.SweepClick
			if err := r.Scan(&w, &k, &c.At, &c.Link); err != nil {
				return err
			}
			if w != workspace || k != key {
				flush()
				workspace, key = w, k
			}
			one = append(one, c)
			return nil
		}); err != nil {
			return nil, err
		}
		flush()
	}
	return list, nil
}

// noteSweeps writes what was found into the record, synced, before anything is changed.
func (d *DB) noteSweeps(day int64, found []sweep) error {
	if len(found) == 0 {
		return nil
	}
	var lines []byte
	for _, s := range found {
		line, err := json.Marshal(s)
		if err != nil {
			return fmt.Errorf("note sweeps: %w", err)
		}
		lines = append(append(lines, line...), '\n')
	}
	path := d.sweepNote(day).path(d.o.Record)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("note sweeps: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("note sweeps: %w", err)
	}
	_, err = f.Write(lines)
	if err := errors.Join(err, f.Sync(), f.Close(), syncDir(filepath.Dir(path)), syncDir(d.o.Record)); err != nil {
		return fmt.Errorf("note sweeps: %w", err)
	}
	return nil
}

// reclass gives the first rows of a hot table, within a time, the class that the sweeps of the day say, those found
// now included, in one transaction. What has it already is left alone.
func (d *DB) reclass(ctx context.Context, day, rows int64, lo, hi terse.Millis, found []sweep) error {
	table := tableName(day)
	var list []string
	if len(found) > 0 {
		list = append(list, insertSweeps(day, found))
	}
	within := fmt.Sprintf("c.rowid < %d AND c.ts >= %s AND c.ts <= %s", rows, timestamp(lo), timestamp(hi))
	var set []string
	for _, name := range []string{"bot", "bot_name", "visitor", `"repeat"`} {
		set = append(set, name+" = "+sweptColumns[name])
	}
	list = append(list,
		fmt.Sprintf("INSERT INTO swept_clicks SELECT %d, event_id, ts, workspace_id, link_id, visitor, asn, lang FROM %s c WHERE %s AND EXISTS (SELECT 1 FROM sweeps s WHERE s.day = %d AND %s)",
			day, table, within, day, inSweep),
		fmt.Sprintf("UPDATE %s AS c SET %s FROM swept_clicks k WHERE k.day = %d AND k.event_id = c.event_id AND c.bot = 0 AND %s", table, strings.Join(set, ", "), day, within),
		fmt.Sprintf("UPDATE conversions SET bot = %s, bot_name = %s FROM swept_clicks k WHERE k.day = %d AND k.event_id = conversions.click_id AND k.workspace_id = conversions.workspace_id AND NOT pending AND bot = 0",
			sweptColumns["bot"], sweptColumns["bot_name"], day))
	d.writing.Lock() // also for dirty: no checkpoint comes between the change and the note of it
	defer d.writing.Unlock()
	if err := d.writeLocked(ctx, func(ctx context.Context) error {
		for _, q := range list {
			if err := d.exec(ctx, q); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	d.dirty[day] = true
	d.mu.Lock()
	d.sweepDays[day] = true
	d.mu.Unlock()
	d.sweepsFound.Add(int64(len(found)))
	return nil
}

// forgetSweeps are the statements that forget the sweeps of a day, when it is closed.
func forgetSweeps(day int64) []string {
	return []string{fmt.Sprintf("DELETE FROM sweeps WHERE day = %d", day), fmt.Sprintf("DELETE FROM swept_clicks WHERE day = %d", day)}
}

// Sweeps returns how many sweeps were found since Open; one that goes on may count more than once.
func (d *DB) Sweeps() int64 { return d.sweepsFound.Load() }
