package jobs

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/links"
	"github.com/terselink/terse/internal/outbound"
)

const (
	// Prefix begins the ids of jobs.
	Prefix = "job_"
	// historyKeep is how long a job and its results are kept after its end.
	historyKeep = 30 * 24 * 60 * 60 * 1000 // milliseconds
	// ledgerUse is how long after its start a job may still rely on its ledger, a day
	// less than the ledger is kept.
	ledgerUse = links.LedgerKeep - 24*60*60*1000 // milliseconds
	// maxJobs bounds the history of one workspace, and so the memory of the list.
	maxJobs = 10_000
)

// Linker makes and deletes links; *links.Service is one.
type Linker interface {
	Bulk(ctx context.Context, a links.Actor, o links.BulkOptions, body io.Reader, w io.Writer) (links.BulkSummary, error)
	Rollback(ctx context.Context, a links.Actor, ledger string, progress func(deleted uint64)) (uint64, error)
}

// Sender sends callbacks; *outbound.Client is one.
type Sender interface {
	Check(url string) error
	Post(ctx context.Context, url string, header http.Header, body []byte) (*outbound.Response, error)
}

// Spread is a links.Spread of one run; Close ends it.
type Spread interface {
	links.Spread
	Close()
}

// Options configures a Manager. Every field but Node, Name and Spread is required.
type Options struct {
	Store terse.Store
	Links Linker
	Send  Sender
	// Workspaces returns at most limit ids of workspaces after the given one, ascending.
	Workspaces func(ctx context.Context, after terse.WorkspaceID, limit int) ([]terse.WorkspaceID, error)
	Dir        string // the data folder: uploads/ and jobs/ are made in it
	// Node names the data folder where other nodes with jobs of their own use the store, too: this one leaves theirs
	// alone. "": all jobs are its.
	Node      string
	Name      string        // of this node, for people
	Spread    func() Spread // has other nodes take part in a run; nil: there are none
	Clock     func() terse.Millis
	Log       *slog.Logger
	Workers   int
	MaxUpload int64 // bytes
	// Body renders a job as its callback carries it; set by package api before Start.
	Body func(*Snapshot) ([]byte, error)
}

// Manager keeps jobs and runs them.
type Manager struct {
	o       Options
	Uploads *Uploads
	results string
	ctx     context.Context
	cancel  context.CancelFunc
	wake    chan struct{}
	ring    chan struct{} // a callback is due
	wg      sync.WaitGroup

	mu       sync.Mutex
	jobs     map[string]*entry
	running  int
	turn     map[terse.WorkspaceID]uint64 // when a workspace last had a turn
	turns    uint64
	sending  map[string]bool
	stopped  bool
	revision atomic.Uint64
}

// entry is one job in memory.
type entry struct {
	id        string // never changes
	home      string // Options.Name
	workspace terse.WorkspaceID
	write     sync.Mutex // held during a transition

	mu      sync.Mutex
	doc     Job
	version uint64
	rev     uint64             // of what a Snapshot shows
	run     context.CancelFunc // of the run under way
	active  bool               // a run has not ended yet
	gone    bool
	taken   bool // another node has the job now
	undone  bool // and was seen to roll it back

	live progress
}

