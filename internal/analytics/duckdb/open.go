package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	ddb "github.com/duckdb/duckdb-go/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// FileName is the database file within Options.Dir.
const FileName = "hot.duckdb"

// ErrLocked: another process has the file open.
var ErrLocked = &terse.Error{Code: terse.CodeUnavailable, Reason: "analytics_locked", Message: "another process uses the analytics file"}

// ErrUnusable: the file is there, and what it holds cannot be opened. It must be set aside.
var ErrUnusable = errors.New("the analytics file is unusable")

// unusable marks an error of opening as one of the file's content, unless it is one of
// the machine, which another file would meet too.
func unusable(err error) error {
	for _, s := range []string{"ermission denied", "No space left", "Too many open files", "Read-only file system", "Input/output error"} {
		if strings.Contains(err.Error(), s) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrUnusable, err)
}

// Options configure a DB. Zero values mean the defaults named.
type Options struct {
	Dir          string           // the folder of the database; created with mode 0700. No '?' or '#' in its name
	Record       string           // the folder of the Parquet files, absolute; default: "record" in Dir
	Source       string           // name of the spool that is read, so that one file could hold several; default "local"
	MemoryLimit  int64            // bytes of DuckDB's buffer manager, which is not all that the process takes; default min(a quarter of the RAM, 2 GiB)
	Threads      int              // default 2
	Readers      int              // queries at a time; others wait within their deadline; default 2
	QueryTimeout time.Duration    // longest time of a query with its waiting; default 10 s
	LockWait     time.Duration    // how long Open waits for another process to let go of the file; default 10 s
	WALBytes     int64            // a checkpoint follows when the write-ahead log is larger; default 256 MiB
	FreeFloor    int64            // nothing is written while the disk has fewer free bytes; default 512 MiB
	Store        RecordStore      // a second place for the record, which survives the disk; default: none
	Clock        func() time.Time // default time.Now
	Log          *slog.Logger     // default: discarded
	SweepLinks   int              // different links that make a sweep (analytics.Sweeps), at least 2; default analytics.SweepLinks; negative: none are looked for

	free      func(dir string) (int64, error) // for tests; default: ask the file system
	idleLook  time.Duration                   // how often a spool without news is looked at; default 5 s
	scopeRows int                             // see defaultScopeRows
	topValues int                             // see defaultTopValues
	cubeShare int                             // see defaultCubeShare
	noted     func()                          // called after an answer has noted where clicks are, before it reads
	// linkCubeRows: see defaultLinkCubeRows.
	linkCubeRows int
	// renewClicks bounds the days whose rollups are renewed together; default batchClicks.
	renewClicks int64
	// batchRollups: see defaultBatchRollups.
	batchRollups int64
	tagBudget    time.Duration // see defaultTagBudget
}

