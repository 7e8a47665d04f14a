package fence

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/sleep"
)

// Store is what a Keeper needs of a terse.Store.
type Store interface {
	GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error)
	PutDocument(ctx context.Context, doc terse.Document) error
	InsertLinks(ctx context.Context, chunk *terse.Chunk) error
}

// DefaultLease is how long a lock stays with a holder that is gone.
const DefaultLease = 10 * time.Second

// Options configure a Keeper.
type Options struct {
	Store Store // where locks are; required
	// Alone says that no other process can use the store: every lock is there for the taking, and nothing is written.
	Alone  bool
	Holder string        // of this process, for people
	Lease  time.Duration // default DefaultLease
	Log    *slog.Logger  // default: discarded
}

// Keeper takes and keeps the locks of a process. It is a prometheus.Collector. Its methods may be called from many goroutines.
type Keeper struct {
	o    Options
	held *prometheus.GaugeVec
	lost *prometheus.CounterVec
}

// New returns a keeper that holds nothing.
func New(o Options) *Keeper {
	if o.Lease <= 0 {
		o.Lease = DefaultLease
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Keeper{
		o: o,
		held: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "terse_lock_held", Help: "1 if this process carries out the duty.",
		}, []string{"lock"}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "terse_lock_lost_total", Help: "Locks that this process lost before it gave them back.",
		}, []string{"lock"}),
	}
}

// Describe implements prometheus.Collector.
func (k *Keeper) Describe(ch chan<- *prometheus.Desc) { k.held.Describe(ch); k.lost.Describe(ch) }

// Collect implements prometheus.Collector.
func (k *Keeper) Collect(ch chan<- prometheus.Metric) { k.held.Collect(ch); k.lost.Collect(ch) }

// lock is the document of a lock.
type lock struct {
	Holder string `json:"holder,omitzero"` // "": nobody
	Run    string `json:"run,omitzero"`    // of one time that it was taken
}

// Run carries out a duty whenever this process has the lock, until ctx ends; it returns when the duty has. The context of the
// duty ends with ctx or with the lock. A duty that returns by itself is begun again.
func (k *Keeper) Run(ctx context.Context, name string, duty func(ctx context.Context, h *Held)) {
	for ctx.Err() == nil {
		h, err := k.Acquire(ctx, name)
		if err != nil { // ctx has ended
			return
		}
		duty(h.Context(), h)
		h.Release()
		if ctx.Err() == nil && k.o.Alone {
			return // nobody takes it away, so the duty is over
		}
	}
}

// patience is how long the version of a lock must stand still before another process takes it. It is more than
// Lease, by what clocks of machines may differ in pace.
func (k *Keeper) patience() time.Duration { return k.o.Lease + k.o.Lease/4 }

// Acquire waits for the lock and takes it. ctx is also the parent of the context of the lock. Returns an error if ctx ends first, and
// only then: a store that does not answer is asked again.
func (k *Keeper) Acquire(ctx context.Context, name string) (*Held, error) {
	h := &Held{k: k, name: name, run: rand.Text(), done: make(chan struct{}), turn: make(chan struct{}, 1)}
	h.ctx, h.cancel = context.WithCancelCause(ctx)
	if k.o.Alone {
		k.held.WithLabelValues(name).Set(1)
		close(h.done)
		return h, nil
	}
	k.held.WithLabelValues(name).Set(0)
	var seen uint64
	var since time.Time
	last := ""
	for {
		began := time.Now()
		version, holder, err := k.look(ctx, name)
		switch {
		case err != nil:
		case version != seen || since.IsZero():
			seen, since = version, time.Now() // after the answer: the holder measures from before its write
			if holder != "" {
				break
			}
			fallthrough
		case holder == "" || time.Since(since) >= k.patience():
			if err = h.take(ctx, version); err == nil {
				h.start(began)
				return h, nil
			}
			if errors.Is(err, terse.ErrVersion) || errors.Is(err, terse.ErrExists) { // somebody was faster
				err = nil
			}
		}
		if err == nil {
			last = ""
		} else if ctx.Err() == nil && err.Error() != last {
			last = err.Error()
			k.o.Log.Warn("a lock cannot be looked at now", "lock", name, "error", err)
		}
		if sleep.For(ctx, k.o.Lease/5) != nil {
			h.cancel(context.Cause(ctx))
			return nil, context.Cause(ctx)
		}
	}
}

// look returns the version of a lock and who holds it.
func (k *Keeper) look(ctx context.Context, name string) (version uint64, holder string, err error) {
	ctx, cancel := context.WithTimeout(ctx, k.o.Lease/3)
	defer cancel()
	doc, l, err := k.read(ctx, name)
	return doc.Version, l.Holder, err
}

func (k *Keeper) read(ctx context.Context, name string) (doc terse.Document, l lock, err error) {
	doc, err = k.o.Store.GetDocument(ctx, 0, terse.KindLock, name)
	if errors.Is(err, terse.ErrNotFound) {
		return terse.Document{}, lock{}, nil
	}
	if err == nil {
		err = json.Unmarshal(doc.Data, &l)
	}
	if err != nil {
		return doc, l, fmt.Errorf("read lock %s: %w", name, err)
	}
	return doc, l, nil
}
