package jobs

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/links"
	"github.com/terselink/terse/internal/store/faultstore"
	"github.com/terselink/terse/internal/store/memstore"
)

// sleeper is a Linker of a node that stands still in a run, whatever happens, until it is woken; then it makes its links.
type sleeper struct {
	Linker
	asleep, wake chan struct{}
	fails        atomic.Int32 // rollbacks that are refused
}

func (s *sleeper) Rollback(ctx context.Context, a links.Actor, ledger string, progress func(uint64)) (uint64, error) {
	if s.fails.Add(-1) >= 0 {
		return 0, terse.ErrUnavailable
	}
	return s.Linker.Rollback(ctx, a, ledger, progress)
}

func (s *sleeper) Bulk(ctx context.Context, a links.Actor, o links.BulkOptions, body io.Reader, w io.Writer) (links.BulkSummary, error) {
	if s.asleep != nil {
		close(s.asleep)
		s.asleep = nil
		<-s.wake
	}
	return s.Linker.Bulk(context.WithoutCancel(ctx), a, o, body, w)
}

// beside starts another node of the same store.
func (b *bench) beside(node string) *bench {
	b.t.Helper()
	other := &bench{t: b.t, o: b.o, store: b.store, links: b.links, reg: b.reg, sent: b.sent}
	other.o.Node, other.o.Dir, other.o.Links = node, b.t.TempDir(), b.links
	other.start()
	return other
}

// files are the files of results in the data folder.
func (b *bench) files() (names []string) {
	b.t.Helper()
	list, err := os.ReadDir(filepath.Join(b.o.Dir, "jobs"))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range list {
		names = append(names, f.Name())
	}
	return names
}

// sleepingJob returns two nodes, of which the first has a job of five rows that stands still before its first row.
func sleepingJob(t *testing.T) (first, second *bench, sleeping *sleeper, id string) {
	t.Helper()
	sleeping = &sleeper{asleep: make(chan struct{}), wake: make(chan struct{})}
	asleep := sleeping.asleep
	first = newFirst(t, func(l Linker) Linker { sleeping.Linker = l; return sleeping })
	id = first.create(ws, "rows.ndjson", rows(5), Spec{})
	<-asleep
	return first, first.beside("second"), sleeping, id
}

// newFirst is newBench of a manager on a node named first, which others may find lost.
func newFirst(t *testing.T, wrap func(Linker) Linker) *bench {
	t.Helper()
	b := newBench(t, wrap)
	b.stop()
	b.o.Node = "first"
	b.start()
	return b
}

// TestLost: another node ends the job of one that stands still, with its links or without them. The first wakes up, learns of
// it, and no link stays of a job that was rolled back.
func TestLost(t *testing.T) {
	t.Parallel()
	for _, rollback := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b, second, sleeping, id := sleepingJob(t)
			defer second.stop()
			if _, err := second.Cancel(t.Context(), ws, id); terse.ErrorCode(err) != terse.CodeConflict {
				t.Fatalf("a job of another node: %v", err)
			}
			if _, err := second.RollbackLost(t.Context(), ws, id); terse.ErrorCode(err) != terse.CodeConflict {
				t.Fatalf("a rollback of a job that runs: %v", err)
			}
			s, err := second.CancelLost(t.Context(), ws, id)
			if err != nil || s.State != Cancelled || s.Node != "second" || s.LostBy != "first" || s.HasResult() {
				t.Fatalf("%v, %+v", err, s)
			}
			want, links := Cancelled, 5
			if rollback {
				if _, err := second.Rollback(t.Context(), ws, id); err != nil {
					t.Fatal(err)
				}
				want, links = RolledBack, 0
			}
			second.want(ws, id, want)
			close(sleeping.wake)
			synctest.Wait()
			if b.Has(ws, id) {
				t.Error("the first node still has the job")
			}
			if n := b.count(); n != links {
				t.Errorf("%d links, want %d", n, links)
			}
			if files := b.files(); len(files) != 0 { // it made them when it woke up
				t.Errorf("files stay: %q", files)
			}
			b.stop()
			b.start() // on its folder again
			if b.Has(ws, id) {
				t.Error("after a start the first node has the job")
			}
			second.want(ws, id, want)
			if err := second.Delete(t.Context(), ws, id); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLostWhileItRuns: a node that is told nothing looks by itself.
func TestLostWhileItRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newFirst(t, func(l Linker) Linker { return &gate{Linker: l, after: hold} })
		id := b.create(ws, "rows.ndjson", rows(5), Spec{})
		b.want(ws, id, Running)
		second := b.beside("second")
		defer second.stop()
		if _, err := second.CancelLost(t.Context(), ws, id); err != nil {
			t.Fatal(err)
		}
		if _, err := second.Rollback(t.Context(), ws, id); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !b.Has(ws, id) {
			t.Fatal("the first node knows already")
		}
		<-time.After(2 * lookEvery)
		synctest.Wait()
		if b.Has(ws, id) || b.count() != 0 {
			t.Errorf("the first node has the job still, and there are %d links", b.count())
		}
		<-time.After(2 * time.Minute)
		second.want(ws, id, RolledBack)
	})
}

