package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/sleep"
)

// schemaVersion is what createTables makes. A database of a newer version is not touched.
const schemaVersion = 1

const (
	lockTable = "migration_lock"
	// lockStale is the age at which a lock belongs to a process that died.
	lockStale = 2 * time.Minute
	lockRetry = 200 * time.Millisecond
)

// connect finds out which server it is, makes the database and the tables, and lets questions through.
func (e *Engine) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*e.o.InsertTimeout)
	defer cancel()
	v, err := e.conn.ServerVersion()
	if exceptionCode(err) == codeNoDatabase {
		if err = e.createDatabase(ctx); err == nil {
			v, err = e.conn.ServerVersion()
		}
	}
	if err != nil {
		return fmt.Errorf("reach clickhouse: %w", err)
	}
	d := dialectOf(v.Version.Major, v.Version.Minor)
	if err := e.migrate(ctx, d); err != nil {
		return fmt.Errorf("make tables: %w", err)
	}
	e.mu.Lock()
	e.version = fmt.Sprintf("%d.%d", v.Version.Major, v.Version.Minor)
	e.mu.Unlock()
	if err := e.exec(ctx, createSweeps(d)); err != nil {
		return fmt.Errorf("make tables: %w", err)
	}
	if err := e.addColumns(ctx, d); err != nil {
		return fmt.Errorf("make tables: %w", err)
	}
	e.dialect.Store(d)
	return e.loadState(ctx)
}

// createDatabase makes the database over a connection without one.
func (e *Engine) createDatabase(ctx context.Context) (err error) {
	conn, database, err := dial(&e.o, false, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return conn.Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+database)
}

// migrate brings the tables up to date. Two processes do not at once: the one that makes the table
// migration_lock does, because a server makes a table once.
func (e *Engine) migrate(ctx context.Context, d *dialect) (err error) {
	version, err := e.schema(ctx)
	switch {
	case err != nil || version == schemaVersion:
		return err
	case version > schemaVersion:
		return &terse.Error{Code: terse.CodePrecondition, Message: fmt.Sprintf("the database has tables of version %d, made by a newer program; this one knows %d", version, schemaVersion)}
	}
	for {
		err := e.exec(ctx, "CREATE TABLE "+lockTable+" (taken UInt8) ENGINE = Log")
		if err == nil {
			break
		}
		if exceptionCode(err) != codeExists {
			return err
		}
		if err := e.breakLock(ctx); err != nil {
			return err
		}
		if err := sleep.For(ctx, lockRetry); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, e.exec(context.WithoutCancel(ctx), "DROP TABLE IF EXISTS "+lockTable)) }()
	for _, text := range createTables(d) {
		if err := e.exec(ctx, text); err != nil {
			return err
		}
	}
	return e.exec(ctx, fmt.Sprintf("INSERT INTO schema_versions (version) SELECT toUInt32(%d) FROM system.one WHERE toUInt32(%d) NOT IN (SELECT version FROM schema_versions)", schemaVersion, schemaVersion))
}

// addColumns adds the columns that a table of an earlier build lacks. The version of the schema stays: programs that do not
// know them name the columns that they write and read, and go on beside those that do. Servers of old do not know ADD
// COLUMN IF NOT EXISTS, and another process may add them at the same time.
func (e *Engine) addColumns(ctx context.Context, d *dialect) error {
	for _, c := range columns {
		if !slices.Contains(addedColumns, c.name) {
			continue
		}
		missing := func() (bool, error) {
			n, err := e.number(ctx, "SELECT count() FROM system.columns WHERE database = currentDatabase() AND table = 'clicks' AND name = "+literal(c.name))
			return n == 0, err
		}
		if lacks, err := missing(); err != nil || !lacks {
			if err != nil {
				return err
			}
			continue
		}
		if err := e.exec(ctx, fmt.Sprintf("ALTER TABLE clicks ADD COLUMN %s %s", c.name, d.column(c.kind))); err != nil {
			if lacks, again := missing(); again != nil || lacks {
				return err
			}
		}
	}
	return nil
}

// schema returns the version of the tables, 0 if there are none.
func (e *Engine) schema(ctx context.Context) (uint64, error) {
	if err := e.exec(ctx, "CREATE TABLE IF NOT EXISTS schema_versions (version UInt32) ENGINE = MergeTree PARTITION BY tuple() ORDER BY version"); err != nil {
		return 0, err
	}
	return e.number(ctx, "SELECT toUInt64(max(version)) FROM schema_versions")
}

// breakLock removes the lock of a process that died.
func (e *Engine) breakLock(ctx context.Context) error {
	old, err := e.number(ctx, fmt.Sprintf("SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = '%s' AND metadata_modification_time < now() - %d", lockTable, int(lockStale.Seconds())))
	if err != nil || old == 0 {
		return err
	}
	e.o.Log.Warn("the lock of a migration that did not end is removed", "table", lockTable)
	return e.exec(ctx, "DROP TABLE IF EXISTS "+lockTable)
}
