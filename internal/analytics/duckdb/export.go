package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/sleep"
)

const (
	hourMillis  = 3_600_000
	hourGrace   = 5 * time.Minute // an hour is exported this long after its end
	closeGrace  = 2 * time.Hour   // a day is closed this long after its end
	lateExports = 15 * time.Minute
	maintenance = 30 * time.Second
)

// Maintain moves clicks into the record until ctx ends: it exports closed hours, closes days and
// applies retention. It looks for sweeps every few seconds. It runs beside Ingest, reads on a connection of its own and writes to
// the database only for moments. It returns nil when ctx ends, or the error that makes
// the DB unusable for writing; trouble with the disk is logged and tried again.
func (d *DB) Maintain(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		do := d.sweepNow
		if n%int(maintenance/sweepEvery) == 0 {
			do = d.maintain
		}
		err := d.damaged()
		if err == nil {
			err = do(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errWriter), errors.Is(err, ErrDamaged):
			return err
		case err != nil:
			d.o.Log.Error("clicks cannot be moved into the record; tried again", "error", err)
			d.recordErrors.Add(1)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// errWriter marks a failed transaction of the writer.
var errWriter = errors.New("the analytics file cannot be written")

// Tidy does all that is due now, which Maintain does twice a minute, little by little.
func (d *DB) Tidy(ctx context.Context) error {
	if err := d.maintain(ctx); err != nil {
		return err
	}
	d.maintaining.Lock()
	defer d.maintaining.Unlock()
	return d.rollTags(ctx, math.MaxInt64)
}

// maintain does what is due now.
func (d *DB) maintain(ctx context.Context) error {
	d.maintaining.Lock()
	defer d.maintaining.Unlock()
	if enough, err := d.enoughSpace(); err != nil || !enough {
		return err
	}
	if err := d.sweep(ctx); err != nil {
		return err
	}
	if err := d.closePast(ctx); err != nil {
		return err
	}
	for _, day := range d.tables() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.exportHours(ctx, day); err != nil {
			return err
		}
	}
	if err := d.mergeTotals(ctx); err != nil {
		return err
	}
	if err := d.retain(ctx); err != nil {
		return err
	}
	if err := d.collect(ctx); err != nil {
		return err
	}
	recorded := d.Recorded()
	d.mu.Lock()
	d.settled = recorded
	d.mu.Unlock()
	d.mirror.changed()
	if err := d.renew(ctx); err != nil {
		return err
	}
	return d.rollTags(ctx, d.o.tagBudget)
}

// batchClicks bounds the days that are closed together.
const batchClicks = 2_000_000

// closePast closes the days that are over: those with a hot table, and those that a new database
// found in the record without rollups.
func (d *DB) closePast(ctx context.Context) error {
	var batch []change
	var clicks int64
	flush := func() error {
		err := d.replaceDays(ctx, batch...)
		batch, clicks = nil, 0
		return err
	}
	days, _ := d.view()
	for _, v := range days {
		if err := ctx.Err(); err != nil {
			return err
		}
		if v.rolled || !v.raw() || !d.isPast((v.day+1)*dayMillis, closeGrace) {
			continue
		}
		c := d.rewriting(v.day, "")
		if v.hot {
			c = d.closing(v.day, "")
			if !d.isSwept(v.day, c.hotRows) {
				continue // late clicks came just now: the next time
			}
		}
		n := c.hotRows
		for _, f := range v.cold {
			n += f.rows
		}
		if clicks > 0 && clicks+n > batchClicks {
			if err := flush(); err != nil {
				return err
			}
		}
		batch, clicks = append(batch, c), clicks+n
	}
	return flush()
}

// isPast reports whether a time (Unix ms) lies so far back that its clicks are in the tables, late
// ones aside.
func (d *DB) isPast(end int64, grace time.Duration) bool {
	due := end + grace.Milliseconds()
	return d.o.Clock().UnixMilli() >= due && d.watermark.Load() >= due
}

// write runs a transaction of the writer between those of Ingest. An error of fn rolls it back.
func (d *DB) write(ctx context.Context, fn func(ctx context.Context) error) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	return d.writeLocked(ctx, fn)
}

