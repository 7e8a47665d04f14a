package edge

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/edge/wire"
	"github.com/terselink/terse/internal/linkjson"
)

// Options configure a Store. Fields without a remark are required.
type Options struct {
	Client *Client
	Dir    string // of the copy
	Bytes  int64  // what the links in the copy may take, about
	Clock  func() terse.Millis
	Log    *slog.Logger // default: discarded
}

// Store is what a redirect plane of an edge reads from. It is a terse.Store that writes nothing but claims of clicks. Use
// Open, then Sync, then Run. It is a prometheus.Collector.
type Store struct {
	o       Options
	copy    *diskCopy
	stats   counters
	heard   atomic.Int64 // when the feed was last asked for that was then read to its end, Unix milliseconds; 0: not since the start
	synced  atomic.Bool  // the copy has everything that Sync reads
	cancel  context.CancelFunc
	running sync.WaitGroup
	closed  sync.Once
}

var _ terse.Store = (*Store)(nil)

// Open opens the copy. It asks nobody. Returns an error of code conflict if another process uses the folder.
func Open(o Options) (*Store, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c, err := openCopy(o.Dir, o.Bytes, o.Clock, o.Log)
	if err != nil {
		return nil, err
	}
	s := &Store{o: o, copy: c}
	s.synced.Store(c.state.Load().FollowedAt != 0)
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(context.Background())
	s.running.Go(func() { c.bound(ctx) })
	return s, nil
}

// Sync reads what a plane needs to start (domains, settings of workspaces, the key of cookies), unless the copy has it.
// Returns an error of code unavailable if it does not and nobody answers.
func (s *Store) Sync(ctx context.Context) error {
	if s.synced.Load() {
		return nil
	}
	asked := time.Now()
	_, err := s.readAgain(ctx)
	if err == nil {
		s.heard.Store(asked.UnixMilli())
	}
	return err
}

// Client returns the client that the store asks with.
func (s *Store) Client() *Client { return s.o.Client }

// Salts returns the salts of visitors, by day.
func (s *Store) Salts(ctx context.Context) (map[string][16]byte, error) {
	return s.o.Client.salts(ctx)
}

// readAgain puts what Sync reads into the copy, in place of what is there, and everything else in doubt. It returns the state
// from which to go on, beside errCopy, too.
func (s *Store) readAgain(ctx context.Context) (next state, err error) {
	// The feed first: what is written while the rest is read comes again.
	at, err := s.o.Client.position(ctx)
	if err != nil {
		return next, err
	}
	var docs []terse.Document
	for _, kind := range []terse.Kind{terse.KindDomain, terse.KindWorkspace} {
		list, err := s.o.Client.documents(ctx, kind)
		if err != nil {
			return next, err
		}
		for i := range list {
			docs = append(docs, list[i].Stored())
		}
	}
	for _, id := range []string{wire.MetaDefaultDomain, wire.MetaCookieKey} {
		d, err := s.o.Client.document(ctx, s.o.Client.askBehind, 0, terse.KindMeta, id)
		if err != nil {
			return next, err
		}
		if d == nil {
			return next, unavailable("the upstream control plane has not started completely", nil)
		}
		docs = append(docs, d.Stored())
	}
	next = *s.copy.state.Load()
	next.Epoch, next.Position, next.Mark, next.Generation, next.FollowedAt = at.Epoch, at.Position, at.Mark, next.Generation+1, s.o.Clock()
	err = s.copy.now(ctx, func(b *pebble.Batch) error {
		s.copy.docs.Add(1)
		s.copy.recent = recent{} // what was deleted may be there again
		for _, kind := range []terse.Kind{terse.KindDomain, terse.KindWorkspace} {
			prefix := documentKey(0, kind, "")
			if err := b.DeleteRange(prefix, append(append([]byte(nil), prefix...), 0xff), nil); err != nil {
				return err
			}
		}
		for i := range docs {
			if err := s.copy.putDocument(b, &docs[i], next.Generation); err != nil {
				return err
			}
		}
		return setState(b, &next)
	})
	if err != nil {
		return next, err
	}
	s.copy.state.Store(&next)
	s.synced.Store(true)
	return next, nil
}

// GetLinks implements terse.Store.
func (s *Store) GetLinks(ctx context.Context, keys []terse.LinkKey, dst []terse.Link) error {
	for i, k := range keys {
		l, err := s.byNumber(ctx, k)
		if err != nil {
			return err
		}
		dst[i] = l
	}
	return nil
}

