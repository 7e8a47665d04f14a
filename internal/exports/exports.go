// Package exports makes files of clicks in the background, for exports that are too long to wait for: it survives
// restarts, and whoever has the URL of a file can fetch it, also in pieces.
//
// An export is a document of its workspace; its file lies in the data folder. What is
// written is package export's matter. Invariants:
//
//   - a file is whole or not there: it is written beside its name and renamed;
//   - an export that was interrupted begins again;
//   - files and documents are deleted Keep after the export was asked for;
//   - the token of a file is random and known to those alone who may see the export.
package exports

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/export"
)

// Prefix begins the ids of exports.
const Prefix = "exp_"

// Keep is how long exports are kept.
const Keep = 7 * 24 * time.Hour

// How often an export is begun before it fails.
const (
	MaxAttempts = 30               // while the engine is down: with pauses that grow to maxPause, about four hours
	MaxTimeouts = 3                // if its queries take too long, which they are likely to do again
	maxPause    = 10 * time.Minute // between two attempts
)

// MaxOpen bounds the exports of a workspace that have not ended.
const MaxOpen = 20

// State is where an export is.
type State string

// The states.
const (
	Queued  State = "queued"
	Running State = "running"
	Done    State = "done"
	Failed  State = "failed"
)

// Export is an export as it is stored.
type Export struct {
	ID        string            `json:"id"`
	Workspace terse.WorkspaceID `json:"workspace"`
	By        string            `json:"by"`
	Query     Query             `json:"query"`
	Format    export.Format     `json:"format"`
	RawCSV    bool              `json:"raw_csv,omitempty"`
	State     State             `json:"state"`
	Rows      int64             `json:"rows"`
	Bytes     int64             `json:"bytes,omitempty"`
	Fault     string            `json:"fault,omitempty"`      // why it failed, for people
	Attempts  int               `json:"attempts,omitempty"`   // that the engine cut short
	NotBefore terse.Millis      `json:"not_before,omitempty"` // of the next one
	Token     string            `json:"token"`                // opens the file without a key
	Node      string            `json:"node,omitempty"`       // whose folder has the file, if there are several nodes
	CreatedAt terse.Millis      `json:"created_at"`
	EndedAt   terse.Millis      `json:"ended_at,omitempty"`
	// CompleteFrom: rows before it may be missing, because the workspace does not keep them any more; 0: none are known to,
	// as while the settings cannot be read, or of days that were removed before it began to keep clicks for longer.
	CompleteFrom terse.Millis `json:"complete_from,omitempty"`
}

// Query is an analytics.Query that can be stored: its range is fixed.
type Query struct {
	Scope    analytics.Scope `json:"scope"`
	From, To terse.Millis
	Bots     analytics.Bots     `json:"bots"`
	Filters  []analytics.Filter `json:"filters"`
	Every    bool               `json:"every"`
}

// Options configure a Manager. Fields without a remark are required.
type Options struct {
	Node       string // names this one's folder where several nodes use the store; "": there is one
	Store      Store
	Source     export.Source
	Dir        string // the files' own folder, made if missing
	Workspaces func(ctx context.Context, after terse.WorkspaceID, limit int) ([]terse.WorkspaceID, error)
	// Terms says how long a workspace keeps its clicks, for files that lack some. A file is made without it too.
	Terms analytics.TermsFunc
	Clock func() terse.Millis
	Log   *slog.Logger
}

// Store is what the manager uses of a terse.Store.
type Store interface {
	GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error)
	PutDocument(ctx context.Context, doc terse.Document) error
	InsertLinks(ctx context.Context, c *terse.Chunk) error
	DeleteDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string, ifVersion uint64) error
	ListDocuments(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, after string, limit int) ([]terse.Document, error)
}

// Manager runs exports one at a time. It is safe for concurrent use.
type Manager struct {
	o    Options
	wake chan struct{}

	mu   sync.Mutex
	rows map[string]int64 // of the one that runs
}

// Open makes the folder and removes what an interrupted export left there.
func Open(o Options) (*Manager, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open exports: %w", err)
	}
	parts, err := filepath.Glob(filepath.Join(o.Dir, "*.part"))
	for _, p := range parts {
		err = errors.Join(err, os.Remove(p))
	}
	if err != nil {
		return nil, fmt.Errorf("open exports: %w", err)
	}
	o.Terms = analytics.CachedTerms(o.Terms, o.Clock)
	return &Manager{o: o, wake: make(chan struct{}, 1), rows: map[string]int64{}}, nil
}

// NewExport describes an export.
type NewExport struct {
	Query  analytics.Query
	Format export.Format
	RawCSV bool
}

