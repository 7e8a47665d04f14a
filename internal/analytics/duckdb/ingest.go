package duckdb

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/sleep"
)

// Source hands out the events of one spool in order.
type Source interface {
	// Next calls fn for events that follow Position, in order, about max of them;
	// it returns how many. Fewer than max: everything recorded so far was handed
	// out. An event is borrowed until fn returns. After an error, also one of
	// fn, events may have been handed out that Position does not cover.
	Next(ctx context.Context, max int, fn func(*clicks.Event) error) (int, error)
	// Position is the place after the last event that Next counted; while fn runs, a place at or before that of
	// the event, and not before that of any event whose Next has returned.
	Position() clicks.Position
	// Wait returns when there may be more events, or with the error of ctx.
	Wait(ctx context.Context) error
}

// When a transaction ends. A few clicks are committed soon, so that a person who
// tries a link sees it counted; a stream of them once a second, or when there is a whole
// row group of DuckDB, which goes into the file past the log: a click costs 4.2 µs of
// processor then, in commits of 50,000 rows 6.1 µs (BenchmarkIngest). So a stream that
// fills a row group soon waits for it.
const (
	batchRows    = 122_880
	maxDelay     = time.Second
	fillDelay    = 3 * time.Second
	trickleRows  = 2000
	trickleDelay = 150 * time.Millisecond
	spaceRetry   = time.Second
	// A log that stays small is still written out now and then, so that an
	// open after a crash is quick.
	checkpointEvery = 5 * time.Minute
)

// ErrDamaged: what was read back after a checkpoint is not what was written. The file
// must be set aside.
var ErrDamaged = errors.New("the analytics file changed in a checkpoint")

// Ingest copies events from src into the tables until ctx ends (then it returns nil)
// or something fails. After an error the DB serves queries, but must be closed before it
// can ingest again; after ErrDamaged it must be set aside. Events that do not fit (storable)
// are counted and skipped.
func (d *DB) Ingest(ctx context.Context, src Source) error {
	for {
		if err := d.step(ctx, src); err != nil {
			if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
				return nil
			}
			return fmt.Errorf("ingest clicks: %w", err)
		}
	}
}

// step writes one transaction, or waits for something to write.
func (d *DB) step(ctx context.Context, src Source) error {
	if err := d.damaged(); err != nil { // in a checkpoint that somebody else asked for
		return err
	}
	enough, err := d.enoughSpace()
	if err != nil {
		return err
	}
	if !enough { // on 1.4 a checkpoint on a full disk dropped committed rows
		return sleep.For(ctx, spaceRetry)
	}
	wrote, err := d.ingestOnce(ctx, src)
	if err != nil || wrote {
		return err
	}
	// Not for ever: that there are no clicks is news too. Hours of a server without visitors end as well.
	return waitAtMost(ctx, src, d.o.idleLook)
}

// ingestOnce writes one transaction and what follows it, while nobody else writes.
func (d *DB) ingestOnce(ctx context.Context, src Source) (wrote bool, err error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	if wrote, err = d.transaction(ctx, src); err != nil {
		return wrote, err
	}
	d.joinPending(ctx)
	return wrote, d.maybeCheckpoint(ctx)
}

// batch is one transaction of the writer.
type batch struct {
	appenders map[int64]*appender // by day; nil: the transaction has not begun
	rows      map[int64]int64
	hours     map[dayHour]clicks.Position // of the events: a place before the first of them
	hour      dayHour                     // of the last event
	n         int
	begun     time.Time
	latest    terse.Millis
}

// transaction reads events until the batch is due and commits them. False: there was
// nothing to read.
func (d *DB) transaction(ctx context.Context, src Source) (wrote bool, err error) {
	var b batch
	defer func() {
		if err != nil {
			err = errors.Join(err, d.rollback(&b))
		}
	}()
	add := func(ev *clicks.Event) error {
		if d.recorded(ev, src) {
			return nil
		}
		return d.add(ctx, &b, ev, src)
	}
	for {
		now, want := d.o.Clock(), batchRows-b.n
		read, err := src.Next(ctx, want, add)
		if err != nil {
			return false, err
		}
		readAll := read < want
		if b.n == 0 {
			if read > 0 { // all of them rejected or in the record
				return true, d.commit(ctx, &b, src.Position(), 0, false)
			}
			return false, d.idle(ctx, terse.MillisOf(now))
		}
		age := d.o.Clock().Sub(b.begun)
		if b.n >= batchRows || age >= patience(b.n, age) || readAll && b.n <= trickleRows && age >= trickleDelay {
			watermark := b.latest
			if readAll {
				watermark = terse.MillisOf(now)
			}
			return true, d.commit(ctx, &b, src.Position(), watermark, readAll)
		}
		if readAll {
			if err := waitAtMost(ctx, src, trickleDelay/3); err != nil {
				return false, err
			}
		}
	}
}

