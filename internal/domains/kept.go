package domains

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/terselink/terse"
)

// A redirect plane must be able to start while its store cannot be reached. It then works with
// the domains of a time when the store answered (package warm), until Reload.

// Documents returns all domains as they are stored, and the host of the default one, to be kept for a start
// without the store. They hold the permutation keys.
func (r *Registry) Documents() (docs []terse.Document, defaultHost string, err error) {
	s := r.snap.Load()
	for _, host := range slices.Sorted(maps.Keys(s.byHost)) {
		d := s.byHost[host]
		data, err := json.Marshal(&d.Domain)
		if err != nil {
			return nil, "", fmt.Errorf("encode domain %s: %w", host, err)
		}
		docs = append(docs, terse.Document{Kind: terse.KindDomain, ID: host, Version: d.Version, Data: data})
	}
	if s.def != nil {
		defaultHost = s.def.Host
	}
	return docs, defaultHost, nil
}

// OpenKept is Open for a store that does not answer: the registry has the domains that were kept, and
// makes no call of the store. No code is refused by arithmetic, because nobody knows which were issued since.
// It must be closed.
func OpenKept(ctx context.Context, o Options, docs []terse.Document, defaultHost string) (*Registry, error) {
	r := newRegistry(ctx, o)
	s := &snapshot{byHost: map[string]*Domain{}, kept: true}
	for _, doc := range docs {
		d, err := decodeDomain(doc)
		if err != nil {
			r.cancel()
			return nil, err
		}
		l := r.newLive()
		l.unknown.Store(true)
		c, err := r.compile(d, l)
		if err != nil {
			r.cancel()
			return nil, err
		}
		s.set(c)
	}
	s.def = s.byHost[defaultHost]
	r.snap.Store(s)
	return r, nil
}

// Kept reports whether the domains are those that were kept: the store may have others.
func (r *Registry) Kept() bool { return r.snap.Load().kept }

// Reload reads all domains from the store, in place of those that were kept. On an error everything stays as it is.
func (r *Registry) Reload(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, err := r.read(ctx, r.snap.Load())
	if err != nil {
		return err
	}
	r.snap.Store(s)
	r.startReservations(s)
	return nil
}
