// Package inbox takes the clicks that edge nodes send into the spool of this process, each once.
//
// An edge sends groups of its spool in order, each batch with the positions (clicks.Position) where it begins and ends. The
// ledger says of every edge up to which position its clicks are here. A batch that ends before that is known already; one
// that begins before it is refused with the position to go on from.
//
// The ledger is a file that is written after the clicks, so a process that is killed between the two has clicks that the
// file does not know. So before the first of them it notes durably where the spool is (Since): behind that place such clicks
// can be. Save takes the note back. Open finds what is left of it: it reads the spool from there up to its own beginning, and of
// what an edge then sends again the groups that are there are left out. That span stays in the ledger while the spool has it, for an edge may
// come back late. A group is known by the id of its first click. A node that no edge sends to writes and reads nothing.
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
	Flush(ctx context.Context) error
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

// Inbox takes clicks. Its methods may be called from many goroutines.
type Inbox struct {
	o    Options
	turn chan struct{} // one batch or change of the ledger at a time; before mu

	mu    sync.Mutex
	edges map[string]entry

	// What follows is guarded by turn.

	known map[terse.ClickID]struct{} // first clicks of groups that are here although the ledger may not say so
	since clicks.Position            // what the file says; not zero: it may know less than edges
	spans []span                     // of known
	// unsure is where the spool was before clicks that nobody knows to be written. Zero: there are none.
	unsure clicks.Position
}

// entry is what is known of an edge node.
type entry struct {
	Position clicks.Position // its clicks before this place are here
	SeenAt   terse.Millis    // when it last sent clicks
}

// span is a part of the spool.
type span struct{ from, to clicks.Position }

// ledger is the file.
type ledger struct {
	Version int `json:"version"`
	// Since is a place in the spool of this process behind which clicks can be that the rest does not know. Empty: there are none.
	Since string `json:"since,omitempty"`
	// Spans are parts of the spool where such clicks can be from runs before.
	Spans [][2]string            `json:"spans,omitempty"`
	Edges map[string]ledgerEntry `json:"edges"`
}

type ledgerEntry struct {
	Position string       `json:"position"`
	SeenAt   terse.Millis `json:"seen_at"`
}

// MaxBatch is the most bytes that a batch should have: a batch ends with the group that reaches half of it.
const MaxBatch = 16 << 20

const (
	// maxEdges bounds the ledger: whoever has an edge's key can invent ids.
	maxEdges = 1000
	// forgetAfter is how long an edge must not have sent clicks to make room for a new one.
	forgetAfter = 30 * 24 * time.Hour
)

// edgeID is what an edge may be called.
var edgeID = regexp.MustCompile(`^[0-9a-f]{16}$`)

