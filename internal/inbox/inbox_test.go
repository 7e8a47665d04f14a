package inbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const edge = "00112233aabbccdd"

// world is a process with a spool and an inbox, and the spool of an edge.
type world struct {
	t        *testing.T
	dir      string
	recorder *clicks.Recorder
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
		Path: filepath.Join(w.dir, "edges.json"), Receiver: "here", Spool: spool, Recorder: w.recorder, Clock: func() terse.Millis { return 7 },
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
			_ = w.inbox.Save() // it fails as it should
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
		if list := w.inbox.Edges(); len(list) != 1 || list[0].ID != edge || list[0].SeenAt != 7 {
			t.Errorf("edges %+v", list)
		}
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
