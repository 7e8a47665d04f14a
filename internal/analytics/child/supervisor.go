package child

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/duckdb"
	"github.com/terselink/terse/internal/bucket"
	"github.com/terselink/terse/internal/clicks"
)

// Options configure a Supervisor. Zero values mean the defaults named.
type Options struct {
	Exe         string   // the binary; default: the one that runs
	Args        []string // its arguments; default: Subcommand
	Env         []string // added to the environment
	DataDir     string   // the database is in its folder analytics, the record in its folder record
	SpoolDir    string   // default: the folder spool in DataDir
	MemoryLimit int64    // of DuckDB, in bytes; default min(a quarter of the RAM, 2 GiB)
	Threads     int      // of DuckDB; default 2
	SweepLinks  int      // as in duckdb.Options
	Enrich      clicks.EnrichSettings
	Store       *bucket.Options // the record store; default: none
	Log         *slog.Logger    // default: discarded
	Clock       func() time.Time
	MinDelay    time.Duration // before the first restart; default 100 ms
	MaxDelay    time.Duration // doubled up to this; default 30 s

	walBytes int64 // for tests
}

func (o *Options) defaults() error {
	if o.DataDir == "" {
		return terse.Invalid("data", "is missing")
	}
	if o.Exe == "" {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find own binary: %w", err)
		}
		o.Exe = exe
	}
	if o.Args == nil {
		o.Args = []string{Subcommand}
	}
	if o.SpoolDir == "" {
		o.SpoolDir = filepath.Join(o.DataDir, "spool")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.MinDelay == 0 {
		o.MinDelay = 100 * time.Millisecond
	}
	if o.MaxDelay == 0 {
		o.MaxDelay = 30 * time.Second
	}
	return nil
}

// Supervisor keeps a child running and is the engine that it serves. Its methods fail with
// code unavailable (Reason analytics_down) while there is no child to ask; they never wait
// for one to come back. It is a prometheus.Collector.
type Supervisor struct {
	o       Options
	dir     string // of the database
	socket  string
	client  *client
	metrics *metrics

	stop     chan struct{} // closed by Stop
	stopOnce sync.Once
	done     chan struct{} // closed when supervise has returned

	telling sync.Mutex // held while the child is told for how long clicks are kept

	mu       sync.Mutex
	rules    duckdb.Retention // for how long clicks are kept; before SetRetention for ever
	ruled    int              // how often rules were set
	told     int              // the value of ruled whose rules the child has
	process  *os.Process      // nil: none runs
	opened   bool             // the process answers
	last     wireStatus       // as last heard
	heard    time.Time        // when; zero: never
	restarts int64
	aside    int64
	detail   string // why it is down
}

var (
	_ analytics.Engine   = (*Supervisor)(nil)
	_ analytics.FactSink = (*Supervisor)(nil)
)