// patience returns how old a batch may get that has n rows at an age.
func patience(n int, age time.Duration) time.Duration {
	if float64(n)*float64(fillDelay) >= batchRows*float64(age) {
		return fillDelay
	}
	return maxDelay
}

// recorded reports whether an event, which is being handed out by src, is not to be counted (again): it was
// erased, or it is in a file of the record already, because the database was lost and reads the
// spool again. The position of src is the start of the event's group.
func (d *DB) recorded(ev *clicks.Event, src Source) bool {
	if (*d.erased.Load()).covers(ev) {
		return true
	}
	if len(d.through) == 0 {
		return false
	}
	day := dayOf(ev.At)
	hour := int(int64(ev.At) % dayMillis / hourMillis)
	whole, part := d.through[dayHour{day, wholeDay}], d.through[dayHour{day, hour}]
	if whole == (clicks.Position{}) && part == (clicks.Position{}) {
		return false
	}
	at := src.Position()
	return at.Compare(whole) < 0 || at.Compare(part) < 0
}

// add appends one event to the batch and begins the transaction with the first.
func (d *DB) add(ctx context.Context, b *batch, ev *clicks.Event, src Source) error {
	if !storable(ev) {
		return d.reject(ev)
	}
	if err := d.begin(ctx, b); err != nil {
		return err
	}
	day := dayOf(ev.At)
	a := b.appenders[day]
	if a == nil {
		if d.reduced(day) {
			return d.reject(ev)
		}
		if err := d.exec(ctx, createDay(day)); err != nil {
			return err
		}
		var err error
		if a, err = newAppender(d.writer, tableName(day)); err != nil {
			return err
		}
		b.appenders[day] = a
	}
	if err := a.add(ev); err != nil {
		return err
	}
	b.n++
	b.rows[day]++
	if k := (dayHour{day, int(int64(ev.At) % dayMillis / hourMillis)}); k != b.hour || b.n == 1 {
		b.hour = k
		if _, seen := b.hours[k]; !seen {
			b.hours[k] = src.Position()
		}
	}
	b.latest = max(b.latest, ev.At)
	return nil
}

// reject counts an event that no table can hold.
func (d *DB) reject(ev *clicks.Event) error {
	if d.rejected.Add(1) == 1 {
		d.o.Log.Warn("a click does not fit into the tables and is skipped; more are only counted", "event", fmt.Sprintf("%x", ev.ID), "time", int64(ev.At))
	}
	return nil
}

// reduced reports whether a day has only rollups left: a late click could not be added to them.
func (d *DB) reduced(day int64) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	_, hot := slices.BinarySearch(d.days, day)
	return d.rolled[day] && !hot && len(d.cold[day]) == 0
}

func (d *DB) begin(ctx context.Context, b *batch) error {
	if b.appenders != nil {
		return nil
	}
	if err := d.exec(ctx, "BEGIN"); err != nil {
		return err
	}
	b.appenders, b.rows, b.hours = map[int64]*appender{}, map[int64]int64{}, map[dayHour]clicks.Position{}
	b.begun = d.o.Clock()
	return nil
}

// commit makes the batch and the position after it durable. Every click recorded before
// watermark is then in the tables; 0: not known. readAll: the spool was read to its end.
func (d *DB) commit(ctx context.Context, b *batch, pos clicks.Position, watermark terse.Millis, readAll bool) error {
	ctx = context.WithoutCancel(ctx) // a commit that began is worth finishing
	err := d.begin(ctx, b)
	if err != nil {
		return err
	}
	if b.n > trickleRows {
		err = d.alone(ctx, func() error { return d.finish(ctx, b, pos, readAll) })
	} else {
		err = d.finish(ctx, b, pos, readAll)
	}
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.position = pos
	for k, p := range b.hours {
		if _, known := d.unrecorded[k]; !known {
			d.unrecorded[k] = p
		}
	}
	for day, n := range b.rows {
		if i, found := slices.BinarySearch(d.days, day); !found {
			d.days = slices.Insert(slices.Clone(d.days), i, day) // queries hold the old slice
		}
		d.rows[day] += n
		d.dirty[day] = true
	}
	d.mu.Unlock()
	d.events.Add(int64(b.n))
	d.seen(watermark)
	return nil
}

