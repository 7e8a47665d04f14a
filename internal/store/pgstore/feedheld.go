package pgstore

import (
	"context"
	"sync"
	"time"

	"github.com/terselink/terse/internal/sleep"
)

// feedHeld is for how long one transaction has held the feed up: a change shows when every transaction that began to write before it has
// ended, those of other databases of the server too. It is measured from when it was first seen to be the oldest, which takes no rights.
type feedHeld struct {
	mu    sync.Mutex
	known bool
	xid   int64 // of the transaction; 0: none is open that has written
	since time.Time
	lasts time.Duration
	told  bool // it is in the log
}

const (
	// lookAtFeedEvery is how often it is measured.
	lookAtFeedEvery = 5 * time.Second
	// feedHeldLong is how long a transaction may hold the feed up until that is said: those of a store end after CallTimeout.
	feedHeldLong = time.Minute
)

// oldestQuery returns the oldest transaction that is open and has written, 0 if there is none or none that began later has ended, and who has it,
// as far as the user may know: that of others takes the role pg_read_all_stats.
const oldestQuery = `
	select case when o.xmin = o.xmax then 0 else o.xmin::text::bigint end, coalesce(a.pid, 0), coalesce(a.datname, p.database, ''),
		coalesce(a.usename, p.owner, ''), coalesce(a.application_name, ''), coalesce(a.state, case when p.gid is null then '' else 'prepared as ' || p.gid end)
	from (select pg_snapshot_xmin(s) as xmin, pg_snapshot_xmax(s) as xmax from pg_current_snapshot() s) o
	left join pg_stat_activity a on a.backend_xid = o.xmin::xid and o.xmin <> o.xmax
	left join pg_prepared_xacts p on p.transaction = o.xmin::xid and o.xmin <> o.xmax
	limit 1`

// watchFeed measures until ctx ends.
func (s *Store) watchFeed(ctx context.Context) {
	for {
		s.lookAtFeed(ctx, time.Now())
		if sleep.For(ctx, lookAtFeedEvery) != nil {
			return
		}
	}
}

// lookAtFeed measures once. What cannot be asked is not known, and says nothing of the transaction.
func (s *Store) lookAtFeed(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, lookAtFeedEvery)
	defer cancel()
	var xid int64
	var pid int
	var database, user, application, state string
	err := s.pool.QueryRow(ctx, oldestQuery).Scan(&xid, &pid, &database, &user, &application, &state)
	f := &s.held
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known = err == nil; err != nil {
		return
	}
	if xid != f.xid {
		if f.told {
			s.o.Log.Info("changes reach the nodes again: the transaction that held them up has ended", "held", f.lasts.String())
		}
		f.xid, f.since, f.told = xid, now, false
	}
	if f.lasts = 0; xid != 0 {
		f.lasts = now.Sub(f.since)
	}
	if f.lasts >= feedHeldLong && !f.told {
		f.told = true
		s.o.Log.Warn("a transaction is open in the database and holds up the changes that nodes are told of: end it, and see docs/postgresql.md",
			"held", f.lasts.String(), "pid", pid, "database", database, "user", user, "application", application, "state", state)
	}
}

// measured returns for how long the feed is held up; false: it is not known.
func (f *feedHeld) measured() (time.Duration, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lasts, f.known
}