func (s *Store) byNumber(ctx context.Context, k terse.LinkKey) (terse.Link, error) {
	l, found, sure := s.copy.link(k.Number)
	if !sure {
		ask := func() (json.RawMessage, error) { return s.o.Client.link(ctx, k.Number, 0, k.Code) }
		var err error
		if l, err = s.ask(ask, l, found); err != nil {
			return terse.Link{}, err
		}
	} else {
		s.stats.copied.Add(1)
	}
	if l.Number != 0 && l.Code == "" {
		l.Code = k.Code
	}
	return l, nil
}

// ask asks for a link and keeps the answer. While nobody answers it returns what is in doubt, if something is.
func (s *Store) ask(question func() (json.RawMessage, error), doubtful terse.Link, found bool) (terse.Link, error) {
	generation := s.copy.state.Load().Generation
	b, err := question()
	switch {
	case err != nil && found && errors.Is(err, terse.ErrUnavailable):
		s.stats.stale.Add(1)
		return doubtful, nil
	case err != nil:
		s.stats.failed.Add(1)
		return terse.Link{}, err
	case b == nil:
		s.stats.absent.Add(1)
		if found {
			s.copy.later(func(b *pebble.Batch) error { return s.copy.dropLink(b, doubtful.Number) })
		}
		return terse.Link{}, nil
	}
	l, err := linkjson.Unmarshal(b)
	if err != nil || l.Number == 0 {
		return terse.Link{}, unavailable("the upstream control plane answers something else", err)
	}
	s.stats.asked.Add(1)
	s.copy.keep(l, generation)
	return l, nil
}

// GetAlias implements terse.Store.
func (s *Store) GetAlias(ctx context.Context, d terse.DomainID, alias string) (terse.Link, error) {
	var l terse.Link
	found, sure := false, false
	if n := s.copy.named(d, alias); n != 0 {
		l, found, sure = s.copy.link(n)
		if l.Code != alias { // an alias that was given to another link since
			l, found, sure = terse.Link{}, false, false
		}
	}
	if sure {
		s.stats.copied.Add(1)
		return l, nil
	}
	l, err := s.ask(func() (json.RawMessage, error) { return s.o.Client.link(ctx, 0, d, alias) }, l, found)
	if err == nil && l.Number == 0 {
		err = terse.ErrNotFound
	}
	return l, err
}

// GetDocument implements terse.Store. What no edge needs is not there.
func (s *Store) GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error) {
	if !wire.Readable(w, kind, id) {
		return terse.Document{}, terse.ErrNotFound
	}
	kept := wire.Kept(w, kind, id)
	var doc terse.Document
	found := false
	if kept {
		var sure bool
		doc, found, sure = s.copy.document(w, kind, id)
		switch {
		case sure:
			return doc, nil
		case kind != terse.KindCampaign && !s.copy.broken(): // the copy has all there are
			return terse.Document{}, terse.ErrNotFound
		}
	}
	seen, generation := s.copy.docs.Load(), s.copy.state.Load().Generation
	d, err := s.o.Client.document(ctx, s.o.Client.ask, w, kind, id)
	switch {
	case err != nil && found && errors.Is(err, terse.ErrUnavailable):
		return doc, nil
	case err != nil:
		return terse.Document{}, err
	case d == nil:
		return terse.Document{}, terse.ErrNotFound
	}
	doc = d.Stored()
	if kept {
		s.copy.later(func(b *pebble.Batch) error {
			if s.copy.docs.Load() != seen { // it may have been changed since it was asked for
				return nil
			}
			return s.copy.putDocument(b, &doc, generation)
		})
	}
	return doc, nil
}

// ListDocuments implements terse.Store, for domains and workspaces.
func (s *Store) ListDocuments(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, after string, limit int) ([]terse.Document, error) {
	if w != 0 || kind != terse.KindDomain && kind != terse.KindWorkspace {
		return nil, nil
	}
	if s.copy.broken() { // others may have come
		if d, err := s.o.Client.documents(ctx, kind); err == nil {
			var list []terse.Document
			for i := range d {
				if d[i].ID > after && len(list) < limit {
					list = append(list, d[i].Stored())
				}
			}
			return list, nil
		}
	}
	return s.copy.documents(kind, after, limit)
}