func (o *Options) defaults() {
	if o.Source == "" {
		o.Source = "local"
	}
	if o.MemoryLimit == 0 {
		o.MemoryLimit = min(totalMemory()/4, 2<<30)
	}
	if o.Threads == 0 {
		o.Threads = 2
	}
	if o.Readers == 0 {
		o.Readers = 2
	}
	if o.QueryTimeout == 0 {
		o.QueryTimeout = 10 * time.Second
	}
	if o.LockWait == 0 {
		o.LockWait = 10 * time.Second
	}
	if o.WALBytes == 0 {
		o.WALBytes = 256 << 20
	}
	if o.FreeFloor == 0 {
		o.FreeFloor = 512 << 20
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.free == nil {
		o.free = freeBytes
	}
	if o.Record == "" {
		o.Record = filepath.Join(o.Dir, "record")
	}
	if o.SweepLinks == 0 {
		o.SweepLinks = analytics.SweepLinks
	}
	if o.idleLook == 0 {
		o.idleLook = 5 * time.Second
	}
	if o.scopeRows == 0 {
		o.scopeRows = defaultScopeRows
	}
	if o.topValues == 0 {
		o.topValues = defaultTopValues
	}
	if o.cubeShare == 0 {
		o.cubeShare = defaultCubeShare
	}
	if o.linkCubeRows == 0 {
		o.linkCubeRows = defaultLinkCubeRows
	}
	if o.noted == nil {
		o.noted = func() {}
	}
	if o.tagBudget == 0 {
		o.tagBudget = defaultTagBudget
	}
	if o.batchRollups == 0 {
		o.batchRollups = defaultBatchRollups
	}
	if o.renewClicks == 0 {
		o.renewClicks = batchClicks
	}
}

// DB is an open analytics file. Queries may run at once from many goroutines;
// Ingest runs in one, Maintain in another.
//
// Locks, in this order: maintaining, mirror.passing, writing, mu.
type DB struct {
	o       Options
	path    string
	readers *sql.DB
	writing sync.Mutex // held by a transaction of the writer until what it changed is noted here, and by a checkpoint
	writer  *writer    // under writing

	mu         sync.RWMutex                // guards what follows; held for moments only
	days       []int64                     // the days that have a hot table, ascending; never changed in place
	rows       map[int64]int64             // of hot tables, by day
	files      map[string]file             // all of the record, by name
	cold       map[int64][]file            // whose clicks are in no hot table, by day; lists are never changed in place
	rolled     map[int64]bool              // days whose clicks, late ones aside, are in the rollups
	outdated   map[int64]bool              // of them those whose rollups are of an earlier version
	unrecorded map[dayHour]clicks.Position // of hours with clicks that are in no file: a place before the first of them
	generation int64                       // grows when clicks move from one place to another
	merged     int64                       // the last day in link_totals
	sweepDays  map[int64]bool              // that have rows in the table sweeps
	retention  Retention
	position   clicks.Position
	settled    clicks.Position // Recorded when clicks were last moved
	detail     string
	// How far the facts are (facts.go); known: they are whole.
	facts      uint64
	factsKnown bool
	// What was retagged while scopes of tags were computed (tagscope.go).
	rollingTags bool
	retagged    []*retagged

	maintaining sync.Mutex // held while clicks are moved or erased; before writing
	// Under maintaining; through is complete when Open returns.
	exported map[dayHour]int64 // rows of the hot table that the files of an hour cover
	lookedAt map[dayHour]time.Time
	through  map[dayHour]clicks.Position // clicks of the hour before this place are in cold files
	garbage  []file                      // removed after the next checkpoint
	pruned   map[int64]string            // what retention found done already, by day
	swept    map[int64]int64             // rows of hot tables that were looked at for sweeps
	// Days whose rollups could not be brought to the present version.
	unrenewed map[int64]bool
	tagFailed map[int64]bool     // days whose tags could not be rolled up
	tagPruned map[int64][]string // and the workspaces of a day whose clicks are pruned, where it was asked

	mirror *mirror // nil without a record store

	events   atomic.Int64 // rows of the hot tables
	coldRows atomic.Int64 // rows of the cold files
	rejected atomic.Int64 // events that did not fit since Open
	// Sweeps found since Open.
	sweepsFound atomic.Int64
	erased      atomic.Pointer[erased]
	// What a checkpoint did to the file; nil: nothing.
	damagedBy atomic.Pointer[error]
	// Failed attempts to move clicks into the record since Open.
	recordErrors atomic.Int64
	watermark    atomic.Int64 // every click recorded before this time can be queried, in Unix ms
	rebuilding   atomic.Bool

	slots     chan struct{} // one for every query that may run
	answers   answers
	scrubbing scrubbing

	pending bool      // guarded by writing: some conversions wait for their clicks
	joined  time.Time // guarded by writing: when they last looked for them, by Options.Clock
	// joinNext is when they may look again, and looked the state of each day when they last did; guarded by writing.
	joinNext time.Time
	looked   map[int64]string

	adopting bool // of Open: the files of the record are not taken over yet

	lastCheckpoint time.Time      // guarded by writing
	dirty          map[int64]bool // guarded by writing: days whose hot table changed since the last checkpoint
}

var (
	_ analytics.Engine   = (*DB)(nil)
	_ analytics.FactSink = (*DB)(nil)
	_ analytics.Eraser   = (*DB)(nil)
)

// Open opens or creates the database of o.Dir. If another process has it open, Open
// tries again every second for o.LockWait, then returns ErrLocked. After ErrUnusable,
// SetAside the file and open again. Opening can also abort the process (a write-ahead
// log that cannot be replayed).
func Open(ctx context.Context, o Options) (*DB, error) {
	o.defaults()
	if strings.ContainsAny(o.Dir, "?#\x00") {
		return nil, terse.Invalid("data", "DuckDB cannot open a file in a folder with a '?' or a '#' in its name")
	}
	for _, dir := range []string{o.Dir, o.Record} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("create analytics folder: %w", err)
		}
	}
	d := &DB{o: o, path: filepath.Join(o.Dir, FileName), rows: map[int64]int64{}, dirty: map[int64]bool{}, lastCheckpoint: o.Clock(),
		files: map[string]file{}, cold: map[int64][]file{}, rolled: map[int64]bool{}, outdated: map[int64]bool{}, exported: map[dayHour]int64{}, lookedAt: map[dayHour]time.Time{},
		through: map[dayHour]clicks.Position{}, pruned: map[int64]string{}, unrecorded: map[dayHour]clicks.Position{}, looked: map[int64]string{}, sweepDays: map[int64]bool{}, swept: map[int64]int64{}, unrenewed: map[int64]bool{}, tagFailed: map[int64]bool{}, tagPruned: map[int64][]string{}, merged: -1, slots: make(chan struct{}, o.Readers), scrubbing: scrubbing{turn: make(chan struct{}, 1)}}
	if o.Store != nil {
		d.mirror = newMirror(d, o.Store)
	}
	connector, err := d.connect(ctx)
	if err != nil {
		return nil, err
	}
	d.readers = sql.OpenDB(connector)        // closes the connector with itself
	d.readers.SetMaxOpenConns(o.Readers + 3) // one for the checks of a checkpoint, two for Maintain
	d.readers.SetMaxIdleConns(o.Readers + 3)
	if err := d.start(ctx); err != nil {
		if _, ours := errors.AsType[*terse.Error](err); !ours && ctx.Err() == nil && !errors.Is(err, ErrRecordStore) {
			err = unusable(err)
		}
		return nil, errors.Join(fmt.Errorf("open analytics: %w", err), d.close())
	}
	return d, nil
}

