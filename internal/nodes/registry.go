package nodes

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse"
)

// Store is what a Registry needs of a terse.Store.
type Store interface {
	GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error)
	PutDocument(ctx context.Context, doc terse.Document) error
	DeleteDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string, ifVersion uint64) error
	ListDocuments(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, after string, limit int) ([]terse.Document, error)
}

// Options configure a Registry.
type Options struct {
	// Store is where heartbeats go. nil: no other process can use the store of this one, so it
	// lists itself and writes nothing.
	Store Store
	Self  Node                // required
	Clock func() terse.Millis // required; for times that people read
	Log   *slog.Logger        // default: discarded
}

// Registry writes the heartbeats of this process and watches those of others. It is a
// prometheus.Collector. Its methods may be called from many goroutines.
type Registry struct {
	o Options

	alive, dead prometheus.Gauge
	failures    prometheus.Counter

	mu      sync.Mutex
	self    record
	version uint64 // of the document of this process, as far as it knows
	doubt   bool   // nobody knows whether the last heartbeat was written, or what is there
	watched map[string]watch
}

// watch is what was seen of a node.
type watch struct {
	boot    string
	version uint64
	since   time.Time // when that was seen first; monotonic
	changed bool      // a heartbeat was seen to follow another, or could have been: the clock of the node no longer counts
}

// New returns a registry of which nobody knows before Run.
func New(o Options) *Registry {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Self.Roles == nil {
		o.Self.Roles = []string{}
	}
	gauge := func(state State) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "terse_nodes", Help: "Processes that use the store, as this one sees them.", ConstLabels: prometheus.Labels{"state": string(state)},
		})
	}
	r := &Registry{
		o: o, alive: gauge(Alive), dead: gauge(Dead), doubt: true, watched: map[string]watch{},
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "terse_node_heartbeat_failures_total", Help: "Heartbeats of this process that were not written.",
		}),
		self: record{Node: o.Self, Boot: rand.Text()},
	}
	r.alive.Set(1)
	return r
}

// Describe implements prometheus.Collector.
func (r *Registry) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(r, ch) }

// Collect implements prometheus.Collector.
func (r *Registry) Collect(ch chan<- prometheus.Metric) {
	r.alive.Collect(ch)
	r.dead.Collect(ch)
	r.failures.Collect(ch)
}

// ID returns the id of this process: that of its data folder, or another one if somebody else has it.
func (r *Registry) ID() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.self.ID
}

// Run writes heartbeats until ctx ends, and then takes this process off the list. Trouble is logged when it
// changes and is otherwise for others to notice: a process that cannot reach the store looks dead.
func (r *Registry) Run(ctx context.Context) {
	if r.o.Store == nil {
		return
	}
	tick := time.NewTicker(Beat)
	defer tick.Stop()
	last := ""
	for {
		err := r.Beat(ctx)
		switch {
		case ctx.Err() != nil:
		case err == nil:
			last = ""
		default:
			r.failures.Inc()
			if err.Error() != last {
				last = err.Error()
				r.o.Log.Warn("the heartbeat of this node was not written", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			r.leave(ctx)
			return
		case <-tick.C:
		}
	}
}

// beatTimeout bounds a heartbeat: a late one is worth less than the next.
const beatTimeout = 2 * Beat

// Beat writes one heartbeat, looks at those of others, and removes who died a day ago. Run calls it.
func (r *Registry) Beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	if err := r.write(ctx); err != nil {
		return err
	}
	seen, err := r.List(ctx)
	if err != nil {
		return err
	}
	for i := range seen {
		n := &seen[i]
		if n.State == Dead && r.o.Clock()-n.SeenAt > terse.Millis(Forget.Milliseconds()) {
			r.mu.Lock()
			w := r.watched[n.ID]
			r.mu.Unlock()
			if time.Since(w.since) < DeadAfter { // only clocks say that it is dead
				continue
			}
			// A heartbeat that comes meanwhile makes it another version.
			err := r.o.Store.DeleteDocument(ctx, 0, terse.KindProcess, n.ID, w.version)
			if err != nil && !errors.Is(err, terse.ErrNotFound) && !errors.Is(err, terse.ErrVersion) {
				return fmt.Errorf("forget node %s: %w", n.ID, err)
			}
		}
	}
	return nil
}

// write puts the document of this process. An id that somebody else uses is left to them.
func (r *Registry) write(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	const tries = 4
	for try := 0; ; try++ {
		if r.doubt {
			if err := r.learn(ctx); err != nil {
				return err
			}
		}
		r.self.SeenAt = r.o.Clock()
		doc, err := r.self.document(r.version + 1)
		if err != nil {
			return err
		}
		err = r.o.Store.PutDocument(ctx, doc)
		if err == nil {
			r.version++
			r.doubt = false
			return nil
		}
		if code := terse.ErrorCode(err); code != terse.CodeUnavailable {
			r.doubt = true
			if again := errors.Is(err, terse.ErrVersion) || errors.Is(err, terse.ErrExists); again && try < tries {
				continue
			}
		}
		return fmt.Errorf("write heartbeat: %w", err)
	}
}

// learn reads what is there under the id of this process. r.mu is held.
func (r *Registry) learn(ctx context.Context) error {
	doc, err := r.o.Store.GetDocument(ctx, 0, terse.KindProcess, r.self.ID)
	if errors.Is(err, terse.ErrNotFound) {
		r.version, r.doubt = 0, false
		return nil
	}
	if err != nil {
		return fmt.Errorf("read heartbeat: %w", err)
	}
	there, err := decode(&doc)
	if err != nil {
		return err
	}
	// Before its first heartbeat a process takes over what the one before it left, which may not have ended in order.
	// Later a heartbeat that is not its own is that of a process which did the same.
	if r.version != 0 && there.Boot != r.self.Boot {
		id := r.self.ID + "-" + strings.ToLower(rand.Text()[:4])
		r.o.Log.Error("another process has the node id of this one: was the data folder copied?", "id", r.self.ID, "other", there.Name, "now", id)
		r.self.ID, r.version = id, 0
		return nil // still in doubt: the next look is under the new id
	}
	r.version, r.doubt = doc.Version, false
	return nil
}

// leave removes the document of this process.
func (r *Registry) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Beat)
	defer cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.version == 0 {
		return
	}
	version := r.version
	if r.doubt {
		version = 0
		if doc, err := r.o.Store.GetDocument(ctx, 0, terse.KindProcess, r.self.ID); err == nil {
			if rec, err := decode(&doc); err != nil || rec.Boot != r.self.Boot {
				return
			}
			version = doc.Version
		}
	}
	if err := r.o.Store.DeleteDocument(ctx, 0, terse.KindProcess, r.self.ID, version); err != nil && !errors.Is(err, terse.ErrNotFound) {
		r.o.Log.Warn("this node stays on the list of nodes until it counts as dead", "error", err)
	}
}
