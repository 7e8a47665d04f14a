// Package domains keeps every domain of the instance compiled in memory: hosts,
// code spaces, permutations, and the allocators that codes come from. Reads are
// lock-free on an immutable snapshot; writes go to the store first.
//
// It knows how codes map to link numbers and nothing about links.
//
// Locks: Registry.mu (one change at a time) is taken before live.mu (the
// allocators of one domain). Neither is held while a code is resolved.
package domains

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/code"
	"github.com/terselink/terse/internal/failpoint"
)

// Spaces of the instance's own pseudo-domain 0: counters that number things.
const (
	WorkspaceCounter terse.SpaceID = 1
	domainCounter    terse.SpaceID = 2
)

// metaDefault is the document that names the instance's default domain.
const metaDefault = "default_domain"

// Options configures a Registry.
type Options struct {
	Store terse.Store
	Clock func() terse.Millis
	Log   *slog.Logger
	// OnChange is called after a domain was created, changed or deleted.
	OnChange func(*Domain)
	// Shared says that other nodes write to the store. What they reserve is not known
	// here, so every unknown code is asked of the store.
	Shared bool
}

// Registry holds the domains. Its methods may be called from many goroutines.
type Registry struct {
	o    Options
	snap atomic.Pointer[snapshot]

	snowflakes *code.Snowflakes
	collisions atomic.Uint64

	mu sync.Mutex // one change at a time

	ctx        context.Context // of background; ended by cancel
	cancel     context.CancelFunc
	background sync.WaitGroup // the load of reservations
}

type snapshot struct {
	byHost   map[string]*Domain
	byNumber []*Domain // index = number
	def      *Domain   // the instance's default domain, nil before EnsureDefault
	loopback string    // ":8080": the port at which names of this machine mean def
	kept     bool      // from before the start, and not from the store
}

// Open loads every domain and verifies its permutation key. It must be closed.
func Open(ctx context.Context, o Options) (*Registry, error) {
	r := newRegistry(ctx, o)
	s, err := r.read(ctx, &snapshot{})
	if err != nil {
		return nil, err
	}
	r.snap.Store(s)
	r.startReservations(s)
	return r, nil
}

func newRegistry(ctx context.Context, o Options) *Registry {
	r := &Registry{o: o, snowflakes: code.NewSnowflakes(code.NewNode(o.Store), o.Clock)}
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return r
}

// startReservations reads the reservations of all domains in the background.
func (r *Registry) startReservations(s *snapshot) {
	if !r.o.Shared && len(s.byHost) > 0 {
		list := slices.Collect(maps.Values(s.byHost))
		r.background.Go(func() { r.loadReservations(r.ctx, list) })
	}
}

// read reads every domain from the store. Those that old has keep their counters.
func (r *Registry) read(ctx context.Context, old *snapshot) (*snapshot, error) {
	s := &snapshot{byHost: map[string]*Domain{}, loopback: old.loopback}
	for after := ""; ; {
		docs, err := r.o.Store.ListDocuments(ctx, 0, terse.KindDomain, after, 1000)
		if err != nil {
			return nil, fmt.Errorf("load domains: %w", err)
		}
		if len(docs) == 0 {
			break
		}
		for _, doc := range docs {
			d, err := r.load(ctx, doc, old)
			if err != nil {
				return nil, err
			}
			s.set(d)
		}
		after = docs[len(docs)-1].ID
	}
	doc, err := r.o.Store.GetDocument(ctx, 0, terse.KindMeta, metaDefault)
	switch {
	case err == nil:
		s.def = s.byHost[string(doc.Data)]
	case !errors.Is(err, terse.ErrNotFound):
		return nil, fmt.Errorf("load default domain: %w", err)
	}
	return s, nil
}

// load compiles a stored domain with its counters as the store has them now.
func (r *Registry) load(ctx context.Context, doc terse.Document, old *snapshot) (*Domain, error) {
	d, err := decodeDomain(doc)
	if err != nil {
		return nil, err
	}
	l := r.newLive()
	if known := old.byHost[d.Host]; known != nil && known.Number == d.Number {
		l = known.live
	}
	for _, s := range d.Spaces {
		next, err := r.o.Store.Next(ctx, d.Number, s.Space)
		if err != nil {
			return nil, fmt.Errorf("load domain %s: %w", doc.ID, err)
		}
		l.raise(s.Space, next)
	}
	l.unknown.Store(false)
	return r.compile(d, l)
}

