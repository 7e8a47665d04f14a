package duckdb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
)

// RecordStore is where the record is kept beside the local disk: a bucket. Names have slashes. Its errors are those of
// package bucket.
type RecordStore interface {
	// Name is what people call the place.
	Name() string
	// Put sends a file; the object is whole and durable on return, and replaces what had the name.
	Put(ctx context.Context, name, path string) error
	// Get fetches an object into a file, which is whole and synced, or not there.
	Get(ctx context.Context, name, path string) error
	// Delete removes an object. One that is not there is no error.
	Delete(ctx context.Context, name string) error
	// List calls fn for every object whose name begins with prefix.
	List(ctx context.Context, prefix string, fn func(name string, bytes int64) error) error
	// Read returns a small object and the tag of its version; Replace writes it if that is still the version, "" for
	// none, and returns an error of code conflict otherwise.
	Read(ctx context.Context, name string) (data []byte, tag string, err error)
	Replace(ctx context.Context, name, tag string, data []byte) error
}

// ErrRecordStore: the folder of the record is not whole, and the record store, which has the rest, cannot be read.
var ErrRecordStore = errors.New("the record store is needed to begin, and cannot be read")

const (
	mirrorEvery    = 30 * time.Second
	mirrorMinPause = time.Second // after a failure, doubled up to mirrorMaxPause
	mirrorMaxPause = time.Minute
	mirrorAudit    = 24 * time.Hour // how often the store is listed and compared
	mirrorWorkers  = 4
	mirrorSaves    = 100 // files sent between two writes of the state
)

// mirror keeps a record store equal to the folder of the record: it sends what is new there, then deletes what is
// gone there. The folder is what queries read; the store is what survives the machine. A file that
// is sent twice has the same name both times, so a crash repeats and never doubles.
//
// Lock: passing comes after DB.maintaining and before DB.mu and mu.
type mirror struct {
	d     *DB
	store RecordStore
	wake  chan struct{}

	passing sync.Mutex   // held while the store is compared and changed
	state   *mirrorState // under passing; nil: the store is not claimed
	audited time.Time    // under passing
	raised  bool         // under passing: the store has the ownership of this start
	// unreadable: there was a state, and it could not be read; of Open.
	unreadable bool

	mu      sync.Mutex      // guards what follows, and state.Files while files are on their way
	through clicks.Position // clicks before this place of the spool are in the store
	status  MirrorStatus
}

// MirrorStatus says how far the record store is behind the folder.
type MirrorStatus struct {
	Store        string       `json:"store"`         // its name; "": there is none
	Pending      int64        `json:"pending"`       // files to send or delete, as last counted
	PendingBytes int64        `json:"pending_bytes"` // to send
	Uploads      int64        `json:"uploads"`       // since Open, as the next ones
	Deletes      int64        `json:"deletes"`
	Failures     int64        `json:"failures"`         // rounds that were cut short
	Error        string       `json:"error,omitempty"`  // why the last one was; "": it was not
	Since        terse.Millis `json:"since,omitzero"`   // when the first of the failures in a row was
	Equal        terse.Millis `json:"equal,omitzero"`   // when the store was last equal to the folder
	Refused      bool         `json:"refused,omitzero"` // it will not get better by itself
}

// Mirrored returns how far the record store is; a zero value without one.
func (d *DB) Mirrored() MirrorStatus {
	if d.mirror == nil {
		return MirrorStatus{}
	}
	d.mirror.mu.Lock()
	defer d.mirror.mu.Unlock()
	return d.mirror.status
}

// Stored returns a place in the spool before which every click is in the record store; without one it is Recorded.
func (d *DB) Stored() clicks.Position {
	if d.mirror == nil {
		return d.Recorded()
	}
	d.mirror.mu.Lock()
	defer d.mirror.mu.Unlock()
	return d.mirror.through
}

