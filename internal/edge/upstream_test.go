package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/api"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/changes"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/edge/wire"
	"github.com/terselink/terse/internal/inbox"
	"github.com/terselink/terse/internal/links"
	"github.com/terselink/terse/internal/nodes"
	"github.com/terselink/terse/internal/store/pebblestore"
)

const ownerKey = "owner-key-of-the-tests-0123456789-abcdef"

func now() terse.Millis { return terse.MillisOf(time.Now()) }

// upstream is a control plane on a store of its own, behind a switch.
type upstream struct {
	t        *testing.T
	url      string
	key      string // of edge nodes
	store    *pebblestore.Store
	domain   terse.DomainID
	recorder *clicks.Recorder
	spool    string
	down     atomic.Bool
	narrow   atomic.Int64 // clicks of more bytes never get through; 0: all do
	epoch    atomic.Value // string: what answers about the feed say instead of the store's
	unmarked atomic.Bool  // it is of a version that knows no marks, and refuses parameters that it does not know
	asked    atomic.Int64 // requests that came, also while down
}

func newUpstream(t *testing.T) *upstream { return newUpstreamOn(t, pebblestore.Options{Clock: now}) }

func newUpstreamOn(t *testing.T, o pebblestore.Options) *upstream {
	ctx := t.Context()
	u := &upstream{t: t, spool: filepath.Join(t.TempDir(), "spool")}
	var err error
	if u.store, err = pebblestore.Open(filepath.Join(t.TempDir(), "store"), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.store.Close() })
	if _, _, err := auth.Bootstrap(ctx, auth.BootstrapOptions{Store: u.store, Clock: now, Key: ownerKey}); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	reg, err := domains.Open(ctx, domains.Options{Store: u.store, Clock: now, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reg.Close)
	d, err := reg.EnsureDefault(ctx, "go.example.com", "https")
	if err != nil {
		t.Fatal(err)
	}
	u.domain = d.Number
	if err := u.store.PutDocument(ctx, terse.Document{Kind: terse.KindMeta, ID: wire.MetaCookieKey, Version: 1, Data: []byte(`{}`)}); err != nil {
		t.Fatal(err)
	}
	keys, err := auth.Open(ctx, auth.Options{Store: u.store, Clock: now})
	if err != nil {
		t.Fatal(err)
	}
	owner, _ := keys.Known(ownerKey)
	if _, u.key, err = keys.CreateKey(ctx, &owner, auth.NewKey{Workspace: 1, Name: "edge", Scopes: []auth.Scope{auth.ScopeEdgeUse}}, nil); err != nil {
		t.Fatal(err)
	}
	if u.recorder, err = clicks.Open(clicks.Options{Dir: u.spool}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.recorder.Close() })
	in, err := inbox.Open(ctx, inbox.Options{
		Path: filepath.Join(t.TempDir(), "edges.json"), Receiver: "here", Spool: u.spool, Recorder: u.recorder, Clock: now,
		Write: func(string, []byte) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	handler, err := api.New(api.Options{
		Store: u.store, Domains: reg, Auth: keys, Clock: now, Log: log, Nodes: nodes.New(nodes.Options{Clock: now}),
		Links: links.New(links.Options{Store: u.store, Domains: reg, Workspaces: keys.Settings, Clock: now, Log: log}),
		Edge:  api.Edge{Head: u.store.FeedHead, Inbox: in, Salts: func() map[string][16]byte { return map[string][16]byte{"2026-11-23": {1, 2}} }},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.asked.Add(1)
		if u.down.Load() {
			panic(http.ErrAbortHandler) // the connection is cut
		}
		if most := u.narrow.Load(); most > 0 && r.Method == http.MethodPatch && r.ContentLength > most {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
			return
		}
		epoch, _ := u.epoch.Load().(string)
		unmarked := u.unmarked.Load()
		if r.URL.Path != wire.PathChanges || epoch == "" && !unmarked {
			handler.ServeHTTP(w, r)
			return
		}
		if unmarked {
			r.Header.Del(wire.HeaderMark)
			for name := range r.URL.Query() {
				if name != "after" {
					http.Error(w, "unknown parameter", http.StatusUnprocessableEntity)
					return
				}
			}
		}
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r)
		var page wire.EdgeChanges
		if err := json.Unmarshal(rec.Body.Bytes(), &page); err != nil || rec.Code != http.StatusOK {
			panic(http.ErrAbortHandler)
		}
		page.Epoch = epoch
		if unmarked {
			page.Mark, page.More = "", nil
		}
		_ = json.NewEncoder(w).Encode(page)
	}))
	t.Cleanup(srv.Close)
	u.url = srv.URL
	return u
}

// call asks the API as its owner.
func (u *upstream) call(method, path string, in, out any) {
	u.t.Helper()
	b, err := json.Marshal(in)
	if err != nil {
		u.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(u.t.Context(), method, u.url+path, bytes.NewReader(b))
	if err != nil {
		u.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+ownerKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		u.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err = io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		u.t.Fatalf("%s %s: %d %s %v", method, path, resp.StatusCode, b, err)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			u.t.Fatal(err)
		}
	}
}

type made struct {
	ID, Code, Destination string
}

func (m *made) key(t *testing.T) terse.LinkKey {
	n, err := terse.ParseLinkNumber(m.ID)
	if err != nil {
		t.Fatal(err)
	}
	return terse.LinkKey{Number: n, Code: m.Code}
}

func (u *upstream) link(body map[string]any) (m made) {
	u.t.Helper()
	u.call("POST", "/api/v1/links", body, &m)
	return m
}

// client returns a client that waits as long as a slow machine needs.
func (u *upstream) client() *Client {
	u.t.Helper()
	c, err := newClient(u.url, u.key, time.Minute)
	if err != nil {
		u.t.Fatal(err)
	}
	return c
}

// open opens an edge of the control plane on a folder.
func (u *upstream) open(dir string, clock func() terse.Millis) *Store {
	u.t.Helper()
	c := u.client()
	s, err := Open(Options{Client: c, Dir: dir, Bytes: 1 << 30, Clock: clock})
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() { _ = s.Close() })
	return s
}

// target notes what it is told.
type target struct {
	mu         sync.Mutex
	documents  []string
	everything int
	err        error // what Everything returns
}

func (t *target) Link(changes.Event)    {}
func (t *target) Links()                {}
func (t *target) Failure(changes.Event) {}
func (t *target) Feed(context.Context, []terse.Run, map[terse.LinkNumber]uint64, map[terse.LinkNumber]uint64) error {
	return nil
}

func (t *target) Document(_ context.Context, _ terse.WorkspaceID, kind terse.Kind, id string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.documents = append(t.documents, string(kind)+" "+id)
	return nil
}

func (t *target) Everything(context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.everything++
	return t.err
}

func (t *target) heard() (documents []string, everything int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.documents...), t.everything
}

// run follows the feed until the function that it returns is called.
func run(t *testing.T, s *Store, to *target) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx, to) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

// until waits for a condition.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// get returns the destination that an edge has for a link; "" if it says that there is none.
func get(t *testing.T, s *Store, k terse.LinkKey) (string, error) {
	t.Helper()
	dst := [1]terse.Link{}
	if err := s.GetLinks(t.Context(), []terse.LinkKey{k}, dst[:]); err != nil {
		return "", err
	}
	return dst[0].Destination, nil
}
