package pgstore

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/terselink/terse"
)

// Replica reads links from a streaming replica, for redirects. A replica lags, so what it
// says is checked: a link that it does not have is asked of the primary, and so is one
// that is known to have a newer version (Saw). While it is not known to have all that was committed maxLag ago,
// or does not answer, everything is asked of the primary.
type Replica struct {
	s    *Store
	pool *pgxpool.Pool
	stop context.CancelFunc
	done sync.WaitGroup

	served, unanswered atomic.Uint64

	mu sync.Mutex
	progress
	// lost is when a change was last missed that versions should have: until the replica has all
	// that was committed before it, it may be behind without anybody knowing.
	lost time.Time
	// versions are the least versions of links that were changed since rotated, older those of links that were
	// changed before. An entry is kept until the replica is known to have the change, and for changeLife at least.
	versions, older map[terse.LinkNumber]uint64
	rotated         time.Time

	misses    int       // reads in a row that were not answered, of those that did not overlap
	missed    time.Time // when the last of them was counted
	restUntil time.Time // not zero: reads were not answered, and the next may try at this time
	told      bool      // the log says that it is usable
}

const (
	// maxLag is how far a replica may be behind to be asked at all, counted from when the primary was asked what it has.
	maxLag = 10 * time.Second
	// changeLife is how long a change is remembered at least. A read that found a replica usable may be maxLag old, and
	// ends long before this.
	changeLife = 2 * maxLag
	// maxVersions bounds the changes that are remembered for one changeLife; with more of them the primary is asked.
	maxVersions = 100_000

	// maxReplicaRead is how long a read waits for the replica, which gets a third of the caller's time at most: the
	// rest is the primary's.
	maxReplicaRead = time.Second
	// maxMisses is how many reads in a row are not answered until the replica is left alone for replicaRest; then one
	// read tries it again. Reads that wait at the same time count as one: a hiccup is one, however many it meets.
	maxMisses   = 2
	replicaRest = 10 * time.Second
)

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
	r := newReplica(s, pool, stop, time.Now())
	r.measure(ctx)
	r.done.Go(func() { r.watch(ctx) })
	return r, nil
}

// newReplica returns a replica that is not usable until it has all that was committed before now: of changes
// before it nobody has told.
func newReplica(s *Store, pool *pgxpool.Pool, stop context.CancelFunc, now time.Time) *Replica {
	return &Replica{
		s: s, pool: pool, stop: stop, lost: now, rotated: now,
		versions: map[terse.LinkNumber]uint64{}, older: map[terse.LinkNumber]uint64{},
	}
}

func (r *Replica) close() {
	r.stop()
	r.done.Wait()
	r.pool.Close()
}

// watch measures how far the replica is and forgets changes that it has.
func (r *Replica) watch(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		r.measure(ctx)
		r.forget(time.Now())
	}
}

// forget drops changes that are old enough and that the replica has.
func (r *Replica) forget(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.rotated) >= changeLife && r.has.After(r.rotated) {
		r.older, r.versions, r.rotated = r.versions, map[terse.LinkNumber]uint64{}, now
	}
}

// Saw tells the replica that a link has at least this version; deleted says that it has none. The change was committed
// before the call.
func (r *Replica) Saw(n terse.LinkNumber, version uint64, deleted bool) {
	if deleted {
		version = gone
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok := r.versions[n]
	if !ok && len(r.versions) >= maxVersions {
		r.lost = time.Now()
		return
	}
	r.versions[n] = max(known, version)
}

// Missed tells the replica that changes were committed before the call of which Saw was not told: it is
// not asked until it has them.
func (r *Replica) Missed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = time.Now()
}

// upToDateLocked reports whether what the replica says can be judged: it is not far behind, and every change that it may not have
// is known.
func (r *Replica) upToDateLocked(now time.Time) bool {
	return now.Sub(r.has) <= maxLag && r.has.After(r.lost)
}

// usable reports whether the replica is asked.
func (r *Replica) usable(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.upToDateLocked(now) && r.restUntil.IsZero()
}

