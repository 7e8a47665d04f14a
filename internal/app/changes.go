package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/api"
	"github.com/terselink/terse/internal/changes"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/linkcache"
	"github.com/terselink/terse/internal/links"
	"github.com/terselink/terse/internal/redirect"
	"github.com/terselink/terse/internal/redisbus"
	"github.com/terselink/terse/internal/storecopy"
)

// shares reports whether other nodes may use the store, too.
func (s *server) shares() bool { return s.cfg.Redis.URL != "" }

// busOptions are those of what is in Redis for an instance.
func busOptions(cfg *config.Config, instance string) redisbus.Options {
	return redisbus.Options{URL: cfg.Redis.URL.Reveal(), Prefix: cfg.Redis.Prefix, Instance: instance}
}

// signedBus returns where the nodes of the instance meet in Redis, and the secret that they sign with there.
func (s *server) signedBus(ctx context.Context) (redisbus.Options, []byte, error) {
	instance, err := instanceID(ctx, s.store)
	if err != nil {
		return redisbus.Options{}, nil, err
	}
	secret, err := nodeSecret(ctx, s.store)
	return busOptions(s.cfg, instance), secret, err
}

// instanceID returns what tells the instance from others that use the same Redis, maybe with the same prefix. It is made with
// the database; a copy of the database by "terse copy" has another one.
func instanceID(ctx context.Context, store terse.Store) (string, error) {
	type record struct {
		ID string `json:"id"`
	}
	r, err := madeOnce(ctx, store, storecopy.InstanceID, func() record { return record{strings.ToLower(rand.Text()[:16])} })
	if err != nil {
		return "", fmt.Errorf("id of the instance: %w", err)
	}
	if r.ID == "" {
		return "", &terse.Error{Code: terse.CodeInternal, Op: "read the id of the instance", Message: "it is damaged"}
	}
	return r.ID, nil
}

// openChanges connects to the other nodes, if there may be any. Redis need not answer. It notes where the feed of the store is:
// what is read from the store afterwards is kept up to date once followChanges was called.
func (s *server) openChanges(ctx context.Context) error {
	if !s.shares() || s.hub.Load() != nil {
		return nil
	}
	instance, err := instanceID(ctx, s.store)
	if err != nil {
		return err
	}
	var secret []byte
	if s.cfg.Redis.LinkCache { // before anything is kept: this step may be taken again until the store answers
		if secret, err = nodeSecret(ctx, s.store); err != nil {
			return err
		}
	}
	o := busOptions(s.cfg, instance)
	bus, err := redisbus.New(o)
	if err != nil {
		return err
	}
	hub, err := changes.New(ctx, changes.Options{
		Feed: s.engine.feed, Target: changeTarget{s}, Transport: bus, Follows: follows, Log: s.log, Every: s.cfg.Redis.FeedEvery,
		Moved: func() {
			if c := s.linkCache.Load(); c != nil {
				c.Wake()
			}
		},
	})
	if err != nil {
		bus.Close()
		return err
	}
	s.registry.MustRegister(hub)
	s.hub.Store(hub)
	s.onStop("changes of other nodes", func(ctx context.Context) error {
		defer bus.Close()
		return hub.Stop(ctx)
	})
	return s.openLinkCache(o, secret, hub)
}

// openLinkCache makes the second level of the cache of links, if there is one. Until followChanges was called everybody asks
// the store.
func (s *server) openLinkCache(o redisbus.Options, secret []byte, hub *changes.Hub) error {
	if !s.cfg.Redis.LinkCache {
		return nil
	}
	remote, err := redisbus.NewLinks(redisbus.LinksOptions{Options: o, Secret: secret, Log: s.log})
	if err != nil {
		return err
	}
	c, err := linkcache.New(linkcache.Options{
		Remote: remote, Feed: s.engine.feed, Position: hub.Position, Told: hub.Told, Clock: s.clock, Log: s.log, MaxAge: s.cfg.Redis.LinkCacheAge, Within: s.cfg.Redis.LinkCacheWait,
	})
	if err != nil {
		remote.Close()
		return err
	}
	s.registry.MustRegister(c, remote.Refused())
	s.linkCache.Store(c)
	s.engine.late.above(c.Above)
	s.onStop("link cache", func(context.Context) error {
		remote.Close() // first, so that nobody waits for it
		c.Stop()
		return nil
	})
	return nil
}