func (d *DB) writeLocked(ctx context.Context, fn func(ctx context.Context) error) error {
	ctx = context.WithoutCancel(ctx)
	err := d.damaged()
	if err != nil {
		return fmt.Errorf("%w: %w", errWriter, err)
	}
	if err = d.exec(ctx, "BEGIN"); err == nil {
		if err = fn(ctx); err == nil {
			err = d.exec(ctx, "COMMIT")
		}
		if err != nil {
			err = errors.Join(err, d.exec(ctx, "ROLLBACK"))
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errWriter, err)
	}
	return nil
}

// snapshot returns the place of the spool up to which a hot table is complete, and its rows then.
func (d *DB) snapshot(day int64) (rows int64, through clicks.Position) {
	d.writing.Lock() // between two transactions
	defer d.writing.Unlock()
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.rows[day], d.position
}

// exportHours writes the closed hours of a day that is still open.
func (d *DB) exportHours(ctx context.Context, day int64) error {
	now := d.o.Clock()
	for hour := range 24 {
		if !d.isPast(day*dayMillis+int64(hour+1)*hourMillis, hourGrace) {
			break
		}
		key := dayHour{day, hour}
		done, known := d.exported[key]
		if known && now.Sub(d.lookedAt[key]) < lateExports {
			continue
		}
		rows, through, restore := d.takeUnrecorded(key)
		if done == rows {
			d.lookedAt[key] = now
			continue
		}
		from := day*dayMillis + int64(hour)*hourMillis
		cond := fmt.Sprintf("rowid >= %d AND rowid < %d AND ts >= %s AND ts < %s", done, rows, timestamp(terse.Millis(from)), timestamp(terse.Millis(from+hourMillis)))
		f, any, err := d.writeFile(ctx, writing{day: day, hour: hour, from: tableName(day), cond: cond, through: through})
		if err != nil {
			restore()
			return err
		}
		if any {
			err := d.write(ctx, func(ctx context.Context) error {
				if err := d.insertFile(ctx, f, false); err != nil {
					return err
				}
				if err := d.exec(ctx, fmt.Sprintf("DELETE FROM exported WHERE day = %d AND hour = %d", day, hour)); err != nil {
					return err
				}
				return d.exec(ctx, "INSERT INTO exported VALUES ($1, $2, $3)", day, int64(hour), rows)
			})
			if err != nil {
				restore()
				return err
			}
			d.mu.Lock()
			d.files[f.name] = f
			d.mu.Unlock()
		}
		d.exported[key], d.lookedAt[key] = rows, now
	}
	return nil
}

// Recorded returns a place in the spool before which every click is in a verified file of the
// record: segments before it may be deleted.
func (d *DB) Recorded() clicks.Position {
	d.mu.RLock()
	defer d.mu.RUnlock()
	least := d.position
	for _, p := range d.unrecorded {
		if p.Compare(least) < 0 {
			least = p
		}
	}
	return least
}

// takeUnrecorded is snapshot for the export of an hour: until restore is called, as the export
// failed, the clicks up to the snapshot count as recorded.
func (d *DB) takeUnrecorded(k dayHour) (rows int64, through clicks.Position, restore func()) {
	d.writing.Lock() // between two transactions
	defer d.writing.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	first, known := d.unrecorded[k]
	delete(d.unrecorded, k)
	return d.rows[k.day], d.position, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if known {
			d.unrecorded[k] = first
		}
	}
}

