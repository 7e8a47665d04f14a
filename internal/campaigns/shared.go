package campaigns

import (
	"context"
	"errors"

	"github.com/terselink/terse"
)

// Several nodes may write to one store. What the others write to a campaign comes here.

// Refresh reads a campaign that another node has changed or deleted, if this one has it in memory. An older version never
// replaces a newer one.
func (r *Registry) Refresh(ctx context.Context, w terse.WorkspaceID, id terse.CampaignID) error {
	k := key{w, id}
	r.mu.Lock()
	h := r.handles[k].Value()
	r.mu.Unlock()
	if h == nil {
		return nil
	}
	return r.refresh(ctx, h)
}

// RefreshAll reads every campaign that is in memory. It goes on after an error and returns all of them.
func (r *Registry) RefreshAll(ctx context.Context) error {
	var list []*Handle
	r.mu.Lock()
	for _, p := range r.handles {
		if h := p.Value(); h != nil {
			list = append(list, h)
		}
	}
	r.mu.Unlock()
	var errs []error
	for _, h := range list {
		if err := r.refresh(ctx, h); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (r *Registry) refresh(ctx context.Context, h *Handle) error {
	select { // a load that began before the change would bring back what was there
	case h.loading <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-h.loading }()
	if h.current.Load() == nil {
		return nil // whoever loads it from now on reads what is there now
	}
	err := r.read(ctx, h)
	if errors.Is(err, terse.ErrNotFound) { // it existed, so it was deleted
		h.publish(gone(h.key))
		return nil
	}
	return err
}
