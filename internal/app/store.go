package app

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/api"
	"github.com/terselink/terse/internal/changes"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/links"
	"github.com/terselink/terse/internal/store/metricstore"
	"github.com/terselink/terse/internal/store/pebblestore"
	"github.com/terselink/terse/internal/store/pgstore"
)

// storeEngine is what the server needs to know of its engine beside terse.Store.
type storeEngine struct {
	shape string
	reads terse.Store // what redirects read from
	saw   func(links.Change)
	// missed says that changes may have been written of which saw was not told.
	missed func()
	// whenDown is the state of a node whose store does not answer. The embedded store is on the
	// disk of the node: without it the node is of no use. A database may be away for a while: the
	// node redirects from its memory, and taking it out of rotation would only make it worse.
	whenDown api.State
	failed   <-chan struct{} // closed when the disk has failed; nil: never
	feed     changes.Feed    // nil: an edge node, which follows another one's
	failure  func() error
	late     *lateStores // nil: the store is embedded
}

// openStore opens the engine that the configuration names. A database that does not answer is waited for; meanwhile
// the redirect plane serves what was kept on disk, if something was.
func (s *server) openStore(ctx context.Context) error {
	s.engine.saw, s.engine.missed = noLink, func() {}
	switch s.cfg.Store.Engine {
	case config.EnginePostgres:
		return s.openPostgres(ctx)
	case config.EngineDynamoDB:
		return s.openDynamoDB(ctx)
	}
	store, err := pebblestore.Open(filepath.Join(s.cfg.Data, storeDir), pebblestore.Options{
		CacheBytes: int64(s.cfg.Store.CacheBytes), Clock: s.clock, Log: s.log,
	})
	if err != nil {
		return err
	}
	s.onStop("store", func(context.Context) error { return store.Close() })
	s.registry.MustRegister(store.Collector())
	s.store = store
	s.engine.shape, s.engine.reads, s.engine.whenDown = "embedded", store, api.Down
	s.engine.failed, s.engine.failure, s.engine.feed = store.Failed(), store.Err, store
	return nil
}

// noLink is told of changes of links where nobody needs to be.
func noLink(links.Change) {}

func (s *server) openPostgres(ctx context.Context) error {
	p := s.cfg.Store.Postgres
	o := pgstore.Options{
		URL: p.URL.Reveal(), ReplicaURL: p.ReplicaURL.Reveal(), MaxConns: p.MaxConns, Pooler: p.Pooler, StatementTimeout: p.StatementTimeout, Log: s.log,
	}
	late := s.networked()
	store, err := openPatiently(ctx, s, func() (*pgstore.Store, error) { return pgstore.Open(ctx, o) })
	if err != nil {
		return err
	}
	// Without change messages between nodes a second one would go on from what it has in memory. Until the claim nothing
	// is read that another node may change.
	claim := pgstore.ClaimOptions{Wait: claimWait, Shared: s.shares()}
	if err := s.patiently(ctx, func() error { return store.Claim(ctx, claim) }); err != nil {
		return errors.Join(err, store.Close())
	}
	s.registry.MustRegister(store.Collector())
	measured, err := metricstore.New(store, s.registry, time.Now)
	if err != nil {
		return errors.Join(err, store.Close())
	}
	reads := terse.Store(measured)
	if r := store.Replica(); r != nil {
		reads = replicaReads{measured, r}
		s.engine.saw, s.engine.missed = func(c links.Change) { r.Saw(c.Number, c.Version, c.Deleted) }, r.Missed
	}
	s.engine.feed = store
	late.open(s.telling(measured), reads)
	return nil
}

// networked prepares for a store that may be away: everything works with what it returns from now on.
func (s *server) networked() *lateStores {
	late := &lateStores{}
	s.store, s.late, s.engine.late = &late.all, true, late
	s.engine.shape, s.engine.reads, s.engine.whenDown = "mixed", &late.reads, api.Degraded
	if s.shares() {
		s.engine.shape = "cluster"
	}
	// First, so that it is closed after all that needs it.
	s.onStop("store", func(context.Context) error { return late.all.Close() })
	return late
}

// lateStores are a store that is opened later and what redirects read from.
type lateStores struct{ all, reads lateStore }

func (l *lateStores) open(all, reads terse.Store) {
	l.reads.open(reads)
	l.all.open(all)
}

// above puts something between redirects and the store, which is open.
func (l *lateStores) above(wrap func(terse.Store) terse.Store) {
	if reads, err := l.reads.store(); err == nil {
		l.reads.open(wrap(reads))
	}
}

// openPatiently opens a store and waits for one that does not answer. Meanwhile visitors are served from what was kept,
// and the listeners without a plane say what is going on.
func openPatiently[S io.Closer](ctx context.Context, s *server, open func() (S, error)) (store S, err error) {
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		store, err = open()
	}()
	slow := time.NewTimer(storeSlow)
	defer slow.Stop()
	select {
	case <-opened:
		if !errors.Is(err, terse.ErrUnavailable) {
			return store, err
		}
		s.log.Warn("the database does not answer: waiting for it", "error", err)
	case <-slow.C: // it tries for long before it says so
		s.log.Warn("the database does not answer: waiting for it", "for", storeSlow)
	}
	serving, kerr := s.serveKept(ctx)
	if kerr == nil {
		s.openRooms(serving)
	}
	<-opened
	switch {
	case kerr != nil && err == nil:
		return store, errors.Join(kerr, store.Close())
	case kerr != nil:
		return store, kerr
	case !errors.Is(err, terse.ErrUnavailable):
		return store, err
	}
	err = s.patiently(ctx, func() error {
		store, err = open()
		return err
	})
	return store, err
}

// storeSlow is how long a start waits for the database before visitors are served from what was kept.
const storeSlow = 2 * time.Second

// patiently repeats what fails only because the database does not answer, or did not say whether it did what it was asked
// for, until that is over. It is for steps of the start, which may be taken twice.
func (s *server) patiently(ctx context.Context, step func() error) error {
	for {
		err := step()
		if !s.late || !errors.Is(err, terse.ErrUnavailable) && !errors.Is(err, terse.ErrUnknownOutcome) || ctx.Err() != nil {
			return err
		}
		s.log.Debug("the database does not answer: trying again", "error", err)
		t := time.NewTimer(storeRetry)
		select {
		case <-ctx.Done():
			t.Stop()
			return err
		case err := <-s.failed: // of a plane that serves meanwhile
			t.Stop()
			return err
		case <-t.C:
		}
	}
}

// storeRetry is the pause before a database that did not answer is asked again.
const storeRetry = time.Second

// claimWait is how long a start waits for a node that is going: the database notices within
// moments that a process has died.
const claimWait = 10 * time.Second

// replicaReads is a store whose links are read from a replica.
type replicaReads struct {
	terse.Store
	replica *pgstore.Replica
}

// GetLinks implements terse.Store.
func (r replicaReads) GetLinks(ctx context.Context, keys []terse.LinkKey, dst []terse.Link) error {
	return r.replica.GetLinks(ctx, keys, dst)
}

// GetAlias implements terse.Store.
func (r replicaReads) GetAlias(ctx context.Context, d terse.DomainID, alias string) (terse.Link, error) {
	return r.replica.GetAlias(ctx, d, alias)
}
