package edge

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"go.uber.org/goleak"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicklimit"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/edge/wire"
	"github.com/terselink/terse/internal/store/pebblestore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestStore: what an edge was asked for once it has, also when it starts while nobody answers; of the rest it says that it does not
// know. It hears of changes, of those that it missed, too.
func TestStore(t *testing.T) {
	t.Parallel()
	u, dir := newUpstream(t), t.TempDir()
	s := u.open(dir, now)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	plain, doomed := u.link(map[string]any{"destination": "https://example.com/1"}), u.link(map[string]any{"destination": "https://example.com/2"})
	alias := u.link(map[string]any{"destination": "https://example.com/3", "code": "winter"})
	other := u.link(map[string]any{"destination": "https://example.com/4"})
	for _, m := range []made{plain, doomed} {
		if got, err := get(t, s, m.key(t)); err != nil || got != m.Destination {
			t.Fatalf("%q, error %v", got, err)
		}
		until(t, "the copy has the link", func() bool { _, found, sure := s.copy.link(m.key(t).Number); return found && sure })
	}
	if l, err := s.GetAlias(t.Context(), u.domain, "winter"); err != nil || l.Destination != alias.Destination {
		t.Fatalf("%+v, error %v", l, err)
	}
	until(t, "the copy has the alias", func() bool { return s.copy.named(u.domain, "winter") != 0 })
	if _, err := s.GetAlias(t.Context(), u.domain, "summer"); !errors.Is(err, terse.ErrNotFound) {
		t.Errorf("an alias that nobody has: %v", err)
	}

	away := func(s *Store) {
		t.Helper()
		for _, m := range []made{plain, doomed} {
			if got, err := get(t, s, m.key(t)); err != nil || got != m.Destination {
				t.Errorf("while nobody answers: %q, error %v", got, err)
			}
		}
		if l, err := s.GetAlias(t.Context(), u.domain, "winter"); err != nil || l.Destination != alias.Destination {
			t.Errorf("while nobody answers: %+v, error %v", l, err)
		}
		for range 2 * failuresToOpen { // with the circuit open, too
			if _, err := get(t, s, other.key(t)); !errors.Is(err, terse.ErrUnavailable) {
				t.Errorf("a link that the edge does not have: %v", err)
			}
			if _, err := s.GetAlias(t.Context(), u.domain, "summer"); !errors.Is(err, terse.ErrUnavailable) {
				t.Errorf("an alias that the edge does not have: %v", err)
			}
		}
		if docs, err := s.ListDocuments(t.Context(), 0, terse.KindDomain, "", 10); err != nil || len(docs) != 1 || docs[0].ID != "go.example.com" {
			t.Errorf("domains %v, error %v", docs, err)
		}
	}
	u.down.Store(true)
	away(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = u.open(dir, now)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatalf("a start while nobody answers: %v", err)
	}
	if err := s.Ping(t.Context()); !errors.Is(err, terse.ErrUnavailable) {
		t.Errorf("ping: %v", err)
	}
	to := &target{}
	run(t, s, to)
	away(s)

	// It comes back, and things have changed meanwhile.
	u.down.Store(false)
	u.call("PATCH", "/api/v1/links/"+plain.ID, map[string]any{"destination": "https://example.com/new"}, nil)
	u.call("PATCH", "/api/v1/links/"+alias.ID, map[string]any{"destination": "https://example.com/cold"}, nil)
	u.call("DELETE", "/api/v1/links/"+doomed.ID, nil, nil)
	u.call("POST", "/api/v1/domains", map[string]any{"host": "new.example.com"}, nil)
	until(t, "the destination is the new one", func() bool {
		got, err := get(t, s, plain.key(t))
		return err == nil && got == "https://example.com/new"
	})
	until(t, "the alias, too", func() bool {
		l, err := s.GetAlias(t.Context(), u.domain, "winter")
		return err == nil && l.Destination == "https://example.com/cold"
	})
	until(t, "the link is gone", func() bool { got, err := get(t, s, doomed.key(t)); return err == nil && got == "" })
	until(t, "the domain is told of", func() bool {
		docs, _ := to.heard()
		return len(docs) > 0 && docs[len(docs)-1] == "domain new.example.com"
	})
	if docs, err := s.ListDocuments(t.Context(), 0, terse.KindDomain, "", 10); err != nil || len(docs) != 2 {
		t.Errorf("domains %v, error %v", docs, err)
	}
	until(t, "the control plane counts as reached", func() bool { return s.Ping(t.Context()) == nil })
	if _, n := to.heard(); n != 0 {
		t.Errorf("everything was read again, though nothing was missed")
	}
}

