package pgstore

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/sleep"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrationLock is the advisory lock that one node holds while it changes tables.
const migrationLock = 0x7e25e

// migrate brings the tables up to date. Nodes that start together do it one after the
// other: a transaction holds the lock, not a session, because poolers do not keep sessions. A change of large tables, and the
// wait for a node that makes one, may take hours: what bounds other calls does not bound it, only ctx and whether the server answers.
func (s *Store) migrate(ctx context.Context) error {
	const op = "prepare the database"
	patient := s.o
	patient.StatementTimeout, patient.CallTimeout, patient.MaxConns = 0, 0, 4 // no limit; the lock, a migration, a question
	pool, err := newPool(&patient, s.o.URL, nil)
	if err != nil {
		return err
	}
	defer pool.Close()
	call, cancel := context.WithTimeout(ctx, s.o.CallTimeout)
	tx, err := pool.Begin(call)
	if err != nil {
		err = failure(call, op, err, false)
	}
	cancel()
	if err != nil {
		return err
	}
	ctx, end := s.whileItAnswers(ctx, pool)
	defer end()
	defer func() { // releases the lock
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.o.ConnectTimeout)
		defer cancel()
		_ = tx.Commit(end)
	}()
	// Limits of the user or the database, and of a connection of a pooler, are not limits of ours.
	if _, err := tx.Exec(ctx, "set local statement_timeout = 0; set local lock_timeout = 0; set local idle_in_transaction_session_timeout = 0",
		pgx.QueryExecModeSimpleProtocol); err != nil {
		return failure(ctx, op, err, false)
	}
	var locked bool
	if err := tx.QueryRow(ctx, "select pg_try_advisory_xact_lock($1::bigint)", int64(migrationLock)).Scan(&locked); err != nil {
		return failure(ctx, op, err, false)
	}
	if !locked {
		s.o.Log.Info("another process prepares the tables of the database: waiting for it")
		if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1::bigint)", int64(migrationLock)); err != nil {
			return failure(ctx, op, err, false)
		}
	}
	if _, err := pool.Exec(ctx, "create schema if not exists terse"); err != nil {
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
	db := stdlib.OpenDBFromPool(pool)
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
	if current < latest {
		s.o.Log.Info("the tables of the database are brought up to date; large ones take their time", "from", current, "to", latest)
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

// whileItAnswers returns a context that ends when the server has not answered for CallTimeout: one that went silent
// would be waited for without end.
func (s *Store) whileItAnswers(ctx context.Context, pool *pgxpool.Pool) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancelCause(ctx)
	var asking sync.WaitGroup
	asking.Go(func() {
		answered := time.Now()
		for sleep.For(ctx, s.o.CallTimeout/4) == nil {
			call, cancel := context.WithTimeout(ctx, s.o.CallTimeout/4)
			_, err := pool.Exec(call, "select 1")
			cancel()
			if err == nil || sqlState(err) != "" {
				answered = time.Now()
			} else if time.Since(answered) >= s.o.CallTimeout {
				end(fmt.Errorf("the database has not answered for %v: %w", s.o.CallTimeout, err))
			}
		}
	})
	return ctx, func() {
		end(nil)
		asking.Wait()
	}
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