// Start begins to supervise a child and returns at once; the child needs a moment to
// open its database. Returns an error of code invalid for options that cannot work.
func Start(_ context.Context, o Options) (*Supervisor, error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(filepath.Join(o.DataDir, "analytics"))
	if err != nil {
		return nil, fmt.Errorf("start analytics: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("start analytics: %w", err)
	}
	if err := os.MkdirAll(o.SpoolDir, 0o700); err != nil {
		return nil, fmt.Errorf("start analytics: %w", err)
	}
	socket, err := socketPath(dir)
	if err != nil {
		return nil, fmt.Errorf("start analytics: %w", err)
	}
	s := &Supervisor{o: o, dir: dir, socket: socket, client: newClient(socket), stop: make(chan struct{}), done: make(chan struct{}), detail: "starting"}
	s.metrics = newMetrics(s)
	go s.supervise()
	return s, nil
}

// socketPath returns where the child listens: in dir, or in a private folder of its own if
// that name would be too long for a socket.
func socketPath(dir string) (string, error) {
	const longest = 100 // of 104 bytes on macOS, 108 on Linux
	if path := filepath.Join(dir, "child.sock"); len(path) <= longest {
		return path, nil
	}
	private, err := os.MkdirTemp("", "terse-") // mode 0700
	return filepath.Join(private, "child.sock"), err
}

// Stop ends the child, which commits nothing more, and waits until it is gone; when ctx
// ends first it is killed, which loses nothing. Safe to call twice.
func (s *Supervisor) Stop(ctx context.Context) error {
	s.stopOnce.Do(func() { close(s.stop) })
	select {
	case <-s.done:
	case <-ctx.Done():
		s.kill()
		<-s.done
	}
	s.client.close()
	if filepath.Dir(s.socket) != s.dir {
		if err := os.RemoveAll(filepath.Dir(s.socket)); err != nil {
			return fmt.Errorf("stop analytics: %w", err)
		}
	}
	return nil
}

// supervise runs children until Stop.
func (s *Supervisor) supervise() {
	defer close(s.done)
	// The kernel ties the child to the thread that started it, not to the process
	// (golang/go#27505); this one ends with the goroutine.
	runtime.LockOSThread()
	yieldToParent()
	j := judge{minDelay: s.o.MinDelay, maxDelay: s.o.MaxDelay}
	setAside := false
	for {
		started := s.o.Clock()
		e, err := s.runChild(setAside)
		e.lived = s.o.Clock().Sub(started)
		select {
		case <-s.stop:
			return
		default:
		}
		var delay time.Duration
		delay, setAside = j.next(e)
		s.o.Log.Warn("the analytics process ended and will be restarted", "error", err, "opened", e.opened, "lived", e.lived,
			"delay", delay, "set_aside", setAside)
		s.mu.Lock()
		s.restarts++
		if setAside {
			s.aside++
		}
		s.detail = "restarting: " + errText(err)
		switch e.code {
		case exitLocked:
			s.detail = "waiting: another process uses the analytics file"
		case exitStore:
			s.detail = "waiting: the record is not on this disk, and the record store cannot be read"
		}
		s.mu.Unlock()
		t := time.NewTimer(delay)
		select {
		case <-t.C:
		case <-s.stop:
			t.Stop()
			return
		}
	}
}

func errText(err error) string {
	if err == nil {
		return "it ended by itself"
	}
	return err.Error()
}

// runChild starts a child and returns when it has ended.
func (s *Supervisor) runChild(setAside bool) (ending, error) {
	cmd := exec.Command(s.o.Exe, s.o.Args...)
	cmd.Env = append(os.Environ(), s.o.Env...)
	cmd.SysProcAttr = endWithParent()
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	stderr, err3 := cmd.StderrPipe()
	if err := errors.Join(err1, err2, err3); err != nil {
		return ending{code: exitFailed}, fmt.Errorf("start analytics process: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return ending{code: exitFailed}, fmt.Errorf("start analytics process: %w", err)
	}
	s.setProcess(cmd.Process)
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { s.readEvents(stdout) })
	wg.Go(func() { forwardLog(stderr, s.o.Log) })
	wg.Go(func() { s.talk(stdin, setAside, ended) })
	wg.Go(func() { s.watch(ended) })

	// Both pipes end with the process; Wait may be called only then. The
	// other two goroutines are told by ended.
	state, err := waitFor(cmd, &wg, ended)
	e := ending{code: exitFailed, opened: s.setProcess(nil)}
	if state != nil {
		e.code = state.ExitCode()
		if ws, ok := state.Sys().(syscall.WaitStatus); ok {
			e.killed = ws.Signaled() && ws.Signal() == syscall.SIGKILL
		}
	}
	return e, err
}

// waitFor reaps the process, then waits for the goroutines around it.
func waitFor(cmd *exec.Cmd, wg *sync.WaitGroup, ended chan struct{}) (*os.ProcessState, error) {
	state, err := cmd.Process.Wait() // unlike cmd.Wait it leaves the pipes to their readers
	close(ended)
	wg.Wait()
	if err == nil && !state.Success() {
		err = &exec.ExitError{ProcessState: state}
	}
	return state, err
}

// setProcess notes which process runs and returns whether the one before had opened.
func (s *Supervisor) setProcess(p *os.Process) (opened bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	opened = s.opened
	s.process, s.opened = p, false
	return opened
}

// talk sends the configuration and holds the pipe open until the child shall end.
func (s *Supervisor) talk(stdin io.WriteCloser, setAside bool, ended <-chan struct{}) {
	defer func() { _ = stdin.Close() }()
	spool, err := filepath.Abs(s.o.SpoolDir)
	if err != nil {
		spool = s.o.SpoolDir
	}
	rules, ruled := s.retention()
	line, err := json.Marshal(config{Dir: s.dir, RecordDir: filepath.Join(filepath.Dir(s.dir), "record"), SpoolDir: spool, Socket: s.socket, MemoryLimit: s.o.MemoryLimit, Threads: s.o.Threads,
		Store: s.o.Store, WALBytes: s.o.walBytes, SetAside: setAside, Retention: rules, SweepLinks: s.o.SweepLinks, Enrich: s.o.Enrich})
	if err == nil {
		_, err = stdin.Write(append(line, '\n'))
	}
	if err != nil { // closing the pipe ends the child
		s.o.Log.Error("the analytics process cannot be configured", "error", err)
		return
	}
	s.mu.Lock()
	s.told = ruled
	s.mu.Unlock()
	select {
	case <-s.stop:
	case <-ended:
	}
}

// readEvents waits for the child to say that it answers.
func (s *Supervisor) readEvents(stdout io.ReadCloser) {
	defer func() { _ = stdout.Close() }()
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if lines.Text() == opened {
			s.mu.Lock()
			s.opened = s.process != nil
			s.mu.Unlock()
		}
	}
}

