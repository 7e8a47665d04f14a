package jobs

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/links"
)

// Snapshot is a job as it is now.
type Snapshot struct {
	Job
	Revision      string        // another one after every change, also of progress
	RowsPerSecond float64       // 0 unless it runs
	ETA           time.Duration // until the end; negative: not known
	// Part of the file whose rows are done in this run, or of the links that are rolled back; 1 at the end. Of a job that does not
	// run, how far it was when it last did.
	Part float64
}

// HasResult reports whether the job has results to fetch. One that was rolled back before its
// last row has none: its files end anywhere.
func (s *Snapshot) HasResult() bool {
	return s.StartedAt != 0 && s.LostBy == "" && (s.State == Done || s.State == RolledBack && s.Report != nil)
}

func (e *entry) snapshot() Snapshot {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.snapshotLocked()
}

func (e *entry) snapshotLocked() Snapshot {
	s := Snapshot{Job: e.doc, Revision: fmt.Sprintf("%d-%d", e.rev, e.live.changes()), ETA: -1, Part: e.doc.Reached}
	if e.doc.State == Queued || e.doc.State == Running {
		s.Nodes = e.live.nodes(&s.Job, e.home)
		s.Counts, s.Part = e.live.counts(s.Counts), e.live.part(s.Part)
		if e.doc.State == Running {
			s.RowsPerSecond, s.ETA = e.live.rate()
		}
	}
	if s.State == Done || s.State == RolledBack {
		s.Part = 1
	}
	return s
}

// progress is what a run tells while it runs.
type progress struct {
	mu         sync.Mutex
	c          Counts
	elsewhere  map[string]uint64 // rows of this run that other nodes made the results of, by their names
	bytes      int64             // of the file, up to the last row that is done
	total      int64
	at         terse.Millis
	n          uint64 // changes
	markAt     terse.Millis
	markRows   uint64
	markBytes  int64
	rows, read float64 // a second, over the last window
}

// window is how long rates are measured over, in milliseconds.
const window = 2000

// set begins to measure at now; 0: with the first rows.
func (p *progress) set(c Counts, total int64, now terse.Millis) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.elsewhere = nil
	p.c, p.bytes, p.total, p.markAt, p.markRows, p.markBytes, p.rows, p.read = c, 0, total, now, 0, 0, 0, 0
}

// rowsDone takes the counts of a run, and who made the results of its last batch: at once, because the rows of this node are
// those that no other one made.
func (p *progress) rowsDone(s *links.BulkProgress, bytes int64, now terse.Millis) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.By != "" {
		if p.elsewhere == nil {
			p.elsewhere = map[string]uint64{}
		}
		p.elsewhere[s.By] += s.ByRows
	}
	p.c.Created, p.c.Reused, p.c.Failed = s.Created, s.Reused, s.Failed
	p.c.Done = s.Created + s.Reused + s.Failed
	p.bytes = bytes
	p.measure(p.c.Done, now)
}

// keep puts how far the run is into what is stored.
func (p *progress) keep(j *Job, home string) {
	j.Nodes = p.nodes(j, home)
	j.Counts, j.Reached = p.counts(j.Counts), p.part(j.Reached)
}

// nodes returns who made the results of the run, this node first; what is stored if this process did not run the job.
func (p *progress) nodes(j *Job, home string) []NodeRows {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.total <= 0 || j.RollingBack {
		return j.Nodes
	}
	if len(p.elsewhere) == 0 {
		return nil
	}
	list := []NodeRows{{Name: home, Rows: p.c.Done}}
	for name, rows := range p.elsewhere {
		list[0].Rows -= rows
		list = append(list, NodeRows{name, rows})
	}
	slices.SortFunc(list[1:], func(a, b NodeRows) int { return cmp.Or(cmp.Compare(b.Rows, a.Rows), cmp.Compare(a.Name, b.Name)) })
	return list
}

// deleted takes the count of a rollback.
func (p *progress) deleted(n uint64, now terse.Millis) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.c.RolledBack = n
	p.bytes, p.total = int64(n), int64(p.c.Created)
	p.measure(n, now)
}

func (p *progress) measure(rows uint64, now terse.Millis) {
	p.n++
	p.at = now
	switch d := now - p.markAt; {
	case p.markAt == 0:
		p.markAt, p.markRows, p.markBytes = now, rows, p.bytes
	case d >= window || p.rows == 0 && d > 0:
		p.rows = float64(rows-p.markRows) / float64(d) * 1000
		p.read = float64(p.bytes-p.markBytes) / float64(d) * 1000
		if d >= window {
			p.markAt, p.markRows, p.markBytes = now, rows, p.bytes
		}
	}
}

func (p *progress) counts(stored Counts) Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.c
	c.Rows = stored.Rows
	return c
}

// part returns how far the run is; what is stored if this process did not run the job.
func (p *progress) part(stored float64) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.total <= 0 {
		return stored
	}
	return min(float64(p.bytes)/float64(p.total), 1)
}

func (p *progress) changes() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n
}

func (p *progress) rate() (rows float64, eta time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.read <= 0 || p.total < p.bytes {
		return p.rows, -1
	}
	return p.rows, time.Duration(float64(p.total-p.bytes) / p.read * float64(time.Second))
}