// TestGap: an edge that did not follow for too long, or whose feed is another one, doubts what it has: it asks again, and
// serves it only while nobody answers.
func TestGap(t *testing.T) {
	t.Parallel()
	for _, gap := range []string{"time", "position", "epoch", "forgotten"} {
		o := pebblestore.Options{Clock: now}
		if gap == "forgotten" {
			o.FeedMaxEntries, o.MaintainEvery = 3, time.Millisecond
		}
		u, to := newUpstreamOn(t, o), &target{}
		var ahead atomic.Int64
		s := u.open(t.TempDir(), func() terse.Millis { return now() + terse.Millis(ahead.Load()) })
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		m := u.link(map[string]any{"destination": "https://example.com/1"})
		if _, err := get(t, s, m.key(t)); err != nil {
			t.Fatal(err)
		}
		until(t, "the copy has the link", func() bool { _, found, _ := s.copy.link(m.key(t).Number); return found })
		switch st := *s.copy.state.Load(); gap {
		case "time":
			ahead.Store((21 * time.Hour).Milliseconds())
		case "position": // as after a restore of the store
			st.Position += 1000
			s.copy.state.Store(&st)
		case "epoch": // and many writes since
			u.epoch.Store("restored")
		case "forgotten": // while the edge was away
			for range 10 {
				u.link(map[string]any{"destination": "https://example.com/other"})
			}
			until(t, "the control plane has forgotten changes", func() bool {
				_, err := u.store.Changes(t.Context(), st.Position, 1)
				_, ok := errors.AsType[*terse.ForgottenError](err)
				return ok
			})
		}
		stop := run(t, s, to)
		until(t, "everything is read again", func() bool { _, n := to.heard(); return n > 0 })
		stop()
		if _, found, sure := s.copy.link(m.key(t).Number); !found || sure {
			t.Errorf("%s: found %v, sure %v", gap, found, sure)
		}
		u.down.Store(true)
		if got, err := get(t, s, m.key(t)); err != nil || got != m.Destination {
			t.Errorf("%s: in doubt, while nobody answers: %q, error %v", gap, got, err)
		}
		u.down.Store(false)
		s.o.Client.failures.Store(0)
		asked := s.stats.asked.Load()
		if got, err := get(t, s, m.key(t)); err != nil || got != m.Destination || s.stats.asked.Load() == asked {
			t.Errorf("%s: in doubt: %q, error %v", gap, got, err)
		}
		until(t, "it is sure again", func() bool { _, found, sure := s.copy.link(m.key(t).Number); return found && sure })
	}
}

