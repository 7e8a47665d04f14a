package jobs

import (
	"context"
	"errors"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/failpoint"
	"github.com/terselink/terse/internal/inflate"
	"github.com/terselink/terse/internal/links"
)

// Waits after a failure that may pass.
const (
	firstWait terse.Millis = 1000
	maxWait   terse.Millis = 60 * 1000
)

// schedule hands queued jobs to workers until the manager stops. Workspaces take turns,
// and within one the oldest job goes first.
func (m *Manager) schedule() {
	t := time.NewTicker(500 * time.Millisecond) // for jobs that wait for a moment
	defer t.Stop()
	for {
		for {
			e, ctx := m.next()
			if e == nil {
				break
			}
			m.wg.Go(func() { m.run(ctx, e) })
		}
		select {
		case <-m.ctx.Done():
			return
		case <-m.wake:
		case <-t.C:
		}
	}
}

// next takes the job whose turn it is; nil if there is none or no worker is free.
func (m *Manager) next() (*entry, context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped || m.running >= m.o.Workers {
		return nil, nil
	}
	now := m.o.Clock()
	var best *entry
	for _, e := range m.jobs {
		e.mu.Lock()
		ready := e.doc.State == Queued && !e.active && e.doc.NotBefore <= now
		e.mu.Unlock()
		if !ready {
			continue
		}
		if best == nil || m.turn[e.workspace] < m.turn[best.workspace] || m.turn[e.workspace] == m.turn[best.workspace] && e.id < best.id {
			best = e
		}
	}
	if best == nil {
		return nil, nil
	}
	m.turns++
	m.turn[best.workspace] = m.turns
	m.running++
	ctx, cancel := context.WithCancel(m.ctx)
	best.mu.Lock()
	best.active, best.run = true, cancel
	best.mu.Unlock()
	return best, ctx
}

// run runs a job until it ends, is interrupted or has to wait.
func (m *Manager) run(ctx context.Context, e *entry) {
	left := false
	defer func() {
		e.mu.Lock()
		if !left {
			e.leave()
		}
		gone, j := e.gone, e.doc
		e.mu.Unlock()
		if gone { // maybe since the end was written, while the run still counted as one
			m.removeFiles(&j)
		}
		m.mu.Lock()
		m.running--
		m.mu.Unlock()
		m.poke()
	}()
	failpoint.Hit(failpoint.JobStarting)
	err := m.transition(ctx, e, func(j *Job) error {
		if j.State != Queued {
			return errState(j.State, "run")
		}
		j.State, j.Fault = Running, nil
		if j.StartedAt == 0 {
			j.StartedAt = m.o.Clock()
		}
		return nil
	})
	if err != nil {
		if code := terse.ErrorCode(err); code != terse.CodeConflict && code != terse.CodeNotFound && ctx.Err() == nil {
			m.o.Log.Warn("a job could not be started; it is tried again", "job", e.id, "error", err)
			m.postpone(e)
		}
		return
	}
	failpoint.Hit(failpoint.JobStarted)
	e.mu.Lock()
	j := e.doc
	e.mu.Unlock()
	report, err := m.guarded(ctx, e, &j)
	if left = m.settle(ctx, e, report, err); !left {
		m.wg.Go(func() { m.undo(e) }) // which may take long: the worker is free
	}
}

// leave ends the run of a job; e.mu is held.
func (e *entry) leave() {
	e.run()
	e.active, e.run = false, nil
}

// postpone keeps a job that could not even be marked from being taken again at once.
func (m *Manager) postpone(e *entry) {
	e.mu.Lock()
	e.doc.NotBefore = m.o.Clock() + firstWait
	e.mu.Unlock()
}

// guarded turns a panic into an error of the job.
func (m *Manager) guarded(ctx context.Context, e *entry, j *Job) (report *Report, err error) {
	defer func() {
		if r := recover(); r != nil {
			m.o.Log.Error("a job panicked", "job", j.ID, "panic", r, "stack", string(debug.Stack()))
			err = &terse.Error{Code: terse.CodeInternal, Message: "an internal error; the server's log has it"}
		}
	}()
	if j.RollingBack {
		return nil, m.rollback(ctx, e, j)
	}
	return m.bulk(ctx, e, j)
}

