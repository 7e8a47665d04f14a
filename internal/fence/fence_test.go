package fence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/sleep"
	"github.com/terselink/terse/internal/store/faultstore"
	"github.com/terselink/terse/internal/store/memstore"
)

func wall() terse.Millis { return terse.MillisOf(time.Now()) }

// holding is a duty that only notes who carries it out.
type holding struct {
	by    atomic.Pointer[string] // nil: nobody
	twice atomic.Int64           // two at a time
	times atomic.Int64
}

func (d *holding) duty(name string) func(context.Context, *Held) {
	return func(ctx context.Context, _ *Held) {
		if !d.by.CompareAndSwap(nil, &name) {
			d.twice.Add(1)
		}
		d.times.Add(1)
		<-ctx.Done()
		d.by.Store(nil)
	}
}

func (d *holding) holder() string {
	if p := d.by.Load(); p != nil {
		return *p
	}
	return ""
}

// process is a keeper that wants the lock.
type process struct {
	store *gate
	stop  func()
}

// gate is the store as a process sees it: it can be cut off.
type gate struct {
	Store
	cut atomic.Bool
}

func (g *gate) GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error) {
	if g.cut.Load() {
		return terse.Document{}, terse.ErrUnavailable
	}
	return g.Store.GetDocument(ctx, w, kind, id)
}

func (g *gate) PutDocument(ctx context.Context, doc terse.Document) error {
	if g.cut.Load() {
		return terse.ErrUnavailable
	}
	return g.Store.PutDocument(ctx, doc)
}

func (g *gate) InsertLinks(ctx context.Context, chunk *terse.Chunk) error {
	if g.cut.Load() {
		return terse.ErrUnavailable
	}
	return g.Store.InsertLinks(ctx, chunk)
}

func start(t interface{ Cleanup(func()) }, store Store, name string, duty func(context.Context, *Held)) *process {
	p := &process{store: &gate{Store: store}}
	k := New(Options{Store: p.store, Holder: name})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); k.Run(ctx, "duty", duty) }()
	p.stop = func() { cancel(); <-done }
	t.Cleanup(p.stop)
	return p
}

// TestTakeOver: a holder that stops gives the lock back; one that is cut off loses it before another takes it, and
// within the time that is promised.
func TestTakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, d := memstore.New(wall), &holding{}
		a := start(t, store, "a", d.duty("a"))
		synctest.Wait()
		b := start(t, store, "b", d.duty("b"))
		time.Sleep(10 * time.Minute) // in the bubble: takes no time
		synctest.Wait()
		if d.holder() != "a" || d.times.Load() != 1 {
			t.Fatalf("%q has it after ten minutes, it changed hands %d times", d.holder(), d.times.Load())
		}
		a.stop()
		time.Sleep(DefaultLease / 5)
		synctest.Wait()
		if d.holder() != "b" {
			t.Fatalf("%q has it after a stop", d.holder())
		}
		c := start(t, store, "c", d.duty("c"))
		synctest.Wait()
		b.store.cut.Store(true)
		time.Sleep(DefaultLease)
		synctest.Wait()
		if d.holder() != "" {
			t.Errorf("%q has it, and was cut off a lease ago", d.holder())
		}
		time.Sleep(DefaultLease)
		synctest.Wait()
		if d.holder() != "c" || d.twice.Load() != 0 {
			t.Errorf("%q has it two leases later; %d times two had it", d.holder(), d.twice.Load())
		}
		b.store.cut.Store(false)
		c.stop()
		time.Sleep(DefaultLease)
		synctest.Wait()
		if d.holder() != "b" {
			t.Errorf("%q has it after the one that was cut off is back", d.holder())
		}
	})
}

