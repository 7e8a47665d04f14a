package nodes

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/faultstore"
	"github.com/terselink/terse/internal/store/memstore"
)

func wall() terse.Millis { return terse.MillisOf(time.Now()) }

// value reads a metric.
func value(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%v, %v", families, err)
	}
	m := families[0].GetMetric()[0]
	return m.GetGauge().GetValue() + m.GetCounter().GetValue()
}

// process is a registry that runs.
type process struct {
	*Registry
	stop, kill func()
	log        *bytes.Buffer
}

// run starts a process; kill ends it without a word.
func run(t *testing.T, store Store, id string, clock func() terse.Millis) *process {
	t.Helper()
	p := &process{log: &bytes.Buffer{}}
	cut := &cutStore{Store: store}
	p.Registry = New(Options{
		Store: cut, Clock: clock, Log: slog.New(slog.NewTextHandler(p.log, nil)),
		Self: Node{ID: id, Name: "name of " + id, Roles: []string{"control"}, ControlAddr: "127.0.0.1:1", Version: "v1", StartedAt: clock()},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.Run(ctx) }()
	p.stop = func() { cancel(); <-done }
	p.kill = func() { cut.dead = true; p.stop() }
	t.Cleanup(p.stop)
	synctest.Wait()
	return p
}

// cutStore is what a process sees of the store until it dies.
type cutStore struct {
	Store
	dead bool
}

func (s *cutStore) PutDocument(ctx context.Context, doc terse.Document) error {
	if s.dead {
		return terse.ErrUnavailable
	}
	return s.Store.PutDocument(ctx, doc)
}

func (s *cutStore) DeleteDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string, ifVersion uint64) error {
	if s.dead {
		return terse.ErrUnavailable
	}
	return s.Store.DeleteDocument(ctx, w, kind, id, ifVersion)
}

// states lists what a process sees: id and state.
func (p *process) states(t *testing.T) string {
	t.Helper()
	list, err := p.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, n := range list {
		b.WriteString(n.ID + " " + string(n.State))
		if n.Self {
			b.WriteString(" self")
		}
		b.WriteString("; ")
	}
	return b.String()
}

func (p *process) want(t *testing.T, want string) {
	t.Helper()
	if got := p.states(t); got != want {
		t.Errorf("sees %q, want %q", got, want)
	}
}

// TestLife: processes appear with their first heartbeat, leave when they stop, are dead after three missed heartbeats and not
// before, and gone a day later.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(wall)
		a := run(t, store, "a", wall)
		b := run(t, store, "b", wall)
		c := run(t, store, "c", wall)
		a.want(t, "a alive self; b alive; c alive; ")
		c.want(t, "a alive; b alive; c alive self; ")
		b.stop()
		a.want(t, "a alive self; c alive; ")
		time.Sleep(Beat) // in the bubble: takes no time
		synctest.Wait()
		c.kill()
		time.Sleep(3*Beat - time.Second)
		a.want(t, "a alive self; c alive; ")
		time.Sleep(2 * Beat)
		a.want(t, "a alive self; c dead; ")
		if n := value(t, a.dead); n != 1 {
			t.Errorf("terse_nodes{state=dead} is %v", n)
		}
		late := run(t, store, "d", wall) // it has not watched c
		late.want(t, "a alive; c dead; d alive self; ")
		time.Sleep(Forget - time.Minute)
		a.want(t, "a alive self; c dead; d alive; ")
		time.Sleep(2 * time.Minute)
		a.want(t, "a alive self; d alive; ")
		list, err := a.List(t.Context())
		if err != nil || list[0].Name != "name of a" || list[0].Version != "v1" || list[0].ControlAddr != "127.0.0.1:1" || len(list[0].Roles) != 1 {
			t.Errorf("%+v, %v", list, err)
		}
	})
}

// TestRestart: a process that was killed and starts again is the same node at once.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(wall)
		a := run(t, store, "a", wall)
		run(t, store, "b", wall).kill()
		b := run(t, store, "b", wall)
		time.Sleep(time.Minute)
		synctest.Wait()
		a.want(t, "a alive self; b alive; ")
		b.want(t, "a alive; b alive self; ")
	})
}