// followChanges begins to apply what other nodes write, and to tell them what this one does.
func (s *server) followChanges() {
	if hub := s.hub.Load(); hub != nil {
		s.engine.missed() // of what was written before the hub was made nobody tells
		hub.Start()
	}
	if c := s.linkCache.Load(); c != nil {
		c.Start()
	}
}

// follows reports whether nodes keep a document in memory.
func follows(_ terse.WorkspaceID, kind terse.Kind, _ string) bool {
	switch kind {
	case terse.KindDomain, terse.KindCampaign, terse.KindWorkspace, terse.KindKey:
		return true
	}
	return false
}

// feedLate is how long the feed may be out of reach before a node says so.
const feedLate = 10 * time.Second

// changesCheck is the line of /readyz about other nodes. A node that hears nothing stays in rotation: it follows the store.
func changesCheck(st changes.Stats) api.Check {
	c := api.Check{Name: "changes", State: api.OK}
	switch {
	case st.Behind > feedLate:
		c.State, c.Detail = api.Degraded, "the changes of other nodes have not been read for "+st.Behind.Round(time.Second).String()
	case !st.Connected:
		c.State, c.Detail = api.Degraded, "redis does not carry messages: changes of other nodes are found in the store"
	}
	return c
}

// tellLink tells the other nodes of a change of links.
func (s *server) tellLink(c links.Change) {
	hub := s.hub.Load()
	if hub == nil {
		return
	}
	if lc := s.linkCache.Load(); lc != nil && c.Code != "" && !c.Created {
		lc.Changed(c.Number, c.Version, c.Deleted)
	}
	if c.Code == "" {
		hub.Publish(changes.Event{Kind: changes.KindLinks})
		return
	}
	hub.Publish(changes.Event{Kind: changes.KindLink, Number: c.Number, Code: c.Code, Version: c.Version, Created: c.Created, Deleted: c.Deleted})
}

// tellFailure returns what tells the other nodes of a wrong key or password; nil: there are none.
func (s *server) tellFailure() func(table string, client netip.Prefix) {
	if !s.shares() {
		return nil
	}
	return func(table string, client netip.Prefix) {
		if hub := s.hub.Load(); hub != nil {
			hub.Publish(changes.Event{Kind: changes.KindFailure, DocKind: terse.Kind(table), DocID: client.String()})
		}
	}
}

// telling returns a store that tells the other nodes of the documents that are written to it.
func (s *server) telling(store terse.Store) terse.Store {
	if !s.shares() {
		return store
	}
	return tellingStore{store, s}
}

type tellingStore struct {
	terse.Store
	s *server
}

func (t tellingStore) tell(err error, doc *terse.Document, deleted bool) {
	hub := t.s.hub.Load()
	if hub == nil || err != nil && !errors.Is(err, terse.ErrUnknownOutcome) || !follows(doc.Workspace, doc.Kind, doc.ID) {
		return
	}
	hub.Publish(changes.Event{Kind: changes.KindDocument, Workspace: doc.Workspace, DocKind: doc.Kind, DocID: doc.ID, Version: doc.Version, Deleted: deleted})
}

// PutDocument implements terse.Store.
func (t tellingStore) PutDocument(ctx context.Context, doc terse.Document) error {
	err := t.Store.PutDocument(ctx, doc)
	t.tell(err, &doc, false)
	return err
}

// DeleteDocument implements terse.Store.
func (t tellingStore) DeleteDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string, ifVersion uint64) error {
	err := t.Store.DeleteDocument(ctx, w, kind, id, ifVersion)
	t.tell(err, &terse.Document{Workspace: w, Kind: kind, ID: id, Version: ifVersion}, true)
	return err
}

// InsertLinks implements terse.Store.
func (t tellingStore) InsertLinks(ctx context.Context, chunk *terse.Chunk) error {
	err := t.Store.InsertLinks(ctx, chunk)
	for i := range chunk.Documents {
		t.tell(err, &chunk.Documents[i], false)
	}
	return err
}