// finish ends the transaction of a batch.
func (d *DB) finish(ctx context.Context, b *batch, pos clicks.Position, readAll bool) error {
	for _, day := range slices.Sorted(maps.Keys(b.appenders)) {
		a := b.appenders[day]
		delete(b.appenders, day)
		if err := a.close(); err != nil { // discards itself if that fails
			return err
		}
	}
	if err := d.exec(ctx, `UPDATE ingest_offsets SET boot = $1, segment = $2, "offset" = $3, events = events + $4 WHERE source = $5`,
		pos.Boot, pos.Segment, pos.Offset, int64(b.n), d.o.Source); err != nil {
		return err
	}
	if readAll {
		if err := d.rebuilt(ctx); err != nil {
			return err
		}
	}
	return d.exec(ctx, "COMMIT")
}

// alone calls fn, which writes, while DuckDB has no thread but the caller's, unless somebody reads. When a thread of its
// own takes the one task of a statement, DuckDB has the caller ask again and again, without a pause, whether it is done:
// a third of the processor time of writing. Queries that begin meanwhile have one thread as well.
func (d *DB) alone(ctx context.Context, fn func() error) error {
	if d.o.Threads == 1 || d.readers.Stats().InUse > 0 {
		return fn()
	}
	if err := d.exec(ctx, "SET threads = 1"); err != nil {
		return err
	}
	if err := fn(); err != nil {
		return err // rollback gives the threads back: in an aborted transaction that is refused
	}
	return d.manyThreads(ctx)
}

// manyThreads ends what alone began.
func (d *DB) manyThreads(ctx context.Context) error {
	return d.exec(ctx, "SET threads = "+strconv.Itoa(d.o.Threads))
}

// idle notes that everything recorded before now is in the tables.
func (d *DB) idle(ctx context.Context, now terse.Millis) error {
	if err := d.rebuilt(ctx); err != nil {
		return err
	}
	d.seen(now)
	return nil
}

// rebuilt notes that a new file has reached the end of the spool once.
func (d *DB) rebuilt(ctx context.Context) error {
	if !d.rebuilding.Load() {
		return nil
	}
	if err := d.exec(ctx, `UPDATE meta SET "value" = '0' WHERE "key" = 'rebuilding'`); err != nil {
		return err
	}
	d.rebuilding.Store(false)
	return nil
}

// seen moves the watermark forward.
func (d *DB) seen(t terse.Millis) {
	if int64(t) > d.watermark.Load() { // one goroutine writes
		d.watermark.Store(int64(t))
	}
}

// rollback discards the batch.
func (d *DB) rollback(b *batch) error {
	if b.appenders == nil {
		return nil
	}
	for _, a := range b.appenders {
		a.discard()
	}
	err := d.exec(context.Background(), "ROLLBACK")
	return errors.Join(err, d.manyThreads(context.Background()))
}

// enoughSpace reports whether the disk has room above the floor.
func (d *DB) enoughSpace() (bool, error) {
	free, err := d.o.free(d.o.Dir)
	if err != nil {
		return false, err
	}
	detail := ""
	if free < d.o.FreeFloor {
		detail = fmt.Sprintf("the disk has %d MiB free, less than %d: clicks wait in the spool", free>>20, d.o.FreeFloor>>20)
	}
	d.mu.Lock()
	changed := detail != "" && d.detail == ""
	d.detail = detail
	d.mu.Unlock()
	if changed {
		d.o.Log.Warn(detail)
	}
	return detail == "", nil
}

// waitAtMost waits for events, but not longer than limit.
func waitAtMost(ctx context.Context, src Source, limit time.Duration) error {
	short, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := src.Wait(short); err != nil && short.Err() == nil {
		return err
	}
	return ctx.Err()
}
