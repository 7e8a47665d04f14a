package pgstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/terselink/terse"
)

// Store implements terse.Store on PostgreSQL. Make one with Open.
type Store struct {
	o       Options
	pool    *pgxpool.Pool
	replica *Replica
	closed  atomic.Bool
	stop    context.CancelFunc
	running sync.WaitGroup
	held    feedHeld

	inserted, commits, unknown, retried atomic.Uint64
}

var _ terse.Portable = (*Store)(nil)

// Open connects, brings the tables up to date under a lock, and returns the store. For a change of tables, or for
// another process that makes one, it waits until ctx ends or the server no longer answers. It
// returns an error of code unavailable if the server cannot be reached now, and any other if trying again
// would not help: a wrong URL, tables of a newer Terse.
func Open(ctx context.Context, o Options) (*Store, error) {
	o.setDefaults()
	connected := sameHistory
	if o.ReadOnly {
		connected = nil
	}
	pool, err := newPool(&o, o.URL, connected)
	if err != nil {
		return nil, err
	}
	s := &Store{o: o, pool: pool}
	prepare := s.migrate
	if o.ReadOnly {
		prepare = func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, o.CallTimeout)
			defer cancel()
			return s.requireTables(ctx)
		}
	}
	if err := prepare(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	if o.ReplicaURL != "" {
		if s.replica, err = openReplica(s); err != nil {
			pool.Close()
			return nil, err
		}
	}
	background, stop := context.WithCancel(context.Background())
	s.stop = stop
	if o.MaintainEvery > 0 {
		s.running.Go(func() { s.maintain(background) })
		s.running.Go(func() { s.watchFeed(background) })
	}
	return s, nil
}

// newPool prepares a pool; it does not connect. connected is asked on every new connection.
func newPool(o *Options, url string, connected func(context.Context, *pgx.Conn) error) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil { // the error would show the URL, and with it the password
		return nil, terse.Invalid("url", "is not an address of the form postgres://user:password@host:port/database")
	}
	cfg.MaxConns = int32(o.MaxConns)
	cfg.MaxConnIdleTime = 5 * time.Minute
	cfg.MaxConnLifetime = time.Hour
	cfg.MaxConnLifetimeJitter = 10 * time.Minute
	cfg.HealthCheckPeriod = 15 * time.Second
	cfg.ConnConfig.ConnectTimeout = o.ConnectTimeout
	// A peer that vanished without a word is noticed within seconds.
	dialer := &net.Dialer{Timeout: o.ConnectTimeout, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}}
	cfg.ConnConfig.DialFunc = dialer.DialContext
	params := cfg.ConnConfig.RuntimeParams
	if o.Pooler {
		// Prepared statements and settings would stay on a connection that the next transaction does not get.
		cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
		cfg.ConnConfig.StatementCacheCapacity, cfg.ConnConfig.DescriptionCacheCapacity = 0, 0
	} else {
		params["application_name"] = "terse"
		params["statement_timeout"] = strconv.FormatInt(o.StatementTimeout.Milliseconds(), 10)
		if o.ReadOnly {
			params["default_transaction_read_only"] = "on"
		}
		params["idle_in_transaction_session_timeout"] = strconv.FormatInt(o.CallTimeout.Milliseconds(), 10)
	}
	cfg.AfterConnect = connected
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		return nil, fmt.Errorf("prepare connections: %w", err)
	}
	return pool, nil
}

// enter begins a call: it refuses one on a closed store or with a context that is over, and bounds it in time.
func (s *Store) enter(ctx context.Context, op string) (context.Context, context.CancelFunc, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, &terse.Error{Code: terse.CodeUnavailable, Message: "the call was cancelled", Op: op, Err: err}
	}
	if s.closed.Load() {
		return nil, nil, &terse.Error{Code: terse.CodeUnavailable, Message: "the store is closed", Op: op}
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.CallTimeout)
	return ctx, cancel, nil
}

// query runs one reading statement and hands every row to scan.
func (s *Store) query(ctx context.Context, op string, scan func(pgx.Rows) error, sql string, args ...any) error {
	return queryPool(ctx, s.pool, op, scan, sql, args...)
}

func queryPool(ctx context.Context, pool *pgxpool.Pool, op string, scan func(pgx.Rows) error, sql string, args ...any) error {
	rows, err := pool.Query(ctx, sql, args...)
	if err != nil {
		return failure(ctx, op, err, false)
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return failure(ctx, op, err, false)
		}
	}
	if err := rows.Err(); err != nil {
		return failure(ctx, op, err, false)
	}
	return nil
}

// txn is a transaction under way on one connection.
type txn struct {
	conn *pgxpool.Conn
	sent bool // the batch with COMMIT
}

// run runs a batch that does not end the transaction.
func (t *txn) run(ctx context.Context, b *pgx.Batch) error { return t.conn.SendBatch(ctx, b).Close() }

// commit runs a last batch and commits in the same round trip: if a statement of it
// fails, or a scan callback returns an error, nothing is committed.
func (t *txn) commit(ctx context.Context, b *pgx.Batch) error {
	b.Queue("commit")
	if t.conn.Conn().IsClosed() {
		return errors.New("the connection was closed before the commit")
	}
	t.sent = true
	return t.conn.SendBatch(ctx, b).Close()
}

// begin returns a batch whose first statement begins the transaction.
func begin(s *Store) *pgx.Batch {
	b := &pgx.Batch{}
	b.Queue("begin")
	if s.o.Pooler {
		b.Queue("set local statement_timeout = " + strconv.FormatInt(s.o.StatementTimeout.Milliseconds(), 10))
	}
	return b
}

// write runs a transaction, again if it met another in a deadlock. f begins it with begin and ends it
// with txn.commit; when f returns an error the transaction is rolled back.
func (s *Store) write(ctx context.Context, op string, f func(ctx context.Context, t *txn) error) error {
	for try := 1; ; try++ {
		sent, err := s.writeOnce(ctx, f)
		if err == nil {
			s.commits.Add(1)
			return nil
		}
		if again(err) && try < tries && ctx.Err() == nil {
			s.retried.Add(1)
			continue
		}
		err = failure(ctx, op, err, sent)
		if errors.Is(err, terse.ErrUnknownOutcome) {
			s.unknown.Add(1)
		}
		return err
	}
}

func (s *Store) writeOnce(ctx context.Context, f func(ctx context.Context, t *txn) error) (sent bool, err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return false, err
	}
	t := &txn{conn: conn}
	defer func() {
		if conn.Conn().PgConn().TxStatus() != 'I' && !conn.Conn().IsClosed() {
			// Its own time: the caller's may be over, and a connection is worth more than a moment.
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			_, _ = conn.Exec(end, "rollback") // the pool closes a connection that is still in a transaction
			cancel()
		}
		conn.Release()
	}()
	err = f(ctx, t)
	return t.sent, err
}

// Ping implements terse.Store: it asks the server whether it would take a write.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel, err := s.enter(ctx, "ping")
	if err != nil {
		return err
	}
	defer cancel()
	var standby bool
	if err := s.query(ctx, "ping", func(r pgx.Rows) error { return r.Scan(&standby) }, "select pg_is_in_recovery()"); err != nil {
		return err
	}
	if standby {
		return &terse.Error{Code: terse.CodeUnavailable, Message: "the database is read-only", Op: "ping"}
	}
	return nil
}

// Close implements terse.Store. It waits for calls under way.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.stop()
	s.running.Wait()
	if s.replica != nil {
		s.replica.close()
	}
	s.pool.Close()
	return nil
}
