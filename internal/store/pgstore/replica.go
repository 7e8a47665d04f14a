package pgstore

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/terselink/terse"
)

// Replica reads links from a streaming replica, for redirects. A replica lags, so what it
// says is checked: a link that it does not have is asked of the primary, and so is one
// that is known to have a newer version (Saw). While it lags more than maxLag, or does not answer, everything is asked of the primary.
type Replica struct {
	s    *Store
	pool *pgxpool.Pool
	stop context.CancelFunc
	done sync.WaitGroup

	mu     sync.Mutex
	behind bool // lags too much, or cannot be asked
	// versions are the least versions of links that were changed since `since`; an entry is
	// kept while the replica may be behind it.
	versions, older map[terse.LinkNumber]uint64
}

// maxLag is how far a replica may be behind to be asked at all. Changes are remembered for
// more than twice as long.
const maxLag = 10 * time.Second

// maxVersions bounds the changes that are remembered; with more of them in maxLag the primary is asked.
const maxVersions = 100_000

// gone is the version of a deleted link: none is newer.
const gone = 1<<64 - 1

// Replica returns the reader of the replica; nil if the store has none.
func (s *Store) Replica() *Replica { return s.replica }

func openReplica(s *Store) (*Replica, error) {
	pool, err := newPool(&s.o, s.o.ReplicaURL, nil)
	if err != nil {
		return nil, terse.Invalid("replica_url", "is not an address of the form postgres://user:password@host:port/database")
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &Replica{s: s, pool: pool, stop: stop, behind: true, versions: map[terse.LinkNumber]uint64{}, older: map[terse.LinkNumber]uint64{}}
	r.measure(ctx)
	r.done.Go(func() { r.watch(ctx) })
	return r, nil
}

func (r *Replica) close() {
	r.stop()
	r.done.Wait()
	r.pool.Close()
}

// watch measures the lag and forgets changes that the replica must have by now.
func (r *Replica) watch(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for rounds := 1; ; rounds++ {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		r.measure(ctx)
		if rounds%int(2*maxLag/time.Second) == 0 {
			r.mu.Lock()
			if !r.behind { // else the changes are still needed
				r.older, r.versions = r.versions, map[terse.LinkNumber]uint64{}
			}
			r.mu.Unlock()
		}
	}
}

// lagQuery returns how many seconds a replica is behind, 1e9 if it does not know. One that has replayed all that
// it received is up to date, however old that is, if it is still connected to the primary.
const lagQuery = `select case when not pg_is_in_recovery() then 0
	when not exists (select from pg_stat_wal_receiver) then 1e9
	when pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() then 0
	else coalesce(extract(epoch from now() - pg_last_xact_replay_timestamp()), 1e9) end::float8`

// measure asks the replica how far it is behind.
func (r *Replica) measure(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var lag float64
	err := r.pool.QueryRow(ctx, lagQuery).Scan(&lag)
	r.mu.Lock()
	was := r.behind
	r.behind = err != nil || lag > maxLag.Seconds()
	is := r.behind
	r.mu.Unlock()
	if was != is {
		r.s.o.Log.Info("replica of the database", "usable", !is, "lag_seconds", lag, "error", err)
	}
}

// Saw tells the replica that a link has at least this version; deleted says that it has none.
func (r *Replica) Saw(n terse.LinkNumber, version uint64, deleted bool) {
	if deleted {
		version = gone
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.versions) >= maxVersions {
		r.behind = true // until the next measurement, again and again while changes come this fast
		return
	}
	r.versions[n] = max(r.versions[n], version)
}

// usable reports whether the replica may be asked.
func (r *Replica) usable() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.behind && len(r.versions) < maxVersions
}

// stale reports whether a link that the replica returned is older than what is known of it.
func (r *Replica) stale(l *terse.Link) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return l.Number == 0 || l.Version < max(r.versions[l.Number], r.older[l.Number])
}

// GetLinks is terse.Store.GetLinks for readers that need no write of this moment.
func (r *Replica) GetLinks(ctx context.Context, keys []terse.LinkKey, dst []terse.Link) error {
	if r.usable() {
		call, cancel, err := r.s.enter(ctx, "get links")
		if err != nil {
			return err
		}
		err = getLinks(call, r.pool, keys, dst)
		cancel()
		if err == nil {
			ok := true
			for i := range dst {
				ok = ok && !r.stale(&dst[i])
			}
			if ok {
				return nil
			}
		}
	}
	return r.s.GetLinks(ctx, keys, dst)
}

// GetAlias is terse.Store.GetAlias for readers that need no write of this moment.
func (r *Replica) GetAlias(ctx context.Context, d terse.DomainID, alias string) (terse.Link, error) {
	if r.usable() {
		call, cancel, err := r.s.enter(ctx, "get alias")
		if err != nil {
			return terse.Link{}, err
		}
		l, err := getAlias(call, r.pool, d, alias)
		cancel()
		if err == nil && !r.stale(&l) {
			return l, nil
		}
	}
	return r.s.GetAlias(ctx, d, alias)
}