func decodeDomain(doc terse.Document) (d terse.Domain, err error) {
	if err := json.Unmarshal(doc.Data, &d); err != nil {
		return d, fmt.Errorf("load domain %s: %w", doc.ID, err)
	}
	d.Version = doc.Version
	return d, nil
}

func (r *Registry) compile(d terse.Domain, l *live) (*Domain, error) {
	c, err := compile(d, l)
	if err != nil {
		return nil, err
	}
	if c.broken != nil {
		r.o.Log.Error("domain is out of service: restore its permutation key", "domain", d.Host, "error", c.broken)
	}
	return c, nil
}

func (s *snapshot) clone() *snapshot {
	c := *s
	c.byHost = make(map[string]*Domain, len(s.byHost)+1)
	for k, v := range s.byHost {
		c.byHost[k] = v
	}
	c.byNumber = slices.Clone(s.byNumber)
	return &c
}

func (s *snapshot) set(d *Domain) {
	s.byHost[d.Host] = d
	for int(d.Number) >= len(s.byNumber) {
		s.byNumber = append(s.byNumber, nil)
	}
	s.byNumber[d.Number] = d
	if s.def != nil && s.def.Host == d.Host {
		s.def = d
	}
}

// ByHost returns the domain that serves a canonical host (AppendHost), nil if
// none does. A domain without a port is served on every port.
// Hot path: 0 allocs/op, see TestByHostAllocs.
func (r *Registry) ByHost(host []byte) *Domain {
	s := r.snap.Load()
	if d, ok := s.byHost[string(host)]; ok {
		return d
	}
	name := splitPort(host)
	if len(name) == len(host) {
		return nil
	}
	if d, ok := s.byHost[string(name)]; ok {
		return d
	}
	if s.loopback != "" && s.def != nil && string(host[len(name):]) == s.loopback && isLoopback(string(name)) {
		return s.def
	}
	return nil
}

// ByName returns the domain of exactly this canonical host, nil if there is none.
func (r *Registry) ByName(host string) *Domain { return r.snap.Load().byHost[host] }

// ByNumber returns a domain by its number, nil if there is none.
func (r *Registry) ByNumber(n terse.DomainID) *Domain {
	s := r.snap.Load()
	if int(n) >= len(s.byNumber) {
		return nil
	}
	return s.byNumber[n]
}

// Default returns the instance's default domain, nil before EnsureDefault.
func (r *Registry) Default() *Domain { return r.snap.Load().def }