// PutDocument implements terse.Store, for claims of clicks.
func (s *Store) PutDocument(ctx context.Context, doc terse.Document) error {
	if doc.Kind != terse.KindClicks {
		return errReadOnly
	}
	var r struct {
		Used uint64 `json:"used"`
	}
	if err := json.Unmarshal(doc.Data, &r); err != nil {
		return err
	}
	err := s.o.Client.claim(ctx, doc.ID, wire.EdgeClaim{Version: doc.Version, Used: r.Used})
	switch code := terse.ErrorCode(err); {
	case code != terse.CodeConflict && code != terse.CodePrecondition:
		return err
	case doc.Version == 1:
		return terse.ErrExists
	}
	return terse.ErrVersion
}

// errReadOnly is what every other write gets.
var errReadOnly = &terse.Error{Code: terse.CodeForbidden, Message: "an edge node writes nothing: ask its upstream control plane"}

// heardWithin is how long ago the feed may have been asked for for the control plane to count as reached. It answers at least
// every wire.MaxWait, and until the next answer the one before it counts; for so long a domain that was made since is taken for none.
const heardWithin = 4 * time.Second

// Ping implements terse.Store: it says whether the feed is followed.
func (s *Store) Ping(context.Context) error {
	if s.copy.broken() {
		return errCopy
	}
	if s.HeardWithin(heardWithin) {
		return nil
	}
	message := "the upstream control plane has not answered"
	if why := s.o.Client.Trouble(); why != "" {
		message = why
	}
	return unavailable(message+"; redirects go on from the copy, which was right at "+s.copy.state.Load().FollowedAt.Time().Format(time.RFC3339), nil)
}

// HeardWithin reports whether all that was changed at the control plane up to d ago is in force here, as far as the clock tells:
// one that was set back says no. Until the feed was read once it is not.
func (s *Store) HeardWithin(d time.Duration) bool {
	at := s.heard.Load()
	return at != 0 && time.Since(time.UnixMilli(at)).Abs() < d
}

// Close implements terse.Store. Run must have ended.
func (s *Store) Close() error {
	s.closed.Do(func() {
		s.cancel()
		s.running.Wait()
		s.copy.close()
		s.o.Client.Close()
	})
	return nil
}

// Lease implements terse.Store.
func (s *Store) Lease(context.Context, terse.LeaseRequest) (terse.Lease, error) {
	return terse.Lease{}, errReadOnly
}

// Next implements terse.Store. What was issued is not known here.
func (s *Store) Next(context.Context, terse.DomainID, terse.SpaceID) (uint64, error) { return 0, nil }

// Reservations implements terse.Store.
func (s *Store) Reservations(context.Context, terse.DomainID, terse.SpaceID, uint64, int) ([]uint64, error) {
	return nil, nil
}

// InsertLinks implements terse.Store.
func (s *Store) InsertLinks(context.Context, *terse.Chunk) error { return errReadOnly }

// FindPlain implements terse.Store.
func (s *Store) FindPlain(context.Context, terse.WorkspaceID, terse.DomainID, string, terse.Millis) (terse.Link, error) {
	return terse.Link{}, errReadOnly
}

// UpdateLink implements terse.Store.
func (s *Store) UpdateLink(context.Context, *terse.Link, uint64) error { return errReadOnly }

// DeleteLink implements terse.Store.
func (s *Store) DeleteLink(context.Context, terse.LinkKey, uint64) error { return errReadOnly }

// ListLinks implements terse.Store.
func (s *Store) ListLinks(context.Context, terse.WorkspaceID, terse.ListQuery) (terse.LinkPage, error) {
	return terse.LinkPage{}, errReadOnly
}

// CountLinks implements terse.Store.
func (s *Store) CountLinks(context.Context, terse.WorkspaceID, terse.CampaignID) (uint64, error) {
	return 0, errReadOnly
}

// PurgeLinks implements terse.Store.
func (s *Store) PurgeLinks(context.Context, terse.WorkspaceID, terse.CampaignID, int) (int, error) {
	return 0, errReadOnly
}

// DeleteDocument implements terse.Store.
func (s *Store) DeleteDocument(context.Context, terse.WorkspaceID, terse.Kind, string, uint64) error {
	return errReadOnly
}

// Changes implements terse.Store. Follow them with Run.
func (s *Store) Changes(context.Context, uint64, int) ([]terse.Change, error) {
	return nil, errReadOnly
}