// connect opens the file, waiting for its lock.
func (d *DB) connect(ctx context.Context) (*ddb.Connector, error) {
	// The log is replayed under the limit of the open call, and aborts if that is
	// too low (CLICKS.md section 8), so the limit starts high.
	limit := max(d.o.MemoryLimit, 1<<30, 32*d.walSize())
	options := map[string]string{
		"memory_limit":                 megabytes(limit),
		"threads":                      strconv.Itoa(d.o.Threads),
		"temp_directory":               filepath.Join(d.o.Dir, "tmp"),
		"preserve_insertion_order":     "false",
		"checkpoint_threshold":         "1TB", // never by itself
		"autoinstall_known_extensions": "false",
		"autoload_known_extensions":    "false",
		"allow_community_extensions":   "false",
	}
	values := url.Values{}
	for name, value := range options {
		values.Set(name, value)
	}
	dsn := d.path + "?" + values.Encode()
	options["duckdb_api"] = "go" // as the driver sets it: the options of one instance are the same
	deadline := time.NewTimer(d.o.LockWait)
	defer deadline.Stop()
	retry := time.NewTicker(time.Second)
	defer retry.Stop()
	for {
		connector, err := ddb.NewConnector(dsn, nil)
		if err == nil {
			if d.writer, err = connectWriter(d.path, options); err != nil {
				return nil, errors.Join(fmt.Errorf("open analytics: %w", err), connector.Close())
			}
			return connector, nil
		}
		if !strings.Contains(err.Error(), "Could not set lock on file") {
			return nil, fmt.Errorf("open analytics: %w", unusable(err))
		}
		select {
		case <-retry.C:
		case <-deadline.C:
			return nil, ErrLocked
		case <-ctx.Done():
			return nil, fmt.Errorf("open analytics: %w", ctx.Err())
		}
	}
}