// findUnrecorded looks for hours with clicks that are in no file when the database is opened. Where they lie in the
// spool is not known then: nothing counts as recorded until they are.
func (d *DB) findUnrecorded(ctx context.Context) error {
	for _, day := range d.days {
		err := d.scan(ctx, fmt.Sprintf("SELECT epoch_ms(ts) %% %d // %d, max(rowid) + 1 FROM %s GROUP BY 1", dayMillis, hourMillis, tableName(day)), func(r *sql.Rows) error {
			k := dayHour{day: day}
			var rows int64
			err := r.Scan(&k.hour, &rows)
			if rows > d.exported[k] {
				d.unrecorded[k] = clicks.Position{}
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// dayHour is an hour of a day.
type dayHour struct {
	day  int64
	hour int
}

// insertFile notes a file of the record in the transaction of the caller. cold: its clicks are in
// no hot table.
func (d *DB) insertFile(ctx context.Context, f file, cold bool) error {
	p := f.through
	return d.exec(ctx, fmt.Sprintf("INSERT INTO files VALUES ($1, %d, %d, %d, %d, $2, $3, $4, %t)", f.day, f.hour, f.rows, f.bytes, cold),
		f.name, p.Boot, p.Segment, p.Offset)
}

// readFiles reads what the tables know of the record.
func (d *DB) readFiles(ctx context.Context) error {
	err := d.scan(ctx, `SELECT name, day, hour, "rows", bytes, boot, segment, "offset", cold FROM files ORDER BY name`, func(r *sql.Rows) error {
		var f file
		var cold bool
		if err := r.Scan(&f.name, &f.day, &f.hour, &f.rows, &f.bytes, &f.through.Boot, &f.through.Segment, &f.through.Offset, &cold); err != nil {
			return err
		}
		d.files[f.name] = f
		if cold {
			d.cold[f.day] = append(d.cold[f.day], f)
			d.coldRows.Add(f.rows)
		}
		if f.through.Compare(d.position) > 0 {
			d.noteThrough(f)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := d.scan(ctx, "SELECT day, hour, rows FROM exported", func(r *sql.Rows) error {
		var k dayHour
		var n int64
		err := r.Scan(&k.day, &k.hour, &n)
		d.exported[k] = n
		return err
	}); err != nil {
		return err
	}
	return d.scan(ctx, "SELECT day, version FROM rolled", func(r *sql.Rows) error {
		var day, version int64
		err := r.Scan(&day, &version)
		d.noteRolled(day, version)
		return err
	})
}

// noteRolled remembers, before Ingest runs, that a day is in the rollups.
func (d *DB) noteRolled(day, version int64) {
	d.rolled[day] = true
	if version < rollupVersion {
		d.outdated[day] = true
	}
}

// noteThrough remembers, before Ingest runs, up to which place of the spool the clicks of an hour are in cold files.
func (d *DB) noteThrough(f file) {
	k := dayHour{f.day, f.hour}
	if f.through.Compare(d.through[k]) > 0 {
		d.through[k] = f.through
	}
}

// discard marks files that nothing refers to any more. They are removed after the next
// checkpoint: until then a torn write-ahead log could bring the reference back.
func (d *DB) discard(files []file) {
	d.garbage = append(d.garbage, files...)
}

// collectAll returns once the garbage is removed; it waits while a long answer prevents the checkpoint before it.
func (d *DB) collectAll(ctx context.Context) error {
	for {
		d.maintaining.Lock()
		err := d.collect(ctx)
		left := len(d.garbage)
		d.maintaining.Unlock()
		if err != nil || left == 0 {
			return err
		}
		if err := sleep.For(ctx, readerLook); err != nil {
			return err
		}
	}
}

// collect removes the garbage, unless an answer prevents the checkpoint now. The caller holds maintaining.
func (d *DB) collect(ctx context.Context) error {
	if len(d.garbage) == 0 {
		return nil
	}
	if done, err := d.checkpointNow(ctx); err != nil || !done {
		return err
	}
	for _, f := range d.garbage {
		if err := os.Remove(f.path(d.o.Record)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("record: %w", err)
		}
		removeEmptyFolders(d.o.Record, f.name)
	}
	d.garbage = nil
	return nil
}