// changeTarget applies what other nodes have written to what this one keeps in memory.
type changeTarget struct{ s *server }

var _ changes.Target = changeTarget{}

// Link implements changes.Target.
func (t changeTarget) Link(e changes.Event) {
	t.link(links.Change{Domain: e.Number.Domain(), Code: e.Code, Number: e.Number, Version: e.Version, Created: e.Created, Deleted: e.Deleted})
}

func (t changeTarget) link(c links.Change) {
	t.s.engine.saw(c)
	t.s.invalidate(redirect.Invalidation{
		Domain: c.Domain, Code: c.Code, Number: c.Number, Version: c.Version, Created: c.Created, Deleted: c.Deleted,
	})
}

// Links implements changes.Target.
func (t changeTarget) Links() { t.s.invalidate(redirect.Invalidation{Created: true}) }

// Failure implements changes.Target.
func (t changeTarget) Failure(e changes.Event) {
	client, err := netip.ParsePrefix(e.DocID)
	if err != nil {
		client = netip.Prefix{} // clients whose address is not known
	}
	if t.s.redirect == nil || !t.s.redirect.HeardFailure(string(e.DocKind), client) {
		if a := t.s.api.Load(); a != nil {
			a.HeardFailure(string(e.DocKind), client)
		}
	}
}

// Feed implements changes.Target.
func (t changeTarget) Feed(ctx context.Context, inserted []terse.Run, updated, deleted map[terse.LinkNumber]uint64) error {
	for _, r := range inserted {
		if r.Count > 0 {
			t.s.domains.Leased(r.First.Domain(), r.First.Space(), r.First.Index()+r.Count)
		}
	}
	if len(inserted) > 0 {
		t.Links()
	}
	nameless := make(map[terse.LinkNumber]uint64)
	for n, version := range deleted {
		c := links.Change{Domain: n.Domain(), Number: n, Version: version, Deleted: true}
		var ok bool
		if c.Code, ok = t.s.domains.CodeOf(n); ok {
			t.link(c)
			continue
		}
		t.s.engine.saw(c)
		nameless[n] = version
	}
	if t.s.redirect != nil {
		t.s.redirect.Forget(nameless)
	}
	var keys []terse.LinkKey
	for n, version := range updated {
		if code, ok := t.s.domains.CodeOf(n); ok {
			t.link(links.Change{Domain: n.Domain(), Code: code, Number: n, Version: version})
			continue
		}
		keys = append(keys, terse.LinkKey{Number: n})
	}
	if len(keys) == 0 {
		return nil
	}
	found := make([]terse.Link, len(keys))
	if err := t.s.store.GetLinks(ctx, keys, found); err != nil {
		return err
	}
	for i := range found {
		if l := &found[i]; l.Number != 0 { // else it was deleted since, which the feed has, too
			t.link(links.Change{Domain: l.Number.Domain(), Code: l.Code, Number: l.Number, Version: l.Version})
		}
	}
	return nil
}

// Document implements changes.Target.
func (t changeTarget) Document(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) error {
	switch kind {
	case terse.KindDomain:
		return t.s.domains.Refresh(ctx, id)
	case terse.KindCampaign:
		c, err := terse.ParseCampaignID(id)
		if err != nil {
			return nil // not a campaign's
		}
		return t.s.campaigns.Refresh(ctx, w, c)
	case terse.KindWorkspace:
		n, err := terse.ParseWorkspaceID(id)
		if err != nil {
			return nil // not a workspace's
		}
		return t.s.auth.Load().RefreshWorkspace(ctx, n)
	case terse.KindKey:
		t.s.auth.Load().ForgetKey(id)
	}
	return nil
}

// Everything implements changes.Target.
func (t changeTarget) Everything(ctx context.Context) error {
	t.s.engine.missed()
	if t.s.redirect != nil {
		t.s.redirect.Doubt()
	}
	return errors.Join(t.s.domains.Reload(ctx), t.s.campaigns.RefreshAll(ctx), t.s.auth.Load().RefreshAll(ctx))
}
