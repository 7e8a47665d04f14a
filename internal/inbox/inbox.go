// Package inbox takes the clicks that edge nodes send into the spool of this process, each once.
//
// An edge sends groups of its spool in order, each batch with the positions (clicks.Position) where it begins and ends. The
// ledger says of every edge up to which position its clicks are here. A batch that ends before that is known already; one
// that begins before it is refused with the position to go on from.
//
// The ledger is a file that is written after the clicks, so a process that is killed between the two has clicks that the
// file does not know. It therefore also holds a place in the spool of this process behind which such
// clicks can be: Open reads the spool from there on, and of what an edge then sends again the groups that are there are left out.
// A group is known by the id of its first click.
//
// The ledger belongs to the data folder, like the spool. So an edge sends to the process that it began with:
// Receiver names it.
package inbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
)

// Recorder is what takes the clicks. *clicks.Recorder is one.
type Recorder interface {
	Append(ctx context.Context, groups []byte) error
	Position() clicks.Position
	Boot() string
}

// Options configure an Inbox. All but Log are required.
type Options struct {
	Path     string // of the ledger
	Receiver string // names the spool for ever
	Spool    string // its directory
	Recorder Recorder
	// Write replaces a file durably and in one step.
	Write func(path string, content []byte) error
	Clock func() terse.Millis
	Log   *slog.Logger // default: discarded
}

// Edge is what is known of an edge node.
type Edge struct {
	ID       string
	Position clicks.Position // its clicks before this place are here
	SeenAt   terse.Millis    // when it last sent clicks
}

// Inbox takes clicks. Its methods may be called from many goroutines.
type Inbox struct {
	o    Options
	turn chan struct{} // one batch or change of the ledger at a time; before mu

	mu    sync.Mutex
	edges map[string]Edge
	dirty bool

	known map[terse.ClickID]struct{} // first clicks of groups that are here although the ledger may not say so; guarded by turn
}

// ledger is the file.
type ledger struct {
	Version int `json:"version"`
	// From is where the spool of this process was when the rest was true.
	From  string                 `json:"from"`
	Edges map[string]ledgerEntry `json:"edges"`
}

type ledgerEntry struct {
	Position string       `json:"position"`
	SeenAt   terse.Millis `json:"seen_at"`
}

// MaxBatch is the most bytes that a batch should have: a batch ends with the group that reaches half of it.
const MaxBatch = 16 << 20

// edgeID is what an edge may be called.
var edgeID = regexp.MustCompile(`^[0-9a-f]{16}$`)

// Open reads the ledger, and what came into the spool after it was written. Returns an error of code internal if the ledger is
// damaged: without it clicks could be counted twice.
func Open(ctx context.Context, o Options) (*Inbox, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	i := &Inbox{o: o, turn: make(chan struct{}, 1), edges: map[string]Edge{}, known: map[terse.ClickID]struct{}{}}
	from, err := i.read()
	if err == nil && from != (clicks.Position{}) {
		err = i.scan(ctx, from, func(p clicks.Position) bool { return p.Boot != o.Recorder.Boot() })
	}
	if err != nil {
		return nil, fmt.Errorf("open inbox of edge clicks: %w", err)
	}
	if from != (clicks.Position{}) {
		return i, nil
	}
	// Before the first click comes there must be a place to look from.
	if err := i.write(clicks.Position{Boot: o.Recorder.Boot()}); err != nil {
		return nil, fmt.Errorf("open inbox of edge clicks: %w", err)
	}
	return i, nil
}

func (i *Inbox) read() (from clicks.Position, err error) {
	b, err := os.ReadFile(i.o.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return from, nil
	}
	if err != nil {
		return from, err
	}
	damaged := func(err error) error {
		return &terse.Error{Code: terse.CodeInternal, Message: i.o.Path + " is damaged", Err: err}
	}
	var l ledger
	if err := json.Unmarshal(b, &l); err != nil || l.Version != 1 || l.From == "" {
		return from, damaged(err)
	}
	if from, err = clicks.ParsePosition(l.From); err != nil {
		return from, damaged(err)
	}
	for id, e := range l.Edges {
		p, err := clicks.ParsePosition(e.Position)
		if err != nil {
			return from, damaged(err)
		}
		i.edges[id] = Edge{ID: id, Position: p, SeenAt: e.SeenAt}
	}
	return from, nil
}

// scan notes the groups of the spool from a place on, while within says so of the place of a group.
func (i *Inbox) scan(ctx context.Context, from clicks.Position, within func(clicks.Position) bool) error {
	r, err := clicks.NewReader(clicks.ReaderOptions{Dir: i.o.Spool, From: from, Log: i.o.Log})
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	var b []byte
	for {
		if b, err = r.NextGroups(ctx, b[:0], 1<<20); err != nil {
			return err
		}
		err := clicks.EachGroup(b, func(first terse.ClickID, _ []byte, _ int) { i.known[first] = struct{}{} })
		if err != nil || len(b) == 0 || !within(r.Position()) {
			return err
		}
	}
}