// settle writes down how a run ended. It goes on trying while the store is down: a job
// that has ended must not look as if it ran. It reports whether that was written, and the run
// left with it: whoever sees the end may read the results, or roll the job back, at once.
func (m *Manager) settle(ctx context.Context, e *entry, report *Report, err error) (left bool) {
	change := func(j *Job) error {
		e.live.keep(j, m.o.Name)
		if report != nil {
			j.Counts.Rows, j.Report = j.Counts.Done, report
		}
		if j.State != Running { // paused or cancelled meanwhile
			if err == nil && j.State == Paused {
				m.end(j, m.success(j))
			}
			return nil
		}
		switch {
		case err == nil:
			j.Fault = nil
			m.end(j, m.success(j))
		case m.ctx.Err() != nil:
			j.State = Queued // goes on after the next start
		case temporary(err):
			j.State, j.Attempts = Queued, j.Attempts+1
			j.NotBefore = m.o.Clock() + min(firstWait<<min(j.Attempts-1, 10), maxWait)
			j.Fault = faultOf(err)
		default:
			j.Fault = faultOf(err)
			m.end(j, Failed)
		}
		return nil
	}
	if err != nil && ctx.Err() == nil {
		m.o.Log.Warn("a job has stopped", "job", e.id, "retried", temporary(err), "error", err)
	}
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-wait.C:
		case <-m.ctx.Done():
		}
		failpoint.Hit(failpoint.JobEnding)
		perr := m.transitionThen(context.WithoutCancel(ctx), e, change, e.leave)
		failpoint.Hit(failpoint.JobEnded)
		if perr == nil {
			return true
		}
		if errors.Is(perr, terse.ErrNotFound) || m.ctx.Err() != nil {
			return false // at a stop: what is stored says running, and the next start goes on
		}
		m.o.Log.Warn("the end of a job could not be written; trying again", "job", e.id, "error", perr)
		wait.Reset(time.Second)
	}
}

func (m *Manager) success(j *Job) State {
	if j.RollingBack {
		return RolledBack
	}
	return Done
}

// temporary reports whether an error may pass by itself.
func temporary(err error) bool {
	switch terse.ErrorCode(err) {
	case terse.CodeUnavailable, terse.CodeUnknownOutcome:
		return true
	}
	e, ok := errors.AsType[*terse.Error](err)
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || ok && e.Reason == "idempotency_in_progress"
}

func faultOf(err error) *Fault {
	if e, ok := errors.AsType[*terse.Error](err); ok {
		message := terse.Message(e)
		if e.Field != "" {
			message = e.Field + ": " + message
		}
		return &Fault{Code: e.PublicCode(), Message: message}
	}
	return &Fault{Code: string(terse.CodeInternal), Message: terse.Message(err)}
}

func (m *Manager) actor(j *Job) links.Actor {
	return links.Actor{Workspace: j.Workspace, By: j.By}
}

func (m *Manager) rollback(ctx context.Context, e *entry, j *Job) error {
	e.live.set(j.Counts, int64(j.Counts.Created), m.o.Clock())
	_, err := m.o.Links.Rollback(ctx, m.actor(j), j.ID, func(n uint64) { e.live.deleted(n, m.o.Clock()) })
	return err
}

// formats are those of rows and of results. The pipeline renders no Parquet: it hands the
// results over one by one.
var formats = map[string]links.Format{"ndjson": links.NDJSON, "csv": links.CSV, "json": links.JSON, "parquet": links.NoOutput}

// formatOf guesses the form of the rows; "" if nothing tells.
func formatOf(contentType, filename string) string {
	mediaType, _, _ := strings.Cut(contentType, ";")
	switch strings.ToLower(strings.TrimSpace(mediaType)) {
	case "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines":
		return "ndjson"
	case "text/csv":
		return "csv"
	case "application/json":
		return "json"
	}
	_, filename = inflate.ByName(filename)
	switch strings.ToLower(filepath.Ext(filename)) {
	case ".ndjson", ".jsonl":
		return "ndjson"
	case ".csv":
		return "csv"
	case ".json":
		return "json"
	}
	return ""
}

// bulk runs the file through the bulk pipeline, from its first byte. Batches that an
// earlier run committed are answered from the ledger, so the result file is whole
// whatever happened before.
func (m *Manager) bulk(ctx context.Context, e *entry, j *Job) (*Report, error) {
	if m.tooOld(j) {
		return nil, errTooOld()
	}
	in, err := m.openRows(j)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	e.live.set(Counts{}, j.Bytes, m.o.Clock())
	out, err := newSink(m.resultPath(j), m.errorPath(j), m.results, &j.Spec)
	if err != nil {
		return nil, diskError(err)
	}
	defer out.abandon()
	if h := in.header; h.Names != nil {
		out.lines = in.lines
		if err := out.rows.Header(h.Line, h.Names[0], ','); err != nil {
			return nil, diskError(err)
		}
	}
	o := links.BulkOptions{
		Domain: j.Spec.Domain, Campaign: j.Spec.Campaign, In: formats[j.Spec.Format], Out: formats[j.Spec.ResultFormat],
		MaxBytes: m.maxBytes(j), DryRun: j.Spec.DryRun, Each: out.each,
		Progress: func(p links.BulkProgress) {
			e.live.rowsDone(&p, in.fileBytes(p.Bytes), m.o.Clock())
		},
	}
	if !j.Spec.DryRun {
		o.Ledger = j.ID
	}
	if m.o.Spread != nil {
		spread := m.o.Spread()
		defer spread.Close()
		o.Spread = spread
	}
	sum, err := m.o.Links.Bulk(ctx, m.actor(j), o, in, out)
	if err != nil {
		return nil, err
	}
	e.live.rowsDone(&links.BulkProgress{BulkSummary: sum}, in.src.n.Load(), m.o.Clock())
	return out.finish(sum, &j.Spec, func() (*rowReader, error) { return m.openRows(j) })
}