// TestAlone: without others a duty has its lock at once, writes nothing of its own, and ends with its context or by itself.
func TestAlone(t *testing.T) {
	store := memstore.New(wall)
	k := New(Options{Store: store, Alone: true})
	n := 0
	k.Run(t.Context(), "duty", func(ctx context.Context, h *Held) {
		n++
		doc := terse.Document{Kind: terse.KindMeta, ID: "x", Version: 1, Data: []byte("1")}
		if err := errors.Join(h.renew(ctx, nil), h.Write(ctx, &terse.Chunk{Documents: []terse.Document{doc}})); err != nil {
			t.Error(err)
		}
	})
	docs, err := store.ListDocuments(t.Context(), 0, terse.KindLock, "", 10)
	if n != 1 || err != nil || len(docs) != 0 {
		t.Errorf("ran %d times, left %d locks, %v", n, len(docs), err)
	}
}

// TestPaused: a holder that was paused, and does not know that its lock is somebody else's, writes nothing.
func TestPaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(wall)
		k := New(Options{Store: store, Holder: "paused"})
		old, err := k.Acquire(t.Context(), "duty")
		if err != nil {
			t.Fatal(err)
		}
		// The process sleeps: neither its renewals nor its timer run.
		old.cancel(nil)
		<-old.done
		old.expires.Stop()
		fresh, err := New(Options{Store: store, Holder: "new"}).Acquire(t.Context(), "duty")
		if err != nil {
			t.Fatal(err)
		}
		defer fresh.Release()
		if fresh.Token() <= old.Token() {
			t.Errorf("tokens %d and %d", old.Token(), fresh.Token())
		}
		doc := terse.Document{Kind: terse.KindMeta, ID: "x", Version: 1, Data: []byte("old")}
		if err := old.Write(t.Context(), &terse.Chunk{Documents: []terse.Document{doc}}); !errors.Is(err, ErrLost) {
			t.Errorf("the paused holder writes: %v", err)
		}
		if err := old.renew(t.Context(), nil); !errors.Is(err, ErrLost) {
			t.Errorf("the paused holder is told: %v", err)
		}
		doc.Data = []byte("new")
		if err := fresh.Write(t.Context(), &terse.Chunk{Documents: []terse.Document{doc}}); err != nil {
			t.Error(err)
		}
		if got, err := store.GetDocument(t.Context(), 0, terse.KindMeta, "x"); err != nil || string(got.Data) != "new" {
			t.Errorf("%q, %v", got.Data, err)
		}
		if err := fresh.Write(t.Context(), &terse.Chunk{Documents: []terse.Document{doc}}); !errors.Is(err, terse.ErrExists) {
			t.Errorf("a chunk that is in the way: %v", err)
		}
		if err := fresh.renew(t.Context(), nil); err != nil {
			t.Errorf("after a refused chunk the lock is held: %v", err)
		}
	})
}

// TestFaults: whatever happens to one call of the store, nobody believes wrongly, and somebody has the lock in the end.
func TestFaults(t *testing.T) {
	for _, f := range []faultstore.Fault{
		{Op: faultstore.PutDocument, When: faultstore.Before},
		{Op: faultstore.PutDocument, When: faultstore.After},
		{Op: faultstore.PutDocument, When: faultstore.Before, Err: terse.ErrUnknownOutcome},
		{Op: faultstore.GetDocument, When: faultstore.Before},
	} {
		for from := 1; from <= 4; from++ {
			synctest.Test(t, func(t *testing.T) {
				store, d := faultstore.New(memstore.New(wall)), &holding{}
				f.From = from
				store.Inject(f)
				start(t, store, "a", d.duty("a"))
				start(t, store, "b", d.duty("b"))
				time.Sleep(5 * DefaultLease)
				synctest.Wait()
				if d.holder() == "" || d.twice.Load() != 0 {
					t.Errorf("%+v: %q has it, %d times two had it", f, d.holder(), d.twice.Load())
				}
			})
		}
	}
}