// Open finds the jobs of the workspaces and the files that an earlier process left.
func Open(ctx context.Context, o Options) (*Manager, error) {
	m := &Manager{
		o: o, results: filepath.Join(o.Dir, "jobs"), wake: make(chan struct{}, 1), ring: make(chan struct{}, 1),
		jobs: map[string]*entry{}, turn: map[terse.WorkspaceID]uint64{}, sending: map[string]bool{},
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	// What a process before this one called a revision must not be one of now: whoever
	// resumes the events of a job would miss its end.
	m.revision.Store(rand.Uint64() >> 1)
	var err error
	if m.Uploads, err = openUploads(filepath.Join(o.Dir, "uploads"), o.Node, o.MaxUpload, o.Clock, o.Log); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(m.results, 0o700); err != nil {
		return nil, fmt.Errorf("make jobs folder: %w", err)
	}
	if left, err := filepath.Glob(filepath.Join(m.results, "repeats-*.tmp")); err == nil { // of dry runs that were cut
		for _, path := range left {
			if err := os.RemoveAll(path); err != nil {
				o.Log.Warn("remove what a dry run left", "error", err)
			}
		}
	}
	elsewhere := map[string]bool{}
	for after := terse.WorkspaceID(0); ; {
		list, err := o.Workspaces(ctx, after, 500)
		if err != nil {
			return nil, fmt.Errorf("open jobs: %w", err)
		}
		if len(list) == 0 {
			break
		}
		for _, w := range list {
			if err := m.load(ctx, w, elsewhere); err != nil {
				return nil, fmt.Errorf("open jobs: %w", err)
			}
			after = w
		}
	}
	if err := m.removeOrphans(elsewhere); err != nil {
		return nil, err
	}
	return m, nil
}

// load reads the jobs of a workspace. Those of other nodes it notes in elsewhere: true if they were another one's before.
func (m *Manager) load(ctx context.Context, w terse.WorkspaceID, elsewhere map[string]bool) error {
	for after := ""; ; {
		docs, err := m.o.Store.ListDocuments(ctx, w, terse.KindJob, after, 500)
		if err != nil || len(docs) == 0 {
			return err
		}
		for _, d := range docs {
			after = d.ID
			e := &entry{id: d.ID, home: m.o.Name, workspace: w, version: d.Version, rev: m.revision.Add(1)}
			if err := json.Unmarshal(d.Data, &e.doc); err != nil {
				return fmt.Errorf("job %s: %w", d.ID, err)
			}
			if !m.mine(&e.doc) {
				elsewhere[d.ID] = e.doc.LostBy != "" // its results count for nothing anywhere, see HasResult
				continue
			}
			if e.doc.State == Running { // the process ended in the middle of it
				e.doc.State = Queued
			}
			e.live.set(e.doc.Counts, 0, 0)
			m.jobs[d.ID] = e
			m.Uploads.mu.Lock()
			if u := m.Uploads.list[e.doc.Spec.Upload]; u != nil {
				u.sealed = true
			}
			m.Uploads.mu.Unlock()
		}
	}
}

// mine reports whether a stored job is this node's. One from before there were several is that of the node which has its
// upload or its results: uploads go first.
func (m *Manager) mine(j *Job) bool {
	if m.o.Node == "" || j.Node == m.o.Node {
		return true
	}
	if j.Node != "" {
		return false
	}
	if _, err := os.Stat(m.resultPath(j)); err == nil {
		return true
	}
	m.Uploads.mu.Lock()
	defer m.Uploads.mu.Unlock()
	return m.Uploads.list[j.Spec.Upload] != nil
}

// SetBody says how callbacks show a job. It is called once, before Start.
func (m *Manager) SetBody(f func(*Snapshot) ([]byte, error)) { m.o.Body = f }

// Start begins to run jobs, those that were interrupted first.
func (m *Manager) Start() {
	m.wg.Go(m.schedule)
	m.wg.Go(m.callbacks)
	if m.o.Node != "" {
		m.wg.Go(m.look)
	}
	m.wg.Go(func() { m.tidy(time.Hour) })
}

// Stop interrupts what runs, which goes on after the next start, and waits for it.
// A Manager that was never started, or was stopped before, is fine.
func (m *Manager) Stop(ctx context.Context) error {
	m.mu.Lock()
	m.stopped = true
	m.mu.Unlock()
	m.cancel()
	done := make(chan struct{})
	go func() { m.wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop jobs: %w", ctx.Err())
	}
}

// Stopping is closed when Stop is called.
func (m *Manager) Stopping() <-chan struct{} { return m.ctx.Done() }

func (m *Manager) poke() {
	for _, c := range []chan struct{}{m.wake, m.ring} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
