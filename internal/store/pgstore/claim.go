package pgstore

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/sleep"
)

// claimLock is the advisory lock that the one node holds which uses the database alone.
const claimLock = 0x7e25e1

// ClaimOptions say how a database is claimed.
type ClaimOptions struct {
	Wait time.Duration // for a process that is going
	// Shared says that others may claim it so, too: they tell each other what they write.
	Shared bool
}

// Claim makes the database that of this process alone, or of those that share it, until Close. It returns an error of code
// conflict if another process still has it otherwise after the wait. The claim lives on a connection of its own; when that is lost it is taken
// again. Through a pooler nothing can be claimed: the caller is told in the log.
func (s *Store) Claim(ctx context.Context, o ClaimOptions) error {
	if s.o.Pooler && o.Shared {
		return nil
	}
	if s.o.Pooler {
		s.o.Log.Warn("behind a pooler it cannot be checked that no other node uses the database: run one only")
		return nil
	}
	deadline := time.Now().Add(o.Wait)
	for {
		conn, err := s.tryClaim(ctx, o.Shared)
		if err != nil {
			return err
		}
		if conn != nil {
			background, stop := context.WithCancel(context.Background())
			before := s.stop
			s.stop = func() { stop(); before() }
			s.running.Go(func() { s.keepClaim(background, conn, o.Shared) })
			return nil
		}
		if time.Now().After(deadline) {
			return &terse.Error{Code: terse.CodeConflict, Op: "claim the database",
				Message: "another node uses this database; several nodes need messages between them: set redis.url on each of them"}
		}
		if sleep.For(ctx, 200*time.Millisecond) != nil {
			return failure(ctx, "claim the database", ctx.Err(), false)
		}
	}
}

// tryClaim returns a connection that holds the lock; nil if another process holds it.
func (s *Store) tryClaim(ctx context.Context, shared bool) (*pgx.Conn, error) {
	const op = "claim the database"
	try := "select pg_try_advisory_lock($1::bigint)"
	if shared {
		try = "select pg_try_advisory_lock_shared($1::bigint)"
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.CallTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig.Copy())
	if err != nil {
		return nil, failure(ctx, op, err, false)
	}
	var got bool
	if err := conn.QueryRow(ctx, try, int64(claimLock)).Scan(&got); err != nil || !got {
		_ = conn.Close(ctx)
		if err != nil {
			return nil, failure(ctx, op, err, false)
		}
		return nil, nil
	}
	return conn, nil
}

// keepClaim watches the connection and takes the claim again when it is lost.
func (s *Store) keepClaim(ctx context.Context, conn *pgx.Conn, shared bool) {
	taken := false // by another, which has been said
	for {
		if conn != nil {
			// Nothing is ever sent: this returns when the connection ends.
			_, err := conn.WaitForNotification(ctx)
			if err == nil {
				continue
			}
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			_ = conn.Close(end)
			cancel()
		}
		if sleep.For(ctx, time.Second) != nil {
			return
		}
		var err error
		conn, err = s.tryClaim(ctx, shared)
		if lost := err == nil && conn == nil; lost != taken {
			taken = lost
			if lost {
				s.o.Log.Error("another node uses this database since the connection was lost: stop one of them")
			}
		}
	}
}