// TestProperty: whoever is stopped, cut off or comes back, and however long things take, no two processes carry out
// the duty at a time, every fenced write follows the one before, and somebody has the duty whenever somebody can.
func TestProperty(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			store, d := memstore.New(wall), &holding{}
			count := &counter{t: t}
			var all []*process
			for i := range 3 {
				name := fmt.Sprintf("p%d", i)
				all = append(all, start(t, &slow{Store: store}, name, func(ctx context.Context, h *Held) {
					end := make(chan struct{})
					go func() { defer close(end); count.up(ctx, h) }()
					d.duty(name)(ctx, h)
					<-end
				}))
			}
			for range rapid.IntRange(1, 25).Draw(r, "steps") {
				p := all[rapid.IntRange(0, len(all)-1).Draw(r, "who")]
				switch rapid.IntRange(0, 3).Draw(r, "what") {
				case 0, 1:
					p.store.cut.Store(!p.store.cut.Load())
				case 2:
					p.store.Store.(*slow).delay.Store(int64(rapid.IntRange(0, 8000).Draw(r, "ms")))
				}
				time.Sleep(time.Duration(rapid.IntRange(0, 40_000).Draw(r, "pause")) * time.Millisecond)
			}
			for _, p := range all {
				p.store.cut.Store(false)
				p.store.Store.(*slow).delay.Store(0)
			}
			time.Sleep(4 * DefaultLease)
			synctest.Wait()
			if d.holder() == "" {
				r.Errorf("nobody has the duty although everybody can")
			}
			if n := d.twice.Load(); n != 0 {
				r.Errorf("%d times two had the duty", n)
			}
			for _, p := range all {
				p.stop()
			}
			doc, err := store.GetDocument(t.Context(), 0, terse.KindMeta, "count")
			if err != nil || string(doc.Data) != strconv.FormatInt(count.n.Load(), 10) {
				r.Errorf("%d writes were acknowledged, the store has %s, %v", count.n.Load(), doc.Data, err)
			}
		})
	})
}

// counter counts up in the store, by fenced writes that do not look at what is there: without the fence writes of
// two holders would overwrite each other.
type counter struct {
	t *testing.T
	n atomic.Int64
}

func (c *counter) up(ctx context.Context, h *Held) {
	for ctx.Err() == nil {
		version := uint64(c.n.Load()) + 1
		doc := terse.Document{Kind: terse.KindMeta, ID: "count", Version: version, Data: strconv.AppendUint(nil, version, 10)}
		err := h.Write(context.WithoutCancel(ctx), &terse.Chunk{Documents: []terse.Document{doc}})
		switch {
		case err == nil:
			c.n.Add(1)
		case errors.Is(err, ErrLost) || terse.ErrorCode(err) == terse.CodeUnavailable:
		default:
			c.t.Errorf("write %d: %v", version, err)
		}
		_ = sleep.For(ctx, time.Second)
	}
}

// slow answers late.
type slow struct {
	Store
	delay atomic.Int64 // milliseconds
}

func (s *slow) wait(ctx context.Context) error {
	if d := s.delay.Load(); d > 0 && sleep.For(ctx, time.Duration(d)*time.Millisecond) != nil {
		return terse.ErrUnavailable
	}
	return nil
}

func (s *slow) GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error) {
	doc, err := s.Store.GetDocument(ctx, w, kind, id)
	return doc, errors.Join(err, s.wait(ctx))
}

func (s *slow) PutDocument(ctx context.Context, doc terse.Document) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	return s.Store.PutDocument(ctx, doc)
}

func (s *slow) InsertLinks(ctx context.Context, chunk *terse.Chunk) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	return s.Store.InsertLinks(ctx, chunk)
}

// TestLog: taking and losing a duty is said.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		k := New(Options{Store: memstore.New(wall), Holder: "a", Log: slog.New(slog.NewTextHandler(&b, nil))})
		h, err := k.Acquire(t.Context(), "duty")
		if err != nil {
			t.Fatal(err)
		}
		h.lose()
		h.Release()
		for _, want := range []string{"has a duty", "has lost a duty"} {
			if !bytes.Contains(b.Bytes(), []byte(want)) {
				t.Errorf("the log does not say %q: %s", want, &b)
			}
		}
	})
}