// ask reports whether a read may ask the replica now. After a rest one read may, the trial, and the others when that was
// answered. A trial has to be followed by answered or untried.
func (r *Replica) ask(now time.Time) (may, trial bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.upToDateLocked(now) || now.Before(r.restUntil) {
		return false, false
	}
	trial = !r.restUntil.IsZero()
	if trial {
		r.restUntil = now.Add(replicaRest)
	}
	return true, trial
}

// untried lets the next read try the replica if this one was the trial, and has found out nothing.
func (r *Replica) untried(trial bool, now time.Time) {
	if !trial {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.restUntil = now
}

// answered notes whether a read that asked the replica was answered.
func (r *Replica) answered(ok, trial bool, began, now time.Time) {
	r.mu.Lock()
	was := !r.restUntil.IsZero()
	switch {
	case was && !trial: // it began before the rest, of which it says nothing
	case ok:
		r.misses, r.restUntil = 0, time.Time{}
	case trial:
		r.restUntil = now.Add(replicaRest)
	case r.misses > 0 && began.Before(r.missed): // it waited together with one that is counted
	default:
		r.misses, r.missed = r.misses+1, now
		if r.misses >= maxMisses {
			r.restUntil = now.Add(replicaRest)
		}
	}
	is := !r.restUntil.IsZero()
	r.mu.Unlock()
	switch {
	case is && !was:
		r.s.o.Log.Warn("the replica of the database does not answer in time: redirects read from the primary, and try it again later", "again", replicaRest.String())
	case was && !is:
		r.s.o.Log.Info("the replica of the database answers in time again")
	}
}

// stale reports whether a link that the replica returned may be older than what is known of it.
func (r *Replica) stale(l *terse.Link) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return l.Number == 0 || !r.has.After(r.lost) || l.Version < max(r.versions[l.Number], r.older[l.Number])
}

// read asks the replica and reports whether its answer counts; if not, the primary has to be asked, for which most of the time is left.
func (r *Replica) read(ctx context.Context, op string, ask func(ctx context.Context) (fresh bool, err error)) bool {
	now := time.Now()
	may, trial := r.ask(now)
	if !may {
		return false
	}
	call, end, err := r.s.enter(ctx, op)
	if err != nil {
		r.untried(trial, now)
		return false // the primary's answer is the same
	}
	defer end()
	share := maxReplicaRead
	if deadline, ok := call.Deadline(); ok {
		share = min(share, deadline.Sub(now)/3)
	}
	within, cancel := context.WithTimeout(call, share)
	defer cancel()
	fresh, err := ask(within)
	if call.Err() != nil {
		r.untried(trial, now)
		return false // the caller has gone: that says nothing of the replica
	}
	// A replica that says that a code does not exist, or that the caller's key is wrong, has answered.
	missed := errors.Is(err, terse.ErrUnavailable)
	if missed {
		r.unanswered.Add(1)
	}
	r.answered(!missed, trial, now, time.Now())
	if err != nil || !fresh {
		return false
	}
	r.served.Add(1)
	return true
}

// GetLinks is terse.Store.GetLinks for readers that need no write of this moment.
func (r *Replica) GetLinks(ctx context.Context, keys []terse.LinkKey, dst []terse.Link) error {
	if r.read(ctx, "get links", func(ctx context.Context) (bool, error) {
		err := getLinks(ctx, r.pool, keys, dst)
		fresh := true
		for i := range dst {
			fresh = fresh && !r.stale(&dst[i])
		}
		return fresh, err
	}) {
		return nil
	}
	return r.s.GetLinks(ctx, keys, dst)
}

// GetAlias is terse.Store.GetAlias for readers that need no write of this moment.
func (r *Replica) GetAlias(ctx context.Context, d terse.DomainID, alias string) (l terse.Link, err error) {
	if r.read(ctx, "get alias", func(ctx context.Context) (bool, error) {
		var err error
		l, err = getAlias(ctx, r.pool, d, alias)
		return !r.stale(&l), err
	}) {
		return l, nil
	}
	return r.s.GetAlias(ctx, d, alias)
}
