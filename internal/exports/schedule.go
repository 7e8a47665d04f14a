package exports

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/export"
)

// SchedulePrefix begins the ids of schedules.
const SchedulePrefix = "exps_"

// MaxSchedules bounds the schedules of a workspace.
const MaxSchedules = 50

// MaxBehind bounds how many objects a new schedule may have to make for the time before it.
const MaxBehind = 5000

const (
	settleWait   = 2 * time.Minute // after the end of a period, for clicks on their way
	minRetryWait = time.Minute     // after a failure, doubled up to maxRetryWait
	maxRetryWait = time.Hour
)

// Every is how often a schedule exports.
type Every string

// The values of Every. Periods are of UTC.
const (
	Hourly Every = "hourly"
	Daily  Every = "daily"
)

func (e Every) millis() terse.Millis {
	if e == Hourly {
		return terse.Millis(time.Hour.Milliseconds())
	}
	return terse.Millis((24 * time.Hour).Milliseconds())
}

// Schedule exports the clicks of every hour or day into an object of a bucket. Next is all its progress: periods before
// it are there, whole as far as clicks were counted (Watched); the one that begins with it is not, or is going to be written again under the same name.
type Schedule struct {
	ID        string            `json:"id"`
	Workspace terse.WorkspaceID `json:"workspace"`
	By        string            `json:"by"`
	Name      string            `json:"name"`
	Every     Every             `json:"every"`
	Query     Query             `json:"query"` // its range is not used
	Format    export.Format     `json:"format"`
	RawCSV    bool              `json:"raw_csv,omitempty"`
	Prefix    string            `json:"prefix"` // of the names of its objects, after that of the workspace
	Paused    bool              `json:"paused,omitempty"`
	Next      terse.Millis      `json:"next"`
	Attempts  int               `json:"attempts,omitempty"`   // that failed since the last success
	NotBefore terse.Millis      `json:"not_before,omitempty"` // of the next one
	Fault     string            `json:"fault,omitempty"`      // why the last one failed, for people
	Objects   int64             `json:"objects"`              // made so far
	Object    string            `json:"object,omitempty"`     // the name of the last one in the bucket
	Rows      int64             `json:"rows,omitempty"`       // of the last one
	DoneAt    terse.Millis      `json:"done_at,omitempty"`    // when it was made
	CreatedAt terse.Millis      `json:"created_at"`
	// Watched are the objects that are made again when clicks of their time are counted later, in the order of time.
	Watched     []Watched    `json:"watched,omitempty"`
	Again       int64        `json:"again,omitempty"`        // how often objects were made again
	AgainObject string       `json:"again_object,omitempty"` // the last of them
	AgainAt     terse.Millis `json:"again_at,omitempty"`
	// Incomplete counts the objects that were made when the workspace did not keep all clicks of their time any more.
	Incomplete int64 `json:"incomplete,omitempty"`
}

// Watched is an object that may have to be made again.
type Watched struct {
	From  terse.Millis `json:"from"`  // where its period begins
	Count int64        `json:"count"` // what the engine counted before it was made; -1: not known

	Again     int          `json:"again,omitempty"`      // how often it was made again
	Attempts  int          `json:"attempts,omitempty"`   // to make it again that failed since the last success
	NotBefore terse.Millis `json:"not_before,omitempty"` // of the next one
	Fault     string       `json:"fault,omitempty"`      // why the last one failed, for people
}

// ObjectName returns the name of the object of the period that begins at a time: it depends on nothing else, so that
// an attempt that is repeated replaces its own object.
func (e *Schedule) ObjectName(from terse.Millis) string {
	name := e.Workspace.String() + "/" + e.Prefix + "/dt=" + from.Time().Format(time.DateOnly)
	if e.Every == Hourly {
		name += fmt.Sprintf("/hour=%02d", from.Time().Hour())
	}
	return name + "/clicks." + string(e.Format)
}

// document returns the stored form of a version.
func (e *Schedule) document(version uint64) (terse.Document, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return terse.Document{}, err
	}
	return terse.Document{Workspace: e.Workspace, Kind: terse.KindExportSchedule, ID: e.ID, Version: version, Data: data}, nil
}

// Bucket is where the objects go.
type Bucket interface {
	// Put sends a file; the object is whole and durable on return, and replaces what had the name.
	Put(ctx context.Context, name, path string) error
}