// TestLostRolledBackLater: the job is rolled back after its first node has dropped it as cancelled, and before the run there has
// come to its end. No link stays: of a node that tries until it could delete them, and of one that dies before.
func TestLostRolledBackLater(t *testing.T) {
	t.Parallel()
	for _, fails := range []int32{3, 1000} {
		synctest.Test(t, func(t *testing.T) { rolledBackLater(t, fails, fails == 3) })
	}
}

func rolledBackLater(t *testing.T, fails int32, lives bool) {
	b, second, sleeping, id := sleepingJob(t)
	defer second.stop()
	if _, err := second.CancelLost(t.Context(), ws, id); err != nil {
		t.Fatal(err)
	}
	<-time.After(2 * lookEvery)
	synctest.Wait()
	if b.Has(ws, id) {
		t.Fatal("the first node has not dropped the job")
	}
	if _, err := second.Rollback(t.Context(), ws, id); err != nil {
		t.Fatal(err)
	}
	second.want(ws, id, RolledBack)
	sleeping.fails.Store(fails)
	close(sleeping.wake)
	synctest.Wait()
	if b.count() != 5 || sleeping.fails.Load() != fails-1 {
		t.Fatalf("%d links after %d attempts", b.count(), fails-sleeping.fails.Load())
	}
	if lives {
		<-time.After(time.Minute)
	} else {
		b.stop()
		if _, err := second.Rollback(t.Context(), ws, id); err != nil {
			t.Fatal(err)
		}
	}
	second.want(ws, id, RolledBack)
	if b.count() != 0 {
		t.Errorf("%d links stay; the node lives: %v", b.count(), lives)
	}
}

// stuck is a Linker whose rollbacks stand still.
type stuck struct{ Linker }

func (stuck) Rollback(ctx context.Context, _ links.Actor, _ string, _ func(uint64)) (uint64, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

// TestLostInRollback: a node was lost in the middle of a rollback, which another one does to its end.
func TestLostInRollback(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newFirst(t, func(l Linker) Linker { return stuck{l} })
		id := b.create(ws, "rows.ndjson", rows(5), Spec{})
		b.want(ws, id, Done)
		if _, err := b.Rollback(t.Context(), ws, id); err != nil {
			t.Fatal(err)
		}
		b.want(ws, id, Running)
		second := b.beside("second")
		defer second.stop()
		if s, err := second.RollbackLost(t.Context(), ws, id); err != nil || s.State != Queued || s.LostBy != "first" {
			t.Fatalf("%v, %+v", err, s)
		}
		second.want(ws, id, RolledBack)
		if b.count() != 0 {
			t.Errorf("%d links stay", b.count())
		}
	})
}