// watch asks the child for its status every second and kills one that has not answered for long. A child that opens
// hears of rules that were set after it was configured.
func (s *Supervisor) watch(ended <-chan struct{}) {
	const every, patience = time.Second, 30 * time.Second
	tick := time.NewTicker(every)
	defer tick.Stop()
	answered := s.o.Clock()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
		}
		now := s.o.Clock()
		if s.isOpen() {
			_ = s.tellRetention(context.Background(), every) // repeated until it succeeds
		}
		if !s.isOpen() || s.ask(context.Background(), every) == nil {
			answered = now
		} else if now.Sub(answered) > patience {
			s.o.Log.Error("the analytics process does not answer and is killed", "silent", now.Sub(answered))
			s.kill()
			return
		}
	}
}

// ask updates what is known of the child.
func (s *Supervisor) ask(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	st, err := s.client.status(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, s.heard = st, s.o.Clock()
	return nil
}

func (s *Supervisor) isOpen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened
}

func (s *Supervisor) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		_ = s.process.Kill() // it may have ended already
	}
}

// Status implements analytics.Engine. While the child is down, Rows and Position are what it said
// last, and LagMs goes on counting.
func (s *Supervisor) Status(ctx context.Context) analytics.Status {
	alive := s.isOpen() && s.ask(ctx, time.Second) == nil
	return s.status(alive)
}

// status returns the last known status, as down unless alive.
func (s *Supervisor) status(alive bool) analytics.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.last.Status
	if alive {
		return st
	}
	st.State, st.Detail = analytics.StateDown, s.detail
	if !s.heard.IsZero() {
		st.LagMs += s.o.Clock().Sub(s.heard).Milliseconds()
	}
	return st
}

// Recorded returns a place in the spool before which every click is in a verified file of the record, as last
// heard: segments before it may be trimmed.
func (s *Supervisor) Recorded() clicks.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last.Recorded
}

// Stored is Recorded for the record store, if there is one.
func (s *Supervisor) Stored() clicks.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last.Stored
}

// Mirrored returns how far the record store is, as last heard.
func (s *Supervisor) Mirrored() duckdb.MirrorStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.last.Mirror
	if s.o.Store != nil && m.Store == "" {
		m.Store = "s3://" + s.o.Store.Bucket // not heard of yet
	}
	return m
}

// SetRetention replaces how long clicks are kept; before the first call a child deletes none. After an error the child
// does not know of it yet: it, or the next one, is told as soon as it answers.
func (s *Supervisor) SetRetention(ctx context.Context, r duckdb.Retention) error {
	s.mu.Lock()
	s.rules = r
	s.ruled++
	s.mu.Unlock()
	if err := s.ready(); err != nil {
		return err
	}
	return s.tellRetention(ctx, time.Minute)
}

