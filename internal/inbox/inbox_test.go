package inbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	edge  = "00112233aabbccdd"
	other = "ffeeddccbbaa9988" // sends nothing that it has not sent before
)

// world is a process with a spool and an inbox, and the spool of an edge.
type world struct {
	t        *testing.T
	dir      string
	recorder *clicks.Recorder
	lost     bool // what becomes of an Append is not said
	inbox    *Inbox
	from     *clicks.Reader // of the edge
	sent     int            // clicks of the edge
	unsaved  bool           // the ledger cannot be written
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir()}
	w.open()
	t.Cleanup(func() {
		if err := w.recorder.Close(); err != nil {
			t.Error(err)
		}
	})
	r, err := clicks.OpenReader(filepath.Join(w.dir, "edge"), clicks.Position{})
	if err != nil {
		t.Fatal(err)
	}
	w.from = r
	t.Cleanup(func() { _ = r.Close() })
	return w
}

// open starts the process, again if it runs: the one before has then died without a word.
func (w *world) open() {
	w.t.Helper()
	if w.recorder != nil {
		if err := w.recorder.Close(); err != nil {
			w.t.Fatal(err)
		}
	}
	var err error
	spool := filepath.Join(w.dir, "spool")
	if w.recorder, err = clicks.Open(clicks.Options{Dir: spool}); err != nil {
		w.t.Fatal(err)
	}
	w.inbox, err = Open(w.t.Context(), Options{
		Path: filepath.Join(w.dir, "edges.json"), Receiver: "here", Spool: spool, Recorder: vague{w.recorder, w}, Clock: func() terse.Millis { return 7 },
		Write: func(path string, content []byte) error {
			if w.unsaved {
				return errors.New("the disk is full")
			}
			return os.WriteFile(path, content, 0o600)
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// vague is a recorder whose answers may be lost.
type vague struct {
	*clicks.Recorder
	w *world
}

func (v vague) Append(ctx context.Context, groups []byte) error {
	if err := v.Recorder.Append(ctx, groups); err != nil || !v.w.lost {
		return err
	}
	return &terse.Error{Code: terse.CodeUnknownOutcome, Message: "lost"}
}

// own records a click of the process itself.
func (w *world) own() {
	w.t.Helper()
	w.recorder.Capture(0, &clicks.Click{At: 1_800_000_000_000, Link: 9, Code: []byte("own")})
	if err := w.recorder.Flush(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// visit records n clicks at the edge and returns their groups with the place after them.
func (w *world) visit(n int) (groups []byte, to clicks.Position) {
	w.t.Helper()
	r, err := clicks.Open(clicks.Options{Dir: filepath.Join(w.dir, "edge")})
	if err != nil {
		w.t.Fatal(err)
	}
	for range n {
		r.Capture(0, &clicks.Click{At: 1_800_000_000_000, Link: 5, Code: []byte("abc")})
		w.sent++
	}
	if err := r.Close(); err != nil {
		w.t.Fatal(err)
	}
	if groups, err = w.from.NextGroups(w.t.Context(), nil, 1<<20); err != nil || len(groups) == 0 {
		w.t.Fatalf("%d bytes, error %v", len(groups), err)
	}
	return groups, w.from.Position()
}

func (w *world) take(from, to clicks.Position, groups []byte) clicks.Position {
	w.t.Helper()
	p, err := w.inbox.Take(w.t.Context(), edge, from, to, groups)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// spooled returns how many clicks are in the spool.
func (w *world) spooled() (n int) {
	w.t.Helper()
	r, err := clicks.OpenReader(filepath.Join(w.dir, "spool"), clicks.Position{})
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	n, err = r.Next(w.t.Context(), 1<<30, func(*clicks.Raw) error { return nil })
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// TestOnce: a batch counts once however often and in what pieces it comes, whenever the process dies and whether or not the
// ledger was written.
func TestOnce(t *testing.T) {
	t.Parallel()
	for _, saved := range []bool{true, false} {
		w := newWorld(t)
		own := clicks.Click{At: 1_800_000_000_000, Link: 9, Code: []byte("own")}
		at, total := clicks.Position{}, 0
		for round := range 6 {
			first, middle := w.visit(3 + round)
			if p := w.take(at, middle, first); p != middle {
				t.Fatalf("round %d: %v, want %v", round, p, middle)
			}
			second, to := w.visit(2)
			w.recorder.Capture(0, &own)
			total++
			if p := w.take(middle, to, second); p != to {
				t.Fatalf("round %d: %v, want %v", round, p, to)
			}
			// The answer was lost: the same again, and both in one batch.
			if p := w.take(middle, to, second); p != to {
				t.Errorf("again: %v, want %v", p, to)
			}
			if p := w.take(at, to, append(append([]byte(nil), first...), second...)); p != to {
				t.Errorf("both again: %v, want %v", p, to)
			}
			w.unsaved = !saved && round > 0
			_ = w.inbox.Save(t.Context()) // it fails as it should
			w.unsaved = false
			w.open()
			// The process that died may know less. Whatever is sent again is there already.
			known, err := w.inbox.Position(edge)
			if err != nil {
				t.Fatal(err)
			}
			if saved && known != to {
				t.Errorf("after a restart: %v, want %v", known, to)
			}
			switch known {
			case to:
			case at:
				w.take(at, to, append(append([]byte(nil), first...), second...))
			default: // from before: rounds ago
				r, err := clicks.OpenReader(filepath.Join(w.dir, "edge"), known)
				if err != nil {
					t.Fatal(err)
				}
				all, err := r.NextGroups(t.Context(), nil, 1<<30)
				if err != nil || r.Close() != nil {
					t.Fatal(err)
				}
				w.take(known, to, all)
			}
			if err := w.recorder.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := w.spooled(); got != total+w.sent {
				t.Fatalf("saved %v, round %d: %d clicks in the spool, want %d", saved, round, got, total+w.sent)
			}
			at = to
		}
	}
}

// TestNoEdges: a process without edges reads nothing of its spool and writes no ledger; one whose edges are all in the ledger
// reads nothing either.
func TestNoEdges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	idle := func() {
		t.Helper()
		for range 3 {
			w.own()
			if err := w.inbox.Save(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.open()
			if len(w.inbox.known) != 0 || len(w.inbox.spans) != 0 {
				t.Errorf("%d groups noted, %d spans", len(w.inbox.known), len(w.inbox.spans))
			}
		}
	}
	idle()
	if _, err := os.Stat(w.inbox.o.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a ledger without edges: %v", err)
	}
	groups, to := w.visit(3)
	w.take(clicks.Position{}, to, groups)
	idle()
}

// TestSecondKill: clicks that came before a kill are known when their edge sends them again, whatever other edges did meanwhile
// and however often the process was started.
func TestSecondKill(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		lost, save bool
	}{{name: "killed"}, {name: "outcome not known", lost: true}, {name: "outcome not known, stopped in order", lost: true, save: true}} {
		w := newWorld(t)
		groups, to := w.visit(4)
		w.lost = c.lost
		_, err := w.inbox.Take(t.Context(), edge, clicks.Position{}, to, groups)
		if (err != nil) != c.lost {
			t.Fatal(c.name, err)
		}
		w.lost = false
		if c.save {
			if err := w.inbox.Save(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		w.own()
		more, end := w.visit(2)
		for range 2 {
			w.open()
			// The numbers of the other edge are its own: any batch is new of it.
			p, err := w.inbox.Position(other)
			if err != nil {
				t.Fatal(err)
			}
			next := end
			next.Offset += p.Offset
			if _, err := w.inbox.Take(t.Context(), other, p, next, more); err != nil {
				t.Fatal(err)
			}
			if err := w.inbox.Save(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.own()
			more = nil
		}
		w.open()
		w.take(clicks.Position{}, to, groups)
		if got, want := w.spooled(), w.sent+3; got != want {
			t.Errorf("%s: %d clicks in the spool, want %d", c.name, got, want)
		}
		// When the spool has forgotten them, the ledger does.
		names, err := filepath.Glob(filepath.Join(w.dir, "spool", "*.seg"))
		if err != nil || w.inbox.Save(t.Context()) != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
		w.open()
		if len(w.inbox.spans) != 0 {
			t.Errorf("%s: %d spans stay", c.name, len(w.inbox.spans))
		}
	}
}

// TestLostAnswer: what is sent again to the same process counts once, and the ledger is whole again after it.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	groups, to := w.visit(4)
	w.lost = true
	if _, err := w.inbox.Take(t.Context(), edge, clicks.Position{}, to, groups); !errors.Is(err, terse.ErrUnknownOutcome) {
		t.Fatal(err)
	}
	w.lost = false
	if err := w.inbox.Save(t.Context()); err != nil || w.inbox.since == (clicks.Position{}) {
		t.Errorf("since %v, error %v: the ledger calls itself whole", w.inbox.since, err)
	}
	w.take(clicks.Position{}, to, groups)
	if got := w.spooled(); got != w.sent {
		t.Errorf("%d clicks in the spool, want %d", got, w.sent)
	}
	if err := w.inbox.Save(t.Context()); err != nil || w.inbox.since != (clicks.Position{}) {
		t.Errorf("since %v, error %v", w.inbox.since, err)
	}
}

// TestRoom: ids that nobody uses do not fill the ledger for ever, and those in use are not forgotten.
func TestRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for n := range maxEdges {
		w.inbox.edges[fmt.Sprintf("%016x", n)] = entry{SeenAt: 7 + terse.Millis(n)}
	}
	groups, to := w.visit(1)
	var e *terse.Error
	if _, err := w.inbox.Take(t.Context(), edge, clicks.Position{}, to, groups); !errors.As(err, &e) || e.Reason != "too_many_edges" {
		t.Errorf("one too many: %v", err)
	}
	w.inbox.o.Clock = func() terse.Millis { return 7 + terse.Millis(forgetAfter.Milliseconds()) }
	w.take(clicks.Position{}, to, groups)
	if _, ok := w.inbox.edges["0000000000000000"]; ok || len(w.inbox.edges) != maxEdges {
		t.Errorf("%d edges, the oldest stays: %v", len(w.inbox.edges), ok)
	}
}

// TestSaveGivesUp: whoever stops does not wait for a batch that the disk refuses.
func TestSaveGivesUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := w.inbox.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer w.inbox.end()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.inbox.Save(ctx); terse.ErrorCode(err) != terse.CodeUnavailable {
		t.Errorf("error %v", err)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	groups, to := w.visit(3)
	for _, c := range []struct {
		name, edge string
		from, to   clicks.Position
		groups     []byte
	}{
		{name: "no id", edge: "me", to: to, groups: groups},
		{name: "backwards", edge: edge, from: to, to: to, groups: groups},
		{name: "half a batch", edge: edge, to: to, groups: groups[:len(groups)-1]},
	} {
		if _, err := w.inbox.Take(t.Context(), c.edge, c.from, c.to, c.groups); terse.ErrorCode(err) != terse.CodeInvalid {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if n := w.spooled(); n != 0 {
		t.Errorf("%d clicks in the spool", n)
	}
	// A damaged ledger is no empty one.
	if err := os.WriteFile(filepath.Join(w.dir, "edges.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := w.inbox.o
	if _, err := Open(context.Background(), o); terse.ErrorCode(err) != terse.CodeInternal {
		t.Errorf("damaged ledger: %v", err)
	}
}

// Run saves at the end, whatever happened before.
func TestRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	groups, to := w.visit(3)
	w.take(clicks.Position{}, to, groups)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.inbox.Run(ctx)
	w.open()
	if p, err := w.inbox.Position(edge); err != nil || p != to {
		t.Errorf("%v, error %v, want %v", p, err, to)
	}
}