// TestLostAsItWas: a job that has ended as it is told to stays with its node, which has the results.
func TestLostAsItWas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newFirst(t, func(l Linker) Linker { return &gate{Linker: l, after: hold} })
		second := b.beside("second")
		defer second.stop()
		id := b.create(ws, "rows.ndjson", rows(5), Spec{})
		b.want(ws, id, Running)
		check := func(here, lost func(context.Context, terse.WorkspaceID, string) (Snapshot, error), state State) {
			t.Helper()
			if _, err := here(t.Context(), ws, id); err != nil {
				t.Fatal(err)
			}
			b.want(ws, id, state)
			before, err := b.store.GetDocument(t.Context(), ws, terse.KindJob, id)
			if err != nil {
				t.Fatal(err)
			}
			if s, err := lost(t.Context(), ws, id); err != nil || s.State != state || s.Node != "first" || s.LostBy != "" {
				t.Errorf("%v, %+v", err, s)
			}
			if now, err := b.store.GetDocument(t.Context(), ws, terse.KindJob, id); err != nil || now.Version != before.Version {
				t.Errorf("%v, version %d was written over %d", err, now.Version, before.Version)
			}
			if second.Has(ws, id) {
				t.Error("the second node has the job")
			}
		}
		check(b.Cancel, second.CancelLost, Cancelled)
		check(b.Rollback, second.RollbackLost, RolledBack)
	})
}

// TestLostWhileItRests: a node that stood still, or was cut off from the store, looks at the jobs that do not run, too. At other
// times it does not ask for them.
func TestLostWhileItRests(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"paused", "cut off"} {
		synctest.Test(t, func(t *testing.T) {
			var stood atomic.Int64
			b := newBench(t, nil)
			b.stop()
			b.o.Node, b.o.Clock = "first", func() terse.Millis { return clock() + terse.Millis(stood.Load()) }
			b.start()
			id := b.create(ws, "rows.ndjson", rows(5), Spec{})
			b.want(ws, id, Done)
			<-time.After(time.Second) // between two looks
			asked := b.store.Calls(faultstore.GetDocument)
			<-time.After(5 * lookEvery)
			synctest.Wait()
			if n := b.store.Calls(faultstore.GetDocument) - asked; n != 0 {
				t.Errorf("%s: it asked %d times", name, n)
			}
			if name == "paused" {
				stood.Store(7000)
			} else {
				up := b.store.Down()
				<-time.After(lookEvery)
				up()
			}
			second := b.beside("second")
			defer second.stop()
			if _, err := second.RollbackLost(t.Context(), ws, id); err != nil {
				t.Fatal(err)
			}
			second.want(ws, id, RolledBack)
			if s := b.want(ws, id, Done); s.Node != "first" || len(b.files()) != 2 {
				t.Fatalf("%+v, files %q", s, b.files())
			}
			<-time.After(lookEvery)
			synctest.Wait()
			if _, err := b.Get(ws, id); terse.ErrorCode(err) != terse.CodeConflict {
				t.Errorf("%s: %v", name, err)
			}
			if files := b.files(); len(files) != 0 {
				t.Errorf("%s: files stay: %q", name, files)
			}
		})
	}
}