// SchedulerOptions configure a Scheduler. Fields without a remark are required.
type SchedulerOptions struct {
	Store      Store
	Source     ScheduleSource
	Status     func(ctx context.Context) analytics.Status // of the source: what has not been counted is not exported yet
	Bucket     Bucket                                     // nil: there is none, and no schedule can be made
	Dir        string                                     // of files on their way, made if missing
	Workspaces func(ctx context.Context, after terse.WorkspaceID, limit int) ([]terse.WorkspaceID, error)
	// Terms says how long a workspace keeps its clicks: what is not kept whole any more is not made again, and is said to
	// be incomplete when it is made.
	Terms func(ctx context.Context, w terse.WorkspaceID) (analytics.Terms, error)
	Clock func() terse.Millis
	Log   *slog.Logger
}

// ScheduleSource hands out clicks and counts them. Analytics engines do.
type ScheduleSource interface {
	export.Source
	Timeseries(ctx context.Context, q analytics.Query) (analytics.Timeseries, error)
}

// Scheduler keeps schedules and carries them out. It is safe for concurrent use.
type Scheduler struct {
	o    SchedulerOptions
	wake chan struct{}

	creating            sync.Mutex // held from the look at the others until a schedule is there
	done, again, failed atomic.Int64

	looked map[string]terse.Millis // by schedule, when its objects were last compared; of the goroutine of Run
}

// OpenScheduler makes the folder and removes what was on its way when a process ended.
func OpenScheduler(o SchedulerOptions) (*Scheduler, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open export schedules: %w", err)
	}
	parts, err := filepath.Glob(filepath.Join(o.Dir, SchedulePrefix+"*"))
	for _, p := range parts {
		err = errors.Join(err, os.Remove(p))
	}
	if err != nil {
		return nil, fmt.Errorf("open export schedules: %w", err)
	}
	return &Scheduler{o: o, wake: make(chan struct{}, 1), looked: map[string]terse.Millis{}}, nil
}

// Made returns how many objects were made since the start, and how many attempts failed.
func (s *Scheduler) Made() (done, failed int64) { return s.done.Load(), s.failed.Load() }

// MadeAgain returns how many objects were made again since the start, for clicks that were counted later.
func (s *Scheduler) MadeAgain() int64 { return s.again.Load() }

// NewSchedule describes a schedule.
type NewSchedule struct {
	Name   string
	Every  Every
	Query  analytics.Query // its range does not matter
	Format export.Format
	RawCSV bool
	Prefix string       // default: the id
	From   terse.Millis // the first period is the one that it lies in; 0: the one that has begun
}

var goodPrefix = regexp.MustCompile(`^[A-Za-z0-9_.=-]+(/[A-Za-z0-9_.=-]+)*$`)

func (n *NewSchedule) check(now terse.Millis) error {
	switch {
	case n.Every != Hourly && n.Every != Daily:
		return terse.Invalid("every", "%q is not hourly or daily", string(n.Every))
	case len(n.Name) > 200:
		return terse.Invalid("name", "is longer than 200 bytes")
	case len(n.Prefix) > 200 || n.Prefix != "" && !goodPrefix.MatchString(n.Prefix) || strings.Contains("/"+n.Prefix+"/", "/../") || strings.Contains("/"+n.Prefix+"/", "/./"):
		return terse.Invalid("prefix", "is not parts of letters, digits, '_', '.', '=' and '-' with slashes between them, 200 bytes at most")
	case n.From > now:
		return terse.Invalid("from", "lies in the future")
	case n.From < 0 || n.From != 0 && (now-n.From)/n.Every.millis() > MaxBehind:
		return terse.Invalid("from", "is more than %d periods ago", MaxBehind)
	}
	return nil
}

// Create makes a schedule; it is durable on return. What also returns for it goes into the same atomic write; nil: nothing.
// Returns an error of code invalid for what cannot be, conflict if another schedule of the workspace has the prefix, and
// unavailable if the server has no bucket.
func (s *Scheduler) Create(ctx context.Context, w terse.WorkspaceID, by string, n NewSchedule, also func(Schedule) ([]terse.Document, error)) (Schedule, error) {
	if s.o.Bucket == nil {
		return Schedule{}, &terse.Error{Code: terse.CodeUnavailable, Reason: "exports_bucket_missing", Message: "this server has no bucket for exports: its operator sets exports.s3.bucket"}
	}
	now := s.o.Clock()
	if err := n.check(now); err != nil {
		return Schedule{}, err
	}
	s.creating.Lock()
	defer s.creating.Unlock()
	list, err := s.List(ctx, w)
	if err != nil {
		return Schedule{}, err
	}
	if len(list) >= MaxSchedules {
		return Schedule{}, terse.Invalid("name", "the workspace has %d schedules, which is the most", MaxSchedules)
	}
	if n.From == 0 {
		n.From = now
	}
	q := n.Query
	e := Schedule{
		ID: SchedulePrefix + strings.TrimPrefix(newID(now), Prefix), Workspace: w, By: by, Name: n.Name, Every: n.Every, Query: Query{Scope: q.Scope, Bots: q.Bots, Filters: q.Filters, Every: q.Every},
		Format: n.Format, RawCSV: n.RawCSV, Prefix: n.Prefix, Next: n.From - n.From%n.Every.millis(), CreatedAt: now,
	}
	if e.Prefix == "" {
		e.Prefix = e.ID
	}
	for i := range list {
		if p := list[i].Prefix + "/"; strings.HasPrefix(p, e.Prefix+"/") || strings.HasPrefix(e.Prefix+"/", p) {
			return Schedule{}, &terse.Error{Code: terse.CodeConflict, Reason: "prefix_taken", Field: "prefix", Message: "another schedule writes there: " + list[i].ID}
		}
	}
	doc, err := e.document(1)
	if err != nil {
		return Schedule{}, fmt.Errorf("create export schedule: %w", err)
	}
	docs := []terse.Document{doc}
	if also != nil {
		more, err := also(e)
		if err != nil {
			return Schedule{}, err
		}
		docs = append(docs, more...)
	}
	if err := s.o.Store.InsertLinks(ctx, &terse.Chunk{Documents: docs}); err != nil {
		return Schedule{}, fmt.Errorf("create export schedule: %w", err)
	}
	s.wakeUp()
	return e, nil
}

