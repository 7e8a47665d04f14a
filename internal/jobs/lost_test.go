package jobs

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/links"
)

// sleeper is a Linker of a node that stands still in a run, whatever happens, until it is woken; then it makes its links.
type sleeper struct {
	Linker
	asleep, wake chan struct{}
}

func (s *sleeper) Bulk(ctx context.Context, a links.Actor, o links.BulkOptions, body io.Reader, w io.Writer) (links.BulkSummary, error) {
	if s.asleep != nil {
		close(s.asleep)
		s.asleep = nil
		<-s.wake
	}
	return s.Linker.Bulk(context.WithoutCancel(ctx), a, o, body, w)
}

// TestLost: another node ends the job of one that stands still, with its links or without them. The first wakes up, learns of
// it, and no link stays of a job that was rolled back.
func TestLost(t *testing.T) {
	t.Parallel()
	for _, rollback := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			sleeping := &sleeper{asleep: make(chan struct{}), wake: make(chan struct{})}
			asleep := sleeping.asleep
			b := newBench(t, func(l Linker) Linker { sleeping.Linker = l; return sleeping })
			b.stop()
			b.o.Node = "first"
			b.start()
			id := b.create(ws, "rows.ndjson", rows(5), Spec{})
			<-asleep
			second := &bench{t: t, o: b.o, store: b.store, links: b.links, reg: b.reg, sent: b.sent}
			second.o.Node, second.o.Dir, second.o.Links = "second", t.TempDir(), b.links
			second.start()
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
		b := newBench(t, func(l Linker) Linker { return &gate{Linker: l, after: hold} })
		b.stop()
		b.o.Node = "first"
		b.start()
		id := b.create(ws, "rows.ndjson", rows(5), Spec{})
		b.want(ws, id, Running)
		second := &bench{t: t, o: b.o, store: b.store, links: b.links, reg: b.reg, sent: b.sent}
		second.o.Node, second.o.Dir, second.o.Links = "second", t.TempDir(), b.links
		second.start()
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