// tellRetention sends the child rules that it does not have.
func (s *Supervisor) tellRetention(ctx context.Context, limit time.Duration) error {
	s.telling.Lock()
	defer s.telling.Unlock()
	rules, ruled := s.retention()
	s.mu.Lock()
	known := s.told == ruled
	s.mu.Unlock()
	if known {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := s.client.call(ctx, "/retention", rules, &struct{}{}); err != nil {
		return err
	}
	s.mu.Lock()
	s.told = ruled
	s.mu.Unlock()
	return nil
}

func (s *Supervisor) retention() (rules duckdb.Retention, ruled int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rules, s.ruled
}

// Erase implements analytics.Eraser. It may take minutes.
func (s *Supervisor) Erase(ctx context.Context, e analytics.Erasure) (int64, error) {
	return observe(s, "erase", func() (int64, error) { return s.client.erase(ctx, e) })
}

// Position returns a place in the spool before which every click is committed.
func (s *Supervisor) Position() clicks.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last.Status.Position
}

// Restarts returns how often the child was started again.
func (s *Supervisor) Restarts() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.restarts
}

// ready returns errDown while there is no child to ask.
func (s *Supervisor) ready() error {
	if !s.isOpen() {
		return errDown
	}
	return nil
}

// Summary implements analytics.Engine.
func (s *Supervisor) Summary(ctx context.Context, q analytics.Query) (analytics.Summary, error) {
	return observe(s, "summary", func() (analytics.Summary, error) { return s.client.summary(ctx, q) })
}

// Timeseries implements analytics.Engine.
func (s *Supervisor) Timeseries(ctx context.Context, q analytics.Query) (analytics.Timeseries, error) {
	return observe(s, "timeseries", func() (analytics.Timeseries, error) { return s.client.timeseries(ctx, q) })
}

// Breakdown implements analytics.Engine.
func (s *Supervisor) Breakdown(ctx context.Context, q analytics.Query) (analytics.Breakdown, error) {
	return observe(s, "breakdown", func() (analytics.Breakdown, error) { return s.client.breakdown(ctx, q) })
}

// Slots implements analytics.Engine.
func (s *Supervisor) Slots(ctx context.Context, q analytics.Query) ([]analytics.Slot, error) {
	return observe(s, "slots", func() ([]analytics.Slot, error) { return s.client.slots(ctx, q) })
}

// Clicks implements analytics.Engine.
func (s *Supervisor) Clicks(ctx context.Context, q analytics.Query, p analytics.Page) ([]clicks.Event, error) {
	return observe(s, "clicks", func() ([]clicks.Event, error) { return s.client.clicks(ctx, q, p) })
}

// Funnel implements analytics.Engine.
func (s *Supervisor) Funnel(ctx context.Context, q analytics.Query) (analytics.Funnel, error) {
	return observe(s, "funnel", func() (analytics.Funnel, error) { return s.client.funnel(ctx, q) })
}

// ConversionsBy implements analytics.Engine.
func (s *Supervisor) ConversionsBy(ctx context.Context, q analytics.Query) (analytics.ConversionBreakdown, error) {
	return observe(s, "conversions", func() (analytics.ConversionBreakdown, error) { return s.client.conversions(ctx, q) })
}

// FactsAt implements analytics.FactSink.
func (s *Supervisor) FactsAt(ctx context.Context) (uint64, bool, error) {
	if err := s.ready(); err != nil {
		return 0, false, err
	}
	r, err := s.client.factsAt(ctx)
	return r.Seq, r.Known, err
}

// PutFacts implements analytics.FactSink.
func (s *Supervisor) PutFacts(ctx context.Context, b analytics.FactBatch) error {
	_, err := observe(s, "put_facts", func() (struct{}, error) { return struct{}{}, s.client.putFacts(ctx, b) })
	return err
}

// LinkTotals implements analytics.Engine.
func (s *Supervisor) LinkTotals(ctx context.Context, w terse.WorkspaceID, links []terse.LinkNumber) (map[terse.LinkNumber]analytics.LinkTotal, error) {
	return observe(s, "link_totals", func() (map[terse.LinkNumber]analytics.LinkTotal, error) { return s.client.totals(ctx, w, links) })
}