func (s *Scheduler) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Scheduler) put(ctx context.Context, e *Schedule, version uint64) error {
	doc, err := e.document(version)
	if err != nil {
		return err
	}
	return s.o.Store.PutDocument(ctx, doc)
}

// Get returns a schedule of the workspace. Returns ErrNotFound.
func (s *Scheduler) Get(ctx context.Context, w terse.WorkspaceID, id string) (Schedule, error) {
	e, _, err := s.get(ctx, w, id)
	return e, err
}

func (s *Scheduler) get(ctx context.Context, w terse.WorkspaceID, id string) (e Schedule, version uint64, err error) {
	if !strings.HasPrefix(id, SchedulePrefix) || len(id) > 100 {
		return e, 0, terse.ErrNotFound
	}
	doc, err := s.o.Store.GetDocument(ctx, w, terse.KindExportSchedule, id)
	if err != nil {
		return e, 0, err
	}
	err = json.Unmarshal(doc.Data, &e)
	return e, doc.Version, err
}

// List returns the schedules of a workspace, the oldest first.
func (s *Scheduler) List(ctx context.Context, w terse.WorkspaceID) (list []Schedule, err error) {
	for after := ""; ; {
		docs, err := s.o.Store.ListDocuments(ctx, w, terse.KindExportSchedule, after, 500)
		if err != nil {
			return nil, fmt.Errorf("list export schedules: %w", err)
		}
		if len(docs) == 0 {
			return list, nil
		}
		for i := range docs {
			after = docs[i].ID
			var e Schedule
			if err := json.Unmarshal(docs[i].Data, &e); err != nil {
				s.o.Log.Error("an export schedule cannot be read", "schedule", docs[i].ID, "error", err)
				continue // it must not keep the others from being carried out
			}
			list = append(list, e)
		}
	}
}

// changeTries is how often a change is made again that met another one.
const changeTries = 20

// change applies fn to a schedule that exists.
func (s *Scheduler) change(ctx context.Context, w terse.WorkspaceID, id string, fn func(e *Schedule)) (Schedule, error) {
	for try := 0; ; try++ {
		e, version, err := s.get(ctx, w, id)
		if err != nil {
			return e, err
		}
		fn(&e)
		if err = s.put(ctx, &e, version+1); err == nil {
			return e, nil
		}
		if !errors.Is(err, terse.ErrVersion) || try == changeTries {
			return e, err
		}
	}
}

// SetPaused stops a schedule, or lets it go on where it was: what it missed it exports then. Returns ErrNotFound.
func (s *Scheduler) SetPaused(ctx context.Context, w terse.WorkspaceID, id string, paused bool) (Schedule, error) {
	e, err := s.change(ctx, w, id, func(e *Schedule) {
		e.Paused = paused
		if !paused { // whoever resumes wants to see at once whether it works now
			e.NotBefore = 0
			for i := range e.Watched {
				if e.Watched[i].Attempts > 0 {
					e.Watched[i].NotBefore = 0
				}
			}
		}
	})
	s.wakeUp()
	return e, err
}

// Delete removes a schedule; its objects stay. Returns ErrNotFound.
func (s *Scheduler) Delete(ctx context.Context, w terse.WorkspaceID, id string) error {
	if _, _, err := s.get(ctx, w, id); err != nil {
		return err
	}
	return s.o.Store.DeleteDocument(ctx, w, terse.KindExportSchedule, id, 0)
}
