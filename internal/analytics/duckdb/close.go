package duckdb

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
)

// change puts one file, made of a source of clicks, in the place of all that a day had.
type change struct {
	day     int64
	from    string // the clicks, in the form of a hot table; "": none, the day keeps its rollups alone
	cond    string // which of them; "": all
	through clicks.Position
	// dropHot: the clicks of the hot table, of which there were hotRows, are among them.
	dropHot bool
	hotRows int64
	// keepRollups: the numbers stay as they are, though clicks go.
	keepRollups bool
	// erased is the workspace whose clicks cond leaves out for good. 0: nobody's.
	erased terse.WorkspaceID
}

// closing is the change that moves a past day into the record: all its clicks become one file, sorted by
// link; its rollups are computed from that file; and in one transaction the rollups go into
// the tables, the hot table is dropped, and the day is read from the file. Clicks that
// come later make a hot table again, and the day is closed again. cond leaves clicks out.
func (d *DB) closing(day int64, cond string) change {
	rows, through := d.snapshot(day)
	return change{day: day, from: d.coldView(day, true).source().from, cond: cond, through: through, dropHot: true, hotRows: rows}
}

// rewriting is the change that makes the file of a closed day again with the clicks that satisfy cond, and its
// rollups. It is how clicks are erased, and how hourly files become one.
func (d *DB) rewriting(day int64, cond string) change {
	_, through := d.snapshot(day)
	return change{day: day, from: d.coldView(day, false).filesAsHot(), cond: cond, through: through}
}

func (d *DB) coldView(day int64, hot bool) dayView {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return dayView{day: day, hot: hot, cold: d.cold[day], swept: d.sweepDays[day], root: d.o.Record}
}

func (d *DB) coldFiles(day int64) []file {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.cold[day]
}

func isCold(cold []file, f file) bool {
	return slices.ContainsFunc(cold, func(c file) bool { return c.name == f.name })
}

// prepared is a change whose file is written.
type prepared struct {
	change
	file file
	any  bool // there are clicks left
	// carried are the workspaces whose rollups stay as they are (carry.go).
	carried []string
}

// counts reports whether the day has rollups after the change, which rollUp makes.
func (p *prepared) counts() bool { return !p.keepRollups && (p.any || len(p.carried) > 0) }

