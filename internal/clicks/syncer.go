package clicks

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// syncer makes written groups durable beside the writer, so that a slow fsync
// delays no group commit. One fsync answers all who came before it.
type syncer struct {
	r      *Recorder
	kick   chan struct{}
	rotate atomic.Bool // an fsync failed: the writer must begin a new segment

	mu       sync.Mutex
	current  vfs.File
	ended    []vfs.File // to sync and close
	dirty    bool       // something was written since the last fsync
	newNames bool       // the directory has new entries
	waiting  []*commit
	answers  []chan error
	last     bool  // the writer has ended
	err      error // the writer's
}

func newSyncer(r *Recorder) *syncer { return &syncer{r: r, kick: make(chan struct{}, 1)} }

func (s *syncer) begin(f vfs.File) {
	s.mu.Lock()
	s.current, s.newNames, s.dirty = f, true, true
	s.mu.Unlock()
}

func (s *syncer) end(f vfs.File) {
	s.mu.Lock()
	s.ended = append(s.ended, f)
	s.current, s.dirty = nil, true
	s.mu.Unlock()
	s.wakeUp()
}

// written takes over those who wait for what has been written.
func (s *syncer) written(waiting []*commit, answer chan error) {
	s.mu.Lock()
	s.dirty = true
	s.waiting = append(s.waiting, waiting...)
	if answer != nil {
		s.answers = append(s.answers, answer)
	}
	s.mu.Unlock()
	if len(waiting) > 0 || answer != nil {
		s.wakeUp()
	}
}

func (s *syncer) finish(err error) {
	s.mu.Lock()
	s.last, s.err = true, err
	s.mu.Unlock()
	s.wakeUp()
}

func (s *syncer) wakeUp() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

func (s *syncer) run() {
	timer := time.NewTicker(s.r.o.SyncEvery)
	defer timer.Stop()
	maintain := time.NewTicker(time.Minute)
	defer maintain.Stop()
	for {
		select {
		case <-timer.C:
			s.measure()
		case <-maintain.C:
			if s.r.o.Salts != nil {
				if err := s.r.o.Salts.Maintain(); err != nil {
					s.r.o.Log.Error("salts not maintained: new visitors cannot be told apart", "err", err)
				}
			}
			continue
		case <-s.kick:
		}
		if s.sync() {
			return
		}
	}
}

// sync makes everything written so far durable; last: nothing will come after.
func (s *syncer) sync() (last bool) {
	s.mu.Lock()
	current, ended, waiting, answers := s.current, s.ended, s.waiting, s.answers
	dirty, newNames := s.dirty, s.newNames
	s.ended, s.waiting, s.answers, s.dirty, s.newNames = nil, nil, nil, false, false
	last = s.last
	finalErr := s.err
	s.mu.Unlock()

	var err error
	if dirty {
		for _, f := range ended {
			err = errors.Join(err, f.Sync(), f.Close())
		}
		if current != nil {
			err = errors.Join(err, current.Sync())
		}
		if newNames {
			err = errors.Join(err, syncDir(s.r.o.FS, s.r.o.Dir))
		}
		s.r.stats.syncs.Add(1)
	}
	if err != nil {
		// After a failed fsync the kernel may have dropped the pages and a
		// second fsync would lie: begin a new segment.
		s.rotate.Store(true)
		if s.r.stats.syncErrors.Add(1) == 1 {
			s.r.o.Log.Error("clicks cannot be synced: a power cut would lose them", "err", err)
		}
	}
	for _, w := range waiting {
		w.err = err
		close(w.done)
	}
	for _, a := range answers {
		a <- err
	}
	if last {
		s.r.closeErr = errors.Join(finalErr, err)
	}
	return last
}

// measure refreshes the size of the spool, which Trim makes smaller in whatever process.
func (s *syncer) measure() {
	if ids, err := listSegments(s.r.o.FS, s.r.o.Dir); err == nil {
		s.r.dirBytes.Store(segmentBytes(s.r.o.FS, s.r.o.Dir, ids))
	}
}

// makeDir makes a directory so that a power cut cannot take its name away:
// without that, synced files in it would be gone.
func makeDir(fs vfs.FS, dir string) error {
	var missing []string
	for d := dir; ; d = fs.PathDir(d) {
		if _, err := fs.Stat(d); err == nil || d == fs.PathDir(d) {
			break
		}
		missing = append(missing, d)
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range missing {
		if err := syncDir(fs, fs.PathDir(d)); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