// start prepares the writer and reads what the file holds.
func (d *DB) start(ctx context.Context) error {
	// The driver sets the options of the open call in random order, and temp_directory
	// cannot follow this one.
	for _, set := range []string{
		"SET allowed_directories = [" + quote(d.o.Record+string(filepath.Separator)) + "]",
		"SET enable_external_access = false",
		// FSST takes more time than all other methods together, and hot clicks live for a day.
		"SET disabled_compression_methods = 'fsst,dict_fsst,zstd,chimp,patas,alp,alprd'",
		"SET memory_limit = '" + megabytes(d.o.MemoryLimit) + "'",
		"SET allowed_configs = ['threads']", // see alone
		"SET lock_configuration = true",
	} {
		if err := d.exec(ctx, set); err != nil {
			return err
		}
	}
	var tables []string
	if err := d.scan(ctx, "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main'", func(r *sql.Rows) error {
		var s string
		err := r.Scan(&s)
		tables = append(tables, s)
		return err
	}); err != nil {
		return err
	}
	if len(tables) == 0 {
		if d.mirror != nil { // first: a database that is there is not new any more
			if err := d.mirror.open(ctx, true); err != nil {
				return err
			}
		}
		if err := d.create(ctx); err != nil {
			return err
		}
	}
	if slices.Contains(tables, scrubTable) {
		if err := d.exec(ctx, dropScrubbed); err != nil {
			return err
		}
	}
	for _, t := range tables {
		day, ok := tableDay(t)
		if !ok {
			continue
		}
		var n int64
		if err := d.readers.QueryRowContext(ctx, "SELECT count(*) FROM "+t).Scan(&n); err != nil {
			return err
		}
		d.days = append(d.days, day)
		d.rows[day] = n
		d.events.Add(n)
	}
	slices.Sort(d.days)
	if len(d.days) > 0 { // until Ingest knows better
		var last int64
		if err := d.readers.QueryRowContext(ctx, "SELECT coalesce(epoch_ms(max(ts)), 0) FROM "+tableName(d.days[len(d.days)-1])).Scan(&last); err != nil {
			return err
		}
		d.seen(terse.Millis(last))
	}
	return d.readState(ctx, len(tables) == 0)
}

// readState reads the tables beside the days. fresh: the file was made just now.
func (d *DB) readState(ctx context.Context, fresh bool) error {
	schema, err := d.readMeta(ctx)
	if err != nil {
		return err
	}
	if schema != schemaVersion {
		if err := d.migrate(ctx, schema, d.days); err != nil {
			return err
		}
	}
	if err := d.readFiles(ctx); err != nil {
		return err
	}
	if d.mirror != nil && !fresh {
		if err := d.mirror.open(ctx, d.adopting); err != nil {
			return err
		}
	}
	if err := d.readErasures(); err != nil {
		return err
	}
	if err := d.openFacts(ctx); err != nil {
		return err
	}
	if err := d.openTagged(ctx); err != nil {
		return err
	}
	if err := d.openSweeps(ctx, d.adopting); err != nil {
		return err
	}
	if err := d.reconcile(ctx, d.adopting || schema == "1"); err != nil {
		return err
	}
	if err := d.findUnrecorded(ctx); err != nil {
		return err
	}
	d.settled = d.Recorded()
	return nil
}

