package pgstore

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"

	"github.com/terselink/terse"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrationLock is the advisory lock that one node holds while it changes tables.
const migrationLock = 0x7e25e

// migrate brings the tables up to date. Nodes that start together do it one after the
// other: a transaction holds the lock, not a session, because poolers do not keep sessions.
func (s *Store) migrate(ctx context.Context) error {
	const op = "prepare the database"
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		return failure(ctx, op, err, false)
	}
	defer func() { _ = tx.Commit(context.WithoutCancel(ctx)) }() // releases the lock
	if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1::bigint)", int64(migrationLock)); err != nil {
		return failure(ctx, op, err, false)
	}
	if _, err := s.pool.Exec(ctx, "create schema if not exists terse"); err != nil {
		return failure(ctx, op, err, false)
	}
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	versions, err := database.NewStore(database.DialectPostgres, "terse.migrations")
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	db := stdlib.OpenDBFromPool(s.pool)
	defer db.Close()
	p, err := goose.NewProvider("", db, dir, goose.WithStore(versions), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	current, latest, err := p.GetVersions(ctx)
	if err != nil {
		return failure(ctx, op, err, false)
	}
	if current > latest {
		return fmt.Errorf("%s: its tables have version %d, this program knows %d: it is older than the one that made them", op, current, latest)
	}
	if _, err := p.Up(ctx); err != nil {
		if e, ok := errors.AsType[*terse.Error](failure(ctx, op, err, false)); ok && e.Code == terse.CodeUnavailable {
			return e
		}
		return fmt.Errorf("%s: %w", op, err)
	}
	if err := followHistory(ctx, tx); err != nil {
		return failure(ctx, op, err, false)
	}
	return nil
}

// historyJump is what the base of the feed grows by when the server's history changes: more
// transactions than a history can have lost.
const historyJump = 1 << 24

// followHistory moves the base of the change feed if the server has another history than before, so
// that sequence numbers do not come twice, and if the tables have moved to a server that has seen fewer transactions.
func followHistory(ctx context.Context, db interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}) error {
	_, err := db.Exec(ctx, `
		update terse.feed set lineage = n.lineage,
			base = greatest(base + case when n.lineage <> feed.lineage then $1::bigint else 0 end, n.top + 1 - n.xid)
		from (select terse.lineage() as lineage, pg_current_xact_id()::text::bigint as xid,
				greatest((select max(seq) from terse.inserts), (select max(seq) from terse.changes), 0) >> 20 as top) n
		where (n.lineage <> '' and n.lineage <> feed.lineage) or base + n.xid <= n.top`, int64(historyJump))
	return err
}

// sameHistory is asked on every new connection: after a failover the first one moves the feed.
func sameHistory(ctx context.Context, conn *pgx.Conn) error {
	var same bool
	err := conn.QueryRow(ctx, "select terse.lineage() in ('', lineage) from terse.feed").Scan(&same)
	if s := sqlState(err); s == "3F000" || s == "42P01" || s == "42883" {
		return nil // the tables are still to be made
	}
	if err != nil || same {
		return err
	}
	return followHistory(ctx, conn)
}