// TestOvertaken: an answer that a change has overtaken is not kept, and nothing older replaces what is there.
func TestOvertaken(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	s := u.open(t.TempDir(), now)
	c := s.copy
	done := func() { // what waits is written
		t.Helper()
		if err := c.now(t.Context(), func(*pebble.Batch) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	version := func(n terse.LinkNumber) uint64 { done(); l, _, _ := c.link(n); return l.Version }
	link := func(version uint64) terse.Link {
		return terse.Link{Number: terse.NewLinkNumber(1, terse.AliasSpace, 5), Version: version, Code: "abc", Destination: "https://example.com/"}
	}
	n := link(1).Number
	c.keep(link(2), 0)
	c.keep(link(1), 0)
	if got := version(n); got != 2 {
		t.Errorf("version %d, want 2", got)
	}
	if err := s.applyToCopy(t.Context(), &wire.EdgeChanges{Position: 10}, map[terse.LinkNumber]uint64{n: 4}, nil); err != nil {
		t.Fatal(err)
	}
	c.keep(link(3), 0)
	if got := version(n); got != 0 {
		t.Errorf("version %d is kept, though 4 was written", got)
	}
	c.keep(link(4), 0)
	if got := version(n); got != 4 || c.named(1, "abc") != n {
		t.Errorf("version %d, want 4", got)
	}
	if err := s.applyToCopy(t.Context(), &wire.EdgeChanges{Position: 11}, nil, map[terse.LinkNumber]uint64{n: 4}); err != nil {
		t.Fatal(err)
	}
	c.keep(link(9), 0)
	if got := version(n); got != 0 || c.named(1, "abc") != 0 {
		t.Errorf("version %d of a link that was deleted", got)
	}
}

// TestRestored: versions and deletions of before say nothing once the feed is another one.
func TestRestored(t *testing.T) {
	t.Parallel()
	u, to := newUpstream(t), &target{}
	s := u.open(t.TempDir(), now)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	newer, deleted := u.link(map[string]any{"destination": "https://example.com/1"}), u.link(map[string]any{"destination": "https://example.com/2"})
	// The edge knows of writes that the backup does not have.
	generation := s.copy.state.Load().Generation
	s.copy.keep(terse.Link{Number: newer.key(t).Number, Version: 1000, Destination: "https://example.com/lost"}, generation)
	page := wire.EdgeChanges{Position: s.copy.state.Load().Position}
	page.Position++
	if err := s.applyToCopy(t.Context(), &page, nil, map[terse.LinkNumber]uint64{deleted.key(t).Number: 2}); err != nil {
		t.Fatal(err)
	}
	u.epoch.Store("restored")
	stop := run(t, s, to)
	until(t, "everything is read again", func() bool { _, n := to.heard(); return n > 0 })
	stop()
	for _, m := range []made{newer, deleted} {
		if got, err := get(t, s, m.key(t)); err != nil || got != m.Destination {
			t.Errorf("%q, error %v, want %q", got, err, m.Destination)
		}
		until(t, "the copy has the link as it is now", func() bool {
			l, found, sure := s.copy.link(m.key(t).Number)
			return found && sure && l.Destination == m.Destination
		})
	}
	if st := s.copy.state.Load(); st.Epoch != "restored" || st.Generation != generation+1 {
		t.Errorf("%+v", st)
	}
	// A page may say so beside changes.
	u.epoch.Store("restored again")
	u.call("PATCH", "/api/v1/links/"+newer.ID, map[string]any{"destination": "https://example.com/new"}, nil)
	run(t, s, to)
	until(t, "everything is read again", func() bool { _, n := to.heard(); return n > 1 })
}

// TestNoMark: an edge that has a mark follows a control plane of a version that knows none, and again one that does.
func TestNoMark(t *testing.T) {
	t.Parallel()
	u, to := newUpstream(t), &target{}
	s := u.open(t.TempDir(), now)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.copy.state.Load().Mark == "" {
		t.Fatal("the edge has no mark")
	}
	u.unmarked.Store(true)
	run(t, s, to)
	add := func(host string) {
		t.Helper()
		u.call("POST", "/api/v1/domains", map[string]any{"host": host}, nil)
		until(t, "the edge hears of "+host, func() bool {
			docs, _ := to.heard()
			return len(docs) > 0 && docs[len(docs)-1] == "domain "+host
		})
	}
	add("older.example.com")
	u.unmarked.Store(false)
	add("newer.example.com")
	until(t, "the edge has a mark again", func() bool { return s.copy.state.Load().Mark != "" })
	if _, n := to.heard(); n != 0 {
		t.Error("everything was read again, though nothing was missed")
	}
}

// closed closes a store whose copy has failed, for which Close does not wait.
func closed(s *Store) {
	_ = s.Close()
	<-s.copy.done
}

// TestCopyFails: an edge whose copy cannot be written asks for everything, applies changes, and serves what the copy has while nobody
// answers; a damaged entry is asked for again.
func TestCopyFails(t *testing.T) {
	t.Parallel()
	u, to := newUpstream(t), &target{}
	var ahead atomic.Int64
	s := u.open(t.TempDir(), func() terse.Millis { return now() + terse.Millis(ahead.Load()) })
	defer closed(s)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	m := u.link(map[string]any{"destination": "https://example.com/1"})
	number := m.key(t).Number
	has := func() bool { _, found, sure := s.copy.link(number); return found && sure }
	ask := func(want string) {
		t.Helper()
		if got, err := get(t, s, m.key(t)); err != nil || got != want {
			t.Fatalf("%q, error %v, want %q", got, err, want)
		}
	}
	ask(m.Destination)
	until(t, "the copy has the link", has)
	if err := s.copy.now(t.Context(), func(b *pebble.Batch) error { return b.Set(linkKey(number), []byte{0xff}, nil) }); err != nil {
		t.Fatal(err)
	}
	ask(m.Destination)
	until(t, "the copy has the link again", has)
	// The link is not used now by a change, and one that nobody asked for is not kept.
	old, _ := s.copy.entry(linkKey(number))
	changed, other := terse.Link{Number: number, Version: 50, Destination: "https://example.com/2"}, terse.Link{Number: number + 1, Version: 50, Destination: "https://example.com/2"}
	ahead.Store(int64(10 * stampUnit))
	if err := s.copy.now(t.Context(), func(b *pebble.Batch) error {
		return errors.Join(s.copy.putLink(b, &changed, old.generation, false), s.copy.putLink(b, &other, old.generation, false))
	}); err != nil {
		t.Fatal(err)
	}
	if e, _ := s.copy.entry(linkKey(number)); e.version != 50 || e.stamp != old.stamp {
		t.Errorf("%+v, want the stamp %d", e, old.stamp)
	}
	if _, found := s.copy.entry(linkKey(number + 1)); found {
		t.Error("a link that nobody asked for is kept")
	}

	s.copy.fail(errors.New("the disk is full"))
	if err := s.copy.now(t.Context(), func(*pebble.Batch) error { return nil }); !errors.Is(err, errCopy) {
		t.Errorf("a write: %v", err)
	}
	u.down.Store(true)
	ask("https://example.com/2")
	u.down.Store(false)
	s.o.Client.failures.Store(0)
	ask(m.Destination)
	u.epoch.Store("another")
	defer run(t, s, to)()
	until(t, "everything is read again", func() bool { _, n := to.heard(); return n > 0 })
	u.call("POST", "/api/v1/domains", map[string]any{"host": "new.example.com"}, nil)
	until(t, "the domain is told of", func() bool { docs, _ := to.heard(); return len(docs) > 0 })
	if _, n := to.heard(); n != 1 {
		t.Errorf("everything was read %d times", n)
	}
	if docs, err := s.ListDocuments(t.Context(), 0, terse.KindDomain, "", 10); err != nil || len(docs) != 2 {
		t.Errorf("domains %v, error %v", docs, err)
	}
}

// TestCopyHangs: a disk that does not take a write ends the writing of the copy, and is not read any more.
func TestCopyHangs(t *testing.T) {
	t.Parallel()
	s := newUpstream(t).open(t.TempDir(), now)
	defer closed(s)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	hold := make(chan struct{})
	defer close(hold)
	s.copy.later(func(*pebble.Batch) error { <-hold; return nil })
	s.copy.within = time.Millisecond
	if err := s.copy.now(t.Context(), func(*pebble.Batch) error { return nil }); !errors.Is(err, errCopy) || !s.copy.broken() {
		t.Errorf("error %v", err)
	}
	if _, err := s.copy.documents(terse.KindDomain, "", 10); !errors.Is(err, errCopy) {
		t.Errorf("error %v", err)
	}
}

// TestEvict: the copy keeps to its limit, and what was used last stays.
func TestEvict(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	var at atomic.Int64
	s := u.open(t.TempDir(), func() terse.Millis { return terse.Millis(at.Load()) })
	c := s.copy
	s.cancel() // the size is counted below
	s.running.Wait()
	c.bytes.Store(0)
	const count = 1000
	for i := range count {
		at.Store(int64(stampUnit) * int64(i/100))
		l := terse.Link{Number: terse.NewLinkNumber(1, 7, uint64(i)), Version: 1, Destination: "https://example.com/0123456789"}
		if err := c.now(t.Context(), func(b *pebble.Batch) error { return c.putLink(b, &l, 0, true) }); err != nil {
			t.Fatal(err)
		}
	}
	c.limit = c.bytes.Load() / 2
	if err := c.evict(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.bytes.Load() > c.limit || c.evicted.Load() < count/2 {
		t.Errorf("%d bytes of %d, %d evicted", c.bytes.Load(), c.limit, c.evicted.Load())
	}
	for i := range count {
		_, found := c.entry(linkKey(terse.NewLinkNumber(1, 7, uint64(i))))
		if found && i < count/2 || !found && i >= count*6/10 {
			t.Errorf("link %d: found %v", i, found)
		}
	}
}

// TestCircuit: after some failures nothing is sent, but for one request now and then; an answer closes it.
func TestCircuit(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	c := u.client()
	defer c.Close()
	u.down.Store(true)
	for range failuresToOpen {
		if _, err := c.link(t.Context(), 1, 0, ""); !errors.Is(err, terse.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	u.down.Store(false)
	c.probeAt.Store(time.Now().Add(time.Hour).UnixMilli())
	before := u.asked.Load()
	if _, err := c.link(t.Context(), 1, 0, ""); !errors.Is(err, errCircuit) || u.asked.Load() != before {
		t.Errorf("error %v, %d requests", err, u.asked.Load()-before)
	}
	if err := c.claim(t.Context(), "link_0000000000001", wire.EdgeClaim{Version: 1, Used: 1}); !errors.Is(err, terse.ErrUnavailable) {
		t.Errorf("a claim that was not sent: %v", err)
	}
	// The feed may go on while visitors' requests hang.
	if _, err := c.position(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.link(t.Context(), 1, 0, ""); !errors.Is(err, errCircuit) {
		t.Errorf("the feed closed the circuit: error %v", err)
	}
	c.probeAt.Store(0)
	if b, err := c.link(t.Context(), 1, 0, ""); err != nil || b != nil {
		t.Errorf("%s, error %v", b, err)
	}
	c.probeAt.Store(time.Now().Add(time.Hour).UnixMilli())
	if _, err := c.link(t.Context(), 1, 0, ""); err != nil {
		t.Errorf("the circuit is still open: %v", err)
	}
	// A key that is not valid, and an address where something else answers, say nothing about links.
	for _, c := range []struct{ url, key string }{{u.url, "terse_wrong"}, {u.url + "/elsewhere", u.key}} {
		client, err := newClient(c.url, c.key, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.link(t.Context(), 1, 0, ""); !errors.Is(err, terse.ErrUnavailable) {
			t.Errorf("%+v: %v", c, err)
		}
		client.Close()
	}
}

// TestNotOurs: JSON with status 200 that is no answer of a control plane says nothing: least of all that something is not there, or
// was written.
func TestNotOurs(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{`{"status":"maintenance"}`, `{}`, `null`, `"no"`, ``} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) }))
		c, err := newClient(srv.URL, "key", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		for what, ask := range map[string]func() error{
			"link":      func() error { _, err := c.link(ctx, 1, 0, ""); return err },
			"document":  func() error { _, err := c.document(ctx, c.ask, 1, terse.KindCampaign, "a"); return err },
			"documents": func() error { _, err := c.documents(ctx, terse.KindDomain); return err },
			"position":  func() error { _, err := c.position(ctx); return err },
			"changes":   func() error { _, err := c.changes(ctx, 1, ""); return err },
			"salts":     func() error { _, err := c.salts(ctx); return err },
			"clicks":    func() error { _, err := c.clicksAt(ctx, "a"); return err },
			"send":      func() error { _, err := c.sendClicks(ctx, "a", "b", "", "c", nil); return err },
		} {
			c.failures.Store(0)
			if err := ask(); terse.ErrorCode(err) != terse.CodeUnavailable {
				t.Errorf("%s: %s: error %v", answer, what, err)
			}
		}
		c.failures.Store(0)
		if err := c.claim(ctx, "link_0000000000001", wire.EdgeClaim{Version: 1}); terse.ErrorCode(err) != terse.CodeUnknownOutcome || c.failures.Load() != 1 {
			t.Errorf("%s: claim: error %v, %d failures", answer, err, c.failures.Load())
		}
		c.Close()
		srv.Close()
	}
}

// TestLimit: edges and the control plane together serve as many clicks as a link allows, and not one more.
func TestLimit(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	m := u.link(map[string]any{"destination": "https://example.com/1", "max_clicks": 40})
	counters := []*clicklimit.Counter{clicklimit.New(u.store)}
	for range 2 {
		s := u.open(t.TempDir(), now)
		counters = append(counters, clicklimit.New(s))
	}
	var served, failed atomic.Int64
	var visitors sync.WaitGroup
	for i := range 150 {
		visitors.Go(func() {
			switch ok, err := counters[i%len(counters)].Take(t.Context(), m.key(t).Number, 40); {
			case err != nil:
				failed.Add(1)
			case ok:
				served.Add(1)
			}
		})
	}
	visitors.Wait()
	if served.Load() != 40 || failed.Load() != 0 {
		t.Errorf("%d clicks of 40, %d failures", served.Load(), failed.Load())
	}
}

func write(path string, content []byte) error { return os.WriteFile(path, content, 0o600) }

// TestSlowLine: a batch that does not get through in time is sent again in smaller ones.
func TestSlowLine(t *testing.T) {
	t.Parallel()
	u, spool := newUpstream(t), filepath.Join(t.TempDir(), "spool")
	s := u.open(t.TempDir(), now)
	s.o.Client.sendWithin = time.Second
	r, err := clicks.Open(clicks.Options{Dir: spool})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	const groups = 8
	for range groups {
		r.Capture(0, &clicks.Click{At: now(), Link: 5, Code: []byte("abc")})
		if err := r.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	shipper, err := NewShipper(ShipperOptions{
		Client: s.o.Client, Spool: spool, Edge: "0123456789abcdef", Receiver: filepath.Join(t.TempDir(), "receiver"), Shipped: filepath.Join(t.TempDir(), "shipped"), Write: write, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	reader, err := clicks.NewReader(clicks.ReaderOptions{Dir: spool})
	if err != nil {
		t.Fatal(err)
	}
	all, err := reader.NextGroups(t.Context(), nil, shipBytes)
	if err := errors.Join(err, reader.Close()); err != nil {
		t.Fatal(err)
	}
	u.narrow.Store(int64(len(all) / 3))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); shipper.Run(ctx) }()
	until(t, "all clicks are there", func() bool { return shipper.Shipped() == r.Position() })
	cancel()
	<-done
	if n := u.recorder.Stats().Appended; n != groups {
		t.Errorf("%d clicks of %d", n, groups)
	}
}

// TestShip: the clicks of an edge come to its control plane once each, whatever is cut meanwhile, and go to no other.
func TestShip(t *testing.T) {
	t.Parallel()
	u, spool := newUpstream(t), filepath.Join(t.TempDir(), "spool")
	s := u.open(t.TempDir(), now)
	r, err := clicks.Open(clicks.Options{Dir: spool})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	o := ShipperOptions{
		Client: s.o.Client, Spool: spool, Edge: "0123456789abcdef", Receiver: filepath.Join(t.TempDir(), "receiver"), Shipped: filepath.Join(t.TempDir(), "shipped"), Write: write, Log: slog.New(slog.DiscardHandler),
	}
	total := 0
	for round := range 4 {
		shipper, err := NewShipper(o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); shipper.Run(ctx) }()
		for i := range 300 {
			u.down.Store(i%100 > 50 && round > 0)
			r.Capture(0, &clicks.Click{At: now(), Link: 5, Code: []byte("abc")})
			total++
			if i%50 == 0 {
				if err := r.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := r.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		u.down.Store(false)
		until(t, "all clicks are there", func() bool { return u.recorder.Stats().Appended >= uint64(total) && shipper.Shipped() == r.Position() })
		cancel()
		<-done
		if err := shipper.Finish(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if n := u.recorder.Stats().Appended; n != uint64(total) {
		t.Errorf("%d clicks of %d", n, total)
	}
	// The address leads to another process now.
	if b, err := os.ReadFile(o.Receiver); err != nil || string(b) != "here\n" {
		t.Errorf("the receiver is %q, error %v", b, err)
	}
	if err := write(o.Receiver, []byte("elsewhere\n")); err != nil {
		t.Fatal(err)
	}
	shipper, err := NewShipper(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := shipper.Finish(t.Context()); terse.ErrorCode(err) != terse.CodeConflict {
		t.Errorf("another receiver: %v", err)
	}
	if salts, err := s.Salts(t.Context()); err != nil || salts["2026-11-23"] != [16]byte{1, 2} {
		t.Errorf("salts %v, error %v", salts, err)
	}
	// The first process is lost for good, and somebody has said so: another one gets what the first has not, and nothing else.
	if err := os.Remove(o.Receiver); err != nil {
		t.Fatal(err)
	}
	other := newUpstream(t)
	o.Client = other.open(t.TempDir(), now).o.Client
	for range 7 {
		r.Capture(0, &clicks.Click{At: now(), Link: 5, Code: []byte("abc")})
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for round := range 3 { // and the second time it knows, also if the place is damaged
		if round == 2 {
			if err := write(o.Shipped, []byte("nowhere\n")); err != nil {
				t.Fatal(err)
			}
		}
		if shipper, err = NewShipper(o); err != nil {
			t.Fatal(err)
		}
		if err := shipper.Finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := other.recorder.Stats().Appended; n != 7 || shipper.Shipped() != r.Position() {
			t.Errorf("the other control plane has %d clicks, want the 7 last ones", n)
		}
	}
}