func (d *DB) create(ctx context.Context) error {
	if err := d.exec(ctx, "BEGIN"); err != nil {
		return err
	}
	for _, q := range append(slices.Clone(createMeta), createState()...) {
		if err := d.exec(ctx, q); err != nil {
			return err
		}
	}
	if err := d.exec(ctx, "INSERT INTO ingest_offsets VALUES ($1, '', 0, 0, 0)", d.o.Source); err != nil {
		return err
	}
	return d.exec(ctx, "COMMIT")
}

// readMeta reads the tables meta and ingest_offsets and returns the version of the schema.
func (d *DB) readMeta(ctx context.Context) (string, error) {
	meta := map[string]string{}
	if err := d.scan(ctx, `SELECT "key", "value" FROM meta`, func(r *sql.Rows) error {
		var k, v string
		err := r.Scan(&k, &v)
		meta[k] = v
		return err
	}); err != nil {
		return "", err
	}
	schema := meta["schema"]
	if schema != schemaVersion && schema != "1" && schema != "2" && schema != "3" && schema != "4" && schema != "5" {
		return "", &terse.Error{Code: terse.CodePrecondition, Message: fmt.Sprintf(
			"the analytics file has schema version %q, this program knows %q", schema, schemaVersion)}
	}
	d.rebuilding.Store(meta["rebuilding"] == "1")
	_, d.adopting = meta[adoptingKey]
	if s, ok := meta[totalsThrough]; ok {
		var err error
		if d.merged, err = strconv.ParseInt(s, 10, 64); err != nil {
			return "", err
		}
	}
	found := 0
	err := d.scan(ctx, `SELECT boot, segment, "offset", events FROM ingest_offsets WHERE source = $1`, func(r *sql.Rows) error {
		found++
		var events int64
		err := r.Scan(&d.position.Boot, &d.position.Segment, &d.position.Offset, &events)
		if total := d.events.Load(); err == nil && events != total {
			return fmt.Errorf("the tables hold %d clicks, but %d were committed", total, events)
		}
		return err
	}, d.o.Source)
	if err == nil && found != 1 {
		err = fmt.Errorf("%d positions for %q", found, d.o.Source)
	}
	return schema, err
}

// Close writes a checkpoint and closes the file. Ingest and Maintain must have returned.
func (d *DB) Close() error {
	if err := d.close(); err != nil {
		return fmt.Errorf("close analytics: %w", err)
	}
	return nil
}

func (d *DB) close() error {
	d.writer.close()
	return d.readers.Close()
}

// exec runs a statement on the writer.
func (d *DB) exec(ctx context.Context, query string, args ...any) error {
	return d.writer.exec(ctx, query, args...)
}

// scan runs a query on a reader and calls fn for every row.
func (d *DB) scan(ctx context.Context, query string, fn func(*sql.Rows) error, args ...any) error {
	return scanOn(ctx, d.readers, query, fn, args)
}

func (d *DB) walSize() int64 { return fileSize(d.path + ".wal") }

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

func megabytes(n int64) string { return strconv.FormatInt(n>>20, 10) + "MiB" }

// keepAside is how many unusable files are kept for examination.
const keepAside = 2

// SetAside renames the database of dir and its write-ahead log to
// hot.duckdb.bad-<time> and removes all but the last two files set aside. The next Open makes a new
// database that reads the spool from its start. No process may have the file open.
func SetAside(dir string, now time.Time) error {
	base := filepath.Join(dir, FileName)
	bad := base + ".bad-" + now.UTC().Format("20060102T150405.000")
	err := os.Rename(base, bad)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if e := os.Rename(base+".wal", bad+".wal"); e != nil && !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	old, _ := filepath.Glob(base + ".bad-*[0-9]") // the pattern is well formed; sorted by name, so by age
	for len(old) > keepAside {
		_ = os.Remove(old[0]) // a file that cannot be removed costs only space
		_ = os.Remove(old[0] + ".wal")
		old = old[1:]
	}
	if err != nil {
		return fmt.Errorf("set analytics file aside: %w", err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return errors.Join(f.Sync(), f.Close())
}