// replaceDays makes changes: the files and rollups of all of them, then a transaction for each. After an error the files
// of those that were not made are gone.
func (d *DB) replaceDays(ctx context.Context, changes ...change) (err error) {
	var all []prepared // those not made yet
	defer func() {
		if err != nil {
			d.abandon(all)
		}
	}()
	for _, c := range changes {
		p, err := d.prepare(ctx, c)
		if err != nil {
			return err
		}
		all = append(all, p)
	}
	if err := d.rollUp(ctx, all); err != nil {
		return err
	}
	for len(all) > 0 {
		p := all[0]
		all = all[1:] // its file may be in use, whatever went wrong
		if err := d.replaceDay(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// abandon removes the files of changes that are not made; what cannot be removed costs only space.
func (d *DB) abandon(list []prepared) {
	for _, p := range list {
		if p.any && os.Remove(p.file.path(d.o.Record)) == nil {
			removeEmptyFolders(d.o.Record, p.file.name)
		}
	}
}

// replaceDay puts a change into effect. If late clicks came into the day meanwhile it does nothing, and
// Maintain tries again.
func (d *DB) replaceDay(ctx context.Context, c prepared) error {
	f, any := c.file, c.any
	var old []file
	d.mu.RLock()
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		if o := d.files[name]; o.day == c.day {
			old = append(old, o)
		}
	}
	d.mu.RUnlock()

	d.writing.Lock()
	defer d.writing.Unlock()
	_, hot := slices.BinarySearch(d.tables(), c.day)
	if hot != c.dropHot || hot && d.rows[c.day] != c.hotRows {
		if any {
			d.discard([]file{f})
		}
		return nil
	}
	if err := d.writeLocked(ctx, func(ctx context.Context) error { return d.commitDay(ctx, c) }); err != nil {
		return err
	}
	d.mu.Lock()
	for _, o := range d.cold[c.day] {
		d.coldRows.Add(-o.rows)
	}
	delete(d.cold, c.day)
	for _, o := range old {
		delete(d.files, o.name)
	}
	if c.dropHot {
		i, _ := slices.BinarySearch(d.days, c.day)
		d.days = slices.Delete(slices.Clone(d.days), i, i+1)
		delete(d.rows, c.day)
		delete(d.dirty, c.day)
		d.events.Add(-c.hotRows)
		maps.DeleteFunc(d.unrecorded, func(k dayHour, _ clicks.Position) bool { return k.day == c.day })
	}
	if any {
		d.files[f.name], d.cold[c.day] = f, []file{f}
		d.coldRows.Add(f.rows)
	}
	if !c.keepRollups {
		delete(d.rolled, c.day)
		delete(d.outdated, c.day)
		if c.counts() {
			d.rolled[c.day] = true
		}
	}
	swept := d.sweepDays[c.day]
	delete(d.sweepDays, c.day)
	d.generation++
	d.mu.Unlock()
	delete(d.swept, c.day)
	delete(d.tagFailed, c.day)
	delete(d.tagPruned, c.day)
	d.forgetExports(c.day)
	d.discard(old)
	if swept { // the file of the day says it
		d.discard([]file{d.sweepNote(c.day)})
	}
	if !c.keepRollups && !c.counts() {
		if err := os.RemoveAll(d.rollupDir(c.day)); err != nil {
			return fmt.Errorf("record: %w", err)
		}
	}
	if !c.keepRollups && c.day <= d.merged {
		return d.rebuildTotalsLocked(ctx)
	}
	return nil
}

// prepare writes the file of a change.
func (d *DB) prepare(ctx context.Context, c change) (prepared, error) {
	p := prepared{change: c}
	if c.from == "" {
		return p, nil
	}
	generation, err := d.nextGeneration(c.day)
	if err != nil {
		return p, err
	}
	w := writing{day: c.day, hour: wholeDay, from: c.from, cond: c.cond, through: c.through}
	if generation > 1 {
		w.mark = "-r" + strconv.Itoa(generation)
	}
	if c.keepRollups {
		if w.origin, err = d.originOf(ctx, d.coldFiles(c.day)); err != nil {
			return p, err
		}
	} else if p.carried, err = d.carriedOver(ctx, c); err != nil {
		return p, err
	}
	p.file, p.any, err = d.writeFile(ctx, w)
	return p, err
}

// commitDay is the transaction of a change.
func (d *DB) commitDay(ctx context.Context, c prepared) error {
	var list []string
	if c.dropHot {
		list = append(list, "DROP TABLE "+tableName(c.day), fmt.Sprintf("UPDATE ingest_offsets SET events = events - %d WHERE source = %s", c.hotRows, quote(d.o.Source)))
	}
	list = append(list, forgetSweeps(c.day)...)
	list = append(list, fmt.Sprintf("DELETE FROM files WHERE day = %d", c.day), fmt.Sprintf("DELETE FROM exported WHERE day = %d", c.day))
	if !c.keepRollups {
		list = append(list, forgetRollups(c.day)...)
		if c.counts() {
			list = append(list, d.loadRollups(c.day, rollupVersion)...)
		}
	}
	for _, q := range list {
		if err := d.exec(ctx, q); err != nil {
			return err
		}
	}
	if !c.any {
		return nil
	}
	return d.insertFile(ctx, c.file, true)
}

// originOf returns the name of the file that the rollups of a day were made of.
func (d *DB) originOf(ctx context.Context, cold []file) (string, error) {
	if len(cold) != 1 {
		return "", fmt.Errorf("record: a closed day has %d files", len(cold))
	}
	keys, err := d.parquetKeys(ctx, cold[0].path(d.o.Record))
	if err != nil {
		return "", err
	}
	return cmp.Or(keys["terse_origin"], cold[0].name), nil
}

// forgetExports forgets what was exported of the hours of a day.
func (d *DB) forgetExports(day int64) {
	maps.DeleteFunc(d.exported, func(k dayHour, _ int64) bool { return k.day == day })
	maps.DeleteFunc(d.lookedAt, func(k dayHour, _ time.Time) bool { return k.day == day })
}

// nextGeneration returns a number for the next file of a whole day that none before it had.
func (d *DB) nextGeneration(day int64) (int, error) {
	entries, err := os.ReadDir(filepath.Join(d.o.Record, filepath.FromSlash(partition(day, wholeDay))))
	if os.IsNotExist(err) {
		return 1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("record: %w", err)
	}
	last := 0
	for _, e := range entries {
		last = max(last, generationOf(e.Name()))
	}
	return last + 1, nil
}

// generationOf returns the generation in the name of a file: 1 unless it ends in "-r<n>" before ".parquet" or ".v2.parquet".
func generationOf(name string) int {
	name = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(path.Base(name), tmpSuffix), ".parquet"), ".v2")
	if i := strings.LastIndex(name, "-r"); i >= 0 {
		if n, err := strconv.Atoi(name[i+2:]); err == nil {
			return n
		}
	}
	return 1
}

// removeEmptyFolders removes the folders above a file of the record that hold nothing any more.
func removeEmptyFolders(root, name string) {
	for dir := path.Dir(name); strings.Contains(dir, "/"); dir = path.Dir(dir) {
		if os.Remove(filepath.Join(root, filepath.FromSlash(dir))) != nil {
			return
		}
	}
}