// Open reads the ledger, and the part of the spool that it may not know. Returns an error of code internal if the ledger is
// damaged: without it clicks could be counted twice.
func Open(ctx context.Context, o Options) (*Inbox, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	i := &Inbox{o: o, turn: make(chan struct{}, 1), edges: map[string]entry{}, known: map[terse.ClickID]struct{}{}}
	err := i.read()
	if err == nil {
		err = i.recall(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("open inbox of edge clicks: %w", err)
	}
	return i, nil
}

func (i *Inbox) read() error {
	b, err := os.ReadFile(i.o.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var l ledger
	if err = json.Unmarshal(b, &l); err == nil && l.Version != 1 {
		err = fmt.Errorf("version %d", l.Version)
	}
	position := func(s string) clicks.Position {
		p, bad := clicks.ParsePosition(s)
		err = cmp.Or(err, bad)
		return p
	}
	i.since = position(l.Since)
	for _, s := range l.Spans {
		i.spans = append(i.spans, span{position(s[0]), position(s[1])})
	}
	for id, e := range l.Edges {
		i.edges[id] = entry{Position: position(e.Position), SeenAt: e.SeenAt}
	}
	if err != nil {
		return &terse.Error{Code: terse.CodeInternal, Message: i.o.Path + " is damaged", Err: err}
	}
	return nil
}

// recall notes the groups that the ledger may not know, makes them durable, and the ledger name where they are.
func (i *Inbox) recall(ctx context.Context) error {
	had := len(i.spans)
	if i.since != (clicks.Position{}) {
		i.spans = append(i.spans, span{i.since, clicks.Position{Boot: i.o.Recorder.Boot()}})
	}
	var left []span
	for _, s := range i.spans {
		n, err := i.scan(ctx, s)
		if err != nil {
			return err
		}
		if n > 0 { // else the spool has forgotten it
			left = append(left, s)
		}
	}
	i.spans = left
	if i.since == (clicks.Position{}) && len(left) == had {
		return nil
	}
	return i.write(clicks.Position{})
}

// scan notes the groups of a part of the spool, durably there then, and returns how many it has.
func (i *Inbox) scan(ctx context.Context, s span) (n int, err error) {
	r, err := clicks.NewReader(clicks.ReaderOptions{Dir: i.o.Spool, From: s.from, Log: i.o.Log})
	if err != nil {
		return 0, err
	}
	defer func() { _ = r.Close() }()
	var b []byte
	for {
		if b, err = r.NextGroups(ctx, b[:0], 1); err != nil {
			return n, err
		}
		if len(b) == 0 || r.Position().Compare(s.to) > 0 {
			break
		}
		if err := clicks.EachGroup(b, func(first terse.ClickID, _ []byte, _ int) { i.known[first] = struct{}{} }); err != nil {
			return n, err
		}
		n++
	}
	return n, clicks.SyncSegments(i.o.Spool, s.from, s.to)
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
	if err := i.begin(ctx); err != nil {
		return clicks.Position{}, err
	}
	defer i.end()
	here, err := i.Position(edge)
	if err != nil || here.Compare(from) > 0 {
		return here, err
	}
	if err := i.room(edge); err != nil {
		return clicks.Position{}, err
	}
	if i.unsure != (clicks.Position{}) {
		// What can be read is here.
		if _, err := i.scan(ctx, span{i.unsure, i.o.Recorder.Position()}); err != nil {
			return clicks.Position{}, err
		}
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
	if err := i.intend(); err != nil {
		return clicks.Position{}, err
	}
	if err := i.add(ctx, fresh); err != nil {
		return clicks.Position{}, err
	}
	i.mu.Lock()
	i.edges[edge] = entry{Position: to, SeenAt: i.o.Clock()}
	i.mu.Unlock()
	return to, nil
}

// begin waits until nobody takes a batch or writes the ledger; end lets the next one in.
func (i *Inbox) begin(ctx context.Context) error {
	select {
	case i.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &terse.Error{Code: terse.CodeUnavailable, Op: "take clicks", Message: "the spool is slow", Err: ctx.Err()}
	}
}

func (i *Inbox) end() { <-i.turn }

// room makes room in the ledger for an edge that has sent nothing yet.
func (i *Inbox) room(edge string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, ok := i.edges[edge]; ok || len(i.edges) < maxEdges {
		return nil
	}
	oldest := slices.MinFunc(slices.Collect(maps.Keys(i.edges)), func(a, b string) int { return cmp.Compare(i.edges[a].SeenAt, i.edges[b].SeenAt) })
	if i.edges[oldest].SeenAt > i.o.Clock()-terse.Millis(forgetAfter.Milliseconds()) {
		return &terse.Error{
			Code: terse.CodeConflict, Reason: "too_many_edges",
			Message: fmt.Sprintf("this server takes clicks of %d edge nodes, and each of them has sent some in the last 30 days", maxEdges),
		}
	}
	delete(i.edges, oldest)
	return nil
}

// intend makes the ledger say, before clicks come, from where on they can be.
func (i *Inbox) intend() error {
	if i.since != (clicks.Position{}) {
		return nil
	}
	if err := i.write(i.o.Recorder.Position()); err != nil {
		return &terse.Error{Code: terse.CodeUnavailable, Op: "take clicks", Err: err}
	}
	return nil
}

// add appends groups. It does not end with the request: while nobody knows whether they will be written, they must not come again.
func (i *Inbox) add(ctx context.Context, groups []byte) (err error) {
	before := i.o.Recorder.Position()
	ctx = context.WithoutCancel(ctx)
	switch {
	case len(groups) > 0:
		err = i.o.Recorder.Append(ctx, groups)
	case i.unsure != (clicks.Position{}): // what was found may not be durable
		err = i.o.Recorder.Flush(ctx)
	}
	if errors.Is(err, terse.ErrUnknownOutcome) && i.unsure == (clicks.Position{}) {
		i.unsure = before
	}
	if err == nil && i.unsure != (clicks.Position{}) {
		// The spool is written in order: nothing from before comes behind this place.
		i.spans = append(i.spans, span{i.unsure, i.o.Recorder.Position()})
		i.unsure = clicks.Position{}
	}
	return err
}

// Save writes the ledger if it may know less than is here, unless ctx ends before a batch that is being taken. Call it every
// second or so, and at the end: how much Open has to read depends on it.
func (i *Inbox) Save(ctx context.Context) error {
	if err := i.begin(ctx); err != nil {
		return err
	}
	defer i.end()
	if i.since == (clicks.Position{}) || i.unsure != (clicks.Position{}) {
		return nil
	}
	return i.write(clicks.Position{})
}

// write replaces the file. No batch is being taken.
func (i *Inbox) write(since clicks.Position) error {
	l := ledger{Version: 1, Since: since.String(), Edges: map[string]ledgerEntry{}}
	for _, s := range i.spans {
		l.Spans = append(l.Spans, [2]string{s.from.String(), s.to.String()})
	}
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
	i.since = since
	return nil
}

// RunEvery is how often Run saves.
const RunEvery = time.Second

// lastSave is how long Run waits at the end for a batch that is being taken: the spool may be refused by its disk.
const lastSave = 5 * time.Second

// Run saves the ledger until ctx ends, and then once more.
func (i *Inbox) Run(ctx context.Context) {
	t := time.NewTicker(RunEvery)
	defer t.Stop()
	failing := false
	note := func(err error) {
		if err != nil && !failing && ctx.Err() == nil {
			i.o.Log.Error("the ledger of edge clicks cannot be kept: a start after a kill has more to read", "error", err)
		}
		failing = err != nil
	}
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSave)
			defer cancel()
			if err := i.Save(last); err != nil {
				i.o.Log.Error("the ledger of edge clicks could not be written at the end: the next start has more to read", "error", err)
			}
			return
		case <-t.C:
			note(i.Save(ctx))
		}
	}
}