// Create asks for an export; it is durable on return. What also returns for it goes into the same atomic write; nil:
// nothing. Returns an error of code invalid if too many have not ended.
func (m *Manager) Create(ctx context.Context, w terse.WorkspaceID, by string, n NewExport, also func(Export) ([]terse.Document, error)) (Export, error) {
	list, err := m.list(ctx, w)
	if err != nil {
		return Export{}, err
	}
	open := 0
	for i := range list {
		if list[i].EndedAt == 0 {
			open++
		}
	}
	if open >= MaxOpen {
		return Export{}, terse.Invalid("format", "%d exports are under way: wait for one to end", open)
	}
	now := m.o.Clock()
	q := n.Query
	e := Export{
		ID: newID(now), Workspace: w, By: by, Query: Query{q.Scope, q.From, q.To, q.Bots, q.Filters, q.Every}, Format: n.Format, RawCSV: n.RawCSV,
		State: Queued, Token: rand.Text(), CreatedAt: now,
	}
	doc, err := e.document(1)
	if err != nil {
		return Export{}, fmt.Errorf("create export: %w", err)
	}
	docs := []terse.Document{doc}
	if also != nil {
		more, err := also(e)
		if err != nil {
			return Export{}, err
		}
		docs = append(docs, more...)
	}
	if err := m.o.Store.InsertLinks(ctx, &terse.Chunk{Documents: docs}); err != nil {
		return Export{}, fmt.Errorf("create export: %w", err)
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return e, nil
}

func (m *Manager) put(ctx context.Context, e *Export, version uint64) error {
	doc, err := e.document(version)
	if err != nil {
		return err
	}
	return m.o.Store.PutDocument(ctx, doc)
}

// document returns the stored form of a version.
func (e *Export) document(version uint64) (terse.Document, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return terse.Document{}, err
	}
	return terse.Document{Workspace: e.Workspace, Kind: terse.KindExport, ID: e.ID, Version: version, Data: data}, nil
}

// Get returns an export of the workspace, with the rows so far. Returns ErrNotFound.
func (m *Manager) Get(ctx context.Context, w terse.WorkspaceID, id string) (Export, error) {
	e, _, err := m.get(ctx, w, id)
	if err == nil && e.State == Running {
		m.mu.Lock()
		e.Rows = max(e.Rows, m.rows[id])
		m.mu.Unlock()
	}
	return e, err
}

func (m *Manager) get(ctx context.Context, w terse.WorkspaceID, id string) (e Export, version uint64, err error) {
	if !strings.HasPrefix(id, Prefix) || len(id) > 100 {
		return e, 0, terse.ErrNotFound
	}
	doc, err := m.o.Store.GetDocument(ctx, w, terse.KindExport, id)
	if err != nil {
		return e, 0, err
	}
	err = json.Unmarshal(doc.Data, &e)
	return e, doc.Version, err
}

// List returns the exports of a workspace, the newest first.
func (m *Manager) List(ctx context.Context, w terse.WorkspaceID) ([]Export, error) {
	list, err := m.list(ctx, w)
	for i, j := 0, len(list)-1; i < j; i, j = i+1, j-1 {
		list[i], list[j] = list[j], list[i]
	}
	return list, err
}

func (m *Manager) list(ctx context.Context, w terse.WorkspaceID) (list []Export, err error) {
	for after := ""; ; {
		docs, err := m.o.Store.ListDocuments(ctx, w, terse.KindExport, after, 500)
		if err != nil {
			return nil, fmt.Errorf("list exports: %w", err)
		}
		if len(docs) == 0 {
			return list, nil
		}
		for i := range docs {
			after = docs[i].ID
			var e Export
			if err := json.Unmarshal(docs[i].Data, &e); err != nil {
				// It must not hide the others, nor keep them from being made.
				m.o.Log.Error("an export cannot be read", "export", docs[i].ID, "error", err)
				continue
			}
			list = append(list, e)
		}
	}
}

// Delete removes an export and its file. One that runs ends without a trace. Returns ErrNotFound.
func (m *Manager) Delete(ctx context.Context, w terse.WorkspaceID, id string) error {
	e, _, err := m.get(ctx, w, id)
	if err != nil {
		return err
	}
	if err := m.o.Store.DeleteDocument(ctx, w, terse.KindExport, id, 0); err != nil {
		return err
	}
	return m.removeFile(&e)
}

func (m *Manager) removeFile(e *Export) error {
	if err := os.Remove(m.path(e)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete export: %w", err)
	}
	return nil
}