// TestLostFiles: a node that was away removes the results of what another one rolled back meanwhile, and no others; of what was
// deleted when nothing would keep them any longer.
func TestLostFiles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newFirst(t, nil)
		var ids []string
		for range 3 {
			id := b.create(ws, "rows.ndjson", rows(5), Spec{})
			b.want(ws, id, Done)
			ids = append(ids, id)
		}
		b.stop()
		second := b.beside("second")
		defer second.stop()
		if _, err := second.RollbackLost(t.Context(), ws, ids[0]); err != nil {
			t.Fatal(err)
		}
		second.want(ws, ids[0], RolledBack)
		if err := DeleteLost(t.Context(), b.store, ws, ids[1]); err != nil {
			t.Fatal(err)
		}
		foreign := filepath.Join(b.o.Dir, "jobs", "notes.txt")
		if err := os.WriteFile(foreign, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		var ahead atomic.Int64
		b.o.Clock = func() terse.Millis { return clock() + terse.Millis(ahead.Load()) }
		of := func(ids ...string) (names []string) {
			for _, id := range ids {
				names = append(names, id+".errors.ndjson", id+".result.ndjson")
			}
			slices.Sort(names)
			return append(names, "notes.txt")
		}
		b.start()
		if got, want := b.files(), of(ids[1], ids[2]); !slices.Equal(got, want) {
			t.Errorf("files %q, want %q", got, want)
		}
		f, _, err := b.File(ws, ids[2], false)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		b.stop()
		ahead.Store(historyKeep + 60_000)
		// Without a start of its loops, which delete the job that is stored: only what a start removes is looked at.
		if b.Manager, err = Open(t.Context(), b.o); err != nil {
			t.Fatal(err)
		}
		if got, want := b.files(), of(ids[2]); !slices.Equal(got, want) {
			t.Errorf("after the time of history: files %q, want %q", got, want)
		}
	})
}

// TestForeignStore: a start on a store that does not know the jobs, or as a node that has lost its name, removes nothing, and
// the next one on the right store as the right node has all results.
func TestForeignStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newFirst(t, nil)
		id := b.create(ws, "rows.ndjson", rows(5), Spec{})
		b.want(ws, id, Done)
		before := b.files()
		b.stop()
		right := b.o
		empty := memstore.New(clock)
		defer empty.Close()
		for name, change := range map[string]func(*Options){
			"an empty store": func(o *Options) { o.Store = empty },
			"another name":   func(o *Options) { o.Node = "nobody" },
			"no name":        func(o *Options) { o.Store, o.Node = empty, "" },
		} {
			b.o = right
			change(&b.o)
			b.start()
			b.stop()
			if got := b.files(); len(before) != 2 || !slices.Equal(got, before) {
				t.Errorf("%s: files %q, want %q", name, got, before)
			}
		}
		b.o = right
		b.start()
		if got := b.file(id, false); got == "" {
			t.Error("no results")
		}
	})
}

// TestLostNotDeleted: a node that does not know yet that another has its job does not delete that one's.
func TestLostNotDeleted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newFirst(t, nil)
		id := b.create(ws, "rows.ndjson", rows(5), Spec{})
		b.want(ws, id, Done)
		second := b.beside("second")
		defer second.stop()
		if _, err := second.RollbackLost(t.Context(), ws, id); err != nil {
			t.Fatal(err)
		}
		second.want(ws, id, RolledBack)
		if there, ok := errors.AsType[*OtherNodeError](b.Delete(t.Context(), ws, id)); !ok || there.Node != "second" || b.Has(ws, id) {
			t.Errorf("%+v", there)
		}
		if node, err := Owner(t.Context(), b.store, ws, id); err != nil || node != "second" {
			t.Errorf("the job is of %q, %v", node, err)
		}
		if err := second.Delete(t.Context(), ws, id); err != nil {
			t.Error(err)
		}

		// A write of its own of which it does not know is no reason to keep a job.
		id = b.create(ws, "rows.ndjson", rows(5), Spec{})
		b.want(ws, id, Done)
		doc, err := b.store.GetDocument(t.Context(), ws, terse.KindJob, id)
		if err != nil {
			t.Fatal(err)
		}
		doc.Version++
		if err := b.store.PutDocument(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
		if err := b.Delete(t.Context(), ws, id); err != nil {
			t.Error(err)
		}
		if _, err := Owner(t.Context(), b.store, ws, id); terse.ErrorCode(err) != terse.CodeNotFound {
			t.Errorf("after the deletion: %v", err)
		}
	})
}