// Receiver names the spool that clicks come into.
func (i *Inbox) Receiver() string { return i.o.Receiver }

// Position returns up to where the clicks of an edge are here; zero if none are. Returns an error of code invalid if no edge can
// be called so.
func (i *Inbox) Position(edge string) (clicks.Position, error) {
	if !edgeID.MatchString(edge) {
		return clicks.Position{}, terse.Invalid("edge", "is not the id of an edge")
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.edges[edge].Position, nil
}

// Edges returns the edges that have sent clicks, by id.
func (i *Inbox) Edges() []Edge {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.SortedFunc(maps.Values(i.edges), func(a, b Edge) int { return cmp.Compare(a.ID, b.ID) })
}

// Take puts the groups of an edge's spool from one place up to another into the spool of this process, and returns up to where
// the clicks of the edge are here, durably. If that is not the end of the batch, nothing of it was taken and the edge goes on from there.
// Returns an error of code invalid for what is not a batch, else what Recorder.Append returns; the batch may be sent again after any.
func (i *Inbox) Take(ctx context.Context, edge string, from, to clicks.Position, groups []byte) (clicks.Position, error) {
	if !edgeID.MatchString(edge) {
		return clicks.Position{}, terse.Invalid("edge", "is not the id of an edge")
	}
	if to.Compare(from) <= 0 {
		return clicks.Position{}, terse.Invalid("to", "is not after from")
	}
	select {
	case i.turn <- struct{}{}:
	case <-ctx.Done():
		return clicks.Position{}, &terse.Error{Code: terse.CodeUnavailable, Op: "take clicks", Message: "the spool is slow", Err: ctx.Err()}
	}
	defer func() { <-i.turn }()
	here, err := i.Position(edge)
	if err != nil || here.Compare(from) > 0 {
		return here, err
	}
	var fresh []byte
	err = clicks.EachGroup(groups, func(first terse.ClickID, group []byte, _ int) {
		if _, ok := i.known[first]; !ok {
			fresh = append(fresh, group...)
		}
	})
	if err != nil {
		return clicks.Position{}, err
	}
	if len(fresh) > 0 {
		if err := i.add(ctx, fresh); err != nil {
			return clicks.Position{}, err
		}
	}
	i.mu.Lock()
	i.edges[edge] = Edge{ID: edge, Position: to, SeenAt: i.o.Clock()}
	i.dirty = true
	i.mu.Unlock()
	return to, nil
}

// add appends groups. It does not end with the request: while nobody knows whether they will be written, they must not come again.
func (i *Inbox) add(ctx context.Context, groups []byte) error {
	before := i.o.Recorder.Position()
	ctx = context.WithoutCancel(ctx)
	err := i.o.Recorder.Append(ctx, groups)
	if errors.Is(err, terse.ErrUnknownOutcome) {
		// What can be read is here.
		end := i.o.Recorder.Position()
		err = errors.Join(err, i.scan(ctx, before, func(p clicks.Position) bool { return p.Compare(end) < 0 }))
	}
	return err
}

// Save writes the ledger if it has changed since. Call it every second or so, and at the end: how much Open has to read depends on it.
func (i *Inbox) Save() error {
	i.turn <- struct{}{}
	defer func() { <-i.turn }()
	i.mu.Lock()
	dirty := i.dirty
	i.mu.Unlock()
	if !dirty {
		return nil
	}
	return i.write(i.o.Recorder.Position())
}

// Advance writes the ledger whether it has changed or not, so that Open need not read what this process recorded itself.
func (i *Inbox) Advance() error {
	i.mu.Lock()
	i.dirty = len(i.edges) > 0
	i.mu.Unlock()
	return i.Save()
}

// write replaces the file. No batch is being taken.
func (i *Inbox) write(from clicks.Position) error {
	l := ledger{Version: 1, From: from.String(), Edges: map[string]ledgerEntry{}}
	i.mu.Lock()
	for id, e := range i.edges {
		l.Edges[id] = ledgerEntry{e.Position.String(), e.SeenAt}
	}
	i.mu.Unlock()
	b, err := json.Marshal(l, json.Deterministic(true))
	if err == nil {
		err = i.o.Write(i.o.Path, append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write ledger of edge clicks: %w", err)
	}
	i.mu.Lock()
	i.dirty = false
	i.mu.Unlock()
	return nil
}

// RunEvery is how often Run saves.
const RunEvery = time.Second

// Run saves the ledger until ctx ends, and then once more.
func (i *Inbox) Run(ctx context.Context) {
	t := time.NewTicker(RunEvery)
	defer t.Stop()
	failing := false
	for round := 1; ; round++ {
		save, last := i.Save, false
		if round%60 == 0 {
			save = i.Advance
		}
		select {
		case <-ctx.Done():
			save, last = i.Advance, true
		case <-t.C:
		}
		if err := save(); err != nil && !failing {
			i.o.Log.Error("the ledger of edge clicks cannot be kept: a start after a kill has more to read", "error", err)
			failing = true
		} else if err == nil {
			failing = false
		}
		if last {
			return
		}
	}
}