// List returns the domains that a workspace may use, its own and the shared ones,
// sorted by host.
func (r *Registry) List(w terse.WorkspaceID) []*Domain {
	var list []*Domain
	for _, d := range r.snap.Load().byHost {
		if d.Usable(w) {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(a, b *Domain) int { return strings.Compare(a.Host, b.Host) })
	return list
}

// Usable reports whether a workspace may put links on the domain.
func (d *Domain) Usable(w terse.WorkspaceID) bool { return d.Workspace == 0 || d.Workspace == w }

// SetLoopback makes every name of this machine with the given port, such as
// 127.0.0.1:8080, mean the default domain if that is a name of this machine too.
func (r *Registry) SetLoopback(port string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.snap.Load().clone()
	s.loopback = ""
	if s.def != nil && isLoopback(string(splitPort([]byte(s.def.Host)))) {
		s.loopback = ":" + port
	}
	r.snap.Store(s)
}

// EnsureDefault makes the shared default domain of the instance on first start and
// returns it; later it returns the one that exists, whatever the host.
func (r *Registry) EnsureDefault(ctx context.Context, host, scheme string) (*Domain, error) {
	if d := r.Default(); d != nil {
		return d, nil
	}
	host, err := ParseHost(host)
	if err != nil {
		return nil, err
	}
	if r.ByName(host) == nil { // a crash after the domain and before the document leaves it made
		_, err := r.Create(ctx, 0, New{Host: host, Scheme: scheme}, nil)
		if terse.ErrorCode(err) == terse.CodeConflict { // another node makes the same, now
			err = r.Reload(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	err = r.o.Store.PutDocument(ctx, terse.Document{Kind: terse.KindMeta, ID: metaDefault, Version: 1, Data: []byte(host)})
	if errors.Is(err, terse.ErrExists) { // another node was first
		if err := r.Reload(ctx); err != nil {
			return nil, err
		}
		if d := r.Default(); d != nil {
			return d, nil
		}
	} else if err != nil {
		return nil, fmt.Errorf("set default domain: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.snap.Load().clone()
	s.def = s.byHost[host]
	r.snap.Store(s)
	return s.def, nil
}

// Lease leases indexes of a domain and raises the gate before anybody can use them.
// It implements code.Leaser.
func (r *Registry) Lease(ctx context.Context, req terse.LeaseRequest) (terse.Lease, error) {
	l, err := r.o.Store.Lease(ctx, req)
	if err != nil {
		return l, err
	}
	failpoint.Hit(failpoint.LeaseTaken)
	if d := r.ByNumber(req.Domain); d != nil {
		d.live.raise(req.Space, l.End)
	}
	return l, nil
}

// Issued is what Issue fills; reuse it to avoid garbage.
type Issued struct {
	Space   terse.SpaceID
	Length  int      // bytes of one code
	Indexes []uint64 // ascending
	Codes   []byte   // Length bytes for each index
	ByCode  bool     // the codes are not permuted: see terse.Link.ByCode
}

// Number returns the number of the i-th issued code.
func (b *Issued) Number(d *Domain, i int) terse.LinkNumber {
	return terse.NewLinkNumber(d.Number, b.Space, b.Indexes[i])
}

// Issue takes n new codes of the domain's current space (ByCode ones may exist already), growing the domain by one
// character when the space has reached its cap.
func (r *Registry) Issue(ctx context.Context, d *Domain, n int, b *Issued) error {
	for {
		if d.broken != nil {
			return &terse.Error{Code: terse.CodeUnavailable, Message: "no codes can be made on this domain", Err: d.broken}
		}
		sp := d.Current()
		var err error
		if sp.Strategy != StrategyPermuted {
			err = r.issueDrawn(ctx, d, sp.Space, sp.Cap, n, b)
		} else {
			b.Space, b.Length, b.ByCode = sp.Space, int(sp.Space), false
			b.Indexes, b.Codes, err = r.allocator(d, sp.Space, sp.Cap).Issue(ctx, n, b.Indexes[:0], b.Codes[:0])
		}
		if !errors.Is(err, terse.ErrSpaceFull) {
			return err
		}
		if d, err = r.grow(ctx, d); err != nil {
			return err
		}
	}
}

// IssueAliases takes n numbers for links with an alias.
func (r *Registry) IssueAliases(ctx context.Context, d *Domain, n int, indexes []uint64) ([]uint64, error) {
	indexes, _, err := r.allocator(d, terse.AliasSpace, terse.MaxIndex+1).Issue(ctx, n, indexes, nil)
	return indexes, err
}

func (r *Registry) allocator(d *Domain, s terse.SpaceID, limit uint64) *code.Allocator {
	d.live.mu.Lock()
	defer d.live.mu.Unlock()
	if a := d.live.allocators[s]; a != nil {
		return a
	}
	a := code.NewAllocator(r, d.Number, s, limit, d.perms[s], code.AllocatorOptions{})
	d.live.allocators[s] = a
	return a
}

// releaseTimeout bounds how long Close waits to give the snowflake node back.
const releaseTimeout = 2 * time.Second

// Close waits for leases under way and gives the snowflake node back.
func (r *Registry) Close() {
	r.cancel()
	r.background.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	if err := r.snowflakes.Close(ctx); err != nil {
		r.o.Log.Warn("a snowflake node id stays taken for a minute", "error", err)
	}
	for _, d := range r.snap.Load().byHost {
		d.live.mu.Lock()
		for _, a := range d.live.allocators {
			if a != nil {
				a.Close()
			}
		}
		d.live.mu.Unlock()
	}
}

func newPermKey() []byte {
	k := make([]byte, 32)
	rand.Read(k) // never fails: crypto/rand ends the process instead
	return k
}
