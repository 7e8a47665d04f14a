package domains

import (
	"context"
	"errors"
	"fmt"

	"github.com/terselink/terse"
)

// Several nodes may write to one store (Options.Shared). What the others write to domains, and which indexes they lease,
// comes here.

func (r *Registry) newLive() *live { return &live{shared: r.o.Shared} }

// Refresh reads a domain that another node has made, changed or deleted. An older version never replaces a newer one.
func (r *Registry) Refresh(ctx context.Context, host string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refreshLocked(ctx, host)
}

func (r *Registry) refreshLocked(ctx context.Context, host string) error {
	cur := r.ByName(host)
	doc, err := r.o.Store.GetDocument(ctx, 0, terse.KindDomain, host)
	if errors.Is(err, terse.ErrNotFound) {
		if cur != nil {
			r.removeLocked(cur)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("refresh domain %s: %w", host, err)
	}
	old := r.snap.Load()
	d, err := r.load(ctx, doc, old)
	if err != nil {
		return err
	}
	if cur != nil && cur.Number == d.Number && cur.Version >= d.Version {
		return nil
	}
	s := old.clone()
	if cur != nil && cur.Number != d.Number { // deleted and made again
		s.byNumber[cur.Number] = nil
	}
	s.set(d)
	r.snap.Store(s)
	r.changed(d)
	return nil
}

// removeLocked makes a domain unknown to this node.
func (r *Registry) removeLocked(d *Domain) {
	s := r.snap.Load().clone()
	delete(s.byHost, d.Host)
	s.byNumber[d.Number] = nil
	r.snap.Store(s)
	r.changed(d)
}

// Leased notes that another node has leased at least all indexes of a space below end.
func (r *Registry) Leased(d terse.DomainID, s terse.SpaceID, end uint64) {
	if known := r.ByNumber(d); known != nil {
		known.live.raise(s, end)
	}
}

// CodeOf returns the code of a link that has it by its number; false for one whose code only the store knows, and for a domain
// or a code space that is not known.
func (r *Registry) CodeOf(n terse.LinkNumber) (string, bool) {
	d := r.ByNumber(n.Domain())
	if d == nil {
		return "", false
	}
	sp, p := d.spaces[n.Space()], d.perms[n.Space()]
	if sp == nil || p == nil || sp.Strategy != StrategyPermuted {
		return "", false
	}
	return string(p.AppendCode(nil, n.Index())), true
}

// retryNewer repeats a change of a domain once if it failed for what another node may have written: the caller may know
// that, and this node not yet.
func (r *Registry) retryNewer(ctx context.Context, host string, change func() error) error {
	err := change()
	if !r.o.Shared || !errors.Is(err, terse.ErrVersion) && !errors.Is(err, terse.ErrNotFound) {
		return err
	}
	canonical, perr := ParseHost(host)
	if perr != nil {
		return err
	}
	if rerr := r.refreshLocked(ctx, canonical); rerr != nil {
		return rerr
	}
	return change()
}