// TestClocks: nodes whose clocks are days apart see each other alive with the second heartbeat that they see, and none is forgotten.
func TestClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(wall)
		ahead := run(t, store, "ahead", func() terse.Millis { return wall() + 3*24*3600*1000 })
		behind := run(t, store, "behind", func() terse.Millis { return wall() - 3*24*3600*1000 })
		time.Sleep(Beat)
		for range 10 {
			time.Sleep(Beat)
			synctest.Wait()
			ahead.want(t, "ahead alive self; behind alive; ")
			behind.want(t, "ahead alive; behind alive self; ")
		}
	})
}

// TestCopiedFolder: of two processes with the same id the first takes another one, and both are listed.
func TestCopiedFolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(wall)
		first := run(t, store, "a", wall)
		second := run(t, store, "a", wall)
		time.Sleep(time.Minute)
		synctest.Wait()
		if first.ID() == "a" || second.ID() != "a" || !strings.HasPrefix(first.ID(), "a-") {
			t.Fatalf("ids %q and %q", first.ID(), second.ID())
		}
		second.want(t, "a alive self; "+first.ID()+" alive; ")
		if n := strings.Count(first.log.String(), "another process has the node id"); n != 1 {
			t.Errorf("said %d times: %s", n, first.log)
		}
		first.stop()
		second.want(t, "a alive self; ")
	})
}

// TestFaults: whatever happens to one write, the node goes on under its id.
func TestFaults(t *testing.T) {
	for _, when := range []faultstore.When{faultstore.Before, faultstore.After} {
		for _, err := range []error{terse.ErrUnavailable, terse.ErrUnknownOutcome} {
			if when == faultstore.After && errors.Is(err, terse.ErrUnavailable) {
				continue // a store says so only if nothing was written
			}
			synctest.Test(t, func(t *testing.T) {
				store := faultstore.New(memstore.New(wall))
				store.Inject(faultstore.Fault{Op: faultstore.PutDocument, When: when, Err: err, From: 2, Times: 3})
				a := run(t, store, "a", wall)
				time.Sleep(10 * Beat)
				synctest.Wait()
				a.want(t, "a alive self; ")
				if a.ID() != "a" {
					t.Errorf("id %q", a.ID())
				}
				if n := value(t, a.failures); n == 0 || n > 3 {
					t.Errorf("%v failures counted", n)
				}
				a.stop()
				if docs, err := store.ListDocuments(t.Context(), 0, terse.KindProcess, "", 10); err != nil || len(docs) != 0 {
					t.Errorf("%d documents after a stop, %v", len(docs), err)
				}
			})
		}
	}
}

// TestAlone: without others nothing is written, and the process shows itself.
func TestAlone(t *testing.T) {
	r := New(Options{Clock: wall, Self: Node{ID: "a"}})
	r.Run(t.Context())
	list, err := r.List(t.Context())
	if err != nil || len(list) != 1 || !list[0].Self || list[0].State != Alive || list[0].ID != "a" {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestFind: a node is found by its id as it is listed.
func TestFind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(wall)
		defer store.Close()
		a, b := run(t, store, "a", wall), run(t, store, "b", wall)
		find := func(id string) string {
			s, err := a.Find(t.Context(), id)
			if err != nil {
				return string(terse.ErrorCode(err))
			}
			if s.ID != id || s.Name != "name of "+id || s.Self != (id == "a") {
				t.Errorf("%s: %+v", id, s)
			}
			return string(s.State)
		}
		if got := find("a") + " " + find("b") + " " + find("c"); got != "alive alive not_found" {
			t.Errorf("found %s", got)
		}
		b.kill()
		time.Sleep(DeadAfter + Beat)
		if got := find("b"); got != "dead" {
			t.Errorf("who was killed is %s", got)
		}
		alone := New(Options{Clock: wall, Self: Node{ID: "x"}})
		if s, err := alone.Find(t.Context(), "x"); err != nil || !s.Self {
			t.Errorf("itself: %+v, %v", s, err)
		}
		if _, err := alone.Find(t.Context(), "y"); !errors.Is(err, terse.ErrNotFound) {
			t.Errorf("somebody else: %v", err)
		}
	})
}
