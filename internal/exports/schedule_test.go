package exports_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/bucket/buckettest"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/export"
	"github.com/terselink/terse/internal/exports"
	"github.com/terselink/terse/internal/store/memstore"
)

// folder is a bucket in memory that fails when it is told to.
type folder struct {
	mu      sync.Mutex
	objects map[string]string
	puts    int
	fail    error // the next put fails so
	applied bool  // and stores the object nevertheless
	during  func()
	refuse  string // the object of which puts fail
}

func (f *folder) Put(_ context.Context, name, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if f.during != nil {
		f.during()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.puts++
	err = f.fail
	f.fail = nil
	if f.refuse == name {
		err = errAway
	}
	if err == nil || f.applied {
		f.objects[name] = string(data)
	}
	return err
}

var errAway = &terse.Error{Code: terse.CodeUnavailable, Message: "s3://b does not answer"}

// schedules is a scheduler over made-up clicks.
type schedules struct {
	t      *testing.T
	now    terse.Millis
	status analytics.Status
	store  terse.Store
	dir    string
	bucket *folder
	src    analytics.Engine
	terms  analytics.Terms

	termsErr error
	*exports.Scheduler
}

func newSchedules(t *testing.T) *schedules {
	s := &schedules{t: t, now: enginetest.SpanFrom + 5*24*3600_000 + 1800_000, status: analytics.Status{State: analytics.StateReady, LagKnown: true}, dir: t.TempDir(),
		bucket: &folder{objects: map[string]string{}}, src: enginetest.NewReference(enginetest.Events(4, 12_000))}
	s.store = memstore.New(s.clock)
	s.open(s.bucket)
	return s
}

// engineNow is the engine that a test has set last.
type engineNow struct{ s *schedules }

func (e engineNow) Clicks(ctx context.Context, q analytics.Query, p analytics.Page) ([]clicks.Event, error) {
	return e.s.src.Clicks(ctx, q, p)
}

func (e engineNow) Timeseries(ctx context.Context, q analytics.Query) (analytics.Timeseries, error) {
	return e.s.src.Timeseries(ctx, q)
}

func (s *schedules) clock() terse.Millis { return s.now }

func (s *schedules) open(b exports.Bucket) {
	s.t.Helper()
	var err error
	s.Scheduler, err = exports.OpenScheduler(exports.SchedulerOptions{
		Store: s.store, Source: engineNow{s}, Bucket: b, Dir: s.dir, Clock: s.clock, Log: slog.New(slog.DiscardHandler),
		Status: func(context.Context) analytics.Status { return s.status },
		Terms:  func(context.Context, terse.WorkspaceID) (analytics.Terms, error) { return s.terms, s.termsErr },
		Workspaces: func(_ context.Context, after terse.WorkspaceID, _ int) ([]terse.WorkspaceID, error) {
			if after < enginetest.Workspace {
				return []terse.WorkspaceID{enginetest.Workspace}, nil
			}
			return nil, nil
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *schedules) create(n exports.NewSchedule) exports.Schedule {
	s.t.Helper()
	if n.Format == "" {
		n.Format = export.CSV
	}
	if n.Query.Filters == nil {
		n.Query.Filters = []analytics.Filter{}
	}
	e, err := s.Create(s.t.Context(), enginetest.Workspace, "key", n, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

func (s *schedules) round() {
	s.t.Helper()
	if err := s.Round(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, "*")); len(left) > 0 {
		s.t.Errorf("left on the disk: %v", left)
	}
}

func (s *schedules) get(id string) exports.Schedule {
	s.t.Helper()
	e, err := s.Get(s.t.Context(), enginetest.Workspace, id)
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

// check holds the objects against the clicks of a range: all of them, each once, each in the object of its time.
func (s *schedules) check(e exports.Schedule, from, to terse.Millis) {
	s.t.Helper()
	want := map[string]bool{}
	q := analytics.Query{Workspace: e.Workspace, From: from, To: to, Filters: []analytics.Filter{}, Bots: e.Query.Bots, Every: e.Query.Every}
	events, err := s.src.Clicks(s.t.Context(), q, analytics.Page{Limit: analytics.MaxClicks})
	if err != nil || len(events) == 0 {
		s.t.Fatalf("%d clicks to compare with, %v", len(events), err)
	}
	for i := range events {
		want[terse.ClickID(events[i].ID).String()] = true
	}
	got := map[string]bool{}
	for at := from; at < to; at += terse.Millis(time.Hour.Milliseconds()) {
		name := fmt.Sprintf("%s/%s/dt=%s/hour=%02d/clicks.csv", e.Workspace, e.Prefix, at.Time().Format(time.DateOnly), at.Time().Hour())
		text, there := s.bucket.objects[name]
		if !there {
			s.t.Errorf("%s is missing", name)
		}
		for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
			id, rest, _ := strings.Cut(line, ",")
			switch {
			case i == 0 && id != "id":
				s.t.Errorf("%s has no header", name)
			case i == 0:
			case got[id]:
				s.t.Errorf("%s is there twice", id)
			case !strings.HasPrefix(rest, at.Time().Format("2006-01-02T15:")):
				s.t.Errorf("%s: a click of %s", name, rest)
			default:
				got[id] = true
			}
		}
	}
	if !maps.Equal(want, got) {
		s.t.Errorf("%d clicks are exported, %d were made", len(got), len(want))
	}
	if n := (to - from) / 3600_000; len(s.bucket.objects) != int(n) {
		s.t.Errorf("%d objects, want %d: %v", len(s.bucket.objects), n, slices.Sorted(maps.Keys(s.bucket.objects)))
	}
}

// TestSchedule: every hour has its object, once, also after downtime, failures of both kinds, a restart and a pause.
func TestSchedule(t *testing.T) {
	t.Parallel()
	const hour = terse.Millis(3600_000)
	s := newSchedules(t)
	from := s.now - s.now%hour - 3*hour
	e := s.create(exports.NewSchedule{Name: "all", Every: exports.Hourly, From: from + 5, Query: analytics.Query{Every: true, Bots: analytics.BotsInclude}})
	if e.Next != from || e.Prefix != e.ID {
		t.Errorf("created %+v", e)
	}
	s.round() // three at once
	s.check(e, from, from+3*hour)

	s.now += hour - 1800_000 + 60_000 // a minute after the end: clicks may be on their way
	s.round()
	s.check(e, from, from+3*hour)
	s.now += 120_000
	s.status.LagMs = 10 * 60_000 // the engine has not counted them
	s.round()
	s.status = analytics.Status{State: analytics.StateRebuilding}
	s.round()
	s.check(e, from, from+3*hour)
	s.status = analytics.Status{State: analytics.StateReady} // just started: it knows nothing yet
	s.round()
	s.check(e, from, from+3*hour)
	s.status = analytics.Status{State: analytics.StateReady, LagMs: 5, LagKnown: true}

	for i, applied := range []bool{false, true, false, true} {
		s.bucket.fail, s.bucket.applied = errAway, applied
		s.round()
		got := s.get(e.ID)
		wait := time.Minute << i
		if got.Attempts != i+1 || !strings.Contains(got.Fault, "the bucket does not answer") || strings.Contains(got.Fault, "s3://") || !strings.Contains(got.Fault, "hour=") || got.Next != from+3*hour || got.NotBefore != s.now+terse.Millis(wait.Milliseconds()) {
			t.Errorf("after %d failures: %+v", i+1, got)
		}
		s.round() // not before
		if n := s.get(e.ID).Attempts; n != i+1 {
			t.Errorf("tried again at once: %d", n)
		}
		s.now = got.NotBefore
	}
	s.open(s.bucket) // a restart
	s.round()
	s.check(e, from, from+4*hour)
	if got := s.get(e.ID); got.Attempts != 0 || got.Fault != "" || got.Objects != 4 || got.Next != from+4*hour || got.Object != e.ObjectName(from+3*hour) || got.DoneAt != s.now {
		t.Errorf("after a success: %+v", got)
	}

	if _, err := s.SetPaused(t.Context(), e.Workspace, e.ID, true); err != nil {
		t.Fatal(err)
	}
	s.now += 5 * hour
	s.round()
	s.check(e, from, from+4*hour)
	if got, err := s.SetPaused(t.Context(), e.Workspace, e.ID, false); err != nil || got.Paused {
		t.Fatal(got, err)
	}
	s.bucket.during = func() { // somebody changes the schedule while it is carried out
		s.bucket.during = nil
		if _, err := s.SetPaused(t.Context(), e.Workspace, e.ID, true); err != nil {
			t.Error(err)
		}
	}
	s.round()
	if !s.get(e.ID).Paused {
		t.Error("a pause got lost")
	}
	if _, err := s.SetPaused(t.Context(), e.Workspace, e.ID, false); err != nil {
		t.Fatal(err)
	}
	s.round()
	s.check(e, from, from+9*hour)

	s.now += hour
	s.bucket.during = func() {
		if err := s.Delete(t.Context(), e.Workspace, e.ID); err != nil && !errors.Is(err, terse.ErrNotFound) {
			t.Error(err)
		}
	}
	s.round()
	if _, err := s.Get(t.Context(), e.Workspace, e.ID); !errors.Is(err, terse.ErrNotFound) {
		t.Errorf("a schedule that was deleted while it was carried out: %v", err)
	}
	if done, failed := s.Made(); done == 0 || failed != 0 { // since the restart
		t.Errorf("%d done, %d failed", done, failed)
	}
}

// TestScheduleRefuses lists what cannot be a schedule.
func TestScheduleRefuses(t *testing.T) {
	t.Parallel()
	s := newSchedules(t)
	s.create(exports.NewSchedule{Every: exports.Daily, Prefix: "a/b", Format: export.Parquet})
	for name, c := range map[string]struct {
		n    exports.NewSchedule
		code terse.Code
	}{
		"no cadence":         {exports.NewSchedule{}, terse.CodeInvalid},
		"another cadence":    {exports.NewSchedule{Every: "weekly"}, terse.CodeInvalid},
		"the future":         {exports.NewSchedule{Every: exports.Hourly, From: s.now + 1}, terse.CodeInvalid},
		"too long ago":       {exports.NewSchedule{Every: exports.Hourly, From: 1}, terse.CodeInvalid},
		"a prefix climbs":    {exports.NewSchedule{Every: exports.Hourly, Prefix: "a/../x"}, terse.CodeInvalid},
		"a prefix is no one": {exports.NewSchedule{Every: exports.Hourly, Prefix: "/a"}, terse.CodeInvalid},
		"a long name":        {exports.NewSchedule{Every: exports.Hourly, Name: strings.Repeat("n", 201)}, terse.CodeInvalid},
		"a prefix is taken":  {exports.NewSchedule{Every: exports.Hourly, Prefix: "a/b"}, terse.CodeConflict},
		"one lies within":    {exports.NewSchedule{Every: exports.Hourly, Prefix: "a/b/c"}, terse.CodeConflict},
		"one lies around":    {exports.NewSchedule{Every: exports.Hourly, Prefix: "a"}, terse.CodeConflict},
	} {
		c.n.Format = export.CSV
		if _, err := s.Create(t.Context(), enginetest.Workspace, "key", c.n, nil); terse.ErrorCode(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	s.open(nil)
	if _, err := s.Create(t.Context(), enginetest.Workspace, "key", exports.NewSchedule{Every: exports.Hourly, Format: export.CSV}, nil); terse.ErrorCode(err) != terse.CodeUnavailable {
		t.Errorf("without a bucket: %v", err)
	}
	if list, err := s.List(t.Context(), enginetest.Workspace); err != nil || len(list) != 1 {
		t.Errorf("%d schedules, %v", len(list), err)
	}
}

// TestScheduleBucket exports two days into a real bucket.
func TestScheduleBucket(t *testing.T) {
	t.Parallel()
	s := newSchedules(t)
	b := buckettest.Open(t, buckettest.New(t))
	s.open(b)
	day := terse.Millis((24 * time.Hour).Milliseconds())
	e := s.create(exports.NewSchedule{Every: exports.Daily, Prefix: "team/daily", Format: export.Parquet, From: s.now - 2*day})
	s.round()
	first := (s.now - 2*day).Time().Format(time.DateOnly)
	want := []string{e.Workspace.String() + "/team/daily/dt=" + first + "/clicks.parquet", e.Workspace.String() + "/team/daily/dt=" + (s.now - day).Time().Format(time.DateOnly) + "/clicks.parquet"}
	if got := buckettest.Names(t, b); !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	path := filepath.Join(t.TempDir(), "clicks.parquet")
	if err := b.Get(t.Context(), want[0], path); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || len(data) < 1000 || string(data[:4]) != "PAR1" || string(data[len(data)-4:]) != "PAR1" {
		t.Errorf("%d bytes that are no Parquet, %v", len(data), err)
	}
}

// TestScheduleAtOnce: of schedules with one prefix that are created at once, one is made.
func TestScheduleAtOnce(t *testing.T) {
	t.Parallel()
	s := newSchedules(t)
	made := make(chan error)
	for range 8 {
		go func() {
			_, err := s.Create(t.Context(), enginetest.Workspace, "key", exports.NewSchedule{Every: exports.Daily, Prefix: "same", Format: export.CSV}, nil)
			made <- err
		}()
	}
	n := 0
	for range 8 {
		if err := <-made; err == nil {
			n++
		} else if terse.ErrorCode(err) != terse.CodeConflict {
			t.Error(err)
		}
	}
	if n != 1 {
		t.Errorf("%d were made", n)
	}
}