// Mirror keeps the record store equal to the record until ctx ends, and returns nil then. A store that does not answer
// is asked again, with pauses of up to a minute; meanwhile everything stays on the local disk.
func (d *DB) Mirror(ctx context.Context) error {
	if d.mirror == nil {
		<-ctx.Done()
		return nil
	}
	pause, last := mirrorMinPause, ""
	for {
		err := d.mirror.pass(ctx)
		wait := mirrorEvery
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			if err.Error() != last {
				d.o.Log.Error("the record store is behind; clicks stay on the local disk", "store", d.mirror.store.Name(), "error", err)
			}
			last, wait = err.Error(), pause
			pause = min(2*pause, mirrorMaxPause)
		default:
			if last != "" {
				d.o.Log.Info("the record store has everything again", "store", d.mirror.store.Name())
			}
			last, pause = "", mirrorMinPause
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-d.mirror.wake:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// changed lets Mirror look at once.
func (m *mirror) changed() {
	if m == nil {
		return
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// pass makes the store equal to the folder.
func (m *mirror) pass(ctx context.Context) (err error) {
	m.passing.Lock()
	defer m.passing.Unlock()
	defer func() {
		if ctx.Err() == nil { // else nobody knows
			m.note(err)
		}
	}()
	settled := m.d.settledAt() // before the folder is read: the files of these clicks are in it
	if err := m.own(ctx); err != nil {
		m.countPending()
		return err
	}
	if m.audited.IsZero() || m.d.o.Clock().Sub(m.audited) > mirrorAudit {
		if err := m.audit(ctx); err != nil {
			return err
		}
		m.audited = m.d.o.Clock()
	}
	local, err := walkRecord(m.d.o.Record)
	if err != nil {
		return err
	}
	send, gone, fetch := m.compare(local)
	// What was erased comes first: whoever begins again from the store must know.
	slices.SortFunc(send, func(a, b string) int {
		if (a == erasuresFile) != (b == erasuresFile) {
			if a == erasuresFile {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	m.pending(local, send, gone)
	if len(send)+len(gone)+len(fetch) == 0 {
		m.reached(settled)
		return nil
	}
	moved, err := m.transfer(ctx, local, send, gone, fetch)
	if err := errors.Join(err, m.save()); err != nil {
		return err
	}
	if moved { // another file took the place of one: it is in the folder, and in the next round
		m.changed()
		return nil
	}
	m.reached(settled)
	return nil
}

// compare returns what is to be sent to the store, deleted there and fetched from it, for the files that are in the folder.
func (m *mirror) compare(local map[string]stamp) (send, gone, fetch []string) {
	for name, s := range local {
		if m.state.Files[name] != s {
			send = append(send, name)
		}
	}
	for name := range m.state.Files {
		if _, here := local[name]; !here {
			if m.d.refersTo(name) {
				fetch = append(fetch, name) // somebody deleted it here
			} else {
				gone = append(gone, name)
			}
		}
	}
	return send, gone, fetch
}

// pending notes how far the store is behind.
func (m *mirror) pending(local map[string]stamp, send, gone []string) {
	var bytes int64
	for _, name := range send {
		bytes += local[name].Bytes
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status.Pending, m.status.PendingBytes = int64(len(send)+len(gone)), bytes
}

// countPending notes what waits for a store that is away.
func (m *mirror) countPending() {
	local, err := walkRecord(m.d.o.Record)
	if m.state == nil || err != nil {
		return // nothing was ever sent, or the next round says why the folder cannot be read
	}
	send, gone, _ := m.compare(local)
	m.pending(local, send, gone)
}

// transfer sends, deletes and fetches, in this order: each click is in the store at every moment. moved: a file was gone before it was sent.
func (m *mirror) transfer(ctx context.Context, local map[string]stamp, send, gone, fetch []string) (moved bool, err error) {
	for len(send) > 0 {
		n := min(len(send), mirrorSaves)
		// Names come first: what a round that is cut off has sent is known, and is not taken for somebody else's.
		for _, name := range send[:n] {
			if _, there := m.state.Files[name]; !there {
				m.state.Files[name] = stamp{Bytes: -1}
			}
		}
		if err := errors.Join(m.save(), m.stillOwn(ctx)); err != nil {
			return moved, err
		}
		err := inParallel(ctx, send[:n], func(ctx context.Context, name string) error {
			err := m.store.Put(ctx, name, filepath.Join(m.d.o.Record, filepath.FromSlash(name)))
			m.mu.Lock()
			defer m.mu.Unlock()
			if errors.Is(err, fs.ErrNotExist) {
				moved = true
				return nil
			}
			if err != nil {
				return err
			}
			m.state.Files[name] = local[name]
			m.status.Uploads++
			m.status.Pending--
			m.status.PendingBytes -= local[name].Bytes
			return nil
		})
		if err = errors.Join(err, m.save()); err != nil {
			return moved, err
		}
		send = send[n:]
	}
	if moved {
		return true, nil // what took its place must be there before anything is deleted
	}
	if len(gone) > 0 {
		if err := m.stillOwn(ctx); err != nil {
			return false, err
		}
	}
	err = inParallel(ctx, gone, func(ctx context.Context, name string) error {
		if err := m.store.Delete(ctx, name); err != nil {
			return err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.state.Files, name)
		m.status.Deletes++
		m.status.Pending--
		return nil
	})
	return false, errors.Join(err, m.fetch(ctx, fetch))
}

// fetch brings files back into the folder that the store has.
func (m *mirror) fetch(ctx context.Context, names []string) error {
	return inParallel(ctx, names, func(ctx context.Context, name string) error {
		path := filepath.Join(m.d.o.Record, filepath.FromSlash(name))
		err := m.store.Get(ctx, name, path)
		m.mu.Lock()
		defer m.mu.Unlock()
		if errors.Is(err, terse.ErrNotFound) {
			m.d.o.Log.Error("a file of the record is gone, here and in the record store", "file", name)
			delete(m.state.Files, name)
			return nil
		}
		if err != nil {
			return err
		}
		m.state.Files[name], err = stampOf(path)
		return err
	})
}

// reached notes that the store is equal to the folder.
func (m *mirror) reached(settled clicks.Position) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.through = settled
	m.status.Pending, m.status.PendingBytes, m.status.Equal = 0, 0, terse.MillisOf(m.d.o.Clock())
}

// note keeps how a round ended.
func (m *mirror) note(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status.Refused = false
	if err == nil {
		m.status.Error, m.status.Since = "", 0
		return
	}
	if m.status.Error == "" {
		m.status.Since = terse.MillisOf(m.d.o.Clock())
	}
	m.status.Failures++
	m.status.Error = err.Error()
	if e, ok := errors.AsType[*terse.Error](err); ok {
		m.status.Error = e.Message
		m.status.Refused = e.Code == terse.CodeForbidden || e.Code == terse.CodePrecondition
	}
}

// settledAt returns the place of the spool before which clicks were in files when clicks were last moved.
func (d *DB) settledAt() clicks.Position {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.settled
}

// refersTo reports whether the tables say that a file of the record is there.
func (d *DB) refersTo(name string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if _, ok := d.files[name]; ok {
		return true
	}
	rest, ok := strings.CutPrefix(name, rollupsFolder+"/dt=")
	if !ok {
		return name == erasuresFile
	}
	folder, _, _ := strings.Cut(rest, "/")
	day, ok := parseDate(folder)
	return ok && d.rolled[day]
}

// stamp tells versions of a file apart.
type stamp struct {
	Bytes    int64 `json:"bytes"`
	Modified int64 `json:"modified"` // Unix ns, on the local disk
}

func stampOf(path string) (stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, fmt.Errorf("record: %w", err)
	}
	return stamp{info.Size(), info.ModTime().UnixNano()}, nil
}

// walkRecord returns the files of the record as the store is to have them: not those that are being written or put aside.
func walkRecord(root string) (map[string]stamp, error) {
	found := map[string]stamp{}
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was removed meanwhile
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		switch {
		case e.IsDir() && name == asideFolder:
			return filepath.SkipDir
		case e.IsDir() || !isRecordName(name):
			return nil
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		found[name] = stamp{info.Size(), info.ModTime().UnixNano()}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	return found, nil
}

// inParallel calls fn for every name, some at a time. After an error no more are begun.
func inParallel(ctx context.Context, names []string, fn func(ctx context.Context, name string) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	todo := make(chan string)
	var wg sync.WaitGroup
	errs := make([]error, mirrorWorkers)
	for i := range mirrorWorkers {
		wg.Go(func() {
			for name := range todo {
				if errs[i] == nil && ctx.Err() == nil {
					if errs[i] = fn(ctx, name); errs[i] != nil {
						cancel()
					}
				}
			}
		})
	}
	for _, name := range names {
		if ctx.Err() != nil {
			break
		}
		todo <- name
	}
	close(todo)
	wg.Wait()
	// The others were cut short by the first one.
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return errors.Join(append(errs, context.Cause(ctx))...)
}

// hasClicks reports whether files of a record are among the names.
func hasClicks(files map[string]stamp) bool {
	return slices.ContainsFunc(slices.Collect(maps.Keys(files)), isRecordName)
}

// isRecordName reports whether a name is one that the record gives: clicks, rollups and lists of changes. Others in
// the store are somebody else's.
func isRecordName(name string) bool {
	return (strings.HasPrefix(name, clicksFolder+"/") || strings.HasPrefix(name, rollupsFolder+"/")) && strings.HasSuffix(name, ".parquet") ||
		strings.HasSuffix(name, ".jsonl")
}