// Tidy removes files of exports that are no more: another node that deletes one cannot remove its file. An error leaves
// what is left for the next call.
func (m *Manager) Tidy(ctx context.Context) error {
	files, err := os.ReadDir(m.o.Dir) // before the exports are listed: each was stored before its file was made
	if err != nil {
		return fmt.Errorf("tidy exports: %w", err)
	}
	gone := map[string][]string{} // files, by id
	for _, f := range files {
		id, format, _ := strings.Cut(f.Name(), ".")
		if strings.HasPrefix(id, Prefix) && !strings.HasSuffix(format, ".part") {
			gone[id] = append(gone[id], f.Name())
		}
	}
	for after := terse.WorkspaceID(0); len(gone) > 0; {
		ids, err := m.o.Workspaces(ctx, after, 500)
		if err != nil {
			return fmt.Errorf("tidy exports: %w", err)
		}
		if len(ids) == 0 {
			break
		}
		for _, w := range ids {
			after = w
			if err := m.strike(ctx, w, gone); err != nil {
				return fmt.Errorf("tidy exports: %w", err)
			}
		}
	}
	var errs []error
	for _, names := range gone {
		for _, name := range names {
			if err := os.Remove(filepath.Join(m.o.Dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, fmt.Errorf("tidy exports: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}

// strike strikes off the exports that a workspace has, those that cannot be read, too.
func (m *Manager) strike(ctx context.Context, w terse.WorkspaceID, gone map[string][]string) error {
	for after := ""; ; {
		docs, err := m.o.Store.ListDocuments(ctx, w, terse.KindExport, after, 500)
		if err != nil || len(docs) == 0 {
			return err
		}
		for i := range docs {
			after = docs[i].ID
			delete(gone, after)
		}
	}
}

func (m *Manager) path(e *Export) string {
	return filepath.Join(m.o.Dir, e.ID+"."+string(e.Format))
}

// OtherNodeError says that another node has the file of an export. It is an error of code conflict.
type OtherNodeError struct {
	Node string // id; "" if nobody noted it
}

// Error implements error.
func (e *OtherNodeError) Error() string {
	if e.Node == "" {
		return "the file is on another node"
	}
	return "the file is on the node " + e.Node + "; ask there"
}

// Unwrap gives the error its code.
func (e *OtherNodeError) Unwrap() error {
	return &terse.Error{Code: terse.CodeConflict, Reason: "other_node", Message: e.Error()}
}

// File opens the file of an export that is done, for whoever knows its token. The caller closes it. Returns
// ErrNotFound for everything else, and *OtherNodeError if another one has the file.
func (m *Manager) File(ctx context.Context, w terse.WorkspaceID, id, token string) (*os.File, Export, error) {
	e, _, err := m.get(ctx, w, id)
	if err != nil {
		return nil, e, err
	}
	if e.State != Done || subtle.ConstantTimeCompare([]byte(token), []byte(e.Token)) != 1 {
		return nil, e, terse.ErrNotFound
	}
	f, err := os.Open(m.path(&e))
	switch {
	case errors.Is(err, os.ErrNotExist) && e.Node != m.o.Node:
		return nil, e, &OtherNodeError{Node: e.Node}
	case errors.Is(err, os.ErrNotExist):
		return nil, e, terse.ErrNotFound
	}
	return f, e, err
}

// Run makes the exports that are asked for, and deletes old ones, until ctx ends. It returns nil then.
func (m *Manager) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		if err := m.round(ctx); err != nil && ctx.Err() == nil {
			m.o.Log.Error("exports", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
		case <-tick.C:
		}
	}
}

// round looks at every export once. One that fails does not keep others waiting.
func (m *Manager) round(ctx context.Context) error {
	var errs []error
	for after := terse.WorkspaceID(0); ; {
		ids, err := m.o.Workspaces(ctx, after, 500)
		if err != nil || len(ids) == 0 {
			return errors.Join(append(errs, err)...)
		}
		for _, w := range ids {
			after = w
			list, err := m.list(ctx, w)
			errs = append(errs, err)
			for i := range list {
				errs = append(errs, m.handle(ctx, &list[i]))
			}
			if ctx.Err() != nil {
				return errors.Join(errs...)
			}
		}
	}
}

func (m *Manager) handle(ctx context.Context, e *Export) error {
	switch {
	case m.o.Clock() > e.CreatedAt+terse.Millis(Keep.Milliseconds()):
		err := m.Delete(ctx, e.Workspace, e.ID)
		if errors.Is(err, terse.ErrNotFound) {
			return nil
		}
		return err
	case e.EndedAt == 0 && e.NotBefore <= m.o.Clock():
		return m.make(ctx, e.Workspace, e.ID)
	}
	return nil
}

// make writes the file of an export and notes how it ended. An error means that it is to be tried again.
func (m *Manager) make(ctx context.Context, w terse.WorkspaceID, id string) error {
	e, version, err := m.get(ctx, w, id)
	if err != nil {
		if errors.Is(err, terse.ErrNotFound) {
			return nil // deleted meanwhile
		}
		return err
	}
	e.State, e.CompleteFrom = Running, 0
	if terms, err := m.o.Terms(ctx, w); err == nil {
		e.CompleteFrom = terms.CompleteFrom(e.selects(), m.o.Clock())
	} else { // it is a remark, for which no file waits
		m.o.Log.Debug("not known how long clicks are kept, so an export is not said to be incomplete", "export", id, "error", err)
	}
	version++
	if err := m.put(ctx, &e, version); err != nil {
		return err
	}
	defer func() {
		m.mu.Lock()
		delete(m.rows, id)
		m.mu.Unlock()
	}()
	rows, size, err := m.write(ctx, &e)
	switch {
	case ctx.Err() != nil:
		return nil // begins again after the restart
	case errors.Is(err, errDeleted):
		return m.removeFile(&e)
	case terse.ErrorCode(err) == terse.CodeUnavailable && e.Attempts+1 < attemptsAfter(err):
		e.State = Queued
		e.Attempts++
		e.NotBefore = m.o.Clock() + terse.Millis(min(time.Duration(e.Attempts)*time.Minute, maxPause).Milliseconds())
		if perr := m.put(ctx, &e, version+1); !errors.Is(perr, terse.ErrNotFound) && !errors.Is(perr, terse.ErrVersion) {
			err = errors.Join(err, perr)
		}
		return fmt.Errorf("export %s, attempt %d: %w", id, e.Attempts, err)
	case err != nil:
		e.State, e.Fault = Failed, "the export failed: "+terse.Message(err)
		m.o.Log.Error("an export failed", "export", id, "error", err)
	default:
		e.State, e.Rows, e.Bytes, e.Node = Done, rows, size, m.o.Node
	}
	e.EndedAt = m.o.Clock()
	err = m.put(ctx, &e, version+1)
	if errors.Is(err, terse.ErrNotFound) || errors.Is(err, terse.ErrVersion) {
		return m.removeFile(&e) // deleted meanwhile
	}
	return err
}

// attemptsAfter returns how many attempts an export has whose last one ended with err.
func attemptsAfter(err error) int {
	if errors.Is(err, export.ErrTooSlow) {
		return MaxTimeouts
	}
	return MaxAttempts
}

var errDeleted = errors.New("the export was deleted")

// selects returns the query of the clicks of the export.
func (e *Export) selects() analytics.Query {
	return analytics.Query{Workspace: e.Workspace, Scope: e.Query.Scope, From: e.Query.From, To: e.Query.To, Bots: e.Query.Bots, Filters: e.Query.Filters, Every: e.Query.Every}
}

// write makes the file, all of it or none.
func (m *Manager) write(ctx context.Context, e *Export) (rows, size int64, err error) {
	return writeFile(ctx, m.o.Source, e.selects(), fileOptions{path: m.path(e), format: e.Format, rawCSV: e.RawCSV, progress: func(n int64) error {
		m.mu.Lock()
		m.rows[e.ID] = n
		m.mu.Unlock()
		if _, _, err := m.get(ctx, e.Workspace, e.ID); errors.Is(err, terse.ErrNotFound) {
			return errDeleted
		}
		return nil
	}})
}

// fileOptions say what a file is like.
type fileOptions struct {
	path     string
	format   export.Format
	rawCSV   bool
	progress func(rows int64) error // as in export.CopyOptions
}

// writeFile writes the clicks of a query into a file, all of it, synced, or none.
func writeFile(ctx context.Context, src export.Source, q analytics.Query, o fileOptions) (rows, size int64, err error) {
	f, err := os.OpenFile(o.path+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, 0, fmt.Errorf("write export: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(o.path+".part"))
		}
	}()
	w := export.NewWriter(o.format, f, export.WriterOptions{RawCSV: o.rawCSV})
	rows, err = export.Copy(ctx, src, q, export.CopyOptions{Progress: o.progress}, w)
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		size, err = f.Seek(0, io.SeekCurrent)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, 0, err
	}
	return rows, size, os.Rename(o.path+".part", o.path)
}

// newID returns an id that sorts by time and that nobody guesses.
func newID(at terse.Millis) string {
	enc := base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)
	var b [15]byte
	for i := range 6 {
		b[i] = byte(at >> (40 - 8*i))
	}
	rand.Read(b[6:]) // never fails: crypto/rand ends the process instead
	return Prefix + enc.EncodeToString(b[:])
}
